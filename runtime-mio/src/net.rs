//! Sockets: listeners, dials and connections, each a slot named by its token.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token, Waker};
use runtime_core::{
    Doors, Error, Flushed, Inbox, Listeners, NetOptions, Network, Outbox, ReadEnd, Resolver,
    Target, targets,
};
use socket2::SockRef;
use zab_proto::{Channel, CloseReason, ConnId, Input, Instant};

/// All sockets of one server.
#[derive(Debug)]
pub(crate) struct Net {
    registry: Registry,
    tokens: Range<usize>,
    options: NetOptions,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots of the connections that the core or the application knows.
    ids: HashMap<ConnId, usize, BuildHasherDefault<IdHasher>>,
    /// Slots with something to read, accept or finish; each at most once.
    ready: Vec<usize>,
    /// Slots with something to send; each at most once.
    dirty: Vec<usize>,
    /// Connections whose other side has ended or broken.
    ended: Vec<(usize, ConnId)>,
    /// Dials for which there was no slot.
    refused: Vec<ConnId>,
    /// Takes turns with `ready` and `dirty` while those are worked through.
    spare: Vec<usize>,
    deadlines: BTreeSet<(Instant, usize)>,
    resolver: Resolver<(usize, ConnId)>,
    /// Every read and every write goes through here.
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    socket: Socket,
    deadline: Option<Instant>,
    queued: bool,
}

#[derive(Debug, Default)]
enum Socket {
    #[default]
    Free,
    Listener(Channel, TcpListener),
    Dial(Dial),
    Conn(Conn),
}

/// A connection to be, one address at a time.
#[derive(Debug)]
struct Dial {
    conn: ConnId,
    channel: Channel,
    stream: Option<TcpStream>,
    targets: VecDeque<Target>,
    resolving: bool,
    until: Instant,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    stage: Stage,
    /// The socket may hold bytes although no event will say so.
    readable: bool,
    /// The socket is full; an event will tell when it no longer is.
    blocked: bool,
    dirty: bool,
    eof: bool,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Open,
    /// Closed by the core or the application; the last bytes go out.
    Flushing,
    /// Our side is shut; the other's bytes are thrown away until it ends too, because closing a
    /// socket with unread bytes would reset it, and the reset would overtake our last ones.
    Lingering,
}

