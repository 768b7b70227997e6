//! The four-letter words: a server's state as text, for people and monitoring.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, civil};
use zab_proto::{Core, Instant, Zxid};

use crate::connection::schedule::cost;
use crate::connection::{Client, Life};
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::service::Service;

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// Sent by telnet clients that give up; ends the connection like a word.
const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];
const WORDS: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst",
    "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];
/// Size of the buffer that ZooKeeper writes the answer to a word through.
const TEXT_BUFFER_LEN_BYTES: usize = 8192;
/// What `gtmk` says: ZooKeeper's trace mask, which nothing here follows.
const TRACE_MASK: u32 = 306;

impl Service {
    /// Executes a word at the beginning of a connection. False: it is none.
    pub(crate) fn four_letter_word(
        &mut self,
        core: &Core<'_>,
        slot: u32,
        head: [u8; 4],
        rest: &[u8],
    ) -> bool {
        if head == TELNET_CLOSE {
            self.close(slot, false);
            return true;
        }
        let word = std::str::from_utf8(&head).unwrap_or_default();
        if WORDS.binary_search(&word).is_err() {
            return false;
        }
        self.charge(slot, self.word_cost(head));
        self.metrics.stats.received += 1;
        if let Some(client) = self.clients.get_mut(slot) {
            client.stats.received += 1;
        }
        let text = if self.env.options.allows_word(word) {
            self.execute(core, slot, word, rest)
        } else {
            format!("{word} is not executed because it is not in the whitelist.\n")
        };
        // ZooKeeper counts the pieces that the text goes through its buffer in.
        let sent = text.len().div_ceil(TEXT_BUFFER_LEN_BYTES) as u64;
        self.metrics.stats.sent += sent;
        if let Some(client) = self.client(slot) {
            let unsent = client.unsent();
            client.out.buffer().extend_from_slice(text.as_bytes());
            client.stats.sent += sent;
            self.clients.wrote(slot, unsent);
        }
        self.close(slot, true);
        true
    }

    fn execute(&mut self, core: &Core<'_>, slot: u32, word: &str, rest: &[u8]) -> String {
        let serving = self.serves_clients();
        match word {
            "ruok" => return "imok".into(),
            "isro" => return if serving { "rw" } else { "null" }.into(),
            "envi" => return self.envi(),
            "gtmk" => return TRACE_MASK.to_string(),
            // Without a mask there is no answer, and none is waited for.
            "stmk" => {
                let mask = rest.first_chunk().map(|mask| i64::from_be_bytes(*mask));
                return mask.map_or_else(String::new, |mask| mask.to_string());
            }
            _ if !serving => return not_serving(core, word),
            _ => {}
        }
        let mut out = String::new();
        match word {
            "srst" => {
                self.metrics = Metrics::default();
                self.env.options.figures.iter().for_each(|(_, figure)| figure.reset());
                if let Some(fsyncs) = &self.env.options.fsync_times {
                    fsyncs.reset();
                }
                out.push_str("Server stats reset.\n");
            }
            "crst" => {
                for client in self.clients.iter_mut() {
                    client.stats.reset();
                }
                out.push_str("Connection stats reset.\n");
            }
            "dirs" => {
                let (data, log) = (self.env.options.dir_sizes)();
                let _ = writeln!(out, "datadir_size: {data}\nlogdir_size: {log}");
            }
            "conf" => self.conf(&mut out),
            "cons" => {
                self.put_connections(core, slot, true, &mut out);
                out.push('\n');
            }
            "stat" => {
                let _ = writeln!(out, "Zookeeper version: {}\nClients:", self.env.options.version);
                self.put_connections(core, slot, false, &mut out);
                out.push('\n');
                self.put_summary(core, &mut out);
            }
            "srvr" => {
                let _ = writeln!(out, "Zookeeper version: {}", self.env.options.version);
                self.put_summary(core, &mut out);
            }
            "dump" => self.dump(core, &mut out),
            "wchs" | "wchc" | "wchp" => self.put_watches(word, &mut out),
            "hash" => {
                for digest in self.state.db().digest_history() {
                    let _ = writeln!(out, "{:x}: {}", digest.zxid.raw(), digest.digest);
                }
            }
            _ => self.mntr(core, &mut out),
        }
        out
    }

    fn envi(&self) -> String {
        let mut out = format!("Environment:\nzookeeper.version={}\n", self.env.options.version);
        for (key, value) in &self.env.options.environment {
            let _ = writeln!(out, "{key}={value}");
        }
        out
    }

    fn conf(&self, out: &mut String) {
        for (key, value) in &self.env.options.conf {
            let _ = writeln!(out, "{key}={value}");
        }
        if let Some(membership) = &self.env.options.membership {
            let _ = write!(out, "membership: \n{membership}");
        }
    }

