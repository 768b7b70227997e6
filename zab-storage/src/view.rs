//! Reading a member's directories without changing them, while the member runs or not.
//!
//! Nothing is locked, made or removed. A running member adds records to its newest log, publishes
//! snapshots by renaming whole files, and removes old ones, so what is read in one pass is the state at
//! the zxid that the pass ends with: a snapshot that is sealed, and after it every record up to that
//! zxid, each checked and none missing. A pass during which files go away fails, and must be repeated.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Application, DigestVerdict, Epoch, EpochKind, Identity, Instant, Zxid};

use crate::commit_point::CommitPoint;
use crate::epoch;
use crate::error::{Damage, Error};
use crate::foreign::warn_once;
use crate::identity;
use crate::log_file::{self, LogReader, Record};
use crate::names::{self, Numbered};
use crate::recover::{load, logs_above};
use crate::snapshot::is_plausible;

/// A member's directories, to be read only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    snap_dir: PathBuf,
    log_dir: PathBuf,
}

/// How far a [`View`] is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Through {
    /// To the end of the log, whether it is committed or not.
    Last,
    /// Up to what the files show to be committed; see [`Survey::committed`].
    Committed,
    /// Up to exactly this zxid.
    Zxid(Zxid),
}

/// What the files tell without being applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Survey {
    /// The epoch that was promised last.
    pub accepted_epoch: Option<Epoch>,
    /// The epoch of the last leader that the member has synchronised with.
    pub current_epoch: Option<Epoch>,
    /// Which ensemble the directory belongs to.
    pub identity: Option<Identity>,
    /// The newest snapshot that looks whole.
    pub snapshot: Option<Zxid>,
    /// The last record of the log, or the snapshot if nothing is after it.
    pub last: Zxid,
    /// When the last record was made, in milliseconds since 1970 by its leader's clock.
    pub last_time_ms: Option<i64>,
    /// What is known to be committed, a lower bound: the snapshot, the record that the commit point
    /// names, and what lies in front of a later epoch.
    pub committed: Zxid,
}

/// What a directory says of its place in the order of histories, without a look into the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Epochs {
    /// The epoch that was promised last.
    pub accepted: Option<Epoch>,
    /// The epoch of the last leader that the member has synchronised with.
    pub current: Option<Epoch>,
    /// Which ensemble the directory belongs to.
    pub identity: Option<Identity>,
    /// The newest file's name: the last transaction is not below it.
    pub last: Zxid,
}

/// What was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The zxid of the state.
    pub zxid: Zxid,
    /// The snapshot that it began with.
    pub snapshot: Zxid,
    /// How many records were applied after it.
    pub records: u64,
    /// Whether the state has the digest that the last record brings that has one.
    pub digest: DigestVerdict,
}

impl View {
    /// The directories `dataDir` and `dataLogDir`.
    #[must_use]
    pub fn new(data_dir: &Path, log_dir: &Path) -> Self {
        Self {
            snap_dir: data_dir.join(names::VERSION_DIR),
            log_dir: log_dir.join(names::VERSION_DIR),
        }
    }

