//! Closes connections of clients that make this server keep too much.

use std::fmt;

use crate::connection::budget::{greediest, log_closing};
use crate::service::Service;

impl Service {
    /// Bytes kept for all clients.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.clients.kept_len() + self.watches.len_bytes() + self.listings.held_len()
    }

    /// Closes those connections that take the most if all together make this server keep more than
    /// it is allowed to.
    pub(super) fn keep_to_budget(&mut self) {
        let (total, bound) = (self.kept_len(), self.env.options.clients_len_max_bytes);
        if total <= bound {
            return;
        }
        for (slot, len) in greediest(&self.clients, &self.watches, total, bound) {
            self.close_for_memory(slot, format_args!("of all, it takes the most: {len} bytes"));
        }
    }

    /// Ends the connection of a client that makes this server keep too much, and says what.
    pub(super) fn close_for_memory(&mut self, slot: u32, why: fmt::Arguments<'_>) {
        if let Some(client) = self.clients.get(slot) {
            log_closing(client, self.watches.len_bytes_of(slot), why);
        }
        self.close(slot, false);
    }

    /// Closes the connection of a client that watches too much. Whether it did.
    pub(super) fn keep_to_watches(&mut self, slot: u32) -> bool {
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
