//! Seeds that found something, once. They are runs without bias, whose draws do not change.
//!
//! A run is another one as soon as a server says a byte more or less, so what a seed found has a
//! scenario or a unit test of its own where it could be put into one.

use zab_sim::counter::Counter;
use zab_sim::replica::Replica;
use zab_sim::{Options, run};

/// What each found, where that was recorded.
const FOUND: &[(u64, &str)] = &[
    (56, "R12: the learner that completed the quorum of promises was synchronised twice"),
    (18_810, "L1: the simulator bounded the recovery by events, of which small segments make many"),
    (107_493, "V6: a leader not yet established sent a snapshot that held less than its learner"),
];

/// Seeds of the first searches. They found the simulator's own mistakes and the bugs that the
/// changelog names; which seed found which was not recorded.
const FIRST_SEARCHES: &[u64] = &[25, 41, 99, 107, 190, 282, 339, 522, 532, 557, 645, 2051, 2688];

#[test]
fn seeds_that_found_something() {
    for (seed, what) in FOUND {
        let outcome = run::<Replica<Counter>>(&Options::plain(*seed), 0);
        assert_eq!(outcome.failure, None, "seed {seed}, once {what}");
    }
}

#[test]
fn seeds_of_the_first_searches() {
    for seed in FIRST_SEARCHES {
        let outcome = run::<Replica<Counter>>(&Options::plain(*seed), 0);
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}
