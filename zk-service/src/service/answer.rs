//! From committed transactions to replies and events.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Instant, Zxid};

use crate::auth::{Ids, Judge};
use crate::connection::Life;
use crate::connection::entry::Entry;
use crate::connection::order::{Answer, Awaiting, Body, InFlight};
use crate::connection::table::Clients;
use crate::connection::wait::Wait;
use crate::cost;
use crate::metrics::milliseconds;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, read_op, sync_op};
use crate::protocol::reply::{self, Reply};
use crate::protocol::txn::{Parts as TxnParts, Payload, Txn};
use crate::read::{Listed, Reading};
use crate::service::admission::Admission;
use crate::service::audit::{audit_close, audit_write};
use crate::service::budget::{close_for_memory, keep_to_budget, keep_to_watches};
use crate::service::handshake::attached;
use crate::service::hold::rejoined;
use crate::service::leave::leave_client;
use crate::service::parts::Parts;
use crate::state::apply::{Applied, Outcome};

/// Applies a committed transaction, tells the watchers, and answers who asked for it.
pub(super) fn apply(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    now: Instant,
    zxid: Zxid,
    bytes: &[u8],
) {
    let Some(payload) = parts.state.decode(zxid, bytes) else { return };
    let Payload { header, txn, .. } = &payload;
    let is_serving = parts.status.is_serving();
    if parts.role.leads() {
        parts.metrics.commits += u64::from(!parts.status.is_standalone());
    } else if is_serving {
        parts.metrics.commits_received += 1;
    }
    if is_serving && !parts.status.is_standalone() {
        let clock = &parts.env.options.wall_clock;
        parts.metrics.propagated(now, header.time, || clock.now_ms());
    }
    let operations = parts.state.operations_of(&payload) as u64;
    parts.admission.schedule.apply(cost::APPLY * operations + cost::bytes(bytes.len()));
    let done = parts.admission.schedule.done();
    let applied = apply_and_notify(clients, parts, header, txn);
    parts.state.compare(zxid, &payload, is_serving);
    parts.role.applied(parts.state, zxid, header.client_id, txn);
    if let Some(mut at) = clients.of_session(header.client_id) {
        settle(&mut at, parts, now, (header, txn, &applied));
    }
    // With what was answered because of it.
    parts.admission.schedule.apply(parts.admission.schedule.done() - done);
    keep_to_budget(clients, parts);
}

fn apply_and_notify(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    header: &TxnHeader,
    txn: &Txn<'_>,
) -> Applied {
    let Parts { state, watches, env, metrics, .. } = parts;
    if let Some(log) = &env.options.audit {
        audit_close(log, state, header, txn);
    }
    let bound = env.options.events_len_max_bytes;
    let mut too_slow = Vec::new();
    let mut frame = std::mem::take(&mut clients.shared.buffer);
    let applied = state.apply(header, txn, &mut |trigger| {
        let hit = watches.trigger(trigger.path, trigger.event);
        if hit.is_empty() {
            return;
        }
        metrics.triggered(trigger.event, hit.len());
        frame.clear();
        reply::event(&mut frame, header.zxid.raw(), trigger.event, trigger.path);
        for &slot in hit {
            let Some(mut at) = clients.enter_slot(slot) else { continue };
            let client = &mut *at.client;
            if !client.may_read(&env.access, trigger.rules) {
                continue;
            }
            let unsent = client.unsent();
            let unread = client.event(header.zxid.raw(), frame.len());
            client.out.buffer().extend_from_slice(&frame);
            client.stats.sent += 1;
            metrics.stats.sent += 1;
            metrics.watch_bytes += frame.len().saturating_sub(4) as u64;
            if unread > bound {
                too_slow.push((at.conn, unread));
            }
            at.wrote(unsent);
        }
    });
    clients.shared.buffer = frame;
    too_slow.dedup();
    for (conn, unread) in too_slow {
        if let Some(mut at) = clients.enter(conn).filter(|at| !at.is_closed()) {
            let why = format_args!(
                "it does not read its events, {unread} bytes wait of the {bound} that are allowed \
                 (events_len_max_bytes)"
            );
            close_for_memory(&mut at, parts, why);
        }
    }
    applied
}

