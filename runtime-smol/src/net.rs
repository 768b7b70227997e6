//! Sockets: connections are read and written by the loop, which their wakers tell when; tasks
//! accept and dial.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use runtime_core::{
    Accepting, Conns, Descriptors, Error, Listeners, NetHandler, NetOptions, Network, Port,
    Resolver, Stream, Target, targets,
};
use smol::future::or;
use smol::{Async, LocalExecutor, Task, Timer};
use zab_proto::{Channel, CloseReason, ConnId, Input, Instant};

use crate::mailbox::Mailbox;

/// What happened on one of the sockets.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody has connected.
    Accepted(Port, Async<TcpStream>, SocketAddr),
    /// A dial has succeeded or not.
    Dialled(ConnId, Option<Async<TcpStream>>),
    /// The connection in a slot is no longer empty, or no longer full.
    Readable(usize),
    Writable(usize),
}

/// All sockets of one server.
#[derive(Debug)]
pub(crate) struct Net {
    executor: Rc<LocalExecutor<'static>>,
    mailbox: Arc<Mailbox<Event>>,
    /// Takes turns with the mailbox's.
    events: Vec<Event>,
    options: NetOptions,
    conns: Conns<Socket>,
    /// Those who accept; dropping its task closes a port.
    acceptors: Vec<(Port, u16, Task<()>)>,
    /// Dials under way; dropping its task gives one up.
    dials: HashMap<ConnId, (Channel, Task<()>)>,
    resolver: Arc<Resolver>,
    descriptors: Descriptors,
    failed: Vec<ConnId>,
}

/// A connected socket and whom to wake for it.
#[derive(Debug)]
struct Socket {
    stream: Async<TcpStream>,
    on_readable: Waker,
    on_writable: Waker,
}

/// Tells the loop of a socket.
struct Notice {
    mailbox: Arc<Mailbox<Event>>,
    event: fn(usize) -> Event,
    slot: usize,
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.send((self.event)(self.slot));
    }
}

impl Socket {
    fn new(mailbox: &Arc<Mailbox<Event>>, slot: usize, stream: Async<TcpStream>) -> Self {
        let waker =
            |event| Waker::from(Arc::new(Notice { mailbox: Arc::clone(mailbox), event, slot }));
        Self { stream, on_readable: waker(Event::Readable), on_writable: waker(Event::Writable) }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.get_ref().read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.get_ref().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    /// Each wait is registered again, and ends at once if there is something.
    const LEVEL_TRIGGERED: bool = true;

    fn await_readable(&self) -> io::Result<()> {
        let mut context = Context::from_waker(&self.on_readable);
        // Ready tells of an event that was taken already.
        while let Poll::Ready(told) = self.stream.poll_readable(&mut context) {
            told?;
        }
        Ok(())
    }

    fn await_writable(&self) -> io::Result<()> {
        let mut context = Context::from_waker(&self.on_writable);
        while let Poll::Ready(told) = self.stream.poll_writable(&mut context) {
            told?;
        }
        Ok(())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().peer_addr()
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.get_ref().shutdown(how)
    }
}

impl Net {
    /// Accepts connections on `listeners`. What happens comes to `mailbox`.
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        mailbox: Arc<Mailbox<Event>>,
        listeners: Listeners,
        options: NetOptions,
    ) -> Result<Self, Error> {
        let descriptors = Descriptors::divided(&options);
        let mut net = Self {
            executor,
            mailbox,
            events: Vec::new(),
            options,
            conns: Conns::new(options, usize::MAX),
            acceptors: Vec::new(),
            dials: HashMap::new(),
            resolver: Arc::default(),
            descriptors,
            failed: Vec::new(),
        };
        net.listen(listeners)?;
        Ok(net)
    }

    fn dialled(
        &mut self,
        conn: ConnId,
        stream: Option<Async<TcpStream>>,
        handler: &mut impl NetHandler,
    ) {
        // Given up meanwhile.
        let Some((channel, _)) = self.dials.remove(&conn) else { return };
        match stream.and_then(|stream| Some((stream, self.conns.allot()?))) {
            Some((stream, at)) => {
                let mailbox = &self.mailbox;
                self.conns.dialled((at, conn, channel), stream, handler, |at, stream| {
                    Ok(Socket::new(mailbox, at, stream))
                });
            }
            None => self.failed.push(conn),
        }
    }
}

