//! From a client's bytes to requests: framing, handshake, and the decision what is done now, what is
//! forwarded and what waits.

mod login;

use std::fmt;

use zab_proto::wire::Foreign;
use zab_proto::wire::jute::Reader;
use zab_proto::{ConnId, Core, Instant, ServerState};

use crate::auth::Ids;
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::opcode::{OpClass, Opcode};
use crate::protocol::reply::XID_PING;
use crate::protocol::request;
use crate::service::answer::{drain, read};
use crate::service::budget::keep_to_budget;
use crate::service::connection::Life;
use crate::service::connection::entry::Entry;
use crate::service::connection::order::{Answer, Awaiting, InFlight};
use crate::service::connection::table::Clients;
use crate::service::connection::wait::Wait;
use crate::service::estimate;
use crate::service::handshake::handshake;
use crate::service::hold::keep_write;
use crate::service::parts::{Parts, end_input};
use crate::service::read_only;
use crate::service::role::{Request, Submitted};
use crate::service::turn::retry;
use crate::service::words::take_word;
use crate::throttle;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameOutcome {
    Done,
    /// It is offered again when this wait is over.
    Later(Wait),
    /// The connection is closed.
    Closed,
}

/// See [`zab_proto::Application::handle_bytes`].
pub(super) fn take_bytes(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    conn: ConnId,
    bytes: &[u8],
) -> usize {
    let word = take_word(clients, parts, core, conn, bytes);
    let Some(mut at) = clients.enter(conn) else { return bytes.len() };
    let used = word.unwrap_or_else(|| take_frames(&mut at, parts, core, bytes));
    parts.charge_billed(&mut at);
    parts.admission.step_aside(at.client);
    if parts.admission.room.has_moved() || parts.admission.throttled.has_moved() {
        retry(clients, parts, core);
        at = match clients.enter(conn) {
            Some(at) => at,
            None => return bytes.len(),
        };
    }
    at.left_unread(core.now(), bytes.len() - used);
    keep_to_budget(clients, parts);
    // Nobody is going to take the rest of a connection that has been closed for its size.
    let is_open = clients.get(conn).is_some_and(|client| client.state != Life::Closed);
    if is_open { used } else { bytes.len() }
}

fn take_frames(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    bytes: &[u8],
) -> usize {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let greeting = match at.client.state {
            Life::Ending | Life::Closed => return bytes.len(),
            Life::Greeting => true,
            Life::Connecting | Life::Open => false,
        };
        let Some(head) = rest.first_chunk::<4>() else { return used };
        if let Some(wait) = parts.admission.stops(at.client) {
            parts.admission.wait(at, wait);
            return used;
        }
        if !parts.takes_clients() {
            // Expected for every client while this server is LOOKING, so not logged.
            parts.close(at, false);
            return bytes.len();
        }
        let len = i32::from_be_bytes(*head);
        let limit = parts.env.options.jute_max_buffer;
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= limit) else {
            let guess = Foreign::of(head).filter(|_| greeting);
            let guess = guess.map_or_else(String::new, |protocol| format!(" ({protocol}?)"));
            let why = format_args!("frame length {len}, jute.maxbuffer is {limit}{guess}");
            hang_up(at, parts, why);
            return bytes.len();
        };
        if parts.env.options.large_requests.refuse(len, at.shared.large_len()) {
            let max = parts.env.options.large_requests.max_bytes;
            parts.metrics.large_rejected += 1;
            let why = format_args!("a request of {len} bytes, largeRequestMaxBytes is {max}");
            hang_up(at, parts, why);
            return bytes.len();
        }
        let Some(frame) = rest[4..].get(..len) else { return used };
        let taken = if let Some(wait) = others_first(at, parts, frame, used == 0) {
            FrameOutcome::Later(wait)
        } else if greeting {
            handshake(at, parts, core, frame)
        } else {
            request(at, parts, core, frame)
        };
        match taken {
            FrameOutcome::Done => count_received(at, parts, 4 + len),
            FrameOutcome::Later(wait) => {
                parts.admission.wait(at, wait);
                return used;
            }
            FrameOutcome::Closed => return bytes.len(),
        }
        used += 4 + len;
    }
}

/// Whether a frame has to wait for its connection's turn.
fn others_first(at: &mut Entry<'_>, parts: &Parts<'_>, frame: &[u8], first: bool) -> Option<Wait> {
    if !parts.admission.schedule.is_contended() {
        return None;
    }
    let expected = estimate::request(parts.state.tree(), at.client.session, frame);
    parts.admission.turn(at.client, expected, first)
}

