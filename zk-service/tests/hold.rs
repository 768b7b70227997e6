//! Clients keep their connections, and each of their requests is carried out once, when the leader
//! changes.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, read, request, string};
use zab_proto::{Limits, Phase};
use zk_service::{Opcode, ServiceOptions};

const EXISTS: i32 = Opcode::Exists.wire();
const CREATE: i32 = Opcode::Create.wire();
const SYNC: i32 = Opcode::Sync.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
/// The flag of a sequential create.
const SEQUENTIAL: i32 = 2;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.four_letter_whitelist = vec!["*".into()];
    })
}

/// Four requests: a write, a read behind it, and two more writes.
fn four(tag: &str) -> Vec<u8> {
    let write = |xid, name: &str| request(xid, CREATE, &create(&format!("/{tag}-{name}"), b"", 0));
    let read = request(2, EXISTS, &read(&format!("/{tag}-a"), false));
    [write(1, "a"), read, write(3, "b"), write(4, "c")].concat()
}

/// Everything that was asked with [`four`] is answered, in order and with success.
fn assert_answered(world: &mut World, client: Client) {
    assert!(!world.has_ended(client), "the connection of {client:?} was closed");
    for xid in 1..=4 {
        let frame = world.frame(client).unwrap_or_else(|| panic!("no answer to {xid}"));
        let (answered, _, code, _) = reply(&frame);
        assert_eq!((answered, code), (xid, 0));
    }
    assert_eq!(world.frame(client), None);
}

fn metric(world: &mut World, server: usize, name: &str) -> u64 {
    let client = world.connect(server).expect("accepted");
    world.send(client, b"mntr");
    let text = world.text(client);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

fn serves(world: &World, server: usize) -> bool {
    world.nodes[server].peer().status().phase == Phase::Broadcast
}

/// Until all of these serve, a second at most.
fn wait_for(world: &mut World, servers: &[usize]) {
    for _ in 0..100 {
        world.run();
        if servers.iter().all(|server| serves(world, *server)) {
            return;
        }
        world.pass(Duration::from_millis(10));
    }
    panic!("no service");
}

fn others(world: &World, leader: usize) -> Vec<usize> {
    (0..world.nodes.len()).filter(|server| *server != leader).collect()
}

#[test]
fn what_the_leader_never_read_is_submitted_again() {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let clients: Vec<Client> = rest.iter().map(|server| world.open(*server, 12_000).0).collect();
    world.cut = rest.iter().map(|server| (*server, leader)).collect();
    for client in &clients {
        world.send(*client, &four(&format!("n{}", client.server)));
        assert_eq!(world.received(*client), 0);
    }
    world.cut.clear();
    world.kill(leader);
    wait_for(&mut world, &rest);
    world.run();
    for client in clients {
        assert_answered(&mut world, client);
        assert_eq!(metric(&mut world, client.server, "zk_zab_held"), 1);
        assert_eq!(metric(&mut world, client.server, "zk_zab_resubmitted"), 3);
        // It goes on as if nothing had happened.
        assert_eq!(world.call(client, CREATE, &create("/go-on-", b"", SEQUENTIAL)).0, 0);
        assert_eq!(world.call(client, SYNC, &string("/")).0, 0);
    }
}

#[test]
fn what_has_become_the_history_is_answered_and_not_carried_out_again() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let clients: Vec<Client> = rest.iter().map(|server| world.open(*server, 12_000).0).collect();
    // All have the proposals, and nobody acknowledges them.
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    for client in &clients {
        world.send(*client, &request(9, CREATE, &create("/n-", b"", SEQUENTIAL)));
        assert_eq!(world.received(*client), 0);
    }
    world.kill(leader);
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    wait_for(&mut world, &rest);
    world.run();
    for (at, client) in clients.iter().enumerate() {
        let frame = world.frame(*client).expect("an answer");
        let (xid, _, code, body) = reply(&frame);
        assert_eq!((xid, code, body), (9, 0, &*string(&format!("/n-{at:010}"))));
        assert_eq!(metric(&mut world, client.server, "zk_zab_resubmitted"), 0);
    }
    assert_eq!(
        world.call(clients[0], CREATE, &create("/n-", b"", SEQUENTIAL)).1,
        string("/n-0000000002")
    );
}