    fn put_connections(&self, core: &Core<'_>, asking: u32, full: bool, out: &mut String) {
        for (slot, client) in self.clients.iter().filter(|(_, c)| c.state != Life::Closed) {
            let interest = i32::from(slot != asking);
            put_connection(core.now(), client, interest, full, out);
        }
    }

    fn put_summary(&self, core: &Core<'_>, out: &mut String) {
        let Stats { latency_min_ms: min, latency_max_ms: max, received, sent, .. } =
            self.metrics.stats;
        let avg = self.metrics.stats.latency_avg();
        let _ = writeln!(out, "Latency min/avg/max: {min}/{avg}/{max}");
        let _ = writeln!(out, "Received: {received}\nSent: {sent}");
        let _ = writeln!(out, "Connections: {}", self.clients.len());
        let _ = writeln!(out, "Outstanding: {}", self.outstanding());
        let _ = writeln!(out, "Zxid: {:#x}", self.shown_zxid(core).raw());
        let _ = writeln!(out, "Mode: {}", self.status.mode());
        let _ = writeln!(out, "Node count: {}", self.node_count());
        if self.status.mode() == "leader" {
            let (last, min, max) = self.proposal_sizes();
            let _ = writeln!(out, "Proposal sizes last/min/max: {last}/{min}/{max}");
        }
    }

    /// The last zxid; on a leader at least the beginning of its epoch, which monitors tell the epoch
    /// from.
    fn shown_zxid(&self, core: &Core<'_>) -> Zxid {
        let last = self.state.last_zxid();
        match core.next_zxid().filter(|_| !self.status.is_standalone()) {
            Some(next) => last.max(Zxid::new(next.epoch(), 0)),
            None => last,
        }
    }

    /// ZooKeeper counts the root twice.
    pub(crate) fn node_count(&self) -> usize {
        self.state.tree().node_count() + 1
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.clients.iter().map(|(_, client)| client.queue.len()).sum()
    }

    pub(crate) fn proposal_sizes(&self) -> (i64, i64, i64) {
        let size = |n: usize| match self.metrics.stats.proposal_last {
            Some(_) => i64::try_from(n).unwrap_or(i64::MAX),
            None => -1,
        };
        let Stats { proposal_last, proposal_min, proposal_max, .. } = self.metrics.stats;
        (size(proposal_last.unwrap_or(0)), size(proposal_min), size(proposal_max))
    }

    fn dump(&self, core: &Core<'_>, out: &mut String) {
        let now = core.now();
        let wall_ms = self.env.options.wall_clock.now_ms();
        let date = |at: Instant| {
            let ahead = i64::try_from(at.saturating_since(now).as_millis()).unwrap_or(0);
            date_text(wall_ms.saturating_add(ahead))
        };
        out.push_str("SessionTracker dump:\n");
        if let Some(buckets) = self.role.session_buckets() {
            let sessions: usize = buckets.iter().map(|(_, ids)| ids.len()).sum();
            let _ = writeln!(out, "Session Sets ({})/({sessions}):", buckets.len());
            for (deadline, ids) in buckets {
                let _ = writeln!(out, "{} expire at {}:", ids.len(), date(deadline));
                for id in ids {
                    let _ = writeln!(out, "\t{id:#x}");
                }
            }
        } else {
            let _ = writeln!(out, "Global Sessions({}):", self.state.db().sessions.len());
            for (id, timeout_ms) in self.state.db().sessions.iter() {
                let _ = writeln!(out, "{id:#x}\t{timeout_ms}ms");
            }
        }
        let owners: Vec<i64> = self.state.tree().ephemeral_owners().collect();
        let _ =
            writeln!(out, "ephemeral nodes dump:\nSessions with Ephemerals ({}):", owners.len());
        for owner in owners {
            let _ = writeln!(out, "{owner:#x}:");
            for node in self.state.tree().ephemerals_of(owner) {
                let _ = writeln!(out, "\t{}", node.path());
            }
        }
        self.dump_connections(now, date, out);
    }

    fn dump_connections(&self, now: Instant, date: impl Fn(Instant) -> String, out: &mut String) {
        let mut sets: BTreeMap<Instant, Vec<&Client>> = BTreeMap::new();
        for (_, client) in self.clients.iter() {
            let idle = self.env.options.sessionless_timeout;
            let timeout = if client.session == 0 { idle } else { client.timeout() };
            sets.entry(now + timeout).or_default().push(client);
        }
        let connections: usize = sets.values().map(Vec::len).sum();
        let _ =
            writeln!(out, "Connections dump:\nConnections Sets ({})/({connections}):", sets.len());
        for (at, clients) in sets {
            let _ = writeln!(out, "{} expire at {}:", clients.len(), date(at));
            for client in clients {
                let _ = writeln!(out, "\tip: /{} sessionId: {:#x}", client.remote, client.session);
            }
        }
    }

