//! `zabd doctor`: what is wrong on this machine, or will be, before a server finds out.
//!
//! It may run beside the server. All that it writes is one small file beside the log, which it syncs a few
//! times with pauses and removes; to other members it connects and goes away again.

mod clock;
mod files;
mod machine;
mod network;
mod reach;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use crate::config::{ServerConfig, SystemProperties};
use crate::{exit, logging};

/// How bad something is. The exit code is that of the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Ok,
    Warning,
    Failure,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }

    /// Monitoring plug-ins agree on these numbers.
    fn exit_code(self) -> u8 {
        match self {
            Self::Ok => exit::OK,
            Self::Warning => 1,
            Self::Failure => 2,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    check: &'static str,
    level: Level,
    text: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Level::Ok, text);
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Level::Warning, text);
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Level::Failure, text);
    }

    fn push(&mut self, check: &'static str, level: Level, text: impl Into<String>) {
        self.0.push(Finding { check, level, text: text.into() });
    }

    fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Looks for what would trouble a server on this machine")
        .after_help(
            "Directories and rights, disk latency, ports, names, descriptors, clock, certificates, the \
             other members and their versions. Run it as the user that the server runs as. It does a \
             running server no harm. Exit code 0: nothing; 1: a warning; 2: a failure.",
        )
        .arg(
            Arg::new("config")
                .value_name("zoo.cfg")
                .value_parser(value_parser!(PathBuf))
                .required(true)
                .help("The server's configuration"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON object with all findings"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    logging::init_quiet();
    let Some(path) = matches.get_one::<PathBuf>("config") else { return exit::INVALID };
    let mut findings = Findings::default();
    match ServerConfig::load(path, SystemProperties::default()) {
        Ok(config) => {
            let name = path.display();
            findings.ok("configuration", format!("{name} can be used"));
            look(&config, &mut findings);
        }
        Err(error) => findings.fail("configuration", error.to_string()),
    }
    let worst = findings.worst();
    let text = match matches.get_flag("json") {
        true => as_json(&findings),
        false => as_text(&findings),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => worst.exit_code(),
        Err(_) => exit::UNEXPECTED,
    }
}

fn look(config: &ServerConfig, findings: &mut Findings) {
    let running = files::check(config, findings);
    machine::check(config, findings);
    network::check(config, running, findings);
    clock::check(config, findings);
    certificates(config, findings);
}

fn certificates(config: &ServerConfig, findings: &mut Findings) {
    const CHECK: &str = "certificates";
    match crate::tls::open(config) {
        Ok(None) => {}
        Err(error) => findings.fail(CHECK, error.to_string()),
        Ok(Some(tls)) => {
            let days = tls.expires_in().map(|left| left.as_secs() / 86_400);
            match days {
                Some(0) => findings
                    .fail(CHECK, "a certificate of this server expires today, or has expired"),
                Some(days) if days <= EXPIRES_SOON_DAYS => {
                    findings.warn(
                        CHECK,
                        format!("a certificate of this server expires in {days} days"),
                    );
                }
                Some(days) => findings.ok(CHECK, format!("valid for {days} days")),
                None => findings.ok(CHECK, "readable"),
            }
        }
    }
}

/// How long others have for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server's own log begins to warn then, too.
const EXPIRES_SOON_DAYS: u64 = 30;

fn as_text(findings: &Findings) -> String {
    let mut text = String::new();
    for Finding { check, level, text: what } in &findings.0 {
        text.push_str(&format!("{:<8} {check:<14} {what}\n", level.name()));
    }
    text
}

fn as_json(findings: &Findings) -> String {
    let list = findings.0.iter().map(|finding| {
        json!({
            "check": finding.check,
            "level": finding.level.name(),
            "text": finding.text,
        })
    });
    let list = list.collect::<Vec<_>>();
    format!("{:#}\n", json!({ "worst": findings.worst().name(), "findings": list }))
}
