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

    /// The zxid `counter` of `epoch`. An epoch beyond the 32 bits that it has here counts as the
    /// nearest one that fits; no such epoch is ever in force, see [`Epoch::MAX`].
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        let (min, max) = (i32::MIN as i64, i32::MAX as i64);
        let half = if epoch.0 < min {
            min
        } else if epoch.0 > max {
            max
        } else {
            epoch.0
        };
        Self((half << 32) | counter as i64)
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
        if next.epoch() == self.epoch() {
            self.0.checked_add(1) == Some(next.0)
        } else {
            next > self
        }
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

impl Epoch {
    /// The last epoch that a leader may lead. The one after it is the last that a zxid can hold,
    /// and nothing could follow it (rule R21).
    pub const MAX: Self = Self(0x7fff_fffe);

    /// How far an epoch may be above what is proven and still be believed. Each attempt to lead
    /// raises it by one, so even a night of failed elections stays far below; a damaged file or a
    /// stranger's number does not (rule R21).
    pub const PLAUSIBLE_RISE: i64 = 1 << 16;

    /// Whether a server that knows of `proven` may believe somebody's word of this epoch. The only
    /// reason to doubt it is the number itself: out of range, or too far above to be a promise.
    #[must_use]
    pub fn is_plausible(self, proven: Self) -> bool {
        let most = proven.0.saturating_add(Self::PLAUSIBLE_RISE);
        (0..=Self::MAX.0.min(most)).contains(&self.0)
    }

    /// The epoch above this one; `None` at the end of the range.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (Self(0)..Self::MAX).contains(&self).then(|| Self(self.0 + 1))
    }
}

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

/// How new a server's history is: the greater one has more. ZooKeeper's `StateSummary`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StateSummary {
    pub(crate) current_epoch: Epoch,
    pub(crate) last_zxid: Zxid,
}
