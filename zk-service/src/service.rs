//! The service as an application: its state, and the doors that the core calls.

mod admission;
mod answer;
mod apply;
mod budget;
mod connection;
mod env;
mod estimate;
mod handshake;
mod hold;
mod intake;
mod leave;
mod local;
mod members;
mod observe;
mod parts;
mod read;
mod read_only;
mod role;
mod turn;
mod words;

pub use self::observe::look;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{
    Application, BadSnapshot, ClientOutput, CloseReason, ConnId, Core, DigestVerdict, Incoming,
    InstallProgress, Instant, Origin, ServerState, SnapshotDigest, Status, Zxid,
};

use crate::cost;
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::options::ServiceOptions;
use crate::service::admission::Admission;
use crate::service::connection::entry::Entry;
use crate::service::connection::table::Clients;
use crate::service::connection::wait::Wait;
use crate::service::env::Env;
use crate::service::hold::Hold;
use crate::service::observe::View;
use crate::service::observe::four_letter::Reset;
use crate::service::observe::look::Look;
use crate::service::parts::Parts;
use crate::service::role::Role;
use crate::service::role::local::LocalSessions;
use crate::service::role::status::ServerStatus;
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
    /// Sessions that only this server knows.
    local: LocalSessions,
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
            local: LocalSessions::new(options.tick_time),
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

    /// The same of the work to apply transactions, which has as much of each turn. What has to be applied
    /// at once, before the role changes, does not count.
    #[must_use]
    pub fn apply_peak(&self) -> u64 {
        self.admission.schedule.applied_peak()
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

    /// Whether a request is being prepared that takes more than a turn.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.role.has_begun()
    }

    /// Whether all clients are answered and gone, after [`leave`](Self::leave).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.admission.leaving.is_some() && self.clients.len() == 0
    }

    /// A look at the server. Where the core comes from: `Node::with`.
    #[must_use]
    pub fn look<'a, 'c>(&'a self, core: &'a Core<'c>) -> Look<'a, 'c> {
        let Self { env, state, watches, clients, status, role, local, metrics, .. } = self;
        let view = View { core, env, state, clients, watches, status, role, local, metrics };
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
        let Self { env, state, watches, clients, status, role, local, admission, metrics } = self;
        (clients, Parts { env, state, watches, status, role, local, admission, metrics })
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
        self.local.wake(core.now());
    }

    /// A call at the time `now`. A runtime looks at everybody before its clock goes on, so that the
    /// first call at a new time begins a turn.
    fn at(&mut self, now: Instant) {
        if self.admission.now != now {
            self.admission.now = now;
            self.begin_turn();
        }
    }

    /// Applies the rest of a transaction at once, if it is applied in part.
    fn finish_applying(&mut self, now: Instant) {
        let (clients, mut parts) = self.split();
        apply::finish(clients, &mut parts, now);
    }

    /// Whether something is left of what has ended.
    fn is_littered(&self) -> bool {
        self.state.tree().is_littered() || self.watches.is_littered()
    }

    /// Clears some of it away.
    fn sweep(&mut self) {
        if self.state.is_applying() {
            return;
        }
        let count = self.admission.schedule.nodes_to_sweep();
        self.role.tidy(&self.state, count);
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
        let (clients, mut parts) = self.split();
        // Its version may have become known since the start.
        members::write(clients, &mut parts, core);
        *parts.role = if status.state == ServerState::Leading {
            let standalone = parts.status.is_standalone();
            let (_, mut cx) = parts.role(core);
            Role::lead(&mut cx, standalone)
        } else {
            Role::learn()
        };
        let rejoins = parts.status.serves(status.epoch);
        local::begin_role(clients, &mut parts, core.now(), rejoins);
        hold::release_clients(clients, &mut parts, core, rejoins);
    }
}

