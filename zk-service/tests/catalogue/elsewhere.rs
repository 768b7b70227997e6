//! What has gone wrong with the sessions and requests of other systems (part B.6 of the catalogue).

use std::time::Duration;
use zab_harness::client::{Connect, create, read, request, set_data, string};
use zk_service::Opcode;

use crate::harness::{Client, World, reply};
use crate::{assert_equal_trees, options};

const CREATE: i32 = Opcode::Create.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const PING: i32 = Opcode::Ping.wire();

/// Cuts a server off from all others.
fn isolate(world: &mut World, server: usize) {
    let others = (0..world.nodes.len()).filter(|other| *other != server);
    world.cut.extend(others.map(|other| (server, other)));
}

/// etcd 15247: a leader stands still for seconds; when it goes on, it ends all sessions at once. Their
/// clients have been heard, by others.
#[test]
fn b6_a_leader_that_stood_still_ends_no_session() {
    let mut world = World::ensemble(3, 1, &options());
    let sessions: Vec<_> = (0..4).map(|server| world.open(server, 4000)).collect();
    // Longer than any of them may be silent, shorter than the followers wait for their leader.
    world.sleep(Duration::from_secs(8));
    world.pass(Duration::from_millis(1));
    for _ in 0..10 {
        for (client, session, _) in &sessions {
            assert!(!world.has_ended(*client), "{session:#x}");
            assert_eq!(world.call(*client, PING, &[]).0, 0);
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.service(0).database().sessions.len(), 4);
}

/// ClickHouse Keeper 111102: reads at a follower are no sign of life for its leader.
#[test]
fn b6_reads_keep_a_session_alive_on_every_server() {
    let mut world = World::ensemble(3, 1, &options());
    let sessions: Vec<_> = (0..4).map(|server| world.open(server, 4000)).collect();
    for (client, ..) in &sessions {
        let path = format!("/e{}", client.server);
        assert_eq!(world.call(*client, CREATE, &create(&path, b"", 1)).0, 0);
    }
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        for (client, ..) in &sessions {
            let path = format!("/e{}", client.server);
            assert_eq!(world.call(*client, EXISTS, &read(&path, false)).0, 0);
        }
    }
    assert_equal_trees(&world);
}

/// ClickHouse Keeper 116690: who comes back with a session that has ended is given another one, and
/// never hears that its ephemerals are gone.
#[test]
fn b6_a_session_that_has_ended_is_refused_and_not_replaced() {
    let mut world = World::ensemble(3, 1, &options());
    let (client, session, password) = world.open(0, 4000);
    assert_eq!(world.call(client, CREATE, &create("/e", b"", 1)).0, 0);
    world.hang_up(client);
    let (client, valid) = world.reopen(1, session, password);
    assert!(valid, "it is alive yet");
    world.hang_up(client);
    world.pass(Duration::from_secs(20));
    assert!(world.service(0).database().sessions.is_empty());
    for server in 0..4 {
        let (client, valid) = world.reopen(server, session, password);
        assert!(!valid && world.has_ended(client), "server {server}");
    }
    world.pass(Duration::from_secs(1));
    assert!(world.service(0).database().sessions.is_empty());
    assert_equal_trees(&world);
}

/// ClickHouse Keeper 114401: requests of several servers have the same number, and the outcome of one
/// is told to the client of another, or to nobody. All are under way together.
#[test]
fn b6_everybody_gets_the_answer_to_its_own_request() {
    let mut world = World::ensemble(3, 1, &options());
    let clients: Vec<Client> = (0..8).map(|at| world.open(at % 4, 20_000).0).collect();
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    let connecting: Vec<Client> = (0..4)
        .map(|server| {
            let client = world.connect(server).unwrap();
            world.send(client, &Connect::new(20_000).to_vec());
            client
        })
        .collect();
    for xid in 1..=3 {
        for (at, client) in clients.iter().enumerate() {
            let data = format!("{at} {xid}");
            world.send(*client, &request(xid, CREATE, &create("/n-", data.as_bytes(), 2)));
        }
    }
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.run();
    for (at, client) in clients.into_iter().enumerate() {
        let frames: Vec<_> = (0..3).map(|_| world.frame(client).expect("an answer")).collect();
        for (xid, frame) in (1..).zip(frames) {
            let (answered, _, code, path) = reply(&frame);
            assert_eq!((answered, code), (xid, 0));
            let (code, data) = world.call(client, GET_DATA, &[path, &[0]].concat());
            assert!(code == 0 && data.starts_with(&string(&format!("{at} {xid}"))));
        }
    }
    let mut sessions: Vec<_> = connecting
        .into_iter()
        .map(|client| world.frame(client).expect("a session")[8..16].to_vec())
        .collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 4, "each its own");
    assert_equal_trees(&world);
}

/// ClickHouse Keeper 54572: what a leader has prepared, and never committed, is still there when it
/// has another history, and decides over requests that come then.
#[test]
fn b6_what_was_prepared_goes_with_the_role() {
    let mut world = World::ensemble(3, 0, &options());
    let first = world.leader();
    let (client, session, password) = world.open(first, 40_000);
    assert_eq!(world.call(client, CREATE, &create("/a", b"", 0)).0, 0);
    isolate(&mut world, first);
    for n in 0..5 {
        world.send(client, &request(n, SET_DATA, &set_data("/a", b"never")));
        world.send(client, &request(n, CREATE, &create("/never", b"", 0)));
        world.send(client, &request(n, CREATE, &create("/a/n-", b"", 2)));
    }
    world.pass(Duration::from_secs(15));
    let next = (0..3).find(|server| *server != first && world.leads(*server)).expect("a leader");
    world.heal();
    world.pass(Duration::from_secs(5));
    // And once more, so that the first one leads with that behind it.
    isolate(&mut world, next);
    world.pass(Duration::from_secs(15));
    assert!(world.leads(first));
    let (client, valid) = world.reopen(first, session, password);
    assert!(valid);
    let (code, stat) = world.call(client, SET_DATA, &set_data("/a", b"now"));
    assert_eq!((code, &stat[32..36]), (0, &[0, 0, 0, 1][..]));
    let (code, path) = world.call(client, CREATE, &create("/a/n-", b"", 2));
    assert_eq!((code, path), (0, string("/a/n-0000000000")));
    assert_eq!(world.call(client, CREATE, &create("/never", b"", 0)).0, 0);
    world.heal();
    world.pass(Duration::from_secs(5));
    assert_equal_trees(&world);
}