impl Net {
    pub(crate) fn new(
        registry: &Registry,
        waker: &Arc<Waker>,
        tokens: Range<usize>,
        listeners: Listeners,
        options: NetOptions,
    ) -> Result<Self, Error> {
        let waker = Arc::clone(waker);
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::warn!("Cannot wake the event loop: {error}");
            }
        };
        let mut net = Self {
            registry: registry.try_clone()?,
            tokens,
            options,
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            refused: Vec::new(),
            spare: Vec::new(),
            deadlines: BTreeSet::new(),
            resolver: Resolver::new(Arc::new(wake)),
            scratch: vec![0; options.scratch_bytes],
        };
        for (channel, listener) in listeners.into_sockets() {
            let full = || io::Error::other("too few tokens for the listeners");
            let at = net.allot().ok_or_else(full)?;
            let mut listener = TcpListener::from_std(listener);
            net.registry.register(&mut listener, net.token(at), Interest::READABLE)?;
            net.slots[at].socket = Socket::Listener(channel, listener);
            // Clients may have come before the first event is asked for.
            net.queue(at);
        }
        Ok(net)
    }

    pub(crate) fn owns(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// Whether there is something to do without waiting for an event.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn ready(&mut self, event: &Event) {
        let at = event.token().0.wrapping_sub(self.tokens.start);
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Socket::Conn(conn) = &mut slot.socket else {
            self.queue(at);
            return;
        };
        if event.is_writable() && conn.blocked {
            conn.blocked = false;
            self.mark_slot(at);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if let Socket::Conn(conn) = &mut self.slots[at].socket {
                conn.readable = true;
            }
            self.queue(at);
        }
    }

    /// Deadlines and finished name look-ups.
    pub(crate) fn on_time(&mut self, doors: &mut impl Doors) {
        let now = doors.now();
        while let Some(&(at, slot)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            debug_assert_eq!(self.slots[slot].deadline, Some(at));
            self.set_deadline(slot, None);
            match &self.slots[slot].socket {
                Socket::Free => {}
                Socket::Listener(..) => self.queue(slot),
                Socket::Dial(_) => self.dial_next(slot, doors),
                Socket::Conn(conn) if conn.stage == Stage::Flushing => self.shut(slot, doors, true),
                Socket::Conn(_) => self.release(slot),
            }
        }
        while let Some(answers) = self.resolver.poll() {
            for ((slot, conn), addresses) in answers {
                self.resolved(slot, conn, &addresses, doors);
            }
        }
    }

    /// Serves the sockets that had events, each for a bounded turn.
    pub(crate) fn on_ready(&mut self, doors: &mut impl Doors) {
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.spare));
        for at in ready.drain(..) {
            self.slots[at].queued = false;
            match &self.slots[at].socket {
                Socket::Free => {}
                Socket::Listener(..) => self.accept(at, doors),
                Socket::Dial(_) => self.dial_ready(at, doors),
                Socket::Conn(_) => self.read(at, doors),
            }
        }
        self.spare = ready;
    }

    /// Tells the core of connections that ended. Returns whether it may have something to say.
    pub(crate) fn on_ended(&mut self, doors: &mut impl Doors) -> bool {
        let mut told = !self.refused.is_empty();
        for conn in self.refused.drain(..) {
            doors.input(Input::Closed { conn });
        }
        for (at, id) in std::mem::take(&mut self.ended) {
            let Socket::Conn(conn) = &self.slots[at].socket else { continue };
            // A connection that the application has closed meanwhile still sends its last bytes.
            if conn.id == id && conn.stage == Stage::Open {
                doors.input(Input::Closed { conn: id });
                told = true;
                self.release(at);
            }
        }
        told
    }

    fn accept(&mut self, at: usize, doors: &mut impl Doors) {
        for _ in 0..ACCEPT_TURN {
            let Socket::Listener(channel, listener) = &self.slots[at].socket else { return };
            let channel = *channel;
            match listener.accept() {
                Ok((stream, remote)) => self.accepted(channel, stream, remote, doors),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: an edge will not tell when it is over.
                    log::warn!("Cannot accept connections: {error}");
                    self.set_deadline(at, Some(doors.now() + ACCEPT_PAUSE));
                    return;
                }
            }
        }
        self.queue(at);
    }

    fn accepted(
        &mut self,
        channel: Channel,
        stream: TcpStream,
        remote: SocketAddr,
        doors: &mut impl Doors,
    ) {
        let Some(at) = self.allot() else {
            log::warn!("Too many connections: refusing {remote}");
            return;
        };
        // A socket for both families shows the older one's addresses in the newer one's form.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let id = doors.accept(channel, remote);
        match id.map(|id| self.open(at, id, stream, channel, true)) {
            None => self.free.push(at),
            Some(Ok(())) => {}
            Some(Err((id, error))) => {
                log::warn!("Cannot serve {remote}: {error}");
                self.free.push(at);
                doors.input(Input::Closed { conn: id });
            }
        }
    }

    /// Makes slot `at` a connection.
    fn open(
        &mut self,
        at: usize,
        id: ConnId,
        mut stream: TcpStream,
        channel: Channel,
        register: bool,
    ) -> Result<(), (ConnId, io::Error)> {
        let mut set_up = || {
            let keep_alive = match channel {
                Channel::Client => self.options.client_keep_alive,
                Channel::Election | Channel::Quorum => self.options.peer_keep_alive,
            };
            if keep_alive {
                SockRef::from(&stream).set_keepalive(true)?;
            }
            stream.set_nodelay(true)?;
            if register {
                // Both directions for good: readiness comes as edges, so that a socket which is
                // never full never tells that it is writable, and nothing is re-registered.
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.registry.register(&mut stream, Token(self.tokens.start + at), interest)?;
            }
            Ok(())
        };
        set_up().map_err(|error| (id, error))?;
        let (inbox, outbox) = (Inbox::default(), Outbox::default());
        let conn = Conn {
            id,
            stream,
            inbox,
            outbox,
            stage: Stage::Open,
            readable: true,
            blocked: false,
            dirty: false,
            eof: false,
        };
        self.slots[at].socket = Socket::Conn(conn);
        self.ids.insert(id, at);
        self.mark_slot(at);
        Ok(())
    }

    /// An event, or the beginning: has the present attempt succeeded?
    fn dial_ready(&mut self, at: usize, doors: &mut impl Doors) {
        let Socket::Dial(dial) = &mut self.slots[at].socket else { return };
        let Some(stream) = &dial.stream else {
            if !dial.resolving {
                self.dial_next(at, doors);
            }
            return;
        };
        match stream.take_error().and_then(|error| error.map_or_else(|| stream.peer_addr(), Err)) {
            Ok(_) => self.dialled(at, doors),
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => {
                log::debug!("Cannot connect to {:?} port: {error}", dial.channel);
                self.dial_next(at, doors);
            }
        }
    }

    fn dialled(&mut self, at: usize, doors: &mut impl Doors) {
        self.set_deadline(at, None);
        let Socket::Dial(dial) = std::mem::take(&mut self.slots[at].socket) else { return };
        let stream = dial.stream.expect("only an attempt succeeds");
        let input = match self.open(at, dial.conn, stream, dial.channel, false) {
            Ok(()) => {
                // The event that told of the connection may have told of its first bytes too.
                self.queue(at);
                Input::Opened { conn: dial.conn }
            }
            Err((conn, error)) => {
                log::warn!("Cannot use a new connection: {error}");
                self.release(at);
                Input::Closed { conn }
            }
        };
        doors.input(input);
    }

    /// Gives up the present attempt and begins the next.
    fn dial_next(&mut self, at: usize, doors: &mut impl Doors) {
        let now = doors.now();
        loop {
            let Socket::Dial(dial) = &mut self.slots[at].socket else { return };
            dial.stream = None;
            dial.resolving = false;
            let target = if now < dial.until { dial.targets.pop_front() } else { None };
            let until = if dial.targets.is_empty() {
                dial.until
            } else {
                dial.until.min(now + self.options.address_timeout)
            };
            match target {
                None => {
                    let conn = dial.conn;
                    self.ids.remove(&conn);
                    self.release(at);
                    doors.input(Input::Closed { conn });
                    return;
                }
                Some(Target::Name { host, port }) => {
                    dial.resolving = true;
                    self.resolver.look_up((at, dial.conn), host, port);
                }
                Some(Target::Literal(addr)) => match TcpStream::connect(addr) {
                    Err(error) => {
                        log::debug!("Cannot connect to {addr}: {error}");
                        continue;
                    }
                    Ok(mut stream) => {
                        let token = Token(self.tokens.start + at);
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        if let Err(error) = self.registry.register(&mut stream, token, interest) {
                            log::warn!("Cannot connect to {addr}: {error}");
                            continue;
                        }
                        dial.stream = Some(stream);
                    }
                },
            }
            self.set_deadline(at, Some(until));
            return;
        }
    }

    fn resolved(&mut self, at: usize, conn: ConnId, found: &[SocketAddr], doors: &mut impl Doors) {
        // The dial may have been given up, or have gone on to its next address.
        let Socket::Dial(dial) = &mut self.slots[at].socket else { return };
        if dial.conn != conn || !dial.resolving {
            return;
        }
        for addr in found.iter().rev() {
            dial.targets.push_front(Target::Literal(*addr));
        }
        self.dial_next(at, doors);
    }

    fn read(&mut self, at: usize, doors: &mut impl Doors) {
        let Socket::Conn(conn) = &mut self.slots[at].socket else { return };
        if !conn.readable || conn.eof {
            return;
        }
        let bounds = (self.options.read_turn_bytes, self.options.unread_max_bytes);
        let id = conn.id;
        let end = if conn.stage == Stage::Open {
            let take = |bytes: &[u8]| doors.receive(id, bytes);
            conn.inbox.read(&mut conn.stream, &mut self.scratch, bounds, take)
        } else {
            discard(&mut conn.stream, &mut self.scratch, bounds.0)
        };
        match end {
            Ok(ReadEnd::Drained) => conn.readable = false,
            Ok(ReadEnd::Turn) => self.queue(at),
            // `resume` goes on.
            Ok(ReadEnd::Full) => {}
            Ok(ReadEnd::Eof) => {
                conn.eof = true;
                if conn.stage == Stage::Lingering {
                    self.release(at);
                } else {
                    self.ended.push((at, id));
                }
            }
            Err(error) => self.broken(at, &error, doors),
        }
    }

    /// The last bytes are out, or took too long (`cut`).
    fn shut(&mut self, at: usize, doors: &mut impl Doors, cut: bool) {
        let Socket::Conn(conn) = &mut self.slots[at].socket else { return };
        let id = conn.id;
        let gone = cut || conn.eof || conn.stream.shutdown(Shutdown::Write).is_err();
        conn.stage = Stage::Lingering;
        if id.is_client() {
            self.ids.remove(&id);
            doors.input(Input::Closed { conn: id });
        }
        if gone {
            self.release(at);
        } else {
            self.set_deadline(at, Some(doors.now() + self.options.linger_timeout));
            self.queue(at);
        }
    }

    /// Reading or writing failed.
    fn broken(&mut self, at: usize, error: &io::Error, doors: &mut impl Doors) {
        let Socket::Conn(conn) = &mut self.slots[at].socket else { return };
        log::debug!("Connection {:?} broke: {error}", conn.id);
        match conn.stage {
            Stage::Open => self.ended.push((at, conn.id)),
            Stage::Flushing => self.shut(at, doors, true),
            Stage::Lingering => self.release(at),
        }
    }

    fn mark_slot(&mut self, at: usize) {
        if let Socket::Conn(conn) = &mut self.slots[at].socket
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(at);
        }
    }

    fn queue(&mut self, at: usize) {
        if !std::mem::replace(&mut self.slots[at].queued, true) {
            self.ready.push(at);
        }
    }

    fn token(&self, at: usize) -> Token {
        Token(self.tokens.start + at)
    }

    fn allot(&mut self) -> Option<usize> {
        if let Some(at) = self.free.pop() {
            return Some(at);
        }
        let at = self.slots.len();
        let room = at < self.options.connections_max && at < self.tokens.len();
        room.then(|| {
            self.slots.push(Slot::default());
            at
        })
    }

    /// Drops the socket of a slot. The slot may be in `ready`, `dirty` or `ended` still, where
    /// finding a successor does no harm: reading or flushing it once more than needed.
    fn release(&mut self, at: usize) {
        self.set_deadline(at, None);
        let socket = std::mem::take(&mut self.slots[at].socket);
        match &socket {
            Socket::Conn(conn) if self.find(conn.id) == Some(at) => {
                self.ids.remove(&conn.id);
            }
            Socket::Dial(dial) if self.find(dial.conn) == Some(at) => {
                self.ids.remove(&dial.conn);
            }
            Socket::Free | Socket::Listener(..) | Socket::Conn(_) | Socket::Dial(_) => {}
        }
        self.free.push(at);
    }

    fn set_deadline(&mut self, at: usize, deadline: Option<Instant>) {
        if let Some(old) = std::mem::replace(&mut self.slots[at].deadline, deadline) {
            self.deadlines.remove(&(old, at));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, at));
        }
    }

    fn find(&self, id: ConnId) -> Option<usize> {
        self.ids.get(&id).copied()
    }
}

