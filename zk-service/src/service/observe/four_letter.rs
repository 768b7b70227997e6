//! The four-letter words: which there are, and what each says.

use std::fmt::Write;

use zab_proto::{ConnId, Core};

use crate::cost;
use crate::service::observe::View;
use crate::service::observe::mntr;
use crate::service::observe::report::{Conns, Dump, Safety, Srvr, WatchesByPath, WatchesBySession};

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// Sent by telnet clients that give up; ends the connection like a word.
const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];
const WORDS: [&str; 19] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "safe",
    "srst", "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];
/// Size of the buffer that ZooKeeper writes the answer to a word through.
const TEXT_BUFFER_LEN_BYTES: usize = 8192;
/// What `gtmk` says: ZooKeeper's trace mask, which nothing here follows.
const TRACE_MASK: u32 = 306;

/// What a connection may begin with instead of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Opening {
    Word(&'static str),
    /// A telnet client gives up.
    TelnetClose,
}

/// What to set back before a word is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Reset {
    /// Figures of the server: `srst`.
    Server,
    /// Figures of its connections: `crst`.
    Connections,
}

impl Opening {
    /// `None`: a handshake, or noise.
    pub(in crate::service) fn read(head: [u8; 4]) -> Option<Self> {
        if head == TELNET_CLOSE {
            return Some(Self::TelnetClose);
        }
        let word = std::str::from_utf8(&head).ok()?;
        WORDS.binary_search(&word).ok().map(|at| Self::Word(WORDS[at]))
    }
}

/// In how many pieces ZooKeeper sends a text of so many bytes: that many packets it counts.
pub(in crate::service) fn pieces(len: usize) -> u64 {
    len.div_ceil(TEXT_BUFFER_LEN_BYTES) as u64
}

/// What a word sets back.
pub(in crate::service) fn resets(word: &str) -> Option<Reset> {
    match word {
        "srst" => Some(Reset::Server),
        "crst" => Some(Reset::Connections),
        _ => None,
    }
}

/// Whether this word is answered only by a server that serves clients.
pub(super) fn needs_service(word: &str) -> bool {
    !matches!(word, "ruok" | "isro" | "envi" | "gtmk" | "stmk" | "safe")
}

/// The answer to a word from the connection `asking`, where `rest` came after it.
pub(in crate::service) fn answer(
    view: &View<'_, '_>,
    is_serving: bool,
    asking: ConnId,
    (word, rest): (&str, &[u8]),
) -> String {
    if needs_service(word) && !is_serving {
        return not_serving(view.core, word);
    }
    let version = &view.env.options.version;
    match word {
        "ruok" => "imok".into(),
        "safe" => Safety::new(view).to_string(),
        "isro" if view.role.is_read_only() => "ro".into(),
        "isro" => if is_serving { "rw" } else { "null" }.into(),
        "envi" => environment(view),
        "gtmk" => TRACE_MASK.to_string(),
        // Without a mask there is no answer, and none is waited for.
        "stmk" => {
            let mask = rest.first_chunk().map(|mask| i64::from_be_bytes(*mask));
            mask.map_or_else(String::new, |mask| mask.to_string())
        }
        "srst" => "Server stats reset.\n".into(),
        "crst" => "Connection stats reset.\n".into(),
        "dirs" => {
            let (data, log) = dir_sizes(view);
            format!("datadir_size: {data}\nlogdir_size: {log}\n")
        }
        "conf" => configuration(view),
        "cons" => Conns::new(view, asking, true).to_string(),
        "stat" => {
            let (conns, srvr) = (Conns::new(view, asking, false), Srvr::new(view));
            format!("Zookeeper version: {version}\nClients:\n{conns}{srvr}")
        }
        "srvr" => format!("Zookeeper version: {version}\n{}", Srvr::new(view)),
        "dump" => Dump::new(view).to_string(),
        "wchs" => view.watches.summary().to_string(),
        "wchc" => WatchesBySession::new(view).to_string(),
        "wchp" => WatchesByPath::new(view).to_string(),
        "hash" => digests(view),
        _ => mntr::text(view),
    }
}

/// Bytes of the snapshots and of the logs, as last known.
fn dir_sizes(view: &View<'_, '_>) -> (u64, u64) {
    view.env.options.dir_sizes.as_ref().map_or((0, 0), |sizes| sizes.read())
}

fn environment(view: &View<'_, '_>) -> String {
    let mut out = format!("Environment:\nzookeeper.version={}\n", view.env.options.version);
    for (key, value) in &view.env.options.environment {
        let _ = writeln!(out, "{key}={value}");
    }
    out
}

fn configuration(view: &View<'_, '_>) -> String {
    let mut out = String::new();
    let (data, log) = dir_sizes(view);
    for (key, value) in &view.env.options.conf {
        let _ = writeln!(out, "{key}={value}");
        match key.as_str() {
            "dataDir" => drop(writeln!(out, "dataDirSize={data}")),
            "dataLogDir" => drop(writeln!(out, "dataLogSize={log}")),
            _ => {}
        }
    }
    if let Some(membership) = &view.env.options.membership {
        let _ = write!(out, "membership: \n{membership}");
    }
    out
}

fn digests(view: &View<'_, '_>) -> String {
    let mut out = String::new();
    for digest in view.state.db().digest_history() {
        let _ = writeln!(out, "{:x}: {}", digest.zxid.raw(), digest.digest);
    }
    out
}

/// ZooKeeper's sentence; after it, on the words that monitors ask for the state, for whom or what
/// this server waits, in the form that each of these words has its lines in.
fn not_serving(core: &Core<'_>, word: &str) -> String {
    match (core.peer().waits_for(), word) {
        (Some(waits), "mntr") => format!("{NOT_SERVING}zk_waits_for\t{waits}\n"),
        (Some(waits), "srvr" | "stat") => format!("{NOT_SERVING}Waiting: {waits}\n"),
        _ => NOT_SERVING.into(),
    }
}

/// About what a word will cost: many of them list everything of a kind.
pub(in crate::service) fn word_cost(view: &View<'_, '_>, head: [u8; 4]) -> u64 {
    let entries = match &head {
        b"wchc" | b"wchp" | b"wchs" => 2 * view.watches.len(),
        b"cons" | b"stat" | b"crst" => 2 * view.clients.len(),
        b"dump" => {
            view.state.tree().ephemerals_count()
                + view.state.db().sessions.len()
                + view.local.len()
                + view.clients.len()
        }
        b"hash" => 1024,
        _ => 0,
    };
    cost::REQUEST + cost::NODE * entries as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted());
        for word in WORDS {
            let head = word.as_bytes().try_into().expect("four letters");
            assert_eq!(Opening::read(head), Some(Opening::Word(word)));
        }
        assert_eq!(Opening::read([0, 0, 0, 44]), None, "the length of a handshake");
    }
}
