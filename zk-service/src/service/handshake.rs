//! The beginning of a client's session on a connection: a new one, or one that goes on here.

use zab_proto::{Core, Instant};

use crate::protocol::reply;
use crate::protocol::request::Connect;
use crate::protocol::session_id::{password, session_id};
use crate::service::connection::Life;
use crate::service::connection::entry::Entry;
use crate::service::connection::room::Turn;
use crate::service::connection::wait::Wait;
use crate::service::intake::{FrameOutcome, hang_up};
use crate::service::leave::leave_client;
use crate::service::parts::Parts;
use crate::service::read_only;
use crate::service::role::Resumed;
use crate::throttle::Handshake;

/// The first frame of a connection.
pub(super) fn handshake(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    frame: &[u8],
) -> FrameOutcome {
    let Ok(connect) = Connect::decode(frame) else {
        return hang_up(at, parts, format_args!("malformed handshake"));
    };
    if !at.client.admitted {
        at.client.connecting_since = core.now();
    }
    let handshake = match connect.session {
        0 if parts.role.keeps_sessions(&parts.env.options) => Handshake::Local,
        0 => Handshake::Global,
        _ => Handshake::Renewal,
    };
    if !admits(at, parts, core.now(), handshake) {
        parts.metrics.refused += 1;
        return hang_up(at, parts, format_args!("too many handshakes (connection_throttle_*)"));
    }
    if !read_only::admits(at, parts, &connect) {
        return FrameOutcome::Closed;
    }
    let last_zxid = parts.state.last_zxid();
    if connect.last_zxid_seen > last_zxid.raw() {
        log::info!(
            "Refusing session({:#x}) request for client {} as it has seen zxid {:#x} our last zxid is \
             {last_zxid} client must try another server",
            connect.session,
            at.client.remote,
            connect.last_zxid_seen
        );
        parts.close(at, false);
        return FrameOutcome::Closed;
    }
    let timeout_ms = parts.env.options.session_timeout_ms(connect.timeout_ms);
    at.client.timeout_ms = timeout_ms;
    at.client.wants_read_only = connect.read_only.is_some();
    let turn = parts.admission.place(at.client);
    let taken = if connect.session == 0 {
        create_session(at, parts, core, turn, timeout_ms)
    } else if password(connect.session) == *connect.password {
        reattach(at, parts, core, turn, (connect.session, timeout_ms))
    } else {
        let (client, session) = (at.client.remote, connect.session);
        log::warn!("Incorrect password from {client} for session {session:#x}");
        attached(at, parts, core.now(), false);
        FrameOutcome::Closed
    };
    // One that waits comes here again.
    if !matches!(taken, FrameOutcome::Later(_)) {
        parts.metrics.handshakes += 1;
        parts.metrics.reattachments += u64::from(connect.session != 0);
    }
    taken
}

/// Whether the throttle of handshakes lets this one in. One that waits for room is asked once.
fn admits(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant, handshake: Handshake) -> bool {
    let Parts { admission, env, metrics, .. } = parts;
    let options = &env.options.connection_throttle;
    if at.client.admitted {
        return true;
    }
    let random = || (env.options.entropy.next() >> 11) as f64 / (1_u64 << 53) as f64;
    let is_admitted = admission.bucket.admits(options, now, handshake, random);
    at.client.admitted = is_admitted;
    if is_admitted && options.tokens > 0 {
        metrics.token_deficit.add(admission.bucket.deficit(options));
    }
    is_admitted
}

