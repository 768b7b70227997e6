//! The layer with a login that everybody can follow: `_?` from the dialler, `_!` or `_#` from the other side.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::mock::Core;

#[derive(Debug)]
struct Toy {
    dials: bool,
    refuses: bool,
}

impl Exchange for Toy {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.dials {
            out.extend(b"_?");
        }
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CipherError> {
        match bytes.first_chunk() {
            None => Ok((0, false)),
            Some(b"_?") if !self.dials && self.refuses => {
                out.extend(b"_#");
                Err("not you".into())
            }
            Some(b"_?") if !self.dials => {
                out.extend(b"_!");
                Ok((2, true))
            }
            Some(b"_!") if self.dials => Ok((2, true)),
            Some(_) => Err("not let in".into()),
        }
    }
}

#[derive(Debug, Default)]
struct Toys {
    dials: bool,
    required: bool,
    refuses: bool,
    accepted: AtomicUsize,
}

impl Logins for Toys {
    fn dial(&self, _: Channel, _: Option<SocketAddr>) -> Option<Box<dyn Exchange>> {
        self.dials.then(|| Box::new(Toy { dials: true, refuses: false }) as Box<dyn Exchange>)
    }

    fn accept(&self, _: Channel, _: SocketAddr) -> Box<dyn Exchange> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Box::new(Toy { dials: false, refuses: self.refuses })
    }

    fn dials(&self) -> bool {
        self.dials
    }

    fn is_required(&self) -> bool {
        self.required
    }

    fn first_byte(&self) -> u8 {
        b'_'
    }
}

const REMOTE: ([u8; 4], u16) = ([192, 0, 2, 1], 7);
const DIALLED: ConnId = ConnId::core(9, 9);

struct Side {
    layer: LoginLayer,
    core: Core,
    /// Come and not used.
    inbox: Vec<u8>,
}

impl Side {
    fn new(toys: Toys) -> Self {
        let layer = LoginLayer::new(Arc::new(toys), &NetOptions::default());
        Self { layer, core: Core { uses: usize::MAX, ..Core::default() }, inbox: Vec::new() }
    }

    fn dial(&mut self, channel: Channel) -> ConnId {
        self.layer.connect(DIALLED, channel);
        self.layer.opened(DIALLED, Some(REMOTE.into()), &mut self.core);
        DIALLED
    }

    fn accept(&mut self, channel: Channel) -> ConnId {
        let conn = self.core.accept(channel.into(), REMOTE.into()).unwrap();
        self.layer.accepted(conn, channel.into(), REMOTE.into());
        conn
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        let used = self.layer.receive(conn, &self.inbox, &mut self.core);
        self.inbox.drain(..used);
    }

