//! The public calls of the core, and the one place that branches on the role.

mod application;
mod masters;
mod members;
mod oracle;
mod outputs;
mod patience;
mod presence;
mod resigning;
mod roles;
mod sparing;
mod streams;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::IpAddr;

use self::patience::{Attempts, Waiting};
use self::roles::{Looking, Role};
use crate::door::Door;
use crate::election::ElectionPort;
use crate::heartbeat::{HeartbeatStatus, Suspicions, Watchdog};
use crate::leader::{Leader, Leadership};
use crate::learner::Learner;
use crate::notice::Notices;
use crate::oracle::Oracle;
use crate::quorums::Quorums;
use crate::recovered::Recovered;
use crate::shared::{Control, Shared, Slots};
use crate::{
    Channel, CloseReason, Config, ConfigError, ConnId, DigestVerdict, Epoch, Identity, Input,
    Instant, Output, Phase, Received, ServerState, Sid, Status, SyncCounts, Zxid,
};

/// One server's side of ZAB, over all of its connections. Performs no I/O and reads no clock.
///
/// Most servers are built on [`Node`](crate::Node), which carries out the outputs for storage and
/// application. A driver of a `Peer` does that itself: events in with [`handle_input`](Self::handle_input)
/// and [`accept`](Self::accept), bytes in with [`handle_bytes`](Self::handle_bytes), then outputs from
/// [`poll_output`](Self::poll_output) until there are none, bytes out with
/// [`poll_transmit`](Self::poll_transmit), and a wait until [`poll_timeout`](Self::poll_timeout).
///
/// # The contract
///
/// 1. Any input may come at any time, whether or not outputs were taken before it. (Fuzz target `peer`.)
/// 2. Outputs with a [`Ticket`](crate::Ticket) are one queue: they become durable in this order, an
///    epoch never ahead of the appends before it. Tickets rise by one, and
///    [`Input::Persisted`] is cumulative. They, not zxids, identify writes: the same zxid can be
///    written, truncated and written again. (`tests/replay`; `zab-sim`, whose disks lose the tail.)
/// 3. What promises durability (ACK, ACKEPOCH, a leader's own acknowledgement) leaves only when its
///    ticket is persisted. A driver may flush when it likes; only a false `Persisted` breaks safety.
///    (`tests/cluster.rs`, `nothing_is_acknowledged_before_it_is_durable`.)
/// 4. `handle_bytes` takes whole frames and returns how much it consumed. The driver keeps the rest and
///    offers it again, with what has come since, or at [`Output::Resume`]: to leave bytes is how the
///    core says that it has no room. (`tests/cluster.rs`, `bytes_come_one_at_a_time`,
///    `a_full_window_waits_for_slow_streams_and_disks`.)
/// 5. `poll_transmit` may stop inside a frame and goes on there, so every buffer that is not empty makes
///    progress. [`Output::Transmit`] is said once: ask until 0 comes, or the socket is full.
///    (`tests/cluster.rs`, the same.)
/// 6. Every call does bounded work, and what is kept is bounded by [`Limits`](crate::Limits). A commit
///    allocates nothing. (`tests/no_alloc.rs`, `tests/limits.rs`.)
/// 7. After [`Input::Timeout`] at `now` and the outputs that follow, `poll_timeout` is later than `now`
///    or `None`. An input that comes early, or twice, does no harm. (Fuzz target `peer`.)
/// 8. A connection that the core names ([`ConnId`]) has a generation: what is told of one that is gone
///    is ignored, since sockets, timers and disk race by nature. (Fuzz target `peer`.)
/// 9. Bytes of the network never panic and never fail a call: at worst their connection ends with
///    [`Output::Close`]. (Fuzz targets `peer` and `ensemble`.)
/// 10. The same configuration, recovered state and inputs give the same outputs: randomness comes from
///     [`Config::seed`]. (`zab-sim`, where every seed can be repeated.)
#[derive(Debug)]
pub struct Peer {
    shared: Shared,
    election: ElectionPort,
    role: Role,
    /// Learners that came before it was known whether this server leads, the oldest first. Nothing is
    /// read of them.
    held: Vec<Held>,
    /// Addresses of the dial that was polled last.
    dialling: String,
    attempts: Attempts,
    /// Present while this server does not serve.
    waiting: Option<Waiting>,
    /// The epoch told to the election since the role began.
    advertised: Option<Epoch>,
    random: u64,
    /// Followers that an observer has not tried since it had tried them all.
    masters: Vec<Sid>,
}

