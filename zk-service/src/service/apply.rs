//! Committed transactions are applied, watchers told, and who asked is answered.
//!
//! A transaction of many parts is applied in pieces that fit a turn. It is whole for everybody all the
//! same: until its last step is done nobody reads the tree (`State::is_applying`). Clients wait, and so do the next
//! transaction, the ends of syncs and new snapshots; peers and timers do not. Requests that change nothing
//! but what is prepared go on as well: on top of a record of each change that is not applied yet, a tree in
//! between looks as it did before.

use zab_proto::{ConnId, Instant, Zxid};

use crate::audit::{AuditLog, Lines};
use crate::cost;
use crate::metrics::Metrics;
use crate::protocol::event::Event;
use crate::protocol::reply;
use crate::protocol::txn::{Payload, Txn, TxnDigest};
use crate::service::answer::{Committed, put_part, settle};
use crate::service::budget::{close_for_memory, keep_to_budget};
use crate::service::connection::table::Clients;
use crate::service::env::Env;
use crate::service::local;
use crate::service::parts::Parts;
use crate::state::State;
use crate::state::apply::Trigger;
use crate::state::steps::{Job, Replies, Step, Unfinished};
use crate::state::watch::Watches;

/// Applies a committed transaction, or begins to. One that was begun before is applied to its end first.
pub(super) fn apply(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    now: Instant,
    zxid: Zxid,
    bytes: &[u8],
) {
    finish(clients, parts, now);
    let Some(payload) = parts.state.decode(zxid, bytes) else { return };
    let Payload { header, txn, digest } = payload;
    note_commit(parts, now, header.time);
    parts.admission.schedule.apply(cost::bytes(bytes.len()));
    let budget = parts.apply_budget();
    let Some(steps) = parts.state.begin(&header, &txn) else {
        parts.admission.schedule.apply(cost::APPLY);
        let mut telling = Telling::new(clients, parts.env, header.zxid);
        let Parts { state, watches, metrics, .. } = parts;
        let outcome = state.apply(&header, &txn, &mut |trigger| {
            telling.tell(watches, metrics, &trigger);
        });
        let too_slow = telling.end();
        close_slow(clients, parts, too_slow);
        let committed = Committed { header: &header, txn: &txn, outcome, replies: &[] };
        conclude(clients, parts, now, (zxid, digest), &committed);
        return;
    };
    let client = clients.of_session(header.client_id);
    let replies = client.map(|at| Replies::new(at.stat_parts()));
    let mut job = Job { header, zxid, digest, steps, replies };
    if go_on(clients, parts, &mut job, &txn, budget) {
        end(clients, parts, now, &job, &txn);
    } else {
        parts.state.set_aside(Unfinished::new(job, &txn).map(Box::new));
    }
}

/// Goes on with a transaction that is applied in part, as far as this turn allows. With its end nothing
/// else is applied in this turn, so that what had to wait for it comes before the next one.
pub(super) fn resume(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    let budget = parts.apply_budget();
    if take_up(clients, parts, now, budget) {
        parts.admission.schedule.end_applying();
    }
}

/// Applies the rest of a transaction at once, as the state has to be a whole one now.
pub(super) fn finish(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    let was_forced = parts.admission.schedule.force(true);
    take_up(clients, parts, now, u64::MAX);
    parts.admission.schedule.force(was_forced);
}

/// Whether a transaction that was set aside is done now.
fn take_up(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant, budget: u64) -> bool {
    let Some(mut unfinished) = parts.state.take_unfinished() else { return false };
    let (job, txn) = unfinished.split();
    let is_done = go_on(clients, parts, job, &txn, budget);
    if is_done {
        end(clients, parts, now, job, &txn);
    } else {
        parts.state.set_aside(Some(unfinished));
    }
    is_done
}

/// Does the next steps: one, and more until they are so much work. Whether all are done.
fn go_on(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    job: &mut Job,
    txn: &Txn<'_>,
    budget: u64,
) -> bool {
    let Job { header, steps, replies, .. } = job;
    let session = header.client_id;
    let audit = parts.env.options.audit.clone().filter(|_| matches!(txn, Txn::CloseSession(_)));
    let mut lines = audit.as_ref().map(AuditLog::lines);
    let mut telling = Telling::new(clients, parts.env, header.zxid);
    let Parts { state, watches, metrics, .. } = parts;
    let mut work = 0;
    let is_done = loop {
        let step = state.step(header, txn, steps, &mut |trigger| {
            if let Some(lines) = &mut lines {
                audit_closing(lines, session, &trigger);
            }
            work += cost::NODE * telling.tell(watches, metrics, &trigger);
        });
        match step {
            Step::End => break true,
            Step::Removed => work += cost::NODE,
            Step::Missing(path) => {
                work += cost::NODE;
                if let Some(lines) = &mut lines {
                    lines.ephemeral(session, &path, false);
                }
            }
            Step::Part(part, outcome) => {
                work += cost::APPLY;
                if let Some(replies) = replies {
                    put_part(replies, &part, &outcome);
                }
            }
        }
        if work >= budget {
            break false;
        }
    };
    let too_slow = telling.end();
    close_slow(clients, parts, too_slow);
    if let Some(lines) = lines {
        lines.finish();
    }
    parts.admission.schedule.apply(work);
    is_done
}

