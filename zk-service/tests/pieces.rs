//! What one request may make very long is done in pieces that fit a turn, on the leader as on the others,
//! and nobody can tell: everything is there at once or not at all.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, any_version, create, multi, read, request, set_data, string};
use zab_proto::Phase;
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const CREATE2: i32 = Opcode::Create2.wire();
const DELETE: i32 = Opcode::Delete.wire();
const COUNT: i32 = Opcode::GetAllChildrenNumber.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const GET_CHILDREN: i32 = Opcode::GetChildren.wire();
const GET_EPHEMERALS: i32 = Opcode::GetEphemerals.wire();
const MULTI_READ: i32 = Opcode::MultiRead.wire();
const MULTI: i32 = Opcode::Multi.wire();
const CLOSE_SESSION: i32 = Opcode::CloseSession.wire();
const SYNC: i32 = Opcode::Sync.wire();

/// A small turn, so that little work exceeds it.
const TURN: u64 = 20_000;
/// What a turn may have beyond that: small requests, the last step of a piece, and the bytes of a record of up
/// to 50 kB, which are taken and copied at once. Without pieces it would be a million.
const BEYOND: u64 = 30_000;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.work_per_turn = TURN;
    })
}

/// So many children of `/p`.
fn children(count: usize, flags: i32) -> Vec<(i32, Vec<u8>)> {
    (0..count).map(|n| (CREATE2, create(&format!("/p/{n:05}"), b"", flags))).collect()
}

/// An ensemble with `/p`, and a client of each member: the leader's is the first.
fn ensemble() -> (World, Vec<Client>) {
    let mut world = World::ensemble(3, 1, &options());
    let leader = world.leader();
    let servers = [leader].into_iter().chain((0..4).filter(|server| *server != leader));
    let servers: Vec<usize> = servers.collect();
    let clients: Vec<Client> = servers.into_iter().map(|s| world.open(s, 40_000).0).collect();
    assert_eq!(world.call(clients[0], CREATE, &create("/p", b"", 0)).0, 0);
    (world, clients)
}

fn next(world: &mut World, client: Client) -> Option<(i32, i32, Vec<u8>)> {
    let frame = world.frame(client)?;
    let (xid, _, code, body) = reply(&frame);
    Some((xid, code, body.to_vec()))
}

fn count(body: &[u8]) -> usize {
    u32::from_be_bytes(body[..4].try_into().expect("four")) as usize
}

/// Whatever was asked, no turn of any member was longer than it may be.
fn check_turns(world: &World) {
    for server in 0..world.nodes.len() {
        let service = world.service(server);
        let (work, apply) = (service.work_peak(), service.apply_peak());
        assert!(work <= TURN + BEYOND, "server {server}: {work} units for clients");
        assert!(apply <= TURN + BEYOND, "server {server}: {apply} units to apply");
        assert_eq!(service.digest_mismatches(), 0, "server {server}");
    }
}

/// Turns go by until `done`, while a client of each other member counts the children of `/p` again and
/// again. Returns the
/// numbers of children that they saw, in order.
fn watch_children(
    world: &mut World,
    readers: &[Client],
    mut done: impl FnMut(&mut World) -> bool,
) -> Vec<Vec<usize>> {
    let mut seen = vec![Vec::new(); readers.len()];
    for reader in readers {
        world.send_only(*reader, &request(1, COUNT, &string("/p")));
    }
    for _ in 0..100_000 {
        if done(world) {
            return seen;
        }
        world.step();
        for (reader, seen) in readers.iter().zip(&mut seen) {
            if let Some((_, code, body)) = next(world, *reader) {
                assert_eq!(code, 0);
                seen.push(count(&body));
                world.send_only(*reader, &request(1, COUNT, &string("/p")));
            }
        }
    }
    panic!("it takes for ever");
}

