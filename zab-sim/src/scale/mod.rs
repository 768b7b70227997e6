//! How elections and commits grow with the ensemble: calm ensembles of any size whose leader is
//! lost again and again, measured in virtual time. Only waiting takes time there: for the network,
//! for disks, for time-outs. Computing, and the width of the network, cost nothing.

mod report;
mod trial;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zab_proto::ElectionConfig;

pub use self::report::{json, plots, tables};
pub use self::trial::measure;
use crate::check::Failure;
use crate::options::Options;
use crate::queue::{MICRO, MILLI};
use crate::rng::Rng;

/// How far the servers are from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// One building: 50 µs one way and 20 µs of jitter on average.
    Lan,
    /// Five [`REGIONS`], each server in one of them in turn; which region comes first is drawn by
    /// the seed. 250 µs one way within a region, 100 µs of jitter on average.
    Wan,
}

impl Place {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lan, Self::Wan];

    /// As tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "LAN",
            Self::Wan => "WAN",
        }
    }
}

/// Where the servers of a WAN are.
pub const REGIONS: [&str; 5] = ["Virginia", "Oregon", "Ireland", "Tokyo", "Sydney"];

/// Round trips between them in ms: round figures, as clouds with regions there show them.
pub const ROUND_TRIPS: [[u64; 5]; 5] = [
    [0, 65, 70, 150, 200],
    [65, 0, 125, 100, 140],
    [70, 125, 0, 205, 260],
    [150, 100, 205, 0, 105],
    [200, 140, 260, 105, 0],
];

/// What the election waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// This project's defaults: it finalises early, dials again at once, and the quorum port takes
    /// learners before it is known who leads.
    Early,
    /// The waits of Apache's servers in the same core: 200 ms before finalising, 200 ms and twice
    /// as much each time before dialling again, 100 ms between dials of a leader, whose quorum port
    /// opens when it knows that it leads.
    Apache,
}

impl Timing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Early, Self::Apache];

    /// As tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Early => "ours",
            Self::Apache => "Apache's",
        }
    }

    fn election(self) -> ElectionConfig {
        let mut election = ElectionConfig::default();
        if self == Self::Apache {
            election.early_finalize = false;
            election.redial_min = Duration::from_millis(200);
            election.leader_retry_min = election.leader_retry_max;
        }
        election
    }
}

/// An ensemble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Its voters.
    pub voters: usize,
    /// Its observers.
    pub observers: usize,
    /// Where they are.
    pub place: Place,
    /// What its elections wait for.
    pub timing: Timing,
}

impl Case {
    /// Its size, in few characters: voters, or voters + observers.
    #[must_use]
    pub fn size(&self) -> String {
        match self.observers {
            0 => self.voters.to_string(),
            observers => format!("{} + {observers}", self.voters),
        }
    }

    fn options(&self, seed: u64) -> Options {
        let mut options = Options::calm(seed, self.voters);
        options.observers = self.observers;
        options.clients = 0;
        options.tick_time = Duration::from_secs(2);
        options.election = self.timing.election();
        options.quorum_port_when_leading = self.timing == Timing::Apache;
        match self.place {
            Place::Lan => (options.net.min, options.net.mean) = (50 * MICRO, 20 * MICRO),
            Place::Wan => {
                (options.net.min, options.net.mean) = (250 * MICRO, 100 * MICRO);
                options.net.zones = zones(seed);
            }
        }
        options
    }
}

/// One-way delays between the regions, in an order drawn by the seed.
fn zones(seed: u64) -> Vec<Vec<u64>> {
    let mut rng = Rng::new(seed, 4);
    let mut order = [0, 1, 2, 3, 4];
    for at in (1..order.len()).rev() {
        order.swap(at, rng.index(at + 1));
    }
    let row = |from: usize| order.iter().map(|to| ROUND_TRIPS[from][*to] * MILLI / 2).collect();
    order.iter().map(|from| row(*from)).collect()
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// From the last start of a process until all voters agree on a leader.
    ColdDecided,
    /// … until that leader serves.
    ColdServes,
    /// … until it has committed a transaction that it proposed at once.
    ColdCommit,
    /// … until all members serve.
    ColdAll,
    /// Notifications sent meanwhile.
    ColdVotes,
    /// Bytes on the election ports meanwhile.
    ColdBytes,
    /// From the death of the leader until the voters left agree on another.
    LostDecided,
    /// … until that one serves.
    LostServes,
    /// … until it has committed a transaction that it proposed at once.
    LostCommit,
    /// … until all who are left serve.
    LostAll,
    /// Notifications sent meanwhile.
    LostVotes,
    /// Bytes on the election ports meanwhile.
    LostBytes,
    /// From proposal to delivery on the leader, one in flight.
    CommitOne,
    /// … to delivery on the last member.
    CommitOneAll,
    /// From proposal to delivery on the leader, 32 in flight.
    CommitMany,
}

impl What {
    /// All of them, with their names in results.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::ColdDecided, "cold start: voters decided, ms"),
        (Self::ColdServes, "cold start: leader serves, ms"),
        (Self::ColdCommit, "cold start: first commit, ms"),
        (Self::ColdAll, "cold start: all serve, ms"),
        (Self::ColdVotes, "cold start: notifications"),
        (Self::ColdBytes, "cold start: bytes on election ports"),
        (Self::LostDecided, "leader lost: voters decided, ms"),
        (Self::LostServes, "leader lost: next serves, ms"),
        (Self::LostCommit, "leader lost: next commit, ms"),
        (Self::LostAll, "leader lost: all serve, ms"),
        (Self::LostVotes, "leader lost: notifications"),
        (Self::LostBytes, "leader lost: bytes on election ports"),
        (Self::CommitOne, "commit, one in flight, ms"),
        (Self::CommitOneAll, "commit, one in flight, delivered by all, ms"),
        (Self::CommitMany, "commit, 32 in flight, ms"),
    ];
}

