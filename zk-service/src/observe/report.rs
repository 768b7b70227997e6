//! The answers about a server, as values. `Display` is ZooKeeper's text of each.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use jiff::{SignedDuration, civil};
use zab_proto::{ConnId, Instant, StopSafety, Zxid};

use crate::connection::{Client, ConnStats, Life};
use crate::observe::View;

/// `srvr`, and the second half of `stat`.
#[derive(Clone, Debug)]
pub(super) struct Srvr {
    latency_min_ms: u64,
    latency_avg: String,
    latency_max_ms: u64,
    received: u64,
    sent: u64,
    connections: usize,
    outstanding: usize,
    zxid: Zxid,
    mode: &'static str,
    node_count: usize,
    /// Of a leader.
    proposals: Option<ProposalSizes>,
}

/// Sizes of proposals in bytes; -1 before there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ProposalSizes {
    pub(super) last: i64,
    pub(super) min: i64,
    pub(super) max: i64,
}

impl ProposalSizes {
    pub(super) fn new(view: &View<'_, '_>) -> Self {
        let stats = &view.metrics.stats;
        let size = |n: usize| match stats.proposal_last {
            Some(_) => i64::try_from(n).unwrap_or(i64::MAX),
            None => -1,
        };
        Self {
            last: size(stats.proposal_last.unwrap_or(0)),
            min: size(stats.proposal_min),
            max: size(stats.proposal_max),
        }
    }
}

impl Srvr {
    pub(super) fn new(view: &View<'_, '_>) -> Self {
        let stats = &view.metrics.stats;
        Self {
            latency_min_ms: stats.latency_min_ms,
            latency_avg: stats.latency_avg(),
            latency_max_ms: stats.latency_max_ms,
            received: stats.received,
            sent: stats.sent,
            connections: view.clients.len(),
            outstanding: view.outstanding(),
            zxid: view.shown_zxid(),
            mode: view.status.mode(),
            node_count: view.node_count(),
            proposals: view.leads_ensemble().then(|| ProposalSizes::new(view)),
        }
    }
}

impl Display for Srvr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (min, avg, max) = (self.latency_min_ms, &self.latency_avg, self.latency_max_ms);
        writeln!(f, "Latency min/avg/max: {min}/{avg}/{max}")?;
        writeln!(f, "Received: {}\nSent: {}", self.received, self.sent)?;
        writeln!(f, "Connections: {}", self.connections)?;
        writeln!(f, "Outstanding: {}", self.outstanding)?;
        writeln!(f, "Zxid: {:#x}", self.zxid.raw())?;
        writeln!(f, "Mode: {}", self.mode)?;
        writeln!(f, "Node count: {}", self.node_count)?;
        if let Some(ProposalSizes { last, min, max }) = self.proposals {
            writeln!(f, "Proposal sizes last/min/max: {last}/{min}/{max}")?;
        }
        Ok(())
    }
}

/// `safe`, which ZooKeeper does not have: whether this server may be stopped now.
#[derive(Clone, Debug)]
pub(super) struct Safety {
    /// The answer, and what it is known by. The core alone computes it.
    pub(super) safe_to_stop: StopSafety,
}

impl Safety {
    pub(super) fn new(view: &View<'_, '_>) -> Self {
        Self { safe_to_stop: view.core.peer().stop_safety(view.core.now()) }
    }
}

impl Display for Safety {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let answer = match self.safe_to_stop.is_safe() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        writeln!(f, "{answer}: {}", self.safe_to_stop)
    }
}

/// One line of `cons` and `stat`.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    remote: SocketAddr,
    /// What its selection key waits for in ZooKeeper: nothing while its word is answered.
    interest: u8,
    queued: usize,
    stats: ConnStats,
    now: Instant,
    /// Its session and the time-out of that in ms, if it has one and they are asked for.
    session: Option<(i64, i32)>,
}