    /// Data watches only, as in ZooKeeper.
    fn put_watches(&self, word: &str, out: &mut String) {
        let table = &self.watches.data;
        if word == "wchs" {
            let (slots, paths) = (table.slots().count(), table.paths().count());
            let _ = writeln!(out, "{slots} connections watching {paths} paths");
            let _ = writeln!(out, "Total watches:{}", table.len());
            return;
        }
        let session = |slot| self.clients.get(slot).map_or(0, |client| client.session);
        let mut pairs: Vec<(i64, &str)> = Vec::with_capacity(table.len());
        for (slot, paths) in table.slots() {
            pairs.extend(paths.map(|path| (session(slot), path)));
        }
        if word == "wchc" {
            pairs.sort_unstable();
            for of_session in pairs.chunk_by(|a, b| a.0 == b.0) {
                let _ = writeln!(out, "{:#x}", of_session[0].0);
                for (_, path) in of_session {
                    out.extend(["\t", path, "\n"]);
                }
            }
        } else {
            pairs.sort_unstable_by_key(|&(session, path)| (path, session));
            for of_path in pairs.chunk_by(|a, b| a.1 == b.1) {
                out.extend([of_path[0].1, "\n"]);
                for (session, _) in of_path {
                    let _ = writeln!(out, "\t{session:#x}");
                }
            }
        }
        out.push('\n');
    }

    /// About what a word will cost: many of them list everything of a kind.
    pub(crate) fn word_cost(&self, head: [u8; 4]) -> u64 {
        let entries = match &head {
            b"wchc" | b"wchp" | b"wchs" => 2 * self.watches.len(),
            b"cons" | b"stat" | b"crst" => 2 * self.clients.len(),
            b"dump" => {
                self.state.tree().ephemerals_count()
                    + self.state.db().sessions.len()
                    + self.clients.len()
            }
            b"hash" => 1024,
            _ => 0,
        };
        cost::REQUEST + cost::NODE * entries as u64
    }
}

/// ZooKeeper's sentence; behind it, on the words that monitors ask for the state, for whom or what
/// this server waits, in the form that each of these words has its lines in.
fn not_serving(core: &Core<'_>, word: &str) -> String {
    match (core.peer().waits_for(), word) {
        (Some(waits), "mntr") => format!("{NOT_SERVING}zk_waits_for\t{waits}\n"),
        (Some(waits), "srvr" | "stat") => format!("{NOT_SERVING}Waiting: {waits}\n"),
        _ => NOT_SERVING.into(),
    }
}

fn put_connection(now: Instant, client: &Client, interest: i32, full: bool, out: &mut String) {
    let stats = &client.stats;
    let _ = write!(
        out,
        " /{}[{interest}](queued={},recved={},sent={}",
        client.remote,
        client.queue.len(),
        stats.received,
        stats.sent
    );
    if full && client.session != 0 {
        let _ = write!(
            out,
            ",sid={:#x},lop={},est={},to={}",
            client.session, stats.last_op, stats.established_ms, client.timeout_ms
        );
        if let Some(cxid) = stats.last_cxid {
            let _ = write!(out, ",lcxid={cxid:#x}");
        }
        let avg = stats.total_latency_ms.checked_div(stats.replies).unwrap_or(0);
        let _ = write!(
            out,
            ",lzxid={:#x},lresp={},llat={},minlat={},avglat={avg},maxlat={}",
            stats.last_zxid,
            stats.last_response.min(now).as_nanos() / 1_000_000,
            stats.last_latency_ms,
            stats.min_latency_ms,
            stats.max_latency_ms
        );
    }
    out.push_str(")\n");
}

/// A date as Java prints it, in UTC; a clock beyond the calendar has the number of its milliseconds.
fn date_text(wall_ms: i64) -> String {
    let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    match epoch.checked_add(SignedDuration::from_millis(wall_ms)) {
        Ok(date) => date.strftime("%a %b %d %H:%M:%S UTC %Y").to_string(),
        Err(_) => format!("{wall_ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date_text(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(date_text(1_795_249_838_000), "Sat Nov 21 08:30:38 UTC 2026");
        assert_eq!(date_text(951_782_400_000), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(date_text(951_868_800_000), "Wed Mar 01 00:00:00 UTC 2000");
        assert_eq!(date_text(-1), "Wed Dec 31 23:59:59 UTC 1969");
        assert_eq!(date_text(i64::MAX), "9223372036854775807ms");
    }

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted());
    }
}