impl Network for Net {
    fn connect(&mut self, now: Instant, conn: ConnId, channel: Channel, addresses: &str) {
        let until = now + self.options.connect_timeout;
        let dial = Dial {
            conn,
            channel,
            stream: None,
            targets: targets(addresses).into(),
            resolving: false,
            until,
        };
        let Some(at) = self.allot() else {
            log::warn!("Too many connections: not dialling {addresses}");
            self.refused.push(conn);
            return;
        };
        self.slots[at].socket = Socket::Dial(dial);
        self.ids.insert(conn, at);
        self.queue(at);
    }

    fn mark(&mut self, id: ConnId) {
        if let Some(at) = self.find(id) {
            self.mark_slot(at);
        }
    }

    fn resume(&mut self, id: ConnId, doors: &mut impl Doors) {
        let Some(at) = self.find(id) else { return };
        let Socket::Conn(conn) = &mut self.slots[at].socket else { return };
        if conn.stage == Stage::Open {
            conn.inbox.offer(|bytes| doors.receive(id, bytes));
            if conn.readable {
                self.queue(at);
            }
        }
    }

    fn close(&mut self, now: Instant, id: ConnId, reason: CloseReason) {
        let Some(at) = self.find(id) else { return };
        if !id.is_client() {
            // The core may use the name again at once.
            self.ids.remove(&id);
        }
        match &mut self.slots[at].socket {
            Socket::Free | Socket::Listener(..) => {}
            Socket::Dial(_) => self.release(at),
            Socket::Conn(conn) => {
                let remote = conn.stream.peer_addr().map_or_else(|_| "?".into(), |a| a.to_string());
                log::log!(level(reason), "Closing connection {id:?} with {remote}: {reason}");
                conn.stage = Stage::Flushing;
                let deadline = now + self.options.flush_timeout;
                self.set_deadline(at, Some(deadline));
                self.mark_slot(at);
            }
        }
    }

