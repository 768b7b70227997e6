//! Making a data directory that holds a state and no log: what a restored member starts with.

use std::fs;
use std::path::{Path, PathBuf};

use zab_proto::{Application, Epoch, EpochKind, Identity, Zxid};

use crate::epoch;
use crate::error::{Context, Error};
use crate::fs::Fs;
use crate::identity;
use crate::names::{self, Compression};
use crate::snapshot::{Pace, SnapshotWriter, compression_of};
use crate::view::View;

/// What stands beside the state in a directory that is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed {
    /// The zxid of the state.
    pub zxid: Zxid,
    /// `acceptedEpoch`: the member takes part in no epoch up to this one any more.
    pub accepted: Epoch,
    /// `currentEpoch`, by which elections rank the history.
    pub current: Epoch,
    /// The ensemble that the directory belongs to; `None`: the first leader decides.
    pub identity: Option<Identity>,
}

/// Writes the state of `app` as a snapshot file of its own, durably, under the name
/// `snapshot.<zxid>`, with `.gz` after it if it is compressed; the path. `progress` is told how many
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
    if !replace && View::new(data_dir, log_dir).has_history()? {
        let reason = "holds data already, which is not overwritten";
        return Err(Error::Directory { path: data_dir.to_path_buf(), reason });
    }
    make(data_dir, log_dir, seed, |made| {
        write_snapshot(app, made, seed.zxid, Compression::None, |_| {}).map(drop)
    })
}

/// The same with a snapshot file that is there already, in `data_dir`, and durable. It is moved, and what was
/// in the directories before is always kept.
///
/// # Errors
/// As [`seed`]. Up to the rename the old history stands.
pub fn seed_file(
    file: &Path,
    data_dir: &Path,
    log_dir: &Path,
    seed: Seed,
) -> Result<Vec<PathBuf>, Error> {
    let name = names::snapshot_name(seed.zxid, compression_of(file));
    make(data_dir, log_dir, seed, |made| Fs::default().rename(file, &made.join(name)))
}

