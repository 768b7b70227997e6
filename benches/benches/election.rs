//! How long an ensemble takes to agree: real nodes on loopback in one process, on each runtime.
//!
//! `cargo bench -p benches --bench election [-- --quick] [--out DIR] [RUNTIME …]` measures cold
//! starts (until every member has decided, and until the first commit) and the abrupt loss of the
//! leader (until the next one serves, and until its first commit). With `--out` the results also
//! go to `election.json` and `election.svg` in that directory.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use benches::flow::{self, Progress};
use benches::nodes::{Nodes, PATIENCE, Setting};
use benches::plot::{Distributions, Panel, Plot};
use benches::report::{self, Options, Percentiles, rounded};
use benches::{Json, json};
use runtime_any::Runtime;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Pause between two starts of a staggered cold start.
const STAGGER: Duration = Duration::from_millis(3);

/// How often each thing is measured.
struct Rounds {
    nodes: usize,
    cold: usize,
    failover: usize,
}

const EARLY: [Rounds; 4] = [
    Rounds { nodes: 3, cold: 50, failover: 200 },
    Rounds { nodes: 5, cold: 20, failover: 60 },
    Rounds { nodes: 7, cold: 10, failover: 30 },
    Rounds { nodes: 9, cold: 10, failover: 20 },
];

const WAITING: [Rounds; 4] = [
    Rounds { nodes: 3, cold: 5, failover: 20 },
    Rounds { nodes: 5, cold: 3, failover: 5 },
    Rounds { nodes: 7, cold: 3, failover: 5 },
    Rounds { nodes: 9, cold: 3, failover: 5 },
];

/// One line of the result.
struct Line {
    setting: Setting,
    what: &'static str,
    /// Milliseconds, one per round.
    times: Vec<f64>,
}

fn main() -> Result<()> {
    let options = Options::from_args();
    let wanted =
        |r: &Runtime| options.words.is_empty() || options.words.iter().any(|w| w == r.name());
    let runtimes: Vec<Runtime> = Runtime::ALL.iter().copied().filter(wanted).collect();
    let mut lines = Vec::new();
    for (early_finalize, fsync, table) in
        [(true, true, &EARLY[..]), (true, false, &EARLY[..1]), (false, true, &WAITING[..])]
    {
        for rounds in table {
            // The runtimes in turns: what disturbs the machine disturbs all alike.
            for &runtime in &runtimes {
                let nodes = rounds.nodes;
                let setting =
                    Setting { runtime, nodes, early_finalize, fsync, prealloc_bytes: 1 << 20 };
                let part = if options.quick { 10 } else { 1 };
                cold(setting, rounds.cold.div_ceil(part), &mut lines)?;
                failover(setting, rounds.failover.div_ceil(part), &mut lines)?;
            }
        }
    }
    println!("{}", table(&lines, &runtimes));
    options.save("election", &results(&lines), &plots(&lines))?;
    Ok(())
}

fn cold(setting: Setting, rounds: usize, lines: &mut Vec<Line>) -> Result<()> {
    for (stagger, decided_name, commit_name) in [
        (None, DECIDED, COLD_COMMIT),
        (Some(STAGGER), "cold start staggered: all decided", "cold start staggered: first commit"),
    ] {
        let (mut decided, mut commits) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut ensemble = Nodes::new(setting)?;
            let begin = Instant::now();
            for i in 0..setting.nodes {
                ensemble.start(i)?;
                stagger.into_iter().for_each(thread::sleep);
            }
            let members = ensemble.wait_all();
            let last = members.iter().filter_map(|own| own.decided).max();
            decided.push(since(begin, last)?);
            // The first to deliver is the leader.
            commits.push(since(begin, members.iter().filter_map(|own| own.delivered).min())?);
        }
        lines.push(Line { setting, what: decided_name, times: decided });
        lines.push(Line { setting, what: commit_name, times: commits });
    }
    Ok(())
}

