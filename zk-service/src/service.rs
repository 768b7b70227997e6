//! The service as an application: its state, and the doors that the core calls.

mod admission;
mod answer;
mod audit;
mod budget;
mod handshake;
mod hold;
mod intake;
mod leave;
mod parts;
mod read_only;
mod words;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{
    Application, BadSnapshot, ClientOutput, CloseReason, ConnId, Core, DigestVerdict, Incoming,
    InstallProgress, Instant, Origin, ServerState, SnapshotDigest, Status, Zxid,
};

use crate::connection::Client;
use crate::connection::entry::Entry;
use crate::connection::table::Clients;
use crate::cost;
use crate::env::Env;
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::observe::View;
use crate::observe::four_letter::Reset;
use crate::observe::look::Look;
use crate::options::ServiceOptions;
use crate::role::Role;
use crate::role::status::ServerStatus;
use crate::service::admission::Admission;
use crate::service::hold::Hold;
use crate::service::parts::Parts;
use crate::state::State;
use crate::state::database::Database;
use crate::state::watch::Watches;

/// The ZooKeeper service of one server: the owners of its state, and the doors to them.
#[derive(Debug)]
pub struct Service {
    /// The options; what never changes.
    env: Env,
    /// What transactions change.
    state: State,
    watches: Watches,
    clients: Clients,
    status: ServerStatus,
    role: Role,
    /// Which connections wait, and for what.
    admission: Admission,
    metrics: Metrics,
}

impl Service {
    /// A service with an empty database.
    #[must_use]
    pub fn new(options: ServiceOptions) -> Self {
        Self {
            state: State::new(options.digests),
            watches: Watches::default(),
            clients: Clients::default(),
            status: ServerStatus::default(),
            role: Role::Idle,
            admission: Admission::new(&options),
            metrics: Metrics::default(),
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

    /// Bytes kept for all clients.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        budget::kept_len(&self.clients, &self.watches, &self.state)
    }

    /// Begins the orderly end, at the time `now`. Ask [`has_left`](Self::has_left) from time to time,
    /// and end the server then, or after a tick.
    pub fn leave(&mut self, now: Instant) {
        let (clients, mut parts) = self.split();
        leave::leave(clients, &mut parts, now);
    }

    /// Whether all clients are answered and gone, after [`leave`](Self::leave).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.admission.leaving.is_some() && self.clients.len() == 0
    }

    /// A look at the server. Where the core comes from: `Node::with`.
    #[must_use]
    pub fn look<'a, 'c>(&'a self, core: &'a Core<'c>) -> Look<'a, 'c> {
        let Self { env, state, watches, clients, status, role, metrics, .. } = self;
        let view = View { core, env, state, clients, watches, status, role, metrics };
        Look::new(view, parts::serves_clients(env, role, status))
    }

    /// Allows these four-letter words from now on, or all if one of them is `*`, and no others but those
    /// that always are.
    pub fn allow_four_letter_words(&mut self, words: Vec<String>) {
        self.env.options.four_letter_whitelist = words;
    }

    /// Sets counters and summaries back, as `srst` does.
    pub fn reset_stats(&mut self) {
        let (clients, mut parts) = self.split();
        words::reset(clients, &mut parts, Some(Reset::Server));
    }

    /// Sets the figures of all connections back, as `crst` does.
    pub fn reset_connection_stats(&mut self) {
        let (clients, mut parts) = self.split();
        words::reset(clients, &mut parts, Some(Reset::Connections));
    }

    /// The table of connections, and all else.
    fn split(&mut self) -> (&mut Clients, Parts<'_>) {
        let Self { env, state, watches, clients, status, role, admission, metrics } = self;
        (clients, Parts { env, state, watches, status, role, admission, metrics })
    }

    /// Runs a step on one connection, unless that is gone.
    fn with(&mut self, conn: ConnId, step: impl FnOnce(&mut Entry<'_>, &mut Parts<'_>)) {
        let (clients, mut parts) = self.split();
        if let Some(mut at) = clients.enter(conn) {
            step(&mut at, &mut parts);
        }
    }

