//! ZooKeeper's throttles: how many clients may begin or resume a session in what time
//! (`BlueThrottle`), how many of their requests may be under way (`RequestThrottler`), and how many
//! bytes of large ones.

use std::time::Duration;

use zab_proto::Instant;

/// `zookeeper.connection_throttle_*`: a bucket of tokens, of which each handshake takes one, or its
/// weight. Who finds too few is disconnected, and comes again.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ConnectionThrottle {
    /// `_tokens`: how many the bucket holds; 0: handshakes are not throttled.
    pub tokens: u32,
    /// `_fill_time`, in whole milliseconds, at least one: how often it is filled.
    pub fill_time: Duration,
    /// `_fill_count`: tokens that come each time.
    pub fill_count: u32,
    /// `_freeze_time`, in whole milliseconds: how often the chance changes with which a handshake is
    /// refused, whatever the bucket holds. `None`: none is.
    pub freeze_time: Option<Duration>,
    /// `_drop_increase`: how much it grows if the bucket is found empty.
    pub drop_increase: f64,
    /// `_drop_decrease`: how much it falls if the bucket is found full enough.
    pub drop_decrease: f64,
    /// `_decrease_ratio`: the part of the bucket that may be missing then.
    pub decrease_ratio: f64,
    /// `_weight_enabled`: handshakes take tokens by what they cost. Bucket and filling are counted in
    /// new sessions then.
    pub weighed: bool,
    /// `_global_session_weight`: tokens of a new session.
    pub global_weight: u32,
    /// `_renew_session_weight`: tokens of one that goes on.
    pub renew_weight: u32,
    /// `_local_session_weight`: tokens of a new session of this server alone. Neither of the others is less.
    pub local_weight: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handshake {
    /// A new session of this server alone.
    Local,
    /// A new session of the ensemble.
    Global,
    /// To go on with a session.
    Renewal,
}

impl Default for ConnectionThrottle {
    fn default() -> Self {
        Self {
            tokens: 0,
            fill_time: Duration::from_millis(1),
            fill_count: 1,
            freeze_time: None,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            weighed: false,
            global_weight: 3,
            renew_weight: 2,
            local_weight: 1,
        }
    }
}

impl ConnectionThrottle {
    /// Tokens that a handshake takes.
    fn need(&self, handshake: Handshake) -> i64 {
        let weight = match handshake {
            Handshake::Local => self.local_weight,
            Handshake::Global => self.global_weight.max(self.local_weight),
            Handshake::Renewal => self.renew_weight.max(self.local_weight),
        };
        if self.weighed { weight.into() } else { 1 }
    }

    /// In a throttle with weights, tokens are configured in new sessions.
    fn unit(&self) -> i64 {
        self.need(Handshake::Global)
    }
}

/// How many requests may be under way before clients wait for their own: `limit`, of which each voter of an
/// ensemble has a part. `voters` is their number; `None`: this server is not a voter that serves.
///
/// The rule is that of `LeaderZooKeeperServer` and `FollowerZooKeeperServer`.
pub(crate) fn outstanding_max(limit: usize, voters: Option<usize>) -> usize {
    match voters {
        Some(voters @ 3..) => limit / (voters - 1),
        Some(_) | None => limit,
    }
}

/// `zookeeper.request_throttle_max_requests` and `zookeeper.throttled_op_wait_time`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestThrottle {
    /// Requests of all clients under way, from which on further ones wait, first come first served.
    /// 0: any number. Reads that are answered at once are none.
    pub max_requests: usize,
    /// Who has waited longer for that is answered with code -127, and nothing is done. Zero: nobody is.
    pub wait_max: Duration,
}

/// `zookeeper.largeRequestThreshold` and `zookeeper.largeRequestMaxBytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LargeRequests {
    /// A longer request, in bytes, is a large one; `None`: none is.
    pub threshold: Option<usize>,
    /// Bytes of large requests that may be under way. Who sends one that does not fit is disconnected.
    pub max_bytes: usize,
}

/// Bytes of a request in front of its record, without the length of the frame.
const HEADER_LEN: usize = 8;

impl LargeRequests {
    /// The shortest record of a large request.
    pub(crate) fn record_from(&self) -> Option<usize> {
        self.threshold.map(|threshold| (threshold + 1).saturating_sub(HEADER_LEN))
    }

    /// Whether a frame of so many bytes does not fit beside large ones of `under_way` bytes.
    pub(crate) fn refuse(&self, len: usize, under_way: usize) -> bool {
        self.threshold.is_some_and(|threshold| len > threshold) && under_way + len > self.max_bytes
    }
}

impl Default for LargeRequests {
    fn default() -> Self {
        Self { threshold: None, max_bytes: 100 << 20 }
    }
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: i64,
    filled_ms: u64,
    chance: f64,
    frozen_ms: u64,
}

impl Bucket {
    pub(crate) fn new(options: &ConnectionThrottle) -> Self {
        let tokens = i64::from(options.tokens) * options.unit();
        Self { tokens, filled_ms: 0, chance: 0.0, frozen_ms: 0 }
    }

