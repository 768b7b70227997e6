//! The purge task of the `autopurge` keys.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::ServerConfig;

/// The purge task: at once, then at every interval, on a thread that ends when this is dropped.
pub(crate) struct Purge {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Purge {
    pub(crate) fn start(config: &ServerConfig) -> Option<Self> {
        let Some(interval) = config.purge_interval else {
            log::info!("Purge task is not scheduled.");
            return None;
        };
        let (stop, stopped) = channel();
        let (data, logs) = (config.data_dir.clone(), config.data_log_dir.clone());
        let retain = config.snap_retain_count;
        let thread = thread::Builder::new().name("purge".into()).spawn(move || {
            purge_loop(&stopped, interval, || purge(&data, &logs, retain));
        });
        let thread = thread
            .inspect_err(|error| {
                log::error!("Nothing is purged, as no thread can be started: {error}");
            })
            .ok()?;
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn purge_loop(stopped: &Receiver<()>, interval: Duration, mut purge: impl FnMut()) {
    loop {
        purge();
        match stopped.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn purge(data_dir: &Path, log_dir: &Path, retain: usize) {
    log::info!("Purge task started.");
    match zab_storage::purge(data_dir, log_dir, retain) {
        Ok(removed) => {
            for path in removed {
                log::info!("Removing file: {}", path.display());
            }
        }
        Err(error) => log::error!("Error occurred while purging: {error}"),
    }
    log::info!("Purge task completed.");
}

impl Drop for Purge {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the purge was printed when it happened.
            let _ = thread.join();
        }
    }
}
