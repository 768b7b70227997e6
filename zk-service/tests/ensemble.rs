//! What clients of different servers of one ensemble see.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, any_version, create, read, request, set_data, string};
use zab_proto::wire::packet::PacketType;
use zk_service::{Opcode, ServiceOptions};

const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const SYNC: i32 = Opcode::Sync.wire();
const CREATE: i32 = Opcode::Create.wire();
const DELETE: i32 = Opcode::Delete.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
const PING: i32 = Opcode::Ping.wire();

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2))
}

fn world() -> World {
    World::ensemble(3, 1, &options())
}

/// All trees are equal and nobody's digest differs.
fn assert_equal_trees(world: &World) {
    for node in &world.nodes {
        let (first, other) = (world.service(0).database(), node.app().database());
        assert_eq!(other.last_zxid(), first.last_zxid());
        assert_eq!(other.tree.digest(), first.tree.digest());
        assert_eq!(other.sessions, first.sessions);
        assert_eq!(node.app().digest_mismatches(), 0);
    }
}

fn exists(world: &mut World, client: Client, path: &str) -> bool {
    world.call(client, EXISTS, &read(path, false)).0 == 0
}

#[test]
fn a_write_through_any_server_is_seen_on_all() {
    let mut world = world();
    let clients: Vec<Client> = (0..4).map(|server| world.open(server, 10_000).0).collect();
    for (i, client) in clients.iter().enumerate() {
        let (code, body) = world.call(*client, CREATE, &create("/n-", b"x", 2));
        assert_eq!((code, body), (0, string(&format!("/n-{i:010}"))));
        for other in &clients {
            assert!(exists(&mut world, *other, &format!("/n-{i:010}")));
        }
    }
    assert_equal_trees(&world);
}

/// `leaderServes=no`. Followers, and a server alone, serve as ever.
#[test]
fn a_leader_that_only_leads_closes_its_clients() {
    let options = options().with(|options| options.leader_serves = false);
    let mut world = World::ensemble(3, 0, &options);
    let leader = world.leader();
    for server in 0..3 {
        let client = world.connect(server).unwrap();
        world.send(client, &Connect::new(10_000).to_vec());
        assert_eq!(world.has_ended(client), server == leader);
        assert_eq!(world.received(client) == 0, server == leader);
        let word = world.connect(server).unwrap();
        world.send(word, b"srvr");
        let not_serving = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(world.text(word) == not_serving, server == leader);
    }
    let other = (0..3).find(|server| *server != leader).unwrap();
    let (client, ..) = world.open(other, 10_000);
    assert_eq!(world.call(client, CREATE, &create("/n", b"x", 0)).0, 0, "forwarded to the leader");
    let mut alone = World::standalone(options);
    alone.open(0, 10_000);
}

#[test]
fn a_refusal_by_the_leader_reaches_the_client_of_a_learner() {
    let mut world = world();
    for server in 0..4 {
        let (client, ..) = world.open(server, 10_000);
        assert_eq!(world.call(client, DELETE, &any_version("/none")).0, -101);
        assert_eq!(world.call(client, CREATE, &create("/a/../b", b"", 0)).0, -101);
        assert_eq!(world.call(client, CREATE, &[1, 2, 3]).0, -5);
    }
    assert_equal_trees(&world);
}

#[test]
fn ephemerals_go_with_their_session_everywhere() {
    let mut world = world();
    let (watcher, ..) = world.open(1, 10_000);
    for server in 0..4 {
        let (client, ..) = world.open(server, 10_000);
        assert_eq!(world.call(client, CREATE, &create("/e", b"", 1)).0, 0);
        assert_eq!(world.call(watcher, EXISTS, &read("/e", true)).0, 0);
        assert_eq!(world.call(client, CLOSE, &[]).0, 0);
        assert!(world.has_ended(client));
        let event = world.frame(watcher).expect("an event");
        let (xid, _, code, body) = reply(&event);
        assert_eq!((xid, code, &body[..8]), (-1, 0, &[0, 0, 0, 2, 0, 0, 0, 3][..]));
        assert!(!exists(&mut world, watcher, "/e"));
    }
    assert_equal_trees(&world);
}

