//! `zabd doctor` finds what is wrong, and harms nobody.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use zk_client::CreateMode;
use zk_client::blocking::Client;

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-doctor-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("data")).unwrap();
        Self(dir)
    }

    /// Writes the configuration of a server with this client port, and more lines.
    fn config(&self, port: u16, lines: &str) {
        let data = self.0.join("data");
        let text = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n{lines}",
            data.display()
        );
        fs::write(self.0.join("zoo.cfg"), text).unwrap();
    }

    fn zabd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zabd"));
        command.args(arguments).arg(self.0.join("zoo.cfg"));
        command.env_remove("RUST_LOG").env_remove("SERVER_JVMFLAGS").stdin(Stdio::null());
        command
    }

    /// Exit code and findings: check, level, text.
    fn doctor(&self) -> (i32, Vec<[String; 3]>) {
        let output = self.zabd(&["doctor", "--json"]).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let findings = json["findings"].as_array().unwrap().iter();
        let findings = findings.map(|f| ["check", "level", "text"].map(|key| text(f, key)));
        let findings = Vec::from_iter(findings);
        let code = output.status.code().unwrap();
        let worst = ["ok", "warning", "failure"][usize::try_from(code).unwrap()];
        assert_eq!(json["worst"], worst);
        let has = |level: &str| findings.iter().any(|[_, found, _]| found == level);
        assert_eq!(worst, ["failure", "warning", "ok"].into_iter().find(|l| has(l)).unwrap());
        (code, findings)
    }

    /// Whether there is a finding of this kind whose text has this in it.
    #[track_caller]
    fn expect(&self, check: &str, level: &str, text: &str) {
        let (_, findings) = self.doctor();
        let is_it = |[c, l, t]: &[String; 3]| c == check && l == level && t.contains(text);
        assert!(findings.iter().any(is_it), "no {check} {level} {text:?} in {findings:#?}");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let held = runtime_core::HeldPort::any().unwrap();
    let port = held.port();
    std::mem::forget(held);
    port
}

