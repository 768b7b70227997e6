//! Three members of a replicated map in one thread: no socket, no disk, and a clock that moves when
//! nothing else does.
//! What a runtime does with an operating system, this does with vectors.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::mpsc::channel;

use zab_proto::{
    BadSnapshot, Config, ConnId, Incoming, Input, Instant, Member, Membership, MemoryStorage,
    NetOutput, Node, Phase, Recovered, Replicated, Sid, StateMachine,
};

/// The application. A command is `key=value`, its answer the value that was there.
#[derive(Debug, Default)]
struct Map(BTreeMap<String, String>);

impl StateMachine for Map {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        let command = String::from_utf8_lossy(command);
        let Some((key, value)) = command.split_once('=') else { return Vec::new() };
        self.0.insert(key.into(), value.into()).unwrap_or_default().into_bytes()
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|(key, value)| out.extend(format!("{key}={value}\n").bytes()));
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        let mut map = Self::default();
        state.split(|byte| *byte == b'\n').for_each(|line| drop(map.apply(line)));
        Ok(map)
    }
}

type Server = Node<Replicated<Map>>;
/// One end of a stream: whose it is, and its name there.
type End = (usize, ConnId);

struct Network {
    now: Instant,
    servers: Vec<(Server, MemoryStorage)>,
    streams: Vec<[End; 2]>,
    /// Bytes that have arrived and are not consumed.
    inboxes: HashMap<End, Vec<u8>>,
}

impl Network {
    fn new() -> Result<Self, Box<dyn Error>> {
        let mut ensemble = Membership::default();
        for n in 1..=3 {
            // Host, quorum port, election port.
            ensemble.members.insert(Sid(n), Member::parse(Sid(n), &format!("h:{}:{n}", 100 + n))?);
        }
        let mut servers = Vec::new();
        for sid in ensemble.members.keys() {
            let mut config = Config::new(*sid, ensemble.clone());
            config.trust_empty = true; // a new ensemble: its empty histories are the right ones
            let app = Replicated::new(Map::default(), config.seed);
            let node = Node::new(Instant::ZERO, config, Recovered::default(), app)?;
            servers.push((node, MemoryStorage::default()));
        }
        Ok(Self { now: Instant::ZERO, servers, streams: Vec::new(), inboxes: HashMap::new() })
    }

    /// Goes on until `done`. When nothing is left to do at this instant, the clock moves to the next
    /// deadline.
    fn run(&mut self, mut done: impl FnMut(&[(Server, MemoryStorage)]) -> bool) {
        loop {
            while self.step() {}
            if done(&self.servers) {
                return;
            }
            let deadlines = self.servers.iter().filter_map(|(node, _)| node.poll_timeout());
            self.now = deadlines.min().expect("a member always waits for something").max(self.now);
            for (node, _) in &mut self.servers {
                node.handle_input(self.now, Input::Timeout);
            }
        }
    }

    /// Does what each server wants now. False if that is nothing.
    fn step(&mut self) -> bool {
        let mut busy = false;
        for i in 0..self.servers.len() {
            loop {
                let (node, disk) = &mut self.servers[i];
                let Some(output) = node.poll_output(self.now, disk) else { break };
                self.carry_out(i, output);
                busy = true;
            }
            let (node, disk) = &mut self.servers[i];
            if let Some(persisted) = disk.persisted() {
                node.handle_input(self.now, persisted);
                busy = true;
            }
        }
        busy
    }

    fn carry_out(&mut self, i: usize, output: NetOutput) {
        match output {
            NetOutput::Connect { conn, channel, addresses } => {
                let port: usize = addresses[2..].parse().expect("as configured");
                let to = port % 100 - 1;
                let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1).into());
                let input = match self.servers[to].0.accept(self.now, channel, &incoming) {
                    Some(accepted) => {
                        self.streams.push([(i, conn), (to, accepted)]);
                        Input::Opened { conn }
                    }
                    None => Input::Closed { conn },
                };
                self.servers[i].0.handle_input(self.now, input);
            }
            NetOutput::Transmit(conn) => {
                let mut buf = [0; 4096];
                let Some(other) = self.other((i, conn)) else { return };
                loop {
                    let n = self.servers[i].0.poll_transmit(self.now, conn, &mut buf);
                    if n == 0 {
                        break;
                    }
                    self.inboxes.entry(other).or_default().extend(&buf[..n]);
                }
                self.offer(other);
            }
            NetOutput::Resume(conn) => self.offer((i, conn)),
            NetOutput::Close(conn, _) => {
                if let Some((to, conn)) = self.other((i, conn)) {
                    self.streams.retain(|stream| !stream.contains(&(to, conn)));
                    self.servers[to].0.handle_input(self.now, Input::Closed { conn });
                }
            }
            NetOutput::Became(_)
            | NetOutput::Reconfigured
            | NetOutput::AskOracle
            | NetOutput::Notice(..) => {}
        }
    }

    /// The other end of a stream.
    fn other(&self, end: End) -> Option<End> {
        let [a, b] = *self.streams.iter().find(|stream| stream.contains(&end))?;
        Some(if a == end { b } else { a })
    }

    fn offer(&mut self, end: End) {
        let Some(bytes) = self.inboxes.get_mut(&end) else { return };
        let (node, disk) = &mut self.servers[end.0];
        let used = node.handle_bytes(self.now, end.1, bytes, disk);
        bytes.drain(..used);
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut network = Network::new()?;
    network.run(|all| all.iter().all(|(node, _)| node.peer().status().phase == Phase::Broadcast));
    println!("the leader is {:?}", network.servers[0].0.peer().status().leader);

    // Each member writes, whoever leads.
    let now = network.now;
    let (answers, answer) = channel();
    for (node, _) in &mut network.servers {
        let answers = answers.clone();
        let command = format!("key={}", node.peer().config().sid);
        node.with(now, |app, core| {
            app.call(core, command.as_bytes(), move |answer| {
                let _ =
                    answers.send(answer.map(|value| String::from_utf8_lossy(value).into_owned()));
            });
        });
    }
    let mut replaced = Vec::new();
    network.run(|_| {
        replaced.extend(answer.try_iter());
        replaced.len() == 3
    });
    println!("the values replaced: {:?}", replaced.into_iter().collect::<Result<Vec<_>, _>>()?);

    // All have the same state, and a read after a sync is as new as any answer so far.
    let (seen, state) = channel();
    network.servers[2].0.with(network.now, |app, core| {
        app.sync(core, move |state| {
            let _ = seen.send(state.map(|map| map.0.clone()));
        });
    });
    let mut newest = None;
    network.run(|_| {
        newest = state.try_recv().ok();
        newest.is_some()
    });
    let state = newest.ok_or("no answer")??;
    assert!(network.servers.iter().all(|(node, _)| node.app().state().0 == state));
    println!("the state of all: {state:?}");
    Ok(())
}
