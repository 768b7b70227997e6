//! The smallest application that is worth measuring: it counts what is delivered. What it proposes
//! it makes itself, on the leader, so that nothing but replication is measured.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Application, BadSnapshot, Core, InstallProgress, Origin, Phase, ServerState, SnapshotDigest,
    Status, Zxid,
};

/// What one member has come to since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Role and phase.
    pub status: Option<Status>,
    /// When it last left LOOKING.
    pub decided: Option<Instant>,
    /// When it began to serve.
    pub serves: Option<Instant>,
    /// When it first delivered a transaction of its present role.
    pub delivered: Option<Instant>,
}

impl Progress {
    fn leads(&self) -> bool {
        self.serves.is_some() && self.status.is_some_and(|s| s.state == ServerState::Leading)
    }

    /// Whether it leads and serves, and began to after `begin`.
    #[must_use]
    pub fn is_leading_since(&self, begin: Instant) -> bool {
        self.leads() && self.serves.is_some_and(|serves| serves >= begin)
    }
}

/// Where the members of an ensemble say what they have come to.
#[derive(Debug)]
pub struct Board {
    members: Mutex<Vec<Progress>>,
    changed: Condvar,
}

impl Board {
    /// For `n` members.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { members: Mutex::new(vec![Progress::default(); n]), changed: Condvar::new() }
    }

    /// Forgets what a member has come to, before it is started.
    pub fn reset(&self, member: usize) {
        self.lock()[member] = Progress::default();
    }

    /// Waits until `wanted` says so, and returns everybody's progress; `None` after `timeout`.
    pub fn wait(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&[Progress]) -> bool,
    ) -> Option<Vec<Progress>> {
        let waiting = |members: &mut Vec<Progress>| !wanted(members);
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, waiting);
        let (members, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (!result.timed_out()).then(|| members.clone())
    }

    fn update(&self, member: usize, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock()[member]);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one of `members` that leads and serves.
#[must_use]
pub fn leader(members: &[Progress]) -> Option<usize> {
    members.iter().position(Progress::leads)
}

/// Transactions to make on the leader.
#[derive(Debug)]
pub struct Job {
    /// Bytes in each, besides the header.
    pub payload_len: usize,
    /// How many are proposed and not yet delivered.
    pub depth: usize,
    /// When to stop.
    pub span: Duration,
    /// Where the outcome goes.
    pub done: Sender<Flowed>,
}

/// What came of a [`Job`].
#[derive(Clone, Debug, Default)]
pub struct Flowed {
    /// Transactions delivered.
    pub commits: u64,
    /// From the first proposal to the last delivery.
    pub span: Duration,
    /// From proposal to delivery on the leader, one per transaction, sorted.
    pub latencies: Vec<Duration>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    begun: Instant,
    proposed: VecDeque<Instant>,
    latencies: Vec<Duration>,
}

/// The application.
#[derive(Debug)]
pub struct Flow {
    member: usize,
    board: Arc<Board>,
    count: u64,
    staged: u64,
    reported: bool,
    snapshots: u32,
    txn: Vec<u8>,
    running: Option<Running>,
    wants_core: bool,
}

impl Flow {
    /// The application of a member.
    #[must_use]
    pub fn new(member: usize, board: Arc<Board>) -> Self {
        Self {
            member,
            board,
            count: 0,
            staged: 0,
            reported: false,
            snapshots: 0,
            txn: Vec::new(),
            running: None,
            wants_core: false,
        }
    }

    /// Begins to propose.
    pub fn begin(&mut self, job: Job) {
        let running = Running {
            begun: Instant::now(),
            proposed: VecDeque::with_capacity(job.depth),
            latencies: Vec::with_capacity(1 << 20),
            job,
        };
        self.running = Some(running);
        self.wants_core = true;
    }

    /// Proposes one transaction of `len` bytes besides the header; false if there is no room.
    fn propose(&mut self, core: &mut Core<'_>, len: usize) -> bool {
        let Some(zxid) = core.next_zxid() else { return false };
        if !core.can_propose(TxnHeader::LEN + len) {
            return false;
        }
        self.txn.clear();
        TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, kind: 5 }.write(&mut self.txn);
        self.txn.resize(TxnHeader::LEN + len, 7);
        core.propose(&self.txn).is_ok()
    }

    fn go_on(&mut self, core: &mut Core<'_>) {
        let Some(mut running) = self.running.take() else { return };
        let goes_on = running.begun.elapsed() < running.job.span;
        while goes_on
            && running.proposed.len() < running.job.depth
            && self.propose(core, running.job.payload_len)
        {
            running.proposed.push_back(Instant::now());
        }
        if goes_on || !running.proposed.is_empty() {
            self.running = Some(running);
        } else {
            running.end();
        }
    }

    fn note_delivery(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Some(proposed) = running.proposed.pop_front() {
            running.latencies.push(proposed.elapsed());
        }
        self.wants_core = true;
    }
}

impl Running {
    fn end(self) {
        let span = self.begun.elapsed();
        let mut latencies = self.latencies;
        let commits = latencies.len() as u64;
        latencies.sort_unstable();
        // Nobody may be waiting any more.
        let _ = self.job.done.send(Flowed { commits, span, latencies });
    }
}

impl Application for Flow {
    fn deliver(&mut self, _: zab_proto::Instant, _: Zxid, _: &[u8]) {
        self.count += 1;
        if !self.reported {
            self.reported = true;
            self.board.update(self.member, |own| own.delivered = Some(Instant::now()));
        }
        self.note_delivery();
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        let now = Instant::now();
        let before = self.board.lock()[self.member].status;
        let looking = |status: &Status| status.state == ServerState::Looking;
        let decided = !looking(status) && before.is_none_or(|before| looking(&before));
        if decided {
            self.reported = false;
        }
        let serves = status.phase == Phase::Broadcast;
        self.board.update(self.member, |own| {
            own.status = Some(*status);
            if decided {
                (own.decided, own.delivered) = (Some(now), None);
            }
            own.serves = serves.then_some(own.serves.unwrap_or(now));
        });
        if serves && status.state == ServerState::Leading {
            self.propose(core, 0);
        }
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.wants_core = false;
        self.go_on(core);
    }

    fn wants_turn(&self) -> bool {
        self.wants_core
    }

    fn snapshot_open(&mut self) -> u32 {
        self.snapshots += 1;
        self.staged = 0;
        self.snapshots
    }

    fn snapshot_read(&mut self, _: u32, buf: &mut [u8]) -> usize {
        // One snapshot at a time is enough here, and a count is the whole state.
        if self.staged == u64::MAX || buf.len() < 8 {
            return 0;
        }
        self.staged = u64::MAX;
        buf[..8].copy_from_slice(&self.count.to_be_bytes());
        8
    }

    fn snapshot_close(&mut self, _: u32) {}

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let Some(count) = bytes.first_chunk() else {
            return Ok(InstallProgress { consumed: 0, done: false });
        };
        self.staged = u64::from_be_bytes(*count);
        Ok(InstallProgress { consumed: 8, done: true })
    }

    fn install_commit(&mut self, _: Zxid, _: Option<SnapshotDigest>) {
        self.count = self.staged;
    }

    fn install_abort(&mut self) {}

    // No clients, so that no learner forwards anything.
    fn request(&mut self, _: &mut Core<'_>, _: Origin, _: &[u8], _: &[u8]) {}
}
