//! Reading a stretch of the log again, for a learner that is further behind than the leader's
//! memory reaches.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use byteorder::{BigEndian, ByteOrder};
use bytes::BufMut;
use zab_proto::{LogReady, Zxid};

use crate::error::{Context, Error};
use crate::install::Dirs;
use crate::log_file::{self, LogReader};
use crate::names;

/// A chunk holds at least one record, and is full above this many bytes.
const CHUNK_LEN: usize = 64 << 10;
/// Chunks that may wait for the owner.
const CHUNKS_MAX: usize = 4;
/// As much log is always better than a snapshot, whatever the size of the last one: it takes some
/// hundredths of a second, and clients of the learner keep their connections.
const LEN_MIN: u64 = 16 << 20;
/// Records looked at before asking whether the proof is still wanted.
const RECORDS_PER_STEP: usize = 256;

/// A stretch of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// The history is known to be without a hole from here on.
    pub(crate) base: Zxid,
    /// What the learner has.
    pub(crate) after: Zxid,
    /// The last transaction wanted.
    pub(crate) through: Zxid,
    /// More bytes than this part of the newest snapshot are not worth it.
    pub(crate) factor: f64,
}

/// Walks over a stretch of the log twice: first to prove that nothing is missing in it, then to
/// read it.
#[derive(Debug)]
pub(crate) struct Walk {
    stretch: Stretch,
    dirs: Dirs,
    plan: Option<Plan>,
    at: usize,
    reader: Option<LogReader>,
    last: Option<Zxid>,
    anchor: Zxid,
    len: u64,
}

#[derive(Debug)]
struct Plan {
    paths: Vec<PathBuf>,
    len_max: u64,
}

/// How the proof stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    /// Not decided yet.
    Open,
    /// Nothing is missing.
    Proven,
    /// Something is missing, or there is too much.
    Failed,
}

impl Walk {
    /// Nothing is read yet.
    pub(crate) fn new(dirs: &Dirs, stretch: Stretch) -> Self {
        Self {
            stretch,
            dirs: dirs.clone(),
            plan: None,
            at: 0,
            reader: None,
            last: None,
            anchor: stretch.base,
            len: 0,
        }
    }

    /// Which files to read, and how much at most.
    fn plan(&self) -> Result<Plan, Error> {
        let Stretch { after, through, factor, .. } = self.stretch;
        let mut logs = names::logs(&self.dirs.log)?;
        let first = logs.partition_point(|log| log.zxid <= after).saturating_sub(1);
        logs.drain(..first);
        logs.retain(|log| log.zxid <= through);
        let paths = logs.into_iter().map(|log| log.path).collect();
        let len_max = match names::snapshots(&self.dirs.snap)?.first() {
            Some(newest) => part_of(file_len(&newest.path)?, factor).max(LEN_MIN),
            None => u64::MAX,
        };
        Ok(Plan { paths, len_max })
    }

    /// Looks at up to `records` more records.
    fn prove(&mut self, records: usize) -> Result<Proof, Error> {
        if self.plan.is_none() {
            self.plan = Some(self.plan()?);
        }
        let len_max = self.plan.as_ref().map_or(0, |plan| plan.len_max);
        for _ in 0..records {
            let last = self.last.unwrap_or(self.stretch.base);
            if last == self.stretch.through {
                return Ok(Proof::Proven);
            }
            let stretch = self.stretch;
            let Some(record) = self.next()? else { return Ok(Proof::Failed) };
            let (zxid, len) = (record.zxid, record.txn.len() as u64);
            let repeated = zxid == last && log_file::is_error(record.txn);
            if zxid <= stretch.base || repeated {
                continue;
            }
            // The record that the walk begins with follows what is known, or is known itself.
            let begins = self.last.is_none() && zxid <= stretch.after;
            if !begins && !follows(last, zxid) {
                return Ok(Proof::Failed);
            }
            self.last = Some(zxid);
            if zxid <= stretch.after {
                self.anchor = zxid;
            } else {
                self.len += len;
                if self.len > len_max {
                    return Ok(Proof::Failed);
                }
            }
        }
        Ok(Proof::Open)
    }

