//! What the runs have reached.

use std::collections::BTreeMap;
use std::fmt;

use zab_proto::Status;

pub use crate::change::STEPS;

/// Counters, summed over runs.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Transactions delivered to applications.
    pub delivered: u64,
    /// Votes sent.
    pub notifications: u64,
    /// Bytes sent on election ports.
    pub election_bytes: u64,
    counts: BTreeMap<String, u64>,
    fixed: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Counts a situation.
    pub fn count(&mut self, what: &'static str) {
        *self.fixed.entry(what).or_default() += 1;
    }

    /// Counts a situation that occurred `n` times.
    pub fn add_count(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            *self.fixed.entry(what).or_default() += n;
        }
    }

    /// Counts a role and phase.
    pub fn became(&mut self, status: &Status) {
        let sync = status.sync.map_or(String::new(), |mode| format!(" by {mode:?}"));
        let text = format!("{:?} in {:?}{sync}", status.state, status.phase);
        *self.counts.entry(text).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.notifications += other.notifications;
        self.election_bytes += other.election_bytes;
        for (what, n) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += n;
        }
        for (what, n) in &other.fixed {
            *self.fixed.entry(what).or_default() += n;
        }
    }

    /// What of `must_reach` was not.
    #[must_use]
    pub fn missing(&self, must_reach: &[&'static str]) -> Vec<&'static str> {
        must_reach.iter().copied().filter(|what| self.of(what) == 0).collect()
    }

    /// How often a situation was counted.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.fixed.get(what).or_else(|| self.counts.get(what)).copied().unwrap_or(0)
    }
}

/// What a search of a few thousand runs must reach, again and again.
pub const MUST_REACH: &[&str] = &[
    "besieged",
    "besieged: a liar",
    "besieged: accepted epoch damaged",
    "besieged: foreign directory",
    "besieged: foreign directory, no leader",
    "Leading in Discovery",
    "Leading in Synchronization",
    "Leading in Broadcast",
    "Following in Discovery",
    "Following in Synchronization by Diff",
    "Following in Synchronization by Trunc",
    "Following in Synchronization by Snap",
    "Following in Broadcast by Diff",
    "Following in Broadcast by Trunc",
    "Following in Broadcast by Snap",
    "Observing in Discovery",
    "Observing in Broadcast by Diff",
    "Observing in Broadcast by Snap",
    "sync: nothing to send",
    "sync: DIFF",
    "sync: DIFF from the log",
    "sync: TRUNC",
    "sync: TRUNC and DIFF",
    "sync: SNAP",
    "sync: SNAP and DIFF",
    "log with a gap",
    "commit point used",
    "epochs before used",
    "limit: as many snapshots open as may be",
    "limit: proposals wait",
    "limit: request or transaction too long",
    "limit: requests wait",
    "limit: synchronisation longer than the window",
    "limit: tail of the log longer than the window",
    "limit: window full, Following",
    "limit: window full, Leading",
    "limit: window full, Looking",
    "limit: window full, Observing",
    "proposal between NEWLEADER and UPTODATE, DIFF",
    "proposal between NEWLEADER and UPTODATE, TRUNC",
    "proposal between NEWLEADER and UPTODATE, SNAP",
    "died at NEWLEADER, history not durable",
    "died at NEWLEADER, epoch not durable",
    "died at NEWLEADER, all durable",
    "leader gave up with proposals under way",
    "counter used up",
    "committed in three epochs",
    "a leader makes way",
    "fault: accepted epoch damaged",
    "fault: connections reset",
    "fault: disk failed",
    "fault: disk stalled",
    "fault: disk wiped",
    "fault: garbage on an election connection",
    "fault: a stranger",
    "fault: kill",
    "fault: link cut",
    "fault: link cut one way",
    "fault: links cut and mended in turn",
    "fault: name not resolved",
    "fault: pause",
    "fault: power cut",
    "fault: server isolated",
    "healed: a majority with one link to the rest",
    "healed: a server crippled",
    "healed: a server restarted",
    "healed: at rest",
];

/// The same of runs in which observers learn from followers.
pub const MASTERS_MUST_REACH: &[&str] = &[
    "committed in three epochs",
    "master: told before NEWLEADER",
    "master: told in service",
    "Observing in Broadcast by Diff",
    "Observing in Broadcast by Snap",
    "limit: as many snapshots open as may be",
];

/// The same of runs in which the members change.
pub const MEMBERS_MUST_REACH: &[&str] = &[
    "committed in three epochs",
    "fault: kill",
    "fault: power cut",
    "healed: at rest",
    "members: a change is wanted",
    "members: a voter observes",
    "members: an observer votes",
    "members: another address",
    "members: committed, fewer voters",
    "members: committed, more voters",
    "members: committed, other voters",
    "members: committed, the same voters",
    "members: in force, as a stranger",
    "members: in force, as an observer",
    "members: in force, with a vote",
    "members: led by a designated server",
    "members: led without an election",
    "members: left to an election",
    "members: many others",
    "members: one less",
    "members: one more",
    "members: proposed, and its leader lost",
    "members: without the leader",
];

/// The same with the ZooKeeper service.
pub const SERVICE_MUST_REACH: &[&str] = &[
    "Leading in Broadcast",
    "Following in Broadcast by Diff",
    "Following in Broadcast by Trunc",
    "Following in Broadcast by Snap",
    "Observing in Broadcast by Diff",
    "Observing in Broadcast by Snap",
    "healed: a majority with one link to the rest",
    "healed: a server crippled",
    "healed: a server restarted",
    "healed: at rest",
    "install",
    "leader gave up with proposals under way",
    "committed in three epochs",
    "acl: bad list refused",
    "acl: digests hidden",
    "acl: read refused",
    "acl: write refused",
    "client: addWatch",
    "client: addWatch recursive",
    "client: addauth",
    "client: closeSession",
    "client: create",
    "client: create ephemeral",
    "client: create ephemeral sequential",
    "client: create sequential",
    "client: createContainer",
    "client: createTTL",
    "client: delete",
    "client: exists",
    "client: getACL",
    "client: getChildren",
    "client: getData",
    "client: getEphemerals",
    "client: multi",
    "client: ping",
    "client: removeWatches",
    "client: setACL",
    "client: setData",
    "client: setWatches",
    "client: setWatches2",
    "client: sync",
    "local: begun",
    "local: closed",
    "local: ephemeral refused",
    "local: ephemeral refused in a multi",
    "local: goes on at its server",
    "local: over elsewhere",
    "local: upgraded",
    "local: upgraded, moved",
    "local: upgraded, owns a node",
    "local: writes after a change of the epoch",
    "service: TTL node removed",
    "service: container removed",
    "service: refused, session moved",
    "service: sessions begun",
    "service: sessions expired",
    "service: sessions moved",
    "service: sessions refused",
    "service: sessions resumed",
    "watch: children changed",
    "watch: created",
    "watch: data changed",
    "watch: deleted",
    "watch: kept from who may not read",
    "watch: missed, told on return",
    "watch: persistent, again",
    "watch: recursive, of a node below",
];

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  transactions delivered", self.delivered)?;
        writeln!(f, "{:>12}  votes sent", self.notifications)?;
        for (what, n) in &self.counts {
            writeln!(f, "{n:>12}  {what}")?;
        }
        for (what, n) in &self.fixed {
            writeln!(f, "{n:>12}  {what}")?;
        }
        Ok(())
    }
}
