//! Pauses of the server's loop, seen from outside: what `JvmPauseMonitor` is to ZooKeeper.
//!
//! A thread asks the loop for nothing, again and again, and measures how long it is kept waiting: by a
//! disk or machine that stands still, a stopped process, or work that takes too long. The loop itself
//! counts the times that its own timers fire late (`zab_own_pauses`), which needs no thread.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use runtime_core::Handle;
use zk_service::{Probe, Service, Summary};

use crate::config::PauseConfig;

/// How long the loop has kept others waiting.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    config: PauseConfig,
    seen: Arc<Mutex<Summary>>,
}

impl Pauses {
    pub(crate) fn new(config: PauseConfig) -> Self {
        Self { config, seen: Arc::default() }
    }

    /// Its name and values for `mntr`.
    pub(crate) fn metric(&self) -> (&'static str, Probe<Summary>) {
        let seen = Arc::clone(&self.seen);
        let probe = Probe::new(move |reset| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if reset { std::mem::take(&mut *seen) } else { *seen }
        });
        ("jvm_pause_time_ms", probe)
    }

    /// Looks for pauses until the server has ended.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn watch(&self, handle: Handle<Service>) -> io::Result<()> {
        let pauses = self.clone();
        let watching = move || {
            loop {
                thread::sleep(pauses.config.sleep);
                let (told, heard) = mpsc::channel();
                let asked = Instant::now();
                handle.call(move |_, _| {
                    let _ = told.send(());
                });
                if heard.recv().is_err() {
                    return;
                }
                pauses.note(asked);
            }
        };
        thread::Builder::new().name("pauses".into()).spawn(watching).map(drop)
    }

    fn note(&self, asked: Instant) {
        let pause = asked.elapsed();
        let ms = pause.as_millis();
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(u64::try_from(ms).unwrap_or(u64::MAX));
        let text = "Detected pause in the server's loop or the machine: pause of approximately";
        if pause > self.config.warn {
            log::warn!("{text} {ms} ms");
        } else if pause > self.config.info {
            log::info!("{text} {ms} ms");
        }
    }
}