fn count_received(at: &mut Entry<'_>, parts: &mut Parts<'_>, len: usize) {
    let work = cost::REQUEST + cost::bytes(len);
    parts.metrics.stats.received += 1;
    parts.metrics.bytes_received += len as u64;
    at.client.count_received();
    if parts.admission.schedule.is_contended() {
        parts.charge(at, work);
    } else {
        parts.admission.schedule.bill_request(work);
    }
}

/// Closes the connection of a client that does not keep to the protocol.
pub(super) fn hang_up(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    why: fmt::Arguments<'_>,
) -> FrameOutcome {
    log::info!("Closing connection with {}: {why}", at.client.remote);
    parts.close(at, false);
    FrameOutcome::Closed
}

fn request(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    frame: &[u8],
) -> FrameOutcome {
    let mut reader = Reader::new(frame);
    let (Ok(xid), Ok(number)) = (reader.i32(), reader.i32()) else {
        return hang_up(at, parts, format_args!("malformed request header"));
    };
    let record = reader.rest();
    let op = Opcode::from_wire(number);
    let class = op.map(Opcode::class);
    let is_ping = op == Some(Opcode::Ping);
    // Waits for the answers in front of it, which wait for their turn.
    let is_write = class == Some(OpClass::Write);
    if let Some(wait) = parts.admission.own_limits(&parts.env.options, at.client, is_write) {
        return FrameOutcome::Later(wait);
    }
    if outstanding_waits(at, parts, core) {
        return FrameOutcome::Later(Wait::Outstanding);
    }
    if class != Some(OpClass::Auth) && !login::is_logged_in(at, parts) {
        return login::refuse_stranger(at, parts, core.now(), xid);
    }
    if !is_ping && let Some(wait) = throttle_waits(at, parts) {
        return FrameOutcome::Later(wait);
    }
    if !parts.touch(core.now(), at) {
        // The session is being closed, and this connection with it, unless the leader is lost before that is
        // committed: then the session lives on, and this request waits for the next one.
        return FrameOutcome::Later(Wait::Leader);
    }
    if at.client.throttled.is_some() && !is_ping && is_throttled(at, parts, core.now(), op) {
        answer(at, parts, core.now(), xid, Answer::failed(Code::THROTTLED));
        return FrameOutcome::Done;
    }
    if parts.role.is_read_only()
        && let Some(taken) = read_only::refuse(at, parts, core.now(), xid, op)
    {
        return taken;
    }
    match op.zip(class) {
        Some((op, OpClass::Read)) => {
            read_or_queue(at, parts, core.now(), xid, (op, record));
            FrameOutcome::Done
        }
        Some((op, OpClass::Write)) => write(at, parts, core, xid, (op, record)),
        Some((_, OpClass::Sync)) => sync(at, parts, core, xid, record),
        Some((Opcode::Sasl, OpClass::Auth)) => login::sasl(at, parts, core, xid, record),
        Some((_, OpClass::Auth)) => login::auth(at, parts, core, xid, record),
        Some((_, OpClass::Internal)) | None => unknown(at, parts, core, xid, number),
    }
}

/// Whether a request waits for answers to earlier ones of the same client, because all clients together have more under
/// way than may be. Who has none under way goes on.
fn outstanding_waits(at: &Entry<'_>, parts: &mut Parts<'_>, core: &Core<'_>) -> bool {
    if at.client.queue.is_empty() {
        return false;
    }
    let is_voter = parts.status.in_ensemble().is_some_and(|status| match status.state {
        ServerState::Leading | ServerState::Following => true,
        ServerState::Observing | ServerState::Looking => false,
    });
    let voters = is_voter.then(|| core.peer().config().ensemble.voters().count());
    let max = throttle::outstanding_max(parts.env.options.global_outstanding_limit, voters);
    let waits = at.shared.under_way() > max;
    parts.metrics.outstanding_stalls += u64::from(waits);
    waits
}

/// Whether a request waits for answers to others, because so many are under way.
fn throttle_waits(at: &mut Entry<'_>, parts: &mut Parts<'_>) -> Option<Wait> {
    let wait = parts.admission.throttle(at);
    if wait.is_some() && at.client.throttled.is_none() {
        parts.metrics.throttle_waits += 1;
    }
    wait
}

/// A request does not wait for others, or no longer. Whether it has waited for too long.
fn is_throttled(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    op: Option<Opcode>,
) -> bool {
    let wait_max = parts.env.options.request_throttle.wait_max;
    let since = parts.admission.leave_throttle(at.client);
    let is_late = since.is_some_and(|since| now.saturating_since(since) > wait_max);
    let is_throttled = is_late && !wait_max.is_zero() && op != Some(Opcode::CloseSession);
    parts.metrics.throttled_ops += u64::from(is_throttled);
    is_throttled
}

