//! Descriptors, disk space, rights and threads that run out, on real processes: what can be spared is
//! given up, what is wrong is said, and when it is mended the server comes back by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runtime_core::HeldPort;
use zab_harness::client::{self, Connect, Connection};
use zk_service::Opcode;

const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody for whom file modes count, also where the tests are run by root.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that is gone with the test, and belongs to whom the servers run as.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-out-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self::own(&dir);
        Self(dir)
    }

    fn own(path: &Path) {
        if is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// The directory of a server's own in here.
    fn of(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        Self::own(&dir);
        dir
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A server that is run by nobody in particular.
struct Server {
    child: Child,
    port: u16,
    data: PathBuf,
    log: Arc<Mutex<String>>,
}

/// A port that nobody else is given as long as this process lives.
fn free_port() -> u16 {
    let held = HeldPort::any().unwrap();
    let port = held.port();
    std::mem::forget(held);
    port
}

impl Server {
    /// Starts a server on `data`. `limit` is a line of shell in front of it.
    fn start(data: PathBuf, port: u16, lines: &str, limit: &str, arguments: &[&str]) -> Self {
        let config = data.join("zoo.cfg");
        let text = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\n\
             maxClientCnxns=0\n4lw.commands.whitelist=*\n{lines}",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limit}\nexec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_zabd")).args(arguments).arg(&config);
        command.env_remove("RUST_LOG").env_remove("SERVER_JVMFLAGS").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, port, data, log }
    }

    fn alone(dir: &Dir, limit: &str, arguments: &[&str]) -> Self {
        Self::start(dir.of("data"), free_port(), "", limit, arguments)
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "nothing of {text:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A client, as soon as there is service.
    fn client(&self) -> Client {
        let until = Instant::now() + PATIENCE;
        loop {
            match Client::connect(self.address()) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < until, "{error}\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sets a soft limit of the running process (`fsize`, `nproc`) to nothing, or to the hard limit
    /// again, as the user that it runs as.
    fn limit(&self, resource: &str, nothing: bool) {
        let pid = self.child.id().to_string();
        let value = if nothing { "0" } else { &*self.hard_limit(resource) };
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--{resource}={value}:")]);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        assert!(command.status().expect("prlimit, of util-linux").success());
    }

    fn hard_limit(&self, resource: &str) -> String {
        let name = if resource == "fsize" { "Max file size" } else { "Max processes" };
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn version_2(&self) -> PathBuf {
        self.data.join("version-2")
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that does not come back.
struct Client(Connection);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        Connection::open(address, &Connect::new(30_000), Duration::from_secs(10)).map(Self)
    }

    fn call(&mut self, op: Opcode, record: &[u8]) -> io::Result<i32> {
        self.0.call(op.wire(), record).map(|(error, _)| error)
    }

    fn create(&mut self, path: &str, data: &[u8]) -> io::Result<i32> {
        self.call(Opcode::Create, &client::create(path, data, 0))
    }

    /// Creates nodes `/<name>0` and so on until one is not acknowledged or there are `n`; how many were.
    fn create_many(&mut self, name: &str, n: u32, len: usize) -> u32 {
        let data = vec![7; len];
        (0..n)
            .take_while(|i| self.create(&format!("/{name}{i}"), &data).is_ok_and(|e| e == 0))
            .count()
            .try_into()
            .unwrap()
    }

    fn exists(&mut self, path: &str) -> bool {
        self.call(Opcode::Exists, &client::read(path, false)).unwrap() == 0
    }

    fn sync(&mut self) {
        assert_eq!(self.call(Opcode::Sync, &client::string("/")).unwrap(), 0);
    }
}

/// Clients use up what they may, and the server goes on writing logs and snapshots, which need
/// descriptors too.
#[test]
fn clients_leave_descriptors_to_files() {
    for runtime in ["mio", "smol", "std"] {
        let dir = Dir::new();
        let often = "-Dzookeeper.snapCount=20";
        let mut server = Server::alone(&dir, "ulimit -n 64", &["--runtime", runtime, often]);
        let mut first = server.client();
        let mut others: Vec<_> =
            (0..128).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
        server.wait_for("Cannot accept connections: 32 of 64 file descriptors are in use");
        assert_eq!(first.create_many("n", 300, 10), 300, "{runtime}: {}", server.log());
        // Each snapshot makes a file and takes a new log; a busy machine is slower in beginning the next.
        let files = || fs::read_dir(server.version_2()).unwrap().count();
        let mut rounds = (0..100).map(|round| format!("more-{round}-"));
        while files() <= 20 {
            let name = rounds.next().unwrap_or_else(|| panic!("{runtime}: {} files", files()));
            assert_eq!(first.create_many(&name, 20, 10), 20, "{runtime}");
        }
        assert!(server.is_alive());
        assert_eq!(server.log().matches("Cannot accept connections").count(), 1, "{runtime}");
        others.clear();
        let mut late = server.client();
        assert!(late.exists("/n299"));
        server.wait_for("Accepting connections again after");
    }
}

/// Three servers, each with its lines.
fn ensemble(dir: &Dir) -> Vec<Server> {
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let mut lines = String::from("initLimit=10\nsyncLimit=10\n");
    for (i, (quorum, election)) in ports.iter().enumerate() {
        lines += &format!("server.{}=127.0.0.1:{quorum}:{election}\n", i + 1);
    }
    let start = |i: usize| {
        let data = dir.of(&i.to_string());
        fs::write(data.join("myid"), i.to_string()).unwrap();
        Server::start(data, free_port(), &lines, "", &["-Dzookeeper.preAllocSize=64"])
    };
    (1..=3).map(start).collect()
}

fn is_leader(server: &Server) -> bool {
    let Ok(mut stream) = TcpStream::connect(server.address()) else { return false };
    let mut answer = String::new();
    stream.write_all(b"srvr").unwrap();
    let _ = stream.read_to_string(&mut answer);
    answer.contains("Mode: leader")
}

/// A disk without space for one member, which may be the leader. (The limit of the size of a file
/// stands for it: the next write fails in the same place, and it needs no rights.)
#[test]
fn a_full_disk_costs_a_member_until_there_is_space() {
    for leads in [false, true] {
        let dir = Dir::new();
        let mut servers = ensemble(&dir);
        servers[0].client();
        let full = servers.iter().position(|server| is_leader(server) == leads).unwrap();
        let other = servers.iter().position(|server| is_leader(server) != leads).unwrap();
        let mut client = servers[full].client();
        assert_eq!(client.create_many("before", 100, 100), 100);
        servers[full].limit("fsize", true);
        // Whoever is asked: nothing is acknowledged that is lost.
        let during = client.create_many("unclear", 2000, 100);
        servers[full].wait_for("This server has stopped serving");
        servers[full].wait_for("File too large");
        assert_eq!(servers[other].client().create_many("during", 500, 100), 500);
        assert!(Client::connect(servers[full].address()).is_err());
        servers[full].limit("fsize", false);
        servers[full].wait_for("The directories can be written again");
        let mut client = servers[full].client();
        client.sync();
        for path in ["/before99".to_owned(), "/during499".to_owned()] {
            assert!(client.exists(&path), "{path}");
        }
        assert!((0..during).all(|i| client.exists(&format!("/unclear{i}"))));
        assert_eq!(client.create_many("after", 100, 100), 100);
        assert!(servers.iter_mut().all(Server::is_alive));
    }
}

#[test]
fn a_directory_that_turns_read_only_is_waited_for() {
    let dir = Dir::new();
    let mut server = Server::alone(&dir, "", &["-Dzookeeper.txnLogSizeLimitInKb=64"]);
    let mut client = server.client();
    let set_mode = |mode| {
        fs::set_permissions(server.version_2(), fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(client.create_many("a", 10, 1000), 10);
    set_mode(0o500);
    let acknowledged = client.create_many("b", 1000, 1000);
    assert!(acknowledged < 1000, "{acknowledged}");
    server.wait_for("This server has stopped serving");
    server.wait_for("Permission denied");
    let logged = server.log();
    assert_eq!(logged.matches("cannot create").count(), 1, "it is told once\n{logged}");
    set_mode(0o700);
    let mut client = server.client();
    assert!((0..acknowledged).all(|i| client.exists(&format!("/b{i}"))));
    assert_eq!(client.create_many("c", 100, 1000), 100);
    assert!(server.is_alive());
}

#[test]
fn a_directory_that_cannot_be_written_is_noticed_at_the_start() {
    for mode in [0o500, 0o000] {
        let dir = Dir::new();
        let data = dir.of("data");
        let version_2 = data.join("version-2");
        fs::create_dir(&version_2).unwrap();
        fs::write(version_2.join(".zab-lock"), "").unwrap();
        Dir::own(&version_2);
        Dir::own(&version_2.join(".zab-lock"));
        fs::set_permissions(&version_2, fs::Permissions::from_mode(mode)).unwrap();
        let mut server = Server::start(data, free_port(), "", "", &[]);
        assert_eq!(server.child.wait().unwrap().code(), Some(3), "{}", server.log());
        server.wait_for("Permission denied");
        assert!(server.log().contains(version_2.to_str().unwrap()), "{}", server.log());
        fs::set_permissions(&version_2, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A snapshot that nobody can read any more: an older one and the log do.
#[test]
fn unreadable_files_that_are_not_needed_keep_nobody_from_starting() {
    let dir = Dir::new();
    let often = ["-Dzookeeper.snapCount=20"];
    let mut server = Server::alone(&dir, "", &often);
    let mut client = server.client();
    assert_eq!(client.create_many("n", 100, 10), 100);
    let number = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.split_once('.').map_or(0, |(_, n)| u64::from_str_radix(n, 16).unwrap_or(0))
    };
    let version_2 = server.version_2();
    let files = |prefix: &str| {
        let paths = fs::read_dir(&version_2).unwrap().map(|entry| entry.unwrap().path());
        let named = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with(prefix);
        let mut found: Vec<_> = paths.filter(named).collect();
        found.sort_by_key(number);
        found
    };
    // A busy machine is slower in beginning the next snapshot.
    let mut rounds = (0..100).map(|round| format!("more-{round}-"));
    while files("snapshot.").len() <= 3 {
        let name = rounds.next().expect("there are snapshots in the end");
        assert_eq!(client.create_many(&name, 20, 10), 20);
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let newest = files("snapshot.").pop().unwrap();
    let oldest = files("log.").remove(0);
    for path in [&newest, &oldest] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let again = Server::start(server.data.clone(), server.port, "", "", &often);
    assert!(again.client().exists("/n99"));
    assert!(again.log().contains(newest.to_str().unwrap()), "{}", again.log());
}

/// No thread can be started any more: a snapshot can wait, the log cannot and does not have to.
#[test]
fn threads_that_run_out_postpone_the_snapshot() {
    let dir = Dir::new();
    let mut server = Server::alone(&dir, "", &["-Dzookeeper.snapCount=50"]);
    let mut client = server.client();
    server.limit("nproc", true);
    assert_eq!(client.create_many("n", 500, 10), 500, "{}", server.log());
    server.wait_for("is postponed for");
    server.limit("nproc", false);
    let until = Instant::now() + PATIENCE;
    while !server.log().contains("Snapshot taken in") {
        // The next turn of the loop looks whether it is time.
        client.create_many("x", 1, 10);
        assert!(Instant::now() < until, "{}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.is_alive());
}

/// What strangers say does not forge lines, and does not fill the disk.
#[test]
fn strangers_can_neither_forge_nor_flood_the_log() {
    let dir = Dir::new();
    let data = dir.of("1");
    fs::write(data.join("myid"), "1").unwrap();
    let (quorum, election) = (free_port(), free_port());
    let lines = format!(
        "initLimit=10\nsyncLimit=10\nserver.1=127.0.0.1:{quorum}:{election}\n\
         server.2=127.0.0.1:{}:{}\n",
        free_port(),
        free_port()
    );
    let server = Server::start(data, free_port(), &lines, "", &[]);
    server.wait_for("LOOKING");
    let before = server.log().len();
    let forged = "x\n2026-11-28T040000Z ERROR FORGED \x1b[31m:1";
    let mut handshake = (-65_536i64).to_be_bytes().to_vec();
    handshake.extend(2i64.to_be_bytes());
    handshake.extend(u32::try_from(forged.len()).unwrap().to_be_bytes());
    handshake.extend(forged.as_bytes());
    let garbage = [0x7f, 0xff, 0xff, 0xff].repeat(20);
    let began = Instant::now();
    let mut connections = 0;
    while began.elapsed() < Duration::from_secs(5) {
        for (port, bytes) in [
            (election, &handshake),
            (election, &garbage),
            (quorum, &garbage),
            (server.port, &garbage),
        ] {
            // Refusing is the server's right.
            let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
            let _ = stream.write_all(bytes);
            connections += 1;
        }
    }
    assert!(connections > 500, "{connections}");
    server.wait_for("more of these in 10 s");
    let log = server.log();
    assert!(log.len() - before < 60_000, "{} bytes: {log}", log.len() - before);
    assert!(!log.contains('\x1b') && !log.contains("\n2026-11-28T040000Z"), "{log}");
    let ended = Client::connect(server.address()).err().map(|error| error.kind());
    assert_ne!(ended, Some(ErrorKind::ConnectionRefused), "{log}");
}
