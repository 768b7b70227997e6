//! What clients cannot do to a server, and what waits instead.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, any_version, create, multi, read, request, set_data, string};
use zk_service::{Opcode, ServiceOptions, WallClock};

const CREATE: i32 = Opcode::Create.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const PING: i32 = Opcode::Ping.wire();
const MULTI: i32 = Opcode::Multi.wire();

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2))
}

fn xids(world: &mut World, client: Client) -> Vec<i32> {
    std::iter::from_fn(|| world.frame(client)).map(|frame| reply(&frame).0).collect()
}

#[test]
fn a_client_that_does_not_read_is_not_read_either() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 10_000);
    let big = vec![7; 200_000];
    assert_eq!(world.call(client, CREATE, &create("/big", &big, 0)).0, 0);
    world.set_deaf(client, true);
    let reads: Vec<u8> =
        (1..=50).flat_map(|xid| request(xid, GET_DATA, &read("/big", false))).collect();
    world.send(client, &reads);
    assert!(world.unconsumed(client) > 0, "the rest waits");
    let (other, ..) = world.open(0, 10_000);
    assert_eq!(world.call(other, PING, &[]).0, 0);
    world.set_deaf(client, false);
    assert_eq!(world.unconsumed(client), 0);
    assert_eq!(xids(&mut world, client), (1..=50).collect::<Vec<_>>(), "and nothing is lost");
}

#[test]
fn too_many_requests_in_flight_wait() {
    let mut world = World::standalone(options().with(|options| options.in_flight_max = 10));
    let (client, ..) = world.open(0, 10_000);
    world.disks[0].stalled = true;
    let writes: Vec<u8> =
        (1..=25).flat_map(|xid| request(xid, CREATE, &create("/s", b"", 2))).collect();
    world.send(client, &writes);
    assert_eq!(world.received(client), 0);
    assert!(world.unconsumed(client) > writes.len() / 2);
    world.disks[0].stalled = false;
    world.run();
    assert_eq!(xids(&mut world, client), (1..=25).collect::<Vec<_>>());
}

#[test]
fn a_full_window_makes_clients_wait_and_loses_nothing() {
    let mut world = World::with_window(options(), 1 << 20);
    let clients: Vec<Client> = (0..10).map(|_| world.open(0, 40_000).0).collect();
    world.disks[0].stalled = true;
    let data = vec![1; 100_000];
    for client in &clients {
        let writes: Vec<u8> =
            (1..=3).flat_map(|xid| request(xid, CREATE, &create("/w", &data, 2))).collect();
        world.send(*client, &writes);
    }
    let waiting = clients.iter().filter(|client| world.unconsumed(**client) > 0).count();
    assert!(waiting > 0, "the window is smaller than that");
    world.disks[0].stalled = false;
    world.run();
    for client in clients {
        assert_eq!(xids(&mut world, client), [1, 2, 3]);
    }
    assert_eq!(world.service(0).digest_mismatches(), 0);
}

#[test]
fn a_connection_without_a_session_does_not_stay() {
    let mut world = World::standalone(options());
    let idle = world.connect(0).expect("accepted");
    world.send(idle, &[0, 0]);
    world.pass(Duration::from_secs(9));
    assert!(!world.has_ended(idle));
    world.pass(Duration::from_secs(11));
    assert!(world.has_ended(idle));
    assert_eq!(world.service(0).connections(), 0);
}

#[test]
fn an_oversized_frame_ends_the_connection_at_its_length() {
    let mut world = World::standalone(options().with(|options| options.jute_max_buffer = 1000));
    let (client, ..) = world.open(0, 10_000);
    world.send(client, &1001_i32.to_be_bytes());
    assert!(world.has_ended(client));
    let (client, ..) = world.open(0, 10_000);
    world.send(client, &1000_i32.to_be_bytes());
    assert!(!world.has_ended(client));
}

