//! The AdminServer over HTTP: every recorded answer of Apache's, and what Apache's does not have.

mod restore;
mod servers;
mod wording;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use zk_client::Acl;
use zk_client::blocking::Client;

use crate::servers::{
    Dir, PATIENCE, Server, client, ensemble, free_ports, request, try_request, wait,
};

/// What a monitor sees differ: keys of objects that are ids or times.
const KEYED: [&str; 5] = [
    "expiry_time_to_session_ids",
    "session_id_to_ephemeral_paths",
    "session_id_to_watched_paths",
    "path_to_session_ids",
    "current_config",
];

/// Same keys, same types, all the way down.
fn same_shape(at: &str, recorded: &Value, ours: &Value) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            if KEYED.iter().any(|name| at.ends_with(name)) {
                for (a, b) in recorded.values().zip(ours.values()) {
                    same_shape(&format!("{at}/*"), a, b);
                }
                return;
            }
            let keys = |map: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(recorded), keys(ours), "{at}");
            for (key, value) in recorded {
                same_shape(&format!("{at}/{key}"), value, &ours[key]);
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            for (a, b) in recorded.iter().zip(ours) {
                same_shape(&format!("{at}[]"), a, b);
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            assert_eq!(a.is_f64(), b.is_f64(), "{at}: {a} {b}");
        }
        // A server that was started without a file has none to show.
        (Value::Null, Value::String(_)) if at.ends_with("initial_configuration") => {}
        _ => {
            let kinds = [recorded, ours].map(std::mem::discriminant);
            assert_eq!(kinds[0], kinds[1], "{at}: {recorded} {ours}");
        }
    }
}

/// Of the metrics, what is measured has the type that it has there.
fn same_metrics(at: &str, recorded: &Value, ours: &Value) {
    let (recorded, ours) = (recorded.as_object().expect(at), ours.as_object().expect(at));
    let documented = documented();
    let mut common = 0;
    for (key, value) in recorded {
        if let Some(own) = ours.get(key) {
            same_shape(&format!("{at}/{key}"), value, own);
            common += 1;
        } else {
            // Some are there only with TLS, on a leader, or once there is something to tell.
            let name = base_name(key);
            let is_told = documented.iter().any(|one| base_name(one) == name);
            assert!(is_told, "{at}: nothing says where {key} is");
        }
    }
    assert!(common > 75, "{at}: {common} in common");
}

/// The name of a metric without what stands in front of it for a number of a summary, and for whom it is.
fn base_name(key: &str) -> &str {
    let of_summary = ["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"];
    let whole = ["min_latency", "avg_latency", "max_latency"];
    if whole.contains(&key)
        || key.ends_with("_client_response_size")
        || key.ends_with("_proposal_size")
    {
        return key;
    }
    let name = of_summary.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
    for suffix in KEYED_METRICS {
        if name.ends_with(suffix) {
            return suffix;
        }
    }
    name
}

/// Metrics with a znode's name or a server's id in front of their own.
const KEYED_METRICS: [&str; 10] = [
    "quota_count_limit_per_namespace",
    "quota_bytes_limit_per_namespace",
    "quota_count_usage_per_namespace",
    "quota_bytes_usage_per_namespace",
    "quota_exceeded_error_per_namespace",
    "read_per_namespace",
    "write_per_namespace",
    "learner_handler_qp_size",
    "learner_handler_qp_time_ms",
    "ack_latency",
];

/// The metrics that the documentation has: those that are shown, and those that are not.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring.md");
    let text = fs::read_to_string(path).expect("the documentation");
    let (shown, absent) = text.split_once("## What it does not show").expect("the section");
    let names = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(Into::into).collect()
    };
    let (shown, absent) = (names(shown), names(absent));
    for name in absent.iter().filter(|name| !name.contains("zab_")) {
        assert!(!shown.contains(name), "{name} is shown, and said not to be");
    }
    [shown, absent].concat()
}

fn recorded() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/admin");
    let files = fs::read_dir(dir).expect("the vectors").flatten();
    let mut all: Vec<(String, Value)> = files
        .filter(|file| file.path().extension().is_some_and(|e| e == "json"))
        .map(|file| {
            let text = fs::read_to_string(file.path()).expect("readable");
            let name = file.file_name().to_string_lossy().trim_end_matches(".json").to_owned();
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() > 180, "{}", all.len());
    all
}

