//! The core and its application as one thing with the four doors; what every runtime drives.

mod logs;
mod snapshots;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::ControlFlow;
use core::time::Duration;

use self::logs::Logs;
use self::snapshots::Lent;
use crate::gate::Gate;
use crate::{
    Application, Channel, ClientOutput, CloseReason, Config, ConfigError, ConnId, Core,
    DigestVerdict, Incoming, Input, Instant, Message, Notice, Output, Peer, Recovered, ResignError,
    Status, Storage,
};

/// What a runtime has to do on the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetOutput {
    /// Dial a member.
    Connect {
        /// Name of the new connection.
        conn: ConnId,
        /// The port's kind.
        channel: Channel,
        /// `host:port`, several joined by `|`; the first that answers is to be used.
        addresses: String,
    },
    /// Ask [`Node::poll_transmit`] until it returns 0 or the socket is full.
    Transmit(ConnId),
    /// Offer bytes again that [`Node::handle_bytes`] left.
    Resume(ConnId),
    /// Send what `poll_transmit` still has, then close.
    Close(ConnId, CloseReason),
    /// Something an operator should know, and how many like it were kept back since the last one.
    Notice(Notice, u64),
    /// Role or phase changed (for the runtime's log; the application knows).
    Became(Status),
    /// Ask the oracle, and answer with [`Input::Oracle`]; see [`Output::AskOracle`].
    AskOracle,
    /// The members have changed: names are to be looked up anew, ports perhaps bound elsewhere
    /// ([`Peer::config`]; the application knows).
    Reconfigured,
}

/// A [`Peer`] with its [`Application`]: what a runtime drives.
///
/// Its methods are of five kinds:
///
/// * Events go in with [`handle_input`](Self::handle_input) and [`accept`](Self::accept).
/// * Bytes go in with [`handle_bytes`](Self::handle_bytes) and come out with
///   [`poll_transmit`](Self::poll_transmit), each for one connection.
/// * [`poll_output`](Self::poll_output) carries out what the core wants of [`Storage`] and
///   application, and returns what only the runtime can do.
/// * [`poll_timeout`](Self::poll_timeout) is the one deadline of everything inside.
/// * [`with`](Self::with), [`app`](Self::app) and [`peer`](Self::peer) are for whoever owns the node.
///
/// # The order of a turn
///
/// 1. Tell what has happened, in any order: bytes read, dials, writes that are durable, a deadline
///    that has passed. Several may be told before the next step.
/// 2. Take from `poll_output` until it returns `None`. For [`NetOutput::Transmit`] take from
///    `poll_transmit` until it returns 0 or the socket is full; in that case go on when the socket is
///    writable.
/// 3. Submit what [`Storage`] was given in this turn. A batch may be as long as the turn.
/// 4. Repeat steps 2 and 3 until `poll_output` has nothing to say after the last bytes were taken.
/// 5. Wait for sockets and disk until `poll_timeout`.
///
/// # What holds
///
/// The contract of [`Peer`], and in addition:
///
/// * The application is called from within these methods only, on the caller's thread.
/// * A connection of a client, named by [`Application::accept`], is the application's; all others are
///   the core's ([`ConnId::is_client`]).
/// * Storage is called from within `handle_bytes` and `poll_output` only, and the same [`Storage`] must
///   be passed each time.
///
/// Proved by `zab-sim`, whose every server is a `Node` under faults of network, disk and clock, and by
/// the runtimes' own suites.
#[derive(Debug)]
pub struct Node<A> {
    peer: Peer,
    app: A,
    lent: Vec<Lent>,
    logs: Logs,
    /// The leader's connection, while its snapshot arrives faster than storage takes it.
    staging: Option<ConnId>,
    to_disk: Option<u32>,
    piece: Vec<u8>,
    touched: Vec<u8>,
    /// Answered syncs that the application is to hear of once all commits before are delivered.
    synced: u32,
    /// The application takes no more transactions in this turn, and there are some.
    postponed: bool,
    /// When outputs were asked for last: the present turn.
    turn: Instant,
    gate: Gate,
}

