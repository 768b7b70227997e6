//! What only the leader does: turn requests into proposals, and keep and expire all sessions.

use std::collections::VecDeque;
use std::time::Duration;

use zab_proto::wire::jute::Reader;
use zab_proto::{CloseReason, Core, Instant, Origin, ProposeError, Zxid};

use crate::auth::{Access, Ids};
use crate::connection::room::Ticket;
use crate::connection::schedule::cost;
use crate::options::ServiceOptions;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, read_op, sync_op};
use crate::role::prep::{Prep, Requester, View};
use crate::role::tracker::{Owner, Refused, Tracker};
use crate::state::tree::{self, StatPersisted, Tree};

/// What a transaction may hold beyond its request: header, digest, sequence number.
const OVERHEAD_BYTES: usize = 256;
/// Bytes of learners' requests waiting for room in the window. Beyond, the learner's connection is
/// closed: it has been forwarding faster than a quorum can write for long. Two of the longest packets
/// may wait in any case.
const DEFERRED_LEN_MAX_BYTES: usize = 64 << 20;

/// A request to be proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submission<'a> {
    pub(crate) owner: Owner,
    pub(crate) session: i64,
    pub(crate) cxid: i32,
    pub(crate) op: Opcode,
    pub(crate) record: &'a [u8],
    pub(crate) ids: Ids<'a>,
    /// Its session was another server's when it came.
    pub(crate) moved: bool,
}

/// What the leader reads of the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Env<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) access: &'a Access,
    pub(crate) options: &'a ServiceOptions,
    /// Work that may still be done in this turn.
    pub(crate) work_left: u64,
    /// How much of a turn's work is for learners' requests: half of it if this server's own clients
    /// wait, or all there is.
    pub(crate) learners_share: u64,
}

