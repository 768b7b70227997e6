//! The id of the ensemble (rule R24), the learner's half.
//!
//! It is compared before anything is promised, and taken over only from a leader whose history this
//! directory holds: at UPTODATE, or when the leader tells it later.

use alloc::vec::Vec;

use super::{Learner, LearnerStep};
use crate::heartbeat;
use crate::identity::{Identity, differ};
use crate::shared::Shared;
use crate::wire::body::LearnerInfo;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{CloseReason, Notice, Violation, Zxid};

impl Learner {
    /// FOLLOWERINFO or OBSERVERINFO. It is said again when another id is stored.
    pub(super) fn introduce(&mut self, shared: &Shared) {
        let kind = if self.observer { PacketType::OBSERVERINFO } else { PacketType::FOLLOWERINFO };
        let info = LearnerInfo::encode(shared.config.sid, shared.config.ensemble.version);
        let mut data = info.to_vec();
        extension::begin(&mut data);
        extension::put(&mut data, Tag::GUEST, b"");
        let identity = shared.history.identity();
        if identity.is_some() || shared.config.fresh_id.is_some() {
            let value: Vec<u8> = identity.map(|known| known.encode().to_vec()).unwrap_or_default();
            extension::put(&mut data, Tag::IDENTITY, &value);
        }
        if let Some(every) = shared.config.heartbeat() {
            extension::put(&mut data, Tag::HEARTBEAT, &heartbeat::encode(every));
        }
        let accepted = Zxid::new(shared.history.accepted(), 0);
        self.out.put(kind, accepted, Some(&data));
    }

    /// The id in LEADERINFO: another ensemble's leader is left before anything is promised to it.
    pub(super) fn compare_identity(
        &mut self,
        shared: &mut Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        self.identity = identity_in(packet);
        if let Some((ours, theirs)) = differ(shared.history.identity(), self.identity) {
            let sid = self.leader;
            shared.notice(shared.now, Notice::OtherEnsemble { sid, theirs, ours });
            return Err(CloseReason::Violation(Violation::OtherEnsemble { theirs, ours }));
        }
        Ok(())
    }

    /// LEADERINFO of the established leader: the ensemble has got an id.
    pub(super) fn on_identity(&mut self, shared: &mut Shared, packet: &Packet<'_>) {
        if let Some(identity) = identity_in(packet) {
            self.identity = Some(identity);
            self.adopt_identity(shared);
        }
    }

    /// Takes over the id that the leader has named, if it has.
    pub(super) fn adopt_identity(&mut self, shared: &mut Shared) {
        let Some(identity) = self.identity else { return };
        let before = shared.history.identity();
        shared.history.set_identity(identity);
        if let Some(after) = shared.history.identity().filter(|now| now.confirmed)
            && before != Some(after)
        {
            shared.notice(shared.now, Notice::Identified { id: after.id });
        }
        self.identity_owed |= before != shared.history.identity();
        self.confirm_identity(shared);
    }

    /// Tells the leader that the id is stored, once it is.
    pub(super) fn confirm_identity(&mut self, shared: &Shared) {
        let stored = shared.history.is_identity_durable();
        if self.identity_owed && stored && self.step == LearnerStep::Live {
            self.identity_owed = false;
            self.introduce(shared);
        }
    }
}

fn identity_in(packet: &Packet<'_>) -> Option<Identity> {
    extension::field(packet.data, 4, Tag::IDENTITY).and_then(Identity::decode)
}
