//! Waiting for a disk that has refused a write: full, read-only, or out of descriptors.
//!
//! The incarnation of the server that met the error is over; nothing was acknowledged after it (rule
//! R10). When the operator has mended what was wrong, another one reads from the disk what is there and
//! joins again, as a restarted process would, but without anybody having to restart it.

use std::thread;
use std::time::{Duration, Instant};

use runtime_core::Error;
use zab_storage::{Options, check_recovered};

/// How often in a row a disk has refused.
pub(crate) struct Mending {
    storage: Options,
    times: u32,
    pause: Duration,
    /// When the present incarnation began.
    since: Instant,
}

impl Mending {
    pub(crate) fn new(storage: Options) -> Self {
        Self { storage, times: 0, pause: PAUSE_MIN, since: Instant::now() }
    }

    /// Whether waiting may help: see [`zab_storage::Error::is_mendable`].
    pub(crate) fn may_help(error: &Error) -> bool {
        let Error::Storage(source) = error else { return false };
        source.downcast_ref().is_some_and(zab_storage::Error::is_mendable)
    }

    /// Waits until the directories can be written and have space again. Each time in a row takes
    /// longer, so that a disk on the edge is not filled by restarts.
    pub(crate) fn wait(&mut self) {
        self.pause = match self.since.elapsed() >= LONG {
            true => PAUSE_MIN,
            false => (self.pause * 2).min(PAUSE_MAX),
        };
        self.times += 1;
        log::error!(
            "This server has stopped serving. It starts again when this is repaired, and checks every {:?}",
            self.pause
        );
        let began = Instant::now();
        let mut told = began;
        loop {
            thread::sleep(self.pause);
            let Err(still) = check_recovered(&self.storage) else { break };
            if told.elapsed() >= REPORT {
                told = Instant::now();
                log::error!("Not serving for {} s: {still}", began.elapsed().as_secs());
            }
        }
        let (waited, times) = (began.elapsed().as_secs(), self.times);
        log::warn!(
            "The directories can be written again after {waited} s: starting again ({times})"
        );
        self.since = Instant::now();
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An incarnation that lived so long was no mere attempt.
const LONG: Duration = Duration::from_secs(60);
const REPORT: Duration = Duration::from_secs(60);
