//! Who is heard first, and how much of the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use super::*;
use crate::Port;

/// Bytes in a socket, and bytes written to it.
type Shared = Rc<RefCell<(usize, usize)>>;

/// A socket with so many bytes in it, which takes all that is written.
#[derive(Debug, Default)]
struct Socket(Shared);

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.0.borrow_mut();
        let n = socket.0.min(buf.len());
        socket.0 -= n;
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1 += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    const LEVEL_TRIGGERED: bool = false;

    fn await_readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn await_writable(&self) -> io::Result<()> {
        Ok(())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::NotConnected.into())
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

/// A core that takes all bytes, and has so many to send on each connection.
#[derive(Debug, Default)]
struct Core {
    heard: Vec<(ConnId, usize)>,
    to_send: HashMap<ConnId, usize>,
}

impl NetHandler for Core {
    fn now(&self) -> Instant {
        Instant::ZERO
    }

    fn accept(&mut self, _: Port, _: SocketAddr) -> Option<ConnId> {
        None
    }

    fn secured(&mut self, _: ConnId, _: Option<&str>) {}

    fn opened(&mut self, _: ConnId, _: Option<SocketAddr>) {}

    fn input(&mut self, _: Input) {}

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        self.heard.push((conn, bytes.len()));
        bytes.len()
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let left = self.to_send.entry(conn).or_default();
        let n = (*left).min(buf.len());
        *left -= n;
        n
    }
}

const PIECE: usize = 1000;
const TURN: usize = 4 * PIECE;

/// Eight clients and behind them a peer, each with so many bytes in its socket.
fn conns(bytes: usize) -> (Conns<Socket>, Vec<Shared>) {
    let options = NetOptions {
        scratch_bytes: PIECE,
        read_turn_bytes: 2 * PIECE,
        clients_turn_bytes: TURN,
        ..NetOptions::default()
    };
    let mut conns = Conns::new(options, 100);
    let sockets: Vec<_> = (0..9).map(|_| Rc::new(RefCell::new((bytes, 0)))).collect();
    for (slot, socket) in (0..).zip(&sockets) {
        let at = conns.allot().expect("few");
        conns.open(at, name(slot), Socket(Rc::clone(socket)));
    }
    (conns, sockets)
}

fn name(slot: u32) -> ConnId {
    if slot < 8 { ConnId::client(slot, 0) } else { ConnId::core(slot, 0) }
}

#[test]
fn peers_are_heard_first_and_clients_within_bounds() {
    let (mut conns, _) = conns(2 * TURN);
    let mut core = Core::default();
    let mut heard = HashMap::<ConnId, usize>::new();
    let mut turns = 0;
    while conns.has_work() {
        core.heard.clear();
        conns.on_ready(&mut core);
        conns.flush(&mut core);
        if turns == 0 {
            assert_eq!(core.heard[0].0, name(8), "the peer, though it came last");
        }
        let of_clients: usize =
            core.heard.iter().filter(|(conn, _)| conn.is_client()).map(|(_, n)| n).sum();
        assert!(of_clients <= TURN, "{of_clients}");
        for &(conn, n) in &core.heard {
            *heard.entry(conn).or_default() += n;
        }
        turns += 1;
        // In turns: after as many as the clients need for one round each, nobody is without.
        if turns == 4 {
            assert!((0..8).all(|slot| heard.contains_key(&name(slot))), "{heard:?}");
        }
    }
    assert!(turns >= 16, "eight clients with two turns' bytes each: {turns}");
    assert!((0..9).all(|slot| heard[&name(slot)] == 2 * TURN), "and nothing is lost: {heard:?}");
}

#[test]
fn who_has_little_to_be_sent_does_not_wait_for_those_with_much() {
    let (mut conns, sockets) = conns(0);
    let mut core = Core::default();
    conns.on_ready(&mut core);
    conns.flush(&mut core);
    for slot in 0..8 {
        core.to_send.insert(name(slot), 10 * TURN);
        conns.mark(name(slot));
    }
    let sent = |slot: usize| sockets[slot].borrow().1;
    conns.on_ready(&mut core);
    conns.flush(&mut core);
    for turn in 1..6 {
        // Something new for a peer, and for a client that has all it had to be sent.
        for slot in [7, 8] {
            core.to_send.insert(name(slot), 10);
            sockets[slot as usize].borrow_mut().1 = 0;
            conns.mark(name(slot));
        }
        let before: usize = (0..7).map(sent).sum();
        conns.on_ready(&mut core);
        conns.flush(&mut core);
        if turn > 1 {
            assert_eq!((sent(7), sent(8)), (10, 10));
        }
        let more: usize = (0..7).map(sent).sum::<usize>() - before;
        assert!(more <= TURN + PIECE, "{more}");
    }
    while conns.has_work() {
        conns.on_ready(&mut core);
        conns.flush(&mut core);
    }
    assert!((0..7).all(|slot| sent(slot) == 10 * TURN));
}
