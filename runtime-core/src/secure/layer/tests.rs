//! The layer with a cipher that everybody can read: `0x16 'h'` from both sides, then frames of a length
//! byte and that many bytes, each with its bits turned; a frame of length zero is the end.

use std::net::IpAddr;

use super::super::HandshakeLimits;
use super::*;
use crate::mock::Core;

#[derive(Debug, Default)]
struct Toy {
    dials: bool,
    greeted: bool,
    ended: bool,
    unread: Vec<u8>,
    out: VecDeque<u8>,
}

impl Cipher for Toy {
    fn read(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, CipherError> {
        self.unread.extend_from_slice(bytes);
        loop {
            let rest = if !self.greeted {
                let Some((greeting, rest)) = self.unread.split_at_checked(2) else { break };
                if greeting != [0x16, b'h'] {
                    self.out.extend(b"alert");
                    return Err("no greeting".into());
                }
                self.greeted = true;
                if !self.dials {
                    self.out.extend([0x16, b'h']);
                }
                rest.to_vec()
            } else {
                let Some((len, rest)) = self.unread.split_first() else { break };
                let Some((frame, rest)) = rest.split_at_checked((*len).into()) else { break };
                self.ended |= frame.is_empty();
                plain.extend(frame.iter().map(|byte| !byte));
                rest.to_vec()
            };
            self.unread = rest;
        }
        Ok(bytes.len())
    }

    fn is_handshaking(&self) -> bool {
        !self.greeted
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn seal(&mut self, plain: &[u8]) -> Result<(), CipherError> {
        self.out.extend(sealed(plain));
        Ok(())
    }

    fn write(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.out.len());
        for (to, from) in buf.iter_mut().zip(self.out.drain(..n)) {
            *to = from;
        }
        n
    }

    fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    fn end(&mut self) {
        self.out.push_back(0);
    }

    fn subject(&self) -> Option<String> {
        Some("CN=toy".into())
    }

    fn describe(&self) -> String {
        "toy".into()
    }
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let frame = |piece: &[u8]| {
        let len = u8::try_from(piece.len()).unwrap();
        [len].into_iter().chain(piece.iter().map(|byte| !byte)).collect::<Vec<_>>()
    };
    plain.chunks(255).flat_map(frame).collect()
}

#[derive(Debug)]
struct Toys(Expects, HandshakeLimits);

impl Security for Toys {
    fn expects(&self, _: Port) -> Expects {
        self.0
    }

    fn dials(&self, _: Channel) -> bool {
        true
    }

    fn accept(&self, _: Port, _: SocketAddr) -> Result<Box<dyn Cipher>, CipherError> {
        Ok(Box::new(Toy::default()))
    }

    fn dial(
        &self,
        _: Channel,
        addresses: &str,
        _: Option<IpAddr>,
    ) -> Result<Box<dyn Cipher>, CipherError> {
        if addresses != "there:1" {
            return Err("nothing to encrypt with".into());
        }
        Ok(Box::new(Toy { dials: true, out: vec![0x16, b'h'].into(), ..Toy::default() }))
    }

    fn limits(&self) -> HandshakeLimits {
        self.1
    }
}

const REMOTE: ([u8; 4], u16) = ([192, 0, 2, 1], 7);
const DIALLED: ConnId = ConnId::core(9, 9);

struct Fixture {
    layer: Layer,
    core: Core,
}

impl Fixture {
    fn new(expects: Expects) -> Self {
        let limits = HandshakeLimits { clients_max: Some(2), ..HandshakeLimits::default() };
        let options = NetOptions { unread_max_bytes: 1000, ..NetOptions::default() };
        let layer = Layer::new(Arc::new(Toys(expects, limits)), &options);
        Self { layer, core: Core { uses: usize::MAX, ..Core::default() } }
    }

    fn accept(&mut self, channel: Channel) -> Option<ConnId> {
        self.layer.accept(channel.into(), REMOTE.into(), &mut self.core)
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        self.layer.receive(conn, bytes, &mut self.core)
    }