/// All of a multi's parts are twenty turns of work to prepare and as much to apply, for the client of a
/// leader and for that of a follower.
#[test]
fn a_multi_is_prepared_and_applied_in_turns() {
    const PARTS: usize = 600;
    for from in [0, 1] {
        let (mut world, clients) = ensemble();
        let (writer, readers) = (clients[from], [clients[1 - from], clients[2], clients[3]]);
        let turns = world.turns;
        let sync = request(3, SYNC, &string("/p"));
        let requests = [
            request(1, MULTI, &multi(children(PARTS, 0))),
            request(2, DELETE, &any_version("/p/00007")),
            sync,
        ];
        world.send_only(writer, &requests.concat());
        let seen = watch_children(&mut world, &readers, |world| world.received(writer) > 0);
        assert!(world.turns > turns + 40, "{} turns", world.turns - turns);
        let (xid, code, body) = next(&mut world, writer).expect("its reply");
        assert_eq!((xid, code), (1, 0));
        assert_eq!(body.len(), PARTS * (9 + 4 + 8 + 68) + 9, "path and stat of each, and the end");
        for seen in seen {
            assert!(seen.iter().all(|n| *n == 0 || *n == PARTS), "{seen:?}");
            assert!(seen.len() > 20, "the others are answered meanwhile: {}", seen.len());
        }
        world.run();
        assert_eq!(next(&mut world, writer), Some((2, 0, vec![])));
        assert_eq!(next(&mut world, writer).map(|(xid, ..)| xid), Some(3));
        for reader in clients {
            while world.frame(reader).is_some() {}
            let (code, body) = world.call(reader, COUNT, &string("/p"));
            assert_eq!((code, count(&body)), (0, PARTS - 1));
        }
        check_turns(&world);
    }
}

/// Its last part is refused: all is taken back, in pieces, too.
#[test]
fn a_multi_that_fails_leaves_nothing() {
    const PARTS: usize = 600;
    let (mut world, clients) = ensemble();
    let refused = (DELETE, any_version("/none"));
    let mut parts = children(PARTS, 0);
    parts.extend([refused.clone(), refused]);
    for client in &clients {
        let turns = world.turns;
        let (code, body) = world.call(*client, MULTI, &multi(parts.clone()));
        assert!(world.turns > turns + 40, "{} turns", world.turns - turns);
        assert_eq!(code, 0);
        let codes: Vec<i32> = body
            .chunks_exact(13)
            .map(|part| i32::from_be_bytes(part[9..13].try_into().expect("four")))
            .collect();
        let expected: Vec<i32> = [vec![0; PARTS], vec![-101, -2]].concat();
        assert_eq!(codes, expected);
    }
    // One that does not decode, at its end.
    let mut bad = multi(children(PARTS, 0));
    bad.truncate(bad.len() - 20);
    assert_eq!(world.call(clients[0], MULTI, &bad).0, -5);
    // What was recorded for them is forgotten.
    for n in 0..3 {
        let path = format!("/p/{n:05}");
        assert_eq!(world.call(clients[1], DELETE, &any_version(&path)).0, -101);
        assert_eq!(world.call(clients[1], CREATE, &create(&path, b"", 0)).0, 0);
    }
    let (_, body) = world.call(clients[2], COUNT, &string("/p"));
    assert_eq!(count(&body), 3);
    check_turns(&world);
}

/// A session with so many ephemerals, made in several requests.
fn with_ephemerals(world: &mut World, server: usize, total: usize, name: &str) -> Client {
    let (owner, ..) = world.open(server, 4_000);
    for from in (0..total).step_by(50) {
        let parts = (from..total.min(from + 50))
            .map(|n| (CREATE, create(&format!("/p/{name}{n:05}"), b"", 1)));
        assert_eq!(world.call(owner, MULTI, &multi(parts)).0, 0);
    }
    owner
}

/// The end of a session is prepared and applied in turns, with its list of paths and without, at its own
/// wish and when its client is gone. A node that somebody makes in the place of one of its nodes is
/// there before or after it.
#[test]
fn a_session_ends_in_turns() {
    // Beyond 1 MiB of paths there is no list.
    for (total, name, expires) in
        [(2000, String::new(), false), (2000, "n".repeat(600), false), (2000, "e".into(), true)]
    {
        let (mut world, clients) = ensemble();
        let owner = with_ephemerals(&mut world, clients[1].server, total, &name);
        let one = format!("/p/{name}{:05}", total / 2);
        let turns = world.turns;
        if expires {
            world.hang_up(owner);
            world.pass(Duration::from_secs(3));
            // Everybody else is alive.
            for client in &clients {
                world.send(*client, &request(-2, 11, &[]));
                while world.frame(*client).is_some() {}
            }
            world.pass(Duration::from_secs(5));
        } else {
            world.send_only(owner, &request(5, CLOSE_SESSION, &[]));
        }
        world.send_only(clients[2], &request(1, CREATE, &create(&one, b"", 0)));
        let readers = [clients[0], clients[1], clients[3]];
        let seen = watch_children(&mut world, &readers, |world| {
            world.received(clients[2]) > 0 && (expires || world.has_ended(owner))
        });
        let (_, code, _) = next(&mut world, clients[2]).expect("a reply");
        assert!(expires || world.turns > turns + 20, "{} turns", world.turns - turns);
        for seen in seen {
            assert!(seen.iter().all(|n| [0, 1, total].contains(n)), "{seen:?}");
        }
        world.run();
        for reader in clients.iter().copied() {
            while world.frame(reader).is_some() {}
            let (_, body) = world.call(reader, COUNT, &string("/p"));
            assert_eq!(count(&body), usize::from(code == 0), "{code}");
        }
        assert!(code == 0 || code == -110, "{code}");
        check_turns(&world);
    }
}

