//! Requests that were more than they seemed, and numbers that ran over.

use crate::harness::{World, create, string};
use crate::{assert_equal_trees, options};

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const CLOSE: i32 = -11;
const MULTI: i32 = 14;
const AUTH: i32 = 100;

const OK: i32 = 0;
const BAD_ARGUMENTS: i32 = -8;
const NO_NODE: i32 = -101;

fn path_and_flag(path: &str) -> Vec<u8> {
    [string(path), vec![0]].concat()
}

fn versioned(path: &str) -> Vec<u8> {
    [string(path), vec![0xff; 4]].concat()
}

/// A multi of creates.
fn multi<'a>(creates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    let header = |op: i32, done: bool, out: &mut Vec<u8>| {
        out.extend_from_slice(&op.to_be_bytes());
        out.push(done.into());
        out.extend_from_slice(&[0xff; 4]);
    };
    for record in creates {
        header(CREATE, false, &mut out);
        out.extend_from_slice(record);
    }
    header(-1, true, &mut out);
    out
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
            let auth = [vec![0; 4], string("digest"), string(&user)].concat();
            assert_eq!(world.call(client, AUTH, &auth).0, OK);
        }
        let creates: Vec<_> = (0..100)
            .map(|n| {
                let path = string(&format!("/{server}-{n}"));
                let acl = [vec![0, 0, 0, 1, 0, 0, 0, 31], string("auth"), string("")].concat();
                [path, vec![0; 4], acl, vec![0; 4]].concat()
            })
            .collect();
        let asked = multi(creates.iter().map(Vec::as_slice));
        assert!(asked.len() < 10_000, "small enough for anybody");
        assert_eq!(world.call(client, MULTI, &asked).0, BAD_ARGUMENTS, "server {server}");
        assert!(!exists(&world, server, &format!("/{server}-0")), "nothing of it is done");
        // Nobody waits behind it, on this server or another.
        for client in [client, other] {
            assert_eq!(world.call(client, CREATE, &create("/next", b"", 0)).0, OK);
            assert_eq!(world.call(client, DELETE, &versioned("/next")).0, OK);
        }
        // Half as much is none too much.
        let half = multi(creates[..30].iter().map(Vec::as_slice));
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
        let asked = multi(creates.iter().map(Vec::as_slice));
        assert_eq!(world.call(client, MULTI, &asked).0, OK);
    }
    assert_eq!(world.service(0).database().tree.ephemerals_count(), 3000);
    assert_eq!(world.call(client, CLOSE, &[]).0, OK);
    for server in 0..3 {
        assert_eq!(world.service(server).database().tree.ephemerals_count(), 0);
        assert_eq!(world.service(server).database().sessions.get(session), None);
    }
    let (other, ..) = world.open(server, 20_000);
    assert_eq!(world.call(other, EXISTS, &path_and_flag(&format!("/0-0-{long}"))).0, NO_NODE);
    assert_equal_trees(&world);
}
