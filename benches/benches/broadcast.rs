//! What replication costs: three real nodes on loopback in one process, on each runtime.
//!
//! `cargo bench -p benches --bench broadcast [-- --quick] [--out DIR] [RUNTIME …]` measures commits
//! and their latency on the leader, against the size of transactions and the number in flight, with
//! and without fsync. The leader's application makes the transactions: no clients are involved.
//! With `--out` the results also go to `broadcast.json` and `broadcast.svg` in that directory.

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use benches::flow::{self, Flowed, Job};
use benches::nodes::{Nodes, PATIENCE, Setting};
use benches::plot::{Bar, Bars, Plot, short};
use benches::report::{self, Options, Percentiles, rounded};
use benches::{Json, json};
use runtime_any::Runtime;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZES: [(usize, &str); 5] =
    [(0, "0 B"), (100, "100 B"), (1 << 10, "1 KiB"), (16 << 10, "16 KiB"), (1 << 20, "1 MiB")];

const DEPTHS: [usize; 4] = [1, 16, 128, 1024];

/// One cell of the result.
struct Cell {
    runtime: Runtime,
    fsync: bool,
    size: &'static str,
    depth: usize,
    rate: f64,
    /// Microseconds.
    latency: Percentiles,
    cpu_per_million: f64,
}

fn main() -> Result<()> {
    let options = Options::from_args();
    let wanted =
        |r: &Runtime| options.words.is_empty() || options.words.iter().any(|w| w == r.name());
    let span = Duration::from_millis(if options.quick { 50 } else { 300 });
    let mut cells = Vec::new();
    for fsync in [true, false] {
        for (len, size) in SIZES {
            for runtime in Runtime::ALL.iter().copied().filter(wanted) {
                let setting = Setting {
                    runtime,
                    nodes: 3,
                    early_finalize: true,
                    fsync,
                    prealloc_bytes: 64 << 20,
                };
                let mut ensemble = Nodes::new(setting)?;
                (0..3).try_for_each(|i| ensemble.start(i))?;
                let leader = flow::leader(&ensemble.wait_all()).ok_or("nobody leads")?;
                // The first run is for buffers to find their size.
                run(&ensemble, leader, len, 16, span / 5)?;
                for depth in DEPTHS {
                    let before = report::cpu();
                    let Ok(flowed) = run(&ensemble, leader, len, depth, span) else {
                        // What the leader had proposed is lost with it.
                        let name = runtime.name();
                        eprintln!("{name}, {size}, {depth} in flight: the leader was lost");
                        break;
                    };
                    let cpu = (report::cpu() - before).as_secs_f64();
                    cells.push(cell(setting, size, depth, &flowed, cpu));
                }
            }
        }
    }
    println!("{}", table(&cells));
    options.save("broadcast", &results(&cells), &plots(&cells))?;
    Ok(())
}

fn run(
    ensemble: &Nodes,
    leader: usize,
    payload_len: usize,
    depth: usize,
    span: Duration,
) -> Result<Flowed> {
    let (done, outcome) = channel();
    let job = Job { payload_len, depth, span, done };
    let handle = ensemble.handle(leader).ok_or("it does not run")?;
    handle.call(move |_, node| node.app_mut().begin(job));
    Ok(outcome.recv_timeout(PATIENCE / 4)?)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn cell(setting: Setting, size: &'static str, depth: usize, flowed: &Flowed, cpu: f64) -> Cell {
    let micros = flowed.latencies.iter().map(|latency| latency.as_secs_f64() * 1e6);
    Cell {
        runtime: setting.runtime,
        fsync: setting.fsync,
        size,
        depth,
        rate: flowed.commits as f64 / flowed.span.as_secs_f64(),
        latency: Percentiles::new(micros.collect()),
        cpu_per_million: cpu / flowed.commits as f64 * 1e6,
    }
}

fn sync(fsync: bool) -> &'static str {
    if fsync { "fsync" } else { "no fsync" }
}

fn table(cells: &[Cell]) -> String {
    let head = [
        "size",
        "in flight",
        "disk",
        "runtime",
        "commits/s",
        "p50 µs",
        "p99 µs",
        "max µs",
        "CPU s per 1 M",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    let place = |cell: &Cell| SIZES.iter().position(|(_, size)| *size == cell.size);
    let mut order: Vec<&Cell> = cells.iter().collect();
    order.sort_by_key(|cell| (!cell.fsync, place(cell), cell.depth));
    for cell in order {
        let latency = [cell.latency.p50, cell.latency.p99, cell.latency.max];
        let mut row: Vec<String> = vec![
            cell.size.into(),
            cell.depth.to_string(),
            sync(cell.fsync).into(),
            cell.runtime.name().into(),
            format!("{:.0}", cell.rate),
        ];
        row.extend(latency.map(|micros| format!("{micros:.0}")));
        row.push(format!("{:.2}", cell.cpu_per_million));
        rows.push(row);
    }
    report::markdown(&rows)
}

fn results(cells: &[Cell]) -> Json {
    let cell = |cell: &Cell| {
        json!({
            "size": cell.size,
            "in_flight": cell.depth,
            "disk": sync(cell.fsync),
            "runtime": cell.runtime.name(),
            "commits_per_s": rounded(cell.rate),
            "latency_us": cell.latency.json(),
            "cpu_s_per_million": rounded(cell.cpu_per_million),
        })
    };
    cells.iter().map(cell).collect()
}

fn plots(cells: &[Cell]) -> Vec<Plot> {
    let plot = |fsync: bool, depth: usize| {
        let bars = |runtime: Runtime| {
            let bar = |size: &str| {
                let is = |cell: &&Cell| {
                    cell.runtime == runtime
                        && cell.fsync == fsync
                        && cell.depth == depth
                        && cell.size == size
                };
                cells.iter().find(is).map(|cell| Bar { value: cell.rate, high: None })
            };
            (runtime.name().into(), SIZES.iter().map(|(_, size)| bar(size)).collect())
        };
        Plot::Bars(Bars {
            title: format!("Commits, {} in flight, {}", short(depth as f64), sync(fsync)),
            unit: "per second".into(),
            groups: SIZES.map(|(_, size)| size.into()).into(),
            series: Runtime::ALL.iter().copied().map(bars).collect(),
        })
    };
    [true, false].into_iter().flat_map(|fsync| DEPTHS.map(|depth| plot(fsync, depth))).collect()
}