#[test]
fn a_leader_that_loses_its_quorum_keeps_its_clients() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let client = world.open(leader, 30_000).0;
    world.cut = rest.iter().map(|server| (*server, leader)).collect();
    world.send(client, &four("own"));
    assert_eq!(world.received(client), 0, "proposed, and nobody heard of it");
    for other in &rest {
        world.part(leader, *other);
    }
    wait_for(&mut world, &rest);
    while serves(&world, leader) {
        world.pass(Duration::from_millis(100));
    }
    world.heal();
    wait_for(&mut world, &[leader]);
    assert!(!world.leads(leader), "it follows another one now");
    world.run();
    assert_answered(&mut world, client);
    assert_eq!(metric(&mut world, leader, "zk_zab_resubmitted"), 3);
}

/// A leader that is about to end a session takes nothing from its client any more. If nobody hears of that end,
/// the session goes on, and what was asked meanwhile is answered.
#[test]
fn what_is_asked_of_a_session_that_was_to_expire_is_answered() {
    let silence = until_it_expires();
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let client = world.open(leader, 4_000).0;
    // Half a request is no sign of life of its session, and its connection is not silent.
    let asked = four("late");
    let (half, rest_of_it) = asked.split_at(10);
    world.send(client, half);
    world.pass(silence - Duration::from_millis(20));
    let before = world.nodes[leader].peer().last_zxid();
    world.cut = rest.iter().flat_map(|other| [(*other, leader), (leader, *other)]).collect();
    world.pass(Duration::from_millis(40));
    assert!(world.nodes[leader].peer().last_zxid() > before, "its end is proposed");
    assert!(serves(&world, leader));
    world.send(client, rest_of_it);
    for other in &rest {
        world.part(leader, *other);
    }
    wait_for(&mut world, &rest);
    while serves(&world, leader) {
        world.pass(Duration::from_millis(10));
    }
    world.heal();
    wait_for(&mut world, &[leader]);
    world.run();
    assert_answered(&mut world, client);
}

/// How long a client of the leader is silent before the end of its session is proposed.
fn until_it_expires() -> Duration {
    const STEP: Duration = Duration::from_millis(10);
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    world.open(leader, 4_000);
    let before = world.nodes[leader].peer().last_zxid();
    let mut silence = Duration::ZERO;
    while world.nodes[leader].peer().last_zxid() == before {
        world.pass(STEP);
        silence += STEP;
        assert!(silence < Duration::from_secs(20), "it never expires");
    }
    silence
}

/// Its old connection to the leader may still bring requests: those are refused, or known.
#[test]
fn back_with_the_same_leader_nothing_is_carried_out_twice() {
    for proposed in [true, false] {
        let mut world = World::ensemble(3, 1, &options());
        let leader = world.leader();
        for server in others(&world, leader) {
            let client = world.open(server, 12_000).0;
            let epoch = world.nodes[server].peer().status().epoch;
            let write = request(5, CREATE, &create("/n-", b"", SEQUENTIAL));
            if proposed {
                world.disks.iter_mut().for_each(|disk| disk.stalled = true);
            } else {
                world.cut = vec![(server, leader)];
            }
            world.send(client, &[&*write, &request(6, SYNC, &string("/"))].concat());
            assert_eq!(world.received(client), 0);
            world.part(server, leader);
            world.cut.clear();
            world.disks.iter_mut().for_each(|disk| disk.stalled = false);
            wait_for(&mut world, &[server]);
            world.run();
            assert_eq!(world.nodes[server].peer().status().epoch, epoch, "the same leader");
            for xid in [5, 6] {
                let frame = world.frame(client).expect("an answer");
                assert_eq!((reply(&frame).0, reply(&frame).2), (xid, 0));
            }
            let resubmitted = metric(&mut world, server, "zk_zab_resubmitted");
            assert_eq!(resubmitted, if proposed { 1 } else { 2 });
            assert_eq!(world.call(client, CREATE, &create("/end", b"", 1)).0, 0);
            assert_eq!(world.call(client, CLOSE, &[]).0, 0);
        }
        let client = world.open(leader, 12_000).0;
        let (code, body) = world.call(client, CREATE, &create("/n-", b"", SEQUENTIAL));
        // Three of these were created before, and `/end` three times.
        assert_eq!((code, body), (0, string("/n-0000000006")), "proposed: {proposed}");
    }
}

