//! The loop: events out of the mailbox, the core drained, one fsync, one write per connection,
//! wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant as SystemInstant;

use smol::future::yield_now;
use smol::{LocalExecutor, Timer};

use runtime_core::{
    Control, Disk, Engine, Error, Handle, Listeners, Loaded, NetOptions, Network, Wake,
};
use zab_proto::{Application, Config};

use crate::mailbox::Mailbox;
use crate::net::{Event, Net};

/// One server, to be run as a task of the caller's. Dropping it closes its sockets and ends its
/// other tasks.
#[derive(Debug)]
pub struct Driver<A, D> {
    engine: Engine<A, D>,
    executor: Rc<LocalExecutor<'static>>,
    mailbox: Arc<Mailbox<Event>>,
    net: Net,
    alarm: Alarm,
}

impl<A: Application, D: Disk> Driver<A, D> {
    /// A server on `listeners`, whose application and disk come from `load`; that is given what
    /// makes the loop turn when something has become durable.
    ///
    /// # Errors
    /// That of `load`; [`Error::Config`]; [`Error::Io`] if a port cannot be served.
    pub fn new(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
    ) -> Result<Self, Error> {
        let mailbox = Arc::<Mailbox<Event>>::default();
        let bell = Arc::clone(&mailbox);
        let wake: Wake = Arc::new(move || bell.ring());
        let control = Control::new(Arc::clone(&wake));
        let engine = Engine::new(config, load(wake)?, control)?.secured(&listeners, &options);
        let executor = Rc::default();
        let net = Net::new(Rc::clone(&executor), Arc::clone(&mailbox), listeners, options)?;
        Ok(Self { engine, executor, mailbox, net, alarm: Alarm::new() })
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
    pub async fn run(&mut self) -> Result<(), Error> {
        let executor = Rc::clone(&self.executor);
        executor.run(self.serve()).await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.engine.tick(&mut self.net)?;
            if self.engine.is_stopped() {
                return Ok(());
            }
            if self.net.has_work() {
                yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    /// Waits for mail or the next deadline.
    async fn wait(&mut self) {
        let next = self.engine.deadline(&self.net);
        poll_fn(|context| {
            let alarm = self.alarm.poll(next, context);
            if self.mailbox.poll(context.waker()).is_ready() { Poll::Ready(()) } else { alarm }
        })
        .await;
    }
}

/// One timer for all deadlines. Deadlines mostly move away before they are reached, so that it is
/// cheaper to be woken too early now and then than to set it again in each turn of the loop.
#[derive(Debug)]
struct Alarm {
    timer: Timer,
    set: Option<SystemInstant>,
}

impl Alarm {
    fn new() -> Self {
        Self { timer: Timer::never(), set: None }
    }

    /// Ready when `next` is reached, or an earlier deadline that was once asked for.
    fn poll(&mut self, next: Option<SystemInstant>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(next) = next
            && self.set.is_none_or(|set| next < set)
        {
            self.timer.set_at(next);
            self.set = Some(next);
        }
        let rung = Pin::new(&mut self.timer).poll(context);
        rung.map(|_| self.set = None)
    }
}
