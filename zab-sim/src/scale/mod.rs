//! How elections, commits and changes of the members grow with the ensemble: calm ensembles of any size whose
//! leader is lost again and again, measured in virtual time. Only waiting takes time there: for the network,
//! for disks, for time-outs. Computing, and the width of the network, cost nothing.

mod change;
mod masters;
mod measurement;
mod report;
mod trial;
mod what;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use figures::plot::Plot;
use zab_proto::ElectionConfig;

pub use self::report::json;
pub use self::what::{Samples, What};
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
    /// Observers learn from followers.
    pub masters: bool,
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

    pub(crate) fn options(&self, seed: u64) -> Options {
        let mut options = Options::calm(seed, self.voters);
        options.observers = self.observers;
        options.masters = self.masters;
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

/// A case and how often it is measured: with so many seeds, and so many rounds of what is done to it each.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The ensemble.
    pub case: Case,
    /// Seeds.
    pub seeds: u64,
    /// Rounds with each seed.
    pub rounds: usize,
}

/// Voters, observers, seeds and rounds.
type Size = (usize, usize, u64, usize);

/// All sizes in all places, with each of the waits, and with observers under each.
fn works(sizes: &[Size], timings: &[Timing], masters: &[bool]) -> Vec<Work> {
    let mut works = Vec::new();
    for place in Place::ALL {
        for &(voters, observers, seeds, rounds) in sizes {
            for &timing in timings {
                for &masters in masters {
                    let case = Case { voters, observers, place, timing, masters };
                    works.push(Work { case, seeds, rounds });
                }
            }
        }
    }
    works
}

/// A measurement: of which ensembles, how, and what becomes of the results.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// What its files are called.
    pub name: &'static str,
    /// All ensembles of its table; with `true` only small ones.
    pub works: fn(bool) -> Vec<Work>,
    measure: fn(&Work, u64) -> Result<Samples, Failure>,
    /// The results as Markdown.
    pub tables: fn(&[Work], &[Samples]) -> String,
    /// The results as plots.
    pub plots: fn(&[Work], &[Samples]) -> Vec<Plot>,
}

/// A cold start, commits, and leaders that are lost (`docs/benchmarks/scale.md`).
pub const ELECTIONS: Bench = Bench {
    name: "scale",
    works: trial::works,
    measure: trial::measure,
    tables: report::tables,
    plots: report::plots,
};

/// Changes of the members (`docs/membership.md`).
pub const CHANGES: Bench = Bench {
    name: "changes",
    works: change::works,
    measure: change::measure,
    tables: change::table,
    plots: change::plots,
};

/// Observers that learn from followers, and from the leader (`docs/membership.md`).
pub const MASTERS: Bench = Bench {
    name: "masters",
    works: masters::works,
    measure: masters::measure,
    tables: masters::table,
    plots: masters::plots,
};

/// Measures everything in `works` with `jobs` threads and says in `told` what each trial was and how
/// many events it took. The result does not depend on the number of threads.
///
/// # Errors
/// The first invariant that was broken, or what did not happen in time.
///
/// # Panics
/// If a thread did.
pub fn run(
    bench: &Bench,
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
                    let samples = (bench.measure)(&works[at], seed);
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
