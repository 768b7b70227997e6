//! Sessions and what they own, at their beginning and their end, while servers come and go.

use std::time::Duration;
use zab_harness::client::{Connect, create, request};
use zk_service::Opcode;

use crate::harness::{Client, World};
use crate::{assert_equal_trees, options};

const CREATE: i32 = Opcode::Create.wire();
const PING: i32 = Opcode::Ping.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();

/// The flag of an ephemeral node.
const EPHEMERAL: i32 = 1;

fn create_ephemeral(world: &mut World, client: Client, path: &str) {
    assert_eq!(world.call(client, CREATE, &create(path, b"", EPHEMERAL)).0, 0);
}

/// The session is nowhere, nor is anything that it owned.
fn assert_gone(world: &World, session: i64) {
    for node in &world.nodes {
        let database = node.app().database();
        assert_eq!(database.sessions.get(session), None);
        assert_eq!(database.tree.ephemerals_of(session).count(), 0);
    }
}

fn stall(world: &mut World, stalled: bool) {
    world.disks.iter_mut().for_each(|disk| disk.stalled = stalled);
    world.run();
}

/// ZK-1208, ZK-1496: an ephemeral is created while its session ends, behind the list of what goes, and
/// stays for ever. Nothing is committed while all of it is asked; the session ends because its client
/// says so, ...
#[test]
fn b52_nothing_is_created_behind_the_end_of_a_session() {
    for server in 0..4 {
        let mut world = World::ensemble(3, 1, &options());
        let (client, session, _) = world.open(server, 20_000);
        create_ephemeral(&mut world, client, "/before");
        stall(&mut world, true);
        let ask = |xid, path: &str| request(xid, CREATE, &create(path, b"", EPHEMERAL));
        let burst = [ask(1, "/e1"), ask(2, "/e2"), request(3, CLOSE, &[]), ask(4, "/e3")].concat();
        world.send(client, &burst);
        // What its server still forwards for it, or another one where it was before.
        let leader = world.leader();
        for learner in (0..4).filter(|learner| *learner != leader) {
            let (now, mut data) = (world.now, session.to_be_bytes().to_vec());
            data.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 1]);
            data.extend(create(&format!("/late-{learner}"), b"", EPHEMERAL));
            world.nodes[learner].with(now, |_, core| core.request(&data, &[0; 4]));
            world.run();
        }
        stall(&mut world, false);
        assert!(world.has_ended(client));
        assert_gone(&world, session);
        assert_eq!(world.service(0).database().tree.ephemerals_count(), 0);
        assert_equal_trees(&world);
    }
}

/// ... or because nobody was heard for it.
#[test]
fn b52_nothing_is_created_behind_the_expiry_of_a_session() {
    for server in 0..4 {
        let mut world = World::ensemble(3, 1, &options());
        let (client, session, _) = world.open(server, 4000);
        create_ephemeral(&mut world, client, "/before");
        stall(&mut world, true);
        world.pass(Duration::from_secs(7));
        world.send(client, &request(1, CREATE, &create("/late", b"", EPHEMERAL)));
        stall(&mut world, false);
        assert!(world.has_ended(client), "server {server}");
        assert_gone(&world, session);
        assert!(world.service(0).database().tree.node("/late").is_none());
        assert_equal_trees(&world);
    }
}

/// ZK-2926: a session is in a leader's memory, but in no log that counts. The leader is cut off before
/// anybody else has heard of it.
#[test]
fn b52_a_session_that_was_not_committed_is_on_no_server() {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    let (other, known, password) = world.open((leader + 1) % 3, 40_000);
    create_ephemeral(&mut world, other, "/e");
    let client = world.connect(leader).unwrap();
    world.cut.extend((0..4).filter(|server| *server != leader).map(|server| (leader, server)));
    world.send(client, &Connect::new(20_000).to_vec());
    assert_eq!(world.received(client), 0, "it has no session yet");
    world.pass(Duration::from_secs(15));
    assert!(world.has_ended(client));
    world.heal();
    world.pass(Duration::from_secs(10));
    assert_equal_trees(&world);
    // The session that there was has lived through it, with its node; the other one has never been.
    let sessions: Vec<_> = world.service(leader).database().sessions.iter().collect();
    assert_eq!(sessions, [(known, 40_000)]);
    let (back, valid) = world.reopen(leader, known, password);
    assert!(valid);
    assert_eq!(world.call(back, CLOSE, &[]).0, 0);
    assert_gone(&world, known);
    assert_equal_trees(&world);
}

/// ZK-919: the server of a session goes, and its ephemerals stay. One client goes with its server, the
/// other one moves on.
#[test]
fn b52_ephemerals_go_with_the_client_and_not_with_its_server() {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    for away in (0..4).filter(|server| *server != leader) {
        let (silent, lost, _) = world.open(away, 4000);
        let (old, kept, password) = world.open(away, 4000);
        create_ephemeral(&mut world, silent, "/lost");
        create_ephemeral(&mut world, old, "/kept");
        world.cut.extend((0..4).filter(|server| *server != away).map(|server| (away, server)));
        let (mut client, valid) = world.reopen(leader, kept, password);
        assert!(valid);
        for _ in 0..12 {
            world.pass(Duration::from_secs(1));
            if world.has_ended(client) {
                client = world.reopen(leader, kept, password).0;
            }
            world.call(client, PING, &[]);
        }
        world.heal();
        world.pass(Duration::from_secs(1));
        world.call(client, PING, &[]);
        world.pass(Duration::from_secs(1));
        assert_gone(&world, lost);
        let database = world.service(away).database();
        let node = database.tree.node("/kept").expect("its session lives");
        assert_eq!(node.stat().ephemeral_owner, kept);
        assert_equal_trees(&world);
        assert_eq!(world.call(client, CLOSE, &[]).0, 0);
        assert_gone(&world, kept);
    }
}

/// ZK-4541 and its kin: a session ends under a leader that is cut off with the transaction. Under the
/// next one it is what the others know, whole, until it ends there.
#[test]
fn b52_the_end_of_a_session_is_everywhere_or_nowhere() {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    let (client, session, _) = world.open(leader, 30_000);
    create_ephemeral(&mut world, client, "/e");
    world.cut.extend((0..4).filter(|server| *server != leader).map(|server| (leader, server)));
    world.send(client, &request(1, CLOSE, &[]));
    world.pass(Duration::from_secs(15));
    world.heal();
    world.pass(Duration::from_secs(5));
    assert_ne!(world.service(leader).database().sessions.get(session), None);
    assert_eq!(world.service(leader).database().tree.ephemerals_of(session).count(), 1);
    assert_equal_trees(&world);
    world.pass(Duration::from_secs(40));
    assert_gone(&world, session);
    assert_equal_trees(&world);
}
