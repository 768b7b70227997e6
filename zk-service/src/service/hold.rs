//! Client connections that outlive a change of the role.
//!
//! When a role ends, its clients' connections are *held*: nothing is read from them, and nothing is
//! answered but what committed transactions answer. When the next role is served, what they have in
//! flight is submitted again, and they go on as if nothing had happened.
//!
//! # Why nothing is carried out twice
//!
//! What a learner has forwarded, or a leader proposed, has become a transaction that is committed, or
//! never will. Which of both is known at the moment in which a server begins to serve in a *later*
//! epoch, unless it was sent a snapshot: it has then been delivered all of that epoch's initial
//! history. A transaction of an epoch before that is not in it cannot be committed any more, and what
//! the old leader had not proposed ended with its role. So what is delivered up to then is answered
//! by its transaction, and the rest has not happened and will not: it is submitted again, in the order
//! of the connection.
//!
//! A learner may also come back to the leader that it had, in the *same* epoch, where requests from
//! its old connection may still be on their way. So there each session is asked for again, with a
//! sync after the question, as for a client that comes from another server
//! (`service/role/learner.rs::resume_session`): from the answer on, the leader refuses what comes by the old
//! connection, and at the end of the sync everything it had let through is delivered here.
//!
//! Behind a snapshot nobody knows which requests are in it, nor which watches would have fired: such
//! clients are disconnected, as ZooKeeper does with all, and arm their watches again.
//!
//! # Why nothing is carried out out of order
//!
//! A client that has gone to another server must not have a request of its old connection carried out
//! after its new ones. Mostly its old connection is closed. If that is not heard of, its next
//! transaction tells (it is not the one that this connection waits for). And no request is submitted
//! again that is older than a third of its session's time-out: clients look for another server after
//! two thirds without an answer, and have had one in the third before they asked, by their own pings.

use std::fmt::Write;
use std::time::Duration;

use zab_proto::{Core, Instant};

use crate::auth::Ids;
use crate::cost;
use crate::metrics::HoldEnd;
use crate::protocol::opcode::Opcode;
use crate::service::admission::Admission;
use crate::service::answer::{drain, reattached};
use crate::service::connection::entry::Entry;
use crate::service::connection::order::{Awaiting, InFlight};
use crate::service::connection::room::Turn;
use crate::service::connection::table::Clients;
use crate::service::connection::wait::Wait;
use crate::service::connection::{Client, Life};
use crate::service::handshake::{create_session, reattach};
use crate::service::intake::FrameOutcome;
use crate::service::parts::Parts;
use crate::service::role::{Request, Resumed, Submitted};

/// Connections whose time is up are looked for this often at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What was in flight comes before all that waits for room.
const FIRST: Turn = Turn { ticket: Some(0), is_next: true };

/// Between two roles, with clients.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// When the last role ended.
    since: Instant,
    /// Nobody is held for longer.
    until: Instant,
    /// When to look for connections whose time is up.
    look_at: Instant,
    /// Connections with a session when it began, and their requests.
    clients: usize,
    requests: usize,
    /// Requests that were answered by transactions since.
    answered: usize,
    closed: [usize; HoldEnd::ALL.len()],
}

/// What became of the next request that must be submitted again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It is on its way; there may be more.
    More,
    /// The connection has no more, for now.
    Done,
    /// There is no room. The core says when there is.
    Wait,
}

impl Hold {
    /// How long a connection is held.
    fn until(&self, client: &Client) -> Instant {
        if client.session == 0 {
            return self.until;
        }
        let writes = |request: &&InFlight| matches!(request.awaiting, Awaiting::Write { .. });
        let oldest = client.queue.iter().find(writes);
        let since = oldest.map_or(self.since, |request| request.received.min(self.since));
        self.until.min(since + client.timeout() / 3)
    }

    /// When to look for connections whose time is up.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// A request was answered, by what came with the synchronisation.
    pub(super) fn note_answered(&mut self) {
        self.answered += 1;
    }

