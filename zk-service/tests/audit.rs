//! The audit log, line by line as ZooKeeper writes it.

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Client, World};
use serde_json::Value;
use zab_harness::client::{create, request};
use zk_service::{AuditLog, Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();

type Lines = Arc<Mutex<Vec<String>>>;

fn options(lines: &Lines) -> ServiceOptions {
    let lines = Arc::clone(lines);
    let log = AuditLog::new("root", move |new| {
        lines.lock().expect("no panic").extend(new.iter().map(|line| line.text.clone()));
    });
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.extended_types = true;
        options.audit = Some(log);
    })
}

fn taken(lines: &Lines) -> Vec<String> {
    std::mem::take(&mut *lines.lock().expect("no panic"))
}

/// `zk-service/tests/vectors/audit.json`: what clients sent to a server of 3.9.5, and the lines that it
/// wrote. In each run of lines about one ended session the order is open.
#[test]
fn the_lines_are_those_of_zookeeper() {
    let vector: Value = serde_json::from_str(include_str!("vectors/audit.json")).expect("JSON");
    let lines = Lines::default();
    let mut world = World::standalone(options(&lines));
    let mut clients: Vec<(Client, i64)> = Vec::new();
    for step in vector["steps"].as_array().expect("a list") {
        let number = usize::try_from(step[0].as_u64().expect("a number")).expect("small");
        match (step[1].as_i64(), step[1].as_str(), step[2].as_str().expect("text")) {
            (_, Some("open"), timeout_ms) => {
                let (client, session, _) = world.open(0, timeout_ms.parse().expect("a number"));
                clients.push((client, session));
                assert_eq!(clients.len(), number);
            }
            (_, Some("expire"), _) => {
                world.hang_up(clients[number - 1].0);
                world.pass(Duration::from_secs(8));
                // The other session must not expire meanwhile, in a test without its pings.
                world.send(clients[0].0, &request(-2, 11, &[]));
            }
            (Some(op), _, record) => {
                let record: Vec<u8> = (0..record.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&record[at..at + 2], 16).expect("hex"))
                    .collect();
                let op = i32::try_from(op).expect("small");
                world.send(clients[number - 1].0, &request(77, op, &record));
            }
            step => panic!("{step:?}"),
        }
    }
    let mut ours = taken(&lines);
    for line in &mut ours {
        for (at, (_, session)) in clients.iter().enumerate() {
            let session = format!("session=0x{session:x}\t");
            *line = line.replace(&session, &format!("session=#{}\t", at + 1));
        }
    }
    let deleted = |line: &String| {
        let session = line.split('\t').next().unwrap_or_default().to_owned();
        line.contains("ephemeralZNodeDeletion").then_some(session)
    };
    for run in ours.chunk_by_mut(|a, b| deleted(a).is_some() && deleted(a) == deleted(b)) {
        run.sort();
    }
    let theirs: Vec<&str> =
        vector["lines"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// Members that share a log: a write has its line where its client is, and nowhere else, whoever leads;
/// the nodes of a session have one on each member.
#[test]
fn a_write_has_one_line_in_an_ensemble() {
    for server in 0..3 {
        let lines = Lines::default();
        let mut world = World::ensemble(3, 0, &options(&lines));
        let (client, ..) = world.open(server, 10_000);
        let (other, ..) = world.open((server + 1) % 3, 10_000);
        assert_eq!(world.call(client, CREATE, &create("/mine", b"", 1)).0, 0);
        assert_eq!(world.call(other, CREATE, &create("/mine", b"", 1)).0, -110);
        world.send(client, &request(9, Opcode::CloseSession.wire(), &[]));
        world.pass(Duration::from_secs(1));
        let all = taken(&lines);
        let count = |what: &str| all.iter().filter(|line| line.contains(what)).count();
        let of_node = |result: &str| {
            count(&format!("operation=create\tznode=/mine\tznode_type=ephemeral\tresult={result}"))
        };
        assert_eq!((of_node("success"), of_node("failure")), (1, 1), "{all:#?}");
        assert_eq!(count("OrExpire\tznode=/mine\tresult=success"), 3, "{all:#?}");
        assert_eq!(all.len(), 5, "{all:#?}");
    }
}

/// Requests that wait for their turn, many at once, keep their lines apart.
#[test]
fn requests_that_are_sent_ahead_have_their_own_lines() {
    let lines = Lines::default();
    let mut world = World::ensemble(3, 0, &options(&lines));
    let (client, ..) = world.open(1, 10_000);
    let frames: Vec<u8> = (0..2500)
        .flat_map(|n| {
            let read =
                request(n, Opcode::Exists.wire(), &[b"\0\0\0\x01/".as_slice(), &[0]].concat());
            [request(n, CREATE, &create(&format!("/n{}", n / 2), b"", 0)), read].concat()
        })
        .collect();
    world.send(client, &frames);
    world.pass(Duration::from_secs(1));
    let all = taken(&lines);
    assert_eq!(all.len(), 2500);
    for (n, line) in all.iter().enumerate() {
        let result = if n % 2 == 0 { "success" } else { "failure" };
        let end = format!("znode=/n{}\tznode_type=persistent\tresult={result}", n / 2);
        assert!(line.ends_with(&end), "{n}: {line}");
    }
}