impl Peer {
    /// A server at its start, in election.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration contradicts itself.
    pub fn new(now: Instant, config: Config, recovered: Recovered) -> Result<Self, ConfigError> {
        config.check()?;
        let quorums = Quorums::new(config.ensemble.clone(), None).with_oracle(config.oracle);
        let quorums = Arc::new(quorums);
        let trust_empty = config.trust_empty || config.standalone;
        let mut recovered = recovered;
        let applied = core::mem::take(&mut recovered.reconfigs);
        let stored = core::mem::take(&mut recovered.configurations);
        let damaged = recovered.damaged_epochs();
        let history = recovered.into_history(trust_empty);
        let mut peer = Self {
            election: ElectionPort::new(&config, Arc::clone(&quorums)),
            shared: Shared {
                slots: Slots::new(config.limits.links_max),
                history,
                control: alloc::collections::VecDeque::with_capacity(64),
                quorums,
                room_wanted: Cell::new(None),
                stored: Vec::new(),
                newcomers: alloc::collections::BTreeMap::new(),
                members_changed: false,
                changing: false,
                outdated: false,
                notices: Notices::default(),
                now,
                door: Door::new(&config),
                watchdog: Watchdog::new(),
                suspicions: Suspicions::default(),
                heartbeats: HeartbeatStatus::default(),
                syncs: SyncCounts::default(),
                loss: None,
                oracle: Oracle::default(),
                config,
            },
            role: Role::Looking(Looking {
                begun: false,
                not_before: now,
                lost: None,
                suspects: false,
                votes_for: None,
            }),
            held: Vec::new(),
            dialling: String::new(),
            attempts: Attempts::default(),
            waiting: None,
            advertised: None,
            random: 0,
            masters: Vec::new(),
        };
        peer.random = peer.shared.config.seed | 1;
        peer.observe_history(&applied, &stored);
        if let Some(notice) = damaged {
            peer.shared.notice(now, notice);
        }
        if peer.shared.config.standalone {
            peer.role = Role::Leader(Leader::new(now, &mut peer.shared));
        } else {
            peer.shared.control.push_back(Control::Became(peer.status()));
            peer.settle(now);
        }
        Ok(peer)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Role, phase, leader and epoch.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.role {
            Role::Looking(_) => Status {
                state: ServerState::Looking,
                phase: Phase::Election,
                leader: None,
                epoch: self.shared.history.current(),
                sync: None,
            },
            Role::Learner(learner) => learner.status(),
            Role::Leader(leader) => leader.status(self.shared.config.sid),
        }
    }

