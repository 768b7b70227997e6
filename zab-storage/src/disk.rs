//! The storage of a running server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use zab_proto::{Epoch, EpochKind, Identity, LogReady, SnapshotDigest, Storage, Ticket, Zxid};

use crate::batch::{Batch, Executor, Write};
use crate::commit_point::Candidates;
use crate::error::{Context, Error};
use crate::log_file::{LogWriter, Roll};
use crate::log_source::{LogSource, Pipe, Stretch, Walk};
use crate::schedule::Due;
use crate::snapshot_job::{OwnSnapshot, Published};
use crate::store::{Options, Store};

/// Who does the writing.
pub enum Mode {
    /// A thread of the storage's own. `wake` is called, on that thread or that of a snapshot, when
    /// [`Disk::poll`] has something new, or when a snapshot has room again.
    Thread {
        /// Interrupts the wait of the thread that owns the [`Disk`].
        wake: Box<dyn Fn() + Send + Sync>,
    },
    /// The caller's thread, inside [`Disk::submit`].
    Inline,
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread { .. } => "Thread",
            Self::Inline => "Inline",
        })
    }
}

/// Bytes of a leader's snapshot that may wait for the writer.
const STAGE_LEN_MAX: usize = 16 << 20;

/// The storage of a running server: takes what the core wants written, tells what is durable.
///
/// What is pushed between two calls of [`submit`](Self::submit), and whatever else arrives while
/// the previous batch is being written, becomes one write and one fsync.
#[derive(Debug)]
pub struct Disk {
    front: Batch,
    last: Ticket,
    reported: Ticket,
    due: Due,
    candidates: Candidates,
    run_max: usize,
    /// Lengths of the transactions that are staged after a leader's snapshot.
    staged: Vec<usize>,
    own: Option<OwnSnapshot>,
    own_count: u64,
    /// The present snapshot was given up on this thread, and nobody has been told.
    abandoned: bool,
    own_threads: Vec<JoinHandle<()>>,
    options: Options,
    executor: Writer,
    dirs: crate::install::Dirs,
    published: Arc<Published>,
    base: Zxid,
    /// Stretches of the log that are being read, by number.
    readings: BTreeMap<u32, LogSource>,
    readings_count: u32,
    reading_threads: Vec<JoinHandle<()>>,
    /// The first error of the inline mode; also set once an error was reported.
    failed: Option<Error>,
    stopped: bool,
    locks: Vec<std::fs::File>,
}

#[derive(Debug)]
enum Writer {
    Thread { shared: Arc<Shared>, thread: Option<JoinHandle<()>> },
    Inline { executor: Box<Executor>, durable: Ticket },
}

/// What the owner's thread and the storage's threads share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or to stop for.
    ready: Condvar,
    /// A batch is written.
    done: Condvar,
    durable: AtomicU64,
    /// Bytes of a leader's snapshot that are not written yet.
    staged: AtomicUsize,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Queue {
    batch: Batch,
    stop: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Store {
    /// Begins to write. Call after [`recover`](Self::recover).
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be started.
    pub fn into_disk(self, mode: Mode) -> Result<Disk, Error> {
        let dirs = self.dirs();
        let options = self.options;
        let published =
            Arc::new(Published::new(options.snapshot_retry, options.snapshot_times.clone()));
        let roll = match options.txn_log_size_limit {
            0 => Roll::Never,
            limit => Roll::Above(limit),
        };
        let executor = Executor {
            dirs: dirs.clone(),
            log: LogWriter::new(
                self.fs,
                self.log_dir,
                options.prealloc_bytes,
                options.force_sync,
                roll,
                (options.fsync_warning, options.fsync_times.clone()),
            ),
            stage: None,
            stage_log: None,
            initial: self.initial,
            compression: options.compression,
            zxid_section: options.zxid_section,
            published: Arc::clone(&published),
            on_configurations: options.on_configurations.clone(),
        };
        Ok(Disk {
            front: Batch::default(),
            last: Ticket(0),
            reported: Ticket(0),
            due: Due::new(&options, self.replayed),
            candidates: Candidates::default(),
            run_max: options.max_batch,
            staged: Vec::new(),
            own: None,
            own_count: 0,
            abandoned: false,
            own_threads: Vec::new(),
            executor: Writer::new(mode, executor)?,
            dirs,
            published,
            base: self.base,
            readings: BTreeMap::new(),
            readings_count: 0,
            reading_threads: Vec::new(),
            failed: None,
            stopped: false,
            options,
            locks: self.locks,
        })
    }
}

impl Writer {
    fn new(mode: Mode, mut executor: Executor) -> Result<Self, Error> {
        let Mode::Thread { wake } = mode else {
            return Ok(Self::Inline { executor: Box::new(executor), durable: Ticket(0) });
        };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            done: Condvar::new(),
            durable: AtomicU64::new(0),
            staged: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
            wake,
        });
        let (theirs, dir) = (Arc::clone(&shared), executor.dirs.log.clone());
        let thread = std::thread::Builder::new()
            .name("zab-log".into())
            .spawn(move || theirs.write_all(&mut executor))
            .context("start a thread for", &dir)?;
        Ok(Self::Thread { shared, thread: Some(thread) })
    }
}

