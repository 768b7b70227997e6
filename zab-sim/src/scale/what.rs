//! What is measured, and what came of it.

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// From the last start of a process until all voters agree on a leader.
    ColdDecided,
    /// … until that leader serves.
    ColdServes,
    /// … until it has committed a transaction that it proposed at once.
    ColdCommit,
    /// … until all members serve.
    ColdAll,
    /// Notifications sent meanwhile.
    ColdVotes,
    /// Bytes on the election ports meanwhile.
    ColdBytes,
    /// From the death of the leader until the voters left agree on another.
    LostDecided,
    /// … until that one serves.
    LostServes,
    /// … until it has committed a transaction that it proposed at once.
    LostCommit,
    /// … until all who are left serve.
    LostAll,
    /// Notifications sent meanwhile.
    LostVotes,
    /// Bytes on the election ports meanwhile.
    LostBytes,
    /// From proposal to delivery on the leader, one in flight.
    CommitOne,
    /// … to delivery on the last member.
    CommitOneAll,
    /// From proposal to delivery on the leader, 32 in flight.
    CommitMany,
    /// A voter replaced: from the proposal until the leader goes by it.
    InForce,
    /// … until all members do.
    InForceAll,
    /// The leader dies when another server has a change of the members, which is not committed: until the
    /// voters of both configurations that are left agree on the next one.
    MiddleDecided,
    /// … until that one has committed a transaction.
    MiddleCommit,
    /// … until all that are left serve.
    MiddleAll,
    /// Notifications sent meanwhile.
    MiddleVotes,
    /// Bytes on the election ports meanwhile.
    MiddleBytes,
    /// The leader replaced: from the proposal until the designated one has committed a transaction.
    HandedCommit,
    /// … until all serve.
    HandedAll,
    /// From the death of the follower that serves most observers until all these serve again.
    MasterAll,
    /// From proposal to delivery on the leader of a transaction proposed at that death.
    MasterCommit,
}

impl What {
    /// All of them, with their names in results.
    pub const ALL: [(Self, &'static str); 26] = [
        (Self::ColdDecided, "cold start: voters decided, ms"),
        (Self::ColdServes, "cold start: leader serves, ms"),
        (Self::ColdCommit, "cold start: first commit, ms"),
        (Self::ColdAll, "cold start: all serve, ms"),
        (Self::ColdVotes, "cold start: notifications"),
        (Self::ColdBytes, "cold start: bytes on election ports"),
        (Self::LostDecided, "leader lost: voters decided, ms"),
        (Self::LostServes, "leader lost: next serves, ms"),
        (Self::LostCommit, "leader lost: next commit, ms"),
        (Self::LostAll, "leader lost: all serve, ms"),
        (Self::LostVotes, "leader lost: notifications"),
        (Self::LostBytes, "leader lost: bytes on election ports"),
        (Self::CommitOne, "commit, one in flight, ms"),
        (Self::CommitOneAll, "commit, one in flight, delivered by all, ms"),
        (Self::CommitMany, "commit, 32 in flight, ms"),
        (Self::InForce, "voter replaced: in force on the leader, ms"),
        (Self::InForceAll, "voter replaced: in force on all, ms"),
        (Self::MiddleDecided, "leader lost in a change: voters decided, ms"),
        (Self::MiddleCommit, "leader lost in a change: next commit, ms"),
        (Self::MiddleAll, "leader lost in a change: all serve, ms"),
        (Self::MiddleVotes, "leader lost in a change: notifications"),
        (Self::MiddleBytes, "leader lost in a change: bytes on election ports"),
        (Self::HandedCommit, "leader replaced: next commit, ms"),
        (Self::HandedAll, "leader replaced: all serve, ms"),
        (Self::MasterAll, "follower lost: its observers serve, ms"),
        (Self::MasterCommit, "follower lost: next commit, ms"),
    ];
}

/// What was measured, times in ms.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Samples {
    /// Events of the simulator that it took.
    pub events: u64,
    values: [Vec<f64>; What::ALL.len()],
}

impl Samples {
    /// All values of one kind.
    #[must_use]
    pub fn of(&self, what: What) -> &[f64] {
        &self.values[what as usize]
    }

    pub(super) fn add(&mut self, what: What, value: f64) {
        self.values[what as usize].push(value);
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.events += other.events;
        for (mine, theirs) in self.values.iter_mut().zip(other.values) {
            mine.extend(theirs);
        }
    }
}
