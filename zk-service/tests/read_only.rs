//! Clients of a server that has found no leader (`readonlymode.enabled`), with what a real 3.9.4 was
//! recorded to answer (`vectors/client/read-only.txt`).

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, read, request};
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const GET_DATA: i32 = Opcode::GetData.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
const NOT_READ_ONLY: i32 = -119;
const NO_PASSWORD: [u8; 16] = [0; 16];
/// Longer than `max(2 s, tick)`.
const LONG: Duration = Duration::from_millis(2_100);

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_millis(500);
        options.read_only_mode = true;
        options.four_letter_whitelist = vec!["*".into()];
    })
}

/// The last of three servers, after the two others have gone for good.
fn survivor(options: &ServiceOptions) -> (World, usize) {
    let mut world = World::ensemble(3, 0, options);
    let last = world.leader();
    let (writer, ..) = world.open(last, 4_000);
    assert_eq!(world.call(writer, CREATE, &create("/n", b"x", 0)).0, 0);
    for server in (0..3).filter(|server| *server != last) {
        world.kill(server);
    }
    (world, last)
}

fn greeting(session: i64, password: [u8; 16]) -> Vec<u8> {
    Connect { read_only: Some(true), ..Connect::again(4_000, session, password) }.to_vec()
}

/// A handshake of a client that reads only: the answer, or nothing if the connection was closed.
fn open(world: &mut World, server: usize, session: i64, password: [u8; 16]) -> (Client, Vec<u8>) {
    let client = world.connect(server).expect("accepted");
    world.send(client, &greeting(session, password));
    let answer = world.frame(client).unwrap_or_default();
    assert_eq!(answer.is_empty(), world.has_ended(client));
    (client, answer)
}

fn session_of(answer: &[u8]) -> (i64, [u8; 16]) {
    let id = i64::from_be_bytes(answer[8..16].try_into().expect("eight"));
    (id, answer[20..36].try_into().expect("sixteen"))
}

fn word(world: &mut World, server: usize, word: &str) -> String {
    let client = world.connect(server).expect("accepted");
    world.send(client, word.as_bytes());
    world.text(client)
}

#[test]
fn a_server_without_a_leader_lets_read_who_asks_for_no_more() {
    let (mut world, last) = survivor(&options());
    assert_eq!(word(&mut world, last, "isro"), "rw");
    world.pass(Duration::from_millis(2_500 + 500));
    world.pass(LONG);
    assert_eq!(word(&mut world, last, "isro"), "ro");
    assert!(word(&mut world, last, "srvr").contains("\nMode: read-only\n"));
    assert!(word(&mut world, last, "mntr").contains("zk_server_state\tread-only\n"));

    let (client, answer) = open(&mut world, last, 0, NO_PASSWORD);
    assert_eq!((answer.len(), answer[36]), (37, 1), "it is told so");
    let (code, body) = world.call(client, GET_DATA, &read("/n", true));
    assert_eq!((code, &body[..5]), (0, &b"\0\0\0\x01x"[..]));
    assert_eq!(world.call(client, CREATE, &create("/m", b"", 0)), (NOT_READ_ONLY, vec![]));
    assert!(word(&mut world, last, "stat").contains("\nMode: read-only\n"));

    // It writes, or is too old to say.
    for read_only in [Some(false), None] {
        let other = world.connect(last).expect("accepted");
        world.send(other, &Connect { read_only, ..Connect::new(4_000) }.to_vec());
        assert!(world.has_ended(other));
        assert_eq!(world.received(other), 0);
    }
}

#[test]
fn without_the_option_nobody_is_served() {
    let options = options().with(|options| options.read_only_mode = false);
    let (mut world, last) = survivor(&options);
    world.pass(LONG * 3);
    assert_eq!(open(&mut world, last, 0, NO_PASSWORD).1, []);
    assert_eq!(word(&mut world, last, "isro"), "null");
}

#[test]
fn every_request_that_needs_a_leader_is_refused_and_every_other_carried_out() {
    let (mut world, last) = survivor(&options());
    world.pass(LONG * 2);
    let (client, _) = open(&mut world, last, 0, NO_PASSWORD);
    let recorded = include_str!("vectors/client/read-only.txt");
    let mut frames = 0;
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (sent, recorded) = line.split_once(' ').expect("two columns");
        world.send(client, &bytes(sent));
        for expected in recorded.split(' ') {
            let (ours, theirs) = (world.frame(client).expect(line), bytes(expected));
            let ((xid, _, code, body), (xid2, _, code2, body2)) =
                (reply(&ours), reply(&theirs[4..]));
            assert_eq!((xid, code), (xid2, code2), "{line}");
            if xid == -1 {
                assert_eq!(body, body2, "{line}");
            } else {
                assert_eq!(body.is_empty(), body2.is_empty(), "{line}");
            }
            frames += 1;
        }
    }
    assert_eq!(frames, 16);
    for op in [13, 15, 19, 20, 21] {
        assert_eq!(world.call(client, op, &[]), (NOT_READ_ONLY, vec![]), "operation {op}");
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    let text = |two| std::str::from_utf8(two).expect("ASCII");
    digits.map(|two| u8::from_str_radix(text(two), 16).expect("hexadecimal")).collect()
}

