//! The ZooKeeper service in the simulator: `zk_service::Service` as it is, clients that speak its
//! protocol, and a judgement of everything they saw against a model of the service.
//!
//! The model (`model.rs`) carries out the committed history on a tree of its own and never asks the
//! service. Each answer is compared with it at the zxid that the answer names, each transaction
//! with what the request should have become.

mod acl;
mod bounds;
mod client;
mod faults;
mod history;
mod judge;
mod keeping;
mod local;
mod model;
mod remembered;
mod replay;
mod watches;
mod wire;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use zab_harness::client::first_frame;
use zab_proto::{
    Application, BadSnapshot, ClientOutput, ConnId, Core, DigestVerdict, Incoming, InstallProgress,
    Instant, Origin, SnapshotDigest, Status, Zxid,
};
use zk_service::{Entropy, Service, ServiceOptions, WallClock};

pub use client::ZkClient;

use crate::check::{Checker, Failure};
use crate::coverage::Coverage;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::{Rng, mix};
use crate::subject::{InHand, Subject};
use faults::Faults;
use keeping::Keeping;
use local::Locals;

/// The most work that is done in one piece: a list of nearly 2,000 children, at 25 units each and half a unit for each
/// byte. The longest multis have some 120 parts of 1,500 units, and the largest sessions more nodes.
const REQUEST_WORK_MAX: u64 = 70_000;

/// Whether servers keep so little for clients that the answer to a long multi is too much.
fn keeps_little(seed: u64) -> bool {
    seed % 4 == 3
}

/// A server's service, on virtual time.
#[derive(Debug)]
pub struct Zk {
    service: Service,
    /// Wall clock, ms since 1970.
    wall_ms: Arc<AtomicI64>,
    /// What the wall clock shows when the monotonic one is at zero.
    wall_offset_ms: i64,
    /// What the clients together may make it keep, in bytes.
    kept_max: usize,
    /// Most work that a turn may have: what is to be done in one, and one request.
    work_max: u64,
    faults: Faults,
    keeping: Keeping,
}

impl Subject for Zk {
    type Client = ZkClient;

    const LEN_MAX: usize = 64 << 10;

    const RECORDS: bool = true;

    const QUIET_TICKS: u32 = 25;

    fn start(server: HostIx, incarnation: u32, seed: u64, options: &Options) -> Self {
        // Wall clocks jump between starts, and may be before 1970.
        let mut rng = Rng::new(seed, 0x3a11 + u64::from(incarnation));
        let jump_ms = i64::try_from(rng.below(20_000_000)).unwrap_or(0) - 5_000_000;
        let wall_ms = Arc::new(AtomicI64::new(jump_ms));
        let clock = Arc::clone(&wall_ms);
        let random = AtomicU64::new(rng.next_u64());
        // So little, in one run of four, that some clients have to be closed for what they take.
        let kept_max = if keeps_little(options.seed) { 2000 + rng.index(10_000) } else { 1 << 30 };
        let unbounded = options.mutation == Some(Mutation::ClientsUnbounded);
        // Some servers end their turns after next to nothing, others after more than is ever asked.
        let work_per_turn = 1 << rng.below(23);
        let mut keeps = false;
        let locals = Locals::drawn(options);
        let service = Service::new(ServiceOptions::default().with(|service| {
            service.clients_len_max_bytes = if unbounded { usize::MAX } else { kept_max };
            // What is kept of writes counts, and is not to be what clients are closed for.
            service.hold_len_max_bytes = kept_max / 4;
            service.session_server_id = i64::try_from(server + 1).unwrap_or(0);
            service.tick_time = options.tick_time;
            service.max_client_cnxns = 0;
            // Where the sum of all binds, no other bound comes first.
            if kept_max == 1 << 30 {
                bounds::draw(service, seed);
                keeps = bounds::keep_clients(service);
            }
            if options.mutation == Some(Mutation::NobodyHeld) {
                service.hold_clients = Some(Duration::ZERO);
            }
            service.local_sessions = locals.enabled;
            service.local_sessions_upgrading = locals.upgrading;
            service.sessionless_timeout = Duration::from_secs(5);
            service.extended_types = true;
            service.container_check_interval = 2 * options.tick_time;
            service.container_never_used = faults::container_never_used(options.mutation);
            service.entropy = Entropy::new(move || mix(random.fetch_add(1, Ordering::Relaxed)));
            service.work_per_turn = faults::work_per_turn(work_per_turn, options.mutation);
            service.cuts = options.mutation != Some(Mutation::PiecesAtOnce);
            service.wall_clock = WallClock::new(move || clock.load(Ordering::Relaxed));
        }));
        let faults = Faults::new(options.mutation, locals);
        let work_max = work_per_turn + REQUEST_WORK_MAX;
        let keeping = Keeping::new(keeps, options.tick_time * 2, locals);
        Self { service, wall_ms, wall_offset_ms: jump_ms, work_max, kept_max, faults, keeping }
    }

