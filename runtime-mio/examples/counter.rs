//! Three members in one process, with sockets and disks: each adds to one replicated number.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc::channel;
use std::time::Duration;

use runtime_mio::{Listen, Listeners, Server, ServerOptions};
use zab_proto::{BadSnapshot, Config, Replicated, StateMachine};

struct Sum(u64);

impl StateMachine for Sum {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.0 += command.len() as u64;
        self.0.to_be_bytes().to_vec()
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        state.try_into().map(|bytes| Self(u64::from_be_bytes(bytes))).map_err(|_| BadSnapshot)
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("zab-counter-{}", std::process::id()));
    let (ensemble, ports) = Listeners::local_ensemble(3)?;
    let mut members = Vec::new();
    for (&sid, ports) in ensemble.members.keys().zip(ports) {
        let mut config = Config::new(sid, ensemble.clone());
        config.trust_empty = true; // a new ensemble: its empty directories are the right ones
        let options = ServerOptions::new(config, Listen::default(), dir.join(sid.to_string()));
        let app = Replicated::new(Sum(0), RandomState::new().build_hasher().finish());
        members.push(Server::start_on(ports, options, app)?);
    }
    for member in &members {
        assert!(member.handle().wait_serving(Duration::from_secs(30)), "no leader");
        let (done, answer) = channel();
        member.handle().call(move |now, node| {
            node.with(now, |app, core| {
                app.call(core, b"three", move |sum| drop(done.send(sum.map(<[u8]>::to_vec))));
            });
        });
        println!("{:?}", answer.recv()??); // 5, 10, 15
    }
    drop(members);
    Ok(std::fs::remove_dir_all(dir)?)
}
