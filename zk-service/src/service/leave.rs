//! The orderly end of a server: what it has read of its clients is answered, and then they are closed.
//!
//! From the call on nothing more is read from clients. Each connection is closed after its last
//! answer, so that what a client was not answered was not carried out. Who is not answered within one
//! tick is closed without.

use zab_proto::Instant;

use crate::service::connection::Life;
use crate::service::connection::entry::Entry;
use crate::service::connection::table::Clients;
use crate::service::parts::Parts;

/// Begins the orderly end, at the time `now`.
pub(super) fn leave(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    if parts.admission.leaving.is_some() {
        return;
    }
    let tick = parts.env.options.tick_time;
    parts.admission.leaving = Some(now + tick);
    let requests: usize = clients.iter().map(|(_, client)| client.queue.len()).sum();
    log::info!(
        "Closing {} client connections after the answers to {requests} requests, within {} ms",
        clients.len(),
        tick.as_millis()
    );
    for conn in clients.ids() {
        if let Some(mut at) = clients.enter(conn) {
            leave_client(&mut at, parts);
        }
    }
}

/// Closes a connection of which nothing is left to be answered, if this server is about to end.
pub(super) fn leave_client(at: &mut Entry<'_>, parts: &mut Parts<'_>) {
    let is_done =
        matches!(at.client.state, Life::Greeting | Life::Open) && at.client.queue.is_empty();
    if is_done && parts.admission.leaving.is_some() {
        parts.close(at, true);
    }
}

/// Closes who could not be answered in time.
pub(super) fn end_leaving(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    if parts.admission.leaving.is_none_or(|until| now < until) {
        return;
    }
    let mut count = 0;
    for conn in clients.ids() {
        if let Some(mut at) = clients.enter(conn).filter(|at| !at.is_closed()) {
            count += 1;
            parts.close(&mut at, true);
        }
    }
    if count > 0 {
        log::warn!("Closing {count} client connections that were not answered in time");
    }
}
