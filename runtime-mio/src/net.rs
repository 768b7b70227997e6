//! Sockets: listeners and dials here; the connections that come of them are the business of
//! [`Conns`]. Each has a slot, which its token names.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token, Waker};
use runtime_core::{
    Accepting, Conns, Descriptors, Error, Listeners, LookUp, NetHandler, NetOptions, Network, Port,
    Resolver, Stream, Target, Wake, targets,
};
use zab_proto::{Channel, CloseReason, ConnId, Input, Instant};

/// All sockets of one server.
pub(crate) struct Net {
    registry: Registry,
    tokens: Range<usize>,
    options: NetOptions,
    conns: Conns<Socket>,
    /// What is not a connection, or not yet, by slot.
    others: HashMap<usize, Other>,
    /// Slots of `others` with something to accept or finish.
    ready: Vec<usize>,
    /// Dials for which there was no slot.
    refused: Vec<ConnId>,
    deadlines: BTreeSet<(Instant, usize)>,
    descriptors: Descriptors,
    resolver: Resolver,
    /// Finished look-ups, for the dial of a connection in a slot.
    answers: Receiver<Answer>,
    answer: Sender<Answer>,
    wake: Wake,
}

type Answer = (usize, ConnId, Vec<SocketAddr>);

#[derive(Debug)]
enum Other {
    Listener(Port, TcpListener, Accepting),
    Dial(Dial),
}

/// A connection to be, one address at a time.
#[derive(Debug)]
struct Dial {
    conn: ConnId,
    channel: Channel,
    stream: Option<TcpStream>,
    targets: VecDeque<Target>,
    /// The look-up of the present address.
    resolving: Option<LookUp>,
    /// When the dial is given up, and when the present attempt is.
    until: Instant,
    deadline: Option<Instant>,
}

