//! Each bound of the sockets, crossed by a factor of two and more.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtime_core::{Listen, Runtime, Server, ServerOptions};
use zab_proto::{Channel, Config, Member, Membership, Sid};

use super::{Ensembled, LOOPBACK, PATIENCE, append, ask, connect, directory};
use crate::Journal;

/// One server with its own bounds, and where its clients come in.
struct Bounded<R> {
    server: Option<Server<Journal, R>>,
    client: SocketAddr,
    dir: PathBuf,
}

impl<R: Runtime> Bounded<R> {
    fn start(config: Config, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = directory();
        let mut listen = Listen { clients: vec![LOOPBACK], ..Listen::default() };
        if config.ensemble.members.len() > 1 {
            (listen.election, listen.quorum) = (vec![LOOPBACK], vec![LOOPBACK]);
        }
        let mut options = ServerOptions::new(config, listen, &dir);
        options.storage.prealloc_bytes = 1 << 16;
        options.storage.force_sync = false;
        change(&mut options);
        let server = Server::start(options, Journal::default()).unwrap();
        let client = server.addresses(Channel::Client).next().unwrap();
        Self { server: Some(server), client, dir }
    }

    fn server(&self) -> &Server<Journal, R> {
        self.server.as_ref().unwrap()
    }
}

impl<R> Drop for Bounded<R> {
    fn drop(&mut self) {
        self.server = None;
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// A member of three, the others of which are never there.
fn alone_of_three() -> Config {
    let mut config = Config::new(Sid(1), Membership::default());
    config.tick_time = Duration::from_millis(500);
    for sid in (1..=3).map(Sid) {
        let member = Member::parse(sid, "127.0.0.1:1:2:participant").unwrap();
        config.ensemble.members.insert(sid, member);
    }
    config
}

pub fn no_more_connections_than_may_be<R: Runtime>() {
    let bounded = Bounded::<R>::start(Config::standalone(Sid(1)), |options| {
        options.net.connections_max = 10;
    });
    assert!(bounded.server().handle().wait_serving(PATIENCE));
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut stream = connect(bounded.client);
        // The refusal may be quicker.
        let _ = stream.write_all(b"\x01x");
        match stream.read(&mut [0; 1]) {
            Ok(1) => served.push(stream),
            Ok(_) => refused += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => refused += 1,
            Err(error) => panic!("neither served nor refused: {error}"),
        }
    }
    // One of the ten may be the port itself.
    assert!((9..=10).contains(&served.len()), "{} served, {refused} refused", served.len());
    append(&mut served[0], "still");
    served.clear();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(bounded.client);
        if stream.write_all(b"\x01y").is_ok() && stream.read(&mut [0; 1]).is_ok_and(|n| n == 1) {
            break;
        }
        assert!(Instant::now() < until, "room is never found again");
    }
}

/// A client whose requests are not taken is not read any more.
pub fn what_is_not_taken_is_not_read<R: Runtime>() {
    let bounded = Bounded::<R>::start(alone_of_three(), |options| {
        options.net.client_unread_max_bytes = 64 << 10;
        options.net.scratch_bytes = 16 << 10;
    });
    let mut stream = connect(bounded.client);
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (piece, mut written) = ([b'z'; 64 << 10], 0);
    let total = 256 << 20;
    while written < total {
        match stream.write(&piece) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    // What the kernel keeps on both sides is a few MB.
    assert!(written < total / 4, "{written} bytes are read of a client that is not served");
    // Others are heard.
    assert_eq!(ask(bounded.server().handle(), |app| app.lines.len()), 0);
}

/// Buffers and turns so small that everything takes thousands of them; a size of nothing is one of
/// little.
pub fn small_buffers_and_turns_keep_the_order<R: Runtime>() {
    for bytes in [512, 0] {
        in_small_pieces::<R>(bytes);
    }
}

fn in_small_pieces<R: Runtime>(bytes: usize) {
    let bounded = Bounded::<R>::start(Config::standalone(Sid(1)), |options| {
        options.net.scratch_bytes = bytes;
        options.net.read_turn_bytes = 2 * bytes;
        options.net.write_turn_bytes = 2 * bytes;
        options.net.clients_turn_bytes = 4 * bytes;
    });
    assert!(bounded.server().handle().wait_serving(PATIENCE));
    let lines = 2000;
    let clients: Vec<_> = (0..3u8)
        .map(|client| {
            let mut stream = connect(bounded.client);
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let line = move |n: u8| [&[250, client, n][..], &[b'z'; 248]].concat();
                let sent = std::thread::spawn(move || {
                    for n in 0..lines {
                        writer.write_all(&line(u8::try_from(n % 251).unwrap())).unwrap();
                    }
                });
                let mut echo = [0; 250];
                for n in 0..lines {
                    stream.read_exact(&mut echo).unwrap();
                    assert_eq!(echo[..2], [client, u8::try_from(n % 251).unwrap()]);
                }
                sent.join().unwrap();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// A stranger who was refused and neither reads nor closes is given up.
pub fn a_closed_connection_is_given_up<R: Runtime>() {
    let bounded = Bounded::<R>::start(alone_of_three(), |options| {
        options.net.flush_timeout = Duration::from_millis(100);
        options.net.linger_timeout = Duration::from_millis(100);
    });
    let port = bounded.server().addresses(Channel::Election).next().unwrap();
    let mut strangers: Vec<_> = (0..20).map(|_| connect(port)).collect();
    for stranger in &mut strangers {
        stranger.write_all(&[0x7f; 64]).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    for stranger in &mut strangers {
        // As long as the server lingers, it takes what comes.
        while stranger.write_all(&[0x7f; 64]).is_ok() {
            assert!(Instant::now() < until, "lingers for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Members who cannot be reached: their dials hang until they time out, and hold up nobody.
pub fn dials_that_hang_hold_up_nobody<R: Runtime>() {
    let mut ensemble = Ensembled::<R>::start(3, 0);
    let leader = ensemble.wait();
    let gone = (leader + 1) % 3;
    ensemble.stop(gone);
    // In its place ports that never answer: their backlogs are full.
    let member = &ensemble.config.ensemble.members[&Sid(i64::try_from(gone).unwrap() + 1)];
    let addresses = member.addresses.iter();
    let ports: Vec<_> =
        addresses.flat_map(|address| [address.election_port, address.quorum_port]).collect();
    let mut silent = Vec::new();
    for port in ports {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        let addr: SocketAddr = ([127, 0, 0, 1], port).into();
        socket.bind(&addr.into()).unwrap();
        socket.listen(0).unwrap();
        for _ in 0..4 {
            let dial = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let dial = dial.unwrap();
            dial.set_nonblocking(true).unwrap();
            // Some of these are the backlog, the others wait for it.
            let _ = dial.connect(&addr.into());
            silent.push(dial);
        }
        silent.push(socket);
    }
    ensemble.stop(leader);
    ensemble.restart(leader);
    let began = Instant::now();
    ensemble.wait();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for i in (0..3).filter(|i| *i != gone) {
        append(&mut connect(ensemble.clients[i]), "goes on");
    }
}
