//! What `mntr` shows beside the present state: counters and summaries since the start of the process
//! or the last `srst`. Only what is measured is here; what ZooKeeper has and this server has not is
//! listed in `docs/monitoring.md`.

pub(crate) mod namespaces;
pub(crate) mod stats;
mod summary;
pub(crate) mod timeline;

use std::collections::BTreeMap;

use zab_proto::{Instant, Phase, ServerState, Status};

use self::namespaces::Namespaces;
use self::stats::Stats;
use self::summary::Histogram;
pub use self::summary::{Distribution, Summary};
use crate::protocol::event::Event;

/// Whole milliseconds from one instant to a later one.
pub(crate) fn milliseconds(from: Instant, to: Instant) -> u64 {
    to.as_nanos().saturating_sub(from.as_nanos()) / 1_000_000
}

/// What `mntr` shows of one metric.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Counter(u64),
    Summary(&'a Summary),
    Distribution(Distribution),
}

/// A kind of metric.
trait Kind {
    fn value(&self) -> Value<'_>;
}

type Counter = u64;

impl Kind for Counter {
    fn value(&self) -> Value<'_> {
        Value::Counter(*self)
    }
}

impl Kind for Summary {
    fn value(&self) -> Value<'_> {
        Value::Summary(self)
    }
}

impl Kind for Histogram {
    fn value(&self) -> Value<'_> {
        Value::Distribution(self.distribution())
    }
}

macro_rules! metrics {
    ($($field:ident: $kind:ident, $name:literal, $place:literal;)*) => {
        /// Counters and summaries since the start of the process, or the last `srst`.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Metrics {
            /// Of the present role.
            pub(crate) stats: Stats,
            /// What is read, written and refused, by the first part of the path. Counted in
            /// `metrics/mod.rs::changed`, `service/read.rs` and `service/role/leader.rs::count`.
            pub(crate) namespaces: Namespaces,
            /// The wall clock.
            calendar: Calendar,
            /// Losses of service that are over, by their cause. Counted in
            /// `metrics/timeline.rs::became`.
            pub(crate) failovers: BTreeMap<&'static str, u64>,
            /// Connections that were held and closed after all, by reason. Counted in
            /// `service/hold.rs::end_hold`.
            pub(crate) held_closed: [u64; HoldEnd::ALL.len()],
            $(#[doc = concat!("`", $name, "`, counted in `", $place, "`.")]
            pub(crate) $field: $kind,)*
        }

        impl Metrics {
            /// Names as `mntr` has them, behind `zk_`, and values, in the order of the table.
            pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
                [$(($name, self.$field.value()),)*].into_iter()
            }
        }
    };
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

