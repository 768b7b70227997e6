//! Guests: voters that have promised a higher epoch than this leader's.
//!
//! A voter may have promised an epoch to a server that was never established. Until the ensemble goes
//! beyond that epoch it cannot promise this one. It is not told to stay away, and the leader does not
//! give up its own epoch for it, as its word may be a stranger's, or come from a damaged file: it is
//! synchronised and served like any follower, and nothing that it says counts.
//!
//! That is safe. What is committed in this epoch is on the disks of a quorum of voters that had not
//! promised a higher one when they acknowledged it. Whoever is elected later with this guest's promise
//! has promises of a quorum, and one of them comes from a voter that has it. What the guest brings
//! along and this history lacks was never committed: all that was committed before this epoch is in
//! its initial history.

use super::discovery::NOT_COUNTED;
use super::link::Link;
use super::{Leader, LeaderStep};
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::types::StateSummary;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::Packet;
use crate::{CloseReason, Epoch, Violation, Zxid};

impl Leader {
    /// A guest's ACKEPOCH. What it has must not be ahead of this leader's history: then it has been
    /// with a later leader, or belongs to another ensemble.
    pub(super) fn admit_guest(
        &mut self,
        shared: &Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let current = extension::field(packet.data, 4, Tag::GUEST)
            .and_then(|value| value.first_chunk())
            .map_or(NOT_COUNTED, |value| Epoch(i64::from_be_bytes(*value)));
        let ahead = Err(CloseReason::Violation(Violation::LearnerAhead));
        if self.is_established() {
            self.check_ahead(packet.zxid)?;
            if current > self.epoch {
                return ahead;
            }
        } else if (StateSummary { current_epoch: current, last_zxid: packet.zxid }) > self.summary {
            return ahead;
        }
        self.watch_guests(shared);
        Ok(())
    }

    /// Nobody can have more of an established epoch than its leader has proposed.
    pub(super) fn check_ahead(&self, last: Zxid) -> Result<(), CloseReason> {
        if last > self.last_proposed {
            return Err(CloseReason::Violation(Violation::LearnerAhead));
        }
        Ok(())
    }

    /// Once the voters that count are no quorum any more, and would be one together with the guests,
    /// there is nothing to wait for: the next epoch begins above all their promises.
    pub(super) fn watch_guests(&mut self, shared: &Shared) {
        let joined = |link: &Link| link.votes() && link.to.stage > LearnerStage::Connected;
        let joined_guest = |link: &Link| link.guest && link.to.stage >= LearnerStage::EpochAcked;
        if self.step < LeaderStep::PersistEpoch || !self.links.iter().any(joined_guest) {
            return;
        }
        self.overtaken |= !self.is_quorum(shared, |link| joined(link) && !link.guest)
            && self.is_quorum(shared, |link| joined(link) && (!link.guest || joined_guest(link)));
    }

    /// Whether this leader is to give up now.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.overtaken
    }
}