impl Conn {
    fn new(now: Instant, client: &Client, is_asking: bool, in_full: bool) -> Self {
        Self {
            remote: client.remote,
            interest: u8::from(!is_asking),
            queued: client.queue.len(),
            stats: client.stats,
            now,
            session: (in_full && client.session != 0)
                .then_some((client.session, client.timeout_ms)),
        }
    }
}

impl Display for Conn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { remote, interest, queued, stats, now, session } = self;
        let (received, sent) = (stats.received, stats.sent);
        write!(f, " /{remote}[{interest}](queued={queued},recved={received},sent={sent}")?;
        if let Some((session, timeout_ms)) = session {
            let (op, since) = (stats.last_op, stats.established_ms);
            write!(f, ",sid={session:#x},lop={op},est={since},to={timeout_ms}")?;
            if let Some(cxid) = stats.last_cxid {
                write!(f, ",lcxid={cxid:#x}")?;
            }
            let avg = stats.total_latency_ms.checked_div(stats.replies).unwrap_or(0);
            write!(
                f,
                ",lzxid={:#x},lresp={},llat={},minlat={},avglat={avg},maxlat={}",
                stats.last_zxid,
                stats.last_response.min(*now).as_nanos() / 1_000_000,
                stats.last_latency_ms,
                stats.min_latency_ms,
                stats.max_latency_ms
            )?;
        }
        f.write_str(")\n")
    }
}

/// The connections of `cons`, which asks for them `in_full`, and of `stat`.
#[derive(Clone, Debug)]
pub(super) struct Conns(Vec<Conn>);

impl Conns {
    /// All but those that are about to be closed. `asking`: the one that asks.
    pub(super) fn new(view: &View<'_, '_>, asking: ConnId, in_full: bool) -> Self {
        let open = view.clients.iter().filter(|(_, client)| client.state != Life::Closed);
        let now = view.core.now();
        Self(open.map(|(conn, client)| Conn::new(now, client, conn == asking, in_full)).collect())
    }
}

impl Display for Conns {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|conn| conn.fmt(f))?;
        f.write_str("\n")
    }
}

/// `wchs`. Like the next two it has data watches only, as in ZooKeeper.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchSummary {
    connections: usize,
    paths: usize,
    watches: usize,
}

impl WatchSummary {
    pub(super) fn new(view: &View<'_, '_>) -> Self {
        let table = &view.watches.data;
        let (connections, paths) = (table.slots().count(), table.paths().count());
        Self { connections, paths, watches: table.len() }
    }
}

impl Display for WatchSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} connections watching {} paths", self.connections, self.paths)?;
        writeln!(f, "Total watches:{}", self.watches)
    }
}

/// Sessions and the paths that they watch.
fn watches<'a>(view: &View<'a, '_>) -> Vec<(i64, &'a str)> {
    let table = &view.watches.data;
    let mut pairs = Vec::with_capacity(table.len());
    for (slot, paths) in table.slots() {
        let session = view.clients.session_at(slot);
        pairs.extend(paths.map(|path| (session, path)));
    }
    pairs
}

/// `wchc`: watches by session, in order.
#[derive(Clone, Debug)]
pub(super) struct WatchesBySession<'a>(Vec<(i64, &'a str)>);

impl<'a> WatchesBySession<'a> {
    pub(super) fn new(view: &View<'a, '_>) -> Self {
        let mut pairs = watches(view);
        pairs.sort_unstable();
        Self(pairs)
    }
}

impl Display for WatchesBySession<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for of_session in self.0.chunk_by(|a, b| a.0 == b.0) {
            writeln!(f, "{:#x}", of_session[0].0)?;
            of_session.iter().try_for_each(|(_, path)| writeln!(f, "\t{path}"))?;
        }
        f.write_str("\n")
    }
}

/// `wchp`: watches by path, in order.
#[derive(Clone, Debug)]
pub(super) struct WatchesByPath<'a>(Vec<(i64, &'a str)>);

impl<'a> WatchesByPath<'a> {
    pub(super) fn new(view: &View<'a, '_>) -> Self {
        let mut pairs = watches(view);
        pairs.sort_unstable_by_key(|&(session, path)| (path, session));
        Self(pairs)
    }
}

