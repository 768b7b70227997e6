//! What the core says of the members while they change (`docs/membership.md`).

use super::{Peer, Role};
use crate::Membership;

impl Peer {
    /// Whether the ensemble's members have changed, by `reconfig`, to others than those in this
    /// server's configuration. It does not vote and follows nobody any more: it must be ended, and
    /// started again with the new configuration.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.shared.outdated
    }

    /// Whether a change of the members is proposed that is not known to be committed yet.
    #[must_use]
    pub fn is_reconfiguring(&self) -> bool {
        !self.shared.quorums.next().is_empty()
    }

    /// Whether a snapshot of the application may be begun: not before storage has the configuration that a
    /// transaction in it has made, which would be forgotten with the log.
    #[must_use]
    pub fn may_snapshot(&self) -> bool {
        !self.is_doubted() && !self.shared.history.awaits_configurations()
    }

    /// Leader: whether the voters of a configuration that follow it and are synchronised, and the leader
    /// itself if it is one, are a quorum of that configuration, so that it may be proposed: without one,
    /// nothing would be committed any more.
    #[must_use]
    pub fn has_synced_quorum(&self, ensemble: &Membership) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.has_synced_quorum(&self.shared, ensemble),
            Role::Looking(_) | Role::Learner(_) => false,
        }
    }
}
