//! What an all-knowing observer holds against the servers: the committed history and the
//! invariants of broadcast, by their names in the literature on ZAB and in `docs/simulator.md`.
//!
//! The observer sees deliveries, storage calls, disks and bytes on the wire. It never asks the core
//! what it thinks.

use std::collections::BTreeMap;

use zab_proto::{Epoch, EpochKind, Membership, ServerState, Status, Zxid};

use crate::change::Change;
use crate::coverage::Coverage;
use crate::epochs::Reign;
use crate::image::{Image, Op, Rec};
use crate::members;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::Map;
use crate::views::{Quorate, View};
use crate::votes::Votes;

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its name, for instance `B7`.
    pub invariant: &'static str,
    /// What happened.
    pub text: String,
}

/// What is remembered of a server across its incarnations.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// How many transactions of the committed history its application holds.
    pub position: usize,
    /// Its application takes no transaction at present: others may be ahead of it in applying what it has
    /// committed.
    pub(crate) waits: bool,
    /// Its last reported status; `None` while it is down.
    pub status: Option<Status>,
    /// How often its role or phase changed, and with that the meaning of its votes.
    pub elections: u32,
    /// When its process last went on after a pause, or began.
    pub(crate) resumed_at: u64,
    /// Its disk was wiped, as everybody knows, and has not caught up.
    pub(crate) excused: bool,
    /// Highest epochs that were durable on its disk.
    pub(crate) accepted: Option<Epoch>,
    pub(crate) current: Option<Epoch>,
}

/// The observer.
#[derive(Debug)]
pub struct Checker {
    pub(crate) voters: usize,
    /// The members change: whose votes count is then judged by what each server may know.
    pub(crate) dynamic: bool,
    /// There are oracles.
    pub(crate) oracle: bool,
    /// Whose oracle says yes.
    pub(crate) granted: Vec<bool>,
    /// What each server goes by.
    pub(crate) views: Vec<View>,
    pub(crate) quorate: Quorate,
    /// The change that was proposed last.
    pub(crate) change: Change,
    /// The configurations that are committed, from the first one on.
    pub(crate) configs: Vec<Membership>,
    /// All that was ever proposed.
    pub(crate) changes: BTreeMap<Zxid, Membership>,
    /// The committed history: zxid and chain of each transaction.
    canon: Vec<(Zxid, u64)>,
    /// The committed transactions themselves, if the subject wants them.
    records: BTreeMap<Zxid, Box<[u8]>>,
    /// The application's digest after each transaction, from whoever got there first.
    digests: Map<usize, u64>,
    /// Chain of each transaction that ever got a zxid.
    named: Map<Zxid, u64>,
    pub(crate) reigns: BTreeMap<(Epoch, HostIx), Reign>,
    pub(crate) established: BTreeMap<Epoch, HostIx>,
    pub(crate) promises: BTreeMap<(HostIx, Epoch), HostIx>,
    /// What each server has acknowledged in an epoch while it had promised no higher one: only that
    /// may count there (a guest's word does not).
    pub(crate) counted: BTreeMap<(Epoch, HostIx), Zxid>,
    pub(crate) servers: Vec<Watched>,
    pub(crate) votes: Votes,
    /// The servers' longest pause between notifications, in ns.
    pub(crate) notification_max: u64,
    /// The shortest one.
    pub(crate) notification_min: u64,
    /// The counter at which a new epoch begins.
    counter_max: u32,
    /// Deliveries that made a transaction committed and are to be compared with the disks.
    pending: Vec<(Zxid, u64)>,
    /// A disk lost something.
    shrunk: bool,
    /// Steps that plans can be hooked to, since the last look.
    pub(crate) hooks: Vec<(HostIx, &'static str)>,
    /// What was reached.
    pub coverage: Coverage,
    failure: Option<Failure>,
}

impl Checker {
    /// An observer of such servers.
    pub(crate) fn new(options: &Options) -> Self {
        let (voters, servers) = (options.voters, options.servers());
        Self {
            voters,
            dynamic: options.reconfigures(),
            oracle: options.oracle,
            granted: vec![false; servers],
            views: vec![View::new(members::first(options)); servers],
            quorate: Quorate::new(options),
            change: Change::default(),
            configs: vec![members::first(options)],
            changes: BTreeMap::new(),
            votes: Votes::new(servers),
            notification_max: nanos(options.election.max_notification_interval),
            notification_min: nanos(options.election.min_notification_interval),
            counter_max: options.counter_max,
            canon: Vec::new(),
            records: BTreeMap::new(),
            digests: Map::default(),
            named: Map::default(),
            reigns: BTreeMap::new(),
            established: BTreeMap::new(),
            promises: BTreeMap::new(),
            counted: BTreeMap::new(),
            servers: vec![Watched::default(); servers],
            pending: Vec::new(),
            shrunk: false,
            hooks: Vec::new(),
            coverage: Coverage::default(),
            failure: None,
        }
    }

