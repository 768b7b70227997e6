//! Which connection waits, for what, and what wakes it.
//!
//! Each [`Wait`] has one place that decides it, in the first part of this file: bytes that are not taken
//! stay with the driver, and [`Admission::wait`] notes where the connection is found when the wait is
//! over. The second part ends waits; nothing else resumes a connection.

use std::collections::{BTreeMap, VecDeque};

use zab_proto::{ConnId, Instant};

use crate::options::ServiceOptions;
use crate::service::connection::entry::Entry;
use crate::service::connection::room::{Ticket, Turn, Waiting};
use crate::service::connection::schedule::Schedule;
use crate::service::connection::table::Shared;
use crate::service::connection::wait::Wait;
use crate::service::connection::{Client, Life};
use crate::service::hold::Hold;
use crate::throttle::Bucket;

#[derive(Debug)]
pub(super) struct Admission {
    /// How much is done for clients in a turn, and who of them is next ([`Wait::Turn`]).
    pub(super) schedule: Schedule,
    /// Connections that wait for room ([`Wait::Room`], [`Wait::Writes`]).
    pub(super) room: Waiting,
    /// The bound of [`Wait::Writes`], if the one that is next waits for that.
    held_writes: Option<usize>,
    /// Connections that wait for fewer requests to be under way ([`Wait::Requests`]), and how many may
    /// be; 0: any number.
    pub(super) throttled: Waiting,
    requests_max: usize,
    /// How many handshakes there may be.
    pub(super) bucket: Bucket,
    /// Between two roles: the clients that wait for the next one ([`Wait::Leader`]).
    pub(super) hold: Option<Hold>,
    /// Connections with something to be submitted to the present leader again, before all else
    /// ([`Wait::Resubmission`]).
    pub(super) resubmitting: VecDeque<ConnId>,
    /// It goes on in the next turn.
    pub(super) resubmission_due: bool,
    /// Connections that wait for a request of somebody else to be prepared ([`Wait::Preparation`]), by
    /// slot and generation.
    unprepared: BTreeMap<(u32, u32), ConnId>,
    /// A read that shows one instant in several pieces, and that had to begin again since something was
    /// applied between two of them: nothing is applied until it is answered.
    frozen_for: Option<ConnId>,
    /// Something was applied since there was such a read.
    may_freeze: bool,
    /// The server is about to end: by when its clients are to be answered ([`Wait::End`]).
    pub(super) leaving: Option<Instant>,
    /// The time of the last call.
    pub(super) now: Instant,
}

impl Admission {
    pub(super) fn new(options: &ServiceOptions) -> Self {
        Self {
            schedule: Schedule::new(options.work_per_turn),
            room: Waiting::default(),
            held_writes: None,
            throttled: Waiting::default(),
            requests_max: options.request_throttle.max_requests,
            bucket: Bucket::new(&options.connection_throttle),
            hold: None,
            resubmitting: VecDeque::new(),
            resubmission_due: false,
            unprepared: BTreeMap::new(),
            frozen_for: None,
            may_freeze: true,
            leaving: None,
            now: Instant::ZERO,
        }
    }

    /// Nothing is read from a connection, whatever it asks.
    pub(super) fn stops(&self, client: &Client) -> Option<Wait> {
        match client.state {
            Life::Connecting => Some(Wait::Handshake),
            // What was asked before has to reach the leader first.
            Life::Open if client.carry.again > 0 || client.carry.rejoins => {
                Some(Wait::Resubmission)
            }
            _ if self.hold.is_some() => Some(Wait::Leader),
            _ if self.leaving.is_some() => Some(Wait::End),
            Life::Greeting | Life::Open | Life::Ending | Life::Closed => None,
        }
    }

    /// A request of so much work, the first of these bytes or a further one, waits for its turn.
    pub(super) fn turn(&self, client: &mut Client, expected: u64, first: bool) -> Option<Wait> {
        client.account.expect(expected);
        let account = client.account;
        let waits =
            if first { !self.schedule.admits(account) } else { self.schedule.ends(account) };
        waits.then_some(Wait::Turn)
    }

