//! The command line of the shell itself.

use std::sync::Arc;
use std::time::Duration;

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
    pub(crate) command: Vec<String>,
}

impl Start {
    /// Options that are not known are passed over, as by `zkCli.sh`. What has to be said about the
    /// arguments comes second.
    fn parse(arguments: &[String]) -> Result<(Self, String), String> {
        let mut start = Self {
            server: "localhost:2181".to_owned(),
            timeout: Duration::from_secs(30),
            read_only: false,
            wait: false,
            json: false,
            command: Vec::new(),
        };
        let mut warnings = String::new();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
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
                "-client-configuration" => {
                    return Err(format!(
                        "-client-configuration {}: not supported yet (it is for TLS and SASL)",
                        value()?
                    ));
                }
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
        // `--json` may also stand where people put it: behind the command.
        if let Some(at) = start.command.iter().position(|word| word == "--json") {
            start.command.remove(at);
            start.json = true;
        }
        Ok((start, warnings))
    }
}

/// Runs the shell with these arguments, those of `zkCli.sh`: the exit code.
#[must_use]
pub fn run(arguments: &[String]) -> u8 {
    let printer = Arc::new(Printer::default());
    let start = match Start::parse(arguments) {
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
        Start::parse(&crate::args::words(line))
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
        assert!(parse("-client-configuration f get /").is_err());
        assert_eq!(parse("").unwrap().0.server, "localhost:2181");
    }
}
