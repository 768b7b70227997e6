//! What an administrator may ask a server, as values that can leave its thread.
//!
//! A runtime's handle runs a closure between two events of the loop; in it,
//! [`Service::look`](crate::Service::look) gives a [`Look`], of which the closure asks what it wants.
//! Nothing here changes anything.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zab_proto::{Core, Ensemble, HeartbeatStatus, Instant, Sid, Status, StopSafety, Zxid};

use crate::auth::{Ids, Judge, Verdict};
use crate::connection::{Client, Life};
pub use crate::metrics::Distribution;
pub use crate::metrics::timeline::{Failover, RoleChange};
pub use crate::observe::rows::{Entry, Metric, MetricValue};
use crate::observe::{View, rows};
use crate::protocol::acl::perms;

/// A look at a server.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a, 'c> {
    view: View<'a, 'c>,
    serves: bool,
}

/// Sizes in bytes; -1 before there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// The last.
    pub last: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

impl Sizes {
    pub(super) fn new(last: Option<usize>, min: usize, max: usize) -> Self {
        let size = |n| match last {
            Some(_) => i64::try_from(n).unwrap_or(i64::MAX),
            None => -1,
        };
        Self { last: size(last.unwrap_or(0)), min: size(min), max: size(max) }
    }
}

/// What `srvr` shows, and the like.
#[derive(Clone, Debug)]
pub struct ServerStats {
    /// The text of the version.
    pub version: String,
    /// `standalone`, `leader`, `follower`, `observer`, `read-only` or `looking`.
    pub mode: &'static str,
    /// Packets received in this role, or since `srst`.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// The shortest time from a request to its reply, in ms.
    pub latency_min_ms: u64,
    /// Their mean, in ten-thousandths of a ms.
    pub latency_avg: u64,
    /// The longest.
    pub latency_max_ms: u64,
    /// Requests that are not answered.
    pub outstanding: usize,
    /// Open connections of clients.
    pub connections: usize,
    /// For how long this role is served, in ms.
    pub uptime_ms: u64,
    /// The last transaction applied.
    pub last_zxid: Zxid,
    /// Nodes, the root counted twice as by ZooKeeper.
    pub node_count: usize,
    /// Replies.
    pub responses: Sizes,
    /// Proposals, of a leader of an ensemble.
    pub proposals: Option<Sizes>,
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address.
    pub remote: SocketAddr,
    /// Its requests that are not answered.
    pub outstanding: usize,
    /// Packets received of it.
    pub received: u64,
    /// Packets sent to it.
    pub sent: u64,
    /// Its session; 0: none yet.
    pub session: i64,
    /// The session's time-out in ms.
    pub timeout_ms: i32,
    /// The name of its last operation, in four letters.
    pub last_op: &'static str,
    /// When it was accepted, in ms since 1970.
    pub established_ms: i64,
    /// The last request's number.
    pub last_cxid: Option<i32>,
    /// The last reply's zxid.
    pub last_zxid: i64,
    /// When that was sent.
    pub last_response: Instant,
    /// From the last request to its reply, in ms.
    pub last_latency_ms: u64,
    /// The shortest.
    pub min_latency_ms: u64,
    /// The mean.
    pub avg_latency_ms: u64,
    /// The longest.
    pub max_latency_ms: u64,
}

impl Connection {
    fn new(client: &Client) -> Self {
        let stats = &client.stats;
        Self {
            remote: client.remote,
            outstanding: client.queue.len(),
            received: stats.received,
            sent: stats.sent,
            session: client.session,
            timeout_ms: client.timeout_ms,
            last_op: stats.last_op,
            established_ms: stats.established_ms,
            last_cxid: stats.last_cxid,
            last_zxid: stats.last_zxid,
            last_response: stats.last_response,
            last_latency_ms: stats.last_latency_ms,
            min_latency_ms: stats.min_latency_ms,
            avg_latency_ms: stats.total_latency_ms.checked_div(stats.replies).unwrap_or(0),
            max_latency_ms: stats.max_latency_ms,
        }
    }
}

