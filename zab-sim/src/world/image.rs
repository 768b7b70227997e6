//! What a disk holds at an instant, and how one write changes it.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use zab_proto::{Epoch, EpochKind, Identity, SnapshotDigest, Zxid};

use crate::mutation::Mutation;
use crate::rng::mix;

/// A record of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rec {
    /// Its zxid.
    pub(crate) zxid: Zxid,
    /// A hash of the whole history up to and including the record: two histories with the same
    /// chain at a zxid are equal up to there.
    pub(crate) chain: u64,
    /// Where its payload lies in the disk's memory.
    pub(crate) start: u32,
    /// The payload's length.
    pub(crate) len: u32,
}

impl Rec {
    /// The chain after a transaction of the given content hash.
    #[must_use]
    pub(crate) fn link(chain: u64, zxid: Zxid, content: u64) -> u64 {
        mix(chain.rotate_left(17) ^ mix(zxid.raw().cast_unsigned()) ^ content)
    }

    /// Where the payload lies.
    #[must_use]
    pub(crate) fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// A snapshot of the application's state.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The last transaction it contains.
    pub(crate) zxid: Zxid,
    /// The application's bytes.
    pub(crate) bytes: Rc<Vec<u8>>,
    /// The digest stored beside it.
    pub(crate) digest: Option<SnapshotDigest>,
    /// The chain of the committed history at `zxid`.
    pub(crate) chain: u64,
}

/// A write.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// See [`zab_proto::Storage::append`].
    Append(Rec),
    /// See [`zab_proto::Storage::set_epoch`].
    SetEpoch(EpochKind, Epoch),
    /// See [`zab_proto::Storage::set_identity`].
    SetIdentity(Identity),
    /// See [`zab_proto::Storage::set_configurations`].
    SetConfigurations(Vec<String>),
    /// See [`zab_proto::Storage::truncate`].
    Truncate(Zxid),
    /// See [`zab_proto::Storage::install`]: a snapshot, and the log behind it.
    Install(Snapshot, Vec<Rec>),
}

/// The contents of a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// `acceptedEpoch`.
    pub(crate) accepted: Option<Epoch>,
    /// `currentEpoch`.
    pub(crate) current: Option<Epoch>,
    /// Which ensemble it belongs to.
    pub(crate) identity: Option<Identity>,
    /// Which configurations count.
    pub(crate) configurations: Vec<String>,
    /// The newest snapshot.
    pub(crate) snapshot: Option<Snapshot>,
    /// The log above the snapshot.
    pub(crate) log: Vec<Rec>,
    /// Records at and below the snapshot that are kept, without a gap.
    pub(crate) kept: Vec<Rec>,
    /// Whether there is a marker that makes an empty directory trustworthy.
    pub(crate) initialize: bool,
    /// Records from here on were never synced (mutations).
    pub(crate) unsynced: Option<usize>,
    /// Records from here to there were never synced (a mutation).
    pub(crate) unsynced_sync: Option<(usize, usize)>,
    /// What a power cut brings back (mutations).
    pub(crate) undo: Option<Box<Self>>,
}

impl Image {
    /// The last zxid and the chain there.
    #[must_use]
    pub(crate) fn last(&self) -> (Zxid, u64) {
        let base = || self.snapshot.as_ref().map_or((Zxid::ZERO, 0), |s| (s.zxid, s.chain));
        self.log.last().map_or_else(base, |rec| (rec.zxid, rec.chain))
    }

    /// The current epoch that a restart goes by: to hold a transaction of an epoch is as good as
    /// having synchronised with its leader.
    #[must_use]
    pub(crate) fn current_in_effect(&self) -> Epoch {
        self.current.unwrap_or_default().max(self.last().0.epoch())
    }

    /// The zxid of the snapshot.
    #[must_use]
    pub(crate) fn base(&self) -> Zxid {
        self.snapshot.as_ref().map_or(Zxid::ZERO, |s| s.zxid)
    }

    /// The record with this zxid.
    #[must_use]
    pub(crate) fn find(&self, zxid: Zxid) -> Option<&Rec> {
        let at = self.log.binary_search_by_key(&zxid, |rec| rec.zxid).ok()?;
        self.log.get(at)
    }

    /// The records above `after` up to `through`, if both are here; they may be below the snapshot. What
    /// the history began with, an installed snapshot for instance, needs no record, and a zxid with
    /// counter 0 has none.
    #[must_use]
    pub(crate) fn between(&self, after: Zxid, through: Zxid) -> Option<VecDeque<Rec>> {
        let all = || self.kept.iter().chain(&self.log);
        let has = |zxid| all().any(|rec| rec.zxid == zxid);
        let whole = self.kept.is_empty();
        let begins = whole && (after == self.base() || after > self.base() && after.counter() == 0);
        let wanted = |rec: &&Rec| rec.zxid > after && rec.zxid <= through;
        ((has(after) || begins) && has(through)).then(|| all().filter(wanted).copied().collect())
    }

