//! Long lists of children: made in pieces, shared, and right whatever happens meanwhile.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{any_version, create, multi, read, request, set_watches, string};
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const DELETE: i32 = Opcode::Delete.wire();
const GET_CHILDREN: i32 = Opcode::GetChildren.wire();
const GET_CHILDREN2: i32 = Opcode::GetChildren2.wire();
const MULTI: i32 = Opcode::Multi.wire();
const STAT_LEN: usize = 68;

/// A small turn: a piece is two hundred children.
const TURN: u64 = 20_000;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.work_per_turn = TURN;
    })
}

/// A server with this many children below each of these nodes.
fn with_children(options: ServiceOptions, parents: &[&str], count: usize) -> World {
    let mut world = World::standalone(options);
    let (client, ..) = world.open(0, 40_000);
    for parent in parents {
        assert_eq!(world.call(client, CREATE, &create(parent, b"", 0)).0, 0);
        let children = (0..count).map(|n| (CREATE, create(&format!("{parent}/{n:05}"), b"", 0)));
        assert_eq!(world.call(client, MULTI, &multi(children)).0, 0);
    }
    world
}

/// The list as the tree has it now.
fn expected(world: &World, path: &str) -> Vec<u8> {
    let node = world.service(0).database().tree.node(path).expect("there");
    let mut list = node.child_count().to_be_bytes().to_vec();
    node.children().for_each(|name| list.extend(string(name)));
    list
}

/// The next reply: xid, code and body.
fn next(world: &mut World, client: Client) -> Option<(i32, i32, Vec<u8>)> {
    world.frame(client).map(|frame| {
        let (xid, _, code, body) = reply(&frame);
        (xid, code, body.to_vec())
    })
}

#[test]
fn a_long_list_takes_many_turns_and_is_answered_in_its_place() {
    let mut world = with_children(options(), &["/p"], 5000);
    let (client, ..) = world.open(0, 40_000);
    let peak = world.service(0).work_peak();
    let mut requests = request(1, Opcode::Exists.wire(), &read("/p", false));
    for (xid, op) in (2..).zip([GET_CHILDREN, GET_CHILDREN2, GET_CHILDREN2]) {
        requests.extend(request(xid, op, &read("/p", false)));
    }
    requests.extend(request(5, CREATE, &create("/w", b"", 0)));
    requests.extend(request(6, GET_CHILDREN, &read("/w", false)));
    let turns = world.turns;
    world.send(client, &requests);
    assert!(world.turns - turns >= 6, "{} turns", world.turns - turns);
    assert!(world.service(0).work_peak() <= peak.max(2 * TURN), "no turn was long");
    let list = expected(&world, "/p");
    let (_, _, stat) = next(&mut world, client).expect("exists");
    assert_eq!(next(&mut world, client), Some((2, 0, list.clone())));
    for xid in [3, 4] {
        assert_eq!(next(&mut world, client), Some((xid, 0, [&list[..], &stat].concat())));
    }
    assert_eq!(next(&mut world, client).map(|(xid, code, _)| (xid, code)), Some((5, 0)));
    assert_eq!(next(&mut world, client), Some((6, 0, vec![0; 4])));
    assert_eq!(next(&mut world, client), None);
}

/// One client lists in pieces while another one changes what is listed. Each reply is the list as it
/// was at some instant between request and reply, and its stat is of that instant.
fn while_it_changes(seed: u64, mut change: impl FnMut(&mut fastrand::Rng, usize) -> Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = with_children(options(), &["/p"], 3000);
    let (lister, ..) = world.open(0, 40_000);
    let (writer, ..) = world.open(0, 40_000);
    let mut states = vec![expected(&world, "/p")];
    let mut asked_at = 0;
    let mut answered = 0;
    world.send_only(lister, &request(0, GET_CHILDREN2, &read("/p", false)));
    for n in 0..300 {
        let changes = random.usize(..3);
        for _ in 0..changes {
            world.send_only(writer, &change(&mut random, n));
        }
        world.step();
        let state = expected(&world, "/p");
        if states.last() != Some(&state) {
            states.push(state);
        }
        while let Some((xid, code, body)) = next(&mut world, lister) {
            assert_eq!((xid, code), (answered, 0));
            let (list, stat) = body.split_at(body.len() - STAT_LEN);
            let at = states[asked_at..].iter().position(|state| state == list);
            let at = at.unwrap_or_else(|| panic!("reply {xid} is no state since it was asked for"));
            assert_eq!(stat[56..60], list[..4], "numChildren, and the state {at} is");
            answered += 1;
            asked_at = states.len() - 1;
            world.send_only(lister, &request(answered, GET_CHILDREN2, &read("/p", false)));
        }
    }
    assert!(answered >= 5, "{answered} replies while it changed");
    assert!(states.len() > 50, "{} states", states.len());
}

