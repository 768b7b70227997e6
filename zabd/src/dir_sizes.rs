//! How large the directories are, for the words `dirs` and `conf`, which the server's loop answers.
//!
//! The loop must not wait for a disk. A thread that lives for this alone looks; the loop gives it a moment, and
//! says what was known before if it does not come back in time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zk_service::Probe;

use crate::config::ServerConfig;

/// The sizes of `dataDir` and `dataLogDir`, as last seen.
#[derive(Clone, Debug)]
pub(crate) struct DirSizes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dirs: [PathBuf; 2],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: (u64, u64),
    /// A thread looks, and tells it here.
    looking: Option<Receiver<(u64, u64)>>,
}

impl DirSizes {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let dirs = [&config.data_dir, &config.data_log_dir].map(|dir| dir.join("version-2"));
        Self(Arc::new(Inner { dirs, state: Mutex::default() }))
    }

    /// Bytes in both, for whoever must not wait.
    pub(crate) fn probe(&self) -> Probe<(u64, u64)> {
        let sizes = self.clone();
        Probe::new(move |_| {
            let [data, log] = sizes.0.dirs.clone();
            sizes.look(move || (size_of(&data), size_of(&log)))
        })
    }

    fn look(&self, measure: impl FnOnce() -> (u64, u64) + Send + 'static) -> (u64, u64) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looking.is_none() {
            let (tells, looking) = channel();
            let look = move || {
                // Nobody may be there any more.
                let _ = tells.send(measure());
            };
            if thread::Builder::new().name("sizes".into()).spawn(look).is_ok() {
                state.looking = Some(looking);
            }
        }
        match state.looking.as_ref().map(|looking| looking.recv_timeout(PATIENCE)) {
            Some(Ok(sizes)) => (state.known, state.looking) = (sizes, None),
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Err(RecvTimeoutError::Disconnected)) | None => state.looking = None,
        }
        state.known
    }
}

/// Bytes of a directory's files.
pub(crate) fn size_of(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}

/// How long the loop waits: a directory that is in memory takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_disk_that_stands_still_holds_nobody_up() {
        let inner = Inner { dirs: [PathBuf::new(), PathBuf::new()], state: Mutex::default() };
        let sizes = DirSizes(Arc::new(inner));
        let began = Instant::now();
        // The first look may take longer than anybody waits on a busy machine, and is found by a later one.
        let mut seen = (0, 0);
        while seen == (0, 0) && began.elapsed() < Duration::from_secs(60) {
            seen = sizes.look(|| (1, 2));
        }
        assert_eq!(seen, (1, 2));
        let began = Instant::now();
        let (goes_on, stands) = channel::<()>();
        let waits = move || {
            let _ = stands.recv();
            (3, 4)
        };
        assert_eq!(sizes.look(waits), (1, 2), "what was known");
        // Nor is there a second thread.
        assert_eq!(sizes.look(|| unreachable!("one looks already")), (1, 2));
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(goes_on);
        while seen == (1, 2) && began.elapsed() < Duration::from_secs(60) {
            seen = sizes.look(|| (3, 4));
        }
        assert_eq!(seen, (3, 4));
    }
}