/// What was measured, times in ms.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Samples {
    /// Events of the simulator that it took.
    pub events: u64,
    values: [Vec<f64>; What::ALL.len()],
}

impl Samples {
    /// All values of one kind.
    #[must_use]
    pub fn of(&self, what: What) -> &[f64] {
        &self.values[what as usize]
    }

    fn add(&mut self, what: What, value: f64) {
        self.values[what as usize].push(value);
    }

    fn merge(&mut self, other: Self) {
        self.events += other.events;
        for (mine, theirs) in self.values.iter_mut().zip(other.values) {
            mine.extend(theirs);
        }
    }
}

/// A case and how often it is measured: with so many seeds, and so many losses of the leader each.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The ensemble.
    pub case: Case,
    /// Seeds.
    pub seeds: u64,
    /// Leaders lost with each.
    pub losses: usize,
}

/// Voters, observers, seeds and losses of the leader.
type Size = (usize, usize, u64, usize);

/// The ensembles of `docs/benchmarks/scale.md`; with `quick` only small ones, and few seeds.
#[must_use]
pub fn works(quick: bool) -> Vec<Work> {
    let sizes: &[Size] = match quick {
        true => &[(3, 0, 2, 2), (5, 0, 2, 2), (5, 10, 2, 2)],
        false => &[
            (3, 0, 40, 5),
            (5, 0, 40, 5),
            (7, 0, 40, 5),
            (9, 0, 40, 5),
            (15, 0, 20, 5),
            (25, 0, 20, 5),
            (51, 0, 5, 4),
            (101, 0, 3, 3),
            (5, 10, 40, 5),
            (5, 100, 5, 4),
            (5, 1000, 1, 2),
        ],
    };
    let mut works = Vec::new();
    for place in Place::ALL {
        for &(voters, observers, seeds, losses) in sizes {
            for timing in Timing::ALL {
                let case = Case { voters, observers, place, timing };
                works.push(Work { case, seeds, losses });
            }
        }
    }
    works
}

/// Measures everything in `works` with `jobs` threads and says in `told` what each trial was and how
/// many events it took. The result does not depend on the number of threads.
///
/// # Errors
/// The first invariant that was broken, or what did not happen in time.
///
/// # Panics
/// If a thread did.
pub fn run(
    works: &[Work],
    jobs: usize,
    told: impl Fn(&Case, u64) + Sync,
) -> Result<Vec<Samples>, Failure> {
    let trials: Vec<(usize, u64)> =
        works.iter().enumerate().flat_map(|(at, w)| (0..w.seeds).map(move |s| (at, s))).collect();
    // The longest are last in `works`, and would be waited for.
    let next = AtomicUsize::new(trials.len());
    let done = Mutex::new(vec![None; trials.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Ok(after) =
                    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                {
                    let (at, seed) = trials[after - 1];
                    let samples = measure(&works[at].case, seed, works[at].losses);
                    told(&works[at].case, samples.as_ref().map_or(0, |samples| samples.events));
                    done.lock().expect("no thread panics with the lock")[after - 1] = Some(samples);
                }
            });
        }
    });
    let done = done.into_inner().expect("no thread panicked");
    let mut results = vec![Samples::default(); works.len()];
    for ((at, _), samples) in trials.iter().zip(done) {
        results[*at].merge(samples.expect("every trial was made")?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Same seeds, same tables, with any number of threads; and what is measured is plausible.
    #[test]
    fn tables_reproduce() {
        let works = works(true);
        let first = run(&works, 1, |_, _| ()).expect("nothing fails");
        let second = run(&works, 3, |_, _| ()).expect("nothing fails");
        assert_eq!(tables(&works, &first), tables(&works, &second));
        assert_eq!(json(&works, &first).to_string(), json(&works, &second).to_string());
        for (work, samples) in works.iter().zip(&first) {
            let all = |what, range: std::ops::Range<f64>| {
                let values = samples.of(what);
                assert!(!values.is_empty() && values.iter().all(|ms| range.contains(ms)));
            };
            match (work.case.timing, work.case.place) {
                (Timing::Early, Place::Lan) => {
                    all(What::ColdDecided, 0.1..10.0);
                    all(What::LostCommit, 0.5..10.0);
                    all(What::CommitOne, 0.2..2.0);
                }
                (Timing::Apache, Place::Lan) => {
                    all(What::ColdDecided, 190.0..1000.0);
                    all(What::LostCommit, 200.0..1000.0);
                }
                (_, Place::Wan) => {
                    all(What::LostCommit, 200.0..5000.0);
                    all(What::CommitOne, 65.0..270.0);
                }
            }
        }
        assert_eq!(plots(&works, &first).len(), 4);
    }

    /// Where a refusal takes longer than the pause behind it, the first dial of a leader, which came
    /// before that knew that it leads, was the last: election followed election for over a minute.
    #[test]
    fn far_leaders_that_open_their_port_late_are_reached() {
        let case = Case { voters: 3, observers: 0, place: Place::Wan, timing: Timing::Apache };
        for seed in 0..40 {
            let samples = measure(&case, seed, 5).expect("nothing fails");
            let latest = samples.of(What::LostCommit).iter().copied().fold(0.0, f64::max);
            assert!(latest < 3000.0, "seed {seed}: {latest} ms");
        }
    }
}