    fn sent(&mut self, conn: ConnId) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 7]);
        loop {
            match self.layer.transmit(conn, &mut buf, &mut self.core) {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.core.now = self.core.now + time;
        self.layer.on_time(&mut self.core);
    }

    /// Carries out what the layer wants; returns which connections were closed.
    fn outputs(&mut self) -> Vec<ConnId> {
        let mut closed = Vec::new();
        while let Some(output) = self.layer.poll_output() {
            if let LayerOutput::Close(conn) = output
                && self.layer.close(conn, &mut self.core)
            {
                closed.push(conn);
            }
        }
        closed
    }

    fn is_empty(&self) -> bool {
        self.layer.conns.is_empty()
            && self.layer.deadlines.first().is_none()
            && self.layer.client_handshakes == 0
    }
}

#[test]
fn what_the_core_reads_and_writes_is_plain() {
    let mut f = Fixture::new(Expects::Handshake);
    let conn = f.accept(Channel::Quorum).unwrap();
    f.core.says = b"welcome".repeat(100);
    assert_eq!(f.sent(conn), [], "nothing is said before the handshake");
    // In pieces of one byte.
    for byte in [&[0x16, b'h'][..], &sealed(b"hello")].concat() {
        assert_eq!(f.receive(conn, &[byte]), 1);
    }
    assert_eq!(f.core.heard[&conn], b"hello");
    let sent = f.sent(conn);
    let (mut other, mut plain) = (Toy { dials: true, ..Toy::default() }, Vec::new());
    other.read(&sent, &mut plain).unwrap();
    assert_eq!(plain, b"welcome".repeat(100));
}

#[test]
fn a_dial_has_succeeded_when_the_handshake_has() {
    let mut f = Fixture::new(Expects::Handshake);
    f.layer.connect(Instant::ZERO, DIALLED, Channel::Quorum, "there:1");
    f.layer.opened(DIALLED, Some(REMOTE.into()), &mut f.core);
    assert_eq!(f.sent(DIALLED), [0x16, b'h'], "with the connection");
    assert!(f.core.inputs.is_empty());
    f.receive(DIALLED, &[0x16, b'h']);
    assert_eq!(f.core.inputs, [Input::Opened { conn: DIALLED }]);
    f.core.says = b"I am 3".into();
    assert_eq!(f.sent(DIALLED), sealed(b"I am 3"));
}

#[test]
fn dials_whose_handshake_fails_have_failed() {
    let mut f = Fixture::new(Expects::Handshake);
    f.layer.connect(Instant::ZERO, DIALLED, Channel::Quorum, "there:1");
    f.layer.opened(DIALLED, Some(REMOTE.into()), &mut f.core);
    assert_eq!(f.receive(DIALLED, b"plain text"), 10);
    assert_eq!((f.outputs(), f.outputs()), (vec![DIALLED], vec![]));
    assert_eq!(f.core.inputs, [Input::Closed { conn: DIALLED }]);
    assert_eq!(f.sent(DIALLED), b"\x16halert\0", "the other side is told");
    f.wait(NetOptions::default().flush_timeout * 2);
    assert!(f.is_empty());
    // Nothing to encrypt with.
    f.layer.connect(f.core.now, DIALLED, Channel::Quorum, "elsewhere:1");
    f.layer.opened(DIALLED, None, &mut f.core);
    assert_eq!(f.outputs(), [DIALLED]);
    assert_eq!(f.core.inputs.len(), 2);
    // Silence.
    let late = ConnId::core(9, 10);
    f.layer.connect(f.core.now, late, Channel::Quorum, "there:1");
    f.layer.opened(late, None, &mut f.core);
    f.wait(NetOptions::default().connect_timeout);
    assert_eq!(f.outputs(), [late]);
}

