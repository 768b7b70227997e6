//! Members as processes, each with a directory that outlives them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime_core::HeldPort;
use zk_client::Stat;
use zk_client::blocking::Client;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A directory that is gone with the test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-rescue-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `zabd` with these arguments.
pub(crate) fn zabd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabd"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("SERVER_JVMFLAGS");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs it; what it prints, if it succeeds.
pub(crate) fn zabd_ok(arguments: &[&str]) -> String {
    let output = zabd(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Runs it; what it complains of, as it must not succeed.
pub(crate) fn zabd_refuses(arguments: &[&str]) -> String {
    let output = zabd(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Voters with the ids 1 to N.
pub(crate) struct Ensemble {
    dir: PathBuf,
    running: BTreeMap<usize, Child>,
    ports: Vec<[u16; 3]>,
}

fn free_port() -> u16 {
    let held = HeldPort::any().unwrap();
    let port = held.port();
    // Nobody else is given it as long as this process lives.
    std::mem::forget(held);
    port
}

impl Ensemble {
    /// Writes the configurations of `count` members in `dir`. What they have there already stays.
    pub(crate) fn new(dir: PathBuf, count: usize) -> Self {
        let ports = (0..count).map(|_| [free_port(), free_port(), free_port()]).collect();
        let ensemble = Self { dir, running: BTreeMap::new(), ports };
        let mut members = String::new();
        for (n, [_, quorum, election]) in ensemble.ports.iter().enumerate() {
            let _ = writeln!(members, "server.{}=127.0.0.1:{quorum}:{election}", n + 1);
        }
        for sid in 1..=count {
            let (data, port) = (ensemble.data(sid), ensemble.ports[sid - 1][0]);
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join("myid"), sid.to_string()).unwrap();
            let text = format!(
                "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\n\
                 initLimit=20\nsyncLimit=10\nsnapCount=500\nadmin.enableServer=false\n{members}",
                data.display()
            );
            fs::write(ensemble.config(sid), text).unwrap();
        }
        ensemble
    }

    pub(crate) fn data(&self, sid: usize) -> PathBuf {
        self.dir.join(format!("data-{sid}"))
    }

    pub(crate) fn config(&self, sid: usize) -> String {
        self.dir.join(format!("zoo-{sid}.cfg")).to_str().unwrap().to_owned()
    }

    pub(crate) fn start(&mut self, sid: usize) {
        let log = self.dir.join(format!("log-{sid}"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .arg(self.config(sid))
            .env_remove("RUST_LOG")
            .env_remove("SERVER_JVMFLAGS")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.insert(sid, child);
    }

    pub(crate) fn start_all(&mut self) {
        for sid in 1..=self.ports.len() {
            self.start(sid);
        }
    }

    /// As a power cut ends it.
    pub(crate) fn kill(&mut self, sid: usize) {
        let mut child = self.running.remove(&sid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn kill_all(&mut self) {
        for sid in Vec::from_iter(self.running.keys().copied()) {
            self.kill(sid);
        }
    }

    pub(crate) fn log(&self, sid: usize) -> String {
        fs::read_to_string(self.dir.join(format!("log-{sid}"))).unwrap_or_default()
    }

    /// A client of these members.
    pub(crate) fn client_of(&self, sids: &[usize]) -> Client {
        let hosts = sids.iter().map(|sid| format!("127.0.0.1:{}", self.ports[sid - 1][0]));
        let client = Client::connect(&Vec::from_iter(hosts).join(",")).unwrap();
        let logs = || String::from_iter(sids.iter().map(|&sid| self.log(sid)));
        assert!(client.wait_connected(PATIENCE), "{}", logs());
        client
    }

    pub(crate) fn client(&self) -> Client {
        self.client_of(&Vec::from_iter(self.running.keys().copied()))
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Tries until it works: leaders change.
pub(crate) fn patiently<T>(mut call: impl FnMut() -> Result<T, zk_client::Error>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match call() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All nodes that clients have made, with data and stat.
pub(crate) type Tree = BTreeMap<String, (Vec<u8>, Stat)>;

pub(crate) fn read_tree(client: &Client) -> Tree {
    patiently(|| client.sync("/"));
    let mut tree = Tree::new();
    let mut waiting = vec![String::from("/")];
    while let Some(path) = waiting.pop() {
        let (data, stat) = patiently(|| client.get(&path, false));
        for name in patiently(|| client.children(&path, false)) {
            if (path.as_str(), name.as_str()) != ("/", "zookeeper") {
                waiting.push(format!("{}/{name}", path.trim_end_matches('/')));
            }
        }
        tree.insert(path, (data.to_vec(), stat));
    }
    tree
}

/// Names and contents of all files below a directory, but for locks.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}
