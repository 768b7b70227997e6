//! Errors, by who is at fault.

use core::fmt;

use crate::wire::Foreign;

/// What the bytes of a message got wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record needs more bytes than there are.
    UnexpectedEof,
    /// A length is negative (other than -1) or above the limit.
    BadLength(i64),
    /// A number that must be one of a few is none of them.
    BadValue(i64),
    /// Text that must be an address or a configuration is none.
    BadText,
    /// The first bytes of a connection are another protocol's.
    Foreign(Foreign),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEof => f.write_str("unexpected end of data"),
            Self::BadLength(n) => write!(f, "unreasonable length {n}"),
            Self::BadValue(n) => write!(f, "unexpected value {n}"),
            Self::BadText => f.write_str("malformed text"),
            Self::Foreign(protocol) => write!(f, "the other side speaks {protocol}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Well-formed, but not allowed here and now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// A packet type that this phase does not allow.
    UnexpectedPacket(i32),
    /// The peer calls itself by our own server id.
    OwnSid,
    /// LEADERINFO with an epoch below the accepted one.
    OldEpoch,
    /// A learner's history is ahead of this leader's: it is another ensemble's, or this leader's
    /// time is over.
    LearnerAhead,
    /// The leader lacks what was committed before.
    LeaderBehind,
    /// An epoch that is out of range, or so far above all that is known that it is no promise but
    /// damage (rule R21).
    ImplausibleEpoch(crate::Epoch),
    /// The peer's server id is not in the configuration.
    Stranger(crate::Sid),
    /// The peer comes from an address that is none of those the configuration gives its server id.
    WrongAddress(crate::Sid, core::net::IpAddr),
    /// The peer's data directory belongs to another ensemble than this server's (rule R24).
    OtherEnsemble {
        /// The peer's ensemble.
        theirs: crate::EnsembleId,
        /// This server's.
        ours: crate::EnsembleId,
    },
    /// The peer's server id has a connection that is alive.
    Duplicate(crate::Sid),
    /// A learner's configuration is newer than this leader's.
    NewerConfig,
    /// The members of the ensemble change, or have changed, to others than this server's.
    Reconfigured,
    /// A proposal that does not follow the last one.
    Gap,
    /// The leader has left out the zxids between these two, and no digest has shown that it never used
    /// them (rule R8).
    UnprovenGap {
        /// The last zxid before the gap.
        after: crate::Zxid,
        /// The first zxid after it.
        next: crate::Zxid,
    },
    /// A commit without its proposal, or out of order.
    CommitOrder,
    /// A learner acknowledges what it was not sent.
    AckOfUnsent(crate::Zxid),
    /// The snapshot does not end with its signature, or the application refused it.
    BadSnapshot,
    /// A truncation to a point that this server cannot go back to.
    BadTruncation,
    /// A transaction without a header, or whose header names another zxid.
    BadTxn,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedPacket(kind) => write!(f, "unexpected packet of type {kind}"),
            Self::OwnSid => f.write_str("peer uses our own server id"),
            Self::OldEpoch => f.write_str("leader's epoch is below the accepted one"),
            Self::LearnerAhead => f.write_str(
                "learner's history is ahead of ours: its data directory belongs to another \
                 ensemble (then stop it, and give it an empty one), or we lead no more",
            ),
            Self::LeaderBehind => f.write_str(
                "leader lacks transactions that were committed: its data directory belongs to \
                 another ensemble or an older time (then stop it, and give it an empty one)",
            ),
            Self::ImplausibleEpoch(epoch) => {
                write!(f, "epoch {epoch} is no promise but damage (the file acceptedEpoch?)")
            }
            Self::Stranger(sid) => write!(
                f,
                "server {sid} is not in the configuration (zab.allowUnlistedServers=true admits it)"
            ),
            Self::WrongAddress(sid, address) => write!(
                f,
                "server {sid} has another address than {address} in the configuration \
                 (zab.checkPeerAddresses=false admits it)"
            ),
            Self::OtherEnsemble { theirs, ours } => write!(
                f,
                "the peer has the data of ensemble {theirs}, this server that of ensemble {ours}"
            ),
            Self::Duplicate(sid) => {
                write!(f, "server {sid} is connected already, and that connection is alive")
            }
            Self::NewerConfig => f.write_str("learner's configuration is newer than ours"),
            Self::Reconfigured => f.write_str("the ensemble's members have changed (reconfig)"),
            Self::Gap => f.write_str("proposal does not follow the last one"),
            Self::UnprovenGap { after, next } => {
                write!(
                    f,
                    "{after} is followed by {next}, and no digest shows that nothing was lost"
                )
            }
            Self::CommitOrder => f.write_str("commit does not match the oldest proposal"),
            Self::AckOfUnsent(zxid) => {
                write!(
                    f,
                    "learner acknowledges {zxid}, which it was not sent: it is not to be believed"
                )
            }
            Self::BadSnapshot => f.write_str("bad snapshot stream"),
            Self::BadTruncation => f.write_str("cannot truncate to where the leader wants"),
            Self::BadTxn => f.write_str("bad transaction header"),
        }
    }
}

impl core::error::Error for Violation {}

