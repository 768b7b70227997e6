//! A leader is asked to make way for another one.

use super::{Peer, Role};
use crate::error::ResignError;
use crate::{Instant, ReignEnd};

impl Peer {
    /// Leader: makes way for a follower that has everything, and follows it, once a quorum has shown that
    /// it is there; if none does within a tick it leads on ([`Notice::NotResigned`](crate::Notice)). What
    /// is proposed is committed before, which takes a tick at most; nothing is proposed meanwhile
    /// ([`can_propose`](Self::can_propose) says no).
    ///
    /// # Errors
    /// [`ResignError`] if nothing comes of it; everything stays as it is then.
    pub fn resign(&mut self, now: Instant) -> Result<(), ResignError> {
        self.observe_time(now);
        let Role::Leader(leader) = &mut self.role else { return Err(ResignError::NotLeading) };
        leader.resign(now, &self.shared)?;
        self.settle(now);
        Ok(())
    }

    /// Ends the role of a leader that makes way, once it can.
    pub(super) fn make_way(&mut self, now: Instant) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(reason) = leader.make_way(now, &mut self.shared) else { return };
        self.abdicate(now, reason);
        if let (Role::Looking(looking), ReignEnd::Resigned { successor }) = (&mut self.role, reason)
        {
            looking.votes_for = successor;
        }
    }
}
