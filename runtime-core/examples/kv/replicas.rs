//! Three members of the map in one process, on the runtime that the including example names.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use zab_proto::{Channel, Config, Ensemble, Member, Replicated, ServerState, Sid};

use super::map::{Map, member};
use super::runtime::{Listen, Listeners, Server, ServerOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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

/// Starts three members below `dir`, writes through each, stops the leader and goes on.
pub(crate) fn run(dir: &Path) -> Result<()> {
    let mut replicas = start(dir)?;
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

fn start(dir: &Path) -> Result<Vec<Replica>> {
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
    let mut replicas = Vec::new();
    for (sid, listeners) in bound {
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        replicas.push(Replica(Server::start_on(listeners, options, member())?));
    }
    for replica in &replicas {
        if !replica.0.handle().wait_serving(PATIENCE) {
            return Err("no leader".into());
        }
    }
    Ok(replicas)
}