#[test]
fn children_come_while_it_is_made() {
    while_it_changes(1, |_, n| request(1, CREATE, &create(&format!("/p/new-{n}-"), b"", 2)));
}

#[test]
fn children_come_and_go_while_it_is_made() {
    for seed in 2..6 {
        while_it_changes(seed, |random, n| match random.u8(..4) {
            0 => request(1, DELETE, &any_version(&format!("/p/{:05}", random.usize(..3000)))),
            1 => request(1, CREATE, &create(&format!("/p/{:05}", random.usize(..3000)), b"", 0)),
            // One goes and one comes in one transaction.
            2 => {
                let header = |op: u8| vec![0, 0, 0, op, 0, 0xff, 0xff, 0xff, 0xff];
                let record = [
                    header(2),
                    any_version(&format!("/p/{:05}", random.usize(..3000))),
                    header(1),
                    create(&format!("/p/other-{n}-"), b"", 2),
                    vec![0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff],
                ];
                request(1, MULTI, &record.concat())
            }
            _ => request(1, CREATE, &create("/elsewhere", b"", 2)),
        });
    }
}

/// Nodes above the number of lists that are made at one time, each asked for by several clients.
#[test]
fn more_lists_than_there_is_room_for() {
    let parents = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i"];
    let mut world = with_children(options(), &parents, 2500);
    let clients: Vec<Client> = (0..27).map(|_| world.open(0, 40_000).0).collect();
    for (client, parent) in clients.iter().zip(parents.iter().cycle()) {
        world.send_only(*client, &request(1, GET_CHILDREN, &read(parent, false)));
    }
    // The clients of the lists that were begun first are gone before they are made.
    for client in &clients[..4] {
        world.hang_up(*client);
    }
    world.run();
    for (client, parent) in clients.iter().zip(parents.iter().cycle()).skip(4) {
        let list = expected(&world, parent);
        assert_eq!(next(&mut world, *client), Some((1, 0, list)), "of {parent}");
    }
}

#[test]
fn clients_that_do_not_read_share_one_list() {
    let mut world = with_children(options(), &["/p"], 10_000);
    let clients: Vec<Client> = (0..50).map(|_| world.open(0, 40_000).0).collect();
    for client in &clients {
        world.set_deaf(*client, true);
        world.send(*client, &request(1, GET_CHILDREN, &read("/p", false)));
    }
    let list = expected(&world, "/p");
    let (unsent, kept) = (world.service(0).unsent_bytes(), world.service(0).kept_len());
    assert!(unsent > 50 * list.len(), "{unsent} bytes are to be sent");
    assert!(kept < 2 * list.len(), "{kept} bytes are kept for them, a list has {}", list.len());
    for client in &clients[..25] {
        world.hang_up(*client);
    }
    for client in &clients[25..] {
        world.set_deaf(*client, false);
        assert_eq!(next(&mut world, *client), Some((1, 0, list.clone())));
    }
    let kept = world.service(0).kept_len();
    assert!(kept < list.len() / 10, "{kept} bytes are kept for nobody");
}

/// Each has another list, since a child comes between each two: that is what they are charged for.
#[test]
fn lists_that_are_not_shared_have_a_bound() {
    let bound = 2 << 20;
    let mut world = with_children(
        options().with(|options| options.clients_len_max_bytes = bound),
        &["/p"],
        10_000,
    );
    let (writer, ..) = world.open(0, 40_000);
    let clients: Vec<Client> = (0..50).map(|_| world.open(0, 40_000).0).collect();
    for client in &clients {
        world.set_deaf(*client, true);
        world.send(*client, &request(1, GET_CHILDREN, &read("/p", false)));
        assert_eq!(world.call(writer, CREATE, &create("/p/new-", b"", 2)).0, 0);
        let kept = world.service(0).kept_len();
        assert!(kept <= bound, "{kept} bytes");
    }
    let ended = clients.iter().filter(|client| world.has_ended(**client)).count();
    assert!((10..50).contains(&ended), "{ended} were closed");
}

