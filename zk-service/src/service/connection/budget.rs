//! What a client makes this server keep for it, and its bounds.
//!
//! What clients write is theirs to choose: znodes, sessions, ACLs. Everything else that grows with
//! what a client does, or leaves undone, is counted here in bytes: per connection, and over all
//! connections in one sum. The sum protects the server from many who each keep to their own bound.

use std::fmt;

use zab_proto::ConnId;

use crate::service::connection::table::Clients;
use crate::service::connection::{Client, Life};
use crate::state::watch::Watches;

/// Bytes of the events in a connection's output, without a list of them.
///
/// Events lie between replies in one stream of bytes. Two sums are kept, of the events in front of a
/// mark in the stream and of those after it: once everything in front of the mark is sent, the first
/// sum is over and the second takes its place. What is counted is thus never less than what is
/// unsent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventBytes {
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
    pub(super) fn queued(&mut self, zxid: i64, len: usize, sent: u64, end: u64) -> usize {
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

/// Whom to close if all connections together take `total` bytes of the `bound` that are allowed:
/// those that take the most, and how much each takes, until a part of the bound is free
/// again, so that this search is rare.
pub(in crate::service) fn greediest(
    clients: &Clients,
    watches: &Watches,
    total: usize,
    bound: usize,
) -> Vec<(ConnId, usize)> {
    let open = clients.iter().filter(|(_, client)| client.state != Life::Closed);
    let kept_for = |conn: ConnId, client: &Client| {
        client.charged + client.out.lists_len() + watches.len_bytes_of(conn.slot())
    };
    let mut found: Vec<(ConnId, usize)> =
        open.map(|(conn, client)| (conn, kept_for(conn, client))).collect();
    found.sort_unstable_by_key(|&(conn, len)| (std::cmp::Reverse(len), conn.slot()));
    log::warn!(
        "{} connections take {total} bytes of the {bound} that are allowed \
         (clients_len_max_bytes): closing those that take the most",
        found.len()
    );
    let mut left = total;
    let before = |(_, len): &(ConnId, usize)| {
        let goes_on = left > bound - bound / 8;
        left = left.saturating_sub(*len);
        goes_on
    };
    found.into_iter().take_while(before).collect()
}

/// Says why the connection of a client is closed that makes this server keep too much, and what.
pub(in crate::service) fn log_closing(
    client: &Client,
    watches_len: usize,
    why: fmt::Arguments<'_>,
) {
    log::warn!(
        "Closing connection with {}, session {:#x}: {why} ({} in its output, {} in requests, \
         {} in identities, {watches_len} in watches)",
        client.remote,
        client.session,
        client.unsent(),
        client.unread + client.kept_len(),
        client.ids.len(),
    );
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
