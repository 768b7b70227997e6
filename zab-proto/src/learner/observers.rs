//! A follower as an observer master: it sends observers what its leader has told it to be committed, and
//! passes on what they ask (`ObserverMaster`, `LearnerHandler`).
//!
//! Nothing of what observers say counts to anything, and nothing waits for them: their positions are
//! positions in this server's history, and who lags is served from the log on disk as by a leader. What they
//! ask goes over this server's connection to the leader and shares its bound.

mod sync;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Learner, LearnerStep};
use crate::history::History;
use crate::leader::{LeaderInfo, LearnerIdentity, LearnerStatus};
use crate::sender::{LearnerStage, Links, Own, Rank, Sender};
use crate::shared::Shared;
use crate::window::Index;
use crate::wire::packet::{Packet, PacketType};
use crate::wire::{Foreign, Parsed};
use crate::{
    CloseReason, ConnId, DecodeError, Identity, Instant, Notice, Phase, Sid, Violation, Zxid,
};

/// The observers of a follower, and what they have asked.
#[derive(Debug, Default)]
pub(super) struct Observers {
    links: Links<Link>,
    /// Next half tick, while there are any.
    half_tick: Option<Instant>,
    /// Who has asked for the syncs that the leader has not answered, oldest first, and how many times in a
    /// row. `None`: this server's own clients. The leader answers in this order.
    syncs: VecDeque<(Option<ConnId>, u64)>,
    /// The same for questions about sessions, each with its session.
    questions: VecDeque<(Option<ConnId>, i64)>,
    /// Sessions that were alive with observers since the leader was last told, with their time-outs.
    touched: BTreeMap<i64, [u8; 4]>,
}

/// One observer.
#[derive(Debug)]
struct Link {
    to: Sender,
    remote: Option<IpAddr>,
    /// What it says of the ensemble's id, and what it was told.
    said: LearnerIdentity,
    told: Option<Identity>,
    /// Until when it may wait for this server to have what it has.
    until: Instant,
}

impl AsRef<Sender> for Link {
    fn as_ref(&self) -> &Sender {
        &self.to
    }
}

impl AsMut<Sender> for Link {
    fn as_mut(&mut self) -> &mut Sender {
        &mut self.to
    }
}