fn failover(setting: Setting, rounds: usize, lines: &mut Vec<Line>) -> Result<()> {
    let mut ensemble = Nodes::new(setting)?;
    (0..setting.nodes).try_for_each(|i| ensemble.start(i))?;
    let (mut elected, mut serves, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let members = ensemble.wait_all();
        let old = flow::leader(&members).ok_or("nobody leads")?;
        let begin = Instant::now();
        ensemble.stop(old);
        let next = |members: &[Progress]| {
            let others = members.iter().enumerate().filter(|(i, _)| *i != old);
            others.map(|(_, own)| own).find(|own| own.is_leading_since(begin)).copied()
        };
        let led = |members: &[Progress]| next(members).is_some_and(|own| own.delivered.is_some());
        let members = ensemble.board.wait(PATIENCE, led).ok_or("no next leader")?;
        let leader = next(&members).ok_or("it has gone")?;
        elected.push(since(begin, leader.decided)?);
        serves.push(since(begin, leader.serves)?);
        commits.push(since(begin, leader.delivered)?);
        ensemble.start(old)?;
    }
    for (what, times) in [(ELECTED, elected), (SERVES, serves), (NEXT_COMMIT, commits)] {
        lines.push(Line { setting, what, times });
    }
    Ok(())
}

const DECIDED: &str = "cold start: all decided";
const COLD_COMMIT: &str = "cold start: first commit";
const ELECTED: &str = "leader lost: next elected";
const SERVES: &str = "leader lost: next serves";
const NEXT_COMMIT: &str = "leader lost: next commit";

/// Milliseconds.
fn since(begin: Instant, end: Option<Instant>) -> Result<f64> {
    let end = end.ok_or("it has not happened")?;
    Ok(end.saturating_duration_since(begin).as_secs_f64() * 1e3)
}

fn mode(setting: &Setting) -> &'static str {
    match (setting.early_finalize, setting.fsync) {
        (true, true) => "early",
        (true, false) => "early, no fsync",
        (false, _) => "waiting 200 ms",
    }
}

/// A row per thing measured, a column per runtime.
fn table(lines: &[Line], runtimes: &[Runtime]) -> String {
    let mut rows =
        vec![["ms: p50 / p90 / p99 / max", "finalising", "nodes"].map(String::from).to_vec()];
    rows[0].extend(runtimes.iter().map(|runtime| String::from(runtime.name())));
    let first = |line: &&Line| runtimes.first() == Some(&line.setting.runtime);
    let mut order: Vec<&Line> = lines.iter().filter(first).collect();
    order.sort_by_key(|line| {
        (!line.setting.early_finalize, !line.setting.fsync, line.what, line.setting.nodes)
    });
    for Line { setting, what, times } in order {
        let mut row = vec![
            format!("{what}, {} rounds", times.len()),
            mode(setting).into(),
            setting.nodes.to_string(),
        ];
        for runtime in runtimes {
            let setting = Setting { runtime: *runtime, ..*setting };
            let line = lines.iter().find(|line| line.setting == setting && line.what == *what);
            row.push(line.map_or_else(String::new, |Line { times, .. }| {
                let times = Percentiles::new(times.clone());
                let times = [times.p50, times.p90, times.p99, times.max];
                times.map(|ms| format!("{ms:.1}")).join(" / ")
            }));
        }
        rows.push(row);
    }
    report::markdown(&rows)
}

fn results(lines: &[Line]) -> Json {
    let line = |Line { setting, what, times }: &Line| {
        json!({
            "what": what,
            "finalising": mode(setting),
            "nodes": setting.nodes,
            "runtime": setting.runtime.name(),
            "ms": Percentiles::new(times.clone()).json(),
            "rounds_ms": times.iter().copied().map(rounded).collect::<Json>(),
        })
    };
    lines.iter().map(line).collect()
}

/// A row for each thing measured and each way of finalising, a panel per size of the ensemble, a
/// curve per runtime.
fn plots(lines: &[Line]) -> Vec<Plot> {
    let plot = |what: &str, wanted: &str| {
        let panel = |nodes: usize| {
            let of = |runtime: Runtime| {
                let is = |line: &&Line| {
                    line.what == what
                        && mode(&line.setting) == wanted
                        && line.setting.nodes == nodes
                        && line.setting.runtime == runtime
                };
                Some((runtime.name().into(), lines.iter().find(is)?.times.clone()))
            };
            let series = Runtime::ALL.iter().copied().filter_map(of).collect();
            Panel { name: format!("{nodes} members"), series }
        };
        Plot::Distributions(Distributions {
            title: format!("{what} (finalising: {wanted})"),
            unit: "share of rounds by time, ms".into(),
            panels: [3, 5, 7, 9].map(panel).into(),
        })
    };
    let mut plots = Vec::new();
    for mode in ["early", "waiting 200 ms"] {
        plots.extend(
            [DECIDED, COLD_COMMIT, ELECTED, SERVES, NEXT_COMMIT].map(|what| plot(what, mode)),
        );
    }
    plots
}