/// Why the core closed a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Undecodable bytes.
    Malformed(DecodeError),
    /// A field of a member that this server knows is longer than it takes. Members have different
    /// limits, which an operator has to mend.
    TooLong {
        /// Bytes of the field.
        len: usize,
        /// What this server takes, `Limits::field_len_max_bytes`.
        max: usize,
    },
    /// A breach of the protocol.
    Violation(Violation),
    /// The other side was silent for too long.
    Silent,
    /// The leader was silent for longer than its heartbeats allow.
    Suspected {
        /// For how long nothing has come of it.
        silent_ms: u32,
        /// The limit at that time. Votes of others who look for a leader shorten it.
        limit_ms: u32,
        /// The worst silence of the minute before.
        worst_gap_ms: u32,
    },
    /// The learner did not acknowledge in time.
    SlowAck,
    /// The learner is too far behind for the bounded window.
    TooFarBehind,
    /// The learner is too far behind: the log on disk no longer has what it lacks either.
    NotInLog,
    /// The learner takes nothing of what it is sent.
    NotReading,
    /// All connections were taken, and this one owed its introduction for longest or came from nobody
    /// that the configuration names.
    MadeRoom,
    /// Another learner waits for a snapshot that this one is sent too slowly, or for its turn.
    SnapshotWanted,
    /// The connection is not the one that a pair of servers keeps.
    Superseded,
    /// The log that the learner needs could not be read to its end.
    LogUnreadable,
    /// The role that needed the connection has ended.
    RoleEnded,
    /// The members have changed, and with them this server's role or its leader.
    Reconfigured,
    /// The application asked for it.
    Application,
}

impl CloseReason {
    /// Why the connection of a known member ends whose bytes do not decode.
    pub(crate) fn of_member(error: DecodeError, field_len_max: usize) -> Self {
        match error {
            DecodeError::BadLength(len) => match usize::try_from(len) {
                Ok(len) if len > field_len_max => Self::TooLong { len, max: field_len_max },
                _ => Self::Malformed(error),
            },
            _ => Self::Malformed(error),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed input: {error}"),
            Self::TooLong { len, max } => write!(
                f,
                "it sends {len} bytes in one piece, and this server takes {max} (jute.maxbuffer and \
                 jute.maxbuffer.extrasize together). All members need the same: raise it here"
            ),
            Self::Violation(violation) => violation.fmt(f),
            Self::Silent => f.write_str("silent for too long"),
            Self::Suspected { silent_ms, limit_ms, worst_gap_ms } => write!(
                f,
                "suspected after {silent_ms} ms without a heartbeat (limit {limit_ms} ms; worst gap of \
                 the last minute {worst_gap_ms} ms)"
            ),
            Self::SlowAck => f.write_str("proposals not acknowledged in time"),
            Self::TooFarBehind => f.write_str("too far behind"),
            Self::NotInLog => {
                f.write_str("the log no longer has what it lacks: it needs a snapshot")
            }
            Self::NotReading => f.write_str("takes nothing of what it is sent"),
            Self::MadeRoom => f.write_str("made room for another connection"),
            Self::SnapshotWanted => f.write_str("another learner waits for its turn of a snapshot"),
            Self::Superseded => f.write_str("superseded by another connection"),
            Self::LogUnreadable => f.write_str("log not readable as far as needed"),
            Self::RoleEnded => f.write_str("role ended"),
            Self::Reconfigured => f.write_str(
                "the members have changed (reconfig), and with them this server's role or leader",
            ),
            Self::Application => f.write_str("closed by the service"),
        }
    }
}

/// Why a transaction was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProposeError {
    /// Only an established leader proposes.
    NotLeading,
    /// The window is full of transactions that are not committed or not durable yet.
    Full,
    /// The transaction is larger than a member could read.
    TooLarge,
    /// The counter is used up; a new epoch begins.
    Rollover,
    /// The payload's header does not carry the next zxid, or it is a change of the members that is
    /// none: it does not decode, is of another version than its zxid, or such changes are off.
    BadTxn,
    /// Another change of the members is not committed yet.
    Reconfiguring,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLeading => "not leading",
            Self::Full => "too many transactions in flight",
            Self::TooLarge => "transaction too large",
            Self::Rollover => "zxid counter used up",
            Self::BadTxn => "bad transaction header",
            Self::Reconfiguring => "another change of the members is under way",
        })
    }
}

impl core::error::Error for ProposeError {}

/// Why a leader does not make way for another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResignError {
    /// This server does not lead an ensemble.
    NotLeading,
    /// No follower answers and has everything, so that none could lead at once.
    NoSuccessor,
}

impl fmt::Display for ResignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLeading => "this server does not lead",
            Self::NoSuccessor => "no follower answers and has all that is committed",
        })
    }
}

impl core::error::Error for ResignError {}

/// What is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// This server's id is not a member.
    NotAMember(crate::Sid),
    /// Something else where a number must be; the text is that.
    NotANumber(alloc::string::String),
    /// A rule of the configuration is broken; the text says which.
    Invalid(alloc::string::String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMember(sid) => write!(f, "My id {sid} not in the peer list"),
            // As Java's exception has it.
            Self::NotANumber(text) => write!(f, "For input string: \"{text}\""),
            Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for ConfigError {}