    fn wake(&mut self, core: &mut Core<'_>) {
        let (_, mut parts) = self.split();
        let (role, mut cx) = parts.role(core);
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
        self.state.clear_listings();
        self.metrics.stats = Stats::default();
        let (clients, mut parts) = self.split();
        if !parts.env.options.hold_clients().is_zero() {
            hold::hold_clients(clients, &mut parts, now);
            return;
        }
        for conn in clients.ids() {
            if let Some(mut at) = clients.enter(conn) {
                parts.close(&mut at, false);
            }
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
        let (clients, mut parts) = self.split();
        *parts.role = if status.state == ServerState::Leading {
            let standalone = parts.status.is_standalone();
            let (_, mut cx) = parts.role(core);
            Role::lead(&mut cx, standalone)
        } else {
            Role::learn()
        };
        hold::release_clients(clients, &mut parts, core, status.epoch);
    }

    /// What has lasted long enough ends, and what waited for room tries again.
    fn expire_and_retry(&mut self, core: &mut Core<'_>) {
        let (clients, mut parts) = self.split();
        read_only::expire(clients, &mut parts, core.now());
        read_only::begin_if_due(clients, &mut parts, core);
        let (role, mut cx) = parts.role(core);
        role.expire(&mut cx);
        retry(clients, &mut parts, core);
    }

    fn close_silent(&mut self, now: Instant) {
        let (clients, mut parts) = self.split();
        for conn in clients.silent(now) {
            let Some(mut at) = clients.enter(conn) else { continue };
            let Client { remote, timeout_ms, session, .. } = &*at.client;
            log::info!(
                "Closing connection with {remote}: nothing has come of it for the {timeout_ms} ms \
                 after which its session {session:#x} would expire"
            );
            parts.metrics.silent_closed += 1;
            parts.close(&mut at, false);
        }
    }

    fn expire_greetings(&mut self, now: Instant) {
        let (clients, mut parts) = self.split();
        while let Some(mut at) = clients.overdue_greeting(now) {
            parts.metrics.sessionless_expired += 1;
            parts.close(&mut at, false);
        }
    }
}

/// There may be room again for what could not be proposed or forwarded.
fn retry(clients: &mut Clients, parts: &mut Parts<'_>, core: &mut Core<'_>) {
    hold::resubmit(clients, parts, core);
    parts.admission.room.note_first();
    parts.admission.requests_answered(&mut clients.shared);
    // What was in flight before this leader comes first.
    let is_resubmitting = parts.admission.is_resubmitting();
    let first = if is_resubmitting { Some(0) } else { parts.admission.room.first() };
    let (role, mut cx) = parts.role(core);
    let is_turn = role.retry(&mut cx, first) && !is_resubmitting;
    parts.admission.schedule.settle();
    if is_turn {
        parts.admission.call_next(&mut clients.shared);
    }
}

/// It is the turn of a connection that had to wait for it.
fn go_on(at: &mut Entry<'_>, parts: &mut Parts<'_>) {
    at.client.account.call();
    answer::drain(at, parts, parts.admission.now);
    if !at.is_closed() && !at.client.account.waits() {
        Admission::resume(at);
    }
}

impl Application for Service {
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]) {
        self.at(now);
        let (clients, mut parts) = self.split();
        answer::apply(clients, &mut parts, now, zxid, txn);
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
        if status.state != ServerState::Looking {
            let (clients, mut parts) = self.split();
            read_only::end(clients, &mut parts, core.now());
        }
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
        let (_, mut parts) = self.split();
        let (role, mut cx) = parts.role(core);
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
        self.with(conn, |at, parts| {
            let now = core.now();
            if valid {
                at.client.confirmed = true;
                answer::reattached(at, parts, now);
            } else if at.client.carry.rejoins {
                hold::rejoined(at, parts, false);
            } else {
                handshake::attached(at, parts, now, false);
            }
        });
    }

    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        if let Some(conn) = self.role.synced(token) {
            self.with(conn, |at, parts| answer::sync_ended(at, parts, core.now()));
        }
    }

    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        let remote = incoming.remote;
        let ServiceOptions { max_client_cnxns, max_cnxns, sessionless_timeout, .. } =
            self.env.options;
        if self.admission.leaving.is_some() {
            return None;
        }
        let of_address = self.clients.of_address(remote.ip());
        if max_client_cnxns > 0 && of_address >= max_client_cnxns {
            log::warn!("Too many connections from {} - max is {max_client_cnxns}", remote.ip());
            self.metrics.refused += 1;
            return None;
        }
        if max_cnxns > 0 && self.clients.len() >= max_cnxns as usize {
            log::warn!("Too many connections, refusing {remote}: maxCnxns is {max_cnxns}");
            self.metrics.refused += 1;
            return None;
        }
        let deadline = core.now() + sessionless_timeout;
        let conn = self.clients.add(remote, self.env.options.wall_clock.now_ms(), deadline);
        let large_from = self.env.options.large_requests.record_from();
        self.with(conn, |at, _| at.client.queue.large_from = large_from);
        Some(conn)
    }

    fn identified(&mut self, _: &mut Core<'_>, conn: ConnId, subject: &str) {
        self.with(conn, |Entry { client, .. }, parts| {
            if parts.env.access.x509_enabled {
                parts.env.access.identify(subject, &mut client.ids);
                log::debug!("Authenticated Id '{subject}' for scheme 'x509' of {}", client.remote);
            }
        });
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        self.wake(core);
        self.at(core.now());
        let (clients, mut parts) = self.split();
        intake::take_bytes(clients, &mut parts, core, conn, bytes)
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let mut n = 0;
        self.with(conn, |at, parts| {
            n = at.transmit(buf);
            parts.admission.sent(&parts.env.options, at);
        });
        n
    }

    fn closed(&mut self, _core: &mut Core<'_>, conn: ConnId) {
        let (clients, parts) = self.split();
        let Some(at) = clients.enter(conn) else { return };
        parts.metrics.dropped += u64::from(!at.is_closed());
        parts.watches.remove_slot(at.slot());
        parts.admission.leave_room(at.client);
        parts.admission.leave_throttle(at.client);
        clients.remove(conn, parts.watches.is_free(conn.slot()));
        parts.admission.requests_answered(&mut clients.shared);
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        loop {
            if let Some(output) = self.clients.poll_output() {
                return Some(output);
            }
            let conn = self.admission.next_turn()?;
            self.with(conn, go_on);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.clients.greeting_deadline();
        let silence = self.clients.silence_deadline();
        let role = self.role.poll_timeout();
        let goes_on = self.role.has_postponed() || self.admission.is_due() || self.is_littered();
        let turn = goes_on.then_some(Instant::ZERO);
        let hold = self.admission.hold.as_ref().map(Hold::look_at);
        let leaving = self.admission.leaving.filter(|_| self.clients.len() > 0);
        let Self { env, status, admission, .. } = self;
        let read_only = read_only::begins_at(&env.options, &self.role, status, admission);
        let times = [turn, greeting, silence, role, hold, leaving, read_only];
        times.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        if self.admission.schedule.is_spent() || !self.admission.schedule.may_apply() {
            self.begin_turn();
        }
        self.sweep();
        self.expire_greetings(core.now());
        self.close_silent(core.now());
        let (clients, mut parts) = self.split();
        hold::end_holds(clients, &mut parts, core.now());
        leave::end_leaving(clients, &mut parts, core.now());
        self.expire_and_retry(core);
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        self.admission.may_resubmit();
        self.expire_and_retry(core);
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
        let (clients, mut parts) = self.split();
        hold::forget_held(clients, &mut parts);
    }

    fn install_abort(&mut self) {
        self.state.install_abort();
    }
}
