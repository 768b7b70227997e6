//! From a client's bytes to requests: framing, handshake, and the decision what is done now, what is
//! forwarded and what waits.

mod login;

use std::fmt;

use zab_proto::wire::Foreign;
use zab_proto::wire::jute::Reader;
use zab_proto::{Core, Instant};

use crate::auth::Ids;
use crate::connection::Life;
use crate::connection::order::{Answer, Awaiting, Body, InFlight};
use crate::connection::room::Turn;
use crate::connection::wait::Wait;
use crate::cost;
use crate::estimate;
use crate::metrics::Metrics;
use crate::observe::four_letter::{self, Opening, Reset, word_cost};
use crate::protocol::code::Code;
use crate::protocol::opcode::{OpClass, Opcode};
use crate::protocol::reply::XID_PING;
use crate::role::{Request, Submitted};
use crate::service::Service;

/// Of a connection that is gone.
const NOT_NEXT: Turn = Turn { ticket: None, is_next: false };

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    Done,
    /// It is offered again when this wait is over.
    Later(Wait),
    /// The connection is closed.
    Closed,
}

impl Service {
    /// See [`zab_proto::Application::handle_bytes`].
    pub(super) fn take_bytes(&mut self, core: &mut Core<'_>, slot: u32, bytes: &[u8]) -> usize {
        let used = self.take_frames(core, slot, bytes);
        self.charge_billed(slot);
        if let Some(ticket) = self.clients.get(slot).and_then(|client| client.ticket) {
            self.admission.room.step_aside(ticket);
        }
        if self.admission.room.has_moved() {
            self.retry(core);
        }
        self.clients.left_unread(slot, bytes.len() - used);
        self.keep_to_budget();
        // Nobody is going to take the rest of a connection that has been closed for its size.
        if self.client(slot).is_some() { used } else { bytes.len() }
    }

