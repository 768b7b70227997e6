//! Requests that were more than they seemed, answers that did not come, and numbers that ran over.

use bytes::BufMut;
use zab_harness::client::{any_version, auth, create, create_with, multi, read, request, string};
use zk_service::Opcode;

use crate::harness::{Client, World, reply};
use crate::schedule::Schedule;
use crate::{assert_equal_trees, options};

const CREATE: i32 = Opcode::Create.wire();
const DELETE: i32 = Opcode::Delete.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const SYNC: i32 = Opcode::Sync.wire();
const CHECK: i32 = Opcode::Check.wire();
const MULTI: i32 = Opcode::Multi.wire();
const AUTH: i32 = Opcode::Auth.wire();

const OK: i32 = 0;
const UNIMPLEMENTED: i32 = -6;
const BAD_ARGUMENTS: i32 = -8;
const NO_NODE: i32 = -101;
const BAD_VERSION: i32 = -103;

/// A create whose path gets a number.
const SEQUENTIAL: i32 = 2;

/// What a learner forwards to its leader, whatever its own service thinks of it.
fn forward(world: &mut World, learner: usize, session: i64, op: i32, record: &[u8]) {
    let mut data = Vec::new();
    data.put_i64(session);
    data.put_i32(5);
    data.put_i32(op);
    data.put_slice(record);
    let now = world.now;
    let sent = world.nodes[learner].with(now, |_, core| core.request(&data, &[0; 4]));
    assert!(sent, "there is a leader");
    world.run();
}

fn exists(world: &World, server: usize, path: &str) -> bool {
    world.service(server).database().tree.node(path).is_some()
}

/// ZK-3496, ZK-4306: a request within the limit becomes a transaction above it, which is logged and
/// proposed, and which followers and restarts refuse to read.
///
/// Here a client with long identities asks for nodes with the ACL `auth`, which stands for all of them.
#[test]
fn b54_what_grows_too_large_is_refused_before_it_has_a_zxid() {
    let mut world = World::ensemble(3, 1, &options());
    for server in 0..4 {
        let (client, ..) = world.open(server, 20_000);
        let (other, ..) = world.open((server + 1) % 4, 20_000);
        for n in 0..60 {
            let user = format!("{n}{}:secret", "u".repeat(1000));
            let auth = auth("digest", user.as_bytes());
            assert_eq!(world.call(client, AUTH, &auth).0, OK);
        }
        let creates: Vec<_> = (0..100)
            .map(|n| create_with(&format!("/{server}-{n}"), b"", &[(31, "auth", "")], 0))
            .map(|record| (CREATE, record))
            .collect();
        let asked = multi(creates.clone());
        assert!(asked.len() < 10_000, "small enough for anybody");
        assert_eq!(world.call(client, MULTI, &asked).0, BAD_ARGUMENTS, "server {server}");
        assert!(!exists(&world, server, &format!("/{server}-0")), "nothing of it is done");
        // Nobody waits behind it, on this server or another.
        for client in [client, other] {
            assert_eq!(world.call(client, CREATE, &create("/next", b"", 0)).0, OK);
            assert_eq!(world.call(client, DELETE, &any_version("/next")).0, OK);
        }
        // Half as much is none too much.
        let half = multi(creates[..30].to_vec());
        assert_eq!(world.call(client, MULTI, &half).0, OK);
        assert!(exists(&world, server, &format!("/{server}-29")));
    }
    assert_equal_trees(&world);
}

/// ZK-4306: the end of a session with so many ephemerals that their names are too long for one
/// transaction.
#[test]
fn b54_a_session_ends_however_much_it_owns() {
    let mut world = World::ensemble(3, 0, &options());
    let server = (world.leader() + 1) % 3;
    let (client, session, _) = world.open(server, 20_000);
    let long = "n".repeat(900);
    for part in 0..3 {
        let creates: Vec<_> =
            (0..1000).map(|n| create(&format!("/{part}-{n}-{long}"), b"", 1)).collect();
        let asked = multi(creates.iter().map(|record| (CREATE, record)));
        assert_eq!(world.call(client, MULTI, &asked).0, OK);
    }
    assert_eq!(world.service(0).database().tree.ephemerals_count(), 3000);
    assert_eq!(world.call(client, CLOSE, &[]).0, OK);
    for server in 0..3 {
        assert_eq!(world.service(server).database().tree.ephemerals_count(), 0);
        assert_eq!(world.service(server).database().sessions.get(session), None);
    }
    let (other, ..) = world.open(server, 20_000);
    assert_eq!(world.call(other, EXISTS, &read(&format!("/0-0-{long}"), false)).0, NO_NODE);
    assert_equal_trees(&world);
}