    fn digest(&self) -> u64 {
        let db = self.service.database();
        let sessions = db.sessions.iter().fold(db.sessions.len() as u64, |sum, (id, timeout)| {
            mix(sum ^ id.cast_unsigned()) ^ i64::from(timeout).cast_unsigned()
        });
        sessions ^ db.tree.digest().unwrap_or_default()
    }

    fn complaint(&self) -> Option<Failure> {
        let kept = self.service.kept_len();
        // Answers to what had to wait may come between two looks at the bound.
        if kept > 2 * self.kept_max {
            let text = format!("{kept} bytes are kept for clients, of {}", self.kept_max);
            return Some(Failure { invariant: "W16", text });
        }
        let peak = self.service.work_peak().max(self.service.apply_peak());
        if peak > self.work_max {
            let (work, apply) = (self.service.work_peak(), self.service.apply_peak());
            let text = format!(
                "a turn had {work} units of work, or {apply} to apply, not at most {}",
                self.work_max
            );
            return Some(Failure { invariant: "W15", text });
        }
        let mismatches = self.service.digest_mismatches();
        (mismatches > 0).then(|| Failure {
            invariant: "W12",
            text: format!("{mismatches} transactions had another outcome than their leader said"),
        })
    }

    fn in_hand(&self) -> Option<InHand> {
        if self.service.is_applying() {
            return Some(InHand::Transaction);
        }
        self.service.is_preparing().then_some(InHand::Request)
    }

    fn closes(&self, now: Instant, conn: ConnId) -> Option<Failure> {
        self.keeping.closes(now, conn)
    }

    fn judge(
        clients: &[ZkClient],
        servers: &[&Self],
        checker: &Checker,
        coverage: &mut Coverage,
    ) -> Result<(), Failure> {
        let databases: Vec<_> = servers.iter().map(|server| server.service.database()).collect();
        judge::judge(clients, &databases, checker, coverage)
    }
}