/// The session's nodes lie under a parent of its own each, and some were made or deleted just before: the
/// records of those are still pending when the end is prepared.
#[test]
fn a_session_ends_that_has_much_under_way() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 40_000);
    let parents = (0..800).map(|n| (CREATE, create(&format!("/{n:04}"), b"", 0)));
    assert_eq!(world.call(client, MULTI, &multi(parents)).0, 0);
    let (owner, ..) = world.open(0, 40_000);
    let node = |n: usize| format!("/{n:04}/e");
    let nodes = (0..600).map(|n| (CREATE, create(&node(n), b"", 1)));
    assert_eq!(world.call(owner, MULTI, &multi(nodes)).0, 0);
    world.disks[0].stalled = true;
    let more = (600..800).map(|n| (CREATE, create(&node(n), b"", 1)));
    let fewer = (0..200).map(|n| (DELETE, any_version(&node(n))));
    world.send(owner, &request(1, MULTI, &multi(more.chain(fewer))));
    world.send(client, &request(1, CREATE, &create("/0000/e", b"", 0)));
    world.send(owner, &request(2, CLOSE_SESSION, &[]));
    // It takes a name that the end sets free, and one that was taken before that.
    world.send(client, &request(2, CREATE, &create("/0700/e", b"", 0)));
    world.send(client, &request(3, CREATE, &create("/0000/e", b"", 0)));
    assert_eq!(world.received(client), 0);
    world.disks[0].stalled = false;
    world.run();
    let replies: Vec<_> = std::iter::from_fn(|| next(&mut world, client)).collect();
    let codes: Vec<(i32, i32)> = replies.iter().map(|(xid, code, _)| (*xid, *code)).collect();
    assert_eq!(codes, [(1, 0), (2, 0), (3, -110)]);
    let tree = &world.service(0).database().tree;
    assert_eq!(tree.ephemerals_count(), 0);
    let left: Vec<&str> = tree
        .node("/")
        .expect("root")
        .subtree()
        .map(|node| node.path())
        .filter(|p| p.ends_with('e'))
        .collect();
    assert_eq!(left, ["/0000/e", "/0700/e"]);
    for node in tree.node("/").expect("root").subtree() {
        assert_eq!(node.child_nodes().count(), node.child_count() as usize, "{}", node.path());
    }
    check_turns(&world);
}

