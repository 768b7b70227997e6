//! Broadcast, the leader's half: proposals out, acknowledgements in, commits when a quorum has a
//! transaction on disk.

use super::identity::LearnerIdentity;
use super::link::Link;
use super::{Leader, LeaderStep};
use crate::reconfig::RECONFIG;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::window::Index;
use crate::wire::packet::{Packet, PacketType};
use crate::wire::txn::TxnHeader;
use crate::{
    CloseReason, ConnId, DecodeError, Epoch, EpochKind, Instant, Message, ProposeError, Sid,
    Violation, Zxid,
};

impl Leader {
    /// The zxid of the next proposal. Alone, nobody has to agree on the next epoch when the counter
    /// is used up.
    pub(crate) fn next_zxid(&self, counter_max: u32) -> Option<Zxid> {
        if self.step != LeaderStep::Established || self.change.is_over() {
            return None;
        }
        let (epoch, counter) = (self.last_proposed.epoch(), self.last_proposed.counter());
        let counter = counter.saturating_add(1);
        if self.standalone && counter >= counter_max {
            return Some(Zxid::new(epoch.next()?, 1));
        }
        Some(Zxid::new(epoch, counter))
    }

    /// Standalone: the counter was used up, and the history goes on in another epoch. The epoch files
    /// say so, too, for the day on which this directory becomes that of an ensemble's member.
    fn begin_epoch(&mut self, shared: &mut Shared, epoch: Epoch) {
        self.epoch = epoch;
        for kind in [EpochKind::Accepted, EpochKind::Current] {
            let known = match kind {
                EpochKind::Accepted => shared.history.accepted(),
                EpochKind::Current => shared.history.current(),
            };
            if epoch > known {
                shared.history.set_epoch(kind, epoch);
            }
        }
    }

    pub(crate) fn can_propose(&self, shared: &Shared, len: usize) -> bool {
        !self.is_ending() && Self::has_room(shared, len, 0)
    }

    /// Whether a learner's request of `len` bytes is taken. Behind it on the same connection come
    /// the acknowledgements that make room, so requests are still read when the window is full:
    /// as much as each learner may have under way, beside the one transaction by which a window
    /// may exceed its bound (see [`fits`](Self::fits)). What was taken of a learner that has left is in the
    /// window for as long as what was proposed before that.
    pub(super) fn can_take(&self, shared: &Shared, len: usize) -> bool {
        let limits = &shared.config.limits;
        let learners = self.links.iter().count() + self.departed.len();
        let reserve = match learners.min(limits.links_max) {
            0 => 0,
            learners => learners
                .saturating_mul(limits.request_len_max())
                .saturating_add(limits.field_len_max_bytes),
        };
        Self::has_room(shared, len, reserve)
    }

    fn has_room(shared: &Shared, len: usize, reserve: usize) -> bool {
        let room = Self::fits(shared, len, reserve);
        if !room {
            shared.refuse(len);
        }
        room
    }

    /// Whether the window takes `len` bytes more. When all in it is applied and on disk, it holds no
    /// more than what is retained for later learners, and half its bound for those that lag. Then it
    /// takes a transaction of any length: a long one would wait for ever, or for who lags.
    fn fits(shared: &Shared, len: usize, reserve: usize) -> bool {
        let limits = &shared.config.limits;
        let bound = limits.window_len_max_bytes + limits.retained_len_max_bytes;
        let held = shared.history.held_len_bytes();
        let settled = shared.history.delivered().min(shared.history.durable());
        let idle = settled == shared.history.end();
        idle || held <= limits.retained_len_max_bytes || held + len <= bound.saturating_add(reserve)
    }

    /// Proposes a transaction.
    pub(crate) fn propose(
        &mut self,
        shared: &mut Shared,
        txn: &[u8],
    ) -> Result<Zxid, ProposeError> {
        let counter_max = shared.config.limits.counter_max;
        let Some(zxid) = self.next_zxid(counter_max) else { return Err(ProposeError::NotLeading) };
        if zxid.counter() >= counter_max {
            return Err(ProposeError::Rollover);
        }
        if txn.len() > shared.config.limits.field_len_max_bytes {
            return Err(ProposeError::TooLarge);
        }
        if self.is_ending() || !self.can_take(shared, txn.len()) {
            return Err(ProposeError::Full);
        }
        let header = TxnHeader::parse(txn).ok().filter(|header| header.zxid == zxid);
        let header = header.ok_or(ProposeError::BadTxn)?;
        if header.kind == RECONFIG {
            self.introduce(shared, &header, txn)?;
        }
        if self.standalone && zxid.epoch() > self.epoch {
            self.begin_epoch(shared, zxid.epoch());
        }
        self.write_epoch(shared);
        shared.history.push(zxid, txn);
        self.last_proposed = zxid;
        Ok(zxid)
    }

