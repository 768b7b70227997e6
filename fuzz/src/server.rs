//! Whole servers under conversations on all three of their ports.
//!
//! The input is a byte for the kind of the world and then pieces: whose connection (a byte: a number,
//! the port, the server), what happens besides (a byte), two bytes of a length, and so many bytes.
//! Whatever comes, the servers keep to what is documented: memory, links, the work of a turn; and who
//! has nothing to do with it is served.

use std::time::Duration;

use zab_harness::client::{Connect, Connected, first_frame, read, reply, request, set_data};
use zab_proto::Channel;
use zk_service::Opcode;

use crate::servers::{DIALLED, World, limits, options};

/// Names of the clients that only want to be served, one on each server.
const WITNESS: u16 = 0x100;
/// The xids of what a witness asks.
const ASKED: [i32; 2] = [7, 8];

/// Runs the pieces in `data`. `live` says how many bytes are allocated.
pub fn run(data: &[u8], live: impl Fn() -> usize) {
    let Some((kind, rest)) = data.split_first() else { return };
    let servers = if kind & 1 == 0 { 3 } else { 1 };
    let base = live();
    let mut world = World::new(servers);
    let mut judge = Judge { leader: world.leader(), epoch: 0, base, len: data.len(), live };
    judge.begin(&mut world);
    let mut rest = rest;
    while let Some((&[who, also, high, low], more)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(more.len());
        let (bytes, after) = more.split_at(len);
        rest = after;
        piece(&mut world, judge.leader, who, also, bytes);
        if also & 0x10 != 0 {
            judge.ask(&mut world);
        }
        judge.weigh(&world);
        if world.ended {
            return;
        }
    }
    judge.ask(&mut world);
    let names: Vec<u16> = world.strangers.keys().copied().filter(|name| *name < WITNESS).collect();
    names.into_iter().for_each(|name| world.hang_up(name));
    judge.pause(&mut world, Duration::from_secs(8));
    judge.ask(&mut world);
    judge.weigh(&world);
}

fn piece(world: &mut World, leader: Option<usize>, who: u8, also: u8, bytes: &[u8]) {
    let name = u16::from(who);
    let channel = match who >> 4 & 3 {
        0 => Channel::Client,
        1 => Channel::Quorum,
        2 => Channel::Election,
        // One that the server has dialled.
        _ => Channel::Client,
    };
    let dialled = name & DIALLED == DIALLED;
    let name = if dialled { DIALLED | (name & 15) } else { name };
    if !dialled {
        let server = (leader.unwrap_or(0) + usize::from(who >> 6)) % world.nodes.len();
        world.connect(name, server, channel);
    }
    if also & 1 != 0 {
        world.set_deaf(name, true);
    }
    world.send(name, bytes);
    if also & 2 != 0 {
        world.set_deaf(name, false);
    }
    if also & 4 != 0 {
        world.pass(Duration::from_millis(100));
    }
    if also & 8 != 0 {
        world.pass(Duration::from_secs(2));
    }
    if also & 0x20 != 0 {
        world.hang_up(name);
    }
}

struct Judge<F> {
    leader: Option<usize>,
    epoch: i64,
    base: usize,
    len: usize,
    live: F,
}

impl<F: Fn() -> usize> Judge<F> {
    /// The witnesses open their sessions.
    fn begin(&mut self, world: &mut World) {
        if self.leader.is_none() {
            return;
        }
        self.epoch = epoch_of(world);
        for server in 0..world.nodes.len() {
            self.open(world, server);
        }
    }

    fn open(&self, world: &mut World, server: usize) {
        let name = WITNESS + u16::try_from(server).expect("a few");
        assert!(world.connect(name, server, Channel::Client), "a witness is refused");
        world.listen(name);
        world.send(name, &Connect::new(40_000).to_vec());
        let heard = world.heard(name);
        let granted = first_frame(&heard).and_then(|frame| Connected::read(frame).ok().flatten());
        assert!(granted.is_some(), "no session: {heard:?}");
    }

    /// Each witness writes and reads. It is answered at once; what, depends on what others did to the
    /// nodes. The leader is who it was.
    fn ask(&self, world: &mut World) {
        if self.leader.is_none() {
            return;
        }
        for server in 0..world.nodes.len() {
            let name = WITNESS + u16::try_from(server).expect("a few");
            if !world.strangers.contains_key(&name) {
                // Whoever has its session's id can have ended it; not its right to another.
                self.open(world, server);
            }
            let write = request(ASKED[0], Opcode::SetData.wire(), &set_data("/", b""));
            let read = request(ASKED[1], Opcode::Exists.wire(), &read("/", false));
            world.send(name, &[write, read].concat());
            let answers = answers(&world.heard(name));
            assert_eq!(answers, 2, "a client of server {} is not answered", server + 1);
        }
        assert_eq!(world.leader(), self.leader, "an established leader leaves for nobody's claim");
        assert_eq!(epoch_of(world), self.epoch);
    }

    /// Time passes; the witnesses keep their sessions.
    fn pause(&self, world: &mut World, time: Duration) {
        world.pass(time / 2);
        self.ask(world);
        world.pass(time / 2);
    }

    /// The sum of docs/embedding.md for these limits.
    fn weigh(&self, world: &World) {
        let service = options();
        let mut bound = 0;
        for server in 0..world.nodes.len() {
            let window = limits().window_len_max_bytes + limits().retained_len_max_bytes + SPARE;
            let synchronised = limits().window_len_max_bytes;
            let links = world.count(server, Channel::Quorum) * ANSWERS;
            let requests = 4 * limits().requests_len_max_bytes;
            let snapshots = limits().snapshots_max * (64 << 10);
            let clients = world.count(server, Channel::Client);
            let each = service.jute_max_buffer + 2 * service.out_len_soft_max_bytes;
            let replies = clients * (each + service.reply_len_max_bytes);
            let kept = service.clients_len_max_bytes;
            bound += window + synchronised + links + requests + snapshots + replies + kept;
            // Nodes, sessions, ACLs: a short record makes a node of a few hundred bytes.
            bound += STATE_FACTOR * self.len + IDLE;
        }
        // Held by the world on behalf of the sockets.
        bound += 2 * self.len + (1 << 20);
        let live = (self.live)().saturating_sub(self.base);
        assert!(live <= bound, "{live} bytes are allocated, {bound} are documented");
    }
}

/// Spare chunks of the window.
const SPARE: usize = 1 << 20;
/// What waits for one link besides transactions.
const ANSWERS: usize = 1 << 20;
/// Bytes of state for a byte of requests.
const STATE_FACTOR: usize = 32;
/// A server that has nothing to do.
const IDLE: usize = 1 << 20;

fn epoch_of(world: &World) -> i64 {
    world.leader().map_or(-1, |leader| world.nodes[leader].peer().status().epoch.0)
}

/// Replies to the witness's requests among the frames, which may be events and others, too.
fn answers(heard: &[u8]) -> usize {
    let (mut rest, mut count) = (heard, 0);
    while let Some(frame) = first_frame(rest) {
        count += usize::from(reply(frame).is_ok_and(|(header, _)| ASKED.contains(&header.xid)));
        rest = &rest[4 + frame.len()..];
    }
    count
}
