//! Signs of life: of this process, and of the leader on the election port.

use super::{Peer, Role};
use crate::{HeartbeatStatus, Instant, Notice, SyncCounts};

impl Peer {
    /// The time is `now`. Every call that brings a time does this; a driver does it, too, before it lets
    /// the application read what clients have sent. Finds out that this process was away, if it was.
    pub fn observe_time(&mut self, now: Instant) {
        // The time of a turn may be told again after the clock was looked at.
        self.shared.now = self.shared.now.max(now);
        self.lapse_oracle(now);
        let Some(away) = self.shared.watchdog.look(now) else { return };
        self.doubt_oracle(now);
        let status = &mut self.shared.heartbeats;
        status.pauses += 1;
        status.longest_pause = status.longest_pause.max(away);
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.excuse_leader(now),
            Role::Leader(leader) => leader.was_away(now, &mut self.shared, away),
        }
    }

    /// Whether clients may be answered. Not on a leader whose process was away for so long that others
    /// may have elected another one: until a quorum has answered it again, nothing that it says is
    /// known to be still true. [`Node`](crate::Node) keeps clients waiting then.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.may_serve(),
            Role::Looking(_) | Role::Learner(_) => true,
        }
    }

    /// Heartbeats and what became of them since this process began.
    #[must_use]
    pub fn heartbeats(&self) -> HeartbeatStatus {
        let (interval, limit) = match &self.role {
            Role::Looking(_) => (None, None),
            Role::Learner(learner) => learner.heartbeat(&self.shared),
            Role::Leader(leader) => leader.heartbeat(&self.shared),
        };
        HeartbeatStatus { interval, limit, ..self.shared.heartbeats }
    }

    /// How often this server has brought learners to its history.
    #[must_use]
    pub fn sync_counts(&self) -> SyncCounts {
        self.shared.syncs
    }

    /// Why the last role of this server has ended: [`Notice::LeaderLost`] or [`Notice::ReignEnded`].
    /// `None`: none has, since the start.
    #[must_use]
    pub fn last_loss(&self) -> Option<Notice> {
        self.shared.loss
    }

    /// Tells a learner whom it has heard on the election port: its leader, or somebody who looks for one.
    pub(super) fn note_voices(&mut self, now: Instant) {
        let Some((from, looks)) = self.election.take_voice() else { return };
        let Role::Learner(learner) = &mut self.role else { return };
        if from == learner.leader() {
            learner.hear_leader(now);
        } else if looks && self.shared.quorums.is_voter(from) {
            learner.hear_looking(now, &self.shared);
        }
    }
}
