//! One run: chaos under the eyes of the observer, then healing, after which everything must work.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::Failure;
use crate::coverage::Coverage;
use crate::options::Options;
use crate::queue::{Event, SECOND};
use crate::subject::{Client, Subject};
use crate::trace::Trace;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events until the end.
    pub events: u64,
    /// Virtual time at the end in ns.
    pub virtual_time: u64,
    /// Hash over all events.
    pub fingerprint: u64,
    /// What broke.
    pub failure: Option<Failure>,
    /// The last lines of the log, if they were kept.
    pub trace: Vec<String>,
    /// What was reached.
    pub coverage: Coverage,
}

/// Runs `options` and keeps the last `lines` lines of the log.
#[must_use]
pub fn run<A: Subject>(options: &Options, lines: usize) -> Outcome {
    let mut world = World::<A>::new(options.clone(), Trace::new(lines));
    guarded(&mut world, |world| {
        let limit = options.events_max;
        world.run_until(options.chaos, |world| world.events >= limit);
        if world.failure().is_none() {
            converge(world);
        }
    });
    world.conclude()
}

/// Lets `act` run; a panic of the code under test is a failure like any other.
pub(crate) fn guarded<A: Subject>(world: &mut World<A>, act: impl FnOnce(&mut World<A>)) {
    let caught = catch_unwind(AssertUnwindSafe(|| act(world)));
    if let Err(payload) = caught {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let place = PLACE.take();
        let text = format!("{} at {place}", text.unwrap_or_default());
        world.ghost.borrow_mut().fail("panic", text);
    }
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes panics quiet: where they happened becomes part of the failure that [`run`] returns.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PLACE.set(place);
        if cfg!(panic = "abort") {
            eprintln!("{info}");
        }
    }));
}

/// The servers recover and do their work within this time after the last fault, in ns.
///
/// Every silence, retry and back-off of the protocol may be at its longest once: the notification
/// back-off (which starts anew when a peer is reachable again) and `initLimit` of each phase.
fn patience(options: &Options) -> u64 {
    let tick = u64::try_from(options.tick_time.as_nanos()).unwrap_or(SECOND);
    60 * SECOND + 20 * u64::from(options.init_limit + options.sync_limit) * tick
}

/// Heals everything and waits until all servers serve the same history and every client has a new
/// write done. E7, L1, L2, L3.
pub fn converge<A: Subject>(world: &mut World<A>) {
    world.heal();
    let deadline = world.now + patience(&world.options);
    let before: Vec<u64> = world.clients.iter().map(|seat| seat.client.completed()).collect();
    let storm = world.events + 1_000_000;
    let mut uniform = false;
    world.run_until(deadline, |world| {
        // Looking at everything after every event would be slow.
        uniform = world.events.is_multiple_of(64)
            && world.clients.iter().zip(&before).all(|(seat, n)| seat.client.completed() > *n)
            && world.is_uniform();
        uniform || world.events > storm
    });
    if !uniform && world.failure().is_none() {
        let text = world.describe();
        world.ghost.borrow_mut().fail("L1", text);
    }
    let quiet = world.options.tick_time * A::QUIET_TICKS;
    let until = world.now + u64::try_from(quiet.as_nanos()).unwrap_or(SECOND);
    world.run_until(until, |world| world.events > storm);
}

impl<A: Subject> World<A> {
    /// Ends all faults: everything runs, every link works.
    pub fn heal(&mut self) {
        self.healed = true;
        // A world in which the protocol's time-outs make sense.
        let delay_max = u64::try_from(self.options.tick_time.as_nanos()).unwrap_or(SECOND) / 20;
        self.net.heal(delay_max);
        self.trace.say(|| "all faults end".to_owned());
        let hosts = self.servers.len() + self.clients.len();
        for from in 0..hosts {
            for to in 0..hosts {
                if self.net.is_cut(from, to) {
                    self.net.mend(self.now, from, to, &mut self.queue);
                }
            }
        }
        for server in 0..self.servers.len() {
            self.disks[server].heal(delay_max);
            self.queue.push(self.now, Event::Unstall { server });
            self.queue.push(self.now, Event::Start { server });
            if self.servers[server].paused {
                self.queue.push(self.now, Event::Unpause { server });
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].client.persevere();
            self.queue.push(self.now, Event::Client { client });
        }
    }

    /// Whether all servers serve, in one epoch, with the whole history but for what is on its way.
    fn is_uniform(&self) -> bool {
        let ghost = self.ghost.borrow();
        let Some(leader) = self.leader() else { return false };
        let epoch = ghost.server(leader).status.map(|status| status.epoch);
        let enough = ghost.committed().saturating_sub(100);
        (0..self.servers.len()).all(|server| {
            let watched = ghost.server(server);
            watched.status.is_some_and(|status| {
                status.phase == zab_proto::Phase::Broadcast && Some(status.epoch) == epoch
            }) && watched.position >= enough
        })
    }

    /// Why the world is considered stuck.
    fn describe(&self) -> String {
        let ghost = self.ghost.borrow();
        let mut text = String::from("not healthy in time after the last fault");
        for server in 0..self.servers.len() {
            let watched = ghost.server(server);
            let at = watched.position;
            let status = watched.status.map_or_else(
                || "down or undecided".to_owned(),
                |s| format!("{:?} {:?} epoch {} leader {:?}", s.state, s.phase, s.epoch, s.leader),
            );
            let (durable, _) = self.disks[server].durable.last();
            text += &format!("\n  s{}: {status}, applied {at}, disk {durable}", server + 1);
        }
        for seat in &self.clients {
            text += &format!("\n  client: {} writes", seat.client.completed());
        }
        text
    }

    /// Judges the clients' histories and sums up.
    #[must_use]
    pub fn conclude(self) -> Outcome {
        let mut coverage = self.ghost.borrow().coverage.clone();
        let failure = self.failure().or_else(|| {
            let nodes = self.servers.iter().filter_map(|server| server.node.as_ref());
            let apps: Vec<&A> = nodes.map(|node| &node.app().app).collect();
            let clients: Vec<_> = self.clients.into_iter().map(|seat| seat.client).collect();
            A::judge(&clients, &apps, &self.ghost.borrow(), &mut coverage).err()
        });
        Outcome {
            events: self.events,
            virtual_time: self.now,
            fingerprint: self.fingerprint,
            failure,
            trace: self.trace.lines().map(str::to_owned).collect(),
            coverage,
        }
    }
}