    /// Proves the whole stretch, as long as somebody waits for it, and goes back to its start.
    /// Returns the newest transaction of this history that is not above `after`.
    fn prove_all(&mut self, wanted: impl Fn() -> bool) -> Option<Zxid> {
        while wanted() {
            match self.prove(RECORDS_PER_STEP) {
                Ok(Proof::Open) => {}
                Ok(Proof::Proven) => {
                    (self.at, self.reader, self.last) = (0, None, None);
                    return Some(self.anchor);
                }
                Ok(Proof::Failed) => return None,
                Err(error) => {
                    failed(error);
                    return None;
                }
            }
        }
        None
    }

    /// Adds the next transaction to a chunk; false at the end of the stretch.
    fn read(&mut self, chunk: &mut Vec<u8>) -> Result<bool, Error> {
        let Stretch { after, through, .. } = self.stretch;
        let last = self.last.unwrap_or(after);
        loop {
            if last >= through {
                return Ok(false);
            }
            let Some(record) = self.next()? else { return Ok(false) };
            if record.zxid > last {
                let zxid = record.zxid;
                let len = u32::try_from(record.txn.len()).expect("a record is shorter than 2 GiB");
                chunk.put_i64(zxid.raw());
                chunk.put_u32(len);
                chunk.put_slice(record.txn);
                self.last = Some(zxid);
                return Ok(true);
            }
        }
    }

    /// The next record of any of the files.
    fn next(&mut self) -> Result<Option<log_file::Record<'_>>, Error> {
        loop {
            if self.reader.is_none() {
                let paths = self.plan.as_ref().map_or(&[][..], |plan| &plan.paths);
                let Some(path) = paths.get(self.at) else { return Ok(None) };
                self.reader = Some(LogReader::open(path)?);
            }
            if let Some(reader) = &mut self.reader
                && reader.advance()?
            {
                break;
            }
            self.reader = None;
            self.at += 1;
        }
        Ok(self.reader.as_ref().and_then(LogReader::record))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rough limit; the factor is not negative"
)]
fn part_of(len: u64, factor: f64) -> u64 {
    (len as f64 * factor) as u64
}

fn file_len(path: &Path) -> Result<u64, Error> {
    Ok(std::fs::metadata(path).context("read", path)?.len())
}

/// Whether nothing can be missing between two neighbours. The first of an epoch follows whatever
/// was last: a history that a snapshot has shortened has no logs from before it.
fn follows(last: Zxid, next: Zxid) -> bool {
    if next.epoch() == last.epoch() {
        next.raw() == last.raw() + 1
    } else {
        next > last && next.counter() == 1
    }
}

/// A stretch of the log that is being read for a learner, in bounded pieces. Dropping it ends the
/// reading.
#[derive(Debug)]
pub(crate) struct LogSource {
    source: Source,
    after: Zxid,
    progress: Progress,
    chunk: Vec<u8>,
    at: usize,
}

#[derive(Debug)]
enum Source {
    Thread(Arc<Pipe>),
    Here(Box<Walk>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Proving,
    Refused,
    Reading,
    Ended,
}

impl LogSource {
    /// Read on the caller's thread, which waits for the disk.
    pub(crate) fn here(walk: Walk) -> Self {
        Self::new(walk.stretch.after, Source::Here(Box::new(walk)))
    }

    /// Read on another thread.
    pub(crate) fn piped(after: Zxid, pipe: Arc<Pipe>) -> Self {
        Self::new(after, Source::Thread(pipe))
    }

    fn new(after: Zxid, source: Source) -> Self {
        Self { source, after, progress: Progress::Proving, chunk: Vec::new(), at: 0 }
    }

