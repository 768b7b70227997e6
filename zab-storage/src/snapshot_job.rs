//! Snapshots of our own, written beside the log so that their fsyncs never delay it.
//!
//! The log has all that they hold. So one that cannot be written (no space, no descriptors, no rights)
//! is postponed: its file is removed, the log grows, and another one is begun later.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zab_proto::{SnapshotDigest, Ticket, Zxid};

use crate::disk::{PanicGuard, Shared};
use crate::error::{Context, Error};
use crate::install::Dirs;
use crate::names::{self, Compression};
use crate::snapshot::{Pace, SnapshotWriter};
use crate::times::FsyncTimes;

/// Bytes that may wait for the snapshot's thread.
const QUEUE_LEN_MAX: usize = 1 << 20;

/// A snapshot is postponed at most so many times as long as the first time.
const RETRY_GROWTH_MAX: u32 = 100;

/// Which snapshots of our own may still be published, and when the next one may be tried.
#[derive(Debug)]
pub(crate) struct Published {
    void_through: Mutex<u64>,
    postponed: Mutex<Option<Postponed>>,
    /// Whether that holds something: asked for with every transaction.
    is_postponed: AtomicBool,
    retry: Duration,
    /// How long the published ones took.
    times: FsyncTimes,
}

#[derive(Clone, Copy, Debug)]
struct Postponed {
    until: Instant,
    wait: Duration,
}

/// Why a snapshot was not published.
pub(crate) enum Failure {
    /// It concerns the snapshot alone.
    Postpone(Error),
    /// The names in the directory may not be durable, those of logs among them: the server stops.
    Stop(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Postpone(error)
    }
}

impl Published {
    /// `retry`: how long the first snapshot that cannot be written is postponed. The times that the
    /// others take are added up in `times`.
    pub(crate) fn new(retry: Duration, times: FsyncTimes) -> Self {
        let (void_through, postponed) = (Mutex::default(), Mutex::default());
        Self { void_through, postponed, is_postponed: AtomicBool::new(false), retry, times }
    }

    /// Snapshots up to this number belong to a history that is about to change. One that is being
    /// published right now is waited for; the change sees its file.
    pub(crate) fn void_through(&self, number: u64) {
        let mut void = self.void_through.lock().unwrap_or_else(PoisonError::into_inner);
        *void = number.max(*void);
    }

    /// Whether the last snapshot could not be written, and it is time to try again; `None`: it could.
    pub(crate) fn retries(&self) -> Option<bool> {
        if !self.is_postponed.load(Ordering::Relaxed) {
            return None;
        }
        self.postponed().map(|postponed| Instant::now() >= postponed.until)
    }

    /// Gives a sealed snapshot its name, unless it is void.
    fn publish(&self, number: u64, dirs: &Dirs, tmp: &TmpFile) -> Result<(), Failure> {
        let void = self.void_through.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= *void {
            tmp.remove(dirs);
            return Ok(());
        }
        let to = dirs.snap.join(names::snapshot_name(tmp.zxid, tmp.compression));
        dirs.fs.rename(&tmp.path, &to)?;
        let dir = dirs.fs.open_dir(&dirs.snap)?;
        // The kernel tells of a directory that it could not write once. Nobody else would hear of it.
        dirs.fs.sync_open_dir(&dirs.snap, &dir).map_err(Failure::Stop)?;
        let took = tmp.began.elapsed();
        self.times.add(took, Duration::MAX);
        log::info!("Snapshot taken in {} ms", took.as_millis());
        *self.postponed() = None;
        self.is_postponed.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Removes what there is of a snapshot that cannot be written, and lets some time pass before
    /// the next one.
    pub(crate) fn postpone(&self, dirs: &Dirs, tmp: &TmpFile, error: &Error) {
        tmp.remove(dirs);
        let mut postponed = self.postponed();
        let wait_max = self.retry.saturating_mul(RETRY_GROWTH_MAX);
        let wait = postponed.map_or(self.retry, |before| (before.wait * 2).min(wait_max));
        *postponed = Some(Postponed { until: Instant::now() + wait, wait });
        self.is_postponed.store(true, Ordering::Relaxed);
        log::warn!(
            "The snapshot as of {} is postponed for {wait:?}, and the log grows meanwhile: {error}",
            tmp.zxid
        );
    }

    fn postponed(&self) -> MutexGuard<'_, Option<Postponed>> {
        self.postponed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a snapshot that is being written.
#[derive(Clone, Debug)]
pub(crate) struct TmpFile {
    path: PathBuf,
    zxid: Zxid,
    compression: Compression,
    zxid_section: bool,
    began: Instant,
}

impl TmpFile {
    /// What cannot be removed now is removed at the next start.
    fn remove(&self, dirs: &Dirs) {
        if let Err(error) = dirs.fs.remove(&self.path)
            && self.path.exists()
        {
            log::warn!("{error}");
        }
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(crate) struct OwnSnapshot {
    number: u64,
    tmp: TmpFile,
    to: Destination,
}

#[derive(Debug)]
enum Destination {
    Thread { pieces: Sender<Piece>, flow: Arc<Flow> },
    Here { writer: Box<SnapshotWriter>, dirs: Dirs, published: Arc<Published> },
}

/// What owner and thread of a snapshot tell each other besides its pieces.
#[derive(Debug, Default)]
struct Flow {
    queued: AtomicUsize,
    abandoned: AtomicBool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End(Option<SnapshotDigest>),
}

impl OwnSnapshot {
    pub(crate) fn tmp_file(
        dirs: &Dirs,
        number: u64,
        zxid: Zxid,
        compression: Compression,
        zxid_section: bool,
    ) -> TmpFile {
        let path = dirs.snap.join(format!("{}.{number}", names::OWN));
        let to = dirs.snap.join(names::snapshot_name(zxid, compression));
        log::info!("Snapshotting: {:#x} to {}", zxid.raw(), to.display());
        TmpFile { path, zxid, compression, zxid_section, began: Instant::now() }
    }

    /// Begins one on the caller's thread.
    pub(crate) fn here(
        number: u64,
        tmp: TmpFile,
        dirs: Dirs,
        published: Arc<Published>,
    ) -> Result<Self, Error> {
        let writer = SnapshotWriter::create(&dirs.fs, &tmp.path, tmp.compression, Pace::Full)?;
        let to = Destination::Here { writer: Box::new(writer), dirs, published };
        Ok(Self { number, tmp, to })
    }

    /// Begins one on a thread of its own. It is published once the log is durable up to `barrier`.
    pub(crate) fn spawn(
        number: u64,
        tmp: TmpFile,
        dirs: Dirs,
        published: Arc<Published>,
        shared: Arc<Shared>,
        barrier: Ticket,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let (pieces, receiver) = channel();
        let flow = Arc::<Flow>::default();
        let job = Job {
            number,
            tmp: tmp.clone(),
            dirs,
            published,
            shared,
            barrier,
            flow: Arc::clone(&flow),
        };
        let thread = std::thread::Builder::new()
            .name("zab-snapshot".into())
            .spawn(move || job.run(&receiver))
            .context("start a thread for", &tmp.path)?;
        Ok((Self { number, tmp, to: Destination::Thread { pieces, flow } }, thread))
    }

    /// Whether it was given up on its thread, which has removed the file.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.to {
            Destination::Thread { flow, .. } => flow.abandoned.load(Ordering::Acquire),
            Destination::Here { .. } => false,
        }
    }

    pub(crate) fn room(&self) -> usize {
        match &self.to {
            Destination::Thread { flow, .. } => {
                QUEUE_LEN_MAX.saturating_sub(flow.queued.load(Ordering::Acquire))
            }
            Destination::Here { .. } => QUEUE_LEN_MAX,
        }
    }

    /// Takes the next piece; false if the snapshot is given up.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        match &mut self.to {
            Destination::Thread { pieces, flow } => {
                flow.queued.fetch_add(bytes.len(), Ordering::AcqRel);
                // A thread that has ended has reported why.
                let _ = pieces.send(Piece::Bytes(bytes.to_vec()));
                true
            }
            Destination::Here { writer, dirs, published } => {
                let result = writer.write(bytes);
                result.inspect_err(|error| published.postpone(dirs, &self.tmp, error)).is_ok()
            }
        }
    }

