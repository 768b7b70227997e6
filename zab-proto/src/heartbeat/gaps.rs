//! The worst silence of the last minute.

use core::time::Duration;

use crate::Instant;

/// The longest gaps between signs of life, by the part of the last minute they were seen in.
#[derive(Debug)]
pub(crate) struct Gaps {
    worst: [Duration; PARTS],
    /// The present part, and when it began.
    at: usize,
    since: Instant,
}

/// A gap is remembered for a minute, and forgotten ten seconds later at the latest.
const PARTS: usize = 7;
const PART: Duration = Duration::from_secs(10);

impl Gaps {
    pub(crate) fn new(now: Instant) -> Self {
        Self { worst: [Duration::ZERO; PARTS], at: 0, since: now }
    }

    /// There was a gap, which has ended now.
    pub(crate) fn add(&mut self, now: Instant, gap: Duration) {
        self.forget(now);
        self.worst[self.at] = self.worst[self.at].max(gap);
    }

    /// The worst one.
    pub(crate) fn worst(&self) -> Duration {
        self.worst.iter().copied().max().unwrap_or_default()
    }

    fn forget(&mut self, now: Instant) {
        for _ in 0..PARTS {
            if now < self.since + PART {
                return;
            }
            self.since = self.since + PART;
            self.at = (self.at + 1) % PARTS;
            self.worst[self.at] = Duration::ZERO;
        }
        // Nothing is left of so long ago.
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_remembered_and_not_two() {
        let ms = Duration::from_millis;
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let mut gaps = Gaps::new(at(5));
        assert_eq!(gaps.worst(), Duration::ZERO);
        gaps.add(at(6), ms(300));
        gaps.add(at(7), ms(20));
        for secs in 8..=66 {
            gaps.add(at(secs), ms(10));
            assert_eq!(gaps.worst(), ms(300), "after {secs} s");
        }
        gaps.add(at(76), ms(10));
        assert_eq!(gaps.worst(), ms(10));
        gaps.add(at(80), ms(40));
        // Nothing was heard for twice as long as anything is remembered.
        gaps.add(at(220), ms(1));
        assert_eq!(gaps.worst(), ms(1));
        gaps.add(at(229), ms(2));
        assert_eq!(gaps.worst(), ms(2));
    }
}
