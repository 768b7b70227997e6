//! One run: chaos under the eyes of the observer, then healing, after which everything must work.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::Failure;
use crate::coverage::Coverage;
use crate::options::Options;
use crate::recovery::{converge, examine};
use crate::subject::Subject;
use crate::trace::Trace;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events until the end.
    pub events: u64,
    /// Virtual time at the end in ns.
    pub virtual_time: u64,
    /// Hash over all events and every byte that went over the network.
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
        if world.failure().is_none() {
            examine(world);
        }
    });
    world.conclude()
}

/// Lets `act` run; a panic of the code under test is a failure like any other.
pub(crate) fn guarded<A: Subject>(world: &mut World<A>, act: impl FnOnce(&mut World<A>)) {
    if let Err(failure) = caught(|| act(world)) {
        world.checker.borrow_mut().fail(failure.invariant, failure.text);
    }
}

fn caught<T>(act: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let place = PLACE.take();
        Failure { invariant: "panic", text: format!("{} at {place}", text.unwrap_or_default()) }
    })
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
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

impl<A: Subject> World<A> {
    /// Judges the clients' histories and sums up.
    #[must_use]
    pub fn conclude(self) -> Outcome {
        let mut coverage = self.checker.borrow().coverage.clone();
        let failure = self.failure().or_else(|| {
            let nodes = self.servers.iter().filter_map(|server| server.node.as_ref());
            let apps: Vec<&A> = nodes.map(|node| &node.app().app).collect();
            let clients: Vec<_> = self.clients.into_iter().map(|seat| seat.client).collect();
            caught(|| A::judge(&clients, &apps, &self.checker.borrow(), &mut coverage))
                .flatten()
                .err()
        });

        if self.checker.borrow().epochs_committed() >= 3 {
            coverage.count("committed in three epochs");
        }
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
