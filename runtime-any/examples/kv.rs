//! A replicated key-value map: three members in one process, on the runtime that the command line
//! names (`mio`, `smol` or `std`). They write through each, stop the leader and go on.

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use runtime_any::{Runtime, Server};
use runtime_core::{Listen, Listeners, ServerOptions};
use zab_proto::{BadSnapshot, Config, Replicated, ServerState, Sid, StateMachine};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Debug, Default)]
struct Map {
    entries: BTreeMap<String, String>,
}

/// The map of one member.
fn member() -> Replicated<Map> {
    // Unique in the history: no member ever takes another one's write for its own.
    Replicated::new(Map::default(), RandomState::new().build_hasher().finish())
}

impl StateMachine for Map {
    /// Sets `key=value`.
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        if let Some((key, value)) = String::from_utf8_lossy(command).split_once('=') {
            self.entries.insert(key.to_owned(), value.to_owned());
        }
        Vec::new()
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.entries.iter().for_each(|(k, v)| out.extend(format!("{k}={v}\n").bytes()));
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        let mut map = Self::default();
        state.split(|byte| *byte == b'\n').for_each(|line| drop(map.apply(line)));
        Ok(map)
    }
}

/// How long a call waits before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A member, as the rest of its process sees it.
struct Replica(Server<Replicated<Map>>);

impl Replica {
    /// Returns when the write is committed.
    fn set(&self, key: &'static str, value: &'static str) -> Result<()> {
        let (done, committed) = channel();
        self.0.handle().call(move |now, node| {
            node.with(now, |map, core| {
                map.call(core, format!("{key}={value}").as_bytes(), move |answer| {
                    let _ = done.send(answer.map(|_| ())); // who has stopped waiting does not mind
                });
            });
        });
        Ok(committed.recv_timeout(PATIENCE)??)
    }

    /// What this member has, which may be older than what others have.
    fn get(&self, key: &'static str) -> Result<Option<String>> {
        let (answer, value) = channel();
        self.0.handle().call(move |_, node| {
            let _ = answer.send(node.app().state().entries.get(key).cloned());
        });
        Ok(value.recv_timeout(PATIENCE)?)
    }

    fn wait_for(&self, key: &'static str, value: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.get(key)?.as_deref() != Some(value) {
            if Instant::now() > until {
                return Err(format!("{key} is not {value}").into());
            }
        }
        Ok(())
    }

    fn is_leader(&self) -> bool {
        self.0.handle().status().get().is_some_and(|s| s.state == ServerState::Leading)
    }
}

#[cfg_attr(test, expect(dead_code, reason = "the test calls `run`"))]
fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "mio".to_owned());
    run(Runtime::from_name(&name).ok_or("there are: mio, smol, std")?)
}

pub(crate) fn run(runtime: Runtime) -> Result<()> {
    let name = format!("zab-kv-{}-{}", runtime.name(), std::process::id());
    let dir = std::env::temp_dir().join(name);
    let result = run_in(&dir, runtime);
    std::fs::remove_dir_all(&dir)?;
    result
}

/// Starts three members below `dir`, writes through each, stops the leader and goes on.
fn run_in(dir: &Path, runtime: Runtime) -> Result<()> {
    let mut replicas = start(dir, runtime)?;
    for (replica, key) in replicas.iter().zip(["red", "green", "blue"]) {
        replica.set(key, "1")?;
    }
    for replica in &replicas {
        for key in ["red", "green", "blue"] {
            replica.wait_for(key, "1")?;
        }
    }
    let leader = replicas.iter().position(Replica::is_leader).ok_or("nobody leads")?;
    drop(replicas.swap_remove(leader));
    let began = Instant::now();
    // A member that has not noticed yet drops the write, which may be repeated.
    while replicas[0].set("red", "2").is_err() {
        if began.elapsed() > PATIENCE {
            return Err("no new leader".into());
        }
    }
    println!("the leader stopped; the next write took {:?}", began.elapsed());
    replicas[1].wait_for("red", "2")
}

fn start(dir: &Path, runtime: Runtime) -> Result<Vec<Replica>> {
    let (ensemble, ports) = Listeners::local_ensemble(3)?;
    let mut replicas = Vec::new();
    for (sid, listeners) in (1..).map(Sid).zip(ports) {
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        replicas.push(Replica(runtime.start_on(listeners, options, member())?));
    }
    for replica in &replicas {
        if !replica.0.handle().wait_serving(PATIENCE) {
            return Err("no leader".into());
        }
    }
    Ok(replicas)
}