/// A node goes with its session. Each member has these lines, and has them again when it reads its log
/// after a restart.
fn audit_closing(lines: &mut Lines<'_>, session: i64, trigger: &Trigger<'_>) {
    if trigger.event == Event::Deleted {
        lines.ephemeral(session, trigger.path, true);
    }
}

fn end(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant, job: &Job, txn: &Txn<'_>) {
    let Job { header, zxid, digest, steps, replies } = job;
    let outcome = parts.state.end(header.zxid, txn, steps);
    let replies = replies.as_ref().map(|replies| &*replies.body).unwrap_or_default();
    let committed = Committed { header, txn, outcome, replies };
    conclude(clients, parts, now, (*zxid, *digest), &committed);
}

/// A transaction is applied to its end.
fn conclude(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    now: Instant,
    (zxid, digest): (Zxid, Option<TxnDigest>),
    committed: &Committed<'_>,
) {
    let (header, is_serving) = (committed.header, parts.status.is_serving());
    let done = parts.admission.schedule.done();
    parts.state.compare(zxid, (header, digest), is_serving);
    parts.role.applied(parts.state, zxid, header.client_id, committed.txn);
    if matches!(committed.txn, Txn::CreateSession { .. }) {
        local::begun(parts, header.client_id);
    }
    if let Some(mut at) = clients.of_session(header.client_id) {
        settle(&mut at, parts, now, committed);
    }
    // With what was answered because of it.
    parts.admission.schedule.answer(parts.admission.schedule.done() - done);
    keep_to_budget(clients, parts);
}

/// Counts a transaction that has come.
fn note_commit(parts: &mut Parts<'_>, now: Instant, time: i64) {
    let is_serving = parts.status.is_serving();
    if parts.role.leads() {
        parts.metrics.commits += u64::from(!parts.status.is_standalone());
    } else if is_serving {
        parts.metrics.commits_received += 1;
    }
    if is_serving && !parts.status.is_standalone() {
        let clock = &parts.env.options.wall_clock;
        parts.metrics.propagated(now, time, parts.role.leads(), || clock.now_ms());
    }
}

/// Those who watch are told what a transaction does.
#[derive(Debug)]
struct Telling<'a> {
    clients: &'a mut Clients,
    env: &'a Env,
    zxid: i64,
    /// The event, encoded.
    frame: Vec<u8>,
    /// Who does not read its events, and how many bytes of them.
    too_slow: Vec<(ConnId, usize)>,
}

impl<'a> Telling<'a> {
    fn new(clients: &'a mut Clients, env: &'a Env, zxid: Zxid) -> Self {
        let frame = std::mem::take(&mut clients.shared.buffer);
        Self { clients, env, zxid: zxid.raw(), frame, too_slow: Vec::new() }
    }

    /// Sends an event to those who watch for it. Returns how many these are.
    fn tell(&mut self, watches: &mut Watches, metrics: &mut Metrics, trigger: &Trigger<'_>) -> u64 {
        metrics.changed(trigger.event, trigger.path, trigger.data_len);
        let hit = watches.trigger(trigger.path, trigger.event);
        if hit.is_empty() {
            return 0;
        }
        metrics.triggered(trigger.event, hit.len());
        self.frame.clear();
        reply::event(&mut self.frame, self.zxid, trigger.event, trigger.path);
        for &slot in hit {
            let Some(mut at) = self.clients.enter_slot(slot) else { continue };
            let client = &mut *at.client;
            if !client.may_read(&self.env.access, trigger.rules) {
                continue;
            }
            let unsent = client.unsent();
            let unread = client.event(self.zxid, self.frame.len());
            client.out.buffer().extend_from_slice(&self.frame);
            client.count_sent(1);
            metrics.stats.sent += 1;
            metrics.watch_bytes += self.frame.len().saturating_sub(4) as u64;
            if unread > self.env.options.events_len_max_bytes {
                self.too_slow.push((at.conn, unread));
            }
            at.wrote(unsent);
        }
        hit.len() as u64
    }

    /// Who does not read its events.
    fn end(mut self) -> Vec<(ConnId, usize)> {
        self.clients.shared.buffer = self.frame;
        self.too_slow.dedup();
        self.too_slow
    }
}

/// Changes the state, and tells the watchers of what it says of that, with the zxid that the change has.
pub(super) fn notifying<R>(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    zxid: Zxid,
    change: impl FnOnce(&mut State, &mut dyn FnMut(Trigger<'_>)) -> R,
) -> R {
    let mut telling = Telling::new(clients, parts.env, zxid);
    let Parts { state, watches, metrics, .. } = parts;
    let result = change(state, &mut |trigger| _ = telling.tell(watches, metrics, &trigger));
    let too_slow = telling.end();
    close_slow(clients, parts, too_slow);
    result
}

fn close_slow(clients: &mut Clients, parts: &mut Parts<'_>, too_slow: Vec<(ConnId, usize)>) {
    let bound = parts.env.options.events_len_max_bytes;
    for (conn, unread) in too_slow {
        if let Some(mut at) = clients.enter(conn).filter(|at| !at.is_closed()) {
            let why = format_args!(
                "it does not read its events, {unread} bytes wait of the {bound} that are allowed \
                 (events_len_max_bytes)"
            );
            close_for_memory(&mut at, parts, why);
        }
    }
}