impl Network for Net {
    fn listen(&mut self, listeners: Listeners) -> Result<(), Error> {
        for (port, listener) in listeners.into_sockets() {
            let number = listener.local_addr()?.port();
            let listener = Async::new(listener)?;
            let (mailbox, accepting) =
                (Arc::clone(&self.mailbox), Accepting::new(port.channel, self.descriptors));
            let task = self.executor.spawn(accept(port, listener, accepting, mailbox));
            self.acceptors.push((port, number, task));
        }
        Ok(())
    }

    fn unlisten(&mut self, ports: &[(Port, u16)]) {
        self.acceptors.retain(|(port, number, _)| !ports.contains(&(*port, *number)));
    }

    fn receive(&mut self, handler: &mut impl NetHandler) {
        self.conns.on_time(handler);
        let mut events = std::mem::take(&mut self.events);
        self.mailbox.take(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Accepted(port, stream, remote) => {
                    let mailbox = &self.mailbox;
                    self.conns.accepted((stream, remote), port, handler, |at, stream| {
                        Ok(Socket::new(mailbox, at, stream))
                    });
                }
                Event::Dialled(conn, stream) => self.dialled(conn, stream, handler),
                Event::Readable(at) => self.conns.readable(at),
                Event::Writable(at) => self.conns.writable(at),
            }
        }
        self.events = events;
        self.conns.on_ready(handler);
    }

    fn on_ended(&mut self, handler: &mut impl NetHandler) -> bool {
        let failed = !self.failed.is_empty();
        for conn in self.failed.drain(..) {
            handler.input(Input::Closed { conn });
        }
        self.conns.on_ended(handler) || failed
    }

    fn has_work(&self) -> bool {
        self.conns.has_work()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.conns.poll_timeout()
    }

    fn connect(&mut self, _: Instant, conn: ConnId, channel: Channel, addresses: &str) {
        let (targets, mailbox) = (targets(addresses), Arc::clone(&self.mailbox));
        let (limit, descriptors) = (self.options.connect_timeout, self.descriptors);
        let resolver = Arc::clone(&self.resolver);
        let dial = async move {
            let late = async {
                Timer::after(limit).await;
                None
            };
            let stream = or(connect(targets, resolver, descriptors), late).await;
            mailbox.send(Event::Dialled(conn, stream));
        };
        self.dials.insert(conn, (channel, self.executor.spawn(dial)));
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

async fn accept(
    port: Port,
    listener: Async<TcpListener>,
    mut accepting: Accepting,
    mailbox: Arc<Mailbox<Event>>,
) {
    loop {
        if let Some(pause) = accepting.before(&listener) {
            Timer::after(pause).await;
            continue;
        }
        let pause = match listener.accept().await {
            Ok((stream, remote)) => {
                let pause = accepting.accepted(&stream);
                if pause.is_none() {
                    mailbox.send(Event::Accepted(port, stream, remote));
                }
                pause
            }
            Err(error) => accepting.failed(&error),
        };
        if let Some(pause) = pause {
            Timer::after(pause).await;
        }
    }
}

async fn connect(
    targets: Vec<Target>,
    resolver: Arc<Resolver>,
    descriptors: Descriptors,
) -> Option<Async<TcpStream>> {
    for target in targets {
        let addresses = match target {
            Target::Literal(addr) => vec![addr],
            Target::Name { host, port } => resolve(&resolver, &host, port).await,
        };
        for addr in addresses {
            if let Ok(stream) = Async::<TcpStream>::connect(addr).await
                && descriptors.admits(Channel::Quorum, &stream)
            {
                return Some(stream);
            }
        }
    }
    None
}

async fn resolve(resolver: &Resolver, host: &str, port: u16) -> Vec<SocketAddr> {
    let (found, answer) = smol::channel::bounded(1);
    // Dropped with this future, when the dial is given up.
    let _waits = resolver.look_up(host, move |ips| drop(found.try_send(ips.to_vec())));
    let ips = answer.recv().await.unwrap_or_default();
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}
