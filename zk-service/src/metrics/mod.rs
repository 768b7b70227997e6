//! What `mntr` shows beside the present state: counters and summaries since the start of the process
//! or the last `srst`. Only what is measured is here; what ZooKeeper has and this server has not is
//! listed in `docs/monitoring.md`.

pub(crate) mod stats;

use self::stats::Stats;
use std::collections::BTreeMap;

use zab_proto::{Instant, Phase, ServerState, Status};

use crate::protocol::event::Event;

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
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum += value;
    }
}

/// Whole milliseconds from one instant to a later one.
pub(crate) fn milliseconds(from: Instant, to: Instant) -> u64 {
    to.as_nanos().saturating_sub(from.as_nanos()) / 1_000_000
}

/// Values below this have a bucket each.
const EXACT: u64 = 32;
/// Buckets for each doubling above: a percentile is at most a sixteenth too low.
const PER_DOUBLING: u64 = 16;
/// The last bucket has everything from 2^36 on.
const BUCKETS: usize = 32 + 31 * 16;

/// A summary with percentiles.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) summary: Summary,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { summary: Summary::default(), buckets: Box::new([0; BUCKETS]) }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, value: u64) {
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

    /// The value that `per_mille` of all are not above.
    pub(crate) fn percentile(&self, per_mille: u64) -> u64 {
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

/// Why a connection that was held through a change of the role is closed after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldEnd {
    /// There was no leader in time.
    NoLeader,
    /// The leader has sent a snapshot.
    Snapshot,
    /// Its client goes on with the session elsewhere.
    Moved,
    /// Its session has ended.
    Ended,
    /// Its requests were not kept, being too long, or cannot be forwarded.
    TooLong,
    /// This server leads, and leaders serve no clients.
    NotServed,
}

impl HoldEnd {
    pub(crate) const ALL: [Self; 6] =
        [Self::NoLeader, Self::Snapshot, Self::Moved, Self::Ended, Self::TooLong, Self::NotServed];

    /// The reason, in words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoLeader => "no leader in time",
            Self::Snapshot => "behind a snapshot",
            Self::Moved => "the session went elsewhere",
            Self::Ended => "the session has ended",
            Self::TooLong => "requests too long to be submitted again",
            Self::NotServed => "this leader serves no clients",
        }
    }

    /// What `mntr` calls the counter.
    pub(crate) const fn metric(self) -> &'static str {
        match self {
            Self::NoLeader => "zab_held_closed_no_leader",
            Self::Snapshot => "zab_held_closed_snapshot",
            Self::Moved => "zab_held_closed_moved",
            Self::Ended => "zab_held_closed_ended",
            Self::TooLong => "zab_held_closed_too_long",
            Self::NotServed => "zab_held_closed_not_served",
        }
    }
}

/// Counters and summaries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) stats: Stats,
    pub(crate) bytes_received: u64,
    pub(crate) response_bytes: u64,
    pub(crate) watch_bytes: u64,
    /// Leader of an ensemble: transactions proposed and committed.
    pub(crate) proposals: u64,
    pub(crate) commits: u64,
    /// Learner: commits heard of.
    pub(crate) commits_received: u64,
    pub(crate) handshakes: u64,
    /// Handshakes that were to go on with a session.
    pub(crate) reattachments: u64,
    /// Leader: the same on learners.
    pub(crate) revalidations: u64,
    pub(crate) refused: u64,
    pub(crate) dropped: u64,
    pub(crate) sessionless_expired: u64,
    pub(crate) sessions_expired: u64,
    pub(crate) looking: u64,
    /// Connections that were held through changes of the role, requests that were submitted again,
    /// and connections that were closed after all.
    pub(crate) held: u64,
    pub(crate) resubmitted: u64,
    pub(crate) held_closed: [u64; HoldEnd::ALL.len()],
    pub(crate) ensemble_auth_success: u64,
    pub(crate) ensemble_auth_fail: u64,
    pub(crate) ensemble_auth_skip: u64,
    pub(crate) read_latency: Histogram,
    pub(crate) update_latency: Histogram,
    pub(crate) election_time: Summary,
    pub(crate) unavailable_time: Summary,
    pub(crate) leader_unavailable_time: Summary,
    pub(crate) created_watches: Summary,
    pub(crate) deleted_watches: Summary,
    pub(crate) changed_watches: Summary,
    pub(crate) children_watches: Summary,
    /// Leader: writes refused for their quota, by the first part of their path. Only paths with a
    /// quota are in it.
    pub(crate) quota_exceeded: BTreeMap<Box<str>, u64>,
}

impl Metrics {
    /// So many connections are told of an event.
    pub(crate) fn triggered(&mut self, event: Event, watchers: usize) {
        let summary = match event {
            Event::Created => &mut self.created_watches,
            Event::Deleted => &mut self.deleted_watches,
            Event::DataChanged => &mut self.changed_watches,
            Event::ChildrenChanged => &mut self.children_watches,
        };
        summary.add(watchers as u64);
    }
}

/// Since when there is an election, and no service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    looking_since: Option<Instant>,
    away_since: Option<Instant>,
    serving: bool,
}

impl Gaps {
    /// The core's status has changed. A standalone server elects nobody.
    pub(crate) fn became(&mut self, now: Instant, status: &Status, metrics: &mut Metrics) {
        let looking = status.state == ServerState::Looking;
        if looking && self.looking_since.is_none() {
            self.looking_since = Some(now);
            metrics.looking += 1;
        } else if !looking && let Some(since) = self.looking_since.take() {
            metrics.election_time.add(milliseconds(since, now));
        }
        let serving = status.phase == Phase::Broadcast;
        if !serving {
            self.away_since.get_or_insert(now);
        } else if !self.serving
            && let Some(since) = self.away_since.take()
        {
            let gap = milliseconds(since, now);
            metrics.unavailable_time.add(gap);
            if status.state == ServerState::Leading {
                metrics.leader_unavailable_time.add(gap);
            }
        }
        self.serving = serving;
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
