//! The leader: its learners, the epoch they agree on, and the transactions it proposes.

mod beats;
mod broadcast;
mod discovery;
mod guests;
mod identity;
mod link;
mod members;
mod oracle;
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
pub(crate) use self::identity::{LeaderInfo, LearnerIdentity};
use self::link::Link;
use self::members::Change;
use self::resigning::Resigning;
use self::spares::Spares;
use self::standing::Standing;
use self::sync_rounds::SyncRounds;
use crate::history::History;
use crate::reconfig;
use crate::sender::{LearnerStage, Links, Own, Rank};
use crate::shared::{Control, Shared};
use crate::types::StateSummary;
use crate::window::Index;
use crate::wire::packet::{Packet, PacketType};
use crate::wire::{Foreign, Parsed};
use crate::{
    CloseReason, ConnId, DecodeError, Epoch, Instant, Message, Notice, Origin, Phase, Received,
    ReignEnd, ServerState, Sid, Status, Violation, Zxid,
};

/// What a leader waits for, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum LeaderStep {
    /// A quorum of FOLLOWERINFO, its own included, to choose the epoch.
    AwaitFollowerInfo,
    /// The chosen epoch to become durable.
    PersistEpoch,
    /// A quorum of ACKEPOCH.
    AwaitAckEpoch,
    /// A quorum that has acknowledged NEWLEADER.
    AwaitNewLeaderAck,
    /// Nothing: it leads.
    Established,
}

/// The leading server's state.
#[derive(Debug)]
pub(crate) struct Leader {
    links: Links<Link>,
    step: LeaderStep,
    /// The chosen epoch, from `LeaderStep::PersistEpoch` on.
    epoch: Epoch,
    /// It is not written as the current one.
    owes_epoch: bool,
    /// Voters that count in the present step.
    heard: Vec<Sid>,
    /// This server's history when leading began.
    summary: StateSummary,
    /// End of the initial history: index of the first own proposal.
    first_proposal: Index,
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
    uptodate_pending: bool,
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
        let deadline = now + config.meeting_limit();
        let acks = shared.quorums.voters().iter().map(|sid| (*sid, 0)).collect();
        let mut leader = Self {
            links: Links::default(),
            step: LeaderStep::AwaitFollowerInfo,
            epoch: history.current(),
            owes_epoch: false,
            heard: Vec::with_capacity(shared.quorums.voters().len()),
            summary: StateSummary { current_epoch: history.current(), last_zxid: history.last() },
            first_proposal: history.end(),
            last_proposed: history.last(),
            acks,
            acks_sorted: Vec::with_capacity(shared.quorums.voters().len()),
            acks_changed: false,
            departed: VecDeque::new(),
            overtaken: false,
            uptodate_pending: false,
            config_text: reconfig::tell(shared),
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
            leader.step = LeaderStep::Established;
            shared.history.commit(leader.first_proposal);
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
            LeaderStep::AwaitFollowerInfo
            | LeaderStep::PersistEpoch
            | LeaderStep::AwaitAckEpoch => Phase::Discovery,
            LeaderStep::AwaitNewLeaderAck => Phase::Synchronization,
            LeaderStep::Established => Phase::Broadcast,
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
        Own { epoch: self.epoch, first: self.first_proposal }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its learners; `end` is the end of its history.
    pub(crate) fn learners(&self, end: Index) -> impl Iterator<Item = LearnerStatus> + '_ {
        let learns = |link: &&Link| link.to.stage > LearnerStage::Connected && !link.foreign;
        self.links.iter().filter(learns).map(move |link| LearnerStatus {
            origin: link.to.origin(),
            observer: link.to.observer,
            synced: link.to.stage == LearnerStage::UpToDate,
            guest: link.guest,
            behind: (link.to.stage == LearnerStage::UpToDate && !link.to.observer)
                .then(|| end.saturating_sub(link.acked)),
        })
    }

    pub(crate) fn is_established(&self) -> bool {
        self.step == LeaderStep::Established
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
        let early_len_max = EARLY_LEN_MAX.min(config.limits.window_len_max_bytes / 2);
        let mut link = Link::new(conn, silent_at, alive_until, early_len_max);
        link.remote = remote;
        self.links.insert(conn, link);
    }

    /// All connections are taken, and somebody new has come: who has owed its introduction for longest
    /// makes room, or else a learner that the configuration does not name.
    pub(crate) fn make_room(&mut self, shared: &mut Shared) {
        let quorums = &shared.quorums;
        let owes = |link: &&Link| link.to.stage == LearnerStage::Connected;
        let oldest = self.links.iter().filter(owes).min_by_key(|link| link.to.silent_at);
        let other = || self.links.iter().find(|link| Rank::of(quorums, &link.to) == Rank::Other);
        if let Some(conn) = oldest.or_else(other).map(|link| link.to.conn) {
            self.close(shared, conn, CloseReason::MadeRoom);
        }
    }

    fn link(&mut self, conn: ConnId) -> Option<&mut Link> {
        self.links.get_mut(conn)
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
        let introduced =
            |link: &&mut Link| link.to.stage > LearnerStage::Connected && !link.foreign;
        let Some(link) = self.link(conn).filter(introduced) else { return };
        let (sid, observer, longest) = (link.to.sid, link.to.observer, link.to.longest());
        let phase = match link.to.stage {
            LearnerStage::Connected
            | LearnerStage::Introduced
            | LearnerStage::LeaderInfoSent
            | LearnerStage::EpochAcked => Phase::Discovery,
            LearnerStage::UpToDate => Phase::Broadcast,
            _ => Phase::Synchronization,
        };
        shared.notice(shared.now, Notice::LearnerLost { sid, observer, phase, reason, longest });
    }

