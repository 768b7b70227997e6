//! Newtypes for the protocol's numbers. All compare as signed 64-bit integers, as ZooKeeper does.

use core::fmt;

/// Transaction id: the epoch in the high 32 bits, a counter within the epoch in the low 32.
///
/// Votes carry special values (`-1`: no trustworthy history; `i64::MIN`: an observer), which is why
/// the representation is signed and comparison is signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(i64);

impl Zxid {
    /// The zxid of an empty history.
    pub const ZERO: Self = Self(0);
    /// "Nothing trustworthy": a server that reports it is neither elected nor counted.
    pub const NONE: Self = Self(-1);
    /// What an observer puts into its vote.
    pub const MIN: Self = Self(i64::MIN);

    /// The zxid `counter` of `epoch`. Only the low 32 bits of the epoch fit.
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        Self((epoch.0 << 32) | counter as i64)
    }

    /// From the number on the wire.
    #[must_use]
    pub const fn from_raw(raw: i64) -> Self {
        Self(raw)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> i64 {
        self.0
    }

    /// The high half, by arithmetic shift (so `-1` has epoch `-1`).
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0 >> 32)
    }

    /// The low half.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the low 32 bits are the counter"
    )]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// Whether `next` may directly follow `self` in a history: the next counter of the same epoch,
    /// or counter 1 (any counter, for histories that a snapshot cut) of a later epoch.
    #[must_use]
    pub fn is_followed_by(self, next: Self) -> bool {
        if next.epoch() == self.epoch() { next.0 == self.0 + 1 } else { next > self }
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a leader's reign. Rises by at least one with each established leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Server id (`myid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sid(pub i64);

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who should lead, and why: the candidate's last zxid and current epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The candidate.
    pub leader: Sid,
    /// The candidate's last logged zxid, as far as the voter knows.
    pub zxid: Zxid,
    /// The candidate's current epoch.
    pub peer_epoch: Epoch,
}