/// [`Wait::Room`]: there is none.
pub(super) fn create_session(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    turn: Turn,
    timeout_ms: i32,
) -> FrameOutcome {
    if parts.role.keeps_sessions(&parts.env.options) {
        let session = new_session_id(at, parts);
        parts.local.open(core.now(), session, timeout_ms);
        parts.admission.leave_room(at.client);
        at.client.session = session;
        attached(at, parts, core.now(), true);
        return FrameOutcome::Done;
    }
    if parts.role.has_begun() {
        return FrameOutcome::Later(Wait::Preparation);
    }
    if !turn.is_next {
        return FrameOutcome::Later(Wait::Room);
    }
    let session = new_session_id(at, parts);
    let (role, mut cx) = parts.role(core);
    let accepted = role.open_session(&mut cx, turn, session, timeout_ms);
    if !accepted {
        return FrameOutcome::Later(Wait::Room);
    }
    parts.admission.leave_room(at.client);
    at.client.state = Life::Connecting;
    at.client.session = session;
    at.attach(session);
    if parts.role.is_read_only() {
        attached(at, parts, core.now(), true);
    }
    FrameOutcome::Done
}

/// An id that no session has, nor one that is being made here.
fn new_session_id(at: &Entry<'_>, parts: &Parts<'_>) -> i64 {
    let options = &parts.env.options;
    loop {
        let id = session_id(options.session_server_id, options.entropy.next());
        let is_known = parts.state.has_session(id) || parts.local.has_id(id);
        if !is_known && at.shared.of_session(id).is_none() {
            return id;
        }
    }
}

/// [`Wait::Room`]: there is none. [`Wait::Preparation`]: a request that has begun comes first.
pub(super) fn reattach(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &mut Core<'_>,
    turn: Turn,
    (session, timeout_ms): (i64, i32),
) -> FrameOutcome {
    if parts.role.has_begun() {
        // That may be one of the same client, by another server.
        return FrameOutcome::Later(Wait::Preparation);
    }
    // Its old connection here, if any, may hold requests from before it was on another server.
    if let Some(old) = at.shared.of_session(session) {
        parts.close_other(at, old);
    }
    let conn = at.conn;
    let (role, mut cx) = parts.role(core);
    let resumed = role.resume_session(&mut cx, (conn, turn), session, timeout_ms);
    if resumed == Resumed::NoRoom {
        return FrameOutcome::Later(Wait::Room);
    }
    if matches!(resumed, Resumed::Asked { .. } | Resumed::Behind) {
        parts.admission.leave_room(at.client);
    }
    let client = &mut *at.client;
    client.state = Life::Connecting;
    client.session = session;
    client.carry.resumes = true;
    client.carry.floor = core.peer().last_zxid();
    client.confirmed |= resumed == Resumed::Behind;
    if let Resumed::Asked { confirmed, caught_up } = resumed {
        client.confirmed |= confirmed;
        client.caught_up |= caught_up;
    }
    let Resumed::Decided { valid } = resumed else { return FrameOutcome::Done };
    attached(at, parts, core.now(), valid);
    if valid { FrameOutcome::Done } else { FrameOutcome::Closed }
}

/// The handshake is decided: the client has its session, or is refused.
pub(super) fn attached(at: &mut Entry<'_>, parts: &mut Parts<'_>, now: Instant, valid: bool) {
    if at.is_closed() {
        return;
    }
    let client = &mut *at.client;
    let (session, timeout_ms) = (client.session, client.timeout_ms);
    let read_only = client.wants_read_only.then_some(parts.role.is_read_only());
    let unsent = client.unsent();
    let granted = valid.then_some((session, timeout_ms));
    reply::connect(client.out.buffer(), granted, read_only);
    client.count_handshake(now);
    parts.metrics.stats.sent += 1;
    at.wrote(unsent);
    if !valid {
        // Of an incorrect password it has been said.
        if session != 0 {
            let client = at.client.remote;
            log::info!("Invalid session {session:#x} for client {client}, probably expired");
        }
        parts.close(at, true);
        return;
    }
    log::debug!(
        "Established session {session:#x} with negotiated timeout {timeout_ms} for client {}",
        at.client.remote
    );
    at.client.state = Life::Open;
    if let Some(old) = at.attach(session) {
        parts.close_other(at, old);
    }
    parts.touch(now, at);
    leave_client(at, parts);
}
