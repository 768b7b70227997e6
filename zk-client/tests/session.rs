//! A session's life, against a server made of bytes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::{BufMut, Bytes};
use zab_proto::wire::jute::BufMutExt;
use zk_client::{
    Action, AddWatchMode, Answer, Code, Error, Event, EventKind, Host, Instant, Options, Refused,
    Request, Session,
};

const PASSWORD: [u8; 16] = [7; 16];
const TIMEOUT: Duration = Duration::from_secs(30);

struct Lab {
    session: Session,
    now: Instant,
    /// Frames the session has sent, without their lengths.
    sent: Vec<Vec<u8>>,
    dialled: Vec<Host>,
    disconnects: usize,
    events: Vec<Event>,
}

impl Lab {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::parse("a,b,c/root").unwrap();
        change(&mut options);
        let now = Instant::from_nanos(1);
        let session = Session::new(now, options).unwrap();
        let (sent, dialled, events) = Default::default();
        let mut lab = Self { session, now, sent, dialled, disconnects: 0, events };
        lab.turn();
        lab
    }

    fn turn(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect(host, timeout) => {
                    assert!(timeout > Duration::ZERO);
                    self.dialled.push(host);
                }
                Action::Disconnect => self.disconnects += 1,
            }
        }
        let out = self.session.transmit().to_vec();
        self.session.transmitted(self.now, out.len());
        let mut rest = &out[..];
        while !rest.is_empty() {
            let len = 4 + u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
            self.sent.push(rest[4..len].to_vec());
            rest = &rest[len..];
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn frame(&mut self, body: &[u8]) {
        let mut frame = Vec::new();
        frame.put_buffer(Some(body));
        // In two pieces, of which the first ends in the length.
        self.session.handle_bytes(self.now, &frame[..2]);
        self.session.handle_bytes(self.now, &frame[2..]);
        self.turn();
    }

    fn greet(&mut self, id: i64, timeout: i32, read_only: bool) {
        self.session.handle_connected(self.now);
        self.turn();
        let mut body = Vec::new();
        body.put_i32(0);
        body.put_i32(timeout);
        body.put_i64(id);
        body.put_buffer(Some(&PASSWORD));
        body.put_bool(read_only);
        self.frame(&body);
    }

    fn reply(&mut self, xid: i32, zxid: i64, code: Code, body: &[u8]) {
        let mut reply = Vec::new();
        reply.put_i32(xid);
        reply.put_i64(zxid);
        reply.put_i32(code.number());
        reply.extend_from_slice(body);
        self.frame(&reply);
    }

    fn event(&mut self, kind: i32, path: &str, zxid: i64) {
        let mut body = Vec::new();
        body.put_i32(kind);
        body.put_i32(3);
        body.put_ustring(Some(path));
        self.reply(-1, zxid, Code::Ok, &body);
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.session.handle_timeout(self.now);
        self.turn();
    }

    fn lose(&mut self) {
        self.session.handle_lost(self.now);
        self.turn();
        while self.session.poll_timeout().is_some() && !self.session.is_connected() {
            let before = self.dialled.len();
            self.advance(Duration::from_secs(1));
            if self.dialled.len() > before {
                break;
            }
        }
    }

    fn submit(&mut self, request: &Request) {
        self.session.submit(request).unwrap();
        self.turn();
    }

    fn opcodes(&self) -> Vec<i32> {
        // The first frame of a connection has no opcode.
        let is_request = |frame: &&Vec<u8>| frame[..4] != [0; 4];
        let opcode = |frame: &Vec<u8>| i32::from_be_bytes(*frame[4..].first_chunk().unwrap());
        self.sent.iter().filter(is_request).map(opcode).collect()
    }

    fn errors(&self) -> Vec<Error> {
        let error = |event: &Event| match event {
            Event::Answer(_, Err(error)) => Some(error.clone()),
            _ => None,
        };
        self.events.iter().filter_map(error).collect()
    }
}

fn get(path: &str, watch: bool) -> Request {
    Request::GetData { path: path.into(), watch }
}

const STAT: [u8; 68] = [0; 68];

fn data() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_buffer(Some(b"x"));
    body.extend(STAT);
    body
}