    fn take_frames(&mut self, core: &mut Core<'_>, slot: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let Some(client) = self.clients.get_mut(slot) else { return bytes.len() };
            let greeting = match client.state {
                Life::Ending | Life::Closed => return bytes.len(),
                Life::Greeting => true,
                Life::Connecting | Life::Open => false,
            };
            let Some(head) = rest.first_chunk::<4>() else { return used };
            if greeting && self.word_waits(core, slot, *head) {
                self.wait(slot, Wait::Turn);
                return used;
            }
            if greeting && self.four_letter_word(core, slot, *head, &rest[4..]) {
                return bytes.len();
            }
            if let Some(wait) = self.stops(slot) {
                self.wait(slot, wait);
                return used;
            }
            if !self.serves_clients() {
                // Every client of a server that looks for a leader comes by here: no news.
                self.close(slot, false);
                return bytes.len();
            }
            let len = i32::from_be_bytes(*head);
            let Some(len) = self.frame_len(len) else {
                let limit = self.env.options.jute_max_buffer;
                let guess = Foreign::of(head).filter(|_| greeting);
                let guess = guess.map_or_else(String::new, |protocol| format!(" ({protocol}?)"));
                let why = format_args!("frame length {len}, jute.maxbuffer is {limit}{guess}");
                self.hang_up(slot, why);
                return bytes.len();
            };
            let Some(frame) = rest[4..].get(..len) else { return used };
            let taken = if self.others_first(slot, frame, used == 0) {
                Taken::Later(Wait::Turn)
            } else if greeting {
                self.handshake(core, slot, frame)
            } else {
                self.request(core, slot, frame)
            };
            match taken {
                Taken::Done => self.count_received(slot, 4 + len),
                Taken::Later(wait) => {
                    self.wait(slot, wait);
                    return used;
                }
                Taken::Closed => return bytes.len(),
            }
            used += 4 + len;
        }
    }

    /// Whether the beginning of a connection has to wait for its turn. What is no word costs little.
    fn word_waits(&mut self, core: &Core<'_>, slot: u32, head: [u8; 4]) -> bool {
        self.admission.schedule.is_contended()
            && self.waits(slot, word_cost(&self.view(core), head), true)
    }

    /// Executes a word at the beginning of a connection. False: it is none.
    fn four_letter_word(&mut self, core: &Core<'_>, slot: u32, head: [u8; 4], rest: &[u8]) -> bool {
        let word = match Opening::read(head) {
            None => return false,
            Some(Opening::TelnetClose) => {
                self.close(slot, false);
                return true;
            }
            Some(Opening::Word(word)) => word,
        };
        self.charge(slot, word_cost(&self.view(core), head));
        self.metrics.stats.received += 1;
        if let Some(client) = self.clients.get_mut(slot) {
            client.stats.received += 1;
        }
        let text = if self.env.options.allows_word(word) {
            let serves = self.serves_clients();
            self.reset(four_letter::resets(word).filter(|_| serves));
            four_letter::answer(&self.view(core), serves, slot, (word, rest))
        } else {
            format!("{word} is not executed because it is not in the whitelist.\n")
        };
        let sent = four_letter::pieces(text.len());
        self.metrics.stats.sent += sent;
        if let Some(client) = self.client(slot) {
            let unsent = client.unsent();
            client.out.buffer().extend_from_slice(text.as_bytes());
            client.stats.sent += sent;
            self.clients.wrote(slot, unsent);
        }
        self.close(slot, true);
        true
    }

    /// Sets figures back.
    pub(super) fn reset(&mut self, what: Option<Reset>) {
        match what {
            None => {}
            Some(Reset::Connections) => {
                self.clients.iter_mut().for_each(|client| client.stats.reset());
            }
            Some(Reset::Server) => {
                self.metrics = Metrics::default();
                self.env.options.figures.iter().for_each(|(_, figure)| figure.reset());
                if let Some(fsyncs) = &self.env.options.fsync_times {
                    fsyncs.reset();
                }
            }
        }
    }

    /// Whether a frame has to wait for its connection's turn, of which this takes note.
    fn others_first(&mut self, slot: u32, frame: &[u8], first: bool) -> bool {
        self.admission.schedule.is_contended() && {
            let session = self.clients.get(slot).map_or(0, |client| client.session);
            self.waits(slot, estimate::request(self.state.tree(), session, frame), first)
        }
    }

    fn waits(&mut self, slot: u32, expected: u64, first: bool) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        self.admission.turn(client, expected, first).is_some()
    }

    fn stops(&self, slot: u32) -> Option<Wait> {
        self.admission.stops(self.clients.get(slot)?)
    }

    fn frame_len(&self, len: i32) -> Option<usize> {
        usize::try_from(len).ok().filter(|len| *len <= self.env.options.jute_max_buffer)
    }

    fn count_received(&mut self, slot: u32, len: usize) {
        let work = cost::REQUEST + cost::bytes(len);
        self.metrics.stats.received += 1;
        self.metrics.bytes_received += len as u64;
        if let Some(client) = self.clients.get_mut(slot) {
            client.stats.received += 1;
        }
        if self.admission.schedule.is_contended() {
            self.charge(slot, work);
        } else {
            self.admission.schedule.bill_request(work);
        }
    }

    /// Whether a request that needs room may ask for some.
    pub(super) fn turn(&self, slot: u32) -> Turn {
        self.clients.get(slot).map_or(NOT_NEXT, |client| self.admission.place(client))
    }

    /// The request has had room.
    pub(super) fn had_room(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            self.admission.leave_room(client);
        }
    }

    /// Closes the connection of a client that does not keep to the protocol.
    pub(super) fn hang_up(&mut self, slot: u32, why: fmt::Arguments<'_>) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            log::info!("Closing connection with {}: {why}", client.remote);
        }
        self.close(slot, false);
        Taken::Closed
    }

    /// A sign of life of a connection's session. False if the session is at its end.
    pub(super) fn touch(&mut self, now: Instant, slot: u32) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        if client.touched_at == Some(now) {
            // Many requests come at one instant.
            return true;
        }
        let live = self.role.touch(now, client.session, client.timeout_ms, &mut client.touched);
        if live {
            client.touched_at = Some(now);
        }
        live
    }

    fn request(&mut self, core: &mut Core<'_>, slot: u32, frame: &[u8]) -> Taken {
        let mut reader = Reader::new(frame);
        let (Ok(xid), Ok(number)) = (reader.i32(), reader.i32()) else {
            return self.hang_up(slot, format_args!("malformed request header"));
        };
        let record = reader.rest();
        let op = Opcode::from_wire(number);
        let class = op.map(Opcode::class);
        // Waits for the answers in front of it, which wait for their turn.
        if let Some(wait) = self.own_limits(slot, class == Some(OpClass::Write)) {
            return Taken::Later(wait);
        }
        if class != Some(OpClass::Auth) && !self.is_logged_in(slot) {
            return self.refuse_stranger(core.now(), slot, xid);
        }
        if !self.touch(core.now(), slot) {
            // The session is being closed, and this connection with it.
            return Taken::Done;
        }
        match op.map(|op| (op, op.class())) {
            Some((op, OpClass::Read)) => {
                self.read_or_queue(core.now(), slot, xid, op, record);
                Taken::Done
            }
            Some((op, OpClass::Write)) => self.write(core, slot, xid, op, record),
            Some((_, OpClass::Sync)) => self.sync(core, slot, xid, record),
            Some((Opcode::Sasl, OpClass::Auth)) => self.sasl(core, slot, xid, record),
            Some((_, OpClass::Auth)) => self.auth(core, slot, xid, record),
            Some((_, OpClass::Internal)) | None => self.unknown(core, slot, xid, number),
        }
    }

    fn unknown(&mut self, core: &Core<'_>, slot: u32, xid: i32, number: i32) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            log::info!("Closing connection with {}: unknown operation {number}", client.remote);
        }
        let code = Code::UNIMPLEMENTED;
        let answer = Answer { code, zxid: Some(-1), body: Body::None, close: true };
        self.answer(core.now(), slot, xid, answer);
        Taken::Done
    }

    fn own_limits(&mut self, slot: u32, is_write: bool) -> Option<Wait> {
        let client = self.clients.get_mut(slot)?;
        self.admission.own_limits(&self.env.options, client, is_write)
    }

    /// Puts a request at the end of the queue.
    fn queue(&mut self, now: Instant, slot: u32, xid: i32, awaiting: Awaiting) {
        self.clients.queue(slot, xid, now, awaiting);
    }

    fn read_or_queue(&mut self, now: Instant, slot: u32, xid: i32, op: Opcode, record: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let xid = if op == Opcode::Ping { XID_PING } else { xid };
        if client.queue.is_empty() {
            let ids_len = client.ids.len();
            let (received, awaiting) = (now, Awaiting::Read { op, len: record.len(), work: 0 });
            let request = InFlight { xid, received, ids_len, awaiting };
            if self.read(now, slot, request, (op, record), false) {
                return;
            }
            self.charge(slot, 0);
            self.wait(slot, Wait::Turn);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            let len = client.keep(record);
            let work =
                estimate::read(self.state.tree(), self.env.options.work_per_request, op, record);
            self.queue(now, slot, xid, Awaiting::Read { op, len, work });
        }
    }

    fn write(
        &mut self,
        core: &mut Core<'_>,
        slot: u32,
        xid: i32,
        op: Opcode,
        record: &[u8],
    ) -> Taken {
        let (turn, under_way) = (self.turn(slot), self.clients.writes_len());
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        let session = client.session;
        let ids = std::mem::take(&mut client.ids);
        let request = Request { session, cxid: xid, op, record, ids: Ids::new(&ids) };
        let (role, mut cx) = self.role(core);
        let submitted = role.submit(&mut cx, turn, &request, under_way);
        if let Some(client) = self.clients.get_mut(slot) {
            client.ids = ids;
        }
        let zxid = match submitted {
            Submitted::Proposed(zxid) => Some(zxid),
            Submitted::Forwarded | Submitted::Begun => None,
            Submitted::Later(wait) => return Taken::Later(wait),
            Submitted::Refused(code) => {
                self.answer(core.now(), slot, xid, Answer::failed(code));
                return Taken::Done;
            }
        };
        self.had_room(slot);
        let kept = self.keep_write(slot, record);
        self.note_for_audit(slot, op, record);
        self.queue(core.now(), slot, xid, Awaiting::Write { op, zxid, len: record.len(), kept });
        if op == Opcode::CloseSession {
            self.end_input(slot);
        }
        Taken::Done
    }

    fn sync(&mut self, core: &mut Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        let mut reader = Reader::new(record);
        if reader.ustring().is_err() {
            self.answer(core.now(), slot, xid, Answer::failed(Code::MARSHALLING_ERROR));
            return Taken::Done;
        }
        let record = &record[..reader.position()];
        let (conn, turn) = (self.clients.conn(slot), self.turn(slot));
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        let session = client.session;
        let ids = std::mem::take(&mut client.ids);
        let (op, cxid) = (Opcode::Sync, xid);
        let request = Request { session, cxid, op, record, ids: Ids::new(&ids) };
        let (role, mut cx) = self.role(core);
        let begun = role.sync(&mut cx, (conn, turn), &request);
        if let Some(client) = self.clients.get_mut(slot) {
            client.ids = ids;
        }
        match begun {
            Submitted::Begun => {}
            Submitted::Proposed(_) | Submitted::Forwarded => self.had_room(slot),
            Submitted::Later(wait) => return Taken::Later(wait),
            Submitted::Refused(code) => {
                self.answer(core.now(), slot, xid, Answer::failed(code));
                return Taken::Done;
            }
        }
        if let Some(client) = self.clients.get_mut(slot) {
            let len = client.keep(record);
            self.queue(core.now(), slot, xid, Awaiting::Sync { done: false, len });
        }
        Taken::Done
    }

    /// Answers without looking at the tree, behind what is queued.
    fn answer(&mut self, now: Instant, slot: u32, xid: i32, answer: Answer) {
        self.queue(now, slot, xid, Awaiting::Reply(answer));
        if answer.close {
            self.end_input(slot);
        }
        self.drain(now, slot);
    }

    /// Nothing more is read from the connection.
    fn end_input(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = Life::Ending;
        }
    }
}
