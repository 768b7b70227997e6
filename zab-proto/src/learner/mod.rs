//! A follower or observer: one connection to the leader, and the history that comes over it.

mod broadcast;
mod discovery;
mod identity;
mod observers;
mod suspicion;
mod sync;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::observers::Observers;
use self::suspicion::Suspicion;
use self::sync::Incoming;
use crate::history::History;
use crate::quorums;
use crate::reconfig;
use crate::shared::{Control, Outbox, Shared};
use crate::window::Index;
use crate::wire::Parsed;
use crate::wire::packet::{Packet, PacketType};
use crate::{
    CloseReason, ConnId, Epoch, Identity, Instant, Message, Notice, Phase, Received, ServerState,
    Sid, Status, SyncMode, Violation, Vote, Zxid,
};

/// How far the learner has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum LearnerStep {
    /// Dialling, or about to dial again.
    Connecting,
    /// FOLLOWERINFO or OBSERVERINFO is sent.
    Introduced,
    /// The accepted epoch is being made durable.
    Promising,
    /// ACKEPOCH is sent.
    Promised,
    /// A snapshot comes in.
    Snapshot,
    /// Transactions come in, NEWLEADER has not.
    Syncing,
    /// What came, and then the current epoch, is being made durable.
    Storing,
    /// NEWLEADER is acknowledged.
    Synced,
    /// UPTODATE has come.
    Live,
}

/// The learning server's state.
#[derive(Debug)]
pub(crate) struct Learner {
    leader: Sid,
    observer: bool,
    step: LearnerStep,
    addresses: String,
    conn: Option<ConnId>,
    /// The dial has succeeded.
    open: bool,
    out: Outbox,
    idle: bool,
    /// An observer learns from this follower of the leader, and not from the leader itself.
    master: Option<Sid>,
    /// Observers that learn from this follower, and what NEWLEADER tells them.
    observers: Observers,
    config_text: String,
    /// The leader's epoch, from LEADERINFO on.
    epoch: Epoch,
    /// What ACKEPOCH will say of the current epoch.
    promise: Epoch,
    /// This server has promised a higher epoch than the leader's, and is its guest: it counts to no
    /// quorum there (rule R19).
    guest: bool,
    /// The highest epoch that the leader may name: what those who elected it, or this server's disk,
    /// know of, and what is plausible above.
    proven: Epoch,
    /// Which ensemble the leader says this is, and whether it is to be told that this is stored.
    identity: Option<Identity>,
    identity_owed: bool,
    sync: Option<SyncMode>,
    incoming: Incoming,
    /// Own transactions below are on disk and acknowledged, or need no acknowledgement.
    acked: Index,
    /// Commits have come for everything below; applied from UPTODATE on.
    committed: Index,
    /// When silence, or connecting in vain, ends the role.
    deadline: Instant,
    /// Refused dials, and from when on one more of them ends the role.
    refusals: u32,
    give_up_at: Instant,
    retry: Option<Instant>,
    /// The zxid behind a gap, and when it ends the role if the gap is still not proven.
    unproven: Option<(Zxid, Instant)>,
    retry_pause: core::time::Duration,
    /// zxid of the PING to be answered.
    ping: Zxid,
    /// When this observer last said how far it is.
    shown_at: Instant,
    /// Present if the leader grants heartbeats.
    suspicion: Option<Suspicion>,
    /// The role ends as the leader is suspected.
    suspects: bool,
    /// When the leader is to hear again which sessions are alive.
    touched_at: Instant,
    /// The driver holds bytes of the leader's that wait for [`Control::Resume`].
    paused: bool,
    failed: bool,
    /// The members have changed, and this is who leads this server from now on.
    successor: Option<Sid>,
    /// Why this server closed the connection, if it did.
    reason: Option<CloseReason>,
    /// Bytes of the longest field that the leader was sent.
    longest: usize,
}

