//! The texts that tools look for in ZooKeeper's log, each provoked. They are those of ZooKeeper 3.8.0 at the same events;
//! what is left out and what has other words on purpose is listed in `docs/operations.md`.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::servers::{Dir, PATIENCE, Server, ensemble, wait};
use zab_harness::client::{Connect, Connected, Connection};
use zk_client::blocking::Client;

const DIGEST: &str = "bob:secret";

/// A handshake, on a connection of its own.
fn handshake(server: &Server, connect: Connect) -> io::Result<Connected> {
    let connection = Connection::open(("127.0.0.1", server.client), &connect, PATIENCE)?;
    Ok(connection.session())
}

struct Log(std::path::PathBuf);

impl Log {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).expect("a log")
    }

    fn wait_for(&self, text: &str) {
        let shown = || self.text().lines().any(|line| line.contains(text));
        let end = std::time::Instant::now() + PATIENCE;
        while !shown() {
            assert!(std::time::Instant::now() < end, "no {text:?} in {}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// These are in it, in this order.
    fn has_in_order(&self, wanted: &[&str]) {
        let text = self.text();
        let mut lines = text.lines();
        for wanted in wanted {
            assert!(lines.any(|line| line.contains(wanted)), "no {wanted:?} in its place: {text}");
        }
    }
}

#[test]
fn the_log_has_zookeepers_words() {
    let dir = Dir::new("wording");
    let mut servers = ensemble(&dir, "zab.log.level=info,zk_service=debug\n");
    let log = |at: usize| Log(dir.0.join(format!("log-{}", at + 1)));
    let role = |server: &Server| {
        server.get("/commands/stat").json()["server_stats"]["server_state"].clone()
    };
    let leader = servers.iter().position(|server| role(server) == "leader").expect("a leader");
    let follower = servers.iter().position(|server| role(server) == "follower").expect("one");
    roles(&log(leader), leader + 1, &log(follower));
    log(3).has_in_order(&["OBSERVING", "Peer state changed: observing - broadcast"]);
    clients(&servers[follower], &log(follower));
    sessions(&servers[follower], &log(follower), &log(leader));
    drop(servers.remove(leader));
    wait(|| servers.iter().any(|server| role(server) == "leader"));
    log(follower).has_in_order(&["Peer state changed: following - broadcast", "LOOKING"]);
}

fn roles(leader: &Log, id: usize, follower: &Log) {
    leader.has_in_order(&[
        "Reading configuration from: ",
        "Starting quorum peer, myid=",
        "binding to port 127.0.0.1:",
        "LOOKING",
        "LEADING",
        "LEADING - LEADER ELECTION TOOK - ",
        "Peer state changed: leading - discovery",
        "Peer state changed: leading - synchronization",
        "Have quorum of supporters, sids: [[",
        "Peer state changed: leading - broadcast",
    ]);
    let text = leader.text();
    let line = text.lines().find(|line| line.contains("Have quorum")).expect("it is there");
    let (_, rest) = line.split_once("sids: [[").expect("a list");
    let (sids, zxid) = rest
        .split_once("]]; starting up and setting last processed zxid: 0x")
        .unwrap_or_else(|| panic!("{line}"));
    assert!(sids.split(", ").any(|sid| sid == id.to_string()), "itself is among them: {line}");
    assert!(zxid.ends_with("00000000"), "the beginning of an epoch: {line}");
    follower.has_in_order(&[
        "FOLLOWING",
        "FOLLOWING - LEADER ELECTION TOOK - ",
        "Peer state changed: following - discovery",
        "Peer state changed: following - synchronization - diff",
        "Peer state changed: following - broadcast",
    ]);
}

fn clients(server: &Server, log: &Log) {
    let client = Client::connect(&format!("127.0.0.1:{}", server.client)).expect("a client");
    assert!(client.wait_connected(PATIENCE));
    client.auth("digest", DIGEST).expect("granted");
    log.wait_for(": auth success for scheme digest and address 127.0.0.1:");
    log.wait_for(" with negotiated timeout ");
    log.wait_for("Established session 0x");
    log.wait_for("Creating new log file: log.");
    let _ = client.auth("nosuch\nforged line", "x");
    log.wait_for("Authentication failed for scheme: \"nosuch\\nforged line\", client 127.0.0.1:");
    drop(client);
    log.wait_for("Closed socket connection for client 127.0.0.1:");
    let mut asker = TcpStream::connect(("127.0.0.1", server.client)).expect("a connection");
    asker.write_all(b"ruok").expect("asked");
    log.wait_for("Processing ruok command from 127.0.0.1:");
}

/// A session that is left alone expires, and is not there any more; one that never was; and a client from
/// the future.
fn sessions(server: &Server, log: &Log, leader: &Log) {
    let new = Connect::new(2000);
    let Connected { session, password, .. } = handshake(server, new).expect("a session");
    let id = format!("{session:#x}");
    leader.wait_for(&format!("Expiring session {id}, timeout of 2000ms exceeded"));
    handshake(server, Connect { session, password, ..new }).expect_err("it has expired");
    log.wait_for(&format!("Invalid session {id} for client 127.0.0.1:"));
    let other = Connect { session: 0x1234, password: [7; 16], ..new };
    handshake(server, other).expect_err("there is none");
    let wrong = "for session 0x1234";
    log.wait_for(wrong);
    let text = log.text();
    let told =
        |line: &str| line.contains("Incorrect password from 127.0.0.1:") && line.ends_with(wrong);
    assert!(text.lines().any(told), "{text}");
    assert!(!text.contains("Invalid session 0x0"), "{text}");
    assert!(!text.contains("secret"), "a password is in the log");
    handshake(server, Connect { last_zxid: i64::MAX, ..new }).expect_err("it is ahead");
    log.wait_for("as it has seen zxid 0x7fffffffffffffff our last zxid is 0x");
    log.wait_for("client must try another server");
}
