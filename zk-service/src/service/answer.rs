//! From committed transactions to replies and events.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{ConnId, Instant, Zxid};

use crate::auth::{Ids, Judge};
use crate::connection::Life;
use crate::connection::order::{Answer, Awaiting, Body, InFlight};
use crate::connection::wait::Wait;
use crate::cost;
use crate::metrics::milliseconds;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, read_op, sync_op};
use crate::protocol::reply::{self, Reply};
use crate::protocol::txn::{Parts, Payload, Txn};
use crate::read::{Listed, Reading};
use crate::service::Service;
use crate::service::admission::Admission;
use crate::service::audit::audit_close;
use crate::state::apply::{Applied, Outcome};
use crate::state::listing::Piece;

impl Service {
    /// Applies a committed transaction, tells the watchers, and answers who asked for it.
    pub(super) fn apply(&mut self, now: Instant, zxid: Zxid, bytes: &[u8]) {
        let Some(payload) = self.state.decode(zxid, bytes) else { return };
        let Payload { header, txn, .. } = &payload;
        let is_serving = self.status.is_serving();
        if self.role.leads() {
            self.metrics.commits += u64::from(!self.status.is_standalone());
        } else if is_serving {
            self.metrics.commits_received += 1;
        }
        let operations = self.state.operations_of(&payload) as u64;
        self.admission.schedule.apply(cost::APPLY * operations + cost::bytes(bytes.len()));
        let done = self.admission.schedule.done();
        let applied = self.apply_and_notify(header, txn);
        self.state.compare(zxid, &payload, is_serving);
        self.role.applied(&self.state, zxid, header.client_id, txn);
        self.settle(now, header, txn, &applied);
        // With what was answered because of it.
        self.admission.schedule.apply(self.admission.schedule.done() - done);
        self.keep_to_budget();
    }