/// A connected socket. It is registered for both directions for good: readiness comes as edges, so
/// that a socket which is never full never tells that it is writable, and nothing is re-registered.
#[derive(Debug)]
struct Socket(TcpStream);

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    /// `mio` promises a further event only after the socket has said that it would block.
    const LEVEL_TRIGGERED: bool = false;

    fn await_readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn await_writable(&self) -> io::Result<()> {
        Ok(())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("conns", &self.conns)
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

impl Net {
    pub(crate) fn new(
        registry: &Registry,
        waker: &Arc<Waker>,
        tokens: Range<usize>,
        listeners: Listeners,
        options: NetOptions,
    ) -> Result<Self, Error> {
        let (answer, answers) = channel();
        let descriptors = Descriptors::divided(&options);
        let mut net = Self {
            registry: registry.try_clone()?,
            conns: Conns::new(options, tokens.len()),
            tokens,
            options,
            others: HashMap::new(),
            ready: Vec::new(),
            refused: Vec::new(),
            deadlines: BTreeSet::new(),
            descriptors,
            resolver: Resolver::default(),
            answers,
            answer,
            wake: crate::wake(waker),
        };
        net.listen(listeners)?;
        Ok(net)
    }

    pub(crate) fn owns(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    pub(crate) fn ready(&mut self, event: &Event) {
        let at = event.token().0.wrapping_sub(self.tokens.start);
        if self.others.contains_key(&at) {
            self.ready.push(at);
            return;
        }
        if event.is_writable() {
            self.conns.writable(at);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.conns.readable(at);
        }
    }

    /// Deadlines and finished name look-ups.
    fn on_time(&mut self, handler: &mut impl NetHandler) {
        self.conns.on_time(handler);
        let now = handler.now();
        while let Some(&(_, at)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            match self.others.get(&at) {
                Some(Other::Listener(..)) => self.ready.push(at),
                Some(Other::Dial(_)) => self.dial_next(at, handler),
                None => {}
            }
        }
        while let Ok((at, conn, addresses)) = self.answers.try_recv() {
            self.resolved(at, conn, &addresses, handler);
        }
    }

    fn accept(&mut self, at: usize, handler: &mut impl NetHandler) {
        for _ in 0..ACCEPT_TURN {
            let Some(Other::Listener(port, listener, accepting)) = self.others.get_mut(&at) else {
                return;
            };
            let port = *port;
            let pause = match accepting.before(listener) {
                Some(pause) => Some(pause),
                None => match listener.accept() {
                    Ok((stream, remote)) => {
                        let pause = accepting.accepted(&stream);
                        if pause.is_none() {
                            let (registry, token) = (&self.registry, self.tokens.start);
                            self.conns.accepted((stream, remote), port, handler, |at, stream| {
                                register(registry, Token(token + at), stream).map(Socket)
                            });
                        }
                        pause
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(error) => accepting.failed(&error),
                },
            };
            if let Some(pause) = pause {
                // An edge will not tell when it is over.
                self.deadlines.insert((handler.now() + pause, at));
                return;
            }
        }
        self.ready.push(at);
    }

    /// An event, or the beginning: has the present attempt succeeded?
    fn dial_ready(&mut self, at: usize, handler: &mut impl NetHandler) {
        let Some(Other::Dial(dial)) = self.others.get(&at) else { return };
        let Some(stream) = &dial.stream else {
            if dial.resolving.is_none() {
                self.dial_next(at, handler);
            }
            return;
        };
        match stream.take_error().and_then(|error| error.map_or_else(|| stream.peer_addr(), Err)) {
            Ok(_) => self.dialled(at, handler),
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => {
                log::debug!("Cannot connect to {:?} port: {error}", dial.channel);
                self.dial_next(at, handler);
            }
        }
    }

    fn dialled(&mut self, at: usize, handler: &mut impl NetHandler) {
        let Some(Dial { conn, channel, stream: Some(stream), .. }) = self.end_dial(at) else {
            return;
        };
        // It was registered when the attempt began.
        self.conns.dialled((at, conn, channel), stream, handler, |_, stream| Ok(Socket(stream)));
    }

    /// Gives up the present attempt and begins the next.
    fn dial_next(&mut self, at: usize, handler: &mut impl NetHandler) {
        let (now, token) = (handler.now(), self.token(at));
        loop {
            let Some(Other::Dial(dial)) = self.others.get_mut(&at) else { return };
            dial.stream = None;
            dial.resolving = None;
            let target = if now < dial.until { dial.targets.pop_front() } else { None };
            let until = if dial.targets.is_empty() {
                dial.until
            } else {
                dial.until.min(now + self.options.address_timeout)
            };
            match target {
                None => {
                    let conn = dial.conn;
                    self.end_dial(at);
                    self.conns.give_back(at);
                    handler.input(Input::Closed { conn });
                    return;
                }
                Some(Target::Name { host, port }) => {
                    let (conn, answer, wake) =
                        (dial.conn, self.answer.clone(), Arc::clone(&self.wake));
                    dial.resolving = Some(self.resolver.look_up(&host, move |ips| {
                        let found = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
                        // An error means that nobody waits any more.
                        if answer.send((at, conn, found)).is_ok() {
                            wake();
                        }
                    }));
                }
                Some(Target::Literal(addr)) => {
                    let (channel, descriptors) = (dial.channel, self.descriptors);
                    let connected = TcpStream::connect(addr).and_then(|stream| {
                        if !descriptors.admits(channel, &stream) {
                            return Err(io::Error::other("the descriptors left are for files"));
                        }
                        register(&self.registry, token, stream)
                    });
                    match connected {
                        Ok(stream) => dial.stream = Some(stream),
                        Err(error) => {
                            log::debug!("Cannot connect to {addr}: {error}");
                            continue;
                        }
                    }
                }
            }
            if let Some(old) = dial.deadline.replace(until) {
                self.deadlines.remove(&(old, at));
            }
            self.deadlines.insert((until, at));
            return;
        }
    }

    fn resolved(
        &mut self,
        at: usize,
        conn: ConnId,
        found: &[SocketAddr],
        handler: &mut impl NetHandler,
    ) {
        // The dial may have been given up, or have gone on to its next address.
        let Some(Other::Dial(dial)) = self.others.get_mut(&at) else { return };
        if dial.conn != conn || dial.resolving.is_none() {
            return;
        }
        for addr in found.iter().rev() {
            dial.targets.push_front(Target::Literal(*addr));
        }
        self.dial_next(at, handler);
    }

    /// Takes a dial out of its slot, which the caller uses or gives back.
    fn end_dial(&mut self, at: usize) -> Option<Dial> {
        let Some(Other::Dial(dial)) = self.others.remove(&at) else { return None };
        if let Some(deadline) = dial.deadline {
            self.deadlines.remove(&(deadline, at));
        }
        Some(dial)
    }

    fn token(&self, at: usize) -> Token {
        Token(self.tokens.start + at)
    }
}

impl Network for Net {
    fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        for (port, listener) in listeners.into_sockets() {
            let full = || io::Error::other("too few tokens for the listeners");
            let at = self.conns.allot().ok_or_else(full)?;
            let mut listener = TcpListener::from_std(listener);
            self.registry.register(&mut listener, self.token(at), Interest::READABLE)?;
            let accepting = Accepting::new(port.channel, self.descriptors);
            self.others.insert(at, Other::Listener(port, listener, accepting));
            // Clients may have come before the first event is asked for.
            self.ready.push(at);
        }
        Ok(())
    }

    fn unlisten(&mut self, ports: &[(Port, u16)]) {
        let is_one = |other: &Other| match other {
            Other::Listener(port, listener, _) => {
                listener.local_addr().is_ok_and(|addr| ports.contains(&(*port, addr.port())))
            }
            Other::Dial(_) => false,
        };
        let slots: Vec<usize> =
            self.others.iter().filter(|(_, other)| is_one(other)).map(|(at, _)| *at).collect();
        for at in slots {
            // Closing it ends its registration.
            self.others.remove(&at);
            self.deadlines.retain(|(_, of)| *of != at);
            self.conns.give_back(at);
        }
    }

    fn receive(&mut self, handler: &mut impl NetHandler) {
        self.on_time(handler);
        // Each socket that had events has a bounded turn.
        for at in std::mem::take(&mut self.ready) {
            match self.others.get(&at) {
                Some(Other::Listener(..)) => self.accept(at, handler),
                Some(Other::Dial(_)) => self.dial_ready(at, handler),
                None => {}
            }
        }
        self.conns.on_ready(handler);
    }

    fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool {
        let refused = !self.refused.is_empty();
        for conn in self.refused.drain(..) {
            handler.input(Input::Closed { conn });
        }
        self.conns.on_ended(handler) || refused
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.conns.has_work()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.deadlines.first().map(|(at, _)| *at);
        [own, self.conns.poll_timeout()].into_iter().flatten().min()
    }

    fn connect(&mut self, now: Instant, conn: ConnId, channel: Channel, addresses: &str) {
        let Some(at) = self.conns.allot() else {
            log::warn!("Too many connections: not dialling {addresses:?}");
            self.refused.push(conn);
            return;
        };
        let dial = Dial {
            conn,
            channel,
            stream: None,
            targets: targets(addresses).into(),
            resolving: None,
            until: now + self.options.connect_timeout,
            deadline: None,
        };
        self.others.insert(at, Other::Dial(dial));
        self.ready.push(at);
    }

    fn mark(&mut self, conn: ConnId) {
        self.conns.mark(conn);
    }

    fn resume(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        self.conns.resume(conn, handler);
    }

    fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let is_dial = |other: &Other| matches!(other, Other::Dial(dial) if dial.conn == conn);
        match self.others.iter().find(|(_, other)| is_dial(other)).map(|(at, _)| *at) {
            Some(at) => {
                self.end_dial(at);
                self.conns.give_back(at);
            }
            None => self.conns.close(now, conn, reason),
        }
    }

    fn flush(&mut self, handler: &mut impl NetHandler) {
        self.conns.flush(handler);
    }
}

fn register(registry: &Registry, token: Token, mut stream: TcpStream) -> io::Result<TcpStream> {
    registry.register(&mut stream, token, BOTH).map(|()| stream)
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Connections accepted in a row before others have their turn.
const ACCEPT_TURN: usize = 256;
