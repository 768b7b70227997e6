//! The command line.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use runtime_any::Runtime;
use zabd::config::{Origin, SystemProperties, keys};
use zabd::java_env::JavaEnv;
use zabd::local::{self, LocalOptions};
use zabd::server::{self, Source};
use zabd::{exit, inspect, logging};

fn main() -> ExitCode {
    #[cfg(feature = "shell")]
    if let Some(arguments) = shell_arguments() {
        return zk_shell::run(&arguments).into();
    }
    let matches = match command().try_get_matches() {
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
    if matches.subcommand_name() == Some("keys") {
        let written = std::io::stdout().lock().write_all(keys::markdown().as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { exit::UNEXPECTED.into() };
    }
    let arguments: Vec<String> =
        matches.get_many("config").map_or_else(Vec::new, |values| values.cloned().collect());
    logging::init();
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

fn command() -> Command {
    Command::new("zabd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A ZooKeeper server")
        .override_usage(
            "zabd [-Dname=value]... [--java-env FILE]... <zoo.cfg>\n       \
             zabd [-Dname=value]... <clientPort> <dataDir> [tickTime] [maxClientCnxns]\n       \
             zabd ensemble [--nodes N] [--observers N] [--dir DIR] [--client-port PORT]\n       \
             zabd inspect log|snapshot|identity [--json] FILE\n       \
             zabd shell [-server host:port,...[/root]] [-timeout ms] [-r] [command ...]\n       \
             zabd keys",
        )
        .after_help(
            "SERVER_JVMFLAGS and JVMFLAGS are searched for -Dname=value, too. RUST_LOG sets what \
             is logged (error, warn, info, debug, trace).",
        )
        .args_conflicts_with_subcommands(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("config")
                .num_args(1..=4)
                .required(true)
                .help("The configuration file, or port and directory of a server without one"),
        )
        .arg(
            Arg::new("property")
                .short('D')
                .value_name("name=value")
                .action(ArgAction::Append)
                .help("Sets a system property, such as zookeeper.snapCount=10000"),
        )
        .arg(
            Arg::new("java-env")
                .long("java-env")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .action(ArgAction::Append)
                .help(
                    "Reads SERVER_JVMFLAGS, JVMFLAGS and JAVA_OPTS from plain assignments of a file \
                     such as conf/java.env, conf/zookeeper-env.sh or Debian's conf/environment; \
                     several files in the order given",
                ),
        )
        .arg(
            // For the parent of a local ensemble: end when stdin does.
            Arg::new("with-parent").long("with-parent").hide(true).action(ArgAction::SetTrue),
        )
        .arg(runtime())
        .subcommand(ensemble())
        .subcommand(inspect_command())
        .subcommand(
            Command::new("shell")
                .about("A client: zkCli.sh's commands, and more (help tells them)")
                .disable_help_flag(true),
        )
        .subcommand(
            Command::new("keys")
                .about("Prints all configuration keys, and what becomes of each, as Markdown"),
        )
}

fn inspect_command() -> Command {
    let kind = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .required(true),
            )
            .arg(
                Arg::new("json")
                    .long("json")
                    .action(ArgAction::SetTrue)
                    .help("One JSON object per line"),
            )
    };
    Command::new("inspect")
        .about("Prints a file of a data directory, and tells whether it is whole")
        .after_help(
            "Exit code 0: the file is whole; 4: the log ends in a torn record, as after a crash; 5: \
             the file is damaged; 1: it cannot be read.",
        )
        .subcommand_required(true)
        .subcommand(kind("log", "A transaction log, log.<zxid>"))
        .subcommand(kind("identity", "The id of the ensemble, ensembleId"))
        .subcommand(kind("snapshot", "A snapshot, snapshot.<zxid>, .gz and .snappy as well"))
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

fn runtime() -> Arg {
    Arg::new("runtime")
        .long("runtime")
        .value_parser(Vec::from_iter(Runtime::ALL.iter().map(|runtime| runtime.name())))
        .default_value("mio")
        .help("The event loop to run on")
}

fn ensemble() -> Command {
    let number = |name: &'static str, default: &'static str| {
        let arg = Arg::new(name).long(name).value_name("N").default_value(default);
        arg.value_parser(value_parser!(u16).range(0..=64))
    };
    Command::new("ensemble")
        .about("Runs a whole ensemble on this machine until Ctrl-C")
        .arg(number("nodes", "3").help("Voting servers"))
        .arg(number("observers", "0").help("Servers that only learn"))
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_parser(value_parser!(PathBuf))
                .help("Where to keep configurations, data and logs [default: temporary]"),
        )
        .arg(
            Arg::new("client-port")
                .long("client-port")
                .value_parser(value_parser!(u16))
                .default_value("2181")
                .help("Client port of the first server, the others follow; 0: any free ones"),
        )
        .arg(runtime())
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
    Ok(properties)
}
