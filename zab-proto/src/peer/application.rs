//! What an application asks of the core: proposals, requests to the leader, sessions, syncs.
//!
//! An application reaches these calls through [`Core`](crate::Core).

use super::roles::Role;
use crate::{Instant, Origin, Peer, ProposeError, ReignEnd, Zxid};

impl Peer {
    /// Leader: the zxid of the next proposal, once established.
    #[must_use]
    pub fn next_zxid(&self) -> Option<Zxid> {
        match &self.role {
            Role::Leader(leader) => leader.next_zxid(self.shared.config.limits.counter_max),
            Role::Looking(_) | Role::Learner(_) => None,
        }
    }

    /// Whether a proposal (leader) or a request (learner) of `len` bytes would be taken now. After
    /// a no, [`Output::Room`](crate::Output::Room) says when to ask again.
    #[must_use]
    pub fn can_propose(&self, len: usize) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.can_propose(&self.shared, len),
            Role::Learner(learner) => learner.can_request(&self.shared, len),
            Role::Looking(_) => false,
        }
    }

    /// Leader: proposes a transaction, `TxnHeader` first, for the zxid that
    /// [`next_zxid`](Self::next_zxid) says.
    ///
    /// # Errors
    /// See [`ProposeError`]. When the counter is used up the leader steps down, so that a new
    /// epoch begins (rule R15).
    pub fn propose(&mut self, now: Instant, txn: &[u8]) -> Result<Zxid, ProposeError> {
        let Role::Leader(leader) = &mut self.role else { return Err(ProposeError::NotLeading) };
        let result = leader.propose(&mut self.shared, txn);
        if result == Err(ProposeError::Rollover) {
            self.abdicate(now, ReignEnd::CounterUsedUp);
            self.settle(now);
        }
        result
    }

    /// Learner: forwards a request; `auth` is an encoded `vector<Id>`. False without a
    /// synchronised leader, and for what is longer than `Limits::field_len_max_bytes`.
    pub fn request(&mut self, data: &[u8], auth: &[u8]) -> bool {
        match &mut self.role {
            Role::Learner(learner) => learner.request(&self.shared, data, auth),
            Role::Looking(_) | Role::Leader(_) => false,
        }
    }

    /// Learner: asks about a session (id i64, time-out i32). False without a synchronised leader.
    pub fn revalidate(&mut self, data: &[u8]) -> bool {
        match &mut self.role {
            Role::Learner(learner) => learner.revalidate(data),
            Role::Looking(_) | Role::Leader(_) => false,
        }
    }

    /// Leader: answers [`Message::Revalidate`](crate::Message::Revalidate).
    pub fn revalidated(&mut self, to: Origin, data: &[u8]) {
        if let Role::Leader(leader) = &mut self.role {
            leader.revalidated(to.conn, data);
        }
    }

    /// Learner: answers [`Message::Ping`](crate::Message::Ping) with the sessions that were alive.
    pub fn pong(&mut self, sessions: &[u8]) {
        if let Role::Learner(learner) = &mut self.role {
            learner.pong(&self.shared, sessions);
        }
    }

    /// Leader: begins a sync round for itself; [`Output::Synced`](crate::Output::Synced) brings the returned number.
    pub fn sync(&mut self, now: Instant) -> u64 {
        match &mut self.role {
            Role::Leader(leader) => leader.sync(now, &mut self.shared),
            Role::Looking(_) | Role::Learner(_) => 0,
        }
    }

    /// Leader: the same for a learner, which is sent SYNC at the end.
    pub fn sync_learner(&mut self, now: Instant, from: Origin) {
        if let Role::Leader(leader) = &mut self.role {
            leader.sync_learner(now, &mut self.shared, from.conn);
        }
    }
}
