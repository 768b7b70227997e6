//! From committed transactions and reads to replies.

use bytes::BufMut;
use zab_proto::Instant;
use zab_proto::wire::jute::BufMutExt;
use zab_proto::wire::txn::TxnHeader;

use crate::auth::{Ids, Judge};
use crate::metrics::milliseconds;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, read_op, sync_op};
use crate::protocol::reply::{self, Reply};
use crate::protocol::txn::Txn;
use crate::protocol::txn_buf::whole_txn;
use crate::service::admission::Admission;
use crate::service::budget::keep_to_watches;
use crate::service::connection::Life;
use crate::service::connection::entry::Entry;
use crate::service::connection::order::{Answer, Awaiting, Body, InFlight};
use crate::service::connection::wait::Wait;
use crate::service::handshake::attached;
use crate::service::hold::rejoined;
use crate::service::leave::leave_client;
use crate::service::parts::Parts;
use crate::service::read::{Answered, Reading};
use crate::state::apply::Outcome;
use crate::state::steps::Replies;

/// A transaction that is applied.
#[derive(Debug)]
pub(super) struct Committed<'a> {
    pub(super) header: &'a TxnHeader,
    pub(super) txn: &'a Txn<'a>,
    /// The outcome of the whole.
    pub(super) outcome: Outcome,
    /// What the parts of a multi are answered.
    pub(super) replies: &'a [u8],
}

/// What a transaction means for the connection of its session, and for the request that caused it.
pub(super) fn settle(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    committed: &Committed<'_>,
) {
    let Committed { header, txn, outcome, .. } = *committed;
    let client = &mut *at.client;
    if client.state == Life::Connecting {
        if matches!(txn, Txn::CreateSession { .. }) {
            client.count_session(header.zxid.raw());
            parts.metrics.update_latency.add(milliseconds(client.connecting_since, now));
            attached(at, parts, now, true);
            Admission::resume(at);
        }
        return;
    }
    if matches!(txn, Txn::CreateSession { .. }) {
        // A local session becomes one of the ensemble. Its client has not asked for that.
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
    if asked.is_some() && client.carry.rejoins && outcome.code == Code::SESSION_MOVED {
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
        if let Some(audit) = &parts.env.options.audit {
            at.client.audit_write(audit, &request, txn, outcome.code.is_ok());
        }
        answer_write(at, parts, now, &request, committed);
    } else if outcome.code != Code::SESSION_MOVED && header.zxid > client.carry.floor {
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
    committed: &Committed<'_>,
) {
    let Committed { header, txn, outcome, replies } = *committed;
    let code = outcome.code;
    if code == Code::SESSION_MOVED {
        parts.close(at, false);
        return;
    }
    let Awaiting::Write { op, .. } = request.awaiting else { return };
    let unsent = at.client.unsent();
    let mut reply = Reply::begin(at.client.out.buffer());
    let code = match txn {
        Txn::Multi(_) => {
            reply.body().put_slice(replies);
            reply::multi_end(reply.body());
            Code::OK
        }
        whole_txn!() | Txn::CloseSession(_) => {
            put_outcome(reply.body(), op, txn, &outcome);
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
    at.client.count_reply(now, latency_ms, op, request.xid, last_zxid);
    at.appended(unsent);
}

/// Answers a read, or does a piece of what it takes: all that is left if it must be `at_once`. Its work
/// is still to be charged, and what is kept for the client to be counted. Returns whether nothing is
/// left to be done.
pub(super) fn read(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    request: &InFlight,
    (op, record): (Opcode, &[u8]),
    at_once: bool,
) -> bool {
    let Parts { state, watches, env, admission, metrics, .. } = parts;
    let client = &mut *at.client;
    let zxid = state.last_zxid();
    if client.progress.begins_again(zxid) {
        // It shows one instant. This time that lasts.
        admission.freeze(at.conn);
    }
    let piece_work =
        if at_once || !env.options.cuts { u64::MAX } else { admission.schedule.part() };
    let slot = at.conn.slot();
    let unsent = client.unsent();
    let watched = watches.len_bytes();
    // A scope of its own: what is borrowed for the reading is wanted again.
    let (answered, work) = {
        let (tree, listings) = state.reading();
        let judge = Judge::new(&env.access, Ids::new(&client.ids[..request.ids_len]));
        let watching = (&mut **watches, slot);
        let lists = (listings, piece_work);
        let (options, namespaces) = (&env.options, &mut metrics.namespaces);
        let reading =
            Reading::new(tree, judge, client.session, watching, lists, options, namespaces);
        let out = client.out.buffer();
        reading.answer((op, record), (request.xid, zxid), &mut client.progress, out)
    };
    let Some(Answered { len, list }) = answered else {
        at.wrote(unsent);
        admission.schedule.bill(work);
        // A connection that is closed has no more to do.
        return keep_to_watches(at, parts);
    };
    admission.thaw(at.conn);
    if let Some((at, list)) = list {
        client.out.attach(at, list);
    }
    let watches_more = watches.len_bytes() > watched;
    replied(at, parts, now, request, (op, len, unsent));
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

/// One of the two things has come that a client waits for which goes on with its session. By
/// now that may have been closed.
pub(super) fn reattached(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant) {
    if at.is_closed() || !(at.client.confirmed && at.client.caught_up) {
        return;
    }
    let live = parts.has_session(at.client.session);
    parts.local.settle(at.client.session);
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
                let is_done = read(at, parts, now, &first, (op, &record), write_behind);
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
        if wait != Wait::Turn {
            // Nobody's commits wait for it to read.
            parts.admission.thaw(at.conn);
        }
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
    if answer.ends_session {
        parts.local.close(at.client.session);
    }
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
        Opcode::Reconfig => {
            // The configuration that it made, whatever is in force by now.
            if let Txn::SetData { data, .. } = txn {
                out.put_buffer(*data);
            }
            put_stat(out, outcome);
        }
        Opcode::Delete
        | Opcode::Multi
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

/// Appends what a part of a multi is answered: with a stat if its client asks for that, or its transaction says so.
pub(super) fn put_part(replies: &mut Replies, part: &Txn<'_>, outcome: &Outcome) {
    let asks_stat = replies.next_asks_stat();
    let out = &mut replies.body;
    if outcome.kind == Opcode::Error || !outcome.code.is_ok() {
        reply::multi_error(out, outcome.code);
        return;
    }
    let with_stat = matches!(outcome.kind, Opcode::CreateContainer | Opcode::CreateTtl)
        || (outcome.kind == Opcode::Create && asks_stat);
    let kind = if with_stat { Opcode::Create2 } else { outcome.kind };
    reply::multi_header(out, kind.wire(), false, 0);
    put_outcome(out, kind, part, outcome);
}