    /// Records a broken invariant; the first one counts.
    pub(crate) fn fail(&mut self, invariant: &'static str, text: String) {
        self.failure.get_or_insert(Failure { invariant, text });
    }

    /// The first broken invariant.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// What is known of a server.
    #[must_use]
    pub fn server(&self, server: HostIx) -> &Watched {
        &self.servers[server]
    }

    /// Number of committed transactions.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.canon.len()
    }

    /// In how many epochs something was committed.
    #[must_use]
    pub fn epochs_committed(&self) -> usize {
        let epochs = self.canon.chunk_by(|(a, _), (b, _)| a.epoch() == b.epoch());
        epochs.count()
    }

    /// The last committed zxid.
    #[must_use]
    pub fn last_committed(&self) -> Zxid {
        self.canon.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid)
    }

    /// The newest transaction that a server's application holds.
    pub(crate) fn applied(&self, server: HostIx) -> Zxid {
        let newest = self.servers[server].position.checked_sub(1);
        newest.and_then(|at| self.canon.get(at)).map_or(Zxid::ZERO, |(zxid, _)| *zxid)
    }

    /// The committed history, with the transactions if [`Subject::RECORDS`](crate::Subject::RECORDS)
    /// is set and somebody has delivered them.
    pub fn history(&self) -> impl Iterator<Item = (Zxid, Option<&[u8]>)> {
        self.canon.iter().map(|(zxid, _)| (*zxid, self.records.get(zxid).map(|txn| &**txn)))
    }

    /// Keeps a delivered transaction.
    pub(crate) fn record(&mut self, zxid: Zxid, txn: &[u8]) {
        self.records.entry(zxid).or_insert_with(|| txn.into());
    }

    /// How many committed transactions are at or below `zxid`.
    #[must_use]
    pub fn position_of(&self, zxid: Zxid) -> usize {
        if self.last_committed() <= zxid {
            return self.canon.len();
        }
        self.canon.partition_point(|(z, _)| *z <= zxid)
    }

    /// The chain of the committed history up to `zxid`.
    pub(crate) fn chain_at(&self, zxid: Zxid) -> u64 {
        let position = self.position_of(zxid);
        if position == 0 { 0 } else { self.canon[position - 1].1 }
    }

    /// Whether an image holds the history that ends with `(zxid, chain)`.
    pub(crate) fn holds(&self, image: &Image, zxid: Zxid, chain: u64) -> bool {
        if zxid <= image.base() || zxid == Zxid::ZERO {
            return self.chain_at(zxid) == chain;
        }
        image.find(zxid).is_some_and(|rec| rec.chain == chain)
    }

    /// Whether the voters of now that satisfy `test` form a quorum.
    pub(crate) fn quorum(&self, test: impl Fn(HostIx) -> bool) -> bool {
        self.is_quorum(self.committed_members(), test)
    }

    /// A transaction is committed.
    fn commit(&mut self, zxid: Zxid, chain: u64) {
        self.canon.push((zxid, chain));
        self.commit_members(zxid);
    }

    // Storage calls.

    /// A server asks its disk for something.
    pub(crate) fn on_issue(&mut self, server: HostIx, what: &'static str) {
        self.hooks.push((server, what));
        self.coverage.count(what);
    }

    /// A server appends to its log. B11, and one zxid for one transaction (B16, B1).
    pub(crate) fn on_append(&mut self, server: HostIx, last: Zxid, zxid: Zxid, chain: u64) {
        self.hooks.push((server, "append"));
        let starts = zxid.epoch() > last.epoch() && zxid.counter() == 1;
        let follows = zxid.epoch() == last.epoch() && zxid.raw() == last.raw() + 1;
        if !starts && !follows {
            self.fail("B11", format!("s{} logs {zxid} after {last}", server + 1));
        }
        if zxid.counter() >= self.counter_max {
            self.fail("B16", format!("s{} uses {zxid}", server + 1));
        }
        if zxid.counter() + 1 == self.counter_max {
            self.coverage.count("counter used up");
        }
        let leading = self.reigns.contains_key(&(zxid.epoch(), server));
        if leading {
            self.hooks.push((server, "propose"));
        }
        match self.named.get(&zxid) {
            Some(known) if *known != chain => {
                let text = format!("s{} logs another history at {zxid}", server + 1);
                self.fail("B3", text);
            }
            Some(_) => {}
            None => {
                if !leading && self.voters > 1 {
                    let text = format!("s{} logs {zxid}, which nobody proposed", server + 1);
                    self.fail("B1", text);
                }
                self.named.insert(zxid, chain);
            }
        }
    }

    /// A server cuts its log. V6: nothing committed goes.
    pub(crate) fn on_truncate(&mut self, server: HostIx, image: &Image, after: Zxid) {
        self.on_issue(server, "truncate");
        if let Some(zxid) = self.committed_above(image, after) {
            let text = format!("s{} truncates to {after}: {zxid} is committed", server + 1);
            self.fail("V6", text);
        }
    }

    /// A server replaces its history by a snapshot and what follows it, up to `end`. V6: nothing committed
    /// goes.
    pub(crate) fn on_install(&mut self, server: HostIx, image: &Image, end: Zxid) {
        self.on_issue(server, "install");
        if let Some(zxid) = self.committed_above(image, end) {
            let text = format!("s{} installs {end} over {zxid}, which is committed", server + 1);
            self.fail("V6", text);
        }
    }

    /// The first committed transaction above `end`, if a disk has it.
    fn committed_above(&self, image: &Image, end: Zxid) -> Option<Zxid> {
        let (zxid, chain) = *self.canon.get(self.position_of(end))?;
        self.holds(image, zxid, chain).then_some(zxid)
    }

    /// A server begins a snapshot of its own. R6, R7: only committed state.
    pub(crate) fn on_snapshot(&mut self, server: HostIx, zxid: Zxid) {
        self.on_issue(server, "snapshot");
        if self.position_of(zxid) != self.servers[server].position {
            let text = format!("s{} labels its state as of {zxid}", server + 1);
            self.fail("B14", text);
        }
    }

    /// A write is durable. P1, P3, and rule R3: an epoch after its history.
    pub(crate) fn on_durable(&mut self, server: HostIx, image: &Image, op: &Op) {
        match op {
            Op::Append(_) => {}
            Op::SetIdentity(_) | Op::SetConfigurations(_) => {}
            Op::Truncate(_) | Op::Install(..) => self.shrunk = true,
            Op::SetEpoch(kind, epoch) => self.on_durable_epoch(server, image, *kind, *epoch),
        }
    }

    fn on_durable_epoch(&mut self, server: HostIx, image: &Image, kind: EpochKind, epoch: Epoch) {
        let watched = &mut self.servers[server];
        let highest = match kind {
            EpochKind::Accepted => &mut watched.accepted,
            EpochKind::Current => &mut watched.current,
        };
        let before = highest.replace(epoch);
        if before.is_some_and(|before| before > epoch) {
            self.fail("P1", format!("s{}: {kind:?} falls to {epoch}", server + 1));
        }
        if image.current.unwrap_or_default() > image.accepted.unwrap_or_default() {
            self.fail("P3", format!("s{}: current epoch {epoch} was not accepted", server + 1));
        }
        if kind == EpochKind::Current && !self.holds_initial(image, epoch) {
            let text = format!("s{}: current epoch {epoch} without its history", server + 1);
            self.fail("V2", text);
        }
    }

    /// A process or host has died. P1, P3, B11, B15 on what is left.
    pub(crate) fn on_death(&mut self, server: HostIx, image: &Image) {
        self.shrunk = true;
        self.strike(server);
        self.servers[server].status = None;
        self.forget_votes(server);
        let watched = &self.servers[server];
        if image.accepted < watched.accepted || image.current < watched.current {
            self.fail("P1", format!("s{} forgets an epoch", server + 1));
        }
        let mut last = image.base();
        for rec in &image.log {
            if rec.zxid <= last || !last.is_followed_by(rec.zxid) {
                let text = format!("s{}: {} follows {last} in its log", server + 1, rec.zxid);
                self.fail("B11", text);
                break;
            }
            last = rec.zxid;
        }
    }

    /// A disk is replaced by an empty one.
    pub(crate) fn on_wipe(&mut self, server: HostIx) {
        self.servers[server] = Watched { excused: true, ..Watched::default() };
        self.promises.retain(|(promiser, _), _| *promiser != server);
        self.counted.retain(|(_, learner), _| *learner != server);
        self.shrunk = true;
    }

    // The application.

    /// A process starts with the state of a snapshot as of `zxid`.
    pub(crate) fn on_start(&mut self, server: HostIx, zxid: Zxid, digest: u64) {
        self.on_state(server, zxid, digest);
        self.revive();
    }

    /// The application's state is replaced. B13, B14.
    pub(crate) fn on_state(&mut self, server: HostIx, zxid: Zxid, digest: u64) {
        let position = self.position_of(zxid);
        self.servers[server].position = position;
        let known = *self.digests.entry(position).or_insert(digest);
        if known != digest {
            let text = format!("s{}: the snapshot at {zxid} has another state", server + 1);
            self.fail("B14", text);
        }
    }

    /// A transaction is delivered. B1, B2, B3, B5, B10, B12, B13.
    pub(crate) fn on_deliver(&mut self, server: HostIx, zxid: Zxid, content: u64) {
        self.coverage.delivered += 1;
        let position = self.servers[server].position;
        let before = if position == 0 { 0 } else { self.canon[position - 1].1 };
        let chain = Rec::link(before, zxid, content);
        match self.canon.get(position) {
            Some(expected) if *expected != (zxid, chain) => {
                let expected = expected.0;
                let what = if expected == zxid { "another " } else { "" };
                let text = format!("s{} applies {what}{zxid}, not {expected}", server + 1);
                self.fail("B2", text);
            }
            Some(_) => {}
            None => {
                let leads = |of: &Watched| {
                    of.status.is_some_and(|status| status.state == ServerState::Leading)
                };
                let leader_waits = self.servers.iter().any(|of| of.waits && leads(of));
                if !leads(&self.servers[server]) && !leader_waits {
                    let text = format!("s{} applies {zxid} before its leader did", server + 1);
                    self.fail("B10", text);
                }
                if zxid <= self.last_committed() {
                    self.fail("B12", format!("s{} applies {zxid} again", server + 1));
                }
                if self.named.get(&zxid) != Some(&chain) {
                    self.fail("B1", format!("s{} applies {zxid}: never logged", server + 1));
                }
                self.commit(zxid, chain);
                self.pending.push((zxid, chain));
            }
        }
        self.servers[server].position = position + 1;
    }

    /// Whether an application takes no transaction at present.
    pub(crate) fn note_waiting(&mut self, server: HostIx, waits: bool) {
        self.servers[server].waits = waits;
    }

    /// What was delivered last, up to `zxid`, is applied to its end.
    pub(crate) fn on_applied(&mut self, server: HostIx, zxid: Zxid, digest: u64) {
        let position = self.servers[server].position;
        let known = *self.digests.entry(position).or_insert(digest);
        if known != digest {
            self.fail("B13", format!("s{}: states differ after {zxid}", server + 1));
        }
    }

    /// Everything in `image` up to `zxid` is committed from now on.
    pub(crate) fn commit_through(&mut self, server: HostIx, image: &Image, zxid: Zxid) {
        let (last, chain) = self.canon.last().copied().unwrap_or((Zxid::ZERO, 0));
        if zxid <= last {
            return;
        }
        if !self.holds(image, last, chain) {
            let text = format!("s{} commits {zxid} without {last} in its history", server + 1);
            self.fail("V8", text);
            return;
        }
        let from = image.log.partition_point(|rec| rec.zxid <= last);
        let new = image.log[from..].iter().take_while(|rec| rec.zxid <= zxid);
        for rec in new {
            self.commit(rec.zxid, rec.chain);
        }
    }

    /// Compares the committed history with the disks, after each event. B7, B8.
    pub(crate) fn compare<'a>(&mut self, durable: impl Fn(HostIx) -> &'a Image) {
        let mut pending = std::mem::take(&mut self.pending);
        for (zxid, chain) in pending.drain(..) {
            if !self.is_committed_by(zxid, |server| self.holds(durable(server), zxid, chain)) {
                self.fail("B7", format!("{zxid} is committed, but not on the disks of a quorum"));
            }
        }
        self.pending = pending;
        if !std::mem::take(&mut self.shrunk) {
            return;
        }
        let Some((zxid, chain)) = self.canon.last().copied() else { return };
        let counted = if self.dynamic { self.servers.len() } else { self.voters };
        for server in 0..counted {
            self.servers[server].excused &= !self.holds(durable(server), zxid, chain);
        }
        let lacks = |server: HostIx| {
            !self.servers[server].excused && !self.holds(durable(server), zxid, chain)
        };
        if self.quorum(lacks) {
            self.fail("B8", format!("a quorum's disks lack {zxid}, which is committed"));
        }
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
