//! Asking each member for itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zk_client::blocking::Dial;
use zk_client::{Answer, Host, Request, parse_connect_string};

use super::nodes::unexpected;
use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

/// The answer to a four-letter word is far shorter.
const ANSWER_LEN_MAX: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a member says of itself.
fn ask_member(dial: &mut dyn Dial, host: &Host) -> io::Result<BTreeMap<String, String>> {
    let connection = dial.dial(host, TIMEOUT)?;
    connection.write(b"srvr")?;
    let until = Instant::now() + TIMEOUT;
    let (mut text, mut buf) = (Vec::new(), [0; 4096]);
    while text.len() < ANSWER_LEN_MAX {
        let left = until.saturating_duration_since(Instant::now());
        match connection.read(&mut buf, left) {
            Ok(0) => break,
            Ok(len) => text.extend_from_slice(&buf[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    connection.close();
    let text = String::from_utf8_lossy(&text);
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Client addresses of the members, from the configuration or, without one, from the connect string. The
/// configuration has only those that are not encrypted.
fn addresses(shell: &Shell) -> Result<Vec<String>, Failure> {
    let of_connect_string = || -> Result<Vec<String>, Failure> {
        let (hosts, _) = parse_connect_string(&shell.server).map_err(Failure::new)?;
        Ok(hosts.iter().map(ToString::to_string).collect())
    };
    if shell.is_secure() {
        return of_connect_string();
    }
    let Answer::Data(data, _) = shell.call(&Request::GetConfig { watch: false })? else {
        return Err(unexpected());
    };
    let text = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    let mut found = Vec::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let Some((peer, client)) = value.split_once(';').filter(|_| key.starts_with("server."))
        else {
            continue;
        };
        let host = peer.split(':').next().unwrap_or_default();
        let address = match client.rsplit_once(':') {
            Some(("0.0.0.0" | "[::]", port)) => format!("{host}:{port}"),
            Some(_) => client.to_owned(),
            None => format!("{host}:{client}"),
        };
        found.push(address);
    }
    if found.is_empty() { of_connect_string() } else { Ok(found) }
}

pub(super) fn peers(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    let mut text = format!(
        "{:<24} {:<12} {:<20} {:>11} {:>11} {:>9}\n",
        "member", "mode", "zxid", "connections", "outstanding", "nodes"
    );
    let mut json = Vec::new();
    let mut dial = shell.dial()?;
    for address in addresses(shell)? {
        let host = parse_connect_string(&address).map_err(Failure::new)?.0.remove(0);
        match ask_member(&mut *dial, &host) {
            Ok(said) => {
                let of = |key: &str| said.get(key).map_or("-", String::as_str);
                let _ = writeln!(
                    text,
                    "{address:<24} {:<12} {:<20} {:>11} {:>11} {:>9}",
                    of("Mode"),
                    of("Zxid"),
                    of("Connections"),
                    of("Outstanding"),
                    of("Node count")
                );
                json.push(json!({"member": address, "says": said}));
            }
            Err(error) => {
                let _ = writeln!(text, "{address:<24} {error}");
                json.push(json!({"member": address, "error": error.to_string()}));
            }
        }
    }
    Ok(Said::out(text, Value::Array(json)))
}

/// `peers` again and again.
pub(super) fn top(shell: &mut Shell, words: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let rounds: u64 = match parsed.value("n").map(str::parse) {
        None => u64::MAX,
        Some(Ok(rounds)) => rounds,
        Some(Err(_)) => return Err(Failure::new("-n argument must be a number")),
    };
    for round in 0..rounds {
        if round > 0 {
            std::thread::sleep(Duration::from_secs(1));
        }
        let said = peers(shell, words, parsed)?;
        shell.printer.out(&match shell.is_json() {
            true => format!("{}\n", said.json),
            false => format!("{}\n", said.out),
        });
    }
    Ok(Said::default())
}
