//! The leader: its learners, the epoch they agree on, and the transactions it proposes.

mod beats;
mod broadcast;
mod discovery;
mod guests;
mod identity;
mod link;
mod members;
mod resigning;
mod spares;
mod standing;
mod sync;
mod sync_rounds;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use self::beats::Beats;
use self::link::{Link, Own, Stage};
use self::members::Change;
use self::resigning::Resigning;
use self::spares::Spares;
use self::standing::Standing;
use self::sync::Rank;
use self::sync_rounds::SyncRounds;
use crate::history::History;
use crate::shared::{Control, Shared};
use crate::window::Index;
use crate::wire::packet::{Packet, PacketType};
use crate::wire::{Foreign, Parsed};
use crate::{
    CloseReason, ConnId, DecodeError, Epoch, Instant, Message, Notice, Origin, Phase, Received,
    ReignEnd, ServerState, Sid, Status, Violation, Zxid,
};

/// What a leader waits for, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    /// A quorum of FOLLOWERINFO, its own included, to choose the epoch.
    Introductions,
    /// The chosen epoch to become durable.
    Chosen,
    /// A quorum of ACKEPOCH.
    Promises,
    /// A quorum that has acknowledged NEWLEADER.
    Syncs,
    /// Nothing: it leads.
    Established,
}

/// The leading server's state.
#[derive(Debug)]
pub(crate) struct Leader {
    /// By slot.
    links: Vec<Option<Link>>,
    /// The slot at which the search for something to send goes on.
    cursor: usize,
    step: Step,
    /// The chosen epoch, from `Step::Chosen` on.
    epoch: Epoch,
    /// Voters that count in the present step.
    heard: Vec<Sid>,
    /// Own current epoch and last zxid when leading began.
    summary: (Epoch, Zxid),
    /// End of the initial history: index of the first own proposal.
    first: Index,
    last_proposed: Zxid,
    /// What each voter has acknowledged, as the index after it; by ascending id.
    acks: Vec<(Sid, Index)>,
    acks_sorted: Vec<Index>,
    acks_changed: bool,
    /// Learners that have left, and the end of the window at that time: what was taken of them is before it.
    departed: VecDeque<Index>,
    /// Voters that count to the quorum are gone, and with the guests there is one.
    overtaken: bool,
    /// Learners that are synchronised may wait for their UPTODATE.
    welcome_waiting: bool,
    /// What NEWLEADER tells.
    config_text: String,
    change: Change,
    /// When the present step must be over.
    deadline: Instant,
    /// Next half tick, and how many have passed.
    half_tick: Instant,
    half_ticks: u64,
    sync_rounds: SyncRounds,
    beats: Beats,
    standing: Standing,
    spares: Spares,
    /// It makes way for another one.
    resigning: Option<Resigning>,
    standalone: bool,
}

/// A learner, for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerStatus {
    /// Server id and connection.
    pub origin: Origin,
    /// It came as an observer.
    pub observer: bool,
    /// It has the leader's history and gets what is new.
    pub synced: bool,
    /// It has promised a higher epoch, so it is served but counts to no quorum of this one. It will
    /// count from the next epoch on.
    pub guest: bool,
    /// How many of the leader's transactions it has not acknowledged, once it has the leader's
    /// history. `None`: not known, as observers acknowledge nothing.
    pub behind: Option<u64>,
}

/// How often a server that led has brought learners to its history, since the process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyncCounts {
    /// With what they lacked, or by cutting their log back (DIFF, TRUNC).
    pub from_log: u64,
    /// With a whole snapshot (SNAP).
    pub snapshots: u64,
}

/// What became of the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Leadership {
    Keep,
    /// It must look for a leader again.
    Resign(ReignEnd),
}

