//! The service as an application: its state, and the doors that the core calls.

use std::collections::VecDeque;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{
    Application, BadSnapshot, ClientOutput, CloseReason, ConnId, Core, Incoming, InstallProgress,
    Instant, Origin, Phase, ServerState, SnapshotDigest, Status, Zxid,
};

use crate::auth::Access;
use crate::connection::room::Waiting;
use crate::connection::schedule::{Schedule, cost};
use crate::connection::{Client, Clients, State};
use crate::metrics::stats::Stats;
use crate::metrics::{Gaps, Metrics};
use crate::options::ServiceOptions;
use crate::protocol::txn::Payload;
use crate::role::leader::{Env, Leader};
use crate::role::tracker::Owner;
use crate::state::database::{Database, DigestCheck};
use crate::state::snapshot::Loader;
use crate::state::watch::Watches;

/// The ZooKeeper service of one server.
#[derive(Debug)]
pub struct Service {
    pub(crate) options: ServiceOptions,
    pub(crate) access: Access,
    pub(crate) db: Database,
    loader: Option<Loader>,
    pub(crate) clients: Clients,
    pub(crate) watches: Watches,
    /// Role and phase, once the core has said.
    pub(crate) status: Option<Status>,
    pub(crate) standalone: bool,
    /// Since when the present role is served.
    pub(crate) serving_since: Instant,
    pub(crate) leader: Option<Leader>,
    /// Learner: forwarded syncs, oldest first.
    pub(crate) forwarded_syncs: VecDeque<ConnId>,
    /// Leader: freshness rounds of its own clients.
    pub(crate) own_syncs: VecDeque<(u64, ConnId)>,
    /// Learner: handshakes that wait for the leader's word about their session.
    pub(crate) revalidations: Vec<(i64, ConnId)>,
    /// Learner: signs of life since the last report.
    pub(crate) touches: Vec<u8>,
    pub(crate) report: u64,
    /// Connections without a session, by the time they have to have one.
    greeting: VecDeque<(Instant, ConnId)>,
    /// Connections whose request could not be proposed or forwarded.
    pub(crate) waiting: Waiting,
    /// The write of one of them waits for the answers to others, which may be this many bytes.
    pub(crate) held_writes: Option<usize>,
    /// How much is done for clients in a turn, and who of them is next.
    pub(crate) schedule: Schedule,
    /// Work that is done and not yet charged.
    pub(crate) unbilled: u64,
    /// The time of the last call.
    pub(crate) now: Instant,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
    gaps: Gaps,
    pub(crate) digest_mismatches: u64,
    /// Whether the tree had the digest that the last transaction brought, if it did.
    pub(crate) agreed: Option<bool>,
    /// The first and the last of the unused zxids delivered just now.
    pub(crate) unused: Option<(Zxid, Zxid)>,
    /// Why this server must not go on.
    pub(crate) failure: Option<String>,
    /// Buffers that are used again and again.
    pub(crate) record: Vec<u8>,
    pub(crate) frame: Vec<u8>,
    pub(crate) hit: Vec<u32>,
}

impl Service {
    /// A service with an empty database.
    #[must_use]
    pub fn new(options: ServiceOptions) -> Self {
        let access = Access {
            skip_acl: options.skip_acl,
            digest_enabled: options.digest_auth,
            digest_algorithm: options.digest_algorithm,
            super_digest: options.super_digest.clone(),
            x509_enabled: options.x509_auth,
            x509_super_user: options.x509_super_user.clone(),
            ensemble_auth: options.ensemble_auth.clone(),
            acl_len_max: options.jute_max_buffer,
        };
        Self {
            access,
            db: Database::new(options.digests),
            loader: None,
            clients: Clients::default(),
            watches: Watches::default(),
            status: None,
            standalone: false,
            serving_since: Instant::ZERO,
            leader: None,
            forwarded_syncs: VecDeque::new(),
            own_syncs: VecDeque::new(),
            revalidations: Vec::new(),
            touches: Vec::new(),
            report: 0,
            greeting: VecDeque::new(),
            waiting: Waiting::default(),
            held_writes: None,
            schedule: Schedule::new(options.work_per_turn),
            unbilled: 0,
            now: Instant::ZERO,
            stats: Stats::default(),
            metrics: Metrics::default(),
            gaps: Gaps::default(),
            digest_mismatches: 0,
            agreed: None,
            unused: None,
            failure: None,
            record: Vec::new(),
            frame: Vec::new(),
            hit: Vec::new(),
            options,
        }
    }

