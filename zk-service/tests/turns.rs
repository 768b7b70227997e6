//! Whatever clients ask, a turn of the server's loop ends, and nobody waits for those who ask much.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{any_version, auth, create, create_with, multi, read, request, string};
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const EXISTS: i32 = Opcode::Exists.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const GET_CHILDREN: i32 = Opcode::GetChildren.wire();
const MULTI: i32 = Opcode::Multi.wire();
const MULTI_READ: i32 = Opcode::MultiRead.wire();
const GET_EPHEMERALS: i32 = Opcode::GetEphemerals.wire();
const GET_ALL_CHILDREN_NUMBER: i32 = Opcode::GetAllChildrenNumber.wire();

/// A small turn, so that little work exceeds it.
const TURN: u64 = 20_000;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.work_per_turn = TURN;
    })
}

/// A server with this many children below `/p`, and its first client.
fn with_children(options: ServiceOptions, count: usize) -> (World, Client) {
    let mut world = World::standalone(options);
    let (client, ..) = world.open(0, 40_000);
    assert_eq!(world.call(client, CREATE, &create("/p", b"", 0)).0, 0);
    let parts = (0..count).map(|n| (CREATE, create(&format!("/p/{n:05}"), b"", 0)));
    assert_eq!(world.call(client, MULTI, &multi(parts)).0, 0);
    (world, client)
}

fn xids(world: &mut World, client: Client) -> Vec<i32> {
    std::iter::from_fn(|| world.frame(client)).map(|frame| reply(&frame).0).collect()
}

/// Many clients send at once many requests each of which takes half a turn or more. A write of
/// somebody else is answered within a few turns, mostly in the next but one, where their requests in
/// front of it would take ten and more; and in the end everything is answered.
fn others_are_served(op: i32, record: &[u8]) {
    let (mut world, _) = with_children(options(), 1000);
    let (other, ..) = world.open(0, 40_000);
    let peak_before = world.service(0).work_peak();
    let clients: Vec<Client> = (0..10).map(|_| world.open(0, 40_000).0).collect();
    let requests: Vec<u8> = (1..=40).flat_map(|xid| request(xid, op, record)).collect();
    for client in &clients {
        world.send_only(*client, &requests);
    }
    let mut waited = 0;
    for n in 0..30 {
        world.send_only(other, &request(n, CREATE, &create("/w", b"", 2)));
        let mut turns = 0;
        while world.received(other) == 0 {
            assert!(world.step(), "the others' requests take longer");
            turns += 1;
        }
        // A multi of three turns of work is prepared in pieces of half of one while others wait.
        assert!(turns <= if op == MULTI { 9 } else { 4 }, "operation {op}: {turns} turns");
        waited += turns;
        assert_eq!(xids(&mut world, other), [n], "operation {op}");
    }
    assert!(
        waited <= if op == MULTI { 240 } else { 60 },
        "operation {op}: {waited} turns for thirty writes"
    );
    let turns = world.turns;
    world.run();
    assert!(world.turns > turns + 20);
    for client in clients {
        assert_eq!(xids(&mut world, client), (1..=40).collect::<Vec<_>>());
    }
    let peak = world.service(0).work_peak();
    assert!(peak <= peak_before.max(TURN + 100_000), "a turn and one request: {peak}");
}

#[test]
fn listings_hold_up_nobody() {
    others_are_served(GET_CHILDREN, &read("/p", false));
}

