//! From files to a state: the newest good snapshot, then the log after it.

use std::fs;
use std::path::{Path, PathBuf};

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Application, DigestVerdict, EpochKind, Instant, Recovered, SnapshotDigest, Zxid};

use crate::commit_point::CommitPoint;
use crate::configurations;
use crate::epoch;
use crate::error::{Context, Damage, Error};
use crate::identity;
use crate::install::Dirs;
use crate::log_file::{self, LogReader};
use crate::names::{self, Compression, Numbered};
use crate::snapshot::{Pace, SnapshotReader, SnapshotWriter, Trailer};
use crate::store::Store;

/// ZooKeeper tries this many snapshots before it gives up.
const SNAPSHOTS_TRIED_MAX: usize = 100;
/// More zxids in a row than this are not believed to be unused.
const UNUSED_MAX: i64 = 1 << 16;

impl Store {
    /// Loads the newest good snapshot into `app`, applies what is known to be committed of the log
    /// after it, collects the rest, and reads the epochs. Everything found is durable when this returns, even what a killed process left in
    /// the page cache (rule R4).
    ///
    /// # Errors
    /// Whatever no crash explains: damage, missing transactions, a directory without snapshot.
    /// Nothing was changed then but leftovers of interrupted writes.
    pub fn recover<A: Application>(&mut self, app: &mut A) -> Result<Recovered, Error> {
        let dirs = self.dirs();
        dirs.complete()?;
        self.clear_newest_log()?;
        let mut recovered = Recovered::default();
        recovered.accepted_epoch = epoch::read(&self.snap_dir, EpochKind::Accepted)?;
        recovered.current_epoch = epoch::read(&self.snap_dir, EpochKind::Current)?;
        recovered.identity = identity::read_identity(&self.snap_dir)?;
        recovered.configurations = configurations::read_configurations(&self.snap_dir)?;
        if recovered.configurations.is_empty() {
            recovered.configurations.clone_from(&self.options.configurations);
        }
        recovered.initialize = self.initialize_files().next().is_some();
        let began = std::time::Instant::now();
        let loaded = self.load_snapshot(&dirs, app)?;
        let snapshot = began.elapsed();
        if let Some(Loaded { zxid, digest, .. }) = &loaded {
            // As Java prints a long.
            let digest = digest.map_or_else(|| "unknown".into(), |d| d.cast_signed().to_string());
            log::info!(
                "Snapshot loaded in {} ms, highest zxid is {:#x}, digest is {digest}",
                snapshot.as_millis(),
                zxid.raw()
            );
        }
        match &loaded {
            Some(loaded) => {
                recovered.snapshot = Some(loaded.zxid);
                recovered.snapshot_end = loaded.end;
            }
            None => self.begin_empty(&mut recovered, app)?,
        }
        let (reached, holes) = self.read_tail(&mut recovered, loaded.as_ref(), app)?;
        let log = began.elapsed().saturating_sub(snapshot);
        log::info!("{} txns loaded in {} ms", self.replayed.0, log.as_millis());
        self.options.start_times.add(snapshot, log, self.replayed.0);
        if !holes.is_empty() {
            recovered.unused_proven = verify(&recovered, loaded.as_ref(), app, holes)?;
        }
        self.base = match self.options.allow_holes {
            true => reached,
            false => recovered.snapshot.unwrap_or(Zxid::ZERO),
        };
        if let Some(Loaded { skipped: Some((zxid, path)), .. }) = &loaded
            && reached < *zxid
            && !self.options.allow_holes
        {
            return Err(Error::Lost { path: path.clone(), reached });
        }
        let base = recovered.snapshot.unwrap_or(Zxid::ZERO);
        self.settle(loaded.as_ref().map(|loaded| loaded.path.as_path()), base)?;
        Ok(recovered)
    }

    pub(crate) fn dirs(&self) -> Dirs {
        Dirs { fs: self.fs.clone(), snap: self.snap_dir.clone(), log: self.log_dir.clone() }
    }

    /// Sets aside what a crash during the creation of the newest log can have left: an empty file,
    /// a piece of its header, or zeros. In any other place the same is damage.
    fn clear_newest_log(&self) -> Result<(), Error> {
        let logs = names::logs(&self.log_dir)?;
        let Some(newest) = logs.last() else { return Ok(()) };
        let len = fs::metadata(&newest.path).context("read", &newest.path)?.len();
        if len >= log_file::HEADER_LEN && !is_all_zero(&newest.path)? {
            return Ok(());
        }
        names::set_aside(&self.fs, &newest.path)?;
        self.fs.sync_dir(&self.log_dir)
    }