    /// The replicated state.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// Open client connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// How often the digest that came with a transaction or snapshot was not that of the tree:
    /// replicas have diverged, or something was changed outside of the log. Never, in health.
    #[must_use]
    pub fn digest_mismatches(&self) -> u64 {
        self.digest_mismatches
    }

    /// The most work that was done for clients in one turn, in the units of
    /// [`ServiceOptions::work_per_turn`].
    #[must_use]
    pub fn work_peak(&self) -> u64 {
        self.schedule.peak()
    }

    /// Bytes of replies and events that clients have not been sent yet.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.clients.iter().map(|(_, client)| client.unsent()).sum()
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.status.is_some_and(|status| status.phase == Phase::Broadcast)
    }

    /// Whether clients are served here: not by a leader that is to lead only.
    pub(crate) fn serves_clients(&self) -> bool {
        let leads_only = !self.options.leader_serves && self.leader.is_some() && !self.standalone;
        self.is_serving() && !leads_only
    }

    /// Runs something on the leader's part, if this server leads.
    pub(crate) fn lead<T>(&mut self, f: impl FnOnce(&mut Leader, Env<'_>) -> T) -> Option<T> {
        let Self { leader, db, access, options, stats, metrics, schedule, unbilled, .. } = self;
        let leader = leader.as_mut()?;
        let work_left = schedule.left().saturating_sub(*unbilled);
        let learners_share = schedule.share_beside_waiting();
        let env = Env { tree: &db.tree, access, options, work_left, learners_share };
        let result = f(leader, env);
        *unbilled += leader.take_work();
        for len in leader.proposed.drain(..) {
            stats.proposed(len);
            metrics.proposals += u64::from(!self.standalone);
        }
        for namespace in leader.prep.quota_exceeded.drain(..) {
            *metrics.quota_exceeded.entry(namespace).or_default() += 1;
        }
        metrics.sessions_expired += std::mem::take(&mut leader.expired);
        Some(result)
    }

    fn wake(&mut self, core: &mut Core<'_>) {
        if let Some(leader) = &mut self.leader {
            leader.wake(core);
        }
    }

    /// A call at the time `now`. A runtime looks at everybody before its clock goes on, so that the
    /// first call at a new time begins a turn.
    fn at(&mut self, now: Instant) {
        if self.now != now {
            self.now = now;
            self.begin_turn();
        }
    }

    /// Whether something is left of what has ended.
    fn is_littered(&self) -> bool {
        self.db.tree.is_littered() || self.watches.is_littered()
    }

    /// Clears some of it away.
    fn sweep(&mut self) {
        let count = self.schedule.nodes_to_sweep();
        self.db.tree.sweep(count);
        if self.watches.is_littered() {
            self.watches.sweep(count);
            let Self { watches, clients, .. } = self;
            clients.free_slots(|slot| watches.is_free(slot));
        }
    }

    fn begin_turn(&mut self) {
        let for_clients = self.schedule.begin_turn();
        self.lead(|leader, env| leader.begin_turn(env, for_clients));
    }

    /// What was promised or planned in the role that has ended is void.
    fn end_role(&mut self) {
        self.leader = None;
        self.forwarded_syncs.clear();
        self.own_syncs.clear();
        self.revalidations.clear();
        self.touches.clear();
        self.waiting.clear();
        self.held_writes = None;
        self.stats = Stats::default();
        let slots: Vec<u32> = self.clients.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close(slot, false);
        }
    }

    fn begin_role(&mut self, core: &mut Core<'_>, status: &Status) {
        self.serving_since = core.now();
        self.standalone = core.peer().config().standalone;
        if self.options.membership.is_some() {
            // Its version may have become known since the start.
            let ensemble = &core.peer().config().ensemble;
            let version = Zxid::from_raw(ensemble.version);
            let now_ms = self.options.wall_clock.now_ms();
            self.db.set_config(ensemble.text().as_bytes(), version, now_ms);
        }
        if status.state != ServerState::Leading {
            return;
        }
        let Self { db, access, options, .. } = self;
        let env = Env { tree: &db.tree, access, options, work_left: 0, learners_share: 0 };
        self.leader = Some(Leader::new(core.now(), env, db.sessions.iter()));
        let dead: Vec<i64> = self.db.dead_sessions().collect();
        for session in dead {
            log::warn!("session {session:#x} owns nodes but does not exist: closing it");
            self.lead(|leader, env| leader.close_session(core, env, session));
        }
    }

    /// Ends a connection; with `flush`, what is queued for it still goes out.
    pub(crate) fn close(&mut self, slot: u32, flush: bool) {
        self.watches.remove_slot(slot);
        self.leave_queue(slot);
        self.clients.close(slot, flush);
        self.resume_stalled();
    }

    /// A connection that ends waits for no room.
    fn leave_queue(&mut self, slot: u32) {
        let ticket = self.clients.get_mut(slot).and_then(|client| client.ticket.take());
        if let Some(ticket) = ticket {
            self.waiting.leave(ticket);
        }
    }

    /// Lets those go on whose writes waited for answers to others.
    pub(crate) fn resume_stalled(&mut self) {
        if self.held_writes.is_some_and(|bound| self.clients.writes_len() <= bound / 2) {
            self.call_next();
        }
    }

    /// It is the turn of a connection that had to wait for it.
    fn go_on(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.account.call();
        self.drain(self.now, slot);
        if self.client(slot).is_some_and(|client| !client.account.waits()) {
            self.clients.resume(slot);
        }
    }

    /// Counts work that was done for a connection, with what the leader's part has done for it.
    pub(crate) fn charge(&mut self, slot: u32, work: u64) {
        let work = work + std::mem::take(&mut self.unbilled);
        match self.clients.get_mut(slot) {
            Some(client) => self.schedule.charge(&mut client.account, work),
            None => self.schedule.work(work),
        }
    }

    /// Counts what the leader's part has done for no connection of this server.
    fn bill_nobody(&mut self) {
        self.schedule.work(std::mem::take(&mut self.unbilled));
    }

    /// A connection waits for its turn.
    pub(crate) fn wait(&mut self, slot: u32) {
        let conn = self.clients.conn(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            self.schedule.wait(conn, &mut client.account);
        }
    }

    /// Whether the leader's part goes on in the next turn.
    fn has_postponed(&self) -> bool {
        self.leader.as_ref().is_some_and(Leader::has_postponed)
    }

    /// Who has waited longest for room tries again. The next one follows when it has had its turn.
    fn call_next(&mut self) {
        self.held_writes = None;
        if let Some(slot) = self.waiting.call().and_then(|conn| self.clients.slot(conn)) {
            self.clients.resume(slot);
        }
    }

    /// There may be room again for what could not be proposed or forwarded.
    pub(crate) fn retry(&mut self, core: &mut Core<'_>) {
        self.waiting.note_first();
        let first = self.waiting.first();
        let learners_first = self.lead(|leader, env| {
            leader.retry_deferred(core, env, first);
            leader.waits_longer(first)
        });
        self.bill_nobody();
        if learners_first != Some(true) {
            self.call_next();
        }
    }

    /// A fuzzy snapshot may lack the list of a node that changed while it was written, and the
    /// transaction that made the list follows in the log. Whatever lacks one now lacks it for good,
    /// until somebody sets it: a damaged snapshot. An Apache server throws when such a node changes.
    fn report_missing_acls(&self) {
        let keys: Vec<i64> = self.db.tree.missing_acls().collect();
        if !keys.is_empty() {
            log::error!(
                "The snapshot lacks the ACLs {keys:?}, and no transaction behind it brings them: \
                 nobody has permissions on the nodes that use them. Have a superuser set them, or \
                 empty the data directory of this server."
            );
        }
    }

    fn expire_greetings(&mut self, now: Instant) {
        while let Some((deadline, conn)) = self.greeting.front().copied() {
            if deadline > now {
                return;
            }
            self.greeting.pop_front();
            let Some(slot) = self.clients.slot(conn) else { continue };
            if self.clients.get(slot).is_some_and(|client| client.state == State::Greeting) {
                self.metrics.sessionless_expired += 1;
                self.close(slot, false);
            }
        }
    }
}

