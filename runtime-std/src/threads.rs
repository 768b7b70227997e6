//! The threads around the loop. Each does one blocking thing and tells the loop of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use runtime_core::{
    Accepting, Descriptors, Error, Listeners, NetOptions, Port, Resolver, Target, targets,
};
use socket2::SockRef;
use zab_proto::{Channel, ConnId};

use crate::net::{Chunk, Ends, Event};

/// Starts threads, and ends them when dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    events: Option<Events>,
    /// The acceptors' sockets, to shut them down.
    listeners: Vec<(Port, Arc<TcpListener>)>,
    resolver: Arc<Resolver>,
    descriptors: Descriptors,
    /// As many diallers run as this is held by, minus one.
    dialling: Arc<()>,
    /// Hangs up once all threads but diallers have ended.
    ended: Receiver<()>,
}

/// Where threads report to.
#[derive(Clone, Debug)]
struct Events {
    sender: SyncSender<Event>,
    #[expect(dead_code, reason = "it only has to be dropped")]
    alive: Sender<()>,
}

impl Threads {
    /// Accepts connections on `listeners` and reports everything to `sender`.
    pub(crate) fn new(
        sender: SyncSender<Event>,
        listeners: Listeners,
        options: &NetOptions,
    ) -> Result<Self, Error> {
        let (alive, ended) = channel();
        let mut threads = Self {
            events: Some(Events { sender, alive }),
            listeners: Vec::new(),
            resolver: Arc::default(),
            descriptors: Descriptors::divided(options),
            dialling: Arc::default(),
            ended,
        };
        threads.listen(listeners)?;
        Ok(threads)
    }

    /// Serves more ports.
    pub(crate) fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        for (port, listener) in listeners.into_sockets() {
            listener.set_nonblocking(false)?;
            let listener = Arc::new(listener);
            self.listeners.push((port, Arc::clone(&listener)));
            let events = self.events()?.clone();
            let accepting = Accepting::new(port.channel, self.descriptors);
            spawn("acceptor", move || events.accept(port, &listener, accepting))?;
        }
        Ok(())
    }

    /// Closes ports.
    pub(crate) fn unlisten(&mut self, ports: &[(Port, u16)]) {
        self.listeners.retain(|(port, listener)| {
            let number = listener.local_addr().map_or(0, |addr| addr.port());
            let stays = !ports.contains(&(*port, number));
            if !stays {
                // Its acceptor ends, and closes it.
                let _ = SockRef::from(listener).shutdown(Shutdown::Both);
            }
            stays
        });
    }

    fn events(&self) -> io::Result<&Events> {
        self.events.as_ref().ok_or_else(|| ErrorKind::Interrupted.into())
    }
}

impl Threads {
    /// Begins to dial; an [`Event::Dialled`] follows. Dropping what is returned gives the dial up.
    ///
    /// # Errors
    /// If too many dials are under way, or no thread can be started.
    pub(crate) fn dial(
        &self,
        conn: ConnId,
        addresses: &str,
        limit: Duration,
    ) -> io::Result<Arc<()>> {
        let sender = self.events()?.sender.clone();
        if Arc::strong_count(&self.dialling) > DIALS_MAX {
            return Err(io::Error::other(format!("{DIALS_MAX} dials are under way")));
        }
        let wanted = Arc::new(());
        let dial = Dial {
            until: Instant::now() + limit,
            resolver: Arc::clone(&self.resolver),
            descriptors: self.descriptors,
            wanted: Arc::downgrade(&wanted),
        };
        let (targets, running) = (targets(addresses), Arc::clone(&self.dialling));
        // An attempt to connect cannot be cut short: the thread may outlive the loop by `limit` and
        // then ends by itself.
        spawn("dialler", move || {
            let stream = targets.into_iter().find_map(|target| dial.connect(target));
            drop(running);
            // An error means that the loop has ended.
            let _ = sender.send(Event::Dialled(conn, stream.map(Arc::new)));
        })?;
        Ok(wanted)
    }

    /// Begins to read and write a connection, which events will call `key`.
    ///
    /// # Errors
    /// If no thread can be started, or the socket's options cannot be set.
    pub(crate) fn serve(
        &self,
        key: u64,
        stream: &Arc<TcpStream>,
        keep_alive: bool,
    ) -> io::Result<Ends> {
        SockRef::from(stream).set_keepalive(keep_alive)?;
        stream.set_nodelay(true)?;
        let events = self.events()?;
        let (reader, writer) =
            ((events.clone(), Arc::clone(stream)), (events.clone(), Arc::clone(stream)));
        let (back, buffers) = channel();
        spawn("reader", move || reader.0.read(key, &reader.1, &buffers))?;
        let (send, chunks) = channel();
        spawn("writer", move || writer.0.write(key, &writer.1, &chunks))?;
        Ok(Ends { back, send })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for (_, listener) in &self.listeners {
            // On Linux this ends a blocked accept.
            let _ = SockRef::from(listener).shutdown(Shutdown::Both);
        }
        self.events = None;
        let _ = self.ended.recv();
    }
}

