//! The command `restore`.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use zk_client::CreateMode;
use zk_client::blocking::Client;

use crate::servers::{Dir, PATIENCE, Response, Server, ensemble, request, send, wait};

const AUTHORIZED: [(&str, &str); 1] = [("Authorization", "digest root:pw")];
const LINES: &str = "admin.rateLimiterIntervalInMS=0\n";

fn snapshot(server: &Server) -> Vec<u8> {
    let answer = request(server.admin, "GET", "/commands/snapshot", &AUTHORIZED);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn restore(server: &Server, query: &str, body: &[u8]) -> Response {
    let path = format!("/commands/restore{query}");
    send(server.admin, "POST", &path, &AUTHORIZED, body).expect("an answer")
}

fn connect(server: &Server) -> Client {
    let client = Client::connect(&format!("127.0.0.1:{}", server.client)).expect("a client");
    assert!(client.wait_connected(PATIENCE));
    client
}

fn error(answer: &Response) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

/// What is there; the client may have been disconnected for a moment.
fn exists(client: &Client, path: &str) -> bool {
    let began = Instant::now();
    loop {
        match client.exists(path, false) {
            Ok(stat) => return stat.is_some(),
            Err(_) if began.elapsed() < PATIENCE => {
                let _ = client.wait_connected(PATIENCE);
            }
            Err(error) => panic!("{path}: {error:?}"),
        }
    }
}

#[test]
fn an_older_state_comes_back_by_force_and_the_client_stays() {
    let dir = Dir::new("restore-older");
    let server = Server::alone(&dir, LINES);
    let client = connect(&server);
    client.create("/before", "1", CreateMode::Persistent).expect("created");
    let saved = snapshot(&server);
    for n in 0..3 {
        client.create(&format!("/after-{n}"), "1", CreateMode::Persistent).expect("created");
    }
    let refused = restore(&server, "", &saved);
    assert_eq!(refused.status, 409, "{refused:?}");
    let text = error(&refused);
    assert!(text.contains("older") && text.contains("force=true"), "{text}");
    assert_eq!(refused.json()["would_lose"], "the 3 transactions behind the snapshot");
    assert!(exists(&client, "/after-2"), "nothing has changed");
    let seen = client.exists("/after-2", false).expect("read").expect("there").czxid;
    let restored = restore(&server, "?force=true", &saved);
    assert_eq!(restored.status, 200, "{restored:?}");
    assert_eq!(restored.json()["error"], Value::Null);
    // The same session, although it has seen more than the restored state has.
    assert!(exists(&client, "/before") && !exists(&client, "/after-0"));
    let again = client.set("/before", "2", -1).expect("set").mzxid;
    assert!(again > seen, "{again:#x} {seen:#x}");
    // What was there is kept, and can come back by hand.
    let kept = restored.json()["kept"][0].as_str().expect("a path").to_owned();
    assert!(fs::read_dir(kept).expect("kept").count() > 0);
    let monitor = server.get("/commands/monitor").json();
    assert_eq!(monitor["cnt_restore_time"], 1);
    assert_eq!(monitor["restore_error_count"], 1);
    // It is on the disk: the next start finds it, and nothing else.
    assert_eq!(restore(&server, "?force=true", &saved).status, 200);
    assert!(exists(&client, "/before") && !exists(&client, "/after-0"));
}

#[test]
fn what_is_no_snapshot_changes_nothing() {
    let dir = Dir::new("restore-damaged");
    let server = Server::alone(&dir, LINES);
    let client = connect(&server);
    client.create("/a", "1", CreateMode::Persistent).expect("created");
    let saved = snapshot(&server);
    let mut flipped = saved.clone();
    flipped[saved.len() / 2] ^= 1;
    let twice = [&saved[..], &saved].concat();
    for (what, body) in [
        ("cut short", &saved[..saved.len() - 20]),
        ("a flipped bit", &flipped),
        ("more behind it", &twice),
        ("something else", b"hello".as_slice()),
        ("nothing", b"".as_slice()),
    ] {
        let answer = restore(&server, "?force=true", body);
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert!(!error(&answer).is_empty(), "{what}");
    }
    assert!(exists(&client, "/a"));
    let left = fs::read_dir(&server.dir).expect("dataDir").flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().contains("restore"));
    assert_eq!(left.count(), 0, "no upload is left");
    // Of another server: everything here would go.
    let other_dir = Dir::new("restore-foreign");
    let other = Server::alone(&other_dir, LINES);
    let of_other = connect(&other);
    for n in 0..40 {
        of_other.create(&format!("/n{n}"), "", CreateMode::Persistent).expect("created");
    }
    let foreign = restore(&server, "", &snapshot(&other));
    assert_eq!(foreign.status, 409, "{foreign:?}");
    assert_eq!(foreign.json()["would_lose"], "everything that is served now");
    // An empty server has nothing to lose: nobody has to force it.
    let empty_dir = Dir::new("restore-empty");
    let empty = Server::alone(&empty_dir, LINES);
    let answer = restore(&empty, "", &saved);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(exists(&connect(&empty), "/a"));
}

