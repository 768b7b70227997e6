//! Which reads need READ on a node, as in ZooKeeper 3.9: all that show anything of it. `exists` does
//! since 3.8.4 and 3.9.2, events are filtered since then. What setWatches makes up goes further here:
//! it tells nothing of a node that its client may not read, where ZooKeeper tells when it was changed.

mod harness;

use harness::{Client, World, reply};
use zab_harness::client::{
    auth, create, create_with, multi, read, request, set_data, set_watches, string, xid,
};
use zk_service::{Opcode, ServiceOptions};

const NO_NODE: i32 = -101;
const NO_AUTH: i32 = -102;
/// READ and ADMIN.
const READ: u8 = 1;
const ADMIN: u8 = 16;

fn login(world: &mut World, client: Client, name: &str) {
    let auth = auth("digest", name.as_bytes());
    assert_eq!(world.call(client, Opcode::Auth.wire(), &auth).0, 0);
}

/// `auth` for everything, and `perms` for all others.
fn create_private(path: &str, perms: u8) -> Vec<u8> {
    let acl = [(31, "auth", ""), (perms.into(), "world", "anyone")];
    create_with(path, b"x", &acl, 0)
}

/// A world with `/private`, and somebody who may do so much with it.
fn world(perms: u8) -> (World, Client, Client) {
    let mut world = World::standalone(ServiceOptions::default());
    let (owner, ..) = world.open(0, 10_000);
    login(&mut world, owner, "bob:pw");
    let record = create_private("/private", perms);
    assert_eq!(world.call(owner, Opcode::Create.wire(), &record).0, 0);
    let (other, ..) = world.open(0, 10_000);
    (world, owner, other)
}

/// The events that a client has been sent, and the codes of the replies.
fn frames(world: &mut World, client: Client) -> (Vec<i32>, Vec<i32>) {
    let (mut events, mut codes) = (Vec::new(), Vec::new());
    while let Some(frame) = world.frame(client) {
        match reply(&frame) {
            (-1, _, _, body) => {
                events.push(i32::from_be_bytes(body[..4].try_into().expect("four bytes")));
            }
            (_, _, code, _) => codes.push(code),
        }
    }
    (events, codes)
}

#[test]
fn every_read_of_a_node() {
    use Opcode::{Exists, GetAcl, GetAllChildrenNumber, GetChildren, GetChildren2, GetData};
    for op in [Exists, GetData, GetChildren, GetChildren2, GetAcl, GetAllChildrenNumber] {
        let record = match op {
            GetAcl | GetAllChildrenNumber => string("/private"),
            _ => read("/private", true),
        };
        for (perms, code) in
            [(0, NO_AUTH), (READ, 0), (ADMIN, if op == GetAcl { 0 } else { NO_AUTH })]
        {
            let (mut world, owner, other) = world(perms);
            assert_eq!(world.call(other, op.wire(), &record).0, code, "{op:?} with {perms}");
            // Who is refused has set no watch.
            let child = create("/private/child", b"", 0);
            assert_eq!(world.call(owner, Opcode::Create.wire(), &child).0, 0);
            let set = set_data("/private", b"y");
            assert_eq!(world.call(owner, Opcode::SetData.wire(), &set).0, 0);
            let heard = usize::from(code == 0 && !matches!(op, GetAcl | GetAllChildrenNumber));
            assert_eq!(frames(&mut world, other).0.len(), heard, "{op:?} with {perms}");
        }
    }
}

#[test]
fn the_parts_of_a_multi_read() {
    let (mut world, _, other) = world(0);
    let (data, children) = (Opcode::GetData.wire(), Opcode::GetChildren.wire());
    let parts = [(data, "/private"), (children, "/private"), (children, "/")];
    let record = multi(parts.map(|(op, path)| (op, read(path, false))));
    let (code, body) = world.call(other, Opcode::MultiRead.wire(), &record);
    let refused =
        [&(-1_i32).to_be_bytes()[..], &[0], &[NO_AUTH.to_be_bytes(); 2].concat()].concat();
    assert_eq!(code, 0);
    assert_eq!(&body[..26], [&refused[..], &refused].concat());
    assert_eq!(&body[26..31], [0, 0, 0, 8, 0], "the root is everybody's");
}

/// Of `/private`, which was changed after what the client has seen, of a node that is everybody's, and
/// of none.
#[test]
fn what_set_watches_makes_up() {
    const CREATED: i32 = 1;
    const DELETED: i32 = 2;
    const CHANGED: i32 = 3;
    const CHILDREN: i32 = 4;
    let (mut world, owner, other) = world(0);
    let open = create("/open", b"", 0);
    assert_eq!(world.call(owner, Opcode::Create.wire(), &open).0, 0);
    // Nothing seen yet: data, exist, child.
    let record = set_watches(0, &[&["/private", "/open", "/none"][..]; 3]);
    world.send(other, &request(xid::SET_WATCHES, Opcode::SetWatches.wire(), &record));
    let (events, codes) = frames(&mut world, other);
    assert_eq!(events, [CHANGED, DELETED, CREATED, CHILDREN, DELETED]);
    assert_eq!(codes, [0]);
    // The watches on what is private are set, and its events are filtered as ever.
    let set = [string("/private"), vec![0xff; 8]].concat();
    assert_eq!(world.call(owner, Opcode::SetData.wire(), &set).0, 0);
    assert_eq!(frames(&mut world, other).0, []);
    // The watch on what is not there is set.
    assert_eq!(world.call(owner, Opcode::Create.wire(), &create("/none", b"", 0)).0, 0);
    assert_eq!(frames(&mut world, other).0, [CREATED]);
}

/// Paths need not be text. Such a one names no node, and may be watched as what is made of it.
#[test]
fn a_path_that_is_no_text() {
    let (mut world, owner, other) = world(READ);
    let raw = [&[0, 0, 0, 3][..], b"/a\xff", &[1]].concat();
    assert_eq!(world.call(other, Opcode::Exists.wire(), &raw).0, NO_NODE);
    for op in [Opcode::GetData, Opcode::GetChildren, Opcode::GetChildren2] {
        assert_eq!(world.call(other, op.wire(), &raw).0, NO_NODE);
    }
    let text = create("/\u{e4}\u{20ac}", b"", 0);
    assert_eq!(world.call(owner, Opcode::Create.wire(), &text).0, 0);
    assert_eq!(world.call(other, Opcode::Exists.wire(), &read("/\u{e4}\u{20ac}", true)).0, 0);
    let check = [string("/a\u{fffd}"), vec![0, 0, 0, 2]].concat();
    assert_eq!(world.call(other, Opcode::CheckWatches.wire(), &check).0, 0);
}
