//! Ports and names of this server, and the other members.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

use zab_proto::{Member, Sid};
use zk_client::blocking::Tls;

use super::reach::{Secure, ask, connect};
use super::{Findings, Level};
use crate::config::ServerConfig;

pub(super) fn check(config: &ServerConfig, running: bool, findings: &mut Findings) {
    let secure = Secure::new(config, findings);
    own_ports(config, running, &secure, findings);
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for (sid, member) in &config.ensemble.members {
        if *sid == config.sid {
            own_names(config, member, findings);
        } else {
            other(config, *sid, member, &secure, &mut versions, findings);
        }
    }
    if running
        && let Some((host, port, tls)) = client_port(config, None, &secure)
        && let Some(version) = version(&client_host(host), port, tls)
    {
        versions.entry(version).or_default().push("this one".into());
    }
    if versions.len() > 1 {
        let list = versions.iter().map(|(version, who)| format!("{version} ({})", who.join(", ")));
        let list = Vec::from_iter(list).join("; ");
        findings.warn("versions", format!("the members differ: {list}"));
    } else if let Some((version, who)) = versions.first_key_value() {
        findings.ok("versions", format!("{version} ({})", who.join(", ")));
    }
}

/// Where a port on all addresses can be reached from here.
fn client_host(host: &str) -> String {
    match host {
        "" | "0.0.0.0" | "::" => "localhost".into(),
        host => host.into(),
    }
}

/// The ports of this server: taken by it if it runs, free if it does not.
fn own_ports(config: &ServerConfig, running: bool, secure: &Secure, findings: &mut Findings) {
    let mut ports = Vec::new();
    for (name, client) in
        [("clientPort", &config.client), ("secureClientPort", &config.tls.secure_client)]
    {
        ports.extend(client.iter().map(|(host, port)| (name, host.clone(), *port)));
    }
    let own = config.ensemble.members.get(&config.sid);
    for address in own.iter().flat_map(|member| &member.addresses) {
        let all = config.listen_on_all_ips;
        let host = if all { "0.0.0.0".into() } else { address.host.clone() };
        ports.push(("election port", host.clone(), address.election_port));
        // The quorum port is the leader's, as with ZooKeeper: bound by each, or by one.
        if !running {
            ports.push(("quorum port", host, address.quorum_port));
        }
    }
    for (name, host, port) in ports {
        let text = format!("{name} {host}:{port}");
        if running {
            let tls = match name {
                "secureClientPort" => secure.clients.as_ref(),
                "election port" => secure.members.as_ref(),
                _ => None,
            };
            let with = if tls.is_some() { " answers, with TLS" } else { " answers" };
            match connect(&client_host(&host), port, tls) {
                Ok(_) => findings.ok("ports", text + with),
                Err(error) => {
                    findings.fail("ports", format!("{text}: the server runs, but: {error}"));
                }
            }
            continue;
        }
        match bind(&host, port) {
            Ok(()) => findings.ok("ports", text + " is free"),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                findings.fail(
                    "ports",
                    format!("{text} is taken by another program, or by a ZooKeeper"),
                );
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                findings.fail("ports", format!("{text}: {error}"));
            }
            Err(error) => findings.warn("ports", format!("{text}: {error}")),
        }
    }
}

fn bind(host: &str, port: u16) -> io::Result<()> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    TcpListener::bind((host, port)).map(drop)
}

/// Under its name this server must find itself, and the others must, too.
fn own_names(config: &ServerConfig, member: &Member, findings: &mut Findings) {
    let others_are_far = config.ensemble.members.iter().any(|(sid, other)| {
        *sid != config.sid && other.addresses.iter().any(|address| !is_loopback(&address.host))
    });
    for address in &member.addresses {
        let host = &address.host;
        let Some(found) = look_up(host, findings, true) else { continue };
        if found.iter().all(IpAddr::is_loopback) && others_are_far {
            findings.warn(
                "names",
                format!(
                    "this server's own name {host} stands for {} here: it listens there, and the others \
                     cannot reach it (quorumListenOnAllIPs=true, or mend /etc/hosts)",
                    found[0]
                ),
            );
        } else if !found.iter().any(|ip| TcpListener::bind((*ip, 0)).is_ok()) {
            findings.warn(
                "names",
                format!("{host} stands for {}, which is no address of this machine", found[0]),
            );
        } else {
            findings.ok("names", format!("{host} is this machine ({})", found[0]));
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The addresses of a name; `None`, and a finding, if it has none.
fn look_up(host: &str, findings: &mut Findings, own: bool) -> Option<Vec<IpAddr>> {
    let began = Instant::now();
    let found = (host, 0).to_socket_addrs().map(|found| Vec::from_iter(found.map(|a| a.ip())));
    let took = began.elapsed();
    if took > SLOW_LOOKUP {
        let text = format!("it takes {:.1} s to look up {host}", took.as_secs_f64());
        findings.warn("names", text);
    }
    let why = match found {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => "no address".into(),
        Err(error) => error.to_string(),
    };
    let text = format!("{host} cannot be looked up: {why}");
    let level = if own { Level::Failure } else { Level::Warning };
    findings.push("names", level, text);
    None
}

/// Where a server answers its clients: at `own`, if it has that of its own, else where this configuration says, in
/// the clear or with TLS alone.
fn client_port<'a>(
    config: &'a ServerConfig,
    own: Option<&'a (String, u16)>,
    secure: &'a Secure,
) -> Option<(&'a str, u16, Option<&'a Tls>)> {
    if let Some((host, port)) = own.or(config.client.as_ref()) {
        return Some((host, *port, None));
    }
    let (host, port) = config.tls.secure_client.as_ref()?;
    Some((host, *port, Some(secure.clients.as_ref()?)))
}

/// Another member: its election port takes connections, its client port tells its version.
fn other(
    config: &ServerConfig,
    sid: Sid,
    member: &Member,
    secure: &Secure,
    versions: &mut BTreeMap<String, Vec<String>>,
    findings: &mut Findings,
) {
    for address in &member.addresses {
        if look_up(&address.host, findings, false).is_none() {
            continue;
        }
        let text = format!("{sid}: {}", address.host_port(address.election_port));
        let tls = secure.members.as_ref();
        let with = if tls.is_some() { " answers, with TLS" } else { " answers" };
        match connect(&address.host, address.election_port, tls) {
            Ok(took) if took > SLOW_CONNECT => {
                let ms = took.as_millis();
                findings.warn("members", format!("{text} takes {ms} ms to connect to"));
            }
            Ok(_) => findings.ok("members", text + with),
            Err(error) => findings.warn("members", format!("{text} cannot be reached: {error}")),
        }
        let client = client_port(config, member.client.as_ref(), secure);
        let version = client.and_then(|(_, port, tls)| version(&address.host, port, tls));
        if let Some(version) = version {
            versions.entry(version).or_default().push(sid.to_string());
        }
    }
}

/// What a server calls itself, by `srvr`, which is allowed by default.
fn version(host: &str, port: u16, tls: Option<&Tls>) -> Option<String> {
    let (answer, _) = ask(host, port, tls, "srvr").ok()?;
    let line = answer.lines().find_map(|line| line.strip_prefix("Zookeeper version: "))?;
    Some(line.split([',', '-']).next().unwrap_or(line).trim().to_owned())
}

const SLOW_LOOKUP: Duration = Duration::from_secs(1);
const SLOW_CONNECT: Duration = Duration::from_millis(200);
