//! Servers inside somebody else's event loop: one `Poll`, its own socket and timer, and a whole
//! ensemble of a replicated list, all on this one thread. The log is written in place, so nothing here
//! starts a thread.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use runtime_mio::{Driver, Listen, Listeners, NetOptions, ServerOptions};
use zab_proto::{BadSnapshot, Config, Phase, Replicated, Sid, StateMachine};
use zab_storage::Disk;

type Server = Driver<Replicated<List>, Disk>;
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What is replicated.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Vec<u8>>,
}

impl StateMachine for List {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.entries.push(command.to_vec());
        Vec::new()
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.entries.iter().for_each(|entry| out.extend([entry, &b"\n"[..]].concat()));
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        let lines = state.split_inclusive(|byte| *byte == b'\n');
        Ok(Self { entries: lines.map(|line| line.trim_ascii_end().to_vec()).collect() })
    }
}

/// The loop's own tokens. Each server is given a range of its own.
const STATUS: Token = Token(0);
const WAKER: Token = Token(1);
const TOKENS_PER_SERVER: usize = 1000;

/// The writes of this program, and the time between two of them.
const WRITES: usize = 20;
const PERIOD: Duration = Duration::from_millis(5);

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("zab-embed-{}", std::process::id()));
    let result = run(&dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &Path) -> Result<()> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut status = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    poll.registry().register(&mut status, STATUS, Interest::READABLE)?;
    println!("status at {}", status.local_addr()?);

    let mut servers = start(dir, &poll, &waker)?;
    let (mut next_write, mut written) = (Instant::now(), 0);
    let mut committing: Option<Receiver<()>> = None;
    let (mut events, until) = (Events::with_capacity(256), Instant::now() + PATIENCE);
    loop {
        for server in &mut servers {
            server.tick()?;
        }
        if committing.as_ref().is_some_and(|write| write.try_recv().is_ok()) {
            committing = None;
            written += 1;
        }
        let all_have = |server: &Server| server.node().app().state().entries.len() == WRITES;
        if written == WRITES && servers.iter().all(all_have) {
            println!("{WRITES} writes on {} servers", servers.len());
            return Ok(());
        }
        let now = Instant::now();
        if now > until {
            return Err("the writes did not get through".into());
        }
        if now >= next_write {
            next_write = now + PERIOD;
            if committing.is_none() && written < WRITES {
                committing = write(&servers[written % servers.len()], written);
            }
        }
        let deadlines = servers.iter().filter_map(Driver::deadline);
        let first = deadlines.fold(next_write, Instant::min);
        poll.poll(&mut events, Some(first.saturating_duration_since(Instant::now())))?;
        for event in &events {
            if event.token() == STATUS {
                tell(&status, &servers);
            }
            for server in servers.iter_mut().filter(|server| server.owns(event)) {
                server.ready(event);
            }
        }
    }
}

/// Begins a write through `server`, if it serves.
fn write(server: &Server, n: usize) -> Option<Receiver<()>> {
    if server.node().peer().status().phase != Phase::Broadcast {
        return None;
    }
    let (done, committed) = channel();
    server.handle().call(move |now, node| {
        node.with(now, |map, core| {
            map.call(core, format!("{n}").as_bytes(), move |answer| {
                if answer.is_ok() {
                    let _ = done.send(());
                }
            });
        });
    });
    Some(committed)
}

/// Answers whoever connects to the program's own port.
fn tell(listener: &TcpListener, servers: &[Server]) {
    while let Ok((mut stream, _)) = listener.accept() {
        for server in servers {
            // Who does not read a line or two is not served.
            let _ = writeln!(stream, "{:?}", server.node().peer().status());
        }
    }
}

fn start(dir: &Path, poll: &Poll, waker: &Arc<Waker>) -> Result<Vec<Server>> {
    let (ensemble, ports) = Listeners::local_ensemble(3)?;
    let mut servers = Vec::new();
    for (i, listeners) in ports.into_iter().enumerate() {
        let sid = Sid(i64::try_from(i)? + 1);
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        let ServerOptions { config, storage, .. } = options;
        let mut net = NetOptions::for_config(&config);
        net.connections_max = 100;
        let no_thread_wakes = Box::new(|| ());
        // Unique in the history: no member ever takes another one's command for its own.
        let app = Replicated::new(List::default(), RandomState::new().build_hasher().finish());
        let loaded = runtime_core::load(app, storage, true, no_thread_wakes)?;
        let first = (i + 1) * TOKENS_PER_SERVER;
        let tokens = first..first + TOKENS_PER_SERVER;
        servers.push(Driver::new(poll.registry(), waker, tokens, listeners, net, config, loaded)?);
    }
    Ok(servers)
}
