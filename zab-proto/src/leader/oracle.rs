//! A leader of two voters without the other one, as the oracle says ([`crate::oracle`]).

use super::Leader;
use super::link::Link;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::{EpochKind, Instant, Sid};

impl Leader {
    /// Whether no follower that is synchronised speaks for a voter.
    pub(crate) fn lacks(&self, sid: Sid) -> bool {
        let counts = |link: &Link| {
            link.to.sid == sid && link.counts() && link.to.stage >= LearnerStage::NewLeaderAcked
        };
        !self.links.iter().any(counts)
    }

    /// Others are a quorum than before, as the oracle says.
    pub(crate) fn on_oracle(&mut self, now: Instant, shared: &mut Shared) {
        self.choose_epoch(now, shared);
        self.count_promises(now, shared);
        self.count_syncs(now, shared);
        self.acks_changed = true;
        self.commit_acked(shared);
        self.count_pongs(now, shared);
        self.count_proofs(shared);
    }

    /// Writes the current epoch of a reign alone, as there is something in it now, or somebody. Were it written
    /// at the beginning, a reign without a proposal would win the next election over the other voter's history,
    /// which may have had one alone as well, of a lower epoch and with proposals.
    pub(super) fn write_epoch(&mut self, shared: &mut Shared) {
        if core::mem::take(&mut self.owes_epoch) {
            shared.history.set_epoch(EpochKind::Current, self.epoch);
        }
    }
}