#[test]
fn a_session_goes_on_where_it_was_begun_and_ends_when_its_client_says_so() {
    let (mut world, last) = survivor(&options());
    world.pass(LONG * 2);
    let (first, answer) = open(&mut world, last, 0, NO_PASSWORD);
    let (session, password) = session_of(&answer);
    let (again, answer) = open(&mut world, last, session, password);
    assert_eq!(session_of(&answer), (session, password));
    assert!(world.has_ended(first));
    assert_eq!(world.call(again, CLOSE, &[]), (0, vec![]));
    assert!(world.has_ended(again));
    let client = world.connect(last).expect("accepted");
    world.send(client, &greeting(session, password));
    let answer = world.frame(client).expect("a refusal");
    assert_eq!(session_of(&answer).0, 0);
}

#[test]
fn a_silent_session_expires() {
    let (mut world, last) = survivor(&options());
    world.pass(LONG * 2);
    let (silent, _) = open(&mut world, last, 0, NO_PASSWORD);
    let (pinging, _) = open(&mut world, last, 0, NO_PASSWORD);
    for _ in 0..10 {
        world.pass(Duration::from_millis(500));
        world.send(pinging, &request(-2, 11, &[]));
    }
    assert!(world.has_ended(silent));
    assert!(!world.has_ended(pinging));
}

/// Its client would believe in its ephemeral nodes while the majority lets them go.
#[test]
fn a_session_of_the_ensemble_does_not_go_on() {
    let mut world = World::ensemble(3, 0, &options());
    let last = world.leader();
    let (_, session, password) = world.open(last, 10_000);
    for server in (0..3).filter(|server| *server != last) {
        world.kill(server);
    }
    world.pass(LONG * 2);
    assert_eq!(open(&mut world, last, session, password).1, []);
}

/// A session of the server alone is over there, as in ZooKeeper, and not waited for; one of the ensemble is.
#[test]
fn a_local_session_is_over() {
    let options = options().with(|options| {
        options.local_sessions = true;
        options.local_sessions_upgrading = true;
    });
    let mut world = World::ensemble(3, 0, &options);
    let last = world.leader();
    let (_, session, password) = world.open(last, 10_000);
    let (owner, owning, its) = world.open(last, 10_000);
    assert_eq!(world.call(owner, CREATE, &create("/e", b"", 1)).0, 0);
    for server in (0..3).filter(|server| *server != last) {
        world.kill(server);
    }
    world.pass(LONG * 2);
    assert_eq!(open(&mut world, last, owning, its).1, []);
    let client = world.connect(last).expect("accepted");
    world.send(client, &greeting(session, password));
    assert_eq!(session_of(&world.frame(client).expect("a refusal")).0, 0);
    assert!(world.has_ended(client));
}

#[test]
fn all_are_disconnected_when_there_is_a_leader() {
    let mut world = World::ensemble(3, 0, &options());
    let last = world.leader();
    for other in (0..3).filter(|other| *other != last) {
        world.cut.push((last, other));
        world.part(last, other);
    }
    world.pass(LONG * 2);
    assert_eq!(word(&mut world, last, "isro"), "ro");
    let (client, answer) = open(&mut world, last, 0, NO_PASSWORD);
    let (session, password) = session_of(&answer);
    world.heal();
    world.pass(LONG);
    assert!(world.has_ended(client));
    assert_eq!(word(&mut world, last, "isro"), "rw");
    // The client finds that its session is over, and begins one of the ensemble's.
    let again = world.connect(last).expect("accepted");
    world.send(again, &greeting(session, password));
    world.pass(Duration::from_millis(100));
    let answer = world.frame(again).expect("a refusal");
    assert_eq!(session_of(&answer).0, 0);
    let (writer, answer) = open(&mut world, last, 0, NO_PASSWORD);
    assert_eq!(answer[36], 0, "it may write");
    assert_eq!(world.call(writer, CREATE, &create("/n", b"", 1)).0, 0);
}

/// A hold that would last longer than the look for a leader does not keep it from beginning.
#[test]
fn clients_that_were_held_are_let_go_when_it_begins() {
    let options = options().with(|options| options.hold_clients = Some(Duration::from_secs(60)));
    let mut world = World::ensemble(3, 0, &options);
    let last = world.leader();
    let (held, ..) = world.open(last, 10_000);
    for server in (0..3).filter(|server| *server != last) {
        world.kill(server);
    }
    world.pass(LONG * 2);
    assert!(world.has_ended(held));
    assert_eq!(word(&mut world, last, "isro"), "ro");
}