impl Learner {
    /// Begins to follow or observe `leader`.
    pub(crate) fn new(
        now: Instant,
        shared: &mut Shared,
        elected: Vote,
        observer: bool,
        master: Option<Sid>,
    ) -> Self {
        let leader = elected.leader;
        let history = &shared.history;
        let known = history.accepted().max(history.last().epoch());
        let proven = known.max(elected.peer_epoch).max(elected.zxid.epoch());
        let config = &shared.config;
        let mut learner = Self {
            leader,
            observer,
            step: LearnerStep::Connecting,
            addresses: addresses(shared, leader, master),
            master,
            observers: Observers::default(),
            config_text: String::new(),
            conn: None,
            open: false,
            out: Outbox::default(),
            idle: true,
            epoch: shared.history.current(),
            promise: Epoch(-1),
            guest: false,
            proven,
            identity: None,
            identity_owed: false,
            sync: None,
            incoming: Incoming::new(),
            acked: shared.history.end(),
            committed: shared.history.committed(),
            deadline: now + Self::connect_limit(shared),
            refusals: 0,
            give_up_at: now + Self::refused_limit(shared),
            retry: None,
            unproven: None,
            retry_pause: config.election.leader_retry_min,
            ping: Zxid::ZERO,
            shown_at: now,
            suspicion: None,
            suspects: false,
            touched_at: now,
            paused: false,
            failed: false,
            successor: None,
            reason: None,
            longest: 0,
        };
        learner.announce(shared);
        learner.dial(shared);
        learner
    }

    pub(crate) fn status(&self) -> Status {
        let phase = match self.step {
            LearnerStep::Connecting
            | LearnerStep::Introduced
            | LearnerStep::Promising
            | LearnerStep::Promised => Phase::Discovery,
            LearnerStep::Snapshot
            | LearnerStep::Syncing
            | LearnerStep::Storing
            | LearnerStep::Synced => Phase::Synchronization,
            LearnerStep::Live => Phase::Broadcast,
        };
        let state = if self.observer { ServerState::Observing } else { ServerState::Following };
        Status { state, phase, leader: Some(self.leader), epoch: self.epoch, sync: self.sync }
    }

    fn announce(&self, shared: &mut Shared) {
        shared.control.push_back(Control::Became(self.status()));
    }

    pub(crate) fn is_live(&self) -> bool {
        self.step == LearnerStep::Live
    }

    /// Whether the role has to end.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// The server to follow, or to lead as, without an election, if a change of the members says so.
    pub(crate) fn successor(&self) -> Option<Sid> {
        self.successor
    }

