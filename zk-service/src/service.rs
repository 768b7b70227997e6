//! The service as an application: its state, and the doors that the core calls.

mod answer;
mod budget;
mod handshake;
mod hold;
mod intake;
mod leave;

use std::collections::VecDeque;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{
    Application, BadSnapshot, ClientOutput, CloseReason, ConnId, Core, DigestVerdict, Epoch,
    Incoming, InstallProgress, Instant, Origin, ServerState, SnapshotDigest, Status, Zxid,
};

use crate::connection::room::{Ticket, Waiting};
use crate::connection::schedule::Schedule;
use crate::connection::table::Clients;
use crate::connection::{Client, Life};
use crate::cost;
use crate::env::Env;
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::observe::View;
use crate::options::ServiceOptions;
use crate::role::status::ServerStatus;
use crate::role::{Cx, Role};
use crate::service::hold::Hold;
use crate::state::State;
use crate::state::database::Database;
use crate::state::listing::Listings;
use crate::state::watch::Watches;

/// The ZooKeeper service of one server.
#[derive(Debug)]
pub struct Service {
    env: Env,
    state: State,
    clients: Clients,
    watches: Watches,
    listings: Listings,
    status: ServerStatus,
    role: Role,
    /// Connections whose request could not be proposed or forwarded.
    waiting: Waiting,
    /// The write of one of them waits for the answers to others, which may be this many bytes.
    held_writes: Option<usize>,
    /// Between two roles: the clients that wait for the next one.
    hold: Option<Hold>,
    /// Connections with something to be submitted to the present leader again, before all else.
    resubmitting: VecDeque<ConnId>,
    /// It goes on in the next turn.
    resubmission_due: bool,
    /// The epoch that was served last.
    served_epoch: Option<Epoch>,
    /// The server is about to end: by when its clients are to be answered.
    leaving: Option<Instant>,
    /// How much is done for clients in a turn, and who of them is next.
    schedule: Schedule,
    /// The time of the last call.
    now: Instant,
    metrics: Metrics,
    /// Buffers that are used again and again.
    record: Vec<u8>,
    frame: Vec<u8>,
    hit: Vec<u32>,
}

impl Service {
    /// A service with an empty database.
    #[must_use]
    pub fn new(options: ServiceOptions) -> Self {
        Self {
            state: State::new(options.digests),
            clients: Clients::default(),
            watches: Watches::default(),
            listings: Listings::default(),
            status: ServerStatus::default(),
            role: Role::Idle,
            waiting: Waiting::default(),
            held_writes: None,
            hold: None,
            resubmitting: VecDeque::new(),
            resubmission_due: false,
            served_epoch: None,
            leaving: None,
            schedule: Schedule::new(options.work_per_turn),
            now: Instant::ZERO,
            metrics: Metrics::default(),
            record: Vec::new(),
            frame: Vec::new(),
            hit: Vec::new(),
            env: Env::new(options),
        }
    }

