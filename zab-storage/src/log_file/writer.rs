//! Appending to the log, and the space that is made ahead of its records.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use zab_proto::Zxid;

use super::{HEADER_LEN, header};
use crate::error::{Context, Error};
use crate::fs::{Fs, OutFile};
use crate::names;
use crate::times::FsyncTimes;

/// When the log goes on in a new file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Roll {
    /// Not by size (`txnLogSizeLimitInKb` of 0).
    Never,
    /// Once a file has this many bytes.
    Above(u64),
}

/// Appends to the log. A file is never reopened: each run begins a new one.
#[derive(Debug)]
pub(crate) struct LogWriter {
    fs: Fs,
    dir: PathBuf,
    prealloc: u64,
    force_sync: bool,
    roll: Roll,
    fsync_warning: Duration,
    fsync_times: FsyncTimes,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    out: OutFile,
    /// Bytes written.
    position: u64,
    /// Bytes allocated, the padding included.
    size: u64,
    /// The padding below is not only promised: blocks with zeros in them.
    zeroed: u64,
    /// Whether the directory entry is durable.
    named: bool,
}

/// A file system's block, or a multiple of it.
const BLOCK_LEN: u64 = 4096;

/// How much is zeroed at a time.
const ZEROS_LEN_MIN: u64 = 64 << 10;
const ZEROS_LEN_MAX: u64 = 1 << 20;

/// Batches up to this length are written into zeroed blocks.
const ZEROED_BATCH_LEN_MAX: u64 = 128 << 10;

/// A file of more than that is more than file systems hold, and no log is so long.
const PREALLOC_MAX: u64 = 1 << 40;

/// How far the padding stays ahead of the records. ZooKeeper's value.
const PADDING_MARGIN: u64 = 4096;

impl LogWriter {
    pub(crate) fn new(
        fs: Fs,
        dir: PathBuf,
        prealloc: u64,
        force_sync: bool,
        roll: Roll,
        (fsync_warning, fsync_times): (Duration, FsyncTimes),
    ) -> Self {
        let prealloc = prealloc.min(PREALLOC_MAX);
        Self { fs, dir, prealloc, force_sync, roll, fsync_warning, fsync_times, current: None }
    }

    /// Writes encoded records, the first of which is `first`, and makes them durable.
    pub(crate) fn append(&mut self, first: Zxid, records: &[u8]) -> Result<(), Error> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => {
                let path = self.dir.join(names::log_name(first));
                log::info!("Creating new log file: {}", names::log_name(first));
                let out = Self::create(&self.fs, path)?;
                Current { out, position: HEADER_LEN, size: HEADER_LEN, zeroed: 0, named: false }
            }
        };
        current.allocate(records.len() as u64, self.prealloc)?;
        if self.force_sync {
            current.zero_ahead(records.len() as u64)?;
        }
        current.out.write_all(records).context("write", current.out.path())?;
        current.position += records.len() as u64;
        self.sync(&mut current)?;
        if !matches!(self.roll, Roll::Above(limit) if current.position > limit) {
            self.current = Some(current);
        }
        Ok(())
    }

    /// A log without records.
    pub(crate) fn create(fs: &Fs, path: PathBuf) -> Result<OutFile, Error> {
        let mut out = fs.create(path)?;
        out.write_all(&header()).context("write", out.path())?;
        Ok(out)
    }

    fn sync(&self, current: &mut Current) -> Result<(), Error> {
        if self.force_sync {
            let began = Instant::now();
            current.out.sync()?;
            let took = began.elapsed();
            self.fsync_times.add(took, self.fsync_warning);
            if took > self.fsync_warning {
                log::warn!(
                    "fsync-ing the write ahead log in {} took {}ms which will adversely effect operation \
                     latency.File size is {} bytes. It delays every write; the file is {}",
                    thread::current().name().unwrap_or("the loop"),
                    took.as_millis(),
                    current.size,
                    current.out.path().display()
                );
            }
            if !current.named {
                self.fs.sync_dir(&self.dir)?;
            }
        }
        current.named = true;
        Ok(())
    }

    /// Ends the present file: the next record opens a new one. What is in it is durable already.
    pub(crate) fn roll(&mut self) {
        self.current = None;
    }
}

impl Current {
    /// Extends the padding so that the next `len` bytes fall into it.
    fn allocate(&mut self, len: u64, prealloc: u64) -> Result<(), Error> {
        let end = self.position + len;
        if prealloc == 0 || end + PADDING_MARGIN < self.size {
            return Ok(());
        }
        let mut size = self.size + prealloc;
        if end + PADDING_MARGIN >= size {
            size = end + prealloc;
            size -= size % prealloc;
        }
        self.out.resize(size)?;
        self.size = size;
        Ok(())
    }

    /// Writes zeros ahead of the records, so that the next ones change no metadata: an `fdatasync`
    /// of a block that is new to the file waits for the file system's journal, and takes twice as
    /// long as one of a block that has been written before.
    ///
    /// As much as there are records, to begin with. Long batches do without, as the disk's bandwidth
    /// is what they need.
    fn zero_ahead(&mut self, len: u64) -> Result<(), Error> {
        let end = self.position + len;
        if end <= self.zeroed || len > ZEROED_BATCH_LEN_MAX {
            return Ok(());
        }
        // Not the block that holds the last record already.
        let from = self.zeroed.max(self.position.next_multiple_of(BLOCK_LEN));
        let ahead = self.position.clamp(ZEROS_LEN_MIN, ZEROS_LEN_MAX);
        let through = (end + ahead).next_multiple_of(BLOCK_LEN).min(self.size);
        if from < through {
            self.out.write_zeros(from, through)?;
            self.zeroed = through;
        }
        Ok(())
    }
}