/// Compares all answers that were recorded of a role; returns how many.
fn compare(role: &str, server: &Server) -> usize {
    let mut count = 0;
    for (name, exchange) in recorded() {
        let Some((version, rest)) = name.split_once('-') else { panic!("{name}") };
        let Some(command) = rest.strip_prefix(role).and_then(|rest| rest.strip_prefix('-')) else {
            continue;
        };
        count += 1;
        let (method, path) =
            exchange["request"].as_str().and_then(|r| r.split_once(' ')).expect("r");
        let headers = exchange["request_headers"].as_object();
        let headers = headers.into_iter().flatten();
        let headers: Vec<(&str, &str)> =
            headers.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
        let ours = request(server.admin, method, path, &headers);
        let status = exchange["status"].as_u64().expect("a status");
        match command {
            // There, nothing is at the root.
            "root" => {
                assert_eq!(ours.status, 200, "{name}");
                continue;
            }
            // There, an exception (3.9) or this (3.8).
            "post-ruok" => {
                assert_eq!(ours.status, 405, "{name}");
                continue;
            }
            // There, an exception.
            "monitor" if role == "notserving" => {
                assert_eq!(ours.json()["error"], commands_sentence(), "{name}");
                continue;
            }
            // The snapshot is taken once in a while only, and by whom first is another matter here.
            "snapshot-ip" | "snapshot-digest" => {
                assert!([200, 429].contains(&ours.status), "{name}: {ours:?}");
                continue;
            }
            _ => assert_eq!(u64::from(ours.status), status, "{name}: {ours:?}"),
        }
        let body = exchange["body_text"].as_str().expect("a body");
        if exchange["content_type"] == "application/json" {
            assert_eq!(ours.headers["content-type"], "application/json", "{name}");
        }
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            if command == "index" {
                let names =
                    |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
                let (theirs, all) = (names(body), names(&ours.text()));
                assert!(theirs.iter().all(|line| all.contains(line)), "{name}: {all:?}");
                assert!(version == "v380" || theirs == all, "{name}");
            }
            continue;
        };
        let mut answer = ours.json();
        match command {
            "monitor" => same_metrics(&name, &body, &answer),
            // Most are of Java's machine.
            "system_properties" => {
                let all = answer.as_object().expect("an object");
                assert!(all.values().all(|value| value.is_string() || value.is_null()), "{name}");
                assert!(all.contains_key("zookeeper.admin.serverPort"), "{name}: {all:?}");
            }
            _ => {
                if let Some(fields) = answer.as_object_mut().filter(|_| role == "notserving") {
                    // What it waits for is told in addition.
                    fields.remove("waits_for");
                }
                same_shape(&name, &body, &answer);
            }
        }
        assert_eq!(body["command"], answer["command"], "{name}");
        if body["error"].is_string() {
            assert_eq!(body["error"], answer["error"], "{name}");
        }
    }
    count
}

fn commands_sentence() -> &'static str {
    "This ZooKeeper instance is not currently serving requests"
}

#[test]
fn answers_of_a_server_alone() {
    let dir = Dir::new("alone");
    let server = Server::alone(&dir, "");
    let _client = client(&server);
    assert!(compare("standalone", &server) > 50);
}

#[test]
fn answers_of_members() {
    let dir = Dir::new("members");
    let servers = ensemble(&dir, "");
    let role = |server: &Server| {
        server.get("/commands/stat").json()["server_stats"]["server_state"].clone()
    };
    let _clients: Vec<Client> = servers.iter().map(client).collect();
    for wanted in ["leader", "follower", "observer"] {
        let server = servers.iter().find(|server| role(server) == wanted).expect(wanted);
        assert!(compare(wanted, server) > 25, "{wanted}");
    }
    probes(&servers);
}

fn probes(servers: &[Server]) {
    for server in servers {
        for (path, text) in [("/alive", "alive\n"), ("/ready", "serving\n")] {
            let response = server.get(path);
            assert_eq!((response.status, response.text().as_str()), (200, text));
        }
        wait(|| server.get("/safe-to-stop").status == 200);
        assert!(server.get("/safe-to-stop").text().starts_with("yes: "));
        let lag = server.get("/lag?max=1000");
        assert_eq!(lag.status, 200, "{}", lag.text());
        assert!(lag.text().lines().next().expect("a line").parse::<u64>().is_ok());
        assert_eq!(server.get("/lag?max=x").status, 400);
    }
}

