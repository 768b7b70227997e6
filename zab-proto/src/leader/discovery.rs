//! Discovery, the leader's half: an epoch above every accepted one, promised by a quorum.
//!
//! What a learner says of its accepted epoch is a claim. It counts while the learner is connected and
//! no epoch is chosen yet, and only within what is plausible (rule R21). A leader that has chosen its
//! epoch leaves it for nobody's claim (rule R19): a voter that has promised a higher one joins as a
//! guest, see [`guests`](super::guests).

use super::identity::{LeaderInfo, LearnerIdentity};
use super::link::Link;
use super::{Leader, LeaderStep};
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::types::StateSummary;
use crate::wire::body::LearnerInfo;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{
    CloseReason, ConnId, DecodeError, Epoch, EpochKind, Instant, Notice, Sid, Violation, Zxid,
};

impl Leader {
    /// FOLLOWERINFO or OBSERVERINFO.
    pub(super) fn on_introduction(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let accepted = packet.zxid.epoch();
        if !accepted.is_plausible(self.proven_epoch(shared)) {
            return Err(CloseReason::Violation(Violation::ImplausibleEpoch(accepted)));
        }
        let Some(link) = self.link(conn) else { return Ok(()) };
        let sid = shared.admit(conn, link.remote, packet.data)?;
        let said = LearnerIdentity::read(packet);
        if self.turn_away(now, shared, conn, sid, said) {
            return Ok(());
        }
        self.displace(now, shared, conn, sid)?;
        self.note_wanted(now, conn, packet);
        let awaited = !self.is_established() && shared.quorums.is_voter(sid);
        let Some(link) = self.link(conn) else { return Ok(()) };
        link.identity = said;
        link.to.sid = sid;
        link.to.observer = packet.kind == PacketType::OBSERVERINFO;
        link.accepted = accepted;
        link.can_be_guest = extension::field(packet.data, LearnerInfo::LEN, Tag::GUEST).is_some();
        // An observer of ours writes what it acknowledges like a follower. One of ZooKeeper's need not have its
        // part of a DIFF on disk when it acknowledges NEWLEADER.
        link.promoted = link.to.observer && link.can_be_guest && awaited;
        link.to.stage = LearnerStage::Introduced;
        self.choose_epoch(now, shared);
        Ok(())
    }

    /// A server has one connection. A newer one takes the place of an older one that has been silent,
    /// as the learner may know sooner than we that it is dead; while that is alive, the newer one is
    /// not who it says, or comes too early. A learner that is sent PINGs is never silent for a tick.
    fn displace(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        sid: Sid,
    ) -> Result<(), CloseReason> {
        let Some((older, active_at)) = self.links.rival(conn, sid) else { return Ok(()) };
        if now.saturating_since(active_at) < shared.config.tick_time {
            return Err(CloseReason::Violation(Violation::Duplicate(sid)));
        }
        self.close(shared, older, CloseReason::Superseded);
        Ok(())
    }

    /// The highest epoch that is known for certain: what this server has on disk itself.
    fn proven_epoch(&self, shared: &Shared) -> Epoch {
        let history = &shared.history;
        history.accepted().max(history.last().epoch()).max(self.epoch)
    }

    pub(super) fn hear(&mut self, sid: Sid) {
        if !self.heard.contains(&sid) {
            self.heard.push(sid);
        }
    }

    /// Chooses the epoch once a quorum has introduced itself, makes it durable, and then invites
    /// everybody who has introduced himself.
    pub(super) fn choose_epoch(&mut self, now: Instant, shared: &mut Shared) {
        let introduced = |link: &Link| link.to.stage == LearnerStage::Introduced && link.votes();
        if self.step == LeaderStep::AwaitFollowerInfo && self.is_quorum(shared, introduced) {
            // What somebody claimed who is gone again says nothing. An observer's word raises the
            // epoch, but it does not vote (rule R11).
            let quorums = &shared.quorums;
            let claims = self.links.iter().filter(|link| link.to.stage == LearnerStage::Introduced);
            let claims = claims.filter(|link| quorums.is_member(link.to.sid));
            let highest = claims.map(|link| link.accepted).max().unwrap_or_default();
            let accepted = highest.max(shared.history.accepted());
            let Some(epoch) = next_epoch(accepted, shared.quorums.place_alone(shared.config.sid))
            else {
                shared.notice(now, Notice::NoEpochLeft);
                return;
            };
            self.step = LeaderStep::PersistEpoch;
            self.epoch = epoch;
            shared.history.set_epoch(EpochKind::Accepted, epoch);
            self.name_first_version(shared);
        }
        if self.step == LeaderStep::PersistEpoch && shared.history.is_accepted_durable() {
            self.step = LeaderStep::AwaitAckEpoch;
            self.heard.clear();
            self.deadline = now + shared.config.ticks(shared.config.init_limit);
            self.count_promises(now, shared);
        }
        if self.step < LeaderStep::AwaitAckEpoch {
            return;
        }
        let epoch = Zxid::new(self.epoch, 0);
        let own_identity = shared.history.identity();
        let silent_at = now + shared.config.ticks(shared.config.init_limit);
        for link in self.links.iter_mut() {
            if link.to.stage == LearnerStage::Introduced {
                link.to.stage = LearnerStage::LeaderInfoSent;
                link.to.silent_at = silent_at;
                // A Java learner cannot be a guest: it refuses, and stays out until the next epoch.
                link.guest = link.accepted > self.epoch;
                let identity = own_identity.filter(|_| link.identity.keeps);
                link.told = identity;
                link.told_beat = link.granted();
                let guest = link.guest && link.can_be_guest;
                let data =
                    LeaderInfo { guest, identity, heartbeat: link.told_beat, spare: None }.encode();
                link.to.out.put(PacketType::LEADERINFO, epoch, Some(&data));
            }
        }
    }

