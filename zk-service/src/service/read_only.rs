//! Service of a server that has found no leader (`readonlymode.enabled`; `ReadOnlyZooKeeperServer`).
//!
//! It begins when the server has looked for a leader for two seconds, or for a tick if that is longer,
//! and ends when one is found; at both ends all clients are disconnected. It is for clients that say in
//! their handshake that reading is enough for them. A session of the ensemble does not go on here: its
//! client would take it for living while the leader of the majority lets it expire.
//!
//! What is shown is known to be committed. A process that has served a role shows all that it has shown
//! before. One that has not knows of its log only that it is durable: unless the log is empty after the
//! snapshot it does not begin, as it would show a tree of long ago; nor with an empty directory, which may
//! be that of a lost disk. (ZooKeeper shows the whole log, also
//! what a later leader cuts off.)

use std::time::Duration;

use zab_proto::{Core, Instant, Zxid};

use crate::metrics::stats::Stats;
use crate::options::ServiceOptions;
use crate::protocol::code::Code;
use crate::protocol::opcode::{OpClass, Opcode};
use crate::protocol::request::Connect;
use crate::service::admission::Admission;
use crate::service::connection::entry::Entry;
use crate::service::connection::order::Answer;
use crate::service::connection::table::Clients;
use crate::service::hold;
use crate::service::intake::{FrameOutcome, answer};
use crate::service::parts::Parts;
use crate::service::role::Role;
use crate::service::role::read_only::ReadOnly;
use crate::service::role::status::ServerStatus;

/// A server that may find a leader at once does not begin (`QuorumPeer.run`).
const LOOKING_MIN: Duration = Duration::from_secs(2);

/// When this server is to begin, if it finds no leader until then.
pub(super) fn begins_at(
    options: &ServiceOptions,
    role: &Role,
    status: &ServerStatus,
    admission: &Admission,
) -> Option<Instant> {
    let is_idle = matches!(role, Role::Idle) && admission.leaving.is_none();
    let looks_since = status.looks_since().filter(|_| options.read_only_mode && is_idle)?;
    Some(looks_since + options.tick_time.max(LOOKING_MIN))
}

/// Begins, if it is time.
pub(super) fn begin_if_due(clients: &mut Clients, parts: &mut Parts<'_>, core: &Core<'_>) {
    let now = core.now();
    let at = begins_at(&parts.env.options, parts.role, parts.status, parts.admission);
    if at.is_none_or(|at| at > now) {
        return;
    }
    let (known, durable) = (core.peer().delivered(), core.peer().last_zxid());
    let lacks = known < durable || durable == Zxid::ZERO;
    if lacks && let Some(is_news) = parts.status.lacks_what_is_logged() {
        if is_news {
            log::warn!(
                "No leader, and clients cannot read here: since its start this server has not learnt \
                 which transactions from {known} to {durable} are committed. It waits for a quorum"
            );
        }
        return;
    }
    // Whose session has found no leader until now may find one elsewhere.
    hold::give_up(clients, parts, now);
    *parts.role = Role::ReadOnly(ReadOnly::new(now, parts.env.options.tick_time));
    parts.status.serves_readers(Some(now));
    log::warn!(
        "No leader: read-only mode begins (readonlymode.enabled). Clients that accept a read-only \
         server may read here what is known up to {}",
        parts.state.last_zxid()
    );
}

/// Ends: the server has found a leader, or leads.
pub(super) fn end(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    let Role::ReadOnly(role) = parts.role else { return };
    log::info!("The read-only mode ends after {}", role.summary(now));
    *parts.role = Role::Idle;
    parts.status.serves_readers(None);
    parts.admission.end_role();
    parts.state.clear_listings();
    parts.metrics.stats = Stats::default();
    for conn in clients.ids() {
        if let Some(mut at) = clients.enter(conn) {
            parts.close(&mut at, false);
        }
    }
}

/// Sessions that have been silent for too long are over, and their connections.
pub(super) fn expire(clients: &mut Clients, parts: &mut Parts<'_>, now: Instant) {
    while let Role::ReadOnly(role) = parts.role
        && let Some(session) = role.expire(now)
    {
        log::info!("Expiring session {session:#x} of the read-only mode");
        if let Some(mut at) = clients.of_session(session) {
            parts.close(&mut at, false);
        }
    }
}

/// Whether a handshake is for this server as it is. If not, the connection is closed, which is how
/// ZooKeeper's server sends a client to look elsewhere.
pub(super) fn admits(at: &mut Entry<'_>, parts: &mut Parts<'_>, connect: &Connect<'_>) -> bool {
    let is_global = parts.state.has_session(connect.session);
    let Role::ReadOnly(role) = parts.role else { return true };
    let why = if connect.read_only != Some(true) {
        "it wants to write"
    } else if is_global {
        "its session is the ensemble's"
    } else {
        return true;
    };
    let remote = at.client.remote;
    if role.refuse() {
        log::info!(
            "Closing connection with {remote}: {why}, and this server is read-only. Further ones are only counted"
        );
    } else {
        log::debug!("Closing connection with {remote}: {why}, and this server is read-only");
    }
    parts.close(at, false);
    false
}

/// Answers what would need a leader. `None`: the request is carried out as ever.
pub(super) fn refuse(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    xid: i32,
    op: Option<Opcode>,
) -> Option<FrameOutcome> {
    let Role::ReadOnly(role) = parts.role else { return None };
    let known = match (op?, op?.class()) {
        (Opcode::CloseSession, _) => {
            role.close(at.client.session);
            Answer::last(Code::OK)
        }
        (Opcode::Check | Opcode::DeleteContainer, _) | (_, OpClass::Write | OpClass::Sync) => {
            Answer::failed(Code::NOT_READ_ONLY)
        }
        (_, OpClass::Read | OpClass::Auth | OpClass::Internal) => return None,
    };
    answer(at, parts, now, xid, known);
    Some(FrameOutcome::Done)
}
