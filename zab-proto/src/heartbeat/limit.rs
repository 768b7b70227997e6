//! How long a silence is too long.

use core::time::Duration;

use crate::Config;

/// The bounds of what adapts to the network and the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The agreed pause between heartbeats.
    pub(crate) every: Duration,
    min: Duration,
    max: Duration,
}

impl Limit {
    pub(crate) fn new(config: &Config, every: Duration) -> Self {
        let max = config.ticks(config.sync_limit);
        Self { every, min: config.detection.suspect_min.min(max), max }
    }

    /// After how much silence the other side is suspected, with a `worst` gap in the last minute.
    ///
    /// Five heartbeats ride over one that was lost and mended by TCP: the retransmission time-out is at
    /// least 200 ms, which is why the default minimum is 250 ms. Four times the worst gap is what a
    /// busy machine or a bad network asks for. It is never more than ZooKeeper's own limit.
    pub(crate) fn of(self, worst: Duration) -> Duration {
        (5 * self.every).max(4 * worst).max(self.min).min(self.max)
    }

    /// The same after false suspicions, each of which doubles it for a while.
    pub(crate) fn widened(self, worst: Duration, factor: u32) -> Duration {
        self.of(worst).saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Membership, Sid};

    #[test]
    fn it_adapts_within_its_bounds() {
        let ms = Duration::from_millis;
        let mut config = Config::new(Sid(1), Membership::default());
        let limit = Limit::new(&config, ms(50));
        assert_eq!(limit.of(Duration::ZERO), ms(250));
        assert_eq!(limit.of(ms(62)), ms(250));
        assert_eq!(limit.of(ms(100)), ms(400));
        assert_eq!(limit.of(ms(20_000)), ms(10_000), "syncLimit");
        assert_eq!(limit.widened(ms(100), 2), ms(800));
        assert_eq!(limit.widened(ms(100), u32::MAX), ms(10_000));
        assert_eq!(Limit::new(&config, ms(200)).of(ms(50)), ms(1000), "an observer");
        config.detection.suspect_min = ms(1000);
        assert_eq!(Limit::new(&config, ms(50)).of(ms(50)), ms(1000));
        // Twice what ZooKeeper would allow.
        config.detection.suspect_min = ms(20_000);
        assert_eq!(Limit::new(&config, ms(50)).of(ms(50)), ms(10_000));
    }
}
