//! Closes connections of clients that make this server keep too much.

use std::fmt;

use crate::service::connection::budget::{greediest, log_closing};
use crate::service::connection::entry::Entry;
use crate::service::connection::table::Clients;
use crate::service::parts::Parts;
use crate::state::State;
use crate::state::watch::Watches;

/// Bytes kept for all clients.
pub(super) fn kept_len(clients: &Clients, watches: &Watches, state: &State) -> usize {
    clients.kept_len() + watches.len_bytes() + state.listings().held_len()
}

/// Closes those connections that take the most if all together make this server keep more than it is
/// allowed to.
pub(super) fn keep_to_budget(clients: &mut Clients, parts: &mut Parts<'_>) {
    let (total, bound) =
        (kept_len(clients, parts.watches, parts.state), parts.env.options.clients_len_max_bytes);
    if total <= bound {
        return;
    }
    for (conn, len) in greediest(clients, parts.watches, total, bound) {
        if let Some(mut at) = clients.enter(conn) {
            let why = format_args!("of all, it takes the most: {len} bytes");
            close_for_memory(&mut at, parts, why);
        }
    }
}

/// Ends the connection of a client that makes this server keep too much, and says what.
pub(super) fn close_for_memory(at: &mut Entry<'_>, parts: &mut Parts<'_>, why: fmt::Arguments<'_>) {
    log_closing(at.client, parts.watches.len_bytes_of(at.slot()), why);
    parts.close(at, false);
}

/// Closes the connection of a client that watches too much. Whether it did.
pub(super) fn keep_to_watches(at: &mut Entry<'_>, parts: &mut Parts<'_>) -> bool {
    let (len, bound) =
        (parts.watches.len_bytes_of(at.slot()), parts.env.options.watches_len_max_bytes);
    if len > bound {
        let why = format_args!(
            "its watches take {len} bytes of the {bound} that are allowed (watches_len_max_bytes)"
        );
        close_for_memory(at, parts, why);
    }
    len > bound
}
