//! The loop: events from a channel, the core drained, one fsync, the writers fed, wait.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant as SystemInstant};

use runtime_core::{
    Control, Disk, Engine, Error, Handle, Listeners, Loaded, NetOptions, QueuedNet, Wake,
};
use zab_proto::{Application, Config};

use crate::net::{Event, Threads};

/// One server, to be run on a thread of the caller's. Dropping it closes its sockets and waits
/// for its other threads.
#[derive(Debug)]
pub struct Driver<A, D> {
    engine: Engine<A, D>,
    /// Before `net` goes and waits for its threads, nobody must wait to bring an event.
    events: Receiver<Event>,
    net: QueuedNet<Threads>,
    control: Control<A>,
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
        let loaded = load(wake)?;
        let engine = Engine::new(config, loaded, Arc::clone(control.status()))?
            .secured(listeners.security(), &options);
        let net = QueuedNet::new(Threads::new(sender, listeners, &options)?, options);
        Ok(Self { engine, events, net, control })
    }

    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.control.handle()
    }

    /// Serves until [`Handle::shutdown`] or an error.
    ///
    /// # Errors
    /// [`Error::Storage`] if a write failed; nothing was sent after that, and nothing may be (rule
    /// R10): drop the driver.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut event = None;
        loop {
            let now = self.engine.clock().now();
            self.control.run_calls(now, &mut self.engine.node);
            while let Some(listeners) = self.control.more_ports() {
                self.net.workers_mut().listen(listeners)?;
            }
            // All that has come together shares one fsync and one write per connection.
            let waiting = event.into_iter().chain(self.events.try_iter().take(EVENTS_MAX));
            let doors = &mut self.engine.doors(now);
            for event in waiting {
                self.net.on_event(event, doors);
            }
            self.net.on_unread(doors);
            self.net.on_time(doors);
            self.engine.on_time(now);
            loop {
                self.engine.turn(now, &mut self.net)?;
                if !self.net.on_ended(&mut self.engine.doors(now)) {
                    break;
                }
            }
            if self.control.is_stopped() {
                return Ok(());
            }
            event = match self.events.recv_timeout(self.timeout()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                // Not while `net` holds a sender.
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Panicked),
            };
        }
    }

    fn timeout(&self) -> Duration {
        if self.net.has_work() {
            return Duration::ZERO;
        }
        let deadlines = [self.engine.poll_timeout(), self.net.poll_timeout()];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(Duration::from_secs(3600), |at| {
            self.engine.clock().to_system(at).saturating_duration_since(SystemInstant::now())
        })
    }
}

/// Events that wait for the loop; whoever brings one more waits too.
const EVENTS_MAX: usize = 1024;
