//! Faults put in on purpose, to show that the checks bite.
//!
//! Each re-introduces a faulty order that was found in the field. They live in the simulator's
//! disk and driver, which then lie to the core as the faulty code of old would have done.

/// A faulty order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mutation {
    /// Writes are reported durable when they are issued (B-02).
    AckBeforeFsync,
    /// An epoch file overtakes the log records before it (B-01).
    EpochBeforeHistory,
    /// An accepted epoch is reported durable and lost at a power cut (H1, B-26).
    EpochRenameLost,
    /// A truncation is reported durable and undone at a power cut (H2).
    TruncateNotDurable,
    /// A snapshot installed by a sync is lost at a power cut, the log after it is not (B-17, H3).
    InstallNotDurable,
    /// Installing a snapshot leaves log records above it in place (B-14).
    InstallKeepsLogTail,
    /// What follows an installed snapshot is written behind it, and not together with it.
    InstallInParts,
    /// A failed append is skipped and the next ones succeed (B-11).
    AppendErrorIgnored,
    /// What a restart read back is lost at a later power cut (H4).
    RecoveredTailNotSynced,
    /// A proposal of the synchronisation is dropped together with its commit (B-09, B-20).
    SyncSkipsOne,
    /// An acknowledgement overtakes the one of NEWLEADER (B-05).
    AckOvertakesNewLeader,
    /// The application skips a transaction right after a restart (etcd's consistent index).
    ApplySkipsOne,
    /// Truncation does not reach the disk: what was cut is read at the next start (B-13).
    TruncateKeepsTail,
    /// A snapshot for a learner is read late: it holds more than its name says (B-15).
    SnapshotReadLate,
    /// What came with a TRUNC is reported durable and lost at a power cut (H3).
    TruncSyncNotDurable,
    /// What came with a DIFF is reported durable and lost at a power cut (B-03, B-04).
    DiffNotDurable,
    /// The first log file of a process is reported durable, its name is not (H7).
    LogFileNotLinked,
    /// What is kept as committed is what is logged.
    CommitPointAhead,
    /// The tail of the log counts against the window: with a longer one nobody can be joined.
    RecoveredTailCounts,
    /// A leader leaves its quorum for an introduction with a higher accepted epoch.
    LeaderLeavesForClaim,
    /// A leader makes way for a foreign history that is ahead of its own.
    ForeignHistoryTaken,
    /// Members do not compare which ensemble they belong to.
    IdentityNotCompared,
    /// A configuration in a vote is believed, and ends a server at its next election.
    VoteConfigBelieved,
    /// What is stored of the configurations is lost at a power cut, though it was reported durable.
    ConfigurationsNotDurable,
    /// A server that starts again goes by the list that it started with for the first time.
    ConfigurationsForgotten,
    /// A change of the members is committed by the old ones alone: for the new ones somebody else agrees.
    NewVotersUnasked,
    /// A follower takes what is proposed as committed, and tells its observers.
    MasterInformsUncommitted,
    /// Whoever is told of a proposed change goes by it, though it is not committed.
    ActivatedOnProposal,
    /// A server that starts again takes the configuration that NEWLEADER told it last for the committed one.
    NewLeaderCommits,
    /// A change makes the server with the shortest history the next leader.
    SuccessorBehind,
    /// The vote of a server that was removed counts as if a voter that is silent had cast it.
    RemovedVotes,
    /// A change is proposed while another one is under way.
    SecondChange,
    /// A leader takes learners that are gone for present.
    AbsentPresent,
    /// A leader's clock stands still while its process does not run: when it comes back it does not know that
    /// it was away, and serves reads at once.
    ClockStandsStill,
    /// A follower that comes back is told of the time as if it had run all along: it takes its own pause for
    /// its leader's silence.
    PauseConcealed,

    // In the service.
    /// A learner answers a sync without the leader's word (B-49).
    SyncAnsweredEarly,
    /// A request that a learner forwards is carried out twice.
    RequestTwice,
    /// An event comes after the answer that shows the change.
    EventAfterAnswer,
    /// What clients together make a server keep has no bound.
    ClientsUnbounded,
    /// setWatches arms, but tells nothing of what was missed.
    MissedEventsForgotten,
    /// A persistent watch fires once.
    PersistentFiresOnce,
    /// setWatches2 arms what setWatches does, and no persistent watches.
    PersistentNotArmedAgain,
    /// A client that comes back with its session silently gets another.
    OldSessionRenewed,
    /// Sequence numbers are the number of children.
    SequenceFromChildren,
    /// An expired session and its ephemerals go on the leader only.
    ExpiryOnLeaderOnly,
    /// Learners do not report which sessions are alive.
    TouchesLost,
    /// A snapshot leaves out the sessions (B-31).
    SnapshotWithoutSessions,
    /// A snapshot leaves out the table of ACLs (B-34).
    SnapshotWithoutAcls,
    /// What a learner forwards comes without its client's identities.
    IdentitiesNotForwarded,
    /// A leader removes containers that nobody has used yet.
    UnusedContainersRemoved,
    /// A turn of the server's loop goes on as long as clients ask for something.
    TurnWithoutEnd,
    /// What takes more than a turn is prepared, applied and answered in one piece.
    PiecesAtOnce,
    /// What was in flight is submitted again to a leader that may have it already: a server that is
    /// back with its leader takes that for a new epoch.
    ResubmittedTooEarly,
    /// After a snapshot, of which nobody knows what of the requests in flight is in it, they are submitted
    /// again.
    ResubmittedAfterSnapshot,
    /// What is submitted again goes out twice.
    ResubmittedTwice,
    /// What is submitted again reaches the leader in another order.
    ResubmittedOutOfOrder,
    /// A session that comes back to a server is not synchronised first, so that transactions of its older
    /// connection answer requests of the new one with the same number.
    OlderConnectionAnswers,
    /// Connections are closed as soon as the leader is lost.
    NobodyHeld,
    /// A local session is to become one of the ensemble, and its leader never hears of it.
    UpgradeLost,
    /// A server forgets the sessions that have begun in what it is told, or finds in its log, while it serves nobody.
    UpgradeForgotten,
    /// A local session's nodes are made, and the session stays unknown to all servers.
    EphemeralsUnowned,
}