    /// How many were closed, by reason.
    fn closed(&self) -> String {
        let mut text = String::new();
        for (why, count) in HoldEnd::ALL.iter().zip(self.closed).filter(|(_, count)| *count > 0) {
            let _ = write!(text, ", {count} closed ({})", why.text());
        }
        text
    }
}

/// Keeps the record of a write that is on its way, if that is of use and there is room. Whether it
/// does.
pub(super) fn keep_write(at: &mut Entry<'_>, parts: &Parts<'_>, record: &[u8]) -> bool {
    let options = &parts.env.options;
    let bounds = (options.out_len_soft_max_bytes, options.hold_len_max_bytes);
    let is_of_use = !parts.status.is_standalone() && !options.hold_clients().is_zero();
    is_of_use && at.keep_write(record, bounds)
}

/// The role has ended: its clients are held.
pub(super) fn hold_clients(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    parts.admission.resubmitting.clear();
    parts.admission.resubmission_due = false;
    let until = now + parts.env.options.hold_clients();
    let mut hold = Hold {
        since: now,
        until,
        look_at: until,
        clients: 0,
        requests: 0,
        answered: 0,
        closed: [0; HoldEnd::ALL.len()],
    };
    for client in clients.iter_mut() {
        client.ticket = None;
        client.throttled = None;
        client.touched_at = None;
        client.touched = u64::MAX;
        client.confirmed = false;
        client.caught_up = false;
        client.carry.rejoins = false;
        if matches!(client.state, Life::Open | Life::Ending) {
            hold.clients += 1;
            hold.requests += client.queue.len();
        }
    }
    let (count, requests) = (hold.clients, hold.requests);
    parts.metrics.held += count as u64;
    parts.admission.hold = Some(hold);
    let is_lost =
        |request: &InFlight| matches!(request.awaiting, Awaiting::Write { kept: false, .. });
    for conn in clients.ids() {
        let Some(mut at) = clients.enter(conn) else { continue };
        at.end_again();
        end_if(&mut at, parts, |client| client.carry.moved, HoldEnd::Moved);
        end_if(&mut at, parts, |client| client.queue.iter().any(is_lost), HoldEnd::TooLong);
    }
    if count > 0 {
        let max_ms = parts.env.options.hold_clients().as_millis();
        log::info!(
            "Holding {count} client connections with {requests} requests in flight until \
             there is a leader, for {max_ms} ms at most (zab.holdClientsMs)"
        );
    }
    end_holds(clients, parts, now);
}

/// Closes a connection that has been held, and counts why.
pub(super) fn end_hold(at: &mut Entry<'_>, parts: &mut Parts<'_>, why: HoldEnd) {
    if at.is_closed() {
        return;
    }
    log::debug!("Closing connection with {}: {}", at.client.remote, why.text());
    parts.metrics.held_closed[why as usize] += 1;
    if let Some(hold) = &mut parts.admission.hold {
        hold.closed[why as usize] += 1;
    }
    parts.close(at, true);
}

/// The same for a connection in session of which something is true.
fn end_if(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    is_so: impl Fn(&Client) -> bool,
    why: HoldEnd,
) {
    if matches!(at.client.state, Life::Open | Life::Ending) && is_so(at.client) {
        end_hold(at, parts, why);
    }
}

/// Closes connections that have been held for too long.
pub(super) fn end_holds(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    let hold = parts.admission.hold.clone();
    let Some(hold) = hold.filter(|hold| hold.look_at <= now || hold.since == now) else { return };
    let mut next = hold.until;
    for conn in clients.ids() {
        let Some(mut at) = clients.enter(conn).filter(|at| !at.is_closed()) else { continue };
        let until = hold.until(at.client);
        if until <= now {
            end_hold(&mut at, parts, HoldEnd::NoLeader);
        } else {
            next = next.min(until);
        }
    }
    let Some(hold) = &mut parts.admission.hold else { return };
    hold.look_at = next.max(now + LOOK_EVERY).min(hold.until);
    if hold.until > now {
        return;
    }
    if hold.clients > 0 {
        let waited_ms = now.saturating_since(hold.since).as_millis();
        log::warn!("No leader for {waited_ms} ms: clients are no longer held{}", hold.closed());
    }
    parts.admission.hold = None;
}

