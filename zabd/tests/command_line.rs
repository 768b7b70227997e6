//! The program as it is used.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zab_harness::client::Connect;

const PATIENCE: Duration = Duration::from_secs(30);

fn zabd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabd"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("SERVER_JVMFLAGS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    zabd(arguments).output().unwrap()
}

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-cli-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn config(&self, text: &str) -> String {
        let path = self.0.join("zoo.cfg");
        fs::write(&path, text.replace("DIR", self.0.to_str().unwrap())).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A running program; killed if a test fails.
struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Running {
    fn logging(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self { child, lines: Box::new(BufReader::new(stderr).lines().map_while(Result::ok)) }
    }

    fn telling(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self { child, lines: Box::new(BufReader::new(stdout).lines().map_while(Result::ok)) }
    }

    /// Reads lines up to the one with `text`.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("ended without {text:?}: {seen:#?}");
    }

    fn wait(&mut self) -> i32 {
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap().code().expect("an exit code")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// The answer to a four-letter word.
fn ask(address: &str, word: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn help_and_version() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("zabd ensemble"));
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let want = concat!("zabd ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&version.stdout), want);
    for arguments in [&[][..], &["a", "b", "c", "d", "e"], &["--nonsense"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn exit_codes() {
    let dir = Dir::new();
    let invalid = dir.config("dataDir=DIR\n\ntickTime=two\n");
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    let not_a_dir = format!("dataDir={}\nclientPort=0\n", file.display());
    let cases = [
        (invalid, 2, "zoo.cfg:3: tickTime: For input string: \"two\" (accepted: "),
        (dir.0.join("none").display().to_string(), 2, "Error processing"),
    ];
    for (config, code, text) in cases {
        let output = run(&[&config]);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(text), "{log}");
    }
    let stranger =
        "initLimit=5\nsyncLimit=5\ndataDir=DIR\nserver.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4";
    fs::write(dir.0.join("myid"), "3").unwrap();
    let output = run(&[&dir.config(stranger)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("My id 3 not in the peer list"));
    let output = run(&[&dir.config(&not_a_dir)]);
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("file"), "names the directory");
}

/// Whatever the place it is written in: what would leave the server open ends it, with a line that
/// names place and key, and nothing is listened on or written.
#[test]
fn a_protection_that_is_not_there_ends_the_server() {
    let dir = Dir::new();
    let plain = dir.config("dataDir=DIR/data\nclientPort=0\n");
    let refused = |mut command: Command, texts: &[&str]| {
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{log}");
        for text in texts {
            assert!(log.contains(text), "{text} is not in {log}");
        }
        assert!(!log.contains("binding to port"), "{log}");
        assert!(!dir.0.join("data").exists());
    };
    let mut command = zabd(&[&plain]);
    command.env("SERVER_JVMFLAGS", "-Xmx1g -Dzookeeper.sessionRequireClientSASLAuth=true");
    refused(command, &["SERVER_JVMFLAGS: -Dzookeeper.sessionRequireClientSASLAuth: "]);
    let flag = "-Dzookeeper.sslQuorum=true";
    refused(zabd(&[flag, &plain]), &["command line: -Dzookeeper.sslQuorum: "]);
    let text = "dataDir=DIR/data\n\nsecureClientPort=0\n";
    refused(zabd(&[&dir.config(text)]), &["ssl.keyStore.location: secureClientPort needs it"]);
    let text = "dataDir=DIR/data\nsecureClientPort=0\nssl.keyStore.location=DIR/none.p12\nssl.clientAuth=none\n";
    refused(
        zabd(&[&dir.config(text)]),
        &["zoo.cfg:3: ssl.keyStore.location: ", "none.p12: No such"],
    );
    fs::write(dir.0.join("some.p12"), "secret").unwrap();
    let text = text.replace("none.p12", "some.p12");
    refused(
        zabd(&[&dir.config(&text)]),
        &["zoo.cfg:3: ssl.keyStore.location: ", "neither PEM nor"],
    );
    let text =
        "dataDir=DIR/data\nclientPort=0\nenforce.auth.enabled=true\nenforce.auth.schemes=sasl";
    refused(zabd(&[&dir.config(text)]), &["zoo.cfg:4: enforce.auth.schemes: ", "scheme sasl"]);
    let text = "dataDir=DIR/data\nclientPort=0\njute.maxbuffer=4m\n";
    refused(zabd(&[&dir.config(text)]), &["zoo.cfg:3: jute.maxbuffer: For input string: \"4m\""]);
}

/// The other address is used, and the missing one is spoken of once.
#[test]
fn a_name_that_nobody_knows_keeps_no_server_from_serving() {
    let dir = Dir::new();
    fs::write(dir.0.join("myid"), "1").unwrap();
    let config = dir.config(
        "dataDir=DIR\nclientPort=0\ninitLimit=9\nsyncLimit=9\ntickTime=500\nstandaloneEnabled=false\n\
         multiAddress.enabled=true\ndb.autocreate=true\n\
         server.1=127.0.0.1:27101:27102|nowhere.invalid:27103:27104\n",
    );
    let mut server = Running::logging(zabd(&[&config]));
    let line = server.wait_for("Cannot listen on");
    assert!(line.contains("election port 27104, quorum port 27103: \"nowhere.invalid\""), "{line}");
    let line = server.wait_for("binding to port ");
    server.wait_for("leading - broadcast");
    let address = format!("127.0.0.1:{}", line.rsplit_once(':').unwrap().1);
    assert!(ask(&address, "srvr").contains("Mode: leader"));
    // Long enough for several more attempts.
    std::thread::sleep(Duration::from_secs(2));
    kill("-TERM", server.child.id());
    let said = server.lines.by_ref().filter(|line| line.contains("nowhere.invalid")).count();
    assert_eq!(said, 0, "more than once a minute");
    assert_eq!(server.wait(), 0);
}

/// The only name of a server is not known: it waits, and can be ended.
#[test]
fn a_server_waits_for_its_own_name() {
    let dir = Dir::new();
    fs::write(dir.0.join("myid"), "1").unwrap();
    let config = dir.config(
        "dataDir=DIR\nclientPort=0\ninitLimit=9\nsyncLimit=9\n\
         server.1=nowhere.invalid:27111:27112\nserver.2=127.0.0.1:1:2\nserver.3=127.0.0.1:3:4\n",
    );
    let mut server = Running::logging(zabd(&[&config]));
    let line = server.wait_for("Cannot listen on");
    assert!(
        line.contains("It is looked up again until it is known (attempts so far: 1)"),
        "{line}"
    );
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.child.try_wait().unwrap().is_none(), "ended");
    kill("-TERM", server.child.id());
    assert_eq!(server.wait(), 0);
}

/// On each port, whoever comes with another protocol or too long a frame is named in words.
#[test]
fn other_protocols_are_recognised() {
    let dir = Dir::new();
    fs::write(dir.0.join("myid"), "1").unwrap();
    let config = dir.config(
        "dataDir=DIR\nclientPort=27120\ninitLimit=9\nsyncLimit=9\ntickTime=500\n\
         standaloneEnabled=false\ndb.autocreate=true\njute.maxbuffer=0x1000\n\
         server.1=127.0.0.1:27121:27122\n",
    );
    let mut command = zabd(&[&config]);
    command.env("RUST_LOG", "info");
    let mut server = Running::logging(command);
    server.wait_for("leading - broadcast");
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let post = b"POST /commands HTTP/1.1\r\n\r\n".to_vec();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let mut frame = 0x2000_i32.to_be_bytes().to_vec();
    frame.extend([0; 40]);
    for (port, bytes, want) in [
        (27120, &http, "frame length 1195725856, jute.maxbuffer is 4096 (HTTP?)"),
        (27120, &post, "frame length 1347375956, jute.maxbuffer is 4096 (HTTP?)"),
        (27120, &hello, "frame length 369295618, jute.maxbuffer is 4096 (TLS?)"),
        (27120, &frame, "frame length 8192, jute.maxbuffer is 4096"),
        (27121, &http, "the other side speaks HTTP"),
        (27121, &hello, "the other side speaks TLS"),
        (27122, &post, "the other side speaks HTTP"),
        (27122, &hello, "the other side speaks TLS"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(bytes).unwrap();
        server.wait_for(want);
    }
    kill("-TERM", server.child.id());
    assert_eq!(server.wait(), 0);
}

/// There is nobody to make way for: the server says so and goes on.
#[test]
fn one_server_does_not_resign() {
    let dir = Dir::new();
    let config = dir.config("dataDir=DIR\nclientPort=0\n");
    let mut server = Running::logging(zabd(&[&config]));
    server.wait_for("leading - broadcast");
    for _ in 0..2 {
        kill("-USR1", server.child.id());
        let line = server.wait_for("Asked to resign");
        assert!(line.ends_with("this server does not lead. Nothing changes"), "{line}");
    }
    assert!(server.child.try_wait().unwrap().is_none(), "ended");
    kill("-TERM", server.child.id());
    assert_eq!(server.wait(), 0);
}

/// What others leave in the directories keeps no server from starting, and is named once. On a fresh
/// disk the purge has nothing to complain about.
#[test]
fn foreign_files_are_named_once_and_a_first_purge_is_quiet() {
    let dir = Dir::new();
    let config = dir.config("dataDir=DIR/d\nclientPort=0\nautopurge.purgeInterval=1\n");
    let run = |texts: &[&str]| {
        let mut server = Running::logging(zabd(&[&config]));
        let mut lines = Vec::new();
        let mut open = vec!["Purge task completed", "leading - broadcast"];
        while !open.is_empty() {
            let line = server.lines.next().expect("goes on");
            open.retain(|text| !line.contains(text));
            lines.push(line);
        }
        kill("-TERM", server.child.id());
        lines.extend(server.lines.by_ref());
        assert_eq!(server.wait(), 0);
        let bad: Vec<_> =
            lines.iter().filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")).collect();
        assert_eq!(bad.len(), texts.len(), "{bad:#?}");
        for text in texts {
            assert_eq!(
                bad.iter().filter(|line| line.contains(text)).count(),
                1,
                "{text}: {bad:#?}"
            );
        }
    };
    run(&[]);
    let data = dir.0.join("d/version-2");
    for name in [".nfs000000001", ".DS_Store", "log.1.bak", "snapshot.zz", "Thumbs.db", "notes.txt"]
    {
        fs::write(data.join(name), "not ours").unwrap();
    }
    for name in ["lost+found", ".snapshots"] {
        fs::create_dir(data.join(name)).unwrap();
    }
    run(&["log.1.bak is ignored", "snapshot.zz is ignored"]);
}

/// The options of an existing installation, whose scripts source files.
#[test]
fn java_options_come_from_the_files_of_the_scripts() {
    let dir = Dir::new();
    let config = dir.config("dataDir=DIR/d\nclientPort=0\n");
    let env = dir.0.join("java.env");
    fs::write(
        &env,
        "# Heap\nexport SERVER_JVMFLAGS=\"-Xmx4g $SERVER_JVMFLAGS\"\n\
         if [ -f /x ]; then\n  SERVER_JVMFLAGS=-Dzookeeper.sslQuorum=true\nfi\n\
         JVMFLAGS='-Dzookeeper.requireKerberosConfig=true -Djute.maxbuffer=0x9fffff'\n",
    )
    .unwrap();
    let mut command = zabd(&["--java-env", env.to_str().unwrap(), &config]);
    command.env("SERVER_JVMFLAGS", "-Dzookeeper.skipACL=yes");
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(
        log.contains("java.env:3: if is not a plain assignment and is skipped, with all"),
        "{log}"
    );
    assert!(
        log.contains("java.env:6: -Dzookeeper.requireKerberosConfig: Kerberos is not"),
        "{log}"
    );
    let missing = run(&["--java-env", "/nowhere/java.env", &config]);
    assert_eq!(missing.status.code(), Some(2));
    let log = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(log.contains("--java-env: /nowhere/java.env: No such file"), "{log}");
    assert!(String::from_utf8_lossy(&run(&["--help"]).stdout).contains("conf/java.env"));
}

/// What ends a server is told once, with the file.
#[test]
fn a_fatal_error_is_logged_once() {
    let dir = Dir::new();
    let mut server = Running::logging(zabd(&[&dir.config("dataDir=DIR/d\nclientPort=0\n")]));
    let port = server.wait_for("binding to port ").rsplit_once(':').unwrap().1.to_owned();
    server.wait_for("leading - broadcast");
    // What a new ensemble writes by itself is written.
    let id = dir.0.join("d/version-2/ensembleId");
    while !fs::read_to_string(&id).is_ok_and(|text| text.contains("confirmed")) {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    fs::remove_dir_all(dir.0.join("d/version-2")).unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    // A session is the first transaction.
    stream.write_all(&Connect::new(10_000).to_vec()).unwrap();
    let errors: Vec<_> = server.lines.by_ref().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("version-2/log.1: "), "{errors:#?}");
    assert_eq!(server.wait(), 1);
}

#[test]
fn a_local_ensemble_names_what_it_cannot_write() {
    let dir = Dir::new();
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    let output = zabd(&["ensemble", "--client-port", "0"]).env("TMPDIR", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("file/zab-ensemble-"), "{text}");
}

#[test]
fn keys_are_printed() {
    let output = run(&["keys"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("| `jute.maxbuffer` | number | `1048575` | **used**"), "{text}");
}

#[test]
fn a_server_without_a_file_ends_at_sigterm() {
    let dir = Dir::new();
    let data = dir.0.to_str().unwrap();
    let flags = ["-Dzookeeper.4lw.commands.whitelist=*", "0", data, "500"];
    let mut server = Running::logging(zabd(&flags));
    let line = server.wait_for("binding to port ");
    let port = line.rsplit_once(':').unwrap().1.to_owned();
    server.wait_for("leading - broadcast");
    let address = format!("127.0.0.1:{port}");
    assert_eq!(ask(&address, "ruok"), "imok");
    assert!(ask(&address, "srvr").contains("Mode: standalone"));
    let second = run(&["0", data]);
    assert_eq!(second.status.code(), Some(3), "the directory is in use");
    kill("-TERM", server.child.id());
    assert_eq!(server.wait(), 0);
    TcpStream::connect(address).expect_err("closed");
}

#[test]
fn an_ensemble_outlives_its_leader_on_mio() {
    an_ensemble_outlives_its_leader("mio");
}

#[test]
fn an_ensemble_outlives_its_leader_on_smol() {
    an_ensemble_outlives_its_leader("smol");
}

#[test]
fn an_ensemble_outlives_its_leader_on_std() {
    an_ensemble_outlives_its_leader("std");
}

fn an_ensemble_outlives_its_leader(runtime: &str) {
    let dir = Dir::new();
    let path = dir.0.to_str().unwrap();
    let arguments = ["ensemble", "--observers", "1", "--client-port", "0", "--dir", path];
    let arguments = [&arguments[..], &["--runtime", runtime]].concat();
    let mut ensemble = Running::telling(zabd(&arguments));
    let mut servers = Vec::new();
    while servers.len() < 4 {
        let line = ensemble.wait_for("client port");
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        servers.push((words[3].parse::<u32>().unwrap(), format!("127.0.0.1:{}", words[6])));
    }
    let leader_of = |line: &str| {
        let number = line.split("server ").nth(1).unwrap().split(' ').next().unwrap();
        number.parse::<usize>().unwrap() - 1
    };
    let leader = leader_of(&ensemble.wait_for("election 1: server "));
    ensemble.wait_for("Connect to ");
    assert!(ask(&servers[leader].1, "srvr").contains("Mode: leader"));
    kill("-KILL", servers[leader].0);
    ensemble.wait_for("the leader, has ended");
    let next = leader_of(&ensemble.wait_for("election 2: server "));
    assert_ne!(leader, next);
    assert!(ask(&servers[next].1, "srvr").contains("Mode: leader"));
    kill("-INT", ensemble.child.id());
    assert_eq!(ensemble.wait(), 0);
    for (_, address) in &servers {
        TcpStream::connect(address).expect_err("stopped");
    }
    assert!(Path::new(path).join("server-1/log").exists(), "a given directory stays");
}
