//! What clients make a server keep for them: each bound is crossed.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{auth, create, read, request, set_watches, string};
use zab_proto::Limits;
use zk_service::{Opcode, ServiceOptions, WATCH_LEN_BYTES};

const CREATE: i32 = Opcode::Create.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const PING: i32 = Opcode::Ping.wire();
const AUTH: i32 = Opcode::Auth.wire();
const SET_WATCHES: i32 = Opcode::SetWatches.wire();
const SET_WATCHES2: i32 = Opcode::SetWatches2.wire();
const ADD_WATCH: i32 = Opcode::AddWatch.wire();

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2))
}

fn add_watch(path: &str, mode: i32) -> Vec<u8> {
    [string(path), mode.to_be_bytes().to_vec()].concat()
}

fn login(user: &str) -> Vec<u8> {
    auth("digest", format!("{user}:secret").as_bytes())
}

/// setWatches (three lists) or setWatches2 (five) with the same paths in each.
fn same_watches(lists: usize, paths: &[String]) -> Vec<u8> {
    set_watches(i64::MAX, &vec![paths; lists])
}

/// The server goes on for everybody else, and keeps nothing of who has gone.
fn assert_well(world: &mut World, server: usize, gone: &[Client]) {
    for client in gone {
        assert!(world.has_ended(*client));
    }
    let (judge, ..) = world.open(server, 10_000);
    assert_eq!(world.call(judge, CREATE, &create("/judge", b"", 2)).0, 0);
    world.hang_up(judge);
    assert_eq!(world.service(server).kept_len(), 0);
}

#[test]
fn watches_of_one_connection_are_bounded_in_bytes() {
    let bound = 100_000;
    let mut world =
        World::standalone(options().with(|options| options.watches_len_max_bytes = bound));
    let name = "n".repeat(1000);
    for (kind, each) in [(0, 1), (1, 2), (2, 1)] {
        let (client, ..) = world.open(0, 10_000);
        let mut added = 0;
        while !world.has_ended(client) {
            // Nodes that are not there and never will be.
            let path = format!("/{added:05}{name}");
            match kind {
                0 => world.send(client, &request(1, EXISTS, &read(&path, true))),
                1 => world.send(client, &request(1, ADD_WATCH, &add_watch(&path, 0))),
                _ => world.send(client, &request(1, ADD_WATCH, &add_watch(&path, 1))),
            }
            added += 1;
            assert!(added < 1000, "bounded");
        }
        assert_eq!(added, bound / (each * (1006 + WATCH_LEN_BYTES)) + 1, "kind {kind}");
        assert_well(&mut world, 0, &[client]);
    }
}

#[test]
fn watches_that_are_used_up_or_set_twice_do_not_count() {
    let mut world =
        World::standalone(options().with(|options| options.watches_len_max_bytes = 10_000));
    let (client, ..) = world.open(0, 10_000);
    for n in 0..500 {
        let path = format!("/n{n}");
        assert_eq!(world.call(client, EXISTS, &read(&path, true)).0, -101);
        assert_eq!(world.call(client, EXISTS, &read(&path, true)).0, -101);
        world.send(client, &request(7, CREATE, &create(&path, b"", 0)));
        assert!(world.frame(client).is_some_and(|event| reply(&event).0 == -1));
        assert!(world.frame(client).is_some_and(|created| reply(&created).2 == 0));
        assert_eq!(world.call(client, EXISTS, &read("/", true)).0, 0);
    }
    assert_eq!(world.service(0).kept_len() / WATCH_LEN_BYTES, 1, "the one on the root");
}

#[test]
fn one_set_watches_beyond_the_bound_adds_no_more_than_that() {
    let bound = 100_000;
    for (op, lists) in [(SET_WATCHES, 3), (SET_WATCHES2, 5)] {
        let mut world =
            World::standalone(options().with(|options| options.watches_len_max_bytes = bound));
        let (client, ..) = world.open(0, 10_000);
        let paths: Vec<String> = (0..2 * bound / 300).map(|n| format!("/{n:0150}")).collect();
        world.send(client, &request(1, op, &same_watches(lists, &paths)));
        assert_well(&mut world, 0, &[client]);
    }
}

/// As many as a region server or a database server is known to have.
#[test]
fn two_hundred_thousand_watches_are_no_trouble() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 40_000);
    for batch in 0..200 {
        let paths: Vec<String> = (0..1000).map(|n| format!("/{:099}", batch * 1000 + n)).collect();
        let record = set_watches(i64::MAX, &[&[], &paths, &[]]);
        assert_eq!(world.call(client, SET_WATCHES, &record).0, 0);
    }
    assert_eq!(world.call(client, PING, &[]).0, 0);
    let address = 4 + "ip".len() + 4 + "127.0.0.1".len();
    assert_eq!(world.service(0).kept_len(), 200_000 * (100 + WATCH_LEN_BYTES) + address);
}