#[test]
fn answers_of_a_server_that_waits() {
    let dir = Dir::new("waiting");
    let ports = free_ports(4);
    let members = format!(
        "initLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:{}:{}\nserver.2=127.0.0.1:{}:{}\n\
         server.3=127.0.0.1:1:2\n",
        ports[0], ports[1], ports[2], ports[3]
    );
    let server = Server::start(&dir.0, 1, &members);
    wait(|| try_request(server.admin, "GET", "/alive", &[]).is_some_and(|r| r.status == 200));
    assert!(compare("notserving", &server) > 6);
    let ready = server.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().starts_with("not serving, waits for "), "{}", ready.text());
    let safe = server.get("/safe-to-stop");
    assert_eq!(safe.status, 503);
    assert!(safe.text().starts_with("unknown: "), "{}", safe.text());
    assert_eq!(server.get("/lag").status, 503);
    // Its metrics are those of a server that looks for a leader.
    assert!(server.get("/metrics").text().contains("looking_count 1.0"));
}

#[test]
fn a_snapshot_is_written_and_sent() {
    let dir = Dir::new("snapshot");
    let lines =
        "admin.rateLimiterIntervalInMS=0\njvm.pause.monitor=true\njvm.pause.sleep.time.ms=10\n";
    let server = Server::alone(&dir, lines);
    let _client = client(&server);
    let headers = [("Authorization", "digest root:pw")];
    let answer = request(server.admin, "GET", "/commands/snapshot", &headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.headers["snapshot_size"], answer.body.len().to_string());
    let zxid = answer.headers["last_zxid"].trim_start_matches("0x");
    let file = server.dir.join(format!("version-2/snapshot.{zxid}"));
    assert_eq!(fs::read(file).expect("the file"), answer.body);
    assert_eq!(server.get("/commands/lsnp").json()["zxid"], zxid);
    // It is that of a later state than what was acknowledged before.
    assert!(i64::from_str_radix(zxid, 16).expect("hexadecimal") >= 132);
    let answer = request(server.admin, "GET", "/commands/snapshot?streaming=false", &headers);
    assert_eq!(answer.json()["error"], Value::Null);
    let count =
        |name: &str| server.get("/commands/monitor").json()[name].as_u64().expect("a number");
    // Behind the file: its name comes first.
    wait(|| count("cnt_snapshottime") >= 1);
    wait(|| count("cnt_jvm_pause_time_ms") > 2);
    assert_eq!(request(server.admin, "GET", "/commands/restore", &headers).status, 405);
}

#[test]
fn snapshots_are_for_who_may_do_everything_and_not_too_often() {
    let dir = Dir::new("authorized");
    let server = Server::alone(&dir, "");
    let snapshot = |authorization| {
        let headers = [("Authorization", authorization)];
        request(server.admin, "GET", "/commands/snapshot?streaming=false", &headers).status
    };
    let client = client(&server);
    client.auth("digest", "root:pw").expect("authenticated");
    assert_eq!(snapshot("digest root:pw"), 200);
    assert_eq!(snapshot("digest root:pw"), 429);
    let answer = zk_client::Request::SetAcl {
        path: "/".into(),
        acl: vec![Acl { perms: 31, scheme: "auth".into(), id: String::new() }],
        version: -1,
    };
    client.call(&answer).expect("set");
    assert_eq!(snapshot("digest root:other"), 403);
    assert_eq!(snapshot("ip"), 403);
    assert_eq!(snapshot("nosuch x"), 401);
    // Who may not does not use up the turn of who may.
    assert_eq!(snapshot("digest root:pw"), 429);
}