/// ZK-2623: a `check` outside of a multi, which some stages take for a transaction and others do not.
/// The set of what becomes a transaction is closed: whatever else a client sends, or a learner with
/// other ideas forwards, changes nothing anywhere.
#[test]
fn b50_only_what_writes_becomes_a_transaction() {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    let (judge, ..) = world.open(leader, 20_000);
    assert_eq!(world.call(judge, CREATE, &create("/a", b"", 0)).0, OK);
    let before = world.service(0).database().tree.digest();
    for server in 0..4 {
        let (client, ..) = world.open(server, 20_000);
        let zxid = world.service(leader).database().last_zxid();
        assert_eq!(world.call(client, CHECK, &any_version("/a")).0, UNIMPLEMENTED);
        assert!(world.has_ended(client));
        assert_eq!(world.service(leader).database().last_zxid(), zxid, "and nothing is logged");
        if server == leader {
            continue;
        }
        let (_, session, _) = world.open(server, 20_000);
        let writes = [CREATE, DELETE, SET_DATA, 7, MULTI, 15, 16, 19, 21];
        for op in (-9..=110).filter(|op| !writes.contains(op)) {
            forward(&mut world, server, session, op, &any_version("/a"));
        }
    }
    assert_eq!(world.service(0).database().tree.digest(), before);
    assert_eq!(world.call(judge, EXISTS, &read("/a", false)).0, OK);
    assert_equal_trees(&world);
}

/// ZK-4537: the answer to a lone client waits until somebody asks something else. ZK-1863: what is
/// committed and what was asked are told in another order. The only client there is sends all it
/// has while nothing becomes durable; then one disk after the other goes on.
#[test]
fn b51_a_lone_client_is_answered_in_order_without_another_request() {
    for (server, order) in [(0, [0, 1, 2]), (1, [2, 1, 0]), (2, [1, 0, 2]), (0, [2, 0, 1])] {
        let mut world = World::ensemble(3, 0, &options());
        let (client, ..) = world.open(server, 20_000);
        world.disks.iter_mut().for_each(|disk| disk.stalled = true);
        let mut xids = Vec::new();
        for n in 0..20 {
            let ask = |world: &mut World, xid: i32, op: i32, record: &[u8]| {
                world.send(client, &request(xid, op, record));
                xid
            };
            xids.push(ask(&mut world, 4 * n + 1, EXISTS, &read("/s", false)));
            xids.push(ask(&mut world, 4 * n + 2, CREATE, &create("/s", b"", SEQUENTIAL)));
            if n % 5 == 4 {
                xids.push(ask(&mut world, 4 * n + 3, SYNC, &string("/")));
            }
            xids.push(ask(&mut world, 4 * n + 4, GET_DATA, &read("/", false)));
        }
        for server in order {
            world.disks[server].stalled = false;
            world.run();
        }
        for xid in xids {
            let frame = world.frame(client).expect("an answer to each");
            assert_eq!(reply(&frame).0, xid, "server {server}, disks {order:?}");
        }
        assert_equal_trees(&world);
    }
}

fn set_data(world: &mut World, client: Client, path: &str, version: i32) -> Result<i32, i32> {
    let record = [string(path), vec![0; 4], version.to_be_bytes().to_vec()].concat();
    let (code, stat) = world.call(client, SET_DATA, &record);
    if code == OK { Ok(i32::from_be_bytes(stat[32..36].try_into().unwrap())) } else { Err(code) }
}

/// ZK-4743: a version comes round to -1, which means "any" in a request: who has read it cannot ask
/// for it.
#[test]
fn b55_no_version_is_minus_one() {
    let mut schedule = Schedule::new();
    schedule.create("/v");
    schedule.set_data("/v", b"", i32::MAX);
    schedule.create("/w");
    schedule.set_data("/w", b"", -2);
    let image = schedule.image();
    let mut world = schedule.recover(vec![image.clone(), image.clone(), image]);
    let (client, ..) = world.open(1, 20_000);
    assert_eq!(set_data(&mut world, client, "/v", i32::MAX), Ok(i32::MIN));
    assert_eq!(set_data(&mut world, client, "/v", i32::MAX), Err(BAD_VERSION));
    assert_eq!(set_data(&mut world, client, "/w", -2), Ok(0));
    assert_eq!(set_data(&mut world, client, "/w", -2), Err(BAD_VERSION));
    assert_eq!(set_data(&mut world, client, "/w", 0), Ok(1));
    assert_equal_trees(&world);
}

/// ZK-1046 and its kin: a number of a sequence is given twice. The counter of a parent ends at
/// 2147483647: there are no more numbers then, but nodes.
#[test]
fn b55_a_sequence_ends_and_gives_no_number_twice() {
    let mut schedule = Schedule::new();
    schedule.create("/s");
    schedule.create_as("/s/a", i32::MAX - 2);
    let image = schedule.image();
    let mut world = schedule.recover(vec![image.clone(), image.clone(), image]);
    for server in 0..3 {
        let (client, ..) = world.open(server, 20_000);
        let sequential = create("/s/n-", b"", SEQUENTIAL);
        let (code, path) = world.call(client, CREATE, &sequential);
        if server < 2 {
            let name = format!("/s/n-{}", i64::from(i32::MAX) - 2 + i64::try_from(server).unwrap());
            assert_eq!((code, &path), (OK, &string(&name)));
            assert_eq!(world.call(client, DELETE, &any_version(&name)).0, OK);
            continue;
        }
        assert_eq!(code, BAD_ARGUMENTS);
        assert_eq!(world.call(client, CREATE, &create("/s/b", b"", 0)).0, OK);
        assert_eq!(world.call(client, DELETE, &any_version("/s/b")).0, OK);
        assert_eq!(world.call(client, CREATE, &sequential).0, BAD_ARGUMENTS);
    }
    assert_equal_trees(&world);
}
