//! Why bytes of a connection are left unread.

/// What a connection waits for before its next request is taken.
///
/// `service/admission.rs` decides which it is, keeps the connection where whoever ends the wait finds
/// it, and resumes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Wait {
    /// Its handshake: a transaction, or the leader's word about its session.
    Handshake,
    /// A leader: the connection is held between two roles, or would be if this one ends before that of its
    /// session is committed.
    Leader,
    /// What it had in flight in the last role is submitted again first.
    Resubmission,
    /// The end of this server: nothing more is read from anybody.
    End,
    /// Its turn among all connections.
    Turn,
    /// Its client, which leaves too much of its output unread.
    Output,
    /// Answers to its earlier requests: too many are in flight, or too much is kept of them.
    Answers,
    /// Answers to its earlier requests: those of all clients are more than `globalOutstandingLimit`, and it is one of
    /// those that wait for them.
    Outstanding,
    /// A write waits for syncs and reads in front of it, behind which it could be answered too early.
    Order,
    /// A request of somebody else, which takes more than a turn to prepare: nothing else is prepared
    /// meanwhile. Then it waits for its turn.
    Preparation,
    /// Room in the leader's window, or on the way to the leader.
    Room,
    /// Answers to requests of others: as many are under way as `request_throttle_max_requests` allows.
    Requests,
    /// Answers to other writes that are on the way to the leader: those may be half of this many
    /// bytes.
    Writes(usize),
}
