//! Seeds that found something, once. Most are runs without bias, whose draws do not change.
//!
//! A run is another one as soon as a server says a byte more or less, so what a seed found has a
//! scenario or a unit test of its own where it could be put into one.

use zab_sim::counter::Counter;
use zab_sim::replica::Replica;
use zab_sim::{Options, profile, run};

/// What each found, where that was recorded.
const FOUND: &[(u64, &str)] = &[
    (56, "R12: the learner that completed the quorum of promises was synchronised twice"),
    (18_810, "L1: the simulator bounded the recovery by events, of which small segments make many"),
    (107_493, "V6: a leader not yet established sent a snapshot that held less than its learner"),
];

/// Seeds of the first searches. They found the simulator's own mistakes and the bugs that the
/// changelog names; which seed found which was not recorded.
const FIRST_SEARCHES: &[u64] = &[25, 41, 99, 107, 190, 282, 339, 522, 532, 557, 645, 2051, 2688];

/// The failures among ten thousand runs, every other one of them biased.
const BIASED: &[(u64, &str)] = &[
    (8452, "E2: who joined an ensemble of an earlier round began its next election in a used one"),
    (7872, "E1: the check missed the own vote that a candidate took along into a later round"),
    (3573, "L6: bytes delayed in the chaos came later than time-outs, when all was to be healthy"),
    (6865, "L6: an fsync of the chaos lasted longer than time-outs, when all was to be healthy"),
    (2065, "E1: the check missed the own vote of a server that found the whole ensemble empty"),
    (6544, "E1: as 2065, of two voters"),
    (6647, "E1: as 2065, of two voters"),
    (8741, "E1: as 2065"),
    (334, "E7: two that reach one server more followed it in turn, and never shunned it together"),
    (2505, "L6: a request kept a leader from the acknowledgement that would have made room for it"),
    (2857, "L6: a transaction longer than half the window waited for a paused learner"),
    (4782, "L5: votes behind the beginning of a garbled frame counted as left over"),
];

/// Of the profile in which the members change.
const MEMBERS: &[(u64, &str)] = &[
    (1696, "L1: a voter that had become an observer, behind the writers, was waited for"),
    (1839, "L1: as 1696"),
];

/// The same with observer masters, leaders that make way, and servers without heartbeats.
const TURNOVER: &[(u64, &str)] = &[
    (2247, "E1: the check missed that its leader told an observer who leads"),
    (5529, "E8: the check missed that who hears of other members waits for its disk"),
    (6313, "E1: as 2247, by the follower that the observer learns from"),
    (3533, "L1: who avoided a leader that others elected heard of it too late, each time"),
];

#[test]
fn seeds_with_other_members() {
    for (name, seeds) in [("members", MEMBERS), ("turnover", TURNOVER)] {
        let profile = profile::named(name).expect("there is one");
        for (seed, what) in seeds {
            let outcome = run::<Replica<Counter>>(&profile.options(*seed), 0);
            assert_eq!(outcome.failure, None, "{name}, seed {seed}, once {what}");
        }
    }
}

#[test]
fn seeds_of_ten_thousand_runs() {
    for (seed, what) in BIASED {
        let outcome = run::<Replica<Counter>>(&Options::swarm(*seed), 0);
        assert_eq!(outcome.failure, None, "seed {seed}, once {what}");
    }
}

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
