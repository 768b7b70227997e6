//! Noticing that an election just decided has been overtaken (ZOOKEEPER-3109).
//!
//! A voter may hear of a better candidate after others have decided. If that leaves the elected
//! leader without a quorum, it would wait for one all through `initLimit`, and those who follow it
//! with it. The votes that it hears meanwhile tell it so at once.

use alloc::vec::Vec;

use super::algorithm::{Algorithm, CastVote};
use crate::{ServerState, Sid};

/// The voters that are known to want another leader than the one elected.
#[derive(Debug, Default)]
pub(super) struct Overtaken {
    deserters: Vec<Sid>,
    /// There was no election: a change of the members has named the leader.
    pub(super) designated: bool,
}

impl Overtaken {
    /// Of a leader that a change of the members has named.
    pub(super) fn designated() -> Self {
        Self { designated: true, ..Self::default() }
    }

    /// Takes a voter's notification. The `first` one of a connection may be a late copy.
    ///
    /// Within a round votes only rise, so a late copy is never for a better candidate. A leader
    /// that looks in another round has given up or been restarted, whatever it votes for.
    pub(super) fn hear(&mut self, from: Sid, heard: &CastVote, first: bool, algorithm: &Algorithm) {
        let own = algorithm.vote();
        // Whoever follows it may have looked before it knew.
        if self.designated && heard.vote.leader == own.vote.leader {
            self.deserters.retain(|sid| *sid != from);
        }
        if !algorithm.quorums().is_voter(from) || heard.state != ServerState::Looking {
            return;
        }
        let round = heard.election_epoch.cmp(&own.election_epoch);
        let elsewhere = round.is_ge()
            && heard.vote.leader != own.vote.leader
            // A named leader is in no round, so that no vote in one is a copy of what was before.
            && (self.designated && !first || algorithm.is_better(&heard.vote, &own.vote));
        let looks_again = from == own.vote.leader && (round.is_gt() || (round.is_lt() && !first));
        self.deserters.retain(|sid| *sid != from);
        if elsewhere || looks_again {
            self.deserters.push(from);
        }
    }

    /// Whether the elected leader has deserted, or so many that no quorum is left for it.
    pub(super) fn is_complete(&self, algorithm: &Algorithm, gone: impl Fn(Sid) -> bool) -> bool {
        let lost = |sid| self.deserters.contains(&sid);
        if lost(algorithm.vote().vote.leader) {
            return true;
        }
        !self.deserters.is_empty()
            && algorithm.vote().state == ServerState::Leading
            && !algorithm.quorums().is_quorum(|sid| !lost(sid) && !gone(sid))
    }
}
