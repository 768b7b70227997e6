//! `acceptedEpoch`, `currentEpoch` and `myid`: files with one number.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use zab_proto::{Epoch, EpochKind};

use crate::error::{Context, Error};
use crate::fs::Fs;

fn name(kind: EpochKind) -> &'static str {
    match kind {
        EpochKind::Accepted => "acceptedEpoch",
        EpochKind::Current => "currentEpoch",
    }
}

/// Makes an epoch durable.
///
/// A number of the same length is overwritten in place: a few bytes at the start of a file lie in
/// one disk sector, which is written whole or not at all (PostgreSQL trusts its control file to
/// the same), and an fdatasync of one allocated block needs no commit of the file system's journal.
/// Two of these writes stand between the end of a leader and its successor's first transaction.
///
/// Otherwise: temporary file, fsync, rename, directory fsync. (ZooKeeper leaves out the last step,
/// so that a power cut can undo a promise.) The temporary name is ZooKeeper's, which looks for
/// `currentEpoch.tmp` when a server died between the last record of an epoch and its file.
pub(crate) fn write(fs: &Fs, dir: &Path, kind: EpochKind, epoch: Epoch) -> Result<(), Error> {
    let (name, text) = (name(kind), epoch.to_string());
    let path = dir.join(name);
    match fs::metadata(&path) {
        Ok(old) if old.is_file() && old.len() == text.len() as u64 => {
            let mut file = fs.open(path)?;
            file.write_all(text.as_bytes()).context("write", file.path())?;
            file.sync()
        }
        _ => fs.replace(dir, name, text.as_bytes()),
    }
}

/// Reads an epoch; `None` if there is no file.
pub(crate) fn read(dir: &Path, kind: EpochKind) -> Result<Option<Epoch>, Error> {
    read_number(&dir.join(name(kind))).map(|number| number.map(Epoch))
}

/// Reads the server id from `<dir>/myid`, `dir` being `dataDir`.
///
/// # Errors
/// [`Error::Io`] if there is no such file, [`Error::NotANumber`] if its first line is no number.
pub fn read_myid(dir: &Path) -> Result<i64, Error> {
    let path = dir.join("myid");
    match read_number(&path)? {
        Some(id) => Ok(id),
        None => Err(std::io::Error::from(ErrorKind::NotFound)).context("read", &path),
    }
}

/// The first line, strictly a decimal number.
fn read_number(path: &Path) -> Result<Option<i64>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", path),
    };
    let line = text.split(|&b| b == b'\n' || b == b'\r').next().unwrap_or_default();
    match std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::NotANumber(path.to_path_buf())),
    }
}
