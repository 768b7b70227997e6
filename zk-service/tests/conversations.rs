//! Conversations of clients with Apache ZooKeeper 3.9.4, recorded, held with our own server.

mod harness;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::{Client, World};
use zab_proto::{Limits, Membership};
use zab_sasl::Users;
use zk_service::{Entropy, SaslOptions, ServiceOptions, WallClock};

/// What our server's wall clock says in transactions; recordings have other times of 2026 here.
const WALL_MS: i64 = 0x1_a1fd_0000_0000 >> 8;

fn unhex(text: &str) -> Vec<u8> {
    let digit =
        |c: u8| u8::try_from((c as char).to_digit(16).expect("a hex digit")).expect("small");
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces wall-clock times: those of the recording begin with 000001a1fd or 000001a1fe.
fn mask_times(frame: &mut [u8]) {
    let mut at = 0;
    while at + 8 <= frame.len() {
        if frame[at..].starts_with(&[0, 0, 1, 0xa1]) && matches!(frame[at + 4], 0xfc..=0xff) {
            frame[at + 4..at + 8].fill(0);
            at += 8;
        } else {
            at += 1;
        }
    }
}

/// Sorts what has no order: the names in replies of getChildren and getEphemerals, identities, ...
fn sort_body(op: i32, frame: &mut Vec<u8>) {
    if !matches!(op, 6 | 8 | 12 | 103 | 107) || frame.len() < 20 {
        return;
    }
    let number = |at: usize, frame: &[u8]| {
        i32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
    };
    let count = number(16, frame);
    let mut at = 20;
    let mut entries = Vec::new();
    for _ in 0..count {
        let start = at;
        at += if op == 6 { 4 } else { 0 };
        for _ in 0..if matches!(op, 6 | 107) { 2 } else { 1 } {
            at += 4 + usize::try_from(number(at, frame)).expect("a length");
        }
        entries.push(frame[start..at].to_vec());
    }
    entries.sort();
    let rest = frame.split_off(at);
    frame.truncate(20);
    frame.extend(entries.concat());
    frame.extend(rest);
}

/// Where we answer otherwise than a recording: its name, the line (from 1) and our answer.
type Deviation = (&'static str, usize, &'static str);

/// Plays recordings, made one after the other with one server, against our server.
fn play(names: &[&str], options: ServiceOptions, deviations: &[Deviation]) {
    play_in(World::standalone, names, options, deviations);
}

/// The same against the first server of a world.
fn play_in(
    world: impl FnOnce(ServiceOptions) -> World,
    names: &[&str],
    mut options: ServiceOptions,
    deviations: &[Deviation],
) {
    let scripts: Vec<String> = names.iter().map(|name| read(name)).collect();
    options.tick_time = Duration::from_secs(2);
    // ZooKeeper counts session ids on from a clock.
    let first = scripts[0].lines().find_map(first_session).expect("a session");
    let next = AtomicI64::new(first << 8);
    // Behind the first session's id a recorded nonce is drawn, so that the response fits.
    let (calls, nonce) = (AtomicUsize::new(0), recorded_nonce(&scripts[0]));
    options.entropy = Entropy::new(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let of_nonce = call.checked_sub(1).and_then(|at| nonce.get(at)).copied();
        of_nonce.unwrap_or_else(|| next.fetch_add(1 << 8, Ordering::Relaxed).cast_unsigned())
    });
    let clock = Arc::new(AtomicI64::new(WALL_MS));
    let read_clock = Arc::clone(&clock);
    options.wall_clock = WallClock::new(move || read_clock.load(Ordering::Relaxed));
    let mut play = Play::new(world(options));
    play.server.clock = clock;
    for (name, script) in names.iter().zip(&scripts) {
        for (number, line) in (1..).zip(script.lines()) {
            let ours = deviations.iter().find(|(n, at, _)| n == name && *at == number);
            play.line(line, ours.map(|(.., ours)| *ours), &format!("{name}:{number}"));
        }
    }
    assert_eq!(play.server.service(0).digest_mismatches(), 0);
    let failures = play.failures;
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

fn read(name: &str) -> String {
    let path = format!("{}/tests/vectors/client/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a recording")
}

/// A recording being played.
struct Play<'a> {
    server: World,
    conns: HashMap<&'a str, Client>,
    ops: HashMap<(&'a str, i32), i32>,
    failures: Vec<String>,
}

impl<'a> Play<'a> {
    fn new(server: World) -> Self {
        Self { server, conns: HashMap::new(), ops: HashMap::new(), failures: Vec::new() }
    }

    fn line(&mut self, line: &'a str, ours: Option<&str>, place: &str) {
        if line.starts_with('#') {
            return;
        }
        let (label, rest) = line.split_once(' ').expect("a connection");
        let (direction, what) = rest.split_once(' ').expect("direction and bytes");
        if direction == ">" {
            self.send(label, &unhex(what));
            return;
        }
        let wanted = ours.unwrap_or(what);
        let found = self.next_frame(label, wanted);
        let wanted = match wanted {
            "end" | "silence" => wanted.into(),
            frame => self.normal(&unhex(frame)[4..], label),
        };
        if found == "end" {
            self.conns.remove(label);
        }
        if found != wanted {
            self.failures.push(format!("{place} {label}\n  wanted {wanted}\n  got    {found}"));
        }
    }

    fn send(&mut self, label: &'a str, bytes: &[u8]) {
        if bytes.len() >= 12 {
            let number =
                |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            self.ops.insert((label, number(4)), number(8));
        }
        let conn = self.conns.get(label).copied().or_else(|| self.server.connect(0));
        if let Some(conn) = conn {
            self.conns.insert(label, conn);
            self.server.send(conn, bytes);
        }
    }

    /// What the server says next on a connection, waiting for it as long as a recording may have.
    fn next_frame(&mut self, label: &str, wanted: &str) -> String {
        let Some(&conn) = self.conns.get(label) else { return "end".into() };
        for _ in 0..if wanted == "silence" { 1 } else { 120 } {
            if let Some(frame) = self.server.frame(conn) {
                return self.normal(&frame, label);
            }
            if self.server.has_ended(conn) {
                return "end".into();
            }
            self.server.pass(Duration::from_millis(100));
        }
        "silence".into()
    }

    /// A frame without what differs in every run.
    fn normal(&self, frame: &[u8], label: &str) -> String {
        let mut frame = frame.to_vec();
        mask_times(&mut frame);
        let xid = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        let op = self.ops.iter().find(|((l, x), _)| *l == label && *x == xid).map(|(_, op)| *op);
        if let Some(op) = op {
            sort_body(op, &mut frame);
        }
        hex(&frame)
    }
}

/// The random numbers that a recorded challenge was made of.
fn recorded_nonce(script: &str) -> Vec<u64> {
    let (begin, end) = (hex(b",nonce=\""), hex(b"\",charset"));
    let Some((_, rest)) = script.split_once(&begin) else { return Vec::new() };
    let text = unhex(rest.split_once(&end).expect("the end of the nonce").0);
    let bytes = STANDARD.decode(text).expect("a nonce");
    let word = |piece: &[u8]| {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

fn first_session(line: &str) -> Option<i64> {
    let frame = line
        .split_once(" < 00000025000000000000")
        .or_else(|| line.split_once(" < 00000024000000000000"))?
        .1;
    let id = i64::from_str_radix(frame.get(4..20)?, 16).ok()?;
    (id != 0).then_some(id)
}

fn standard(name: &str) {
    play(&[name], ServiceOptions::default(), &[]);
}

#[test]
fn connect() {
    // A wrong password does not disconnect the rightful owner.
    play(&["connect"], ServiceOptions::default(), &[("connect", 63, "silence")]);
}

#[test]
fn crud() {
    standard("crud");
}

#[test]
fn create_modes() {
    standard("create-modes");
}

#[test]
fn errors() {
    standard("errors");
}

#[test]
fn multi() {
    play(&["multi"], ServiceOptions::default(), &MULTI);
}

#[test]
fn multi_create_kinds() {
    standard("multi-create-kinds");
}

#[test]
fn multi_create_kinds_extended() {
    let options = ServiceOptions::default().with(|options| options.extended_types = true);
    play(&["multi-create-kinds-extended", "edge-cases"], options, &[]);
}

#[test]
fn watches_standard() {
    standard("watches-standard");
}

#[test]
fn watches_persistent() {
    standard("watches-persistent");
}

#[test]
fn setwatches() {
    standard("setwatches");
}

#[test]
fn auth() {
    let super_digest = Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".into());
    let options = ServiceOptions::default().with(|options| options.super_digest = super_digest);
    play(&["auth"], options, &[]);
}

/// An ensemble of three whose members are changed: refusals, the same again, one away, back as an observer,
/// back as a voter.
#[test]
fn reconfig() {
    let ensemble = [1, 2, 3]
        .map(|n| format!("server.{n}=127.0.0.1:2240{n}:2250{n}:participant;127.0.0.1:2230{n}\n"));
    let ensemble = Membership::parse_text(ensemble.concat().as_bytes()).expect("good");
    let options = ServiceOptions::default().with(|options| {
        options.super_digest = Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".into());
        options.membership = Some(ensemble.text());
        options.reconfig = true;
        options.standalone_enabled = false;
    });
    let world = |options| World::of(&ensemble, &options, &[], Limits::default());
    play_in(world, &["reconfig"], options, &[]);
}

#[test]
fn reconfig_of_one_server() {
    let options = ServiceOptions::default().with(|options| options.reconfig = true);
    play(&["reconfig-standalone"], options, &[]);
}

#[test]
fn enforce_auth() {
    let options =
        ServiceOptions::default().with(|options| options.enforce_auth = vec!["digest".into()]);
    play(&["enforce-auth"], options, &[]);
}

fn bob() -> SaslOptions {
    let users = Users::from_iter([("bob", "secret")]);
    SaslOptions { users: Some(Arc::new(users)), in_acls: true, ..SaslOptions::default() }
}

/// Recorded with Java's client.
#[test]
fn sasl_login() {
    let options = ServiceOptions::default().with(|options| options.sasl = bob());
    play(&["real-sasl-digest-md5"], options.clone(), &[]);
    play(&["real-sasl-digest-md5-bad-password"], options.clone(), &[]);
    let options = options.with(|options| options.enforce_auth = vec!["sasl".into()]);
    play(&["real-sasl-required-no-sasl-client"], options, &[]);
}

#[test]
fn malformed() {
    play(&["malformed"], ServiceOptions::default(), &MALFORMED);
}

#[test]
fn pathvalid() {
    standard("pathvalid");
}

#[test]
fn pipelining() {
    play(&["pipelining", "watch-acl-filter"], ServiceOptions::default(), &[]);
}

#[test]
fn close_and_ephemerals() {
    standard("close-and-ephemerals");
}

#[test]
fn ephemeral_owner_checks() {
    standard("ephemeral-owner-checks");
}

#[test]
fn expiry() {
    standard("expiry");
}

#[test]
fn maxclientcnxns() {
    let options = ServiceOptions::default().with(|options| options.max_client_cnxns = 2);
    play(&["maxclientcnxns"], options, &[]);
}

#[test]
fn create_ttl() {
    let container_check_interval = Duration::from_millis(500);
    let options = ServiceOptions::default().with(|options| {
        options.extended_types = true;
        options.container_check_interval = container_check_interval;
    });
    play(&["create-ttl"], options, &[]);
}

#[test]
fn quota() {
    let options = ServiceOptions::default().with(|options| options.enforce_quota = true);
    play(&["quota"], options, &[]);
}

#[test]
fn real_zkcli_session() {
    play(&["real-zkcli-session", "real-kazoo-session"], ServiceOptions::default(), &[]);
}

#[test]
fn eager_acl() {
    standard("eager-acl");
}

/// The recording is one of ZooKeeper 3.8.0, since 3.9 numbers the refusal of an undecodable write like
/// the transaction before it.
const MALFORMED: [Deviation; 13] = [
    // 3.9 tells the zxid.
    ("malformed", 46, "0000001fffffffff000000000000000b000000000000000100000003000000032f7a7a"),
    // Check outside of a multi.
    ("malformed", 113, "0000001000000001fffffffffffffffffffffffa"),
    ("malformed", 114, "end"),
    // One transaction less than the recording.
    ("malformed", 148, "0000001800000001000000000000002500000000000000042f63686b"),
    ("malformed", 150, "0000001000000046fffffffffffffffffffffffa"),
    ("malformed", 151, "end"),
    // CreateSession as a request.
    ("malformed", 155, "0000001000000001fffffffffffffffffffffffa"),
    (
        "malformed",
        159,
        "0000005d00000001000000000000002800000000000000052f636f6e7400000000000000280000000000\
     000028000001a1fd31efe0000001a1fd31efe00000000000000000000000000000000000000000000000\
     01000000000000000000000028",
    ),
    // DeleteContainer as a request.
    ("malformed", 161, "0000001000000009fffffffffffffffffffffffa"),
    ("malformed", 163, "end"),
    (
        "malformed",
        167,
        "00000058fffffff900000000000000290000000000000000000000000000000000000000000000000000\
     000000000000000000000000000000000000000000030000000000000000000000000000000000000005\
     0000000000000028",
    ),
    (
        "malformed",
        169,
        "000000580000000000000000000000290000000000000000000000000000000000000000000000000000\
     000000000000000000000000000000000000000000030000000000000000000000000000000000000005\
     0000000000000028",
    ),
    (
        "malformed",
        171,
        "00000058ffffffff00000000000000290000000000000000000000000000000000000000000000000000\
     000000000000000000000000000000000000000000030000000000000000000000000000000000000005\
     0000000000000028",
    ),
];

const MULTI: [Deviation; 2] = [
    // Children have no order.
    (
        "multi",
        56,
        "000001240000001b000000000000001500000000000000080000000000000000040000000c732d303030\
     303030303030310000000c732d303030303030303030320000000c732d30303030303030303033000000\
     0c732d30303030303030303035000000040000000000000000017a000000000000000200000000000000\
     02000001a1fd31700c000001a1fd31700c00000001000000080000000000000000000000000000000100\
     0000040000000000000009ffffffff00ffffff9bffffff9bffffffff00ffffff9bffffff9b0000000400\
     000000000000000178000000000000000d000000000000000d000001a1fd317022000001a1fd31702200\
     000000000000000000000000000000000000000000000100000000000000000000000dffffffff01ffff\
     ffff",
    ),
    // No body behind a failure.
    ("multi", 60, "000000100000001d0000000000000015fffffffb"),
];
