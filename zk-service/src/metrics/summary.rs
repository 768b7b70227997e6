//! Distributions of values: a summary of five numbers, and one with percentiles.

/// False in a build with which `benches/metrics` compares: nothing is added to any summary then.
pub(super) const IS_MEASURED: bool = option_env!("ZAB_UNMEASURED").is_none();
/// False in another such build, whose summaries with percentiles alone take no value.
const HAS_PERCENTILES: bool = IS_MEASURED && option_env!("ZAB_WITHOUT_PERCENTILES").is_none();

/// Count, sum, least and greatest of some values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// All together.
    pub sum: u64,
    /// The least; 0 if there were none.
    pub min: u64,
    /// The greatest.
    pub max: u64,
}

impl Summary {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        if !IS_MEASURED {
            return;
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum += value;
    }
}

/// Buckets for each doubling: a percentile is at most a sixteenth too low. Values below twice as many have a
/// bucket each.
const PER_DOUBLING: usize = 1 << PER_DOUBLING_LOG2;
const PER_DOUBLING_LOG2: u32 = 4;
/// The last bucket has everything from 2^36 on.
const BUCKETS: usize = 33 * PER_DOUBLING;

/// A summary and the values that so many of all are not above, at most a sixteenth too low; 0 if there
/// were none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Distribution {
    /// Count, sum, least and greatest.
    pub summary: Summary,
    /// Half of them.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
}

/// A summary with percentiles. Each write and each read adds to one or more, so it does no more than it must
/// when a value comes: how many there were stands in the buckets.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    sum: u64,
    /// `u64::MAX` before the first.
    min: u64,
    max: u64,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { sum: 0, min: u64::MAX, max: 0, buckets: Box::new([0; BUCKETS]) }
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        if !HAS_PERCENTILES {
            return;
        }
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.buckets[Self::bucket(value)] += 1;
    }

    /// Doublings lie one behind the other. The first two are one of twice the length, in which a value is its own place.
    #[inline]
    fn bucket(value: u64) -> usize {
        const FIRST: u64 = 2 * PER_DOUBLING as u64 - 1;
        let doubling = (value | FIRST).ilog2() - PER_DOUBLING_LOG2;
        let steps = usize::try_from(value >> doubling).unwrap_or(usize::MAX);
        (doubling as usize * PER_DOUBLING + steps).min(BUCKETS - 1)
    }

    /// The least value of a bucket.
    fn floor(bucket: usize) -> u64 {
        let doubling = (bucket / PER_DOUBLING).saturating_sub(1);
        ((bucket - doubling * PER_DOUBLING) as u64) << doubling
    }

    /// Without percentiles.
    pub(super) fn summary(&self) -> Summary {
        let count = self.buckets.iter().sum();
        let min = if count == 0 { 0 } else { self.min };
        Summary { count, sum: self.sum, min, max: self.max }
    }

    /// The summary with its percentiles.
    pub(super) fn distribution(&self) -> Distribution {
        let summary = self.summary();
        let percentile = |per_mille| self.percentile(&summary, per_mille);
        Distribution {
            summary,
            p50: percentile(500),
            p90: percentile(900),
            p95: percentile(950),
            p99: percentile(990),
            p999: percentile(999),
        }
    }

    /// The value that `per_mille` of all are not above.
    fn percentile(&self, summary: &Summary, per_mille: u64) -> u64 {
        let wanted = (summary.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Self::floor(at).clamp(summary.min, summary.max);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_their_floors() {
        let mut last = 0;
        for value in (0..100_000).chain((17..64).map(|log| 1 << log)) {
            let bucket = Histogram::bucket(value);
            assert!(bucket >= last, "{value}");
            last = bucket;
            let floor = Histogram::floor(bucket);
            let far = value >= 1 << 36;
            assert!(floor <= value && (far || value - floor <= value / 16), "{value}: {floor}");
            assert_eq!(Histogram::bucket(floor), bucket);
        }
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.distribution(), Distribution::default());
        (1..=1000).for_each(|value| histogram.add(value));
        let near = |per_mille, wanted: u64| {
            let found = histogram.percentile(&histogram.summary(), per_mille);
            assert!(found <= wanted && found >= wanted - wanted / 16, "{per_mille}: {found}");
        };
        near(500, 500);
        near(950, 950);
        near(999, 999);
        assert_eq!(histogram.summary(), Summary { count: 1000, sum: 500_500, min: 1, max: 1000 });
        let mut one = Histogram::default();
        one.add(1_000_003);
        assert_eq!(one.distribution().p50, 1_000_003);
    }
}
