//! Requests with null and empty fields in every place, answered as Apache ZooKeeper answers them.

mod harness;

use std::collections::HashMap;
use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{auth, request, string};
use zk_service::{Opcode, ServiceOptions};

const RECORDED: &str = include_str!("vectors/nulls/recorded.txt");
const OURS: &str = include_str!("vectors/nulls/ours.txt");
const MULTI: i32 = Opcode::Multi.wire();
const PING: i32 = Opcode::Ping.wire();
const AUTH: i32 = Opcode::Auth.wire();

/// A line of the table.
struct Case<'a> {
    name: &'a str,
    login: &'a str,
    op: i32,
    record: Vec<u8>,
    answer: String,
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len() / 2).map(|at| byte(2 * at)).collect()
}

fn lines(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn cases() -> Vec<Case<'static>> {
    let mut otherwise: HashMap<(&str, &str), String> = lines(OURS)
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            ((words[0], words[1]), words[2..].join(" "))
        })
        .collect();
    let cases = lines(RECORDED)
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, login, op, record, ref answer @ ..] = words[..] else { panic!("{line}") };
            let ours = otherwise.remove(&(name, login));
            Case {
                name,
                login,
                op: op.parse().expect("a number"),
                record: if record == "-" { Vec::new() } else { unhex(record) },
                answer: ours.unwrap_or_else(|| answer.join(" ")),
            }
        })
        .collect();
    assert!(otherwise.is_empty(), "no such case: {:?}", otherwise.keys());
    cases
}

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.extended_types = true;
    })
}

/// The answer, in the words of the table.
fn answer(world: &mut World, server: usize, case: &Case<'_>) -> String {
    let (client, ..) = world.open(server, 10_000);
    if case.login != "-" {
        let auth = auth("digest", case.login.as_bytes());
        assert_eq!(world.call(client, AUTH, &auth).0, 0);
    }
    world.send(client, &request(5, case.op, &case.record));
    let answer = next_reply(world, client);
    let Some((code, len)) = answer else { return "end".into() };
    world.send(client, &request(-2, PING, &[]));
    let end = if next_reply(world, client).is_none() { " end" } else { "" };
    world.hang_up(client);
    format!("{code} {len}{end}")
}

fn next_reply(world: &mut World, client: Client) -> Option<(i32, usize)> {
    while let Some(frame) = world.frame(client) {
        let (xid, _, code, body) = reply(&frame);
        if xid != -1 {
            return Some((code, body.len()));
        }
    }
    assert!(world.has_ended(client), "no answer");
    None
}

fn walk(world: &mut World, server: usize, expected: impl Fn(&Case<'_>) -> String) {
    let mut differences = Vec::new();
    for case in cases() {
        let (found, expected) = (answer(world, server, &case), expected(&case));
        if found != expected {
            let Case { name, login, .. } = case;
            differences.push(format!("{name} {login}: {found}, not {expected}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    for server in 0..world.nodes.len() {
        assert_eq!(world.service(server).digest_mismatches(), 0);
    }
}

#[test]
fn of_a_standalone_server() {
    walk(&mut World::standalone(options()), 0, |case| case.answer.clone());
}

#[test]
fn of_a_standalone_server_byte_by_byte() {
    let mut world = World::standalone(options());
    world.segment = 1;
    walk(&mut world, 0, |case| case.answer.clone());
}

#[test]
fn of_a_leader() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    walk(&mut world, leader, |case| case.answer.clone());
}

/// A learner does not forward what makes leaders of some releases stumble: in a multi, a null where
/// an ACL has none is refused by itself, as a whole.
#[test]
fn of_a_follower_and_of_an_observer() {
    for from in [1, 3] {
        let mut world = World::ensemble(3, 1, &options());
        let server = if from == 3 { 3 } else { (world.leader() + 1) % 3 };
        walk(&mut world, server, |case| match case.name.split('.').collect::<Vec<_>>()[..] {
            ["multi", _, "acl", "null"] if case.op == MULTI => "-5 0".into(),
            // Neither is a path that is null.
            ["setData" | "setACL", "path" | "path+data" | "path+acl", "null"] => "-5 0".into(),
            _ => case.answer.clone(),
        });
    }
}

/// What `auth` with a null id has made of the ACL.
#[test]
fn the_acl_of_a_client_that_writes_empty_as_null() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 10_000);
    let auth = auth("digest", b"bob:pw");
    assert_eq!(world.call(client, AUTH, &auth).0, 0);
    let acl = [vec![0, 0, 0, 1, 0, 0, 0, 31], string("auth"), vec![0xff; 4]].concat();
    let record = [string("/mine"), vec![0xff; 4], acl, vec![0; 4]].concat();
    assert_eq!(world.call(client, 1, &record).0, 0);
    let (code, body) = world.call(client, 6, &string("/mine"));
    let bob = [string("digest"), string("bob:ikIaKsbtGweaHnb/jKn7OHqbunM=")].concat();
    assert_eq!(
        (code, &body[..8], &body[8..8 + bob.len()]),
        (0, &[0, 0, 0, 1, 0, 0, 0, 31][..], &*bob)
    );
}