/// The leader is lost while it prepares or applies a multi or the end of a session: those that go on have
/// all of it or nothing, and agree.
#[test]
fn a_leader_is_lost_in_the_middle() {
    const TOTAL: usize = 600;
    let mut outcomes = [0; 2];
    for (after, ends) in (0..16).map(|n| (n * 8, n % 2 == 1)) {
        let (mut world, clients) = ensemble();
        let leader = world.leader();
        let writer = clients[1];
        let owner = with_ephemerals(&mut world, clients[2].server, TOTAL, "e");
        if ends {
            world.send_only(owner, &request(5, CLOSE_SESSION, &[]));
        } else {
            world.send_only(writer, &request(1, MULTI, &multi(children(TOTAL, 0))));
        }
        for _ in 0..after {
            world.step();
        }
        world.kill(leader);
        let serves = |world: &World| {
            (0..4).any(|server| {
                let node = &world.nodes[server];
                server != leader
                    && world.leads(server)
                    && node.peer().status().phase == Phase::Broadcast
            })
        };
        for _ in 0..400 {
            world.pass(Duration::from_millis(50));
            if serves(&world) {
                break;
            }
        }
        world.pass(Duration::from_secs(1));
        let live = (0..4).filter(|server| *server != leader);
        let counts: Vec<u32> = live
            .map(|server| {
                let tree = &world.service(server).database().tree;
                tree.node("/p").expect("there").child_count()
            })
            .collect();
        let total = u32::try_from(TOTAL).expect("few");
        let expected = if ends { [0, total] } else { [total, 2 * total] };
        assert!(expected.contains(&counts[0]), "{counts:?}");
        assert!(counts.iter().all(|n| *n == counts[0]), "{counts:?}");
        outcomes[usize::from(counts[0] == expected[1])] += 1;
        for server in 0..4 {
            assert_eq!(world.service(server).digest_mismatches(), 0);
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "some lose it and some do not: {outcomes:?}");
}

/// A session goes to another member, or to the leader itself, while its multi is prepared: it is attached
/// behind that, and reads what it has written.
#[test]
fn a_session_that_moves_finds_what_it_has_begun() {
    const TOTAL: usize = 600;
    for to in [0, 2] {
        let (mut world, clients) = ensemble();
        let leader = world.leader();
        let (old, session, password) = world.open(clients[1].server, 40_000);
        let new = world.connect(clients[to].server).expect("accepted");
        world.send_only(old, &request(1, MULTI, &multi(children(TOTAL, 0))));
        while !world.service(leader).is_preparing() {
            assert!(world.step(), "it is never begun");
        }
        // What arrives later comes with a turn of its own.
        world.sleep(Duration::from_millis(1));
        world.send_only(new, &Connect::again(40_000, session, password).to_vec());
        world.send_only(new, &request(2, COUNT, &string("/p")));
        let mut frames = Vec::new();
        while frames.len() < 2 {
            assert!(world.step(), "it is never answered");
            frames.extend(world.frame(new));
        }
        assert_eq!(frames[0][8..16], session.to_be_bytes(), "refused");
        let (xid, _, code, body) = reply(&frames[1]);
        assert_eq!((xid, code, count(body)), (2, 0, TOTAL), "to the one at {to}");
        check_turns(&world);
    }
}

/// What somebody watches is told once, however many pieces it takes, and before any answer that shows it.
#[test]
fn watches_are_told_once_and_in_order() {
    let (mut world, clients) = ensemble();
    let watcher = clients[3];
    for n in 0..300 {
        let mut record = string(&format!("/p/{n:05}"));
        record.push(1);
        assert_eq!(world.call(watcher, EXISTS, &record).0, -101);
    }
    world.send_only(clients[0], &request(1, MULTI, &multi(children(300, 0))));
    world.send_only(watcher, &request(1, COUNT, &string("/p")));
    let (mut events, mut last) = (0, 0);
    for _ in 0..2000 {
        world.step();
        while let Some((xid, _, body)) = next(&mut world, watcher) {
            if xid == -1 {
                events += 1;
                continue;
            }
            last = count(&body);
            assert!(last == 0 || (last, events) == (300, 300), "{last} children, {events} events");
            world.send_only(watcher, &request(1, COUNT, &string("/p")));
        }
    }
    assert_eq!((last, events), (300, 300));
    check_turns(&world);
}

/// A multiRead of data and lists, while somebody writes in every turn: it is answered in pieces, and shows
/// one instant. All nodes are given the same number in one transaction.
#[test]
fn a_multi_read_shows_one_instant() {
    let (mut world, clients) = ensemble();
    let set = |n: u32, path: String| (SET_DATA, set_data(&path, &n.to_be_bytes()));
    let path = |n: usize| format!("/p/{n:05}");
    assert_eq!(world.call(clients[0], MULTI, &multi(children(400, 0))).0, 0);
    let parts = (0..400).map(|n| (GET_DATA, read(&path(n), false)));
    let lists = (0..5).map(|_| (GET_CHILDREN, read("/p", false)));
    let reading = multi(parts.chain(lists));
    let (writer, readers) = (clients[0], [clients[0], clients[1], clients[3]]);
    let (mut answered, mut written) = (0, 0_u32);
    for reader in readers {
        let (other, ..) = world.open(reader.server, 40_000);
        world.send_only(other, &request(1, MULTI_READ, &reading));
        for _ in 0..2000 {
            // Two nodes at a time, so that each of its pieces finds another state.
            let (a, b) = (set(written, path(3)), set(written, path(396)));
            world.send_only(writer, &request(9, MULTI, &multi([a, b])));
            written += 1;
            world.step();
            if world.received(other) > 0 {
                break;
            }
        }
        let (_, code, body) = next(&mut world, other).expect("a reply");
        assert_eq!(code, 0);
        let part = 9 + 4 + 4 + 68;
        let data = |n: usize| {
            let skip = 9 + 4 + 68;
            // All nodes but the two have empty data.
            let at: usize = (0..n).map(|n| if [3, 396].contains(&n) { part } else { skip }).sum();
            body[at + 9..at + 9 + 8].to_vec()
        };
        let (one, other_one) = (data(3), data(396));
        assert_eq!(one, other_one, "of one instant");
        assert_eq!(one[..4], 4_u32.to_be_bytes());
        answered += 1;
        world.run();
    }
    assert_eq!(answered, 3);
    check_turns(&world);
}

/// So does getEphemerals, while the session's other nodes come and go.
#[test]
fn ephemerals_are_those_of_one_instant() {
    let (mut world, clients) = ensemble();
    for server in [clients[0].server, clients[2].server] {
        let owner = with_ephemerals(&mut world, server, 1000, &format!("s{server}-"));
        let mut asked = 0;
        let mut seen = Vec::new();
        let replies = &mut Vec::new();
        for round in 0..600 {
            if round % 60 == 0 {
                asked += 1;
                world.send_only(owner, &request(asked, GET_EPHEMERALS, &string("/")));
            }
            // The one that goes is before the one that comes, in one transaction.
            let gone = format!("/p/s{server}-{round:05}");
            let come = format!("/p/s{server}-new{round:05}");
            let swap = [(DELETE, any_version(&gone)), (CREATE, create(&come, b"", 0))];
            world.send_only(clients[1], &request(1, MULTI, &multi(swap)));
            world.step();
            while let Some((xid, code, body)) = next(&mut world, owner) {
                replies.push((xid, code));
                seen.push(count(&body));
            }
            while world.frame(clients[1]).is_some() {}
        }
        world.run();
        while let Some((xid, code, body)) = next(&mut world, owner) {
            replies.push((xid, code));
            seen.push(count(&body));
        }
        assert_eq!(*replies, (1..=asked).map(|xid| (xid, 0)).collect::<Vec<_>>());
        assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "{seen:?}");
        let left = world.service(server).database().tree.ephemerals_count();
        assert_eq!(left, 400);
        world.hang_up(owner);
        world.pass(Duration::from_secs(8));
    }
    check_turns(&world);
}

