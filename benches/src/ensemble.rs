//! Ensembles of whole server processes on loopback.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime_core::HeldPort;

use crate::client::{Request, Session, Wire};
use crate::report;

/// Which server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ours, with the runtime of that name.
    Zabd(String),
    /// Apache's, from Debian's package.
    ZooKeeper,
    /// etcd, from Debian's package.
    Etcd,
}

impl Kind {
    /// Its language.
    #[must_use]
    pub fn wire(&self) -> Wire {
        match self {
            Self::Zabd(_) | Self::ZooKeeper => Wire::ZooKeeper,
            Self::Etcd => Wire::Etcd,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zabd(runtime) => write!(f, "zabd ({runtime})"),
            Self::ZooKeeper => f.write_str("ZooKeeper 3.8.0"),
            Self::Etcd => f.write_str("etcd 3.4.23"),
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `zabd` binary.
    pub zabd: PathBuf,
    /// Debian's class path.
    pub class_path: String,
}

/// Servers of one kind, each a process of its own. Ended and removed from disk when dropped.
#[derive(Debug)]
pub struct Ensemble {
    kind: Kind,
    programs: Programs,
    dir: PathBuf,
    /// Client addresses.
    pub clients: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    /// Client, quorum and election port of each.
    ports: Vec<u16>,
}

impl Ensemble {
    /// Writes the configuration of `n` servers below `dir`; starts none.
    ///
    /// # Errors
    /// If files cannot be written or ports not be had.
    pub fn new(kind: Kind, programs: &Programs, dir: &Path, n: usize) -> io::Result<Self> {
        Self::with(kind, programs, dir, n, |_| String::new())
    }

    /// The same with further lines in the configuration of each server, which are told from its place.
    ///
    /// # Errors
    /// If files cannot be written or ports not be had.
    pub fn with(
        kind: Kind,
        programs: &Programs,
        dir: &Path,
        n: usize,
        lines: impl Fn(usize) -> String,
    ) -> io::Result<Self> {
        let dir = dir.join(format!("{kind}").replace([' ', '(', ')'], "-"));
        let ports = free_ports(3 * n)?;
        let mut members = String::new();
        for i in 0..n {
            let (quorum, election) = (ports[3 * i + 1], ports[3 * i + 2]);
            members += &format!("server.{}=127.0.0.1:{quorum}:{election}\n", i + 1);
        }
        for i in 0..n {
            let data = dir.join(format!("{}", i + 1));
            fs::create_dir_all(&data)?;
            fs::write(data.join("myid"), format!("{}\n", i + 1))?;
            let text = format!(
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\ndataDir={}\n\
                 clientPort={}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{members}{}",
                data.display(),
                ports[3 * i],
                lines(i),
            );
            fs::write(data.join("zoo.cfg"), text)?;
        }
        let client = |i: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[3 * i]));
        Ok(Self {
            kind,
            programs: programs.clone(),
            dir,
            clients: (0..n).map(client).collect(),
            ports,
            children: (0..n).map(|_| None).collect(),
        })
    }

    /// Starts server `i`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(&mut self, i: usize) -> io::Result<()> {
        let data = self.dir.join(format!("{}", i + 1));
        let config = data.join("zoo.cfg");
        let mut command = match &self.kind {
            Kind::Zabd(runtime) => {
                let mut command = Command::new(&self.programs.zabd);
                if runtime != "mio" {
                    command.args(["--runtime", runtime]);
                }
                command
            }
            Kind::ZooKeeper => {
                let mut command = Command::new("java");
                command.args(["-cp", &self.programs.class_path]);
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
                command
            }
            Kind::Etcd => {
                let mut command = Command::new("etcd");
                command.args(self.etcd_arguments(i));
                command
            }
        };
        let log = File::options().create(true).append(true).open(data.join("log"))?;
        if self.kind != Kind::Etcd {
            command.arg(config);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children[i] = Some(command.spawn()?);
        Ok(())
    }

    /// etcd is configured by its command line.
    fn etcd_arguments(&self, i: usize) -> Vec<String> {
        let n = self.clients.len();
        let peer = |i: usize| format!("http://127.0.0.1:{}", self.ports[3 * i + 1]);
        let client = format!("http://{}", self.clients[i]);
        let members: Vec<String> = (0..n).map(|i| format!("m{i}={}", peer(i))).collect();
        let data = self.dir.join(format!("{}", i + 1)).join("etcd");
        [
            format!("--name=m{i}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={}", peer(i)),
            format!("--initial-advertise-peer-urls={}", peer(i)),
            format!("--initial-cluster={}", members.join(",")),
            String::from("--initial-cluster-state=new"),
            String::from("--log-level=error"),
        ]
        .into()
    }

    /// Kills server `i` with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self, i: usize) -> io::Result<()> {
        if let Some(mut child) = self.children[i].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether server `i` was started and not killed.
    #[must_use]
    pub fn is_running(&self, i: usize) -> bool {
        self.children[i].is_some()
    }

    /// The leader, asked with `srvr`.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..self.clients.len()).filter(|i| self.is_running(*i)).find(|i| self.leads(*i))
    }

    fn leads(&self, i: usize) -> bool {
        match self.kind.wire() {
            Wire::ZooKeeper => {
                ask(self.clients[i], "srvr").is_ok_and(|text| text.contains("Mode: leader"))
            }
            Wire::Etcd => {
                let text = ask(self.clients[i], ETCD_STATUS).unwrap_or_default();
                let value = |key: &str| text.split(key).nth(1)?.split('"').next().map(String::from);
                let own = value("\"member_id\":\"");
                own.is_some() && own == value("\"leader\":\"")
            }
        }
    }

    /// Writes through any running server until one succeeds; the time it took.
    ///
    /// # Errors
    /// If none succeeds within `limit`.
    pub fn first_write(&self, path: &str, limit: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            for i in (0..self.clients.len()).filter(|i| self.is_running(*i)) {
                // etcd keeps a client waiting where ZooKeeper refuses it.
                let etcd = self.kind == Kind::Etcd;
                let wait = Duration::from_millis(if etcd { 100 } else { 500 });
                let written = Session::open(self.kind.wire(), self.clients[i], wait)
                    .and_then(|mut session| session.call(Request::Create(path, b"x")));
                // Node exists: an attempt whose answer was lost went through.
                if written.is_ok_and(|err| err == 0 || err == -110) {
                    return Ok(start.elapsed());
                }
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Resident memory of each running server, in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> Vec<u64> {
        let of = |pid: u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        self.children.iter().flatten().filter_map(|child| of(child.id())).collect()
    }

    /// Processor time of all running servers so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.children.iter().flatten().map(|child| report::cpu_of(&child.id().to_string())).sum()
    }

    /// Process numbers of the running servers.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.children.iter().flatten().map(Child::id)
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The question who leads, for etcd's JSON gateway.
const ETCD_STATUS: &str = "POST /v3/maintenance/status HTTP/1.1\r\nHost: localhost\r\n\
    Connection: close\r\nContent-Length: 2\r\n\r\n{}";

/// Everything a server answers to `question` until it closes the connection.
fn ask(addr: SocketAddr, question: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(question.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Ports that nobody else is given as long as this process lives.
///
/// # Errors
/// If there are not so many.
pub fn free_ports(n: usize) -> io::Result<Vec<u16>> {
    let held: Vec<HeldPort> = (0..n).map(|_| HeldPort::any()).collect::<Result<_, _>>()?;
    let ports = held.iter().map(HeldPort::port).collect();
    std::mem::forget(held);
    Ok(ports)
}