impl Zk {
    /// The service sees the time of this call on its wall clock.
    fn at(&mut self, now: Instant) {
        let ms = i64::try_from(now.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        self.wall_ms.store(self.wall_offset_ms.saturating_add(ms), Ordering::Relaxed);
    }
}

impl Application for Zk {
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]) {
        self.at(now);
        self.keeping.delivered(txn);
        match self.faults.deliver(txn) {
            Some(other) => self.service.deliver(now, zxid, &other),
            None => self.service.deliver(now, zxid, txn),
        }
    }

    fn has_digest(&self, txn: &[u8]) -> bool {
        self.service.has_digest(txn)
    }

    fn may_deliver(&self) -> bool {
        self.service.may_deliver()
    }

    fn is_applying(&self) -> bool {
        self.service.is_applying()
    }

    fn failed(&self) -> Option<&str> {
        self.service.failed()
    }

    fn agrees(&mut self) -> DigestVerdict {
        self.service.agrees()
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        self.at(core.now());
        self.keeping.became(core.now(), status);
        let told = self.faults.became(core.now(), status);
        self.service.became(core, &told);
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], auth: &[u8]) {
        self.at(core.now());
        if self.faults.loses(data) {
            return;
        }
        let auth = self.faults.identities(auth);
        for (from, data, auth) in self.faults.reorder(core.now(), from, data, auth) {
            self.service.request(core, from, &data, &auth);
        }
        if self.faults.holds_back() {
            return;
        }
        self.service.request(core, from, data, auth);
        if self.faults.again(core.now(), data) {
            self.service.request(core, from, data, auth);
        }
    }

    fn touched(&mut self, core: &mut Core<'_>, from: Origin, sessions: &[u8]) {
        self.at(core.now());
        self.service.touched(core, from, sessions);
    }

    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        self.at(core.now());
        self.service.revalidate(core, from, data);
    }

    fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        self.service.take_touched(sessions);
        self.faults.touched(sessions);
    }

    fn revalidated(&mut self, core: &mut Core<'_>, data: &[u8]) {
        self.at(core.now());
        self.keeping.revalidated(data);
        self.service.revalidated(core, data);
        if self.faults.revalidated(data) {
            self.service.synced(core, None);
        }
    }

    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        self.at(core.now());
        if !self.faults.synced(token) {
            self.service.synced(core, token);
        }
    }

    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        self.at(core.now());
        let conn = self.service.accept(core, incoming)?;
        self.faults.accepted(conn);
        self.keeping.accepted(conn);
        Some(conn)
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        self.at(core.now());
        if !self.faults.reads_along() {
            let used = self.service.handle_bytes(core, conn, bytes);
            self.keeping.taken(core.now(), conn, &bytes[..used]);
            return used;
        }
        let mut used = 0;
        while let Some(frame) = first_frame(&bytes[used..]) {
            let frame = &bytes[used..used + 4 + frame.len()];
            let altered = self.faults.intake(conn, frame, self.service.database());
            if self.service.handle_bytes(core, conn, &altered) == 0 {
                break;
            }
            used += frame.len();
            self.keeping.taken(core.now(), conn, frame);
            if self.faults.taken(conn, frame) {
                self.service.synced(core, None);
            }
        }
        used
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Self { faults, service, .. } = self;
        let n = faults.transmit(conn, buf, |buf| service.poll_transmit(conn, buf));
        self.keeping.sent(conn, &buf[..n]);
        n
    }

    fn closed(&mut self, core: &mut Core<'_>, conn: ConnId) {
        self.at(core.now());
        self.service.closed(core, conn);
        self.keeping.closed(conn);
        self.faults.closed(conn);
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        self.service.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.service.poll_timeout()
    }

    fn wants_turn(&self) -> bool {
        self.service.wants_turn()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.at(core.now());
        for (from, data, auth) in self.faults.held_back() {
            self.service.request(core, from, &data, &auth);
        }
        self.service.handle_timeout(core);
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.at(core.now());
        self.service.room(core);
    }

    fn snapshot_longest(&self, snapshot: u32) -> usize {
        self.service.snapshot_longest(snapshot)
    }

    fn install_needs(&self) -> Option<usize> {
        self.service.install_needs()
    }

    fn snapshot_open(&mut self) -> u32 {
        let snapshot = self.service.snapshot_open();
        self.faults.snapshot_opened(snapshot);
        snapshot
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        let n = self.service.snapshot_read(snapshot, buf);
        self.faults.snapshot_read(snapshot, &mut buf[..n])
    }

    fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        self.service.snapshot_digest(snapshot)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.service.snapshot_close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        self.service.install(bytes)
    }

    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.keeping.installed();
        self.faults.installed();
        self.service.install_commit(zxid, digest);
    }

    fn install_abort(&mut self) {
        self.service.install_abort();
    }
}
