//! One client connection, and the table of all.
//!
//! Replies go out in the order of the requests: whatever cannot be answered at once, and everything
//! behind it, stands in the connection's queue.

pub(crate) mod budget;
pub(crate) mod order;
pub(crate) mod outbox;
pub(crate) mod room;
pub(crate) mod schedule;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use zab_proto::{ClientOutput, ConnId, Instant};

use crate::auth::rules::Rules;
use crate::auth::{self, Access, Ids, Judge};
use crate::connection::budget::EventBytes;
use crate::connection::order::{Awaiting, InFlight, Queue};
use crate::connection::outbox::{Outbox, compact};
use crate::connection::room::Ticket;
use crate::connection::schedule::Account;
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
    /// [`ClientOutput::Close`] is out.
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
    /// Whether it may read nodes with the ACL asked about last, and how many bytes of identities it
    /// had then: a transaction may have a million events about nodes that share an ACL.
    may_read: (Weak<Rules>, usize, bool),
    pub(crate) queue: Queue,
    /// Records of the queued requests, in order, from `kept_at` on.
    kept: Vec<u8>,
    kept_at: usize,
    /// What is to be sent; after appending call [`Clients::wrote`].
    pub(crate) out: Outbox,
    events: EventBytes,
    /// Bytes that the driver keeps for us, since they were left unconsumed.
    pub(crate) unread: usize,
    /// What this connection stands for in [`Clients::kept_len`].
    pub(crate) charged: usize,
    /// Bytes were left unconsumed because of this connection's own limits.
    pub(crate) paused: bool,
    /// Its next request waits for room, or has waited for it: since when, among all that do.
    pub(crate) ticket: Option<Ticket>,
    /// Its share of the server's work.
    pub(crate) account: Account,
    pub(crate) stats: ConnStats,
}

impl Client {
    fn new(remote: SocketAddr, wall_ms: i64) -> Self {
        let mut ids = Vec::new();
        auth::add_id(&mut ids, "ip", &remote.ip().to_canonical().to_string());
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
            may_read: (Weak::new(), 0, false),
            queue: Queue::default(),
            kept: Vec::new(),
            kept_at: 0,
            out: Outbox::default(),
            events: EventBytes::default(),
            unread: 0,
            charged: 0,
            paused: false,
            ticket: None,
            account: Account::default(),
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
    }

    fn send(&mut self, buf: &mut [u8]) -> usize {
        self.out.send(buf)
    }

    fn drop_everything(&mut self) {
        self.queue = Queue::default();
        self.kept = Vec::new();
        self.kept_at = 0;
        self.ids = Vec::new();
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
}

/// All connections, by slot.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots of connections that are gone, of which something is left elsewhere.
    kept_slots: Vec<u32>,
    per_address: HashMap<IpAddr, u32>,
    by_session: HashMap<i64, u32>,
    outputs: VecDeque<ClientOutput>,
    len: usize,
    /// Bytes of the writes in all queues.
    writes_len: usize,
    /// Bytes kept for all connections, except for their watches.
    kept_len: usize,
}

