//! One connection, looked up once for all that is done for it in a call.

use zab_proto::{ConnId, Instant};

use crate::service::connection::order::{Awaiting, InFlight};
use crate::service::connection::silence::Hearing;
use crate::service::connection::table::{Shared, Slot};
use crate::service::connection::{Client, Life};

/// A connection, and beside it the others and what is known of all together.
#[derive(Debug)]
pub(in crate::service) struct Entry<'a> {
    pub(in crate::service) client: &'a mut Client,
    pub(in crate::service) conn: ConnId,
    /// The places in front of its own, and those after it.
    pub(super) before: &'a mut [Slot],
    pub(super) after: &'a mut [Slot],
    pub(in crate::service) shared: &'a mut Shared,
}

impl Entry<'_> {
    /// Its place in the table, as the watches know it.
    pub(in crate::service) fn slot(&self) -> u32 {
        self.conn.slot()
    }

    /// Whether [`ClientOutput::Close`](zab_proto::ClientOutput::Close) is out.
    pub(in crate::service) fn is_closed(&self) -> bool {
        self.client.state == Life::Closed
    }

    /// Another connection.
    pub(in crate::service) fn other(
        &mut self,
        slot: u32,
    ) -> Option<(ConnId, &mut Client, &mut Shared)> {
        let own = self.before.len();
        let at = match (slot as usize).checked_sub(own) {
            None => self.before.get_mut(slot as usize)?,
            Some(0) => return None,
            Some(behind) => self.after.get_mut(behind - 1)?,
        };
        let (conn, client) = at.client(slot)?;
        Some((conn, client, self.shared))
    }

    /// Counts what is kept for it again.
    pub(in crate::service) fn count_kept(&mut self) {
        self.shared.count_kept(self.client);
    }

    /// So many of its bytes were left with the driver.
    pub(in crate::service) fn left_unread(&mut self, now: Instant, len: usize) {
        self.client.heard = Hearing::new(now);
        self.client.unread = len;
        self.count_kept();
    }

    /// Bytes were appended to what was `unsent` before.
    pub(in crate::service) fn wrote(&mut self, unsent: usize) {
        self.count_kept();
        self.appended(unsent);
    }

    /// Like [`wrote`](Self::wrote), by who does it many times in a row and counts what is kept for
    /// the connection at the end, with [`count_kept`](Self::count_kept).
    #[inline]
    pub(in crate::service) fn appended(&mut self, unsent: usize) {
        if unsent == 0 && self.client.unsent() > 0 {
            self.shared.transmit(self.conn);
        }
    }

    /// See [`Application::poll_transmit`](zab_proto::Application::poll_transmit).
    pub(in crate::service) fn transmit(&mut self, buf: &mut [u8]) -> usize {
        let n = self.client.send(buf);
        self.count_kept();
        n
    }

    /// It has become the connection of a session; returns the slot of the one that was before.
    pub(in crate::service) fn attach(&mut self, session: i64) -> Option<u32> {
        self.shared.attach(session, self.conn.slot())
    }

    /// It is no longer the connection of a session.
    pub(in crate::service) fn detach(&mut self, session: i64) {
        self.shared.detach(session, self.conn.slot());
    }

    /// Puts a request at the end of its queue.
    pub(in crate::service) fn queue(&mut self, xid: i32, now: Instant, awaiting: Awaiting) {
        let ids_len = self.client.ids.len();
        let request = InFlight { xid, received: now, ids_len, awaiting };
        self.client.queue.push(request);
        self.shared.writes_len += request.write_len();
        self.shared.count_queue(self.client);
    }

    /// Puts a write that was submitted at the end of its queue. Of a multi, the parts at these places are answered with
    /// a stat.
    pub(in crate::service) fn queue_write(
        &mut self,
        now: Instant,
        xid: i32,
        write: Awaiting,
        places: Box<[u32]>,
    ) {
        if !places.is_empty() {
            self.client.stat_parts.get_or_insert_default().push(places);
        }
        self.queue(xid, now, write);
    }

    /// Of the multi at the front of its queue, if there is one, the places of the parts that are answered with a
    /// stat.
    pub(in crate::service) fn stat_parts(&self) -> Vec<u32> {
        let first = self.client.queue.front();
        let is_known = |request: &&InFlight| {
            matches!(request.awaiting, Awaiting::Write { stat_parts: true, .. })
        };
        let parts = first.filter(is_known).and(self.client.stat_parts.as_ref());
        parts.map(|parts| parts.first().to_vec()).unwrap_or_default()
    }

    /// Takes a write, whose transaction has come, from the front of its queue.
    pub(in crate::service) fn take_write(&mut self) {
        let Self { client, shared, .. } = self;
        let again = client.carry.again;
        let Some(request) = client.pop() else { return };
        let (len, kept) = (request.write_len(), request.kept_len());
        client.carry.kept_writes_len -= kept;
        client.drop_kept(kept);
        if client.carry.again < again {
            client.carry.again_writes_len -= len;
            shared.again_writes_len -= len;
        }
        shared.writes_len -= len;
        shared.kept_writes_len -= kept;
        if matches!(request.awaiting, Awaiting::Write { stat_parts: true, .. })
            && let Some(parts) = &mut client.stat_parts
        {
            parts.pop();
        }
    }
}
