//! The AdminServer's commands: their names, and what each answers.
//!
//! Source: recorded answers of ZooKeeper 3.8.0 and 3.9.4, `zabd/tests/vectors/admin`.

pub(crate) mod answers;
mod ensemble;
pub(crate) mod process;

use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::options::AdminOptions;
use crate::source::Source;

/// What commands without the service answer.
pub(crate) const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// A command of the AdminServer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Command {
    /// Its name.
    pub(crate) name: &'static str,
    /// Further names.
    pub(crate) aliases: &'static [&'static str],
    /// It is answered by a server that serves only.
    pub(crate) needs_service: bool,
    /// It is for those who may do everything with the root.
    pub(crate) needs_authorization: bool,
}

const fn plain(name: &'static str, aliases: &'static [&'static str]) -> Command {
    Command { name, aliases, needs_service: true, needs_authorization: false }
}

const fn always(name: &'static str, aliases: &'static [&'static str]) -> Command {
    Command { name, aliases, needs_service: false, needs_authorization: false }
}

/// A restored member waits until a quorum is restored: `restore` is for those that do not serve, too.
const fn authorized(
    name: &'static str,
    aliases: &'static [&'static str],
    needs_service: bool,
) -> Command {
    Command { name, aliases, needs_service, needs_authorization: true }
}

/// All, sorted by their names.
pub(crate) const COMMANDS: [Command; 28] = [
    plain("configuration", &["conf", "config"]),
    plain("connection_stat_reset", &["crst"]),
    plain("connections", &["cons"]),
    plain("dirs", &[]),
    plain("dump", &[]),
    always("environment", &["env", "envi"]),
    always("get_trace_mask", &["gtmk"]),
    plain("hash", &[]),
    plain("initial_configuration", &["icfg"]),
    plain("is_read_only", &["isro"]),
    plain("last_snapshot", &["lsnp"]),
    plain("leader", &["lead"]),
    plain("monitor", &["mntr"]),
    plain("observer_connection_stat_reset", &["orst"]),
    plain("observers", &["obsr"]),
    authorized("restore", &["rest"], false),
    plain("ruok", &[]),
    plain("server_stats", &["srvr"]),
    always("set_trace_mask", &["stmk"]),
    authorized("snapshot", &["snap"], true),
    plain("stat_reset", &["srst"]),
    plain("stats", &["stat"]),
    always("system_properties", &["sysp"]),
    plain("voting_view", &[]),
    plain("watch_summary", &["wchs"]),
    plain("watches", &["wchc"]),
    plain("watches_by_path", &["wchp"]),
    always("zabstate", &[]),
];

impl Command {
    /// The command of this name or alias.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let is_it = |command: &&Self| command.name == name || command.aliases.contains(&name);
        COMMANDS.iter().find(is_it).copied()
    }
}

/// The keys of an answer in their order, `command` and `error` apart.
pub(crate) type Fields = Map<String, Value>;

/// The answer to a command.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    fields: Fields,
    error: Option<String>,
}

impl Answer {
    pub(crate) fn new(fields: Fields) -> Self {
        Self { status: StatusCode::OK, fields, error: None }
    }

    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, fields: Fields::new(), error: Some(text.into()) }
    }

    pub(crate) fn refused(status: StatusCode, text: Option<&str>) -> Self {
        Self { status, fields: Fields::new(), error: text.map(str::to_owned) }
    }

    /// The same with these keys.
    pub(crate) fn with(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }

    /// As JSON, with the name of the command that was asked for.
    pub(crate) fn json(self, command: &str) -> Value {
        let mut fields = self.fields;
        fields.insert("command".into(), command.into());
        fields.insert("error".into(), self.error.into());
        Value::Object(fields)
    }
}

/// The list of commands, as a page of links.
pub(crate) fn index(url: &str) -> String {
    let link = |name| format!("<a href=\"{url}/{name}\">{name}</a>\n<br/>\n");
    COMMANDS.iter().map(|command| link(command.name)).collect()
}

/// Answers a command that needs no authorization.
pub(crate) async fn run(
    command: Command,
    query: &str,
    source: &Source,
    options: &AdminOptions,
) -> Answer {
    if command.needs_service && !source.ask(|look| look.serves()).await.unwrap_or(false) {
        return not_serving(source).await;
    }
    let answer = match command.name {
        "get_trace_mask" => Some(Answer::new(process::trace_mask())),
        "set_trace_mask" => Some(process::set_trace_mask(query)),
        "system_properties" => Some(Answer::new(process::properties(options))),
        "initial_configuration" => Some(Answer::new(process::initial_configuration(options))),
        "last_snapshot" => Some(Answer::new(process::last_snapshot(options))),
        "dirs" => Some(Answer::new(process::dirs(options))),
        "environment" => source
            .ask(process::environment)
            .await
            .map(|fields| Answer::new(process::with_memory(fields))),
        "stat_reset" => {
            let done = source.tell(zk_service::Service::reset_stats).await;
            done.map(|()| Answer::new(Fields::new()))
        }
        "connection_stat_reset" => {
            let done = source.tell(zk_service::Service::reset_connection_stats).await;
            done.map(|()| Answer::new(Fields::new()))
        }
        "server_stats" | "stats" => answers::stats(command.name == "stats", source, options).await,
        name => match answers::of_look(name) {
            Some(answer) => source.ask(answer).await,
            // Its figures are not kept, so that there is nothing to be set back.
            None => Some(Answer::new(Fields::new())),
        },
    };
    answer.unwrap_or_else(|| Answer::error(NOT_SERVING))
}

/// ZooKeeper's sentence; after it, for whom or what the server waits.
async fn not_serving(source: &Source) -> Answer {
    let waits = source.ask(|look| look.standing().waits_for).await.flatten();
    let mut answer = Answer::error(NOT_SERVING);
    if let Some(waits) = waits {
        answer.fields.insert("waits_for".into(), waits.into());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
        let all = COMMANDS.iter().flat_map(|c| std::iter::once(&c.name).chain(c.aliases));
        let mut all: Vec<&&str> = all.collect();
        all.sort();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        for name in all {
            assert!(Command::named(name).is_some());
        }
        assert_eq!(Command::named("nosuchcommand"), None);
    }
}