impl Mutation {
    /// All in the simulator's disk, wire and application.
    pub const ALL: &[Self] = &[
        Self::AckBeforeFsync,
        Self::EpochBeforeHistory,
        Self::EpochRenameLost,
        Self::TruncateNotDurable,
        Self::InstallNotDurable,
        Self::InstallKeepsLogTail,
        Self::InstallInParts,
        Self::AppendErrorIgnored,
        Self::RecoveredTailNotSynced,
        Self::SyncSkipsOne,
        Self::AckOvertakesNewLeader,
        Self::ApplySkipsOne,
        Self::TruncateKeepsTail,
        Self::SnapshotReadLate,
        Self::TruncSyncNotDurable,
        Self::LogFileNotLinked,
        Self::DiffNotDurable,
        Self::CommitPointAhead,
        Self::RecoveredTailCounts,
        Self::LeaderLeavesForClaim,
        Self::ForeignHistoryTaken,
        Self::IdentityNotCompared,
        Self::VoteConfigBelieved,
        Self::ClockStandsStill,
        Self::PauseConcealed,
    ];

    /// All that are found only where the members change (profile `members`).
    pub const MEMBERS: &[Self] = &[
        Self::ConfigurationsNotDurable,
        Self::ConfigurationsForgotten,
        Self::NewVotersUnasked,
        Self::ActivatedOnProposal,
        Self::NewLeaderCommits,
        Self::SuccessorBehind,
        Self::RemovedVotes,
        Self::SecondChange,
        Self::AbsentPresent,
    ];

    /// All that are found only where observers learn from followers (profile `masters`).
    pub const MASTERS: &[Self] = &[Self::MasterInformsUncommitted];

    /// All that are found with the ZooKeeper service only.
    pub const SERVICE: &[Self] = &[
        Self::SyncAnsweredEarly,
        Self::RequestTwice,
        Self::EventAfterAnswer,
        Self::ClientsUnbounded,
        Self::MissedEventsForgotten,
        Self::PersistentFiresOnce,
        Self::PersistentNotArmedAgain,
        Self::OldSessionRenewed,
        Self::SequenceFromChildren,
        Self::ExpiryOnLeaderOnly,
        Self::TouchesLost,
        Self::SnapshotWithoutSessions,
        Self::SnapshotWithoutAcls,
        Self::IdentitiesNotForwarded,
        Self::UnusedContainersRemoved,
        Self::TurnWithoutEnd,
        Self::PiecesAtOnce,
        Self::ResubmittedTooEarly,
        Self::ResubmittedAfterSnapshot,
        Self::ResubmittedTwice,
        Self::ResubmittedOutOfOrder,
        Self::OlderConnectionAnswers,
        Self::NobodyHeld,
        Self::UpgradeLost,
        Self::UpgradeForgotten,
        Self::EphemeralsUnowned,
    ];

    /// The mutation of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .chain(Self::MEMBERS)
            .chain(Self::MASTERS)
            .chain(Self::SERVICE)
            .copied()
            .find(|m| format!("{m:?}").eq_ignore_ascii_case(name))
    }
}