impl Observers {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.half_tick
    }

    pub(super) fn owns(&self, conn: ConnId) -> bool {
        self.links.get(conn).is_some()
    }

    /// Whether an observer's sync may wait for the leader, too.
    fn takes_sync(&self, from: ConnId) -> bool {
        let again = self.syncs.back().is_some_and(|(last, _)| *last == Some(from));
        again || self.syncs.len() < ASKED_MAX
    }

    /// A sync is on its way to the leader. What is noted here and never sent would take the answer of the next one.
    fn note_sync(&mut self, from: Option<ConnId>) {
        match self.syncs.back_mut() {
            Some((last, count)) if *last == from => *count += 1,
            _ => self.syncs.push_back((from, 1)),
        }
    }

    /// Whether an observer's question about a session may wait for the leader, too.
    fn takes_question(&self) -> bool {
        self.questions.len() < ASKED_MAX
    }

    /// A question about a session is on its way.
    fn note_question(&mut self, from: Option<ConnId>, data: &[u8]) {
        let session = data.first_chunk().map_or(0, |id| i64::from_be_bytes(*id));
        self.questions.push_back((from, session));
    }

    /// This server's clients ask something of the leader.
    pub(super) fn note_own_request(&mut self, data: &[u8]) {
        if is_sync(data) {
            self.note_sync(None);
        }
    }

    pub(super) fn note_own_question(&mut self, data: &[u8]) {
        self.note_question(None, data);
    }

    /// The leader has answered a sync: whether it is one of this server's clients'. An observer is told behind
    /// all that this server knows to be committed.
    ///
    /// # Errors
    /// The observer waits for the answers to more than it may, as it does not read them, and is to be closed.
    pub(super) fn is_own_sync(&mut self, committed: Index) -> Result<bool, ConnId> {
        let Some((from, count)) = self.syncs.front_mut() else { return Ok(true) };
        let from = *from;
        *count -= 1;
        if *count == 0 {
            self.syncs.pop_front();
        }
        let Some(conn) = from else { return Ok(true) };
        let Some(link) = self.links.get_mut(conn) else { return Ok(false) };
        let within = link.to.ask_sync(committed);
        link.to.begin_round();
        link.to.end_round();
        if within { Ok(false) } else { Err(conn) }
    }

    /// The leader has answered a question about a session.
    pub(super) fn is_own_answer(&mut self, data: &[u8]) -> bool {
        let session = data.first_chunk().map_or(0, |id| i64::from_be_bytes(*id));
        let at = self.questions.iter().position(|(_, asked)| *asked == session);
        let Some((Some(conn), _)) = at.and_then(|at| self.questions.remove(at)) else {
            return true;
        };
        if let Some(link) = self.links.get_mut(conn) {
            link.to.out.put(PacketType::REVALIDATE, Zxid::from_raw(-1), Some(data));
        }
        false
    }

    /// Adds the sessions of observers to those of this server's clients, as many as one packet holds.
    pub(super) fn take_touched(&mut self, sessions: &[u8], len_max: usize) -> Vec<u8> {
        let mut all = sessions.to_vec();
        while all.len() + SESSION_LEN <= len_max {
            let Some((session, time_out)) = self.touched.pop_first() else { break };
            all.extend_from_slice(&session.to_be_bytes());
            all.extend_from_slice(&time_out);
        }
        all
    }

    pub(super) fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// A change of the members is committed at `index`, and who leads from there on.
    pub(super) fn note_change(&mut self, index: Index, leader: Sid) {
        for link in
            self.links.iter_mut().filter(|link| link.to.stage >= LearnerStage::SendingSnapshot)
        {
            link.to.changes.push_back((index, leader));
        }
    }

    pub(super) fn read_on(&mut self, shared: &mut Shared) {
        self.links.read_on(shared);
    }

    /// Forgets transactions that nobody needs any more.
    pub(super) fn release(&mut self, shared: &mut Shared) {
        if self.half_tick.is_some() {
            self.links.release(shared);
            return;
        }
        let limits = shared.config.limits;
        let (txns, len) = (limits.retained_txns, limits.retained_len_max_bytes);
        shared.history.release(shared.history.releasable(Index::MAX, txns, len));
    }

    pub(super) fn poll_transmittable(&mut self, history: &History) -> Option<ConnId> {
        self.links.poll_transmittable(history)
    }

    /// The role is over.
    pub(super) fn end(&mut self, shared: &mut Shared) {
        for link in self.links.drain() {
            shared.close(link.to.conn, CloseReason::RoleEnded);
        }
        *self = Self::default();
    }

    fn forget(&mut self, conn: ConnId) {
        self.links.remove(conn);
        if self.links.iter().next().is_none() {
            self.half_tick = None;
        }
    }
}

impl Learner {
    /// Whether this server serves observers now.
    fn is_master(&self, shared: &Shared) -> bool {
        let serves = shared.config.observer_master_port.is_some();
        serves && self.step == LearnerStep::Live && !self.observer && !self.failed
    }

