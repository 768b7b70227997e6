//! The orderly end of a server: what it has read of its clients is answered, and then they are closed.
//!
//! From the call on nothing more is read from clients. Each connection is closed behind its last
//! answer, so that what a client was not answered was not carried out. Who is not answered within one
//! tick is closed without.

use zab_proto::Instant;

use crate::connection::Life;
use crate::service::Service;

impl Service {
    /// Begins the orderly end, at the time `now`. Ask [`has_left`](Self::has_left) from time to time,
    /// and end the server then, or after a tick.
    pub fn leave(&mut self, now: Instant) {
        if self.admission.leaving.is_some() {
            return;
        }
        let tick = self.env.options.tick_time;
        self.admission.leaving = Some(now + tick);
        let requests: usize = self.clients.iter().map(|(_, client)| client.queue.len()).sum();
        log::info!(
            "Closing {} client connections behind the answers to {requests} requests, within {} ms",
            self.clients.len(),
            tick.as_millis()
        );
        for slot in self.client_slots() {
            self.leave_client(slot);
        }
    }

    /// Whether all clients are answered and gone, after [`leave`](Self::leave).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.admission.leaving.is_some() && self.clients.len() == 0
    }

    /// Closes a connection of which nothing is left to be answered, if this server is about to end.
    pub(super) fn leave_client(&mut self, slot: u32) {
        let is_done = self.clients.get(slot).is_some_and(|client| {
            matches!(client.state, Life::Greeting | Life::Open) && client.queue.is_empty()
        });
        if is_done && self.admission.leaving.is_some() {
            self.close(slot, true);
        }
    }

    /// Closes who could not be answered in time.
    pub(super) fn end_leaving(&mut self, now: Instant) {
        if self.admission.leaving.is_none_or(|until| now < until) {
            return;
        }
        let mut count = 0;
        for slot in self.client_slots() {
            if self.client(slot).is_some() {
                count += 1;
                self.close(slot, true);
            }
        }
        if count > 0 {
            log::warn!("Closing {count} client connections that were not answered in time");
        }
    }
}
