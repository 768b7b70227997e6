//! The part of every runtime's loop that no event loop changes: drain the core into disk and
//! network, one batch for the disk, then one write per connection.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant as SystemInstant};

use zab_proto::{
    Application, Channel, CloseReason, Config, ConnId, EnsembleId, Incoming, Input, Instant,
    NetOutput, Node, Notice, Violation,
};

use crate::layered::Layered;
use crate::login::LoginLayer;
use crate::names::Names;
use crate::oracle::Asking;
use crate::secure::{Layer, LayerOutput};
use crate::status::describe_quorum;
use crate::{
    Clock, Control, Disk, Error, Handle, Listeners, Loaded, NetOptions, Port, PortChange,
    bounded_log,
};

/// What a runtime's sockets report to: the core, as they see it.
pub trait NetHandler {
    /// The time of this turn.
    fn now(&self) -> Instant;

    /// Somebody has connected; `None` refuses.
    fn accept(&mut self, port: Port, remote: SocketAddr) -> Option<ConnId>;

    /// A client's connection is encrypted; `subject` is that of the trusted certificate, if one was shown.
    fn secured(&mut self, conn: ConnId, subject: Option<&str>);

    /// A dial has succeeded, and reached this address.
    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>);

    /// A dial has failed, a connection has ended.
    fn input(&mut self, input: Input);

    /// Bytes have come; how many of them are used.
    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize;

    /// Fills `buf` for a connection; 0: nothing to send.
    fn transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize;
}

/// A runtime's sockets, as the engine sees them.
pub trait Network {
    /// Serves more ports.
    ///
    /// # Errors
    /// If a port cannot be served; the server ends with it.
    fn listen(&mut self, listeners: Listeners) -> Result<(), Error>;

    /// Closes all ports of these kinds and numbers. Connections that have come to them stay.
    fn unlisten(&mut self, ports: &[(Port, u16)]);

    /// Begins a turn: takes what has come, from each socket a bounded number of bytes, and ends what
    /// has taken too long. Whatever wakes the loop after this call makes it turn once more.
    fn receive(&mut self, handler: &mut impl NetHandler);

    /// Tells the core of connections that have ended and dials that have failed. Returns whether it
    /// may have something to say to that.
    fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool;

    /// Whether the next turn is due at once.
    fn has_work(&self) -> bool;

    /// When the next turn is due, even if nothing comes.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Begins to dial the first usable one of `addresses`.
    fn connect(&mut self, now: Instant, conn: ConnId, channel: Channel, addresses: &str);

    /// There is something to send on a connection; it goes out at the next `flush`.
    fn mark(&mut self, conn: ConnId);

    /// Offers again what was not used.
    fn resume(&mut self, conn: ConnId, handler: &mut impl NetHandler);

    /// Sends what is left, then closes.
    fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason);

    /// Writes to all marked connections.
    fn flush(&mut self, handler: &mut impl NetHandler);
}

/// The core with what stands before it.
type CoreHandler<'a, A, D> = Layered<'a, Layer, Layered<'a, LoginLayer, NodeHandler<'a, A, D>>>;

/// A node, its disk and its clock: all of a server but its sockets. A runtime's loop calls
/// [`tick`](Self::tick), and waits for an event or until [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Engine<A, D> {
    clock: Clock,
    /// The core with its application.
    pub node: Node<A>,
    disk: D,
    control: Control<A>,
    layer: Option<Layer>,
    logins: Option<LoginLayer>,
    names: Option<Names>,
    asking: Asking,
}