impl Events {
    fn accept(&self, port: Port, listener: &TcpListener, mut accepting: Accepting) {
        loop {
            if let Some(pause) = accepting.before(listener) {
                sleep(pause);
                continue;
            }
            let pause = match listener.accept() {
                Ok((stream, remote)) => match accepting.accepted(&stream) {
                    None => {
                        let event = Event::Accepted(port, Arc::new(stream), remote);
                        if self.sender.send(event).is_err() {
                            return;
                        }
                        None
                    }
                    pause => pause,
                },
                // Shut down by the loop.
                Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                Err(error) => accepting.failed(&error),
            };
            if let Some(pause) = pause {
                sleep(pause);
            }
        }
    }

    /// Reads, and reads on when the last buffer comes back.
    fn read(&self, key: u64, mut stream: &TcpStream, buffers: &Receiver<Vec<u8>>) {
        let mut buffer = vec![0; READ_LEN_MIN];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if self.sender.send(Event::Received(key, buffer, n)).is_err() {
                return;
            }
            match buffers.recv() {
                Ok(returned) => buffer = returned,
                Err(_) => return,
            }
            // A connection that fills its buffer gets a larger one, an idle one a small one.
            if n == buffer.len() {
                buffer.resize((2 * n).min(READ_LEN_MAX), 0);
            } else if n < buffer.len() / 8 && buffer.len() > READ_LEN_MIN {
                buffer = vec![0; READ_LEN_MIN];
            }
        }
        // An error means that the loop has ended.
        let _ = self.sender.send(Event::Ended(key));
    }

    fn write(&self, key: u64, mut stream: &TcpStream, chunks: &Receiver<Chunk>) {
        while let Ok(chunk) = chunks.recv() {
            let Some((buffer, n)) = chunk else {
                // The other side may have gone already.
                let _ = stream.shutdown(Shutdown::Write);
                return;
            };
            let event = match stream.write_all(&buffer[..n]) {
                Ok(()) => Event::Sent(key, buffer),
                Err(_) => Event::Ended(key),
            };
            if self.sender.send(event).is_err() {
                return;
            }
        }
    }
}

/// Ends both directions, which ends reader and writer.
pub(crate) fn shut(stream: &TcpStream) {
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Both);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.into()).stack_size(STACK_LEN).spawn(work).map(drop)
}

/// What a dialler needs.
struct Dial {
    until: Instant,
    resolver: Arc<Resolver>,
    descriptors: Descriptors,
    /// Gone when the loop has given the dial up.
    wanted: Weak<()>,
}

impl Dial {
    fn connect(&self, target: Target) -> Option<TcpStream> {
        self.resolve(target).into_iter().find_map(|addr| {
            self.wanted.upgrade()?;
            let left = self.until.saturating_duration_since(Instant::now());
            let connected = TcpStream::connect_timeout(&addr, left.max(Duration::from_millis(1)));
            connected.ok().filter(|stream| self.descriptors.admits(Channel::Quorum, stream))
        })
    }

    fn resolve(&self, target: Target) -> Vec<SocketAddr> {
        let (host, port) = match target {
            Target::Literal(addr) => return vec![addr],
            Target::Name { host, port } => (host, port),
        };
        let (found, answer) = sync_channel(1);
        let waits = self.resolver.look_up(&host, move |ips| drop(found.send(ips.to_vec())));
        let ips = loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wanted.strong_count() == 0 {
                break Vec::new();
            }
            match answer.recv_timeout(left.min(STEP)) {
                Ok(ips) => break ips,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            }
        };
        drop(waits);
        ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }
}

/// Each dial has a thread, and nobody who makes this server dial may start any number of them.
const DIALS_MAX: usize = 128;

/// How often a dialler that waits for a name looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(100);

/// These threads call little; ten thousand connections need twenty thousand stacks.
const STACK_LEN: usize = 128 * 1024;

/// A reader's buffer, between an idle client and a busy learner.
const READ_LEN_MIN: usize = 4 * 1024;
const READ_LEN_MAX: usize = 256 * 1024;