/// What a transaction means for the connection of its session, and for the request that caused it.
fn settle(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    (header, txn, applied): (&TxnHeader, &Txn<'_>, &Applied),
) {
    let client = &mut *at.client;
    if client.state == Life::Connecting {
        if matches!(txn, Txn::CreateSession { .. }) {
            client.stats.last_op = "SESS";
            client.stats.last_cxid = Some(0);
            client.stats.last_zxid = header.zxid.raw();
            parts.metrics.update_latency.add(milliseconds(client.connecting_since, now));
            attached(at, parts, now, true);
            Admission::resume(at);
        }
        return;
    }
    // What is still to be submitted to this leader has no transaction of it.
    let is_submitted = client.carry.rejoins || client.queue.len() > client.carry.again;
    let asked = client.queue.front().copied().filter(|first| match first.awaiting {
        _ if !is_submitted => false,
        Awaiting::Write { zxid: Some(zxid), .. } => zxid == header.zxid,
        Awaiting::Write { zxid: None, .. } => first.xid == header.cxid,
        Awaiting::Sync { .. } | Awaiting::Read { .. } | Awaiting::Reply(_) => false,
    });
    if asked.is_some() && client.carry.rejoins && applied.outcome.code == Code::SESSION_MOVED {
        // What was still on its way from before the leader was lost: it belongs to a connection that the
        // session has left, for this one. It has not been carried out, and is submitted again.
        return;
    }
    if let Some(request) = asked {
        at.take_write();
        if let Some(hold) = &mut parts.admission.hold {
            hold.note_answered();
        }
        parts.admission.writes_answered(at.shared);
        audit_write(at, parts, &request, txn, applied);
        answer_write(at, parts, now, &request, (header, txn, applied));
    } else if applied.outcome.code != Code::SESSION_MOVED && header.zxid > client.carry.floor {
        client.carry.moved = true;
    }
    if matches!(txn, Txn::CloseSession(_)) {
        parts.close(at, asked.is_some());
    }
}

fn answer_write(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: &InFlight,
    (header, txn, applied): (&TxnHeader, &Txn<'_>, &Applied),
) {
    let Outcome { code, .. } = applied.outcome;
    if code == Code::SESSION_MOVED {
        parts.close(at, false);
        return;
    }
    let Awaiting::Write { op, .. } = request.awaiting else { return };
    let unsent = at.client.unsent();
    let mut reply = Reply::begin(at.client.out.buffer());
    let code = match txn {
        Txn::Multi(operations) => {
            put_multi(reply.body(), *operations, applied);
            Code::OK
        }
        Txn::Create(_)
        | Txn::Delete { .. }
        | Txn::SetData { .. }
        | Txn::SetAcl { .. }
        | Txn::Check { .. }
        | Txn::CreateSession { .. }
        | Txn::CloseSession(_)
        | Txn::Error(_) => {
            put_outcome(reply.body(), op, txn, &applied.outcome);
            code
        }
    };
    let len = reply.end(request.xid, header.zxid.raw(), code);
    replied(at, parts, now, request, (op, len, unsent));
    drain(at, parts, now);
}

/// Bookkeeping after a reply of `len` bytes, before which there were `unsent`; what is kept for the
/// client is still to be counted.
fn replied(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: &InFlight,
    (op, len, unsent): (Opcode, usize, usize),
) {
    let latency_ms = milliseconds(request.received, now);
    parts.metrics.stats.replied(latency_ms, len);
    // Without the length in front.
    parts.metrics.response_bytes += len.saturating_sub(4) as u64;
    match request.awaiting {
        Awaiting::Write { .. } => parts.metrics.update_latency.add(latency_ms),
        Awaiting::Read { .. } | Awaiting::Sync { .. } => parts.metrics.read_latency.add(latency_ms),
        Awaiting::Reply(_) => {}
    }
    let last_zxid = parts.state.last_zxid().raw();
    at.replied(unsent, |stats| stats.replied(now, latency_ms, op, request.xid, last_zxid));
}

/// Answers a read, or does a piece of what it takes: all that is left if it must be `at_once`. Its work
/// is still to be charged, and what is kept for the client to be counted. Returns whether nothing is
/// left to be done.
pub(super) fn read(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: InFlight,
    (op, record): (Opcode, &[u8]),
    at_once: bool,
) -> bool {
    let Parts { state, watches, env, admission, .. } = parts;
    let bounds = env.options.bounds();
    let piece_work = if at_once { u64::MAX } else { admission.schedule.part() };
    let slot = at.slot();
    let client = &mut *at.client;
    let unsent = client.unsent();
    let watched = watches.len_bytes();
    let mut reply;
    // A scope of its own: what is borrowed for the reading is wanted again.
    let (result, mut work, list) = {
        let (tree, listings) = state.reading();
        let judge = Judge::new(&env.access, Ids::new(&client.ids[..request.ids_len]));
        let watching = (&mut **watches, slot, env.options.watches_len_max_bytes);
        let mut reading =
            Reading::new(tree, judge, client.session, watching, (listings, piece_work), bounds);
        let armed = if matches!(op, Opcode::SetWatches | Opcode::SetWatches2) {
            reading.set_watches((op, record), &mut client.rearming, client.out.buffer())
        } else {
            Ok(())
        };
        reply = Reply::begin(client.out.buffer());
        let body_at = reply.body_at();
        let result = armed.and_then(|()| reading.answer((op, record), reply.body(), body_at));
        let (work, list) = reading.finish();
        (result, work, list)
    };
    let body_at = reply.body_at();
    let list = match list {
        Listed::Here => None,
        Listed::Shared(list) => Some(list).filter(|_| result.is_ok()),
        Listed::NotYet => {
            reply.cancel();
            at.wrote(unsent);
            admission.schedule.bill(work);
            // A connection that is closed has no more to do.
            return keep_to_watches(at, parts);
        }
    };
    let list_len = list.as_ref().map_or(0, |list| list.bytes().len());
    reply.add_elsewhere(list_len);
    let len = reply.end(request.xid, state.last_zxid().raw(), result.err().unwrap_or_default());
    if let Some(list) = list {
        client.out.attach(body_at, list);
    }
    work += cost::listed(list_len) + cost::bytes(len - list_len);
    let watches_more = watches.len_bytes() > watched;
    replied(at, parts, now, &request, (op, len, unsent));
    parts.admission.schedule.bill(work);
    if watches_more {
        keep_to_watches(at, parts);
    }
    true
}

/// A sync of a client has ended.
pub(super) fn sync_ended(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant) {
    let client = &mut *at.client;
    if client.state == Life::Connecting || client.carry.rejoins {
        client.caught_up = true;
        reattached(at, parts, now);
        return;
    }
    client.queue.end_sync();
    drain(at, parts, now);
}

/// Learner: one of the two things has come that a client waits for which goes on with its session. By
/// now that may have been closed.
pub(super) fn reattached(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant) {
    if at.is_closed() || !(at.client.confirmed && at.client.caught_up) {
        return;
    }
    let live = parts.state.has_session(at.client.session);
    if at.client.carry.rejoins {
        rejoined(at, parts, live);
    } else {
        attached(at, parts, now, live);
        Admission::resume(at);
    }
}

/// Answers everything at the head of a connection's queue that waits for nothing more, as far as this
/// turn and what the client leaves unread allow.
pub(super) fn drain(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant) {
    // The transaction of a write finds it at the head of its queue, and the reads in front of it
    // show what was before: they do not wait.
    let write_behind = !at.is_closed() && at.client.queue.writes() > 0;
    let mut record = std::mem::take(&mut at.shared.buffer);
    while !at.is_closed()
        && let Some(&first) = at.client.queue.front()
    {
        let is_read = matches!(first.awaiting, Awaiting::Read { .. });
        if is_read && !write_behind && (parts.admission.hold.is_some() || !may_answer(at, parts)) {
            break;
        }
        match first.awaiting {
            Awaiting::Write { .. } | Awaiting::Sync { done: false, .. } => break,
            Awaiting::Sync { done: true, len } => {
                at.client.pop();
                at.client.copy_kept(len, &mut record);
                at.client.drop_kept(len);
                answer_sync(at, parts, now, &first, &record);
            }
            Awaiting::Read { op, len, .. } => {
                at.client.copy_kept(len, &mut record);
                let is_done = read(at, parts, now, first, (op, &record), write_behind);
                parts.charge(at, 0);
                if !is_done {
                    parts.admission.wait(at, Wait::Turn);
                    break;
                }
                at.client.pop();
                at.client.drop_kept(len);
            }
            Awaiting::Reply(answer) => {
                at.client.pop();
                if let Body::Token(len) = answer.body {
                    at.client.copy_kept(len, &mut record);
                    at.client.drop_kept(len);
                }
                answer_known(at, parts, now, &first, (answer, &record));
            }
        }
    }
    at.shared.buffer = record;
    at.count_kept();
    parts.admission.requests_answered(at.shared);
    if !at.is_closed() {
        Admission::answered(&parts.env.options, at);
        leave_client(at, parts);
    }
}

/// Whether one more read may be answered now; if not, the connection will be told to go on.
fn may_answer(at: &mut Entry<'_>, parts: &mut Parts<'_>) -> bool {
    let wait = parts.admission.answer(&parts.env.options, at.client);
    if let Some(wait) = wait {
        parts.admission.wait(at, wait);
    }
    wait.is_none()
}

fn answer_sync(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: &InFlight,
    path: &[u8],
) {
    let zxid = parts.state.last_zxid().raw();
    let unsent = at.client.unsent();
    let mut reply = Reply::begin(at.client.out.buffer());
    reply.body().put_slice(path);
    let len = reply.end(request.xid, zxid, Code::OK);
    replied(at, parts, now, request, (Opcode::Sync, len, unsent));
}

fn answer_known(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: &InFlight,
    (answer, token): (Answer, &[u8]),
) {
    let zxid = answer.zxid.unwrap_or_else(|| parts.state.last_zxid().raw());
    let unsent = at.client.unsent();
    let mut reply = Reply::begin(at.client.out.buffer());
    let len = match answer.body {
        Body::None => reply.end(request.xid, zxid, answer.code),
        Body::NullToken => {
            reply.body().put_buffer(None);
            reply.end_whole(request.xid, zxid, answer.code)
        }
        Body::Token(_) => {
            reply.body().put_buffer(Some(token));
            reply.end_whole(request.xid, zxid, answer.code)
        }
    };
    replied(at, parts, now, request, (Opcode::Auth, len, unsent));
    if answer.close {
        parts.close(at, true);
    }
}

/// The body of the reply to a successful write; it is dropped again after a failed one.
fn put_outcome(out: &mut Vec<u8>, op: Opcode, txn: &Txn<'_>, outcome: &Outcome) {
    match op {
        Opcode::Create => out.put_ustring(txn.path()),
        Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl => {
            out.put_ustring(txn.path());
            put_stat(out, outcome);
        }
        Opcode::SetData | Opcode::SetAcl => put_stat(out, outcome),
        Opcode::Delete
        | Opcode::Multi
        | Opcode::Reconfig
        | Opcode::CloseSession
        | read_op!()
        | sync_op!()
        | auth_op!()
        | internal_op!() => {}
    }
}

fn put_stat(out: &mut Vec<u8>, outcome: &Outcome) {
    if let Some(stat) = &outcome.stat {
        stat.write(out);
    }
}

fn put_multi(out: &mut Vec<u8>, operations: TxnParts<'_>, applied: &Applied) {
    for (part, outcome) in operations.iter().zip(&applied.parts) {
        if outcome.kind == Opcode::Error || !outcome.code.is_ok() {
            reply::multi_error(out, outcome.code);
            continue;
        }
        let with_stat = matches!(outcome.kind, Opcode::CreateContainer | Opcode::CreateTtl);
        let kind = if with_stat { Opcode::Create2 } else { outcome.kind };
        reply::multi_header(out, kind.wire(), false, 0);
        put_outcome(out, kind, &part, outcome);
    }
    reply::multi_end(out);
}
