//! What is counted here, for whoever shows it among the server's metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use zk_service::Summary;

/// Counts since the start, or since they were set back.
#[derive(Debug, Default)]
pub struct Counts {
    /// `insecure_admin_count`: connections without TLS to a port that takes either.
    pub insecure: AtomicU64,
    /// `snapshot_error_count`: snapshots that could not be written or sent.
    pub snapshot_errors: AtomicU64,
    /// `snapshot_rate_limited_count`: snapshots that were asked for too soon.
    pub snapshots_limited: AtomicU64,
    /// `restore_error_count`: states that could not take the place of the server's.
    pub restore_errors: AtomicU64,
    /// `restore_rate_limited_count`: restores that were asked for too soon.
    pub restores_limited: AtomicU64,
    /// `restore_time`: ms from a whole snapshot to a server that has loaded it.
    restore_time: Mutex<Summary>,
}

impl Counts {
    pub(crate) fn count(one: &AtomicU64) {
        one.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn restored(&self, ms: u64) {
        self.restore_time.lock().unwrap_or_else(PoisonError::into_inner).add(ms);
    }

    /// `restore_time`; set back if `reset`.
    #[must_use]
    pub fn restore_time(&self, reset: bool) -> Summary {
        let mut time = self.restore_time.lock().unwrap_or_else(PoisonError::into_inner);
        if reset { std::mem::take(&mut *time) } else { *time }
    }
}
