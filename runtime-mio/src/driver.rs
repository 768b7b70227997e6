//! The loop: events in, the core drained, one fsync, one write per connection, wait.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant as SystemInstant};

use mio::event::Event;
use mio::{Events, Poll, Registry, Waker};
use runtime_core::{Clock, Disk, Error, Listeners, Loaded, NetOptions, StatusBoard};
use zab_proto::{Application, Channel, Config, ConnId, Input, Instant, NetOutput, Node};

use crate::net::{Doors, Net};

type Call<A> = Box<dyn FnOnce(Instant, &mut Node<A>) + Send>;

/// One server on a `mio` event loop: either its own ([`run`](Self::run)), or the user's.
///
/// In a user's loop, hand each event whose token [`owns`](Self::owns) accepts to
/// [`ready`](Self::ready), call [`tick`](Self::tick) after each batch of events, and poll no longer
/// than [`deadline`](Self::deadline) says. The waker given to [`new`](Self::new) may be the user's
/// own: its token is of no interest to the driver. Dropping the driver closes its sockets.
pub struct Driver<A, D> {
    clock: Clock,
    node: Node<A>,
    disk: D,
    net: Net,
    status: Arc<StatusBoard>,
    stop: Arc<AtomicBool>,
    calls: Receiver<Call<A>>,
    handle: Handle<A>,
}

impl<A: fmt::Debug, D> fmt::Debug for Driver<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node)
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}

impl<A: Application, D: Disk> Driver<A, D> {
    /// Puts a server onto the event loop of `registry`, with tokens out of `tokens` (one per
    /// socket; when they are used up, connections are refused).
    ///
    /// # Errors
    /// [`Error::Config`], or [`Error::Io`] if a socket cannot be registered.
    pub fn new(
        registry: &Registry,
        waker: &Arc<Waker>,
        tokens: Range<usize>,
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        loaded: Loaded<A, D>,
    ) -> Result<Self, Error> {
        let clock = Clock::start();
        let node = Node::new(clock.now(), config, loaded.recovered, loaded.app)?;
        let net = Net::new(registry, waker, tokens, listeners, options)?;
        let (status, stop) = (Arc::default(), Arc::<AtomicBool>::default());
        let (sender, calls) = channel();
        let handle = Handle {
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
            waker: Arc::clone(waker),
            calls: sender,
        };
        Ok(Self { clock, node, disk: loaded.disk, net, status, stop, calls, handle })
    }

    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.handle.clone()
    }

    /// The core with its application.
    #[must_use]
    pub fn node(&self) -> &Node<A> {
        &self.node
    }

    /// Whether an event belongs to this driver.
    #[must_use]
    pub fn owns(&self, event: &Event) -> bool {
        self.net.owns(event.token())
    }

    /// Takes note of an event; the work is done in [`tick`](Self::tick), so that all that arrived
    /// together shares one fsync and one write.
    pub fn ready(&mut self, event: &Event) {
        self.net.ready(event);
    }

    /// When [`tick`](Self::tick) is due even without an event; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemInstant> {
        if self.net.has_work() {
            return Some(SystemInstant::now());
        }
        let next = [self.node.poll_timeout(), self.net.poll_timeout()].into_iter().flatten().min();
        next.map(|at| self.clock.to_system(at))
    }

    /// Whether [`Handle::shutdown`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Does all there is to do now.
    ///
    /// # Errors
    /// [`Error::Storage`] if a write failed; nothing was sent after that, and nothing may be
    /// (rule R10): drop the driver.
    pub fn tick(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        while let Ok(call) = self.calls.try_recv() {
            call(now, &mut self.node);
        }
        let doors = &mut NodeDoors { now, node: &mut self.node, disk: &mut self.disk };
        self.net.on_time(doors);
        self.net.on_ready(doors);
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_input(now, Input::Timeout);
        }
        loop {
            self.turn(now)?;
            let doors = &mut NodeDoors { now, node: &mut self.node, disk: &mut self.disk };
            // The end of a connection comes after what its last bytes caused: a client that shuts
            // its side down behind a request gets the answer.
            if !self.net.on_ended(doors) {
                return Ok(());
            }
        }
    }

    /// Drains the core into disk and network until nothing is left.
    fn turn(&mut self, now: Instant) -> Result<(), Error> {
        let mut flushed = false;
        loop {
            self.take_persisted(now)?;
            let drained = self.drain(now);
            self.disk.submit();
            // An inline disk is done already.
            if self.take_persisted(now)? {
                flushed = false;
                continue;
            }
            if flushed && !drained {
                return Ok(());
            }
            self.net.flush(&mut NodeDoors { now, node: &mut self.node, disk: &mut self.disk });
            flushed = true;
        }
    }

    fn take_persisted(&mut self, now: Instant) -> Result<bool, Error> {
        let through = self.disk.poll().map_err(|error| Error::Storage(Box::new(error)))?;
        if let Some(through) = through {
            self.node.handle_input(now, Input::Persisted { through });
        }
        Ok(through.is_some())
    }

    fn drain(&mut self, now: Instant) -> bool {
        let mut drained = false;
        while let Some(output) = self.node.poll_output(now, &mut self.disk) {
            drained = true;
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    self.net.connect(now, conn, channel, &addresses);
                }
                NetOutput::Transmit(conn) => self.net.mark(conn),
                NetOutput::Resume(conn) => {
                    let doors = &mut NodeDoors { now, node: &mut self.node, disk: &mut self.disk };
                    self.net.resume(conn, doors);
                }
                NetOutput::Close(conn, reason) => self.net.close(now, conn, reason),
                NetOutput::Became(status) => self.status.report(status),
            }
        }
        drained
    }

    /// Serves until [`Handle::shutdown`] or an error.
    ///
    /// # Errors
    /// As [`tick`](Self::tick), and [`Error::Io`] if polling fails.
    pub fn run(&mut self, poll: &mut Poll) -> Result<(), Error> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.tick()?;
            if self.is_stopped() {
                return Ok(());
            }
            let timeout =
                self.deadline().map(|at| at.saturating_duration_since(SystemInstant::now()));
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                Err(_) => {}
                Ok(()) => {
                    for event in events.iter().filter(|event| event.token() != crate::WAKER) {
                        self.ready(event);
                    }
                }
            }
        }
    }
}