    /// A connection has so much in flight or unread that its next request waits.
    pub(super) fn own_limits(
        &self,
        options: &ServiceOptions,
        client: &mut Client,
        is_write: bool,
    ) -> Option<Wait> {
        let out_max = options.out_len_soft_max_bytes;
        let queue = &client.queue;
        // Answers that wait for the client to read go on when this wait ends, and not before: nobody
        // else looks at them.
        let answers_wait = client.wait == Some(Wait::Output) && queue.is_reading();
        client.wait = if client.unsent() > out_max || answers_wait {
            Some(Wait::Output)
        } else if queue.is_empty() {
            None
        } else if queue.len() >= options.in_flight_max || client.kept_here_len() > out_max {
            Some(Wait::Answers)
        } else if is_write && queue.holds_write(READS_BEFORE_WRITE_MAX, self.schedule.part()) {
            Some(Wait::Order)
        } else {
            None
        };
        client.wait
    }

    /// Nothing is applied until a read of this connection is answered, unless that was so for another one
    /// and nothing was applied since.
    pub(super) fn freeze(&mut self, conn: ConnId) {
        if self.frozen_for.is_none() && std::mem::take(&mut self.may_freeze) {
            self.frozen_for = Some(conn);
        }
    }

    /// A read is answered, or nobody waits for it any more.
    pub(super) fn thaw(&mut self, conn: ConnId) {
        self.frozen_for.take_if(|frozen| *frozen == conn);
    }

    /// Something is applied, whether that may be or has to be.
    pub(super) fn note_applied(&mut self) {
        self.frozen_for = None;
        self.may_freeze = true;
    }

    /// The read for which nothing is applied comes before all others. Its connection.
    pub(super) fn first_in_turn(&mut self) -> Option<ConnId> {
        let conn = self.frozen_for?;
        self.schedule.leave(conn);
        Some(conn)
    }

    /// Whether nothing is applied now.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen_for.is_some()
    }

    /// As many requests of all clients are under way as may be, or others wait for that already.
    pub(super) fn throttle(&self, at: &Entry<'_>) -> Option<Wait> {
        let max = self.requests_max;
        let place = at.client.throttled.map(|(ticket, _)| ticket);
        let goes_on =
            max == 0 || (at.shared.under_way() < max && self.throttled.turn(place).is_next);
        (!goes_on).then_some(Wait::Requests)
    }

    /// A connection's request goes on, or the connection ends. Returns since when it has waited for
    /// fewer to be under way.
    pub(super) fn leave_throttle(&mut self, client: &mut Client) -> Option<Instant> {
        let (ticket, since) = client.throttled.take()?;
        self.throttled.leave(ticket);
        Some(since)
    }

    /// A read whose turn it is in the queue waits with its answer.
    pub(super) fn answer(&self, options: &ServiceOptions, client: &Client) -> Option<Wait> {
        if client.unsent() > options.out_len_soft_max_bytes {
            Some(Wait::Output)
        } else {
            self.schedule.ends(client.account).then_some(Wait::Turn)
        }
    }

    /// Whether a request that needs room may ask for some.
    pub(super) fn place(&self, client: &Client) -> Turn {
        let mut turn = self.room.turn(client.ticket);
        turn.is_next &= !self.is_resubmitting();
        turn
    }

    /// The place of a learner's request among all that wait for room, and whether others come first.
    pub(super) fn place_of_learner(&mut self) -> (Ticket, bool) {
        let others_first = self.room.first().is_some() || self.is_resubmitting();
        (self.room.issue(), others_first)
    }

    /// Notes what a connection waits for.
    pub(super) fn wait(&mut self, at: &mut Entry<'_>, wait: Wait) {
        let Entry { client, conn, .. } = at;
        match wait {
            Wait::Turn => self.schedule.wait(*conn, &mut client.account),
            Wait::Preparation => {
                self.unprepared.insert((conn.slot(), conn.generation()), *conn);
            }
            Wait::Room | Wait::Writes(_) => {
                // Behind those that wait already.
                let ticket = *client.ticket.get_or_insert_with(|| self.room.issue());
                self.room.wait(ticket, *conn);
                if let Wait::Writes(bound) = wait {
                    self.holds_writes(bound);
                }
            }
            Wait::Requests => {
                let place = || (self.throttled.issue(), self.now);
                let (ticket, _) = *client.throttled.get_or_insert_with(place);
                self.throttled.wait(ticket, *conn);
            }
            Wait::Output | Wait::Answers | Wait::Outstanding | Wait::Order => {
                client.wait = Some(wait);
            }
            // What ends these looks at all connections.
            Wait::Handshake | Wait::Leader | Wait::Resubmission | Wait::End => {}
        }
    }

    /// [`Wait::Preparation`] is over for a connection, which may be gone: it is to wait for its turn.
    pub(super) fn next_unprepared(&mut self) -> Option<ConnId> {
        self.unprepared.pop_first().map(|(_, conn)| conn)
    }

    /// What is next waits for answers to other writes, which may be half of so many bytes.
    pub(super) fn holds_writes(&mut self, bound: usize) {
        self.held_writes = Some(bound);
    }

    /// Something is still to be submitted again.
    pub(super) fn is_resubmitting(&self) -> bool {
        !self.resubmitting.is_empty()
    }

    /// Something is to be done in the next turn.
    pub(super) fn is_due(&self) -> bool {
        self.resubmission_due
            || self.is_frozen()
            || (self.schedule.has_waiting() && self.schedule.is_spent())
            || self.room.has_moved()
            || self.throttled.has_moved()
    }
}

