//! The members of the ensemble.

use serde_json::json;
use zab_sasl::properties::{self, Entry};
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
    let request = reconfig_request(parsed)?;
    let Answer::Data(data, stat) = shell.call(&request)? else { return Err(unexpected()) };
    let text = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    let stat = parsed.has("s").then_some(stat);
    let json = json!({"config": text});
    Ok(Said::out(format!("Committed new configuration:\n{text}\n"), json).and_stat(stat.as_ref()))
}

/// Mistakes in the order in which `zkCli.sh` finds them.
fn reconfig_request(parsed: &Parsed) -> Result<Request, Failure> {
    let whole = parsed.has("file") || parsed.has("members");
    let parts = parsed.has("add") || parsed.has("remove");
    if !whole && !parts {
        let usage = super::find("reconfig").map_or_else(String::new, |command| command.usage());
        return Err(Failure::new(usage));
    }
    let version = match parsed.value("v").map(|text| i64::from_str_radix(text, 16)) {
        None => -1,
        Some(Ok(version)) => version,
        Some(Err(_)) => {
            return Err(Failure::new("-v must be followed by a long (configuration version)"));
        }
    };
    if whole && parts {
        return Err(Failure::new(
            "Can't use -file or -members together with -add or -remove (mixing incremental and \
             non-incremental modes is not allowed)",
        ));
    }
    if parsed.has("file") && parsed.has("members") {
        return Err(Failure::new(
            "Can't use -file and -members together (conflicting non-incremental modes)",
        ));
    }
    let value = |option: &str| parsed.value(option).map(str::to_lowercase);
    let members = match parsed.value("file") {
        Some(file) => Some(members_of(file)?),
        None => value("members"),
    };
    let (joining, leaving) = (value("add"), value("remove"));
    Ok(Request::Reconfig { joining, leaving, members, version })
}

/// The lines of a configuration file that say who the members are and how they vote, as a server takes them:
/// with commas between.
fn members_of(file: &str) -> Result<String, Failure> {
    let failed = |reason: String| Failure::new(format!("Error processing {file}{reason}"));
    let bytes = std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(format!("{file} (No such file or directory)")),
        _ => failed(format!("{file} ({error})")),
    })?;
    let entries = properties::parse(&bytes)
        .map_err(|line| failed(format!(": line {line} has a malformed escape")))?;
    let mut lines = Vec::new();
    for Entry { key, value, .. } in entries {
        match key.split('.').next() {
            Some("server" | "group" | "weight") => lines.push(format!("{key}={value}")),
            _ if key == "version" => {}
            _ => return Err(failed(format!("Unrecognised parameter: {key}"))),
        }
    }
    Ok(lines.join(","))
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

    fn request(line: &str) -> Result<Request, String> {
        let words = crate::args::words(line);
        let options = crate::commands::find("reconfig").unwrap().options;
        reconfig_request(&Parsed::new(&words, options)?).map_err(|failure| failure.text)
    }

    #[test]
    fn what_is_asked_of_the_ensemble() {
        let joining = Some("server.4=h:1:2:observer;3".to_owned());
        let (leaving, members) = (Some("2,3".to_owned()), None);
        assert_eq!(
            request("reconfig -add server.4=H:1:2:OBSERVER;3 -remove 2,3 -v 1F").unwrap(),
            Request::Reconfig { joining, leaving, members, version: 0x1f }
        );
        for (line, reason) in [
            ("reconfig", "reconfig [-s]"),
            ("reconfig -v x", "reconfig [-s]"),
            ("reconfig -v x -add a", "-v must be"),
            ("reconfig -file f -members m -add a", "Can't use -file or -members together"),
            ("reconfig -members m -remove 1", "Can't use -file or -members together"),
            ("reconfig -file f -members m", "Can't use -file and -members together"),
            ("reconfig -file /no", "Error processing /no/no (No such file or directory)"),
        ] {
            let error = request(line).unwrap_err();
            assert!(error.starts_with(reason), "{line}: {error}");
        }
    }

    #[test]
    fn members_from_a_file() {
        let path = std::env::temp_dir().join(format!("zk-shell-members-{}", std::process::id()));
        let file = path.to_str().unwrap();
        let text = "# all\nserver.1 = a:1:2;3\nserver.2=b:1:2:participant;3\ngroup.1=1:2\nweight.2=0\nversion=5\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            members_of(file).map_err(|failure| failure.text).unwrap(),
            "server.1=a:1:2;3,server.2=b:1:2:participant;3,group.1=1:2,weight.2=0"
        );
        std::fs::write(&path, "server.1=a:1:2;3\ntickTime=5\n").unwrap();
        assert!(members_of(file).unwrap_err().text.ends_with("Unrecognised parameter: tickTime"));
        std::fs::remove_file(&path).unwrap();
    }
}
