//! What depends on who leads.
//!
//! A role is a variant with its own data: leaving one is `Role::Idle`, and nothing of a leader can
//! be touched while following.

mod expiry;
mod leader;
mod learner;
mod prep;
pub(crate) mod read_only;
pub(crate) mod status;
mod tracker;

use zab_proto::{ConnId, Core, Instant, Origin, Zxid};

use self::leader::{Leader, Submission};
use self::learner::Learner;
use self::prep::View;
use self::read_only::ReadOnly;
use self::tracker::Owner;
use crate::auth::Ids;
use crate::connection::room::{Ticket, Turn};
use crate::connection::schedule::Schedule;
use crate::connection::wait::Wait;
use crate::env::Env;
use crate::metrics::Metrics;
use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::txn::Txn;
use crate::state::State;

/// What a role may look at and act on during one call.
#[derive(Debug)]
pub(crate) struct Cx<'a, 'c> {
    pub(crate) core: &'a mut Core<'c>,
    pub(crate) state: &'a State,
    pub(crate) env: &'a Env,
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) schedule: &'a mut Schedule,
}

impl<'a> Cx<'a, '_> {
    /// What preparation looks at.
    fn view(&self) -> View<'a> {
        let (tree, options) = (self.state.tree(), &self.env.options);
        View {
            txn_len_max: self.core.peer().config().limits.field_len_max_bytes,
            tree,
            access: &self.env.access,
            extended_types: options.extended_types,
            enforce_quota: options.enforce_quota,
            digests: tree.digest().is_some(),
        }
    }
}

/// A request of a client of this server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) session: i64,
    pub(crate) cxid: i32,
    pub(crate) op: Opcode,
    pub(crate) record: &'a [u8],
    pub(crate) ids: Ids<'a>,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submitted {
    /// Its transaction will have this zxid (leader).
    Proposed(Zxid),
    /// The leader has it; session and cxid will name its transaction (learner).
    Forwarded,
    /// A sync has begun on the leader itself, which takes no room.
    Begun,
    /// Not now: there is no room for it, or others have waited longer for some ([`Wait::Room`]); or it
    /// has to wait for answers to others ([`Wait::Writes`]).
    Later(Wait),
    /// It is answered here.
    Refused(Code),
}

impl Submitted {
    /// Whether it is on its way.
    fn is_taken(self) -> bool {
        matches!(self, Self::Proposed(_) | Self::Forwarded)
    }
}

/// What became of a client's wish to go on with its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumed {
    /// The leader of this server's own knows.
    Decided {
        /// Whether the session lives.
        valid: bool,
    },
    /// The leader is asked.
    Asked {
        /// Whether no sync is to be waited for.
        caught_up: bool,
    },
    /// There is no room for the question now.
    NoRoom,
}

/// The role of this server while it serves.
#[derive(Debug)]
pub(crate) enum Role {
    /// None: a server that looks for a leader, or is being synchronised.
    Idle,
    /// A follower or observer.
    Learner(Learner),
    /// A server without a leader that lets clients read.
    ReadOnly(ReadOnly),
    /// The leader, or a standalone server.
    Leader(Box<Leader>),
}

impl Role {
    /// Begins to lead: takes over all sessions, and closes those that own nodes but do not exist.
    pub(crate) fn lead(cx: &mut Cx<'_, '_>, standalone: bool) -> Self {
        let mut leader = Leader::new(cx, standalone);
        let dead: Vec<i64> = cx.state.db().dead_sessions().collect();
        for session in dead {
            log::warn!("session {session:#x} owns nodes but does not exist: closing it");
            leader.close_session(cx, session);
        }
        leader.count(cx);
        Self::Leader(Box::new(leader))
    }