    fn load_snapshot<A: Application>(
        &self,
        dirs: &Dirs,
        app: &mut A,
    ) -> Result<Option<Loaded>, Error> {
        let candidates = dirs.plausible_snapshots()?;
        let mut skipped = None;
        for candidate in candidates.iter().take(SNAPSHOTS_TRIED_MAX) {
            log::info!("Reading snapshot {}", candidate.path.display());
            match load(&candidate.path, candidate.zxid, app) {
                Ok(trailer) => return Ok(Some(Loaded::new(candidate, trailer, skipped))),
                Err(error) => {
                    app.install_abort();
                    log::error!("{error}; trying the next older snapshot");
                    skipped.get_or_insert_with(|| (candidate.zxid, candidate.path.clone()));
                }
            }
        }
        if candidates.is_empty() { Ok(None) } else { Err(self.no_valid_snapshot()) }
    }

    fn no_valid_snapshot(&self) -> Error {
        Error::NoValidSnapshot(self.snap_dir.clone())
    }

    /// No snapshot: an empty directory, or one in which something is wrong.
    fn begin_empty<A: Application>(
        &mut self,
        recovered: &mut Recovered,
        app: &mut A,
    ) -> Result<(), Error> {
        let logged = !names::logs(&self.log_dir)?.is_empty();
        if logged && !self.options.trust_empty_snapshot {
            return Err(Error::NoSnapshot(self.snap_dir.clone()));
        }
        let broken = names::snapshots(&self.snap_dir)?;
        if broken.iter().any(|snapshot| snapshot.zxid != Zxid::ZERO) && !logged {
            return Err(self.no_valid_snapshot());
        }
        for snapshot in &broken {
            names::set_aside(&self.fs, &snapshot.path)?;
        }
        let initial = initial_state(app);
        if logged || recovered.initialize || self.options.autocreate {
            write_initial(&self.dirs(), &initial, self.options.zxid_section)?;
            recovered.snapshot = Some(Zxid::ZERO);
        } else {
            self.initial = Some(initial);
        }
        Ok(())
    }

    /// Reads the records above the snapshot and returns the last zxid of the history, and the holes
    /// in it. What is known to be committed is applied meanwhile and not kept, so that memory does not
    /// grow with the log. If that turns out to be wrong, or not enough, all begins again, and everything
    /// is kept.
    fn read_tail<A: Application>(
        &mut self,
        recovered: &mut Recovered,
        loaded: Option<&Loaded>,
        app: &mut A,
    ) -> Result<(Zxid, Vec<Hole>), Error> {
        let point = CommitPoint::read(&self.log_dir);
        let base = recovered.snapshot.unwrap_or(Zxid::ZERO);
        let known = match point.filter(|point| point.zxid > base) {
            _ if loaded.is_none() => Known::Nothing,
            _ if self.options.alone => Known::Everything,
            Some(point) => Known::Through(point),
            None => Known::Epochs,
        };
        let read = self.replay(recovered, loaded, known, app)?;
        if let (Some(loaded), true) = (loaded, read.doubtful && known != Known::Nothing) {
            recovered.rewind();
            load(&loaded.path, loaded.zxid, app)?;
            let read = self.replay(recovered, Some(loaded), Known::Nothing, app)?;
            return Ok((read.last, read.holes));
        }
        Ok((read.last, read.holes))
    }