fn names(dir: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_running_server_is_looked_at_and_goes_on() {
    let dir = Dir::new();
    let port = free_port();
    dir.config(port, "");
    let log = fs::File::create(dir.0.join("log")).unwrap();
    let _server = Running(dir.zabd(&[]).stderr(log).spawn().unwrap());
    let client = Client::connect(&format!("127.0.0.1:{port}")).unwrap();
    assert!(client.wait_connected(Duration::from_secs(60)));
    client.create("/before", Vec::new(), CreateMode::Persistent).unwrap();
    let version_2 = dir.0.join("data/version-2");
    let before = names(&version_2);
    let (_, findings) = dir.doctor();
    let of = |check: &str| Vec::from_iter(findings.iter().filter(|[c, _, _]| c == check));
    assert!(of("directories")[0][2].contains("a server runs on them"), "{findings:?}");
    for check in ["ports", "data", "disk", "descriptors", "clock", "versions"] {
        assert!(!of(check).is_empty(), "{check} is missing: {findings:#?}");
        if check != "disk" && check != "descriptors" {
            assert!(of(check).iter().all(|[_, level, _]| level == "ok"), "{findings:#?}");
        }
    }
    assert_eq!(names(&version_2), before, "nothing is left behind");
    client.create("/after", Vec::new(), CreateMode::Persistent).unwrap();
    let log = fs::read_to_string(dir.0.join("log")).unwrap();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    let text = dir.zabd(&["doctor"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().all(|line| line.len() > 23), "{text}");
}

#[test]
fn what_is_wrong_is_found() {
    let dir = Dir::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    dir.config(taken.local_addr().unwrap().port(), "");
    dir.expect("ports", "failure", "is taken");
    assert_eq!(dir.doctor().0, 2);
    dir.config(free_port(), "");
    dir.expect("ports", "ok", "is free");
    dir.expect("data", "ok", "none yet");

    dir.config(free_port(), "tickTime=none\n");
    dir.expect("configuration", "failure", "tickTime");

    // A certificate that has expired, and one that has not.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-tls/tests/data");
    for (name, level) in [("expired", "failure"), ("leaf", "ok")] {
        let store = dir.0.join(format!("{name}.pem"));
        let part =
            |ending: &str| fs::read_to_string(data.join(format!("{name}.{ending}"))).unwrap();
        fs::write(&store, part("key") + &part("pem")).unwrap();
        let lines = format!(
            "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\nssl.keyStore.location={}\n\
             ssl.trustStore.location={}\n",
            free_port(),
            store.display(),
            data.join("ca.pem").display()
        );
        dir.config(free_port(), &lines);
        dir.expect("certificates", level, "");
    }

    // A log that is damaged in front of its end.
    dir.config(free_port(), "");
    let version_2 = dir.0.join("data/version-2");
    fs::create_dir_all(&version_2).unwrap();
    let vector =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../zk-service/tests/vectors/storage/multi");
    for path in names(&vector) {
        fs::copy(&path, version_2.join(path.file_name().unwrap())).unwrap();
    }
    dir.expect("data", "ok", "readable");
    let log = names(&version_2).into_iter().find(|path| path.to_str().unwrap().contains("log."));
    let log = log.unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[16 + 12 + 40] ^= 1;
    fs::write(&log, &bytes).unwrap();
    dir.expect("data", "failure", "damaged");
    bytes[16 + 12 + 40] ^= 1;
    fs::write(&log, &bytes).unwrap();
    if fs::metadata(&log).is_ok_and(|_| chown(&log, Some(65_534), None).is_ok()) {
        dir.expect("rights", "warning", "another user");
    }
}

#[test]
fn the_other_members_are_asked() {
    let dir = Dir::new();
    fs::write(dir.0.join("data/myid"), "1").unwrap();
    let [quorum, election] = [free_port(), free_port()];
    let [gone, gone_too, gone_client] = [free_port(), free_port(), free_port()];
    // A member of another version: its election port takes connections, its client port answers.
    let ports = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let [peer, client] = ports.each_ref().map(|port| port.local_addr().unwrap().port());
    let [_peer, answers] = ports;
    std::thread::spawn(move || {
        for stream in answers.incoming() {
            let mut stream = stream.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"srvr");
            let version = "Zookeeper version: 3.8.0-5a02a05, built on 2022\nMode: follower\n";
            stream.write_all(version.as_bytes()).unwrap();
        }
    });
    let own = free_port();
    let lines = format!(
        "initLimit=5\nsyncLimit=5\nserver.1=127.0.0.1:{quorum}:{election}\n\
         server.2=127.0.0.1:{gone}:{peer};{client}\nserver.3=127.0.0.1:{gone_too}:{gone};{gone_client}\n\
         server.4=no-such-host.invalid:2888:3888;2181\n"
    );
    dir.config(own, &lines);
    dir.expect("members", "ok", &format!("2: 127.0.0.1:{peer} answers"));
    dir.expect("members", "warning", &format!("3: 127.0.0.1:{gone} cannot be reached"));
    dir.expect("names", "warning", "no-such-host.invalid");
    // Nobody else reaches this server by that address.
    dir.expect("names", "warning", "own name 127.0.0.1 stands for 127.0.0.1");
    dir.expect("versions", "ok", "3.8.0 (2)");

    let lines = lines.split("server.4").next().unwrap();
    dir.config(own, lines);
    dir.expect("names", "ok", "127.0.0.1 is this machine");

    // This server runs, too, and is another one. It has no quorum, so it has no version to show.
    let log = fs::File::create(dir.0.join("log")).unwrap();
    let _server = Running(dir.zabd(&[]).stderr(log).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    while dir.doctor().1.iter().any(|[check, level, _]| check == "ports" && level == "failure") {
        assert!(Instant::now() < until, "{:?}", dir.doctor());
    }
    dir.expect("ports", "ok", "election port");
    // A server that is not in the list of names.
    dir.config(own, &lines.replace("server.1=127.0.0.1", "server.1=no-such-own.invalid"));
    dir.expect("names", "failure", "no-such-own.invalid");
}

/// Answers each connection with `text`, once it has sent something.
fn answering(text: impl Fn() -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(text().as_bytes());
        }
    });
    port
}

/// Two members; what the other one's lines have besides is up to the test.
fn with_another(dir: &Dir, other: &str, lines: &str) {
    fs::write(dir.0.join("data/myid"), "1").unwrap();
    let own = format!("server.1=127.0.0.1:{}:{}", free_port(), free_port());
    let text = format!("initLimit=5\nsyncLimit=5\n{own}\nserver.2=127.0.0.1:{other}\n{lines}");
    dir.config(free_port(), &text);
}

