//! What an operator should hear of, though no connection ends for it.
//!
//! Strangers can cause some of these as often as they like, so each kind is told once a minute at most,
//! with the number of those in between.

use alloc::vec::Vec;
use core::fmt;
use core::mem::{Discriminant, discriminant};
use core::time::Duration;

use crate::{Epoch, Instant, Sid};

/// Something for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The epochs on this server's disk cannot be right (rule R21).
    DamagedEpochs {
        /// `acceptedEpoch`, if it is there.
        accepted: Option<Epoch>,
        /// `currentEpoch`, if it is there.
        current: Option<Epoch>,
        /// The epoch of the newest transaction.
        history: Epoch,
    },
    /// This server's history is ahead of an established leader's, which refuses it.
    Ahead {
        /// The leader.
        leader: Sid,
        /// Its epoch.
        epoch: Epoch,
        /// The epoch of this server's history.
        own: Epoch,
    },
    /// There is no epoch left to lead.
    NoEpochLeft,
    /// A vote came with a configuration that is newer than this server's. Nobody believes it.
    NewerConfig {
        /// Who claims to have cast the vote.
        from: Sid,
        /// The configuration's version.
        version: i64,
    },
}

impl Notice {
    /// Whether an operator has to do something.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::NewerConfig { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DamagedEpochs { accepted, current, history } => {
                let text = |epoch: &Option<Epoch>| epoch.map_or(i64::MIN, |epoch| epoch.0);
                write!(
                    f,
                    "The files acceptedEpoch ({}) and currentEpoch ({}) cannot both be right beside a \
                     history that ends in epoch {history}: this server does not vote until a leader has \
                     synchronised it",
                    text(accepted),
                    text(current),
                )
            }
            Self::Ahead { leader, epoch, own } => write!(
                f,
                "Refused by server {leader}, which leads epoch {epoch}: this server's history is of \
                 epoch {own}. If that leader serves others, this data directory belongs to another \
                 ensemble: stop this server and give it an empty directory",
            ),
            Self::NoEpochLeft => write!(
                f,
                "Epochs end at {}: no leader is possible. Some acceptedEpoch has been damaged",
                Epoch::MAX
            ),
            Self::NewerConfig { from, version } => write!(
                f,
                "A vote of server {from} comes with a configuration of version {version:#x}, which is \
                 newer than this server's. A vote proves nothing, so it is not believed; a leader's \
                 word would be",
            ),
        }
    }
}

/// When each kind was told last, and how many were not since.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    told: Vec<(Discriminant<Notice>, Instant, u64)>,
}

impl Notices {
    /// Whether to tell it now, and how many like it were kept back before.
    pub(crate) fn admit(&mut self, now: Instant, notice: &Notice) -> Option<u64> {
        let kind = discriminant(notice);
        let Some((_, last, kept)) = self.told.iter_mut().find(|(told, ..)| *told == kind) else {
            self.told.push((kind, now, 0));
            return Some(0);
        };
        if now.saturating_since(*last) < PAUSE {
            *kept += 1;
            return None;
        }
        *last = now;
        Some(core::mem::take(kept))
    }
}

const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_once_a_minute() {
        let mut notices = Notices::default();
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let newer = |from| Notice::NewerConfig { from: Sid(from), version: 1 };
        assert_eq!(notices.admit(at(1), &newer(1)), Some(0));
        for from in 0..1000 {
            assert_eq!(notices.admit(at(2), &newer(from)), None);
        }
        assert_eq!(notices.admit(at(2), &Notice::NoEpochLeft), Some(0));
        assert_eq!(notices.admit(at(61), &newer(1)), Some(1000));
        assert_eq!(notices.admit(at(122), &newer(1)), Some(0));
    }
}