    /// Carries out a write.
    pub(crate) fn apply(&mut self, op: &Op, mutation: Option<Mutation>) {
        match op {
            Op::Append(rec) => self.log.push(*rec),
            Op::SetEpoch(EpochKind::Accepted, epoch) => self.accepted = Some(*epoch),
            Op::SetEpoch(EpochKind::Current, epoch) => self.current = Some(*epoch),
            Op::SetIdentity(identity) => self.identity = Some(*identity),
            Op::SetConfigurations(texts) => self.configurations.clone_from(texts),
            Op::Truncate(after) => self.cut(*after),
            Op::Install(snapshot, log) => {
                if mutation == Some(Mutation::InstallKeepsLogTail) {
                    self.log.retain(|rec| rec.zxid > snapshot.zxid);
                } else {
                    self.log.clear();
                }
                let last = self.log.last().map_or(Zxid::ZERO, |rec| rec.zxid);
                self.log.extend(log.iter().filter(|rec| rec.zxid > last));
                self.kept.clear();
                self.snapshot = Some(snapshot.clone());
            }
        }
    }

    fn cut(&mut self, after: Zxid) {
        self.log.retain(|rec| rec.zxid <= after);
        if self.base() > after {
            self.snapshot = None;
            self.kept.clear();
        }
    }

    /// A snapshot of the server's own is complete: the log below it can go.
    pub(crate) fn publish(&mut self, snapshot: &Snapshot, keep: usize) {
        if snapshot.zxid > self.base() && snapshot.zxid <= self.last().0 {
            let below = self.log.partition_point(|rec| rec.zxid <= snapshot.zxid);
            self.kept.extend(self.log.drain(..below));
            let excess = self.kept.len().saturating_sub(keep);
            self.kept.drain(..excess);
            self.snapshot = Some(snapshot.clone());
            self.unsynced = None;
            self.unsynced_sync = None;
        }
    }

    /// Keeps what a mutation's power cut would bring back, or take.
    pub(crate) fn remember_for(&mut self, mutation: Option<Mutation>, op: &Op) {
        let len = self.log.len();
        match (mutation, op) {
            (Some(Mutation::TruncSyncNotDurable), Op::Truncate(after)) => {
                let kept = self.log.partition_point(|rec| rec.zxid <= *after);
                self.unsynced_sync = Some((kept, usize::MAX));
            }
            (Some(Mutation::DiffNotDurable), Op::SetEpoch(EpochKind::Accepted, _)) => {
                self.unsynced_sync = Some((len, usize::MAX));
            }
            (
                Some(Mutation::TruncSyncNotDurable | Mutation::DiffNotDurable),
                Op::SetEpoch(EpochKind::Current, _),
            ) => {
                if let Some((_, to)) = self.unsynced_sync.as_mut().filter(|(_, to)| *to > len) {
                    *to = len;
                }
            }
            (Some(Mutation::LogFileNotLinked), Op::SetEpoch(..)) => {
                self.unsynced.take_if(|from| *from < len);
            }
            (Some(Mutation::DiffNotDurable), Op::Truncate(_)) | (Some(_), Op::Install(..)) => {
                (self.unsynced, self.unsynced_sync) = (None, None);
            }
            _ => {}
        }
        let fits = match mutation {
            Some(Mutation::EpochRenameLost) => {
                matches!(op, Op::SetEpoch(EpochKind::Accepted, _))
            }
            Some(Mutation::TruncateNotDurable) => matches!(op, Op::Truncate(_)),
            Some(Mutation::InstallNotDurable) => matches!(op, Op::Install(..)),
            Some(Mutation::ConfigurationsNotDurable) => matches!(op, Op::SetConfigurations(_)),
            _ => false,
        };
        if fits {
            let before = Self { undo: None, ..self.clone() };
            self.undo = Some(Box::new(before));
        }
    }

    /// What a power cut takes under a mutation.
    pub(crate) fn lose_for(&mut self, mutation: Option<Mutation>) {
        match (mutation, self.undo.take(), self.unsynced.take()) {
            (Some(Mutation::EpochRenameLost), Some(before), _) => self.accepted = before.accepted,
            (Some(Mutation::TruncateNotDurable), Some(before), _) => {
                let cut = before.log.into_iter().filter(|rec| self.find(rec.zxid).is_none());
                let cut: Vec<_> = cut.collect();
                self.log.extend(cut);
                self.log.sort_by_key(|rec| rec.zxid);
            }
            (Some(Mutation::ConfigurationsNotDurable), Some(before), _) => {
                self.configurations = before.configurations;
            }
            (Some(Mutation::InstallNotDurable), Some(before), _) => {
                self.snapshot = before.snapshot;
            }
            (
                Some(Mutation::RecoveredTailNotSynced | Mutation::LogFileNotLinked),
                _,
                Some(from),
            ) => {
                self.log.truncate(from);
            }
            (Some(Mutation::TruncSyncNotDurable | Mutation::DiffNotDurable), _, _) => {
                if let Some((from, to)) = self.unsynced_sync.take() {
                    self.log.drain(from..to.min(self.log.len()));
                }
            }
            _ => {}
        }
    }
}