impl Application for Service {
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]) {
        self.at(now);
        self.apply(now, zxid, txn);
    }

    fn may_deliver(&self) -> bool {
        self.schedule.may_apply()
    }

    fn failed(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn has_digest(&self, txn: &[u8]) -> bool {
        let digest = Payload::decode(txn).ok().and_then(|payload| payload.digest);
        digest.is_some_and(|digest| self.db.is_comparable(&digest))
    }

    fn agrees(&self) -> Option<bool> {
        self.agreed
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        let serving = |status: &Status| status.phase == Phase::Broadcast;
        if core.peer().is_outdated() {
            self.options.on_outdated.call();
        }
        self.gaps.became(core.now(), status, &mut self.metrics);
        let before = self.status.replace(*status);
        let goes_on = before.is_some_and(|before| {
            serving(&before)
                && serving(status)
                && before.state == status.state
                && before.leader == status.leader
        });
        if goes_on {
            return;
        }
        if before.is_some_and(|before| serving(&before)) {
            self.end_role();
        }
        if serving(status) {
            self.report_missing_acls();
            self.begin_role(core, status);
        }
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], auth: &[u8]) {
        self.wake(core);
        self.at(core.now());
        let (ticket, others_first) = (self.waiting.issue(), self.waiting.first().is_some());
        let place = (ticket, others_first);
        self.lead(|leader, env| leader.request(core, env, from, data, auth, place));
        self.bill_nobody();
    }

    fn touched(&mut self, core: &mut Core<'_>, _from: Origin, sessions: &[u8]) {
        self.wake(core);
        self.lead(|leader, _| leader.touched(core.now(), sessions));
        self.schedule.work(cost::parsed(sessions.len()));
    }

    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        self.wake(core);
        let mut reader = Reader::new(data);
        let (Ok(session), Ok(timeout_ms)) = (reader.i64(), reader.i32()) else {
            core.close(from, CloseReason::Application);
            return;
        };
        let owner = Owner::Learner(from.conn);
        let valid =
            self.lead(|leader, _| leader.revalidate(core.now(), session, timeout_ms, owner));
        self.metrics.revalidations += 1;
        let mut answer = Vec::with_capacity(9);
        answer.put_i64(session);
        answer.put_bool(valid == Some(true));
        core.revalidated(from, &answer);
    }

    fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        sessions.append(&mut self.touches);
        self.report += 1;
    }

    fn revalidated(&mut self, core: &mut Core<'_>, data: &[u8]) {
        let mut reader = Reader::new(data);
        let (Ok(session), Ok(valid)) = (reader.i64(), reader.bool()) else { return };
        let Some(at) = self.revalidations.iter().position(|(id, _)| *id == session) else { return };
        let (_, conn) = self.revalidations.remove(at);
        let Some(slot) = self.clients.slot(conn) else { return };
        if !valid {
            self.attached(core.now(), slot, false);
        } else if let Some(client) = self.clients.get_mut(slot) {
            client.confirmed = true;
            self.reattached(core.now(), slot);
        }
    }

    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        let Some(token) = token else {
            if let Some(conn) = self.forwarded_syncs.pop_front() {
                self.sync_ended(core.now(), conn);
            }
            return;
        };
        if self.leader.as_mut().is_some_and(|leader| leader.synced(token)) {
            return;
        }
        if let Some(at) = self.own_syncs.iter().position(|(own, _)| *own == token)
            && let Some((_, conn)) = self.own_syncs.remove(at)
        {
            self.sync_ended(core.now(), conn);
        }
    }

    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        let remote = incoming.remote;
        let ServiceOptions { max_client_cnxns, max_cnxns, sessionless_timeout, .. } = self.options;
        let full = (max_client_cnxns > 0
            && self.clients.of_address(remote.ip()) >= max_client_cnxns)
            || (max_cnxns > 0 && self.clients.len() >= max_cnxns as usize);
        if full {
            log::warn!("Too many connections from {} - max is {max_client_cnxns}", remote.ip());
            self.metrics.refused += 1;
            return None;
        }
        let conn = self.clients.add(remote, self.options.wall_clock.now_ms());
        self.greeting.push_back((core.now() + sessionless_timeout, conn));
        Some(conn)
    }

    fn identified(&mut self, _: &mut Core<'_>, conn: ConnId, subject: &str) {
        let client = self.clients.slot(conn).and_then(|slot| self.clients.get_mut(slot));
        if let Some(client) = client.filter(|_| self.access.x509_enabled) {
            self.access.identify(subject, &mut client.ids);
            log::debug!("Authenticated Id '{subject}' for scheme 'x509' of {}", client.remote);
        }
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        self.wake(core);
        self.at(core.now());
        match self.clients.slot(conn) {
            Some(slot) => self.take_bytes(core, slot, bytes),
            None => bytes.len(),
        }
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Some(slot) = self.clients.slot(conn) else { return 0 };
        let n = self.clients.transmit(slot, buf);
        let soft_max = self.options.out_len_soft_max_bytes;
        if let Some(client) = self.clients.get_mut(slot)
            && client.paused
            && client.unsent() <= soft_max / 2
        {
            client.paused = false;
            self.schedule.wait(conn, &mut client.account);
        }
        n
    }

    fn closed(&mut self, _core: &mut Core<'_>, conn: ConnId) {
        let Some(slot) = self.clients.slot(conn) else { return };
        if self.clients.get(slot).is_some_and(|client| client.state != State::Closed) {
            self.metrics.dropped += 1;
        }
        self.watches.remove_slot(slot);
        self.leave_queue(slot);
        let session = self.clients.get(slot).map_or(0, |client| client.session);
        self.clients.detach(session, slot);
        self.clients.remove(slot, self.watches.is_free(slot));
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        loop {
            if let Some(output) = self.clients.poll_output() {
                return Some(output);
            }
            let conn = self.schedule.next()?;
            if let Some(slot) = self.clients.slot(conn) {
                self.go_on(slot);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.greeting.front().map(|(deadline, _)| *deadline);
        let leader = self.leader.as_ref().map(Leader::poll_timeout);
        let waiting = self.schedule.has_waiting() && self.schedule.is_spent();
        let goes_on = self.has_postponed() || self.waiting.has_moved() || self.is_littered();
        let turn = (waiting || goes_on).then_some(Instant::ZERO);
        [turn, greeting, leader].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        if self.schedule.is_spent() || !self.schedule.may_apply() {
            self.begin_turn();
        }
        self.sweep();
        self.expire_greetings(core.now());
        self.lead(|leader, env| leader.expire(core, env));
        self.retry(core);
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        self.lead(|leader, env| leader.expire(core, env));
        self.retry(core);
    }

    fn snapshot_open(&mut self) -> u32 {
        self.db.snapshot_open().expect("the core keeps to its own limit, which is lower")
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.db.snapshot_read(snapshot, buf)
    }

    fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        self.db.snapshot_digest(snapshot)
    }

    fn snapshot_longest(&self, snapshot: u32) -> usize {
        self.db.snapshot_longest(snapshot)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.db.snapshot_close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let digests = self.options.digests;
        // Longer fields than a client may send can be in a snapshot that another server made.
        let loader = self.loader.get_or_insert_with(|| Loader::new(digests, usize::MAX));
        let progress = loader.push(bytes);
        if progress.is_err() {
            self.loader = None;
        }
        progress
    }

    fn install_needs(&self) -> Option<usize> {
        self.loader.as_ref().map(Loader::needs)
    }

    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        let Some(loaded) = self.loader.take().and_then(Loader::finish) else {
            panic!("a snapshot is committed after its last byte");
        };
        if let DigestCheck::Mismatch { expected, actual } = self.db.install(loaded, zxid, digest) {
            log::error!("digest of snapshot {zxid} is {actual:#x}, should be {expected:#x}");
            self.digest_mismatches += 1;
        }
    }

    fn install_abort(&mut self) {
        self.loader = None;
    }
}

impl Service {
    /// A connection that is not about to be closed.
    pub(crate) fn client(&mut self, slot: u32) -> Option<&mut Client> {
        self.clients.get_mut(slot).filter(|client| client.state != State::Closed)
    }
}
