//! Whether a server can be stopped now without harm to its ensemble: the answer, and what proves it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Sid;

/// What the end of this one server, now, would mean for its ensemble. It is about one server: two of
/// them that both may be stopped must not be stopped both.
///
/// The leader knows, since it alone hears of everybody: who follows, who has answered lately, who has
/// what on disk, who is still being synchronised. It tells its followers of ours whenever that changes
/// (`leader/spares.rs`), and they repeat it as long as they hear of it. Nobody guesses: a server that
/// does not know says so, and that is no yes.
///
/// What a yes proves: without this server, voters that were heard of within the limit of suspicion and
/// have all that was committed half a tick ago are a quorum of the ensemble (of both configurations
/// during a change). They elect a leader among themselves, which has all that is committed, as any
/// quorum of theirs shares a voter with the one that committed it (rule R9).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StopSafety {
    /// This server leads; the others are enough, and it synchronises nobody.
    Spare,
    /// This server follows, and its leader says that the others are enough.
    SpareByLeader {
        /// Who says so.
        leader: Sid,
        /// For how long nothing has come of it, in milliseconds.
        heard_ms: u64,
    },
    /// An observer counts to no quorum, and nobody catches up from it.
    NoVote,
    /// This server leads, and without it there are too few.
    TooFew {
        /// The other voters that do not follow, do not answer, or lack what is committed.
        lacking: Vec<Sid>,
    },
    /// This server leads, and these servers get from it what they lack.
    Synchronises {
        /// Who they are.
        learners: Vec<Sid>,
    },
    /// This server follows, and its leader says that the others are too few.
    TooFewByLeader {
        /// Who says so.
        leader: Sid,
        /// For how long nothing has come of it, in milliseconds.
        heard_ms: u64,
    },
    /// There is no other server.
    Standalone,
    /// This server follows a leader that does not tell: one of Apache's, or without heartbeats.
    Untold {
        /// The leader.
        leader: Sid,
    },
    /// This server has no leader that it hears, or leads and has not heard from a quorum.
    NoLeader,
}

impl StopSafety {
    /// `None`: this server does not know.
    #[must_use]
    pub fn is_safe(&self) -> Option<bool> {
        match self {
            Self::Spare | Self::SpareByLeader { .. } | Self::NoVote => Some(true),
            Self::TooFew { .. }
            | Self::Synchronises { .. }
            | Self::TooFewByLeader { .. }
            | Self::Standalone => Some(false),
            Self::Untold { .. } | Self::NoLeader => None,
        }
    }
}

impl fmt::Display for StopSafety {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |sids: &[Sid]| {
            let names: Vec<String> = sids.iter().map(|sid| format!("{sid}")).collect();
            names.join(", ")
        };
        match self {
            Self::Spare => f.write_str(
                "this server leads; without it the members that have what is committed are a quorum, \
                 and it synchronises nobody",
            ),
            Self::SpareByLeader { leader, heard_ms } => write!(
                f,
                "leader {leader}, heard {heard_ms} ms ago, says that without this server the members \
                 that have what is committed are a quorum",
            ),
            Self::NoVote => {
                f.write_str("this server has no vote, and nobody catches up from it")
            }
            Self::TooFew { lacking } => write!(
                f,
                "without this server, which leads, there is no quorum; not there, or without all that \
                 is committed: {}",
                if lacking.is_empty() { "nobody else".into() } else { list(lacking) },
            ),
            Self::Synchronises { learners } => write!(
                f,
                "this server leads and sends others what they lack: {}",
                list(learners),
            ),
            Self::TooFewByLeader { leader, heard_ms } => write!(
                f,
                "leader {leader}, heard {heard_ms} ms ago, says that without this server there is no \
                 quorum that has what is committed",
            ),
            Self::Standalone => f.write_str("this server is the only one"),
            Self::Untold { leader } => write!(
                f,
                "this server follows {leader}, which does not tell whether it is needed (it has no \
                 heartbeats with this server)",
            ),
            Self::NoLeader => f.write_str("this server has no leader that it hears"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    #[test]
    fn what_is_not_known_is_no_yes() {
        let (leader, heard_ms) = (Sid(3), 12);
        for (safety, is_safe) in [
            (StopSafety::Spare, Some(true)),
            (StopSafety::SpareByLeader { leader, heard_ms }, Some(true)),
            (StopSafety::NoVote, Some(true)),
            (StopSafety::TooFew { lacking: vec![Sid(1), Sid(2)] }, Some(false)),
            (StopSafety::Synchronises { learners: vec![Sid(4)] }, Some(false)),
            (StopSafety::TooFewByLeader { leader, heard_ms }, Some(false)),
            (StopSafety::Standalone, Some(false)),
            (StopSafety::Untold { leader }, None),
            (StopSafety::NoLeader, None),
        ] {
            assert_eq!(safety.is_safe(), is_safe, "{safety}");
        }
        let text = StopSafety::TooFew { lacking: vec![Sid(1), Sid(2)] }.to_string();
        assert!(text.ends_with(": 1, 2"), "{text}");
    }
}