    /// Seals the snapshot. On the caller's thread the log must be durable by now.
    ///
    /// # Errors
    /// What the server has to stop for.
    pub(crate) fn finish(self, digest: Option<SnapshotDigest>) -> Result<(), Error> {
        match self.to {
            Destination::Thread { pieces, .. } => {
                let _ = pieces.send(Piece::End(digest));
                Ok(())
            }
            Destination::Here { writer, dirs, published } => {
                let result = writer
                    .finish(digest, self.tmp.zxid_section.then_some(self.tmp.zxid))
                    .map_err(Failure::from)
                    .and_then(|()| published.publish(self.number, &dirs, &self.tmp));
                match result {
                    Err(Failure::Stop(error)) => return Err(error),
                    Err(Failure::Postpone(error)) => published.postpone(&dirs, &self.tmp, &error),
                    Ok(()) => {}
                }
                Ok(())
            }
        }
    }
}

/// What the thread of a snapshot needs.
struct Job {
    number: u64,
    tmp: TmpFile,
    dirs: Dirs,
    published: Arc<Published>,
    shared: Arc<Shared>,
    barrier: Ticket,
    flow: Arc<Flow>,
}

impl Job {
    fn run(&self, pieces: &Receiver<Piece>) {
        let _guard = PanicGuard(&self.shared);
        match self.write(pieces) {
            Ok(()) => {}
            Err(Failure::Stop(error)) => self.shared.fail(error),
            Err(Failure::Postpone(error)) => {
                self.published.postpone(&self.dirs, &self.tmp, &error);
                self.flow.abandoned.store(true, Ordering::Release);
                self.shared.wake();
            }
        }
    }

    fn write(&self, pieces: &Receiver<Piece>) -> Result<(), Failure> {
        let mut writer = SnapshotWriter::create(
            &self.dirs.fs,
            &self.tmp.path,
            self.tmp.compression,
            Pace::Half,
        )?;
        loop {
            match pieces.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    writer.write(&bytes)?;
                    let before = self.flow.queued.fetch_sub(bytes.len(), Ordering::AcqRel);
                    let below = before.saturating_sub(bytes.len());
                    if before > QUEUE_LEN_MAX / 2 && below <= QUEUE_LEN_MAX / 2 {
                        self.shared.wake();
                    }
                }
                Ok(Piece::End(digest)) => {
                    writer.finish(digest, self.tmp.zxid_section.then_some(self.tmp.zxid))?;
                    break;
                }
                // The history has changed under it, or the server stops.
                Err(_) => {
                    self.tmp.remove(&self.dirs);
                    return Ok(());
                }
            }
        }
        if self.shared.wait_durable(self.barrier) {
            self.published.publish(self.number, &self.dirs, &self.tmp)
        } else {
            self.tmp.remove(&self.dirs);
            Ok(())
        }
    }
}
