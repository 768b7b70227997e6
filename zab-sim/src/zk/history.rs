//! What a client has done and seen, in its order; material for the judgement.

use crate::queue::HostIx;
use crate::zk::wire::{Answer, Request};

/// A request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) session: i64,
    pub(crate) xid: i32,
    pub(crate) request: Request,
    /// When it was sent.
    pub(crate) invoked: u64,
    /// `None`: nobody knows whether it was carried out.
    pub(crate) answered: Option<Answered>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) at: u64,
    pub(crate) zxid: i64,
    pub(crate) code: i32,
    pub(crate) answer: Answer,
}

/// An event of a watch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Told {
    /// The change, or -1 if it was made up by setWatches.
    pub(crate) zxid: i64,
    /// 1 created, 2 deleted, 3 data changed, 4 children changed.
    pub(crate) kind: i32,
    pub(crate) path: String,
}

/// Something that a client saw.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A server has given a session, or its consent to go on with it.
    Attached {
        at: u64,
        session: i64,
        server: HostIx,
        resumed: bool,
    },
    /// An answer to the call of that index.
    Answer(usize),
    Event(Told),
    /// The connection is gone, and with it all watches on the server.
    Lost,
    /// The server says that the session is no more.
    Refused {
        at: u64,
        server: HostIx,
    },
    /// The client has closed its session, or given it up.
    Closed,
    /// All faults have ended.
    Healed {
        at: u64,
    },
    /// A server is restarted or crippled.
    Trouble,
}