fn unknown(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &Core<'_>,
    xid: i32,
    number: i32,
) -> FrameOutcome {
    log::info!("Closing connection with {}: unknown operation {number}", at.client.remote);
    let code = Code::UNIMPLEMENTED;
    let known = Answer { zxid: Some(-1), ..Answer::last(code) };
    answer(at, parts, core.now(), xid, known);
    FrameOutcome::Done
}

#[inline]
fn read_or_queue(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    xid: i32,
    (op, record): (Opcode, &[u8]),
) {
    let xid = if op == Opcode::Ping { XID_PING } else { xid };
    if at.client.queue.is_empty() {
        let ids_len = at.client.ids.len();
        let (received, awaiting) = (now, Awaiting::Read { op, len: record.len(), work: 0 });
        let request = InFlight { xid, received, ids_len, awaiting };
        if read(at, parts, now, &request, (op, record), false) {
            return;
        }
        parts.charge(at, 0);
        parts.admission.wait(at, Wait::Turn);
    }
    queue_read(at, parts, now, xid, (op, record));
}

/// A read waits for what is in front of it, or for its next piece.
fn queue_read(
    at: &mut Entry<'_>,
    parts: &Parts<'_>,
    now: Instant,
    xid: i32,
    (op, record): (Opcode, &[u8]),
) {
    let len = at.client.keep(record);
    let per_request = parts.env.options.work_per_request;
    let work = estimate::read(parts.state.tree(), per_request, op, record);
    at.queue(xid, now, Awaiting::Read { op, len, work });
}

fn write(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    xid: i32,
    (op, record): (Opcode, &[u8]),
) -> FrameOutcome {
    if op == Opcode::CloseSession && parts.local.knows(at.client.session) {
        answer(at, parts, core.now(), xid, Answer { ends_session: true, ..Answer::last(Code::OK) });
        return FrameOutcome::Done;
    }
    let (turn, under_way) = (parts.admission.place(at.client), at.shared.writes_len());
    let (session, ids) = (at.client.session, Ids::new(&at.client.ids));
    let request = Request { session, cxid: xid, op, record, ids };
    let (role, mut cx) = parts.role(core);
    let zxid = match role.submit(&mut cx, turn, &request, under_way) {
        Submitted::Proposed(zxid) => Some(zxid),
        Submitted::Forwarded | Submitted::Begun => None,
        Submitted::Later(wait) => return FrameOutcome::Later(wait),
        Submitted::Refused(code) => {
            answer(at, parts, core.now(), xid, Answer::failed(code));
            return FrameOutcome::Done;
        }
    };
    parts.admission.leave_room(at.client);
    let kept = keep_write(at, parts, record);
    if parts.env.options.audit.is_some() {
        at.client.note_for_audit(op, record);
    }
    let places = request::stat_parts(op, record);
    let stat_parts = !places.is_empty();
    let write = Awaiting::Write { op, zxid, len: record.len(), kept, stat_parts };
    at.queue_write(core.now(), xid, write, places);
    if op == Opcode::CloseSession {
        end_input(at);
    }
    FrameOutcome::Done
}

fn sync(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    xid: i32,
    record: &[u8],
) -> FrameOutcome {
    let mut reader = Reader::new(record);
    if reader.ustring().is_err() {
        answer(at, parts, core.now(), xid, Answer::failed(Code::MARSHALLING_ERROR));
        return FrameOutcome::Done;
    }
    let record = &record[..reader.position()];
    let place = (at.conn, parts.admission.place(at.client));
    let (session, ids) = (at.client.session, Ids::new(&at.client.ids));
    let request = Request { session, cxid: xid, op: Opcode::Sync, record, ids };
    let (role, mut cx) = parts.role(core);
    match role.sync(&mut cx, place, &request) {
        Submitted::Begun => {}
        Submitted::Proposed(_) | Submitted::Forwarded => parts.admission.leave_room(at.client),
        Submitted::Later(wait) => return FrameOutcome::Later(wait),
        Submitted::Refused(code) => {
            answer(at, parts, core.now(), xid, Answer::failed(code));
            return FrameOutcome::Done;
        }
    }
    let len = at.client.keep(record);
    at.queue(xid, core.now(), Awaiting::Sync { done: false, len });
    FrameOutcome::Done
}

/// Answers without looking at the tree, behind what is queued.
pub(super) fn answer(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    xid: i32,
    answer: Answer,
) {
    at.queue(xid, now, Awaiting::Reply(answer));
    if answer.close {
        end_input(at);
    }
    drain(at, parts, now);
}