    /// The replicated state.
    #[must_use]
    pub fn database(&self) -> &Database {
        self.state.db()
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &ServiceOptions {
        &self.env.options
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
        self.state.digest_mismatches()
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

    /// Whether clients are served here: not by a leader that is to lead only.
    fn serves_clients(&self) -> bool {
        let leads_only =
            !self.env.options.leader_serves && self.role.leads() && !self.status.is_standalone();
        self.status.is_serving() && !leads_only
    }

    /// What there is to be looked at.
    fn view<'a, 'c>(&'a self, core: &'a Core<'c>) -> View<'a, 'c> {
        let Self { env, state, clients, watches, status, role, metrics, .. } = self;
        View { core, env, state, clients, watches, status, role, metrics }
    }

    /// The role, and what it works on.
    fn role<'a, 'c>(&'a mut self, core: &'a mut Core<'c>) -> (&'a mut Role, Cx<'a, 'c>) {
        let Self { role, state, env, metrics, schedule, .. } = self;
        (role, Cx { core, state, env, metrics, schedule })
    }

    fn wake(&mut self, core: &mut Core<'_>) {
        let (role, mut cx) = self.role(core);
        role.wake(&mut cx);
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
        self.state.tree().is_littered() || self.watches.is_littered()
    }

    /// Clears some of it away.
    fn sweep(&mut self) {
        let count = self.schedule.nodes_to_sweep();
        self.state.sweep(count);
        if self.watches.is_littered() {
            self.watches.sweep(count);
            let Self { watches, clients, .. } = self;
            clients.free_slots(|slot| watches.is_free(slot));
        }
    }

    fn begin_turn(&mut self) {
        let for_clients = self.schedule.begin_turn();
        self.role.begin_turn(&self.schedule, for_clients);
    }

    /// What was promised or planned in the role that has ended is void. What clients have asked is
    /// not; see [`hold`].
    fn end_role(&mut self, now: Instant) {
        self.role = Role::Idle;
        self.waiting.clear();
        self.held_writes = None;
        self.listings.clear();
        self.metrics.stats = Stats::default();
        if !self.env.options.hold_clients().is_zero() {
            self.hold_clients(now);
            return;
        }
        let slots: Vec<u32> = self.clients.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close(slot, false);
        }
    }

    fn begin_role(&mut self, core: &mut Core<'_>, status: &Status) {
        if self.env.options.membership.is_some() {
            // Its version may have become known since the start.
            let ensemble = &core.peer().config().ensemble;
            let version = Zxid::from_raw(ensemble.version);
            let now_ms = self.env.options.wall_clock.now_ms();
            self.state.set_config(ensemble.text().as_bytes(), version, now_ms);
        }
        self.role = if status.state == ServerState::Leading {
            let standalone = self.status.is_standalone();
            let (_, mut cx) = self.role(core);
            Role::lead(&mut cx, standalone)
        } else {
            Role::learn()
        };
        self.release_clients(core, status.epoch);
    }

    /// Ends a connection; with `flush`, what is queued for it still goes out.
    fn close(&mut self, slot: u32, flush: bool) {
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
    fn resume_stalled(&mut self) {
        if self.held_writes.is_some_and(|bound| self.clients.writes_len() <= bound / 2) {
            if self.is_resubmitting() {
                self.resubmission_due = true;
            } else {
                self.call_next();
            }
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
    fn charge(&mut self, slot: u32, work: u64) {
        if let Some(client) = self.clients.get_mut(slot) {
            self.schedule.charge(&mut client.account, work);
        } else {
            self.schedule.bill(work);
            self.schedule.settle();
        }
    }

    /// Counts work that was done for a connection and is not counted yet, if there is any.
    fn charge_billed(&mut self, slot: u32) {
        if self.schedule.has_unbilled() {
            self.charge(slot, 0);
        }
    }

    /// A connection waits for its turn.
    fn wait(&mut self, slot: u32) {
        let conn = self.clients.conn(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            self.schedule.wait(conn, &mut client.account);
        }
    }

    /// The connection that has waited longest for room tries again. The next one follows when it has
    /// had its turn.
    fn call_next(&mut self) {
        self.held_writes = None;
        if let Some(slot) = self.waiting.call().and_then(|conn| self.clients.slot(conn)) {
            self.clients.resume(slot);
        }
    }

    /// There may be room again for what could not be proposed or forwarded.
    fn retry(&mut self, core: &mut Core<'_>) {
        self.resubmit(core);
        self.waiting.note_first();
        // What was in flight before this leader comes first.
        let first = if self.is_resubmitting() { Some(0) } else { self.waiting.first() };
        let (role, mut cx) = self.role(core);
        let is_turn = role.retry(&mut cx, first) && !self.is_resubmitting();
        self.schedule.settle();
        if is_turn {
            self.call_next();
        }
    }

    fn expire_greetings(&mut self, now: Instant) {
        while let Some(slot) = self.clients.overdue_greeting(now) {
            self.metrics.sessionless_expired += 1;
            self.close(slot, false);
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
        self.state.failure()
    }

    fn has_digest(&self, txn: &[u8]) -> bool {
        self.state.has_digest(txn)
    }

    fn agrees(&self) -> DigestVerdict {
        self.state.agreed()
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        if core.peer().is_outdated() {
            self.env.options.on_outdated.call();
        }
        let standalone = core.peer().config().standalone;
        let change = self.status.became(core.now(), status, standalone, &mut self.metrics);
        if change.ends {
            self.end_role(core.now());
        }
        if change.begins {
            self.state.report_missing_acls();
            self.begin_role(core, status);
        }
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], auth: &[u8]) {
        self.wake(core);
        self.at(core.now());
        let others_first = self.waiting.first().is_some() || self.is_resubmitting();
        let place: (Ticket, bool) = (self.waiting.issue(), others_first);
        let (role, mut cx) = self.role(core);
        role.request(&mut cx, from, (data, auth), place);
        self.schedule.settle();
    }

    fn touched(&mut self, core: &mut Core<'_>, _from: Origin, sessions: &[u8]) {
        self.wake(core);
        self.role.touched(core.now(), sessions);
        self.schedule.work(cost::parsed(sessions.len()));
    }

    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        self.wake(core);
        let mut reader = Reader::new(data);
        let (Ok(session), Ok(timeout_ms)) = (reader.i64(), reader.i32()) else {
            core.close(from, CloseReason::Application);
            return;
        };
        let valid = self.role.revalidate(core.now(), from, session, timeout_ms);
        self.metrics.revalidations += 1;
        let mut answer = Vec::with_capacity(9);
        answer.put_i64(session);
        answer.put_bool(valid);
        core.revalidated(from, &answer);
    }

    fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        self.role.take_touched(sessions);
    }

    fn revalidated(&mut self, core: &mut Core<'_>, data: &[u8]) {
        let Some((conn, valid)) = self.role.revalidated(data) else { return };
        let Some(slot) = self.clients.slot(conn) else { return };
        let rejoins = self.client(slot).is_some_and(|client| client.carry.rejoins);
        if !valid && rejoins {
            self.rejoined(slot, false);
        } else if !valid {
            self.attached(core.now(), slot, false);
        } else if let Some(client) = self.clients.get_mut(slot) {
            client.confirmed = true;
            self.reattached(core.now(), slot);
        }
    }

    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        if let Some(conn) = self.role.synced(token) {
            self.sync_ended(core.now(), conn);
        }
    }

    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        let remote = incoming.remote;
        let ServiceOptions { max_client_cnxns, max_cnxns, sessionless_timeout, .. } =
            self.env.options;
        if self.leaving.is_some() {
            return None;
        }
        let full = (max_client_cnxns > 0
            && self.clients.of_address(remote.ip()) >= max_client_cnxns)
            || (max_cnxns > 0 && self.clients.len() >= max_cnxns as usize);
        if full {
            log::warn!("Too many connections from {} - max is {max_client_cnxns}", remote.ip());
            self.metrics.refused += 1;
            return None;
        }
        let deadline = core.now() + sessionless_timeout;
        Some(self.clients.add(remote, self.env.options.wall_clock.now_ms(), deadline))
    }

