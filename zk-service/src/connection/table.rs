//! The table of all client connections.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use zab_proto::{ClientOutput, ConnId, Instant};

use crate::connection::carry::Carry;
use crate::connection::order::{Awaiting, InFlight};
use crate::connection::outbox::Outbox;
use crate::connection::{Client, ConnStats, Life};

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
    /// Connections without a session, by the time by which they have to have one.
    greetings: VecDeque<(Instant, ConnId)>,
    outputs: VecDeque<ClientOutput>,
    len: usize,
    /// Bytes of the writes in all queues.
    writes_len: usize,
    /// Of those, the bytes that are kept.
    pub(super) kept_writes_len: usize,
    /// Of those, what is still to be submitted to the present leader.
    pub(super) again_writes_len: usize,
    /// Bytes kept for all connections, except for their watches.
    kept_len: usize,
}

impl Clients {
    /// Adds a connection, which has to have a session at `deadline`.
    pub(crate) fn add(&mut self, remote: SocketAddr, wall_ms: i64, deadline: Instant) -> ConnId {
        *self.per_address.entry(remote.ip()).or_default() += 1;
        self.len += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^31 connections")
        });
        let at = &mut self.slots[slot as usize];
        at.client = Some(Client::new(remote, wall_ms));
        let conn = ConnId::client(slot, at.generation);
        self.greetings.push_back((deadline, conn));
        conn
    }

    /// When the next connection without a session has to have one.
    pub(crate) fn greeting_deadline(&self) -> Option<Instant> {
        self.greetings.front().map(|(deadline, _)| *deadline)
    }

    /// Takes a connection off that has no session, and should have one by `now`.
    pub(crate) fn overdue_greeting(&mut self, now: Instant) -> Option<u32> {
        let is_due = |(deadline, _): &(Instant, ConnId)| *deadline <= now;
        while self.greetings.front().is_some_and(is_due)
            && let Some((_, conn)) = self.greetings.pop_front()
        {
            let slot = self.slot(conn);
            let is_greeting =
                |slot: &u32| self.get(*slot).is_some_and(|c| c.state == Life::Greeting);
            if let Some(slot) = slot.filter(is_greeting) {
                return Some(slot);
            }
        }
        None
    }

    /// The driver is done with a connection: its slot may be used again.
    /// Unless it is `free` it waits for [`free_slots`](Self::free_slots).
    pub(crate) fn remove(&mut self, slot: u32, free: bool) {
        let at = &mut self.slots[slot as usize];
        let Some(client) = at.client.take() else { return };
        self.kept_len -= client.charged;
        // What it has asked is carried out, and nobody waits for the answers.
        self.writes_len -= client.queue.writes_len();
        self.kept_writes_len -= client.carry.kept_writes_len;
        self.again_writes_len -= client.carry.again_writes_len;
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
    #[inline]
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

    /// Bytes of the writes that are under way, of all connections.
    pub(crate) fn writes_len(&self) -> usize {
        self.writes_len - self.again_writes_len
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
        let Some(client) = self.get_mut(slot) else { return };
        let again = client.carry.again;
        let Some(request) = client.pop() else { return };
        let (len, kept) = (request.write_len(), request.kept_len());
        client.carry.kept_writes_len -= kept;
        client.drop_kept(kept);
        if client.carry.again < again {
            client.carry.again_writes_len -= len;
            self.again_writes_len -= len;
        }
        self.writes_len -= len;
        self.kept_writes_len -= kept;
    }

    /// Closes a connection; with `flush`, what is queued for it still goes out.
    pub(crate) fn close(&mut self, slot: u32, flush: bool) {
        let conn = self.conn(slot);
        let Some(client) = self.get_mut(slot) else { return };
        let session = client.session;
        let writes_len = client.queue.writes_len();
        let Carry { kept_writes_len, again_writes_len, .. } = client.carry;
        if client.state != Life::Closed {
            client.state = Life::Closed;
            client.drop_everything();
            if !flush {
                client.out = Outbox::default();
            }
            client.unread = 0;
            self.outputs.push_back(ClientOutput::Close(conn));
            self.writes_len -= writes_len;
            self.kept_writes_len -= kept_writes_len;
            self.again_writes_len -= again_writes_len;
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