impl<A: Application, D: Disk> Engine<A, D> {
    /// Starts the clock and the node, which others reach through `control`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(
        mut config: Config,
        loaded: Loaded<A, D>,
        control: Control<A>,
    ) -> Result<Self, Error> {
        bounded_log::begin();
        config.fresh_id.get_or_insert_with(fresh_id);
        let clock = Clock::start();
        let names = Names::new(&config);
        let Loaded { app, recovered, disk, oracle } = loaded;
        let node = Node::new(clock.now(), config, recovered, app)?;
        let asking = Asking::new(oracle, control.waker());
        Ok(Self { clock, node, disk, control, layer: None, logins: None, names, asking })
    }

    /// The same with connections that are encrypted, and members that log in, as `listeners` say.
    #[must_use]
    pub fn secured(self, listeners: &Listeners, options: &NetOptions) -> Self {
        let layer = listeners.security().map(|security| Layer::new(security, options));
        let logins = listeners.logins().map(|logins| LoginLayer::new(logins, options));
        Self { layer, logins, ..self }
    }

    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.control.handle()
    }

    /// Whether [`Handle::shutdown`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.control.is_stopped()
    }

    /// One turn of the loop: does all there is to do now. What has come together shares one fsync
    /// and one write per connection.
    ///
    /// # Errors
    /// [`Error::Storage`] if a write failed: nothing was sent after that, and nothing may be (rule
    /// R10). [`Error::Application`] if the application must not go on. [`Error::Io`] if a port that
    /// [`Handle::listen`] has brought cannot be served.
    pub fn tick(&mut self, net: &mut impl Network) -> Result<(), Error> {
        let now = self.clock.now();
        net.receive(&mut self.handler(now));
        // After that, as a network may forget by then that a call has woken the loop.
        self.control.run_calls(now, &mut self.node);
        while let Some(change) = self.control.ports_changed() {
            match change {
                PortChange::Open(listeners) => net.listen(listeners)?,
                PortChange::Close(ports) => net.unlisten(&ports),
            }
        }
        self.on_time(now);
        loop {
            self.turn(now, net)?;
            // The end of a connection comes after what its last bytes caused: a client that shuts
            // its side down after a request gets the answer.
            if !net.on_ended(&mut self.handler(now)) {
                return Ok(());
            }
        }
    }

    /// When [`tick`](Self::tick) is due even without an event; `None`: never.
    #[must_use]
    pub fn deadline(&self, net: &impl Network) -> Option<SystemInstant> {
        if net.has_work() || self.node.wants_turn() {
            return Some(SystemInstant::now());
        }
        let deadlines = [self.poll_timeout(), net.poll_timeout()];
        deadlines.into_iter().flatten().min().map(|at| self.clock.to_system(at))
    }

    /// The core as the handler of a turn at the time `now`.
    fn handler(&mut self, now: Instant) -> CoreHandler<'_, A, D> {
        let Self { clock, node, disk, layer, logins, .. } = self;
        let inner = NodeHandler { now, clock: *clock, node, disk };
        let inner = Layered { layer: logins.as_mut(), inner };
        Layered { layer: layer.as_mut(), inner }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let log = bounded_log::owes_report().then(|| self.clock.now() + Duration::from_secs(1));
        let layer = self.layer.as_ref().and_then(|layer| layer.poll_timeout(self.clock.now()));
        let logins = self.logins.as_ref().and_then(LoginLayer::poll_timeout);
        let names = self.names.as_ref().map(Names::poll_timeout);
        [self.node.poll_timeout(), log, layer, logins, names].into_iter().flatten().min()
    }

    /// Tells the core that its deadline has passed, if it has.
    fn on_time(&mut self, now: Instant) {
        bounded_log::report();
        self.handler(now).on_time();
        self.handler(now).inner.on_time();
        if let Some((host, addresses)) = self.names.as_mut().and_then(|names| names.poll(now)) {
            self.node.resolved(host, &addresses);
        }
        if let Some(granted) = self.asking.poll() {
            self.node.handle_input(now, Input::Oracle { granted });
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_input(now, Input::Timeout);
        }
    }

    /// Drains the core into disk and network until nothing is left.
    fn turn(&mut self, now: Instant, net: &mut impl Network) -> Result<(), Error> {
        let mut flushed = false;
        loop {
            self.take_persisted(now)?;
            let drained = self.drain(now, net);
            if let Some(reason) = self.node.app().failed() {
                return Err(Error::Application(reason.into()));
            }
            self.disk.submit();
            // An inline disk is done already.
            if self.take_persisted(now)? {
                flushed = false;
                continue;
            }
            if flushed && !drained {
                return Ok(());
            }
            net.flush(&mut self.handler(now));
            flushed = true;
        }
    }

    fn take_persisted(&mut self, now: Instant) -> Result<bool, Error> {
        let through = self.disk.poll().map_err(|error| Error::Storage(Box::new(error)))?;
        if let Some(through) = through {
            self.node.handle_input(now, Input::Persisted { through });
        }
        Ok(through.is_some())
    }

    fn tell(&self, notice: Notice, more: u64) {
        let level = match notice {
            notice if notice.is_error() => log::Level::Error,
            notice if notice.is_routine() => log::Level::Info,
            _ => log::Level::Warn,
        };
        let waits = match notice {
            Notice::Waiting { .. } => self.node.peer().waits_for(),
            _ => None,
        };
        let waits = waits.map_or_else(String::new, |waits| format!(": {waits}"));
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} more like this since)"),
        };
        log::log!(level, "{notice}{waits}{more}");
    }

    fn drain(&mut self, now: Instant, net: &mut impl Network) -> bool {
        let mut drained = self.drain_node(now, net);
        // What the layers have done may give the core something to do, and the other way round.
        while self.drain_layer(now, net) || self.drain_logins(now, net) {
            drained = true;
            self.drain_node(now, net);
        }
        drained
    }

    fn drain_layer(&mut self, now: Instant, net: &mut impl Network) -> bool {
        let Some(output) = self.layer.as_mut().and_then(Layer::poll_output) else { return false };
        match output {
            LayerOutput::Mark(conn) => net.mark(conn),
            LayerOutput::Resume(conn) => net.resume(conn, &mut self.handler(now)),
            LayerOutput::Close(conn) => {
                if self.handler(now).close(conn) {
                    net.close(now, conn, CloseReason::Application);
                }
            }
        }
        true
    }

    fn drain_logins(&mut self, now: Instant, net: &mut impl Network) -> bool {
        let Some(output) = self.logins.as_mut().and_then(LoginLayer::poll_output) else {
            return false;
        };
        match output {
            LayerOutput::Mark(conn) => net.mark(conn),
            LayerOutput::Resume(conn) => self.resume(now, conn, net),
            LayerOutput::Close(conn) => {
                if self.handler(now).inner.close(conn) {
                    self.close(now, conn, CloseReason::Application, net);
                }
            }
        }
        true
    }

    fn resume(&mut self, now: Instant, conn: ConnId, net: &mut impl Network) {
        let handler = &mut self.handler(now);
        handler.resume(conn);
        net.resume(conn, handler);
    }

    fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason, net: &mut impl Network) {
        if let Some(layer) = &mut self.layer {
            layer.closing(now, conn);
        }
        net.close(now, conn, reason);
    }

    fn drain_node(&mut self, now: Instant, net: &mut impl Network) -> bool {
        let mut drained = false;
        while let Some(output) = self.node.poll_output(now, &mut self.disk) {
            drained = true;
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    if let Some(layer) = &mut self.layer {
                        layer.connect(now, conn, channel, &addresses);
                    }
                    if let Some(logins) = &mut self.logins {
                        logins.connect(conn, channel);
                    }
                    net.connect(now, conn, channel, &addresses);
                }
                NetOutput::Transmit(conn) => net.mark(conn),
                NetOutput::Resume(conn) => self.resume(now, conn, net),
                NetOutput::Close(conn, reason) => {
                    if let CloseReason::Violation(Violation::WrongAddress(..)) = reason
                        && let Some(names) = &mut self.names
                    {
                        names.doubt(now);
                    }
                    if let Some(logins) = &mut self.logins {
                        logins.forget(conn);
                    }
                    self.close(now, conn, reason, net);
                }
                NetOutput::Notice(notice, more) => self.tell(notice, more),
                NetOutput::Became(status) => {
                    if let Some(text) = describe_quorum(&status, self.node.peer()) {
                        log::info!("{text}");
                    }
                    self.control.status().report(status);
                }
                NetOutput::AskOracle => self.asking.ask(),
                // Those who come are judged by the names of the members of now.
                NetOutput::Reconfigured => self.names = Names::new(self.node.peer().config()),
            }
        }
        drained
    }
}

