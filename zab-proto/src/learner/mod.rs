//! A follower or observer: one connection to the leader, and the history that comes over it.

mod broadcast;
mod discovery;
mod identity;
mod suspicion;
mod sync;

use alloc::format;
use alloc::string::String;

use self::suspicion::Suspicion;
use self::sync::Incoming;
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
enum Step {
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
    step: Step,
    addresses: String,
    conn: Option<ConnId>,
    /// The dial has succeeded.
    open: bool,
    out: Outbox,
    idle: bool,
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
    pub(crate) fn new(now: Instant, shared: &mut Shared, elected: Vote, observer: bool) -> Self {
        let leader = elected.leader;
        let history = &shared.history;
        let known = history.accepted().max(history.last().epoch());
        let proven = known.max(elected.peer_epoch).max(elected.zxid.epoch());
        let config = &shared.config;
        let mut learner = Self {
            leader,
            observer,
            step: Step::Connecting,
            addresses: quorum_addresses(shared, leader),
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
            Step::Connecting | Step::Introduced | Step::Promising | Step::Promised => {
                Phase::Discovery
            }
            Step::Snapshot | Step::Syncing | Step::Storing | Step::Synced => Phase::Synchronization,
            Step::Live => Phase::Broadcast,
        };
        let state = if self.observer { ServerState::Observing } else { ServerState::Following };
        Status { state, phase, leader: Some(self.leader), epoch: self.epoch, sync: self.sync }
    }

    fn announce(&self, shared: &mut Shared) {
        shared.control.push_back(Control::Became(self.status()));
    }

    pub(crate) fn is_live(&self) -> bool {
        self.step == Step::Live
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
        self.step == Step::Promised
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

    /// Why the role has ended.
    pub(crate) fn loss(&self) -> Notice {
        let reached = self.step != Step::Connecting;
        let phase = if reached { self.status().phase } else { Phase::Election };
        let (leader, reason, longest) = (self.leader, self.reason, self.longest);
        Notice::LeaderLost { leader, phase, reason, longest }
    }

    /// What a learner that does not serve waits for.
    pub(crate) fn waits_for(&self, shared: &Shared) -> String {
        let what = match self.step {
            Step::Connecting => "to take its connection",
            Step::Introduced | Step::Promising => "to be followed by a quorum",
            Step::Promised => "to send what it lacks, when it is its turn",
            Step::Snapshot => "to send its whole snapshot",
            Step::Syncing => "to send the transactions it lacks",
            Step::Storing => "to be acknowledged, once its own disk has what came",
            Step::Synced | Step::Live => "to be established",
        };
        format!("follows server {} and waits for it {what}", shared.name(self.leader))
    }

    /// The role is over.
    pub(crate) fn end(&mut self, shared: &mut Shared) {
        shared.history.give_up_gaps();
        shared.watchdog.watch(shared.now, None);
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
        if self.step != Step::Live || shared.quorums.next().is_empty() {
            return;
        }
        let committed = history.window.zxid_before(history.committed());
        if !reconfig::activate(shared, committed.max(Zxid::new(self.epoch, 0))) {
            return;
        }
        let members = shared.quorums.committed();
        let leader = designated.unwrap_or(self.leader);
        let observer = shared.quorums.is_observer(shared.config.sid);
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
    }

    /// Reads packets of the leader.
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
        if self.conn == Some(conn) && !bytes.is_empty() {
            self.hear_leader(now);
        }
        while message.is_none() && self.conn == Some(conn) && self.step != Step::Promising {
            if Self::waits_for_disk(shared) {
                self.paused = true;
                break;
            }
            let rest = &bytes[consumed..];
            if self.step == Step::Snapshot && !self.incoming.is_snapshot_done() {
                message = (!rest.is_empty()).then_some(Message::Snapshot { bytes: rest });
                self.heard(now, shared);
                break;
            }
            let result = if self.step == Step::Snapshot {
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
        let ticks = if self.step >= Step::Storing { config.sync_limit } else { config.init_limit };
        self.deadline = now + config.ticks(ticks);
    }

    fn on_packet<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        packet: &Packet<'b>,
    ) -> Result<Option<Message<'b>>, CloseReason> {
        match self.step {
            Step::Live => self.on_live_packet(now, shared, packet),
            Step::Syncing | Step::Storing | Step::Synced => {
                self.on_sync_packet(shared, packet).map(|()| None)
            }
            Step::Promised => self.on_plan(shared, packet).map(|()| None),
            Step::Introduced if packet.kind == PacketType::LEADERINFO => {
                self.on_leader_info(shared, packet).map(|()| None)
            }
            Step::Connecting | Step::Introduced | Step::Promising | Step::Snapshot => {
                Err(CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0)))
            }
        }
    }

    /// Fills `buf` for the leader.
    pub(crate) fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        if self.conn != Some(conn) || !self.open {
            return 0;
        }
        let written = self.out.transmit(buf);
        self.idle = self.out.is_empty();
        written
    }

    /// The connection, if it has something to send where there was nothing.
    pub(crate) fn poll_transmittable(&mut self) -> Option<ConnId> {
        if !self.idle || !self.open || self.out.is_empty() {
            return None;
        }
        self.idle = false;
        self.conn
    }

    pub(crate) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let unproven = self.unproven.map(|(_, until)| until);
        let suspicion = self.suspicion_deadline(shared);
        [Some(self.deadline), self.retry, unproven, suspicion].into_iter().flatten().min()
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
        let (txns, len) = (limits.retained_txns, limits.retained_len_max_bytes);
        shared.history.release(shared.history.releasable(Index::MAX, txns, len));
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

/// The addresses of a member's quorum port, as a dial takes them.
fn quorum_addresses(shared: &Shared, sid: Sid) -> String {
    let newcomer = || shared.newcomers.get(&sid).map(quorums::quorum_addresses);
    shared.quorums.quorum_addresses(sid).or_else(newcomer).unwrap_or_default()
}