    fn replay<A: Application>(
        &mut self,
        recovered: &mut Recovered,
        loaded: Option<&Loaded>,
        known: Known,
        app: &mut A,
    ) -> Result<Replay, Error> {
        let mut tail = Tail {
            last: recovered.snapshot.unwrap_or(Zxid::ZERO),
            strict: loaded.is_none_or(|loaded| loaded.skipped.is_some()),
            allow_holes: self.options.allow_holes,
        };
        let base = tail.last;
        self.replayed = (0, 0);
        let mut holes = Vec::new();
        let mut apply = |zxid: Zxid, txn: &[u8]| app.deliver(Instant::ZERO, zxid, txn);
        // Whether the record that the commit point names was met.
        let mut met = !matches!(known, Known::Through(_));
        // The record before those that this server wrote in the place of unused zxids.
        let mut filled = None;
        for log in logs_above(names::logs(&self.log_dir)?, base) {
            let mut reader = LogReader::open(&log.path)?;
            let mut repeated = 0;
            while let Some(record) = reader.next()? {
                let after = tail.last;
                // A server of Apache's that synchronises again may log again what it has.
                let again = record.zxid <= after && recovered.txn(record.zxid) == Some(record.txn);
                repeated += u64::from(again);
                if !again && record.zxid > base && record.zxid <= recovered.base() {
                    // It may repeat one that is not in memory any more.
                    return Ok(Replay { last: tail.last, holes, doubtful: true });
                }
                let place = match record.zxid > base && !again {
                    true => tail.accept(&log.path, &record)?,
                    false => Place::Repeats,
                };
                if place == Place::Repeats {
                    continue;
                }
                let header = TxnHeader::parse(record.txn).ok();
                let hole = |after, filled| Hole {
                    path: log.path.clone(),
                    after,
                    next: record.zxid,
                    filled,
                };
                if place == Place::BehindHole {
                    holes.push(hole(after, false));
                    recovered.push_unused(record.zxid, header.map_or(0, |header| header.time));
                }
                if header.is_some_and(|header| header.is_unused()) {
                    filled.get_or_insert(after);
                } else if let Some(after) = filled.take() {
                    holes.push(hole(after, true));
                }
                self.replayed.0 += 1;
                self.replayed.1 += record.txn.len() as u64;
                met |= known.push(recovered, after, &record, &mut apply);
            }
            if repeated > 0 {
                log::warn!("{}: {repeated} transactions are repeated", log.path.display());
            }
        }
        if let Some(after) = filled {
            let next = Zxid::from_raw(tail.last.raw() + 1);
            holes.push(Hole { path: self.log_dir.clone(), after, next, filled: true });
        }
        self.report(recovered, met);
        Ok(Replay { last: tail.last, doubtful: !met || !holes.is_empty(), holes })
    }

    fn report(&self, recovered: &Recovered, met: bool) {
        if !met {
            let name = self.log_dir.display();
            log::warn!("{name}: its commit point belongs to another log and is not used");
        }
        let ((records, bytes), last) = (self.replayed, recovered.last());
        let committed = recovered.delivered();
        log::info!(
            "{records} transactions after the snapshot, {bytes} bytes, up to {last}; known to be \
             committed up to {committed}"
        );
    }

    /// Makes durable what was found and used, and consumes the `initialize` files.
    fn settle(&self, snapshot: Option<&Path>, base: Zxid) -> Result<(), Error> {
        if let Some(snapshot) = snapshot {
            self.fs.sync_file(snapshot)?;
        }
        for log in logs_above(names::logs(&self.log_dir)?, base) {
            self.fs.sync_file(&log.path)?;
        }
        for name in ["acceptedEpoch", "currentEpoch", identity::NAME, configurations::NAME] {
            let path = self.snap_dir.join(name);
            if path.exists() {
                self.fs.sync_file(&path)?;
            }
        }
        self.fs.sync_dir(&self.snap_dir)?;
        if self.log_dir != self.snap_dir {
            self.fs.sync_dir(&self.log_dir)?;
        }
        for path in self.initialize_files() {
            self.fs.remove(&path)?;
            if let Some(dir) = path.parent() {
                self.fs.sync_dir(dir)?;
            }
        }
        Ok(())
    }

    /// The `initialize` files there are: an operator's word that an empty directory must be
    /// trusted. ZooKeeper's script creates it in `dataDir`, its server looks in `dataLogDir`.
    fn initialize_files(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let (log, data) = (&self.options.log_dir, &self.options.data_dir);
        let mut paths = vec![log.join("initialize")];
        if data != log {
            paths.push(data.join("initialize"));
        }
        paths.into_iter().filter(|path| path.is_file())
    }
}

/// What is known to be committed of the records after the snapshot; see [`Recovered::deliver`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Not to be relied on: everything is kept.
    Nothing,
    /// What lies in front of a later epoch.
    Epochs,
    /// That, and what lies before this record, if the log has it.
    Through(CommitPoint),
    Everything,
}