/// A client that does not read holds nobody up: commits go on, and it is answered when it reads.
#[test]
fn who_does_not_read_its_answer_freezes_nothing() {
    let mut world = World::standalone(options().with(|options| {
        options.out_len_soft_max_bytes = 1000;
    }));
    let (writer, ..) = world.open(0, 40_000);
    assert_eq!(world.call(writer, CREATE, &create("/p", b"", 0)).0, 0);
    assert_eq!(world.call(writer, MULTI, &multi(children(400, 0))).0, 0);
    let lists = (0..20).map(|_| (GET_CHILDREN, read("/p", false)));
    let reading = multi(lists);
    let deaf: Vec<Client> = (0..5).map(|_| world.open(0, 40_000).0).collect();
    for client in &deaf {
        world.set_deaf(*client, true);
        let requests: Vec<u8> =
            (1..=3).flat_map(|xid| request(xid, MULTI_READ, &reading)).collect();
        world.send_only(*client, &requests);
    }
    for n in 0..100 {
        world.send_only(writer, &request(n, CREATE, &create("/w", b"", 2)));
        let mut turns = 0;
        while world.received(writer) == 0 {
            world.step();
            turns += 1;
            assert!(turns < 200, "write {n}");
        }
        while world.frame(writer).is_some() {}
    }
    for client in deaf {
        world.set_deaf(client, false);
        world.run();
        for xid in 1..=3 {
            assert_eq!(next(&mut world, client).map(|(xid, code, _)| (xid, code)), Some((xid, 0)));
        }
    }
    check_turns(&world);
}
