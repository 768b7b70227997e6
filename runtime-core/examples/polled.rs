//! A runtime in one file, as a model for another one: a single thread looks at all of its
//! non-blocking sockets in turn, at least once in a millisecond. All that it lacks is an event loop
//! that says which of them have something. `docs/runtimes.md` goes through it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant as SystemInstant};

use runtime_core::{
    Accepting, Conns, Control, Descriptors, Disk, Engine, Error, Handle, Listen, Listeners, Loaded,
    NetHandler, NetOptions, Network, Port, Runtime, Server, ServerOptions, Stream, Target, Wake,
    targets,
};
use zab_proto::{
    Application, BadSnapshot, Channel, CloseReason, Config, ConnId, Input, Instant, Replicated,
    Sid, StateMachine,
};

/// The runtime: this thread is parked until something wakes it, or for a millisecond.
#[derive(Debug)]
pub(crate) struct Polled;

impl Runtime for Polled {
    fn serve<A: Application, D: Disk>(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
        started: impl FnOnce(Handle<A>),
    ) -> Result<(), Error> {
        let own = thread::current();
        let wake: Wake = Arc::new(move || own.unpark());
        let control = Control::new(Arc::clone(&wake));
        let mut engine = Engine::new(config, load(wake)?, control)?.secured(&listeners, &options);
        let mut net = Net::new(options);
        net.listen(listeners)?;
        started(engine.handle());
        while !engine.is_stopped() {
            engine.tick(&mut net)?;
            let next = engine.deadline(&net);
            let left = next.map(|at| at.saturating_duration_since(SystemInstant::now()));
            thread::park_timeout(left.unwrap_or(PERIOD).min(PERIOD));
        }
        Ok(())
    }
}

/// All sockets of one server.
#[derive(Debug)]
struct Net {
    conns: Conns<Socket>,
    listeners: Vec<(Port, TcpListener, Accepting)>,
    descriptors: Descriptors,
    connect_timeout: Duration,
    /// The dials under way. `std` can only dial and wait: each has a thread, which reports here.
    dials: HashMap<ConnId, Channel>,
    dialled: (Sender<Dialled>, Receiver<Dialled>),
    failed: Vec<ConnId>,
}

type Dialled = (ConnId, Option<TcpStream>);

impl Net {
    fn new(options: NetOptions) -> Self {
        Self {
            conns: Conns::new(options, usize::MAX),
            listeners: Vec::new(),
            descriptors: Descriptors::divided(&options),
            connect_timeout: options.connect_timeout,
            dials: HashMap::new(),
            dialled: channel(),
            failed: Vec::new(),
        }
    }

    fn accept(&mut self, handler: &mut impl NetHandler) {
        for (port, listener, accepting) in &mut self.listeners {
            while accepting.before(listener).is_none() {
                match listener.accept() {
                    Ok((stream, remote)) if accepting.accepted(&stream).is_none() => {
                        self.conns
                            .accepted((stream, remote), *port, handler, |_, s| Socket::new(s));
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(_) => break,
                    Err(error) => {
                        // Tried again at the next look, which is soon enough.
                        accepting.failed(&error);
                        break;
                    }
                }
            }
        }
    }
}

impl Network for Net {
    fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        for (port, listener) in listeners.into_sockets() {
            let accepting = Accepting::new(port.channel, self.descriptors);
            self.listeners.push((port, listener, accepting));
        }
        Ok(())
    }

    fn unlisten(&mut self, ports: &[(Port, u16)]) {
        self.listeners.retain(|(port, listener, _)| {
            let number = listener.local_addr().map_or(0, |addr| addr.port());
            !ports.contains(&(*port, number))
        });
    }

    fn receive(&mut self, handler: &mut impl NetHandler) {
        self.conns.on_time(handler);
        self.accept(handler);
        while let Ok((conn, stream)) = self.dialled.1.try_recv() {
            // None if it was given up meanwhile.
            let Some(channel) = self.dials.remove(&conn) else { continue };
            match stream.and_then(|stream| Some((stream, self.conns.allot()?))) {
                Some((stream, at)) => {
                    let dial = (at, conn, channel);
                    self.conns.dialled(dial, stream, handler, |_, stream| Socket::new(stream));
                }
                None => self.failed.push(conn),
            }
        }
        self.conns.poll_all();
        self.conns.on_ready(handler);
    }

    fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool {
        let has_failed = !self.failed.is_empty();
        self.failed.drain(..).for_each(|conn| handler.input(Input::Closed { conn }));
        self.conns.on_ended(handler) || has_failed
    }

    fn has_work(&self) -> bool {
        self.conns.has_work()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.conns.poll_timeout()
    }

    fn connect(&mut self, _: Instant, conn: ConnId, channel: Channel, addresses: &str) {
        let (targets, sender) = (targets(addresses), self.dialled.0.clone());
        let (descriptors, timeout) = (self.descriptors, self.connect_timeout);
        self.dials.insert(conn, channel);
        thread::spawn(move || {
            let dial = |addr| TcpStream::connect_timeout(&addr, timeout).ok();
            let stream = targets.iter().flat_map(look_up).find_map(dial);
            let stream = stream.filter(|stream| descriptors.admits(channel, stream));
            // Fails if the server has ended.
            let _ = sender.send((conn, stream));
        });
    }

    fn mark(&mut self, conn: ConnId) {
        self.conns.mark(conn);
    }

    fn resume(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        self.conns.resume(conn, handler);
    }

    fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        if self.dials.remove(&conn).is_none() {
            self.conns.close(now, conn, reason);
        }
    }

    fn flush(&mut self, handler: &mut impl NetHandler) {
        self.conns.flush(handler);
    }
}

fn look_up(target: &Target) -> Vec<SocketAddr> {
    match target {
        Target::Literal(addr) => vec![*addr],
        Target::Name { host, port } => {
            (host.as_str(), *port).to_socket_addrs().into_iter().flatten().collect()
        }
    }
}

/// A connected socket that never waits.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }
}

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
    /// A socket that still has bytes is looked at again, as all are.
    const LEVEL_TRIGGERED: bool = true;

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

/// The longest time between two looks at the sockets.
const PERIOD: Duration = Duration::from_millis(1);

/// What the members of the ensemble below replicate.
#[derive(Debug, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &[u8]) -> Vec<u8> {
        self.0 += 1;
        self.0.to_be_bytes().into()
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        state.try_into().map(|bytes| Self(u64::from_be_bytes(bytes))).map_err(|_| BadSnapshot)
    }
}

/// Three members on this runtime; each counts one up.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("zab-polled-{}", std::process::id()));
    let (ensemble, ports) = Listeners::local_ensemble(3)?;
    let mut servers = Vec::new();
    for (sid, listeners) in (1..).map(Sid).zip(ports) {
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        // Unique in the history: no member ever takes another one's command for its own.
        let app = Replicated::new(Counter::default(), RandomState::new().build_hasher().finish());
        servers.push(Server::<_, Polled>::start_on(listeners, options, app)?);
    }
    for server in &servers {
        if !server.handle().wait_serving(Duration::from_secs(30)) {
            return Err("no leader".into());
        }
        let (done, answer) = channel();
        server.handle().call(move |now, node| {
            node.with(now, |counter, core| {
                counter.call(core, b"", move |count| {
                    let _ = done.send(count.map(<[u8]>::to_vec));
                });
            });
        });
        println!("{:?}", answer.recv()??);
    }
    drop(servers);
    Ok(std::fs::remove_dir_all(dir)?)
}