#[test]
fn a_session_is_resumed_with_its_watches_and_credentials() {
    let mut lab = Lab::new(|_| {});
    lab.greet(0x77, 30_000, false);
    lab.submit(&Request::Auth { scheme: "digest".into(), credentials: Bytes::from("u:p") });
    lab.reply(-4, 0, Code::Ok, &[]);
    lab.submit(&get("/d", true));
    lab.submit(&Request::Exists { path: "/e".into(), watch: true });
    lab.submit(&Request::AddWatch { path: "/".into(), mode: AddWatchMode::PersistentRecursive });
    lab.submit(&get("/none", true));
    lab.reply(1, 10, Code::Ok, &data());
    lab.reply(2, 10, Code::NoNode, &[]);
    lab.reply(3, 10, Code::Ok, &[0; 4]);
    lab.reply(4, 11, Code::NoNode, &[]);
    assert_eq!(lab.session.watches(), 3);
    // An event of a transaction whose other events may be on their way.
    lab.event(1, "/root/x", 12);
    assert_eq!(lab.session.last_zxid(), 11);

    lab.submit(&get("/d", false));
    lab.sent.clear();
    lab.lose();
    assert_eq!(lab.errors().last().unwrap().code, Code::ConnectionLoss);
    lab.submit(&get("/later", false));
    lab.greet(0x77, 30_000, false);
    let mut request = Vec::new();
    request.put_i32(0);
    request.put_i64(11);
    request.put_i32(30_000);
    request.put_i64(0x77);
    request.put_buffer(Some(&PASSWORD));
    request.put_bool(false);
    assert_eq!(lab.sent[0], request);
    assert_eq!(lab.opcodes(), [100, 105, 4], "credentials, watches, what waited");
    let mut watches = Vec::new();
    watches.put_i32(-8);
    watches.put_i32(105);
    watches.put_i64(11);
    for list in [&["/root/d"][..], &["/root/e"], &[], &[], &["/root"]] {
        watches.put_len(list.len());
        for path in list {
            watches.put_ustring(Some(path));
        }
    }
    assert_eq!(lab.sent[2], watches);
    lab.reply(-4, 0, Code::Ok, &[]);
    lab.event(3, "/root/d", -1);
    lab.reply(-8, 12, Code::Ok, &[]);
    lab.reply(6, 12, Code::Ok, &data());
    let last = lab.events.len();
    assert!(matches!(&lab.events[last - 2], Event::Watch(event)
        if event.path == "/d" && event.kind == EventKind::NodeDataChanged));
    assert!(matches!(lab.events[last - 1], Event::Answer(_, Ok(Answer::Data(..)))));
    assert_eq!(lab.session.watches(), 2);
    assert_eq!(lab.session.id(), 0x77);
}

#[test]
fn expiry_is_the_end_and_says_so_to_everybody() {
    for (id, timeout) in [(0, 0), (0x78, 30_000)] {
        let mut lab = Lab::new(|options| options.resume = Some((0x77, PASSWORD.to_vec())));
        lab.submit(&get("/a", false));
        lab.greet(id, timeout, false);
        assert_eq!(lab.session.closed(), Some(Code::SessionExpired));
        let error = Error { code: Code::SessionExpired, path: Some("/a".into()) };
        assert_eq!(lab.errors(), [error]);
        assert_eq!(lab.events.last(), Some(&Event::Closed(Code::SessionExpired)));
        assert_eq!((lab.disconnects, lab.session.poll_timeout()), (1, None));
        let refused = lab.session.submit(&get("/a", false));
        assert_eq!(refused, Err(Refused::Closed(Code::SessionExpired)));
    }
}

#[test]
fn pings_and_silence() {
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 9000, false);
    for _ in 0..3 {
        let until = lab.session.poll_timeout().unwrap();
        assert_eq!(until - lab.now, Duration::from_secs(3));
        lab.advance(until - lab.now);
        lab.reply(-2, 5, Code::Ok, &[]);
    }
    assert_eq!(lab.opcodes(), [11; 3]);
    assert_eq!(lab.session.last_zxid(), 5);
    lab.advance(Duration::from_secs(3));
    assert!(lab.session.is_connected());
    lab.advance(Duration::from_secs(3));
    assert_eq!((lab.session.is_connected(), lab.disconnects), (false, 1));
    assert_eq!(lab.events.last(), Some(&Event::Disconnected));

    // Long timeouts have pings, too.
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 90_000, false);
    assert_eq!(lab.session.poll_timeout().unwrap() - lab.now, Duration::from_secs(10));
}