impl Leader {
    /// Begins to lead, after winning an election.
    pub(crate) fn new(now: Instant, shared: &mut Shared) -> Self {
        let config = &shared.config;
        let history = &shared.history;
        let deadline = now + config.ticks(config.init_limit);
        let acks = shared.quorums.voters().iter().map(|sid| (*sid, 0)).collect();
        let mut leader = Self {
            links: Vec::new(),
            cursor: 0,
            step: Step::Introductions,
            epoch: history.current(),
            heard: Vec::with_capacity(shared.quorums.voters().len()),
            summary: (history.current(), history.last()),
            first: history.end(),
            last_proposed: history.last(),
            acks,
            acks_sorted: Vec::with_capacity(shared.quorums.voters().len()),
            acks_changed: false,
            departed: VecDeque::new(),
            overtaken: false,
            welcome_waiting: false,
            config_text: shared.quorums.newest().text(),
            change: Change::default(),
            deadline,
            half_tick: now + config.tick_time / 2,
            half_ticks: 0,
            sync_rounds: SyncRounds::default(),
            beats: Beats::new(now, shared),
            standing: Standing::default(),
            spares: Spares::default(),
            resigning: None,
            standalone: config.standalone,
        };
        if leader.standalone {
            leader.epoch = history.last().epoch();
            leader.step = Step::Established;
            shared.history.commit(leader.first);
            leader.announce(shared);
            leader.tend_identity(shared);
        } else {
            leader.announce(shared);
            leader.choose_epoch(now, shared);
        }
        leader
    }

    pub(crate) fn status(&self, sid: Sid) -> Status {
        let phase = match self.step {
            Step::Introductions | Step::Chosen | Step::Promises => Phase::Discovery,
            Step::Syncs => Phase::Synchronization,
            Step::Established => Phase::Broadcast,
        };
        Status {
            state: ServerState::Leading,
            phase,
            leader: Some(sid),
            epoch: self.epoch,
            sync: None,
        }
    }

    fn announce(&self, shared: &mut Shared) {
        let status = self.status(shared.config.sid);
        shared.control.push_back(Control::Became(status));
    }

    fn own(&self) -> Own {
        Own { epoch: self.epoch, first: self.first }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its learners; `end` is the end of its history.
    pub(crate) fn learners(&self, end: Index) -> impl Iterator<Item = LearnerStatus> + '_ {
        let learns = |link: &&Link| link.stage > Stage::Hello && !link.foreign;
        self.all().filter(learns).map(move |link| LearnerStatus {
            origin: link.origin(),
            observer: link.observer,
            synced: link.stage == Stage::Live,
            guest: link.guest,
            behind: (link.stage == Stage::Live && !link.observer)
                .then(|| end.saturating_sub(link.acked)),
        })
    }

    pub(crate) fn is_established(&self) -> bool {
        self.step == Step::Established
    }

