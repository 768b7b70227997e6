//! What depends on who leads.
//!
//! A role is a variant with its own data: leaving one is `Role::Idle`, and nothing of a leader can
//! be touched while following.

mod begun;
mod ended;
mod expiry;
mod leader;
mod learner;
pub(super) mod local;
mod prep;
pub(super) mod read_only;
pub(super) mod status;
mod tracker;

use zab_proto::{ConnId, Core, Instant, Origin, Zxid};

use self::leader::{Leader, Submission};
use self::learner::Learner;
use self::local::LocalSessions;
use self::prep::{Members, View};
use self::read_only::ReadOnly;
use self::tracker::Owner;
use crate::auth::Ids;
use crate::metrics::Metrics;
use crate::options::ServiceOptions;
use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Write;
use crate::protocol::txn::Txn;
use crate::service::connection::room::{Ticket, Turn};
use crate::service::connection::schedule::Schedule;
use crate::service::connection::wait::Wait;
use crate::service::env::Env;
use crate::state::State;

/// What a role may look at and act on during one call.
#[derive(Debug)]
pub(in crate::service) struct Cx<'a, 'c> {
    core: &'a mut Core<'c>,
    state: &'a State,
    env: &'a Env,
    local: &'a mut LocalSessions,
    metrics: &'a mut Metrics,
    schedule: &'a mut Schedule,
}

impl<'a, 'c> Cx<'a, 'c> {
    pub(in crate::service) fn new(
        core: &'a mut Core<'c>,
        (state, local): (&'a State, &'a mut LocalSessions),
        env: &'a Env,
        metrics: &'a mut Metrics,
        schedule: &'a mut Schedule,
    ) -> Self {
        Self { core, state, env, local, metrics, schedule }
    }

    /// Work that may be done now on a request that is prepared in pieces, if it is no more than this.
    fn piece(&self, work: u64) -> u64 {
        if self.env.options.cuts { work } else { u64::MAX }
    }

    /// Whether a request is one for which its session has to become one of the ensemble first.
    fn is_to_upgrade(&self, request: &Request<'_>) -> bool {
        self.local.knows(request.session)
            && Write::decode(request.op, request.record).is_ok_and(|write| write.makes_ephemeral())
    }

    /// What preparation looks at.
    fn view(&self) -> View<'_> {
        let options = &self.env.options;
        View {
            members: options.reconfig.then(|| Members {
                peer: self.core.peer(),
                standalone_enabled: options.standalone_enabled,
            }),
            ..view(self.state, self.env, self.core.peer().config().limits.field_len_max_bytes)
        }
    }
}

fn view<'a>(state: &'a State, env: &'a Env, txn_len_max: usize) -> View<'a> {
    let (tree, options) = (state.tree(), &env.options);
    View {
        txn_len_max,
        tree,
        access: &env.access,
        members: None,
        extended_types: options.extended_types,
        enforce_quota: options.enforce_quota,
        digests: tree.digest().is_some(),
    }
}

/// A request of a client of this server.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Request<'a> {
    pub(in crate::service) session: i64,
    pub(in crate::service) cxid: i32,
    pub(in crate::service) op: Opcode,
    pub(in crate::service) record: &'a [u8],
    pub(in crate::service) ids: Ids<'a>,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) enum Submitted {
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
pub(in crate::service) enum Resumed {
    /// The leader of this server's own knows.
    Decided {
        /// Whether the session lives.
        valid: bool,
    },
    /// The leader is asked.
    Asked {
        /// Whether it is asked for a sync alone, as this server knows that the session lives.
        confirmed: bool,
        /// Whether no sync is to be waited for.
        caught_up: bool,
    },
    /// It lives, by the leader of this server's own. What that has proposed comes before what the client asks
    /// next, as it may be of the session's old connection to another server: a sync is under way.
    Behind,
    /// There is no room for the question now.
    NoRoom,
}

/// The role of this server while it serves.
#[derive(Debug)]
pub(in crate::service) enum Role {
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
    pub(in crate::service) fn lead(cx: &mut Cx<'_, '_>, standalone: bool) -> Self {
        let mut leader = Leader::new(cx, standalone);
        for session in &leader.dead {
            log::warn!("session {session:#x} owns nodes but does not exist: closing it");
        }
        leader.close_dead(cx);
        leader.count(cx);
        Self::Leader(Box::new(leader))
    }

