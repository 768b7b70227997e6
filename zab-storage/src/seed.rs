//! Making a data directory that holds a state and no log: what a restored member starts with.

use std::fs;
use std::path::{Path, PathBuf};

use zab_proto::{Application, Epoch, EpochKind, Identity, Zxid};

use crate::epoch;
use crate::error::{Context, Error};
use crate::fs::Fs;
use crate::identity;
use crate::names::{self, Compression};
use crate::snapshot::{Pace, SnapshotWriter};
use crate::view::View;

/// What stands beside the state in a directory that is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed {
    /// The zxid of the state.
    pub zxid: Zxid,
    /// Both epochs: no member takes part in an epoch up to this one any more.
    pub epoch: Epoch,
    /// The ensemble that the directory belongs to; `None`: the first leader decides.
    pub identity: Option<Identity>,
}

/// Writes the state of `app` as a snapshot file of its own, durably, under the name
/// `snapshot.<zxid>`, with `.gz` behind it if it is compressed; the path. `progress` is told how many
/// bytes there are, every so often.
///
/// # Errors
/// [`Error::Directory`] if there is a file of that name; [`Error::Io`].
pub fn write_snapshot<A: Application>(
    app: &mut A,
    dir: &Path,
    zxid: Zxid,
    compression: Compression,
    mut progress: impl FnMut(u64),
) -> Result<PathBuf, Error> {
    let fs = Fs::default();
    let path = dir.join(names::snapshot_name(zxid, compression));
    if path.exists() {
        return Err(Error::Directory { path, reason: "exists already" });
    }
    let tmp = dir.join(names::OWN);
    let mut writer = SnapshotWriter::create(&fs, &tmp, compression, Pace::Half)?;
    let snapshot = app.snapshot_open();
    let mut piece = vec![0; PIECE_LEN];
    let (mut written, mut told) = (0, 0);
    let result = loop {
        let n = app.snapshot_read(snapshot, &mut piece);
        if n == 0 {
            break Ok(());
        }
        if let Err(error) = writer.write(&piece[..n]) {
            break Err(error);
        }
        written += n as u64;
        if written - told >= PROGRESS_EVERY_LEN {
            told = written;
            progress(written);
        }
    };
    let digest = app.snapshot_digest(snapshot);
    app.snapshot_close(snapshot);
    result?;
    // ZooKeeper 3.8 reads the zxid section of 3.9, too; but nothing here needs it.
    writer.finish(digest, None)?;
    fs.rename(&tmp, &path)?;
    fs.sync_dir(dir)?;
    Ok(path)
}

/// Makes the directories of a member whose history is the state of `app`.
///
/// One rename decides: until then there is nothing that a server would read. What was there before is
/// kept beside it under the name that is returned, if `replace` says that there may be something.
///
/// # Errors
/// [`Error::Directory`] if there is a history and `replace` is false, if a server runs there, or if
/// there are files in the way that are nobody's business here; [`Error::Io`].
pub fn seed<A: Application>(
    app: &mut A,
    data_dir: &Path,
    log_dir: &Path,
    seed: Seed,
    replace: bool,
) -> Result<Vec<PathBuf>, Error> {
    let view = View::new(data_dir, log_dir);
    let fail = |path: &Path, reason| Err(Error::Directory { path: path.to_path_buf(), reason });
    if view.is_in_use()? {
        return fail(data_dir, "in use by another process");
    }
    if !replace && view.has_history()? {
        return fail(data_dir, "holds data already, which is not overwritten");
    }
    let fs = Fs::default();
    for dir in [data_dir, log_dir] {
        fs::create_dir_all(dir).context("create directory", dir)?;
    }
    let made = data_dir.join(MADE);
    if made.exists() {
        // An attempt that was cut short: what it made, or what it has already replaced.
        fs.rename(&made, &free_name(data_dir))?;
    }
    fs::create_dir(&made).context("create directory", &made)?;
    write_snapshot(app, &made, seed.zxid, Compression::None, |_| {})?;
    for kind in [EpochKind::Accepted, EpochKind::Current] {
        epoch::write(&fs, &made, kind, seed.epoch)?;
    }
    if let Some(identity) = seed.identity {
        identity::write(&fs, &made, identity)?;
    }
    fs.sync_dir(&made)?;
    fs.sync_dir(data_dir)?;
    let mut kept = Vec::new();
    // First the state, then the logs: a log that does not go beyond the snapshot is not read.
    kept.extend(put_in_place(&fs, data_dir, Some(&made))?);
    if log_dir != data_dir {
        kept.extend(put_in_place(&fs, log_dir, None)?);
        let dir = log_dir.join(names::VERSION_DIR);
        fs::create_dir_all(&dir).context("create directory", &dir)?;
        fs.sync_dir(log_dir)?;
    }
    Ok(kept)
}

/// Gives `made` the place of `version-2`, and what is there another name.
fn put_in_place(fs: &Fs, dir: &Path, made: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    let place = dir.join(names::VERSION_DIR);
    let mut kept = None;
    if place.exists() && !is_bare(&place)? {
        let aside = free_name(dir);
        match made {
            // Both names change in one step, where the file system can do that.
            Some(made) if exchange(made, &place).is_ok() => fs.rename(made, &aside)?,
            made => {
                fs.rename(&place, &aside)?;
                if let Some(made) = made {
                    fs.rename(made, &place)?;
                }
            }
        }
        kept = Some(aside);
    } else if let Some(made) = made {
        if place.exists() {
            fs::remove_dir_all(&place).context("remove", &place)?;
        }
        fs.rename(made, &place)?;
    }
    fs.sync_dir(dir)?;
    Ok(kept)
}

/// A name for what is replaced. Nobody takes it for a data directory, and nobody removes it.
fn free_name(dir: &Path) -> PathBuf {
    let mut n = 1;
    loop {
        let aside = dir.join(format!("{}.replaced-{n}", names::VERSION_DIR));
        if !aside.exists() {
            return aside;
        }
        n += 1;
    }
}

fn exchange(a: &Path, b: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

/// Whether a directory has nothing in it but what a server leaves that has never had a history.
fn is_bare(dir: &Path) -> Result<bool, Error> {
    Ok(names::list(dir)?.iter().all(|name| [names::LOCK, names::PROBE].contains(&name.as_str())))
}

/// Where a new `version-2` is made. Nobody takes it for one.
const MADE: &str = ".zab-version-2";
/// Bytes that the application is asked for at a time.
const PIECE_LEN: usize = 1 << 16;
/// How many bytes there are between two reports.
const PROGRESS_EVERY_LEN: u64 = 64 << 20;
