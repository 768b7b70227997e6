//! A disk at the level of what storage promises: an ordered queue of writes, of which a prefix is
//! durable, and the faults that make the prefix short.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Epoch, EpochKind, Identity, LogReady, Recovered, SnapshotDigest, Storage, Ticket, Zxid,
};

use crate::check::Checker;
use crate::image::{Image, Op, Rec, Snapshot};
use crate::members;
use crate::mutation::Mutation;
use crate::options::DiskOptions;
use crate::plan::Death;
use crate::queue::HostIx;
use crate::rng::{Rng, hash};

/// A snapshot of the server's own, on its way to the disk.
#[derive(Debug)]
struct Writing {
    zxid: Zxid,
    bytes: Vec<u8>,
    digest: Option<SnapshotDigest>,
    sealed: bool,
}

/// A log that is read for a learner.
#[derive(Debug)]
struct OpenLog {
    name: u32,
    /// What is still to be read.
    records: VecDeque<Rec>,
    /// Somebody looks whether it is whole, or has looked.
    searched: bool,
    whole: LogReady,
}

/// What the disk has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    /// The next batch is durable after this many ns.
    pub(crate) batch: Option<u64>,
    /// The background snapshot is published after this many ns.
    pub(crate) publish: Option<u64>,
    /// It is known after this many ns whether a log that was opened is whole.
    pub(crate) log: Option<u64>,
}

/// One server's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    server: HostIx,
    checker: Rc<RefCell<Checker>>,
    options: DiskOptions,
    mutation: Option<Mutation>,
    rng: Rng,
    /// Payloads; records hold ranges of it.
    arena: Vec<u8>,
    /// What survives a power cut.
    pub(crate) durable: Image,
    /// What there will be when the queue is done.
    pub(crate) issued: Image,
    queue: VecDeque<(Ticket, Op)>,
    /// Operations of the batch that is being synced.
    syncing: usize,
    stage: Vec<u8>,
    /// The log behind the staged snapshot.
    staged: Vec<Rec>,
    writing: Option<Writing>,
    publishing: bool,
    logged: usize,
    stalled: bool,
    /// When the batch that is being synced will be durable.
    pub(crate) busy_until: u64,
    logs: Vec<OpenLog>,
    next_log: u32,
    /// What is kept beside the log of what is committed.
    commit_point: Option<Zxid>,
    /// Most recent ticket.
    pub(crate) last_ticket: Ticket,
}

impl Disk {
    /// An empty disk. `initialize`: its emptiness is to be trusted.
    #[must_use]
    pub(crate) fn new(
        server: HostIx,
        checker: Rc<RefCell<Checker>>,
        options: DiskOptions,
        mutation: Option<Mutation>,
        initialize: bool,
        rng: Rng,
    ) -> Self {
        let image = Image { initialize, ..Image::default() };
        Self {
            server,
            checker,
            options,
            mutation,
            rng,
            arena: Vec::new(),
            durable: image.clone(),
            issued: image,
            queue: VecDeque::new(),
            syncing: 0,
            stage: Vec::new(),
            staged: Vec::new(),
            writing: None,
            publishing: false,
            logged: 0,
            stalled: false,
            busy_until: 0,
            logs: Vec::new(),
            next_log: 0,
            commit_point: None,
            last_ticket: Ticket(0),
        }
    }

    /// Ends everything that makes the disk bad. An fsync takes at most `delay_max` on average from
    /// here on.
    pub(crate) fn heal(&mut self, delay_max: u64) {
        self.options.min = self.options.min.min(delay_max);
        self.options.mean = self.options.mean.min(delay_max);
        self.options.batch = self.options.batch.max(1000);
        self.options.stall_per_mille = 0;
        self.options.fail_per_million = 0;
        self.stalled = false;
    }

    /// Whether nothing is on its way to the disk, but for a snapshot.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Holds back completions until released.
    pub(crate) fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// What it does next fails.
    pub(crate) fn fail(&mut self) {
        self.options.fail_per_million = 1_000_000;
    }

    /// Starts what can be started.
    pub(crate) fn start(&mut self) -> Work {
        let mut work = Work { batch: None, publish: None, log: None };
        if self.syncing == 0 && !self.queue.is_empty() && !self.stalled {
            let epoch = self.queue.iter().position(|(_, op)| !matches!(op, Op::Append(_)));
            let end = epoch.map_or(self.queue.len(), |at| at + 1);
            self.syncing = end.min(self.options.batch);
            let mut latency = self.options.min + self.rng.exponential(self.options.mean);
            if self.rng.chance(self.options.stall_per_mille) {
                latency += self.rng.exponential(self.options.stall);
            }
            work.batch = Some(latency);
        }
        if self.logs.iter().any(|log| !log.searched) {
            self.logs.iter_mut().for_each(|log| log.searched = true);
            work.log = Some(self.options.min + self.rng.exponential(self.options.mean));
        }
        if self.writing.as_ref().is_some_and(|w| w.sealed) && !self.publishing {
            self.publishing = true;
            work.publish = Some(10 * self.options.min + self.rng.exponential(self.options.mean));
        }
        work
    }

