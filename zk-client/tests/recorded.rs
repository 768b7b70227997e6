//! What Apache ZooKeeper was seen to say, and what was said to it: the client's bytes are those of
//! the recording, and it understands every answer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use zab_proto::wire::jute::Reader;
use zk_client::{
    Acl, Action, AddWatchMode, Answer, Code, Create, CreateMode, Event, Instant, Op, Options,
    ReadOp, Request, Session, WatcherType,
};

const NOW: Instant = Instant::ZERO;

struct Side {
    session: Session,
    /// What the client sent that has not been compared, frame by frame.
    sent: VecDeque<Vec<u8>>,
    /// Xids of the recording and ours, of what is not answered.
    xids: VecDeque<([u8; 4], [u8; 4])>,
    requests: usize,
    answers: Vec<Result<Answer, Code>>,
    watch_events: usize,
}

impl Side {
    fn new() -> Self {
        let mut options = Options::parse("server").unwrap();
        options.session_timeout = Duration::from_secs(10);
        let mut session = Session::new(NOW, options).unwrap();
        assert!(matches!(session.poll_action(), Some(Action::Connect(..))));
        session.handle_connected(NOW);
        let mut side = Self {
            session,
            sent: VecDeque::new(),
            xids: VecDeque::new(),
            requests: 0,
            answers: Vec::new(),
            watch_events: 0,
        };
        side.take_output();
        side
    }

    fn take_output(&mut self) {
        let out = self.session.transmit().to_vec();
        self.session.transmitted(NOW, out.len());
        let mut rest = &out[..];
        while !rest.is_empty() {
            let len = 4 + u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
            self.sent.push_back(rest[..len].to_vec());
            rest = &rest[len..];
        }
    }

    /// A frame of the recorded client: ours says the same.
    fn client_frame(&mut self, recorded: &[u8]) {
        if self.requests > 0 || self.sent.is_empty() {
            match parse_request(&recorded[8..]) {
                Some(request) => drop(self.session.submit(&request).unwrap()),
                None if recorded[8..12] == (-11_i32).to_be_bytes() => self.session.close(),
                // What a client of ours never says: its answer is not for us, either.
                None => {
                    self.xids.push_back((*recorded[4..].first_chunk().unwrap(), [0; 4]));
                    return;
                }
            }
            self.take_output();
        }
        let ours = self.sent.pop_front().unwrap();
        if self.requests == 0 {
            assert_eq!(ours, recorded, "the request for a session");
        } else {
            assert_eq!(ours[..4], recorded[..4]);
            assert_eq!(ours[8..], recorded[8..], "{}", self.requests);
            let xid = |frame: &[u8]| *frame[4..].first_chunk().unwrap();
            self.xids.push_back((xid(recorded), xid(&ours)));
        }
        self.requests += 1;
    }