#[test]
fn a_server_that_does_not_answer_the_greeting_is_left() {
    let mut lab = Lab::new(|_| {});
    lab.session.handle_connected(lab.now);
    lab.turn();
    let until = lab.session.poll_timeout().unwrap();
    assert_eq!(until - lab.now, Duration::from_secs(10), "a third, with three servers");
    lab.advance(until - lab.now);
    lab.advance(Duration::ZERO);
    assert_eq!((lab.disconnects, lab.dialled.len()), (1, 2));
}

#[test]
fn requests_wait_for_a_server_as_long_as_they_may() {
    let mut lab = Lab::new(|options| options.patience = Duration::ZERO);
    lab.submit(&get("/a", false));
    for tried in 1..=3 {
        assert_eq!((lab.dialled.len(), lab.errors().len()), (tried, 0));
        lab.lose();
    }
    let error = Error { code: Code::ConnectionLoss, path: Some("/a".into()) };
    assert_eq!(lab.errors(), [error]);
    let mut tried: Vec<_> = lab.dialled[..3].iter().map(|host| &*host.name).collect();
    tried.sort_unstable();
    assert_eq!(tried, ["a", "b", "c"]);

    let mut lab = Lab::new(|_| {});
    lab.submit(&get("/a", false));
    let begin = lab.now;
    while lab.errors().is_empty() {
        assert!(lab.now - begin < TIMEOUT * 2);
        lab.lose();
    }
    assert!(lab.now - begin >= TIMEOUT, "{:?}", lab.now - begin);
}

#[test]
fn what_makes_no_sense_ends_the_connection_only() {
    let bad = |lab: &mut Lab, bytes: &[u8]| {
        lab.session.handle_bytes(lab.now, bytes);
        lab.turn();
    };
    for bytes in [
        &(-1_i32).to_be_bytes()[..],
        &0x0200_0001_i32.to_be_bytes(),
        &[0; 4],
        // An answer to nobody, of pings' length.
        &[0, 0, 0, 16, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        // Credentials that were not shown.
        &[0, 0, 0, 16, 0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ] {
        let mut lab = Lab::new(|_| {});
        lab.greet(1, 9000, false);
        bad(&mut lab, bytes);
        assert_eq!((lab.session.is_connected(), lab.disconnects), (false, 1), "{bytes:?}");
        lab.lose();
        lab.greet(1, 9000, false);
        assert!(lab.session.is_connected());
    }
    // A record that is cut off.
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 9000, false);
    lab.submit(&get("/a", false));
    lab.reply(1, 1, Code::Ok, &[0, 0, 0, 9]);
    assert_eq!(lab.errors()[0].code, Code::MarshallingError);
    assert!(!lab.session.is_connected());
}

#[test]
fn a_wrong_password_for_a_user_is_the_end() {
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 9000, false);
    lab.submit(&Request::Auth { scheme: "no".into(), credentials: Bytes::new() });
    lab.submit(&get("/a", false));
    lab.reply(-4, 0, Code::AuthFailed, &[]);
    assert_eq!(lab.session.closed(), Some(Code::AuthFailed));
    assert!(lab.errors().iter().all(|error| error.code == Code::AuthFailed));
    assert_eq!(lab.errors().len(), 2);
}

#[test]
fn a_session_without_ensemble_is_not_asked_for_elsewhere() {
    let mut lab = Lab::new(|options| options.read_only = true);
    lab.greet(5, 9000, true);
    assert!(matches!(lab.events[..], [Event::Connected { read_only: true, .. }]));
    lab.sent.clear();
    lab.lose();
    lab.greet(6, 9000, false);
    assert_eq!(lab.sent[0][16..24], [0; 8], "a new one");
    assert_eq!((lab.session.id(), lab.session.closed()), (6, None));
    lab.sent.clear();
    lab.lose();
    lab.greet(6, 9000, false);
    assert_eq!(lab.sent[0][16..24], 6_i64.to_be_bytes(), "the same");
}

