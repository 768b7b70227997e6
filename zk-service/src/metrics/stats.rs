//! Figures of the whole server.

/// Sizes in bytes; -1 before there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// The last.
    pub last: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { last: -1, min: -1, max: -1 }
    }
}

impl Sizes {
    fn add(&mut self, len: usize) {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        self.min = if self.last < 0 { len } else { self.min.min(len) };
        self.max = self.max.max(len);
        self.last = len;
    }
}

/// What `srvr` counts. `srst` and a change of role set it back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(super) replies: u64,
    pub(crate) latency_min_ms: u64,
    pub(crate) latency_max_ms: u64,
    pub(super) latency_total_ms: u64,
    pub(crate) responses: Sizes,
    pub(crate) proposals: Sizes,
}

impl Stats {
    /// A reply of `len` bytes went out, `ms` milliseconds after its request had come.
    pub(crate) fn replied(&mut self, ms: u64, len: usize) {
        self.latency_min_ms = if self.replies == 0 { ms } else { self.latency_min_ms.min(ms) };
        self.latency_max_ms = self.latency_max_ms.max(ms);
        self.latency_total_ms += ms;
        self.replies += 1;
        self.sent += 1;
        self.responses.add(len);
    }

    /// A transaction of `len` bytes was proposed.
    pub(crate) fn proposed(&mut self, len: usize) {
        self.proposals.add(len);
    }

    /// Mean latency in ms.
    pub(crate) fn latency_avg(&self) -> String {
        decimal(self.latency_avg_ten_thousandths())
    }

    /// The same in ten-thousandths.
    pub(crate) fn latency_avg_ten_thousandths(&self) -> u128 {
        u128::from(self.latency_total_ms) * 10_000 / u128::from(self.replies.max(1))
    }
}

/// A number of ten-thousandths as Java prints a double: at most four decimals, at least one.
pub(crate) fn decimal(ten_thousandths: u128) -> String {
    let text = format!("{}.{:04}", ten_thousandths / 10_000, ten_thousandths % 10_000);
    let trimmed = text.trim_end_matches('0');
    if trimmed.ends_with('.') { format!("{trimmed}0") } else { trimmed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_look_like_java_doubles() {
        let mut stats = Stats::default();
        assert_eq!(stats.latency_avg(), "0.0");
        for ms in [1, 2, 2] {
            stats.replied(ms, 20);
        }
        assert_eq!(stats.latency_avg(), "1.6666");
        assert_eq!((stats.latency_min_ms, stats.latency_max_ms), (1, 2));
        assert_eq!(stats.responses, Sizes { last: 20, min: 20, max: 20 });
        assert_eq!(stats.proposals, Sizes { last: -1, min: -1, max: -1 });
        stats.replied(5, 30);
        assert_eq!(stats.latency_avg(), "2.5");
        assert_eq!(stats.responses, Sizes { last: 30, min: 20, max: 30 });
    }
}
