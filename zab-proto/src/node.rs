//! The core and its application as one thing with the four doors; what every runtime drives.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::ControlFlow;

use crate::gate::Gate;
use crate::{
    Application, Channel, ClientOutput, CloseReason, Config, ConfigError, ConnId, Core,
    DigestVerdict, Incoming, Input, InstallProgress, Instant, LogDemand, LogReady, Message, Notice,
    Output, Peer, Recovered, ResignError, Status, Storage, Violation, Zxid,
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
    logs: Vec<OpenLog>,
    record: Vec<u8>,
    /// The leader's connection, while its snapshot arrives faster than storage takes it.
    staging: Option<ConnId>,
    to_disk: Option<u32>,
    piece: Vec<u8>,
    touched: Vec<u8>,
    /// Answered syncs that the application is to hear of once all commits before are delivered.
    synced: u32,
    /// The application takes no more transactions in this turn, and there are some.
    postponed: bool,
    gate: Gate,
}

/// A snapshot that goes out to a learner.
#[derive(Debug)]
struct Lent {
    conn: ConnId,
    snapshot: u32,
}

/// The log, read for a learner.
#[derive(Debug)]
struct OpenLog {
    conn: ConnId,
    log: u32,
    through: Zxid,
    last: Zxid,
    /// Storage has said that nothing is missing in it.
    proven: bool,
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
            logs: Vec::new(),
            record: Vec::new(),
            staging: None,
            to_disk: None,
            piece: Vec::new(),
            touched: Vec::new(),
            synced: 0,
            postponed: false,
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