/// A turn begins with the first call at a new time. If only the end of the work did it, a server that
/// is never too busy would put off somebody's requests every few thousand.
#[test]
fn the_work_of_earlier_turns_holds_up_nobody() {
    let (mut world, client) = with_children(options(), 1);
    let requests: Vec<u8> =
        (1..=20).flat_map(|xid| request(xid, GET_DATA, &read("/p/00000", false))).collect();
    for round in 0..10 {
        let turns = world.turns;
        world.send(client, &requests);
        // The second time at one instant is beyond a turn's work.
        assert_eq!(world.turns > turns, round % 2 == 1, "round {round}");
        assert_eq!(xids(&mut world, client), (1..=20).collect::<Vec<_>>());
        if round % 2 == 1 {
            world.sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_count_walks_no_tree() {
    let (mut world, _) = with_children(options(), 3000);
    let (client, ..) = world.open(0, 40_000);
    let turns = world.turns;
    let requests: Vec<u8> =
        (1..=100).flat_map(|xid| request(xid, GET_ALL_CHILDREN_NUMBER, &string("/"))).collect();
    world.send(client, &requests);
    assert_eq!(xids(&mut world, client), (1..=100).collect::<Vec<_>>());
    assert!(world.turns <= turns + 4, "{} turns", world.turns - turns);
    let (code, count) = world.call(client, GET_ALL_CHILDREN_NUMBER, &string("/"));
    assert_eq!((code, number(&count)), (0, 3004));
}

#[test]
fn many_reads_in_one_hold_up_nobody() {
    let parts = (0..100).map(|n| (GET_DATA, read(&format!("/p/{n:05}"), false)));
    others_are_served(MULTI_READ, &multi(parts));
}

#[test]
fn checks_in_multis_hold_up_nobody() {
    const CHECK: i32 = Opcode::Check.wire();
    let check = |n: usize| any_version(&format!("/p/{n:05}"));
    others_are_served(MULTI, &multi((0..40).map(|n| (CHECK, check(n)))));
}

/// An auth packet: identities are compared with all that the client has, and each request about a list
/// that names somebody with all of the client's.
fn login(user: usize) -> Vec<u8> {
    auth("digest", format!("user{user}:pw").as_bytes())
}

/// A create with this many entries in its ACL.
fn create_for(path: &str, users: usize) -> Vec<u8> {
    let ids: Vec<String> = (0..users).map(|user| format!("other{user}:hash")).collect();
    let acl: Vec<_> = ids.iter().map(|id| (31, "digest", &**id)).collect();
    create_with(path, b"", &acl, 0)
}

#[test]
fn identities_by_the_thousand_hold_up_nobody() {
    const AUTH: i32 = Opcode::Auth.wire();
    const USERS: usize = 1000;
    let (mut world, other) = with_children(options(), 1);
    let (client, ..) = world.open(0, 40_000);
    let packets: Vec<u8> = (0..USERS).flat_map(|n| request(-4, AUTH, &login(n))).collect();
    let turns = world.turns;
    world.send(client, &packets);
    assert_eq!(xids(&mut world, client), vec![-4; USERS]);
    // Each is compared with those before it: on average 500 of 45 bytes.
    assert!(world.turns - turns > 800, "{} turns", world.turns - turns);

    assert_eq!(world.call(other, CREATE, &create_for("/secret", 1000)).0, 0);
    for op in [EXISTS, GET_DATA, GET_CHILDREN] {
        let turns = world.turns;
        let reads: Vec<u8> =
            (1..=20).flat_map(|n| request(n, op, &read("/secret", false))).collect();
        world.send(client, &reads);
        assert_eq!(xids(&mut world, client).len(), 20);
        assert!(world.turns - turns >= 19, "one request for a turn of a tenth: {op}");
    }
    // Those who have no more than their address ask as fast as before.
    let turns = world.turns;
    world.send(
        other,
        &(1..=20).flat_map(|n| request(n, EXISTS, &read("/secret", false))).collect::<Vec<_>>(),
    );
    assert!(world.turns - turns <= 2, "{} turns", world.turns - turns);
}

#[test]
fn long_lists_are_paid_for_by_who_sets_them() {
    let (mut world, client) = with_children(options(), 1);
    for (n, users) in [1, 2000].into_iter().enumerate() {
        let turns = world.turns;
        let creates =
            (0..10).flat_map(|k| request(k, CREATE, &create_for(&format!("/list{n}-{k}"), users)));
        world.send(client, &creates.collect::<Vec<_>>());
        let answered =
            std::iter::from_fn(|| world.frame(client)).filter(|frame| reply(frame).2 == 0);
        assert_eq!(answered.count(), 10);
        let turns = world.turns - turns;
        assert!(if users == 1 { turns <= 3 } else { turns >= 9 }, "{users} entries: {turns} turns");
    }
}

#[test]
fn words_that_list_all_watches_hold_up_nobody() {
    let words = options().with(|options| {
        options.four_letter_whitelist = vec!["*".into()];
        options.max_client_cnxns = 0;
    });
    let (mut world, watcher) = with_children(words, 0);
    for n in 0..1000 {
        let mut watch = string(&format!("/watched/{n}"));
        watch.push(1);
        assert_eq!(world.call(watcher, EXISTS, &watch).0, -101);
    }
    let (other, ..) = world.open(0, 40_000);
    let askers: Vec<Client> = (0..50).map(|_| world.connect(0).expect("accepted")).collect();
    for (n, asker) in askers.iter().enumerate() {
        world.send_only(*asker, if n % 2 == 0 { b"wchp" } else { b"wchc" });
    }
    for n in 0..5 {
        world.send_only(other, &request(n, CREATE, &create("/w", b"", 2)));
        let mut turns = 0;
        while world.received(other) == 0 {
            assert!(world.step(), "the words take longer");
            turns += 1;
        }
        assert!(turns <= 3, "{turns} turns");
        assert_eq!(xids(&mut world, other), [n]);
    }
    world.run();
    for (n, asker) in askers.into_iter().enumerate() {
        let lines = world.text(asker).lines().count();
        assert_eq!(lines, if n % 2 == 0 { 2001 } else { 1002 });
        assert!(world.has_ended(asker));
    }
}

/// Learners forward more than a turn's work; the leader hears its own client between their
/// requests, answers all of them, and does no more in a turn than a turn's work and one request.
#[test]
fn requests_of_learners_are_prepared_in_turns() {
    const CHECK: i32 = Opcode::Check.wire();
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let (own, ..) = world.open(leader, 40_000);
    let checks = multi((0..40).map(|_| (CHECK, any_version("/"))));
    let requests: Vec<u8> = (1..=30).flat_map(|xid| request(xid, MULTI, &checks)).collect();
    let followers = (0..3).filter(|server| *server != leader);
    let clients: Vec<Client> =
        followers.flat_map(|f| [f; 3]).map(|f| world.open(f, 40_000).0).collect();
    let before = world.turns;
    for client in &clients {
        world.send_only(*client, &requests);
    }
    for n in 0..10 {
        world.send_only(own, &request(n, CREATE, &create("/w", b"", 2)));
        let mut turns = 0;
        while world.received(own) == 0 {
            let more = world.step();
            assert!(
                more,
                "the learners' requests take longer: {n} {turns} {}",
                world.turns - before
            );
            turns += 1;
        }
        // One of these multis is three turns of work, and has half of each.
        assert!(turns <= 14, "{turns} turns");
        assert_eq!(xids(&mut world, own), [n]);
    }
    world.run();
    assert!(world.turns > before + 60, "{} turns", world.turns - before);
    for client in clients {
        assert_eq!(xids(&mut world, client), (1..=30).collect::<Vec<_>>());
    }
    let peak = world.service(leader).work_peak();
    assert!(peak <= TURN + 41 * 1500 + 10_000, "{peak}");
}

#[test]
fn reads_behind_a_write_are_answered_in_turns() {
    let (mut world, other) = with_children(options(), 1000);
    let (client, ..) = world.open(0, 40_000);
    world.disks[0].stalled = true;
    world.send_only(client, &request(1, CREATE, &create("/q", b"", 0)));
    for xid in 2..=200 {
        world.send_only(client, &request(xid, GET_CHILDREN, &read("/p", false)));
        world.run();
    }
    let before = world.turns;
    assert_eq!(world.received(client), 0);
    world.disks[0].stalled = false;
    world.run();
    assert!(world.turns > before + 100, "{} turns", world.turns - before);
    assert_eq!(xids(&mut world, client), (1..=200).collect::<Vec<_>>());
    assert_eq!(world.call(other, GET_DATA, &read("/q", false)).0, 0);
}

/// Reads whose turn has not come do not keep a write behind them from its answer.
#[test]
fn writes_behind_reads_behind_a_write_are_answered() {
    let (mut world, _) = with_children(options(), 1000);
    let (client, ..) = world.open(0, 40_000);
    world.disks[0].stalled = true;
    let mut asked = 0;
    for _ in 0..5 {
        asked += 1;
        world.send_only(client, &request(asked, CREATE, &create("/w", b"", 2)));
        for _ in 0..30 {
            asked += 1;
            world.send_only(client, &request(asked, GET_CHILDREN, &read("/p", false)));
            world.run();
        }
    }
    world.disks[0].stalled = false;
    world.run();
    assert_eq!(xids(&mut world, client), (1..=asked).collect::<Vec<_>>());
}

#[test]
fn a_write_that_comes_while_reads_are_answered_in_turns_waits_for_them() {
    let (mut world, _) = with_children(options(), 1000);
    let (client, ..) = world.open(0, 40_000);
    world.disks[0].stalled = true;
    world.send_only(client, &request(1, CREATE, &create("/w", b"", 2)));
    for xid in 2..=30 {
        world.send_only(client, &request(xid, GET_CHILDREN, &read("/p", false)));
        world.run();
    }
    world.disks[0].stalled = false;
    assert!(world.step() && world.step());
    world.send_only(client, &request(31, CREATE, &create("/w", b"", 2)));
    world.run();
    assert_eq!(xids(&mut world, client), (1..=31).collect::<Vec<_>>());
}

/// A client that reads nothing has asked for a write and for long lists behind it, up to this xid.
fn reads_behind_a_write(soft: usize, last: i32) -> (World, Client) {
    let (mut world, _) =
        with_children(options().with(|options| options.out_len_soft_max_bytes = soft), 1000);
    let (client, ..) = world.open(0, 40_000);
    world.disks[0].stalled = true;
    world.send_only(client, &request(1, CREATE, &create("/q", b"", 0)));
    for xid in 2..=last {
        world.send_only(client, &request(xid, GET_CHILDREN, &read("/p", false)));
        world.run();
    }
    world.set_deaf(client, true);
    world.disks[0].stalled = false;
    world.run();
    (world, client)
}

/// What a connection that reads nothing holds: no more than the soft limit and one reply.
#[test]
fn reads_behind_a_write_are_not_answered_to_who_does_not_read() {
    let soft = 100_000;
    let (mut world, client) = reads_behind_a_write(soft, 200);
    let bytes = world.service(0).unsent_bytes();
    assert!(bytes > soft && bytes < soft + 10_000, "{bytes}");
    world.set_deaf(client, false);
    assert_eq!(xids(&mut world, client), (1..=200).collect::<Vec<_>>());
}

/// Its answers wait for it to read, and it asks again when it has read a little.
#[test]
fn who_reads_slowly_and_goes_on_asking_is_answered() {
    let soft = 100_000;
    let (mut world, client) = reads_behind_a_write(soft, 50);
    assert!(world.service(0).unsent_bytes() > soft);
    while world.service(0).unsent_bytes() > soft {
        world.read_some(client, 10_000);
        world.pass(Duration::from_millis(1));
    }
    let unsent = world.service(0).unsent_bytes();
    assert!(unsent > soft / 2, "{unsent}");
    world.send_only(client, &request(51, GET_CHILDREN, &read("/p", false)));
    world.run();
    world.set_deaf(client, false);
    assert_eq!(xids(&mut world, client), (1..=51).collect::<Vec<_>>());
}

fn number(at: &[u8]) -> i32 {
    i32::from_be_bytes(at[..4].try_into().expect("four bytes"))
}

fn count(at: &[u8]) -> usize {
    usize::try_from(number(at)).expect("a length")
}

/// The codes of a multiRead's results, and whether each is of the kind asked for.
fn results(mut body: &[u8], len_of: impl Fn(&[u8]) -> usize) -> Vec<i32> {
    let mut codes = Vec::new();
    loop {
        let (op, done, err) = (number(body), body[4] == 1, number(&body[5..]));
        body = &body[9..];
        if done {
            assert!(body.is_empty());
            return codes;
        }
        codes.push(err);
        body = &body[if op == -1 { 4 } else { len_of(body) }..];
    }
}

#[test]
fn a_reply_is_bounded_and_what_is_behind_it_is_refused() {
    let bounded = options().with(|options| {
        options.jute_max_buffer = 20_000;
        options.reply_len_max_bytes = 50_000;
        options.work_per_turn = 4_000_000;
    });
    let mut world = World::standalone(bounded);
    let (client, ..) = world.open(0, 40_000);
    assert_eq!(world.call(client, CREATE, &create("/big", &[7; 15_000], 0)).0, 0);
    assert_eq!(world.call(client, CREATE, &create("/small", b"x", 0)).0, 0);
    // Twice over: seven, of which three fit, with a small one at the end that fits.
    let parts =
        (0..7).map(|_| (GET_DATA, read("/big", false))).chain([(GET_DATA, read("/small", false))]);
    let (code, body) = world.call(client, MULTI_READ, &multi(parts));
    assert_eq!(code, 0);
    let len_of = |data: &[u8]| 4 + count(data) + 68;
    assert_eq!(results(&body, len_of), [0, 0, 0, -5, -5, -5, -5, 0]);
    // A listing at the bound, and at twice the bound.
    for (n, code) in [(1, 0), (2, -5)] {
        let parent = format!("/p{n}");
        assert_eq!(world.call(client, CREATE, &create(&parent, b"", 0)).0, 0);
        for from in (0..n * 2450).step_by(245) {
            let path = |at: usize| format!("{parent}/{at:016}");
            let parts = (from..from + 245).map(|at| (CREATE, create(&path(at), b"", 0)));
            assert_eq!(world.call(client, MULTI, &multi(parts)).0, 0);
        }
        let (listed, body) = world.call(client, GET_CHILDREN, &read(&parent, false));
        assert_eq!((listed, body.len()), (code, if code == 0 { 4 + 2450 * 20 } else { 0 }));
    }
    assert_eq!(
        world.call(client, GET_DATA, &read("/big", false)).0,
        0,
        "and the connection goes on"
    );
}

#[test]
fn ephemerals_are_listed_within_the_bound() {
    let bounded = options().with(|options| {
        options.jute_max_buffer = 20_000;
        options.reply_len_max_bytes = 40_000;
    });
    let mut world = World::standalone(bounded);
    let (client, ..) = world.open(0, 40_000);
    for n in 0..4000 {
        assert_eq!(world.call(client, CREATE, &create(&format!("/{n:015}"), b"", 1)).0, 0);
        if n == 1990 {
            assert_eq!(world.call(client, GET_EPHEMERALS, &string("")).0, 0);
        }
    }
    assert_eq!(world.call(client, GET_EPHEMERALS, &string("")).0, -5);
    assert_eq!(world.call(client, GET_EPHEMERALS, &string("/00000000000001")).0, 0);
}

#[test]
fn the_parts_of_one_request_are_bounded_by_their_work() {
    let options = options().with(|options| options.work_per_request = 200_000);
    let (mut world, client) = with_children(options, 3000);
    let parts = (0..10).map(|_| (GET_CHILDREN, read("/p", false)));
    let (code, body) = world.call(client, MULTI_READ, &multi(parts));
    assert_eq!(code, 0);
    let codes = results(&body, |names| 4 + count(names) * 9);
    let answered = codes.iter().filter(|code| **code == 0).count();
    assert!((2..5).contains(&answered), "{codes:?}");
    assert!(codes[answered..].iter().all(|code| *code == -5), "{codes:?}");
}

/// However many transactions are committed at once, they are applied in turns.
#[test]
fn commits_are_applied_in_turns() {
    let (mut world, client) = with_children(options(), 10);
    world.disks[0].stalled = true;
    for xid in 0..200 {
        world.send_only(client, &request(xid, CREATE, &create("/w", b"", 2)));
        world.run();
    }
    let turns = world.turns;
    world.disks[0].stalled = false;
    let mut most = 0;
    let mut before = 0;
    while world.step() {
        most = most.max(world.received(client) - before);
        before = world.received(client);
    }
    // Twenty a turn, each with an answer of 35 bytes.
    assert!((35..=21 * 35).contains(&most), "{most} bytes of answers in one turn");
    assert!(world.turns - turns >= 9, "{} turns", world.turns - turns);
    world.run();
    assert_eq!(xids(&mut world, client), (0..200).collect::<Vec<_>>());
}

/// A write waits for the reads in front of it if they cost more than a part of a turn, so that it is
/// not its transaction that has to.
#[test]
fn reads_in_front_of_a_write_are_few_or_cheap() {
    // All of both kinds; or one write with one read behind it.
    for (path, expected) in [("/p/00000", 10..=40), ("/p", 2..=2)] {
        let (mut world, _) = with_children(options(), 1000);
        let (client, ..) = world.open(0, 40_000);
        world.disks[0].stalled = true;
        let mut queued = 0;
        for n in 0..20 {
            world.send_only(client, &request(n, CREATE, &create("/w", b"", 2)));
            world.send_only(client, &request(100 + n, GET_CHILDREN, &read(path, false)));
            world.run();
            queued += if world.unconsumed(client) == 0 { 2 } else { 0 };
        }
        assert!(expected.contains(&queued), "{path}: {queued} are in the queue");
        world.disks[0].stalled = false;
        world.run();
        let answered: Vec<i32> = (0..20).flat_map(|n| [n, 100 + n]).collect();
        assert_eq!(xids(&mut world, client), answered);
    }
}

/// The places of a session's nodes are cleared away in turns that take no time from others.
#[test]
fn nodes_of_an_ended_session_are_cleared_away_in_turns() {
    let (mut world, other) = with_children(options(), 1);
    let (owner, ..) = world.open(0, 40_000);
    let parts = (0..2000).map(|n| (CREATE, create(&format!("/p/e{n}"), b"", 1)));
    assert_eq!(world.call(owner, MULTI, &multi(parts)).0, 0);
    let turns = world.turns;
    world.send_only(owner, &request(1, -11, &[]));
    while !world.has_ended(owner) {
        assert!(world.step() || world.has_ended(owner));
    }
    // Everybody sees them gone, and names are free again: when it is prepared and applied, in turns, too.
    let ended = world.turns - turns;
    assert!((20..100).contains(&ended), "{ended} turns");
    world.send_only(other, &request(1, CREATE, &create("/p/e7", b"", 0)));
    while world.received(other) == 0 {
        world.step();
    }
    assert!(world.turns - turns < ended + 7, "{} turns", world.turns - turns);
    world.run();
    // A quarter of a turn clears 33.
    assert!(world.turns - turns >= 2000 / 34, "{} turns", world.turns - turns);
    assert_eq!(world.frame(other).map(|frame| reply(&frame).2), Some(0));
    let (code, count) = world.call(other, GET_ALL_CHILDREN_NUMBER, &string("/p"));
    assert_eq!((code, number(&count)), (0, 2));
}

/// What a connection watches is cleared away in turns when it ends, and its place is nobody's before.
#[test]
fn watches_of_an_ended_connection_are_cleared_away_in_turns() {
    let (mut world, other) = with_children(options(), 1);
    let (watcher, ..) = world.open(0, 40_000);
    let watch = |n: usize| [string(&format!("/w{n}")), vec![1]].concat();
    let reads: Vec<u8> = (0..2500).flat_map(|n| request(1, EXISTS, &watch(n))).collect();
    world.send(watcher, &reads);
    assert_eq!(xids(&mut world, watcher).len(), 2500);
    let before = world.service(0).kept_len();
    let turns = world.turns;
    world.hang_up(watcher);
    assert!(world.service(0).kept_len() < before - 2500 * 144, "they count no more");
    // Who comes now, perhaps in its place, is told of nothing that it has not asked for.
    let (next, ..) = world.open(0, 40_000);
    assert_eq!(world.call(other, CREATE, &create("/w7", b"", 0)).0, 0);
    world.run();
    assert_eq!(world.received(next), 0);
    // A quarter of a turn clears 33.
    assert!(world.turns - turns >= 2500 / 34, "{} turns", world.turns - turns);
    let (again, ..) = world.open(0, 40_000);
    assert_eq!(world.call(other, CREATE, &create("/w9", b"", 0)).0, 0);
    assert_eq!(world.received(again), 0);
}
