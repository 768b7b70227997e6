//! How others are asked: in the clear, or through TLS with what this server's own stores hold.

use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use zab_tls::{ClientSettings, Dialer, Names, Settings, SetupError};
use zk_client::Host;
use zk_client::blocking::{Dial, Tcp, Tls};

use super::{Findings, PATIENCE};
use crate::config::ServerConfig;

/// TLS as this server would speak it with others of its kind.
#[derive(Debug)]
pub(super) struct Secure {
    /// To client ports.
    pub(super) clients: Option<Tls>,
    /// To election ports, if members speak it.
    pub(super) members: Option<Tls>,
}

impl Secure {
    /// What the configuration has; what cannot be used is found by the check of certificates, too.
    pub(super) fn new(config: &ServerConfig, findings: &mut Findings) -> Self {
        let mut open = |settings: Option<&Settings>, names| {
            let settings = settings?;
            let dialer = Dialer::new(&client_settings(settings, names)?);
            match dialer {
                Ok(dialer) => Some(Tls::new(dialer)),
                // A certificate for servers only is as it should be on a client port.
                Err(SetupError::NotForClients(_)) => None,
                Err(error) => {
                    let text = format!("it cannot be tried against others: {error}");
                    findings.warn("certificates", text);
                    None
                }
            }
        };
        let tls = &config.tls;
        let clients = open(tls.clients.as_ref(), Names::Ignored);
        let of_members = tls.members.as_ref().filter(|_| tls.ports.dial_peers);
        let members = open(of_members, of_members.map_or(Names::Ignored, |of| of.server_names));
        Self { clients, members }
    }
}

/// Without a trust store nobody can be told from anybody else.
fn client_settings(settings: &Settings, names: Names) -> Option<ClientSettings> {
    Some(ClientSettings {
        key_store: Some(settings.key_store.clone()),
        crl_file: settings.crl_file.clone(),
        tls12: settings.tls12,
        tls13: settings.tls13,
        suites: settings.suites.clone(),
        server_names: names,
        ..ClientSettings::new(settings.trust_store.clone()?)
    })
}

/// Connects, through TLS if it is given, and goes away again. How long it took.
pub(super) fn connect(host: &str, port: u16, tls: Option<&Tls>) -> io::Result<Duration> {
    let host = Host { name: host.to_owned(), port };
    let began = Instant::now();
    match tls {
        Some(tls) => tls.clone().dial(&host, PATIENCE)?.close(),
        None => Tcp.dial(&host, PATIENCE)?.close(),
    }
    Ok(began.elapsed())
}

/// Sends `question` and reads to the end, or to what is enough for this. Also says when the answer began.
pub(super) fn ask(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
    question: &str,
) -> io::Result<(String, Duration)> {
    let host = Host { name: host.to_owned(), port };
    let connection = match tls {
        Some(tls) => tls.clone().dial(&host, PATIENCE)?,
        None => Tcp.dial(&host, PATIENCE)?,
    };
    let began = Instant::now();
    let mut left = question.as_bytes();
    while !left.is_empty() {
        left = &left[connection.write(left)?..];
    }
    let (mut answer, mut first) = (Vec::new(), None);
    let mut buf = vec![0; 4096];
    while answer.len() < ANSWER_LEN_MAX && began.elapsed() < PATIENCE {
        match connection.read(&mut buf, PATIENCE.saturating_sub(began.elapsed())) {
            Ok(0) => break,
            Ok(len) => {
                first.get_or_insert_with(|| began.elapsed());
                answer.extend_from_slice(&buf[..len]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What has come will do.
            Err(_) if first.is_some() => break,
            Err(error) => return Err(error),
        }
    }
    connection.close();
    let first = first.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), first))
}

/// Whether the host has an address; who asks for something else has said so before if not.
pub(super) fn has_address(host: &str) -> bool {
    (host, 0).to_socket_addrs().is_ok_and(|mut found| found.next().is_some())
}

const ANSWER_LEN_MAX: usize = 64 << 10;
