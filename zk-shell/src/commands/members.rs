//! The members of the ensemble.

use serde_json::json;
use zk_client::{Answer, Request};

use super::nodes::unexpected;
use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

/// Clients' addresses and version of a configuration, as `version host:port,host:port`.
fn client_string(text: &str) -> String {
    let (mut version, mut addresses) = ("", Vec::new());
    for line in text.lines() {
        match line.split_once('=') {
            Some(("version", value)) => version = value,
            Some((key, value)) if key.starts_with("server.") => {
                addresses.extend(value.split_once(';').map(|(_, address)| address));
            }
            _ => {}
        }
    }
    format!("{version} {}", addresses.join(","))
}

pub(super) fn config(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let request = Request::GetConfig { watch: parsed.has("w") };
    let Answer::Data(data, stat) = shell.call(&request)? else { return Err(unexpected()) };
    let text = match &data {
        None => "null".to_owned(),
        Some(data) => String::from_utf8_lossy(data).into_owned(),
    };
    let text = if parsed.has("c") { client_string(&text) } else { text };
    let json = json!({"config": text});
    let stat = parsed.has("s").then_some(stat);
    Ok(Said::out(format!("{text}\n"), json).and_stat(stat.as_ref()))
}

pub(super) fn reconfig(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let version = match parsed.value("v").map(|text| i64::from_str_radix(text, 16)) {
        None => -1,
        Some(Ok(version)) => version,
        Some(Err(_)) => {
            return Err(Failure::new("-v must be followed by a long (configuration version)"));
        }
    };
    let value = |option: &str| parsed.value(option).map(str::to_owned);
    let (joining, leaving) = (value("add"), value("remove"));
    let incremental = joining.is_some() || leaving.is_some();
    let members = match (value("file"), value("members")) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "Can't use -file and -members together (conflicting non-incremental modes)",
            ));
        }
        (Some(_), None) | (None, Some(_)) if incremental => {
            return Err(Failure::new(
                "Can't use -file or -members together with -add or -remove (mixing incremental \
                 and non-incremental modes is not allowed)",
            ));
        }
        (Some(file), None) => {
            let text = std::fs::read_to_string(&file);
            let text =
                text.map_err(|error| Failure::new(format!("Error processing {file}: {error}")))?;
            let servers = text.lines().filter(|line| line.starts_with("server."));
            Some(servers.collect::<Vec<_>>().join(","))
        }
        (None, members) => members,
    };
    if !incremental && members.is_none() {
        let usage = super::find("reconfig").map_or_else(String::new, |command| command.usage());
        return Err(Failure::new(usage));
    }
    let request = Request::Reconfig { joining, leaving, members, version };
    let Answer::Data(data, stat) = shell.call(&request)? else { return Err(unexpected()) };
    let text = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    let stat = parsed.has("s").then_some(stat);
    let json = json!({"config": text});
    Ok(Said::out(format!("Committed new configuration:\n{text}\n"), json).and_stat(stat.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_need_of_a_configuration() {
        let text = "server.1=a:2888:3888:participant;0.0.0.0:2181\n\
                    server.2=b:2888:3888:observer;b:2182\nversion=100000000";
        assert_eq!(client_string(text), "100000000 0.0.0.0:2181,b:2182");
    }
}