#[test]
fn who_does_not_read_events_is_disconnected() {
    let mut world =
        World::standalone(options().with(|options| options.events_len_max_bytes = 10_000));
    let (deaf, ..) = world.open(0, 10_000);
    let (slow, ..) = world.open(0, 10_000);
    for client in [deaf, slow] {
        assert_eq!(world.call(client, ADD_WATCH, &add_watch("/", 1)).0, 0);
    }
    world.set_deaf(deaf, true);
    let (writer, ..) = world.open(0, 10_000);
    let mut most = 0;
    for n in 0..1000 {
        world.set_deaf(slow, n % 100 != 0);
        assert_eq!(world.call(writer, CREATE, &create("/n", b"", 2)).0, 0);
        most = most.max(world.service(0).kept_len());
    }
    assert!(world.has_ended(deaf));
    assert!(!world.has_ended(slow), "it reads late, but it reads");
    assert!(most < 25_000, "{most} bytes for two of them");
    world.hang_up(slow);
    world.hang_up(writer);
    assert_well(&mut world, 0, &[deaf]);
}

#[test]
fn a_long_reply_that_is_read_slowly_is_not_taken_for_events() {
    let mut world =
        World::standalone(options().with(|options| options.events_len_max_bytes = 10_000));
    let (client, ..) = world.open(0, 10_000);
    assert_eq!(world.call(client, CREATE, &create("/big", &[7; 500_000], 0)).0, 0);
    assert_eq!(world.call(client, ADD_WATCH, &add_watch("/", 1)).0, 0);
    world.set_deaf(client, true);
    world.send(client, &request(1, GET_DATA, &read("/big", false)));
    let (writer, ..) = world.open(0, 10_000);
    for _ in 0..100 {
        assert_eq!(world.call(writer, CREATE, &create("/n", b"", 2)).0, 0);
    }
    assert!(!world.has_ended(client));
    world.set_deaf(client, false);
    assert_eq!(std::iter::from_fn(|| world.frame(client)).count(), 101);
}

#[test]
fn identities_are_bounded_for_a_connection_and_by_what_a_packet_holds() {
    for (ids_len_max_bytes, field_len_max_bytes) in [(100_000, 1 << 20), (1 << 20, 100_000)] {
        let mut limits = Limits::default();
        limits.field_len_max_bytes = field_len_max_bytes;
        let options = options().with(|options| options.ids_len_max_bytes = ids_len_max_bytes);
        let mut world = World::limited(3, 0, &options, limits);
        let server = (world.leader() + 1) % 3;
        let (client, ..) = world.open(server, 10_000);
        let mut refused = 0;
        for n in 0..20 {
            let code = world.call(client, AUTH, &login(&format!("{n}{}", "u".repeat(9_900)))).0;
            if code != 0 {
                assert_eq!((code, n), (-115, 10));
                refused += 1;
                break;
            }
            // A request that takes them along.
            assert_eq!(world.call(client, CREATE, &create("/n", b"", 2)).0, 0);
        }
        assert_eq!(refused, 1);
        assert_well(&mut world, server, &[client]);
    }
}

#[test]
fn the_sum_over_all_connections_is_bounded_and_the_largest_go_first() {
    let bound = 1_000_000;
    let mut world =
        World::standalone(options().with(|options| options.clients_len_max_bytes = bound));
    let (small, ..) = world.open(0, 10_000);
    assert_eq!(world.call(small, EXISTS, &read("/small", true)).0, -101);
    let (owner, ..) = world.open(0, 10_000);
    assert_eq!(world.call(owner, CREATE, &create("/big", &[7; 50_000], 0)).0, 0);
    let mut greedy = Vec::new();
    for n in 0..40 {
        let (client, ..) = world.open(0, 10_000);
        let path = "p".repeat(10_000);
        match n % 4 {
            // Watches, unread answers, a frame that is never complete, identities.
            0 => (0..5).for_each(|i| {
                world.send(client, &request(1, EXISTS, &read(&format!("/{i}{path}"), true)));
            }),
            1 => {
                world.set_deaf(client, true);
                world.send(client, &request(1, GET_DATA, &read("/big", false)));
            }
            2 => {
                let frame = request(1, CREATE, &create("/x", &[1; 60_000], 0));
                world.send(client, &frame[..50_000]);
            }
            _ => (0..5).for_each(|i| {
                world.send(client, &request(1, AUTH, &login(&format!("{i}{path}"))));
            }),
        }
        greedy.push(client);
        assert!(world.service(0).kept_len() <= bound, "{n}");
    }
    let gone: Vec<Client> = greedy.iter().copied().filter(|c| world.has_ended(*c)).collect();
    assert!(gone.len() >= 18, "twice the bound was asked for: {}", gone.len());
    assert!(!world.has_ended(small), "who asks for little stays");
    assert_eq!(world.call(small, PING, &[]).0, 0);
    for client in greedy.into_iter().chain([small, owner]) {
        world.hang_up(client);
    }
    assert_well(&mut world, 0, &gone);
}