impl Shared {
    /// The writer's thread: whatever has arrived is the next batch.
    fn write_all(&self, executor: &mut Executor) {
        let mut batch = Batch::default();
        let _guard = PanicGuard(self);
        while self.take(&mut batch) {
            let staged = batch.staged_len();
            let result = executor.run(&mut batch, |ticket| {
                if ticket.0 > self.durable.load(Ordering::Relaxed) {
                    self.durable.store(ticket.0, Ordering::Release);
                    self.wake();
                }
            });
            if let Err(error) = result {
                self.fail(error);
            } else if staged > 0 {
                self.staged.fetch_sub(staged, Ordering::AcqRel);
                self.wake();
            }
        }
    }

    /// Waits for the next batch; false when it is time to stop.
    fn take(&self, batch: &mut Batch) -> bool {
        let mut queue = self.lock();
        self.done.notify_all();
        loop {
            if self.failed.load(Ordering::Acquire) {
                return false;
            }
            if !queue.batch.is_empty() {
                batch.take_from(&mut queue.batch);
                return true;
            }
            if queue.stop {
                return false;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until a ticket is durable; false if it never will be.
    pub(crate) fn wait_durable(&self, ticket: Ticket) -> bool {
        let mut queue = self.lock();
        loop {
            if self.durable.load(Ordering::Acquire) >= ticket.0 {
                return !self.failed.load(Ordering::Acquire);
            }
            if queue.stop || self.failed.load(Ordering::Acquire) {
                return false;
            }
            queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops all writing. The first error is the one that is reported.
    pub(crate) fn fail(&self, error: Error) {
        {
            let queue = self.lock();
            let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
            self.failed.store(true, Ordering::Release);
            drop(queue);
        }
        self.ready.notify_all();
        self.done.notify_all();
        self.wake();
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that panics must not leave a server behind that waits for it in silence.
pub(crate) struct PanicGuard<'a>(pub(crate) &'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Stopped);
        }
    }
}

impl Disk {
    /// Ends a drain of the core: hands what was pushed to the writer, or writes it here and now.
    pub fn submit(&mut self) {
        if self.front.is_empty() || self.failed.is_some() {
            return;
        }
        match &mut self.executor {
            Writer::Thread { shared, .. } => {
                shared.lock().batch.take_from(&mut self.front);
                shared.ready.notify_one();
            }
            Writer::Inline { executor, durable } => {
                let result =
                    executor.run(&mut self.front, |ticket| *durable = ticket.max(*durable));
                self.failed = result.err();
            }
        }
    }

    /// The highest ticket that became durable since the last call.
    ///
    /// # Errors
    /// A write has failed: the server must stop. Nothing was written after it and nothing will be;
    /// later calls get [`Error::Stopped`].
    pub fn poll(&mut self) -> Result<Option<Ticket>, Error> {
        let durable = match &self.executor {
            Writer::Thread { shared, .. } => {
                if self.failed.is_none() && shared.failed.load(Ordering::Acquire) {
                    let error = shared.error.lock().unwrap_or_else(PoisonError::into_inner);
                    self.failed.clone_from(&error);
                }
                Ticket(shared.durable.load(Ordering::Acquire))
            }
            Writer::Inline { durable, .. } => *durable,
        };
        if let Some(error) = &self.failed {
            let stopped = std::mem::replace(&mut self.stopped, true);
            return Err(if stopped { Error::Stopped } else { error.clone() });
        }
        if durable <= self.reported {
            return Ok(None);
        }
        self.reported = durable;
        Ok(Some(durable))
    }

    /// Writes what was pushed and ends the threads. A snapshot that is not finished is dropped.
    ///
    /// # Errors
    /// The first error that was not reported yet.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut_down();
        match self.poll() {
            Ok(_) | Err(Error::Stopped) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is durable, also after an error.
    #[cfg(test)]
    pub(crate) fn executor_durable(&self) -> u64 {
        match &self.executor {
            Writer::Thread { shared, .. } => shared.durable.load(Ordering::Acquire),
            Writer::Inline { durable, .. } => durable.0,
        }
    }

    fn shut_down(&mut self) {
        self.submit();
        self.own = None;
        if let Writer::Thread { shared, thread } = &mut self.executor {
            shared.lock().stop = true;
            shared.ready.notify_all();
            if let Some(thread) = thread.take() {
                // A panic of the writer has been printed; there is nothing to add.
                let _ = thread.join();
            }
            shared.done.notify_all();
        }
        self.readings.clear();
        for thread in self.own_threads.drain(..).chain(self.reading_threads.drain(..)) {
            let _ = thread.join();
        }
        self.locks.clear();
    }

    fn push(&mut self, write: Write, ticket: Ticket) {
        self.last = ticket;
        self.front.push(write, ticket);
    }

    /// Reads a stretch on a thread of its own, or here.
    fn read_history(&mut self, stretch: Stretch) -> Option<LogSource> {
        let walk = Walk::new(&self.dirs, stretch);
        let Writer::Thread { shared, .. } = &self.executor else {
            return Some(LogSource::here(walk));
        };
        let pipe = Arc::new(Pipe::default());
        let (theirs, shared) = (Arc::clone(&pipe), Arc::clone(shared));
        let thread = std::thread::Builder::new()
            .name("zab-history".into())
            .spawn(move || theirs.run(walk, &|| shared.wake()))
            .ok()?;
        self.reading_threads.retain(|thread| !thread.is_finished());
        self.reading_threads.push(thread);
        Some(LogSource::piped(stretch.after, pipe))
    }

    /// The history changes under a snapshot that is being written.
    fn drop_own(&mut self) -> u64 {
        self.own = None;
        self.abandoned = false;
        self.due.restart();
        self.own_count
    }

    fn keep_error(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Storage for Disk {
    fn set_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch) {
        self.push(Write::Epoch { kind, epoch }, ticket);
    }

    fn set_identity(&mut self, ticket: Ticket, identity: Identity) {
        self.push(Write::Identity(identity), ticket);
    }

    fn set_configurations(&mut self, ticket: Ticket, texts: &[String]) {
        self.last = ticket;
        self.front.configurations(texts, ticket);
    }

    fn append(&mut self, ticket: Ticket, zxid: Zxid, txn: &[u8]) {
        self.last = ticket;
        self.due.count(txn.len());
        self.candidates.appended(zxid, txn);
        self.front.append(zxid, txn, ticket, self.run_max);
    }

    fn truncate(&mut self, ticket: Ticket, after: Zxid) {
        let void = self.drop_own();
        self.base = self.base.min(after);
        self.candidates.truncate(after);
        self.push(Write::Truncate { after, void }, ticket);
    }

    fn stage(&mut self, piece: &[u8]) {
        if let Writer::Thread { shared, .. } = &self.executor {
            shared.staged.fetch_add(piece.len(), Ordering::AcqRel);
        }
        self.front.stage(piece, self.last);
    }

    fn stage_room(&self) -> usize {
        match &self.executor {
            Writer::Thread { shared, .. } => {
                STAGE_LEN_MAX.saturating_sub(shared.staged.load(Ordering::Acquire))
            }
            Writer::Inline { .. } => STAGE_LEN_MAX,
        }
    }

    fn stage_txn(&mut self, _: Zxid, txn: &[u8]) {
        self.staged.push(txn.len());
        self.front.stage_log(txn, self.last);
    }

    fn discard_stage(&mut self) {
        self.staged.clear();
        self.front.push(Write::DiscardStage, self.last);
    }

    fn install(&mut self, ticket: Ticket, zxid: Zxid, digest: Option<SnapshotDigest>) {
        let void = self.drop_own();
        self.base = zxid;
        self.candidates = Candidates::default();
        self.staged.drain(..).for_each(|len| self.due.count(len));
        self.push(Write::Install { zxid, digest, void }, ticket);
    }

    fn committed(&mut self, zxid: Zxid) {
        if let Some(point) = self.candidates.committed(zxid) {
            self.front.committed(point);
        }
    }

    fn snapshot_due(&self) -> bool {
        let is_due = || self.published.retries().unwrap_or_else(|| self.due.is_due());
        // A request is taken last, as it is gone with that.
        self.own.is_none()
            && self.own_threads.iter().all(JoinHandle::is_finished)
            && (is_due() || self.options.snapshot_request.take())
    }

    fn snapshot_begin(&mut self, zxid: Zxid) {
        self.due.restart();
        self.front.push(Write::Roll, self.last);
        self.own_count += 1;
        let (number, dirs) = (self.own_count, self.dirs.clone());
        let Options { compression, zxid_section, .. } = self.options;
        let tmp = OwnSnapshot::tmp_file(&dirs, number, zxid, compression, zxid_section);
        let published = Arc::clone(&self.published);
        self.own_threads.retain(|thread| !thread.is_finished());
        match &self.executor {
            Writer::Thread { shared, .. } => {
                let shared = Arc::clone(shared);
                let begun = OwnSnapshot::spawn(
                    number,
                    tmp.clone(),
                    dirs.clone(),
                    published,
                    shared,
                    self.last,
                );
                match begun {
                    Ok((own, thread)) => {
                        self.own = Some(own);
                        self.own_threads.push(thread);
                    }
                    Err(error) => self.published.postpone(&dirs, &tmp, &error),
                }
            }
            Writer::Inline { .. } => {
                match OwnSnapshot::here(number, tmp.clone(), dirs.clone(), published) {
                    Ok(own) => self.own = Some(own),
                    Err(error) => self.published.postpone(&dirs, &tmp, &error),
                }
            }
        }
        self.abandoned = self.own.is_none();
    }

    fn snapshot_abandoned(&mut self) -> bool {
        self.own.take_if(|own| own.is_abandoned()).is_some() || std::mem::take(&mut self.abandoned)
    }

    fn snapshot_room(&self) -> usize {
        self.own.as_ref().map_or(0, OwnSnapshot::room)
    }

    fn snapshot_piece(&mut self, piece: &[u8]) {
        self.abandoned |= self.own.take_if(|own| !own.write(piece)).is_some();
    }

    fn snapshot_finish(&mut self, digest: Option<SnapshotDigest>) {
        let Some(own) = self.own.take() else { return };
        if matches!(self.executor, Writer::Inline { .. }) {
            self.submit();
        }
        if self.failed.is_none() {
            let result = own.finish(digest);
            self.keep_error(result);
        }
    }

    /// Known to be without a hole is the history after the snapshot that this server started from
    /// or was sent since; only there a stretch is read (`docs/storage.md`).
    fn log_open(&mut self, after: Zxid, through: Zxid, any_length: bool) -> Option<u32> {
        let factor = if any_length { f64::INFINITY } else { self.options.snapshot_size_factor };
        if after < self.base || factor < 0.0 {
            return None;
        }
        let history = self.read_history(Stretch { base: self.base, after, through, factor })?;
        self.readings_count = self.readings_count.wrapping_add(1);
        self.readings.insert(self.readings_count, history);
        Some(self.readings_count)
    }

    fn log_ready(&mut self, log: u32) -> LogReady {
        self.readings.get_mut(&log).map_or(LogReady::NotYet, LogSource::ready)
    }

    fn log_read(&mut self, log: u32, txn: &mut Vec<u8>) -> Option<Zxid> {
        self.readings.get_mut(&log)?.read(txn)
    }

    fn log_close(&mut self, log: u32) {
        self.readings.remove(&log);
    }
}
