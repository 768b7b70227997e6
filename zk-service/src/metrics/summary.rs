//! Distributions of values: a summary of five numbers, and one with percentiles.

/// False in a build with which `benches/metrics` compares: nothing is added to any summary then.
pub(super) const IS_MEASURED: bool = option_env!("ZAB_UNMEASURED").is_none();

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

/// Values below this have a bucket each.
const EXACT: u64 = 32;
/// Buckets for each doubling above: a percentile is at most a sixteenth too low.
const PER_DOUBLING: u64 = 16;
/// The last bucket has everything from 2^36 on.
const BUCKETS: usize = 32 + 31 * 16;

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

/// A summary with percentiles.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(super) summary: Summary,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { summary: Summary::default(), buckets: Box::new([0; BUCKETS]) }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, value: u64) {
        if !IS_MEASURED {
            return;
        }
        self.summary.add(value);
        self.buckets[Self::bucket(value)] += 1;
    }

    fn bucket(value: u64) -> usize {
        if value < EXACT {
            return usize::try_from(value).unwrap_or(0);
        }
        let log = u64::from(value.ilog2());
        let step = (value >> (log - 4)) % PER_DOUBLING;
        let at = EXACT + (log - 5) * PER_DOUBLING + step;
        usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
    }

    /// The least value of a bucket.
    fn floor(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        let Some(above) = bucket.checked_sub(EXACT) else { return bucket };
        (PER_DOUBLING + above % PER_DOUBLING) << (above / PER_DOUBLING + 1)
    }

    /// The summary with its percentiles.
    pub(super) fn distribution(&self) -> Distribution {
        Distribution {
            summary: self.summary,
            p50: self.percentile(500),
            p90: self.percentile(900),
            p95: self.percentile(950),
            p99: self.percentile(990),
            p999: self.percentile(999),
        }
    }

    /// The value that `per_mille` of all are not above.
    fn percentile(&self, per_mille: u64) -> u64 {
        let wanted = (self.summary.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Self::floor(at).clamp(self.summary.min, self.summary.max);
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
        assert_eq!(histogram.percentile(990), 0);
        (1..=1000).for_each(|value| histogram.add(value));
        let near = |per_mille, wanted: u64| {
            let found = histogram.percentile(per_mille);
            assert!(found <= wanted && found >= wanted - wanted / 16, "{per_mille}: {found}");
        };
        near(500, 500);
        near(950, 950);
        near(999, 999);
        assert_eq!(histogram.summary, Summary { count: 1000, sum: 500_500, min: 1, max: 1000 });
        let mut one = Histogram::default();
        one.add(1_000_003);
        assert_eq!(one.percentile(500), 1_000_003);
    }
}
