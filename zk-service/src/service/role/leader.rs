//! What only the leader does: turn requests into proposals. Sessions and their ends are in
//! [`expiry`](super::expiry).

use std::collections::VecDeque;
use std::time::Duration;

use zab_proto::wire::jute::Reader;
use zab_proto::{CloseReason, ConnId, Instant, Origin, ProposeError, Zxid};

use crate::auth::Ids;
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, read_op, sync_op};
use crate::service::connection::room::Ticket;
use crate::service::role::begun::Begun;
use crate::service::role::ended::Ended;
use crate::service::role::expiry::Expiry;
use crate::service::role::local::upgrade_record;
use crate::service::role::prep::begun::Kept;
use crate::service::role::prep::{Prep, Requester};
use crate::service::role::tracker::{Owner, Refused, Tracker};
use crate::service::role::{Cx, Request};

/// What a transaction may hold beyond its request: header, digest, sequence number.
pub(super) const OVERHEAD_BYTES: usize = 256;
/// Bytes of learners' requests waiting for room in the window. Beyond, the learner's connection is
/// closed: it has been forwarding faster than a quorum can write for long. Two of the longest packets
/// may wait in any case.
const DEFERRED_LEN_MAX_BYTES: usize = 64 << 20;

/// A request to be proposed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission<'a> {
    pub(super) owner: Owner,
    pub(super) session: i64,
    pub(super) cxid: i32,
    pub(super) op: Opcode,
    pub(super) record: &'a [u8],
    pub(super) ids: Ids<'a>,
    /// Its session was another server's when it came.
    pub(super) moved: bool,
}

#[derive(Debug)]
struct Deferred {
    from: Origin,
    /// Its place among all that wait, own clients, too.
    ticket: Ticket,
    /// Its session was another server's when it came. If that server's client comes back here, the
    /// session is this learner's again before the request's turn; what its client has asked elsewhere
    /// in between was asked later, and must not be overtaken.
    moved: bool,
    data: Box<[u8]>,
    auth: Box<[u8]>,
}

/// The service of an established leader.
#[derive(Debug)]
pub(in crate::service) struct Leader {
    pub(super) prep: Prep,
    pub(super) tracker: Tracker,
    /// With local sessions.
    ended: Option<Ended>,
    deferred: VecDeque<Deferred>,
    deferred_len: usize,
    /// Learners' requests wait for the next turn rather than for room.
    postponed: bool,
    /// Work done for learners beyond their shares of the turns so far.
    pub(super) debt: u64,
    /// Freshness rounds that clients of this server wait for.
    own_syncs: VecDeque<(u64, ConnId)>,
    pub(super) txn: Vec<u8>,
    /// A request that takes more than a turn. All others wait for it.
    pub(super) begun: Option<Begun>,
    /// Sessions that own nodes and do not exist, to be closed.
    pub(super) dead: VecDeque<i64>,
    pub(super) expiry: Expiry,
    standalone: bool,
}

impl Leader {
    /// Takes over all sessions, each with its full time-out from now.
    pub(super) fn new(cx: &Cx<'_, '_>, standalone: bool) -> Self {
        let now = cx.core.now();
        let mut tracker = Tracker::new(cx.env.options.tick_time);
        let mut sessions: Vec<_> = cx.state.db().sessions.iter().collect();
        sessions.sort_unstable();
        for (id, timeout_ms) in sessions {
            tracker.add(now, id, duration(timeout_ms), None);
        }
        Self {
            prep: Prep::new(cx.state.tree()),
            tracker,
            ended: cx.env.options.local_sessions.then(Ended::default),
            deferred: VecDeque::new(),
            deferred_len: 0,
            postponed: false,
            debt: 0,
            own_syncs: VecDeque::new(),
            txn: Vec::new(),
            begun: None,
            dead: cx.state.db().dead_sessions().collect(),
            expiry: Expiry::new(now, &cx.env.options),
            standalone,
        }
    }

    /// Whether a learner's request has waited for room for longer than an own client's that has
    /// this ticket, or none yet.
    pub(super) fn waits_longer(&self, ticket: Option<Ticket>) -> bool {
        let first = self.deferred.front().filter(|_| !self.postponed);
        first.is_some_and(|first| ticket.is_none_or(|own| first.ticket < own))
    }

