//! Names of files, and what is in a directory.

use std::fs;
use std::path::{Path, PathBuf};

use zab_proto::Zxid;

use crate::error::{Context, Error};
use crate::foreign::warn_once;
use crate::fs::Fs;

/// The directory inside `dataDir` and `dataLogDir` that holds everything but `myid`.
pub(crate) const VERSION_DIR: &str = "version-2";
/// The file whose lock keeps a second process out.
pub(crate) const LOCK: &str = ".zab-lock";
/// Written and removed at the start, to see whether that can be done.
pub(crate) const PROBE: &str = ".zab-probe";
/// A leader's snapshot while it arrives.
pub(crate) const STAGE: &str = ".zab-stage";
/// What follows a leader's snapshot, in the log's directory: a log that does not count yet.
pub(crate) const STAGE_LOG: &str = ".zab-stage-log";
/// Prefix of a staged snapshot that is complete and durable: its name is the switch.
const INSTALL: &str = ".zab-install.";
/// The same, if the staged log belongs to it.
const INSTALL_WITH_LOG: &str = ".zab-install-log.";
/// A snapshot of our own while it is being written.
pub(crate) const OWN: &str = ".zab-snapshot";
/// The same, of several.
pub(crate) const OWN_NUMBERED: &str = ".zab-snapshot.";
/// Prefix of files that were taken out of the history but not deleted.
const SET_ASIDE: &str = "zab-set-aside.";

/// How a snapshot file is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One gzip member (`.gz`).
    Gz,
    /// The stream of snappy-java (`.snappy`).
    Snappy,
}

impl Compression {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gz => ".gz",
            Self::Snappy => ".snappy",
        }
    }
}

/// A log or snapshot file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Numbered {
    pub(crate) zxid: Zxid,
    pub(crate) path: PathBuf,
    pub(crate) compression: Compression,
}

pub(crate) fn log_name(zxid: Zxid) -> String {
    format!("log.{:x}", zxid.raw())
}

pub(crate) fn snapshot_name(zxid: Zxid, compression: Compression) -> String {
    format!("snapshot.{:x}{}", zxid.raw(), compression.suffix())
}

pub(crate) fn install_name(zxid: Zxid, compression: Compression, with_log: bool) -> String {
    let prefix = if with_log { INSTALL_WITH_LOG } else { INSTALL };
    format!("{prefix}{:x}{}", zxid.raw(), compression.suffix())
}

fn parse_hex(text: &str) -> Option<Zxid> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| i64::from_str_radix(text, 16).ok()).flatten().map(Zxid::from_raw)
}

/// `log.<hex>` and nothing else. ZooKeeper also reads `log.<hex>.bak` and the like, and so
/// replays a copy a second time.
pub(crate) fn parse_log(name: &str) -> Option<Zxid> {
    parse_hex(name.strip_prefix("log.")?)
}

/// `<prefix><hex>`, perhaps with `.gz` or `.snappy`.
pub(crate) fn parse_snapshot(name: &str, prefix: &str) -> Option<(Zxid, Compression)> {
    let rest = name.strip_prefix(prefix)?;
    let (hex, compression) = match rest.split_once('.') {
        None => (rest, Compression::None),
        Some((hex, "gz")) => (hex, Compression::Gz),
        Some((hex, "snappy")) => (hex, Compression::Snappy),
        Some(_) => return None,
    };
    Some((parse_hex(hex)?, compression))
}

/// Whether a name is one under which something of a history is kept, whole or on its way.
pub(crate) fn is_history(name: &str) -> bool {
    let prefixes = ["log.", "snapshot.", INSTALL, INSTALL_WITH_LOG, SET_ASIDE];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || ["acceptedEpoch", "currentEpoch", STAGE, STAGE_LOG].contains(&name)
}

/// The names in a directory, in no order. Names that are not text cannot be ours.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).context("list", dir)? {
        if let Ok(name) = entry.context("list", dir)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a name stands for a file, perhaps by a link. Operators, filers and desktops put other things
/// into directories, too, under any name.
fn is_file(path: &Path) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file());
    // A file that has just been purged needs no mention.
    if !is_file && fs::symlink_metadata(path).is_ok() {
        warn_once(path, "it is not a file");
    }
    is_file
}

