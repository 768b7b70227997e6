//! The bounds of a server's service, drawn from its seed.

use zk_service::ServiceOptions;

use super::Zk;
use crate::rng::Rng;
use crate::subject::Subject;

/// Bounds from barely one request, answer, event or watch of the workload to the default. The draws are a
/// stream of their own.
///
/// What clients cannot do without has room: their identities, a frame, and the watches that they set again
/// after each loss of their connection, or they would be closed for ever.
pub(super) fn draw(service: &mut ServiceOptions, seed: u64) {
    let rng = &mut Rng::new(seed, 0xb0_07d5);
    service.in_flight_max = rng.pick(&[1, 2, 16, service.in_flight_max]);
    service.out_len_soft_max_bytes = rng.pick(&[1, 500, 10_000, service.out_len_soft_max_bytes]);
    service.events_len_max_bytes = rng.pick(&[2_000, 20_000, service.events_len_max_bytes]);
    service.watches_len_max_bytes = rng.pick(&[50_000, service.watches_len_max_bytes]);
    service.ids_len_max_bytes = rng.pick(&[500, service.ids_len_max_bytes]);
    service.jute_max_buffer = rng.pick(&[Zk::LEN_MAX, service.jute_max_buffer]);
    service.reply_len_max_bytes = rng.pick(&[1, service.reply_len_max_bytes]);
    service.work_per_request = rng.pick(&[1, service.work_per_request]);
    // All clients of a run, and one connection whose client is gone.
    service.max_client_cnxns = rng.pick(&[6, service.max_client_cnxns]);
    service.max_cnxns = rng.pick(&[6, service.max_cnxns]);
}

/// Whether no bound closes clients of the workload that wait for a leader: what one of them has in flight, and
/// the events that it is owed, have room.
pub(super) fn keep_clients(service: &ServiceOptions) -> bool {
    service.out_len_soft_max_bytes >= 10_000 && service.events_len_max_bytes >= 20_000
}
