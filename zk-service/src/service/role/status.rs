//! What the core has said about this server.

use zab_proto::{Epoch, Instant, Notice, Phase, ServerState, Status};

use crate::metrics::timeline::Timeline;
use crate::metrics::{Gaps, Metrics};

/// Role and phase, and since when.
#[derive(Debug, Default)]
pub(in crate::service) struct ServerStatus {
    /// `None` until the core has said.
    status: Option<Status>,
    standalone: bool,
    serving_since: Instant,
    /// Member of an ensemble: since when it looks for a leader.
    looks_since: Option<Instant>,
    read_only: bool,
    /// It was logged that this server has nothing that may be read without a leader.
    told_behind: bool,
    /// The epoch that was served last.
    served_epoch: Option<Epoch>,
    gaps: Gaps,
    timeline: Timeline,
}

/// What a change of status means for the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) struct Change {
    /// The role that was served is over.
    pub(in crate::service) ends: bool,
    /// A role is served from now on.
    pub(in crate::service) begins: bool,
}

impl ServerStatus {
    /// The core's status has changed; `loss` is why the last role has ended.
    pub(in crate::service) fn became(
        &mut self,
        now: Instant,
        status: &Status,
        standalone: bool,
        loss: Option<&Notice>,
        metrics: &mut Metrics,
    ) -> Change {
        let serving = |status: &Status| status.phase == Phase::Broadcast;
        let looks = status.state == ServerState::Looking && !standalone;
        self.looks_since = looks.then(|| self.looks_since.unwrap_or(now));
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
    pub(in crate::service) fn serves(&mut self, epoch: Epoch) -> bool {
        self.served_epoch.replace(epoch) == Some(epoch)
    }

    /// Member of an ensemble: since when it looks for a leader.
    pub(in crate::service) fn looks_since(&self) -> Option<Instant> {
        self.looks_since
    }

    /// There is more in the log than is known to be committed. `None`: what this process has served is
    /// shown. Else nothing is to be read here while this search for a leader lasts; whether it is news.
    pub(in crate::service) fn lacks_what_is_logged(&mut self) -> Option<bool> {
        if self.served_epoch.is_some() {
            return None;
        }
        self.looks_since = None;
        Some(!std::mem::replace(&mut self.told_behind, true))
    }

    /// Since when clients may read here, though there is no leader.
    pub(in crate::service) fn serves_readers(&mut self, since: Option<Instant>) {
        self.read_only = since.is_some();
        self.serving_since = since.unwrap_or(self.serving_since);
    }

    /// What became of the role.
    pub(in crate::service) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Whether the core has said anything yet.
    pub(in crate::service) fn is_known(&self) -> bool {
        self.status.is_some()
    }

    pub(in crate::service) fn is_serving(&self) -> bool {
        self.status.is_some_and(|status| status.phase == Phase::Broadcast)
    }

    pub(in crate::service) fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// Since when the present role is served.
    pub(in crate::service) fn serving_since(&self) -> Instant {
        self.serving_since
    }

    /// Of a member of an ensemble.
    pub(in crate::service) fn in_ensemble(&self) -> Option<Status> {
        self.status.filter(|_| !self.standalone)
    }

    /// What `srvr` and `mntr` call the server's role.
    pub(in crate::service) fn mode(&self) -> &'static str {
        match self.status.map(|status| status.state) {
            _ if self.standalone => "standalone",
            _ if self.read_only => "read-only",
            Some(ServerState::Leading) => "leader",
            Some(ServerState::Following) => "follower",
            Some(ServerState::Observing) => "observer",
            Some(ServerState::Looking) | None => "looking",
        }
    }
}
