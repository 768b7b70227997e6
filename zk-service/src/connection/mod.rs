//! One client connection.
//!
//! Replies go out in the order of the requests: whatever cannot be answered at once, and everything
//! behind it, stands in the connection's queue.

pub(crate) mod budget;
mod carry;
pub(crate) mod entry;
pub(crate) mod note;
pub(crate) mod order;
pub(crate) mod outbox;
pub(crate) mod room;
pub(crate) mod schedule;
pub(crate) mod silence;
pub(crate) mod table;
pub(crate) mod wait;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use zab_proto::Instant;
use zab_sasl::digest_md5::Acceptor;

use crate::audit::HostAddress;
use crate::auth::rules::Rules;
use crate::auth::{self, Access, Ids, Judge};
use crate::connection::budget::EventBytes;
use crate::connection::carry::Carry;
use crate::connection::note::Notes;
use crate::connection::order::{InFlight, Queue, Rearming};
use crate::connection::outbox::{Outbox, compact};
use crate::connection::room::Ticket;
use crate::connection::schedule::Account;
use crate::connection::silence::Hearing;
use crate::connection::wait::Wait;
use crate::protocol::acl::perms;
use crate::protocol::opcode::Opcode;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Nothing known yet: a four-letter word or a handshake comes.
    Greeting,
    /// The handshake waits for a transaction or for the leader's word. Nothing is read.
    Connecting,
    /// In session.
    Open,
    /// Answers what is queued, reads nothing more, then closes.
    Ending,
    /// [`ClientOutput::Close`](zab_proto::ClientOutput::Close) is out.
    Closed,
}

/// Figures of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnStats {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) established_ms: i64,
    pub(crate) last_op: &'static str,
    pub(crate) last_cxid: Option<i32>,
    pub(crate) last_zxid: i64,
    pub(crate) last_response: Instant,
    pub(crate) last_latency_ms: u64,
    pub(crate) min_latency_ms: u64,
    pub(crate) max_latency_ms: u64,
    pub(crate) total_latency_ms: u64,
    pub(crate) replies: u64,
}

impl ConnStats {
    /// `crst`.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.established_ms);
    }

    fn new(established_ms: i64) -> Self {
        Self {
            received: 0,
            sent: 0,
            established_ms,
            last_op: "NA",
            last_cxid: None,
            last_zxid: -1,
            last_response: Instant::ZERO,
            last_latency_ms: 0,
            min_latency_ms: 0,
            max_latency_ms: 0,
            total_latency_ms: 0,
            replies: 0,
        }
    }

    #[inline]
    pub(crate) fn replied(&mut self, now: Instant, ms: u64, op: Opcode, xid: i32, last_zxid: i64) {
        self.min_latency_ms = if self.replies == 0 { ms } else { self.min_latency_ms.min(ms) };
        self.max_latency_ms = self.max_latency_ms.max(ms);
        self.total_latency_ms += ms;
        self.last_latency_ms = ms;
        self.replies += 1;
        self.sent += 1;
        self.last_op = op.short_name();
        if xid >= 0 {
            self.last_cxid = Some(xid);
        }
        self.last_zxid = last_zxid;
        self.last_response = now;
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) remote: SocketAddr,
    pub(crate) state: Life,
    pub(crate) session: i64,
    pub(crate) timeout_ms: i32,
    /// Whether the client knows the `readOnly` byte of the handshake.
    pub(crate) wants_read_only: bool,
    /// When the handshake came.
    pub(crate) connecting_since: Instant,
    /// Re-attaching on a learner: the leader has confirmed the session.
    pub(crate) confirmed: bool,
    /// Re-attaching on a learner: everything before is applied here.
    pub(crate) caught_up: bool,
    /// When its session was last touched by this connection.
    pub(crate) touched_at: Option<Instant>,
    /// When the session's present touch runs out, as the tracker rounds it (leader), or the number
    /// of the report that has it (learner).
    pub(crate) touched: u64,
    /// Entries of a `vector<Id>`.
    pub(crate) ids: Vec<u8>,
    /// Its login by SASL, once it has tried.
    pub(crate) sasl: Option<Box<Acceptor>>,
    /// Whether it may read nodes with the ACL asked about last, and how many bytes of identities it
    /// had then: a transaction may have a million events about nodes that share an ACL.
    may_read: (Weak<Rules>, usize, bool),
    pub(crate) queue: Queue,
    /// What the audit log will need of the writes in it, if there is one.
    pub(crate) notes: Option<Box<Notes>>,
    /// Records of the queued requests, in order, from `kept_at` on.
    kept: Vec<u8>,
    kept_at: usize,
    /// What is to be sent; after appending call [`entry::Entry::wrote`].
    pub(crate) out: Outbox,
    events: EventBytes,
    /// When anything came of it.
    heard: Hearing,
    /// Bytes that the driver keeps for us, since they were left unconsumed.
    pub(crate) unread: usize,
    /// What this connection stands for in [`table::Clients::kept_len`].
    pub(crate) charged: usize,
    /// Why it waits for itself, if it does: for its output or its queue to become shorter.
    pub(crate) wait: Option<Wait>,
    /// Its next request waits for room, or has waited for it: since when, among all that do.
    pub(crate) ticket: Option<Ticket>,
    /// Its next request waits until fewer of all clients are under way: its place, and since when.
    pub(crate) throttle_ticket: Option<Ticket>,
    pub(crate) throttled_since: Option<Instant>,
    /// The throttle of handshakes has let it in.
    pub(crate) admitted: bool,
    /// What this connection stands for in [`table::Shared::under_way`] and of large requests.
    counted: (usize, usize),
    /// How far the setWatches at the head of its queue has come.
    pub(crate) rearming: Option<Rearming>,
    /// Its share of the server's work.
    pub(crate) account: Account,
    /// How it comes through a change of the role.
    pub(crate) carry: Carry,
    pub(crate) stats: ConnStats,
}