    /// ACKEPOCH.
    pub(super) fn on_promise(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let data = packet.data.and_then(|data| data.first_chunk::<4>());
        let Some(data) = data else {
            return Err(CloseReason::Malformed(DecodeError::UnexpectedEof));
        };
        let epoch = Epoch(i64::from(i32::from_be_bytes(*data)));
        let reported = StateSummary { current_epoch: epoch, last_zxid: packet.zxid };
        let Some(link) = self.link(conn) else { return Ok(()) };
        if link.foreign {
            return Err(CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0)));
        }
        link.to.reported = reported;
        link.to.stage = LearnerStage::EpochAcked;
        let (sid, votes, guest) = (link.to.sid, link.votes(), link.guest);
        self.recall_ack(sid, shared.history.window.after(packet.zxid));
        if guest {
            self.admit_guest(shared, packet)?;
        } else if self.is_established() {
            self.check_ahead(packet.zxid)?;
        } else if self.step == LeaderStep::AwaitAckEpoch && epoch != NOT_COUNTED {
            // -1: promised this epoch before, not to be counted again (P2).
            if reported > self.summary {
                return Err(CloseReason::Violation(Violation::LearnerAhead));
            }
            // A server without a trustworthy history does not count (rule R14).
            if packet.zxid != Zxid::NONE && votes {
                self.hear(sid);
            }
        }
        self.count_promises(now, shared);
        // If this was the promise that was missing, it has begun with the others.
        let waits = self.link(conn).is_some_and(|link| link.to.stage == LearnerStage::EpochAcked);
        if waits && self.step >= LeaderStep::AwaitNewLeaderAck {
            self.synchronize(shared, conn);
        }
        Ok(())
    }

    /// Goes on to synchronisation once a quorum has promised the epoch, this server's own durable
    /// history included.
    pub(super) fn count_promises(&mut self, now: Instant, shared: &mut Shared) {
        if self.step != LeaderStep::AwaitAckEpoch || !shared.history.is_settled() {
            return;
        }
        self.hear(shared.config.sid);
        if !shared.quorums.is_quorum(|sid| self.heard.contains(&sid)) {
            return;
        }
        self.step = LeaderStep::AwaitNewLeaderAck;
        self.heard.clear();
        self.deadline = now + shared.config.ticks(shared.config.init_limit);
        self.owes_epoch = shared.quorums.place_alone(shared.config.sid).is_some();
        if !self.owes_epoch {
            shared.history.set_epoch(EpochKind::Current, self.epoch);
        }
        self.watch_itself(now, shared);
        self.announce(shared);
        for slot in 0..self.links.end() {
            let promised =
                self.links.at(slot).filter(|link| link.to.stage == LearnerStage::EpochAcked);
            if let Some(conn) = promised.map(|link| link.to.conn) {
                self.synchronize(shared, conn);
            }
        }
        self.count_syncs(now, shared);
    }
}

/// The epoch above those that were accepted. One of two voters that leads without the other (`place_alone`: which
/// of them) does not know what the other has accepted, and no promise keeps that one from leading the same
/// epoch with another history, when it is its turn: it takes even epochs and the other odd ones, and leaves one
/// out, for a server of ZooKeeper that takes the next.
fn next_epoch(accepted: Epoch, place_alone: Option<usize>) -> Option<Epoch> {
    let next = accepted.next()?;
    let Some(place) = place_alone else { return Some(next) };
    let further = next.next()?;
    if further.0 & 1 == i64::from(place != 0) { Some(further) } else { further.next() }
}

/// The current epoch in an ACKEPOCH that repeats a promise.
pub(super) const NOT_COUNTED: Epoch = Epoch(-1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_lead_alone_never_lead_the_same_epoch() {
        let next = |accepted, place| next_epoch(Epoch(accepted), place).map(|epoch| epoch.0);
        for accepted in 0..100 {
            let (both, first, second) =
                (next(accepted, None), next(accepted, Some(0)), next(accepted, Some(1)));
            assert_eq!(both, Some(accepted + 1));
            assert_eq!(first.map(|epoch| epoch % 2), Some(0));
            assert_eq!(second.map(|epoch| epoch % 2), Some(1));
            assert!(
                first.min(second) == Some(accepted + 2) && first.max(second) == Some(accepted + 3)
            );
        }
        // The last epochs are for nobody.
        assert_eq!(next(Epoch::MAX.0, Some(0)), None);
        assert_eq!(next(Epoch::MAX.0 - 1, Some(0)), None);
        assert_eq!(next(Epoch::MAX.0 - 2, Some(0)), Some(Epoch::MAX.0));
        assert_eq!(next(Epoch::MAX.0 - 2, Some(1)), None);
    }
}