    /// The other side of a client's connection has shown a trusted certificate for this subject.
    pub fn identified(&mut self, now: Instant, conn: ConnId, subject: &str) {
        self.app.identified(&mut Core::new(now, &mut self.peer), conn, subject);
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
            Input::Opened { .. } | Input::Persisted { .. } | Input::SnapshotDone { .. } => {
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

    fn take_snapshot(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        disk: &mut impl Storage,
    ) -> usize {
        if disk.stage_room() == 0 {
            self.staging = Some(conn);
            return 0;
        }
        if let Ok(progress) = self.app.install(bytes) {
            let max = self.peer.config().limits.field_len_max_bytes;
            if progress == (InstallProgress { consumed: 0, done: false }) {
                let len = self.app.install_needs().unwrap_or(0).max(bytes.len());
                if len > max.saturating_mul(2) {
                    // More than a connection may hold unread: it would wait for ever.
                    self.peer.close(conn, CloseReason::TooLong { len, max });
                    return bytes.len();
                }
            }
            disk.stage(&bytes[..progress.consumed]);
            self.peer.snapshot_received(now, conn, progress.done);
            progress.consumed
        } else {
            self.peer.close(conn, CloseReason::Violation(Violation::BadSnapshot));
            bytes.len()
        }
    }

    /// Carries out what the core wants of storage and application, and returns the next thing that
    /// only the runtime can do. `None`: nothing is left until the next input, or the application has
    /// [failed](Application::failed).
    pub fn poll_output(&mut self, now: Instant, disk: &mut impl Storage) -> Option<NetOutput> {
        loop {
            if self.app.failed().is_some() {
                return None;
            }
            self.postponed = !self.app.may_deliver() && self.peer.has_deliveries();
            let output = match self.postponed {
                true => self.peer.poll_urgent(),
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
                Output::Reconfigured => return Some(self.reconfigured(now)),
                Output::Synced { token } => {
                    self.app.synced(&mut Core::new(now, &mut self.peer), Some(token));
                }
                Output::Room => self.app.room(&mut Core::new(now, &mut self.peer)),
                Output::Snapshot { conn } => {
                    let snapshot = self.app.snapshot_open();
                    self.lent.push(Lent { conn, snapshot });
                }
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

    fn open_log(
        &mut self,
        disk: &mut impl Storage,
        conn: ConnId,
        (after, through): (Zxid, Zxid),
        any_length: bool,
    ) {
        // What was read for it before is not needed any more, though its end was not told yet.
        for old in self.logs.extract_if(.., |open| open.conn == conn) {
            disk.log_close(old.log);
        }
        let Some(log) = disk.log_open(after, through, any_length) else {
            self.peer.log_opened(conn, false);
            return;
        };
        self.logs.push(OpenLog { conn, log, through, last: after, proven: false });
    }

    /// Tells the disk what the application has, and moves the server's own snapshot on.
    fn record_progress(&mut self, disk: &mut impl Storage) {
        if !self.peer.is_doubted() {
            disk.committed(self.peer.delivered());
        }
        self.write_snapshot(disk);
    }

    /// Moves the server's own snapshot on, as far as the disk has room for it.
    fn write_snapshot(&mut self, disk: &mut impl Storage) {
        if self.to_disk.is_none() && self.peer.may_snapshot() && disk.snapshot_due() {
            self.to_disk = Some(self.app.snapshot_open());
            disk.snapshot_begin(self.peer.delivered());
        }
        if disk.snapshot_abandoned() {
            self.drop_own_snapshot();
        }
        let Some(snapshot) = self.to_disk else { return };
        while disk.snapshot_room() >= PIECE_LEN {
            self.piece.resize(PIECE_LEN, 0);
            let n = self.app.snapshot_read(snapshot, &mut self.piece);
            if n == 0 {
                disk.snapshot_finish(self.app.snapshot_digest(snapshot));
                self.app.snapshot_close(snapshot);
                self.to_disk = None;
                self.piece = Vec::new();
                break;
            }
            disk.snapshot_piece(&self.piece[..n]);
        }
    }

    /// The history changes under the server's own snapshot, which storage drops with it.
    fn drop_own_snapshot(&mut self) {
        if let Some(snapshot) = self.to_disk.take() {
            self.app.snapshot_close(snapshot);
        }
    }

    /// Reads the log for learners, as far as their sockets have taken what was read before. True if
    /// that gave the core something to do.
    fn read_logs(&mut self, disk: &mut impl Storage) -> bool {
        self.logs.retain(|open| {
            let needed = self.peer.wants_log(open.conn) != LogDemand::Ended;
            if !needed {
                disk.log_close(open.log);
            }
            needed
        });
        let mut progress = false;
        for at in (0..self.logs.len()).rev() {
            progress |= self.read_log(at, disk);
        }
        progress
    }

    /// Takes what storage has of one log. The proof comes first, then the transactions, as many as
    /// the learner's link takes.
    fn read_log(&mut self, at: usize, disk: &mut impl Storage) -> bool {
        let open = &mut self.logs[at];
        let mut progress = false;
        if !open.proven {
            let ready = disk.log_ready(open.log);
            if ready == LogReady::NotYet {
                return false;
            }
            self.peer.log_opened(open.conn, ready == LogReady::Whole);
            if ready == LogReady::Incomplete {
                disk.log_close(open.log);
                self.logs.swap_remove(at);
                return true;
            }
            open.proven = true;
            progress = true;
        }
        while self.peer.wants_log(open.conn) == LogDemand::Now {
            if disk.log_ready(open.log) == LogReady::NotYet {
                break;
            }
            progress = true;
            if let Some(zxid) = disk.log_read(open.log, &mut self.record) {
                open.last = zxid;
                self.peer.log_record(open.conn, Some((zxid, &self.record)));
                continue;
            }
            let OpenLog { conn, log, through, last, .. } = self.logs.swap_remove(at);
            disk.log_close(log);
            if last == through {
                self.peer.log_record(conn, None);
            } else {
                self.peer.close(conn, CloseReason::LogUnreadable);
            }
            break;
        }
        progress
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
        let mut written = self.peer.poll_transmit(conn, buf);
        while written < buf.len() {
            let Some(lent) = self.lent.iter().find(|lent| lent.conn == conn) else { break };
            let n = self.app.snapshot_read(lent.snapshot, &mut buf[written..]);
            if n == 0 {
                self.take_back(conn);
                self.peer.handle_input(now, Input::SnapshotDone { conn });
                written += self.peer.poll_transmit(conn, &mut buf[written..]);
                break;
            }
            self.peer.snapshot_sent(conn, n, self.app.snapshot_longest(lent.snapshot));
            written += n;
        }
        written
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Behind a closed gate the application begins no turn, and so delivers nothing more.
        let (app, now) = match self.gate.is_closed() {
            true => (None, None),
            false => (self.app.poll_timeout(), self.postponed.then_some(Instant::ZERO)),
        };
        [now, self.peer.poll_timeout(), app].into_iter().flatten().min()
    }

    fn take_back(&mut self, conn: ConnId) {
        if let Some(at) = self.lent.iter().position(|lent| lent.conn == conn) {
            let lent = self.lent.swap_remove(at);
            self.app.snapshot_close(lent.snapshot);
        }
    }
}

/// How much of a snapshot is handed to the disk at a time.
const PIECE_LEN: usize = 64 * 1024;