impl Clients {
    /// Adds a connection.
    pub(crate) fn add(&mut self, remote: SocketAddr, wall_ms: i64) -> ConnId {
        *self.per_address.entry(remote.ip()).or_default() += 1;
        self.len += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^31 connections")
        });
        let at = &mut self.slots[slot as usize];
        at.client = Some(Client::new(remote, wall_ms));
        ConnId::client(slot, at.generation)
    }

    /// The driver is done with a connection: its slot may be used again.
    /// Unless it is `free` it waits for [`free_slots`](Self::free_slots).
    pub(crate) fn remove(&mut self, slot: u32, free: bool) {
        let at = &mut self.slots[slot as usize];
        let Some(client) = at.client.take() else { return };
        self.kept_len -= client.charged;
        // What it has asked is carried out, and nobody waits for the answers.
        self.writes_len -= client.queue.writes_len();
        at.generation = at.generation.wrapping_add(1);
        if free {
            self.free.push(slot);
        } else {
            self.kept_slots.push(slot);
        }
        self.len -= 1;
        let address = client.remote.ip();
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    /// Slots that are free by now may be used again.
    pub(crate) fn free_slots(&mut self, is_free: impl Fn(u32) -> bool) {
        let Self { free, kept_slots, .. } = self;
        free.extend(kept_slots.extract_if(.., |slot| is_free(*slot)));
    }

    /// Open connections of an address.
    pub(crate) fn of_address(&self, address: IpAddr) -> u32 {
        self.per_address.get(&address).copied().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slot that a connection is in, unless it is gone.
    pub(crate) fn slot(&self, conn: ConnId) -> Option<u32> {
        let at = self.slots.get(conn.slot() as usize)?;
        (at.client.is_some() && at.generation == conn.generation()).then(|| conn.slot())
    }

    pub(crate) fn conn(&self, slot: u32) -> ConnId {
        ConnId::client(slot, self.slots[slot as usize].generation)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Client> {
        self.slots.get(slot as usize)?.client.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.slots.get_mut(slot as usize)?.client.as_mut()
    }

    /// All connections in order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Client)> {
        (0..).zip(&self.slots).filter_map(|(slot, at)| Some((slot, at.client.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.slots.iter_mut().filter_map(|at| at.client.as_mut())
    }

    /// The connection of a session on this server.
    pub(crate) fn of_session(&self, session: i64) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    /// A connection has become that of a session; returns the one that was before.
    pub(crate) fn attach(&mut self, session: i64, slot: u32) -> Option<u32> {
        self.by_session.insert(session, slot).filter(|old| *old != slot)
    }

    /// Bytes kept for all connections, except for their watches.
    pub(crate) fn kept_len(&self) -> usize {
        self.kept_len
    }

    /// Counts what is kept for a connection anew.
    pub(crate) fn count_kept(&mut self, slot: u32) {
        let Some(client) = self.get_mut(slot) else { return };
        let len = client.len_bytes();
        let before = std::mem::replace(&mut client.charged, len);
        self.kept_len = self.kept_len - before + len;
    }

    /// So many bytes of a connection were left with the driver.
    pub(crate) fn left_unread(&mut self, slot: u32, len: usize) {
        if let Some(client) = self.get_mut(slot) {
            client.unread = len;
        }
        self.count_kept(slot);
    }

    /// Bytes were appended to what was `unsent` before.
    pub(crate) fn wrote(&mut self, slot: u32, unsent: usize) {
        self.count_kept(slot);
        self.replied(slot, unsent, |_| {});
    }

    /// Like [`wrote`](Self::wrote), by who does it many times in a row and counts what is kept for
    /// the connection at the end, with [`count_kept`](Self::count_kept). Takes note of it in the
    /// connection's figures.
    pub(crate) fn replied(&mut self, slot: u32, unsent: usize, note: impl FnOnce(&mut ConnStats)) {
        let Some(at) = self.slots.get_mut(slot as usize) else { return };
        let Some(client) = &mut at.client else { return };
        note(&mut client.stats);
        if unsent == 0 && client.unsent() > 0 {
            let conn = ConnId::client(slot, at.generation);
            self.outputs.push_back(ClientOutput::Transmit(conn));
        }
    }

    /// Bytes left unconsumed may be offered again.
    pub(crate) fn resume(&mut self, slot: u32) {
        self.outputs.push_back(ClientOutput::Resume(self.conn(slot)));
    }

    /// Bytes of the writes that wait for their transactions, of all connections.
    pub(crate) fn writes_len(&self) -> usize {
        self.writes_len
    }

    /// Puts a request at the end of a connection's queue.
    pub(crate) fn queue(&mut self, slot: u32, xid: i32, now: Instant, awaiting: Awaiting) {
        let Some(client) = self.get_mut(slot) else { return };
        let ids_len = client.ids.len();
        let request = InFlight { xid, received: now, ids_len, awaiting };
        client.queue.push(request);
        self.writes_len += request.write_len();
    }

    /// Takes a write, whose transaction has come, from the front of a connection's queue.
    pub(crate) fn take_write(&mut self, slot: u32) {
        let written = self.get_mut(slot).and_then(|client| client.queue.pop());
        self.writes_len -= written.map_or(0, |request| request.write_len());
    }

    /// Closes a connection; with `flush`, what is queued for it still goes out.
    pub(crate) fn close(&mut self, slot: u32, flush: bool) {
        let conn = self.conn(slot);
        let Some(client) = self.get_mut(slot) else { return };
        let session = client.session;
        let writes_len = client.queue.writes_len();
        if client.state != Life::Closed {
            client.state = Life::Closed;
            client.drop_everything();
            if !flush {
                client.out = Outbox::default();
            }
            client.unread = 0;
            self.outputs.push_back(ClientOutput::Close(conn));
            self.writes_len -= writes_len;
            self.count_kept(slot);
        }
        self.detach(session, slot);
    }

    /// The connection is no longer that of its session.
    pub(crate) fn detach(&mut self, session: i64, slot: u32) {
        if self.by_session.get(&session) == Some(&slot) {
            self.by_session.remove(&session);
        }
    }

    /// See [`Application::poll_transmit`](zab_proto::Application::poll_transmit).
    pub(crate) fn transmit(&mut self, slot: u32, buf: &mut [u8]) -> usize {
        let n = self.get_mut(slot).map_or(0, |client| client.send(buf));
        self.count_kept(slot);
        n
    }

    pub(crate) fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }
}