impl<A, D> Drop for Driver<A, D> {
    fn drop(&mut self) {
        self.status.stop();
    }
}

/// The node's doors as the network sees them.
struct NodeDoors<'a, A, D> {
    now: Instant,
    node: &'a mut Node<A>,
    disk: &'a mut D,
}

impl<A: Application, D: Disk> Doors for NodeDoors<'_, A, D> {
    fn now(&self) -> Instant {
        self.now
    }

    fn accept(&mut self, channel: Channel, remote: std::net::SocketAddr) -> Option<ConnId> {
        self.node.accept(self.now, channel, remote)
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(self.now, input);
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        self.node.handle_bytes(self.now, conn, bytes, self.disk)
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        self.node.poll_transmit(self.now, conn, buf)
    }
}

/// What other threads may do with a server.
pub struct Handle<A> {
    stop: Arc<AtomicBool>,
    status: Arc<StatusBoard>,
    waker: Arc<Waker>,
    calls: Sender<Call<A>>,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self {
            stop: Arc::clone(&self.stop),
            status: Arc::clone(&self.status),
            waker: Arc::clone(&self.waker),
            calls: self.calls.clone(),
        }
    }
}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status.get()).finish_non_exhaustive()
    }
}

impl<A> Handle<A> {
    /// Asks the server to end. Returns at once.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Makes the loop turn.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("Cannot wake the event loop: {error}");
        }
    }

    /// Runs `call` on the server's thread, between two events. Not run if the server has ended.
    pub fn call(&self, call: impl FnOnce(Instant, &mut Node<A>) + Send + 'static) {
        if self.calls.send(Box::new(call)).is_ok() {
            self.wake();
        }
    }

    /// Role, phase and leader, as last reported; and a way to wait for a change.
    #[must_use]
    pub fn status(&self) -> &StatusBoard {
        &self.status
    }

    /// Waits until the server serves clients; false if that took longer than `timeout` or the
    /// server has ended.
    #[must_use]
    pub fn wait_serving(&self, timeout: Duration) -> bool {
        let serving = |status: &zab_proto::Status| status.phase == zab_proto::Phase::Broadcast;
        self.status.wait(timeout, serving).is_some()
    }
}