    /// Whether [`read`](Self::read) has an answer. The first `Whole` is the proof that nothing is
    /// missing.
    pub(crate) fn ready(&mut self) -> LogReady {
        let idle = self.progress == Progress::Proving
            || self.progress == Progress::Reading && self.at == self.chunk.len();
        if idle {
            match self.next_piece() {
                Piece::Nothing => return LogReady::NotYet,
                // The counter 0 is that of a leader which had all there was, and added nothing.
                Piece::Proven(anchor) if anchor == self.after || self.after.counter() == 0 => {
                    self.progress = Progress::Reading;
                }
                Piece::Proven(_) => self.progress = Progress::Refused,
                Piece::Failed if self.progress == Progress::Proving => {
                    self.progress = Progress::Refused;
                }
                Piece::Chunk(chunk) => (self.chunk, self.at) = (chunk, 0),
                Piece::End | Piece::Failed => self.progress = Progress::Ended,
            }
        }
        if self.progress == Progress::Refused { LogReady::Incomplete } else { LogReady::Whole }
    }

    /// Replaces `txn` with the next transaction; `None` at the end, or when the reading failed.
    pub(crate) fn read(&mut self, txn: &mut Vec<u8>) -> Option<Zxid> {
        if self.ready() == LogReady::NotYet {
            return None;
        }
        let (head, rest) = self.chunk.get(self.at..)?.split_at_checked(12)?;
        let bytes = &rest[..BigEndian::read_u32(&head[8..]) as usize];
        txn.clear();
        txn.extend_from_slice(bytes);
        self.at += 12 + bytes.len();
        Some(Zxid::from_raw(BigEndian::read_i64(head)))
    }

    fn next_piece(&mut self) -> Piece {
        let spare = std::mem::take(&mut self.chunk);
        self.at = 0;
        match &mut self.source {
            Source::Thread(pipe) => pipe.pop(spare),
            Source::Here(walk) if self.progress == Progress::Proving => {
                let proven = walk.prove_all(|| true);
                proven.map_or(Piece::Failed, Piece::Proven)
            }
            Source::Here(walk) => fill(walk, spare).unwrap_or_else(failed),
        }
    }
}

impl Drop for LogSource {
    fn drop(&mut self) {
        if let Source::Thread(pipe) = &self.source {
            pipe.close();
        }
    }
}

#[derive(Debug)]
enum Piece {
    Nothing,
    Proven(Zxid),
    Chunk(Vec<u8>),
    End,
    Failed,
}

fn fill(walk: &mut Walk, mut chunk: Vec<u8>) -> Result<Piece, Error> {
    chunk.clear();
    while chunk.len() < CHUNK_LEN {
        if !walk.read(&mut chunk)? {
            break;
        }
    }
    Ok(if chunk.is_empty() { Piece::End } else { Piece::Chunk(chunk) })
}

/// A log that cannot be read does not harm anyone here: the learner gets a snapshot.
#[expect(clippy::needless_pass_by_value, reason = "the end of an error")]
fn failed(error: Error) -> Piece {
    log::warn!("the log cannot be used to synchronise a learner: {error}");
    Piece::Failed
}

/// Between the thread that reads and the one that sends.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    spare: Vec<Vec<u8>>,
    closed: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self, spare: Vec<u8>) -> Piece {
        let mut queue = self.lock();
        if spare.capacity() > 0 {
            queue.spare.push(spare);
        }
        let piece = queue.pieces.pop_front().unwrap_or(Piece::Nothing);
        self.changed.notify_one();
        piece
    }

    /// False when nobody reads any more.
    fn push(&self, piece: Piece) -> bool {
        let mut queue = self.lock();
        while queue.pieces.len() >= CHUNKS_MAX && !queue.closed {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.pieces.push_back(piece);
        !queue.closed
    }

    /// Ends the reading, from either side.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The thread: proves, then reads.
    pub(crate) fn run(&self, mut walk: Walk, wake: &dyn Fn()) {
        let send = |piece| {
            let open = self.push(piece);
            wake();
            open
        };
        let proven = walk.prove_all(|| !self.lock().closed);
        let proven = send(proven.map_or(Piece::Failed, Piece::Proven)) && proven.is_some();
        if !proven {
            return;
        }
        loop {
            let spare = self.lock().spare.pop().unwrap_or_default();
            let piece = fill(&mut walk, spare).unwrap_or_else(failed);
            let last = !matches!(piece, Piece::Chunk(_));
            if !send(piece) || last {
                return;
            }
        }
    }
}
