//! Figures of the whole server.

/// What `srvr` counts. `srst` and a change of role set it back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(super) replies: u64,
    pub(crate) latency_min_ms: u64,
    pub(crate) latency_max_ms: u64,
    pub(super) latency_total_ms: u64,
    pub(crate) response_last: Option<usize>,
    pub(crate) response_min: usize,
    pub(crate) response_max: usize,
    pub(crate) proposal_last: Option<usize>,
    pub(crate) proposal_min: usize,
    pub(crate) proposal_max: usize,
}

impl Stats {
    /// A reply of `len` bytes went out, `ms` milliseconds after its request had come.
    pub(crate) fn replied(&mut self, ms: u64, len: usize) {
        self.latency_min_ms = if self.replies == 0 { ms } else { self.latency_min_ms.min(ms) };
        self.latency_max_ms = self.latency_max_ms.max(ms);
        self.latency_total_ms += ms;
        self.replies += 1;
        self.sent += 1;
        let first = self.response_last.is_none();
        self.response_min = if first { len } else { self.response_min.min(len) };
        self.response_max = self.response_max.max(len);
        self.response_last = Some(len);
    }

    /// A transaction of `len` bytes was proposed.
    pub(crate) fn proposed(&mut self, len: usize) {
        let first = self.proposal_last.is_none();
        self.proposal_min = if first { len } else { self.proposal_min.min(len) };
        self.proposal_max = self.proposal_max.max(len);
        self.proposal_last = Some(len);
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
        stats.replied(5, 30);
        assert_eq!(stats.latency_avg(), "2.5");
    }
}
