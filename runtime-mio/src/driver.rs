//! The loop: events in, the core drained, one fsync, one write per connection, wait.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant as SystemInstant;

use mio::event::Event;
use mio::{Events, Poll, Registry, Waker};
use runtime_core::{Control, Disk, Engine, Error, Handle, Listeners, Loaded, NetOptions};
use zab_proto::{Application, Config, Node};

use crate::net::Net;

/// One server on a `mio` event loop: either its own ([`run`](Self::run)), or the user's.
///
/// In a user's loop, hand each event whose token [`owns`](Self::owns) accepts to
/// [`ready`](Self::ready), call [`tick`](Self::tick) after each batch of events, and poll no longer
/// than [`deadline`](Self::deadline) says. The waker given to [`new`](Self::new) may be the user's
/// own: its token is of no interest to the driver. Dropping the driver closes its sockets.
pub struct Driver<A, D> {
    engine: Engine<A, D>,
    net: Net,
}

impl<A: fmt::Debug, D> fmt::Debug for Driver<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.engine.node)
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
        let control = Control::new(crate::wake(waker));
        let engine = Engine::new(config, loaded, control)?.secured(&listeners, &options);
        let net = Net::new(registry, waker, tokens, listeners, options)?;
        Ok(Self { engine, net })
    }

    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.engine.handle()
    }

    /// The core with its application.
    #[must_use]
    pub fn node(&self) -> &Node<A> {
        &self.engine.node
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
        self.engine.deadline(&self.net)
    }

    /// Whether [`Handle::shutdown`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.engine.is_stopped()
    }

    /// Does all there is to do now.
    ///
    /// # Errors
    /// [`Error::Storage`] if a write failed; nothing was sent after that, and nothing may be
    /// (rule R10): drop the driver.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.engine.tick(&mut self.net)
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