    /// Whether there is something to be done in the next turn.
    pub(super) fn has_postponed(&self) -> bool {
        let is_due = self.postponed || self.expiry.is_overdue() || self.prep.is_littered();
        // What waits for a request that waits for room is told of that room.
        self.prepares() || (is_due && self.begun.is_none())
    }

    /// A turn begins. In the one before, own clients have had so much work done: it makes up for what
    /// was done for learners, also where the requests of both are larger than turns.
    pub(super) fn begin_turn(&mut self, share: u64, for_clients: u64) {
        self.debt = match share {
            u64::MAX => 0,
            share => self.debt.saturating_sub(share.max(for_clients)),
        };
    }

    /// Whether it is the learners' turn. One request may exceed their share, and is made up for in
    /// the turns that follow.
    fn serves_learners(&self, cx: &Cx<'_, '_>) -> bool {
        !cx.state.is_applying()
            && self.prep.work < cx.schedule.left_unbilled()
            && self.debt < cx.schedule.share_beside_waiting()
    }

    /// Hands on what preparation has counted.
    pub(super) fn count(&mut self, cx: &mut Cx<'_, '_>) {
        cx.schedule.bill(std::mem::take(&mut self.prep.work));
        for namespace in self.prep.quota_exceeded.drain(..) {
            cx.metrics.namespaces.quota_exceeded(&namespace);
        }
    }

    /// Proposes the transaction that a request becomes. `None`: not now.
    pub(super) fn submit(&mut self, cx: &mut Cx<'_, '_>, request: &Submission<'_>) -> Option<Zxid> {
        if self.begun.is_some() || cx.state.is_applying() {
            return None;
        }
        let local = self.may_be_local(cx, request);
        let valid = match self.tracker.check(request.session, request.owner) {
            Err(Refused::Expired) if local.is_some() => Ok(()),
            Ok(()) if request.moved => Err(Code::SESSION_MOVED),
            Ok(()) => Ok(()),
            Err(Refused::Expired) => Err(Code::SESSION_EXPIRED),
            Err(Refused::Moved) => Err(Code::SESSION_MOVED),
        };
        let Submission { session, op, record, ids, .. } = *request;
        // A learner's request was let through by the core.
        let len = record.len() + OVERHEAD_BYTES;
        if request.owner == Owner::Local && !cx.core.can_propose(len) {
            return None;
        }
        let from = Self::requester(cx, (session, request.cxid), valid, ids)?;
        let from = Requester { local, ..from };
        let now = cx.core.now();
        match op {
            Opcode::CreateSession => {
                let timeout_ms = Reader::new(record).i32().unwrap_or(0);
                self.prep.create_session(cx.view(), &from, timeout_ms, &mut self.txn);
                let zxid = self.propose(cx)?;
                self.tracker.add(now, session, duration(timeout_ms), Some(request.owner));
                Some(zxid)
            }
            Opcode::CloseSession => {
                let work = cx.piece(cx.schedule.left_unbilled().saturating_sub(self.prep.work));
                let kept = self.prep.begin_close(cx.view(), &from, work, &mut self.txn);
                let zxid = self.propose_or_keep(cx, kept, request)?;
                self.tracker.set_closing(session);
                Some(zxid)
            }
            Opcode::Multi => {
                let work = cx.piece(cx.schedule.left_unbilled().saturating_sub(self.prep.work));
                let kept = self.prep.begin_multi(cx.view(), &from, (record, work), &mut self.txn);
                self.propose_or_keep(cx, kept, request)
            }
            Opcode::Create
            | Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::SetAcl
            | Opcode::Reconfig
            | Opcode::Check
            | Opcode::DeleteContainer
            | Opcode::Error
            | read_op!()
            | sync_op!()
            | auth_op!() => {
                self.prep.request(cx.view(), &from, op, record, &mut self.txn);
                self.propose(cx)
            }
        }
    }

    /// Whether a request is, or may be, of a local session, and how that is refused an ephemeral node. Of a
    /// learner's only that learner knows: with `localSessionsEnabled`, any may be whose id this server has not
    /// given (`LeaderSessionTracker.checkSession`). An own one is known to be alive, so the code says what is
    /// missing, in a multi, too, as a ZooKeeper leader's does.
    fn may_be_local(&self, cx: &Cx<'_, '_>, request: &Submission<'_>) -> Option<Code> {
        let (options, session) = (&cx.env.options, request.session);
        match request.owner {
            Owner::Local => cx.local.knows(session).then_some(Code::EPHEMERAL_ON_LOCAL_SESSION),
            Owner::Learner(_) => {
                let may_be = options.local_sessions
                    && session >> 56 != options.session_server_id << 56 >> 56
                    && !self.tracker.knows(session)
                    && !self.ended.as_ref().is_some_and(|ended| ended.has(session));
                may_be.then_some(Code::SESSION_EXPIRED)
            }
        }
    }