/// Nobody is held any longer, as this server is going to serve otherwise.
pub(super) fn give_up(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    if let Some(hold) = &mut parts.admission.hold {
        (hold.until, hold.look_at) = (now, now);
    }
    end_holds(clients, parts, now);
}

/// A snapshot has taken the place of the state: of clients in session nothing is known any more.
pub(super) fn forget_held(clients: &mut Clients, parts: &mut Parts<'_>) {
    for conn in clients.ids() {
        if let Some(mut at) = clients.enter(conn) {
            end_if(&mut at, parts, |_| true, HoldEnd::Snapshot);
        }
    }
}

/// The next role is served, under the same leader in the same epoch if `rejoins`: those that were held go on.
pub(super) fn release_clients(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    rejoins: bool,
) {
    let Some(hold) = parts.admission.hold.clone() else { return };
    let serves = parts.serves_clients();
    let now = core.now();
    let (mut count, mut again) = (0, 0);
    for conn in clients.ids() {
        let Some(mut at) = clients.enter(conn) else { continue };
        let at = &mut at;
        if !serves {
            end_if(at, parts, |_| true, HoldEnd::NotServed);
        }
        end_if(at, parts, |client| hold.until(client) <= now, HoldEnd::NoLeader);
        end_if(at, parts, |client| client.carry.moved, HoldEnd::Moved);
        match at.client.state {
            Life::Greeting => Admission::resume(at),
            Life::Connecting => parts.admission.resubmitting.push_back(conn),
            Life::Open | Life::Ending => {
                count += 1;
                again += at.client.queue.len();
                // Of a local session the leader knows nothing; see `service/role/local.rs`.
                at.client.carry.rejoins = rejoins && !parts.local.knows(at.client.session);
                at.begin_again();
                parts.admission.resubmitting.push_back(conn);
            }
            Life::Closed => {}
        }
    }
    let Some(hold) = parts.admission.hold.take() else { return };
    if hold.clients > 0 {
        let waited_ms = now.saturating_since(hold.since).as_millis();
        log::info!(
            "{count} of {} client connections go on after {waited_ms} ms, {} of {} requests in \
             flight were answered meanwhile, {again} are submitted again{}",
            hold.clients,
            hold.answered,
            hold.requests,
            hold.closed(),
        );
    }
    parts.admission.may_resubmit();
    resubmit(clients, parts, core);
}

/// Submits what was in flight if something has changed since it was tried last, as far as there is
/// room and this turn allows.
pub(super) fn resubmit(clients: &mut Clients, parts: &mut Parts<'_>, core: &mut Core<'_>) {
    if !std::mem::take(&mut parts.admission.resubmission_due) {
        return;
    }
    parts.admission.forget_writes();
    while let Some(conn) = parts.admission.resubmitting.front().copied() {
        if parts.admission.schedule.is_spent() {
            parts.admission.resubmission_due = true;
            return;
        }
        let step = match clients.enter(conn) {
            Some(mut at) => resubmit_next(&mut at, parts, core),
            None => Step::Done,
        };
        match step {
            Step::More => {}
            Step::Done => {
                parts.admission.resubmitting.pop_front();
            }
            Step::Wait => return,
        }
    }
    parts.admission.call_next(&mut clients.shared);
}