impl Known {
    /// Adds a record that follows `after`, and applies what is known to be committed now. True if the
    /// record is the one that the commit point names.
    fn push(
        self,
        recovered: &mut Recovered,
        after: Zxid,
        record: &log_file::Record<'_>,
        apply: &mut impl FnMut(Zxid, &[u8]),
    ) -> bool {
        if self != Self::Nothing && record.zxid.epoch() != after.epoch() {
            recovered.deliver(after, &mut *apply);
        }
        recovered.push(record.zxid, record.txn);
        match self {
            Self::Nothing | Self::Epochs => false,
            Self::Everything => {
                recovered.deliver(record.zxid, apply);
                false
            }
            Self::Through(point) => {
                recovered.deliver(record.zxid.min(point.zxid), apply);
                (record.zxid, record.checksum) == (point.zxid, point.checksum)
            }
        }
    }
}

/// What was found after the snapshot.
struct Replay {
    /// The last zxid of the history.
    last: Zxid,
    holes: Vec<Hole>,
    /// More may have been applied than is known to be committed, or less been kept than is needed.
    doubtful: bool,
}

/// The snapshot in use.
struct Loaded {
    path: PathBuf,
    zxid: Zxid,
    /// The last transaction that has left traces in it.
    end: Zxid,
    /// The tree's digest, by its file.
    digest: Option<u64>,
    /// The newest snapshot that could not be used instead.
    skipped: Option<(Zxid, PathBuf)>,
}

impl Loaded {
    fn new(from: &Numbered, trailer: Trailer, skipped: Option<(Zxid, PathBuf)>) -> Self {
        let end = trailer.end(from.zxid);
        let digest = trailer.digest.map(|digest| digest.digest);
        Self { path: from.path.clone(), zxid: from.zxid, end, digest, skipped }
    }
}

/// Loads one snapshot, all or nothing.
pub(crate) fn load<A: Application>(path: &Path, zxid: Zxid, app: &mut A) -> Result<Trailer, Error> {
    let mut reader = SnapshotReader::open(path)?;
    loop {
        let Ok(progress) = app.install(reader.bytes()) else {
            return Err(reader.damaged(Damage::Undecodable));
        };
        reader.consume(progress.consumed);
        if progress.done {
            break;
        }
        if reader.fill()?.is_none() {
            return Err(reader.damaged(Damage::CutShort));
        }
    }
    let trailer = reader.finish()?;
    // An all-zero section says that nothing was digested yet.
    let digest = trailer.digest.filter(|digest| digest.zxid != Zxid::ZERO);
    app.install_commit(zxid, digest);
    Ok(trailer)
}

/// Zxids that no record has.
struct Hole {
    path: PathBuf,
    after: Zxid,
    next: Zxid,
    /// A learner has written records in their place, for the time until it knows more.
    filled: bool,
}

/// Finds out whether the zxids in the holes were lost or never used.
///
/// A leader of ZooKeeper 3.8 takes a zxid for some malformed requests and proposes nothing
/// (`PrepRequestProcessor.pRequest`; rule R8). The records are applied on trial: nothing that counts is missing in
/// a hole if the state has the digest of the first record after it that has one. Afterwards the state
/// is that of the snapshot again: what is committed is not known here.
///
/// An open hole that cannot be proven is an error. One that is filled is of this server's own making,
/// before it could know: the proof, if it fails, is returned, and a leader's snapshot is to replace
/// the history.
fn verify<A: Application>(
    recovered: &Recovered,
    loaded: Option<&Loaded>,
    app: &mut A,
    holes: Vec<Hole>,
) -> Result<DigestVerdict, Error> {
    let mut holes = holes.into_iter();
    let mut doubtful = holes.next();
    let mut proof = DigestVerdict::Agrees;
    if let Some(loaded) = loaded {
        for (zxid, txn) in recovered.txns() {
            app.deliver(Instant::ZERO, zxid, txn);
            // Inside of a fuzzy snapshot no digest agrees.
            let behind = |hole: &Hole| zxid >= hole.next && zxid >= loaded.end;
            while doubtful.as_ref().is_some_and(behind) && app.agrees() == DigestVerdict::Agrees {
                doubtful = holes.next();
            }
            if doubtful.as_ref().is_some_and(behind) && app.agrees() == DigestVerdict::Differs {
                proof = DigestVerdict::Differs;
                break;
            }
        }
        load(&loaded.path, loaded.zxid, app)?;
    }
    for Hole { path, after, next, filled } in doubtful.into_iter().chain(holes) {
        if !filled {
            return Err(Error::Hole { path, after, next });
        }
        let name = path.display();
        log::warn!("{name}: no digest shows that nothing was lost between {after} and {next}");
        if proof == DigestVerdict::Agrees {
            proof = DigestVerdict::Absent;
        }
    }
    Ok(proof)
}

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is part of the history already.
    Repeats,
    Next,
    /// Counters are missing in front of it.
    BehindHole,
}