impl Display for WatchesByPath<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for of_path in self.0.chunk_by(|a, b| a.1 == b.1) {
            writeln!(f, "{}", of_path[0].1)?;
            of_path.iter().try_for_each(|(session, _)| writeln!(f, "\t{session:#x}"))?;
        }
        f.write_str("\n")
    }
}

/// `dump`: sessions, what they own, and connections.
#[derive(Clone, Debug)]
pub(super) struct Dump<'a> {
    now: Instant,
    /// Unix time of `now` in ms.
    wall_ms: i64,
    sessions: Sessions,
    /// Owners in order, and the paths of their nodes.
    ephemerals: Vec<(i64, Vec<&'a str>)>,
    /// Address and session (0: none yet) of each connection, by when it would be closed if nothing
    /// came from it.
    connections: BTreeMap<Instant, Vec<(SocketAddr, i64)>>,
}

#[derive(Clone, Debug)]
enum Sessions {
    /// A leader knows when they expire.
    Buckets(Vec<(Instant, Vec<i64>)>),
    /// A learner knows their time-outs, in ms.
    Timeouts(Vec<(i64, i32)>),
}

impl<'a> Dump<'a> {
    pub(super) fn new(view: &View<'a, '_>) -> Self {
        let now = view.core.now();
        let sessions = match view.role.session_buckets() {
            Some(buckets) => Sessions::Buckets(buckets),
            None => Sessions::Timeouts(view.state.db().sessions.iter().collect()),
        };
        let tree = view.state.tree();
        let paths = |owner| tree.ephemerals_of(owner).map(|node| node.path()).collect();
        let ephemerals = tree.ephemeral_owners().map(|owner| (owner, paths(owner))).collect();
        let mut connections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, client) in view.clients.iter() {
            let idle = view.env.options.sessionless_timeout;
            let timeout = if client.session == 0 { idle } else { client.timeout() };
            connections.entry(now + timeout).or_default().push((client.remote, client.session));
        }
        let wall_ms = view.env.options.wall_clock.now_ms();
        Self { now, wall_ms, sessions, ephemerals, connections }
    }

    fn date(&self, at: Instant) -> String {
        let ahead = i64::try_from(at.saturating_since(self.now).as_millis()).unwrap_or(0);
        date_text(self.wall_ms.saturating_add(ahead))
    }
}

impl Display for Dump<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTracker dump:\n")?;
        match &self.sessions {
            Sessions::Buckets(buckets) => {
                let sessions: usize = buckets.iter().map(|(_, ids)| ids.len()).sum();
                writeln!(f, "Session Sets ({})/({sessions}):", buckets.len())?;
                for (deadline, ids) in buckets {
                    writeln!(f, "{} expire at {}:", ids.len(), self.date(*deadline))?;
                    ids.iter().try_for_each(|id| writeln!(f, "\t{id:#x}"))?;
                }
            }
            Sessions::Timeouts(sessions) => {
                writeln!(f, "Global Sessions({}):", sessions.len())?;
                for (id, timeout_ms) in sessions {
                    writeln!(f, "{id:#x}\t{timeout_ms}ms")?;
                }
            }
        }
        let owners = self.ephemerals.len();
        writeln!(f, "ephemeral nodes dump:\nSessions with Ephemerals ({owners}):")?;
        for (owner, paths) in &self.ephemerals {
            writeln!(f, "{owner:#x}:")?;
            paths.iter().try_for_each(|path| writeln!(f, "\t{path}"))?;
        }
        let sets = &self.connections;
        let connections: usize = sets.values().map(Vec::len).sum();
        writeln!(f, "Connections dump:\nConnections Sets ({})/({connections}):", sets.len())?;
        for (at, clients) in sets {
            writeln!(f, "{} expire at {}:", clients.len(), self.date(*at))?;
            for (remote, session) in clients {
                writeln!(f, "\tip: /{remote} sessionId: {session:#x}")?;
            }
        }
        Ok(())
    }
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
}
