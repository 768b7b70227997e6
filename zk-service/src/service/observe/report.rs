//! The answers about a server, as values. `Display` is ZooKeeper's text of each.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use jiff::{SignedDuration, civil};
use zab_proto::{ConnId, Instant, StopSafety, Zxid};

use crate::metrics::stats::Sizes;
use crate::service::connection::figures::Connection;
use crate::service::observe::View;
use crate::state::watch::WatchSummary;

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
    proposals: Option<Sizes>,
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
            proposals: view.leads_ensemble().then_some(stats.proposals),
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
        if let Some(Sizes { last, min, max }) = self.proposals {
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
    /// What its selection key waits for in ZooKeeper: nothing while its word is answered.
    interest: u8,
    figures: Connection,
    now: Instant,
    /// Whether its session and what was done in it are asked for.
    in_full: bool,
}

impl Display for Conn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { interest, figures, now, in_full } = self;
        let Connection { remote, outstanding, received, sent, session, .. } = figures;
        write!(f, " /{remote}[{interest}](queued={outstanding},recved={received},sent={sent}")?;
        if *in_full && *session != 0 {
            let (op, since) = (figures.last_op, figures.established_ms);
            write!(f, ",sid={session:#x},lop={op},est={since},to={}", figures.timeout_ms)?;
            if let Some(cxid) = figures.last_cxid {
                write!(f, ",lcxid={cxid:#x}")?;
            }
            write!(
                f,
                ",lzxid={:#x},lresp={},llat={},minlat={},avglat={},maxlat={}",
                figures.last_zxid,
                figures.last_response.min(*now).as_nanos() / 1_000_000,
                figures.last_latency_ms,
                figures.min_latency_ms,
                figures.avg_latency_ms,
                figures.max_latency_ms
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
        let now = view.core.now();
        let line =
            |(conn, figures)| Conn { interest: u8::from(conn != asking), figures, now, in_full };
        Self(view.clients.figures().map(line).collect())
    }
}

impl Display for Conns {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|conn| conn.fmt(f))?;
        f.write_str("\n")
    }
}

/// `wchs`. Like the next two it has data watches only, as in ZooKeeper.
impl Display for WatchSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} connections watching {} paths", self.connections, self.paths)?;
        writeln!(f, "Total watches:{}", self.watches)
    }
}

/// Sessions and the paths that they watch.
fn watches<'a>(view: &View<'a, '_>) -> Vec<(i64, &'a str)> {
    let of = |(slot, path)| (view.clients.session_at(slot), path);
    view.watches.of_data().map(of).collect()
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
    /// The sessions of this server alone, if it may have some.
    local: Option<Vec<(Instant, Vec<i64>)>>,
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
        let keeps_sessions = view.role.keeps_sessions(&view.env.options);
        let local = keeps_sessions.then(|| view.local.buckets());
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
        Self { now, wall_ms, sessions, local, ephemerals, connections }
    }

    fn buckets(&self, f: &mut Formatter<'_>, buckets: &[(Instant, Vec<i64>)]) -> fmt::Result {
        let sessions: usize = buckets.iter().map(|(_, ids)| ids.len()).sum();
        writeln!(f, "Session Sets ({})/({sessions}):", buckets.len())?;
        for (deadline, ids) in buckets {
            writeln!(f, "{} expire at {}:", ids.len(), self.date(*deadline))?;
            ids.iter().try_for_each(|id| writeln!(f, "\t{id:#x}"))?;
        }
        Ok(())
    }

    fn date(&self, at: Instant) -> String {
        let ahead = i64::try_from(at.saturating_since(self.now).as_millis()).unwrap_or(0);
        date_text(self.wall_ms.saturating_add(ahead))
    }
}

impl Display for Dump<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTracker dump:\n")?;
        if let Some(local) = &self.local {
            f.write_str("Local ")?;
            self.buckets(f, local)?;
        }
        match &self.sessions {
            Sessions::Buckets(buckets) => {
                f.write_str(if self.local.is_some() { "Global " } else { "" })?;
                self.buckets(f, buckets)?;
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
