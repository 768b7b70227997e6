//! What TLS costs clients, of ours and of Apache's server, measured in one run.
//!
//! `cargo run --release -p benches --bin secure [-- --quick] [--out DIR] [KIND …]` with the kinds `mio`, `smol`, `std`
//! (ours) and `zookeeper` (Debian's package); `mio` and `zookeeper` by default. Needs `target/release/zabd`.
//!
//! Three servers have a port with TLS beside one without; loads on the two take turns, so that what else the machine does meets
//! both. The load and all servers share the machine: both ends of TLS are paid here.

use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::client::{Session, Wire};
use benches::ensemble::{Ensemble, Kind, Programs, free_ports};
use benches::load::{self, Load, Mix};
use benches::report::{self, Options};
use benches::{Json, json, secure};
use rustls::ClientConfig;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How much is measured.
struct Size {
    rounds: usize,
    requests: u64,
    single: u64,
    handshakes: usize,
}

const FULL: Size = Size { rounds: 3, requests: 20_000, single: 200, handshakes: 60 };
const QUICK: Size = Size { rounds: 1, requests: 5_000, single: 50, handshakes: 10 };
const LIMIT: Duration = Duration::from_secs(20);

/// What is measured, with its unit.
const ROWS: [&str; 7] = [
    "writes/s, 9 × 64 in flight",
    "reads/s, 9 × 64 in flight",
    "a write, median µs",
    "a write, 99 % µs",
    "a read, median µs",
    "a read, 99 % µs",
    "connections with a session/s",
];
/// Rows of which more is better.
const RATES: [usize; 3] = [0, 1, 6];

/// The rows' values, one for each round.
type Values = [Vec<f64>; ROWS.len()];

/// Results of one kind of server: without TLS and with it.
struct Pair {
    kind: Kind,
    plain: Values,
    tls: Values,
}

fn main() -> Result<()> {
    let options = Options::from_args();
    let size = if options.quick { &QUICK } else { &FULL };
    let defaults = ["mio", "zookeeper"].map(String::from);
    let words = if options.words.is_empty() { &defaults[..] } else { &options.words };
    let netty = ["handler", "buffer", "common", "transport", "codec", "resolver"]
        .iter()
        .chain(&["transport-native-epoll", "transport-native-unix-common"])
        .map(|part| format!(":/usr/share/java/netty-{part}.jar"));
    let class_path = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar";
    let programs = Programs {
        zabd: env::current_exe()?.with_file_name("zabd"),
        class_path: class_path.to_owned() + &netty.collect::<String>(),
    };
    let dir = env::temp_dir().join(format!("zab-secure-{}", std::process::id()));
    let mut pairs = Vec::new();
    for word in words {
        let kind = match word.as_str() {
            "zookeeper" => Kind::ZooKeeper,
            runtime => Kind::Zabd(runtime.into()),
        };
        eprintln!("{kind} …");
        pairs.push(measure(kind, &programs, &dir, size)?);
    }
    println!("{}", table(&pairs));
    options.save("secure", &results(&pairs), &[])?;
    Ok(())
}

fn measure(kind: Kind, programs: &Programs, dir: &Path, size: &Size) -> Result<Pair> {
    let ports = free_ports(3)?;
    let mut ensemble = Ensemble::with(kind.clone(), programs, dir, 3, |i| secure::lines(ports[i]))?;
    (0..3).try_for_each(|i| ensemble.start(i))?;
    ensemble.first_write("/first", Duration::from_secs(60))?;
    // The last of them may not serve yet.
    std::thread::sleep(Duration::from_secs(3));
    let tls = secure::client()?;
    let address = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
    let secured: Vec<SocketAddr> = ports.iter().map(address).collect();
    // The first load of each finds a server that is not warm.
    round(None, &ensemble.clients, &QUICK)?;
    round(Some(&tls), &secured, &QUICK)?;
    let mut pair = Pair { kind, plain: Values::default(), tls: Values::default() };
    for _ in 0..size.rounds {
        for (values, now) in pair.plain.iter_mut().zip(round(None, &ensemble.clients, size)?) {
            values.push(now);
        }
        for (values, now) in pair.tls.iter_mut().zip(round(Some(&tls), &secured, size)?) {
            values.push(now);
        }
    }
    Ok(pair)
}

/// One value for each row.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn round(
    tls: Option<&Arc<ClientConfig>>,
    servers: &[SocketAddr],
    size: &Size,
) -> Result<[f64; ROWS.len()]> {
    let run = |servers, mix, connections, in_flight, requests| -> Result<_> {
        let wire = Wire::ZooKeeper;
        let load =
            Load { wire, mix, connections, in_flight, data_len: 100, requests, limit: LIMIT };
        let outcome = load::run_over(tls, servers, load)?;
        if outcome.errors > 0 {
            return Err(format!("{mix:?}: {} errors", outcome.errors).into());
        }
        Ok(outcome)
    };
    let writes = run(servers, Mix::Writes, 9, 64, size.requests)?;
    let reads = run(servers, Mix::Reads, 9, 64, 2 * size.requests)?;
    let write = run(&servers[..1], Mix::Writes, 1, 1, size.single)?;
    let read = run(&servers[..1], Mix::Reads, 1, 1, 4 * size.single)?;
    let begin = Instant::now();
    for at in 0..size.handshakes {
        let addr = servers[at % servers.len()];
        Session::open_over(tls, Wire::ZooKeeper, addr, Duration::from_secs(10))?;
    }
    let handshakes = size.handshakes as f64 / begin.elapsed().as_secs_f64();
    let at = |outcome: &load::Outcome, percent| outcome.percentile(percent) as f64;
    let (write, read) = ([at(&write, 50), at(&write, 99)], [at(&read, 50), at(&read, 99)]);
    let [[write_50, write_99], [read_50, read_99]] = [write, read];
    Ok([writes.rate(), reads.rate(), write_50, write_99, read_50, read_99, handshakes])
}

fn median(values: &[f64]) -> f64 {
    report::spread(values.to_vec()).1
}

/// How much worse the second is: 1 for the same.
fn cost(row: usize, plain: f64, tls: f64) -> f64 {
    if RATES.contains(&row) { plain / tls } else { tls / plain }
}

fn table(pairs: &[Pair]) -> String {
    let mut head = vec!["median of the rounds".to_owned()];
    for Pair { kind, .. } in pairs {
        head.extend([kind.to_string(), "with TLS".into(), "cost".into()]);
    }
    let mut rows = vec![head];
    for (row, name) in ROWS.iter().enumerate() {
        let mut cells = vec![(*name).to_owned()];
        for pair in pairs {
            let (plain, tls) = (median(&pair.plain[row]), median(&pair.tls[row]));
            cells.extend([format!("{plain:.0}"), format!("{tls:.0}")]);
            cells.push(format!("{:.2}×", cost(row, plain, tls)));
        }
        rows.push(cells);
    }
    report::markdown(&rows)
}

fn results(pairs: &[Pair]) -> Json {
    let of = |values: &Values| -> Json {
        let all = |values: &Vec<f64>| {
            values.iter().map(|value| report::rounded(*value)).collect::<Json>()
        };
        ROWS.iter().zip(values).map(|(name, values)| (*name, all(values))).collect()
    };
    let pair = |pair: &Pair| {
        (pair.kind.to_string(), json!({ "plain": of(&pair.plain), "tls": of(&pair.tls) }))
    };
    pairs.iter().map(pair).collect()
}