#[test]
fn restores_are_bounded() {
    let dir = Dir::new("restore-bounded");
    let server = Server::alone(&dir, "");
    let saved = snapshot(&server);
    let answer = send(server.admin, "POST", "/commands/restore", &[], &saved).expect("an answer");
    assert_eq!(answer.status, 401);
    // What is refused takes nobody's turn; what is done takes it for five minutes.
    assert_eq!(restore(&server, "", b"x").status, 400);
    assert_eq!(restore(&server, "", &saved).status, 200);
    server.wait_ready();
    assert_eq!(restore(&server, "", &saved).status, 429);
    let monitor = server.get("/commands/monitor").json();
    assert_eq!(monitor["restore_rate_limited_count"], 1);
    let off_dir = Dir::new("restore-off");
    let off = Server::alone(&off_dir, "admin.restore.enabled=false\n");
    assert_eq!(restore(&off, "", &saved).status, 503);
}

/// Members are restored one after the other. Those that are and those that are not never mix, and never both
/// serve.
#[test]
fn an_ensemble_is_never_half_restored() {
    let dir = Dir::new("restore-ensemble");
    let servers = ensemble(&dir, LINES);
    let client = connect(&servers[0]);
    client.create("/before", "1", CreateMode::Persistent).expect("created");
    let saved = snapshot(&servers[0]);
    client.create("/after", "1", CreateMode::Persistent).expect("created");
    for server in &servers {
        wait(|| exists(&connect(server), "/after"));
    }
    drop(client);
    // One of three: the two others serve what was there, and the one does not.
    assert_eq!(restore(&servers[0], "", &saved).status, 409);
    assert_eq!(restore(&servers[0], "?force=true", &saved).status, 200);
    for server in &servers[1..3] {
        server.wait_ready();
        assert!(exists(&connect(server), "/after"));
    }
    let client = connect(&servers[1]);
    client.create("/lost", "1", CreateMode::Persistent).expect("created");
    assert_eq!(servers[0].get("/ready").status, 503, "it has nobody to serve with");
    drop(client);
    // Two of three: they serve the new state, above all that was seen before.
    assert_eq!(restore(&servers[1], "?force=true", &saved).status, 200);
    for server in &servers[..2] {
        server.wait_ready();
        let client = connect(server);
        assert!(exists(&client, "/before"));
        assert!(!exists(&client, "/after") && !exists(&client, "/lost"));
    }
    connect(&servers[0]).create("/new", "1", CreateMode::Persistent).expect("created");
    wait(|| servers[2].get("/ready").status == 503);
    // All of them, the observer last: nothing of the old state is left, and nothing of the new one lost.
    for server in &servers[2..] {
        let answer = restore(server, "?force=true", &saved);
        assert!(answer.json()["error"].is_null(), "{answer:?}");
    }
    for server in &servers {
        server.wait_ready();
        let client = connect(server);
        client.sync("/").expect("synchronised");
        assert!(exists(&client, "/before") && exists(&client, "/new"));
        assert!(!exists(&client, "/after") && !exists(&client, "/lost"));
    }
}