    /// The batch is done. Returns the highest durable ticket, or `None` if the disk failed.
    pub(crate) fn complete(&mut self) -> Option<Ticket> {
        if self.rng.below(1_000_000) < u64::from(self.options.fail_per_million) {
            if self.options.fail_per_million == 1_000_000 {
                self.options.fail_per_million = 0;
            }
            return None;
        }
        let mut through = None;
        for _ in 0..std::mem::take(&mut self.syncing) {
            let (ticket, op) = self.queue.pop_front().expect("a batch is part of the queue");
            self.make_durable(&op);
            through = Some(ticket);
        }
        through
    }

    fn make_durable(&mut self, op: &Op) {
        let skipped = match self.mutation {
            Some(Mutation::AppendErrorIgnored) => matches!(op, Op::Append(_)) && self.rng.chance(5),
            Some(Mutation::TruncateKeepsTail) => matches!(op, Op::Truncate(_)),
            _ => false,
        };
        if skipped {
            return;
        }
        self.durable.remember_for(self.mutation, op);
        self.durable.apply(op, self.mutation);
        self.checker.borrow_mut().on_durable(self.server, &self.durable, op);
    }

    /// The background snapshot is published.
    pub(crate) fn publish(&mut self) {
        self.publishing = false;
        let Some(writing) = self.writing.take() else { return };
        let snapshot = Snapshot {
            zxid: writing.zxid,
            bytes: Rc::new(writing.bytes),
            digest: writing.digest,
            chain: self.checker.borrow().chain_at(writing.zxid),
        };
        self.durable.publish(&snapshot, self.options.log_kept);
        self.issued.publish(&snapshot, self.options.log_kept);
    }

    /// It is known whether the logs that were opened are whole.
    pub(crate) fn log_found(&mut self) {
        for log in self.logs.iter_mut().filter(|log| log.searched && log.whole == LogReady::NotYet)
        {
            let whole = !self.rng.chance(self.options.log_gap_per_mille);
            let what = if whole { "sync: DIFF from the log" } else { "log with a gap" };
            self.checker.borrow_mut().coverage.count(what);
            log.whole = if whole { LogReady::Whole } else { LogReady::Incomplete };
        }
    }

    /// What is left after the process or the host died.
    pub(crate) fn die(&mut self, death: Death) {
        self.checker.borrow_mut().on_dying(self.server, &self.durable, &self.issued);
        // A kill loses what the process still held back; a power cut keeps what the kernel had
        // flushed of its own accord.
        let survivors = self.rng.index(self.queue.len() + 1);
        let kept = match death {
            Death::Kill if self.options.kill_keeps_all => self.queue.len(),
            Death::Kill => survivors.max(self.syncing),
            Death::Power => survivors.min(self.syncing),
        };
        let synced = self.durable.log.len();
        for (_, op) in self.queue.drain(..).take(kept).collect::<Vec<_>>() {
            self.make_durable(&op);
        }
        self.syncing = 0;
        self.writing = None;
        self.publishing = false;
        self.logs.clear();
        self.discard_stage();
        if death == Death::Power {
            self.commit_point.take_if(|_| self.rng.chance(500));
            self.durable.lose_for(self.mutation);
        } else if self.mutation == Some(Mutation::RecoveredTailNotSynced) {
            self.durable.unsynced = Some(synced.min(self.durable.log.len()));
        }
        self.issued = self.durable.clone();
        self.checker.borrow_mut().on_death(self.server, &self.durable);
    }

    /// The disk is replaced by an empty one, as its operator declares.
    pub(crate) fn wipe(&mut self) {
        self.durable = Image::default();
        self.issued = Image::default();
        self.commit_point = None;
        self.checker.borrow_mut().on_wipe(self.server);
    }

