//! The id of the ensemble (rule R24): refused to others, given where there is none, and told.
//!
//! An established leader gives an id when all voters of the configuration are its live learners and
//! members of ours: then they share one history, and nobody can be away who has another id. It is
//! tentative until a quorum has stored it, and keeps nobody apart before. So a leader that ends in
//! between leaves an id that the next one takes over, or replaces.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::Leader;
use super::link::Link;
use crate::heartbeat;
use crate::identity::{Identity, differ};
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::wire::body::{LearnerInfo, PROTOCOL_VERSION};
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{ConnId, EnsembleId, Instant, Notice, Sid, Zxid};

/// What a learner says of its ensemble's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LearnerIdentity {
    /// It keeps an id, or would keep one: it is a member of ours.
    pub(crate) keeps: bool,
    /// The one it has stored.
    pub(crate) stored: Option<Identity>,
}

impl LearnerIdentity {
    pub(crate) fn read(packet: &Packet<'_>) -> Self {
        let value = extension::field(packet.data, LearnerInfo::LEN, Tag::IDENTITY);
        Self { keeps: value.is_some(), stored: value.and_then(Identity::decode) }
    }
}

impl Leader {
    /// Whether an introduction comes from another ensemble. Its sender is told which one this is, so that
    /// it can say so on its side, and is expected to leave; nothing else that it says is heeded.
    pub(super) fn turn_away(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        sid: Sid,
        said: LearnerIdentity,
    ) -> bool {
        let own = shared.history.identity();
        let Some((ours, theirs)) = differ(own, said.stored) else { return false };
        shared.notice(now, Notice::OtherEnsemble { sid, theirs, ours });
        let epoch = self.epoch;
        let silent_at = now + shared.config.tick_time;
        if let Some(link) = self.link(conn) {
            // Nobody's id: it counts as nobody.
            link.to.sid = Sid(-1 - i64::from(conn.slot()));
            link.foreign = true;
            link.to.stage = LearnerStage::LeaderInfoSent;
            link.to.silent_at = silent_at;
            let data = LeaderInfo { identity: own, ..LeaderInfo::default() }.encode();
            link.to.out.put(PacketType::LEADERINFO, Zxid::new(epoch, 0), Some(&data));
        }
        true
    }

    /// A live learner says again who it is, as it has stored an id.
    pub(super) fn on_identity(&mut self, shared: &mut Shared, conn: ConnId, said: LearnerIdentity) {
        if let Some(link) = self.link(conn) {
            link.identity = said;
        }
        self.tend_identity(shared);
    }

    /// Gives the ensemble an id, confirms it, or tells those who do not have it, whatever is due.
    pub(super) fn tend_identity(&mut self, shared: &mut Shared) {
        if !self.is_established() {
            return;
        }
        let confirmed = shared.history.identity().is_some_and(|identity| identity.confirmed);
        if !confirmed {
            if let Some(identity) = self.choose_identity(shared) {
                shared.history.set_identity(identity);
            }
            self.confirm_identity(shared);
        }
        let Some(identity) = shared.history.identity() else { return };
        let epoch = self.epoch;
        for link in self.links.iter_mut().filter(|link| link.to.stage == LearnerStage::UpToDate) {
            if link.identity.keeps && link.told != Some(identity) {
                link.told = Some(identity);
                if link.identity.stored != Some(identity) {
                    let data =
                        LeaderInfo { identity: Some(identity), ..LeaderInfo::default() }.encode();
                    link.to.out.put(PacketType::LEADERINFO, Zxid::new(epoch, 0), Some(&data));
                }
            }
        }
    }

    fn live_voter(&self, sid: Sid) -> Option<&Link> {
        self.links.iter().find(|link| {
            link.to.stage == LearnerStage::UpToDate && !link.to.observer && link.to.sid == sid
        })
    }

    /// The id that the ensemble is to have, if this can be said: what the voters have already, the
    /// confirmed one or else the one that most of them have, or a new one.
    fn choose_identity(&self, shared: &Shared) -> Option<Identity> {
        let fresh = shared.config.fresh_id?;
        let mut stored: Vec<Identity> = Vec::new();
        for sid in shared.quorums.voters().iter().copied() {
            if sid == shared.config.sid {
                stored.extend(shared.history.identity());
                continue;
            }
            let said = self.live_voter(sid)?.identity;
            if !said.keeps {
                return None;
            }
            stored.extend(said.stored);
        }
        let holders = |id: EnsembleId| stored.iter().filter(|other| other.id == id).count();
        let rank =
            |identity: &Identity| (identity.confirmed, holders(identity.id), Reverse(identity.id));
        let best = stored.iter().copied().max_by_key(rank);
        Some(best.unwrap_or(Identity { id: fresh, confirmed: false }))
    }

    /// What a quorum of voters has on disk is confirmed, and so is what one of them knows to be.
    fn confirm_identity(&self, shared: &mut Shared) {
        let Some(own) = shared.history.identity() else { return };
        let me = shared.config.sid;
        let of = |sid| self.live_voter(sid).and_then(|link| link.identity.stored);
        let of = |sid| of(sid).filter(|stored| stored.id == own.id);
        let stored = |sid| match sid == me {
            true => shared.history.is_identity_durable(),
            false => of(sid).is_some(),
        };
        let known = shared
            .quorums
            .voters()
            .iter()
            .any(|sid| of(*sid).is_some_and(|stored| stored.confirmed));
        if own.confirmed || known || shared.quorums.is_quorum(stored) {
            shared.history.set_identity(Identity { confirmed: true, ..own });
            shared.notice(shared.now, Notice::Identified { id: own.id });
        }
    }
}

/// What LEADERINFO tells. A learner that is not of ours gets nothing behind ZooKeeper's four bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeaderInfo {
    /// It may join below its promise.
    pub(crate) guest: bool,
    /// Which ensemble this is.
    pub(crate) identity: Option<Identity>,
    /// The pause between heartbeats.
    pub(crate) heartbeat: Option<Duration>,
    /// Whether the ensemble can spare it.
    pub(crate) spare: Option<bool>,
}

impl LeaderInfo {
    /// The data of the packet.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut data = PROTOCOL_VERSION.to_be_bytes().to_vec();
        let more = self.identity.is_some() || self.heartbeat.is_some() || self.spare.is_some();
        if self.guest || more {
            extension::begin(&mut data);
        }
        if self.guest {
            extension::put(&mut data, Tag::GUEST, b"");
        }
        if let Some(identity) = self.identity {
            extension::put(&mut data, Tag::IDENTITY, &identity.encode());
        }
        if let Some(every) = self.heartbeat {
            extension::put(&mut data, Tag::HEARTBEAT, &heartbeat::encode(every));
        }
        if let Some(spare) = self.spare {
            extension::put(&mut data, Tag::SPARE, &[u8::from(spare)]);
        }
        data
    }
}
