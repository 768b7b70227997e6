//! Configuration of one server, checked once when the core is built.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::{ConfigError, EnsembleId, Member, Membership, Role, Sid};

/// All the core needs to know beforehand. Made by [`Config::new`]; change the fields that differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This server's id.
    pub sid: Sid,
    /// The members, their roles and addresses.
    pub ensemble: Membership,
    /// One server alone, without election, epochs or peers: ZooKeeper's standalone mode.
    pub standalone: bool,
    /// ZooKeeper's basic time unit.
    pub tick_time: Duration,
    /// Ticks a learner may take to connect and synchronise.
    pub init_limit: u32,
    /// Ticks a synchronised learner and its leader may be silent.
    pub sync_limit: u32,
    /// Ticks a learner tries to connect to its leader; 0: `init_limit`.
    pub connect_to_learner_master_limit: u32,
    /// Send all own addresses in the election handshake (`multiAddress.enabled`).
    pub multi_address: bool,
    /// Trust an empty data directory from the start (`db.autocreate=true`), instead of waiting
    /// until every voter is seen to be empty or a leader has synchronised it (rule R14).
    pub trust_empty: bool,
    /// Take learners and voters whose id is not in the configuration, as ZooKeeper does: observers
    /// that nobody listed, and joiners before their `reconfig`. They get everything and may forward
    /// requests of any client. Off: they are refused (rule R23).
    pub allow_unlisted: bool,
    /// Whether the members change while this server runs (`reconfigEnabled`). All members need the same
    /// value. Learners that are not in the configuration are then taken, as a joiner has to be
    /// synchronised before it can be made a member. Off: a change ends this server
    /// ([`Peer::is_outdated`](crate::Peer::is_outdated)).
    pub reconfig: bool,
    /// There is an oracle that says whether this server is a quorum without the other one, while the ensemble
    /// has exactly two voters and this server does not hear the other (`oraclePath`). It is asked with
    /// [`Output::AskOracle`](crate::Output::AskOracle). What one of two has committed alone is lost if the
    /// other leads next without it. Servers that have one follow a leader of two voters by its own word, as
    /// nobody else can confirm it.
    pub oracle: bool,
    /// Refuse peers that come from another address than the configuration gives their id, where it
    /// gives addresses and not names (rule R23).
    pub check_addresses: bool,
    /// The port on which followers serve observers (`observerMasterPort`). On a voter: it does so while it
    /// follows; connections to that port come as those of [`Channel::Quorum`](crate::Channel::Quorum). On an
    /// observer: it learns from a follower, on this port of the follower's hosts, and not from the leader.
    pub observer_master_port: Option<u16>,
    /// Times of the election.
    pub election: ElectionConfig,
    /// How soon a server that is silent, cut off or unable to write is noticed.
    pub detection: DetectionConfig,
    /// Bounds of everything that takes memory.
    pub limits: Limits,
    /// Random bits that become the id of an ensemble, if this server is to give it one (rule R24). To
    /// be drawn anew at each start, from a source of randomness that differs between servers and starts.
    /// `None`: the core never does. The runtimes fill it in.
    pub fresh_id: Option<EnsembleId>,
    /// Seed of all random choices (delays of observers).
    pub seed: u64,
}

/// Times of the election; defaults are ZooKeeper's.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ElectionConfig {
    /// How long to wait for a better vote once a quorum agrees.
    pub finalize_wait: Duration,
    /// First pause between notifications.
    pub min_notification_interval: Duration,
    /// Longest pause between notifications.
    pub max_notification_interval: Duration,
    /// Decide without `finalize_wait` when no better vote can come soon.
    pub early_finalize: bool,
    /// First pause before dialling a voter again that could not be reached, 1 ms to 1 s; doubles up
    /// to 1 s. ZooKeeper dials again when it repeats its vote.
    pub redial_min: Duration,
    /// First pause before dialling a leader again; doubles up to `leader_retry_max`.
    pub leader_retry_min: Duration,
    /// `leaderConnectDelayDuringRetryMs`.
    pub leader_retry_max: Duration,
    /// An observer waits a random time below this before it looks for a leader again.
    pub observer_delay_max: Duration,
    /// How long an election connection may take to shake hands.
    pub handshake_timeout: Duration,
}

impl Default for ElectionConfig {
    fn default() -> Self {
        Self {
            finalize_wait: Duration::from_millis(200),
            min_notification_interval: Duration::from_millis(200),
            max_notification_interval: Duration::from_secs(60),
            early_finalize: true,
            redial_min: Duration::from_millis(1),
            leader_retry_min: Duration::from_millis(1),
            leader_retry_max: Duration::from_millis(100),
            observer_delay_max: Duration::from_millis(200),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// How soon it is noticed that a leader is silent, cut off or unable to write. ZooKeeper knows only
/// `syncLimit` ticks for all of that, which stays the limit beside Apache's members.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DetectionConfig {
    /// The pause between heartbeats, 1 ms to 65 s; between two members the longer one counts. Zero: none
    /// are sent or asked for. At most half a tick counts, as PINGs are sent that often anyway.
    pub heartbeat: Duration,
    /// The shortest silence after which a leader is suspected. More than `syncLimit` ticks count as that.
    pub suspect_min: Duration,
    /// A leader gives up when its own disk completes nothing for so long while those of a quorum of
    /// followers do. Zero: it never does.
    pub disk_stall_max: Duration,
}

impl Default for DetectionConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            suspect_min: Duration::from_millis(250),
            disk_stall_max: Duration::from_secs(2),
        }
    }
}