#[test]
fn handshakes_wait_for_the_next_leader() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let server = rest[0];
    let (old, session, password) = world.open(rest[1], 12_000);
    world.hang_up(old);
    world.cut = rest.iter().map(|server| (*server, leader)).collect();
    let asked = [Connect::new(12_000).to_vec(), Connect::again(12_000, session, password).to_vec()];
    let before = asked.clone().map(|bytes| {
        let client = world.connect(server).expect("accepted");
        world.send(client, &bytes);
        client
    });
    world.cut = vec![(rest[0], rest[1])];
    world.kill(leader);
    let between = asked.map(|bytes| {
        let client = world.connect(server).expect("accepted");
        world.send(client, &bytes);
        assert_eq!(world.received(client), 0);
        client
    });
    let word = world.connect(server).expect("accepted");
    world.send(word, b"ruok");
    assert_eq!(world.text(word), "imok", "words are answered at all times");
    world.heal();
    wait_for(&mut world, &rest);
    world.run();
    for client in [before[0], between[0]] {
        let frame = world.frame(client).expect("an answer");
        assert_ne!(frame[8..16], [0; 8]);
        assert_eq!(world.call(client, SYNC, &string("/")).0, 0);
    }
    // Two went on with one session: the later one has it.
    assert!(world.has_ended(before[1]));
    let frame = world.frame(between[1]).expect("an answer");
    assert_eq!(frame[8..16], session.to_be_bytes());
}

#[test]
fn without_a_leader_clients_are_held_so_long_and_no_longer() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let server = rest[0];
    // A third of twelve seconds is two ticks; of six it is less.
    let (long, short) = (world.open(server, 12_000).0, world.open(server, 6_000).0);
    world.kill(leader);
    world.kill(rest[1]);
    let late = world.connect(server).expect("accepted");
    world.send(late, &Connect::new(12_000).to_vec());
    world.pass(Duration::from_millis(1_900));
    assert!(!world.has_ended(short) && !world.has_ended(long) && !world.has_ended(late));
    world.pass(Duration::from_millis(200));
    assert!(world.has_ended(short) && !world.has_ended(long));
    world.pass(Duration::from_millis(2_000));
    assert!(world.has_ended(long) && world.has_ended(late));
    let refused = world.connect(server).expect("accepted");
    world.send(refused, &Connect::new(12_000).to_vec());
    assert!(world.has_ended(refused), "as by a server without a leader");
}

#[test]
fn with_zero_clients_are_closed_at_once() {
    let options = options().with(|options| options.hold_clients = Some(Duration::ZERO));
    let mut world = World::ensemble(3, 0, &options);
    let leader = world.leader();
    let server = others(&world, leader)[0];
    let client = world.open(server, 12_000).0;
    world.kill(leader);
    assert!(world.has_ended(client));
}

#[test]
fn behind_a_snapshot_clients_are_closed() {
    let mut limits = Limits::default();
    (limits.retained_txns, limits.retained_len_max_bytes) = (1, 1);
    let mut world = World::limited(3, 0, &options(), limits);
    let leader = world.leader();
    let rest = others(&world, leader);
    let (server, writer) = (rest[0], rest[1]);
    let client = world.open(server, 12_000).0;
    let writing = world.open(writer, 12_000).0;
    world.cut = rest[1..].iter().chain([&leader]).map(|other| (server, *other)).collect();
    world.part(server, leader);
    assert!(!world.has_ended(client));
    for _ in 0..20 {
        assert_eq!(world.call(writing, CREATE, &create("/n-", b"", SEQUENTIAL)).0, 0);
    }
    world.heal();
    wait_for(&mut world, &[server]);
    assert!(world.has_ended(client));
    assert_eq!(metric(&mut world, server, "zk_zab_held_closed_snapshot"), 1);
}

/// Who has more in flight than is kept is closed; others are not.
#[test]
fn what_is_kept_of_writes_has_a_bound() {
    let options = options().with(|options| {
        options.out_len_soft_max_bytes = 10_000;
        options.hold_len_max_bytes = 12_000;
    });
    let mut world = World::ensemble(3, 0, &options);
    let leader = world.leader();
    let rest = others(&world, leader);
    let clients = [(); 4].map(|()| world.open(rest[0], 12_000).0);
    // The second is over its own bound, the third over that of all.
    let lens = [4_000, 20_000, 24_000, 10];
    world.cut = rest.iter().map(|server| (*server, leader)).collect();
    for (client, len) in clients.iter().zip(lens) {
        let path = format!("/n{len}");
        world.send(*client, &request(1, CREATE, &create(&path, &vec![b'x'; len], 0)));
    }
    world.cut.clear();
    world.kill(leader);
    wait_for(&mut world, &rest);
    world.run();
    let ended = clients.map(|client| world.has_ended(client));
    assert_eq!(ended, [false, true, true, false]);
    assert_eq!(metric(&mut world, rest[0], "zk_zab_held_closed_too_long"), 2);
    for client in [clients[0], clients[3]] {
        assert_eq!(reply(&world.frame(client).expect("an answer")).2, 0);
    }
}