#[test]
fn a_silent_session_expires_and_a_pinging_one_does_not() {
    let mut world = world();
    for server in 0..4 {
        let (silent, session, password) = world.open(server, 4000);
        let (alive, ..) = world.open(server, 4000);
        assert_eq!(world.call(silent, CREATE, &create("/e", b"", 1)).0, 0);
        for _ in 0..10 {
            world.pass(Duration::from_secs(1));
            world.call(alive, PING, &[]);
        }
        assert!(world.has_ended(silent), "server {server}");
        assert_eq!(world.received(silent), 0, "no frame says goodbye");
        assert!(!world.has_ended(alive));
        assert!(!exists(&mut world, alive, "/e"));
        let (_, valid) = world.reopen(server, session, password);
        assert!(!valid);
    }
    assert_equal_trees(&world);
}

#[test]
fn a_session_moves_and_its_old_connection_cannot_write() {
    let mut world = world();
    for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        let (old, session, password) = world.open(from, 10_000);
        assert_eq!(world.call(old, CREATE, &create("/e", b"", 1)).0, 0);
        let (new, valid) = world.reopen(to, session, password);
        assert!(valid);
        assert!(exists(&mut world, old, "/e"), "reads go on");
        world.send(old, &request(5, CREATE, &create("/old", b"", 0)));
        assert!(world.has_ended(old));
        assert_eq!(world.received(old), 0);
        assert!(exists(&mut world, new, "/e"));
        assert!(!exists(&mut world, new, "/old"));
        assert_eq!(world.call(new, DELETE, &any_version("/e")).0, 0);
        assert_eq!(world.call(new, CLOSE, &[]).0, 0);
    }
    assert_equal_trees(&world);
}

/// Not all clients go on counting: the same number may be another request on the next connection.
#[test]
fn a_session_goes_on_behind_what_it_asked_before() {
    let mut world = world();
    let leader = world.leader();
    let (from, to) = ((leader + 1) % 3, (leader + 2) % 3);
    let (old, session, password) = world.open(from, 10_000);
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    world.send(old, &request(1, CREATE, &create("/a", b"", 0)));
    world.hang_up(old);
    let new = world.connect(to).expect("accepted");
    world.sent.clear();
    world.send(new, &Connect::again(10_000, session, password).to_vec());
    world.send(new, &request(1, DELETE, &any_version("/none")));
    assert_eq!(world.packets(leader, to, PacketType::REVALIDATE), 1, "the leader has said yes");
    assert_eq!(world.received(new), 0, "and the client has to wait");
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.run();
    let greeting = world.frame(new).expect("an answer");
    assert_eq!(greeting[8..16], session.to_be_bytes());
    let frame = world.frame(new).expect("a reply");
    assert_eq!((reply(&frame).0, reply(&frame).2), (1, -101), "its own outcome");
    assert!(exists(&mut world, new, "/a"));
}

#[test]
fn all_that_come_back_at_once_share_two_rounds() {
    const SESSIONS: usize = 300;
    let options = options().with(|options| options.max_client_cnxns = 0);
    let mut world = World::ensemble(3, 1, &options);
    let leader = world.leader();
    let (to, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let known: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (client, session, password) = world.open(other, 10_000);
            world.hang_up(client);
            (session, password)
        })
        .collect();
    world.cut.push((leader, to));
    let clients: Vec<Client> = known
        .iter()
        .map(|(session, password)| {
            let client = world.connect(to).expect("accepted");
            world.send(client, &Connect::again(10_000, *session, *password).to_vec());
            client
        })
        .collect();
    world.sent.clear();
    world.heal();
    for (client, (session, _)) in clients.into_iter().zip(known) {
        let greeting = world.frame(client).expect("an answer");
        assert_eq!(greeting[8..16], session.to_be_bytes());
    }
    assert_eq!(world.packets(leader, to, PacketType::REVALIDATE), SESSIONS);
    assert_eq!(world.packets(leader, to, PacketType::SYNC), SESSIONS);
    for follower in [to, other] {
        // The first sync begins a round, and all others wait for the next one.
        assert_eq!(world.packets(leader, follower, PacketType::PING), 2);
    }
}

#[test]
fn a_wrong_password_leaves_the_owner_alone() {
    let mut world = world();
    let (owner, session, mut password) = world.open(0, 10_000);
    password[3] ^= 1;
    let (thief, valid) = world.reopen(0, session, password);
    assert!(!valid && world.has_ended(thief));
    assert_eq!(world.call(owner, CREATE, &create("/mine", b"", 0)).0, 0);
    password[3] ^= 1;
    let (again, valid) = world.reopen(0, session, password);
    assert!(valid && world.has_ended(owner) && !world.has_ended(again));
}