/// Submits the next request of a connection.
fn resubmit_next(at: &mut Entry<'_>, parts: &mut Parts<'_>, core: &mut Core<'_>) -> Step {
    match at.client.state {
        Life::Greeting | Life::Closed => return Step::Done,
        Life::Connecting => return shake_hands_again(at, parts, core),
        Life::Open | Life::Ending => {}
    }
    if at.client.carry.moved {
        end_hold(at, parts, HoldEnd::Moved);
        return Step::Done;
    }
    if at.client.carry.rejoins {
        return rejoin(at, parts, core);
    }
    let Some((request, record)) = at.client.next_again() else {
        drain(at, parts, core.now());
        Admission::resume(at);
        return Step::Done;
    };
    let op = match request.awaiting {
        Awaiting::Write { op, .. } => op,
        Awaiting::Sync { done: false, .. } => Opcode::Sync,
        Awaiting::Sync { done: true, .. } | Awaiting::Read { .. } | Awaiting::Reply(_) => {
            at.went_again(None);
            return Step::More;
        }
    };
    let record_len = record.len();
    let submitted = {
        let (session, ids) = (at.client.session, Ids::new(&at.client.ids[..request.ids_len]));
        let request = Request { session, cxid: request.xid, op, record, ids };
        let (role, mut cx) = parts.role(core);
        if op == Opcode::Sync {
            role.sync(&mut cx, (at.conn, FIRST), &request)
        } else {
            role.submit(&mut cx, FIRST, &request, at.shared.writes_len())
        }
    };
    let zxid = match submitted {
        Submitted::Proposed(zxid) => Some(zxid),
        Submitted::Forwarded | Submitted::Begun => None,
        Submitted::Later(wait) => {
            if let Wait::Writes(bound) = wait {
                parts.admission.holds_writes(bound);
            }
            return Step::Wait;
        }
        Submitted::Refused(_) => {
            // The leader that had it would have answered; this server cannot forward it.
            end_hold(at, parts, HoldEnd::TooLong);
            return Step::Done;
        }
    };
    // What finds no room is not charged: it would use up the turns of others while it waits.
    parts.charge(at, cost::REQUEST + cost::bytes(record_len));
    parts.metrics.resubmitted += 1;
    at.went_again(zxid);
    Step::More
}

/// A handshake begins again. A session that was to be created is another one now: nobody knows of the
/// first, and if it was created it expires.
fn shake_hands_again(at: &mut Entry<'_>, parts: &mut Parts<'_>, core: &mut Core<'_>) -> Step {
    let (session, timeout_ms) = (at.client.session, at.client.timeout_ms);
    let taken = if at.client.carry.resumes {
        reattach(at, parts, core, FIRST, (session, timeout_ms))
    } else {
        let taken = create_session(at, parts, core, FIRST, timeout_ms);
        if taken == FrameOutcome::Done {
            at.detach(session);
        }
        taken
    };
    if matches!(taken, FrameOutcome::Later(_)) {
        return Step::Wait;
    }
    if at.client.state == Life::Open {
        // Nobody had to be asked.
        Admission::resume(at);
    }
    parts.charge(at, cost::REQUEST);
    Step::Done
}

/// Asks the leader for a session that its client had here in the same epoch before.
fn rejoin(at: &mut Entry<'_>, parts: &mut Parts<'_>, core: &mut Core<'_>) -> Step {
    let (session, timeout_ms) = (at.client.session, at.client.timeout_ms);
    let (role, mut cx) = parts.role(core);
    let (confirmed, caught_up) =
        match role.resume_session(&mut cx, (at.conn, FIRST), session, timeout_ms) {
            Resumed::NoRoom => return Step::Wait,
            Resumed::Decided { valid } => (valid, true),
            Resumed::Asked { confirmed, caught_up } => (confirmed, caught_up),
            Resumed::Behind => (true, false),
        };
    at.client.confirmed = confirmed;
    at.client.caught_up = caught_up;
    parts.charge(at, cost::REQUEST);
    reattached(at, parts, core.now());
    Step::Done
}

/// The leader has answered for a session that goes on here, and all from before is delivered.
pub(super) fn rejoined(at: &mut Entry<'_>, parts: &mut Parts<'_>, live: bool) {
    if at.is_closed() {
        return;
    }
    at.client.carry.rejoins = false;
    if live {
        parts.admission.resubmitting.push_back(at.conn);
        parts.admission.resubmission_due = true;
    } else {
        end_hold(at, parts, HoldEnd::Ended);
    }
}
