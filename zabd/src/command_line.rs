//! The command line's table: what can be asked for, and its help.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};
use runtime_any::Runtime;

/// The whole of it.
#[must_use]
pub fn command() -> Command {
    Command::new("zabd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A ZooKeeper server")
        .override_usage(
            "zabd [-Dname=value]... [--java-env FILE]... <zoo.cfg>\n       \
             zabd [-Dname=value]... <clientPort> <dataDir> [tickTime] [maxClientCnxns]\n       \
             zabd ensemble [--nodes N] [--observers N] [--dir DIR] [--client-port PORT]\n       \
             zabd inspect log|snapshot|identity [--json] FILE\n       \
             zabd shell [-server host:port,...[/root]] [-timeout ms] [-r] [command ...]\n       \
             zabd backup [--gzip] MEMBER BACKUP\n       \
             zabd restore [--epoch N] BACKUP MEMBER...\n       \
             zabd container [zkServer.sh start-foreground]\n       \
             zabd doctor [--json] <zoo.cfg>\n       \
             zabd recover [--voters N] [--execute TOKEN] MEMBER...\n       \
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
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORM")
                .value_parser(["text", "json"])
                .help("The form of the log: text, or one JSON object a line (key zab.log.format)"),
        )
        .arg(runtime())
        .subcommand(ensemble())
        .subcommand(inspect_command())
        .subcommands(crate::operate::commands())
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
