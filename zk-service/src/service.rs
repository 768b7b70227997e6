//! The service as an application: its state, and the doors that the core calls.

mod admin;
mod admission;
mod answer;
mod audit;
mod budget;
mod handshake;
mod hold;
mod intake;
mod leave;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{
    Application, BadSnapshot, ClientOutput, CloseReason, ConnId, Core, DigestVerdict, Incoming,
    InstallProgress, Instant, Origin, ServerState, SnapshotDigest, Status, Zxid,
};

use crate::connection::table::Clients;
use crate::connection::wait::Wait;
use crate::connection::{Client, Life};
use crate::cost;
use crate::env::Env;
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::observe::View;
use crate::options::ServiceOptions;
use crate::role::status::ServerStatus;
use crate::role::{Cx, Role};
use crate::service::admission::Admission;
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
    /// Which connections wait, and for what.
    admission: Admission,
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
            admission: Admission::new(&options),
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
        self.admission.schedule.peak()
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
        let Self { role, state, env, metrics, admission, .. } = self;
        (role, Cx { core, state, env, metrics, schedule: &mut admission.schedule })
    }

    fn wake(&mut self, core: &mut Core<'_>) {
        let (role, mut cx) = self.role(core);
        role.wake(&mut cx);
    }

    /// A call at the time `now`. A runtime looks at everybody before its clock goes on, so that the
    /// first call at a new time begins a turn.
    fn at(&mut self, now: Instant) {
        if self.admission.now != now {
            self.admission.now = now;
            self.begin_turn();
        }
    }

    /// Whether something is left of what has ended.
    fn is_littered(&self) -> bool {
        self.state.tree().is_littered() || self.watches.is_littered()
    }

    /// Clears some of it away.
    fn sweep(&mut self) {
        let count = self.admission.schedule.nodes_to_sweep();
        self.state.sweep(count);
        if self.watches.is_littered() {
            self.watches.sweep(count);
            let Self { watches, clients, .. } = self;
            clients.free_slots(|slot| watches.is_free(slot));
        }
    }

    fn begin_turn(&mut self) {
        let for_clients = self.admission.schedule.begin_turn();
        self.role.begin_turn(&self.admission.schedule, for_clients);
    }

    /// What was promised or planned in the role that has ended is void. What clients have asked is
    /// not; see [`hold`].
    fn end_role(&mut self, now: Instant) {
        self.role = Role::Idle;
        self.admission.end_role();
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
        let Self { clients, admission, .. } = self;
        if let Some(client) = clients.get_mut(slot) {
            admission.leave_room(client);
        }
        clients.close(slot, flush);
        admission.writes_answered(clients);
    }

    /// It is the turn of a connection that had to wait for it.
    fn go_on(&mut self, slot: u32) {
        self.drain(self.admission.now, slot);
        if self.client(slot).is_some_and(|client| !client.account.waits()) {
            Admission::resume(&mut self.clients, slot);
        }
    }

    /// Counts work that was done for a connection, with what the leader's part has done for it.
    fn charge(&mut self, slot: u32, work: u64) {
        if let Some(client) = self.clients.get_mut(slot) {
            self.admission.schedule.charge(&mut client.account, work);
        } else {
            self.admission.schedule.bill(work);
            self.admission.schedule.settle();
        }
    }

    /// Counts work that was done for a connection and is not counted yet, if there is any.
    fn charge_billed(&mut self, slot: u32) {
        if self.admission.schedule.has_unbilled() {
            self.charge(slot, 0);
        }
    }

    /// Notes what a connection waits for.
    fn wait(&mut self, slot: u32, wait: Wait) {
        let conn = self.clients.conn(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            self.admission.wait(conn, client, wait);
        }
    }

    /// There may be room again for what could not be proposed or forwarded.
    fn retry(&mut self, core: &mut Core<'_>) {
        self.resubmit(core);
        self.admission.room.note_first();
        // What was in flight before this leader comes first.
        let is_resubmitting = self.admission.is_resubmitting();
        let first = if is_resubmitting { Some(0) } else { self.admission.room.first() };
        let (role, mut cx) = self.role(core);
        let is_turn = role.retry(&mut cx, first) && !is_resubmitting;
        self.admission.schedule.settle();
        if is_turn {
            self.admission.call_next(&mut self.clients);
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
        self.admission.schedule.may_apply()
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
        let change = self.status.became(
            core.now(),
            status,
            standalone,
            core.peer().last_loss().as_ref(),
            &mut self.metrics,
        );
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
        let place = self.admission.place_of_learner();
        let (role, mut cx) = self.role(core);
        role.request(&mut cx, from, (data, auth), place);
        self.admission.schedule.settle();
    }

    fn touched(&mut self, core: &mut Core<'_>, _from: Origin, sessions: &[u8]) {
        self.wake(core);
        self.role.touched(core.now(), sessions);
        self.admission.schedule.work(cost::parsed(sessions.len()));
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
        if self.admission.leaving.is_some() {
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
        if let Some(client) = self.clients.get_mut(slot) {
            self.admission.sent(&self.env.options, conn, client);
        }
        n
    }

    fn closed(&mut self, _core: &mut Core<'_>, conn: ConnId) {
        let Some(slot) = self.clients.slot(conn) else { return };
        if self.clients.get(slot).is_some_and(|client| client.state != Life::Closed) {
            self.metrics.dropped += 1;
        }
        self.watches.remove_slot(slot);
        let session = self.clients.get_mut(slot).map_or(0, |client| {
            self.admission.leave_room(client);
            client.session
        });
        self.clients.detach(session, slot);
        self.clients.remove(slot, self.watches.is_free(slot));
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        loop {
            if let Some(output) = self.clients.poll_output() {
                return Some(output);
            }
            if let Some(slot) = self.admission.next_turn(&mut self.clients)? {
                self.go_on(slot);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.clients.greeting_deadline();
        let role = self.role.poll_timeout();
        let goes_on = self.role.has_postponed() || self.admission.is_due() || self.is_littered();
        let turn = goes_on.then_some(Instant::ZERO);
        let leaving = self.admission.leaving.filter(|_| self.clients.len() > 0);
        [turn, greeting, role, self.hold_timeout(), leaving].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        if self.admission.schedule.is_spent() || !self.admission.schedule.may_apply() {
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
