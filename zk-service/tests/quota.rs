//! What a quota covers is counted in turns, and is right whatever happens meanwhile.

mod harness;

use std::time::Duration;

use harness::{Client, World};
use zab_harness::client::{any_version, create, multi, request, set_data};
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const DELETE: i32 = Opcode::Delete.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const MULTI: i32 = Opcode::Multi.wire();

fn options() -> ServiceOptions {
    let mut options = ServiceOptions::default();
    options.tick_time = Duration::from_secs(2);
    // Some 160 nodes are counted in a turn.
    options.work_per_turn = 100_000;
    options
}

/// A multi that creates these nodes.
fn creates(nodes: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    multi(nodes.map(|(path, data)| (CREATE, create(&path, &data, 0))))
}

/// `/p` with many children that have some data, and as many nodes elsewhere.
fn with_many(count: usize) -> (World, Client) {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 40_000);
    for parent in ["/p", "/q", "/zookeeper/quota/p"] {
        assert_eq!(world.call(client, CREATE, &create(parent, b"", 0)).0, 0);
    }
    let nodes = (0..count)
        .flat_map(|n| ["p", "q"].map(|parent| (format!("/{parent}/{n:05}"), vec![1; n % 10])));
    assert_eq!(world.call(client, MULTI, &creates(nodes)).0, 0);
    (world, client)
}

fn usage(world: &World, path: &str) -> String {
    let stats = format!("/zookeeper/quota{path}/zookeeper_stats");
    let Some(node) = world.service(0).database().tree.node(&stats) else {
        return "none".into();
    };
    String::from_utf8(node.data().unwrap_or_default().to_vec()).expect("text")
}

fn actual(world: &World, path: &str) -> String {
    let (mut nodes, mut bytes) = (0, 0);
    for node in world.service(0).database().tree.node(path).expect("there").subtree() {
        nodes += 1;
        bytes += node.data().unwrap_or_default().len();
    }
    format!("count={nodes},bytes={bytes}")
}

fn quota(path: &str) -> Vec<u8> {
    let node =
        |name: &str| (format!("/zookeeper/quota{path}/zookeeper_{name}"), b"count=1".to_vec());
    creates([node("limits"), node("stats")].into_iter())
}

#[test]
fn of_a_large_tree_while_it_changes() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut world, client) = with_many(1500);
        let turns = world.turns;
        world.send_only(client, &request(1, MULTI, &quota("/p")));
        let mut counted_after = 0;
        for n in 0..60 {
            for _ in 0..random.usize(..4) {
                let parent = ["p", "q"][random.usize(..2)];
                let path = format!("/{parent}/{:05}", random.usize(..1500));
                let (op, record) = match random.u8(..4) {
                    0 => (DELETE, any_version(&path)),
                    1 => (CREATE, create(&path, &vec![2; random.usize(..20)], 0)),
                    2 => (CREATE, create(&format!("/{parent}/new-{n}"), b"abc", 2)),
                    _ => (SET_DATA, set_data(&path, &vec![7; random.u8(..30).into()])),
                };
                world.send_only(client, &request(1, op, &record));
            }
            world.step();
            if matches!(&*usage(&world, "/p"), "none" | "count=1") {
                counted_after = world.turns - turns;
            }
        }
        world.run();
        assert!(counted_after > 5, "it took {counted_after} turns");
        assert_eq!(usage(&world, "/p"), actual(&world, "/p"), "seed {seed}");
        assert_eq!(world.service(0).digest_mismatches(), 0);
    }
}

/// All in one transaction: a thousand usages of large trees, those of one path again and again.
#[test]
fn very_many_at_once() {
    let (mut world, client) = with_many(2000);
    assert_eq!(world.call(client, MULTI, &quota("/p")).0, 0);
    let stats = "/zookeeper/quota/p/zookeeper_stats";
    let mut parts = Vec::new();
    for n in 0..500 {
        parts.push((DELETE, any_version(stats)));
        parts.push((CREATE, create(stats, b"count=1", 0)));
        let quota = format!("/zookeeper/quota/p/{n:05}");
        parts.push((CREATE, create(&quota, b"", 0)));
        parts.push((CREATE, create(&format!("{quota}/zookeeper_stats"), b"", 0)));
    }
    parts.push((CREATE, create("/zookeeper/quota/zookeeper_stats", b"", 0)));
    world.send_only(client, &request(1, MULTI, &multi(parts)));
    while world.received(client) == 0 {
        assert!(world.step(), "it is prepared and applied in turns");
    }
    assert_eq!((usage(&world, "/p"), usage(&world, "")), ("count=1".into(), String::new()));
    assert_eq!(usage(&world, "/p/00007"), "count=1,bytes=7", "a small tree is counted at once");
    let turns = world.turns;
    world.run();
    assert!(world.turns > turns + 20, "in {} turns", world.turns - turns);
    assert_eq!(usage(&world, "/p"), actual(&world, "/p"));
    // The root's own usage was counted before it was written.
    let all = usage(&world, "");
    assert!(all.starts_with(&format!("count={},", world.service(0).database().tree.node_count())));
}

/// A usage that is gone before it is counted, and one that is made anew meanwhile.
#[test]
fn a_usage_that_goes_and_comes() {
    let (mut world, client) = with_many(2000);
    let stats = "/zookeeper/quota/p/zookeeper_stats";
    world.send_only(client, &request(1, MULTI, &quota("/p")));
    (0..5).for_each(|_| _ = world.step());
    world.send_only(client, &request(1, DELETE, &any_version(stats)));
    world.run();
    while world.frame(client).is_some() {}
    assert_eq!(world.call(client, DELETE, &any_version("/p/00003")).0, 0);
    world.send_only(client, &request(1, CREATE, &create(stats, b"", 0)));
    (0..5).for_each(|_| _ = world.step());
    world.send_only(client, &request(1, DELETE, &any_version(stats)));
    world.send_only(client, &request(1, CREATE, &create(stats, b"", 0)));
    world.send_only(client, &request(1, DELETE, &any_version("/p/01999")));
    world.run();
    while world.frame(client).is_some() {}
    assert_eq!(usage(&world, "/p"), actual(&world, "/p"));
    assert_eq!(world.call(client, SET_DATA, &set_data("/p/00004", &[7; 9])).0, 0);
    assert_eq!(usage(&world, "/p"), actual(&world, "/p"), "and is kept up to date");
}