    /// The disk of a dead server is one of another ensemble, with so many transactions of one epoch.
    pub(crate) fn make_foreign(&mut self, epoch: Epoch, txns: u32, identity: Option<Identity>) {
        let mut image =
            Image { accepted: Some(epoch), current: Some(epoch), identity, ..Image::default() };
        let mut chain = 0;
        for counter in 1..=txns {
            let zxid = Zxid::new(epoch, counter);
            let start = u32::try_from(self.arena.len()).expect("a run writes less than 4 GiB");
            TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, kind: -1 }.write(&mut self.arena);
            self.arena.extend_from_slice(&[0; 4]);
            let len = u32::try_from(self.arena.len()).expect("as above") - start;
            chain = Rec::link(chain, zxid, 0xf0e);
            image.log.push(Rec { zxid, chain, start, len });
        }
        (self.durable, self.issued) = (image.clone(), image);
    }

    /// The files of a dead server say something else than was written.
    pub(crate) fn damage_epochs(&mut self, accepted: Epoch, current: Option<Epoch>) {
        for image in [&mut self.durable, &mut self.issued] {
            image.accepted = Some(accepted);
            image.current = current.or(image.current);
        }
    }

    /// What a starting process finds, and how far the log is known to be committed.
    pub(crate) fn recover(&mut self) -> (Recovered, Option<Snapshot>, Zxid) {
        self.logged = self.durable.log.len();
        if self.mutation == Some(Mutation::LogFileNotLinked) {
            self.durable.unsynced = Some(self.durable.log.len());
        }
        let image = &self.durable;
        let mut recovered = Recovered::default();
        recovered.accepted_epoch = image.accepted;
        recovered.current_epoch = image.current;
        recovered.snapshot = image.snapshot.as_ref().map(|s| s.zxid);
        recovered.snapshot_end = image.base();
        recovered.identity = image.identity;
        if self.mutation != Some(Mutation::ConfigurationsForgotten) {
            recovered.configurations.clone_from(&image.configurations);
        }
        if self.mutation == Some(Mutation::NewLeaderCommits)
            && let Some(told) = self.checker.borrow().views[self.server].told.clone()
        {
            recovered.configurations = vec![told];
        }
        recovered.initialize = image.initialize;
        for rec in &image.log {
            recovered.push(rec.zxid, &self.arena[rec.range()]);
        }
        (recovered, image.snapshot.clone(), self.committed_through())
    }

    /// The commit point, if the log has its record; and what lies in front of the last epoch.
    fn committed_through(&self) -> Zxid {
        let image = &self.durable;
        let named = self.commit_point.filter(|point| image.find(*point).is_some());
        let (last, _) = image.last();
        let older = image.log.iter().rev().find(|rec| rec.zxid.epoch() < last.epoch());
        let older = older.map_or(Zxid::ZERO, |rec| rec.zxid);
        let through = named.unwrap_or(Zxid::ZERO).max(older);
        if through > image.base() {
            let what =
                if named >= Some(through) { "commit point used" } else { "epochs before used" };
            self.checker.borrow_mut().coverage.count(what);
        }
        through
    }

    /// The observer hears of a transaction that changes the members.
    fn note_change(&self, zxid: Zxid, txn: &[u8]) {
        if let Some(ensemble) = members::configuration(txn) {
            let holds = |zxid| self.issued.find(zxid).is_some();
            self.checker.borrow_mut().on_change(self.server, zxid, ensemble, holds);
        }
    }

    /// Keeps a payload. `chain`: of the record in front.
    fn record(&mut self, chain: u64, zxid: Zxid, txn: &[u8]) -> Rec {
        let start = u32::try_from(self.arena.len()).expect("a run writes less than 4 GiB");
        self.arena.extend_from_slice(txn);
        let len = u32::try_from(txn.len()).expect("a transaction is far below 4 GiB");
        Rec { zxid, chain: Rec::link(chain, zxid, hash(txn)), start, len }
    }

    fn issue(&mut self, ticket: Ticket, op: Op) {
        assert!(ticket > self.last_ticket, "tickets rise");
        self.last_ticket = ticket;
        if let (Some(Mutation::EpochBeforeHistory), Op::SetEpoch(EpochKind::Current, epoch)) =
            (self.mutation, &op)
        {
            self.durable.current = Some(*epoch);
            let op = Op::SetEpoch(EpochKind::Current, *epoch);
            self.checker.borrow_mut().on_durable(self.server, &self.durable, &op);
        }
        self.issued.apply(&op, None);
        self.queue.push_back((ticket, op));
    }
}