    /// Whether the leader has been told of this server's history and has not accepted it yet.
    pub(crate) fn has_promised(&self) -> bool {
        self.step == LearnerStep::Promised
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn leader(&self) -> Sid {
        self.leader
    }

    /// Whether the leader sends what this server does not take, as any leader will.
    pub(crate) fn is_overtaxed(&self) -> bool {
        matches!(self.reason, Some(CloseReason::TooLong { .. }))
    }

    /// The follower that this observer learns from, if it is not the leader itself.
    pub(crate) fn master(&self) -> Option<Sid> {
        self.master
    }

    /// Why the role has ended.
    pub(crate) fn loss(&self) -> Notice {
        let reached = self.step != LearnerStep::Connecting;
        let phase = if reached { self.status().phase } else { Phase::Election };
        let leader = self.master.unwrap_or(self.leader);
        let (reason, longest) = (self.reason, self.longest);
        Notice::LeaderLost { leader, phase, reason, longest }
    }

    /// What a learner that does not serve waits for.
    pub(crate) fn waits_for(&self, shared: &Shared) -> String {
        let what = match self.step {
            LearnerStep::Connecting => "to take its connection",
            LearnerStep::Introduced | LearnerStep::Promising => "to be followed by a quorum",
            LearnerStep::Promised => "to send what it lacks, when it is its turn",
            LearnerStep::Snapshot => "to send its whole snapshot",
            LearnerStep::Syncing => "to send the transactions it lacks",
            LearnerStep::Storing => "to be acknowledged, once its own disk has what came",
            LearnerStep::Synced | LearnerStep::Live => "to be established",
        };
        let from = shared.name(self.master.unwrap_or(self.leader));
        format!("follows server {from} and waits for it {what}")
    }

    /// The role is over.
    pub(crate) fn end(&mut self, shared: &mut Shared) {
        shared.history.give_up_gaps();
        shared.watchdog.watch(shared.now, None);
        self.observers.end(shared);
        if let Some(conn) = self.conn.take() {
            shared.close(conn, CloseReason::RoleEnded);
        }
        if self.incoming.is_staged() {
            shared.control.push_back(Control::DiscardStage);
        }
    }

    /// Ends the role for a reason that is not in the bytes just read.
    pub(crate) fn leave(&mut self, shared: &mut Shared, reason: CloseReason) {
        self.failed = true;
        self.reason = Some(reason);
        if let Some(conn) = self.conn.take() {
            shared.close(conn, reason);
        }
    }

    /// Once a change of the members is committed, it is in force. It ends this role if the server has
    /// another one now, or another leader: the one that the old leader has `designated`, if it has.
    pub(super) fn activate(&mut self, shared: &mut Shared, designated: Option<Sid>) {
        let history = &shared.history;
        if self.step != LearnerStep::Live || shared.quorums.next().is_empty() {
            return;
        }
        let committed = history.window.zxid_before(history.committed());
        if !reconfig::activate(shared, committed.max(Zxid::new(self.epoch, 0))) {
            return;
        }
        self.config_text = reconfig::tell_committed(shared);
        let members = shared.quorums.committed();
        let leader = designated.unwrap_or(self.leader);
        let observer = shared.quorums.is_observer(shared.config.sid);
        if self.master.is_some() && observer == self.observer {
            // What this server has heard of the leader may be older than its master, which ends with a leader
            // that leads no longer.
            self.leader = leader;
            return;
        }
        if leader != self.leader || observer != self.observer || !members.is_voter(leader) {
            self.successor = Some(leader).filter(|leader| members.is_voter(*leader));
            self.leave(shared, CloseReason::Reconfigured);
        }
    }

    /// Closes the connection to the leader, which ends the role.
    pub(crate) fn close(&mut self, shared: &mut Shared, conn: ConnId, reason: CloseReason) {
        if self.conn == Some(conn) {
            self.conn = None;
            shared.close(conn, reason);
            self.failed = true;
            self.reason = Some(reason);
        }
        self.close_observer(shared, conn, reason);
    }

    /// Reads packets of the leader.
    pub(crate) fn handle_bytes<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        bytes: &'b [u8],
    ) -> Received<'b> {
        if self.observers.owns(conn) {
            let consumed = self.handle_observer_bytes(now, shared, conn, bytes);
            return Received { consumed, message: None };
        }
        let field_len_max = shared.config.limits.field_len_max_bytes;
        let mut consumed = 0;
        let mut message = None;
        if self.conn == Some(conn) && !bytes.is_empty() {
            self.hear_leader(now);
        }
        while message.is_none() && self.conn == Some(conn) && self.step != LearnerStep::Promising {
            if Self::waits_for_disk(shared) {
                self.paused = true;
                break;
            }
            let rest = &bytes[consumed..];
            if self.step == LearnerStep::Snapshot && !self.incoming.is_snapshot_done() {
                message = (!rest.is_empty()).then_some(Message::Snapshot { bytes: rest });
                self.heard(now, shared);
                break;
            }
            let result = if self.step == LearnerStep::Snapshot {
                self.take_signature(rest)
            } else {
                match Packet::parse(rest, field_len_max) {
                    Parsed::Incomplete => Ok((0, None)),
                    Parsed::Malformed(error) => Err(CloseReason::of_member(error, field_len_max)),
                    Parsed::Complete { value, len } => {
                        self.heard(now, shared);
                        self.on_packet(now, shared, &value).map(|message| (len, message))
                    }
                }
            };
            match result {
                Ok((0, _)) => break,
                Ok((len, for_application)) => {
                    consumed += len;
                    message = for_application;
                }
                Err(reason) => {
                    self.close(shared, conn, reason);
                    consumed = bytes.len();
                }
            }
        }
        self.watch_gap(now, shared);
        Received { consumed, message }
    }

    /// What is behind a gap is not acknowledged, and without this server's voice it may never be
    /// committed, and so never be proven: then another epoch has to begin.
    fn watch_gap(&mut self, now: Instant, shared: &Shared) {
        let Some((_, next)) = shared.history.gap() else {
            self.unproven = None;
            return;
        };
        if self.unproven.is_none_or(|(watched, _)| watched != next) {
            self.unproven = Some((next, now + shared.config.ticks(1)));
        }
    }

    fn heard(&mut self, now: Instant, shared: &Shared) {
        let config = &shared.config;
        let ticks =
            if self.step >= LearnerStep::Storing { config.sync_limit } else { config.init_limit };
        self.deadline = now + config.ticks(ticks);
    }

    fn on_packet<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        packet: &Packet<'b>,
    ) -> Result<Option<Message<'b>>, CloseReason> {
        match self.step {
            LearnerStep::Live => self.on_live_packet(now, shared, packet),
            LearnerStep::Syncing | LearnerStep::Storing | LearnerStep::Synced => {
                self.on_sync_packet(shared, packet).map(|()| None)
            }
            LearnerStep::Promised => self.on_plan(shared, packet).map(|()| None),
            LearnerStep::Introduced if packet.kind == PacketType::LEADERINFO => {
                self.on_leader_info(shared, packet).map(|()| None)
            }
            LearnerStep::Connecting
            | LearnerStep::Introduced
            | LearnerStep::Promising
            | LearnerStep::Snapshot => {
                Err(CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0)))
            }
        }
    }

    /// Fills `buf` for the leader or an observer.
    pub(crate) fn poll_transmit(&mut self, shared: &Shared, conn: ConnId, buf: &mut [u8]) -> usize {
        if self.conn != Some(conn) {
            return self.transmit_to_observer(shared, conn, buf);
        }
        if !self.open {
            return 0;
        }
        let written = self.out.transmit(buf);
        self.idle = self.out.is_empty();
        written
    }

    /// The connection, if it has something to send where there was nothing.
    pub(crate) fn poll_transmittable(&mut self, history: &History) -> Option<ConnId> {
        if self.failed {
            return None;
        }
        if !self.idle || !self.open || self.out.is_empty() {
            return self.observers.poll_transmittable(history);
        }
        self.idle = false;
        self.conn
    }

    pub(crate) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let unproven = self.unproven.map(|(_, until)| until);
        let suspicion = self.suspicion_deadline(shared);
        let observers = self.observers.poll_timeout();
        [Some(self.deadline), self.retry, unproven, suspicion, observers]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        if let Some((watched, until)) = self.unproven
            && now >= until
        {
            self.unproven = None;
            if let Some((after, next)) = shared.history.gap().filter(|gap| gap.1 == watched) {
                let violation = Violation::UnprovenGap { after, next };
                self.leave(shared, CloseReason::Violation(violation));
                return;
            }
        }
        if self.judge_leader(now, shared) {
            return;
        }
        self.tend_observers(now, shared);
        if now >= self.deadline {
            self.leave(shared, CloseReason::Silent);
        } else if self.retry.is_some_and(|at| now >= at) {
            self.retry = None;
            self.dial(shared);
        }
    }

    /// Forgets transactions that nobody needs any more.
    pub(crate) fn release(&mut self, shared: &mut Shared) {
        let limits = shared.config.limits;
        if !self.failed {
            self.begin_observers(shared);
            self.observers.release(shared);
        }
        self.offer_room(shared);
        let Some(conn) = self.conn else { return };
        if self.paused && !Self::waits_for_disk(shared) {
            self.paused = false;
            shared.control.push_back(Control::Resume(conn));
        }
        // The leader keeps within its own bound; what is more here is what both retain, one
        // transaction, and the requests that the leader takes of each learner when its window is full.
        let members = shared.quorums.members().count();
        let requests = members.saturating_mul(limits.request_len_max());
        let bound = limits.window_len_max_bytes + limits.field_len_max_bytes;
        let bound = bound.saturating_add(requests);
        if shared.history.held_len_bytes() > bound + 2 * limits.retained_len_max_bytes {
            self.close(shared, conn, CloseReason::TooFarBehind);
        }
    }

    /// Whether the window is full of what is known to be committed and not yet on this server's
    /// disk. Then the leader is not read, which makes it wait in turn. (When the window is full of
    /// what is not committed, the commits must be read.)
    fn waits_for_disk(shared: &Shared) -> bool {
        let (history, limits) = (&shared.history, &shared.config.limits);
        history.durable() < history.committed()
            && history.held_len_bytes()
                > limits.window_len_max_bytes + limits.retained_len_max_bytes
    }
}

/// Where to learn, as a dial takes it: the leader's quorum port, or a follower's port for observers.
fn addresses(shared: &Shared, leader: Sid, master: Option<Sid>) -> String {
    let port = shared.config.observer_master_port;
    let of_master = master.zip(port).and_then(|(sid, port)| {
        let member = shared.quorums.member(sid)?;
        let addresses = member.addresses.iter().map(|address| address.host_port(port));
        Some(addresses.collect::<Vec<_>>().join("|"))
    });
    of_master.unwrap_or_else(|| quorum_addresses(shared, leader))
}

/// The addresses of a member's quorum port.
fn quorum_addresses(shared: &Shared, sid: Sid) -> String {
    let newcomer = || shared.newcomers.get(&sid).map(quorums::quorum_addresses);
    shared.quorums.quorum_addresses(sid).or_else(newcomer).unwrap_or_default()
}
