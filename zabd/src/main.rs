//! The program: what the command line asks for.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::ErrorKind;
use runtime_any::Runtime;
use zabd::config::{Origin, SystemProperties, keys};
use zabd::java_env::JavaEnv;
use zabd::local::{self, LocalOptions};
use zabd::operate::container::{self, Asked};
use zabd::server::{self, Source};
use zabd::{command_line, exit, inspect, logging, operate, pages};

fn main() -> ExitCode {
    #[cfg(feature = "shell")]
    if let Some(arguments) = shell_arguments() {
        return zk_shell::run(&arguments).into();
    }
    let mut arguments = Vec::from_iter(std::env::args_os());
    match container::run(&arguments) {
        None => {}
        Some(Asked::Server(server)) => arguments = server,
        Some(Asked::Done(code)) => return code.into(),
    }
    let matches = match command_line::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed stderr leaves nowhere to say so.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { exit::INVALID.into() };
        }
    };
    if let Some(("ensemble", matches)) = matches.subcommand() {
        return local::run(&local_options(matches)).into();
    }
    if let Some(("inspect", matches)) = matches.subcommand() {
        return inspect_file(matches).into();
    }
    if let Some(code) = operate::run(&matches) {
        return code.into();
    }
    if matches.subcommand_name() == Some("keys") {
        let written = std::io::stdout().lock().write_all(keys::markdown().as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { exit::UNEXPECTED.into() };
    }
    let arguments: Vec<String> =
        matches.get_many("config").map_or_else(Vec::new, |values| values.cloned().collect());
    logging::init();
    pages::prefer_large();
    let source = match <[String; 1]>::try_from(arguments) {
        Ok([path]) => Source::File(PathBuf::from(path)),
        Err(arguments) => Source::Arguments(arguments),
    };
    let with_parent = matches.get_flag("with-parent");
    let runtime = matches.get_one::<String>("runtime").and_then(|name| Runtime::from_name(name));
    let runtime = runtime.unwrap_or_default();
    match system_properties(&matches) {
        Ok(properties) => server::run(&source, properties, runtime, with_parent).into(),
        Err(error) => {
            log::error!("Invalid config, exiting abnormally: --java-env: {error}");
            exit::INVALID.into()
        }
    }
}

/// The arguments of the shell, if that is what is asked for: `zabd shell`, or any name under which
/// ZooKeeper's own is known. They are not clap's business, as an option has one dash there.
#[cfg(feature = "shell")]
fn shell_arguments() -> Option<Vec<String>> {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_string_lossy();
    let by_name = ["zkCli.sh", "zkCli", "zkcli", "zk-shell"].contains(&name.as_ref());
    let mut arguments = arguments.peekable();
    (by_name || arguments.next_if(|first| first == "shell").is_some()).then(|| arguments.collect())
}

fn inspect_file(matches: &ArgMatches) -> u8 {
    let Some((kind, matches)) = matches.subcommand() else { return exit::INVALID };
    let Some(file) = matches.get_one::<PathBuf>("file") else { return exit::INVALID };
    let kind = match kind {
        "log" => inspect::Kind::Log,
        "identity" => inspect::Kind::Identity,
        _ => inspect::Kind::Snapshot,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    inspect::run(kind, file, matches.get_flag("json"), &mut out, &mut std::io::stderr())
}

fn local_options(matches: &ArgMatches) -> LocalOptions {
    let number = |name| matches.get_one::<u16>(name).copied().unwrap_or_default();
    LocalOptions {
        voters: number("nodes"),
        observers: number("observers"),
        dir: matches.get_one::<PathBuf>("dir").cloned(),
        client_port: number("client-port"),
        runtime: matches.get_one::<String>("runtime").cloned().unwrap_or_default(),
    }
}

/// The command line's properties win over the files', and these over the environment's.
fn system_properties(matches: &ArgMatches) -> Result<SystemProperties, String> {
    let mut java = JavaEnv::default();
    for path in matches.get_many::<PathBuf>("java-env").into_iter().flatten() {
        java.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut properties = java.properties();
    for option in matches.get_many::<String>("property").into_iter().flatten() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        properties.set(Origin::CommandLine, name, value);
    }
    if let Some(form) = matches.get_one::<String>("log-format") {
        properties.set(Origin::CommandLine, "zab.log.format", form);
    }
    Ok(properties)
}
