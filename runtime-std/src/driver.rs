//! The loop: events from a channel, the core drained, one fsync, the writers fed, wait.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use runtime_core::{Control, Disk, Engine, Error, Handle, Listeners, Loaded, NetOptions, Wake};
use zab_proto::{Application, Config};

use crate::net::{EVENTS_MAX, Event, Net};
use crate::threads::Threads;

/// One server, to be run on a thread of the caller's. Dropping it closes its sockets and waits
/// for its other threads.
#[derive(Debug)]
pub struct Driver<A, D> {
    engine: Engine<A, D>,
    net: Net,
}

impl<A: Application, D: Disk> Driver<A, D> {
    /// A server on `listeners`, whose application and disk come from `load`; that is given what
    /// makes the loop turn when something has become durable.
    ///
    /// # Errors
    /// That of `load`; [`Error::Config`]; [`Error::Io`] if a thread cannot be started.
    pub fn new(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
    ) -> Result<Self, Error> {
        let (sender, events) = sync_channel(EVENTS_MAX);
        let waker = sender.clone();
        // A full channel turns the loop without being told to.
        let wake: Wake = Arc::new(move || drop(waker.try_send(Event::Wake)));
        let control = Control::new(Arc::clone(&wake));
        let engine = Engine::new(config, load(wake)?, control)?.secured(&listeners, &options);
        let net = Net::new(events, Threads::new(sender, listeners, &options)?, options);
        Ok(Self { engine, net })
    }

    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.engine.handle()
    }

    /// Serves until [`Handle::shutdown`] or an error.
    ///
    /// # Errors
    /// [`Error::Storage`] if a write failed; nothing was sent after that, and nothing may be (rule
    /// R10): drop the driver.
    pub fn run(&mut self) -> Result<(), Error> {
        loop {
            self.engine.tick(&mut self.net)?;
            if self.engine.is_stopped() {
                return Ok(());
            }
            let timeout = self
                .engine
                .deadline(&self.net)
                .map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
            self.net.wait(timeout)?;
        }
    }
}

/// A wait without a deadline.
const LONG: Duration = Duration::from_secs(3600);
