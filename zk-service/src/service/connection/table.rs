//! The table of all client connections.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use zab_proto::{ClientOutput, ConnId, Instant};

use crate::service::connection::carry::Carry;
use crate::service::connection::entry::Entry;
use crate::service::connection::figures::Connection;
use crate::service::connection::outbox::Outbox;
use crate::service::connection::{Client, Life};

/// A place in the table.
#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: u32,
    client: Option<Client>,
}

impl Slot {
    /// Its connection, as `slot`-th place.
    pub(super) fn client(&mut self, slot: u32) -> Option<(ConnId, &mut Client)> {
        let Self { generation, client } = self;
        Some((ConnId::client(slot, *generation), client.as_mut()?))
    }
}

/// All connections, by slot.
#[derive(Debug, Default)]
pub(in crate::service) struct Clients {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots of connections that are gone, of which something is left elsewhere.
    kept_slots: Vec<u32>,
    per_address: HashMap<IpAddr, u32>,
    /// Connections without a session, by the time by which they have to have one.
    greetings: VecDeque<(Instant, ConnId)>,
    /// When silent ones are looked for.
    pub(super) silence_due: Instant,
    len: usize,
    pub(in crate::service) shared: Shared,
}

/// What is known of all connections together.
#[derive(Debug, Default)]
pub(in crate::service) struct Shared {
    by_session: HashMap<i64, u32>,
    outputs: VecDeque<ClientOutput>,
    /// Bytes of the writes in all queues.
    pub(super) writes_len: usize,
    /// Of those, the bytes that are kept.
    pub(super) kept_writes_len: usize,
    /// Of those, what is still to be submitted to the present leader.
    pub(super) again_writes_len: usize,
    /// Bytes kept for all connections, except for their watches.
    kept_len: usize,
    /// Requests in all queues.
    under_way: usize,
    /// Bytes of the large ones among them.
    large_len: usize,
    /// A buffer that is used again and again.
    pub(in crate::service) buffer: Vec<u8>,
}

impl Clients {
    /// Adds a connection, which has to have a session at `deadline`.
    pub(in crate::service) fn add(
        &mut self,
        remote: SocketAddr,
        wall_ms: i64,
        deadline: Instant,
    ) -> ConnId {
        *self.per_address.entry(remote.ip().to_canonical()).or_default() += 1;
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
    pub(in crate::service) fn greeting_deadline(&self) -> Option<Instant> {
        self.greetings.front().map(|(deadline, _)| *deadline)
    }

    /// Takes a connection off that has no session, and should have one by `now`.
    pub(in crate::service) fn overdue_greeting(&mut self, now: Instant) -> Option<Entry<'_>> {
        let is_due = |(deadline, _): &(Instant, ConnId)| *deadline <= now;
        while self.greetings.front().is_some_and(is_due)
            && let Some((_, conn)) = self.greetings.pop_front()
        {
            if self.get(conn).is_some_and(|client| client.state == Life::Greeting) {
                return self.enter(conn);
            }
        }
        None
    }

    /// The driver is done with a connection: its slot may be used again.
    /// Unless it is `free` it waits for [`free_slots`](Self::free_slots).
    pub(in crate::service) fn remove(&mut self, conn: ConnId, free: bool) {
        let slot = conn.slot();
        let at = &mut self.slots[slot as usize];
        let Some(client) = at.client.take() else { return };
        self.shared.forget(slot, &client);
        at.generation = at.generation.wrapping_add(1);
        if free {
            self.free.push(slot);
        } else {
            self.kept_slots.push(slot);
        }
        self.len -= 1;
        let address = client.remote.ip().to_canonical();
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    /// Slots that are free by now may be used again.
    pub(in crate::service) fn free_slots(&mut self, is_free: impl Fn(u32) -> bool) {
        let Self { free, kept_slots, .. } = self;
        free.extend(kept_slots.extract_if(.., |slot| is_free(*slot)));
    }

    /// Open connections of an address.
    pub(in crate::service) fn of_address(&self, address: IpAddr) -> u32 {
        self.per_address.get(&address.to_canonical()).copied().unwrap_or(0)
    }

    pub(in crate::service) fn len(&self) -> usize {
        self.len
    }

    /// A connection, unless it is gone.
    pub(in crate::service) fn get(&self, conn: ConnId) -> Option<&Client> {
        let at = self.slots.get(conn.slot() as usize)?;
        at.client.as_ref().filter(|_| at.generation == conn.generation())
    }

    /// The session of the connection in a slot, 0 without one.
    pub(in crate::service) fn session_at(&self, slot: u32) -> i64 {
        let at = self.slots.get(slot as usize);
        at.and_then(|at| at.client.as_ref()).map_or(0, |client| client.session)
    }

    /// A connection, unless it is gone, and beside it the others.
    pub(in crate::service) fn enter(&mut self, conn: ConnId) -> Option<Entry<'_>> {
        self.enter_slot(conn.slot()).filter(|at| at.conn == conn)
    }

