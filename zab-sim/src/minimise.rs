//! Makes a failing run smaller: fewer faults, fewer operations, a kinder world.

use crate::options::{Options, Segmentation};
use crate::plan::draw;
use crate::run::{Outcome, run};
use crate::subject::Subject;

/// The smallest variant of `options` found that breaks the same invariant, in at most `tries` runs.
#[must_use]
pub fn minimise<A: Subject>(options: &Options, outcome: Outcome, tries: u32) -> (Options, Outcome) {
    let mut search = Search { best: options.clone(), outcome, tries };
    search.soften::<A>();
    search.drop_faults::<A>();
    search.soften::<A>();
    (search.best, search.outcome)
}

struct Search {
    best: Options,
    outcome: Outcome,
    tries: u32,
}

impl Search {
    /// Adopts `candidate` if it fails in the same way.
    fn attempt<A: Subject>(&mut self, candidate: Options) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let outcome = run::<A>(&candidate, 0);
        let invariant = |outcome: &Outcome| outcome.failure.as_ref().map(|f| f.invariant);
        let same = invariant(&outcome) == invariant(&self.outcome);
        if same {
            self.best = candidate;
            self.outcome = outcome;
        }
        same
    }

    fn soften<A: Subject>(&mut self) {
        let steps: [fn(&mut Options); 12] = [
            |o| o.chaos = o.chaos * 2 / 3,
            |o| o.chaos /= 2,
            |o| o.requests = o.requests / 2 + 1,
            |o| o.requests = 5,
            |o| o.clients = 1,
            |o| o.observers = 0,
            |o| o.net.segmentation = Segmentation::Whole,
            |o| o.net.spike_per_mille = 0,
            |o| o.net.slow_reader_per_mille = 0,
            |o| o.disk.stall_per_mille = 0,
            |o| o.disk.fail_per_million = 0,
            |o| o.transmit_delay = 0,
        ];
        for step in steps {
            let mut candidate = self.best.clone();
            step(&mut candidate);
            self.attempt::<A>(candidate);
        }
    }

    /// Leaves out faults: in halves, quarters, …, one by one.
    fn drop_faults<A: Subject>(&mut self) {
        let all = draw(&self.best).len();
        let mut size = all.div_ceil(2);
        while size > 0 {
            let present: Vec<usize> =
                (0..all).filter(|index| !self.best.without.contains(index)).collect();
            for chunk in present.chunks(size) {
                let mut candidate = self.best.clone();
                candidate.without.extend_from_slice(chunk);
                self.attempt::<A>(candidate);
            }
            size /= 2;
        }
    }
}
