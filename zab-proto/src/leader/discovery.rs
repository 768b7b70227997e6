//! Discovery, the leader's half: an epoch above every accepted one, promised by a quorum.

use super::link::Stage;
use super::{Leader, Step};
use crate::shared::Shared;
use crate::wire::body::LearnerInfo;
use crate::wire::packet::{Packet, PacketType};
use crate::{CloseReason, ConnId, DecodeError, Epoch, EpochKind, Instant, Sid, Violation, Zxid};

impl Leader {
    /// FOLLOWERINFO or OBSERVERINFO.
    pub(super) fn on_introduction(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let info = LearnerInfo::parse(packet.data);
        if info.config_version > shared.config.ensemble.version {
            return Err(CloseReason::Violation(Violation::NewerConfig));
        }
        let observer = packet.kind == PacketType::OBSERVERINFO;
        // A learner that does not say who it is gets a number that is nobody's.
        let sid = info.sid.unwrap_or_else(|| Sid(-1 - i64::from(conn.slot())));
        let Some(link) = self.link(conn) else { return Ok(()) };
        link.sid = sid;
        link.observer = observer;
        link.stage = Stage::Introduced;
        if self.step == Step::Introductions {
            self.accepted_max = self.accepted_max.max(packet.zxid.epoch());
            // An observer's word raises the epoch, but it does not vote (rule R11).
            if !observer {
                self.hear(sid);
            }
        }
        // It may have promised a higher epoch to a server that was never elected. It can only join
        // once this ensemble has gone beyond that.
        self.outbid |= self.is_established()
            && packet.zxid.epoch() > self.epoch
            && shared.config.ensemble.is_voter(sid);
        self.choose_epoch(now, shared);
        Ok(())
    }

    fn hear(&mut self, sid: Sid) {
        if !self.heard.contains(&sid) {
            self.heard.push(sid);
        }
    }

    /// Chooses the epoch once a quorum has introduced itself, makes it durable, and then invites
    /// everybody who has introduced himself.
    pub(super) fn choose_epoch(&mut self, now: Instant, shared: &mut Shared) {
        let quorum = shared.config.ensemble.is_quorum(|sid| self.heard.contains(&sid));
        if self.step == Step::Introductions && quorum {
            self.step = Step::Chosen;
            self.epoch = Epoch(self.accepted_max.0 + 1);
            shared.history.set_epoch(EpochKind::Accepted, self.epoch);
        }
        if self.step == Step::Chosen && shared.history.is_accepted_durable() {
            self.step = Step::Promises;
            self.heard.clear();
            self.deadline = now + shared.config.ticks(shared.config.init_limit);
            self.count_promises(now, shared);
        }
        if self.step < Step::Promises {
            return;
        }
        let leader_info = Zxid::new(self.epoch, 0);
        let silent_at = now + shared.config.ticks(shared.config.init_limit);
        for link in self.links.iter_mut().flatten() {
            if link.stage == Stage::Introduced {
                link.stage = Stage::Invited;
                link.silent_at = silent_at;
                let version = PROTOCOL_VERSION.to_be_bytes();
                link.out.put(PacketType::LEADERINFO, leader_info, Some(&version));
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
        let reported = (epoch, packet.zxid);
        let summary = self.summary;
        let step = self.step;
        let Some(link) = self.link(conn) else { return Ok(()) };
        link.reported = reported;
        link.stage = Stage::Promised;
        let (sid, observer) = (link.sid, link.observer);
        // -1: promised this epoch before, not to be counted again (P2).
        if step == Step::Promises && epoch != NOT_COUNTED {
            if reported > summary {
                return Err(CloseReason::Violation(Violation::LearnerAhead));
            }
            // A server without a trustworthy history does not count (rule R14).
            if packet.zxid != Zxid::NONE && !observer {
                self.hear(sid);
            }
        }
        self.count_promises(now, shared);
        // If this was the promise that was missing, it has begun with the others.
        let waits = self.link(conn).is_some_and(|link| link.stage == Stage::Promised);
        if waits && self.step >= Step::Syncs {
            self.synchronize(shared, conn);
        }
        Ok(())
    }

    /// Goes on to synchronisation once a quorum has promised the epoch, this server's own durable
    /// history included.
    pub(super) fn count_promises(&mut self, now: Instant, shared: &mut Shared) {
        if self.step != Step::Promises || !shared.history.is_settled() {
            return;
        }
        self.hear(shared.config.sid);
        if !shared.config.ensemble.is_quorum(|sid| self.heard.contains(&sid)) {
            return;
        }
        self.step = Step::Syncs;
        self.heard.clear();
        self.deadline = now + shared.config.ticks(shared.config.init_limit);
        shared.history.set_epoch(EpochKind::Current, self.epoch);
        self.announce(shared);
        for slot in 0..self.links.len() {
            let promised = self.links[slot].as_ref().filter(|link| link.stage == Stage::Promised);
            if let Some(conn) = promised.map(|link| link.conn) {
                self.synchronize(shared, conn);
            }
        }
        self.count_syncs(now, shared);
    }
}

/// The version of the quorum protocol, sent with LEADERINFO.
const PROTOCOL_VERSION: i32 = 0x10000;

/// The current epoch in an ACKEPOCH that repeats a promise.
const NOT_COUNTED: Epoch = Epoch(-1);
