//! The connections of a runtime whose loop reads and writes its sockets itself when they are
//! ready: what `runtime-mio` and `runtime-smol` share.

mod stream;
mod turns;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::SockRef;
use zab_proto::{Channel, CloseReason, ConnId, Input, Instant};

pub use self::stream::Stream;
use crate::{Inbox, NetHandler, NetOptions, Outbox, Port};

/// Sets the options of a connected socket.
fn prepare(socket: &SockRef<'_>, channel: Channel, options: &NetOptions) -> io::Result<()> {
    let keep_alive = match channel {
        Channel::Client => options.client_keep_alive,
        Channel::Election | Channel::Quorum => options.peer_keep_alive,
    };
    if keep_alive {
        socket.set_keepalive(true)?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if let Some(longest) = options.unacknowledged_max(channel) {
        socket.set_tcp_user_timeout(Some(longest))?;
    }
    socket.set_tcp_nodelay(true)
}

/// All connections of one server, each in a slot. The runtime may use slots for other sockets too.
#[derive(Debug)]
pub struct Conns<S> {
    options: NetOptions,
    slots_max: usize,
    slots: Vec<Slot<S>>,
    free: Vec<usize>,
    /// Slots of the connections that the core or the application knows.
    ids: HashMap<ConnId, usize, BuildHasherDefault<IdHasher>>,
    /// Slots with something to read; each at most once.
    ready: Vec<usize>,
    /// Slots with something to send; each at most once here and in `behind`.
    dirty: Vec<usize>,
    /// Slots of clients that have been written to and have more to be sent: they come after those
    /// with something new, one after the other.
    behind: VecDeque<usize>,
    /// Bytes that may still be written to the clients `behind` in this turn.
    write_left: usize,
    /// Connections whose other side has ended or broken.
    ended: Vec<(usize, ConnId)>,
    /// Takes turns with `ready` and `dirty` while those are worked through.
    spare: Vec<usize>,
    deadlines: BTreeSet<(Instant, usize)>,
    /// Every read and every write goes through here.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Slot<S> {
    conn: Option<Conn<S>>,
    deadline: Option<Instant>,
    queued: bool,
}

#[derive(Debug)]
struct Conn<S> {
    id: ConnId,
    stream: S,
    inbox: Inbox,
    outbox: Outbox,
    stage: CloseState,
    /// The socket may hold bytes although no event will say so.
    readable: bool,
    /// The socket is full; an event will tell when it no longer is.
    blocked: bool,
    dirty: bool,
    eof: bool,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseState {
    /// It is read and written.
    Open,
    /// Closed by the core or the application; the last bytes go out.
    Flushing,
    /// Our side is shut; the other's bytes are thrown away until it ends too, because closing a
    /// socket with unread bytes would reset it, and the reset would overtake our last ones.
    Lingering,
}

impl<S: Stream> Conns<S> {
    /// No connections yet, and never more slots than `slots_max`.
    #[must_use]
    pub fn new(options: NetOptions, slots_max: usize) -> Self {
        let options = options.usable();
        Self {
            options,
            slots_max: slots_max.min(options.connections_max),
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            behind: VecDeque::new(),
            write_left: options.clients_turn_bytes,
            ended: Vec::new(),
            spare: Vec::new(),
            deadlines: BTreeSet::new(),
            scratch: vec![0; options.scratch_bytes],
        }
    }

    /// An unused slot, for `open` or for another socket of the caller's; `None` at
    /// the bound.
    pub fn allot(&mut self) -> Option<usize> {
        if let Some(at) = self.free.pop() {
            return Some(at);
        }
        let at = self.slots.len();
        (at < self.slots_max).then(|| {
            self.slots.push(Slot { conn: None, deadline: None, queued: false });
            at
        })
    }

    /// Gives a slot back that holds no connection.
    pub fn give_back(&mut self, at: usize) {
        self.free.push(at);
    }

    /// A listener has brought a connection: asks the core, and makes it one of these. `own` turns what
    /// was accepted into the runtime's socket for a slot.
    pub fn accepted<T: AsFd>(
        &mut self,
        (accepted, remote): (T, SocketAddr),
        port: Port,
        handler: &mut impl NetHandler,
        own: impl FnOnce(usize, T) -> io::Result<S>,
    ) {
        let Some(at) = self.allot() else {
            log::warn!("Too many connections: refusing {remote}");
            return;
        };
        let Some(id) = handler.accept(port, remote) else {
            self.give_back(at);
            return;
        };
        self.prepared(at, id, port.channel, accepted, own, handler);
    }

    /// The dial of a connection has succeeded, for which there is an allotted slot.
    pub fn dialled<T: AsFd>(
        &mut self,
        (at, id, channel): (usize, ConnId, Channel),
        dialled: T,
        handler: &mut impl NetHandler,
        own: impl FnOnce(usize, T) -> io::Result<S>,
    ) {
        if let Some(remote) = self.prepared(at, id, channel, dialled, own, handler) {
            handler.opened(id, remote);
        }
    }

    /// Makes slot `at` a connection, and returns the address of the other side; `None` if that failed,
    /// of which the core has been told.
    fn prepared<T: AsFd>(
        &mut self,
        at: usize,
        id: ConnId,
        channel: Channel,
        socket: T,
        own: impl FnOnce(usize, T) -> io::Result<S>,
        handler: &mut impl NetHandler,
    ) -> Option<Option<SocketAddr>> {
        let prepared = prepare(&SockRef::from(&socket), channel, &self.options);
        match prepared.and_then(|()| own(at, socket)) {
            Ok(stream) => {
                let remote = stream.peer_addr().ok();
                self.open(at, id, stream);
                Some(remote)
            }
            Err(error) => {
                log::warn!("Cannot use a new connection: {error}");
                self.give_back(at);
                handler.input(Input::Closed { conn: id });
                None
            }
        }
    }

    /// Makes an allotted slot a connection. It counts as readable and is asked for what to send.
    pub(crate) fn open(&mut self, at: usize, id: ConnId, stream: S) {
        let conn = Conn {
            id,
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            stage: CloseState::Open,
            readable: true,
            blocked: false,
            dirty: false,
            eof: false,
        };
        self.slots[at].conn = Some(conn);
        self.ids.insert(id, at);
        self.mark_slot(at);
        self.queue(at);
    }

    /// Whether there is something to do without waiting for an event.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty() || !self.behind.is_empty()
    }

    /// When [`on_time`](Self::on_time) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// An event: there may be bytes, an end or an error in a socket. Does no harm if it comes too
    /// late, for the slot's next connection.
    pub fn readable(&mut self, at: usize) {
        if let Some(conn) = self.conn(at) {
            conn.readable = true;
            self.queue(at);
        }
    }

    /// An event: a socket that was full may have room.
    pub fn writable(&mut self, at: usize) {
        if let Some(conn) = self.conn(at)
            && conn.blocked
        {
            conn.blocked = false;
            self.mark_slot(at);
        }
    }

    /// For a loop without events: any socket may have bytes, or room.
    pub fn poll_all(&mut self) {
        for at in 0..self.slots.len() {
            self.readable(at);
            self.writable(at);
        }
    }

    /// Ends connections that take too long over their last bytes.
    pub fn on_time(&mut self, handler: &mut impl NetHandler) {
        let now = handler.now();
        while let Some(&(_, at)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.set_deadline(at, None);
            match self.conn(at).map(|conn| conn.stage) {
                Some(CloseState::Flushing) => self.shut(at, handler, true),
                Some(_) => self.release(at),
                None => {}
            }
        }
    }

    /// Tells the core of connections that ended. Returns whether it may have something to say.
    pub fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool {
        let mut told = false;
        for (at, id) in std::mem::take(&mut self.ended) {
            let Some(conn) = self.conn(at) else { continue };
            // A connection that the application has closed meanwhile still sends its last bytes.
            if conn.id == id && conn.stage == CloseState::Open {
                handler.input(Input::Closed { conn: id });
                told = true;
                self.release(at);
            }
        }
        told
    }

    /// There is something to send; it goes out at the next [`flush`](Self::flush).
    pub fn mark(&mut self, id: ConnId) {
        if let Some(at) = self.ids.get(&id).copied() {
            self.mark_slot(at);
        }
    }

    /// Offers again what was not used.
    pub fn resume(&mut self, id: ConnId, handler: &mut impl NetHandler) {
        let Some(at) = self.ids.get(&id).copied() else { return };
        let Some(conn) = self.conn(at) else { return };
        if conn.stage == CloseState::Open {
            conn.inbox.offer(|bytes| handler.receive(id, bytes));
            if conn.readable {
                self.queue(at);
            }
        }
    }

    /// Sends what is left, then closes.
    pub fn close(&mut self, now: Instant, id: ConnId, reason: CloseReason) {
        let Some(at) = self.ids.get(&id).copied() else { return };
        if !id.is_client() {
            // The core may use the name again at once.
            self.ids.remove(&id);
        }
        let Some(conn) = self.conn(at) else { return };
        log_closing(id, conn.stream.peer_addr().ok(), reason);
        conn.stage = CloseState::Flushing;
        let deadline = now + self.options.flush_timeout;
        self.set_deadline(at, Some(deadline));
        self.mark_slot(at);
    }

    fn conn(&mut self, at: usize) -> Option<&mut Conn<S>> {
        self.slots.get_mut(at)?.conn.as_mut()
    }

    fn mark_slot(&mut self, at: usize) {
        if let Some(conn) = self.conn(at)
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

    /// Drops the socket of a slot. The slot may be in `ready`, `dirty` or `ended` still, where
    /// finding a successor does no harm: reading or flushing it once more than needed.
    fn release(&mut self, at: usize) {
        self.set_deadline(at, None);
        let Some(conn) = self.slots[at].conn.take() else { return };
        if self.ids.get(&conn.id) == Some(&at) {
            self.ids.remove(&conn.id);
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
}

/// Says why a connection is closed. Clients are a subject of their own, so that a flood of them does not
/// keep what befalls members out of the log.
pub fn log_closing(id: ConnId, remote: Option<SocketAddr>, reason: CloseReason) {
    let target = if id.is_client() { "runtime_core::conns::client" } else { "runtime_core::conns" };
    let remote = remote.map_or_else(|| "?".into(), |remote| remote.to_string());
    let level = level(reason);
    log::log!(target: target, level, "Closing connection {id:?} with {remote}: {reason}");
}

/// How interesting the end of a connection is: very, if the other side was at fault.
fn level(reason: CloseReason) -> log::Level {
    match reason {
        // The core tells of the last one what both sides need to know, and how often it happens.
        CloseReason::Superseded
        | CloseReason::RoleEnded
        | CloseReason::Application
        | CloseReason::TooLong { .. } => log::Level::Debug,
        _ => log::Level::Warn,
    }
}

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

#[cfg(test)]
mod tests;