    /// An observer has connected. False: it is not served here.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        remote: Option<IpAddr>,
    ) -> Option<ConnId> {
        if !self.is_master(shared) {
            return None;
        }
        if shared.slots.is_full() {
            self.make_room(shared);
        }
        let conn = shared.slots.allot()?;
        let config = &shared.config;
        let until = now + config.ticks(config.init_limit);
        let to = Sender::new(conn, until, 0);
        let link = Link { to, remote, said: LearnerIdentity::default(), told: None, until };
        self.observers.links.insert(conn, link);
        self.observers.half_tick.get_or_insert(now + config.tick_time / 2);
        Some(conn)
    }

    /// All connections are taken: who has owed its introduction for longest makes room, or else an observer
    /// that the configuration does not name.
    fn make_room(&mut self, shared: &mut Shared) {
        let links = &self.observers.links;
        let owes = |link: &&Link| link.to.stage == LearnerStage::Connected;
        let oldest = links.iter().filter(owes).min_by_key(|link| link.to.silent_at);
        let other = |link: &&Link| Rank::of(&shared.quorums, &link.to) == Rank::Other;
        let found = oldest.or_else(|| links.iter().find(other)).map(|link| link.to.conn);
        if let Some(conn) = found {
            self.close_observer(shared, conn, CloseReason::MadeRoom);
        }
    }

    pub(super) fn close_observer(
        &mut self,
        shared: &mut Shared,
        conn: ConnId,
        reason: CloseReason,
    ) {
        if self.observers.owns(conn) {
            shared.close(conn, reason);
            self.lose_observer(shared, conn, Some(reason));
        }
    }

    /// An observer's connection is gone.
    pub(super) fn lose_observer(
        &mut self,
        shared: &mut Shared,
        conn: ConnId,
        reason: Option<CloseReason>,
    ) {
        let Some(link) = self.observers.links.get(conn) else { return };
        let (sid, stage, longest) = (link.to.sid, link.to.stage, link.to.longest());
        if stage > LearnerStage::Connected {
            let phase = match stage {
                LearnerStage::UpToDate => Phase::Broadcast,
                stage if stage <= LearnerStage::EpochAcked => Phase::Discovery,
                _ => Phase::Synchronization,
            };
            let observer = true;
            let lost = Notice::LearnerLost { sid, observer, phase, reason, longest };
            shared.notice(shared.now, lost);
        }
        self.observers.forget(conn);
        self.open_snapshots(shared);
    }

    /// Reads packets of an observer. Returns how many bytes were consumed.
    pub(super) fn handle_observer_bytes(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        bytes: &[u8],
    ) -> usize {
        let field_len_max = shared.config.limits.field_len_max_bytes;
        let mut consumed = 0;
        while let Some(link) = self.observers.links.get_mut(conn).filter(|_| !self.failed) {
            let hello = link.to.stage == LearnerStage::Connected;
            if let Some(protocol) = Foreign::of(bytes).filter(|_| hello) {
                let reason = CloseReason::Malformed(DecodeError::Foreign(protocol));
                self.close_observer(shared, conn, reason);
                return bytes.len();
            }
            let (packet, len) = match Packet::parse(&bytes[consumed..], field_len_max) {
                Parsed::Complete { value, len } => (value, len),
                Parsed::Incomplete => break,
                Parsed::Malformed(error) => {
                    let reason = match hello {
                        true => CloseReason::Malformed(error),
                        false => CloseReason::of_member(error, field_len_max),
                    };
                    self.close_observer(shared, conn, reason);
                    return bytes.len();
                }
            };
            let asks = matches!(packet.kind, PacketType::REQUEST | PacketType::REVALIDATE);
            if asks && link.to.is_slow_to_take() {
                link.to.owing = true;
                break;
            }
            if asks && !self.can_request(shared, len) {
                if let Some(link) = self.observers.links.get_mut(conn) {
                    link.to.paused = true;
                }
                break;
            }
            consumed += len;
            if let Err(reason) = self.on_observer_packet(now, shared, conn, &packet) {
                self.close_observer(shared, conn, reason);
                return bytes.len();
            }
        }
        consumed
    }

    fn on_observer_packet(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.observers.links.get_mut(conn) else { return Ok(()) };
        let config = &shared.config;
        let live = link.to.stage == LearnerStage::UpToDate;
        let ticks = if live { config.sync_limit } else { config.init_limit };
        link.to.active_at = now;
        link.to.silent_at = now + config.ticks(ticks);
        match (link.to.stage, packet.kind) {
            (LearnerStage::Connected, PacketType::OBSERVERINFO) => {
                self.invite(now, shared, conn, packet)
            }
            (LearnerStage::LeaderInfoSent, PacketType::ACKEPOCH) => {
                self.on_observer_promise(now, shared, conn, packet)
            }
            (LearnerStage::NewLeaderSent, PacketType::ACK) => {
                link.to.stage = LearnerStage::UpToDate;
                link.to.has_shown(link.to.sync_end.max(1));
                link.to.out.put_bare(PacketType::UPTODATE, Zxid::from_raw(-1));
                Ok(())
            }
            (LearnerStage::UpToDate, _) => self.on_observer_request(shared, conn, packet),
            _ => Err(CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0))),
        }
    }

    /// A packet of an observer in service.
    fn on_observer_request(
        &mut self,
        shared: &Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let short = CloseReason::Malformed(DecodeError::UnexpectedEof);
        let data = |min| packet.data.filter(|data| data.len() >= min).ok_or(short);
        let within = |within: bool| if within { Ok(()) } else { Err(CloseReason::NotReading) };
        match packet.kind {
            PacketType::PING => {
                let sessions = data(0)?;
                let (entries, rest) = sessions.as_chunks::<SESSION_LEN>();
                if !rest.is_empty() {
                    return Err(short);
                }
                let touched = &mut self.observers.touched;
                for [a, b, c, d, e, f, g, h, time_out @ ..] in entries {
                    let session = i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                    // Who does not fit is named again in half a tick.
                    if touched.len() < TOUCHED_MAX || touched.contains_key(&session) {
                        touched.insert(session, *time_out);
                    }
                }
                Ok(())
            }
            PacketType::REQUEST => {
                let data = data(REQUEST_LEN_MIN)?;
                let asks = is_sync(data);
                within(!asks || self.observers.takes_sync(conn))?;
                if self.forward(shared, data, packet.auth) && asks {
                    self.observers.note_sync(Some(conn));
                }
                Ok(())
            }
            PacketType::REVALIDATE => {
                let data = data(SESSION_LEN)?;
                within(self.observers.takes_question())?;
                if self.ask_leader(data) {
                    self.observers.note_question(Some(conn), data);
                }
                Ok(())
            }
            PacketType::OBSERVERINFO => {
                if let Some(link) = self.observers.links.get_mut(conn) {
                    link.said = LearnerIdentity::read(packet);
                }
                Ok(())
            }
            // An acknowledgement says nothing that counts, and unknown types are a sign of life.
            _ => Ok(()),
        }
    }

    /// Time has passed.
    pub(super) fn tend_observers(&mut self, now: Instant, shared: &mut Shared) {
        let Some(half_tick) = self.observers.half_tick.filter(|at| now >= *at) else { return };
        let half = shared.config.tick_time / 2;
        self.observers.half_tick = Some((half_tick + half).max(now + half / 2));
        let (init, sync) = (shared.config.init_limit, shared.config.sync_limit);
        let silent_at = now + shared.config.ticks(init);
        let committed = shared.history.committed();
        let last = shared.history.window.zxid_before(committed.max(shared.history.window.first()));
        let identity = shared.history.identity();
        for link in self.observers.links.iter_mut() {
            link.to.note_progress(now, silent_at, &shared.history);
            if link.to.stage >= LearnerStage::NewLeaderSent {
                link.to.ping(last);
            }
            if link.to.stage == LearnerStage::UpToDate && link.said.keeps && link.told != identity {
                link.told = identity;
                let data = LeaderInfo { identity, ..LeaderInfo::default() }.encode();
                link.to.out.put(PacketType::LEADERINFO, Zxid::new(self.epoch, 0), Some(&data));
            }
        }
        let ends = |link: &Link| {
            if link.to.is_awaited() && now >= link.to.silent_at {
                Some(CloseReason::Silent)
            } else if link.to.stage == LearnerStage::EpochAcked && now >= link.until {
                Some(CloseReason::Violation(Violation::LearnerAhead))
            } else if link.to.is_not_reading(init, sync) {
                Some(CloseReason::NotReading)
            } else {
                None
            }
        };
        for slot in 0..self.observers.links.end() {
            let link = self.observers.links.at(slot);
            let ended = link.and_then(|link| Some((link.to.conn, ends(link)?)));
            if let Some((conn, reason)) = ended {
                self.close_observer(shared, conn, reason);
            }
        }
        if let Some(conn) = self.observers.links.idle_snapshot(shared) {
            self.close_observer(shared, conn, CloseReason::SnapshotWanted);
        }
    }

    pub(super) fn transmit_to_observer(
        &mut self,
        shared: &Shared,
        conn: ConnId,
        buf: &mut [u8],
    ) -> usize {
        if self.failed {
            return 0;
        }
        // Own transactions are a leader's: to observers everything goes out together with its commit.
        let own = Own { epoch: self.epoch, first: 0 };
        let place = (own, self.config_text.as_str());
        self.observers.links.poll_transmit(shared.now, &shared.history, place, conn, buf)
    }

    /// The observers that are served here.
    pub(crate) fn learners(&self) -> impl Iterator<Item = LearnerStatus> + '_ {
        let learns = |link: &&Link| link.to.stage > LearnerStage::Connected;
        self.observers.links.iter().filter(learns).map(|link| LearnerStatus {
            origin: link.to.origin(),
            observer: true,
            synced: link.to.stage == LearnerStage::UpToDate,
            guest: false,
            behind: None,
        })
    }
}

/// Whether a request is a sync, which the leader answers with SYNC.
fn is_sync(data: &[u8]) -> bool {
    data.get(12..16) == Some(&SYNC.to_be_bytes())
}

/// `ZooDefs.OpCode.sync`.
const SYNC: i32 = 9;

/// Session id and time-out in a PING or REVALIDATE.
const SESSION_LEN: usize = 12;

/// Session id, cxid and opcode of a REQUEST.
const REQUEST_LEN_MIN: usize = 16;

/// How many questions of observers may wait for the leader's answers. Syncs of one observer in a row are
/// one.
const ASKED_MAX: usize = 1 << 16;

/// How many sessions of observers may wait for the leader's next PING.
const TOUCHED_MAX: usize = 1 << 20;