#[test]
fn metrics_are_in_the_form_of_the_prometheus_provider() {
    let dir = Dir::new("metrics");
    let port = free_ports(1)[0];
    let lines = format!(
        "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpHost=127.0.0.1\nmetricsProvider.httpPort={port}\n"
    );
    let server = Server::alone(&dir, &lines);
    let _client = client(&server);
    let answer = request(port, "GET", "/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let kinds = |text: &str| -> BTreeMap<String, String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    };
    let recorded = include_str!("../vectors/admin/v394-standalone-prometheus-metrics.txt");
    let (theirs, ours) = (kinds(recorded), kinds(&answer.text()));
    let mut common = 0;
    for (name, kind) in &ours {
        match theirs.get(name) {
            Some(theirs) => {
                assert_eq!(kind, theirs, "{name}");
                common += 1;
            }
            None => assert!(name.starts_with("zab_"), "{name} is no name of ZooKeeper's"),
        }
    }
    assert!(common > 45, "{common}");
    for path in ["/", "/commands", "/commands/ruok", "/live", "/ready"] {
        assert_eq!(request(port, "GET", path, &[]).status, 404, "{path}");
    }
    // The same on the other port.
    assert_eq!(kinds(&server.get("/metrics").text()), ours);
}

#[test]
fn a_taken_port_stops_no_member() {
    let dir = Dir::new("clash");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("bound").port();
    let mut alone = Server::start(&dir.0, 1, &format!("admin.serverPort={at}\n"));
    let status = alone.process.wait().expect("it ends");
    assert_eq!(status.code(), Some(4), "whoever chooses a port has to have it");
    let log = fs::read_to_string(dir.0.join("log-1")).expect("a log");
    assert!(log.contains("Unable to start AdminServer, exiting abnormally"), "{log}");
    let ports = free_ports(2);
    let lines = format!(
        "admin.serverPort={at}\nstandaloneEnabled=false\ninitLimit=10\nsyncLimit=5\n\
         server.2=127.0.0.1:{}:{}\n",
        ports[0], ports[1]
    );
    let member = Server::start(&dir.0, 2, &lines);
    let client = Client::connect(&format!("127.0.0.1:{}", member.client)).expect("a client");
    assert!(client.wait_connected(PATIENCE), "it serves without");
    let log = fs::read_to_string(dir.0.join("log-2")).expect("a log");
    assert!(log.contains("Problem starting AdminServer"), "{log}");
}

#[test]
fn strangers_are_bounded() {
    let dir = Dir::new("bounds");
    let server = Server::alone(&dir, "admin.idleTimeout=1500\n");
    let connect = || TcpStream::connect(("127.0.0.1", server.admin)).expect("a connection");
    let ends = |mut stream: TcpStream| -> Vec<u8> {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut all);
        all
    };
    // Twice the head that is taken.
    let mut long = connect();
    let _ = long.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(32 << 10)).as_bytes());
    let answer = String::from_utf8_lossy(&ends(long)).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Twice as many as an address may have, none of which says anything.
    let silent: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let began = Instant::now();
    for stream in silent {
        ends(stream);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Then there is room again.
    wait(|| try_request(server.admin, "GET", "/alive", &[]).is_some_and(|r| r.status == 200));
    // A page that reads nothing is given up, and takes no one's place.
    let mut pages: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut page = connect();
            page.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
            page
        })
        .collect();
    let mut answers = BTreeMap::new();
    for page in &mut pages {
        page.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut head = [0; 12];
        if page.read_exact(&mut head).is_ok() {
            *answers.entry(String::from_utf8_lossy(&head).into_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(answers.get("HTTP/1.1 200"), Some(&16), "{answers:?}");
    drop(pages);
    wait(|| try_request(server.admin, "GET", "/alive", &[]).is_some_and(|r| r.status == 200));
}

#[test]
fn the_page_hears_of_the_server() {
    let dir = Dir::new("live");
    let server = Server::alone(&dir, "");
    let page = server.get("/");
    assert!(page.text().contains("EventSource"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    let mut stream = TcpStream::connect(("127.0.0.1", server.admin)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    let mut all = String::new();
    let mut buf = [0; 4096];
    while all.matches("data: {").count() < 3 {
        let n = stream.read(&mut buf).expect("events come");
        all.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    assert!(all.contains("text/event-stream"), "{all}");
    let event = all.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event");
    let event: Value = serde_json::from_str(event).expect("JSON");
    assert_eq!(event["role"], "standalone");
    assert!(event["metrics"]["znode_count"].is_number());
}
