//! What the official image and ZooKeeper's scripts do, without a shell: `zabd container`, and `zabd` under
//! the names `docker-entrypoint.sh` and `zkServer.sh`.

mod entrypoint;
mod zk_server;

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command};

use self::entrypoint::Variables;
use crate::exit;

/// What the arguments ask for.
#[derive(Debug)]
pub enum Asked {
    /// To go on as `zabd` with these arguments.
    Server(Vec<OsString>),
    /// Nothing more: the exit code.
    Done(u8),
}

/// Answers the arguments if the program is asked for by one of the names, or for `zabd container` or
/// `zabd zkServer`; `None` if it is not.
#[must_use]
pub fn run(arguments: &[OsString]) -> Option<Asked> {
    let (name, rest) = arguments.split_first()?;
    let name = Path::new(name).file_name()?.to_str()?;
    let words = Vec::from_iter(rest.iter().map(|word| word.to_string_lossy().into_owned()));
    let (first, after) =
        words.split_first().map_or(("", &[][..]), |(f, after)| (f.as_str(), after));
    if first == "container" || first == "zkServer" {
        // Help is the table's business.
        if after.iter().any(|word| word == "--help" || word == "-h") {
            return None;
        }
    }
    match (name, first) {
        ("zkServer.sh", _) => Some(zk_server::run(&words)),
        ("docker-entrypoint.sh", _) => Some(container(&words)),
        (_, "container") => Some(container(after)),
        (_, "zkServer") => Some(zk_server::run(after)),
        _ => None,
    }
}

/// For the table of commands; they are answered before it is asked.
pub(super) fn commands() -> [Command; 2] {
    let rest = || Arg::new("words").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    [
        Command::new("container")
            .about("The entry point of an image: configuration from ZOO_* variables, then the server")
            .after_help(
                "Also under the name docker-entrypoint.sh. ZOO_CONF_DIR (/conf), ZOO_DATA_DIR (/data), \
                 ZOO_DATA_LOG_DIR (/datalog), ZOO_MY_ID, ZOO_SERVERS and the others of the official image; \
                 NAME_FILE names a file with the value.",
            )
            .arg(rest().help("zkServer.sh start-foreground, or nothing")),
        Command::new("zkServer")
            .about("zkServer.sh: start-foreground, status, version, print-cmd")
            .after_help("Also under the name zkServer.sh. Exit code of status: 0 if the server serves.")
            .arg(rest().help("[--config DIR] VERB [FILE]")),
    ]
}

/// The image's entry point: prepares the directories, then does what `zkServer.sh` does with the rest.
fn container(words: &[String]) -> Asked {
    let verbs = match words.split_first() {
        None => &[][..],
        Some((first, verbs)) if first == "zkServer.sh" => verbs,
        Some((other, _)) => {
            return fail(&format!(
                "{other} is not in this image, but zkServer.sh start-foreground is"
            ));
        }
    };
    let prepared = Variables::from_env().and_then(|variables| {
        if let Some(code) = entrypoint::step_down(&variables) {
            return Ok(Err(code));
        }
        entrypoint::prepare(&variables).map(Ok)
    });
    match prepared {
        Ok(Ok(config)) if verbs.is_empty() => zk_server::start(&config),
        Ok(Ok(_)) => zk_server::run(verbs),
        Ok(Err(code)) => Asked::Done(code),
        Err(error) => fail(&error),
    }
}

fn fail(why: &str) -> Asked {
    eprintln!("zabd: {why}");
    Asked::Done(exit::INVALID)
}