/// A node as the handler of one turn.
pub struct NodeHandler<'a, A, D> {
    now: Instant,
    clock: Clock,
    node: &'a mut Node<A>,
    disk: &'a mut D,
}

impl<A, D> fmt::Debug for NodeHandler<'_, A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandler").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<A: Application, D: Disk> NetHandler for NodeHandler<'_, A, D> {
    fn now(&self) -> Instant {
        self.now
    }

    fn accept(&mut self, port: Port, remote: SocketAddr) -> Option<ConnId> {
        self.node.accept(self.now, port.channel, &Incoming::new(remote))
    }

    fn secured(&mut self, conn: ConnId, subject: Option<&str>) {
        self.node.secured(self.now, conn, subject);
    }

    fn opened(&mut self, conn: ConnId, _: Option<SocketAddr>) {
        self.input(Input::Opened { conn });
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(self.now, input);
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        // The process may have been stopped since the turn began, and these bytes may have come while it
        // was. With a look at the clock now, what they ask was asked before any later pause: an answer
        // that such a pause delays was true when it was asked for.
        if conn.is_client() {
            self.node.observe_time(self.clock.now());
        }
        self.node.handle_bytes(self.now, conn, bytes, self.disk)
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        self.node.poll_transmit(self.now, conn, buf)
    }
}
/// Random bits for an ensemble that has no id yet. The keys of the standard library's hash maps come
/// from the operating system.
fn fresh_id() -> EnsembleId {
    let key = RandomState::new();
    EnsembleId::new(u128::from(key.hash_one(0)) << 64 | u128::from(key.hash_one(1)))
}
