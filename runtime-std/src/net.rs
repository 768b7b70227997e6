//! Sockets that other threads read and write, and tell the loop of by events: what the loop keeps of
//! each connection.
//!
//! One buffer travels between the loop and each reader, another between the loop and each writer,
//! so that neither side can run ahead of the other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use runtime_core::{
    CloseState, Error, Inbox, Listeners, NetHandler, NetOptions, Network, Port, log_closing,
};
use zab_proto::{Channel, CloseReason, ConnId, Input, Instant};

use crate::threads::{self, Threads};

/// What happened on one of the sockets.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something is durable, or somebody calls.
    Wake,
    /// Somebody has connected.
    Accepted(Port, Arc<TcpStream>, SocketAddr),
    /// A dial has succeeded or not.
    Dialled(ConnId, Option<Arc<TcpStream>>),
    /// Bytes of a connection: the buffer, and how much of it is filled. The reader goes on when
    /// the buffer comes back.
    Received(u64, Vec<u8>, usize),
    /// A connection has ended or broken.
    Ended(u64),
    /// A buffer is written out and comes back.
    Sent(u64, Vec<u8>),
}

/// A buffer for a writer and how much of it is filled; `None` ends the sending.
pub(crate) type Chunk = Option<(Vec<u8>, usize)>;

/// The loop's ends of a connection's reader and writer.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Gives the reader its buffer back.
    pub(crate) back: Sender<Vec<u8>>,
    /// Gives the writer something; fails if it has ended.
    pub(crate) send: Sender<Chunk>,
}

/// All connections of one server.
#[derive(Debug)]
pub(crate) struct Net {
    /// Dropped before `threads`, which waits for its threads: none must wait to bring an event.
    events: Receiver<Event>,
    /// The event that has ended the last wait.
    first: Option<Event>,
    threads: Threads,
    options: NetOptions,
    /// Named by a number that is never used again: an event may speak of a connection that is gone.
    conns: HashMap<u64, Conn>,
    next_key: u64,
    /// Connections that core or application know.
    ids: HashMap<ConnId, u64>,
    /// Dials under way.
    dials: HashMap<ConnId, (Channel, Arc<()>)>,
    /// Clients' bytes that are not looked at yet: at most one buffer of each.
    unread: VecDeque<(u64, Vec<u8>, usize)>,
    /// Keys of peers' connections, and of clients', with something to send; each at most once.
    dirty_peers: Vec<u64>,
    dirty: VecDeque<u64>,
    /// Bytes that may still be given to clients' writers in this turn.
    write_left: usize,
    /// Connections whose other side has ended or broken, dials that failed.
    ended: Vec<u64>,
    failed: Vec<ConnId>,
    deadlines: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    stream: Arc<TcpStream>,
    inbox: Inbox,
    stage: CloseState,
    ends: Ends,
    /// The reader's buffer, kept back while too much is left untaken.
    kept: Option<Vec<u8>>,
    /// The writer's buffer, when it is not with the writer.
    spare: Option<Vec<u8>>,
    dirty: bool,
    eof: bool,
}

