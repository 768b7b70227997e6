//! What servers weigh: binaries, memory with idle clients, threads, and allocations per write.
//!
//! `cargo run --release -p benches --bin footprint [-- --quick] [--out DIR]`. Needs
//! `target/release/zabd` and, for the minimal embedder, `target/small/examples/minimal` (see there).

use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use benches::Json;
use benches::alloc;
use benches::client::{Session, Wire};
use benches::ensemble::{Ensemble, Kind, Programs, free_ports};
use benches::load::{self, Load, Mix};
use benches::report::{self, Options, rounded};
use runtime_any::Runtime;
use runtime_core::{Listen, Listeners, ServerOptions};
use zab_proto::{Channel, Config, Sid};
use zk_service::{Service, ServiceOptions};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    if env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let options = Options::from_args();
    let dir = env::temp_dir().join(format!("zab-footprint-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut figures = Vec::new();
    binaries(&mut figures)?;
    let most = if options.quick { 1_000 } else { 10_000 };
    // Two threads for each session are more than many a system allows.
    for (runtime, most) in [("mio", most), ("smol", most), ("std", most / 10)] {
        eprintln!("zabd ({runtime}) …");
        clients(&dir, runtime, most, &mut figures)?;
    }
    eprintln!("minimal embedder …");
    embedder(&dir, &mut figures)?;
    allocations(&dir, if options.quick { 10_000 } else { 100_000 }, &mut figures)?;
    fs::remove_dir_all(&dir)?;
    let mut rows = vec![vec![String::from("footprint"), String::new()]];
    let text = |name: &str, value: f64| {
        let digits = if name.contains("threads") { 0 } else { 2 };
        format!("{value:.digits$}")
    };
    rows.extend(figures.iter().map(|(name, value)| vec![name.clone(), text(name, *value)]));
    println!("{}", report::markdown(&rows));
    let json = figures.into_iter().map(|(name, value)| (name, rounded(value)));
    options.save("footprint", &json.collect::<Json>(), &[])?;
    Ok(())
}

type Figures = Vec<(String, f64)>;

fn target() -> Result<std::path::PathBuf> {
    let release = env::current_exe()?;
    let target = release.ancestors().nth(2).ok_or("no target directory")?;
    Ok(target.into())
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn binaries(figures: &mut Figures) -> Result<()> {
    for path in ["release/zabd", "small/zabd", "small/examples/minimal"] {
        if let Ok(metadata) = fs::metadata(target()?.join(path)) {
            figures.push((format!("size of {path}, MB"), metadata.len() as f64 / 1e6));
        }
    }
    Ok(())
}

/// Memory and threads of the fullest of three servers, with sessions on it.
fn clients(dir: &Path, runtime: &str, most: usize, figures: &mut Figures) -> Result<()> {
    let programs = Programs { zabd: target()?.join("release/zabd"), class_path: String::new() };
    let mut ensemble = Ensemble::new(Kind::Zabd(runtime.into()), &programs, dir, 3)?;
    (0..3).try_for_each(|i| ensemble.start(i))?;
    ensemble.first_write("/first", LIMIT)?;
    thread::sleep(Duration::from_secs(1));
    let pids: Vec<u32> = ensemble.pids().collect();
    let name = format!("zabd ({runtime})");
    figures.push((format!("{name}, threads"), status(pids[0], "Threads:")));
    figures.push((format!("{name}, resident idle, MB"), status(pids[0], "VmRSS:") / 1024.0));
    // The rest is the program's file and its libraries, as far as they are mapped.
    let own = status(pids[0], "RssAnon:") / 1024.0;
    figures.push((format!("{name}, of that its own, MB"), own));
    let mut sessions = Vec::new();
    for count in [1, 100, most] {
        while sessions.len() < count {
            sessions.push(Session::open(Wire::ZooKeeper, ensemble.clients[0], LIMIT)?);
        }
        let name = format!("{name}, resident with {count} sessions, MB");
        figures.push((name, status(pids[0], "VmRSS:") / 1024.0));
    }
    figures.push((format!("{name}, threads with {most} sessions"), status(pids[0], "Threads:")));
    Ok(())
}

/// A number of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// Child processes, ended with their owner.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Three minimal embedders.
fn embedder(dir: &Path, figures: &mut Figures) -> Result<()> {
    let program = target()?.join("small/examples/minimal");
    if !program.exists() {
        return Ok(());
    }
    let ports = free_ports(6)?;
    let member = |i: usize| format!("{}=127.0.0.1:{}:{}", i + 1, ports[2 * i], ports[2 * i + 1]);
    let members: Vec<String> = (0..3).map(member).collect();
    let mut children = Children(Vec::new());
    for i in 0..3 {
        let data = dir.join(format!("minimal-{i}"));
        fs::create_dir_all(&data)?;
        let mut command = Command::new(&program);
        command.arg((i + 1).to_string()).arg(data).args(&members);
        children.0.push(command.spawn()?);
    }
    thread::sleep(Duration::from_secs(1));
    let pid = children.0[0].id();
    figures.push(("minimal embedder, threads".into(), status(pid, "Threads:")));
    figures.push(("minimal embedder, resident, MB".into(), status(pid, "VmRSS:") / 1024.0));
    Ok(())
}

/// Allocations of three whole servers in one other process, per write of a client.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn allocations(dir: &Path, writes: u64, figures: &mut Figures) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("serve").arg(dir.join("serve")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut asks = child.stdin.take().ok_or("no pipe")?;
    let mut answers = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let _children = Children(vec![child]);
    let mut line = || -> Result<String> { Ok(answers.next().ok_or("it has ended")??) };
    let servers: Vec<SocketAddr> =
        line()?.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let mut count = || -> Result<f64> {
        asks.write_all(b"\n")?;
        Ok(line()?.parse()?)
    };
    for (name, connections, in_flight, part) in
        [("one in flight", 1, 1, 20), ("9 × 128 in flight", 9, 128, 1)]
    {
        let load = Load {
            wire: Wire::ZooKeeper,
            mix: Mix::Writes,
            connections,
            in_flight,
            data_len: 100,
            requests: writes / part,
            limit: LIMIT,
        };
        // The first run is for buffers to find their size.
        load::run(&servers, load)?;
        let before = count()?;
        let outcome = load::run(&servers, load)?;
        let each = (count()? - before) / outcome.done as f64;
        figures.push((format!("allocations of three servers per setData, {name}"), each));
    }
    Ok(())
}

/// Three servers in this process. Says where they are, then, for every line, how many allocations
/// there were.
fn serve() -> Result<()> {
    let dir = env::args().nth(2).ok_or("no directory")?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (ensemble, mut bound) = Listeners::local_ensemble(3)?;
    let mut config = Config::new(Sid(0), ensemble);
    config.trust_empty = true;
    let mut clients = Vec::new();
    for listeners in &mut bound {
        clients.push(listeners.add(Channel::Client, any, None)?.to_string());
    }
    let mut servers = Vec::new();
    for (sid, listeners) in (1..).map(Sid).zip(bound) {
        let mut config = config.clone();
        config.sid = sid;
        let data = Path::new(&dir).join(sid.to_string());
        fs::create_dir_all(&data)?;
        let options = ServerOptions::new(config, Listen::default(), data);
        let service = Service::new(ServiceOptions::default().with(|options| {
            options.session_server_id = sid.0;
            options.max_client_cnxns = 0;
        }));
        servers.push(Runtime::Mio.start_on(listeners, options, service)?);
    }
    for server in &servers {
        if !server.handle().wait_serving(LIMIT) {
            return Err("it does not serve".into());
        }
    }
    println!("{}", clients.join(" "));
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", alloc::count());
    }
    Ok(())
}