#[test]
fn what_is_not_used_stops_the_decryption_and_is_offered_again() {
    let mut f = Fixture::new(Expects::Handshake);
    let conn = f.accept(Channel::Quorum).unwrap();
    f.receive(conn, &[0x16, b'h']);
    f.core.uses = 0;
    let frame = sealed(&[7; 250]);
    let used: Vec<_> = (0..8).map(|_| f.receive(conn, &frame)).collect();
    assert_eq!(used, [251, 251, 251, 251, 0, 0, 0, 0], "a thousand bytes are kept and no more");
    f.core.uses = usize::MAX;
    f.layer.resume(conn, &mut f.core);
    assert_eq!(f.core.heard[&conn].len(), 1000);
    assert_eq!(f.receive(conn, &frame), 251);
    assert_eq!(f.core.heard[&conn].len(), 1250);
}

#[test]
fn plain_text_is_refused_where_nothing_but_handshakes_is_expected() {
    let mut f = Fixture::new(Expects::Handshake);
    for channel in [Channel::Client, Channel::Election] {
        let conn = f.accept(channel).unwrap();
        assert_eq!(f.receive(conn, b"ruok"), 4);
        assert_eq!(f.outputs(), [conn]);
        f.core.says = b"imok".into();
        assert_eq!(f.sent(conn), [], "and not answered in plain text");
        f.layer.forget(conn);
    }
    assert!(f.core.heard.is_empty());
    assert!(f.is_empty());
}

#[test]
fn either_is_told_by_the_first_byte() {
    let mut f = Fixture::new(Expects::Either);
    let (plain, toy) = (f.accept(Channel::Client).unwrap(), f.accept(Channel::Client).unwrap());
    assert_eq!(f.receive(plain, b"ruok"), 4);
    assert_eq!(f.core.heard[&plain], b"ruok");
    f.core.says = b"imok".into();
    assert_eq!(f.sent(plain), b"imok");
    f.receive(toy, &[0x16, b'h', 1, !b'r']);
    assert_eq!(f.core.heard[&toy], b"r");
    assert_eq!(f.layer.conns.len(), 1, "what is plain is none of the layer's business");
}

#[test]
fn silence_ends_or_means_plain_text() {
    for (expects, channel, patience, closed) in [
        (Expects::Handshake, Channel::Client, 10, true),
        (Expects::Handshake, Channel::Quorum, 5, true),
        (Expects::Either, Channel::Quorum, 5, false),
    ] {
        let mut f = Fixture::new(expects);
        let conn = f.accept(channel).unwrap();
        f.wait(Duration::from_millis(patience * 1000 - 1));
        assert_eq!(f.outputs(), []);
        assert!(!f.is_empty());
        f.wait(Duration::from_millis(1));
        assert_eq!(f.outputs().contains(&conn), closed, "{expects:?} {channel:?}");
        if closed {
            f.layer.forget(conn);
        }
        assert!(f.is_empty());
    }
    // Half a handshake is given its time from the first byte on, for clients from the connection on.
    let mut f = Fixture::new(Expects::Handshake);
    let (client, peer) = (f.accept(Channel::Client).unwrap(), f.accept(Channel::Quorum).unwrap());
    f.wait(Duration::from_secs(4));
    f.receive(client, &[0x16]);
    f.receive(peer, &[0x16]);
    f.wait(Duration::from_secs(6));
    assert_eq!(f.outputs(), [client]);
    f.wait(Duration::from_secs(4));
    assert_eq!(f.outputs(), [peer]);
}

#[test]
fn handshakes_of_clients_are_counted() {
    let mut f = Fixture::new(Expects::Handshake);
    let first = f.accept(Channel::Client).unwrap();
    f.accept(Channel::Client).unwrap();
    assert!((0..4).all(|_| f.accept(Channel::Client).is_none()), "two at a time");
    assert!(f.accept(Channel::Quorum).is_some(), "members are not counted");
    f.receive(first, &[0x16, b'h']);
    let third = f.accept(Channel::Client).expect("one is done");
    f.layer.forget(third);
    let fourth = f.accept(Channel::Client).expect("one has gone");
    assert!(f.accept(Channel::Client).is_none());
    f.receive(fourth, b"plain");
    assert!(f.accept(Channel::Client).is_some(), "one has failed");
}

