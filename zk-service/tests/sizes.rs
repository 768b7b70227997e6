//! `jute.maxbuffer` above its default: what the frame limit lets in is taken everywhere.

mod harness;

use std::time::Duration;

use harness::World;
use zab_harness::client::{create, create_with, multi, read, request, set_data, string};
use zab_proto::Limits;
use zk_service::{Opcode, Service, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const MULTI: i32 = Opcode::Multi.wire();
const SYNC: i32 = Opcode::Sync.wire();

/// As `zabd` derives them.
fn ensemble(jute_max_buffer: usize) -> World {
    let options = ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.jute_max_buffer = jute_max_buffer;
    });
    let mut limits = Limits::default();
    limits.field_len_max_bytes = 2 * jute_max_buffer;
    World::limited(3, 0, &options, limits)
}

fn written(world: &World, server: usize, path: &str) -> Option<usize> {
    let service: &Service = world.service(server);
    Some(service.database().tree.node(path)?.data()?.len())
}

#[test]
fn fields_of_four_megabytes() {
    let mut world = ensemble(4 << 20);
    let leader = world.leader();
    for server in [leader, (leader + 1) % 3] {
        let (client, ..) = world.open(server, 10_000);
        for len in [2_097_150, 2_097_151, 3_000_000, 4_000_000] {
            let data = vec![7; len];
            let path = |what: &str| format!("/{what}-{server}-{len}");
            assert_eq!(world.call(client, CREATE, &create(&path("create"), &data, 0)).0, 0);
            assert_eq!(world.call(client, CREATE, &create(&path("set"), b"", 0)).0, 0);
            assert_eq!(world.call(client, SET_DATA, &set_data(&path("set"), &data)).0, 0);
            let parts = [
                (CREATE, create(&path("multi"), &data, 0)),
                (SET_DATA, set_data(&path("multi"), b"")),
                (CREATE, create(&path("multi-2"), b"", 0)),
            ];
            let (code, results) = world.call(client, MULTI, &multi(parts));
            assert_eq!((code, &results[..4]), (0, &[0, 0, 0, 1][..]));
            let read = read(&path("set"), false);
            assert_eq!(world.call(client, GET_DATA, &read).1.len(), 4 + len + 68);
            for member in 0..3 {
                assert_eq!(written(&world, member, &path("create")), Some(len));
                assert_eq!(written(&world, member, &path("set")), Some(len));
                assert_eq!(written(&world, member, &path("multi")), Some(0));
            }
        }
        // A path, and the name in a login.
        let name = "n".repeat(3_000_000);
        assert_eq!(world.call(client, SYNC, &string(&name)).1.len(), 4 + name.len());
        let long = format!("/{name}");
        assert_eq!(world.call(client, CREATE, &create(&long, b"", 1)).0, 0);
        let read = read(&long, false);
        assert_eq!(world.call(client, GET_DATA, &read).0, 0);
        world.send(client, &request(1, -11, &[]));
    }
    assert_eq!(world.service(0).digest_mismatches(), 0);
}

/// Longer than all requests under way may be together, and than what a client may leave unread.
#[test]
fn a_znode_of_twenty_megabytes() {
    let mut world = ensemble(40 << 20);
    let leader = world.leader();
    for server in [(leader + 1) % 3, leader] {
        let (client, ..) = world.open(server, 10_000);
        let (path, data) = (format!("/large-{server}"), vec![7; 20 << 20]);
        assert_eq!(world.call(client, CREATE, &create(&path, &data, 0)).0, 0);
        assert_eq!(world.call(client, SET_DATA, &set_data(&path, &data[1..])).0, 0);
        let read = read(&path, false);
        assert_eq!(world.call(client, GET_DATA, &read).1.len(), 4 + data.len() - 1 + 68);
        assert!((0..3).all(|member| written(&world, member, &path) == Some(data.len() - 1)));
    }
}

#[test]
fn a_frame_of_exactly_the_limit_is_taken_and_no_longer_one() {
    let mut world = World::standalone(ServiceOptions::default().with(|options| {
        options.jute_max_buffer = 5000;
        options.tick_time = Duration::from_secs(2);
    }));
    let record = create("/n", b"", 2);
    for (more, taken) in [(0, true), (1, false), (5000, false)] {
        let (client, ..) = world.open(0, 10_000);
        let data = vec![0; 5000 - 8 - record.len() + more];
        let frame = request(1, CREATE, &create("/n", &data, 2));
        assert_eq!(frame.len(), 4 + 5000 + more);
        world.send(client, &frame);
        assert_eq!(world.frame(client).is_some(), taken);
        assert_eq!(world.has_ended(client), !taken);
    }
}

/// An ACL of more than a megabyte.
#[test]
fn a_long_acl() {
    let mut world = ensemble(4 << 20);
    let leader = world.leader();
    let (client, ..) = world.open(leader, 10_000);
    let long = format!("{}:x", "u".repeat(1_500_000));
    let record = |scheme: &str, id: &str| create_with("/long", b"", &[(31, scheme, id)], 2);
    assert_eq!(world.call(client, CREATE, &record("digest", &long)).0, 0);
    assert_eq!(world.service(0).digest_mismatches(), 0);
}
