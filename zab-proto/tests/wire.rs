//! Every message that real servers were heard saying decodes, and encodes to the same bytes; and
//! no bytes whatever make a decoder panic. See `tests/vectors/README.md` for the recordings.

use std::fs;
use std::path::Path;

use zab_proto::wire::Parsed;
use zab_proto::wire::body::{LearnerInfo, Request, Revalidated, SNAPSHOT_END, Session};
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::jute::{self, Reader};
use zab_proto::wire::notification::{self, Notification};
use zab_proto::wire::packet::{NULL_AUTH, Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::wire::{body, packet};
use zab_proto::{DecodeError, Epoch, Membership, ServerState, Sid, Zxid};

const LIMIT: usize = 2_097_150;

/// One direction of a recorded connection: its messages by name.
struct Stream {
    file: String,
    dialled: bool,
    resumed: bool,
    messages: Vec<(String, Vec<u8>)>,
}

/// All streams of one port.
fn streams(port: &str) -> Vec<Stream> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(port);
    let mut streams = Vec::new();
    for entry in fs::read_dir(dir).expect("the recordings") {
        let path = entry.expect("a file").path();
        for line in fs::read_to_string(&path).expect("text").lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("conn") => streams.extend([true, false].map(|dialled| Stream {
                    file: path.display().to_string(),
                    dialled,
                    resumed: line.ends_with(" resumed"),
                    messages: Vec::new(),
                })),
                Some(direction @ ("a2b" | "b2a")) => {
                    let name = words.next().expect("a name").to_owned();
                    let bytes = from_hex(words.next().expect("bytes"));
                    let back = if direction == "a2b" { 2 } else { 1 };
                    let at = streams.len() - back;
                    streams[at].messages.push((name, bytes));
                }
                _ => assert!(line.starts_with('#'), "{line}"),
            }
        }
    }
    assert!(streams.len() > 200, "recordings are missing");
    streams
}

fn from_hex(pieces: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("hex");
    let mut bytes = Vec::new();
    for piece in pieces.split(',') {
        match piece.split_once('*') {
            Some((one, times)) => {
                bytes.resize(bytes.len() + times.parse::<usize>().expect("count"), byte(one));
            }
            None => bytes.extend((0..piece.len()).step_by(2).map(|at| byte(&piece[at..at + 2]))),
        }
    }
    bytes
}

/// Decodes a stream message by message and compares each with the recording. `decode` gets the
/// recorded name, the rest of the stream, and the bytes of this message alone.
fn walk(stream: &Stream, mut decode: impl FnMut(&str, &[u8], &[u8]) -> Option<usize>) {
    let all: Vec<u8> = stream.messages.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut at = 0;
    for (name, bytes) in &stream.messages {
        match decode(name, &all[at..], bytes) {
            Some(len) => assert_eq!(len, bytes.len(), "{}: {name} at byte {at}", stream.file),
            None => assert!(name.ends_with("cut"), "{}: {name} at byte {at}", stream.file),
        }
        at += bytes.len();
    }
}

/// What `parse` makes of the front of `rest`, after it has called every part of it incomplete.
fn complete<'a, T>(
    rest: &'a [u8],
    alone: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Parsed<T>,
) -> Option<(T, usize)> {
    for len in 0..alone.len() {
        assert!(matches!(parse(&alone[..len]), Parsed::Incomplete), "{len} of {}", alone.len());
    }
    match parse(rest) {
        Parsed::Complete { value, len } => Some((value, len)),
        Parsed::Incomplete => None,
        Parsed::Malformed(error) => panic!("{error}: {alone:02x?}"),
    }
}

#[test]
fn election_conversations() {
    for stream in streams("election") {
        let mut first = stream.dialled && !stream.resumed;
        walk(&stream, |name, rest, alone| {
            if std::mem::take(&mut first) && name != "cut" {
                assert_eq!(name, "handshake");
                let (handshake, len) = complete(rest, alone, Handshake::parse)?;
                assert_ne!(handshake.form, Form::Legacy);
                assert_ne!(handshake.addresses().count(), 0);
                assert_eq!(encoded(|out| handshake.write(out)), alone);
                return Some(len);
            }
            let (payload, len) = complete(rest, alone, notification::parse_frame)?;
            let notification = Notification::parse(payload).expect("a notification");
            let state = notification.server_state().expect("one of four states");
            assert_eq!(format!("{state:?}").to_uppercase(), name);
            assert_eq!(encoded(|out| notification.write_frame(out)), alone);
            check_config(notification.config.expect("version 2"), &stream.file);
            Some(len)
        });
    }
}