/// Sessions, and what they own.
#[derive(Clone, Debug)]
pub struct Dump {
    /// By when which sessions expire; a learner does not know.
    pub expiring: Vec<(Instant, Vec<i64>)>,
    /// Paths of ephemeral nodes, by their session.
    pub ephemerals: Vec<(i64, Vec<String>)>,
}

/// Data watches, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchSummary {
    /// Connections that have any.
    pub connections: usize,
    /// Paths that have any.
    pub paths: usize,
    /// All.
    pub watches: usize,
}

/// One of a leader's learners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learner {
    /// Its id.
    pub sid: Sid,
    /// It came as an observer.
    pub observer: bool,
    /// It has the leader's history, and gets what is new.
    pub synced: bool,
    /// How many transactions it has not acknowledged, if that is known.
    pub behind: Option<u64>,
}

/// Where a server stands in its ensemble.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its id.
    pub sid: Sid,
    /// Role, phase, leader and epoch, once the core has said.
    pub status: Option<Status>,
    /// A server alone.
    pub standalone: bool,
    /// Clients are served.
    pub serves: bool,
    /// The last transaction applied.
    pub last_zxid: Zxid,
    /// The last transaction logged.
    pub logged: Zxid,
    /// The members; of a server alone none.
    pub ensemble: Ensemble,
    /// A leader's learners.
    pub learners: Vec<Learner>,
    /// Heartbeats and suspicions.
    pub heartbeats: HeartbeatStatus,
    /// Whether it can be stopped now.
    pub safe_to_stop: StopSafety,
    /// For whom or what it waits, if it does not serve.
    pub waits_for: Option<String>,
    /// The time on the server's clock.
    pub now: Instant,
}

/// Why somebody may not have what he asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nobody knows the scheme, or it has not identified him.
    NotAuthenticated,
    /// He has not all permissions on the root.
    NotAuthorized,
}

impl<'a, 'c> Look<'a, 'c> {
    pub(crate) fn new(view: View<'a, 'c>, serves: bool) -> Self {
        Self { view, serves }
    }