    /// Whether a handshake may go on. `random` is a number from 0 up to 1.
    pub(crate) fn admits(
        &mut self,
        options: &ConnectionThrottle,
        now: Instant,
        handshake: Handshake,
        random: impl FnOnce() -> f64,
    ) -> bool {
        let full = i64::from(options.tokens) * options.unit();
        if full == 0 {
            return true;
        }
        let now_ms = now.as_nanos() / 1_000_000;
        self.fill(options, now_ms, full);
        if let Some(freeze_time) = options.freeze_time {
            self.change_chance(options, now_ms, full, freeze_time);
            if random() < self.chance {
                return false;
            }
        }
        let need = options.need(handshake);
        let is_admitted = self.tokens >= need;
        if is_admitted {
            self.tokens -= need;
        }
        is_admitted
    }

    fn fill(&mut self, options: &ConnectionThrottle, now_ms: u64, full: i64) {
        let fill_ms = milliseconds(options.fill_time).max(1);
        let passed = now_ms.saturating_sub(self.filled_ms);
        if passed > fill_ms {
            let count = u64::from(options.fill_count) * options.unit().unsigned_abs();
            let more = i64::try_from(passed.saturating_mul(count) / fill_ms).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(more).min(full);
            self.filled_ms = now_ms;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of small numbers")]
    fn change_chance(
        &mut self,
        options: &ConnectionThrottle,
        now_ms: u64,
        full: i64,
        freeze_time: Duration,
    ) {
        if now_ms.saturating_sub(self.frozen_ms) <= milliseconds(freeze_time) {
            return;
        }
        let missing = full - self.tokens;
        if missing == full {
            self.chance = (self.chance + options.drop_increase).min(1.0);
        } else if missing as f64 <= (full as f64 * options.decrease_ratio).round() {
            self.chance = (self.chance - options.drop_decrease).max(0.0);
        }
        self.frozen_ms = now_ms;
    }

    /// Tokens that are missing.
    pub(crate) fn deficit(&self, options: &ConnectionThrottle) -> u64 {
        (i64::from(options.tokens) * options.unit() - self.tokens).unsigned_abs()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn admitted(
        bucket: &mut Bucket,
        options: &ConnectionThrottle,
        ms: u64,
        count: usize,
        handshake: Handshake,
    ) -> usize {
        (0..count).filter(|_| bucket.admits(options, at(ms), handshake, || 0.5)).count()
    }

    #[test]
    fn voters_share_what_may_be_outstanding() {
        let shares = [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(9)]
            .map(|voters| outstanding_max(1000, voters));
        assert_eq!(shares, [1000, 1000, 1000, 500, 333, 250, 125]);
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let fill_time = Duration::from_millis(10);
        let options =
            ConnectionThrottle { tokens: 5, fill_time, fill_count: 2, ..Default::default() };
        let mut bucket = Bucket::new(&options);
        assert_eq!(admitted(&mut bucket, &options, 0, 20, Handshake::Global), 5);
        assert_eq!(bucket.deficit(&options), 5);
        assert_eq!(
            admitted(&mut bucket, &options, 10, 20, Handshake::Global),
            0,
            "more than the time has to pass"
        );
        assert_eq!(admitted(&mut bucket, &options, 11, 20, Handshake::Global), 2);
        assert_eq!(admitted(&mut bucket, &options, 26, 20, Handshake::Renewal), 3);
        assert_eq!(
            admitted(&mut bucket, &options, u64::MAX / 2_000_000, 20, Handshake::Renewal),
            5,
            "no more than full"
        );
        let off = ConnectionThrottle::default();
        assert_eq!(admitted(&mut Bucket::new(&off), &off, 0, 2000, Handshake::Global), 2000);
    }

    #[test]
    fn with_weights_a_session_that_goes_on_takes_less() {
        let options = ConnectionThrottle { tokens: 4, weighed: true, ..Default::default() };
        assert_eq!(admitted(&mut Bucket::new(&options), &options, 0, 20, Handshake::Global), 4);
        assert_eq!(admitted(&mut Bucket::new(&options), &options, 0, 20, Handshake::Renewal), 6);
        assert_eq!(admitted(&mut Bucket::new(&options), &options, 0, 20, Handshake::Local), 12);
        let heavy = ConnectionThrottle { local_weight: 6, ..options };
        assert_eq!(
            admitted(&mut Bucket::new(&heavy), &heavy, 0, 20, Handshake::Renewal),
            4,
            "none below the local one"
        );
    }

    #[test]
    fn the_chance_to_be_refused_follows_the_bucket() {
        let options = ConnectionThrottle {
            tokens: 1,
            fill_time: Duration::from_secs(1000),
            freeze_time: Some(Duration::from_millis(10)),
            drop_increase: 0.2,
            drop_decrease: 0.1,
            ..Default::default()
        };
        let mut bucket = Bucket::new(&options);
        assert_eq!(admitted(&mut bucket, &options, 0, 1, Handshake::Global), 1);
        for ms in (11..200).step_by(11) {
            admitted(&mut bucket, &options, ms, 5, Handshake::Global);
        }
        assert!((bucket.chance - 1.0).abs() < 1e-9, "{}", bucket.chance);
        let full = ConnectionThrottle { fill_time: Duration::from_millis(1), ..options };
        for (ms, refused) in [(300, true), (311, true), (322, true), (333, true), (344, true)] {
            assert_eq!(
                admitted(&mut bucket, &full, ms, 1, Handshake::Global) == 0,
                refused,
                "{ms}"
            );
        }
        assert!((bucket.chance - 0.5).abs() < 1e-9, "{}", bucket.chance);
        assert_eq!(
            admitted(&mut bucket, &full, 355, 1, Handshake::Global),
            1,
            "0.5 is not below 0.4"
        );
    }
}
