//! Removing what no recovery needs any more.

use std::path::{Path, PathBuf};

use zab_proto::Zxid;

use crate::error::Error;
use crate::foreign::warn_once;
use crate::fs::Fs;
use crate::names;
use crate::snapshot::is_plausible;

/// ZooKeeper keeps at least this many snapshots.
const RETAIN_MIN: usize = 3;

/// Removes all but the newest `retain` whole snapshots (at least 3) and the logs that they need;
/// returns what was removed. May be called while a server runs on the directories.
///
/// The log that begins before the oldest kept snapshot stays, since it may reach beyond it. Files
/// that were set aside go with their age. Names that are not those of logs or snapshots are left
/// alone (ZooKeeper would remove `log.bak`).
///
/// Source: ZooKeeper `PurgeTxnLog`.
///
/// # Errors
/// [`Error::Io`]; what was removed before stays removed.
pub fn purge(data_dir: &Path, log_dir: &Path, retain: usize) -> Result<Vec<PathBuf>, Error> {
    let fs = Fs::default();
    let snap_dir = data_dir.join(names::VERSION_DIR);
    let log_dir = log_dir.join(names::VERSION_DIR);
    if !snap_dir.is_dir() || !log_dir.is_dir() {
        // The server has not made them yet.
        return Ok(Vec::new());
    }
    let mut snapshots = names::snapshots(&snap_dir)?;
    let mut kept = Vec::new();
    // What cannot be looked at is neither kept nor removed.
    snapshots.retain(|snapshot| match is_plausible(&snapshot.path) {
        Ok(plausible) => {
            if plausible && kept.len() < retain.max(RETAIN_MIN) {
                kept.push(snapshot.zxid);
            }
            true
        }
        Err(error) => {
            warn_once(&snapshot.path, &error.to_string());
            false
        }
    });
    let Some(&least) = kept.last() else { return Ok(Vec::new()) };
    let logs = names::logs(&log_dir)?;
    let needed = logs.iter().rev().map(|log| log.zxid).find(|&zxid| zxid <= least);
    let old_logs = logs.iter().filter(|log| needed.is_some_and(|needed| log.zxid < needed));
    let old_snapshots = snapshots.iter().filter(|snapshot| snapshot.zxid < least);
    let mut removed: Vec<PathBuf> =
        old_logs.chain(old_snapshots).map(|file| file.path.clone()).collect();
    for dir in [&snap_dir, &log_dir] {
        let old = |name: &String| names::parse_set_aside(name).is_some_and(|z: Zxid| z < least);
        let names = names::list(dir)?.into_iter().filter(old);
        removed.extend(names.map(|name| dir.join(name)).filter(|path| path.is_file()));
    }
    removed.sort();
    removed.dedup();
    for path in &removed {
        fs.remove(path)?;
    }
    for dir in [&snap_dir, &log_dir] {
        fs.sync_dir(dir)?;
    }
    Ok(removed)
}
