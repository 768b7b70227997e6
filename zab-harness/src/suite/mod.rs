//! What every runtime must do: real servers on loopback, with a journal of lines as application.
//!
//! [`runtime_suite!`](crate::runtime_suite) makes a test of each function here and in [`bounds`].

pub mod bounds;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use runtime_core::{Error, Handle, Listen, Listeners, Runtime, Server, ServerOptions};
use zab_proto::{Channel, Config, Role, ServerState, Sid, Status, Zxid};

use crate::Journal;

/// The tests of the suite on a runtime: `zab_harness::runtime_suite!(runtime_mio::Runtime);`
#[macro_export]
macro_rules! runtime_suite {
    ($runtime:ty) => {
        $crate::runtime_suite! { $runtime =>
            three_servers_replicate_and_outlive_their_leader,
            b48_a_leader_whose_disk_fails_makes_way,
            a_lone_server_keeps_its_lines,
            nonsense_ends_its_own_connection_only,
            a_client_that_does_not_read_holds_up_nobody,
            many_idle_connections,
            half_closed_connections_get_their_answer,
            dropping_a_server_closes_its_ports,
            bounds::no_more_connections_than_may_be,
            bounds::what_is_not_taken_is_not_read,
            bounds::small_buffers_and_turns_keep_the_order,
            bounds::a_closed_connection_is_given_up,
            bounds::dials_that_hang_hold_up_nobody,
        }
    };
    ($runtime:ty => $($($module:ident)::+),* $(,)?) => {
        $($crate::runtime_suite! { @ $runtime, $($module)::+ })*
    };
    (@ $runtime:ty, $name:ident) => {
        #[test]
        fn $name() {
            $crate::suite::$name::<$runtime>();
        }
    };
    (@ $runtime:ty, $module:ident::$name:ident) => {
        #[test]
        fn $name() {
            $crate::suite::$module::$name::<$runtime>();
        }
    };
}

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Ensembled<R> {
    config: Config,
    dir: PathBuf,
    /// Index is sid - 1.
    servers: Vec<Option<Server<Journal, R>>>,
    clients: Vec<SocketAddr>,
}

pub fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("zab-runtime-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl<R: Runtime> Ensembled<R> {
    fn start(voters: usize, observers: usize) -> Self {
        let (mut members, mut bound) = Listeners::local_ensemble(voters + observers).unwrap();
        members.members.values_mut().skip(voters).for_each(|member| member.role = Role::Observer);
        let client = |ports: &mut Listeners| ports.add(Channel::Client, LOOPBACK, None).unwrap();
        let clients = bound.iter_mut().map(client).collect();
        let mut config = Config::new(Sid(0), members);
        config.tick_time = Duration::from_millis(500);
        config.trust_empty = true;
        let (servers, dir) = ((0..voters + observers).map(|_| None).collect(), directory());
        let mut ensemble = Self { config, dir, servers, clients };
        for (i, listeners) in bound.into_iter().enumerate() {
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

    fn up(&self) -> impl Iterator<Item = &Server<Journal, R>> {
        self.servers.iter().flatten()
    }

    /// Waits until all that run serve and one of them leads, and returns the leader's index. (Those
    /// who have just lost their leader may not know it yet.)
    fn wait(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        let is_leader = |server: &Server<Journal, R>| {
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

impl<R> Drop for Ensembled<R> {
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

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Appends a line and waits for its echo.
pub fn append(stream: &mut TcpStream, line: &str) {
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

pub fn three_servers_replicate_and_outlive_their_leader<R: Runtime>() {
    let mut ensemble = Ensembled::<R>::start(3, 1);
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
pub fn b48_a_leader_whose_disk_fails_makes_way<R: Runtime>() {
    let mut ensemble = Ensembled::<R>::start(3, 0);
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

pub fn a_lone_server_keeps_its_lines<R: Runtime>() {
    let dir = directory();
    let start = || {
        let listen = Listen { clients: vec![LOOPBACK], ..Listen::default() };
        let mut options = ServerOptions::new(Config::standalone(Sid(1)), listen, &dir);
        options.storage.prealloc_bytes = 1 << 16;
        Server::<_, R>::start(options, Journal::default()).unwrap()
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

pub fn nonsense_ends_its_own_connection_only<R: Runtime>() {
    let ensemble = Ensembled::<R>::start(3, 0);
    ensemble.wait();
    let statuses = |e: &Ensembled<R>| -> Vec<Option<Status>> {
        e.up().map(|server| server.handle().status().get()).collect()
    };
    let before = statuses(&ensemble);
    let mut good = connect(ensemble.clients[0]);
    append(&mut good, "before");
    let mut random = fastrand::Rng::with_seed(1);
    for server in ensemble.up() {
        for channel in [Channel::Election, Channel::Quorum] {
            let addr = server.addresses(channel).next().unwrap();
            let mut pieces: Vec<Vec<u8>> = vec![
                vec![0xff; 4096],
                vec![0x7f; 64],
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64),
            ];
            pieces.extend((0..20).map(|_| (0..512).map(|_| random.u8(..)).collect()));
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

pub fn a_client_that_does_not_read_holds_up_nobody<R: Runtime>() {
    let ensemble = Ensembled::<R>::start(3, 0);
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

pub fn many_idle_connections<R: Runtime>() {
    let ensemble = Ensembled::<R>::start(1, 0);
    ensemble.wait();
    let idle: Vec<_> = (0..300).map(|_| connect(ensemble.clients[0])).collect();
    for mut stream in idle.iter().step_by(50) {
        append(&mut stream.try_clone().unwrap(), "still here");
        stream.flush().unwrap();
    }
    drop(idle);
    append(&mut connect(ensemble.clients[0]), "and now");
}

pub fn half_closed_connections_get_their_answer<R: Runtime>() {
    let ensemble = Ensembled::<R>::start(1, 0);
    ensemble.wait();
    // The journal answers once the line is committed, after the end was seen; such an answer may
    // be lost. What must not happen is that the line is.
    let mut stream = connect(ensemble.clients[0]);
    stream.write_all(b"\x02hi").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    wait_end(&mut stream);
    ensemble.wait_lines(1);
}

pub fn dropping_a_server_closes_its_ports<R: Runtime>() {
    let mut ensemble = Ensembled::<R>::start(3, 0);
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

#[cfg(test)]
mod tests {
    /// A function of the suite that the macro does not name would be run nowhere.
    #[test]
    fn every_function_of_the_suite_is_a_test() {
        let suite = include_str!("mod.rs");
        let (macros, _) = suite.split_once("\nstruct ").expect("the first item after the macro");
        let mut count = 0;
        for (prefix, text) in [("", suite), ("bounds::", include_str!("bounds.rs"))] {
            for line in text.lines() {
                let name =
                    line.strip_prefix("pub fn ").and_then(|rest| rest.split_once("<R: Runtime>()"));
                let Some((name, _)) = name else { continue };
                assert!(macros.contains(&format!(" {prefix}{name},\n")), "{prefix}{name}");
                count += 1;
            }
        }
        assert_eq!(count, 13);
    }
}