    /// ACK: of NEWLEADER (counter 0), or of a proposal and all before it. A learner logs in order
    /// and acknowledges in order, so the newest acknowledgement says it all.
    ///
    /// Nobody can have what it was not sent: who says so is not believed in anything.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        zxid: Zxid,
    ) -> Result<(), CloseReason> {
        let (epoch, first) = (self.epoch, self.first_proposal);
        // Members of Apache acknowledge what they were sent of earlier epochs, too.
        if zxid.epoch() < epoch {
            return Ok(());
        }
        let unsent = CloseReason::Violation(Violation::AckOfUnsent(zxid));
        let Some(link) = self.link(conn) else { return Ok(()) };
        if zxid.epoch() > epoch {
            return Err(unsent);
        }
        if zxid.counter() == 0 {
            // The one after UPTODATE says nothing new. A proposal's may come before this one
            // (`Learner.syncWithLeader` of 3.8.0 leaves it to the log's thread), which is why
            // the two are told apart by their zxid.
            if link.to.stage == LearnerStage::NewLeaderSent {
                link.to.has_shown(link.to.sync_end.max(1));
                self.on_synced(now, shared, conn);
            }
            return Ok(());
        }
        let acked = first + u64::from(zxid.counter());
        if acked > link.to.next {
            return Err(unsent);
        }
        link.acked = link.acked.max(acked);
        link.answered_at = now;
        link.to.has_shown(acked);
        let (sid, counts) = (link.to.sid, link.counts());
        if counts {
            self.hear_ack(sid, acked);
        }
        Ok(())
    }

    /// A participant has everything below `acked` on disk.
    pub(super) fn hear_ack(&mut self, sid: Sid, acked: Index) {
        if let Ok(at) = self.acks.binary_search_by_key(&sid, |entry| entry.0) {
            let known = &mut self.acks[at].1;
            *known = acked.max(*known);
            self.acks_changed = true;
        }
    }

    /// A learner has come back, and says that its history ends before `held`. Usually that is behind all it has
    /// acknowledged. One that doubts its history conceals it, and is about to replace it: what it
    /// acknowledged counts again when it says so again.
    pub(super) fn recall_ack(&mut self, sid: Sid, held: Index) {
        if let Ok(at) = self.acks.binary_search_by_key(&sid, |entry| entry.0) {
            let known = &mut self.acks[at].1;
            *known = held.min(*known);
        }
    }

    /// Commits what a quorum has acknowledged.
    pub(super) fn commit_acked(&mut self, shared: &mut Shared) {
        if !self.acks_changed || !self.is_established() || self.change.is_over() {
            return;
        }
        self.acks_changed = false;
        let me = shared.config.sid;
        let durable = shared.history.durable();
        if let Some(own) = self.acks.iter_mut().find(|entry| entry.0 == me) {
            own.1 = durable;
        }
        let committed = shared.history.committed();
        self.acks_sorted.clear();
        let new = self.acks.iter().map(|entry| entry.1).filter(|index| *index > committed);
        self.acks_sorted.extend(new);
        self.acks_sorted.sort_unstable_by(|a, b| b.cmp(a));
        let quorums = &shared.quorums;
        let acks = &self.acks;
        let has = |sid, index| {
            let at = acks.binary_search_by_key(&sid, |entry| entry.0);
            at.is_ok_and(|at| acks[at].1 >= index)
        };
        // Whoever has a transaction has all before it, so the newest that a quorum has is found by
        // halving.
        let lacks = |index: &Index| !quorums.is_quorum(|sid| has(sid, *index));
        let newest = self.acks_sorted.partition_point(lacks);
        if let Some(index) = self.acks_sorted.get(newest).copied() {
            // What follows a change is committed by the new members alone, if this server still leads them.
            shared.history.commit(self.change.committable(index));
            self.welcome_synced(shared);
            self.release_syncs(shared);
            if self.activate(shared) {
                self.commit_acked(shared);
            }
        }
    }

    /// Forgets transactions that nobody needs any more.
    pub(crate) fn release(&mut self, shared: &mut Shared) {
        self.links.release(shared);
        let first = shared.history.window.first();
        while self.departed.front().is_some_and(|end| *end <= first) {
            self.departed.pop_front();
        }
        // What is retained stays in the window for good, and is not what fills it.
        let limits = &shared.config.limits;
        let resume_len = limits.window_len_max_bytes / 2 + limits.retained_len_max_bytes;
        if shared.history.held_len_bytes() <= resume_len {
            self.resume(shared);
        }
    }

    /// Lets those go on who waited for room in the window.
    fn resume(&mut self, shared: &mut Shared) {
        if shared.refused().is_none_or(|len| !Self::fits(shared, len, 0)) {
            return;
        }
        self.links.read_on(shared);
        shared.offer_room();
    }

    /// A packet of a synchronised learner, other than ACK.
    pub(super) fn on_live_packet<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'b>,
    ) -> Result<Option<Message<'b>>, CloseReason> {
        let Some(link) = self.link(conn) else { return Ok(None) };
        let from = link.to.origin();
        let short = CloseReason::Malformed(DecodeError::UnexpectedEof);
        let data = |min| packet.data.filter(|data| data.len() >= min).ok_or(short);
        match packet.kind {
            PacketType::PING => {
                let sessions = data(0)?;
                if sessions.len() % SESSION_LEN != 0 {
                    return Err(short);
                }
                link.pongs += 1;
                link.answered_at = now;
                self.count_pongs(now, shared);
                self.count_proofs(shared);
                Ok((!sessions.is_empty()).then_some(Message::Touched { from, sessions }))
            }
            PacketType::REQUEST if self.is_ending() => Ok(None),
            PacketType::REQUEST => {
                let data = data(REQUEST_LEN_MIN)?;
                Ok(Some(Message::Request { from, data, auth: packet.auth }))
            }
            PacketType::REVALIDATE => {
                let data = data(SESSION_LEN)?;
                Ok(Some(Message::Revalidate { from, data }))
            }
            PacketType::FOLLOWERINFO | PacketType::OBSERVERINFO => {
                self.on_identity(shared, conn, LearnerIdentity::read(packet));
                Ok(None)
            }
            // Unknown types are a sign of life and nothing else, as in `LearnerHandler.run`.
            _ => Ok(None),
        }
    }

    /// The application's answer to REVALIDATE.
    pub(crate) fn revalidated(&mut self, conn: ConnId, data: &[u8]) {
        if let Some(link) = self.link(conn) {
            link.to.out.put(PacketType::REVALIDATE, Zxid::from_raw(-1), Some(data));
        }
    }

    /// Closes learners that leave a proposal unacknowledged for `syncLimit` ticks.
    pub(super) fn watch_acks(&mut self, now: Instant, shared: &mut Shared) {
        let limit = shared.config.ticks(shared.config.sync_limit);
        let first = self.first_proposal;
        let acknowledges =
            |link: &&mut Link| link.to.stage >= LearnerStage::NewLeaderAcked && !link.to.observer;
        for link in self.links.iter_mut().filter(acknowledges) {
            if link.watched.is_none_or(|(index, _)| index <= link.acked) {
                let open = link.to.next > link.acked && link.to.next > first;
                link.watched = open.then_some((link.to.next, now));
            }
        }
        self.close_where(shared, CloseReason::SlowAck, |link| {
            link.watched.is_some_and(|(_, since)| now.saturating_since(since) >= limit)
        });
    }

    /// Closes learners that take nothing of what they are sent, for as long as they may be silent.
    pub(super) fn watch_readers(&mut self, shared: &mut Shared) {
        let (init, sync) = (shared.config.init_limit, shared.config.sync_limit);
        let idle = |link: &Link| link.to.is_not_reading(init, sync);
        self.close_where(shared, CloseReason::NotReading, idle);
    }

    /// PING to everybody who has been sent NEWLEADER.
    pub(super) fn ping_all(&mut self) {
        let zxid = self.last_proposed;
        for link in
            self.links.iter_mut().filter(|link| link.to.stage >= LearnerStage::NewLeaderSent)
        {
            link.to.ping(zxid);
        }
    }
}

/// Session id and time-out in a PING or REVALIDATE.
const SESSION_LEN: usize = 12;

/// Session id, cxid and opcode of a REQUEST.
const REQUEST_LEN_MIN: usize = 16;