impl<'a> Env<'a> {
    fn view(&self, core: &Core<'_>) -> View<'a> {
        View {
            txn_len_max: core.peer().config().limits.field_len_max_bytes,
            tree: self.tree,
            access: self.access,
            extended_types: self.options.extended_types,
            enforce_quota: self.options.enforce_quota,
            digests: self.tree.digest().is_some(),
        }
    }
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
pub(crate) struct Leader {
    pub(crate) prep: Prep,
    pub(crate) tracker: Tracker,
    deferred: VecDeque<Deferred>,
    deferred_len: usize,
    /// Learners' requests wait for the next turn rather than for room.
    postponed: bool,
    /// Work done for learners beyond their shares of the turns so far.
    debt: u64,
    /// Sessions whose time is up wait for the next turn.
    overdue: bool,
    txn: Vec<u8>,
    /// Lengths of the transactions proposed since they were last counted.
    pub(crate) proposed: Vec<usize>,
    /// Sessions expired since they were last counted.
    pub(crate) expired: u64,
    tick: Duration,
    /// When the service was called last. A gap means that this process has slept, and that signs of
    /// life may not have reached it.
    awake: Instant,
    /// After a gap: nothing expires before this freshness round has ended, ...
    doubt: Option<u64>,
    /// ... nor before this time, so that what waits on sockets is read first.
    not_before: Instant,
    next_scan: Instant,
}

impl Leader {
    /// Takes over all sessions, each with its full time-out from now.
    pub(crate) fn new(
        now: Instant,
        env: Env<'_>,
        sessions: impl Iterator<Item = (i64, i32)>,
    ) -> Self {
        let tick = env.options.tick_time;
        let mut tracker = Tracker::new(tick);
        let mut sessions: Vec<_> = sessions.collect();
        sessions.sort_unstable();
        for (id, timeout_ms) in sessions {
            tracker.add(now, id, duration(timeout_ms), None);
        }
        Self {
            prep: Prep::new(env.tree),
            tracker,
            deferred: VecDeque::new(),
            deferred_len: 0,
            postponed: false,
            debt: 0,
            overdue: false,
            txn: Vec::new(),
            proposed: Vec::new(),
            expired: 0,
            tick,
            awake: now,
            doubt: None,
            not_before: now,
            next_scan: now + env.options.container_check_interval,
        }
    }

    /// Notes that the process is awake.
    pub(crate) fn wake(&mut self, core: &mut Core<'_>) {
        let now = core.now();
        if now.saturating_since(self.awake) > self.tick {
            self.doubt = Some(core.sync());
            self.not_before = now + self.tick;
        }
        self.awake = now;
    }

    /// A freshness round has ended. Whether it was the leader's own.
    pub(crate) fn synced(&mut self, token: u64) -> bool {
        let own = self.doubt == Some(token);
        if own {
            self.doubt = None;
        }
        own
    }

    /// Whether a learner's request has waited for room for longer than an own client's that has
    /// this ticket, or none yet.
    pub(crate) fn waits_longer(&self, ticket: Option<Ticket>) -> bool {
        let first = self.deferred.front().filter(|_| !self.postponed);
        first.is_some_and(|first| ticket.is_none_or(|own| first.ticket < own))
    }

    /// Whether there is something to be done in the next turn.
    pub(crate) fn has_postponed(&self) -> bool {
        self.postponed || self.overdue
    }

    /// A turn begins. In the one before, own clients have had so much work done: it makes up for what
    /// was done for learners, also where the requests of both are larger than turns.
    pub(crate) fn begin_turn(&mut self, env: Env<'_>, for_clients: u64) {
        self.debt = match env.learners_share {
            u64::MAX => 0,
            share => self.debt.saturating_sub(share.max(for_clients)),
        };
    }

    /// Whether it is the learners' turn. One request may exceed their share, and is made up for in
    /// the turns that follow.
    fn serves_learners(&self, env: Env<'_>) -> bool {
        self.prep.work < env.work_left && self.debt < env.learners_share
    }

    /// The work done since this was asked last.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.prep.work)
    }

    /// Proposes the transaction that a request becomes. `None`: not now.
    pub(crate) fn submit(
        &mut self,
        core: &mut Core<'_>,
        env: Env<'_>,
        request: &Submission<'_>,
    ) -> Option<Zxid> {
        let valid = match self.tracker.check(request.session, request.owner) {
            Ok(()) if request.moved => Err(Code::SESSION_MOVED),
            Ok(()) => Ok(()),
            Err(Refused::Expired) => Err(Code::SESSION_EXPIRED),
            Err(Refused::Moved) => Err(Code::SESSION_MOVED),
        };
        let Submission { session, op, record, ids, .. } = *request;
        // A learner's request was let through by the core.
        let len = record.len() + OVERHEAD_BYTES;
        if request.owner == Owner::Local && !core.can_propose(len) {
            return None;
        }
        let from = Self::requester(core, env, (session, request.cxid), valid, ids)?;
        let now = core.now();
        match op {
            Opcode::CreateSession => {
                let timeout_ms = Reader::new(record).i32().unwrap_or(0);
                self.prep.create_session(env.view(core), &from, timeout_ms, &mut self.txn);
                let zxid = self.propose(core)?;
                self.tracker.add(now, session, duration(timeout_ms), Some(request.owner));
                Some(zxid)
            }
            Opcode::CloseSession => {
                self.prep.close_session(env.view(core), &from, &mut self.txn);
                let zxid = self.propose(core)?;
                self.tracker.set_closing(session);
                Some(zxid)
            }
            Opcode::Create
            | Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::SetAcl
            | Opcode::Multi
            | Opcode::Reconfig
            | Opcode::Check
            | Opcode::DeleteContainer
            | Opcode::Error
            | read_op!()
            | sync_op!()
            | auth_op!() => {
                self.prep.request(env.view(core), &from, op, record, &mut self.txn);
                self.propose(core)
            }
        }
    }

    fn requester<'a>(
        core: &Core<'_>,
        env: Env<'_>,
        (session, cxid): (i64, i32),
        valid: Result<(), Code>,
        ids: Ids<'a>,
    ) -> Option<Requester<'a>> {
        let time = env.options.wall_clock.now_ms();
        core.next_zxid().map(|zxid| Requester { session, cxid, valid, ids, zxid, time })
    }

    fn propose(&mut self, core: &mut Core<'_>) -> Option<Zxid> {
        match core.propose(&self.txn) {
            Ok(zxid) => {
                self.proposed.push(self.txn.len());
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
    pub(crate) fn request(
        &mut self,
        core: &mut Core<'_>,
        env: Env<'_>,
        from: Origin,
        data: &[u8],
        auth: &[u8],
        (ticket, others_first): (Ticket, bool),
    ) {
        let in_turn = self.serves_learners(env);
        if self.deferred.is_empty()
            && in_turn
            && !others_first
            && self.try_request(core, env, from, data, auth, false)
        {
            return;
        }
        let moved = self.has_moved(from, data);
        self.postponed |= self.deferred.is_empty() && !in_turn;
        self.deferred_len += data.len() + auth.len();
        let field_len_max = core.peer().config().limits.field_len_max_bytes;
        if self.deferred_len > DEFERRED_LEN_MAX_BYTES.max(field_len_max.saturating_mul(4)) {
            core.close(from, CloseReason::TooFarBehind);
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
        core: &mut Core<'_>,
        env: Env<'_>,
        from: Origin,
        data: &[u8],
        auth: &[u8],
        moved: bool,
    ) -> bool {
        let mut reader = Reader::new(data);
        let header = (reader.i64(), reader.i32(), reader.i32());
        let ((Ok(session), Ok(cxid), Ok(op)), Ok(ids)) = (header, Ids::decode(auth)) else {
            core.close(from, CloseReason::Application);
            return true;
        };
        // Anything else that is no write is refused by a transaction, like a write that fails.
        let op = Opcode::from_wire(op).unwrap_or(Opcode::Error);
        if op == Opcode::Sync {
            core.sync_learner(from);
            return true;
        }
        let before = self.prep.work;
        self.prep.work += cost::bytes(data.len() + auth.len());
        let owner = Owner::Learner(from.conn);
        let request = Submission { owner, session, cxid, op, record: reader.rest(), ids, moved };
        let submitted = self.submit(core, env, &request).is_some();
        self.debt = self.debt.saturating_add(self.prep.work - before);
        submitted
    }

    /// Proposes what had to wait, as far as there is room now, it is the learners' turn, and no own
    /// client has waited longer: `own` is the ticket of the first of those.
    pub(crate) fn retry_deferred(
        &mut self,
        core: &mut Core<'_>,
        env: Env<'_>,
        own: Option<Ticket>,
    ) {
        self.postponed = false;
        while let Some(first) =
            self.deferred.pop_front_if(|first| own.is_none_or(|own| first.ticket < own))
        {
            if !self.serves_learners(env) {
                self.deferred.push_front(first);
                self.postponed = true;
                return;
            }
            let Deferred { from, moved, data, auth, .. } = &first;
            if !self.try_request(core, env, *from, data, auth, *moved) {
                self.deferred.push_front(first);
                return;
            }
            self.deferred_len -= first.data.len() + first.auth.len();
        }
    }

    /// Sessions that were alive on a learner.
    pub(crate) fn touched(&mut self, now: Instant, sessions: &[u8]) {
        let mut reader = Reader::new(sessions);
        while let (Ok(session), Ok(timeout_ms)) = (reader.i64(), reader.i32()) {
            self.tracker.touch(now, session, duration(timeout_ms));
        }
    }

    /// A client wants to go on with its session on the server of `owner`.
    pub(crate) fn revalidate(
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

    /// When [`Self::expire`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let regular = self.next_scan.min(self.awake + self.tick / 2);
        // A bucket that is overdue waits for the end of a doubt, or for room.
        match self.tracker.next_deadline().filter(|deadline| *deadline > self.awake) {
            Some(deadline) => regular.min(deadline),
            None => regular,
        }
    }

    /// Closes the sessions whose time is up and removes containers and TTL nodes that are not
    /// needed any more. Returns whether there was room for all of it.
    pub(crate) fn expire(&mut self, core: &mut Core<'_>, env: Env<'_>) {
        let now = core.now();
        self.overdue = false;
        if self.doubt.is_none() && now >= self.not_before && core.can_propose(OVERHEAD_BYTES) {
            while let Some(session) = self.tracker.expired(now) {
                log::info!("Expiring session {session:#x}");
                if !self.close_session(core, env, session) {
                    break;
                }
                self.expired += 1;
                if self.prep.work >= env.work_left {
                    self.overdue = true;
                    break;
                }
            }
        }
        if now >= self.next_scan {
            self.next_scan = now + env.options.container_check_interval;
            self.remove_unneeded(core, env);
        }
    }

    /// Closes a session without a client's asking.
    pub(crate) fn close_session(
        &mut self,
        core: &mut Core<'_>,
        env: Env<'_>,
        session: i64,
    ) -> bool {
        let owner = Owner::Local;
        let ids = Ids::default();
        let op = Opcode::CloseSession;
        let request = Submission { owner, session, cxid: 0, op, record: &[], ids, moved: false };
        self.submit(core, env, &request).is_some()
    }

    fn remove_unneeded(&mut self, core: &mut Core<'_>, env: Env<'_>) {
        let wall_ms = env.options.wall_clock.now_ms();
        let never_used = env.options.container_never_used;
        let old = |stat: &StatPersisted, age: Duration| {
            u128::try_from(wall_ms.saturating_sub(stat.mtime)).is_ok_and(|ms| ms > age.as_millis())
        };
        let unneeded = |stat: &StatPersisted| match stat.owner() {
            tree::Owner::Container => {
                stat.cversion > 0 || (!never_used.is_zero() && old(stat, never_used))
            }
            tree::Owner::Ttl(ttl_ms) => old(stat, Duration::from_millis(ttl_ms)),
            tree::Owner::Persistent | tree::Owner::Session(_) => false,
        };
        let nodes = env.tree.containers().chain(env.tree.ttls());
        for node in nodes.filter(|node| node.child_count() == 0 && unneeded(node.persisted())) {
            let path = node.path();
            // What is under way may have used, changed or replaced it.
            if !self.prep.childless(env.tree, path).is_some_and(|stat| unneeded(&stat)) {
                continue;
            }
            if !core.can_propose(path.len() + OVERHEAD_BYTES) {
                return;
            }
            let Some(from) = Self::requester(core, env, (0, 0), Ok(()), Ids::default()) else {
                return;
            };
            self.prep.delete_container(env.view(core), &from, path, &mut self.txn);
            if self.propose(core).is_none() {
                return;
            }
        }
    }
}

fn duration(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
