//! What an operator does to a running server: its log as JSON, SIGHUP, and what systemd is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a directory that is gone with the test.
struct Server {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    fn new(lines: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-operation-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let held = runtime_core::HeldPort::any().unwrap();
        let port = held.port();
        std::mem::forget(held);
        let server = Self { dir, port, child: None };
        server.config(lines);
        server
    }

    fn config(&self, lines: &str) {
        let text = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n{lines}",
            self.dir.join("data").display(),
            self.port
        );
        fs::write(self.dir.join("zoo.cfg"), text).unwrap();
    }

    fn start(&mut self, arguments: &[&str], env: &[(&str, &str)]) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        self.start_with_log(arguments, env, log.into());
    }

    fn start_with_log(&mut self, arguments: &[&str], env: &[(&str, &str)], log: Stdio) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zabd"));
        command.args(arguments).arg(self.dir.join("zoo.cfg")).env_remove("RUST_LOG");
        command.env_remove("SERVER_JVMFLAGS").envs(env.iter().copied());
        self.child = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        self.until(|server| server.word("srvr").contains("Mode:"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    #[track_caller]
    fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn word(&self, word: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.write_all(word.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGHUP; what is logged because of it.
    fn hang_up(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::HUP);
        self.until(|server| server.log()[before..].contains("SIGHUP"));
        // Warnings come behind the first line.
        std::thread::sleep(Duration::from_millis(200));
        self.log()[before..].to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn the_log_as_json_is_one_object_a_line() {
    let mut server = Server::new("");
    server.start(&["--log-format", "json"], &[]);
    server.signal(Signal::TERM);
    server.child.as_mut().unwrap().wait().unwrap();
    let log = server.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = Vec::from_iter(lines);
    let messages = Vec::from_iter(lines.iter().map(|line| line["message"].as_str().unwrap()));
    assert!(messages[0].starts_with("Reading configuration from: "), "{log}");
    assert!(messages.iter().any(|text| text.starts_with("binding to port ")), "{log}");
    assert!(messages.contains(&"Exiting with code 0"), "{log}");
    for line in &lines {
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(["INFO", "WARN"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(line["target"].as_str().unwrap().len() > 3);
    }
    // By the key, and a form that there is not.
    let mut server = Server::new("zab.log.format=json\nzab.log.level=warn\n");
    server.start(&[], &[]);
    assert!(!server.log().contains("binding to port"), "{}", server.log());
    let mut server = Server::new("zab.log.format=xml\n");
    let log = fs::File::create(server.dir.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabd"));
    let child = command.arg(server.dir.join("zoo.cfg")).stderr(log).spawn().unwrap();
    assert_eq!(server.child.insert(child).wait().unwrap().code(), Some(2));
    assert!(server.log().contains("zab.log.format"), "{}", server.log());
}

#[test]
fn sighup_reloads_what_can_be_and_names_what_cannot() {
    let mut server = Server::new("4lw.commands.whitelist=ruok\n");
    server.start(&[], &[]);
    assert_eq!(server.word("ruok"), "imok");
    assert!(server.word("mntr").contains("not in the whitelist"));
    assert!(server.hang_up().contains("changed: nothing that can change"));

    let lines = "4lw.commands.whitelist=mntr\nzab.log.level=debug\ntickTime=3000\n";
    server.config(&format!("{lines}zookeeper.ssl.keyStore.password=secret\n"));
    let log = server.hang_up();
    assert!(log.contains("4lw.commands.whitelist=mntr"), "{log}");
    assert!(log.contains("zab.log.level=debug"), "{log}");
    assert!(log.contains("count after a restart: ssl.keyStore.password, tickTime"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    server.until(|server| server.word("mntr").contains("zk_version"));
    assert!(server.word("ruok").contains("not in the whitelist"));
    assert!(server.word("srvr").contains("Mode:"), "always allowed");
    server.config("zab.log.format=json\n");
    server.hang_up();
    let last = server.log().lines().last().unwrap().to_owned();
    serde_json::from_str::<Value>(&last).unwrap();
    server.until(|server| server.word("mntr").contains("not in the whitelist"));

    // Nothing that cannot be used is used.
    server.config("4lw.commands.whitelist=mntr\ntickTime=none\n");
    let log = server.hang_up();
    assert!(log.contains("nothing is changed") && log.contains("tickTime"), "{log}");
    assert!(server.word("mntr").contains("not in the whitelist"));
}

#[test]
fn sighup_looks_at_the_certificates() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-tls/tests/data");
    let held = runtime_core::HeldPort::any().unwrap();
    let port = held.port();
    std::mem::forget(held);
    let mut server = Server::new("");
    let store = server.dir.join("store.pem");
    let part = |name: &str| fs::read_to_string(data.join(name)).unwrap();
    fs::write(&store, part("leaf.key") + &part("leaf.pem")).unwrap();
    // No look but that one.
    server.config(&format!(
        "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.keyStore.location={}\n\
         ssl.trustStore.location={}\nzab.tls.reloadIntervalMs=0\n4lw.commands.whitelist=*\n",
        store.display(),
        data.join("ca.pem").display()
    ));
    server.start(&[], &[]);
    fs::write(&store, part("rsa.key") + &part("rsa.pem")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = server.log();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.log(), before);
    let log = server.hang_up();
    assert!(log.contains("store.pem") && log.contains("were looked at"), "{log}");
    fs::write(&store, "no certificate").unwrap();
    let log = server.hang_up();
    assert!(log.contains("WARN") || log.contains("ERROR"), "{log}");
    assert!(server.word("srvr").contains("Mode:"));
}

#[test]
fn systemd_hears_that_it_is_ready_alive_and_stopping() {
    let mut server = Server::new("");
    let path = server.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buf = [0; 1024];
        let n = socket.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    };
    let name = path.to_str().unwrap();
    server.start(&[], &[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "300000")]);
    let mut heard = vec![hear()];
    while !heard.iter().any(|text| text.contains("READY=1")) {
        heard.push(hear());
    }
    assert_eq!(heard.iter().filter(|text| text.contains("READY=1")).count(), 1);
    // From the loop itself, several times within the limit.
    let began = Instant::now();
    let mut beats = 0;
    while beats < 5 {
        let text = hear();
        beats += u32::from(text.contains("WATCHDOG=1\nSTATUS=leading - broadcast"));
    }
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < PATIENCE);
    server.signal(Signal::TERM);
    while !hear().contains("STOPPING=1") {}
    assert!(server.child.as_mut().unwrap().wait().unwrap().success());
}

/// The allocator's settings are in the environment of the process, as they can be nowhere else.
#[test]
fn memory_is_in_large_pages_where_the_kernel_has_them_unless_somebody_has_set_the_allocator() {
    let modes =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let has_them = modes.contains('[') && !modes.contains("[never]");
    for (set, begins_anew) in
        [(None, has_them), (Some(""), false), (Some("glibc.malloc.perturb=0"), false)]
    {
        let mut server = Server::new("");
        server.start(&[], set.map(|set| ("GLIBC_TUNABLES", set)).as_slice());
        let pid = server.child.as_ref().unwrap().id();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        let tunables =
            environment.split('\0').find_map(|entry| entry.strip_prefix("GLIBC_TUNABLES="));
        if begins_anew {
            assert!(tunables.is_some_and(|it| it.contains("hugetlb=1")), "{tunables:?}");
        } else {
            assert_eq!(tunables, set);
        }
        assert_eq!(server.log().matches("Reading configuration from").count(), 1);
    }
}

#[test]
fn a_loop_that_stands_still_does_not_say_that_it_is_alive() {
    let mut server = Server::new("");
    let path = server.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // Ten times as long as there is between two beats.
    let silence = Duration::from_secs(1);
    socket.set_read_timeout(Some(silence)).unwrap();
    let hear = || {
        let mut buf = [0; 1024];
        let heard = socket.recv(&mut buf).ok();
        heard.map(|len| String::from_utf8(buf[..len].to_vec()).unwrap())
    };
    let until = |done: &dyn Fn(Option<&str>) -> bool| {
        let end = Instant::now() + PATIENCE;
        while !done(hear().as_deref()) {
            assert!(Instant::now() < end);
        }
    };
    let is_beat = |text: Option<&str>| text.is_some_and(|text| text.contains("STATUS=leading"));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    server.start_with_log(&[], &env, writer.try_clone().unwrap().into());
    until(&is_beat);
    // Nobody reads the log, and it is full: whoever has something to say in it waits.
    std::thread::spawn(move || (&writer).write_all(&vec![b'\n'; 1 << 20]));
    std::thread::sleep(Duration::from_millis(500));
    until(&is_beat);
    // The loop has something to say of this one.
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stranger.write_all(&[0xff; 64]).unwrap();
    until(&|heard| heard.is_none());
    assert_eq!(hear(), None, "and stays silent");
    // Somebody reads on, and it goes on.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    until(&is_beat);
    server.signal(Signal::TERM);
    assert!(server.child.as_mut().unwrap().wait().unwrap().success());
}
