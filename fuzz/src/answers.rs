//! A client's session against whatever comes back.

use std::time::Duration;

use bytes::Bytes;
use zk_client::{
    Acl, Action, AddWatchMode, Create, CreateMode, Event, Instant, Op, Options, ReadOp, Request,
    Session, WatcherType,
};

/// The session is bounded whatever comes: requests, and what is kept of each.
const REQUESTS_MAX: usize = 64;

/// The first byte says how the bytes behind it are cut into pieces, and between which of them
/// connections are lost.
pub fn run(data: &[u8]) {
    let Some((&cut, mut rest)) = data.split_first() else { return };
    let mut options = Options::parse("a,b/r").expect("valid");
    options.requests_max = REQUESTS_MAX;
    options.events_max = 16;
    options.patience = Duration::ZERO;
    let mut now = Instant::ZERO;
    let mut session = Session::new(now, options).expect("valid");
    let mut answered = 0;
    let mut submitted = 0;
    while session.closed().is_none() {
        while let Some(action) = session.poll_action() {
            if let Action::Connect(..) = action {
                session.handle_connected(now);
            }
        }
        for request in requests() {
            submitted += usize::from(session.submit(&request).is_ok());
        }
        let len = session.transmit().len();
        session.transmitted(now, len);
        let piece;
        (piece, rest) = rest.split_at((usize::from(cut) + 1).min(rest.len()));
        match piece {
            [] => session.close(),
            [0xfe, ..] => session.handle_lost(now),
            _ => session.handle_bytes(now, piece),
        }
        if piece.is_empty() && session.closed().is_none() {
            session.handle_lost(now);
        }
        now = session.poll_timeout().map_or(now, |at| at.max(now));
        session.handle_timeout(now);
        while let Some(event) = session.poll_event() {
            answered += usize::from(matches!(event, Event::Answer(..)));
        }
    }
    while let Some(event) = session.poll_event() {
        answered += usize::from(matches!(event, Event::Answer(..)));
    }
    assert_eq!(answered, submitted, "every request is answered once");
}

fn requests() -> Vec<Request> {
    let path = || "/p".to_owned();
    vec![
        Request::Create(Create::new("/p", "x", CreateMode::Persistent)),
        Request::Create(Create::new("/p", "x", CreateMode::Container)),
        Request::Delete { path: path(), version: -1 },
        Request::Exists { path: path(), watch: true },
        Request::GetData { path: path(), watch: true },
        Request::SetData { path: path(), data: None, version: 3 },
        Request::GetAcl { path: path() },
        Request::SetAcl { path: path(), acl: Acl::open(), version: -1 },
        Request::GetChildren { path: path(), watch: true, stat: true },
        Request::GetChildren { path: path(), watch: false, stat: false },
        Request::Sync { path: path() },
        Request::Multi(vec![Op::Check(path(), 1)]),
        Request::MultiRead(vec![ReadOp::GetData(path())]),
        Request::GetConfig { watch: true },
        Request::AddWatch { path: path(), mode: AddWatchMode::Persistent },
        Request::RemoveWatches { path: path(), kind: WatcherType::Any },
        Request::GetEphemerals { prefix: path() },
        Request::GetAllChildrenNumber { path: path() },
        Request::WhoAmI,
        Request::Auth { scheme: "digest".to_owned(), credentials: Bytes::from("a:b") },
    ]
}

#[cfg(test)]
mod tests {
    /// The seeds get as far as answers.
    #[test]
    fn nothing_is_answered_with_nothing() {
        super::run(&[]);
        super::run(&[0]);
        super::run(&[7, 0xff, 0xff]);
    }
}