    /// Whether there is anything of a history: a snapshot, a log or an epoch.
    ///
    /// # Errors
    /// [`Error::Io`] if a directory is there and cannot be listed.
    pub fn has_history(&self) -> Result<bool, Error> {
        for dir in [&self.snap_dir, &self.log_dir] {
            if dir.is_dir() && names::list(dir)?.iter().any(|name| names::is_history(name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a server of ours runs on the directories. ZooKeeper's leave no sign.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file is there and cannot be opened.
    pub fn is_in_use(&self) -> Result<bool, Error> {
        use crate::error::Context;
        for dir in [&self.snap_dir, &self.log_dir] {
            let path = dir.join(names::LOCK);
            if !path.exists() {
                continue;
            }
            // Shared, so that two who look do not see each other; given back at once.
            match File::open(&path).context("open", &path)?.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(true),
                Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
            }
        }
        Ok(false)
    }

    /// Reads the epochs and the ensemble's id.
    ///
    /// # Errors
    /// Files that cannot be read or understood.
    pub fn epochs(&self) -> Result<Epochs, Error> {
        let snapshots = names::snapshots(&self.snap_dir)?;
        let logs = names::logs(&self.log_dir)?;
        let last = snapshots.iter().chain(&logs).map(|file| file.zxid).max();
        Ok(Epochs {
            accepted: epoch::read(&self.snap_dir, EpochKind::Accepted)?,
            current: epoch::read(&self.snap_dir, EpochKind::Current)?,
            identity: identity::read_identity(&self.snap_dir)?,
            last: last.unwrap_or(Zxid::ZERO),
        })
    }

    /// Reads headers and checksums of everything after the newest snapshot.
    ///
    /// # Errors
    /// Damage, missing records, no snapshot: whatever would keep a server from starting.
    pub fn survey(&self) -> Result<Survey, Error> {
        let snapshot = self.snapshots(Zxid::from_raw(i64::MAX))?.first().map(|found| found.zxid);
        let base = snapshot.ok_or_else(|| self.no_snapshot())?;
        let point = CommitPoint::read(&self.log_dir);
        let mut tail = Tail::new(base);
        let mut committed = base;
        let mut last_time_ms = None;
        self.each_record(base, |path, record| {
            let last = tail.last;
            if !tail.accept(path, record)? {
                return Ok(true);
            }
            if record.zxid.epoch() != last.epoch() {
                committed = committed.max(last);
            }
            last_time_ms = TxnHeader::parse(record.txn).ok().map(|header| header.time);
            if point.is_some_and(|p| (p.zxid, p.checksum) == (record.zxid, record.checksum)) {
                committed = record.zxid;
            }
            Ok(true)
        })?;
        Ok(Survey {
            accepted_epoch: epoch::read(&self.snap_dir, EpochKind::Accepted)?,
            current_epoch: epoch::read(&self.snap_dir, EpochKind::Current)?,
            identity: identity::read_identity(&self.snap_dir)?,
            snapshot,
            last: tail.last,
            last_time_ms,
            committed,
        })
    }

    /// Loads the state at a zxid into `app`: the newest snapshot that is not beyond it, and the records
    /// after that. `progress` is told the zxid reached, every so many records.
    ///
    /// # Errors
    /// Damage, missing records, no snapshot; [`Error::Short`] if the files do not reach a zxid that was
    /// asked for. What is in `app` then is not to be used.
    pub fn load<A: Application>(
        &self,
        app: &mut A,
        through: Through,
        mut progress: impl FnMut(Zxid),
    ) -> Result<Loaded, Error> {
        let bound = match through {
            Through::Last => Zxid::from_raw(i64::MAX),
            Through::Committed => self.survey()?.committed,
            Through::Zxid(zxid) => zxid,
        };
        let (snapshot, end) = self.load_snapshot(app, bound)?;
        let mut tail = Tail::new(snapshot);
        let mut digest = DigestVerdict::Absent;
        let mut hole = None::<Error>;
        let mut records = 0_u64;
        self.each_record(snapshot, |path, record| {
            if record.zxid > bound {
                return Ok(false);
            }
            let after = tail.last;
            if !tail.accept(path, record)? {
                return Ok(true);
            }
            let lost = after.epoch() == record.zxid.epoch() && record.zxid.raw() != after.raw() + 1;
            let filled = TxnHeader::parse(record.txn).is_ok_and(|header| header.is_unused());
            if (lost || filled) && hole.is_none() {
                let (path, next) = (path.to_path_buf(), record.zxid);
                hole = Some(Error::Hole { path, after, next });
            }
            app.deliver(Instant::ZERO, record.zxid, record.txn);
            if app.failed().is_some() {
                return Err(undecodable(path, record, after));
            }
            records += 1;
            // Inside of a fuzzy snapshot no digest agrees.
            if record.zxid >= end && app.agrees() != DigestVerdict::Absent {
                digest = app.agrees();
                if digest == DigestVerdict::Agrees {
                    // Nothing that counts was missing.
                    hole = None;
                }
            }
            if records.is_multiple_of(PROGRESS_EVERY) {
                progress(record.zxid);
            }
            Ok(true)
        })?;
        if let Some(hole) = hole {
            return Err(hole);
        }
        if tail.last < end || matches!(through, Through::Zxid(zxid) if tail.last != zxid) {
            let wanted = if tail.last < end { end } else { bound };
            return Err(Error::Short { path: self.log_dir.clone(), reached: tail.last, wanted });
        }
        Ok(Loaded { zxid: tail.last, snapshot, records, digest })
    }

    /// The newest snapshot that is whole and has nothing in it from after `bound`: its zxid, and the
    /// last transaction that has left traces in it.
    fn load_snapshot<A: Application>(
        &self,
        app: &mut A,
        bound: Zxid,
    ) -> Result<(Zxid, Zxid), Error> {
        for candidate in self.snapshots(bound)? {
            match load(&candidate.path, candidate.zxid, app) {
                Ok(trailer) => {
                    let end = trailer.end(candidate.zxid);
                    if end <= bound {
                        return Ok((candidate.zxid, end));
                    }
                }
                Err(error) => {
                    app.install_abort();
                    warn_once(&candidate.path, &error.to_string());
                }
            }
        }
        Err(self.no_snapshot())
    }

    /// Snapshots up to `bound` that look whole, newest first.
    fn snapshots(&self, bound: Zxid) -> Result<Vec<Numbered>, Error> {
        if let Some((install, _)) = names::installs(&self.snap_dir)?.pop() {
            // A running member is through with it in a moment; a stopped one goes on when it starts.
            let reason = "a leader's snapshot on its way to its place: the member puts it there";
            return Err(Error::Directory { path: install.path, reason });
        }
        let mut found = names::snapshots(&self.snap_dir)?;
        found.retain(|snapshot| {
            snapshot.zxid <= bound && is_plausible(&snapshot.path).unwrap_or(true)
        });
        Ok(found)
    }

    fn no_snapshot(&self) -> Error {
        Error::NoValidSnapshot(self.snap_dir.clone())
    }

    /// Hands the records of the logs that may hold some above `base` to `each` until it has enough.
    fn each_record(
        &self,
        base: Zxid,
        mut each: impl FnMut(&Path, &Record<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let logs = logs_above(names::logs(&self.log_dir)?, base);
        for (n, log) in logs.iter().enumerate() {
            let mut reader = match LogReader::open(&log.path) {
                // What a crash leaves of a file that was being created, or a file that is being created.
                Err(Error::Damaged { what: Damage::ShortHeader | Damage::BadMagic(0), .. })
                    if n + 1 == logs.len() =>
                {
                    break;
                }
                reader => reader?,
            };
            while let Some(record) = reader.next()? {
                if record.zxid > base && !each(&log.path, &record)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// How many records there are between two reports.
const PROGRESS_EVERY: u64 = 10_000;

fn undecodable(path: &Path, record: &Record<'_>, after: Zxid) -> Error {
    Error::Damaged {
        path: path.to_path_buf(),
        offset: record.offset,
        after: Some(after),
        what: Damage::NotApplicable,
    }
}

/// The order of records. Holes are for the caller to judge.
struct Tail {
    last: Zxid,
    /// Checksums of what was read: a server of Apache's that synchronises again may log again what it
    /// has.
    seen: HashMap<Zxid, u32>,
}

impl Tail {
    fn new(last: Zxid) -> Self {
        Self { last, seen: HashMap::new() }
    }

    /// Whether the record is the next of the history; false if it repeats one.
    fn accept(&mut self, path: &Path, record: &Record<'_>) -> Result<bool, Error> {
        let again = self.seen.get(&record.zxid) == Some(&record.checksum)
            || record.zxid == self.last && log_file::is_error(record.txn);
        if again {
            return Ok(false);
        }
        if record.zxid <= self.last {
            return Err(Error::Damaged {
                path: path.to_path_buf(),
                offset: record.offset,
                after: Some(self.last),
                what: Damage::OutOfOrder(record.zxid),
            });
        }
        self.seen.insert(record.zxid, record.checksum);
        self.last = record.zxid;
        Ok(true)
    }
}
