//! What goes into the core and what comes out of it.

use alloc::string::String;
use core::fmt;

use crate::{CloseReason, Epoch, Identity, Notice, Sid, Zxid};

/// A connection, named by the core or by the application that owns it: a slot and a generation, so
/// that an event about a closed connection never hits its successor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    const CLIENT: u32 = 1 << 31;

    /// A connection of the core (election or quorum port).
    #[must_use]
    pub const fn core(slot: u32, generation: u32) -> Self {
        Self { slot: slot & !Self::CLIENT, generation }
    }

    /// A connection of the application (client port).
    #[must_use]
    pub const fn client(slot: u32, generation: u32) -> Self {
        Self { slot: slot | Self::CLIENT, generation }
    }

    /// Whether the application owns the connection.
    #[must_use]
    pub const fn is_client(self) -> bool {
        self.slot & Self::CLIENT != 0
    }

    /// The slot, unique among the open connections of the same owner.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot & !Self::CLIENT
    }

    /// How often the slot was used before.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_client() { 'c' } else { 'p' };
        write!(f, "{kind}{}.{}", self.slot(), self.generation)
    }
}

/// Which of a server's three ports a connection belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Channel {
    /// Votes.
    Election,
    /// Discovery, synchronisation and broadcast; learners dial the leader.
    Quorum,
    /// The application's clients.
    Client,
}

/// Number of a storage output. Rises by one with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ticket(pub u64);

/// The two epochs a server keeps on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EpochKind {
    /// The highest epoch promised to a leader (`acceptedEpoch`).
    Accepted,
    /// The epoch of the last leader synchronised with (`currentEpoch`).
    Current,
}

/// ZooKeeper's four server states.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ServerState {
    /// In election.
    Looking,
    /// Follower of a leader.
    Following,
    /// The leader.
    Leading,
    /// Non-voting learner of a leader.
    Observing,
}

/// How far a server is on its way from election to service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Looking for a leader.
    Election,
    /// Agreeing on the epoch.
    Discovery,
    /// Bringing learners to the leader's history.
    Synchronization,
    /// In service.
    Broadcast,
}

/// How a learner is brought to the leader's history.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncMode {
    /// By the transactions it lacks.
    Diff,
    /// By cutting its log back, then the transactions it lacks.
    Trunc,
    /// By a whole snapshot.
    Snap,
}

/// Role, phase and leader of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// ZooKeeper's server state.
    pub state: ServerState,
    /// Progress within it. The application serves clients in [`Phase::Broadcast`] only.
    pub phase: Phase,
    /// The leader, once elected; this server itself when leading.
    pub leader: Option<Sid>,
    /// The epoch in force; before discovery has ended, the current epoch on disk.
    pub epoch: Epoch,
    /// How this learner is being or was synchronised.
    pub sync: Option<SyncMode>,
}

/// What the world tells the core, apart from bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// [`poll_timeout`](crate::Node::poll_timeout) has passed; early or repeated is harmless.
    Timeout,
    /// A dial asked for has succeeded.
    Opened {
        /// The dialled connection.
        conn: ConnId,
    },
    /// A dial failed, the other side hung up, or the socket broke.
    Closed {
        /// The connection, which the core forgets.
        conn: ConnId,
    },
    /// Every storage output up to this one is durable.
    Persisted {
        /// The highest durable ticket.
        through: Ticket,
    },
    /// The stream lent by [`Output::Snapshot`] is written out.
    SnapshotDone {
        /// The learner's connection.
        conn: ConnId,
    },
    /// The answer to [`Output::AskOracle`].
    Oracle {
        /// This server is a quorum without the other voter.
        granted: bool,
    },
}

