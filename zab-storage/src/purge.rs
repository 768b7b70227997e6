//! Removing what no recovery needs any more.

use std::path::{Path, PathBuf};

use zab_proto::Zxid;

use crate::error::Error;
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
    let snapshots = names::snapshots(&snap_dir)?;
    let mut kept = Vec::new();
    for snapshot in &snapshots {
        if kept.len() < retain.max(RETAIN_MIN) && is_plausible(&snapshot.path)? {
            kept.push(snapshot.zxid);
        }
    }
    let Some(&least) = kept.last() else { return Ok(Vec::new()) };
    let logs = names::logs(&log_dir)?;
    let needed = logs.iter().rev().map(|log| log.zxid).find(|&zxid| zxid <= least);
    let old_logs = logs.iter().filter(|log| needed.is_some_and(|needed| log.zxid < needed));
    let old_snapshots = snapshots.iter().filter(|snapshot| snapshot.zxid < least);
    let mut removed: Vec<PathBuf> =
        old_logs.chain(old_snapshots).map(|file| file.path.clone()).collect();
    for dir in [&snap_dir, &log_dir] {
        let old = |name: &String| names::parse_set_aside(name).is_some_and(|z: Zxid| z < least);
        removed
            .extend(names::list(dir)?.iter().filter(|name| old(name)).map(|name| dir.join(name)));
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