impl Application for Service {
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]) {
        self.at(now);
        // If so, it is asked for all the same: it has to be delivered before the role changes, or before the core
        // says anything.
        let is_forced = !self.may_deliver() || !self.status.is_known();
        self.admission.schedule.force(is_forced);
        self.admission.note_applied();
        let (clients, mut parts) = self.split();
        parts.role.prepare_to_the_end(parts.state, parts.env);
        apply::apply(clients, &mut parts, now, zxid, txn);
        self.admission.schedule.force(false);
    }

    fn may_deliver(&self) -> bool {
        self.admission.schedule.may_apply()
            && !self.state.is_applying()
            && !self.role.holds_commits()
            && !self.admission.is_frozen()
    }

    fn is_applying(&self) -> bool {
        self.state.is_applying()
    }

    fn failed(&self) -> Option<&str> {
        self.state.failure()
    }

    fn has_digest(&self, txn: &[u8]) -> bool {
        self.state.has_digest(txn)
    }

    fn agrees(&mut self) -> DigestVerdict {
        self.finish_applying(self.admission.now);
        self.state.agreed()
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        self.finish_applying(core.now());
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

    fn reconfigured(&mut self, core: &mut Core<'_>) {
        self.finish_applying(core.now());
        let (clients, mut parts) = self.split();
        members::changed(clients, &mut parts, core);
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
        self.finish_applying(core.now());
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

    fn secured(&mut self, _: &mut Core<'_>, conn: ConnId, subject: Option<&str>) {
        self.with(conn, |Entry { client, .. }, parts| {
            client.is_secure = true;
            if let Some(subject) = subject.filter(|_| parts.env.access.x509_enabled) {
                parts.env.access.identify(subject, &mut client.ids);
                log::debug!("Authenticated Id '{subject}' for scheme 'x509' of {}", client.remote);
            }
        });
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        self.wake(core);
        self.at(core.now());
        if self.state.is_applying() {
            // The tree is one that nobody is to see.
            self.with(conn, |at, parts| {
                parts.admission.wait(at, Wait::Turn);
                at.left_unread(core.now(), bytes.len());
            });
            return 0;
        }
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
        log::debug!(
            "Closed socket connection for client {} which had sessionid {:#x}",
            at.client.remote,
            at.client.session
        );
        parts.metrics.dropped += u64::from(!at.is_closed());
        if at.client.queue.writes() > 0 {
            parts.local.unsettle(at.client.session);
        }
        parts.watches.remove_slot(at.slot());
        parts.admission.thaw(conn);
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
            if self.state.is_applying() {
                return None;
            }
            let conn = self.admission.next_turn()?;
            self.with(conn, turn::go_on);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.clients.greeting_deadline();
        let silence = self.clients.silence_deadline();
        let role = self.role.poll_timeout();
        let hold = self.admission.hold.as_ref().map(Hold::look_at);
        let leaving = self.admission.leaving.filter(|_| self.clients.len() > 0);
        let Self { env, status, admission, .. } = self;
        let read_only = read_only::begins_at(&env.options, &self.role, status, admission);
        let local = local::poll_timeout(&self.role, &self.local);
        let times = [greeting, silence, role, hold, leaving, read_only, local];
        times.into_iter().flatten().min()
    }

    fn wants_turn(&self) -> bool {
        self.role.has_postponed()
            || self.admission.is_due()
            || self.is_littered()
            || self.state.is_applying()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        if self.admission.schedule.is_spent() || !self.may_deliver() {
            self.begin_turn();
        }
        let (clients, mut parts) = self.split();
        apply::resume(clients, &mut parts, core.now());
        if let Some(conn) = self.admission.first_in_turn() {
            self.with(conn, turn::go_on);
        }
        self.sweep();
        let (clients, mut parts) = self.split();
        turn::expire_greetings(clients, &mut parts, core.now());
        turn::close_silent(clients, &mut parts, core.now());
        hold::end_holds(clients, &mut parts, core.now());
        leave::end_leaving(clients, &mut parts, core.now());
        turn::expire_and_retry(clients, &mut parts, core);
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.wake(core);
        self.at(core.now());
        self.admission.may_resubmit();
        let (clients, mut parts) = self.split();
        turn::expire_and_retry(clients, &mut parts, core);
    }

    fn snapshot_open(&mut self) -> u32 {
        self.finish_applying(self.admission.now);
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