impl Client {
    fn new(remote: SocketAddr, wall_ms: i64) -> Self {
        let mut ids = Vec::new();
        auth::add_id(&mut ids, "ip", &HostAddress(remote.ip()).to_string());
        Self {
            remote,
            state: Life::Greeting,
            session: 0,
            timeout_ms: 0,
            wants_read_only: false,
            connecting_since: Instant::ZERO,
            confirmed: false,
            caught_up: false,
            touched_at: None,
            touched: u64::MAX,
            ids,
            sasl: None,
            may_read: (Weak::new(), 0, false),
            queue: Queue::default(),
            notes: None,
            kept: Vec::new(),
            kept_at: 0,
            out: Outbox::default(),
            events: EventBytes::default(),
            heard: Hearing::new(Instant::ZERO),
            unread: 0,
            charged: 0,
            wait: None,
            ticket: None,
            throttle_ticket: None,
            throttled_since: None,
            admitted: false,
            counted: (0, 0),
            rearming: None,
            account: Account::default(),
            carry: Carry::default(),
            stats: ConnStats::new(wall_ms),
        }
    }

    /// The session's time-out on this connection.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or(0))
    }

    /// Whether it hears of what happens to nodes with this ACL.
    pub(crate) fn may_read(&mut self, access: &Access, acl: &Arc<Rules>) -> bool {
        if acl.of_everybody() & perms::READ != 0 {
            return true;
        }
        let (known, ids_len, permitted) = &self.may_read;
        if Weak::as_ptr(known) == Arc::as_ptr(acl) && *ids_len == self.ids.len() {
            return *permitted;
        }
        let permitted = Judge::new(access, Ids::new(&self.ids)).permits(acl, perms::READ);
        self.may_read = (Arc::downgrade(acl), self.ids.len(), permitted);
        permitted
    }

    /// Bytes not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// Keeps a record for later; it comes back from [`Self::copy_kept`] in the same order.
    pub(crate) fn keep(&mut self, record: &[u8]) -> usize {
        self.kept.extend_from_slice(record);
        record.len()
    }

    /// Bytes of records that are kept.
    pub(crate) fn kept_len(&self) -> usize {
        self.kept.len() - self.kept_at
    }

    /// The same without those of writes, which are under way.
    pub(crate) fn kept_here_len(&self) -> usize {
        self.kept_len().saturating_sub(self.carry.kept_writes_len)
    }

    /// Takes the request that is answered next from the queue; its kept record is to be taken, too.
    pub(crate) fn pop(&mut self) -> Option<InFlight> {
        let request = self.queue.pop()?;
        if self.carry.again > self.queue.len() {
            self.carry.again -= 1;
            self.carry.again_len -= request.kept_len();
        }
        Some(request)
    }

    /// Copies the next kept record of `len` bytes to `record`.
    pub(crate) fn copy_kept(&self, len: usize, record: &mut Vec<u8>) {
        record.clear();
        record.extend_from_slice(&self.kept[self.kept_at..self.kept_at + len]);
    }

    /// The next kept record, of `len` bytes, is done with, if there is still one.
    pub(crate) fn drop_kept(&mut self, len: usize) {
        self.kept_at = self.kept.len().min(self.kept_at + len);
        compact(&mut self.kept, &mut self.kept_at);
    }

    /// An event of `len` bytes of the transaction `zxid` is about to be appended to `out`. Returns the
    /// bytes of events that were unsent before that transaction.
    pub(crate) fn event(&mut self, zxid: i64, len: usize) -> usize {
        let sent = self.out.sent_len();
        self.events.queued(zxid, len, sent, sent + self.unsent() as u64)
    }

    /// Bytes that are kept for this connection alone, except for its watches.
    fn len_bytes(&self) -> usize {
        self.unread
            + self.kept.len()
            + self.out.own_len()
            + self.ids.len()
            + self.queue.len() * size_of::<InFlight>()
            + self.notes.as_ref().map_or(0, |notes| notes.len_bytes())
    }

    fn send(&mut self, buf: &mut [u8]) -> usize {
        self.out.send(buf)
    }

    fn drop_everything(&mut self) {
        self.carry = Carry::default();
        self.queue = Queue::default();
        self.notes = None;
        self.kept = Vec::new();
        self.kept_at = 0;
        self.ids = Vec::new();
        self.rearming = None;
    }
}