#[test]
fn handshakes_of_a_turn_take_a_bounded_time() {
    let mut f = Fixture::new(Expects::Either);
    let conns: Vec<_> = (0..20).map(|_| f.accept(Channel::Client).unwrap()).collect();
    f.layer.clients.left = Duration::ZERO;
    for conn in &conns {
        assert_eq!(f.receive(*conn, &[0x16, b'h']), 0);
        assert_eq!(f.receive(*conn, &[0x16, b'h']), 0);
    }
    let peer = f.accept(Channel::Quorum).unwrap();
    assert_eq!(f.receive(peer, &[0x16, b'h']), 2, "members have a time of their own");
    assert_eq!(f.layer.poll_timeout(f.core.now), Some(f.core.now), "without delay");
    assert!(f.outputs().is_empty());
    assert_eq!(f.layer.waiting.len(), 20, "each once");
    f.wait(Duration::ZERO);
    let resumed: Vec<_> = std::iter::from_fn(|| f.layer.poll_output())
        .filter_map(|output| match output {
            LayerOutput::Resume(conn) => Some(conn),
            _ => None,
        })
        .collect();
    assert_eq!(resumed, conns, "first come, first served");
    assert_eq!(f.receive(conns[0], &[0x16, b'h']), 2);
}

#[test]
fn clients_are_known_by_their_certificates_before_their_bytes() {
    let mut f = Fixture::new(Expects::Handshake);
    let (client, peer) = (f.accept(Channel::Client).unwrap(), f.accept(Channel::Quorum).unwrap());
    for conn in [client, peer] {
        f.receive(conn, &[&[0x16, b'h'][..], &sealed(b"hello")].concat());
        assert_eq!(f.core.heard[&conn], b"hello");
    }
    assert_eq!(f.core.subjects, [(client, "CN=toy".to_owned())]);
}

#[test]
fn the_last_words_are_encrypted_and_the_end_is_said() {
    let mut f = Fixture::new(Expects::Handshake);
    let (client, peer) = (f.accept(Channel::Client).unwrap(), f.accept(Channel::Quorum).unwrap());
    for conn in [client, peer] {
        f.receive(conn, &[0x16, b'h']);
        f.sent(conn);
        f.core.says = b"bye".into();
        f.layer.closing(f.core.now, conn);
        assert_eq!(f.sent(conn), [&sealed(b"bye")[..], &[0]].concat());
        assert_eq!(f.sent(conn), []);
    }
    f.wait(Duration::from_secs(10));
    assert!(f.is_empty(), "peers' connections are not reported as closed");
}

#[test]
fn the_other_sides_end_is_an_end() {
    let mut f = Fixture::new(Expects::Handshake);
    let (client, peer) = (f.accept(Channel::Client).unwrap(), f.accept(Channel::Quorum).unwrap());
    for conn in [client, peer] {
        let said = [&[0x16, b'h'][..], &sealed(b"last"), &[0]].concat();
        f.receive(conn, &said);
        f.receive(conn, &[0]);
        assert_eq!(f.core.heard[&conn], b"last");
        assert_eq!((f.outputs(), f.outputs()), (vec![conn], vec![]), "once");
    }
    // The sockets tell the application when its last bytes are out.
    assert_eq!(f.core.inputs, [Input::Closed { conn: peer }]);
    f.core.says = b"answer".into();
    assert_eq!(f.sent(peer), [0x16, b'h', 0], "the core knows it no longer");
    assert_eq!(f.sent(client), [&[0x16, b'h'][..], &sealed(b"answer"), &[0]].concat());
}