/// The files of ours in a directory that were being written, and may be removed.
pub(crate) fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let is_ours = |name: &str| {
        [STAGE, STAGE_LOG, OWN, PROBE].contains(&name)
            || name.strip_prefix(OWN_NUMBERED).is_some_and(number)
    };
    let names = list(dir)?.into_iter().filter(|name| is_ours(name));
    Ok(names.map(|name| dir.join(name)).filter(|path| is_file(path)).collect())
}

/// Snapshots of a leader's that are on their way to their place, and whether a log is to follow.
pub(crate) fn installs(dir: &Path) -> Result<Vec<(Numbered, bool)>, Error> {
    let mut found = Vec::new();
    for (prefix, with_log) in [(INSTALL, false), (INSTALL_WITH_LOG, true)] {
        let installs = numbered(dir, |name| parse_snapshot(name, prefix))?;
        found.extend(installs.into_iter().map(|install| (install, with_log)));
    }
    Ok(found)
}

fn numbered(
    dir: &Path,
    parse: impl Fn(&str) -> Option<(Zxid, Compression)>,
) -> Result<Vec<Numbered>, Error> {
    let mut found = Vec::new();
    for name in list(dir)? {
        let path = dir.join(&name);
        if let Some((zxid, compression)) = parse(&name)
            && is_file(&path)
        {
            found.push(Numbered { zxid, path, compression });
        }
    }
    Ok(found)
}

/// The logs of a directory, oldest first.
pub(crate) fn logs(dir: &Path) -> Result<Vec<Numbered>, Error> {
    let mut found = Vec::new();
    for name in list(dir)? {
        match parse_log(&name) {
            Some(_) if !is_file(&dir.join(&name)) => {}
            Some(zxid) => {
                found.push(Numbered {
                    zxid,
                    path: dir.join(&name),
                    compression: Compression::None,
                });
            }
            None if name.starts_with("log.") => {
                warn_once(&dir.join(&name), "it is not named like a log");
            }
            None => {}
        }
    }
    found.sort_by_key(|log| log.zxid);
    Ok(found)
}

/// The snapshots of a directory, newest first.
pub(crate) fn snapshots(dir: &Path) -> Result<Vec<Numbered>, Error> {
    let mut found = numbered(dir, |name| {
        let parsed = parse_snapshot(name, "snapshot.");
        if parsed.is_none() && name.starts_with("snapshot.") {
            warn_once(&dir.join(name), "it is not named like a snapshot");
        }
        parsed
    })?;
    found.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.zxid));
    Ok(found)
}

/// Takes a file out of the history without deleting it. Durable after the directory is synced.
pub(crate) fn set_aside(fs: &Fs, path: &Path) -> Result<(), Error> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut to = path.with_file_name(format!("{SET_ASIDE}{name}"));
    let mut n = 1;
    while to.exists() {
        to = path.with_file_name(format!("{SET_ASIDE}{name}.{n}"));
        n += 1;
    }
    log::warn!("{} is set aside as {}", path.display(), to.display());
    fs.rename(path, &to)
}

/// The number of a file that was set aside.
pub(crate) fn parse_set_aside(name: &str) -> Option<Zxid> {
    parse_hex(name.strip_prefix(SET_ASIDE)?.split('.').nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let z = Zxid::from_raw;
        assert_eq!(parse_log("log.1"), Some(z(1)));
        assert_eq!(parse_log("log.10000000A"), Some(z(0x1_0000_000a)));
        for bad in ["log.", "log.-1", "log.+1", "log.1.bak", "log.zzz", "log.8000000000000000"] {
            assert_eq!(parse_log(bad), None, "{bad}");
        }
        let parse = |name| parse_snapshot(name, "snapshot.");
        assert_eq!(parse("snapshot.0"), Some((z(0), Compression::None)));
        assert_eq!(parse("snapshot.20.gz"), Some((z(0x20), Compression::Gz)));
        assert_eq!(parse("snapshot.20.snappy"), Some((z(0x20), Compression::Snappy)));
        assert_eq!(parse("snapshot.20.tmp"), None);
        assert_eq!(parse_set_aside("zab-set-aside.log.d"), Some(z(0xd)));
        assert_eq!(parse_set_aside("zab-set-aside.snapshot.d.gz.2"), Some(z(0xd)));
    }
}
