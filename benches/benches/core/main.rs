//! The core alone: three replicas in one thread, no sockets, no files.
//!
//! `cargo bench -p benches --bench core --features rivals [-- --quick] [--out DIR] [NAME …]` measures a
//! committed transaction of 100 bytes at several depths, beside the crates `raft` and `omnipaxos`,
//! and the codecs. The core encodes every message to bytes and decodes it; the others pass owned
//! messages. With `--out` the results also go to `core.json` and `core.svg` in that directory.

mod codec;
#[cfg(feature = "rivals")]
mod omnipaxos;
#[cfg(feature = "rivals")]
mod raft;

use std::hint::black_box;
use std::time::Instant;

use benches::alloc;
use benches::plot::{Bar, Bars, Plot};
use benches::report::{self, Options, rounded};
use benches::{Json, Map, json};
use zab_harness::Trio;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Bytes of the application in each transaction.
const PAYLOAD_LEN: usize = 100;

/// Transactions proposed before anything is delivered.
const DEPTHS: [usize; 3] = [1, 64, 1024];

/// Three replicas that can be driven.
trait Replicas {
    fn name(&self) -> &'static str;

    /// Proposes `n` transactions on the leader, and lets everything happen until all three have
    /// committed them.
    fn round(&mut self, n: usize);

    /// Transactions committed so far on the replica that has the fewest.
    fn committed(&self) -> u64;
}

struct Ours(Trio);

impl Replicas for Ours {
    fn name(&self) -> &'static str {
        "zab-proto"
    }

    fn round(&mut self, n: usize) {
        (0..n).for_each(|_| self.0.propose());
        self.0.settle();
    }

    fn committed(&self) -> u64 {
        self.0.delivered.into_iter().min().expect("three replicas")
    }
}

/// What a transaction costs.
#[derive(Clone, Copy)]
struct Cost {
    nanos: f64,
    /// The dearest of the samples.
    nanos_max: f64,
    allocations: f64,
}

fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let (samples, commits) = if options.quick { (5, 20_000) } else { (11, 100_000) };
    let header = zab_proto::wire::txn::TxnHeader::LEN;
    let mut all: Vec<Box<dyn Replicas>> = vec![Box::new(Ours(Trio::new(header + PAYLOAD_LEN)))];
    #[cfg(feature = "rivals")]
    {
        all.push(Box::new(raft::Cluster::new()));
        all.push(Box::new(omnipaxos::Cluster::new()));
    }
    if !options.words.is_empty() {
        all.retain(|replicas| options.words.iter().any(|word| replicas.name().starts_with(word)));
    }
    let costs: Vec<Vec<Cost>> = measure(&mut all, samples, commits);
    show(&options, &all, &costs)?;
    println!("{}", codec::table(samples));
    Ok(())
}

/// Measures everybody at every depth, in turns: what disturbs the machine disturbs all alike.
fn measure(all: &mut [Box<dyn Replicas>], samples: usize, commits: usize) -> Vec<Vec<Cost>> {
    let mut costs: Vec<Vec<Cost>> = all.iter().map(|_| Vec::new()).collect();
    for depth in DEPTHS {
        let mut nanos: Vec<Vec<f64>> = all.iter().map(|_| Vec::new()).collect();
        let mut allocations = vec![0.0; all.len()];
        // The first one is for buffers to find their size.
        for sample in 0..=samples {
            for (i, replicas) in all.iter_mut().enumerate() {
                let (cost, count) = run(replicas.as_mut(), depth, commits);
                if sample > 0 {
                    nanos[i].push(cost);
                    allocations[i] = count;
                }
            }
        }
        for (i, nanos) in nanos.into_iter().enumerate() {
            let (_, median, max) = report::spread(nanos);
            let cost = Cost { nanos: median, nanos_max: max, allocations: allocations[i] };
            costs[i].push(cost);
        }
    }
    costs
}

/// Nanoseconds and allocations per transaction.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn run(replicas: &mut dyn Replicas, depth: usize, commits: usize) -> (f64, f64) {
    let rounds = commits / depth;
    let before = (replicas.committed(), alloc::count());
    let start = Instant::now();
    for _ in 0..rounds {
        replicas.round(black_box(depth));
    }
    let nanos = start.elapsed().as_nanos() as f64;
    let allocations = alloc::count() - before.1;
    let done = (rounds * depth) as f64;
    let committed = (replicas.committed() - before.0) as f64;
    assert!(committed == done, "{}: {committed} of {done} are committed", replicas.name());
    (nanos / done, allocations as f64 / done)
}

fn show(options: &Options, all: &[Box<dyn Replicas>], costs: &[Vec<Cost>]) -> std::io::Result<()> {
    let mut rows = vec![vec![String::from("per committed transaction of 100 B")]];
    rows[0].extend(DEPTHS.map(|depth| format!("{depth} in flight")));
    for (replicas, costs) in all.iter().zip(costs) {
        let mut row = vec![String::from(replicas.name())];
        row.extend(
            costs
                .iter()
                .map(|cost| format!("{:.0} ns, {:.1} allocations", cost.nanos, cost.allocations)),
        );
        rows.push(row);
    }
    println!("{}", report::markdown(&rows));
    let entry = |replicas: &dyn Replicas, costs: &[Cost]| {
        let depths = DEPTHS.iter().zip(costs).map(|(depth, cost)| {
            let cost = json!({
                "ns_median": rounded(cost.nanos),
                "ns_max": rounded(cost.nanos_max),
                "allocations": rounded(cost.allocations),
            });
            (depth.to_string(), cost)
        });
        (String::from(replicas.name()), Json::Object(depths.collect::<Map<_, _>>()))
    };
    let results: Json = all.iter().zip(costs).map(|(r, costs)| entry(r.as_ref(), costs)).collect();
    let bars = |costs: &Vec<Cost>| {
        let bar = |cost: &Cost| Some(Bar { value: cost.nanos, high: Some(cost.nanos_max) });
        costs.iter().map(bar).collect()
    };
    let series = all.iter().zip(costs);
    let plot = Plot::Bars(Bars {
        title: "A committed transaction of 100 B, three replicas in one thread".into(),
        unit: "ns (whisker: dearest sample)".into(),
        groups: DEPTHS.map(|depth| format!("{depth} in flight")).into(),
        series: series.map(|(r, costs)| (r.name().into(), bars(costs))).collect(),
    });
    options.save("core", &results, &[plot])
}
