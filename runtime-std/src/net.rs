//! The threads around the loop. Each does one blocking thing and tells the loop of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use runtime_core::{Accepting, Chunk, Ends, Error, Listeners, Target, Workers, targets};
use socket2::SockRef;
use zab_proto::{Channel, ConnId};

pub(crate) type Event = runtime_core::Event<TcpStream>;

/// Starts threads, and ends them when dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    events: Option<Events>,
    /// The acceptors' sockets, to shut them down.
    listeners: Vec<TcpListener>,
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
    pub(crate) fn new(sender: SyncSender<Event>, listeners: Listeners) -> Result<Self, Error> {
        let (alive, ended) = channel();
        let events = Some(Events { sender, alive });
        let mut threads = Self { events, listeners: Vec::new(), ended };
        threads.listen(listeners)?;
        Ok(threads)
    }

    /// Serves more ports.
    pub(crate) fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        for (channel, listener) in listeners.into_sockets() {
            listener.set_nonblocking(false)?;
            self.listeners.push(listener.try_clone()?);
            let events = self.events()?.clone();
            spawn("acceptor", move || events.accept(channel, &listener))?;
        }
        Ok(())
    }

    fn events(&self) -> io::Result<&Events> {
        self.events.as_ref().ok_or_else(|| ErrorKind::Interrupted.into())
    }
}

impl Workers for Threads {
    type Stream = TcpStream;

    fn dial(&self, conn: ConnId, addresses: &str, limit: Duration) -> io::Result<()> {
        let targets = targets(addresses);
        // Neither a look-up nor an attempt to connect can be cut short: the thread may outlive the
        // loop and then ends by itself.
        let sender = self.events()?.sender.clone();
        spawn("dialler", move || {
            let until = Instant::now() + limit;
            let stream = targets.into_iter().flat_map(resolve).find_map(|addr| {
                let left = until.saturating_duration_since(Instant::now());
                TcpStream::connect_timeout(&addr, left.max(Duration::from_millis(1))).ok()
            });
            // An error means that the loop has ended.
            let _ = sender.send(Event::Dialled(conn, stream));
        })
    }

    fn serve(&self, key: u64, stream: &TcpStream, keep_alive: bool) -> io::Result<Ends> {
        SockRef::from(stream).set_keepalive(keep_alive)?;
        stream.set_nodelay(true)?;
        let (events, stream) = (self.events()?, stream.try_clone()?);
        let (reader, writer) = ((events.clone(), stream.try_clone()?), (events.clone(), stream));
        let (back, buffers) = channel();
        spawn("reader", move || reader.0.read(key, reader.1, &buffers))?;
        let (send, chunks) = channel();
        spawn("writer", move || writer.0.write(key, writer.1, &chunks))?;
        Ok(Ends {
            // The reader may have ended, and has told so.
            give_back: Box::new(move |buffer| drop(back.send(buffer))),
            send: Box::new(move |chunk| send.send(chunk).is_ok()),
        })
    }

    fn remote(stream: &TcpStream) -> Option<SocketAddr> {
        stream.peer_addr().ok()
    }

    fn shut(stream: &TcpStream) {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // On Linux this ends a blocked accept.
            let _ = SockRef::from(listener).shutdown(Shutdown::Both);
        }
        self.events = None;
        let _ = self.ended.recv();
    }
}

impl Events {
    fn accept(&self, channel: Channel, listener: &TcpListener) {
        let mut accepting = Accepting::default();
        loop {
            match listener.accept() {
                Ok((stream, remote)) => {
                    accepting.succeeded();
                    if self.sender.send(Event::Accepted(channel, stream, remote)).is_err() {
                        return;
                    }
                }
                // Shut down by the loop.
                Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                Err(error) => {
                    if let Some(pause) = accepting.failed(&error) {
                        sleep(pause);
                    }
                }
            }
        }
    }

    /// Reads, and reads on when the last buffer comes back.
    fn read(&self, key: u64, mut stream: TcpStream, buffers: &Receiver<Vec<u8>>) {
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

    fn write(&self, key: u64, mut stream: TcpStream, chunks: &Receiver<Chunk>) {
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

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.into()).stack_size(STACK_LEN).spawn(work).map(drop)
}

fn resolve(target: Target) -> Vec<SocketAddr> {
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
