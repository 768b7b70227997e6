//! Whether this server can be stopped now.

use super::{Peer, Role};
use crate::{Instant, StopSafety};

impl Peer {
    /// What it would mean for the ensemble if this server were stopped now; see [`StopSafety`].
    #[must_use]
    pub fn stop_safety(&self, now: Instant) -> StopSafety {
        let shared = &self.shared;
        if !shared.config.standalone && !shared.quorums.is_voter(shared.config.sid) {
            return StopSafety::NoVote;
        }
        match &self.role {
            Role::Leader(leader) => leader.stop_safety(now, shared),
            Role::Learner(learner) if learner.is_live() => learner.stop_safety(now, shared),
            Role::Learner(_) | Role::Looking(_) => StopSafety::NoLeader,
        }
    }
}
