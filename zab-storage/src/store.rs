//! Opening a server's directories.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zab_proto::Zxid;

use crate::configurations::OnConfigurations;
use crate::error::{Context, Error};
use crate::fs::{Fs, create_file};
use crate::names::{self, Compression};
use crate::seed;
use crate::times::{FsyncTimes, SnapshotRequest, StartTimes};

/// Where the files are and how they are written. Defaults are ZooKeeper's.
///
/// ```
/// let options = zab_storage::Options::new("data").with(|options| options.snap_count = 10_000);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// `dataDir`: snapshots, epochs and `myid`.
    pub data_dir: PathBuf,
    /// `dataLogDir`: transaction logs; may be the same as `data_dir`.
    pub log_dir: PathBuf,
    /// By how much log files are extended in advance (`preAllocSize`, here in bytes); 0: not at
    /// all. Extending a file in advance about halves the time of an fsync.
    pub prealloc_bytes: u64,
    /// Whether writes to the log are followed by an fsync (`forceSync`). Without it nothing that
    /// is acknowledged survives a power cut.
    pub force_sync: bool,
    /// About how many transactions there are between two snapshots (`snapCount`).
    pub snap_count: u64,
    /// About how many bytes of log there are between two snapshots (`snapSizeLimitInKb`, here in
    /// bytes); 0: any number.
    pub snap_size_limit: u64,
    /// A log file above this many bytes is followed by a new one (`txnLogSizeLimitInKb`, here in
    /// bytes); 0: files end with snapshots only.
    pub txn_log_size_limit: u64,
    /// An fsync of the log that takes longer is worth a warning (`fsync.warningthresholdms`).
    pub fsync_warning: Duration,
    /// Where the times of the log's fsyncs are added up.
    pub fsync_times: FsyncTimes,
    /// Where the times are added up in which this server's own snapshots were written.
    pub snapshot_times: FsyncTimes,
    /// Where it is written down how long the reading of the directories takes at the start.
    pub start_times: StartTimes,
    /// How somebody else asks for a snapshot before one is due.
    pub snapshot_request: SnapshotRequest,
    /// How snapshots are written; every form is read (`snapshot.compression.method`).
    pub compression: Compression,
    /// Whether snapshots get the zxid section of ZooKeeper 3.9
    /// (`serializeLastProcessedZxid.enabled`). 3.8 reads them too.
    pub zxid_section: bool,
    /// An fsync is due at the latest after this many transactions (`maxBatchSize`); 0: one fsync
    /// for all that have arrived.
    pub max_batch: usize,
    /// Missing directories are created (`datadir.autocreate`).
    pub datadir_autocreate: bool,
    /// An empty directory holds the empty history (`db.autocreate`): `snapshot.0` is written at
    /// once. Otherwise only an `initialize` file makes it so, or the first thing logged.
    pub autocreate: bool,
    /// Log entries without a snapshot are applied to the empty tree (`snapshot.trust.empty`), if they
    /// begin with the first one.
    pub trust_empty_snapshot: bool,
    /// The operator accepts that transactions are missing. Nothing is known then of the state.
    pub allow_holes: bool,
    /// This server is an ensemble of its own: all that it has logged is committed.
    pub alone: bool,
    /// A learner is synchronised from the log files only if that takes at most this part of the
    /// newest snapshot's size (`snapshotSizeFactor`); negative: never.
    pub snapshot_size_factor: f64,
    /// How long a snapshot of this server's own that cannot be written is postponed. Doubles with
    /// each further failure, up to a hundred times as long.
    pub snapshot_retry: Duration,
    /// Configurations of the ensemble that are known from elsewhere, the committed one first. They count if
    /// the directory has none.
    pub configurations: Vec<String>,
    /// Who hears of each change of the ensemble's configuration.
    pub on_configurations: OnConfigurations,
    /// Seed of the random part of when snapshots are due.
    pub seed: u64,
}

impl Options {
    /// ZooKeeper's defaults, everything in one directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            log_dir: data_dir.clone(),
            data_dir,
            prealloc_bytes: 64 << 20,
            force_sync: true,
            snap_count: 100_000,
            snap_size_limit: 4 << 30,
            txn_log_size_limit: 0,
            fsync_warning: Duration::from_secs(1),
            fsync_times: FsyncTimes::default(),
            snapshot_times: FsyncTimes::default(),
            start_times: StartTimes::default(),
            snapshot_request: SnapshotRequest::default(),
            compression: Compression::None,
            zxid_section: false,
            max_batch: 0,
            datadir_autocreate: true,
            autocreate: true,
            trust_empty_snapshot: false,
            allow_holes: false,
            alone: false,
            snapshot_size_factor: 0.33,
            snapshot_retry: Duration::from_secs(5),
            configurations: Vec::new(),
            on_configurations: OnConfigurations::default(),
            seed: 0,
        }
    }

    /// The same with what `change` changes.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// A server's directories, locked for this process.
#[derive(Debug)]
pub struct Store {
    pub(crate) fs: Fs,
    pub(crate) options: Options,
    /// Snapshots and epochs.
    pub(crate) snap_dir: PathBuf,
    /// Logs.
    pub(crate) log_dir: PathBuf,
    /// The snapshot that makes an empty directory a valid one, until it is needed.
    pub(crate) initial: Option<Vec<u8>>,
    /// Records replayed since the snapshot, and their bytes.
    pub(crate) replayed: (u64, u64),
    /// From here on the history is known to be without a hole.
    pub(crate) base: Zxid,
    /// Held open: closing the files ends the locks.
    pub(crate) locks: Vec<File>,
}

