//! The tasks around the loop. Each waits for one thing and tells the loop of it.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use runtime_core::{Chunk, Ends, Error, Listeners, Target, Workers, targets};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor, Timer};
use socket2::SockRef;
use zab_proto::{Channel, ConnId};

pub(crate) type Event = runtime_core::Event<Arc<Async<TcpStream>>>;

/// Starts tasks; they end with the executor.
#[derive(Debug)]
pub(crate) struct Tasks {
    executor: Rc<LocalExecutor<'static>>,
    events: Sender<Event>,
}

impl Tasks {
    /// Accepts connections on `listeners` and reports everything to `events`.
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        events: Sender<Event>,
        listeners: Listeners,
    ) -> Result<Self, Error> {
        for (channel, listener) in listeners.into_sockets() {
            let listener = Async::new(listener)?;
            executor.spawn(accept(channel, listener, events.clone())).detach();
        }
        Ok(Self { executor, events })
    }
}

impl Workers for Tasks {
    type Stream = Arc<Async<TcpStream>>;

    fn dial(&self, conn: ConnId, addresses: &str, limit: Duration) -> io::Result<()> {
        let (targets, events) = (targets(addresses), self.events.clone());
        let dial = async move {
            let late = async {
                Timer::after(limit).await;
                None
            };
            let stream = or(connect(targets), late).await;
            // An error means that the loop has ended.
            let _ = events.send(Event::Dialled(conn, stream.map(Arc::new))).await;
        };
        self.executor.spawn(dial).detach();
        Ok(())
    }

    fn serve(&self, key: u64, stream: &Self::Stream, keep_alive: bool) -> io::Result<Ends> {
        SockRef::from(stream.get_ref()).set_keepalive(keep_alive)?;
        stream.get_ref().set_nodelay(true)?;
        // One buffer is on its way at most.
        let (back, buffers) = bounded(1);
        self.executor.spawn(read(key, Arc::clone(stream), buffers, self.events.clone())).detach();
        // One buffer and the end.
        let (send, chunks) = bounded(2);
        self.executor.spawn(write(key, Arc::clone(stream), chunks, self.events.clone())).detach();
        Ok(Ends {
            // The reader may have ended, and has told so.
            give_back: Box::new(move |buffer| drop(back.try_send(buffer))),
            send: Box::new(move |chunk| send.try_send(chunk).is_ok()),
        })
    }

    fn remote(stream: &Self::Stream) -> Option<SocketAddr> {
        stream.get_ref().peer_addr().ok()
    }

    fn shut(stream: &Self::Stream) {
        // It may be closed already.
        let _ = stream.get_ref().shutdown(Shutdown::Both);
    }
}

async fn accept(channel: Channel, listener: Async<TcpListener>, events: Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let event = Event::Accepted(channel, Arc::new(stream), remote);
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                log::warn!("Cannot accept connections: {error}");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(targets: Vec<Target>) -> Option<Async<TcpStream>> {
    for target in targets {
        let addresses = match target {
            Target::Literal(addr) => vec![addr],
            Target::Name { host, port } => {
                let found = smol::net::resolve((host.as_str(), port)).await;
                found.unwrap_or_else(|error| {
                    log::warn!("Cannot resolve {host}: {error}");
                    Vec::new()
                })
            }
        };
        for addr in addresses {
            if let Ok(stream) = Async::<TcpStream>::connect(addr).await {
                return Some(stream);
            }
        }
    }
    None
}

/// Reads, and reads on when the last buffer comes back.
async fn read(
    key: u64,
    stream: Arc<Async<TcpStream>>,
    buffers: Receiver<Vec<u8>>,
    events: Sender<Event>,
) {
    let mut buffer = vec![0; READ_LEN_MIN];
    while let Ok(n @ 1..) = (&*stream).read(&mut buffer).await {
        if events.send(Event::Received(key, buffer, n)).await.is_err() {
            return;
        }
        match buffers.recv().await {
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
    let _ = events.send(Event::Ended(key)).await;
}

async fn write(
    key: u64,
    stream: Arc<Async<TcpStream>>,
    chunks: Receiver<Chunk>,
    events: Sender<Event>,
) {
    while let Ok(chunk) = chunks.recv().await {
        let Some((buffer, n)) = chunk else {
            // The other side may have gone already.
            let _ = stream.get_ref().shutdown(Shutdown::Write);
            return;
        };
        let event = match (&*stream).write_all(&buffer[..n]).await {
            Ok(()) => Event::Sent(key, buffer),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => Event::Ended(key),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// A reader's buffer, between an idle client and a busy learner.
const READ_LEN_MIN: usize = 4 * 1024;
const READ_LEN_MAX: usize = 256 * 1024;

/// Between two attempts to accept when descriptors or memory are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
