//! Room for requests is narrow: who waits, for how long, and for whom.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{create, request, set_data, string};
use zab_proto::Limits;
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const SYNC: i32 = Opcode::Sync.wire();

/// The default but for what a test is about.
fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn world(limits: Limits) -> World {
    let options =
        ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2));
    World::limited(3, 0, &options, limits)
}

fn learner(world: &World) -> usize {
    (0..3).find(|server| *server != world.leader()).expect("there are others")
}

fn set_to(len: usize) -> Vec<u8> {
    set_data("/n", &vec![b'x'; len])
}

/// The zxids of all replies, each of which is good.
fn zxids(world: &mut World, client: Client) -> Vec<i64> {
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| world.frame(client)).collect();
    let replies = frames.iter().map(|frame| reply(frame));
    replies
        .map(|(_, zxid, code, _)| {
            assert_eq!(code, 0);
            zxid
        })
        .collect()
}

/// Everybody writes as much as he can; between two writes of a client each of the others has at most
/// `most`.
fn take_turns(limits: Limits, seats: impl Fn(&World) -> Vec<usize>, most: usize) {
    const WRITES: i32 = 40;
    let mut world = world(limits);
    let (first, ..) = world.open(0, 10_000);
    assert_eq!(world.call(first, CREATE, &create("/n", b"", 0)).0, 0);
    let seats = seats(&world);
    let clients: Vec<Client> = seats.iter().map(|seat| world.open(*seat, 10_000).0).collect();
    for client in &clients {
        let writes: Vec<u8> =
            (1..=WRITES).flat_map(|xid| request(xid, SET_DATA, &set_to(20))).collect();
        world.send_only(*client, &writes);
    }
    world.run();
    let zxids: Vec<Vec<i64>> = clients.iter().map(|client| zxids(&mut world, *client)).collect();
    for (own, others) in
        zxids.iter().map(|own| (own, zxids.iter().filter(move |other| *other != own)))
    {
        assert_eq!(own.len(), WRITES as usize, "nobody is forgotten");
        for other in others {
            for pair in own.windows(2).filter(|pair| pair[0] > other[0]) {
                let between = other.iter().filter(|zxid| (pair[0]..pair[1]).contains(zxid)).count();
                assert!(between <= most, "{between} writes of another client at once");
            }
        }
    }
}

#[test]
fn clients_of_a_learner_take_turns_on_the_way_to_the_leader() {
    for requests_len_max_bytes in [1, 100, 300] {
        let limits = limits(|limits| limits.requests_len_max_bytes = requests_len_max_bytes);
        take_turns(limits, |world| vec![learner(world); 4], 2);
    }
}

#[test]
fn clients_of_a_leader_take_turns_at_its_window() {
    for window_len_max_bytes in [1, 300] {
        let limits = limits(|limits| {
            limits.window_len_max_bytes = window_len_max_bytes;
            limits.retained_len_max_bytes = 0;
        });
        take_turns(limits, |world| vec![world.leader(); 4], 2);
    }
}

/// A leader reads learners' requests beyond its window, and they must not keep its own clients from
/// writing; nor the other way round.
#[test]
fn clients_of_a_leader_and_of_learners_take_turns() {
    let limits = limits(|limits| {
        limits.window_len_max_bytes = 1;
        limits.retained_len_max_bytes = 0;
        limits.requests_len_max_bytes = 1;
    });
    take_turns(limits, |world| vec![0, 1, 2, world.leader(), learner(world)], 4);
}

/// What a client has asked and no longer waits for takes no room from others.
#[test]
fn a_client_that_hangs_up_leaves_its_room_to_others() {
    let limits = limits(|limits| limits.requests_len_max_bytes = 2000);
    let mut world = world(limits);
    let server = learner(&world);
    let (client, ..) = world.open(server, 10_000);
    assert_eq!(world.call(client, CREATE, &create("/n", b"", 0)).0, 0);
    for _ in 0..4 {
        let (gone, ..) = world.open(server, 10_000);
        world.send_only(gone, &request(1, SET_DATA, &set_to(800)));
        world.hang_up(gone);
        assert_eq!(world.call(client, SET_DATA, &set_to(800)).0, 0);
    }
}

/// Who hangs up while it waits does not keep those behind it waiting.
#[test]
fn a_client_that_hangs_up_leaves_its_place() {
    let limits = limits(|limits| limits.requests_len_max_bytes = 1);
    let mut world = world(limits);
    let server = learner(&world);
    let clients: Vec<Client> = (0..5).map(|_| world.open(server, 10_000).0).collect();
    assert_eq!(world.call(clients[0], CREATE, &create("/n", b"", 0)).0, 0);
    for client in &clients {
        world.send_only(*client, &request(1, SET_DATA, &set_to(20)));
    }
    world.hang_up(clients[1]);
    world.hang_up(clients[2]);
    for client in [clients[0], clients[3], clients[4]] {
        assert_eq!(zxids(&mut world, client).len(), 1);
    }
}

/// A request that the link to the leader never takes would keep all those behind it waiting.
#[test]
fn a_request_too_long_for_the_link_to_the_leader_is_refused() {
    let limits = limits(|limits| limits.field_len_max_bytes = 1000);
    let mut world = world(limits);
    let server = learner(&world);
    let (client, ..) = world.open(server, 10_000);
    assert_eq!(world.call(client, CREATE, &create("/n", b"", 0)).0, 0);
    assert_eq!(world.call(client, SET_DATA, &set_to(2000)).0, -8);
    assert_eq!(world.call(client, SYNC, &string(&"/x".repeat(1000))).0, -8);
    let (other, ..) = world.open(server, 10_000);
    assert_eq!(world.call(other, SET_DATA, &set_to(500)).0, 0);
    assert_eq!(world.call(client, SET_DATA, &set_to(500)).0, 0);
}

/// A client that comes back to a learner is behind what was committed before, however narrow the
/// way to the leader is.
#[test]
fn a_client_that_comes_back_waits_for_its_sync_on_a_narrow_link() {
    let limits = limits(|limits| limits.requests_len_max_bytes = 1);
    let mut world = world(limits);
    let server = learner(&world);
    let (client, session, password) = world.open(server, 10_000);
    world.hang_up(client);
    let before = world.packets(world.leader(), server, zab_proto::wire::packet::PacketType::SYNC);
    assert!(world.reopen(server, session, password).1);
    let after = world.packets(world.leader(), server, zab_proto::wire::packet::PacketType::SYNC);
    assert_eq!(after, before + 1);
}
