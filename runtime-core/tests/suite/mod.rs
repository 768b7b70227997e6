//! What every runtime must do: real servers on loopback, with a journal of lines as application.
//!
//! Included by the tests of each runtime, with that runtime as `crate::runtime`.

mod bounds;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::journal::Journal;
use crate::runtime::{Error, Handle, Listen, Listeners, Server, ServerOptions};
use zab_proto::{Channel, Config, Ensemble, Member, ServerState, Sid, Status, Zxid};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Ensembled {
    config: Config,
    dir: PathBuf,
    /// Index is sid - 1.
    servers: Vec<Option<Server<Journal>>>,
    clients: Vec<SocketAddr>,
}

pub(crate) fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("zab-runtime-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl Ensembled {
    fn start(voters: usize, observers: usize) -> Self {
        let mut config = Config::new(Sid(0), Ensemble::default());
        config.tick_time = Duration::from_millis(500);
        config.trust_empty = true;
        let mut bound = Vec::new();
        for i in 0..voters + observers {
            let mut listeners = Listeners::default();
            let mut port = |channel| listeners.add(channel, LOOPBACK, None).unwrap();
            let (election, quorum) = (port(Channel::Election), port(Channel::Quorum));
            let client = port(Channel::Client);
            let sid = Sid(i64::try_from(i).unwrap() + 1);
            let role = if i < voters { "participant" } else { "observer" };
            let line = format!("127.0.0.1:{}:{}:{role}", quorum.port(), election.port());
            config.ensemble.members.insert(sid, Member::parse(sid, &line).unwrap());
            bound.push((listeners, client));
        }
        let clients = bound.iter().map(|(_, client)| *client).collect();
        let (servers, dir) = ((0..voters + observers).map(|_| None).collect(), directory());
        let mut ensemble = Self { config, dir, servers, clients };
        for (i, (listeners, _)) in bound.into_iter().enumerate() {
            ensemble.start_on(i, listeners);
        }
        ensemble
    }

    fn start_on(&mut self, i: usize, listeners: Listeners) {
        let sid = Sid(i64::try_from(i).unwrap() + 1);
        let mut config = self.config.clone();
        config.sid = sid;
        let mut options =
            ServerOptions::new(config, Listen::default(), self.dir.join(sid.to_string()));
        options.storage.prealloc_bytes = 1 << 16;
        options.storage.force_sync = false;
        self.servers[i] = Some(Server::start_on(listeners, options, Journal::default()).unwrap());
    }

    fn restart(&mut self, i: usize) {
        let sid = Sid(i64::try_from(i).unwrap() + 1);
        let mut listen = Listen::peers(&self.config.ensemble.members[&sid], false).unwrap();
        listen.clients.push(self.clients[i]);
        self.start_on(i, Listeners::bind(&listen).unwrap());
    }

    fn stop(&mut self, i: usize) {
        self.servers[i] = None;
    }

    fn up(&self) -> impl Iterator<Item = &Server<Journal>> {
        self.servers.iter().flatten()
    }

    /// Waits until all that run serve and one of them leads, and returns the leader's index. (Those
    /// who have just lost their leader may not know it yet.)
    fn wait(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        let is_leader = |server: &Server<Journal>| {
            server.handle().status().get().is_some_and(|s| s.state == ServerState::Leading)
        };
        loop {
            for server in self.up() {
                assert!(server.handle().wait_serving(PATIENCE), "{:?}", server.handle());
            }
            let leader = self.servers.iter().position(|s| s.as_ref().is_some_and(is_leader));
            if let Some(leader) = leader {
                return leader;
            }
            assert!(Instant::now() < until, "nobody leads");
            std::thread::yield_now();
        }
    }

    /// Waits until all that run have the same `n` lines.
    fn wait_lines(&self, n: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let lines: Vec<_> =
                self.up().map(|server| ask(server.handle(), Journal::text_owned)).collect();
            if lines.iter().all(|l| l.len() == n && *l == lines[0]) {
                return;
            }
            let lens: Vec<_> = lines.iter().map(Vec::len).collect();
            assert!(Instant::now() < until, "{lens:?} are not {n}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Ensembled {
    fn drop(&mut self) {
        self.servers.clear();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Journal {
    fn text_owned(&self) -> Vec<Vec<u8>> {
        self.text().into_iter().map(<[u8]>::to_vec).collect()
    }
}

/// Asks an application on its own thread.
fn ask<T: Send + 'static>(
    handle: &Handle<Journal>,
    question: impl FnOnce(&Journal) -> T + Send + 'static,
) -> T {
    let (sender, answer) = channel();
    handle.call(move |_, node| sender.send(question(node.app())).unwrap());
    answer.recv_timeout(PATIENCE).unwrap()
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Appends a line and waits for its echo.
pub(crate) fn append(stream: &mut TcpStream, line: &str) {
    let len = u8::try_from(line.len()).unwrap();
    stream.write_all(&[&[len], line.as_bytes()].concat()).unwrap();
    let mut echo = vec![0; line.len()];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(echo, line.as_bytes());
}

/// Reads until the other side ends or resets.
fn wait_end(stream: &mut TcpStream) {
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

#[test]
fn three_servers_replicate_and_outlive_their_leader() {
    let mut ensemble = Ensembled::start(3, 1);
    let mut lines = 0;
    for round in 0..3 {
        let leader = ensemble.wait();
        for (i, client) in ensemble.clients.iter().enumerate() {
            append(&mut connect(*client), &format!("round {round} through {i}"));
            lines += 1;
        }
        ensemble.wait_lines(lines);
        ensemble.stop(leader);
        let next = ensemble.wait();
        assert_ne!(leader, next);
        append(&mut connect(ensemble.clients[next]), "without one");
        lines += 1;
        ensemble.wait_lines(lines);
        ensemble.restart(leader);
        ensemble.wait();
        ensemble.wait_lines(lines);
    }
}

/// ZK-2247 (B-48 of the catalogue): a leader that cannot write goes on sending pings, so everybody
/// stays, and nothing is committed any more. It has to go.
#[test]
fn b48_a_leader_whose_disk_fails_makes_way() {
    let mut ensemble = Ensembled::start(3, 0);
    let leader = ensemble.wait();
    let server = ensemble.servers[leader].take().unwrap();
    let epoch = server.handle().status().get().unwrap().epoch;
    // A directory in the place of its first log.
    let dir = ensemble.dir.join((leader + 1).to_string()).join("version-2");
    let log = format!("log.{:x}", Zxid::new(epoch, 1).raw());
    std::fs::create_dir(dir.join(log)).unwrap();
    let mut stream = connect(ensemble.clients[leader]);
    stream.write_all(&[4, b'l', b'o', b's', b't']).unwrap();
    wait_end(&mut stream);
    assert!(matches!(server.join(), Err(Error::Storage(_))));
    let next = ensemble.wait();
    append(&mut connect(ensemble.clients[next]), "kept");
}

#[test]
fn a_lone_server_keeps_its_lines() {
    let dir = directory();
    let start = || {
        let listen = Listen { clients: vec![LOOPBACK], ..Listen::default() };
        let mut options = ServerOptions::new(Config::standalone(Sid(1)), listen, &dir);
        options.storage.prealloc_bytes = 1 << 16;
        Server::start(options, Journal::default()).unwrap()
    };
    for n in 1..4 {
        let server = start();
        assert!(server.handle().wait_serving(PATIENCE));
        let client = server.addresses(Channel::Client).next().unwrap();
        append(&mut connect(client), "x");
        assert_eq!(ask(server.handle(), |app| app.lines.len()), n);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let ensemble = Ensembled::start(3, 0);
    ensemble.wait();
    let statuses = |e: &Ensembled| -> Vec<Option<Status>> {
        e.up().map(|server| server.handle().status().get()).collect()
    };
    let before = statuses(&ensemble);
    let mut good = connect(ensemble.clients[0]);
    append(&mut good, "before");
    let mut noise = 1u32;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    };
    for server in ensemble.up() {
        for channel in [Channel::Election, Channel::Quorum] {
            let addr = server.addresses(channel).next().unwrap();
            let mut pieces: Vec<Vec<u8>> = vec![
                vec![0xff; 4096],
                vec![0x7f; 64],
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64),
            ];
            pieces.extend((0..20).map(|_| (0..512).map(|_| random()).collect()));
            for piece in pieces {
                let mut stream = connect(addr);
                // The server may be quicker in closing than we in sending.
                let _ = stream.write_all(&piece);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                wait_end(&mut stream);
            }
        }
    }
    append(&mut good, "after");
    assert_eq!(before, statuses(&ensemble));
    ensemble.wait_lines(2);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let ensemble = Ensembled::start(3, 0);
    let leader = ensemble.wait();
    let mut lazy = connect(ensemble.clients[leader]);
    let line = [&[200][..], &[b'z'; 200]].concat();
    let sent = 20_000;
    for _ in 0..sent / 100 {
        lazy.write_all(&line.repeat(100)).unwrap();
    }
    for i in 0..3 {
        append(&mut connect(ensemble.clients[i]), "quick");
    }
    let mut echoed = vec![0; sent * 200];
    lazy.read_exact(&mut echoed).unwrap();
    assert!(echoed.iter().all(|&byte| byte == b'z'));
    ensemble.wait_lines(sent + 3);
}

#[test]
fn many_idle_connections() {
    let ensemble = Ensembled::start(1, 0);
    ensemble.wait();
    let idle: Vec<_> = (0..300).map(|_| connect(ensemble.clients[0])).collect();
    for mut stream in idle.iter().step_by(50) {
        append(&mut stream.try_clone().unwrap(), "still here");
        stream.flush().unwrap();
    }
    drop(idle);
    append(&mut connect(ensemble.clients[0]), "and now");
}

#[test]
fn half_closed_connections_get_their_answer() {
    let ensemble = Ensembled::start(1, 0);
    ensemble.wait();
    // The journal answers once the line is committed, after the end was seen; such an answer may
    // be lost. What must not happen is that the line is.
    let mut stream = connect(ensemble.clients[0]);
    stream.write_all(b"\x02hi").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    wait_end(&mut stream);
    ensemble.wait_lines(1);
}

#[test]
fn dropping_a_server_closes_its_ports() {
    let mut ensemble = Ensembled::start(3, 0);
    ensemble.wait();
    let mut client = connect(ensemble.clients[1]);
    append(&mut client, "x");
    let ports: Vec<_> = [Channel::Election, Channel::Quorum, Channel::Client]
        .into_iter()
        .flat_map(|channel| ensemble.servers[1].as_ref().unwrap().addresses(channel))
        .collect();
    assert_eq!(ports.len(), 3);
    ensemble.stop(1);
    wait_end(&mut client);
    for port in ports {
        let error = TcpStream::connect(port).expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{port}");
    }
}