impl Store {
    /// Checks, creates and locks the directories.
    ///
    /// # Errors
    /// [`Error::Directory`] if another process uses them, if one is missing and may not be
    /// created, or if logs and snapshots lie in each other's directory; [`Error::Unwritable`] if no
    /// file can be made in them; [`Error::Io`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let snap_dir = options.data_dir.join(names::VERSION_DIR);
        let log_dir = options.log_dir.join(names::VERSION_DIR);
        let mut locks = Vec::new();
        seed::complete(&options.data_dir, &options.log_dir)?;
        for dir in [&snap_dir, &log_dir] {
            ensure_dir(dir, options.datadir_autocreate)?;
        }
        locks.push(lock(&snap_dir)?);
        if snap_dir != log_dir {
            let reason = "holds snapshots, but it is the log directory";
            check_content(&log_dir, names::snapshots(&log_dir)?.is_empty(), reason)?;
            let reason = "holds logs, but it is the snapshot directory";
            check_content(&snap_dir, names::logs(&snap_dir)?.is_empty(), reason)?;
            locks.push(lock(&log_dir)?);
        }
        check_room(&options)?;
        Ok(Self {
            fs: Fs::default(),
            options,
            snap_dir,
            log_dir,
            initial: None,
            replayed: (0, 0),
            base: Zxid::ZERO,
            locks,
        })
    }

    /// `version-2` in `dataDir`: snapshots and epochs.
    #[must_use]
    pub fn snapshot_dir(&self) -> &Path {
        &self.snap_dir
    }

    /// `version-2` in `dataLogDir`: logs.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }
}

fn ensure_dir(dir: &Path, create: bool) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    if !create {
        let reason = "missing directory (zookeeper.datadir.autocreate=false)";
        return Err(Error::Directory { path: dir.to_path_buf(), reason });
    }
    fs::create_dir_all(dir).context("create directory", dir)?;
    let parent = dir.parent().unwrap_or(dir);
    File::open(parent).and_then(|dir| dir.sync_all()).context("sync directory", parent)
}

fn check_content(dir: &Path, right: bool, reason: &'static str) -> Result<(), Error> {
    if right { Ok(()) } else { Err(Error::Directory { path: dir.to_path_buf(), reason }) }
}

/// Finds out whether files can be written in the directories of `options`, which have to exist: a
/// directory that is read-only, somebody else's or full would be noticed at the first transaction,
/// by a server that has voted or leads. Warns if there is little space.
///
/// # Errors
/// [`Error::Unwritable`].
pub(crate) fn check_room(options: &Options) -> Result<(), Error> {
    for dir in [&options.data_dir, &options.log_dir] {
        let dir = dir.join(names::VERSION_DIR);
        let unwritable =
            |source| Error::Unwritable { path: dir.clone(), source: std::sync::Arc::new(source) };
        let path = dir.join(names::PROBE);
        let written = create_file(&path).and_then(|mut file| file.write_all(&[0; PROBE_LEN]));
        let removed = fs::remove_file(&path);
        written.and(removed).map_err(unwritable)?;
        let space = rustix::fs::statvfs(&dir).map_err(|error| unwritable(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < wanted(options, space.f_blocks.saturating_mul(space.f_frsize)) {
            log::warn!("{}: only {} MiB of disk space are left", dir.display(), free >> 20);
        }
        if options.data_dir == options.log_dir {
            break;
        }
    }
    Ok(())
}

/// Whether there is enough space for a server to go on that has run out of it: not only for one more
/// transaction.
///
/// # Errors
/// [`Error::Unwritable`] if there is not.
pub fn check_recovered(options: &Options) -> Result<(), Error> {
    check_room(options)?;
    for dir in [&options.data_dir, &options.log_dir] {
        let path = dir.join(names::VERSION_DIR);
        let full = |source: std::io::Error| Error::Unwritable {
            path: path.clone(),
            source: source.into(),
        };
        let space = rustix::fs::statvfs(&path).map_err(|error| full(error.into()))?;
        let total = space.f_blocks.saturating_mul(space.f_frsize);
        if space.f_bavail.saturating_mul(space.f_frsize) < wanted(options, total) {
            return Err(full(ErrorKind::StorageFull.into()));
        }
    }
    Ok(())
}

/// Less space than a log file takes in advance, or a sixteenth of a small disk, is little.
fn wanted(options: &Options, total: u64) -> u64 {
    options.prealloc_bytes.min(total / 16)
}

/// A file system's block.
const PROBE_LEN: usize = 4096;

/// A lock that another user's server has left can be read, if not written, by one of its group.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(names::LOCK);
    let file = match create_file(&path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            File::open(&path).map_err(|_| error)
        }
        result => result,
    };
    let file = file.map_err(|source| Error::Unwritable {
        path: dir.to_path_buf(),
        source: std::sync::Arc::new(source),
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Directory { path: dir.to_path_buf(), reason: "in use by another process" })
        }
        Err(TryLockError::Error(error)) => Err(error).context("lock", &path),
    }
}
