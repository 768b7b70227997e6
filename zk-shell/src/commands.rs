//! The commands: what they are called, how they are used, what they do.

mod members;
mod more;
mod nodes;
mod own;
mod peers;
mod quota;
mod watches;

use std::fmt::Write;

use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

/// The words of the line, before and after options were taken out.
type Run = fn(&mut Shell, &[String], &Parsed) -> Result<Said, Failure>;

pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Behind the name.
    help: &'static str,
    /// In the form of [`Parsed::new`].
    pub(crate) options: &'static str,
    /// Words after the name without which the usage is shown.
    pub(crate) words_min: usize,
    pub(crate) needs_session: bool,
    pub(crate) run: Run,
}

impl Command {
    const fn new(
        name: &'static str,
        help: &'static str,
        options: &'static str,
        words_min: usize,
        run: Run,
    ) -> Self {
        Self { name, help, options, words_min, needs_session: true, run }
    }

    const fn of_shell(name: &'static str, help: &'static str, run: Run) -> Self {
        Self { name, help, options: "", words_min: 0, needs_session: false, run }
    }

    pub(crate) fn usage(&self) -> String {
        format!("{} {}", self.name, self.help)
    }
}

/// Those of `zkCli.sh`.
static COMMANDS: [Command; 30] = [
    Command::new(
        "addWatch",
        "[-m mode] path # optional mode is one of [PERSISTENT, PERSISTENT_RECURSIVE] - default is \
         PERSISTENT_RECURSIVE",
        "m:",
        1,
        watches::add_watch,
    ),
    Command::new("addauth", "scheme auth", "", 1, nodes::add_auth),
    Command::new("close", "", "", 0, more::close),
    Command::new("config", "[-c] [-w] [-s]", "c w s", 0, members::config),
    Command::of_shell("connect", "host:port", more::connect),
    Command::new(
        "create",
        "[-s] [-e] [-c] [-t ttl] path [data] [acl]",
        "s e c t:",
        1,
        nodes::create,
    ),
    Command::new("delete", "[-v version] path", "v:", 1, nodes::delete),
    Command::new("deleteall", "path [-b batch size]", "b:", 1, nodes::delete_all),
    Command::new("delquota", "[-n|-b|-N|-B] path", "n b N B", 1, quota::delete),
    Command::new("get", "[-s] [-w] path", "s w b x", 1, nodes::get),
    Command::new("getAcl", "[-s] path", "s", 1, nodes::get_acl),
    Command::new("getAllChildrenNumber", "path", "", 1, nodes::number),
    Command::new("getEphemerals", "path", "", 0, nodes::ephemerals),
    Command::of_shell("history", "", more::history),
    Command::new("listquota", "path", "", 1, quota::list),
    Command::new("ls", "[-s] [-w] [-R] path", "? s w R", 1, nodes::list),
    Command::of_shell("printwatches", "on|off", more::print_watches),
    Command::of_shell("quit", "", more::quit),
    Command::new(
        "reconfig",
        "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | \
         [-add serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]",
        "s v: file: members: add: remove:",
        0,
        members::reconfig,
    ),
    Command::of_shell("redo", "cmdno", more::redo),
    Command::new("removewatches", "path [-c|-d|-a] [-l]", "c d a l", 1, watches::remove),
    Command::new("set", "[-s] [-v version] path data", "s v: b", 2, nodes::set),
    Command::new("setAcl", "[-s] [-v version] [-R] path acl", "s v: R", 2, nodes::set_acl),
    Command::new("setquota", "-n|-b|-N|-B val path", "n: b: N: B:", 1, quota::set),
    Command::new("stat", "[-w] path", "w", 1, nodes::stat),
    Command::new("sync", "path", "", 1, nodes::sync),
    Command::new("version", "", "", 0, more::version),
    Command::new("whoami", "", "", 0, nodes::who_am_i),
    // Of 3.10.
    Command::of_shell("exit", "", more::quit),
    Command::of_shell("help", "", more::help),
];

/// Those of our own.
static OWN: [Command; 11] = [
    Command::new("cd", "[path]", "", 0, own::cd),
    Command::new("cp", "[-r] from to [host:port]", "r", 2, own::copy),
    Command::new("diff", "path path|host:port", "", 2, own::diff),
    Command::new("dump", "path [file]", "", 1, own::dump),
    Command::new("find", "path [text]", "", 1, own::find),
    Command::new("load", "file [path]", "f", 1, own::load),
    Command::new("peers", "", "", 0, peers::peers),
    Command::new("pwd", "", "", 0, own::pwd),
    Command::new("top", "[-n rounds]", "n:", 0, peers::top),
    Command::new("tree", "[-s] [-d depth] [path]", "s d:", 0, own::tree),
    Command::new("watch", "[-R] [-n events] path", "R n:", 1, own::watch),
];

pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().chain(&OWN).find(|command| command.name == name)
}

pub(crate) fn names() -> impl Iterator<Item = String> {
    COMMANDS.iter().chain(&OWN).map(|command| command.name.to_owned())
}

/// What is told when a command does not exist.
pub(crate) fn usage() -> String {
    let mut text =
        "ZooKeeper -server host:port -client-configuration properties-file cmd args\n".to_owned();
    for command in COMMANDS.iter().take(COMMANDS.len() - 2).chain(&OWN) {
        let _ = writeln!(text, "\t{}", command.usage());
    }
    text
}
