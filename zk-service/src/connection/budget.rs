//! What a client makes this server keep for it, and its bounds.
//!
//! What clients write is theirs to choose: znodes, sessions, ACLs. Everything else that grows with
//! what a client does, or leaves undone, is counted here in bytes: per connection, and over all
//! connections in one sum. The sum protects the server from many who each keep to their own bound.

use crate::connection::{Client, Life};
use crate::service::Service;

/// Bytes of the events in a connection's output, without a list of them.
///
/// Events lie between replies in one stream of bytes. Two sums are kept, of the events in front of a
/// mark in the stream and of those behind it: once everything in front of the mark is sent, the first
/// sum is over and the second takes its place. What is counted is thus never less than what is
/// unsent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventBytes {
    earlier: usize,
    later: usize,
    mark: u64,
    /// The transaction whose events came last, and what was unsent before it.
    zxid: i64,
    before: usize,
}

impl EventBytes {
    /// An event of `len` bytes is about to be appended, for the transaction `zxid`, at `end` of a
    /// stream that is sent up to `sent`. Returns the bytes of events that were unsent before this
    /// transaction: of its own events the client could not have read any yet.
    pub(crate) fn queued(&mut self, zxid: i64, len: usize, sent: u64, end: u64) -> usize {
        if sent >= self.mark {
            self.earlier = std::mem::take(&mut self.later);
            self.mark = end;
        }
        if sent == end {
            (self.earlier, self.later) = (0, 0);
        }
        if zxid != self.zxid {
            (self.zxid, self.before) = (zxid, self.earlier + self.later);
        }
        self.later += len;
        self.before
    }
}

impl Service {
    /// Closes connections if all together make this server keep more than it is allowed to: those
    /// that take the most, until a part of the bound is free again, so that this search for them is
    /// rare.
    pub(crate) fn keep_to_budget(&mut self) {
        let bound = self.env.options.clients_len_max_bytes;
        let total = self.kept_len();
        if total <= bound {
            return;
        }
        let mut clients: Vec<(usize, u32)> = self
            .clients
            .iter()
            .filter(|(_, client)| client.state != Life::Closed)
            .map(|(slot, client)| (self.kept_for(slot, client), slot))
            .collect();
        clients.sort_unstable_by_key(|&(len, _)| std::cmp::Reverse(len));
        log::warn!(
            "{} connections take {total} bytes of the {bound} that are allowed \
             (clients_len_max_bytes): closing those that take the most",
            clients.len()
        );
        let mut left = total;
        for (len, slot) in clients {
            if left <= bound - bound / 8 {
                return;
            }
            left = left.saturating_sub(len);
            self.close_for_memory(slot, format_args!("of all, it takes the most: {len} bytes"));
        }
    }

    /// Bytes kept for all clients.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.clients.kept_len() + self.watches.len_bytes() + self.listings.held_len()
    }

    fn kept_for(&self, slot: u32, client: &Client) -> usize {
        client.charged + client.out.lists_len() + self.watches.len_bytes_of(slot)
    }

    /// Ends the connection of a client that makes this server keep too much, and says what.
    pub(crate) fn close_for_memory(&mut self, slot: u32, why: std::fmt::Arguments<'_>) {
        if let Some(client) = self.clients.get(slot) {
            log::warn!(
                "Closing connection with {}, session {:#x}: {why} ({} in its output, {} in requests, \
                 {} in identities, {} in watches)",
                client.remote,
                client.session,
                client.unsent(),
                client.unread + client.kept_len(),
                client.ids.len(),
                self.watches.len_bytes_of(slot),
            );
        }
        self.close(slot, false);
    }

    /// Closes the connection of a client that watches too much. Whether it did.
    pub(crate) fn keep_to_watches(&mut self, slot: u32) -> bool {
        let (len, bound) =
            (self.watches.len_bytes_of(slot), self.env.options.watches_len_max_bytes);
        if len > bound {
            let why = format_args!(
                "its watches take {len} bytes of the {bound} that are allowed \
                 (watches_len_max_bytes)"
            );
            self.close_for_memory(slot, why);
        }
        len > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_one_transaction_are_not_held_against_its_reader() {
        let mut events = EventBytes::default();
        assert_eq!(events.queued(1, 100, 0, 0), 0);
        assert_eq!(events.queued(1, 100, 0, 100), 0);
        assert_eq!(events.queued(2, 100, 0, 200), 200);
    }

    #[test]
    fn what_is_sent_does_not_count() {
        let mut events = EventBytes::default();
        events.queued(1, 100, 0, 0);
        assert_eq!(events.queued(2, 100, 100, 100), 0, "all sent");
        // A client that always is one event behind: the sum does not grow with time.
        let mut end = 200;
        for zxid in 3..1000 {
            assert!(events.queued(zxid, 100, end - 100, end) <= 300);
            end += 100;
        }
        // A long reply lies in front of the events.
        let mut events = EventBytes::default();
        for (zxid, at) in (1..).zip((0_usize..100).step_by(10)) {
            assert_eq!(events.queued(zxid, 10, 0, 1_000_000 + at as u64), at);
        }
    }
}