    fn apply_and_notify(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Applied {
        let Self { state, watches, clients, env, frame, hit, metrics, .. } = self;
        if let Some(log) = &env.options.audit {
            audit_close(log, state, header, txn);
        }
        let mut too_slow = Vec::new();
        let applied = state.apply(header, txn, &mut |trigger| {
            watches.trigger(trigger.path, trigger.event, hit);
            if hit.is_empty() {
                return;
            }
            metrics.triggered(trigger.event, hit.len());
            frame.clear();
            reply::event(frame, header.zxid.raw(), trigger.event, trigger.path);
            for &slot in &*hit {
                let Some(client) = clients.get_mut(slot) else { continue };
                if !client.may_read(&env.access, trigger.rules) {
                    continue;
                }
                let unsent = client.unsent();
                let unread = client.event(header.zxid.raw(), frame.len());
                client.out.buffer().extend_from_slice(frame);
                client.stats.sent += 1;
                metrics.stats.sent += 1;
                metrics.watch_bytes += frame.len().saturating_sub(4) as u64;
                if unread > env.options.events_len_max_bytes {
                    too_slow.push((slot, unread));
                }
                clients.wrote(slot, unsent);
            }
        });
        let bound = self.env.options.events_len_max_bytes;
        too_slow.dedup();
        for (slot, unread) in too_slow {
            if self.client(slot).is_some() {
                let why = format_args!(
                    "it does not read its events, {unread} bytes wait of the {bound} that are allowed \
                     (events_len_max_bytes)"
                );
                self.close_for_memory(slot, why);
            }
        }
        applied
    }

    /// What a transaction means for sessions and for the request that caused it.
    fn settle(&mut self, now: Instant, header: &TxnHeader, txn: &Txn<'_>, applied: &Applied) {
        let session = header.client_id;
        let Some(slot) = self.clients.of_session(session) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == Life::Connecting {
            if matches!(txn, Txn::CreateSession { .. }) {
                client.stats.last_op = "SESS";
                client.stats.last_cxid = Some(0);
                client.stats.last_zxid = header.zxid.raw();
                let latency_ms = milliseconds(client.connecting_since, now);
                self.metrics.update_latency.add(latency_ms);
                self.attached(now, slot, true);
                Admission::resume(&mut self.clients, slot);
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
        if let Some(request) = asked {
            self.clients.take_write(slot);
            self.note_answered();
            self.admission.writes_answered(&mut self.clients);
            self.audit_write(slot, &request, txn, applied);
            self.answer_write(now, slot, request, (header, txn, applied));
        } else if applied.outcome.code != Code::SESSION_MOVED && header.zxid > client.carry.floor {
            client.carry.moved = true;
        }
        if matches!(txn, Txn::CloseSession(_)) {
            self.close(slot, asked.is_some());
        }
    }

    fn answer_write(
        &mut self,
        now: Instant,
        slot: u32,
        request: InFlight,
        (header, txn, applied): (&TxnHeader, &Txn<'_>, &Applied),
    ) {
        let Outcome { code, .. } = applied.outcome;
        if code == Code::SESSION_MOVED {
            self.close(slot, false);
            return;
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Awaiting::Write { op, .. } = request.awaiting else { return };
        let unsent = client.unsent();
        let mut reply = Reply::begin(client.out.buffer());
        let code = match txn {
            Txn::Multi(parts) => {
                put_multi(reply.body(), *parts, applied);
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
        self.replied(now, slot, &request, op, len, unsent);
        self.drain(now, slot);
    }

    /// Bookkeeping after a reply; what is kept for the client is still to be counted.
    fn replied(
        &mut self,
        now: Instant,
        slot: u32,
        request: &InFlight,
        op: Opcode,
        len: usize,
        unsent: usize,
    ) {
        let latency_ms = milliseconds(request.received, now);
        self.metrics.stats.replied(latency_ms, len);
        // Without the length in front.
        self.metrics.response_bytes += len.saturating_sub(4) as u64;
        match request.awaiting {
            Awaiting::Write { .. } => self.metrics.update_latency.add(latency_ms),
            Awaiting::Read { .. } | Awaiting::Sync { .. } => {
                self.metrics.read_latency.add(latency_ms);
            }
            Awaiting::Reply(_) => {}
        }
        let last_zxid = self.state.last_zxid().raw();
        self.clients.replied(slot, unsent, |stats| {
            stats.replied(now, latency_ms, op, request.xid, last_zxid);
        });
    }

    /// Answers a read, or does a piece of what it takes: all that is left if it must be `at_once`. Its
    /// work is still to be charged, and what is kept for the client to be counted. Returns whether
    /// nothing is left to be done.
    pub(super) fn read(
        &mut self,
        now: Instant,
        slot: u32,
        request: InFlight,
        (op, record): (Opcode, &[u8]),
        at_once: bool,
    ) -> bool {
        let bounds = self.env.options.bounds();
        let piece_work = if at_once { u64::MAX } else { self.admission.schedule.part() };
        let piece = Piece { count_max: cost::children(piece_work), len_max: bounds.len };
        let Self { state, watches, listings, clients, env, .. } = self;
        let Some(client) = clients.get_mut(slot) else { return true };
        let unsent = client.unsent();
        let watched = watches.len_bytes();
        let mut reply;
        // A scope of its own: what is borrowed for the reading is wanted again.
        let (result, mut work, list) = {
            let mut reading = Reading {
                tree: state.tree(),
                judge: Judge::new(&env.access, Ids::new(&client.ids[..request.ids_len])),
                watches,
                slot,
                session: client.session,
                watches_len_max: env.options.watches_len_max_bytes,
                listings,
                piece,
                piece_work,
                list: Listed::Here,
                bounds,
                body_at: 0,
                work: 0,
            };
            let armed = if matches!(op, Opcode::SetWatches | Opcode::SetWatches2) {
                reading.set_watches((op, record), &mut client.rearming, client.out.buffer())
            } else {
                Ok(())
            };
            reply = Reply::begin(client.out.buffer());
            reading.body_at = reply.body_at();
            let result = armed.and_then(|()| reading.answer(op, record, reply.body()));
            let work = reading.work + reading.judge.take_work();
            (result, work, std::mem::take(&mut reading.list))
        };
        let body_at = reply.body_at();
        let list = match list {
            Listed::Here => None,
            Listed::Shared(list) => Some(list).filter(|_| result.is_ok()),
            Listed::NotYet => {
                reply.cancel();
                self.clients.wrote(slot, unsent);
                self.admission.schedule.bill(work);
                // A connection that is closed has no more to do.
                return self.keep_to_watches(slot);
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
        self.replied(now, slot, &request, op, len, unsent);
        self.admission.schedule.bill(work);
        if watches_more {
            self.keep_to_watches(slot);
        }
        true
    }

    /// A sync of a client has ended.
    pub(super) fn sync_ended(&mut self, now: Instant, conn: ConnId) {
        let Some(slot) = self.clients.slot(conn) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == Life::Connecting || client.carry.rejoins {
            client.caught_up = true;
            self.reattached(now, slot);
            return;
        }
        client.queue.end_sync();
        self.drain(now, slot);
    }

    /// Learner: one of the two things has come that a client waits for which goes on with its
    /// session. By now that may have been closed.
    pub(super) fn reattached(&mut self, now: Instant, slot: u32) {
        let Some(client) = self.client(slot) else { return };
        if !(client.confirmed && client.caught_up) {
            return;
        }
        let session = client.session;
        let live = self.state.has_session(session);
        if self.client(slot).is_some_and(|client| client.carry.rejoins) {
            self.rejoined(slot, live);
        } else {
            self.attached(now, slot, live);
            Admission::resume(&mut self.clients, slot);
        }
    }

    /// Answers everything at the head of a connection's queue that waits for nothing more, as far as
    /// this turn and what the client leaves unread allow.
    pub(super) fn drain(&mut self, now: Instant, slot: u32) {
        // The transaction of a write finds it at the head of its queue, and the reads in front of it
        // show what was before: they do not wait.
        let write_behind = self.client(slot).is_some_and(|client| client.queue.writes() > 0);
        let mut record = std::mem::take(&mut self.record);
        while let Some(client) = self.client(slot)
            && let Some(&first) = client.queue.front()
        {
            let is_read = matches!(first.awaiting, Awaiting::Read { .. });
            if is_read && !write_behind && (self.holds_clients() || !self.may_answer(slot)) {
                break;
            }
            let Some(client) = self.clients.get_mut(slot) else { break };
            match first.awaiting {
                Awaiting::Write { .. } | Awaiting::Sync { done: false, .. } => break,
                Awaiting::Sync { done: true, len } => {
                    client.pop();
                    client.copy_kept(len, &mut record);
                    client.drop_kept(len);
                    self.answer_sync(now, slot, &first, &record);
                }
                Awaiting::Read { op, len, .. } => {
                    client.copy_kept(len, &mut record);
                    let is_done = self.read(now, slot, first, (op, &record), write_behind);
                    self.charge(slot, 0);
                    if !is_done {
                        self.wait(slot, Wait::Turn);
                        break;
                    }
                    if let Some(client) = self.clients.get_mut(slot) {
                        client.pop();
                        client.drop_kept(len);
                    }
                }
                Awaiting::Reply(answer) => {
                    client.pop();
                    if let Body::Token(len) = answer.body {
                        client.copy_kept(len, &mut record);
                        client.drop_kept(len);
                    }
                    self.answer_known(now, slot, &first, answer, &record);
                }
            }
        }
        self.record = record;
        self.clients.count_kept(slot);
        if self.client(slot).is_none() {
            return;
        }
        Admission::answered(&self.env.options, &mut self.clients, slot);
        self.leave_client(slot);
    }

    /// Whether one more read may be answered now; if not, the connection will be told to go on.
    fn may_answer(&mut self, slot: u32) -> bool {
        let Some(client) = self.clients.get(slot) else { return false };
        let wait = self.admission.answer(&self.env.options, client);
        if let Some(wait) = wait {
            self.wait(slot, wait);
        }
        wait.is_none()
    }

    fn answer_sync(&mut self, now: Instant, slot: u32, request: &InFlight, path: &[u8]) {
        let zxid = self.state.last_zxid().raw();
        let Some(client) = self.clients.get_mut(slot) else { return };
        let unsent = client.unsent();
        let mut reply = Reply::begin(client.out.buffer());
        reply.body().put_slice(path);
        let len = reply.end(request.xid, zxid, Code::OK);
        self.replied(now, slot, request, Opcode::Sync, len, unsent);
    }

    fn answer_known(
        &mut self,
        now: Instant,
        slot: u32,
        request: &InFlight,
        answer: Answer,
        token: &[u8],
    ) {
        let zxid = answer.zxid.unwrap_or_else(|| self.state.last_zxid().raw());
        let Some(client) = self.clients.get_mut(slot) else { return };
        let unsent = client.unsent();
        let mut reply = Reply::begin(client.out.buffer());
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
        self.replied(now, slot, request, Opcode::Auth, len, unsent);
        if answer.close {
            self.close(slot, true);
        }
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

fn put_multi(out: &mut Vec<u8>, parts: Parts<'_>, applied: &Applied) {
    for (part, outcome) in parts.iter().zip(&applied.parts) {
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