impl Net {
    /// No connections yet.
    pub(crate) fn new(events: Receiver<Event>, threads: Threads, options: NetOptions) -> Self {
        let options = options.usable();
        Self {
            events,
            first: None,
            threads,
            options,
            conns: HashMap::new(),
            next_key: 0,
            ids: HashMap::new(),
            dials: HashMap::new(),
            unread: VecDeque::new(),
            dirty_peers: Vec::new(),
            dirty: VecDeque::new(),
            write_left: options.clients_turn_bytes,
            ended: Vec::new(),
            failed: Vec::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Waits for an event, at most for `timeout`.
    ///
    /// # Errors
    /// If nobody is left who could bring one.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        self.first = match self.events.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // Not while `threads` holds a sender.
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Panicked),
        };
        Ok(())
    }

    /// Looks at what clients have sent, after all events were taken, as long as that does not hold up
    /// the peers.
    fn on_unread(&mut self, handler: &mut impl NetHandler) {
        self.write_left = self.options.clients_turn_bytes;
        let mut left = self.options.clients_turn_bytes;
        while left > 0
            && let Some((key, buffer, n)) = self.unread.pop_front()
        {
            left = left.saturating_sub(n);
            self.received(key, buffer, n, handler);
        }
    }

    /// Ends connections that take too long over their last bytes.
    fn on_time(&mut self, handler: &mut impl NetHandler) {
        let now = handler.now();
        while let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            let Some(conn) = self.conns.get(&key) else { continue };
            if conn.stage == CloseState::Flushing && conn.id.is_client() {
                handler.input(Input::Closed { conn: conn.id });
            }
            self.release(key);
        }
    }

    fn on_event(&mut self, event: Event, handler: &mut impl NetHandler) {
        match event {
            Event::Wake => {}
            Event::Accepted(port, stream, remote) => {
                self.accepted(port, stream, remote, handler);
            }
            Event::Dialled(conn, stream) => self.dialled(conn, stream, handler),
            Event::Received(key, buffer, n) => {
                let of_client = self.conns.get(&key).is_some_and(|conn| conn.id.is_client());
                if of_client {
                    self.unread.push_back((key, buffer, n));
                } else {
                    self.received(key, buffer, n, handler);
                }
            }
            Event::Sent(key, buffer) => {
                if let Some(conn) = self.conns.get_mut(&key) {
                    conn.spare = Some(buffer);
                    self.mark_key(key);
                }
            }
            Event::Ended(key) => {
                if let Some(conn) = self.conns.get_mut(&key) {
                    conn.eof = true;
                    self.ended.push(key);
                }
            }
        }
    }

    fn accepted(
        &mut self,
        port: Port,
        stream: Arc<TcpStream>,
        remote: SocketAddr,
        handler: &mut impl NetHandler,
    ) {
        if self.conns.len() >= self.options.connections_max {
            log::warn!("Too many connections: refusing {remote}");
            return;
        }
        let Some(id) = handler.accept(port, remote) else { return };
        if let Err(error) = self.open(id, stream, port.channel) {
            log::warn!("Cannot serve {remote}: {error}");
            self.failed.push(id);
        }
    }

    fn dialled(
        &mut self,
        conn: ConnId,
        stream: Option<Arc<TcpStream>>,
        handler: &mut impl NetHandler,
    ) {
        // Given up meanwhile.
        let Some((channel, _)) = self.dials.remove(&conn) else { return };
        let remote = stream.as_ref().and_then(|stream| stream.peer_addr().ok());
        let opened = stream.map(|stream| self.open(conn, stream, channel));
        match opened {
            Some(Ok(())) => handler.opened(conn, remote),
            None | Some(Err(_)) => self.failed.push(conn),
        }
    }

    fn open(&mut self, id: ConnId, stream: Arc<TcpStream>, channel: Channel) -> io::Result<()> {
        let keep_alive = match channel {
            Channel::Client => self.options.client_keep_alive,
            Channel::Election | Channel::Quorum => self.options.peer_keep_alive,
        };
        let key = self.next_key;
        self.next_key += 1;
        // If only one of the two could be started, it ends as the socket does.
        let serve = self.threads.serve(key, &stream, keep_alive);
        let ends = serve.inspect_err(|_| threads::shut(&stream))?;
        let conn = Conn {
            id,
            stream,
            inbox: Inbox::default(),
            stage: CloseState::Open,
            ends,
            kept: None,
            spare: Some(Vec::new()),
            dirty: false,
            eof: false,
        };
        self.conns.insert(key, conn);
        self.ids.insert(id, key);
        self.mark_key(key);
        Ok(())
    }

    fn received(&mut self, key: u64, buffer: Vec<u8>, n: usize, handler: &mut impl NetHandler) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.stage == CloseState::Open {
            let id = conn.id;
            conn.inbox.push(&buffer[..n], |bytes| handler.receive(id, bytes));
        }
        if conn.inbox.len() < self.options.unread_max(conn.id) {
            // The reader may have ended, and has told so.
            let _ = conn.ends.back.send(buffer);
        } else {
            conn.kept = Some(buffer);
        }
    }

    fn mark_key(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(&key)
            && !conn.dirty
        {
            conn.dirty = true;
            if conn.id.is_client() {
                self.dirty.push_back(key);
            } else {
                self.dirty_peers.push(key);
            }
        }
    }

    /// Gives the writer what there is to send, one buffer at a time. Returns how many bytes.
    fn feed(&mut self, key: u64, now: Instant, handler: &mut impl NetHandler) -> usize {
        let Some(conn) = self.conns.get_mut(&key) else { return 0 };
        conn.dirty = false;
        let Some(mut buffer) = conn.spare.take().filter(|_| conn.stage != CloseState::Lingering)
        else {
            return 0;
        };
        let (mut filled, max) = (0, self.options.scratch_bytes);
        loop {
            if filled == buffer.len() {
                buffer.resize((2 * filled).max(SEND_LEN_MIN).min(max), 0);
            }
            match handler.transmit(conn.id, &mut buffer[filled..]) {
                0 => break,
                n => filled += n,
            }
            if filled == max {
                break;
            }
        }
        if filled > 0 {
            // If the writer has ended, it has told so.
            let _ = conn.ends.send.send(Some((buffer, filled)));
        } else {
            // An idle connection holds no memory.
            conn.spare = Some(Vec::new());
            if conn.stage == CloseState::Flushing {
                self.shut(key, now, handler);
            }
        }
        filled
    }

    /// The last bytes are out.
    fn shut(&mut self, key: u64, now: Instant, handler: &mut impl NetHandler) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let id = conn.id;
        conn.stage = CloseState::Lingering;
        if conn.ends.send.send(None).is_err() || conn.eof {
            self.release(key);
        } else {
            self.set_deadline(key, now + self.options.linger_timeout);
        }
        if id.is_client() {
            self.ids.remove(&id);
            handler.input(Input::Closed { conn: id });
        }
    }

    fn set_deadline(&mut self, key: u64, at: Instant) {
        self.deadlines.retain(|(_, of)| *of != key);
        self.deadlines.insert((at, key));
    }

    /// Forgets a connection; its threads end as its socket does.
    fn release(&mut self, key: u64) {
        let Some(conn) = self.conns.remove(&key) else { return };
        if self.ids.get(&conn.id) == Some(&key) {
            self.ids.remove(&conn.id);
        }
        self.deadlines.retain(|(_, of)| *of != key);
        threads::shut(&conn.stream);
    }
}

