//! The command line of the shell itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zk_client::properties::ClientProperties;

use crate::line;
use crate::printer::Printer;
use crate::shell::Shell;

/// How the shell is started: the options of `zkCli.sh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) server: String,
    pub(crate) timeout: Duration,
    pub(crate) read_only: bool,
    pub(crate) wait: bool,
    pub(crate) json: bool,
    /// TLS and logins.
    pub(crate) properties: ClientProperties,
    pub(crate) command: Vec<String>,
}

impl Start {
    /// Options that are not known are passed over, as by `zkCli.sh`. What must be said about the
    /// arguments comes second.
    fn parse(arguments: &[String], properties: ClientProperties) -> Result<(Self, String), String> {
        let mut start = Self {
            server: "localhost:2181".to_owned(),
            timeout: Duration::from_secs(30),
            read_only: false,
            wait: false,
            json: false,
            properties,
            command: Vec::new(),
        };
        let mut warnings = String::new();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if let Some(property) = property(option) {
                if option.starts_with("--tls-") {
                    start.properties.set(SECURE, "true");
                }
                let value = rest.next();
                let missing = || format!("Error: no argument found for option {option}");
                start.properties.set(property, value.ok_or_else(missing)?);
                continue;
            }
            let mut value = || {
                rest.next().ok_or_else(|| format!("Error: no argument found for option {option}"))
            };
            match option.as_str() {
                "-server" => start.server.clone_from(value()?),
                "-timeout" => {
                    let text = value()?;
                    let ms = text.parse().map_err(|_| format!("-timeout: {text} is no number"))?;
                    start.timeout = Duration::from_millis(ms);
                }
                "-r" => start.read_only = true,
                "-waitforconnection" => start.wait = true,
                "--json" => start.json = true,
                "-client-configuration" => start
                    .properties
                    .read_file(Path::new(value()?))
                    .map_err(|error| format!("-client-configuration: {error}"))?,
                "--tls" => start.properties.set(SECURE, "true"),
                "--tls-any-name" => {
                    start.properties.set("zookeeper.ssl.hostnameVerification", "false");
                }
                flag if flag.starts_with("-D") => start.properties.take_flags(flag),
                other if other.starts_with('-') => {
                    warnings.push_str(&format!("unknown option {other} is ignored\n"));
                }
                command => {
                    start.command = vec![command.to_owned()];
                    start.command.extend(rest.cloned());
                    break;
                }
            }
        }
        // `--json` may also stand where people put it: after the command.
        if let Some(at) = start.command.iter().position(|word| word == "--json") {
            start.command.remove(at);
            start.json = true;
        }
        for warning in start.properties.warnings() {
            warnings.push_str(&format!("{warning}\n"));
        }
        Ok((start, warnings))
    }
}

const SECURE: &str = "zookeeper.client.secure";

/// The property that an option of the command line with a value stands for.
fn property(option: &str) -> Option<&'static str> {
    Some(match option {
        "--tls-ca" => "zookeeper.ssl.trustStore.location",
        "--tls-ca-password-file" => "zookeeper.ssl.trustStore.passwordPath",
        "--tls-cert" => "zookeeper.ssl.keyStore.location",
        "--tls-key" => "zab.tls.keyFile",
        "--tls-cert-password-file" => "zookeeper.ssl.keyStore.passwordPath",
        "--sasl-user" => "zab.sasl.user",
        "--sasl-password-file" => "zab.sasl.passwordPath",
        _ => return None,
    })
}

/// Properties as `zkCli.sh` hands them to Java.
fn of_environment() -> ClientProperties {
    let mut properties = ClientProperties::default();
    for name in ["CLIENT_JVMFLAGS", "JVMFLAGS"] {
        properties.take_flags(&std::env::var(name).unwrap_or_default());
    }
    properties
}

/// Runs the shell with these arguments, those of `zkCli.sh`: the exit code.
#[must_use]
pub fn run(arguments: &[String]) -> u8 {
    let printer = Arc::new(Printer::default());
    let start = match Start::parse(arguments, of_environment()) {
        Ok((start, warnings)) => {
            printer.err(&warnings);
            start
        }
        Err(error) => {
            printer.err(&format!("{error}\n"));
            return 2;
        }
    };
    let command = start.command.clone();
    let mut shell = match Shell::new(start, Arc::clone(&printer)) {
        Ok(shell) => shell,
        Err(error) => {
            printer.err(&format!("{error}\n"));
            return 1;
        }
    };
    match command.is_empty() {
        true => line::read(&mut shell),
        false => shell.run(&command),
    }
    shell.exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Start, String), String> {
        Start::parse(&crate::args::words(line), ClientProperties::default())
    }

    #[test]
    fn options_of_tls_and_logins() {
        let (start, warnings) =
            parse("--tls-ca a.pem --sasl-user bob -Dzookeeper.fips-mode=true ls /").unwrap();
        let mut expected = ClientProperties::default();
        expected.take_flags(
            "-Dzookeeper.client.secure=true -Dzookeeper.ssl.trustStore.location=a.pem -Dzab.sasl.user=bob \
             -Dzookeeper.fips-mode=true",
        );
        assert_eq!((start.properties, &*warnings), (expected, ""));
        assert_eq!(start.command, ["ls", "/"]);
        assert!(parse("--tls-ca").is_err());
        let (_, warnings) = parse("-Dzookeeper.ssl.keyStore.location=a ls /").unwrap();
        assert!(warnings.contains("the connection is not encrypted"), "{warnings}");
    }

    #[test]
    fn options_of_zk_cli() {
        let (start, warnings) =
            parse("-server a:1,b/x -timeout 5 -r -new get -s /a --json").unwrap();
        assert_eq!((&*start.server, start.timeout.as_millis()), ("a:1,b/x", 5));
        assert!(start.read_only && start.json && !start.wait);
        assert_eq!(start.command, ["get", "-s", "/a"]);
        assert_eq!(warnings, "unknown option -new is ignored\n");
        assert!(parse("-server").is_err());
        assert!(parse("-timeout x").is_err());
        assert!(
            parse("-client-configuration /nowhere get /").unwrap_err().contains("/nowhere: No")
        );
        assert_eq!(parse("").unwrap().0.server, "localhost:2181");
    }
}
