//! One client connection.
//!
//! Replies go out in the order of the requests: whatever cannot be answered at once, and everything
//! behind it, stands in the connection's queue.

pub(super) mod budget;
mod carry;
pub(super) mod entry;
pub(super) mod figures;
mod note;
pub(super) mod order;
mod outbox;
pub(super) mod room;
pub(super) mod schedule;
mod silence;
mod stat_parts;
pub(super) mod table;
pub(super) mod wait;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use zab_proto::Instant;
use zab_sasl::digest_md5::Acceptor;

use crate::audit::HostAddress;
use crate::auth::rules::Rules;
use crate::auth::{self, Access, Ids, Judge};
use crate::protocol::acl::perms;
use crate::service::connection::budget::EventBytes;
use crate::service::connection::carry::Carry;
use crate::service::connection::figures::ConnStats;
use crate::service::connection::note::Notes;
use crate::service::connection::order::{InFlight, Queue};
use crate::service::connection::outbox::{Outbox, compact};
use crate::service::connection::room::Ticket;
use crate::service::connection::schedule::Account;
use crate::service::connection::silence::Hearing;
use crate::service::connection::stat_parts::StatParts;
use crate::service::connection::wait::Wait;
use crate::service::read::Progress;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Life {
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

/// One connection.
#[derive(Debug)]
pub(in crate::service) struct Client {
    pub(in crate::service) remote: SocketAddr,
    /// It is encrypted.
    pub(in crate::service) is_secure: bool,
    pub(in crate::service) state: Life,
    pub(in crate::service) session: i64,
    pub(in crate::service) timeout_ms: i32,
    /// Whether the client knows the `readOnly` byte of the handshake.
    pub(in crate::service) wants_read_only: bool,
    /// When the handshake came.
    pub(in crate::service) connecting_since: Instant,
    /// Re-attaching: the leader has confirmed the session.
    pub(in crate::service) confirmed: bool,
    /// Re-attaching: everything before is applied here.
    pub(in crate::service) caught_up: bool,
    /// When its session was last touched by this connection.
    pub(in crate::service) touched_at: Option<Instant>,
    /// When the session's present touch runs out, as the tracker rounds it (leader), or the number
    /// of the report that has it (learner).
    pub(in crate::service) touched: u64,
    /// Entries of a `vector<Id>`.
    pub(in crate::service) ids: Vec<u8>,
    /// Its login by SASL, once it has tried.
    pub(in crate::service) sasl: Option<Box<Acceptor>>,
    /// Whether it may read nodes with the ACL asked about last, and how many bytes of identities it
    /// had then: a transaction may have a million events about nodes that share an ACL.
    may_read: (Weak<Rules>, usize, bool),
    pub(in crate::service) queue: Queue,
    /// What the audit log will need of the writes in it, if there is one.
    notes: Option<Box<Notes>>,
    /// Which parts of the multis in it are answered with a stat.
    stat_parts: Option<Box<StatParts>>,
    /// Records of the queued requests, in order, from `kept_at` on.
    kept: Vec<u8>,
    kept_at: usize,
    /// What is to be sent; after appending call [`entry::Entry::wrote`].
    pub(in crate::service) out: Outbox,
    events: EventBytes,
    /// When anything came of it.
    heard: Hearing,
    /// Bytes that the driver keeps for us, since they were left unconsumed.
    unread: usize,
    /// What this connection stands for in [`table::Clients::kept_len`].
    charged: usize,
    /// Why it waits for itself, if it does: for its output or its queue to become shorter.
    pub(in crate::service) wait: Option<Wait>,
    /// Its next request waits for room, or has waited for it: since when, among all that do.
    pub(in crate::service) ticket: Option<Ticket>,
    /// Its next request waits until fewer of all clients are under way: its place, and since when.
    pub(in crate::service) throttled: Option<(Ticket, Instant)>,
    /// The throttle of handshakes has let it in.
    pub(in crate::service) admitted: bool,
    /// What this connection stands for in [`table::Shared::under_way`] and of large requests.
    counted: (usize, usize),
    /// What is done of the read at the head of its queue, if it has more pieces.
    pub(in crate::service) progress: Progress,
    /// Its share of the server's work.
    pub(in crate::service) account: Account,
    /// How it comes through a change of the role.
    pub(in crate::service) carry: Carry,
    stats: ConnStats,
}

impl Client {
    fn new(remote: SocketAddr, wall_ms: i64) -> Self {
        let mut ids = Vec::new();
        auth::add_id(&mut ids, "ip", &HostAddress(remote.ip()).to_string());
        Self {
            remote,
            is_secure: false,
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
            stat_parts: None,
            kept: Vec::new(),
            kept_at: 0,
            out: Outbox::default(),
            events: EventBytes::default(),
            heard: Hearing::new(Instant::ZERO),
            unread: 0,
            charged: 0,
            wait: None,
            ticket: None,
            throttled: None,
            admitted: false,
            counted: (0, 0),
            progress: Progress::default(),
            account: Account::default(),
            carry: Carry::default(),
            stats: ConnStats::new(wall_ms),
        }
    }

    /// The session's time-out on this connection.
    pub(in crate::service) fn timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or(0))
    }

    /// Whether it hears of what happens to nodes with this ACL.
    pub(in crate::service) fn may_read(&mut self, access: &Access, acl: &Arc<Rules>) -> bool {
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
    pub(in crate::service) fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// Keeps a record for later; it comes back from [`Self::copy_kept`] in the same order.
    pub(in crate::service) fn keep(&mut self, record: &[u8]) -> usize {
        self.kept.extend_from_slice(record);
        record.len()
    }

    /// Bytes of records that are kept.
    fn kept_len(&self) -> usize {
        self.kept.len() - self.kept_at
    }

    /// The same without those of writes, which are under way.
    pub(in crate::service) fn kept_here_len(&self) -> usize {
        self.kept_len().saturating_sub(self.carry.kept_writes_len)
    }

    /// Takes the request that is answered next from the queue; its kept record is to be taken, too.
    pub(in crate::service) fn pop(&mut self) -> Option<InFlight> {
        let request = self.queue.pop()?;
        if self.carry.again > self.queue.len() {
            self.carry.again -= 1;
            self.carry.again_len -= request.kept_len();
        }
        Some(request)
    }

    /// Copies the next kept record of `len` bytes to `record`.
    pub(in crate::service) fn copy_kept(&self, len: usize, record: &mut Vec<u8>) {
        record.clear();
        record.extend_from_slice(&self.kept[self.kept_at..self.kept_at + len]);
    }

    /// The next kept record, of `len` bytes, is done with, if there is still one.
    pub(in crate::service) fn drop_kept(&mut self, len: usize) {
        self.kept_at = self.kept.len().min(self.kept_at + len);
        compact(&mut self.kept, &mut self.kept_at);
    }

    /// An event of `len` bytes of the transaction `zxid` is about to be appended to `out`. Returns the
    /// bytes of events that were unsent before that transaction.
    pub(in crate::service) fn event(&mut self, zxid: i64, len: usize) -> usize {
        let sent = self.out.sent_len();
        self.events.queued(zxid, len, sent, sent + self.unsent() as u64)
    }

    /// Bytes that are kept for this connection alone, except for its watches.
    fn len_bytes(&self) -> usize {
        self.unread
            + self.kept.len()
            + self.out.own_len()
            + self.ids.len()
            + self.progress.len_bytes()
            + self.queue.len() * size_of::<InFlight>()
            + self.notes.as_ref().map_or(0, |notes| notes.len_bytes())
            + self.stat_parts.as_ref().map_or(0, |parts| parts.len_bytes())
    }

    fn send(&mut self, buf: &mut [u8]) -> usize {
        self.out.send(buf)
    }

    fn drop_everything(&mut self) {
        self.carry = Carry::default();
        self.queue = Queue::default();
        self.notes = None;
        self.stat_parts = None;
        self.kept = Vec::new();
        self.kept_at = 0;
        self.ids = Vec::new();
        self.progress = Progress::default();
    }
}
