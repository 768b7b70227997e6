//! When the next snapshot is due.

use crate::store::Options;

/// Counts what was logged since the last snapshot. A random part of up to half keeps the members
/// of an ensemble from writing their snapshots at the same time.
///
/// Source: ZooKeeper `SyncRequestProcessor.shouldSnapshot`.
#[derive(Debug)]
pub(crate) struct Due {
    count: u64,
    size: u64,
    count_half: u64,
    size_half: u64,
    count_limit: u64,
    size_limit: u64,
    random: u64,
}

impl Due {
    /// `replayed`: records and bytes found after the snapshot, so that a server that is often
    /// restarted does not gather log without end.
    pub(crate) fn new(options: &Options, replayed: (u64, u64)) -> Self {
        let mut due = Self {
            count: 0,
            size: 0,
            count_half: options.snap_count.max(2) / 2,
            size_half: options.snap_size_limit / 2,
            count_limit: 0,
            size_limit: 0,
            random: options.seed,
        };
        due.restart();
        (due.count, due.size) = replayed;
        due
    }

    pub(crate) fn restart(&mut self) {
        (self.count, self.size) = (0, 0);
        self.count_limit = self.count_half + self.below(self.count_half);
        self.size_limit = self.size_half + self.below(self.size_half);
    }

    pub(crate) fn count(&mut self, bytes: usize) {
        self.count += 1;
        self.size += bytes as u64;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.count > self.count_limit || self.size_half > 0 && self.size > self.size_limit
    }

    /// A number in `0..bound` (0 for 0), by SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound.max(1)
    }
}