/// A client has gone to another server, and nobody told its old one.
#[test]
fn a_session_that_went_elsewhere_does_not_come_back() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = others(&world, leader);
    let (old, session, password) = world.open(rest[0], 12_000);
    // Its last request does not reach the leader.
    world.cut = vec![(rest[0], leader)];
    world.send(old, &request(1, CREATE, &create("/late", b"", 0)));
    let (new, resumed) = world.reopen(rest[1], session, password);
    assert!(resumed);
    assert_eq!(world.call(new, CREATE, &create("/new", b"", 0)).0, 0);
    world.cut.clear();
    world.kill(leader);
    wait_for(&mut world, &rest);
    world.run();
    assert!(world.has_ended(old));
    assert_eq!(metric(&mut world, rest[0], "zk_zab_held_closed_moved"), 1);
    assert!(!world.has_ended(new));
    assert_eq!(world.call(new, EXISTS, &read("/late", false)).0, -101, "it would be out of order");
}

/// Many requests, and little work in a turn: nothing is lost on the way, and others have their turns.
#[test]
fn resubmission_keeps_to_the_turns() {
    let options = options().with(|options| options.work_per_turn = 1_000);
    let mut limits = Limits::default();
    limits.requests_len_max_bytes = 2_000;
    let mut world = World::limited(3, 0, &options, limits);
    let leader = world.leader();
    let rest = others(&world, leader);
    let clients: Vec<Client> = (0..20).map(|at| world.open(rest[at % 2], 12_000).0).collect();
    world.cut = rest.iter().map(|server| (*server, leader)).collect();
    for (at, client) in clients.iter().enumerate() {
        world.send_only(*client, &four(&format!("n{at}")));
    }
    world.run();
    world.cut.clear();
    world.turns = 0;
    world.kill(leader);
    wait_for(&mut world, &rest);
    world.run();
    assert!(world.turns > 40, "{} turns", world.turns);
    for client in clients {
        assert_answered(&mut world, client);
    }
}

/// An orderly end: what has been read is answered, and nothing more is read.
#[test]
fn who_leaves_closes_its_clients_behind_their_answers() {
    for leads in [true, false] {
        let mut world = World::ensemble(3, 0, &options());
        let leader = world.leader();
        let server = if leads { leader } else { others(&world, leader)[0] };
        let [busy, idle, greeting] = [(); 3].map(|()| world.connect(server).expect("accepted"));
        for client in [busy, idle] {
            world.send(client, &Connect::new(12_000).to_vec());
            world.frame(client).expect("a session");
        }
        world.disks.iter_mut().for_each(|disk| disk.stalled = true);
        world.send(busy, &four("busy"));
        assert_eq!(world.received(busy), 0);
        let now = world.now;
        world.nodes[server].app_mut().leave(now);
        world.run();
        assert!(world.has_ended(idle) && world.has_ended(greeting) && !world.has_ended(busy));
        let late = request(9, CREATE, &create("/late", b"", 0));
        world.send(busy, &late);
        assert_eq!(world.unconsumed(busy), late.len(), "nothing more is read");
        assert!(world.connect(server).is_none(), "nobody else is taken");
        assert!(!world.service(server).has_left());
        world.disks.iter_mut().for_each(|disk| disk.stalled = false);
        world.run();
        assert!(world.has_ended(busy) && world.service(server).has_left());
        for xid in 1..=4 {
            let frame = world.frame(busy).expect("an answer");
            assert_eq!((reply(&frame).0, reply(&frame).2), (xid, 0));
        }
        assert!(world.service(server).database().tree.node("/late").is_none());
    }
}

#[test]
fn who_cannot_answer_leaves_after_a_tick() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let client = world.open(leader, 12_000).0;
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    world.send(client, &four("late"));
    let now = world.now;
    world.nodes[leader].app_mut().leave(now);
    world.pass(Duration::from_millis(1_990));
    assert!(!world.has_ended(client));
    world.pass(Duration::from_millis(20));
    assert!(world.has_ended(client) && world.service(leader).has_left());
}
