//! The steps of sessions that only this server knows; what they are is in `service/role/local.rs`.

use zab_proto::Instant;

use crate::metrics::HoldEnd;
use crate::service::connection::table::Clients;
use crate::service::hold::end_hold;
use crate::service::parts::Parts;
use crate::service::role::Role;
use crate::service::role::local::LocalSessions;

/// A role begins; `same_epoch`: this server is back with the leader it had.
pub(super) fn begin_role(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    now: Instant,
    same_epoch: bool,
) {
    if same_epoch {
        for client in clients.iter_mut().filter(|client| client.queue.writes() > 0) {
            parts.local.unsettle(client.session);
        }
    }
    for session in parts.local.begin_role(now, same_epoch, parts.state) {
        log::info!(
            "Local session {session:#x} is over: this server follows its leader again, and cannot know which of \
             the session's writes are still under way"
        );
        if let Some(mut at) = clients.of_session(session) {
            end_hold(&mut at, parts, HoldEnd::Ended);
        }
    }
}

/// A session has begun in the ensemble.
pub(super) fn begun(parts: &mut Parts<'_>, session: i64) {
    if parts.local.upgraded(session) {
        log::debug!("Local session {session:#x} is the ensemble's from now on");
    }
}

/// Sessions that have been silent for too long are over, and their connections.
pub(super) fn expire(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    while parts.role.has_leader()
        && let Some((session, timeout_ms)) = parts.local.expire(now)
    {
        log::info!("Expiring local session {session:#x}, timeout of {timeout_ms}ms exceeded");
        parts.metrics.sessions_expired += 1;
        if let Some(mut at) = clients.of_session(session) {
            parts.close(&mut at, false);
        }
    }
}

/// When [`expire`] wants to be called.
pub(super) fn poll_timeout(role: &Role, local: &LocalSessions) -> Option<Instant> {
    if role.has_leader() { local.poll_timeout() } else { None }
}
