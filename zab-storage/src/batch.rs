//! Writes that wait for the disk, and their execution.

use std::io::Write as _;

use zab_proto::{Epoch, EpochKind, Identity, SnapshotDigest, Ticket, Zxid};

use crate::commit_point::CommitPoint;
use crate::configurations::{self, OnConfigurations};
use crate::epoch;
use crate::error::{Context, Error};
use crate::foreign::warn_once;
use crate::fs::OutFile;
use crate::identity;
use crate::install::Dirs;
use crate::log_file::{self, LogWriter};
use crate::names::{self, Compression};
use crate::recover::write_initial;
use crate::snapshot::{Pace, SnapshotWriter};
use crate::snapshot_job::Published;

/// What to write, in order. `bytes` holds what the entries need, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Of what lies before or in this batch this is known to be committed.
    committed: Option<CommitPoint>,
}

/// A buffer that a burst has blown up beyond this is given back.
const KEPT_LEN_MAX: usize = 8 << 20;

#[derive(Clone, Copy, Debug)]
struct Entry {
    write: Write,
    /// The last ticket up to here.
    through: Ticket,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    /// `count` records in `len` bytes: one write, one fsync.
    Append {
        first: Zxid,
        count: usize,
        len: usize,
    },
    Epoch {
        kind: EpochKind,
        epoch: Epoch,
    },
    Identity(Identity),
    /// The configurations, as their file holds them.
    Configurations {
        len: usize,
    },
    /// Snapshots of our own up to number `void` must not be published afterwards.
    Truncate {
        after: Zxid,
        void: u64,
    },
    Install {
        zxid: Zxid,
        digest: Option<SnapshotDigest>,
        void: u64,
    },
    Stage {
        len: usize,
    },
    /// Encoded records that follow the staged snapshot.
    StageLog {
        len: usize,
    },
    DiscardStage,
    Roll,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn push(&mut self, write: Write, through: Ticket) {
        self.entries.push(Entry { write, through });
    }

    /// The commit point is written with the next batch that has something else to write.
    pub(crate) fn committed(&mut self, point: CommitPoint) {
        self.committed = Some(point);
    }

    /// Adds a record; it shares the write and the fsync of the records just before it.
    pub(crate) fn append(&mut self, zxid: Zxid, txn: &[u8], through: Ticket, run_max: usize) {
        let before = self.bytes.len();
        log_file::encode(&mut self.bytes, txn);
        let added = self.bytes.len() - before;
        if let Some(Entry { write: Write::Append { count, len, .. }, through: last }) =
            self.entries.last_mut()
            && (run_max == 0 || *count < run_max)
        {
            *count += 1;
            *len += added;
            *last = through;
            return;
        }
        self.push(Write::Append { first: zxid, count: 1, len: added }, through);
    }

    pub(crate) fn stage(&mut self, piece: &[u8], through: Ticket) {
        self.bytes.extend_from_slice(piece);
        if let Some(Entry { write: Write::Stage { len }, .. }) = self.entries.last_mut() {
            *len += piece.len();
            return;
        }
        self.push(Write::Stage { len: piece.len() }, through);
    }

    /// Adds a record that follows the staged snapshot.
    pub(crate) fn stage_log(&mut self, txn: &[u8], through: Ticket) {
        let before = self.bytes.len();
        log_file::encode(&mut self.bytes, txn);
        let added = self.bytes.len() - before;
        if let Some(Entry { write: Write::StageLog { len }, .. }) = self.entries.last_mut() {
            *len += added;
            return;
        }
        self.push(Write::StageLog { len: added }, through);
    }

    pub(crate) fn configurations(&mut self, texts: &[String], through: Ticket) {
        let content = configurations::encode(texts);
        self.bytes.extend_from_slice(content.as_bytes());
        self.push(Write::Configurations { len: content.len() }, through);
    }

    /// How many bytes are pieces of a leader's snapshot.
    pub(crate) fn staged_len(&self) -> usize {
        let len = |entry: &Entry| match entry.write {
            Write::Stage { len } => len,
            Write::Append { .. }
            | Write::StageLog { .. }
            | Write::Epoch { .. }
            | Write::Identity(_)
            | Write::Configurations { .. }
            | Write::Truncate { .. }
            | Write::Install { .. }
            | Write::DiscardStage
            | Write::Roll => 0,
        };
        self.entries.iter().map(len).sum()
    }

    /// Adds everything in `other` after what is here, and empties it.
    pub(crate) fn take_from(&mut self, other: &mut Self) {
        self.committed = other.committed.take().or(self.committed);
        if self.is_empty() {
            std::mem::swap(&mut self.bytes, &mut other.bytes);
            std::mem::swap(&mut self.entries, &mut other.entries);
        } else {
            self.bytes.append(&mut other.bytes);
            self.entries.append(&mut other.entries);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_LEN_MAX);
        self.entries.clear();
    }
}