    /// What a leader that is not established waits for.
    pub(crate) fn waits_for(&self, shared: &Shared) -> String {
        let here = |sid: Sid, from: LearnerStage| {
            sid == shared.config.sid
                || self
                    .links
                    .iter()
                    .any(|link| link.to.sid == sid && link.to.stage >= from && link.votes())
        };
        let (what, from) = match self.step {
            LeaderStep::AwaitFollowerInfo | LeaderStep::PersistEpoch => {
                ("come to follow it", LearnerStage::Introduced)
            }
            LeaderStep::AwaitAckEpoch => ("promise the epoch", LearnerStage::EpochAcked),
            LeaderStep::AwaitNewLeaderAck | LeaderStep::Established => {
                ("be synchronised", LearnerStage::NewLeaderAcked)
            }
        };
        let missing = shared.quorums.voters().iter().copied().filter(|sid| !here(*sid, from));
        format!(
            "elected to lead, and waits for a quorum to {what}; missing: {}",
            shared.names(missing)
        )
    }

    fn forget(&mut self, shared: &mut Shared, conn: ConnId) {
        let link = self.links.remove(conn);
        // As many as may be connected: so much the window may hold in any case.
        let counts = self.departed.len() < shared.config.limits.links_max;
        if counts && link.is_some_and(|link| link.to.stage == LearnerStage::UpToDate) {
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
        for link in self.links.drain() {
            shared.close(link.to.conn, CloseReason::RoleEnded);
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
            let foreign =
                Foreign::of(bytes).filter(|_| matches!(link.to.stage, LearnerStage::Connected));
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
                    let reason = match link.to.stage {
                        LearnerStage::Connected => CloseReason::Malformed(error),
                        _ => CloseReason::of_member(error, field_len_max),
                    };
                    self.close(shared, conn, reason);
                    consumed = bytes.len();
                    break;
                }
            };
            let asks = matches!(packet.kind, PacketType::REQUEST | PacketType::REVALIDATE);
            if let Some(link) = self.link(conn).filter(|link| asks && link.to.is_slow_to_take()) {
                link.to.owing = true;
                break;
            }
            let takes = self.is_ending() || self.can_take(shared, len);
            if packet.kind == PacketType::REQUEST && !takes {
                if let Some(link) = self.link(conn) {
                    link.to.paused = true;
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
        let stage = link.to.stage;
        link.to.active_at = now;
        if stage >= LearnerStage::NewLeaderAcked {
            link.to.silent_at = now + config.ticks(config.sync_limit);
            link.alive_until = now + config.ticks(config.sync_limit + 1);
        } else {
            link.to.silent_at = now + config.ticks(config.init_limit);
        }
        let unexpected = CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0));
        match (stage, packet.kind) {
            (LearnerStage::Connected, PacketType::FOLLOWERINFO | PacketType::OBSERVERINFO) => {
                self.on_introduction(now, shared, conn, packet).map(|()| None)
            }
            (LearnerStage::LeaderInfoSent, PacketType::ACKEPOCH) => {
                self.on_promise(now, shared, conn, packet).map(|()| None)
            }
            (
                LearnerStage::NewLeaderSent | LearnerStage::NewLeaderAcked | LearnerStage::UpToDate,
                PacketType::ACK,
            ) => self.on_ack(now, shared, conn, packet.zxid).map(|()| None),
            (LearnerStage::UpToDate, _) => self.on_live_packet(now, shared, conn, packet),
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
        let place = (self.own(), self.config_text.as_str());
        self.links.poll_transmit(now, history, place, conn, buf)
    }

    /// A connection that has something to send where there was nothing.
    pub(crate) fn poll_transmittable(&mut self, history: &History) -> Option<ConnId> {
        self.links.poll_transmittable(history)
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
        let step = (self.step < LeaderStep::Established).then_some(self.deadline);
        let silent = self
            .links
            .iter()
            .filter(|link| link.to.is_awaited())
            .map(|link| link.to.silent_at)
            .min();
        let beat = self.beats.poll_timeout();
        let change = self.change.poll_timeout();
        let all = [Some(self.half_tick), step, silent, beat, self.resign_timeout(), change];
        all.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) -> Leadership {
        if self.standalone {
            return Leadership::Keep;
        }
        if self.step < LeaderStep::Established && now >= self.deadline {
            let synchronises = self.step == LeaderStep::AwaitNewLeaderAck;
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
            if self.step >= LeaderStep::AwaitNewLeaderAck {
                self.watch_itself(now, shared);
            }
            if let Some(reason) = self.judge_itself(now, shared) {
                return Leadership::Resign(reason);
            }
            self.send_beats(now, shared);
            self.tell_spares(now, shared);
        }
        self.close_where(shared, CloseReason::Silent, |link| {
            link.to.is_awaited() && now >= link.to.silent_at
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
            && !shared.awaits_oracle(now)
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
        for link in self.links.iter_mut() {
            link.to.note_progress(now, silent_at, &shared.history);
        }
    }

    fn close_where(
        &mut self,
        shared: &mut Shared,
        reason: CloseReason,
        condition: impl Fn(&Link) -> bool,
    ) {
        for slot in 0..self.links.end() {
            let link = self.links.at(slot).filter(|link| condition(link));
            if let Some(conn) = link.map(|link| link.to.conn) {
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
        shared.quorums.is_quorum(|sid| {
            sid == me || self.links.iter().any(|link| link.to.sid == sid && test(link))
        })
    }
}

/// How many bytes of proposals a learner is sent behind NEWLEADER, before it has acknowledged that
/// and may be told of commits: some, so that nothing waits for its disk, and few, as its window must
/// hold them.
const EARLY_LEN_MAX: usize = 1 << 20;