impl From<ClientOutput> for NetOutput {
    fn from(output: ClientOutput) -> Self {
        match output {
            ClientOutput::Transmit(conn) => Self::Transmit(conn),
            ClientOutput::Resume(conn) => Self::Resume(conn),
            ClientOutput::Close(conn) => Self::Close(conn, CloseReason::Application),
        }
    }
}

impl<A: Application> Node<A> {
    /// A server at its start. `app` holds the state of the recovered snapshot, if any.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration contradicts itself.
    pub fn new(
        now: Instant,
        config: Config,
        recovered: Recovered,
        app: A,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            peer: Peer::new(now, config, recovered)?,
            app,
            lent: Vec::new(),
            logs: Logs::default(),
            staging: None,
            to_disk: None,
            piece: Vec::new(),
            touched: Vec::new(),
            synced: 0,
            postponed: false,
            turn: now,
            gate: Gate::default(),
        })
    }

    /// The core.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, to be changed only in ways that are not replicated.
    #[must_use]
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// Lets the application act outside of an event: propose, forward a request, begin a sync.
    pub fn with<T>(&mut self, now: Instant, act: impl FnOnce(&mut A, &mut Core<'_>) -> T) -> T {
        act(&mut self.app, &mut Core::new(now, &mut self.peer))
    }

    /// Leader: makes way for another one; see [`Peer::resign`].
    ///
    /// # Errors
    /// [`ResignError`] if nothing comes of it.
    pub fn resign(&mut self, now: Instant) -> Result<(), ResignError> {
        self.peer.resign(now)
    }

    /// The handshake of a client's connection is done; `subject` is that of the trusted certificate, if one
    /// was shown.
    pub fn secured(&mut self, now: Instant, conn: ConnId, subject: Option<&str>) {
        self.app.secured(&mut Core::new(now, &mut self.peer), conn, subject);
    }

    /// A connection was accepted; `None` means: close it.
    pub fn accept(
        &mut self,
        now: Instant,
        channel: Channel,
        incoming: &Incoming,
    ) -> Option<ConnId> {
        match channel {
            Channel::Client => self.app.accept(&mut Core::new(now, &mut self.peer), incoming),
            Channel::Election | Channel::Quorum => {
                self.peer.accept(now, channel, Some(incoming.remote.ip()))
            }
        }
    }

    /// What the name of a member means now; see [`Peer::resolved`].
    pub fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        self.peer.resolved(host, addresses);
    }

    /// The clock shows `now`; see [`Peer::observe_time`]. All that happens in one turn is told with the
    /// time at which the turn began, which may be long ago if the process was stopped since.
    pub fn observe_time(&mut self, now: Instant) {
        self.peer.observe_time(now);
    }

    /// Timer, dial results, closed connections and finished writes.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Timeout => {
                self.peer.handle_input(now, input);
                // What is due may be a session that others have heard of meanwhile.
                if !self.keeps_waiting() {
                    self.app.handle_timeout(&mut Core::new(now, &mut self.peer));
                }
            }
            Input::Closed { conn } if conn.is_client() => {
                self.app.closed(&mut Core::new(now, &mut self.peer), conn);
            }
            Input::Closed { conn } => {
                self.take_back(conn);
                self.peer.handle_input(now, input);
            }
            Input::Opened { .. }
            | Input::Persisted { .. }
            | Input::SnapshotDone { .. }
            | Input::Oracle { .. } => {
                self.peer.handle_input(now, input);
            }
        }
    }

    /// Feeds bytes received on `conn` and returns how many were consumed.
    ///
    /// Offer the rest again with anything received since, or when told to
    /// [`Resume`](NetOutput::Resume).
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        disk: &mut impl Storage,
    ) -> usize {
        if conn.is_client() {
            self.peer.observe_time(now);
            if self.keeps_waiting() {
                self.gate.hold_input(conn);
                return 0;
            }
            return self.app.handle_bytes(&mut Core::new(now, &mut self.peer), conn, bytes);
        }
        let mut used = 0;
        loop {
            let received = self.peer.handle_bytes(now, conn, &bytes[used..]);
            used += received.consumed;
            let Some(message) = received.message else { return used };
            match message {
                Message::Snapshot { bytes } => match self.take_snapshot(now, conn, bytes, disk) {
                    0 => return used,
                    n => used += n,
                },
                message => self.dispatch(now, message),
            }
        }
    }

    /// Whether clients are to wait. If so, until there is nothing else to do and the core
    /// [may serve](Peer::may_serve): a change of the role that is under way comes first.
    fn keeps_waiting(&mut self) -> bool {
        if !self.peer.may_serve() {
            self.gate.close();
        }
        self.gate.is_closed()
    }

    fn dispatch(&mut self, now: Instant, message: Message<'_>) {
        let core = &mut Core::new(now, &mut self.peer);
        match message {
            Message::Request { from, data, auth } => self.app.request(core, from, data, auth),
            Message::Touched { from, sessions } => self.app.touched(core, from, sessions),
            Message::Revalidate { from, data } => self.app.revalidate(core, from, data),
            Message::Revalidated { data } => self.app.revalidated(core, data),
            // What was committed before it is still to be delivered.
            Message::Synced => self.synced += 1,
            Message::Ping => {
                self.touched.clear();
                self.app.take_touched(&mut self.touched);
                self.peer.pong(&self.touched);
            }
            Message::Snapshot { .. } => {}
        }
    }

    /// Carries out what the core wants of storage and application, and returns the next thing that
    /// only the runtime can do. `None`: nothing is left until the next input, or the application has
    /// [failed](Application::failed).
    pub fn poll_output(&mut self, now: Instant, disk: &mut impl Storage) -> Option<NetOutput> {
        self.turn = now;
        loop {
            if self.app.failed().is_some() {
                return None;
            }
            let output = match self.postpones() {
                true => self.peer.poll_urgent(self.app.is_applying()),
                false => self.peer.poll_output(),
            };
            let Some(output) = output else {
                match self.poll_rest(now, disk) {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(last) => return last,
                }
            };
            match output {
                Output::SetEpoch { ticket, kind, epoch } => disk.set_epoch(ticket, kind, epoch),
                Output::SetIdentity { ticket, identity } => disk.set_identity(ticket, identity),
                Output::SetConfigurations { ticket, texts } => {
                    disk.set_configurations(ticket, texts);
                }
                Output::Append { ticket, zxid, txn } => disk.append(ticket, zxid, txn),
                Output::Stage { zxid, txn } => disk.stage_txn(zxid, txn),
                Output::Truncate { ticket, after } => {
                    self.drop_own_snapshot();
                    disk.truncate(ticket, after);
                }
                Output::Install { ticket, zxid } => {
                    self.drop_own_snapshot();
                    disk.install(ticket, zxid, None);
                    self.app.install_commit(zxid, None);
                }
                Output::DiscardStage => {
                    disk.discard_stage();
                    self.app.install_abort();
                }
                Output::Deliver { zxid, txn } => {
                    self.app.deliver(now, zxid, txn);
                    if self.peer.awaits_proof() {
                        self.peer.prove_gap(now, self.app.agrees());
                    }
                }
                Output::Gap { txn, .. } => {
                    let possible = self.app.has_digest(txn);
                    let verdict =
                        if possible { DigestVerdict::Agrees } else { DigestVerdict::Absent };
                    self.peer.prove_gap(now, verdict);
                }
                Output::Became(status) => return Some(self.became(now, status)),
                Output::AskOracle => return Some(NetOutput::AskOracle),
                Output::Reconfigured => return Some(self.reconfigured(now)),
                Output::Synced { token } => {
                    self.app.synced(&mut Core::new(now, &mut self.peer), Some(token));
                }
                Output::Room => self.app.room(&mut Core::new(now, &mut self.peer)),
                Output::Snapshot { conn } => self.lend_snapshot(conn),
                Output::Log { conn, after, through, any_length } => {
                    self.open_log(disk, conn, (after, through), any_length);
                }
                Output::Connect { conn, channel, addresses } => {
                    return Some(NetOutput::Connect { conn, channel, addresses: addresses.into() });
                }
                Output::Notice { notice, more } => return Some(NetOutput::Notice(notice, more)),
                Output::Transmit { conn } => return Some(NetOutput::Transmit(conn)),
                Output::Resume { conn } => return Some(NetOutput::Resume(conn)),
                Output::Close { conn, reason } => return Some(self.close(conn, reason)),
            }
        }
    }

    /// Whether the application takes no transaction now.
    fn postpones(&mut self) -> bool {
        let has_more = || !self.app.may_deliver() && self.peer.has_deliveries();
        self.postponed = self.app.is_applying() || has_more();
        self.postponed
    }

    fn became(&mut self, now: Instant, status: Status) -> NetOutput {
        self.synced = 0;
        self.app.became(&mut Core::new(now, &mut self.peer), &status);
        NetOutput::Became(status)
    }

    fn reconfigured(&mut self, now: Instant) -> NetOutput {
        self.app.reconfigured(&mut Core::new(now, &mut self.peer));
        NetOutput::Reconfigured
    }

    /// What there is to do when the core has nothing more to say. It may have again afterwards.
    fn poll_rest(
        &mut self,
        now: Instant,
        disk: &mut impl Storage,
    ) -> ControlFlow<Option<NetOutput>> {
        if self.synced > 0 && !self.postponed {
            self.synced -= 1;
            self.app.synced(&mut Core::new(now, &mut self.peer), None);
            return ControlFlow::Continue(());
        }
        if let Some(conn) = self.staging.take_if(|_| disk.stage_room() > 0) {
            return ControlFlow::Break(Some(NetOutput::Resume(conn)));
        }
        self.record_progress(disk);
        if self.read_logs(disk) {
            return ControlFlow::Continue(());
        }
        if self.keeps_waiting() && !self.peer.may_serve() {
            return ControlFlow::Break(None);
        }
        let held = self.gate.open();
        ControlFlow::Break(held.or_else(|| self.app.poll_output().map(NetOutput::from)))
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) -> NetOutput {
        self.take_back(conn);
        NetOutput::Close(conn, reason)
    }

    /// Fills `buf` with bytes for `conn`; 0 means nothing to send now.
    ///
    /// What is taken makes room, for instance for more of a log that is sent to a learner: ask
    /// [`poll_output`](Self::poll_output) before waiting for anything else.
    pub fn poll_transmit(&mut self, now: Instant, conn: ConnId, buf: &mut [u8]) -> usize {
        if conn.is_client() {
            self.peer.observe_time(now);
            if self.keeps_waiting() {
                self.gate.hold_output(conn);
                return 0;
            }
            return self.app.poll_transmit(conn, buf);
        }
        let written = self.peer.poll_transmit(conn, buf);
        written + self.transmit_snapshot(now, conn, &mut buf[written..])
    }

    /// When [`Input::Timeout`] is due. Later than the turn in which all outputs were taken, also where
    /// the next one is [wanted](Self::wants_turn) at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.wants_turn().then(|| self.turn + NEXT_TURN);
        // Behind a closed gate the application begins no turn.
        let app = if self.gate.is_closed() { None } else { self.app.poll_timeout() };
        [next, self.peer.poll_timeout(), app].into_iter().flatten().min()
    }

    /// Whether work is left that this turn had no time for: the next one begins as soon as all
    /// connections and the disk were heard.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        !self.gate.is_closed() && (self.postponed || self.app.wants_turn())
    }
}

/// How much later than a turn the next one is at least: the smallest step of the clock.
const NEXT_TURN: Duration = Duration::from_nanos(1);