#[test]
fn requests_are_bounded_until_their_answers_are_fetched() {
    let mut lab = Lab::new(|options| options.requests_max = 10);
    lab.greet(1, 9000, false);
    for _ in 0..10 {
        lab.submit(&get("/a", false));
    }
    for _ in 0..10 {
        assert_eq!(lab.session.submit(&get("/a", false)), Err(Refused::Busy));
    }
    let mut reply = Vec::new();
    reply.put_i32(16);
    reply.put_i32(1);
    reply.put_i64(1);
    reply.put_i32(-101);
    lab.session.handle_bytes(lab.now, &reply);
    assert_eq!(lab.session.submit(&get("/a", false)), Err(Refused::Busy), "not fetched");
    lab.turn();
    lab.submit(&get("/a", false));

    let mut lab = Lab::new(|options| options.requests_len_max_bytes = 1000);
    let set = |len: usize| Request::SetData {
        path: "/a".into(),
        data: Some(vec![0; len].into()),
        version: -1,
    };
    lab.submit(&set(2000));
    assert_eq!(lab.session.submit(&set(1)), Err(Refused::Busy));
    let mut lab = Lab::new(|options| options.frame_len_max_bytes = 1000);
    assert_eq!(lab.session.submit(&set(2000)), Err(Refused::TooLong));
    lab.submit(&set(900));
}

#[test]
fn events_that_nobody_fetches_are_counted() {
    let mut lab = Lab::new(|options| options.events_max = 10);
    lab.greet(1, 9000, false);
    lab.events.clear();
    let mut frame = Vec::new();
    let mut body = Vec::new();
    body.put_i32(-1);
    body.put_i64(1);
    body.put_i32(0);
    body.put_i32(3);
    body.put_i32(3);
    body.put_ustring(Some("/root/a"));
    for _ in 0..20 {
        frame.put_buffer(Some(&body));
    }
    lab.session.handle_bytes(lab.now, &frame);
    lab.turn();
    assert_eq!(lab.events.len(), 11);
    assert_eq!(lab.events[10], Event::Missed(10));
    lab.event(3, "/root/a", 2);
    assert!(matches!(lab.events[11], Event::Watch(_)));
}

#[test]
fn the_end_comes_after_all_answers() {
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 9000, false);
    lab.submit(&get("/a", false));
    lab.session.close();
    lab.turn();
    assert_eq!(lab.opcodes(), [4, -11]);
    assert_eq!(lab.session.submit(&get("/a", false)), Err(Refused::Closed(Code::Ok)));
    lab.reply(1, 1, Code::Ok, &data());
    lab.reply(2, 2, Code::Ok, &[]);
    assert!(matches!(lab.events[1..], [Event::Answer(_, Ok(_)), Event::Closed(Code::Ok)]));
    assert_eq!(lab.disconnects, 1);
}

#[test]
fn paths_are_checked_before_anything_is_sent() {
    let mut lab = Lab::new(|_| {});
    let refused = lab.session.submit(&get("a", false));
    assert_eq!(refused, Err(Refused::Path("Path must start with / character")));
    assert!(Session::new(lab.now, Options::new(Vec::new())).is_err());
    assert!(Options::parse("a/b/").is_err());
}

#[test]
fn credentials_are_bounded() {
    let mut lab = Lab::new(|_| {});
    lab.greet(1, 9000, false);
    let auth = |i: usize| Request::Auth {
        scheme: "digest".into(),
        credentials: Bytes::from(format!("user:{i}")),
    };
    let taken = (0..200).filter(|i| lab.session.submit(&auth(*i)).is_ok()).count();
    assert_eq!(taken, 100);
    // The last ones again are no others.
    assert!(lab.session.submit(&auth(99)).is_ok());
    lab.turn();
    assert_eq!(lab.opcodes(), [100; 101]);
    for _ in 0..101 {
        lab.reply(-4, 0, Code::Ok, &[]);
    }
    let answers = lab.events.iter().filter(|event| matches!(event, Event::Answer(_, Ok(_))));
    assert_eq!((answers.count(), lab.session.is_connected()), (101, true));
    lab.sent.clear();
    lab.lose();
    lab.greet(1, 9000, false);
    assert_eq!(lab.opcodes(), [100; 100]);
}