/// Checks that each record follows its predecessor.
struct Tail {
    last: Zxid,
    /// An older snapshot is in use than should be, or none: the first records of epochs must be
    /// there.
    strict: bool,
    allow_holes: bool,
}

impl Tail {
    /// Where the record stands in the history.
    fn accept(&mut self, path: &Path, record: &log_file::Record<'_>) -> Result<Place, Error> {
        let next = record.zxid;
        if next == self.last && log_file::is_error(record.txn) {
            return Ok(Place::Repeats);
        }
        if next <= self.last {
            return Err(Error::Damaged {
                path: path.to_path_buf(),
                offset: record.offset,
                after: Some(self.last),
                what: Damage::OutOfOrder(next),
            });
        }
        let new_epoch = next.epoch() != self.last.epoch();
        let hole = !new_epoch && next.raw() != self.last.raw() + 1;
        let late = new_epoch && next.counter() != 1;
        let lost = late && self.strict || hole && next.raw() - self.last.raw() > UNUSED_MAX;
        if lost && !self.allow_holes {
            return Err(Error::Hole { path: path.to_path_buf(), after: self.last, next });
        }
        if late || hole {
            log::warn!("{}: there is nothing between {} and {next}", path.display(), self.last);
        }
        self.last = next;
        Ok(if hole && !self.allow_holes { Place::BehindHole } else { Place::Next })
    }
}

/// The logs that may hold records above `base`: those named above it and the last one before,
/// unless the next record is the first of a file anyway.
pub(crate) fn logs_above(mut logs: Vec<Numbered>, base: Zxid) -> Vec<Numbered> {
    let first = logs.partition_point(|log| log.zxid <= base);
    let next = Zxid::from_raw(base.raw() + 1);
    let exact = logs.get(first).is_some_and(|log| log.zxid == next && begins_with(log, next));
    logs.drain(..if exact { first } else { first.saturating_sub(1) });
    logs
}

fn begins_with(log: &Numbered, zxid: Zxid) -> bool {
    let Ok(mut reader) = LogReader::open(&log.path) else { return false };
    matches!(reader.next(), Ok(Some(record)) if record.zxid == zxid)
}

/// Whether a file has a log header's length of zeros and nothing else after it.
fn is_all_zero(path: &Path) -> Result<bool, Error> {
    use std::io::{BufRead, BufReader};
    let mut file = BufReader::new(fs::File::open(path).context("open", path)?);
    loop {
        let buf = file.fill_buf().context("read", path)?;
        if buf.is_empty() {
            return Ok(true);
        }
        if buf.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        let n = buf.len();
        file.consume(n);
    }
}

/// The bytes of the application's state before any transaction.
fn initial_state<A: Application>(app: &mut A) -> Vec<u8> {
    let snapshot = app.snapshot_open();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = app.snapshot_read(snapshot, &mut piece);
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..n]);
    }
    app.snapshot_close(snapshot);
    bytes
}

/// Writes `snapshot.0`.
pub(crate) fn write_initial(dirs: &Dirs, bytes: &[u8], zxid_section: bool) -> Result<(), Error> {
    let tmp = dirs.snap.join(names::OWN);
    let mut writer = SnapshotWriter::create(&dirs.fs, &tmp, Compression::None, Pace::Full)?;
    writer.write(bytes)?;
    writer.finish(None::<SnapshotDigest>, zxid_section.then_some(Zxid::ZERO))?;
    let name = names::snapshot_name(Zxid::ZERO, Compression::None);
    dirs.fs.rename(&tmp, &dirs.snap.join(name))?;
    dirs.fs.sync_dir(&dirs.snap)
}