// One row for each: what is counted is shown. The last column is checked by tests/tidy.rs, and
// docs/monitoring.md has to have the name.
metrics! {
//  field                    kind       mntr's name                       where it is counted
    bytes_received:          Counter,   "bytes_received_count",           "service/intake.rs::count_received";
    response_bytes:          Counter,   "response_bytes",                 "service/answer.rs::replied";
    watch_bytes:             Counter,   "watch_bytes",                    "service/apply.rs::tell";
    proposals:               Counter,   "proposal_count",                 "service/role/leader.rs::note_proposed";
    commits:                 Counter,   "commit_count",                   "service/apply.rs::note_commit";
    commits_received:        Counter,   "learner_commit_received_count",  "service/apply.rs::note_commit";
    handshakes:              Counter,   "connection_request_count",       "service/handshake.rs::handshake";
    reattachments:           Counter,   "connection_revalidate_count",    "service/handshake.rs::handshake";
    revalidations:           Counter,   "revalidate_count",               "service.rs::revalidate";
    refused:                 Counter,   "connection_rejected",            "service.rs::accept";
    token_deficit:           Summary,   "connection_token_deficit",       "service/handshake.rs::admits";
    outstanding_stalls:      Counter,   "zab_outstanding_stalls",         "service/intake.rs::outstanding_waits";
    throttle_waits:          Counter,   "request_throttle_wait_count",    "service/intake.rs::throttle_waits";
    throttled_ops:           Counter,   "throttled_ops",                  "service/intake.rs::is_throttled";
    large_rejected:          Counter,   "large_requests_rejected",        "service/intake.rs::take_frames";
    dropped:                 Counter,   "connection_drop_count",          "service.rs::closed";
    sessionless_expired:     Counter,   "sessionless_connections_expired", "service/turn.rs::expire_greetings";
    silent_closed:           Counter,   "zab_silent_closed",              "service/turn.rs::close_silent";
    sessions_expired:        Counter,   "stale_sessions_expired",         "service/role/expiry.rs::expire";
    looking:                 Counter,   "looking_count",                  "metrics/mod.rs::became";
    held:                    Counter,   "zab_held",                       "service/hold.rs::hold_clients";
    resubmitted:             Counter,   "zab_resubmitted",                "service/hold.rs::resubmit_next";
    ensemble_auth_success:   Counter,   "ensemble_auth_success",          "service/intake/login.rs::auth";
    ensemble_auth_fail:      Counter,   "ensemble_auth_fail",             "service/intake/login.rs::auth";
    ensemble_auth_skip:      Counter,   "ensemble_auth_skip",             "service/intake/login.rs::auth";
    sasl_logins:             Counter,   "zab_sasl_logins",                "service/intake/login.rs::sasl";
    sasl_failed:             Counter,   "zab_sasl_failed",                "service/intake/login.rs::sasl";
    sasl_ignored:            Counter,   "zab_sasl_ignored",               "service/intake/login.rs::sasl";
    election_time:           Summary,   "election_time",                  "metrics/mod.rs::became";
    unavailable_time:        Summary,   "unavailable_time",               "metrics/mod.rs::became";
    leader_unavailable_time: Summary,   "leader_unavailable_time",        "metrics/mod.rs::became";
    failover_time:           Summary,   "zab_failover_time",              "metrics/timeline.rs::became";
    follower_sync_time:      Summary,   "follower_sync_time",             "metrics/timeline.rs::spent";
    observer_sync_time:      Summary,   "observer_sync_time",             "metrics/timeline.rs::spent";
    discovery_time:          Summary,   "zab_discovery_time",             "metrics/timeline.rs::spent";
    synchronization_time:    Summary,   "zab_synchronization_time",       "metrics/timeline.rs::spent";
    created_watches:         Summary,   "node_created_watch_count",       "metrics/mod.rs::triggered";
    deleted_watches:         Summary,   "node_deleted_watch_count",       "metrics/mod.rs::triggered";
    changed_watches:         Summary,   "node_changed_watch_count",       "metrics/mod.rs::triggered";
    children_watches:        Summary,   "node_children_watch_count",      "metrics/mod.rs::triggered";
    read_latency:            Histogram, "readlatency",                    "service/answer.rs::replied";
    propagation_latency:     Histogram, "propagation_latency",            "metrics/mod.rs::propagated";
    proposal_latency:        Histogram, "proposal_latency",               "metrics/mod.rs::propagated";
    update_latency:          Histogram, "updatelatency",                  "service/answer.rs::replied";
}

impl Metrics {
    /// A transaction is applied here that the leader made at `made_ms` since 1970; `look` asks the wall
    /// clock. On the leader itself that is when a quorum has acknowledged it.
    pub(crate) fn propagated(
        &mut self,
        now: Instant,
        made_ms: i64,
        leads: bool,
        look: impl FnOnce() -> i64,
    ) {
        if !summary::IS_MEASURED {
            return;
        }
        let ago = self.calendar.now_ms(now, look).saturating_sub(made_ms);
        // Two clocks: a negative time is none.
        let ago = u64::try_from(ago).unwrap_or(0);
        self.propagation_latency.add(ago);
        if leads {
            self.proposal_latency.add(ago);
        }
    }

    /// A node was created, changed or deleted, or its children were; `data_len`: bytes of data that it has.
    pub(crate) fn changed(&mut self, event: Event, path: &str, data_len: usize) {
        match event {
            Event::Created | Event::DataChanged => self.namespaces.wrote(path, data_len),
            Event::Deleted => self.namespaces.deleted(path),
            // The child has been counted.
            Event::ChildrenChanged => {}
        }
    }

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

/// The wall clock as the loop's clock goes on. It is looked at once a second only, since a look may cost
/// as much as a transaction does.
#[derive(Clone, Copy, Debug, Default)]
struct Calendar {
    /// When it was looked at last, and the ms since 1970 then.
    looked: Option<(Instant, i64)>,
}

impl Calendar {
    /// The ms since 1970; `look` asks the wall clock.
    fn now_ms(&mut self, now: Instant, look: impl FnOnce() -> i64) -> i64 {
        if let Some((at, ms)) = self.looked {
            let since = milliseconds(at, now);
            if since < 1000 {
                return ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX));
            }
        }
        self.looked.insert((now, look())).1
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_wall_clock_is_looked_at_once_a_second() {
        let (mut calendar, mut looks) = (Calendar::default(), 0);
        for ms in 0..2500u64 {
            let now = Instant::ZERO + Duration::from_millis(ms);
            let wall = calendar.now_ms(now, || {
                looks += 1;
                7000 + i64::try_from(ms).expect("small")
            });
            assert_eq!(wall, 7000 + i64::try_from(ms).expect("small"));
        }
        assert_eq!(looks, 3);
    }
}
