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
//! sync behind the question, as for a client that comes from another server
//! (`role/learner.rs::resume_session`): from the answer on, the leader refuses what comes by the old
//! connection, and at the end of the sync everything it had let through is delivered here.
//!
//! Behind a snapshot nobody knows which requests are in it, nor which watches would have fired: such
//! clients are disconnected, as ZooKeeper does with all, and arm their watches again.
//!
//! # Why nothing is carried out out of order
//!
//! A client that has gone to another server must not have a request of its old connection carried out
//! behind its new ones. Mostly its old connection is closed. If that is not heard of, its next
//! transaction tells (it is not the one that this connection waits for). And no request is submitted
//! again that is older than a third of its session's time-out: clients look for another server after
//! two thirds without an answer, and have had one in the third before they asked, by their own pings.

use std::fmt::Write;
use std::time::Duration;

use zab_proto::{Core, Epoch, Instant};

use crate::auth::Ids;
use crate::connection::order::{Awaiting, InFlight};
use crate::connection::room::Turn;
use crate::connection::wait::Wait;
use crate::connection::{Client, Life};
use crate::cost;
use crate::metrics::HoldEnd;
use crate::protocol::opcode::Opcode;
use crate::role::{Request, Resumed, Submitted};
use crate::service::Service;
use crate::service::admission::Admission;
use crate::service::intake::Taken;

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

/// What became of the next request that is to be submitted again.
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

    /// How many were closed, by reason.
    fn closed(&self) -> String {
        let mut text = String::new();
        for (why, count) in HoldEnd::ALL.iter().zip(self.closed).filter(|(_, count)| *count > 0) {
            let _ = write!(text, ", {count} closed ({})", why.text());
        }
        text
    }
}

impl Service {
    /// Whether clients are held: a role has ended not long ago, and the next one has not begun.
    pub(super) fn holds_clients(&self) -> bool {
        self.admission.hold.is_some()
    }

    /// When something of this is to be done.
    pub(super) fn hold_timeout(&self) -> Option<Instant> {
        if self.admission.resubmission_due {
            return Some(Instant::ZERO);
        }
        self.admission.hold.as_ref().map(|hold| hold.look_at)
    }

    /// Keeps the record of a write that is on its way, if that is of use and there is room. Whether
    /// it does.
    pub(super) fn keep_write(&mut self, slot: u32, record: &[u8]) -> bool {
        let options = &self.env.options;
        let bounds = (options.out_len_soft_max_bytes, options.hold_len_max_bytes);
        let is_of_use = !self.status.is_standalone() && !options.hold_clients().is_zero();
        is_of_use && self.clients.keep_write(slot, record, bounds)
    }