    /// A frame of the recorded server, under our xid.
    fn server_frame(&mut self, recorded: &[u8]) {
        let mut frame = recorded.to_vec();
        if !self.session.is_connected() {
            self.session.handle_bytes(NOW, &frame);
            assert!(self.session.is_connected());
        } else if frame[4..8] == [0xff; 4] {
            self.session.handle_bytes(NOW, &frame);
        } else {
            let (recorded, ours) = self.xids.pop_front().unwrap();
            // A ping is answered under the xid of pings.
            if ours == [0; 4] {
                return;
            }
            assert_eq!(frame[4..8], recorded);
            frame[4..8].copy_from_slice(&ours);
            self.session.handle_bytes(NOW, &frame);
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Answer(_, answer) => self.answers.push(answer.map_err(|error| error.code)),
                Event::Watch(_) => self.watch_events += 1,
                Event::Connected { read_only, .. } => assert!(!read_only),
                Event::Closed(code) => assert_eq!(code, Code::Ok),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn parse_request(bytes: &[u8]) -> Option<Request> {
    let mut reader = Reader::new(bytes);
    let opcode = reader.i32().ok()?;
    let request = match opcode {
        14 => return parse_multi(&mut reader).map(Request::Multi),
        22 => return parse_multi_read(&mut reader).map(Request::MultiRead),
        107 => return Some(Request::WhoAmI),
        11 => return None,
        _ => {
            let path = reader.string().ok()??.into_owned();
            zk_client::validate_path(&path)
                .or_else(|reason| if path.ends_with('/') { Ok(()) } else { Err(reason) })
                .ok()?;
            match opcode {
                1 | 15 | 19 | 21 => Request::Create(parse_create(opcode, path, &mut reader)?),
                2 => Request::Delete { path, version: reader.i32().ok()? },
                3 => Request::Exists { path, watch: reader.bool().ok()? },
                4 => Request::GetData { path, watch: reader.bool().ok()? },
                5 => {
                    let data = reader.buffer().ok()?.map(Bytes::copy_from_slice);
                    Request::SetData { path, data, version: reader.i32().ok()? }
                }
                6 => Request::GetAcl { path },
                8 => Request::GetChildren { path, watch: reader.bool().ok()?, stat: false },
                9 => Request::Sync { path },
                12 => Request::GetChildren { path, watch: reader.bool().ok()?, stat: true },
                17 => Request::CheckWatches { path, kind: parse_type(reader.i32().ok()?)? },
                18 => Request::RemoveWatches { path, kind: parse_type(reader.i32().ok()?)? },
                103 => Request::GetEphemerals { prefix: path },
                104 => Request::GetAllChildrenNumber { path },
                106 => {
                    let mode = match reader.i32().ok()? {
                        0 => AddWatchMode::Persistent,
                        1 => AddWatchMode::PersistentRecursive,
                        _ => return None,
                    };
                    Request::AddWatch { path, mode }
                }
                _ => return None,
            }
        }
    };
    Some(request)
}

fn parse_create(opcode: i32, path: String, reader: &mut Reader<'_>) -> Option<Create> {
    let data = reader.buffer().ok()?.map(Bytes::copy_from_slice);
    let mut acl = Vec::new();
    for _ in 0..reader.vector().ok()?? {
        let perms = reader.i32().ok()?;
        let (scheme, id) = (reader.string().ok()??, reader.string().ok()??);
        acl.push(Acl::new(perms, &scheme, &id));
    }
    let flags = reader.i32().ok()?;
    let ttl = if opcode == 21 { u64::try_from(reader.i64().ok()?).ok()? } else { 0 };
    let ttl = Duration::from_millis(ttl);
    let mode = match (opcode, flags) {
        (1 | 15, 0) => CreateMode::Persistent,
        (1 | 15, 1) => CreateMode::Ephemeral,
        (1 | 15, 2) => CreateMode::PersistentSequential,
        (1 | 15, 3) => CreateMode::EphemeralSequential,
        (19, 4) => CreateMode::Container,
        (21, 5) => CreateMode::PersistentWithTtl(ttl),
        (21, 6) => CreateMode::PersistentSequentialWithTtl(ttl),
        _ => return None,
    };
    Some(Create { path, data, acl, mode, stat: opcode == 15 })
}

fn parse_type(number: i32) -> Option<WatcherType> {
    Some(match number {
        1 => WatcherType::Children,
        2 => WatcherType::Data,
        3 => WatcherType::Any,
        4 => WatcherType::Persistent,
        5 => WatcherType::PersistentRecursive,
        _ => return None,
    })
}

fn parse_multi(reader: &mut Reader<'_>) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    loop {
        let (kind, done, _) = (reader.i32().ok()?, reader.bool().ok()?, reader.i32().ok()?);
        if done {
            return Some(ops);
        }
        let path = reader.string().ok()??.into_owned();
        ops.push(match kind {
            1 | 15 | 19 | 21 => Op::Create(parse_create(kind, path, reader)?),
            2 => Op::Delete(path, reader.i32().ok()?),
            5 => {
                let data = reader.buffer().ok()?.map(Bytes::copy_from_slice);
                Op::SetData(path, data, reader.i32().ok()?)
            }
            13 => Op::Check(path, reader.i32().ok()?),
            _ => return None,
        });
    }
}

fn parse_multi_read(reader: &mut Reader<'_>) -> Option<Vec<ReadOp>> {
    let mut ops = Vec::new();
    loop {
        let (kind, done, _) = (reader.i32().ok()?, reader.bool().ok()?, reader.i32().ok()?);
        if done {
            return Some(ops);
        }
        let path = reader.string().ok()??.into_owned();
        ops.push(match (kind, reader.bool().ok()?) {
            (4, false) => ReadOp::GetData(path),
            (8, false) => ReadOp::GetChildren(path),
            _ => return None,
        });
    }
}

/// Holds the conversation again, on each connection of it; what they were told.
fn replay(text: &str) -> Vec<Side> {
    let mut sides: Vec<(String, Side)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.split(' ');
        let (name, way, hex) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
        let Some(hex) = hex.filter(|hex| !["end", "silence"].contains(hex)) else { continue };
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        if sides.iter().all(|(known, _)| known != name) {
            sides.push((name.to_owned(), Side::new()));
        }
        let (_, side) = sides.iter_mut().find(|(known, _)| known == name).unwrap();
        match way {
            ">" => side.client_frame(&bytes),
            _ => side.server_frame(&bytes),
        }
    }
    assert!(sides.iter().all(|(_, side)| side.session.closed() == Some(Code::Ok)));
    sides.into_iter().map(|(_, side)| side).collect()
}

#[test]
fn crud() {
    let sides = replay(include_str!("recorded/crud.txt"));
    let answers = &sides[0].answers;
    assert_eq!(answers.len(), 38);
    assert_eq!(answers[0], Ok(Answer::Created("/a".into(), None)));
    assert!(matches!(&answers[1], Ok(Answer::Created(path, Some(stat)))
        if path == "/a/b" && stat.czxid == 3));
    assert!(matches!(&answers[3], Ok(Answer::Data(Some(data), stat))
        if data == "hello" && stat.num_children == 2));
    assert!(matches!(&answers[5], Ok(Answer::Data(None, _))), "null is not empty");
    assert!(matches!(&answers[12], Ok(Answer::Stat(stat)) if stat.version == 2));
    assert_eq!(answers[16], Ok(Answer::Synced("/a".into())));
    assert_eq!(sides[0].session.last_zxid(), 0xe, "the latest that was seen");
}

#[test]
fn multi() {
    let sides = replay(include_str!("recorded/multi.txt"));
    let answers = &sides[0].answers;
    let Ok(Answer::Multi(results)) = &answers[0] else { panic!("{:?}", answers[0]) };
    assert!(matches!(
        &results[..],
        [
            Ok(Answer::Created(_, None)),
            Ok(Answer::Created(_, Some(_))),
            Ok(Answer::Stat(_)),
            Ok(Answer::Done),
            Ok(Answer::Done)
        ]
    ));
    assert_eq!(answers[1], Ok(Answer::Multi(vec![])));
    let failed = [Err(Code::Ok), Err(Code::BadVersion), Err(Code::RuntimeInconsistency)];
    assert_eq!(answers[2], Ok(Answer::Multi(failed.to_vec())));
    assert!(answers.len() >= 20, "{}", answers.len());
}

#[test]
fn watches() {
    let sides = replay(include_str!("recorded/watches-persistent.txt"));
    let watcher = &sides[0];
    // 18 of the server, and one for each that was removed.
    assert_eq!(watcher.watch_events, 18 + 5);
    // All were removed or used up, except that of the node that never was.
    assert_eq!(watcher.session.watches(), 1);
}

#[test]
fn kinds_of_nodes() {
    let sides = replay(include_str!("recorded/create-modes.txt"));
    let answers = &sides[0].answers;
    assert_eq!(answers[1], Ok(Answer::Created("/p/s-0000000000".into(), None)));
    assert_eq!(answers[3], Ok(Answer::Created("/p/0000000002".into(), None)));
    assert!(answers.contains(&Err(Code::Unimplemented)), "a time-to-live is not allowed");
}