    /// Whether clients are served.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// The text of the version.
    #[must_use]
    pub fn version(&self) -> &'a str {
        &self.view.env.options.version
    }

    /// All metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        rows::all(&self.view)
    }

    /// What `srvr` shows.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let view = &self.view;
        let stats = &view.metrics.stats;
        let uptime = view.core.now().saturating_since(view.status.serving_since()).as_millis();
        let proposals = || Sizes::new(stats.proposal_last, stats.proposal_min, stats.proposal_max);
        ServerStats {
            version: view.env.options.version.clone(),
            mode: view.status.mode(),
            received: stats.received,
            sent: stats.sent,
            latency_min_ms: stats.latency_min_ms,
            latency_avg: u64::try_from(stats.latency_avg_ten_thousandths()).unwrap_or(u64::MAX),
            latency_max_ms: stats.latency_max_ms,
            outstanding: view.outstanding(),
            connections: view.clients.len(),
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            last_zxid: view.shown_zxid(),
            node_count: view.node_count(),
            responses: Sizes::new(stats.response_last, stats.response_min, stats.response_max),
            proposals: view.leads_ensemble().then(proposals),
        }
    }

    /// The connections of clients, but for those that are about to be closed.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        let open = self.view.clients.iter().filter(|(_, client)| client.state != Life::Closed);
        open.map(|(_, client)| Connection::new(client)).collect()
    }

    /// Sessions and ephemeral nodes.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let tree = self.view.state.tree();
        let paths = |owner| tree.ephemerals_of(owner).map(|node| node.path().to_owned()).collect();
        Dump {
            expiring: self.view.role.session_buckets().unwrap_or_default(),
            ephemerals: tree.ephemeral_owners().map(|owner| (owner, paths(owner))).collect(),
        }
    }

    /// Zxids and digests of the tree behind them, oldest first.
    #[must_use]
    pub fn digests(&self) -> Vec<(Zxid, u64)> {
        let history = self.view.state.db().digest_history();
        history.map(|digest| (digest.zxid, digest.digest)).collect()
    }

    /// Data watches, as numbers.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        let table = &self.view.watches.data;
        let (connections, paths) = (table.slots().count(), table.paths().count());
        WatchSummary { connections, paths, watches: table.len() }
    }

    /// Data watches: sessions and paths.
    #[must_use]
    pub fn watches(&self) -> Vec<(i64, String)> {
        let table = &self.view.watches.data;
        let mut pairs = Vec::with_capacity(table.len());
        for (slot, paths) in table.slots() {
            let session = self.view.clients.session_at(slot);
            pairs.extend(paths.map(|path| (session, path.to_owned())));
        }
        pairs
    }

    /// Where this server stands in its ensemble.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let (view, peer) = (&self.view, self.view.core.peer());
        let standalone = peer.config().standalone;
        Standing {
            sid: view.core.sid(),
            status: (!standalone).then(|| view.core.status()),
            standalone,
            serves: self.serves,
            last_zxid: view.state.last_zxid(),
            logged: peer.last_zxid(),
            ensemble: if standalone { Ensemble::default() } else { peer.config().ensemble.clone() },
            learners: learners(view.core),
            heartbeats: peer.heartbeats(),
            safe_to_stop: peer.stop_safety(view.core.now()),
            waits_for: peer.waits_for().filter(|_| !self.serves),
            now: view.core.now(),
        }
    }

    /// What `conf` shows, without the membership.
    #[must_use]
    pub fn conf(&self) -> &'a [(String, String)] {
        &self.view.env.options.conf
    }

    /// What `envi` shows, without the version.
    #[must_use]
    pub fn environment(&self) -> &'a [(String, String)] {
        &self.view.env.options.environment
    }

    /// The last changes of this server's role, oldest first, with the ms since 1970.
    #[must_use]
    pub fn role_changes(&self) -> Vec<(i64, RoleChange)> {
        let changes = self.view.status.timeline().changes();
        changes.map(|change| (self.wall_ms(change.at), *change)).collect()
    }

    /// The last times that this server lost its role and came to serve again, oldest first, with the ms
    /// since 1970 at which each began.
    #[must_use]
    pub fn failovers(&self) -> Vec<(i64, Failover)> {
        let failovers = self.view.status.timeline().failovers();
        failovers.map(|failover| (self.wall_ms(failover.began), failover.clone())).collect()
    }

    /// What the wall clock said, or would have said if nobody had set it.
    fn wall_ms(&self, at: Instant) -> i64 {
        let ago = self.view.core.now().saturating_since(at).as_millis();
        let now = self.view.env.options.wall_clock.now_ms();
        now.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }

    /// Whether somebody at `remote` who shows `data` for a scheme may do everything with the root: what
    /// the commands `snapshot` and `restore` ask for. `None` as data: none is shown.
    ///
    /// # Errors
    /// Why not.
    pub fn authorize(
        &self,
        scheme: &str,
        data: Option<&[u8]>,
        remote: IpAddr,
    ) -> Result<(), Refusal> {
        let access = &self.view.env.access;
        let mut entries = Vec::new();
        let verdict = match scheme {
            // It earns no identity.
            "ensemble" => Verdict::Refused,
            scheme => access.authenticate(Some(scheme), data, remote, &mut entries),
        };
        if verdict != Verdict::Granted {
            return Err(Refusal::NotAuthenticated);
        }
        let root = self.view.state.tree().node("/");
        let may = root.is_some_and(|root| {
            let mut judge = Judge::new(access, Ids::new(&entries));
            [perms::READ, perms::WRITE, perms::CREATE, perms::DELETE, perms::ADMIN]
                .into_iter()
                .all(|wanted| judge.permits(root.rules(), wanted))
        });
        if may { Ok(()) } else { Err(Refusal::NotAuthorized) }
    }
}

fn learners(core: &Core<'_>) -> Vec<Learner> {
    let learners = core.peer().learners();
    learners
        .map(|learner| Learner {
            sid: learner.origin.sid,
            observer: learner.observer,
            synced: learner.synced,
            behind: learner.behind,
        })
        .collect()
}

/// How long a span is, in whole milliseconds.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