    fn flush(&mut self, doors: &mut impl Doors) {
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for at in dirty.drain(..) {
            let Socket::Conn(conn) = &mut self.slots[at].socket else { continue };
            conn.dirty = false;
            if conn.blocked || conn.stage == Stage::Lingering {
                continue;
            }
            let (id, turn) = (conn.id, self.options.write_turn_bytes);
            let fill = |buf: &mut [u8]| doors.transmit(id, buf);
            match conn.outbox.flush(&mut conn.stream, &mut self.scratch, turn, fill) {
                Ok(Flushed::All) if conn.stage == Stage::Flushing => self.shut(at, doors, false),
                Ok(Flushed::All) => {}
                Ok(Flushed::Turn) => self.mark_slot(at),
                Ok(Flushed::Blocked) => conn.blocked = true,
                Err(error) => self.broken(at, &error, doors),
            }
        }
        self.spare = dirty;
    }
}

/// Reads and forgets.
fn discard(source: &mut impl Read, scratch: &mut [u8], turn: usize) -> io::Result<ReadEnd> {
    Inbox::default().read(source, scratch, (turn, usize::MAX), <[u8]>::len)
}

/// How interesting the end of a connection is: very, if the other side was at fault.
fn level(reason: CloseReason) -> log::Level {
    match reason {
        CloseReason::Superseded | CloseReason::RoleEnded | CloseReason::Application => {
            log::Level::Debug
        }
        _ => log::Level::Warn,
    }
}

/// Errors of `accept` that concern only the connection that was about to be accepted.
fn is_per_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// Connections accepted in a row before others have their turn.
const ACCEPT_TURN: usize = 256;

/// How long to wait before accepting again when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Spreads connection ids, which nobody outside the process chooses.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, n: u32) {
        // Fibonacci hashing: the high bits, which the table uses, depend on all of the number.
        self.0 = (self.0.rotate_left(32) ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
