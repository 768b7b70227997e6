//! What a connection has asked and not been answered yet.
//!
//! Replies go out in the order of the requests: whatever cannot be answered at once, and everything
//! behind it, stands in the connection's queue.

use std::collections::VecDeque;

use zab_proto::{Instant, Zxid};

use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;

/// What a place in the queue waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Awaiting {
    /// Its transaction; on the leader the zxid is known. With `kept`, its record is kept, so that it
    /// can be submitted again to the next leader. With `stat_parts`, it is a multi, and the connection knows which
    /// of its parts are answered with a stat.
    Write { op: Opcode, zxid: Option<Zxid>, len: usize, kept: bool, stat_parts: bool },
    /// The end of a sync.
    Sync { done: bool, len: usize },
    /// Only the requests before it; its record is kept. `work` is about what it will cost.
    Read { op: Opcode, len: usize, work: u64 },
    /// Only the requests before it; the answer is known.
    Reply(Answer),
}

/// An answer that depends on nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) struct Answer {
    pub(in crate::service) code: Code,
    /// `None`: the last applied zxid.
    pub(in crate::service) zxid: Option<i64>,
    pub(in crate::service) body: Body,
    /// Whether the connection is closed after it.
    pub(in crate::service) close: bool,
    /// Whether it is the end of a session that only this server knows.
    pub(in crate::service) ends_session: bool,
}

/// The body of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Body {
    /// There is none.
    None,
    /// A null buffer.
    NullToken,
    /// A buffer of this length, which the connection keeps.
    Token(usize),
}

impl Answer {
    /// A refusal that does not end the connection.
    pub(in crate::service) const fn failed(code: Code) -> Self {
        Self { code, zxid: None, body: Body::None, close: false, ends_session: false }
    }

    /// A refusal that ends the connection.
    pub(in crate::service) const fn last(code: Code) -> Self {
        Self { close: true, ..Self::failed(code) }
    }
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct InFlight {
    pub(in crate::service) xid: i32,
    pub(in crate::service) received: Instant,
    /// How much of the connection's identities it had when it came.
    pub(in crate::service) ids_len: usize,
    pub(in crate::service) awaiting: Awaiting,
}

impl InFlight {
    fn read_work(&self) -> u64 {
        match self.awaiting {
            Awaiting::Read { work, .. } => work,
            Awaiting::Write { .. } | Awaiting::Sync { .. } | Awaiting::Reply(_) => 0,
        }
    }

    pub(super) fn write_len(&self) -> usize {
        match self.awaiting {
            Awaiting::Write { len, .. } => len,
            Awaiting::Sync { .. } | Awaiting::Read { .. } | Awaiting::Reply(_) => 0,
        }
    }

    /// Bytes of its record, kept or not.
    fn record_len(&self) -> usize {
        match self.awaiting {
            Awaiting::Write { len, .. }
            | Awaiting::Sync { len, .. }
            | Awaiting::Read { len, .. } => len,
            Awaiting::Reply(_) => 0,
        }
    }

    /// Bytes of its record that are kept.
    pub(super) fn kept_len(&self) -> usize {
        match self.awaiting {
            Awaiting::Write { kept: false, .. } => 0,
            Awaiting::Reply(Answer { body: Body::Token(len), .. }) => len,
            Awaiting::Reply(_) => 0,
            Awaiting::Write { len, .. }
            | Awaiting::Sync { len, .. }
            | Awaiting::Read { len, .. } => len,
        }
    }
}

/// The requests of a connection that are not answered yet, oldest first.
///
/// How many there are of each kind is counted along, since it is asked with each request that comes,
/// and there may be a thousand in the queue.
#[derive(Debug, Default)]
pub(in crate::service) struct Queue {
    requests: VecDeque<InFlight>,
    reads: usize,
    writes: usize,
    syncs: usize,
    replies: usize,
    reads_work: u64,
    /// Records of this many bytes and more are counted in `large_len`.
    pub(in crate::service) large_from: Option<usize>,
    large_len: usize,
}

impl Queue {
    pub(in crate::service) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(in crate::service) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The request that is answered next.
    pub(in crate::service) fn front(&self) -> Option<&InFlight> {
        self.requests.front()
    }

    pub(super) fn push(&mut self, request: InFlight) {
        *self.count(request.awaiting) += 1;
        self.reads_work += request.read_work();
        self.large_len += self.large(&request);
        self.requests.push_back(request);
    }