    /// Begins to follow or observe.
    pub(in crate::service) fn learn() -> Self {
        Self::Learner(Learner::default())
    }

    pub(in crate::service) fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly(_))
    }

    /// Whether new sessions are this server's own (`localSessionsEnabled`). As in ZooKeeper, a standalone
    /// server has none: what it writes down reaches nobody else.
    pub(in crate::service) fn keeps_sessions(&self, options: &ServiceOptions) -> bool {
        let is_member = match self {
            Self::Idle | Self::ReadOnly(_) => false,
            Self::Learner(_) => true,
            Self::Leader(leader) => !leader.is_standalone(),
        };
        options.local_sessions && is_member
    }

    /// Whether a leader is found, or is this server.
    pub(in crate::service) fn has_leader(&self) -> bool {
        matches!(self, Self::Learner(_) | Self::Leader(_))
    }

    pub(in crate::service) fn leads(&self) -> bool {
        matches!(self, Self::Leader(_))
    }

    /// Notes that the process is awake.
    pub(in crate::service) fn wake(&mut self, cx: &mut Cx<'_, '_>) {
        if let Self::Leader(leader) = self {
            leader.wake(cx);
        }
    }

    /// Proposes or forwards a write of a client of this server. `under_way`: bytes of the writes of
    /// its clients that are not answered yet.
    pub(in crate::service) fn submit(
        &mut self,
        cx: &mut Cx<'_, '_>,
        turn: Turn,
        request: &Request<'_>,
        under_way: usize,
    ) -> Submitted {
        // A multi is refused by the leader, which says which part of it is at fault.
        let may_upgrade = cx.env.options.local_sessions_upgrading || request.op == Opcode::Multi;
        if !may_upgrade && cx.is_to_upgrade(request) {
            return Submitted::Refused(Code::EPHEMERAL_ON_LOCAL_SESSION);
        }
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
        if leader.begun.is_some() {
            return Submitted::Later(Wait::Preparation);
        }
        let Request { session, cxid, op, record, ids } = *request;
        let owner = Owner::Local;
        let submission = Submission { owner, session, cxid, op, record, ids, moved: false };
        let may_ask = turn.is_next && !leader.waits_longer(turn.ticket);
        let proposed = if may_ask && leader.upgrade(cx, request) {
            leader.submit(cx, &submission)
        } else {
            None
        };
        leader.count(cx);
        proposed.map_or(Submitted::Later(Wait::Room), Submitted::Proposed)
    }

    /// Asks for a new session. Whether there was room.
    pub(in crate::service) fn open_session(
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
    pub(in crate::service) fn resume_session(
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
                let valid = cx.local.touch(now, session, timeout_ms)
                    || leader.revalidate(now, session, timeout_ms, Owner::Local);
                if !valid || cx.core.peer().last_zxid() <= cx.state.last_zxid() {
                    return Resumed::Decided { valid };
                }
                leader.sync(cx, conn);
                Resumed::Behind
            }
        }
    }

    /// A client of this server wants to have caught up.
    pub(in crate::service) fn sync(
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
    pub(in crate::service) fn synced(&mut self, token: Option<u64>) -> Option<ConnId> {
        match (self, token) {
            (Self::Learner(learner), None) => learner.take_sync(),
            (Self::Leader(leader), Some(token)) => leader.take_sync(token),
            (Self::Idle | Self::Learner(_) | Self::ReadOnly(_) | Self::Leader(_), _) => None,
        }
    }

    /// A sign of life of a session of this server. `touched` is the connection's own note of the last
    /// one. False if the session is at its end.
    pub(in crate::service) fn touch(
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
    pub(in crate::service) fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        if let Self::Learner(learner) = self {
            learner.take_touched(sessions);
        }
    }

    /// A transaction has been applied.
    pub(in crate::service) fn applied(
        &mut self,
        state: &State,
        zxid: Zxid,
        session: i64,
        txn: &Txn<'_>,
    ) {
        if let Self::Leader(leader) = self {
            let closed = matches!(txn, Txn::CloseSession(_)).then_some(session);
            leader.prep.applied(state.tree(), zxid, closed);
            if closed.is_some() {
                leader.forget(session);
            }
        }
    }

    /// The leader's word about a session: which connection waits for it, and whether it lives.
    pub(in crate::service) fn revalidated(&mut self, data: &[u8]) -> Option<(ConnId, bool)> {
        match self {
            Self::Learner(learner) => learner.revalidated(data),
            Self::Idle | Self::ReadOnly(_) | Self::Leader(_) => None,
        }
    }

    /// A learner forwards a request; see [`Leader::request`].
    pub(in crate::service) fn request(
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
    pub(in crate::service) fn touched(&mut self, now: Instant, sessions: &[u8]) {
        if let Self::Leader(leader) = self {
            leader.touched(now, sessions);
        }
    }

    /// A client of a learner wants to go on with its session there. Whether it may.
    pub(in crate::service) fn revalidate(
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
    pub(in crate::service) fn begin_turn(&mut self, schedule: &Schedule, for_clients: u64) {
        if let Self::Leader(leader) = self {
            leader.begin_turn(schedule.share_beside_waiting(), for_clients);
        }
    }

    /// Goes on with a request whose preparation takes more than a turn, as far as this one allows. Returns the
    /// session whose client here is to be charged for that.
    pub(in crate::service) fn go_on(&mut self, cx: &mut Cx<'_, '_>) -> Option<i64> {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => None,
            Self::Leader(leader) => leader.go_on(cx),
        }
    }

    /// Whether there is such a request.
    pub(in crate::service) fn has_begun(&self) -> bool {
        matches!(self, Self::Leader(leader) if leader.begun.is_some())
    }

    /// Whether nothing may be applied now, as the end of a session is being prepared.
    pub(in crate::service) fn holds_commits(&self) -> bool {
        matches!(self, Self::Leader(leader) if leader.holds_commits())
    }

    /// Something is applied all the same.
    pub(in crate::service) fn prepare_to_the_end(&mut self, state: &State, env: &Env) {
        if let Self::Leader(leader) = self
            && leader.holds_commits()
        {
            leader.prepare_to_the_end(view(state, env, usize::MAX));
        }
    }

    /// Drops up to so many records of what is applied.
    pub(in crate::service) fn tidy(&mut self, state: &State, count: usize) {
        if let Self::Leader(leader) = self
            && !leader.holds_commits()
        {
            leader.prep.tidy(state.tree(), count);
        }
    }

    /// Ends what has lasted long enough.
    pub(in crate::service) fn expire(&mut self, cx: &mut Cx<'_, '_>) {
        if let Self::Leader(leader) = self {
            leader.expire(cx);
            leader.count(cx);
        }
    }

    /// There may be room again: proposes what had to wait. `own` is the ticket of the client of this
    /// server that has waited longest. Whether it is its turn.
    pub(in crate::service) fn retry(&mut self, cx: &mut Cx<'_, '_>, own: Option<Ticket>) -> bool {
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
    pub(in crate::service) fn has_postponed(&self) -> bool {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => false,
            Self::Leader(leader) => leader.has_postponed(),
        }
    }

    /// When [`Self::expire`] wants to be called.
    pub(in crate::service) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Idle | Self::Learner(_) => None,
            Self::ReadOnly(role) => role.poll_timeout(),
            Self::Leader(leader) => Some(leader.poll_timeout()),
        }
    }

    /// Leader: syncs that its own clients wait for.
    pub(in crate::service) fn syncs(&self) -> usize {
        match self {
            Self::Idle | Self::Learner(_) | Self::ReadOnly(_) => 0,
            Self::Leader(leader) => leader.syncs(),
        }
    }

    /// Of a leader and a read-only server: by when which sessions expire, in order.
    pub(in crate::service) fn session_buckets(&self) -> Option<Vec<(Instant, Vec<i64>)>> {
        match self {
            Self::Idle | Self::Learner(_) => None,
            Self::ReadOnly(role) => Some(role.buckets()),
            Self::Leader(leader) => Some(leader.tracker.buckets().collect()),
        }
    }
}