/// Executes batches: the only one who changes logs, epochs and leaders' snapshots.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) dirs: Dirs,
    pub(crate) log: LogWriter,
    pub(crate) stage: Option<SnapshotWriter>,
    pub(crate) stage_log: Option<OutFile>,
    /// What `snapshot.0` is to hold, while there is no snapshot at all.
    pub(crate) initial: Option<Vec<u8>>,
    pub(crate) compression: Compression,
    pub(crate) zxid_section: bool,
    pub(crate) published: std::sync::Arc<Published>,
    pub(crate) on_configurations: OnConfigurations,
}

impl Executor {
    /// Makes a batch durable and empties it. `durable` is told the highest ticket after each step.
    pub(crate) fn run(
        &mut self,
        batch: &mut Batch,
        mut durable: impl FnMut(Ticket),
    ) -> Result<(), Error> {
        let mut at = 0;
        for entry in &batch.entries {
            let len = match entry.write {
                Write::Append { len, .. }
                | Write::Configurations { len }
                | Write::Stage { len }
                | Write::StageLog { len } => len,
                Write::Epoch { .. }
                | Write::Identity(_)
                | Write::Truncate { .. }
                | Write::Install { .. }
                | Write::DiscardStage
                | Write::Roll => 0,
            };
            self.execute(entry.write, &batch.bytes[at..at + len])?;
            at += len;
            durable(entry.through);
        }
        batch.clear();
        if let Some(point) = batch.committed.take()
            && let Err(error) = point.write(&self.dirs.fs, &self.dirs.log)
        {
            // A start without it takes more memory, and nothing else depends on it.
            warn_once(&self.dirs.log, &format!("how far it is committed is not noted: {error}"));
        }
        Ok(())
    }

    fn execute(&mut self, write: Write, bytes: &[u8]) -> Result<(), Error> {
        match write {
            Write::Append { first, .. } => {
                self.begin_history()?;
                self.log.append(first, bytes)
            }
            Write::Epoch { kind, epoch } => {
                if kind == EpochKind::Current {
                    self.begin_history()?;
                }
                epoch::write(&self.dirs.fs, &self.dirs.snap, kind, epoch)
            }
            Write::Identity(identity) => identity::write(&self.dirs.fs, &self.dirs.snap, identity),
            Write::Configurations { .. } => {
                let texts = configurations::decode(bytes).unwrap_or_default();
                configurations::write(&self.dirs.fs, &self.dirs.snap, &texts)?;
                self.on_configurations.tell(&texts);
                Ok(())
            }
            Write::Truncate { after, void } => {
                self.log.roll();
                self.begin_history()?;
                self.published.void_through(void);
                self.dirs.truncate(after)
            }
            Write::Stage { .. } => {
                let mut stage = self.take_stage()?;
                let result = stage.write(bytes);
                self.stage = Some(stage);
                result
            }
            Write::StageLog { .. } => {
                let mut log = match self.stage_log.take() {
                    Some(log) => log,
                    None => LogWriter::create(&self.dirs.fs, self.dirs.log.join(names::STAGE_LOG))?,
                };
                log.write_all(bytes).context("write", log.path())?;
                self.stage_log = Some(log);
                Ok(())
            }
            Write::DiscardStage => {
                (self.stage, self.stage_log) = (None, None);
                Ok(())
            }
            Write::Install { zxid, digest, void } => {
                self.log.roll();
                let stage = self.take_stage()?;
                stage.finish(digest, self.zxid_section.then_some(zxid))?;
                self.published.void_through(void);
                self.initial = None;
                let mut log = self.stage_log.take();
                if let Some(log) = &mut log {
                    log.sync()?;
                    self.dirs.fs.sync_dir(&self.dirs.log)?;
                }
                self.dirs.install(zxid, self.compression, log.is_some())
            }
            Write::Roll => {
                self.log.roll();
                Ok(())
            }
        }
    }

    fn take_stage(&mut self) -> Result<SnapshotWriter, Error> {
        match self.stage.take() {
            Some(stage) => Ok(stage),
            None => {
                let path = self.dirs.snap.join(names::STAGE);
                SnapshotWriter::create(&self.dirs.fs, &path, self.compression, Pace::Full)
            }
        }
    }

    /// An empty directory stays recognisable as such until there is history in it (rule R14). Then
    /// it needs a snapshot, as log entries without one are refused.
    fn begin_history(&mut self) -> Result<(), Error> {
        match self.initial.take() {
            Some(bytes) => write_initial(&self.dirs, &bytes, self.zxid_section),
            None => Ok(()),
        }
    }
}