    /// Begins to follow or observe.
    pub(crate) fn learn() -> Self {
        Self::Learner(Learner::default())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly(_))
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self, Self::Leader(_))
    }

    /// Notes that the process is awake.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_, '_>) {
        if let Self::Leader(leader) = self {
            leader.wake(cx);
        }
    }

    /// Proposes or forwards a write of a client of this server. `under_way`: bytes of the writes of
    /// its clients that are not answered yet.
    pub(crate) fn submit(
        &mut self,
        cx: &mut Cx<'_, '_>,
        turn: Turn,
        request: &Request<'_>,
        under_way: usize,
    ) -> Submitted {
        match self {
            Self::Idle => Submitted::Later(Wait::Room),
            Self::ReadOnly(_) => Submitted::Refused(Code::NOT_READ_ONLY),
            Self::Learner(learner) => learner.submit(cx, turn, request, under_way),
            Self::Leader(leader) => Self::propose(leader, cx, turn, request),
        }
    }

    fn propose(
        leader: &mut Leader,
        cx: &mut Cx<'_, '_>,
        turn: Turn,
        request: &Request<'_>,
    ) -> Submitted {
        let Request { session, cxid, op, record, ids } = *request;
        let owner = Owner::Local;
        let submission = Submission { owner, session, cxid, op, record, ids, moved: false };
        let may_ask = turn.is_next && !leader.waits_longer(turn.ticket);
        let proposed = if may_ask { leader.submit(cx, &submission) } else { None };
        leader.count(cx);
        proposed.map_or(Submitted::Later(Wait::Room), Submitted::Proposed)
    }

    /// Asks for a new session. Whether there was room.
    pub(crate) fn open_session(
        &mut self,
        cx: &mut Cx<'_, '_>,
        turn: Turn,
        session: i64,
        timeout_ms: i32,
    ) -> bool {
        let (op, record, ids) = (Opcode::CreateSession, timeout_ms.to_be_bytes(), Ids::default());
        let request = Request { session, cxid: 0, op, record: &record, ids };
        match self {
            Self::Idle => false,
            Self::ReadOnly(role) => {
                role.open(cx.core.now(), session, timeout_ms);
                true
            }
            Self::Learner(learner) => learner.forward(cx, &request, false),
            Self::Leader(leader) => Self::propose(leader, cx, turn, &request).is_taken(),
        }
    }

    /// A client of this server, on `conn`, wants to go on with its session.
    pub(crate) fn resume_session(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (conn, turn): (ConnId, Turn),
        session: i64,
        timeout_ms: i32,
    ) -> Resumed {
        match self {
            Self::Idle => Resumed::NoRoom,
            Self::ReadOnly(role) => role.resume(cx.core.now(), session, timeout_ms),
            Self::Learner(_) if !turn.is_next => Resumed::NoRoom,
            Self::Learner(learner) => learner.resume_session(cx, conn, session, timeout_ms),
            Self::Leader(leader) => {
                let now = cx.core.now();
                let valid = leader.revalidate(now, session, timeout_ms, Owner::Local);
                Resumed::Decided { valid }
            }
        }
    }

    /// A client of this server wants to have caught up.
    pub(crate) fn sync(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (conn, turn): (ConnId, Turn),
        request: &Request<'_>,
    ) -> Submitted {
        match self {
            Self::Idle => Submitted::Later(Wait::Room),
            Self::ReadOnly(_) => Submitted::Refused(Code::NOT_READ_ONLY),
            Self::Learner(learner) => learner.sync(cx, (conn, turn), request),
            Self::Leader(leader) => {
                leader.sync(cx, conn);
                Submitted::Begun
            }
        }
    }

    /// A sync has ended, on a leader the one of this token: the client that waited for it.
    pub(crate) fn synced(&mut self, token: Option<u64>) -> Option<ConnId> {
        match (self, token) {
            (Self::Learner(learner), None) => learner.take_sync(),
            (Self::Leader(leader), Some(token)) => leader.take_sync(token),
            (Self::Idle | Self::Learner(_) | Self::ReadOnly(_) | Self::Leader(_), _) => None,
        }
    }

    /// A sign of life of a session of this server. `touched` is the connection's own note of the last
    /// one. False if the session is at its end.
    pub(crate) fn touch(
        &mut self,
        now: Instant,
        session: i64,
        timeout_ms: i32,
        touched: &mut u64,
    ) -> bool {
        match self {
            Self::Idle => true,
            Self::ReadOnly(role) => role.touch(now, session, timeout_ms),
            Self::Learner(learner) => {
                learner.touch(session, timeout_ms, touched);
                true
            }
            Self::Leader(leader) => leader.touch(now, session, timeout_ms, touched),
        }
    }

    /// Signs of life that the leader has not been told of.
    pub(crate) fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        if let Self::Learner(learner) = self {
            learner.take_touched(sessions);
        }
    }

    /// A transaction has been applied.
    pub(crate) fn applied(&mut self, state: &State, zxid: Zxid, session: i64, txn: &Txn<'_>) {
        if let Self::Leader(leader) = self {
            leader.prep.applied(state.tree(), zxid);
            if matches!(txn, Txn::CloseSession(_)) {
                leader.tracker.remove(session);
            }
        }
    }

    /// The leader's word about a session: which connection waits for it, and whether it lives.
    pub(crate) fn revalidated(&mut self, data: &[u8]) -> Option<(ConnId, bool)> {
        match self {
            Self::Learner(learner) => learner.revalidated(data),
            Self::Idle | Self::ReadOnly(_) | Self::Leader(_) => None,
        }
    }

    /// A learner forwards a request; see [`Leader::request`].
    pub(crate) fn request(
        &mut self,
        cx: &mut Cx<'_, '_>,
        from: Origin,
        (data, auth): (&[u8], &[u8]),
        place: (Ticket, bool),
    ) {
        if let Self::Leader(leader) = self {
            leader.request(cx, from, (data, auth), place);
            leader.count(cx);
        }
    }

    /// Sessions that were alive on a learner.
    pub(crate) fn touched(&mut self, now: Instant, sessions: &[u8]) {
        if let Self::Leader(leader) = self {
            leader.touched(now, sessions);
        }
    }

    /// A client of a learner wants to go on with its session there. Whether it may.
    pub(crate) fn revalidate(
        &mut self,
        now: Instant,
        from: Origin,
        session: i64,
        timeout_ms: i32,
    ) -> bool {
        match self {
            Self::Leader(leader) => {
                leader.revalidate(now, session, timeout_ms, Owner::Learner(from.conn))
            }
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => false,
        }
    }

    /// A turn begins; in the one before, so much work was done for clients of this server.
    pub(crate) fn begin_turn(&mut self, schedule: &Schedule, for_clients: u64) {
        if let Self::Leader(leader) = self {
            leader.begin_turn(schedule.share_beside_waiting(), for_clients);
        }
    }

    /// Ends what has lasted long enough.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_, '_>) {
        if let Self::Leader(leader) = self {
            leader.expire(cx);
            leader.count(cx);
        }
    }

    /// There may be room again: proposes what had to wait. `own` is the ticket of the client of this
    /// server that has waited longest. Whether it is its turn.
    pub(crate) fn retry(&mut self, cx: &mut Cx<'_, '_>, own: Option<Ticket>) -> bool {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => true,
            Self::Leader(leader) => {
                leader.retry_deferred(cx, own);
                leader.count(cx);
                !leader.waits_longer(own)
            }
        }
    }

    /// Whether there is something to be done in the next turn.
    pub(crate) fn has_postponed(&self) -> bool {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => false,
            Self::Leader(leader) => leader.has_postponed(),
        }
    }

    /// When [`Self::expire`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Idle | Self::Learner(_) => None,
            Self::ReadOnly(role) => role.poll_timeout(),
            Self::Leader(leader) => Some(leader.poll_timeout()),
        }
    }

    /// Leader: syncs that its own clients wait for.
    pub(crate) fn syncs(&self) -> usize {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => 0,
            Self::Leader(leader) => leader.syncs(),
        }
    }

    /// Of a leader and a read-only server: by when which sessions expire, in order.
    pub(crate) fn session_buckets(&self) -> Option<Vec<(Instant, Vec<i64>)>> {
        match self {
            Self::Idle | Self::Learner(_) => None,
            Self::ReadOnly(role) => Some(role.buckets()),
            Self::Leader(leader) => Some(leader.tracker.buckets().collect()),
        }
    }
}