impl Storage for Disk {
    fn set_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch) {
        self.checker.borrow_mut().on_issue(self.server, "set_epoch");
        self.issue(ticket, Op::SetEpoch(kind, epoch));
    }

    fn set_identity(&mut self, ticket: Ticket, identity: Identity) {
        self.issue(ticket, Op::SetIdentity(identity));
    }

    fn set_configurations(&mut self, ticket: Ticket, texts: &[String]) {
        self.checker.borrow_mut().on_issue(self.server, "configurations");
        self.issue(ticket, Op::SetConfigurations(texts.to_vec()));
    }

    fn append(&mut self, ticket: Ticket, zxid: Zxid, txn: &[u8]) {
        let (last, chain) = self.issued.last();
        let rec = self.record(chain, zxid, txn);
        self.checker.borrow_mut().on_append(self.server, last, zxid, rec.chain);
        self.note_change(zxid, txn);
        self.logged += 1;
        self.issue(ticket, Op::Append(rec));
    }

    fn truncate(&mut self, ticket: Ticket, after: Zxid) {
        self.checker.borrow_mut().on_truncate(self.server, &self.issued, after);
        self.issue(ticket, Op::Truncate(after));
    }

    fn stage(&mut self, piece: &[u8]) {
        self.stage.extend_from_slice(piece);
    }

    fn stage_txn(&mut self, zxid: Zxid, txn: &[u8]) {
        // Linked to what is in front of it when that is known.
        let rec = self.record(0, zxid, txn);
        self.staged.push(rec);
    }

    fn discard_stage(&mut self) {
        self.stage.clear();
        self.staged.clear();
    }

    fn install(&mut self, ticket: Ticket, zxid: Zxid, digest: Option<SnapshotDigest>) {
        let bytes = Rc::new(std::mem::take(&mut self.stage));
        let mut log = std::mem::take(&mut self.staged);
        let at_once = self.mutation != Some(Mutation::InstallInParts);
        let chain = {
            let mut checker = self.checker.borrow_mut();
            let end = log.last().filter(|_| at_once).map_or(zxid, |rec| rec.zxid);
            checker.on_install(self.server, &self.issued, end);
            let chain = checker.chain_at(zxid);
            let mut before = (zxid, chain);
            for rec in &mut log {
                rec.chain = Rec::link(before.1, rec.zxid, hash(&self.arena[rec.range()]));
                checker.on_append(self.server, before.0, rec.zxid, rec.chain);
                before = (rec.zxid, rec.chain);
            }
            chain
        };
        self.writing = None;
        self.logged += log.len();
        let later = if at_once { Vec::new() } else { std::mem::take(&mut log) };
        self.issue(ticket, Op::Install(Snapshot { zxid, bytes, digest, chain }, log));
        for rec in later {
            self.issued.apply(&Op::Append(rec), None);
            self.queue.push_back((ticket, Op::Append(rec)));
        }
    }

    fn committed(&mut self, zxid: Zxid) {
        let point = match self.mutation {
            Some(Mutation::CommitPointAhead) => self.durable.last().0,
            _ => zxid,
        };
        let written = point <= self.durable.last().0 && Some(point) > self.commit_point;
        if written && self.rng.chance(self.options.commit_point_per_mille) {
            self.commit_point = Some(point);
        }
    }

    fn log_open(&mut self, after: Zxid, through: Zxid, _: bool) -> Option<u32> {
        let records = self.issued.between(after, through)?;
        self.next_log += 1;
        let name = self.next_log;
        self.logs.push(OpenLog { name, records, searched: false, whole: LogReady::NotYet });
        Some(name)
    }

    fn log_ready(&mut self, log: u32) -> LogReady {
        self.logs.iter().find(|open| open.name == log).map_or(LogReady::NotYet, |open| open.whole)
    }

    fn log_read(&mut self, log: u32, txn: &mut Vec<u8>) -> Option<Zxid> {
        let open = self.logs.iter_mut().find(|open| open.name == log)?;
        let rec = open.records.pop_front()?;
        txn.clear();
        txn.extend_from_slice(&self.arena[rec.range()]);
        Some(rec.zxid)
    }

    fn log_close(&mut self, log: u32) {
        self.logs.retain(|open| open.name != log);
    }

    fn snapshot_due(&self) -> bool {
        let every = self.options.snapshot_every;
        every > 0 && self.logged >= every && self.writing.is_none()
    }

    fn snapshot_begin(&mut self, zxid: Zxid) {
        self.logged = 0;
        self.checker.borrow_mut().on_snapshot(self.server, zxid);
        self.writing = Some(Writing { zxid, bytes: Vec::new(), digest: None, sealed: false });
    }

    fn snapshot_room(&self) -> usize {
        1 << 20
    }

    fn snapshot_piece(&mut self, piece: &[u8]) {
        if let Some(writing) = &mut self.writing {
            writing.bytes.extend_from_slice(piece);
        }
    }

    fn snapshot_finish(&mut self, digest: Option<SnapshotDigest>) {
        if let Some(writing) = &mut self.writing {
            writing.digest = digest;
            writing.sealed = true;
        }
    }
}
