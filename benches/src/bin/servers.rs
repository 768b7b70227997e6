//! Whole servers side by side, three processes each, measured in one run.
//!
//! `cargo run --release -p benches --bin servers [-- --quick] [--out DIR] [KIND …]` with the kinds
//! `mio`, `smol`, `std` (ours), `zookeeper` and `etcd` (Debian's packages); all of them by default.
//! Needs `target/release/zabd`. With `--out` the results also go to `servers.json` and `servers.svg`
//! in that directory.

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use benches::ensemble::{Ensemble, Kind, Programs};
use benches::load::{self, Load, Mix, Outcome};
use benches::plot::{Bar, Bars, Plot, short};
use benches::report::{self, Options, rounded};
use benches::{Json, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How much is measured.
struct Size {
    starts: usize,
    failovers: usize,
    requests: u64,
    single: u64,
    nodes: u64,
}

const FULL: Size =
    Size { starts: 3, failovers: 6, requests: 200_000, single: 2_000, nodes: 200_000 };
const QUICK: Size = Size { starts: 1, failovers: 2, requests: 20_000, single: 300, nodes: 10_000 };

/// How long a single load, a start or a fail-over may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One result.
struct Figure {
    name: &'static str,
    value: f64,
    /// The value, or more than that.
    text: String,
}

impl Figure {
    fn number(name: &'static str, value: f64) -> Self {
        let digits = if value < 100.0 { 1 } else { 0 };
        Self { name, value, text: format!("{value:.digits$}") }
    }

    /// The median, with the range it lies in.
    fn spread(name: &'static str, values: Vec<f64>) -> Self {
        let (min, median, max) = report::spread(values);
        Self { name, value: median, text: format!("{median:.1} ({min:.1}–{max:.1})") }
    }
}

struct Column {
    kind: Kind,
    figures: Vec<Figure>,
}

const WRITES: &str = "writes/s, 9 × 128 in flight";
const READS: &str = "reads/s, 9 × 128 in flight";
const MIXED: &str = "90 % reads, requests/s";
const SINGLE: &str = "writes/s, one in flight";
const START: &str = "cold start to first committed write, ms";
const FAIL_OVER: &str = "leader killed to next committed write, ms";
const IDLE: &str = "resident memory idle, MB per server";
const FILLED: &str = "resident memory with the nodes created, MB per server";

fn main() -> Result<()> {
    let options = Options::from_args();
    let size = if options.quick { &QUICK } else { &FULL };
    let defaults = ["mio", "smol", "std", "zookeeper", "etcd"].map(String::from);
    let words = if options.words.is_empty() { &defaults[..] } else { &options.words };
    let programs = Programs {
        zabd: env::current_exe()?.with_file_name("zabd"),
        class_path: "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar".into(),
    };
    let dir = env::temp_dir().join(format!("zab-servers-{}", std::process::id()));
    let mut columns = Vec::new();
    for word in words {
        let kind = match word.as_str() {
            "zookeeper" => Kind::ZooKeeper,
            "etcd" => Kind::Etcd,
            runtime => Kind::Zabd(runtime.into()),
        };
        eprintln!("{kind} …");
        let figures = measure(&kind, &programs, &dir, size)?;
        columns.push(Column { kind, figures });
    }
    println!("{}", table(&columns));
    options.save("servers", &results(&columns), &plots(&columns))?;
    Ok(())
}

fn measure(kind: &Kind, programs: &Programs, dir: &Path, size: &Size) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..size.starts {
        let mut ensemble = Ensemble::new(kind.clone(), programs, dir, 3)?;
        (0..3).try_for_each(|i| ensemble.start(i))?;
        starts.push(millis(ensemble.first_write("/first", LIMIT)?));
    }
    figures.push(Figure::spread(START, starts));
    let mut ensemble = Ensemble::new(kind.clone(), programs, dir, 3)?;
    (0..3).try_for_each(|i| ensemble.start(i))?;
    ensemble.first_write("/first", LIMIT)?;
    std::thread::sleep(Duration::from_secs(2));
    figures.push(Figure::number(IDLE, megabytes(&ensemble)));
    loads(kind, &ensemble, size, &mut figures)?;
    let mut gaps = Vec::new();
    for round in 0..size.failovers {
        let leader = wait_for_leader(&ensemble)?;
        ensemble.kill(leader)?;
        gaps.push(millis(ensemble.first_write(&format!("/after-{round}"), LIMIT)?));
        ensemble.start(leader)?;
        std::thread::sleep(Duration::from_secs(2));
    }
    figures.push(Figure::spread(FAIL_OVER, gaps));
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn loads(kind: &Kind, ensemble: &Ensemble, size: &Size, figures: &mut Vec<Figure>) -> Result<()> {
    let run = |servers, mix, connections, in_flight, requests| -> Result<Outcome> {
        let wire = kind.wire();
        let load =
            Load { wire, mix, connections, in_flight, data_len: 100, requests, limit: LIMIT };
        let outcome = load::run(servers, load)?;
        // Every answer was looked at: the right record, and the right data in it. Errors do not
        // count as done; etcd gives some when it loses its leader under load.
        if outcome.errors > 0 {
            eprintln!("{kind}: {mix:?} has {} errors", outcome.errors);
        }
        Ok(outcome)
    };
    let servers = &ensemble.clients[..];
    let single = run(&servers[..1], Mix::Writes, 1, 1, size.single)?;
    figures.push(Figure::number(SINGLE, single.rate()));
    let latency = format!("{} / {}", single.percentile(50), single.percentile(99));
    let median = single.percentile(50) as f64;
    figures.push(Figure { name: "… p50 / p99, µs", value: median, text: latency });
    // Warm: the Java server compiles its hot paths meanwhile.
    run(servers, Mix::Mixed, 9, 128, size.requests / 4)?;
    for (name, cpu_name, mix, requests) in [
        (WRITES, "… processor time of all servers per write, µs", Mix::Writes, size.requests),
        (READS, "… processor time of all servers per read, µs", Mix::Reads, 2 * size.requests),
        (MIXED, "… processor time of all servers per request, µs", Mix::Mixed, size.requests),
        ("creates/s, 9 × 128 in flight", "… per create, µs", Mix::Creates, size.nodes),
    ] {
        let before = ensemble.cpu();
        let outcome = run(servers, mix, 9, 128, requests)?;
        let cpu = (ensemble.cpu() - before).as_secs_f64() * 1e6 / outcome.done as f64;
        figures.push(Figure::number(name, outcome.rate()));
        figures.push(Figure::number(cpu_name, cpu));
        if mix == Mix::Reads {
            let bytes = outcome.bytes as f64 / outcome.done as f64;
            figures.push(Figure::number("… bytes per answer", bytes));
        }
    }
    figures.push(Figure::number(FILLED, megabytes(ensemble)));
    Ok(())
}

fn wait_for_leader(ensemble: &Ensemble) -> Result<usize> {
    for _ in 0..600 {
        if let Some(leader) = ensemble.leader() {
            return Ok(leader);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("no leader within a minute".into())
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Of the largest server.
#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn megabytes(ensemble: &Ensemble) -> f64 {
    let kib = ensemble.memory_kib();
    kib.iter().max().copied().unwrap_or(0) as f64 / 1024.0
}

fn table(columns: &[Column]) -> String {
    let mut rows = vec![vec![String::from("three servers on loopback, 100 B")]];
    rows[0].extend(columns.iter().map(|column| column.kind.to_string()));
    let names = columns.first().map_or(0, |column| column.figures.len());
    for row in 0..names {
        let mut cells = vec![String::from(columns[0].figures[row].name)];
        cells.extend(columns.iter().map(|column| column.figures[row].text.clone()));
        rows.push(cells);
    }
    report::markdown(&rows)
}

fn results(columns: &[Column]) -> Json {
    let column = |column: &Column| {
        let figures = column.figures.iter();
        let figures = figures.map(|figure| {
            (figure.name, json!({ "value": rounded(figure.value), "text": figure.text }))
        });
        (column.kind.to_string(), figures.collect::<Json>())
    };
    columns.iter().map(column).collect()
}

fn plots(columns: &[Column]) -> Vec<Plot> {
    let plot = |title: &str, unit: &str, names: &[(&'static str, &str)]| {
        let bars = |column: &Column| {
            let bar = |name: &'static str| {
                let figure = column.figures.iter().find(|figure| figure.name == name)?;
                Some(Bar { value: figure.value, high: None })
            };
            let label = column.kind.to_string();
            (label, names.iter().map(|(name, _)| bar(name)).collect())
        };
        Plot::Bars(Bars {
            title: title.into(),
            unit: unit.into(),
            groups: names.iter().map(|(_, label)| (*label).into()).collect(),
            series: columns.iter().map(bars).collect(),
        })
    };
    let throughput =
        [(SINGLE, "writes, 1"), (WRITES, "writes"), (MIXED, "90 % reads"), (READS, "reads")];
    let nodes = format!("{} nodes", short(f64::from(200_000)));
    vec![
        plot("Requests of 100 B, 9 × 128 in flight (first group: one)", "per second", &throughput),
        plot("Unavailable, median", "ms", &[(START, "cold start"), (FAIL_OVER, "leader killed")]),
        plot("Memory of one server", "MB", &[(IDLE, "idle"), (FILLED, &nodes)]),
    ]
}
