//! How long fsyncs take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
}

impl Default for Times {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { count: zero(), sum_ms: zero(), min_ms: AtomicU64::new(u64::MAX), max_ms: zero() }
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
}

impl FsyncTimes {
    pub(crate) fn add(&self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let Times { count, sum_ms, min_ms, max_ms } = &*self.0;
        count.fetch_add(1, Ordering::Relaxed);
        sum_ms.fetch_add(ms, Ordering::Relaxed);
        min_ms.fetch_min(ms, Ordering::Relaxed);
        max_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// The times so far. An fsync that ends at this moment may be in a part of the numbers only.
    #[must_use]
    pub fn summary(&self) -> FsyncSummary {
        let Times { count, sum_ms, min_ms, max_ms } = &*self.0;
        let count = count.load(Ordering::Relaxed);
        FsyncSummary {
            count,
            sum_ms: sum_ms.load(Ordering::Relaxed),
            min_ms: if count == 0 { 0 } else { min_ms.load(Ordering::Relaxed) },
            max_ms: max_ms.load(Ordering::Relaxed),
        }
    }

    /// Begins anew.
    pub fn reset(&self) {
        let Times { count, sum_ms, min_ms, max_ms } = &*self.0;
        for (number, start) in [(count, 0), (sum_ms, 0), (min_ms, u64::MAX), (max_ms, 0)] {
            number.store(start, Ordering::Relaxed);
        }
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
            times.add(Duration::from_millis(ms));
        }
        let expected = FsyncSummary { count: 3, sum_ms: 6, min_ms: 1, max_ms: 3 };
        assert_eq!(times.clone().summary(), expected);
        times.reset();
        assert_eq!(times.summary(), FsyncSummary::default());
    }
}
