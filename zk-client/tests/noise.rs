//! Answers of a server that were damaged on the way: whatever they are, every request is answered
//! once, and nothing panics. The fuzzer `answers` searches further.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use zk_client::{
    Action, AddWatchMode, Create, CreateMode, Event, Instant, Op, Options, ReadOp, Request,
    Session, WatcherType,
};

const RECORDED: [&str; 4] = [
    include_str!("recorded/crud.txt"),
    include_str!("recorded/multi.txt"),
    include_str!("recorded/watches-persistent.txt"),
    include_str!("recorded/create-modes.txt"),
];

/// Frames of servers, with their lengths.
fn frames() -> Vec<Vec<u8>> {
    let lines = RECORDED.iter().flat_map(|text| text.lines());
    let hex = lines.filter_map(|line| line.split_once(" < ")).map(|(_, hex)| hex);
    let byte = |hex: &str, i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    hex.filter(|hex| !["end", "silence"].contains(hex))
        .map(|hex| (0..hex.len() / 2).map(|i| byte(hex, i)).collect())
        .collect()
}

fn requests() -> Vec<Request> {
    let path = || "/p".to_owned();
    vec![
        Request::Create(Create::new("/p", "x", CreateMode::Persistent)),
        Request::Exists { path: path(), watch: true },
        Request::GetData { path: path(), watch: true },
        Request::GetChildren { path: path(), watch: true, stat: true },
        Request::GetAcl { path: path() },
        Request::Multi(vec![Op::Check(path(), 1)]),
        Request::MultiRead(vec![ReadOp::GetData(path())]),
        Request::AddWatch { path: path(), mode: AddWatchMode::Persistent },
        Request::RemoveWatches { path: path(), kind: WatcherType::Any },
        Request::GetEphemerals { prefix: path() },
        Request::WhoAmI,
        Request::Auth { scheme: "digest".to_owned(), credentials: "a:b".into() },
    ]
}

#[test]
fn every_request_is_answered_once_whatever_comes() {
    let frames = frames();
    let greeting = frames[0].clone();
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % bound
    };
    let mut answered_well = 0;
    for _ in 0..3000 {
        let mut options = Options::parse("a,b/r").unwrap();
        options.patience = Duration::ZERO;
        options.requests_max = 40;
        let mut now = Instant::ZERO;
        let mut session = Session::new(now, options).unwrap();
        let (mut submitted, mut answered, mut xid) = (0, 0, 0_i32);
        for _ in 0..12 {
            while let Some(action) = session.poll_action() {
                if let Action::Connect(..) = action {
                    session.handle_connected(now);
                    session.handle_bytes(now, &greeting);
                }
            }
            for request in requests() {
                submitted += usize::from(session.submit(&request).is_ok());
            }
            let len = session.transmit().len();
            session.transmitted(now, len);
            let mut frame = frames[below(frames.len())].clone();
            // Mostly for the request whose turn it is.
            if below(8) > 0 && frame[4] != 0xff {
                xid += 1;
                frame[4..8].copy_from_slice(&xid.to_be_bytes());
            }
            for _ in 0..below(3) {
                let at = below(frame.len());
                frame[at] = frame[at].wrapping_add(u8::try_from(1 + below(255)).unwrap());
            }
            let cut = below(frame.len());
            session.handle_bytes(now, &frame[..cut]);
            session.handle_bytes(now, &frame[cut..]);
            now = session.poll_timeout().filter(|_| below(4) == 0).unwrap_or(now);
            session.handle_timeout(now);
            while let Some(event) = session.poll_event() {
                answered += usize::from(matches!(event, Event::Answer(..)));
                answered_well += usize::from(matches!(event, Event::Answer(_, Ok(_))));
            }
        }
        session.close();
        session.handle_lost(now);
        while let Some(event) = session.poll_event() {
            answered += usize::from(matches!(event, Event::Answer(..)));
        }
        assert_eq!(answered, submitted);
    }
    assert!(answered_well > 300, "{answered_well}");
}
