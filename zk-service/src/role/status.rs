//! What the core has said about this server.

use zab_proto::{Epoch, Instant, Notice, Phase, ServerState, Status};

use crate::metrics::timeline::Timeline;
use crate::metrics::{Gaps, Metrics};

/// Role and phase, and since when.
#[derive(Debug, Default)]
pub(crate) struct ServerStatus {
    /// `None` until the core has said.
    status: Option<Status>,
    standalone: bool,
    serving_since: Instant,
    /// The epoch that was served last.
    served_epoch: Option<Epoch>,
    gaps: Gaps,
    timeline: Timeline,
}

/// What a change of status means for the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// The role that was served is over.
    pub(crate) ends: bool,
    /// A role is served from now on.
    pub(crate) begins: bool,
}

impl ServerStatus {
    /// The core's status has changed; `loss` is why the last role has ended.
    pub(crate) fn became(
        &mut self,
        now: Instant,
        status: &Status,
        standalone: bool,
        loss: Option<&Notice>,
        metrics: &mut Metrics,
    ) -> Change {
        let serving = |status: &Status| status.phase == Phase::Broadcast;
        self.gaps.became(now, status, metrics);
        self.timeline.became(now, status, loss, metrics);
        let before = self.status.replace(*status).filter(serving);
        let goes_on = before.is_some_and(|before| {
            serving(status) && before.state == status.state && before.leader == status.leader
        });
        let begins = serving(status) && !goes_on;
        if begins {
            self.serving_since = now;
            self.standalone = standalone;
        }
        Change { ends: before.is_some() && !goes_on, begins }
    }

    /// A role is served in this epoch. Whether the one before was served in the same.
    pub(crate) fn serves(&mut self, epoch: Epoch) -> bool {
        self.served_epoch.replace(epoch) == Some(epoch)
    }

    /// What became of the role.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.status.is_some_and(|status| status.phase == Phase::Broadcast)
    }

    pub(crate) fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// Since when the present role is served.
    pub(crate) fn serving_since(&self) -> Instant {
        self.serving_since
    }

    /// Of a member of an ensemble.
    pub(crate) fn in_ensemble(&self) -> Option<Status> {
        self.status.filter(|_| !self.standalone)
    }

    /// What `srvr` and `mntr` call the server's role.
    pub(crate) fn mode(&self) -> &'static str {
        match self.status.map(|status| status.state) {
            _ if self.standalone => "standalone",
            Some(ServerState::Leading) => "leader",
            Some(ServerState::Following) => "follower",
            Some(ServerState::Observing) => "observer",
            Some(ServerState::Looking) | None => "looking",
        }
    }
}