    fn sent(&mut self, conn: ConnId) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 64]);
        loop {
            match self.layer.transmit(conn, &mut buf, &mut self.core) {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    fn heard(&self, conn: ConnId) -> &[u8] {
        self.core.heard.get(&conn).map_or(&[], Vec::as_slice)
    }

    fn wait(&mut self, time: Duration) {
        self.core.now = self.core.now + time;
        self.layer.on_time(&mut self.core);
    }

    /// Carries out what the layer wants; returns which connections were closed.
    fn outputs(&mut self) -> Vec<ConnId> {
        let mut closed = Vec::new();
        while let Some(output) = self.layer.poll_output() {
            match output {
                LayerOutput::Close(conn) if self.layer.close(conn, &mut self.core) => {
                    closed.push(conn);
                }
                LayerOutput::Resume(conn) => self.receive(conn, &[]),
                LayerOutput::Close(_) | LayerOutput::Mark(_) => {}
            }
        }
        closed
    }

    fn is_opened(&self) -> bool {
        self.core.inputs.iter().any(|input| matches!(input, Input::Opened { .. }))
    }

    fn is_empty(&self) -> bool {
        self.layer.conns.is_empty() && self.layer.deadlines.first().is_none()
    }
}

fn dialler() -> Side {
    Side::new(Toys { dials: true, ..Toys::default() })
}

fn acceptor(required: bool) -> Side {
    Side::new(Toys { required, ..Toys::default() })
}

fn handshake() -> Vec<u8> {
    let mut bytes = Vec::new();
    let form = zab_proto::wire::handshake::Form::V1;
    Handshake { form, sid: zab_proto::Sid(3), text: "127.0.0.1:3888" }.write(&mut bytes);
    bytes
}

/// Bytes to the other side, one at a time.
fn trickle(bytes: &[u8], to: &mut Side, conn: ConnId) {
    for byte in bytes {
        to.receive(conn, &[*byte]);
    }
}

#[test]
fn on_the_quorum_port_the_login_comes_first() {
    let (mut a, mut b) = (dialler(), acceptor(true));
    let (conn, at) = (a.dial(Channel::Quorum), b.accept(Channel::Quorum));
    a.core.says = b"FOLLOWERINFO".to_vec();
    assert!(!a.is_opened(), "the core does not know yet");
    trickle(&a.sent(conn), &mut b, at);
    assert_eq!(b.heard(at), b"");
    trickle(&b.sent(at), &mut a, conn);
    assert!(a.is_opened());
    let said = a.sent(conn);
    assert_eq!(said, b"FOLLOWERINFO");
    trickle(&said, &mut b, at);
    assert_eq!(b.heard(at), b"FOLLOWERINFO");
    b.core.says = b"LEADERINFO".to_vec();
    assert_eq!(b.sent(at), b"LEADERINFO");
    assert!(a.is_empty() && b.is_empty(), "nothing is kept of who has logged in");
}

#[test]
fn on_the_election_port_it_comes_behind_the_handshake() {
    let (mut a, mut b) = (dialler(), acceptor(true));
    let (conn, at) = (a.dial(Channel::Election), b.accept(Channel::Election));
    assert!(a.is_opened());
    a.core.says = [handshake(), b"votes".to_vec()].concat();
    let said = a.sent(conn);
    assert_eq!(said, [handshake(), b"_?".to_vec()].concat(), "the votes wait");
    trickle(&said, &mut b, at);
    assert_eq!(b.heard(at), handshake());
    trickle(&b.sent(at), &mut a, conn);
    let said = a.sent(conn);
    assert_eq!(said, b"votes");
    trickle(&said, &mut b, at);
    assert_eq!(b.heard(at), [handshake(), b"votes".to_vec()].concat());
    assert!(a.is_empty() && b.is_empty());
}

/// What the acceptor says at once behind its last word is for the core.
#[test]
fn what_comes_behind_the_login_is_the_cores() {
    for channel in [Channel::Quorum, Channel::Election] {
        let (mut a, mut b) = (dialler(), acceptor(true));
        let (conn, at) = (a.dial(channel), b.accept(channel));
        let head = if channel == Channel::Election { handshake() } else { Vec::new() };
        a.core.says.clone_from(&head);
        let said = [a.sent(conn), b"early".to_vec()].concat();
        b.receive(at, &said);
        assert_eq!(b.heard(at), [head, b"early".to_vec()].concat());
        b.core.says = b"behind".to_vec();
        a.receive(conn, &b.sent(at));
        assert_eq!(a.heard(conn), b"behind");
    }
}

#[test]
fn who_does_not_log_in_is_refused_or_not() {
    for channel in [Channel::Quorum, Channel::Election] {
        let head = if channel == Channel::Election { handshake() } else { Vec::new() };
        let said = [head, vec![0, 0, 0, 9]].concat();
        let mut b = acceptor(true);
        let at = b.accept(channel);
        trickle(&said, &mut b, at);
        assert_eq!((b.outputs(), b.heard(at)), (vec![at], &[][..]));
        assert!(matches!(b.core.inputs[..], [Input::Closed { conn }] if conn == at));
        let mut b = acceptor(false);
        let at = b.accept(channel);
        trickle(&said, &mut b, at);
        assert_eq!((b.outputs(), b.heard(at)), (vec![], &said[..]));
        assert!(b.is_empty());
    }
}

#[test]
fn who_fails_is_told_and_the_core_hears_nothing() {
    for (channel, required) in
        [(Channel::Quorum, true), (Channel::Election, true), (Channel::Election, false)]
    {
        let mut a = dialler();
        let mut b = Side::new(Toys { required, refuses: true, ..Toys::default() });
        let (conn, at) = (a.dial(channel), b.accept(channel));
        a.core.says = if channel == Channel::Election { handshake() } else { Vec::new() };
        b.receive(at, &[a.sent(conn), b"early".to_vec()].concat());
        assert_eq!((b.outputs(), b.heard(at)), (vec![at], &[][..]), "{channel:?}");
        let word = b.sent(at);
        assert_eq!(word, b"_#");
        a.receive(conn, &word);
        assert_eq!((a.outputs(), a.heard(conn)), (vec![conn], &[][..]));
        b.wait(Duration::from_secs(100));
        a.wait(Duration::from_secs(100));
        assert!(a.is_empty() && b.is_empty());
    }
}

#[test]
fn logins_end_by_themselves() {
    // Neither side says anything more.
    for channel in [Channel::Quorum, Channel::Election] {
        let mut a = dialler();
        let conn = a.dial(channel);
        let limit = NetOptions::default().connect_timeout;
        assert_eq!(a.layer.poll_timeout(), Some(a.core.now + limit));
        a.wait(limit);
        assert_eq!(a.outputs(), [conn]);
        let mut b = acceptor(true);
        let at = b.accept(channel);
        let head = if channel == Channel::Election { handshake() } else { Vec::new() };
        b.receive(at, &[head, b"_".to_vec()].concat());
        b.wait(limit);
        assert_eq!(b.outputs(), [at], "{channel:?}");
    }
    // Nothing behind a handshake, which is no fault of who need not log in.
    let mut b = acceptor(false);
    let at = b.accept(Channel::Election);
    b.receive(at, &handshake());
    assert_eq!(b.heard(at), b"");
    // The dialler must not have given up by then.
    b.wait(NetOptions::default().connect_timeout / 2);
    assert_eq!((b.outputs(), b.heard(at)), (vec![], &handshake()[..]));
    assert!(b.is_empty());
}

/// A member of a lower id says its handshake and leaves: it must be dialled.
#[test]
fn a_handshake_may_be_all() {
    for (required, bytes, heard) in [
        (false, handshake(), handshake()),
        (true, handshake(), Vec::new()),
        (false, handshake()[..9].to_vec(), Vec::new()),
        (false, [handshake(), b"_".to_vec()].concat(), Vec::new()),
    ] {
        let mut b = acceptor(required);
        let at = b.accept(Channel::Election);
        trickle(&bytes, &mut b, at);
        assert_eq!(b.heard(at), b"");
        b.layer.closed(at, &mut b.core);
        assert_eq!(b.heard(at), heard, "{required} {}", bytes.len());
        assert!(b.is_empty());
    }
}

#[test]
fn who_neither_asks_nor_is_asked_notices_nothing() {
    let mut a = acceptor(false);
    assert!(!a.layer.logins.dials());
    let conn = a.dial(Channel::Quorum);
    assert!(a.is_opened() && a.is_empty());
    a.core.says = b"x".to_vec();
    assert_eq!(a.sent(conn), b"x");
    let client = a.accept(Channel::Client);
    a.receive(client, b"_?");
    assert_eq!(a.heard(client), b"_?");
    // What is no handshake is for the core to refuse.
    let at = a.accept(Channel::Election);
    a.receive(at, b"GET / HTTP/1.1");
    assert_eq!(a.heard(at), b"GET / HTTP/1.1");
    // Who leaves before is forgotten.
    let gone = a.accept(Channel::Quorum);
    a.layer.forget(gone);
    assert!(a.is_empty());
}
