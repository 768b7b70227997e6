//! Servers inside somebody else's event loop: one `Poll`, its own socket and timer, and a whole
//! ensemble of the replicated map of `runtime-core/examples/kv`, all on this one thread. The log is
//! written in place, so nothing here starts a thread.

#[path = "../../runtime-core/examples/kv/map.rs"]
mod map;

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use map::{Map, member};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use runtime_mio::{Driver, Listen, Listeners, NetOptions, ServerOptions};
use zab_proto::{Channel, Config, Ensemble, Member, Phase, Replicated, Sid};
use zab_storage::Disk;

type Server = Driver<Replicated<Map>, Disk>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
            map.call(core, format!("{n}=x").as_bytes(), move |answer| {
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
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (mut ensemble, mut bound) = (Ensemble::default(), Vec::new());
    for sid in (1..=3).map(Sid) {
        let mut listeners = Listeners::default();
        let quorum = listeners.add(Channel::Quorum, any_port, None)?.port();
        let election = listeners.add(Channel::Election, any_port, None)?.port();
        let member = Member::parse(sid, &format!("127.0.0.1:{quorum}:{election}"))?;
        ensemble.members.insert(sid, member);
        bound.push((sid, listeners));
    }
    let mut servers = Vec::new();
    for (i, (sid, listeners)) in bound.into_iter().enumerate() {
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        let ServerOptions { config, storage, .. } = options;
        let mut net = NetOptions::for_config(&config);
        net.connections_max = 100;
        let no_thread_wakes = Box::new(|| ());
        let loaded = runtime_core::load(member(), storage, true, no_thread_wakes)?;
        let first = (i + 1) * TOKENS_PER_SERVER;
        let tokens = first..first + TOKENS_PER_SERVER;
        servers.push(Driver::new(poll.registry(), waker, tokens, listeners, net, config, loaded)?);
    }
    Ok(servers)
}