/// The ends of waits.
impl Admission {
    /// A connection waits for nothing any more: what was left unread is offered again.
    pub(super) fn resume(at: &mut Entry<'_>) {
        at.shared.resume(at.conn);
    }

    /// [`Wait::Turn`] is over for this connection, which may be gone.
    pub(super) fn next_turn(&mut self) -> Option<ConnId> {
        self.schedule.next()
    }

    /// A client has read of its output: [`Wait::Output`] is over when half of what may be unsent is
    /// gone. Its requests then wait for their turn.
    pub(super) fn sent(&mut self, options: &ServiceOptions, at: &mut Entry<'_>) {
        let out_max = options.out_len_soft_max_bytes;
        if at.client.wait.is_some() && at.client.unsent() <= out_max / 2 {
            at.client.wait = None;
            self.wait(at, Wait::Turn);
        }
    }

    /// Requests of a connection were answered: what waited for its own output and queue is over,
    /// unless much is unsent or its answers wait for their turn.
    pub(super) fn answered(options: &ServiceOptions, at: &mut Entry<'_>) {
        let out_max = options.out_len_soft_max_bytes;
        let client = &mut *at.client;
        if client.wait.is_some() && !client.account.waits() && client.unsent() <= out_max {
            client.wait = None;
            Self::resume(at);
        }
    }

    /// There is room again for what is to be submitted again.
    pub(super) fn may_resubmit(&mut self) {
        self.resubmission_due = self.is_resubmitting();
    }

    /// [`Wait::Requests`] is over for the connection that has waited longest, if few enough are under
    /// way. The next one follows when that has had its turn.
    pub(super) fn requests_answered(&mut self, shared: &mut Shared) {
        self.throttled.note_first();
        if shared.under_way() < self.requests_max
            && let Some(conn) = self.throttled.call_once()
        {
            // It leaves when it ends: it is still there.
            shared.resume(conn);
        }
    }

    /// [`Wait::Writes`] is over if few enough are under way.
    pub(super) fn writes_answered(&mut self, shared: &mut Shared) {
        if self.held_writes.is_some_and(|bound| shared.writes_len() <= bound / 2) {
            if self.is_resubmitting() {
                self.resubmission_due = true;
            } else {
                self.call_next(shared);
            }
        }
    }

    /// [`Wait::Room`] is over for the connection that has waited longest. The next one follows when
    /// that has had its turn.
    pub(super) fn call_next(&mut self, shared: &mut Shared) {
        self.held_writes = None;
        // It leaves when it ends: it is still there.
        if let Some(conn) = self.room.call() {
            shared.resume(conn);
        }
    }

    /// A connection that was called for room has found something else to wait for.
    pub(super) fn step_aside(&mut self, client: &Client) {
        if let Some(ticket) = client.ticket {
            self.room.step_aside(ticket);
        }
        if let Some((ticket, _)) = client.throttled {
            self.throttled.step_aside(ticket);
        }
    }

    /// What is to be submitted again tries for room before all else.
    pub(super) fn forget_writes(&mut self) {
        self.held_writes = None;
    }

    /// A connection has had room, or ends: what its client asks next waits behind the others.
    pub(super) fn leave_room(&mut self, client: &mut Client) {
        if let Some(ticket) = client.ticket.take() {
            self.room.leave(ticket);
        }
    }

    /// The role has ended, and whoever waited for room in it waits for the next one.
    pub(super) fn end_role(&mut self) {
        self.room.clear();
        self.throttled.clear();
        self.held_writes = None;
        self.frozen_for = None;
        self.unprepared.clear();
    }
}

/// Reads that may stand in front of a write, if they cost little together: they are answered at once
/// when those before them are, since the write must find its place.
const READS_BEFORE_WRITE_MAX: usize = 64;
