//! What other threads read of a disk, and ask of it: how long fsyncs take, and a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Times of the log's fsyncs: written by the thread that logs, read by anybody.
#[derive(Clone, Debug, Default)]
pub struct FsyncTimes(Arc<Times>);

#[derive(Debug)]
struct Times {
    count: AtomicU64,
    sum_ms: AtomicU64,
    min_ms: AtomicU64,
    max_ms: AtomicU64,
    slow: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            count: zero(),
            sum_ms: zero(),
            min_ms: AtomicU64::new(u64::MAX),
            max_ms: zero(),
            slow: zero(),
        }
    }
}

/// What [`FsyncTimes`] have come to, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsyncSummary {
    /// How many there were.
    pub count: u64,
    /// All together.
    pub sum_ms: u64,
    /// The shortest; 0 if there was none.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// How many took longer than [`Options::fsync_warning`](crate::Options::fsync_warning).
    pub slow: u64,
}

impl FsyncTimes {
    /// An fsync has taken so long; `limit`: from which on that is slow.
    pub(crate) fn add(&self, took: Duration, limit: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let Times { count, sum_ms, min_ms, max_ms, slow } = &*self.0;
        slow.fetch_add(u64::from(took > limit), Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
        sum_ms.fetch_add(ms, Ordering::Relaxed);
        min_ms.fetch_min(ms, Ordering::Relaxed);
        max_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// One more value, in whatever they count.
    pub(crate) fn add_value(&self, value: u64) {
        self.add(Duration::from_millis(value), Duration::MAX);
    }

    /// The times so far. An fsync that ends at this moment may be in a part of the numbers only.
    #[must_use]
    pub fn summary(&self) -> FsyncSummary {
        let Times { count, sum_ms, min_ms, max_ms, slow } = &*self.0;
        let count = count.load(Ordering::Relaxed);
        FsyncSummary {
            count,
            sum_ms: sum_ms.load(Ordering::Relaxed),
            min_ms: if count == 0 { 0 } else { min_ms.load(Ordering::Relaxed) },
            max_ms: max_ms.load(Ordering::Relaxed),
            slow: slow.load(Ordering::Relaxed),
        }
    }

    /// Begins again.
    pub fn reset(&self) {
        let Times { count, sum_ms, min_ms, max_ms, slow } = &*self.0;
        let starts = [(count, 0), (sum_ms, 0), (min_ms, u64::MAX), (max_ms, 0), (slow, 0)];
        for (number, start) in starts {
            number.store(start, Ordering::Relaxed);
        }
    }
}

/// How long the last starts of a server took, and what they read.
#[derive(Clone, Debug, Default)]
pub struct StartTimes {
    /// All that is read, in ms.
    pub database: FsyncTimes,
    /// The snapshot, in ms.
    pub snapshot: FsyncTimes,
    /// The log behind it, in ms.
    pub log: FsyncTimes,
    /// Transactions of the log.
    pub txns: FsyncTimes,
}

impl StartTimes {
    /// One more start: how long the snapshot took, the log, and how many transactions there were.
    pub(crate) fn add(&self, snapshot: Duration, log: Duration, txns: u64) {
        self.database.add(snapshot + log, Duration::MAX);
        self.snapshot.add(snapshot, Duration::MAX);
        self.log.add(log, Duration::MAX);
        self.txns.add_value(txns);
    }
}

/// Asks for a snapshot from another thread.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRequest(Arc<AtomicBool>);

impl SnapshotRequest {
    /// A snapshot is due from now on. The one that is being written does not count.
    pub fn make(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether one was asked for, since this was asked last.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let times = FsyncTimes::default();
        assert_eq!(times.summary(), FsyncSummary::default());
        for ms in [3, 1, 2] {
            times.add(Duration::from_millis(ms), Duration::from_millis(2));
        }
        let expected = FsyncSummary { count: 3, sum_ms: 6, min_ms: 1, max_ms: 3, slow: 1 };
        assert_eq!(times.clone().summary(), expected);
        times.reset();
        assert_eq!(times.summary(), FsyncSummary::default());
    }
}