#[test]
fn clocks_that_differ_are_found() {
    let dir = Dir::new();
    let other = format!("{}:{}", free_port(), free_port());
    let admin = |port: u16| format!("admin.enableServer=true\nadmin.serverPort={port}\n");
    let at = |offset: i64| {
        answering(move || {
            let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(offset);
            let date =
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
            format!("HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Length: 0\r\n\r\n", date.unwrap())
        })
    };
    with_another(&dir, &other, &admin(at(0)));
    dir.expect("clock", "ok", "2: its clock agrees");
    with_another(&dir, &other, &admin(at(3600)));
    dir.expect("clock", "warning", "s ahead of this one");
    with_another(&dir, &other, &admin(at(-3600)));
    dir.expect("clock", "warning", "s behind this one");
    // One without a date, and none at all.
    with_another(&dir, &other, &admin(answering(|| "HTTP/1.1 200 OK\r\n\r\n".into())));
    dir.expect("clock", "ok", "2: its time is not known");
    with_another(&dir, &other, &admin(free_port()));
    dir.expect("clock", "ok", "2: its time is not known");
}

#[test]
fn versions_that_differ_are_found() {
    let dir = Dir::new();
    let says = |version: &str| {
        let text = format!("Zookeeper version: {version}-x, built on 2022\nMode: follower\n");
        answering(move || text.clone())
    };
    let [old, new] = [says("3.8.0"), says("3.9.4")];
    let third = format!("server.3=127.0.0.1:{}:{};{new}\n", free_port(), free_port());
    with_another(&dir, &format!("{}:{};{old}", free_port(), free_port()), &third);
    dir.expect("versions", "warning", "the members differ: 3.8.0 (2); 3.9.4 (3)");
}

#[test]
fn limits_and_places_are_found() {
    let dir = Dir::new();
    dir.config(free_port(), "maxCnxns=100000\n");
    let under = |limit: u32| {
        let script = format!("ulimit -n {limit}; exec \"$0\" doctor --json \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_zabd")]).arg(dir.0.join("zoo.cfg"));
        let output = command.env_remove("RUST_LOG").output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = json["findings"].as_array().unwrap();
        let of = findings.iter().find(|finding| finding["check"] == "descriptors").unwrap();
        (of["level"].as_str().unwrap().to_owned(), of["text"].as_str().unwrap().to_owned())
    };
    let (level, text) = under(200);
    assert!(level == "failure" && text.starts_with("200 open files"), "{level} {text}");
    assert_eq!(under(4000).0, "warning");
    // A log where nothing can be written, and one that is missing.
    let missing = dir.0.join("missing");
    dir.config(free_port(), &format!("dataLogDir={}\n", missing.display()));
    dir.expect("directories", "warning", "does not exist; it is made at the start");
    dir.config(free_port(), "dataLogDir=/proc\n");
    dir.expect("disk", "failure", "cannot write in /proc");
}

/// The stores of a server whose certificate is that of `name`; as lines of its configuration.
fn stores(dir: &Dir, name: &str, prefix: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-tls/tests/data");
    let part = |ending: &str| fs::read_to_string(data.join(format!("{name}.{ending}"))).unwrap();
    let store = dir.0.join(format!("{name}.pem"));
    fs::write(&store, part("key") + &part("pem")).unwrap();
    let (store, ca) = (store.display(), data.join("ca.pem"));
    let ca = ca.display();
    format!("{prefix}keyStore.location={store}\n{prefix}trustStore.location={ca}\n")
}

#[test]
fn a_server_with_nothing_but_tls_is_asked_through_it() {
    let dir = Dir::new();
    let port = free_port();
    let text = format!(
        "dataDir={}\nsecureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n{}",
        dir.0.join("data").display(),
        stores(&dir, "leaf", "ssl.")
    );
    fs::write(dir.0.join("zoo.cfg"), text).unwrap();
    let log = fs::File::create(dir.0.join("log")).unwrap();
    let _server = Running(dir.zabd(&[]).stderr(log).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    let answers = |[check, level, text]: &[String; 3]| {
        check == "ports" && level == "ok" && text.contains("answers, with TLS")
    };
    while !dir.doctor().1.iter().any(answers) {
        assert!(Instant::now() < until, "{:?}", dir.doctor());
    }
    dir.expect("versions", "ok", "(this one)");
}

#[test]
fn members_that_speak_no_tls_are_found() {
    let dir = Dir::new();
    // Its election port takes connections, and answers what is none of TLS.
    let plain = answering(|| "what?".into());
    let other = format!("{}:{plain}", free_port());
    with_another(&dir, &other, "");
    dir.expect("members", "ok", &format!("2: 127.0.0.1:{plain} answers"));
    let lines = stores(&dir, "leaf", "ssl.quorum.");
    with_another(&dir, &other, &format!("sslQuorum=true\n{lines}"));
    dir.expect("members", "warning", "what it sends is not TLS");
}