#[test]
fn a_list_beyond_the_bound_is_refused_in_pieces_too() {
    // The bound is twice `jute.maxbuffer` at least.
    let options = options().with(|options| {
        options.reply_len_max_bytes = 20_000;
        options.jute_max_buffer = 400_000;
    });
    let mut world = with_children(options, &["/p"], 4000);
    let (writer, ..) = world.open(0, 40_000);
    let name = "x".repeat(3000);
    for n in 0..300 {
        assert_eq!(world.call(writer, CREATE, &create(&format!("/p/{name}{n}"), b"", 0)).0, 0);
    }
    for _ in 0..3 {
        assert_eq!(world.call(writer, GET_CHILDREN, &read("/p", false)), (-5, vec![]));
    }
}

/// A client comes back with very many watches while the nodes are changed: of each node it hears exactly
/// once, be it from the pieces that were armed when it was changed, or from those that were not.
#[test]
fn watches_are_armed_in_pieces() {
    let mut world = with_children(options(), &["/p"], 2000);
    let (writer, ..) = world.open(0, 40_000);
    let (client, ..) = world.open(0, 40_000);
    let path = |n: usize| format!("/p/{n:05}");
    let set = |n: usize| [string(&path(n)), vec![0xff; 8]].concat();
    let seen = world.service(0).database().last_zxid().raw();
    let all: Vec<String> = (0..2000).map(path).collect();
    let both = ["/none".to_owned(), "/p".to_owned()];
    let record = set_watches(seen, &[&all, &both[..1], &both]);
    let peak = world.service(0).work_peak();
    let exists = request(2, Opcode::Exists.wire(), &read("/p", false));
    world.send_only(client, &[request(1, Opcode::SetWatches.wire(), &record), exists].concat());
    let mut random = fastrand::Rng::with_seed(1);
    let turns = world.turns;
    let set_data = Opcode::SetData.wire();
    while world.step() {
        world.send_only(writer, &request(1, set_data, &set(random.usize(..2000))));
        assert!(world.turns < turns + 2000);
    }
    assert!(world.turns > turns + 20, "{} turns", world.turns - turns);
    assert!(world.service(0).work_peak() <= peak.max(2 * TURN));
    for n in 0..2000 {
        world.send(writer, &request(1, set_data, &set(n)));
    }
    let mut heard = std::collections::BTreeMap::new();
    let mut replies = Vec::new();
    let mut made_up = 0;
    while let Some(frame) = world.frame(client) {
        let (xid, zxid, code, body) = reply(&frame);
        if xid == -1 {
            made_up += usize::from(zxid == -1);
            *heard.entry(body[8..].to_vec()).or_insert(0) += 1;
        } else {
            replies.push((xid, code));
        }
    }
    assert_eq!(replies, [(1, 0), (2, 0)], "in order");
    assert!((5..500).contains(&made_up), "{made_up} changes were missed");
    assert_eq!(heard.remove(&string("/none")), Some(1), "as a child watch");
    assert_eq!(heard.len(), 2000);
    assert!(heard.values().all(|count| *count == 1), "{heard:?}");
}

/// However little a turn does, each piece goes on.
#[test]
fn the_shortest_turns_there_are() {
    for work in 1..5 {
        let options = options().with(|options| options.work_per_turn = work);
        let mut world = with_children(options, &["/p"], 2100);
        let (client, ..) = world.open(0, 40_000);
        assert_eq!(
            world.call(client, GET_CHILDREN, &read("/p", false)),
            (0, expected(&world, "/p"))
        );
        let record = set_watches(0, &[&[], &["/a", "/b"], &[]]);
        assert_eq!(world.call(client, Opcode::SetWatches.wire(), &record).0, 0);
    }
}
