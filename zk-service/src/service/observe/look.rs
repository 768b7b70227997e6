//! What an administrator may ask a server, as values that can leave its thread.
//!
//! A runtime's handle runs a closure between two events of the loop; in it,
//! [`Service::look`](crate::Service::look) gives a [`Look`], of which the closure asks what it wants.
//! Nothing here changes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use zab_proto::{Core, HeartbeatStatus, Instant, Membership, Sid, Status, StopSafety, Zxid};

use crate::auth::{Ids, Judge, Verdict};
pub use crate::metrics::Distribution;
pub use crate::metrics::stats::Sizes;
pub use crate::metrics::timeline::{Failover, RoleChange};
use crate::protocol::acl::perms;
pub use crate::service::connection::figures::Connection;
pub use crate::service::observe::rows::{Entry, Metric, MetricValue};
use crate::service::observe::{View, rows};
pub use crate::state::watch::WatchSummary;

/// A look at a server.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a, 'c> {
    view: View<'a, 'c>,
    serves: bool,
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

/// How much a server holds, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Nodes, those of the servers themselves among them.
    pub nodes: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Ephemeral nodes.
    pub ephemerals: usize,
    /// A quorum of the ensemble has stored an id for it.
    pub is_identified: bool,
}

/// Sessions, and what they own.
#[derive(Clone, Debug)]
pub struct Dump {
    /// By when which sessions expire; a learner knows of its local ones alone.
    pub expiring: Vec<(Instant, Vec<i64>)>,
    /// Paths of ephemeral nodes, by their session.
    pub ephemerals: Vec<(i64, Vec<String>)>,
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
    pub ensemble: Membership,
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
    pub(in crate::service) fn new(view: View<'a, 'c>, serves: bool) -> Self {
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
            responses: stats.responses,
            proposals: view.leads_ensemble().then_some(stats.proposals),
        }
    }

    /// The connections of clients, but for those that are about to be closed.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.view.clients.figures().map(|(_, figures)| figures).collect()
    }

    /// How much there is.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let (db, peer) = (self.view.state.db(), self.view.core.peer());
        Holdings {
            nodes: db.tree.node_count(),
            sessions: db.sessions.len(),
            ephemerals: db.tree.ephemerals_count(),
            is_identified: peer.identity().is_some_and(|identity| identity.confirmed),
        }
    }

    /// Sessions and ephemeral nodes.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let tree = self.view.state.tree();
        let paths = |owner| tree.ephemerals_of(owner).map(|node| node.path().to_owned()).collect();
        Dump {
            expiring: self.expiring(),
            ephemerals: tree.ephemeral_owners().map(|owner| (owner, paths(owner))).collect(),
        }
    }

    fn expiring(&self) -> Vec<(Instant, Vec<i64>)> {
        let mut buckets: BTreeMap<Instant, Vec<i64>> = BTreeMap::new();
        let global = self.view.role.session_buckets().unwrap_or_default();
        for (at, ids) in global.into_iter().chain(self.view.local.buckets()) {
            buckets.entry(at).or_default().extend(ids);
        }
        for ids in buckets.values_mut() {
            ids.sort_unstable();
        }
        buckets.into_iter().collect()
    }

    /// Zxids and digests of the tree after them, oldest first.
    #[must_use]
    pub fn digests(&self) -> Vec<(Zxid, u64)> {
        let history = self.view.state.db().digest_history();
        history.map(|digest| (digest.zxid, digest.digest)).collect()
    }

    /// Data watches, as numbers.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        self.view.watches.summary()
    }

    /// Data watches: sessions and paths.
    #[must_use]
    pub fn watches(&self) -> Vec<(i64, String)> {
        let of = |(slot, path): (u32, &str)| (self.view.clients.session_at(slot), path.to_owned());
        self.view.watches.of_data().map(of).collect()
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
            ensemble: if standalone {
                Membership::default()
            } else {
                peer.config().ensemble.clone()
            },
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
    /// the commands `snapshot` and `restore` ask for. `None` as data: none is shown. `subject` is that of the
    /// certificate, if one was shown.
    ///
    /// # Errors
    /// Why not.
    pub fn authorize(
        &self,
        scheme: &str,
        data: Option<&[u8]>,
        remote: IpAddr,
        subject: Option<&str>,
    ) -> Result<(), Refusal> {
        let access = &self.view.env.access;
        let mut entries = Vec::new();
        if let Some(subject) = subject.filter(|_| access.x509_enabled) {
            access.identify(subject, &mut entries);
        }
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