#[test]
fn quorum_conversations() {
    for stream in streams("quorum") {
        walk(&stream, |name, rest, alone| {
            match name {
                "snapshot" => return snapshot_len(rest),
                "snapshot-cut" => return snapshot_len(alone),
                _ => {}
            }
            let (packet, len) = complete(rest, alone, |bytes| Packet::parse(bytes, LIMIT))?;
            assert_eq!(packet.kind.to_string(), name);
            assert_eq!(encoded(|out| packet.write(out)), alone);
            check_body(&packet, stream.dialled, &stream.file);
            Some(len)
        });
    }
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn check_config(text: &[u8], file: &str) {
    let ensemble = Membership::parse_text(text).expect("a configuration");
    let again = ensemble.text();
    // With several addresses of one host ZooKeeper has an order of its own.
    if !file.ends_with("multi_address.txt") {
        assert_eq!(again.as_bytes(), text);
    }
    assert_eq!(Membership::parse_text(again.as_bytes()).expect("our own text").text(), again);
}

/// Decodes what the packet carries and encodes it again.
fn check_body(packet: &Packet<'_>, from_learner: bool, file: &str) {
    let data = packet.data.unwrap_or_default();
    match packet.kind {
        PacketType::FOLLOWERINFO | PacketType::OBSERVERINFO => {
            let info = LearnerInfo::parse(packet.data);
            let sid = info.sid.expect("a server id");
            assert_eq!(info.protocol_version, body::PROTOCOL_VERSION);
            assert_eq!(LearnerInfo::encode(sid, info.config_version), data);
        }
        PacketType::LEADERINFO => {
            assert_eq!(body::parse_i32(packet.data), Ok(body::PROTOCOL_VERSION));
        }
        PacketType::ACKEPOCH => {
            let epoch = body::parse_i32(packet.data).expect("an epoch");
            assert_eq!(epoch.to_be_bytes(), data);
        }
        PacketType::NEWLEADER => check_config(data, file),
        PacketType::PROPOSAL | PacketType::INFORM => check_txn(data, packet.zxid),
        PacketType::COMMITANDACTIVATE => {
            assert_eq!(body::parse_activate(data).expect("a server id").1, b"");
        }
        PacketType::INFORMANDACTIVATE => {
            check_txn(body::parse_activate(data).expect("a server id").1, packet.zxid);
        }
        PacketType::REQUEST => {
            let request = Request::parse(data).expect("a request");
            assert_eq!(encoded(|out| request.write(out)), data);
        }
        PacketType::PING if from_learner => {
            let sessions = Session::parse_all(data).expect("whole entries");
            assert_eq!(encoded(|out| sessions.for_each(|session| session.write(out))), data);
            assert!(packet.data.is_some());
        }
        PacketType::REVALIDATE if from_learner => {
            let session = Session::parse(data).expect("a session");
            assert_eq!(encoded(|out| session.write(out)), data);
        }
        PacketType::REVALIDATE => {
            let answer = Revalidated::parse(data).expect("an answer");
            assert_eq!(encoded(|out| answer.write(out)), data);
        }
        _ => {
            assert_eq!(packet.data, None);
            assert_eq!(
                packet::bare(packet.kind, packet.zxid)[..],
                encoded(|out| packet.write(out))
            );
        }
    }
    if packet.kind != PacketType::REQUEST {
        assert_eq!(packet.auth, NULL_AUTH);
    }
}

fn check_txn(txn: &[u8], zxid: Zxid) {
    let header = TxnHeader::parse(txn).expect("a transaction");
    assert_eq!(header.zxid, zxid);
    assert_eq!(encoded(|out| header.write(out)), txn[..TxnHeader::LEN]);
}

/// The length of the snapshot stream at the front of `bytes`, read with the jute reader; `None` if
/// its end is missing.
fn snapshot_len(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    let mut read = || {
        for _ in 0..reader.vector()?.expect("sessions") {
            reader.bytes(12)?;
        }
        for _ in 0..reader.vector()?.expect("access lists") {
            reader.i64()?;
            for _ in 0..reader.vector()?.expect("entries") {
                reader.i32()?;
                reader.ustring()?;
                reader.ustring()?;
            }
        }
        while reader.string()?.expect("a path") != "/" {
            reader.buffer()?;
            reader.bytes(8 + 60)?;
        }
        assert_eq!(reader.string()?.expect("a signature"), "BenWasHere");
        Ok::<_, DecodeError>(reader.position())
    };
    match read() {
        Ok(len) => {
            assert!(bytes[..len].ends_with(SNAPSHOT_END));
            Some(len)
        }
        Err(error) => {
            assert_eq!(error, DecodeError::UnexpectedEof);
            None
        }
    }
}

#[test]
fn fields_are_where_they_belong() {
    let bytes = from_hex("ffffffffffff000000000000000000010000000f3132372e302e302e313a3235323031");
    let value = Handshake { form: Form::V1, sid: Sid(1), text: "127.0.0.1:25201" };
    assert_eq!(Handshake::parse(&bytes), Parsed::Complete { value, len: bytes.len() });

    let bytes = from_hex(
        "00000001800000000000000000000000000000050000000000000007fffffffffffffffe0000000200000000",
    );
    let notification = Notification::parse(&bytes).expect("a notification");
    assert_eq!(notification.server_state(), Some(ServerState::Following));
    assert_eq!(notification.leader, Sid(i64::MIN));
    assert_eq!(notification.zxid, Zxid::from_raw(5));
    assert_eq!(notification.election_epoch, 7);
    assert_eq!(notification.peer_epoch, Epoch(-2));

    let bytes = from_hex(concat!(
        "000000020000000100000001000000300100016cb49000000000000000000001",
        "00000001000001a1fd2b64e3fffffff600002710000000020000000051c6d660ffffffff",
    ));
    let Parsed::Complete { value, len } = Packet::parse(&bytes, LIMIT) else { panic!("whole") };
    assert_eq!((value.kind, value.zxid, len), (PacketType::PROPOSAL, Zxid::new(Epoch(1), 1), 68));
    let header = TxnHeader {
        client_id: 0x0100_016c_b490_0000,
        cxid: 0,
        zxid: value.zxid,
        time: 0x01a1_fd2b_64e3,
        kind: -10,
    };
    assert_eq!(TxnHeader::parse(value.data.expect("a body")), Ok(header));

    let bytes = from_hex("01000016cb49000000000003fffffff600002710");
    let request =
        Request { session_id: 0x0100_0016_cb49_0000, cxid: 3, op: -10, record: b"\0\0'\x10" };
    assert_eq!(Request::parse(&bytes), Ok(request));
}

/// The same bytes in every run.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// A few random changes, some of them of the kind that lengths do not survive.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match (self.below(4), bytes.get_mut(at)) {
                (0, _) => bytes.truncate(at),
                (1, _) => bytes.insert(at, b"\0\xff|:;=.[]1"[self.below(10)]),
                (2, Some(byte)) => *byte ^= 1 << self.below(8),
                (_, Some(byte)) => *byte = [0, 0x7f, 0x80, 0xff][self.below(4)],
                (_, None) => {}
            }
        }
    }
}

