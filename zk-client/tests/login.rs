//! Logins at the beginning of connections, against a server made of bytes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;
use zk_client::sasl::{Exchange, Mechanism, Step};
use zk_client::{Action, Code, Event, Host, Instant, Options, Request, Session};

/// Says the number of the exchange, then what it hears, and is done when it hears `done`.
#[derive(Debug)]
struct Echo;

#[derive(Debug)]
struct EchoExchange(Vec<u8>);

impl Mechanism for Echo {
    fn start(&self, host: &Host) -> Box<dyn Exchange> {
        Box::new(EchoExchange(host.name.clone().into_bytes()))
    }
}

impl Exchange for EchoExchange {
    fn first(&mut self) -> Vec<u8> {
        self.0.clone()
    }

    fn take(&mut self, message: Option<&[u8]>) -> Result<Step, String> {
        match message {
            None => Err("null".into()),
            Some(b"done") => Ok(Step::Done),
            Some(other) => Ok(Step::Send(other.to_vec())),
        }
    }
}

const SASL: i32 = 102;
const SYNC: i32 = 9;

struct Lab {
    session: Session,
    now: Instant,
    /// Operation and the rest of each frame that was sent behind the first.
    sent: Vec<(i32, Vec<u8>)>,
    dialled: Vec<Host>,
    events: Vec<Event>,
    xid: i32,
}

impl Lab {
    fn new(hosts: &str) -> Self {
        let mut options = Options::parse(hosts).unwrap();
        options.sasl = Some(Arc::new(Echo));
        options.patience = Duration::ZERO;
        let now = Instant::from_nanos(1);
        let session = Session::new(now, options).unwrap();
        let (sent, dialled, events) = Default::default();
        let mut lab = Self { session, now, sent, dialled, events, xid: 0 };
        lab.turn();
        lab
    }

    fn turn(&mut self) {
        while let Some(action) = self.session.poll_action() {
            if let Action::Connect(host, _) = action {
                self.dialled.push(host);
            }
        }
        let out = self.session.transmit().to_vec();
        self.session.transmitted(self.now, out.len());
        let mut rest = &out[..];
        while !rest.is_empty() {
            let len = 4 + u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
            let frame = &rest[4..len];
            // The first frame of a connection has no header, and begins with version 0.
            if frame[..4] != [0; 4] {
                self.xid = i32::from_be_bytes(*frame.first_chunk().unwrap());
                let opcode = i32::from_be_bytes(*frame[4..].first_chunk().unwrap());
                self.sent.push((opcode, frame[8..].to_vec()));
            }
            rest = &rest[len..];
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn frame(&mut self, body: &[u8]) {
        let mut frame = Vec::new();
        frame.put_buffer(Some(body));
        self.session.handle_bytes(self.now, &frame);
        self.turn();
    }

    fn greet(&mut self) {
        self.session.handle_connected(self.now);
        self.turn();
        let mut body = Vec::new();
        body.put_i32(0);
        body.put_i32(30_000);
        body.put_i64(7);
        body.put_buffer(Some(&[7; 16]));
        body.put_bool(false);
        self.frame(&body);
    }

    fn answer(&mut self, err: i32, token: Option<&[u8]>) {
        let mut body = Vec::new();
        body.put_i32(self.xid);
        body.put_i64(0);
        body.put_i32(err);
        body.put_buffer(token);
        self.frame(&body);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.session.handle_timeout(self.now);
        self.turn();
    }
}

fn token(text: &str) -> (i32, Vec<u8>) {
    let mut body = Vec::new();
    body.put_buffer(Some(text.as_bytes()));
    (SASL, body)
}

fn sync() -> Request {
    Request::Sync { path: "/".into() }
}

#[test]
fn nothing_else_is_sent_before_the_login_is_done() {
    let mut lab = Lab::new("a");
    let id = lab.session.submit(&sync()).unwrap();
    let auth = Request::Auth { scheme: "digest".into(), credentials: "a:b".into() };
    lab.session.submit(&auth).unwrap();
    lab.greet();
    lab.session.submit(&sync()).unwrap();
    lab.turn();
    assert_eq!(lab.sent, [token("a")]);
    assert!(!lab.session.is_connected());
    lab.answer(0, Some(b"go on"));
    assert_eq!(lab.sent[1..], [token("go on")]);
    lab.answer(0, Some(b"done"));
    assert!(lab.session.is_connected());
    let opcodes: Vec<i32> = lab.sent[2..].iter().map(|(opcode, _)| *opcode).collect();
    assert_eq!(opcodes, [100, SYNC, SYNC], "credentials first");
    assert!(
        matches!(lab.events[..], [Event::Connected { .. }, Event::LoggedIn]),
        "{:?}",
        lab.events
    );
    // And on the next connection again.
    lab.session.handle_lost(lab.now);
    lab.turn();
    assert!(lab.events.contains(&Event::Disconnected));
    assert!(lab.events.iter().any(|event| matches!(event, Event::Answer(of, Err(_)) if *of == id)));
    lab.sent.clear();
    lab.wait(Duration::from_secs(1));
    lab.greet();
    assert_eq!(lab.sent, [token("a")]);
}

#[test]
fn a_login_that_fails_ends_the_session() {
    // What servers say: refused; refused, and required; no login here.
    for (err, message) in [(-115, None), (-124, None), (0, None)] {
        let mut lab = Lab::new("a,b");
        let id = lab.session.submit(&sync()).unwrap();
        lab.greet();
        lab.answer(err, message);
        assert_eq!(lab.session.closed(), Some(Code::AuthFailed), "{err}");
        let of_request = lab.events.iter().find_map(|event| match event {
            Event::Answer(of, Err(error)) if *of == id => Some(error.code),
            _ => None,
        });
        assert_eq!(of_request, Some(Code::AuthFailed));
        assert_eq!(lab.events.last(), Some(&Event::Closed(Code::AuthFailed)));
        let why = lab.session.failure().unwrap();
        assert!(why.contains("the login failed: "), "{why}");
        assert_eq!(lab.sent.len(), 1, "no request was sent");
    }
}

#[test]
fn a_server_that_never_comes_to_an_end_is_left() {
    let mut lab = Lab::new("a,b");
    lab.greet();
    // Twice as many rounds as there is time for.
    for _ in 0..60 {
        lab.answer(0, Some(b"more"));
        lab.wait(Duration::from_millis(500));
    }
    assert!(lab.dialled.len() > 1, "the other one is tried");
    assert!(lab.sent.len() < 40, "{}", lab.sent.len());
    assert_eq!(lab.session.closed(), None);
    assert!(
        matches!(lab.events[..], [Event::Connected { .. }, Event::Disconnected]),
        "{:?}",
        lab.events
    );
}

#[test]
fn a_server_that_ends_the_connection_in_the_login_is_no_success() {
    let mut lab = Lab::new("a");
    let id = lab.session.submit(&sync()).unwrap();
    for _ in 0..3 {
        lab.greet();
        lab.session.handle_failed(lab.now, "gone");
        lab.turn();
        assert_eq!(lab.session.failure(), Some("gone"));
        lab.wait(Duration::from_secs(2));
    }
    let lost = |event: &Event| matches!(event, Event::Answer(of, Err(_)) if *of == id);
    assert!(lab.events.iter().any(lost), "patience ends");
}