#[test]
fn any_bytes_end_their_own_connection_at_most() {
    let mut world = World::standalone(options());
    let (judge, ..) = world.open(0, 40_000);
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..500 {
        let (client, ..) = world.open(0, 10_000);
        for _ in 0..4 {
            let op = random.i32(-2..108);
            let len = random.usize(..60);
            let mut record: Vec<u8> = (0..len).map(|_| random.u8(..4)).collect();
            if random.bool() {
                record.splice(0..0, create("/x", b"abc", 0));
                let at = random.usize(..record.len());
                record[at] = random.u8(..);
            }
            world.send(client, &request(round, op, &record));
        }
        let ahead = Connect::new(1000).to_vec();
        world.send(client, &ahead[..random.usize(..40)]);
        world.hang_up(client);
    }
    assert_eq!(world.call(judge, PING, &[]).0, 0);
    assert_eq!(world.service(0).connections(), 1);
    assert_eq!(world.service(0).digest_mismatches(), 0);
}

#[test]
fn a_null_acl_in_a_multi_is_refused_in_its_place() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 10_000);
    // Neither data nor a list.
    let record = multi([(CREATE, [string("/n"), vec![0xff; 8], vec![0; 4]].concat())]);
    let (code, body) = world.call(client, MULTI, &record);
    assert_eq!(code, 0);
    assert_eq!(body[..9], [0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0x8e]);
    assert_eq!(world.call(client, EXISTS, &read("/n", false)).0, -101);
}

#[test]
fn after_a_pause_of_the_server_no_session_is_expired_at_once() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 4000);
    world.sleep(Duration::from_secs(60));
    world.pass(Duration::ZERO);
    assert!(!world.has_ended(client), "its pings may still be waiting to be read");
    assert_eq!(world.call(client, PING, &[]).0, 0);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.call(client, SET_DATA, &set_data("/", b"x")).0, 0);
    world.pass(Duration::from_secs(10));
    assert!(world.has_ended(client), "silence counts again");
}

#[test]
fn containers_and_ttl_nodes_go_when_nobody_needs_them() {
    let clock: Arc<AtomicI64> = Arc::default();
    let read_clock = Arc::clone(&clock);
    let mut world = World::standalone(options().with(|options| {
        options.extended_types = true;
        options.wall_clock = WallClock::new(move || read_clock.load(Ordering::Relaxed));
        options.container_check_interval = Duration::from_secs(1);
    }));
    world.clock = clock;
    let (client, ..) = world.open(0, 40_000);
    let mut ttl = create("/ttl", b"", 5);
    ttl.extend_from_slice(&5000_i64.to_be_bytes());
    assert_eq!(world.call(client, 21, &ttl).0, 0);
    assert_eq!(world.call(client, 19, &create("/used", b"", 4)).0, 0);
    assert_eq!(world.call(client, 19, &create("/unused", b"", 4)).0, 0);
    assert_eq!(world.call(client, CREATE, &create("/used/child", b"", 0)).0, 0);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.call(client, EXISTS, &read("/used", false)).0, 0);
    let delete = any_version("/used/child");
    assert_eq!(world.call(client, Opcode::Delete.wire(), &delete).0, 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.call(client, EXISTS, &read("/used", false)).0, -101);
    assert_eq!(world.call(client, EXISTS, &read("/ttl", false)).0, 0);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.call(client, EXISTS, &read("/ttl", false)).0, -101);
    assert_eq!(world.call(client, EXISTS, &read("/unused", false)).0, 0);
    assert_eq!(world.service(0).digest_mismatches(), 0);
}

#[test]
fn connections_above_the_number_in_all_are_refused() {
    let bounds = options().with(|options| {
        options.max_cnxns = 10;
        options.max_client_cnxns = 0;
    });
    let mut world = World::standalone(bounds);
    let taken: Vec<_> = (0..20).filter_map(|_| world.connect(0)).collect();
    assert_eq!(taken.len(), 10);
    world.hang_up(taken[3]);
    let (client, ..) = world.open(0, 10_000);
    assert_eq!(world.call(client, PING, &[]).0, 0);
    assert!(world.connect(0).is_none());
}
