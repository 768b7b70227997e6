//! The threads around the loop. Each does one blocking thing and tells the loop of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use runtime_core::{Target, targets};
use zab_proto::{Channel, ConnId};

/// What happened on one of the threads.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something is durable, or somebody calls.
    Wake,
    Accepted(Channel, TcpStream, SocketAddr),
    Dialled(ConnId, Option<TcpStream>),
    /// Bytes of a connection: the buffer and how much of it is filled. The reader goes on when
    /// the buffer comes back.
    Received(u64, Vec<u8>, usize),
    /// A connection has ended or broken.
    Ended(u64),
    /// A buffer is written out and comes back.
    Sent(u64, Vec<u8>),
}

/// A buffer and how much of it is filled; `None` ends the sending.
pub(crate) type Chunk = Option<(Vec<u8>, usize)>;

/// Where threads report to.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: SyncSender<Event>,
    /// Held by each thread that ends with the loop, so that the loop can wait for them.
    #[expect(dead_code, reason = "it only has to be dropped")]
    alive: Sender<()>,
}

impl Events {
    /// The second part hangs up once all threads but diallers have ended.
    pub(crate) fn new(sender: SyncSender<Event>) -> (Self, Receiver<()>) {
        let (alive, ended) = channel();
        (Self { sender, alive }, ended)
    }

    /// False if the loop has ended.
    fn send(&self, event: Event) -> bool {
        self.sender.send(event).is_ok()
    }

    fn spawn(&self, name: &str, work: impl FnOnce(Self) + Send + 'static) -> std::io::Result<()> {
        let events = self.clone();
        let thread = Builder::new().name(name.into()).stack_size(STACK_LEN);
        thread.spawn(move || work(events)).map(drop)
    }

    /// A thread that accepts connections until its socket is shut down.
    pub(crate) fn acceptor(&self, channel: Channel, listener: TcpListener) -> std::io::Result<()> {
        listener.set_nonblocking(false)?;
        self.spawn("acceptor", move |events| {
            loop {
                match listener.accept() {
                    Ok((stream, remote)) => {
                        if !events.send(Event::Accepted(channel, stream, remote)) {
                            return;
                        }
                    }
                    // Shut down by the loop.
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return,
                    Err(error) => {
                        log::warn!("Cannot accept connections: {error}");
                        std::thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        })
    }

    /// A thread that dials a member, one address after the other.
    pub(crate) fn dialler(
        &self,
        conn: ConnId,
        addresses: &str,
        limit: Duration,
    ) -> std::io::Result<()> {
        let targets = targets(addresses);
        // Neither a look-up nor an attempt to connect can be cut short: it ends by itself.
        let events = self.sender.clone();
        let thread = Builder::new().name("dialler".into()).stack_size(STACK_LEN);
        let dial = move || {
            let until = Instant::now() + limit;
            let stream = targets.into_iter().flat_map(resolve).find_map(|addr| {
                let left = until.saturating_duration_since(Instant::now());
                TcpStream::connect_timeout(&addr, left.max(Duration::from_millis(1))).ok()
            });
            // An error means that the loop has ended.
            let _ = events.send(Event::Dialled(conn, stream));
        };
        thread.spawn(dial).map(drop)
    }

    /// A thread that reads a connection. It reads on when its last buffer comes back.
    pub(crate) fn reader(
        &self,
        key: u64,
        mut stream: TcpStream,
    ) -> std::io::Result<Sender<Vec<u8>>> {
        let (back, buffers) = channel::<Vec<u8>>();
        self.spawn("reader", move |events| {
            let mut buffer = vec![0; READ_LEN_MIN];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if !events.send(Event::Received(key, buffer, n)) {
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
            events.send(Event::Ended(key));
        })?;
        Ok(back)
    }

    /// A thread that writes a connection: buffers, each with how much of it is filled, and, when
    /// `None` comes, the end.
    pub(crate) fn writer(&self, key: u64, mut stream: TcpStream) -> std::io::Result<Sender<Chunk>> {
        let (sender, buffers): (_, Receiver<Chunk>) = channel();
        self.spawn("writer", move |events| {
            while let Ok(buffer) = buffers.recv() {
                let Some((buffer, n)) = buffer else {
                    // The other side may have gone already.
                    let _ = stream.shutdown(Shutdown::Write);
                    return;
                };
                let event = match stream.write_all(&buffer[..n]) {
                    Ok(()) => Event::Sent(key, buffer),
                    Err(_) => Event::Ended(key),
                };
                if !events.send(event) {
                    return;
                }
            }
        })?;
        Ok(sender)
    }
}

fn resolve(target: Target) -> Vec<SocketAddr> {
    use std::net::ToSocketAddrs;
    match target {
        Target::Literal(addr) => vec![addr],
        Target::Name { host, port } => match (host.as_str(), port).to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => {
                log::warn!("Cannot resolve {host}: {error}");
                Vec::new()
            }
        },
    }
}

/// These threads call little; ten thousand connections need twenty thousand stacks.
const STACK_LEN: usize = 128 * 1024;

/// A reader's buffer, between an idle client and a busy learner.
const READ_LEN_MIN: usize = 4 * 1024;
const READ_LEN_MAX: usize = 256 * 1024;

/// Between two attempts to accept when descriptors or memory are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
