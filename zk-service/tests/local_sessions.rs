//! Sessions that only their server knows (`localSessionsEnabled`), with what real servers of 3.8.0 and 3.9.4 were
//! recorded to answer (each a follower and a leader; both releases answer alike), and what ZooKeeper's own
//! `LocalSessionRequestTest`, `LocalSessionsOnlyTest`, `SessionUpgradeTest`, `SessionUpgradeQuorumTest` and
//! `MultiOperationSessionTest` assert.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, multi, read, request, set_data, string};
use zab_proto::wire::packet::PacketType;
use zab_proto::{Phase, Zxid};
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const CREATE2: i32 = Opcode::Create2.wire();
const CONTAINER: i32 = Opcode::CreateContainer.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const MULTI: i32 = Opcode::Multi.wire();
const PING: i32 = Opcode::Ping.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
const EPHEMERAL: i32 = 1;
const NO_NODE: i32 = -101;
const REFUSED: i32 = -120;
const TICK: Duration = Duration::from_secs(2);

fn options(upgrading: bool) -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = TICK;
        options.four_letter_whitelist = vec!["*".into()];
        options.local_sessions = true;
        options.local_sessions_upgrading = upgrading;
    })
}

fn ensemble(upgrading: bool) -> World {
    World::ensemble(3, 1, &options(upgrading))
}

/// Each kind of member: the leader, a follower and an observer.
fn members(world: &World) -> [usize; 3] {
    let leader = world.leader();
    [leader, (0..3).find(|server| *server != leader).expect("a follower"), 3]
}

/// A multi that creates one node.
fn create_in_multi(path: &str, flags: i32) -> Vec<u8> {
    multi([(CREATE, create(path, b"x", flags))])
}

/// The answer to a request: its zxid, code and body.
fn ask(world: &mut World, client: Client, op: i32, record: &[u8]) -> (i64, i32, Vec<u8>) {
    world.send(client, &request(5, op, record));
    let frame = world.frame(client).expect("an answer");
    let (_, zxid, code, body) = reply(&frame);
    (zxid, code, body.to_vec())
}

/// The last zxid, or the beginning of the first epoch.
fn last(world: &World) -> i64 {
    world.nodes[world.leader()].peer().last_zxid().raw().max(1 << 32)
}

fn global_sessions(world: &World) -> Vec<usize> {
    world.nodes.iter().map(|node| node.app().database().sessions.len()).collect()
}

fn word(world: &mut World, server: usize, word: &str) -> String {
    let client = world.connect(server).expect("accepted");
    world.send(client, word.as_bytes());
    world.text(client)
}

