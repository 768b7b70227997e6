//! Changes that replace history as a whole: each has one rename or file that decides, and what is
//! left to do after it can be done again by recovery.

use std::path::{Path, PathBuf};

use zab_proto::Zxid;

use crate::error::Error;
use crate::foreign::warn_once;
use crate::fs::Fs;
use crate::log_file::LogReader;
use crate::names::{self, Compression, Numbered};
use crate::snapshot;

/// The two directories, for those who change more than one file.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    pub(crate) fs: Fs,
    pub(crate) snap: PathBuf,
    pub(crate) log: PathBuf,
}

impl Dirs {
    /// Makes the sealed and durable stage the snapshot as of `zxid`, and with it the staged log, if there
    /// is one, the log. The rename decides: before it the old history stands, after it the new one, and
    /// [`finish_install`](Self::finish_install) clears away what was there before.
    pub(crate) fn install(
        &self,
        zxid: Zxid,
        compression: Compression,
        with_log: bool,
    ) -> Result<(), Error> {
        let to = self.snap.join(names::install_name(zxid, compression, with_log));
        self.fs.rename(&self.snap.join(names::STAGE), &to)?;
        self.fs.sync_dir(&self.snap)?;
        self.finish_install(zxid, compression, with_log)
    }

    /// No log is kept but the staged one: what others hold above `zxid` is void, and what they hold
    /// below may be of another history, which must not come back when a later start falls back to an
    /// older snapshot.
    ///
    /// A staged log that is due and not there is in its place already, and is not to be set aside.
    fn finish_install(
        &self,
        zxid: Zxid,
        compression: Compression,
        with_log: bool,
    ) -> Result<(), Error> {
        let staged = self.log.join(names::STAGE_LOG);
        let waits = with_log && staged.exists();
        if waits || !with_log {
            self.set_aside_logs()?;
        }
        if waits {
            self.place_log(&staged)?;
        }
        for snapshot in names::snapshots(&self.snap)? {
            if snapshot.zxid > zxid {
                names::set_aside(&self.fs, &snapshot.path)?;
            }
        }
        self.fs.sync_dir(&self.snap)?;
        let from = self.snap.join(names::install_name(zxid, compression, with_log));
        let to = self.snap.join(names::snapshot_name(zxid, compression));
        self.fs.rename(&from, &to)?;
        self.fs.sync_dir(&self.snap)
    }

    /// Names the staged log by its first record.
    fn place_log(&self, staged: &Path) -> Result<(), Error> {
        let first = LogReader::open(staged)?.next()?.map_or(Zxid::ZERO, |record| record.zxid);
        self.fs.rename(staged, &self.log.join(names::log_name(first)))?;
        self.fs.sync_dir(&self.log)
    }

    fn set_aside_logs(&self) -> Result<(), Error> {
        for log in names::logs(&self.log)?.iter().rev() {
            names::set_aside(&self.fs, &log.path)?;
        }
        self.fs.sync_dir(&self.log)
    }

    /// Completes what a crash has interrupted, and removes unfinished files of ours.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        for (Numbered { zxid, path, compression }, with_log) in names::installs(&self.snap)? {
            log::warn!("completing the installation of {}", path.display());
            self.finish_install(zxid, compression, with_log)?;
        }
        for path in names::leftovers(&self.snap)?.into_iter().chain(names::leftovers(&self.log)?) {
            // Both may be one directory.
            if path.exists() {
                self.fs.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes every log record and every snapshot above `after`.
    ///
    /// Newest first and each step durable before the next, so that a crash leaves a history that
    /// ends somewhere between the old end and the new one, without a hole: what is cut was never
    /// committed, and the leader will ask for the same again.
    ///
    /// Source: ZooKeeper `FileTxnLog.truncate`, but by "zxid <= after" and with the snapshots.
    pub(crate) fn truncate(&self, after: Zxid) -> Result<(), Error> {
        let fail = |reason| Err(Error::TruncateTarget { path: self.log.clone(), after, reason });
        let mut snapshots = self.plausible_snapshots()?;
        snapshots.retain(|snapshot| snapshot::is_plausible(&snapshot.path).is_ok());
        let base = snapshots.iter().map(|snapshot| snapshot.zxid).find(|&zxid| zxid <= after);
        let Some(base) = base else { return fail("no snapshot is that old") };
        let (newer, older): (Vec<_>, Vec<_>) =
            names::logs(&self.log)?.into_iter().partition(|log| log.zxid > after);
        let cut = match older.last() {
            Some(log) => Some((log, cut_position(log, after)?)),
            None => None,
        };
        let reached = cut.as_ref().and_then(|(_, cut)| cut.last).map_or(base, |z| z.max(base));
        if reached != after && after.counter() != 0 {
            return fail("neither log nor snapshot ends there");
        }
        for snapshot in names::snapshots(&self.snap)?.iter().filter(|s| s.zxid > after) {
            names::set_aside(&self.fs, &snapshot.path)?;
        }
        self.fs.sync_dir(&self.snap)?;
        for log in newer.iter().rev() {
            self.fs.remove(&log.path)?;
            self.fs.sync_dir(&self.log)?;
        }
        if let Some((log, cut)) = cut {
            let mut file = self.fs.open(log.path.clone())?;
            file.resize(cut.offset)?;
            file.sync()?;
        }
        Ok(())
    }

    /// The snapshots that look whole, newest first, and those that cannot be looked at: what is in
    /// them counts as lost, unless the logs reach as far.
    pub(crate) fn plausible_snapshots(&self) -> Result<Vec<Numbered>, Error> {
        let mut found = names::snapshots(&self.snap)?;
        found.retain(|snapshot| {
            let plausible = snapshot::is_plausible(&snapshot.path).unwrap_or(true);
            if !plausible {
                warn_once(&snapshot.path, "it is not a whole snapshot");
            }
            plausible
        });
        Ok(found)
    }
}

struct Cut {
    offset: u64,
    last: Option<Zxid>,
}

/// The end of the last record at or below `after`.
fn cut_position(log: &Numbered, after: Zxid) -> Result<Cut, Error> {
    let mut reader = LogReader::open(&log.path)?;
    let mut cut = Cut { offset: reader.offset(), last: None };
    while let Some(record) = reader.next()? {
        if record.zxid > after {
            break;
        }
        cut.last = Some(record.zxid);
        cut.offset = reader.offset();
    }
    Ok(cut)
}