#[test]
fn replies_come_in_the_order_of_the_requests() {
    for segment in [0, 1, 7] {
        let mut world = world();
        world.segment = segment;
        for server in 0..4 {
            let (client, ..) = world.open(server, 10_000);
            let path = format!("/fifo-{server}");
            let mut bytes = Vec::new();
            let mut wanted = Vec::new();
            let mut ask = |op: i32, record: &[u8]| {
                let xid = i32::try_from(wanted.len()).expect("few") + 1;
                bytes.extend(request(xid, op, record));
                wanted.push(if op == PING { -2 } else { xid });
            };
            ask(CREATE, &create(&path, b"0", 0));
            for i in 1..60 {
                match i % 5 {
                    0 => ask(PING, &[]),
                    1 => ask(SET_DATA, &set_data(&path, i.to_string().as_bytes())),
                    2 => ask(SYNC, &string(&path)),
                    _ => ask(GET_DATA, &read(&path, false)),
                }
            }
            world.send(client, &bytes);
            let (mut last_zxid, mut data) = (0, "0".to_owned());
            for (i, wanted) in wanted.into_iter().enumerate() {
                let frame = world.frame(client).expect("a reply");
                let (xid, zxid, code, body) = reply(&frame);
                assert_eq!((xid, code), (wanted, 0), "reply {i} on server {server}");
                assert!(zxid >= last_zxid);
                last_zxid = zxid;
                match i % 5 {
                    1 => data = i.to_string(),
                    3 | 4 => assert!(body.starts_with(&string(&data)), "own writes are read"),
                    _ => {}
                }
            }
        }
        assert_equal_trees(&world);
    }
}

#[test]
fn a_sync_sees_what_another_server_has_acknowledged() {
    let mut world = world();
    let leader = world.leader();
    let lagging = (leader + 1) % 3;
    let (writer, ..) = world.open(leader, 10_000);
    let (reader, ..) = world.open(lagging, 10_000);
    world.cut.push((leader, lagging));
    assert_eq!(world.call(writer, CREATE, &create("/news", b"", 0)).0, 0);
    assert!(!exists(&mut world, reader, "/news"), "it lags");
    world.send(reader, &request(1, SYNC, &string("/")));
    world.send(reader, &request(2, EXISTS, &read("/news", false)));
    assert_eq!(world.received(reader), 0, "the read waits for the sync");
    world.heal();
    for xid in [1, 2] {
        let frame = world.frame(reader).expect("a reply");
        assert_eq!((reply(&frame).0, reply(&frame).2), (xid, 0));
    }
}

#[test]
fn no_service_without_a_quorum() {
    let mut world = world();
    let leader = world.leader();
    let (client, session, password) = world.open(leader, 20_000);
    for other in 0..4 {
        if other != leader {
            world.cut.push((leader, other));
        }
    }
    world.send(client, &request(1, CREATE, &create("/lost", b"", 0)));
    assert_eq!(world.received(client), 0);
    world.pass(Duration::from_secs(15));
    assert!(world.has_ended(client), "a leader without a quorum stops serving");
    let other = (0..3).find(|i| *i != leader).expect("three voters");
    let (client, valid) = world.reopen(other, session, password);
    assert!(valid, "the session goes on with the next leader");
    assert!(!exists(&mut world, client, "/lost"));
    world.heal();
    world.pass(Duration::from_secs(10));
    assert_equal_trees(&world);
}

/// The client has gone on at another server, and this one does not hear of it: the session lives, and its old
/// connection counts to its address no longer than a time-out and two looks, a second apart.
#[test]
fn a_connection_of_which_nothing_comes_is_closed() {
    let mut world = world();
    for (old, new) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        let (gone, session, password) = world.open(old, 4_000);
        let (alive, valid) = world.reopen(new, session, password);
        assert!(valid);
        let (beside, ..) = world.open(old, 4_000);
        for second in 0..7 {
            assert!(second > 4 || !world.has_ended(gone), "after {second} s");
            world.pass(Duration::from_secs(1));
            for client in [alive, beside] {
                assert_eq!(world.call(client, PING, &[]).0, 0, "it is heard");
            }
        }
        assert!(world.has_ended(gone));
        assert_eq!(world.received(gone), 0);
        assert_eq!(world.service(old).connections(), 1);
        assert_eq!(world.call(beside, CLOSE, &[]).0, 0);
        assert_eq!(world.call(alive, CLOSE, &[]).0, 0);
    }
}