    /// The role has ended: its clients are held.
    pub(super) fn hold_clients(&mut self, now: Instant) {
        self.admission.resubmitting.clear();
        self.admission.resubmission_due = false;
        let until = now + self.env.options.hold_clients();
        let mut hold = Hold {
            since: now,
            until,
            look_at: until,
            clients: 0,
            requests: 0,
            answered: 0,
            closed: [0; HoldEnd::ALL.len()],
        };
        for client in self.clients.iter_mut() {
            client.ticket = None;
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
        let (clients, requests) = (hold.clients, hold.requests);
        self.metrics.held += clients as u64;
        self.admission.hold = Some(hold);
        for slot in self.client_slots() {
            self.clients.end_again(slot);
            self.end_if(slot, |client| client.carry.moved, HoldEnd::Moved);
            let lost = |request: &InFlight| {
                matches!(request.awaiting, Awaiting::Write { kept: false, .. })
            };
            self.end_if(slot, |client| client.queue.iter().any(lost), HoldEnd::TooLong);
        }
        if clients > 0 {
            let max_ms = self.env.options.hold_clients().as_millis();
            log::info!(
                "Holding {clients} client connections with {requests} requests in flight until \
                 there is a leader, for {max_ms} ms at most (zab.holdClientsMs)"
            );
        }
        self.end_holds(now);
    }

    pub(super) fn client_slots(&self) -> Vec<u32> {
        self.clients.iter().map(|(slot, _)| slot).collect()
    }

    /// A request was answered, between two roles by what came with the synchronisation.
    pub(super) fn note_answered(&mut self) {
        if let Some(hold) = &mut self.admission.hold {
            hold.answered += 1;
        }
    }

    /// Closes a connection that has been held, and counts why.
    fn end_hold(&mut self, slot: u32, why: HoldEnd) {
        if let Some(client) = self.client(slot) {
            log::debug!("Closing connection with {}: {}", client.remote, why.text());
            self.metrics.held_closed[why as usize] += 1;
            if let Some(hold) = &mut self.admission.hold {
                hold.closed[why as usize] += 1;
            }
            self.close(slot, true);
        }
    }

    /// The same for a connection in session of which something is true.
    fn end_if(&mut self, slot: u32, is_so: impl Fn(&Client) -> bool, why: HoldEnd) {
        let in_session = |client: &Client| matches!(client.state, Life::Open | Life::Ending);
        if self.clients.get(slot).is_some_and(|client| in_session(client) && is_so(client)) {
            self.end_hold(slot, why);
        }
    }

    /// Closes connections that have been held for too long.
    pub(super) fn end_holds(&mut self, now: Instant) {
        let Some(hold) =
            self.admission.hold.clone().filter(|hold| hold.look_at <= now || hold.since == now)
        else {
            return;
        };
        let mut next = hold.until;
        for slot in self.client_slots() {
            let Some(until) = self.client(slot).map(|client| hold.until(client)) else { continue };
            if until <= now {
                self.end_hold(slot, HoldEnd::NoLeader);
            } else {
                next = next.min(until);
            }
        }
        let Some(hold) = &mut self.admission.hold else { return };
        hold.look_at = next.max(now + LOOK_EVERY).min(hold.until);
        if hold.until > now {
            return;
        }
        if hold.clients > 0 {
            let waited_ms = now.saturating_since(hold.since).as_millis();
            log::warn!("No leader for {waited_ms} ms: no client is held any more{}", hold.closed());
        }
        self.admission.hold = None;
    }

    /// A snapshot has taken the place of the state: of clients in session nothing is known any more.
    pub(super) fn forget_held(&mut self) {
        for slot in self.client_slots() {
            self.end_if(slot, |_| true, HoldEnd::Snapshot);
        }
    }

    /// The next role is served, in this epoch: those that were held go on.
    pub(super) fn release_clients(&mut self, core: &mut Core<'_>, epoch: Epoch) {
        let rejoins = self.status.serves(epoch);
        let Some(hold) = self.admission.hold.clone() else { return };
        let serves = self.serves_clients();
        let now = core.now();
        let (mut clients, mut again) = (0, 0);
        for slot in self.client_slots() {
            if !serves {
                self.end_if(slot, |_| true, HoldEnd::NotServed);
            }
            self.end_if(slot, |client| hold.until(client) <= now, HoldEnd::NoLeader);
            self.end_if(slot, |client| client.carry.moved, HoldEnd::Moved);
            let conn = self.clients.conn(slot);
            let Some(client) = self.client(slot) else { continue };
            match client.state {
                Life::Greeting => Admission::resume(&mut self.clients, slot),
                Life::Connecting => self.admission.resubmitting.push_back(conn),
                Life::Open | Life::Ending => {
                    clients += 1;
                    again += client.queue.len();
                    client.carry.rejoins = rejoins;
                    self.clients.begin_again(slot);
                    self.admission.resubmitting.push_back(conn);
                }
                Life::Closed => {}
            }
        }
        let Some(hold) = self.admission.hold.take() else { return };
        if hold.clients > 0 {
            let waited_ms = now.saturating_since(hold.since).as_millis();
            log::info!(
                "{clients} of {} client connections go on after {waited_ms} ms, {} of {} requests in \
                 flight were answered meanwhile, {again} are submitted again{}",
                hold.clients,
                hold.answered,
                hold.requests,
                hold.closed(),
            );
        }
        self.may_resubmit();
        self.resubmit(core);
    }

    /// There is room again.
    pub(super) fn may_resubmit(&mut self) {
        self.admission.resubmission_due = self.admission.is_resubmitting();
    }

    /// Submits what was in flight if something has changed since it was tried last, as far as there
    /// is room and this turn allows.
    pub(super) fn resubmit(&mut self, core: &mut Core<'_>) {
        if !std::mem::take(&mut self.admission.resubmission_due) {
            return;
        }
        self.admission.forget_writes();
        while let Some(conn) = self.admission.resubmitting.front().copied() {
            if self.admission.schedule.is_spent() {
                self.admission.resubmission_due = true;
                return;
            }
            let slot = self.clients.slot(conn);
            match slot.map_or(Step::Done, |slot| self.resubmit_next(core, slot)) {
                Step::More => {}
                Step::Done => {
                    self.admission.resubmitting.pop_front();
                }
                Step::Wait => return,
            }
        }
        self.admission.call_next(&mut self.clients);
    }

    /// Submits the next request of a connection.
    fn resubmit_next(&mut self, core: &mut Core<'_>, slot: u32) -> Step {
        let Some(client) = self.client(slot) else { return Step::Done };
        match client.state {
            Life::Greeting | Life::Closed => return Step::Done,
            Life::Connecting => return self.shake_hands_again(core, slot),
            Life::Open | Life::Ending => {}
        }
        if client.carry.moved {
            self.end_hold(slot, HoldEnd::Moved);
            return Step::Done;
        }
        if client.carry.rejoins {
            return self.rejoin(core, slot);
        }
        let Some((request, record)) = client.next_again().map(|(r, record)| (r, record.to_vec()))
        else {
            self.drain(core.now(), slot);
            Admission::resume(&mut self.clients, slot);
            return Step::Done;
        };
        let op = match request.awaiting {
            Awaiting::Write { op, .. } => op,
            Awaiting::Sync { done: false, .. } => Opcode::Sync,
            Awaiting::Sync { done: true, .. } | Awaiting::Read { .. } | Awaiting::Reply(_) => {
                self.clients.went_again(slot, None);
                return Step::More;
            }
        };
        let zxid = match self.submit_again(core, slot, &request, op, &record) {
            Submitted::Proposed(zxid) => Some(zxid),
            Submitted::Forwarded | Submitted::Begun => None,
            Submitted::Later(wait) => {
                if let Wait::Writes(bound) = wait {
                    self.admission.holds_writes(bound);
                }
                return Step::Wait;
            }
            Submitted::Refused(_) => {
                // The leader that had it would have answered; this server cannot forward it.
                self.end_hold(slot, HoldEnd::TooLong);
                return Step::Done;
            }
        };
        // What finds no room is not charged: it would use up the turns of others while it waits.
        self.charge(slot, cost::REQUEST + cost::bytes(record.len()));
        self.metrics.resubmitted += 1;
        self.clients.went_again(slot, zxid);
        Step::More
    }

    fn submit_again(
        &mut self,
        core: &mut Core<'_>,
        slot: u32,
        request: &InFlight,
        op: Opcode,
        record: &[u8],
    ) -> Submitted {
        let (conn, under_way) = (self.clients.conn(slot), self.clients.writes_len());
        let Some(client) = self.clients.get_mut(slot) else { return Submitted::Later(Wait::Room) };
        let session = client.session;
        let ids = std::mem::take(&mut client.ids);
        let known = Ids::new(&ids[..request.ids_len]);
        let request = Request { session, cxid: request.xid, op, record, ids: known };
        let (role, mut cx) = self.role(core);
        let submitted = if op == Opcode::Sync {
            role.sync(&mut cx, (conn, FIRST), &request)
        } else {
            role.submit(&mut cx, FIRST, &request, under_way)
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.ids = ids;
        }
        submitted
    }

    /// A handshake begins anew. A session that was to be created is another one now: nobody knows of
    /// the first, and if it was created it expires.
    fn shake_hands_again(&mut self, core: &mut Core<'_>, slot: u32) -> Step {
        let Some(client) = self.client(slot) else { return Step::Done };
        let (session, timeout_ms) = (client.session, client.timeout_ms);
        let taken = if client.carry.resumes {
            self.reattach(core, (slot, FIRST), session, timeout_ms)
        } else {
            let taken = self.create_session(core, (slot, FIRST), timeout_ms);
            if taken == Taken::Done {
                self.clients.detach(session, slot);
            }
            taken
        };
        if matches!(taken, Taken::Later(_)) {
            return Step::Wait;
        }
        self.charge(slot, cost::REQUEST);
        Step::Done
    }

    /// Asks the leader for a session that its client had here in the same epoch before.
    fn rejoin(&mut self, core: &mut Core<'_>, slot: u32) -> Step {
        let conn = self.clients.conn(slot);
        let Some(client) = self.client(slot) else { return Step::Done };
        let (session, timeout_ms) = (client.session, client.timeout_ms);
        let (role, mut cx) = self.role(core);
        let (confirmed, caught_up) =
            match role.resume_session(&mut cx, (conn, FIRST), session, timeout_ms) {
                Resumed::NoRoom => return Step::Wait,
                Resumed::Decided { valid } => (valid, true),
                Resumed::Asked { caught_up } => (false, caught_up),
            };
        if let Some(client) = self.client(slot) {
            client.confirmed = confirmed;
            client.caught_up = caught_up;
        }
        self.charge(slot, cost::REQUEST);
        self.reattached(core.now(), slot);
        Step::Done
    }

    /// The leader has answered for a session that goes on here, and all from before is delivered.
    pub(super) fn rejoined(&mut self, slot: u32, live: bool) {
        let conn = self.clients.conn(slot);
        let Some(client) = self.client(slot) else { return };
        client.carry.rejoins = false;
        if live {
            self.admission.resubmitting.push_back(conn);
            self.admission.resubmission_due = true;
        } else {
            self.end_hold(slot, HoldEnd::Ended);
        }
    }
}
