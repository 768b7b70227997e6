//! Whole servers side by side, three processes each, measured in one run.
//!
//! `cargo run --release -p benches --bin servers [-- --quick] [KIND …]` with the kinds `mio`,
//! `smol`, `std` (ours) and `zookeeper` (Debian's package). Needs `target/release/zabd`.

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use benches::ensemble::{Ensemble, Kind, Programs};
use benches::load::{self, Load, Mix, Outcome};
use benches::report;

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
    Size { starts: 5, failovers: 20, requests: 400_000, single: 5_000, nodes: 200_000 };
const QUICK: Size = Size { starts: 1, failovers: 3, requests: 20_000, single: 500, nodes: 10_000 };

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let size = if args.iter().any(|arg| arg == "--quick") { &QUICK } else { &FULL };
    let mut kinds: Vec<Kind> = args
        .iter()
        .filter(|arg| !arg.starts_with("--"))
        .map(|arg| match arg.as_str() {
            "zookeeper" => Kind::ZooKeeper,
            runtime => Kind::Zabd(runtime.into()),
        })
        .collect();
    if kinds.is_empty() {
        kinds = vec![Kind::Zabd("mio".into()), Kind::ZooKeeper];
    }
    let programs = Programs {
        zabd: env::current_exe()?.with_file_name("zabd"),
        class_path: "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar".into(),
    };
    let dir = env::temp_dir().join(format!("zab-servers-{}", std::process::id()));
    let mut columns = Vec::new();
    for kind in kinds {
        eprintln!("{kind} …");
        columns.push((kind.to_string(), measure(&kind, &programs, &dir, size)?));
    }
    println!("{}", table(&columns));
    Ok(())
}

/// One column: the name of a figure and its value.
fn measure(
    kind: &Kind,
    programs: &Programs,
    dir: &Path,
    size: &Size,
) -> Result<Vec<(&'static str, String)>> {
    let limit = Duration::from_secs(60);
    let mut figures = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..size.starts {
        let mut ensemble = Ensemble::new(kind.clone(), programs, dir, 3)?;
        (0..3).try_for_each(|i| ensemble.start(i))?;
        starts.push(millis(ensemble.first_write("/first", limit)?));
    }
    figures.push(("cold start to first committed write, ms", spread(starts)));

    let mut ensemble = Ensemble::new(kind.clone(), programs, dir, 3)?;
    (0..3).try_for_each(|i| ensemble.start(i))?;
    ensemble.first_write("/first", limit)?;
    std::thread::sleep(Duration::from_secs(2));
    figures.push(("resident memory idle, MB per server", megabytes(&ensemble)));

    let servers = ensemble.clients.clone();
    let load = |mix, connections, in_flight, requests| Load {
        mix,
        connections,
        in_flight,
        data_len: 100,
        requests,
        limit,
    };
    let single = load::run(&servers[..1], load(Mix::Writes, 1, 1, size.single))?;
    figures.push(("writes/s, one in flight", rate(&single)));
    figures.push(("… p50 / p99, µs", latency(&single)));
    // Warm: the Java server compiles its hot paths meanwhile.
    load::run(&servers, load(Mix::Mixed, 9, 128, size.requests / 4))?;
    let before = ensemble.cpu();
    let writes = load::run(&servers, load(Mix::Writes, 9, 128, size.requests))?;
    let cpu = (ensemble.cpu() - before).as_secs_f64() * 1e6;
    figures.push(("writes/s, 9 × 128 in flight", rate(&writes)));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    figures.push((
        "… processor time of all servers per write, µs",
        format!("{:.1}", cpu / writes.done as f64),
    ));
    let reads = load::run(&servers, load(Mix::Reads, 9, 128, 2 * size.requests))?;
    figures.push(("reads/s, 9 × 128 in flight", rate(&reads)));
    let mixed = load::run(&servers, load(Mix::Mixed, 9, 128, size.requests))?;
    figures.push(("90 % reads, requests/s", rate(&mixed)));
    let filled = load::run(&servers, load(Mix::Creates, 9, 128, size.nodes))?;
    assert_eq!(filled.errors, 0, "every create succeeds");
    figures.push(("creates/s, 9 × 128 in flight", rate(&filled)));
    figures.push(("resident memory with the nodes created, MB per server", megabytes(&ensemble)));

    let mut gaps = Vec::new();
    for round in 0..size.failovers {
        let leader = wait_for_leader(&ensemble)?;
        ensemble.kill(leader)?;
        gaps.push(millis(ensemble.first_write(&format!("/after-{round}"), limit)?));
        ensemble.start(leader)?;
        std::thread::sleep(Duration::from_secs(2));
    }
    figures.push(("leader killed to next committed write, ms", spread(gaps)));
    Ok(figures)
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

fn spread(values: Vec<f64>) -> String {
    let (min, median, max) = report::spread(values);
    format!("{median:.1} ({min:.1}–{max:.1})")
}

fn rate(outcome: &Outcome) -> String {
    format!("{:.0}", outcome.rate())
}

fn latency(outcome: &Outcome) -> String {
    format!("{} / {}", outcome.percentile(50), outcome.percentile(99))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn megabytes(ensemble: &Ensemble) -> String {
    let kib = ensemble.memory_kib();
    let largest = kib.iter().max().copied().unwrap_or(0);
    format!("{:.1}", largest as f64 / 1024.0)
}

fn table(columns: &[(String, Vec<(&'static str, String)>)]) -> String {
    let mut rows = vec![vec![String::from("three servers on loopback, 100 B")]];
    rows[0].extend(columns.iter().map(|(kind, _)| kind.clone()));
    let names = columns.first().map_or(0, |(_, figures)| figures.len());
    for row in 0..names {
        let mut cells = vec![String::from(columns[0].1[row].0)];
        cells.extend(columns.iter().map(|(_, figures)| figures[row].1.clone()));
        rows.push(cells);
    }
    report::markdown(&rows)
}