/// Bounds, and what happens at each.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Longest buffer or string in a quorum packet (`jute.maxbuffer` plus its extra). A longer one
    /// closes its connection; a longer transaction is not proposed.
    pub field_len_max_bytes: usize,
    /// Bytes of transactions in the window that a quorum does not have on disk yet. At the bound a
    /// leader accepts no proposals; a learner reads nothing until its disk has caught up. Half of it
    /// may be filled with what learners have not been sent yet: who lags further behind goes on from
    /// the log on disk.
    /// The tail of the log at a start, and what a synchronisation brings, must wait whatever their
    /// length until a leader is established: they do not count.
    pub window_len_max_bytes: usize,
    /// Committed transactions kept to synchronise learners by DIFF (`commitLogCount`).
    pub retained_txns: usize,
    /// The same in bytes.
    pub retained_len_max_bytes: usize,
    /// Election and quorum connections at a time. At the bound the one that has owed its introduction
    /// for longest makes room, then one of who is no member; else a further one is refused.
    pub links_max: usize,
    /// Bytes of forwarded requests waiting for the leader's link. At the bound the application's
    /// `request` is refused. When its window is full, a leader still reads up to this many bytes of
    /// requests per learner, to reach the acknowledgements queued after them. An application that lets
    /// a learner have more than this in flight can deadlock, until the leader closes the link after
    /// `syncLimit`; so can a learner with a larger bound than its leader's: set it alike on all members.
    pub requests_len_max_bytes: usize,
    /// Application snapshots open at a time; further learners wait for their SNAP.
    pub snapshots_max: usize,
    /// The counter of zxids at which a leader steps down for a new epoch. Never used itself.
    pub counter_max: u32,
}

impl Limits {
    /// The most that one learner has under way to its leader: as much as may wait, or one request that is
    /// longer, alone.
    pub(crate) fn request_len_max(&self) -> usize {
        self.requests_len_max_bytes.max(self.field_len_max_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            field_len_max_bytes: 2_097_150,
            window_len_max_bytes: 64 << 20,
            retained_txns: 500,
            retained_len_max_bytes: 1 << 20,
            links_max: 256,
            requests_len_max_bytes: 16 << 20,
            snapshots_max: 4,
            counter_max: u32::MAX,
        }
    }
}

impl Config {
    /// A member of `ensemble`, with ZooKeeper's usual values for the rest.
    #[must_use]
    pub fn new(sid: Sid, ensemble: Membership) -> Self {
        Self {
            sid,
            ensemble,
            standalone: false,
            tick_time: Duration::from_secs(2),
            init_limit: 10,
            sync_limit: 5,
            connect_to_learner_master_limit: 0,
            multi_address: false,
            trust_empty: false,
            allow_unlisted: false,
            reconfig: false,
            oracle: false,
            observer_master_port: None,
            check_addresses: true,
            fresh_id: None,
            election: ElectionConfig::default(),
            detection: DetectionConfig::default(),
            limits: Limits::default(),
            seed: sid.0.unsigned_abs(),
        }
    }

    /// One server alone.
    #[must_use]
    pub fn standalone(sid: Sid) -> Self {
        let alone = Member { role: Role::Participant, addresses: Vec::new(), client: None };
        let mut ensemble = Membership::default();
        ensemble.members.insert(sid, alone);
        Self { standalone: true, trust_empty: true, ..Self::new(sid, ensemble) }
    }

    /// Checks what the core relies on.
    ///
    /// # Errors
    /// [`ConfigError`] naming the rule that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.reconfig && !self.ensemble.members.contains_key(&self.sid) {
            return Err(ConfigError::NotAMember(self.sid));
        }
        let rules = [
            (!self.tick_time.is_zero(), "tickTime must be above 0"),
            (self.standalone || self.init_limit > 0, "initLimit must be above 0"),
            (self.standalone || self.sync_limit > 0, "syncLimit must be above 0"),
            (self.limits.links_max > 0, "at least one connection must be allowed"),
            (self.limits.snapshots_max > 0, "at least one snapshot must be allowed"),
            (self.limits.counter_max > 1, "an epoch must have room for a transaction"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(ConfigError::Invalid(String::from(*rule))),
        }
    }

    /// The pause between heartbeats that this server wants or grants, if it does.
    #[must_use]
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        let longest = (self.tick_time / 2).min(HEARTBEAT_MAX);
        let every = self.detection.heartbeat.min(longest);
        (!self.standalone && every >= HEARTBEAT_MIN).then_some(every)
    }

    /// How long a leader and its followers wait to hear of each other after the election: `initLimit`, and the
    /// finalising wait. Who hears every voter decides at once, and who hears only some waits, so that
    /// either side may come so much later; where `initLimit` is no longer than that they would miss each other in every round.
    pub(crate) fn meeting_limit(&self) -> Duration {
        self.ticks(self.init_limit) + self.election.finalize_wait
    }

    /// `ticks` ticks.
    #[must_use]
    pub fn ticks(&self, ticks: u32) -> Duration {
        self.tick_time * ticks
    }
}

/// What fits into the field that says it, in milliseconds.
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);
const HEARTBEAT_MAX: Duration = Duration::from_millis(65_535);