    fn identified(&mut self, _: &mut Core<'_>, conn: ConnId, subject: &str) {
        let access = &self.env.access;
        let client = self.clients.slot(conn).and_then(|slot| self.clients.get_mut(slot));
        if let Some(client) = client.filter(|_| access.x509_enabled) {
            access.identify(subject, &mut client.ids);
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
        let soft_max = self.env.options.out_len_soft_max_bytes;
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
        if self.clients.get(slot).is_some_and(|client| client.state != Life::Closed) {
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
        let greeting = self.clients.greeting_deadline();
        let role = self.role.poll_timeout();
        let waiting = self.schedule.has_waiting() && self.schedule.is_spent();
        let goes_on = self.role.has_postponed() || self.waiting.has_moved() || self.is_littered();
        let turn = (waiting || goes_on).then_some(Instant::ZERO);
        let leaving = self.leaving.filter(|_| self.clients.len() > 0);
        [turn, greeting, role, self.hold_timeout(), leaving].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        if self.schedule.is_spent() || !self.schedule.may_apply() {
            self.begin_turn();
        }
        self.sweep();
        self.expire_greetings(core.now());
        self.end_holds(core.now());
        self.end_leaving(core.now());
        let (role, mut cx) = self.role(core);
        role.expire(&mut cx);
        self.retry(core);
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        self.may_resubmit();
        let (role, mut cx) = self.role(core);
        role.expire(&mut cx);
        self.retry(core);
    }

    fn snapshot_open(&mut self) -> u32 {
        self.state.snapshot_open()
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.state.snapshot_read(snapshot, buf)
    }

    fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        self.state.db().snapshot_digest(snapshot)
    }

    fn snapshot_longest(&self, snapshot: u32) -> usize {
        self.state.db().snapshot_longest(snapshot)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.state.snapshot_close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        self.state.install(self.env.options.digests, bytes)
    }

    fn install_needs(&self) -> Option<usize> {
        self.state.install_needs()
    }

    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.state.install_commit(zxid, digest);
        self.forget_held();
    }

    fn install_abort(&mut self) {
        self.state.install_abort();
    }
}

impl Service {
    /// A connection that is not about to be closed.
    fn client(&mut self, slot: u32) -> Option<&mut Client> {
        self.clients.get_mut(slot).filter(|client| client.state != Life::Closed)
    }
}