/// What the core asks of the world: each exactly once, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output<'a> {
    /// Storage: make an epoch durable.
    SetEpoch {
        /// Place in the storage order.
        ticket: Ticket,
        /// Which epoch file.
        kind: EpochKind,
        /// Its new value.
        epoch: Epoch,
    },
    /// Storage: make the id of the ensemble durable.
    SetIdentity {
        /// Place in the storage order.
        ticket: Ticket,
        /// The id, in the place of an older one.
        identity: Identity,
    },
    /// Storage: make the configurations of the ensemble durable, in the place of those before.
    SetConfigurations {
        /// Place in the storage order.
        ticket: Ticket,
        /// Their texts ([`Membership::text`](crate::Membership::text)): the committed one, then those that are
        /// being introduced, ascending.
        texts: &'a [String],
    },
    /// Storage: append a transaction to the log.
    Append {
        /// Place in the storage order.
        ticket: Ticket,
        /// Its zxid.
        zxid: Zxid,
        /// Its payload.
        txn: &'a [u8],
    },
    /// Storage: remove all log records and snapshots above `after`.
    Truncate {
        /// Place in the storage order.
        ticket: Ticket,
        /// The last zxid to keep.
        after: Zxid,
    },
    /// Storage: a transaction after the snapshot that is staged. Nothing durable changes; it becomes part
    /// of the log with [`Install`](Self::Install), which follows.
    Stage {
        /// Its zxid.
        zxid: Zxid,
        /// Its payload.
        txn: &'a [u8],
    },
    /// Storage and application: the staged snapshot becomes the state as of `zxid`, and the staged
    /// transactions the log after it.
    Install {
        /// Place in the storage order.
        ticket: Ticket,
        /// The snapshot's zxid.
        zxid: Zxid,
    },
    /// Storage and application: forget the staged snapshot, its sync was cut short.
    DiscardStage,
    /// Application: a committed transaction.
    Deliver {
        /// Its zxid.
        zxid: Zxid,
        /// Its payload.
        txn: &'a [u8],
    },
    /// Application: the leader has left out the zxids between these two, and what follows is
    /// committed. Can `txn` prove that they were never used (rule R8)? To be answered with
    /// [`Peer::prove_gap`](crate::Peer::prove_gap), and again after `txn` is delivered.
    Gap {
        /// The last zxid before the gap.
        after: Zxid,
        /// The zxid after it.
        zxid: Zxid,
        /// Its payload.
        txn: &'a [u8],
    },
    /// Application: role or phase changed.
    Became(Status),
    /// Application and network: another configuration is committed, which
    /// [`Config::ensemble`](crate::Config::ensemble) of [`Peer::config`](crate::Peer::config) says. What was
    /// delivered before is in front of it.
    Reconfigured,
    /// Application: a sync round started by [`Peer::sync`](crate::Peer::sync) has ended.
    Synced {
        /// The number `sync` returned.
        token: u64,
    },
    /// Application: there is room for proposals again, after `can_propose` said no.
    Room,
    /// Network: dial a member.
    Connect {
        /// Name of the new connection.
        conn: ConnId,
        /// The port's kind.
        channel: Channel,
        /// `host:port`, several joined by `|`; use the first that answers.
        addresses: &'a str,
    },
    /// Network: there is something to send where there was nothing.
    Transmit {
        /// The connection to ask [`poll_transmit`](crate::Peer::poll_transmit) for.
        conn: ConnId,
    },
    /// Network: bytes that were left unconsumed may be offered again.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// Network and application: the application's snapshot goes out on this connection, after what
    /// `poll_transmit` still has. End with [`Input::SnapshotDone`].
    Snapshot {
        /// The learner's connection.
        conn: ConnId,
    },
    /// Storage: read the log between two zxids for this learner. Answer with
    /// [`Peer::log_opened`](crate::Peer::log_opened).
    Log {
        /// The learner's connection.
        conn: ConnId,
        /// The last zxid it has.
        after: Zxid,
        /// The last zxid to read; the window has what follows.
        through: Zxid,
        /// However much it is. If not, a snapshot may be better than a long stretch.
        any_length: bool,
    },
    /// Oracle: is this server a quorum without the other of two voters? Answer with [`Input::Oracle`]; there is
    /// no further question before that. Only with [`Config::oracle`](crate::Config::oracle).
    AskOracle,
    /// Log: something an operator should know.
    Notice {
        /// What.
        notice: Notice,
        /// How many like it were kept back since the last one.
        more: u64,
    },
    /// Network: close a connection.
    Close {
        /// The connection, which the core has forgotten already.
        conn: ConnId,
        /// Why, for the log.
        reason: CloseReason,
    },
}

/// A learner as its leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The learner's server id.
    pub sid: Sid,
    /// Its connection.
    pub conn: ConnId,
}

/// What [`Peer::handle_bytes`](crate::Peer::handle_bytes) made of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'b> {
    /// How many bytes were consumed. For [`Message::Snapshot`] the message itself is not yet.
    pub consumed: usize,
    /// A message for the application, which ends the call; there may be more to consume.
    pub message: Option<Message<'b>>,
}

/// Learner traffic that carries application data; opaque to the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'b> {
    /// On the leader: a learner forwards a request.
    Request {
        /// Who.
        from: Origin,
        /// Session id, cxid, opcode, request record.
        data: &'b [u8],
        /// The requester's identities: an encoded `vector<Id>`, with its count (-1: null).
        auth: &'b [u8],
    },
    /// On the leader: sessions that were alive on a learner since its last report.
    Touched {
        /// Who.
        from: Origin,
        /// Entries of session id (i64) and time-out in ms (i32).
        sessions: &'b [u8],
    },
    /// On the leader: is a session still valid? Answer with [`Peer::revalidated`](crate::Peer).
    Revalidate {
        /// Who asks.
        from: Origin,
        /// Session id (i64), time-out in ms (i32).
        data: &'b [u8],
    },
    /// On a learner: the leader wants to hear which sessions are alive; answer with `pong`.
    Ping,
    /// On a learner: the answer to a `revalidate`.
    Revalidated {
        /// Session id (i64), valid (bool).
        data: &'b [u8],
    },
    /// On a learner: the oldest forwarded sync is answered.
    Synced,
    /// On a learner: part of a snapshot. Report progress with
    /// [`Peer::snapshot_received`](crate::Peer::snapshot_received).
    Snapshot {
        /// All that has arrived; what is not used must be offered again.
        bytes: &'b [u8],
    },
}
