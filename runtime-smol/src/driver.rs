//! The loop: events from a channel, the core drained, one fsync, the writers fed, wait.

use std::rc::Rc;
use std::sync::Arc;

use smol::channel::{Receiver, bounded};
use smol::future::or;
use smol::{LocalExecutor, Timer};

use runtime_core::{
    Control, Disk, Engine, Error, Handle, Listeners, Loaded, NetOptions, QueuedNet,
};
use zab_proto::{Application, Config};

use crate::Wake;
use crate::net::{Event, Tasks};

/// One server, to be run as a task of the caller's. Dropping it closes its sockets and ends its
/// other tasks.
#[derive(Debug)]
pub struct Driver<A, D> {
    engine: Engine<A, D>,
    executor: Rc<LocalExecutor<'static>>,
    events: Receiver<Event>,
    net: QueuedNet<Tasks>,
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
        let (sender, events) = bounded(EVENTS_MAX);
        let waker = sender.clone();
        // A full channel turns the loop without being told to.
        let wake: Wake = Arc::new(move || drop(waker.try_send(Event::Wake)));
        let control = Control::new(Arc::clone(&wake));
        let loaded = load(wake)?;
        let engine = Engine::new(config, loaded, Arc::clone(control.status()))?;
        let executor = Rc::default();
        let tasks = Tasks::new(Rc::clone(&executor), sender, listeners)?;
        let net = QueuedNet::new(tasks, options);
        Ok(Self { engine, executor, events, net, control })
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
    pub async fn run(&mut self) -> Result<(), Error> {
        let executor = Rc::clone(&self.executor);
        executor.run(self.serve()).await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut event = None;
        loop {
            let now = self.engine.clock().now();
            self.control.run_calls(now, &mut self.engine.node);
            // All that has come together shares one fsync and one write per connection.
            let more = std::iter::from_fn(|| self.events.try_recv().ok()).take(EVENTS_MAX);
            let doors = &mut self.engine.doors(now);
            for event in event.into_iter().chain(more) {
                self.net.on_event(event, doors);
            }
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
            event = or(async { self.events.recv().await.ok() }, self.deadline()).await;
        }
    }

    async fn deadline<T>(&self) -> Option<T> {
        let deadlines = [self.engine.node.poll_timeout(), self.net.poll_timeout()];
        match deadlines.into_iter().flatten().min() {
            Some(at) => drop(Timer::at(self.engine.clock().to_system(at)).await),
            None => smol::future::pending().await,
        }
        None
    }
}

/// Events that wait for the loop; whoever brings one more waits too.
const EVENTS_MAX: usize = 1024;