fn figure(world: &mut World, server: usize, name: &str) -> u64 {
    let text = word(world, server, "mntr");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

fn serves(world: &World, server: usize) -> bool {
    world.nodes[server].peer().status().phase == Phase::Broadcast
}

/// Lets time pass in which these clients are heard every half tick.
fn pass(world: &mut World, time: Duration, alive: &[Client]) {
    let end = world.now + time;
    while world.now < end {
        world.pass(TICK / 2);
        for client in alive {
            world.send(*client, &request(-2, PING, &[]));
        }
    }
}

#[test]
fn a_session_of_its_server_makes_no_transaction_from_its_beginning_to_its_end() {
    let mut world = ensemble(true);
    for server in members(&world) {
        let before = last(&world);
        let (client, session, password) = world.open(server, 8_000);
        let (silent, ..) = world.open(server, 8_000);
        assert_eq!(figure(&mut world, server, "zk_local_sessions"), 2);
        let (zxid, code, _) = ask(&mut world, client, EXISTS, &read("/", false));
        assert_eq!((zxid | 1 << 32, code), (before, 0));
        pass(&mut world, Duration::from_secs(14), &[client]);
        assert!(world.has_ended(silent), "it has expired");
        while world.frame(client).is_some() {}
        let (zxid, code, body) = ask(&mut world, client, CLOSE, &[]);
        assert_eq!((zxid | 1 << 32, code, body.len()), (before, 0, 0));
        assert!(world.has_ended(client));
        assert!(!world.reopen(server, session, password).1, "it is closed");
        assert_eq!(figure(&mut world, server, "zk_local_sessions"), 0);
        assert_eq!(last(&world), before);
    }
    assert_eq!(global_sessions(&world), [0; 4]);
}

#[test]
fn all_but_ephemeral_nodes_can_be_written() {
    let mut world = ensemble(false);
    for server in members(&world) {
        let (client, ..) = world.open(server, 8_000);
        let path = format!("/p{server}");
        let (zxid, code, body) = ask(&mut world, client, CREATE, &create(&path, b"x", 0));
        assert_eq!((zxid, code, body), (last(&world), 0, string(&path)));
        let set = set_data(&path, b"y");
        assert_eq!(ask(&mut world, client, SET_DATA, &set).1, 0);
        assert_eq!(ask(&mut world, client, CONTAINER, &create(&format!("{path}/c"), b"", 4)).1, 0);
        for (op, name) in [(CREATE, "e"), (CREATE2, "e2")] {
            let name = format!("/{name}-{server}");
            let (_, code, body) = ask(&mut world, client, op, &create(&name, b"x", EPHEMERAL));
            assert_eq!((code, body.len()), (REFUSED, 0));
            assert_eq!(ask(&mut world, client, EXISTS, &read(&name, false)).1, NO_NODE);
        }
        // As recorded at a follower: -112 as the result of the part. A leader says what is missing.
        let recorded = b"\xff\xff\xff\xff\0\xff\xff\xff\x90\xff\xff\xff\x90\xff\xff\xff\xff\x01\xff\xff\xff\xff";
        let (_, code, body) = ask(&mut world, client, MULTI, &create_in_multi("/me", EPHEMERAL));
        let mut recorded = recorded.to_vec();
        if world.leads(server) {
            (recorded[8], recorded[12]) = (0x88, 0x88);
        }
        assert_eq!((code, body), (0, recorded));
        assert_eq!(
            ask(&mut world, client, MULTI, &create_in_multi(&format!("/m{server}"), 0)).1,
            0
        );
    }
    assert_eq!(global_sessions(&world), [0; 4]);
}

#[test]
fn a_session_becomes_the_ensembles_before_it_owns_a_node() {
    let mut world = ensemble(true);
    for (round, server) in members(&world).into_iter().enumerate() {
        for (op, multi_part) in [(CREATE, false), (CREATE2, false), (MULTI, true)] {
            let (client, session, _) = world.open(server, 8_000);
            let before = last(&world);
            assert_eq!(
                ask(&mut world, client, MULTI, &create_in_multi(&format!("/p-{before}"), 0)).0,
                before + 1
            );
            let path = format!("/e-{round}-{op}");
            let record = if multi_part {
                create_in_multi(&path, EPHEMERAL)
            } else {
                create(&path, b"x", EPHEMERAL)
            };
            // Recorded: the session's beginning takes a zxid, and the answer has the next.
            let (zxid, code, _) = ask(&mut world, client, op, &record);
            assert_eq!((zxid, code), (before + 3, 0));
            assert_eq!(global_sessions(&world), [1; 4]);
            assert_eq!(figure(&mut world, server, "zk_local_sessions"), 0);
            let next = create(&format!("{path}-2"), b"", EPHEMERAL);
            assert_eq!(ask(&mut world, client, CREATE, &next).0, before + 4, "it is upgraded once");
            let owner = world.service(3).database().tree.node(&path).expect("it is there").stat();
            assert_eq!(owner.ephemeral_owner, session);
            let (zxid, code, _) = ask(&mut world, client, CLOSE, &[]);
            assert_eq!((zxid, code), (before + 5, 0), "it is closed by a transaction");
            assert_eq!(global_sessions(&world), [0; 4]);
            let (other, ..) = world.open(server, 8_000);
            assert_eq!(ask(&mut world, other, EXISTS, &read(&path, false)).1, NO_NODE);
            world.call(other, CLOSE, &[]);
        }
    }
}

/// Of several writes that are sent at once the first makes the session one of the ensemble, and the end of the
/// session, sent with them, is the end of that.
#[test]
fn a_session_is_upgraded_once_and_can_be_closed_meanwhile() {
    for server in [0, 1, 2, 3] {
        let mut world = ensemble(true);
        let (client, ..) = world.open(server, 8_000);
        let before = last(&world);
        let ephemeral =
            |xid, name: &str| request(xid, CREATE, &create(&format!("/{name}"), b"", EPHEMERAL));
        let close = request(3, CLOSE, &[]);
        world.send(client, &[ephemeral(0, "a"), ephemeral(2, "b"), close].concat());
        for (xid, zxid) in [(0, 2), (2, 3), (3, 4)] {
            let frame = world.frame(client).expect("an answer");
            let (answered, at, code, _) = reply(&frame);
            assert_eq!((answered, at, code), (xid, before + zxid, 0));
        }
        assert!(world.has_ended(client));
        assert_eq!((last(&world), global_sessions(&world)), (before + 4, vec![0; 4]));
        assert_eq!(world.service(server).database().tree.ephemerals_count(), 0);
    }
}

#[test]
fn a_local_session_goes_on_at_its_server_alone_and_one_of_the_ensemble_anywhere() {
    let mut world = ensemble(true);
    for (server, other) in members(&world).into_iter().zip([3, world.leader(), world.leader()]) {
        let (client, session, password) = world.open(server, 8_000);
        assert!(!world.reopen(other, session, password).1, "elsewhere it is not known");
        assert!(!world.has_ended(client));
        let before = last(&world);
        let (again, accepted) = world.reopen(server, session, password);
        assert!(accepted && world.has_ended(client));
        assert_eq!(last(&world), before);
        let path = format!("/e{server}");
        assert_eq!(ask(&mut world, again, CREATE, &create(&path, b"", EPHEMERAL)).1, 0);
        let (moved, accepted) = world.reopen(other, session, password);
        assert!(accepted, "it is known everywhere");
        assert_eq!(
            ask(&mut world, moved, CREATE, &create(&format!("{path}2"), b"", EPHEMERAL)).1,
            0
        );
        assert_eq!(ask(&mut world, moved, CLOSE, &[]).1, 0);
        assert!(!world.reopen(server, session, password).1);
    }
}

/// On a learner, a session that comes back waits for what its last connection has forwarded: the transaction of
/// that is not taken for the answer to a request with the same number.
#[test]
fn what_is_under_way_is_not_taken_for_a_later_request() {
    let mut world = ensemble(true);
    let leader = world.leader();
    let server = members(&world)[1];
    let (client, session, password) = world.open(server, 8_000);
    world.disks[leader].stalled = true;
    for disk in 0..3 {
        world.disks[disk].stalled = true;
    }
    world.send(client, &request(1, CREATE, &create("/first", b"", 0)));
    assert_eq!(world.frame(client), None);
    world.hang_up(client);
    let again = world.connect(server).expect("accepted");
    world.send(again, &Connect::again(8_000, session, password).to_vec());
    assert_eq!(world.frame(again), None, "it waits");
    for disk in 0..3 {
        world.disks[disk].stalled = false;
    }
    world.run();
    let frame = world.frame(again).expect("an answer");
    assert_eq!(frame[8..16], session.to_be_bytes());
    world.send(again, &request(1, CREATE, &create("/second", b"", 0)));
    let frame = world.frame(again).expect("an answer");
    assert_eq!(reply(&frame).3, string("/second"));
}

/// What was forwarded for a session of the ensemble, and comes when that has ended elsewhere, is not carried out as
/// that of a local session which only its server knows.
#[test]
fn what_comes_for_a_session_that_has_ended_is_not_taken_for_a_local_one() {
    let mut world = ensemble(true);
    let leader = world.leader();
    for server in [members(&world)[1], members(&world)[2]] {
        let (client, session, password) = world.open(server, 20_000);
        let path = format!("/own{server}");
        assert_eq!(ask(&mut world, client, CREATE, &create(&path, b"", EPHEMERAL)).1, 0);
        world.cut.push((server, leader));
        world.send(client, &request(7, CREATE, &create("/late", b"", 0)));
        let (moved, accepted) = world.reopen(leader, session, password);
        assert!(accepted);
        assert_eq!(ask(&mut world, moved, CLOSE, &[]).1, 0);
        let before = last(&world);
        world.heal();
        assert_eq!(last(&world), before + 1, "it has come, and was refused");
        for server in 0..4 {
            assert!(world.service(server).database().tree.node("/late").is_none());
        }
    }
}

/// Local sessions and their connections outlive a change of leader, whatever their server was and becomes. What was
/// in flight is carried out once.
#[test]
fn a_local_session_outlives_its_leader() {
    for from in [1, 2] {
        let mut world = World::ensemble(5, 1, &options(true));
        let leader = world.leader();
        let others: Vec<usize> = (0..6).filter(|server| *server != leader).collect();
        let clients: Vec<(Client, i64, [u8; 16])> =
            others.iter().map(|server| world.open(*server, 20_000)).collect();
        // Nothing of this reaches the leader's quorum.
        for server in &others {
            world.cut.push((*server, leader));
        }
        for (at, (client, ..)) in clients.iter().enumerate() {
            let write = |xid: i32| {
                let flags = if xid % 2 == from - 1 { EPHEMERAL } else { 0 };
                request(xid, CREATE, &create(&format!("/{at}-{xid}"), b"", flags))
            };
            world.send(*client, &[write(from), write(from + 1)].concat());
            assert_eq!(world.frame(*client), None);
        }
        world.kill(leader);
        for _ in 0..300 {
            if others.iter().all(|server| serves(&world, *server)) {
                break;
            }
            world.pass(Duration::from_millis(10));
        }
        for (at, (client, session, password)) in clients.iter().enumerate() {
            assert!(!world.has_ended(*client), "the connection of {at} was closed");
            for xid in [from, from + 1] {
                let frame =
                    world.frame(*client).unwrap_or_else(|| panic!("{at}: no answer to {xid}"));
                let (answered, _, code, _) = reply(&frame);
                assert_eq!((answered, code), (xid, 0));
            }
            assert!(world.reopen(others[at], *session, *password).1);
        }
        let expected = vec![clients.len(); others.len()];
        let sessions = others.iter().map(|at| world.service(*at).database().sessions.len());
        assert_eq!(sessions.collect::<Vec<_>>(), expected, "each is upgraded once");
    }
}

/// Back with the same leader, nobody knows what is still on its way to it: a local session with writes in flight
/// ends, also one whose connection has gone with some; one without goes on.
#[test]
fn back_with_the_same_leader_sessions_with_writes_in_flight_end() {
    let mut world = ensemble(true);
    let leader = world.leader();
    let server = members(&world)[1];
    let (quiet, ..) = world.open(server, 20_000);
    let (busy, busy_session, busy_password) = world.open(server, 20_000);
    let (gone, gone_session, gone_password) = world.open(server, 20_000);
    let (upgrading, up_session, up_password) = world.open(server, 20_000);
    world.cut.push((server, leader));
    for (client, path, flags) in [(busy, "/b", 0), (gone, "/g", 0), (upgrading, "/u", EPHEMERAL)] {
        world.send(client, &request(1, CREATE, &create(path, b"", flags)));
    }
    world.hang_up(gone);
    world.part(server, leader);
    world.cut.clear();
    for _ in 0..500 {
        world.pass(Duration::from_millis(10));
        if serves(&world, server) {
            break;
        }
    }
    assert!(serves(&world, server) && world.leads(leader));
    assert!(!world.has_ended(quiet), "it has nothing under way");
    assert_eq!(ask(&mut world, quiet, CREATE, &create("/q", b"", 0)).1, 0);
    assert!(world.has_ended(busy) && world.has_ended(upgrading));
    for (session, password) in
        [(busy_session, busy_password), (gone_session, gone_password), (up_session, up_password)]
    {
        assert!(!world.reopen(server, session, password).1);
    }
    assert_eq!(figure(&mut world, server, "zk_local_sessions"), 1);
}

/// After a sleep of its process a server hears its clients before it lets their sessions expire.
#[test]
fn a_server_that_has_slept_hears_its_clients_first() {
    let mut world = ensemble(true);
    let server = members(&world)[1];
    let (client, ..) = world.open(server, 4_000);
    world.sleep(Duration::from_millis(6_500));
    world.send(client, &request(-2, PING, &[]));
    world.pass(Duration::from_millis(100));
    assert!(!world.has_ended(client));
}

#[test]
fn the_leader_is_told_nothing_of_local_sessions() {
    let mut world = ensemble(true);
    let (leader, server) = (world.leader(), members(&world)[1]);
    world.sent.clear();
    let (client, session, password) = world.open(server, 8_000);
    pass(&mut world, Duration::from_secs(10), &[client]);
    let sent = &world.sent[&(server, leader)];
    assert!(
        !sent.windows(8).any(|bytes| bytes == session.to_be_bytes().as_slice()),
        "no sign of life"
    );
    let (_, accepted) = world.reopen(server, session, password);
    assert!(accepted);
    assert_eq!(world.packets(server, leader, PacketType::REVALIDATE), 0);
    // The sync of the re-attachment.
    assert_eq!(world.packets(server, leader, PacketType::REQUEST), 1);
}

#[test]
fn words_show_both_kinds() {
    let mut world = ensemble(true);
    for (kind, server) in members(&world).into_iter().enumerate() {
        let (_, local, _) = world.open(server, 8_000);
        let (client, global, _) = world.open(server, 8_000);
        world.call(client, CREATE, &create(&format!("/e{server}"), b"", EPHEMERAL));
        let text = word(&mut world, server, "dump");
        assert!(
            text.starts_with("SessionTracker dump:\nLocal Session Sets (1)/(1):\n1 expire at "),
            "{text}"
        );
        let (mine, all) = text.split_once("Global Session").expect("both");
        assert!(
            mine.contains(&format!("\n\t{local:#x}\n")) && !mine.contains(&format!("{global:#x}")),
            "{text}"
        );
        assert_eq!(all.starts_with(" Sets ("), kind == 0, "{text}");
        assert!(all.contains(&format!("{global:#x}")), "{text}");
        assert!(word(&mut world, server, "cons").contains(&format!("sid={local:#x}")));
        assert_eq!(figure(&mut world, server, "zk_global_sessions"), kind as u64 + 1);
        assert_eq!(figure(&mut world, server, "zk_local_sessions"), 1);
    }
}

/// As in ZooKeeper, where only members of ensembles have such sessions.
#[test]
fn a_standalone_server_has_none() {
    let mut world = World::standalone(options(false));
    let (client, ..) = world.open(0, 8_000);
    assert_eq!(world.service(0).database().sessions.len(), 1);
    assert_eq!(world.call(client, CREATE, &create("/e", b"", EPHEMERAL)).0, 0);
    assert!(word(&mut world, 0, "dump").starts_with("SessionTracker dump:\nSession Sets ("));
    assert!(world.nodes[0].peer().last_zxid() > Zxid::ZERO);
}

/// Twice as many sessions as a turn can end: all end, and none is forgotten.
#[test]
fn many_sessions_end_together() {
    let mut world = ensemble(true);
    let server = members(&world)[2];
    for _ in 0..500 {
        let (client, ..) = world.open(server, 4_000);
        world.hang_up(client);
    }
    assert_eq!(figure(&mut world, server, "zk_local_sessions"), 500);
    world.pass(Duration::from_secs(9));
    assert_eq!(figure(&mut world, server, "zk_local_sessions"), 0);
    assert_eq!(figure(&mut world, server, "zk_stale_sessions_expired"), 500);
}
