//! What a turn does that no request and no transaction asks for.

use zab_proto::{Core, Instant};

use crate::service::admission::Admission;
use crate::service::answer;
use crate::service::connection::Client;
use crate::service::connection::entry::Entry;
use crate::service::connection::table::Clients;
use crate::service::connection::wait::Wait;
use crate::service::hold;
use crate::service::local;
use crate::service::parts::Parts;
use crate::service::read_only;

/// What has lasted long enough ends, and what waited for room tries again.
pub(super) fn expire_and_retry(clients: &mut Clients, parts: &mut Parts<'_>, core: &mut Core<'_>) {
    if parts.state.is_applying() {
        // The turn in which that ends comes here, too.
        return;
    }
    prepare(clients, parts, core);
    local::expire(clients, parts, core.now());
    read_only::expire(clients, parts, core.now());
    read_only::begin_if_due(clients, parts, core);
    let (role, mut cx) = parts.role(core);
    role.expire(&mut cx);
    retry(clients, parts, core);
}

/// Goes on with a request whose preparation takes more than a turn.
fn prepare(clients: &mut Clients, parts: &mut Parts<'_>, core: &mut Core<'_>) {
    if !parts.role.has_begun() {
        return;
    }
    let (role, mut cx) = parts.role(core);
    let charged = role.go_on(&mut cx);
    if let Some(mut at) = charged.and_then(|session| clients.of_session(session)) {
        parts.charge_billed(&mut at);
    }
    parts.admission.schedule.settle();
    if parts.role.has_begun() {
        return;
    }
    parts.admission.may_resubmit();
    while let Some(conn) = parts.admission.next_unprepared() {
        if let Some(mut at) = clients.enter(conn) {
            parts.admission.wait(&mut at, Wait::Turn);
        }
    }
}

/// There may be room again for what could not be proposed or forwarded.
pub(super) fn retry(clients: &mut Clients, parts: &mut Parts<'_>, core: &mut Core<'_>) {
    hold::resubmit(clients, parts, core);
    parts.admission.room.note_first();
    parts.admission.requests_answered(&mut clients.shared);
    // What was in flight before this leader comes first.
    let is_resubmitting = parts.admission.is_resubmitting();
    let first = if is_resubmitting { Some(0) } else { parts.admission.room.first() };
    let (role, mut cx) = parts.role(core);
    let is_turn = role.retry(&mut cx, first) && !is_resubmitting;
    parts.admission.schedule.settle();
    if is_turn {
        parts.admission.call_next(&mut clients.shared);
    }
}

/// It is the turn of a connection that had to wait for it.
pub(super) fn go_on(at: &mut Entry<'_>, parts: &mut Parts<'_>) {
    at.client.account.call();
    answer::drain(at, parts, parts.admission.now);
    if !at.is_closed() && !at.client.account.waits() {
        Admission::resume(at);
    }
}

/// Closes connections of which nothing has come for as long as their sessions live.
pub(super) fn close_silent(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    for conn in clients.silent(now) {
        let Some(mut at) = clients.enter(conn) else { continue };
        let Client { remote, timeout_ms, session, .. } = &*at.client;
        log::info!(
            "Closing connection with {remote}: nothing was received for {timeout_ms} ms, after which \
             its session {session:#x} expires"
        );
        parts.metrics.silent_closed += 1;
        parts.close(&mut at, false);
    }
}

/// Closes connections that have no session after long enough.
pub(super) fn expire_greetings(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    while let Some(mut at) = clients.overdue_greeting(now) {
        parts.metrics.sessionless_expired += 1;
        parts.close(&mut at, false);
    }
}
