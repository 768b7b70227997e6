//! Snapshots of our own, written beside the log so that their fsyncs never delay it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use zab_proto::{SnapshotDigest, Ticket, Zxid};

use crate::disk::{PanicGuard, Shared};
use crate::error::Error;
use crate::names::{self, Compression};
use crate::snapshot::SnapshotWriter;
use crate::switch::Dirs;

/// Bytes that may wait for the snapshot's thread.
const QUEUE_LEN_MAX: usize = 1 << 20;

/// Which snapshots of our own may still be published.
#[derive(Debug, Default)]
pub(crate) struct Published {
    void_through: Mutex<u64>,
}

impl Published {
    /// Snapshots up to this number belong to a history that is about to change. One that is being
    /// published right now is waited for; the change sees its file.
    pub(crate) fn void_through(&self, number: u64) {
        let mut void = self.void_through.lock().unwrap_or_else(PoisonError::into_inner);
        *void = number.max(*void);
    }

    /// Gives a sealed snapshot its name, unless it is void.
    fn publish(&self, number: u64, dirs: &Dirs, tmp: &TmpFile) -> Result<(), Error> {
        let void = self.void_through.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= *void {
            return dirs.fs.remove(&tmp.path);
        }
        let to = dirs.snap.join(names::snapshot_name(tmp.zxid, tmp.compression));
        dirs.fs.rename(&tmp.path, &to)?;
        dirs.fs.sync_dir(&dirs.snap)?;
        log::info!("snapshot {} written", to.display());
        Ok(())
    }
}

/// The file of a snapshot that is being written.
#[derive(Clone, Debug)]
pub(crate) struct TmpFile {
    path: PathBuf,
    zxid: Zxid,
    compression: Compression,
    zxid_section: bool,
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
    Thread { pieces: Sender<Piece>, queued: Arc<AtomicUsize> },
    Here { writer: Box<SnapshotWriter>, dirs: Dirs, published: Arc<Published> },
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
        TmpFile { path, zxid, compression, zxid_section }
    }

    /// Begins one on the caller's thread.
    pub(crate) fn here(
        number: u64,
        tmp: TmpFile,
        dirs: Dirs,
        published: Arc<Published>,
    ) -> Result<Self, Error> {
        let writer = SnapshotWriter::create(&dirs.fs, &tmp.path, tmp.compression)?;
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
    ) -> (Self, JoinHandle<()>) {
        let (pieces, receiver) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let job = Job {
            number,
            tmp: tmp.clone(),
            dirs,
            published,
            shared,
            barrier,
            queued: Arc::clone(&queued),
        };
        let thread = std::thread::Builder::new()
            .name("zab-snapshot".into())
            .spawn(move || job.run(&receiver))
            .expect("a thread can be started");
        (Self { number, tmp, to: Destination::Thread { pieces, queued } }, thread)
    }

    pub(crate) fn room(&self) -> usize {
        match &self.to {
            Destination::Thread { queued, .. } => {
                QUEUE_LEN_MAX.saturating_sub(queued.load(Ordering::Acquire))
            }
            Destination::Here { .. } => QUEUE_LEN_MAX,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.to {
            Destination::Thread { pieces, queued } => {
                queued.fetch_add(bytes.len(), Ordering::AcqRel);
                // A thread that has ended has reported why.
                let _ = pieces.send(Piece::Bytes(bytes.to_vec()));
                Ok(())
            }
            Destination::Here { writer, .. } => writer.write(bytes),
        }
    }

    /// Seals the snapshot. On the caller's thread the log has to be durable by now.
    pub(crate) fn finish(self, digest: Option<SnapshotDigest>) -> Result<(), Error> {
        match self.to {
            Destination::Thread { pieces, .. } => {
                let _ = pieces.send(Piece::End(digest));
                Ok(())
            }
            Destination::Here { writer, dirs, published } => {
                writer.finish(digest, self.tmp.zxid_section.then_some(self.tmp.zxid))?;
                published.publish(self.number, &dirs, &self.tmp)
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
    queued: Arc<AtomicUsize>,
}

impl Job {
    fn run(&self, pieces: &Receiver<Piece>) {
        let _guard = PanicGuard(&self.shared);
        if let Err(error) = self.write(pieces) {
            self.shared.fail(error);
        }
    }

    fn write(&self, pieces: &Receiver<Piece>) -> Result<(), Error> {
        let mut writer =
            SnapshotWriter::create(&self.dirs.fs, &self.tmp.path, self.tmp.compression)?;
        loop {
            match pieces.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    writer.write(&bytes)?;
                    let before = self.queued.fetch_sub(bytes.len(), Ordering::AcqRel);
                    let below = before - bytes.len();
                    if before > QUEUE_LEN_MAX / 2 && below <= QUEUE_LEN_MAX / 2 {
                        self.shared.wake();
                    }
                }
                Ok(Piece::End(digest)) => {
                    writer.finish(digest, self.tmp.zxid_section.then_some(self.tmp.zxid))?;
                    break;
                }
                // The history has changed under it, or the server stops.
                Err(_) => return self.dirs.fs.remove(&self.tmp.path),
            }
        }
        if self.shared.wait_durable(self.barrier) {
            self.published.publish(self.number, &self.dirs, &self.tmp)
        } else {
            self.dirs.fs.remove(&self.tmp.path)
        }
    }
}