    /// The connection in a slot, and beside it the others.
    pub(in crate::service) fn enter_slot(&mut self, slot: u32) -> Option<Entry<'_>> {
        let Self { slots, shared, .. } = self;
        let (before, rest) = slots.split_at_mut_checked(slot as usize)?;
        let (own, after) = rest.split_first_mut()?;
        let (conn, client) = own.client(slot)?;
        Some(Entry { client, conn, before, after, shared })
    }

    /// All connections in order of their slots.
    pub(in crate::service) fn iter(&self) -> impl Iterator<Item = (ConnId, &Client)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(slot, at)| {
            Some((ConnId::client(slot, at.generation), at.client.as_ref()?))
        })
    }

    /// What there is to look at of those that are not about to be closed.
    pub(in crate::service) fn figures(&self) -> impl Iterator<Item = (ConnId, Connection)> {
        let open = self.iter().filter(|(_, client)| client.state != Life::Closed);
        open.map(|(conn, client)| (conn, client.figures()))
    }

    pub(in crate::service) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.each_mut().map(|(_, client)| client)
    }

    /// All connections in order of their slots, to be changed.
    pub(super) fn each_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Client)> {
        let slots = (0..).zip(&mut self.slots);
        slots.filter_map(|(slot, at)| {
            Some((ConnId::client(slot, at.generation), at.client.as_mut()?))
        })
    }

    /// All connections in order of their slots, to [enter](Self::enter) one after the other.
    pub(in crate::service) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|(conn, _)| conn).collect()
    }

    /// The connection of a session on this server.
    pub(in crate::service) fn of_session(&mut self, session: i64) -> Option<Entry<'_>> {
        let slot = self.shared.of_session(session)?;
        self.enter_slot(slot)
    }

    /// Bytes kept for all connections, except for their watches.
    pub(in crate::service) fn kept_len(&self) -> usize {
        self.shared.kept_len
    }

    pub(in crate::service) fn poll_output(&mut self) -> Option<ClientOutput> {
        self.shared.outputs.pop_front()
    }
}

impl Shared {
    /// The slot of a session's connection on this server.
    pub(in crate::service) fn of_session(&self, session: i64) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    /// A connection has become that of a session; returns the one that was before.
    pub(super) fn attach(&mut self, session: i64, slot: u32) -> Option<u32> {
        self.by_session.insert(session, slot).filter(|old| *old != slot)
    }

    /// A connection is no longer that of a session.
    pub(super) fn detach(&mut self, session: i64, slot: u32) {
        if self.by_session.get(&session) == Some(&slot) {
            self.by_session.remove(&session);
        }
    }

    /// Counts what is kept for a connection again.
    pub(super) fn count_kept(&mut self, client: &mut Client) {
        let len = client.len_bytes();
        let before = std::mem::replace(&mut client.charged, len);
        self.kept_len = self.kept_len - before + len;
        self.count_queue(client);
    }

    /// Counts the requests of a connection again.
    pub(super) fn count_queue(&mut self, client: &mut Client) {
        let queued = (client.queue.len(), client.queue.large_len());
        let before = std::mem::replace(&mut client.counted, queued);
        self.under_way = self.under_way - before.0 + queued.0;
        self.large_len = self.large_len - before.1 + queued.1;
    }

    /// Requests of all clients that are not answered.
    pub(in crate::service) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Bytes of the large ones among them.
    pub(in crate::service) fn large_len(&self) -> usize {
        self.large_len
    }

    /// A connection has something to send.
    pub(super) fn transmit(&mut self, conn: ConnId) {
        self.outputs.push_back(ClientOutput::Transmit(conn));
    }

    /// Bytes of a connection that were left unconsumed may be offered again.
    pub(in crate::service) fn resume(&mut self, conn: ConnId) {
        self.outputs.push_back(ClientOutput::Resume(conn));
    }

    /// Bytes of the writes that are under way, of all connections.
    pub(in crate::service) fn writes_len(&self) -> usize {
        self.writes_len - self.again_writes_len
    }

    /// Closes a connection; with `flush`, what is queued for it still goes out.
    pub(in crate::service) fn close(&mut self, conn: ConnId, client: &mut Client, flush: bool) {
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
            self.count_kept(client);
        }
        self.detach(client.session, conn.slot());
    }

    /// A connection is gone. What it has asked is carried out, and nobody waits for the answers.
    fn forget(&mut self, slot: u32, client: &Client) {
        self.detach(client.session, slot);
        self.kept_len -= client.charged;
        self.under_way -= client.counted.0;
        self.large_len -= client.counted.1;
        self.writes_len -= client.queue.writes_len();
        self.kept_writes_len -= client.carry.kept_writes_len;
        self.again_writes_len -= client.carry.again_writes_len;
    }
}