    /// A session of the ensemble has ended.
    pub(super) fn forget(&mut self, session: i64) {
        self.tracker.remove(session);
        if let Some(ended) = &mut self.ended {
            ended.add(session);
        }
    }

    /// Makes a local session one of the ensemble, if a request needs that. False: not now.
    pub(super) fn upgrade(&mut self, cx: &mut Cx<'_, '_>, request: &Request<'_>) -> bool {
        let Some(record) = upgrade_record(cx, request) else { return true };
        let (owner, session, ids) = (Owner::Local, request.session, Ids::default());
        let op = Opcode::CreateSession;
        let begins = Submission { owner, session, cxid: 0, op, record: &record, ids, moved: false };
        let is_proposed = self.submit(cx, &begins).is_some();
        if is_proposed {
            cx.local.upgrade(session);
        }
        is_proposed
    }

    /// Whether this server is an ensemble of its own.
    pub(super) fn is_standalone(&self) -> bool {
        self.standalone
    }

    pub(super) fn requester<'a>(
        cx: &Cx<'_, '_>,
        (session, cxid): (i64, i32),
        valid: Result<(), Code>,
        ids: Ids<'a>,
    ) -> Option<Requester<'a>> {
        let time = cx.env.options.wall_clock.now_ms();
        cx.core.next_zxid().map(|zxid| Requester {
            session,
            cxid,
            valid,
            local: None,
            ids,
            zxid,
            time,
        })
    }

    /// Proposes a request whose transaction is made, or keeps what has only begun.
    fn propose_or_keep(
        &mut self,
        cx: &mut Cx<'_, '_>,
        kept: Option<Kept>,
        request: &Submission<'_>,
    ) -> Option<Zxid> {
        let Some(kept) = kept else { return self.propose(cx) };
        let zxid = kept.zxid();
        self.begun = Some(Begun::new(kept, request));
        Some(zxid)
    }

    pub(super) fn note_proposed(&self, cx: &mut Cx<'_, '_>) {
        cx.metrics.stats.proposed(self.txn.len());
        cx.metrics.proposals += u64::from(!self.standalone);
    }

    pub(super) fn propose(&mut self, cx: &mut Cx<'_, '_>) -> Option<Zxid> {
        match cx.core.propose(&self.txn) {
            Ok(zxid) => {
                self.note_proposed(cx);
                Some(zxid)
            }
            Err(error) => {
                self.prep.undo();
                if error != ProposeError::Full {
                    log::debug!("not proposed: {error}");
                }
                None
            }
        }
    }

    /// A learner forwards a request, which may have to wait in this place, in any case if
    /// `others_first`: own clients wait for room already.
    pub(super) fn request(
        &mut self,
        cx: &mut Cx<'_, '_>,
        from: Origin,
        (data, auth): (&[u8], &[u8]),
        (ticket, others_first): (Ticket, bool),
    ) {
        let in_turn = self.serves_learners(cx);
        if self.deferred.is_empty()
            && in_turn
            && !others_first
            && self.try_request(cx, from, data, auth, false)
        {
            return;
        }
        let moved = self.has_moved(from, data);
        self.postponed |= self.deferred.is_empty() && !in_turn;
        self.deferred_len += data.len() + auth.len();
        let field_len_max = cx.core.peer().config().limits.field_len_max_bytes;
        if self.deferred_len > DEFERRED_LEN_MAX_BYTES.max(field_len_max.saturating_mul(4)) {
            cx.core.close(from, CloseReason::TooFarBehind);
        }
        let (data, auth) = (data.into(), auth.into());
        self.deferred.push_back(Deferred { from, ticket, moved, data, auth });
    }

    /// Whether the session of a learner's request is another server's.
    fn has_moved(&mut self, from: Origin, data: &[u8]) -> bool {
        let session = Reader::new(data).i64().unwrap_or(0);
        let checked = self.tracker.check(session, Owner::Learner(from.conn));
        matches!(checked, Err(Refused::Moved))
    }

    /// False: not now.
    fn try_request(
        &mut self,
        cx: &mut Cx<'_, '_>,
        from: Origin,
        data: &[u8],
        auth: &[u8],
        moved: bool,
    ) -> bool {
        let mut reader = Reader::new(data);
        let header = (reader.i64(), reader.i32(), reader.i32());
        let ((Ok(session), Ok(cxid), Ok(op)), Ok(ids)) = (header, Ids::decode(auth)) else {
            cx.core.close(from, CloseReason::Application);
            return true;
        };
        // Anything else that is no write is refused by a transaction, like a write that fails.
        let op = Opcode::from_wire(op).unwrap_or(Opcode::Error);
        if op == Opcode::Sync {
            // Behind it must be what was let through before, also of a session's old connection.
            if self.begun.is_none() {
                cx.core.sync_learner(from);
            }
            return self.begun.is_none();
        }
        let before = self.prep.work;
        self.prep.work += cost::bytes(data.len() + auth.len());
        let owner = Owner::Learner(from.conn);
        let request = Submission { owner, session, cxid, op, record: reader.rest(), ids, moved };
        let submitted = self.submit(cx, &request).is_some();
        self.debt = self.debt.saturating_add(self.prep.work - before);
        submitted
    }

    /// Proposes what had to wait, as far as there is room now, it is the learners' turn, and no own
    /// client has waited longer: `own` is the ticket of the first of those.
    pub(super) fn retry_deferred(&mut self, cx: &mut Cx<'_, '_>, own: Option<Ticket>) {
        if self.begun.is_some() {
            return;
        }
        self.postponed = false;
        while let Some(first) = self.deferred.pop_front() {
            if own.is_some_and(|own| first.ticket >= own) {
                self.deferred.push_front(first);
                return;
            }
            if !self.serves_learners(cx) {
                self.deferred.push_front(first);
                self.postponed = true;
                return;
            }
            let Deferred { from, moved, data, auth, .. } = &first;
            if !self.try_request(cx, *from, data, auth, *moved) {
                self.deferred.push_front(first);
                return;
            }
            self.deferred_len -= first.data.len() + first.auth.len();
        }
    }

    /// A client of this server waits for a sync.
    pub(super) fn sync(&mut self, cx: &mut Cx<'_, '_>, conn: ConnId) {
        let token = cx.core.sync();
        self.own_syncs.push_back((token, conn));
    }

    /// A freshness round has ended: the client that waited for it.
    pub(super) fn take_sync(&mut self, token: u64) -> Option<ConnId> {
        if self.is_own(token) {
            return None;
        }
        let at = self.own_syncs.iter().position(|(own, _)| *own == token)?;
        self.own_syncs.remove(at).map(|(_, conn)| conn)
    }

    /// Syncs that clients of this server wait for.
    pub(super) fn syncs(&self) -> usize {
        self.own_syncs.len()
    }

    /// A sign of life of a session of this server. `touched` is when its last one runs out, as the
    /// tracker rounds it. False if the session is unknown or closing.
    pub(super) fn touch(
        &mut self,
        now: Instant,
        session: i64,
        timeout_ms: i32,
        touched: &mut u64,
    ) -> bool {
        let timeout = duration(timeout_ms);
        let deadline = self.tracker.deadline(now, timeout);
        if *touched == deadline {
            return true;
        }
        let live = self.tracker.touch(now, session, timeout);
        if live {
            *touched = deadline;
        }
        live
    }

    /// Sessions that were alive on a learner.
    pub(super) fn touched(&mut self, now: Instant, sessions: &[u8]) {
        let mut reader = Reader::new(sessions);
        while let (Ok(session), Ok(timeout_ms)) = (reader.i64(), reader.i32()) {
            self.tracker.touch(now, session, duration(timeout_ms));
        }
    }

    /// A client wants to go on with its session on the server of `owner`.
    pub(super) fn revalidate(
        &mut self,
        now: Instant,
        session: i64,
        timeout_ms: i32,
        owner: Owner,
    ) -> bool {
        let valid = self.tracker.touch(now, session, duration(timeout_ms));
        if valid {
            self.tracker.set_owner(session, owner);
        }
        valid
    }
}

pub(super) fn duration(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