    /// Takes the request that is answered next.
    pub(super) fn pop(&mut self) -> Option<InFlight> {
        let request = self.requests.pop_front()?;
        *self.count(request.awaiting) -= 1;
        self.reads_work -= request.read_work();
        self.large_len -= self.large(&request);
        Some(request)
    }

    /// Bytes of a large request; nothing of another one.
    fn large(&self, request: &InFlight) -> usize {
        let len = request.record_len();
        self.large_from.filter(|from| len >= *from).map_or(0, |_| len)
    }

    /// Bytes of large requests.
    pub(super) fn large_len(&self) -> usize {
        self.large_len
    }

    /// A sync has ended: the oldest that has not.
    pub(in crate::service) fn end_sync(&mut self) {
        let oldest = self.requests.iter_mut().find_map(|request| match &mut request.awaiting {
            Awaiting::Sync { done, .. } if !*done => Some(done),
            Awaiting::Write { .. }
            | Awaiting::Sync { .. }
            | Awaiting::Read { .. }
            | Awaiting::Reply(_) => None,
        });
        if let Some(done) = oldest {
            *done = true;
        }
    }

    /// Whether a write must wait until what is in front of it is answered: a sync, a read whose turn it is, or
    /// more reads than so many, or than so much work.
    pub(in crate::service) fn holds_write(&self, reads_max: usize, work_max: u64) -> bool {
        self.syncs > 0 || self.is_reading() || self.reads > reads_max || self.reads_work > work_max
    }

    /// Writes that wait for their transactions.
    pub(in crate::service) fn writes(&self) -> usize {
        self.writes
    }

    /// Bytes of the writes.
    pub(super) fn writes_len(&self) -> usize {
        self.requests.iter().map(InFlight::write_len).sum()
    }

    /// All requests, the oldest first.
    pub(in crate::service) fn iter(&self) -> impl DoubleEndedIterator<Item = &InFlight> {
        self.requests.iter()
    }

    /// The request that so many are from to the end of the queue, itself included.
    pub(super) fn back(&self, count: usize) -> Option<&InFlight> {
        self.requests.get(self.requests.len().checked_sub(count)?)
    }

    /// A write, found as by [`back`](Self::back), was proposed with this zxid, or
    /// forwarded.
    pub(super) fn resubmitted(&mut self, count: usize, proposed: Option<Zxid>) {
        let at = self.requests.len().checked_sub(count);
        let request = at.and_then(|at| self.requests.get_mut(at));
        if let Some(InFlight { awaiting: Awaiting::Write { zxid, .. }, .. }) = request {
            *zxid = proposed;
        }
    }

    /// Whether the next answer is to a read that waits for its turn only.
    pub(in crate::service) fn is_reading(&self) -> bool {
        self.front().is_some_and(|first| matches!(first.awaiting, Awaiting::Read { .. }))
    }

    /// The counter of a kind.
    fn count(&mut self, awaiting: Awaiting) -> &mut usize {
        match awaiting {
            Awaiting::Write { .. } => &mut self.writes,
            Awaiting::Sync { .. } => &mut self.syncs,
            Awaiting::Read { .. } => &mut self.reads,
            Awaiting::Reply(_) => &mut self.replies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted() {
        let mut queue = Queue::default();
        let answer = Awaiting::Reply(Answer::failed(Code::OK));
        let kinds = [
            Awaiting::Write {
                op: Opcode::Create,
                zxid: None,
                len: 5,
                kept: true,
                stat_parts: false,
            },
            Awaiting::Sync { done: false, len: 1 },
            Awaiting::Read { op: Opcode::Exists, len: 1, work: 10 },
            Awaiting::Sync { done: false, len: 1 },
            answer,
        ];
        for awaiting in kinds.into_iter().cycle().take(15) {
            queue.push(InFlight { xid: 0, received: Instant::ZERO, ids_len: 0, awaiting });
        }
        assert_eq!((queue.len(), queue.writes(), queue.syncs, queue.reads), (15, 3, 6, 3));
        assert_eq!((queue.writes_len(), queue.reads_work), (15, 30));
        queue.pop();
        assert_eq!((queue.writes(), queue.syncs, queue.reads), (2, 6, 3));
        queue.end_sync();
        let front = queue.pop().map(|request| request.awaiting);
        assert_eq!(front, Some(Awaiting::Sync { done: true, len: 1 }));
        assert!(queue.is_reading());
        queue.pop();
        assert_eq!(queue.front().map(|next| next.awaiting), Some(kinds[3]), "one only has ended");
        while queue.pop().is_some() {}
        assert_eq!(queue.reads_work, 0);
        assert_eq!((queue.writes(), queue.syncs, queue.reads), (0, 0, 0));
    }
}