    /// The newest zxid of the history, committed or not.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.shared.history.last()
    }

    /// The highest zxid delivered to the application.
    #[must_use]
    pub fn delivered(&self) -> Zxid {
        self.shared.history.delivered_zxid()
    }

    /// Whether the history has a gap that could not be proven (rule R8). No snapshot is to be taken
    /// then: it would conceal the gap.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.shared.history.is_doubted()
    }

    /// Whether the application has to say something of a gap now; see [`Output::Gap`].
    #[must_use]
    pub fn awaits_proof(&self) -> bool {
        self.shared.history.awaits_proof()
    }

    /// Answers [`Output::Gap`]. Called twice: first with whether the transaction after the gap carries
    /// a digest (`Agrees` or `Absent`), then, once that transaction is delivered, with whether the digest
    /// matched (what [`Application::agrees`](crate::Application::agrees) says). Unless both answers are
    /// `Agrees`, the leader's connection is closed and this server needs a snapshot.
    pub fn prove_gap(&mut self, now: Instant, verdict: DigestVerdict) {
        self.observe_proof(verdict);
        self.settle(now);
    }

    fn observe_proof(&mut self, verdict: DigestVerdict) {
        if let Err(violation) = self.shared.history.prove(verdict)
            && let Role::Learner(learner) = &mut self.role
        {
            learner.leave(&mut self.shared, CloseReason::Violation(violation));
        }
    }

    /// The accepted and the current epoch, as last asked of storage.
    #[must_use]
    pub fn epochs(&self) -> (Epoch, Epoch) {
        (self.shared.history.accepted(), self.shared.history.current())
    }

    /// Which ensemble this server's data directory belongs to, as last asked of storage (rule R24).
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.shared.history.identity()
    }

    /// Bytes of the transactions in the window: those under way, and those kept for learners.
    #[must_use]
    pub fn window_len_bytes(&self) -> usize {
        self.shared.history.window.len_bytes()
    }

    /// Leader: its learners. Follower: the observers that it serves.
    pub fn learners(&self) -> impl Iterator<Item = crate::LearnerStatus> + '_ {
        let (leader, follower) = match &self.role {
            Role::Leader(leader) => (Some(leader), None),
            Role::Learner(learner) => (None, Some(learner)),
            Role::Looking(_) => (None, None),
        };
        let end = self.shared.history.end();
        let led = leader.into_iter().flat_map(move |leader| leader.learners(end));
        led.chain(follower.into_iter().flat_map(Learner::learners))
    }

    /// What the name of a member means now; nothing, if it was not found. Names that were never looked
    /// up are not judged (rule R23).
    pub fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        self.shared.door.resolved(host, addresses);
        self.election.resolved(host, addresses);
    }

    /// A connection from `remote` was accepted on the election or quorum port; `None` refuses it.
    pub fn accept(
        &mut self,
        now: Instant,
        channel: Channel,
        remote: Option<IpAddr>,
    ) -> Option<ConnId> {
        match (channel, &mut self.role) {
            (Channel::Election, _) => {
                let conn = self.election.accept(now, remote);
                // It may have closed an older connection to make room.
                self.settle(now);
                conn
            }
            (Channel::Client, _) => None,
            (Channel::Quorum, Role::Learner(learner)) => {
                learner.accept(now, &mut self.shared, remote)
            }
            (Channel::Quorum, Role::Leader(leader)) => {
                if self.shared.slots.is_full() {
                    leader.make_room(&mut self.shared);
                }
                let conn = self.shared.slots.allot()?;
                leader.accept(now, &self.shared, conn, remote);
                Some(conn)
            }
            (Channel::Quorum, Role::Looking(_)) => {
                if self.shared.slots.is_full() && !self.held.is_empty() {
                    let oldest = self.held.remove(0);
                    self.shared.close(oldest.conn, CloseReason::MadeRoom);
                }
                let conn = self.shared.slots.allot()?;
                let until = now + self.shared.config.ticks(self.shared.config.init_limit);
                self.held.push(Held { conn, until, remote });
                Some(conn)
            }
        }
    }

    /// Timer, dial results, closed connections and finished writes.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        self.observe_time(now);
        match input {
            Input::Timeout => self.on_timeout(now),
            Input::Opened { conn } if ElectionPort::owns(conn) => self.election.opened(now, conn),
            Input::Closed { conn } if ElectionPort::owns(conn) => self.election.closed(now, conn),
            Input::Opened { conn } => {
                if let Role::Learner(learner) = &mut self.role {
                    learner.opened(now, &mut self.shared, conn);
                }
            }
            Input::Closed { conn } => self.on_closed(now, conn),
            Input::Persisted { through } => {
                self.shared.history.persisted(through);
                match &mut self.role {
                    Role::Looking(_) => {}
                    Role::Learner(learner) => learner.on_persisted(&mut self.shared),
                    Role::Leader(leader) => leader.on_persisted(now, &mut self.shared),
                }
            }
            Input::SnapshotDone { conn } => match &mut self.role {
                Role::Looking(_) => {}
                Role::Learner(learner) => learner.snapshot_done(&mut self.shared, conn),
                Role::Leader(leader) => leader.snapshot_done(&mut self.shared, conn),
            },
            Input::Oracle { granted } => self.on_oracle(now, granted),
        }
        self.settle(now);
    }

    fn on_timeout(&mut self, now: Instant) {
        self.election.handle_timeout(now);
        self.tell_waiting(now);
        while let Some(Held { conn, .. }) =
            self.held.first().copied().filter(|held| now >= held.until)
        {
            self.held.remove(0);
            self.shared.close(conn, CloseReason::Silent);
        }
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.handle_timeout(now, &mut self.shared),
            Role::Leader(leader) => {
                if let Leadership::Resign(reason) = leader.handle_timeout(now, &mut self.shared) {
                    self.abdicate(now, reason);
                }
            }
        }
    }

    fn on_closed(&mut self, now: Instant, conn: ConnId) {
        if let Some(at) = self.held.iter().position(|held| held.conn == conn) {
            self.held.remove(at);
            self.shared.slots.free(conn);
            return;
        }
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.closed(now, &mut self.shared, conn),
            Role::Leader(leader) => leader.closed(&mut self.shared, conn),
        }
    }

    /// Feeds bytes received on `conn`.
    ///
    /// Whole frames only, except for a snapshot stream. The call ends after the first message for
    /// the application; call again with the rest until nothing is consumed. What is left is to be
    /// offered again together with more, or at [`Output::Resume`]. Malformed or forbidden input
    /// does not fail the call: the connection closes with [`Output::Close`].
    pub fn handle_bytes<'b>(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &'b [u8],
    ) -> Received<'b> {
        self.observe_time(now);
        let received = if ElectionPort::owns(conn) {
            let consumed = self.election.handle_bytes(now, conn, bytes);
            self.note_voices(now);
            Received { consumed, message: None }
        } else {
            match &mut self.role {
                Role::Looking(_) => Received { consumed: 0, message: None },
                Role::Learner(learner) => learner.handle_bytes(now, &mut self.shared, conn, bytes),
                Role::Leader(leader) => leader.handle_bytes(now, &mut self.shared, conn, bytes),
            }
        };
        self.settle(now);
        received
    }

    /// The next thing to do: storage first, then what is committed, then everything else. `None`:
    /// nothing is left until the next input.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if self.shared.history.awaits_proof() {
            self.observe_proof(DigestVerdict::Absent);
        }
        if self.shared.history.has_storage_output() {
            return self.shared.history.poll_storage();
        }
        if self.shared.history.has_delivery() {
            if self.shared.history.is_release_due() {
                self.release();
            }
            return self.shared.history.poll_deliver();
        }
        loop {
            if let Some(control) = self.shared.control.pop_front() {
                if let Some(output) = self.control_output(control) {
                    return Some(output.into_output(&self.dialling));
                }
                continue;
            }
            if let Some(conn) = self.poll_transmittable() {
                return Some(Output::Transmit { conn });
            }
            self.release();
            if self.shared.control.is_empty() {
                return None;
            }
        }
    }

    /// Like [`poll_output`](Self::poll_output), for an application that takes no transaction now: what
    /// does not depend on those that are still to be delivered. Everything comes, in order, where a
    /// change of the role waits behind them: others may hear of it before the application does.
    /// `applying`: the last one that was delivered [is not applied](crate::Application::is_applying).
    pub fn poll_urgent(&mut self, applying: bool) -> Option<Output<'_>> {
        let is_change = |control: &Control| matches!(control, Control::Became(_));
        if !(applying || self.shared.history.has_delivery())
            || self.shared.history.awaits_proof()
            || self.shared.control.iter().any(is_change)
        {
            return self.poll_output();
        }
        if self.shared.history.has_storage_output() {
            return self.shared.history.poll_storage();
        }
        if let Some(&Control::Transmit(conn)) = self.shared.control.front() {
            self.shared.control.pop_front();
            return Some(Output::Transmit { conn });
        }
        self.poll_transmittable().map(|conn| Output::Transmit { conn })
    }

    /// Whether there are committed transactions that were not delivered yet.
    #[must_use]
    pub fn has_deliveries(&self) -> bool {
        self.shared.history.has_delivery()
    }

    /// Forgets transactions that nobody needs any more.
    fn release(&mut self) {
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.release(&mut self.shared),
            Role::Leader(leader) => leader.release(&mut self.shared),
        }
    }

    fn poll_transmittable(&mut self) -> Option<ConnId> {
        match &mut self.role {
            Role::Looking(_) => None,
            Role::Learner(learner) => learner.poll_transmittable(&self.shared.history),
            Role::Leader(leader) => leader.poll_transmittable(&self.shared.history),
        }
    }

    /// Fills `buf` with bytes for `conn`; 0 means nothing to send now. May stop inside a frame and
    /// resume there.
    pub fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        if ElectionPort::owns(conn) {
            return self.election.poll_transmit(conn, buf);
        }
        match &mut self.role {
            Role::Looking(_) => 0,
            Role::Learner(learner) => learner.poll_transmit(&self.shared, conn, buf),
            Role::Leader(leader) => {
                leader.poll_transmit(self.shared.now, &self.shared.history, conn, buf)
            }
        }
    }

    /// Closes a connection of the quorum port on behalf of the application.
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) {
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.close(&mut self.shared, conn, reason),
            Role::Leader(leader) => leader.close(&mut self.shared, conn, reason),
        }
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Looking(looking) => {
                let waits = !looking.begun && self.shared.history.is_settled();
                waits.then_some(looking.not_before)
            }
            Role::Learner(learner) => learner.poll_timeout(&self.shared),
            Role::Leader(leader) => leader.poll_timeout(),
        };
        let held = self.held.first().map(|held| held.until);
        let waiting = self.waiting.map(|waiting| waiting.tell_at);
        let watchdog = self.shared.watchdog.poll_timeout();
        let oracle = self.shared.oracle.poll_timeout();
        let all = [role, held, waiting, watchdog, oracle, self.election.poll_timeout()];
        all.into_iter().flatten().min()
    }
}

/// A learner that came early.
#[derive(Clone, Copy, Debug)]
struct Held {
    conn: ConnId,
    /// How long it may wait.
    until: Instant,
    /// Where it comes from, if the driver knows.
    remote: Option<IpAddr>,
}
