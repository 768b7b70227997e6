//! Local sessions under random losses of leaders and links: each write is carried out once, and answered with what
//! became of it and not of another. Clients number their requests 2, 1, 2, 1 and so on, so that the transaction of a
//! request from an earlier connection would be taken for the answer if it could be.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, request, string};
use zab_proto::Phase;
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const PING: i32 = Opcode::Ping.wire();
const TICK: Duration = Duration::from_millis(500);
const TIMEOUT_MS: i32 = 4_000;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }
}

/// A client that comes back to its server with its session, or begins another when that is over.
struct Person {
    name: usize,
    server: usize,
    conn: Option<Client>,
    greeted: bool,
    session: Option<(i64, [u8; 16])>,
    xid: i32,
    asked: usize,
    /// Numbers of requests and paths that are not answered on this connection.
    pending: Vec<(i32, String)>,
    done: Vec<String>,
    /// Sessions that were said to be over.
    over: usize,
}

impl Person {
    fn new(name: usize, server: usize) -> Self {
        let (conn, session) = (None, None);
        let (greeted, xid, asked, over) = (false, 0, 0, 0);
        let (pending, done) = (Vec::new(), Vec::new());
        Self { name, server, conn, greeted, session, xid, asked, pending, done, over }
    }

    fn lose(&mut self) {
        (self.conn, self.greeted, self.xid) = (None, false, 0);
        self.pending.clear();
    }

    /// Reads what has come.
    fn read(&mut self, world: &mut World) {
        let Some(client) = self.conn else { return };
        while let Some(frame) = world.frame(client) {
            if !self.greeted {
                let session = i64::from_be_bytes(frame[8..16].try_into().expect("eight"));
                if session == 0 {
                    self.session = None;
                    self.over += 1;
                    self.lose();
                    return;
                }
                let known = self.session.is_none_or(|(own, _)| own == session);
                assert!(known, "{}: another session", self.name);
                self.session = Some((session, frame[20..36].try_into().expect("sixteen")));
                self.greeted = true;
                continue;
            }
            let (xid, _, code, body) = reply(&frame);
            if xid == -2 {
                continue;
            }
            let (expected, path) = self.pending.remove(0);
            assert_eq!((xid, code), (expected, 0), "{}: {path}", self.name);
            assert_eq!(body, string(&path), "{}: the answer to another request", self.name);
            self.done.push(path);
        }
        if world.has_ended(client) {
            self.lose();
        }
    }

    /// Asks for something, or comes back.
    fn act(&mut self, world: &mut World, random: &mut Random) {
        let Some(client) = self.conn else {
            let Some(client) = world.connect(self.server) else { return };
            self.conn = Some(client);
            let (session, password) = self.session.unwrap_or_default();
            world.send(client, &Connect::again(TIMEOUT_MS, session, password).to_vec());
            return self.read(world);
        };
        if !self.greeted {
            return;
        }
        match random.below(12) {
            0 | 1 => {
                world.hang_up(client);
                self.lose();
            }
            2 | 3 => world.send(client, &request(-2, PING, &[])),
            what => {
                self.xid = 3 - self.xid.max(1);
                self.asked += 1;
                let flags = i32::from(what == 4);
                let kind = if flags == 0 { "c" } else { "e" };
                let path = format!("/{kind}{}-{}", self.name, self.asked);
                self.pending.push((self.xid, path.clone()));
                world.send(client, &request(self.xid, CREATE, &create(&path, b"", flags)));
            }
        }
        self.read(world);
    }
}

fn all_serve(world: &World) -> bool {
    world.nodes.iter().all(|node| node.peer().status().phase == Phase::Broadcast)
}

/// How much a run has shown.
#[derive(Debug, Default)]
struct Shown {
    done: usize,
    over: usize,
    epochs: i64,
    upgraded: usize,
}

fn run(seed: u64) -> Shown {
    let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let options = ServiceOptions::default().with(|options| {
        options.tick_time = TICK;
        options.max_client_cnxns = 0;
        options.local_sessions = true;
        options.local_sessions_upgrading = true;
    });
    let mut world = World::ensemble(3, 1, &options);
    let mut people: Vec<Person> = (0..8).map(|name| Person::new(name, name % 4)).collect();
    let mut upgraded = 0;
    // Steps until links that stand still for a moment go on: nobody has noticed it.
    let mut moment = 0;
    for _ in 0..300 {
        moment -= i32::from(moment > 0);
        if moment == 1 {
            world.heal();
        }
        let pair = (random.below(4), random.below(4));
        let what = if moment > 0 { 20 } else { random.below(20) };
        match what {
            0 => world.cut.push(pair),
            1 => world.part(pair.0, pair.1),
            2 => {
                // Who does not hear the leader any more, and comes back to it.
                world.cut.push(pair);
                world.part(pair.0, pair.1);
            }
            3 | 4 => world.heal(),
            5 => world.disks[pair.0].stalled = true,
            6 | 7 => world.disks.iter_mut().for_each(|disk| disk.stalled = false),
            8..12 => {
                let leader = (0..3).find(|server| world.leads(*server)).unwrap_or_default();
                world.cut.extend((0..4).map(|server| (server, leader)));
                moment = 8;
            }
            12 => world.pass(Duration::from_millis(random.below(2_000) as u64)),
            _ => world.pass(Duration::from_millis(random.below(40) as u64)),
        }
        world.run();
        for person in &mut people {
            person.read(&mut world);
            person.act(&mut world, random);
        }
        upgraded = upgraded.max(world.service(3).database().sessions.len());
    }
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.heal();
    for _ in 0..400 {
        world.pass(Duration::from_millis(50));
        people.iter_mut().for_each(|person| person.read(&mut world));
        if all_serve(&world) && people.iter().all(|person| person.pending.is_empty()) {
            break;
        }
    }
    world.pass(Duration::from_secs(1));
    judge(&world, &people, seed);
    Shown {
        done: people.iter().map(|person| person.done.len()).sum(),
        over: people.iter().map(|person| person.over).sum(),
        epochs: world.nodes[0].peer().last_zxid().epoch().0,
        upgraded,
    }
}

/// What was answered is there, and is the same everywhere.
fn judge(world: &World, people: &[Person], seed: u64) {
    assert!(all_serve(world), "seed {seed}: not all serve at the end");
    let sessions = |server: usize| -> Vec<i64> {
        world.service(server).database().sessions.iter().map(|(id, _)| id).collect()
    };
    for server in 0..4 {
        let tree = &world.service(server).database().tree;
        for path in people.iter().flat_map(|person| &person.done) {
            // Ephemeral ones may have gone with their session.
            let is_there = tree.node(path).is_some() || path.starts_with("/e");
            assert!(is_there, "seed {seed}: {path} is not on server {server}");
        }
        for owner in tree.ephemeral_owners() {
            assert!(sessions(server).contains(&owner), "seed {seed}: {owner:#x} is no session");
        }
        assert_eq!(sessions(server), sessions(0), "seed {seed}: server {server}");
        assert_eq!(tree.digest(), world.service(0).database().tree.digest(), "seed {seed}");
    }
}

#[test]
fn each_write_is_carried_out_once_and_answered_with_its_own_outcome() {
    let mut all = Shown::default();
    for seed in 1..=40 {
        let shown = run(seed);
        all.done += shown.done;
        all.over += shown.over;
        all.epochs += shown.epochs;
        all.upgraded += usize::from(shown.upgraded > 0);
    }
    // What it is about has happened.
    assert!(all.done > 20_000 && all.epochs > 42 && all.upgraded > 30 && all.over > 2, "{all:?}");
}