/// Makes the new `version-2` and gives it its place.
fn make(
    data_dir: &Path,
    log_dir: &Path,
    seed: Seed,
    write_state: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<Vec<PathBuf>, Error> {
    if View::new(data_dir, log_dir).is_in_use()? {
        let reason = "in use by another process";
        return Err(Error::Directory { path: data_dir.to_path_buf(), reason });
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
    write_state(&made)?;
    for (kind, epoch) in [(EpochKind::Accepted, seed.accepted), (EpochKind::Current, seed.current)]
    {
        epoch::write(&fs, &made, kind, epoch)?;
    }
    if let Some(identity) = seed.identity {
        identity::write(&fs, &made, identity)?;
    }
    fs.sync_dir(&made)?;
    // Comes last: who finds it knows that everything else is there.
    fs.replace(&made, NEW, b"")?;
    fs.sync_dir(data_dir)?;
    let kept = put_in_place(&fs, data_dir, Some(&made))?;
    Ok(kept.into_iter().chain(finish(&fs, data_dir, log_dir)?).collect())
}

/// Finishes what [`seed`] or [`seed_file`] had begun when the process was stopped. The old logs must not be
/// read behind the new state: it may be an older one, or of another history.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn complete(data_dir: &Path, log_dir: &Path) -> Result<(), Error> {
    let fs = Fs::default();
    let (place, made) = (data_dir.join(names::VERSION_DIR), data_dir.join(MADE));
    // Where two names cannot be exchanged in one step there is none for a moment.
    if !place.exists() && made.join(NEW).exists() {
        log::warn!(
            "{}: completing a replacement of the state that was interrupted",
            data_dir.display()
        );
        fs.rename(&made, &place)?;
        fs.sync_dir(data_dir)?;
    }
    if made.join(NEW).exists() {
        // It never got its place, and must not get it by the next accident.
        log::warn!(
            "{}: undoing a replacement of the state that was interrupted",
            data_dir.display()
        );
        fs::remove_dir_all(&made).context("remove", &made)?;
    } else if place.join(NEW).exists() && made.exists() {
        // The names were exchanged: this is what was there before.
        let aside = free_name(data_dir);
        fs.rename(&made, &aside)?;
        log::warn!("{} holds the replaced state", aside.display());
    }
    if place.join(NEW).exists() {
        finish(&fs, data_dir, log_dir)?;
    }
    Ok(())
}

/// The new state is in its place: the old logs leave theirs.
fn finish(fs: &Fs, data_dir: &Path, log_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let mut kept = None;
    if log_dir != data_dir {
        kept = put_in_place(fs, log_dir, None)?;
        let dir = log_dir.join(names::VERSION_DIR);
        fs::create_dir_all(&dir).context("create directory", &dir)?;
        fs.sync_dir(log_dir)?;
    }
    let place = data_dir.join(names::VERSION_DIR);
    let mark = place.join(NEW);
    fs::remove_file(&mark).context("remove", &mark)?;
    fs.sync_dir(&place)?;
    Ok(kept)
}

/// Gives the directories that [`seed_file`] has replaced their names back; what took their place is kept
/// aside.
///
/// # Errors
/// [`Error::Io`].
pub fn put_back(data_dir: &Path, log_dir: &Path, kept: &[PathBuf]) -> Result<(), Error> {
    let fs = Fs::default();
    for dir in [log_dir, data_dir] {
        let Some(old) = kept.iter().find(|old| old.parent() == Some(dir)) else { continue };
        let place = dir.join(names::VERSION_DIR);
        if place.exists() {
            fs.rename(&place, &free_name(dir))?;
        }
        fs.rename(old, &place)?;
        fs.sync_dir(dir)?;
    }
    Ok(())
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

/// In a new `version-2` until the old logs are out of the way; see [`complete`].
const NEW: &str = ".zab-new";
/// Where a new `version-2` is made. Nobody takes it for one.
const MADE: &str = ".zab-version-2";
/// Bytes that the application is asked for at a time.
const PIECE_LEN: usize = 1 << 16;
/// How many bytes there are between two reports.
const PROGRESS_EVERY_LEN: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// `dataDir` and `dataLogDir` of a member with a history; gone with the test.
    struct Dirs(PathBuf);

    impl Dirs {
        fn new(name: &str) -> Self {
            let dirs =
                Self(std::env::temp_dir().join(format!("zab-seed-{name}-{}", std::process::id())));
            for (dir, file) in [(dirs.data(), "snapshot.0"), (dirs.log(), "log.1")] {
                fs::create_dir_all(dir.join(names::VERSION_DIR)).unwrap();
                fs::write(dir.join(names::VERSION_DIR).join(file), "old").unwrap();
            }
            dirs
        }

        fn data(&self) -> PathBuf {
            self.0.join("data")
        }

        fn log(&self) -> PathBuf {
            self.0.join("log")
        }

        fn replace(&self) -> Vec<PathBuf> {
            let file = self.data().join("upload.gz");
            fs::write(&file, "new").unwrap();
            let epoch = |n| Epoch(n);
            let seed = Seed {
                zxid: Zxid::from_raw(7),
                accepted: epoch(5),
                current: epoch(0),
                identity: None,
            };
            seed_file(&file, &self.data(), &self.log(), seed).unwrap()
        }

        fn files(&self) -> [Vec<String>; 2] {
            [self.data(), self.log()].map(|dir| {
                let mut names = names::list(&dir.join(names::VERSION_DIR)).unwrap();
                names.sort();
                names
            })
        }
    }

    impl Drop for Dirs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const NEW_FILES: [&str; 3] = ["acceptedEpoch", "currentEpoch", "snapshot.7.gz"];

    fn is_new(dirs: &Dirs) -> bool {
        let [data, log] = dirs.files();
        data == NEW_FILES && log.is_empty()
    }

    fn is_old(dirs: &Dirs) -> bool {
        dirs.files() == [vec!["snapshot.0".to_owned()], vec!["log.1".to_owned()]]
    }

    #[test]
    fn a_file_takes_the_place_of_a_history_and_gives_it_back() {
        let dirs = Dirs::new("place");
        assert!(is_old(&dirs));
        let kept = dirs.replace();
        assert!(is_new(&dirs), "{:?}", dirs.files());
        assert_eq!(kept.len(), 2);
        let place = dirs.data().join(names::VERSION_DIR);
        assert_eq!(epoch::read(&place, EpochKind::Accepted).unwrap(), Some(Epoch(5)));
        assert_eq!(epoch::read(&place, EpochKind::Current).unwrap(), Some(Epoch(0)));
        complete(&dirs.data(), &dirs.log()).unwrap();
        assert!(is_new(&dirs), "nothing is left to do");
        put_back(&dirs.data(), &dirs.log(), &kept).unwrap();
        assert!(is_old(&dirs));
    }

    /// What a process may leave that is stopped between any two renames is the old history or the new one.
    #[test]
    fn what_was_cut_short_is_finished_or_undone() {
        let version = |dir: PathBuf| dir.join(names::VERSION_DIR);
        let complete_again = |dirs: &Dirs| {
            for _ in 0..2 {
                complete(&dirs.data(), &dirs.log()).unwrap();
                assert!(!dirs.data().join(MADE).exists());
            }
        };
        // The new state has its place, the old logs have theirs still: with or without the old state under the
        // name that the new one had.
        for exchanged in [false, true] {
            let dirs = Dirs::new(if exchanged { "exchanged" } else { "logs" });
            let kept = dirs.replace();
            fs::write(version(dirs.data()).join(NEW), "").unwrap();
            fs::remove_dir(version(dirs.log())).unwrap();
            fs::rename(&kept[1], version(dirs.log())).unwrap();
            if exchanged {
                fs::rename(&kept[0], dirs.data().join(MADE)).unwrap();
            }
            complete_again(&dirs);
            assert!(is_new(&dirs), "{:?}", dirs.files());
        }
        // Where names cannot be exchanged there is none for a moment.
        let dirs = Dirs::new("moment");
        let kept = dirs.replace();
        fs::write(version(dirs.data()).join(NEW), "").unwrap();
        fs::rename(version(dirs.data()), dirs.data().join(MADE)).unwrap();
        fs::remove_dir(version(dirs.log())).unwrap();
        fs::rename(&kept[1], version(dirs.log())).unwrap();
        complete_again(&dirs);
        assert!(is_new(&dirs), "{:?}", dirs.files());
        // Complete, and never put in place: the old one stands, and nothing is left to take its place later.
        let dirs = Dirs::new("never");
        fs::create_dir(dirs.data().join(MADE)).unwrap();
        fs::write(dirs.data().join(MADE).join(NEW), "").unwrap();
        complete_again(&dirs);
        assert!(is_old(&dirs));
        // Not complete, and no version-2: an empty member, as before.
        let dirs = Dirs::new("empty");
        fs::remove_dir_all(version(dirs.data())).unwrap();
        fs::create_dir(dirs.data().join(MADE)).unwrap();
        complete(&dirs.data(), &dirs.log()).unwrap();
        assert!(!version(dirs.data()).exists());
    }
}
