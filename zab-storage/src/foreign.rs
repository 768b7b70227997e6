//! Files in the directories that are none of ours.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Warns of a file that is not used, once while the process lives: directories are listed at each
/// step of a start, and at each purge, by parts that know nothing of each other.
pub(crate) fn warn_once(path: &Path, why: &str) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if is_news(&mut seen, path) {
        log::warn!("{} is ignored: {why}", path.display());
        if seen.len() == SEEN_MAX {
            log::warn!("More files are ignored and not named");
        }
    }
}

fn is_news(seen: &mut BTreeSet<PathBuf>, path: &Path) -> bool {
    seen.len() < SEEN_MAX && seen.insert(path.to_path_buf())
}

/// How many files are named.
const SEEN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_news_once_and_only_so_many_are() {
        let mut seen = BTreeSet::new();
        let mut news = 0;
        for _ in 0..2 {
            for n in 0..2 * SEEN_MAX {
                news += usize::from(is_news(&mut seen, Path::new(&format!("log.{n}.bak"))));
            }
        }
        assert_eq!((news, seen.len()), (SEEN_MAX, SEEN_MAX));
    }
}