impl Network for Net {
    fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        self.threads.listen(listeners)
    }

    fn unlisten(&mut self, ports: &[(Port, u16)]) {
        self.threads.unlisten(ports);
    }

    fn receive(&mut self, handler: &mut impl NetHandler) {
        for _ in 0..EVENTS_MAX {
            let Some(event) = self.first.take().or_else(|| self.events.try_recv().ok()) else {
                break;
            };
            self.on_event(event, handler);
        }
        self.on_unread(handler);
        self.on_time(handler);
    }

    fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool {
        let mut told = !self.failed.is_empty();
        for conn in self.failed.drain(..) {
            handler.input(Input::Closed { conn });
        }
        for key in std::mem::take(&mut self.ended) {
            let Some(conn) = self.conns.get(&key) else { continue };
            // A connection that the application has closed meanwhile still sends its last bytes.
            if conn.stage != CloseState::Flushing {
                if conn.stage == CloseState::Open {
                    handler.input(Input::Closed { conn: conn.id });
                    told = true;
                }
                self.release(key);
            }
        }
        told
    }

    fn has_work(&self) -> bool {
        !self.unread.is_empty() || !self.dirty.is_empty() || !self.dirty_peers.is_empty()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn connect(&mut self, _: Instant, conn: ConnId, channel: Channel, addresses: &str) {
        match self.threads.dial(conn, addresses, self.options.connect_timeout) {
            Ok(wanted) => {
                self.dials.insert(conn, (channel, wanted));
            }
            Err(error) => {
                log::warn!("Cannot dial {addresses:?}: {error}");
                self.failed.push(conn);
            }
        }
    }

    fn mark(&mut self, conn: ConnId) {
        if let Some(key) = self.ids.get(&conn).copied() {
            self.mark_key(key);
        }
    }

    fn resume(&mut self, id: ConnId, handler: &mut impl NetHandler) {
        let Some(conn) = self.ids.get(&id).and_then(|key| self.conns.get_mut(key)) else { return };
        if conn.stage == CloseState::Open {
            conn.inbox.offer(|bytes| handler.receive(id, bytes));
            if conn.inbox.len() < self.options.unread_max(id)
                && let Some(buffer) = conn.kept.take()
            {
                // The reader may have ended, and has told so.
                let _ = conn.ends.back.send(buffer);
            }
        }
    }

    fn close(&mut self, now: Instant, id: ConnId, reason: CloseReason) {
        self.dials.remove(&id);
        let Some(key) = self.ids.get(&id).copied() else { return };
        if !id.is_client() {
            // The core may use the name again at once.
            self.ids.remove(&id);
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        log_closing(id, conn.stream.peer_addr().ok(), reason);
        conn.stage = CloseState::Flushing;
        self.set_deadline(key, now + self.options.flush_timeout);
        self.mark_key(key);
    }

    fn flush(&mut self, handler: &mut impl NetHandler) {
        let now = handler.now();
        let mut peers = std::mem::take(&mut self.dirty_peers);
        for key in peers.drain(..) {
            self.feed(key, now, handler);
        }
        if self.dirty_peers.is_empty() {
            self.dirty_peers = peers;
        }
        while self.write_left > 0
            && let Some(key) = self.dirty.pop_front()
        {
            let fed = self.feed(key, now, handler);
            self.write_left = self.write_left.saturating_sub(fed);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for (_, conn) in self.conns.drain() {
            threads::shut(&conn.stream);
        }
    }
}

/// A writer's buffer at first.
const SEND_LEN_MIN: usize = 4 * 1024;

/// Events that wait for the loop, and those that it takes in a turn; whoever brings one more waits too.
pub(crate) const EVENTS_MAX: usize = 1024;