    /// A learner has connected, perhaps before this server began to lead.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        shared: &Shared,
        conn: ConnId,
        remote: Option<IpAddr>,
    ) {
        let config = &shared.config;
        let silent_at = now + config.ticks(config.init_limit);
        let alive_until = now + config.ticks(config.init_limit + config.sync_limit);
        let slot = conn.slot() as usize;
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        let early_len_max = EARLY_LEN_MAX.min(config.limits.window_len_max_bytes / 2);
        let mut link = Link::new(conn, silent_at, alive_until, early_len_max);
        link.remote = remote;
        self.links[slot] = Some(link);
    }

    /// All connections are taken, and somebody new has come: who has owed its introduction for longest
    /// makes room, or else a learner that the configuration does not name.
    pub(crate) fn make_room(&mut self, shared: &mut Shared) {
        let quorums = &shared.quorums;
        let owes = |link: &&Link| link.stage == Stage::Hello;
        let oldest = self.all().filter(owes).min_by_key(|link| link.silent_at);
        let other = || self.all().find(|link| Rank::of(quorums, link) == Rank::Other);
        if let Some(conn) = oldest.or_else(other).map(|link| link.conn) {
            self.close(shared, conn, CloseReason::MadeRoom);
        }
    }

    fn link(&mut self, conn: ConnId) -> Option<&mut Link> {
        let link = self.links.get_mut(conn.slot() as usize)?.as_mut()?;
        (link.conn == conn).then_some(link)
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    /// The learner's connection is gone.
    pub(crate) fn closed(&mut self, shared: &mut Shared, conn: ConnId) {
        if self.link(conn).is_some() {
            shared.slots.free(conn);
            self.say_lost(shared, conn, None);
            self.forget(shared, conn);
        }
    }

    /// Closes a learner's connection.
    pub(crate) fn close(&mut self, shared: &mut Shared, conn: ConnId, reason: CloseReason) {
        if self.link(conn).is_some() {
            shared.close(conn, reason);
            self.say_lost(shared, conn, Some(reason));
            self.forget(shared, conn);
        }
    }

    /// Who has not introduced itself is not worth a word beyond that of the connection.
    fn say_lost(&mut self, shared: &mut Shared, conn: ConnId, reason: Option<CloseReason>) {
        let introduced = |link: &&mut Link| link.stage > Stage::Hello && !link.foreign;
        let Some(link) = self.link(conn).filter(introduced) else { return };
        let (sid, observer, longest) = (link.sid, link.observer, link.longest());
        let phase = match link.stage {
            Stage::Hello | Stage::Introduced | Stage::Invited | Stage::Promised => Phase::Discovery,
            Stage::Live => Phase::Broadcast,
            _ => Phase::Synchronization,
        };
        shared.notice(shared.now, Notice::LearnerLost { sid, observer, phase, reason, longest });
    }

    /// What a leader that is not established waits for.
    pub(crate) fn waits_for(&self, shared: &Shared) -> String {
        let here = |sid: Sid, from: Stage| {
            sid == shared.config.sid
                || self.all().any(|link| link.sid == sid && link.stage >= from && !link.observer)
        };
        let (what, from) = match self.step {
            Step::Introductions | Step::Chosen => ("come to follow it", Stage::Introduced),
            Step::Promises => ("promise the epoch", Stage::Promised),
            Step::Syncs | Step::Established => ("be synchronised", Stage::Synced),
        };
        let missing = shared.quorums.voters().iter().copied().filter(|sid| !here(*sid, from));
        format!(
            "elected to lead, and waits for a quorum to {what}; missing: {}",
            shared.names(missing)
        )
    }

    fn forget(&mut self, shared: &mut Shared, conn: ConnId) {
        let link = self.links[conn.slot() as usize].take();
        // As many as may be connected: so much the window may hold in any case.
        let counts = self.departed.len() < shared.config.limits.links_max;
        if counts && link.is_some_and(|link| link.stage == Stage::Live) {
            self.departed.push_back(shared.history.end());
        }
        self.tell_spares(shared.now, shared);
        self.watch_guests(shared);
        self.open_snapshots(shared);
        self.release(shared);
    }

    /// The role is over.
    pub(crate) fn end(&mut self, shared: &mut Shared) {
        shared.watchdog.watch(shared.now, None);
        for link in self.links.drain(..).flatten() {
            shared.close(link.conn, CloseReason::RoleEnded);
        }
    }

    /// Reads packets of a learner.
    pub(crate) fn handle_bytes<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        bytes: &'b [u8],
    ) -> Received<'b> {
        let field_len_max = shared.config.limits.field_len_max_bytes;
        let mut consumed = 0;
        let mut message = None;
        while message.is_none() {
            let Some(link) = self.link(conn) else { break };
            let foreign = Foreign::of(bytes).filter(|_| matches!(link.stage, Stage::Hello));
            if let Some(protocol) = foreign {
                let reason = CloseReason::Malformed(DecodeError::Foreign(protocol));
                self.close(shared, conn, reason);
                consumed = bytes.len();
                break;
            }
            let (packet, len) = match Packet::parse(&bytes[consumed..], field_len_max) {
                Parsed::Complete { value, len } => (value, len),
                Parsed::Incomplete => break,
                Parsed::Malformed(error) => {
                    let reason = match link.stage {
                        Stage::Hello => CloseReason::Malformed(error),
                        _ => CloseReason::of_member(error, field_len_max),
                    };
                    self.close(shared, conn, reason);
                    consumed = bytes.len();
                    break;
                }
            };
            let asks = matches!(packet.kind, PacketType::REQUEST | PacketType::REVALIDATE);
            if let Some(link) = self.link(conn).filter(|link| asks && link.is_slow_to_take()) {
                link.owing = true;
                break;
            }
            let takes = self.is_ending() || self.can_take(shared, len);
            if packet.kind == PacketType::REQUEST && !takes {
                if let Some(link) = self.link(conn) {
                    link.paused = true;
                }
                break;
            }
            consumed += len;
            match self.on_packet(now, shared, conn, &packet) {
                Ok(for_application) => message = for_application,
                Err(reason) => {
                    self.close(shared, conn, reason);
                    consumed = bytes.len();
                }
            }
        }
        self.commit_acked(shared);
        Received { consumed, message }
    }

    fn on_packet<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'b>,
    ) -> Result<Option<Message<'b>>, CloseReason> {
        let Some(link) = self.link(conn) else { return Ok(None) };
        let config = &shared.config;
        let stage = link.stage;
        link.active_at = now;
        if stage >= Stage::Synced {
            link.silent_at = now + config.ticks(config.sync_limit);
            link.alive_until = now + config.ticks(config.sync_limit + 1);
        } else {
            link.silent_at = now + config.ticks(config.init_limit);
        }
        let unexpected = CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0));
        match (stage, packet.kind) {
            (Stage::Hello, PacketType::FOLLOWERINFO | PacketType::OBSERVERINFO) => {
                self.on_introduction(now, shared, conn, packet).map(|()| None)
            }
            (Stage::Invited, PacketType::ACKEPOCH) => {
                self.on_promise(now, shared, conn, packet).map(|()| None)
            }
            (Stage::Asked | Stage::Synced | Stage::Live, PacketType::ACK) => {
                self.on_ack(now, shared, conn, packet.zxid).map(|()| None)
            }
            (Stage::Live, _) => self.on_live_packet(now, shared, conn, packet),
            _ => Err(unexpected),
        }
    }

    /// Fills `buf` for a learner.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        history: &History,
        conn: ConnId,
        buf: &mut [u8],
    ) -> usize {
        let own = self.own();
        let link = self.links.get_mut(conn.slot() as usize).and_then(Option::as_mut);
        let Some(link) = link.filter(|link| link.conn == conn) else { return 0 };
        let written = link.transmit(history, own, &self.config_text, buf);
        link.sent_bytes += written as u64;
        if written > 0 {
            link.sent_at = now;
        }
        link.idle = written < buf.len();
        written
    }

    /// A connection that has something to send where there was nothing.
    pub(crate) fn poll_transmittable(&mut self, history: &History) -> Option<ConnId> {
        let cursor = self.cursor.min(self.links.len());
        let (before, after) = self.links.split_at_mut(cursor);
        let slots = (cursor..).zip(after).chain((0..).zip(before));
        let mut links = slots.filter_map(|(slot, link)| Some((slot, link.as_mut()?)));
        // Going on behind the last one found, not from the beginning, makes a commit for a thousand
        // learners a thousand steps and not a million.
        let (slot, link) = links.find(|(_, link)| link.idle && link.has_output(history))?;
        link.idle = false;
        self.cursor = slot + 1;
        Some(link.conn)
    }

    /// Something has become durable.
    pub(crate) fn on_persisted(&mut self, now: Instant, shared: &mut Shared) {
        self.choose_epoch(now, shared);
        self.count_promises(now, shared);
        self.count_syncs(now, shared);
        if shared.history.identity().is_some_and(|identity| !identity.confirmed) {
            self.tend_identity(shared);
        }
        self.acks_changed = true;
        self.commit_acked(shared);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.standalone {
            return None;
        }
        let step = (self.step < Step::Established).then_some(self.deadline);
        let silent = self.all().filter(|link| link.is_awaited()).map(|link| link.silent_at).min();
        let beat = self.beats.poll_timeout();
        let change = self.change.poll_timeout();
        let all = [Some(self.half_tick), step, silent, beat, self.resign_timeout(), change];
        all.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) -> Leadership {
        if self.standalone {
            return Leadership::Keep;
        }
        if self.step < Step::Established && now >= self.deadline {
            let synchronises = self.step == Step::Syncs;
            let followed = ReignEnd::NotFollowed;
            return Leadership::Resign(if synchronises {
                ReignEnd::NotSynchronised
            } else {
                followed
            });
        }
        if let Some(reason) = self.hand_over(now, shared) {
            return Leadership::Resign(reason);
        }
        let half_tick = now >= self.half_tick;
        if half_tick {
            self.note_progress(now, shared);
            self.note_committed(shared);
        }
        if half_tick || self.beats.poll_timeout().is_some_and(|at| now >= at) {
            self.watch_answers(now, shared);
            if self.step >= Step::Syncs {
                self.watch_itself(now, shared);
            }
            if let Some(reason) = self.judge_itself(now, shared) {
                return Leadership::Resign(reason);
            }
            self.send_beats(now, shared);
            self.tell_spares(now, shared);
        }
        self.close_where(shared, CloseReason::Silent, |link| {
            link.is_awaited() && now >= link.silent_at
        });
        if !half_tick {
            return Leadership::Keep;
        }
        let half = shared.config.tick_time / 2;
        // After a pause of this process one half tick is made up for, not all of them.
        self.half_tick = (self.half_tick + half).max(now + half / 2);
        self.half_ticks += 1;
        if self.half_ticks.is_multiple_of(2)
            && self.is_established()
            && !self.has_live_quorum(now, shared)
        {
            return Leadership::Resign(ReignEnd::QuorumLost);
        }
        self.watch_acks(now, shared);
        self.watch_readers(shared);
        self.watch_snapshots(shared);
        self.ping_all();
        self.renew_round(now, shared);
        Leadership::Keep
    }

    /// Restarts the silence timer of learners that have taken bytes since the last half tick, and of
    /// learners that owe us nothing yet (for example while they queue for a snapshot).
    fn note_progress(&mut self, now: Instant, shared: &Shared) {
        let silent_at = now + shared.config.ticks(shared.config.init_limit);
        for link in self.links.iter_mut().flatten() {
            let receives = (Stage::Lent..=Stage::Asked).contains(&link.stage);
            let takes = receives && link.sent_bytes != link.sent_before;
            if !link.is_awaited() || takes {
                link.silent_at = silent_at;
            }
            if takes {
                link.active_at = now;
            }
            let waits = link.stage == Stage::Lent || link.has_output(&shared.history);
            let untaken = waits && link.sent_bytes == link.sent_before;
            link.untaken = if untaken { link.untaken + 1 } else { 0 };
            link.lent += u32::from(link.stage == Stage::Lent);
            link.sent_before = link.sent_bytes;
        }
    }

    fn close_where(
        &mut self,
        shared: &mut Shared,
        reason: CloseReason,
        condition: impl Fn(&Link) -> bool,
    ) {
        for slot in 0..self.links.len() {
            let link = self.links[slot].as_ref().filter(|link| condition(link));
            if let Some(conn) = link.map(|link| link.conn) {
                self.close(shared, conn, reason);
            }
        }
    }

    /// Whether a quorum has been heard of within `syncLimit` ticks.
    fn has_live_quorum(&self, now: Instant, shared: &Shared) -> bool {
        self.is_quorum(shared, |link| link.counts() && link.alive_until >= now)
    }

    /// Whether the voters with such links are a quorum together with this server.
    fn is_quorum(&self, shared: &Shared, test: impl Fn(&Link) -> bool) -> bool {
        let me = shared.config.sid;
        shared
            .quorums
            .is_quorum(|sid| sid == me || self.all().any(|link| link.sid == sid && test(link)))
    }
}

/// How many bytes of proposals a learner is sent behind NEWLEADER, before it has acknowledged that
/// and may be told of commits: some, so that nothing waits for its disk, and few, as its window must
/// hold them.
const EARLY_LEN_MAX: usize = 1 << 20;