/// Every decoder on the same bytes. What is accepted must encode to what was read, or at least be
/// read the same again.
fn decode_all(bytes: &[u8]) {
    for limit in [16, LIMIT] {
        if let Parsed::Complete { value, len } = Packet::parse(bytes, limit) {
            assert_eq!(encoded(|out| value.write(out)), bytes[..len]);
            assert!(len <= Packet::len_max(limit));
        } else {
            assert!(limit > 16 || bytes.len() < Packet::len_max(limit) || is_malformed(bytes));
        }
    }
    if let Parsed::Complete { value, len } = Handshake::parse(bytes) {
        assert_eq!(encoded(|out| value.write(out)), bytes[..len]);
        assert!(value.addresses().all(|(host, _)| !host.is_empty()));
    }
    if let Parsed::Complete { value, len } = notification::parse_frame(bytes) {
        assert_eq!(value, &bytes[4..len]);
    }
    if let Ok(value) = Notification::parse(bytes) {
        let frame = encoded(|out| value.write_frame(out));
        assert_eq!(Notification::parse(&frame[4..]), Ok(value));
    }
    if let Ok(ensemble) = Membership::parse_text(bytes) {
        let _ = ensemble.is_quorum(|sid| sid.0 % 2 == 0);
        if ensemble.version >= 0 {
            let text = ensemble.text();
            let mut again = Membership::parse_text(text.as_bytes()).expect("our own text");
            again.version = -1;
            assert!(again.has_same_members(&ensemble));
        }
    }
    if let Ok(value) = Request::parse(bytes) {
        assert_eq!(encoded(|out| value.write(out)), bytes);
    }
    if let Ok(value) = TxnHeader::parse(bytes) {
        assert_eq!(encoded(|out| value.write(out)), bytes[..TxnHeader::LEN]);
    }
    let _ = (LearnerInfo::parse(Some(bytes)), body::parse_i32(Some(bytes)));
    let _ = (Revalidated::parse(bytes), body::parse_activate(bytes), Session::parse(bytes));
    let _ = Session::parse_all(bytes).map(Iterator::count);
    let text = jute::text(bytes);
    assert_eq!(text.as_bytes() == bytes, std::str::from_utf8(bytes).is_ok());
}

fn is_malformed(bytes: &[u8]) -> bool {
    matches!(Packet::parse(bytes, 16), Parsed::Malformed(_))
}

#[test]
fn decoders_are_total() {
    let mut random = Random(fastrand::Rng::with_seed(0x5eed));
    for _ in 0..20_000 {
        let len = random.below(96);
        let bytes: Vec<u8> = (0..len).map(|_| random.0.u8(..)).collect();
        decode_all(&bytes);
    }
    let seeds: Vec<Vec<u8>> = ["election", "quorum"]
        .into_iter()
        .flat_map(streams)
        .flat_map(|stream| stream.messages)
        .map(|(_, bytes)| bytes)
        .filter(|bytes| bytes.len() < 2000)
        .collect();
    for round in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        // Without the frame's length it is a notification, without its fields a configuration.
        let skip = [0, 4, 48][round % 3].min(bytes.len());
        bytes.drain(..skip);
        random.mutate(&mut bytes);
        decode_all(&bytes);
    }
}
