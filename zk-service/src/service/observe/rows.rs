//! The metrics of a server as values: what `mntr`, the AdminServer's `monitor` and `/metrics` are
//! renderings of.
//!
//! What is not measured is not there: a constant zero looks like health. `docs/monitoring.md` lists
//! what ZooKeeper has beside this.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use zab_proto::{HeartbeatStatus, Phase, ServerState, Zxid};

use crate::metrics::stats::{Sizes, decimal};
use crate::metrics::{self, Distribution, HoldEnd, Summary};
use crate::service::observe::View;
use crate::service::observe::report::Safety;

/// One metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metric {
    /// ZooKeeper's name, without `zk_`; names of this server's own begin with `zab_`.
    pub name: Cow<'static, str>,
    /// What it is about, of metrics with one value for each of several: the first part of a path.
    pub key: Option<Box<str>>,
    /// Its kind and value.
    pub value: MetricValue,
}

/// Kind and value of a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricValue {
    /// A word, such as the role. Only texts show these.
    Text(String),
    /// It rises and falls.
    Gauge(i64),
    /// The same in ten-thousandths.
    Fraction(u64),
    /// It only rises, but for `srst`.
    Counter(u64),
    /// Count, sum, least and greatest.
    Summary(Summary),
    /// These, and percentiles.
    Distribution(Distribution),
}

impl From<metrics::Value<'_>> for MetricValue {
    fn from(value: metrics::Value<'_>) -> Self {
        match value {
            metrics::Value::Counter(count) => Self::Counter(count),
            metrics::Value::Summary(summary) => Self::Summary(*summary),
            metrics::Value::Distribution(all) => Self::Distribution(all),
        }
    }
}

/// One line of `mntr`: a summary has several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A word.
    Text(String),
    /// A whole number.
    Number(i128),
    /// Ten-thousandths.
    Fraction(u128),
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Fraction(ten_thousandths) => f.write_str(&decimal(*ten_thousandths)),
        }
    }
}

impl Metric {
    /// The lines of `mntr` for it, without `zk_`, as ZooKeeper's default provider names them. Names of
    /// znodes are in some; monitors accept letters, digits, `_`, `.` and `-` only, and one that meets
    /// anything else gives the whole answer up.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let name = match &self.key {
            None => self.name.clone().into_owned(),
            Some(key) => format!("{}_{}", plain(key), self.name),
        };
        match &self.value {
            MetricValue::Text(text) => vec![(name, Entry::Text(text.clone()))],
            MetricValue::Gauge(value) => vec![(name, Entry::Number((*value).into()))],
            MetricValue::Fraction(value) => vec![(name, Entry::Fraction((*value).into()))],
            MetricValue::Counter(value) => vec![(name, Entry::Number((*value).into()))],
            MetricValue::Summary(summary) => summary_entries(&name, summary),
            MetricValue::Distribution(distribution) => {
                let mut entries = summary_entries(&name, &distribution.summary);
                for (prefix, value) in [
                    ("p50", distribution.p50),
                    ("p95", distribution.p95),
                    ("p99", distribution.p99),
                    ("p999", distribution.p999),
                ] {
                    entries.push((format!("{prefix}_{name}"), Entry::Number(value.into())));
                }
                entries
            }
        }
    }
}

fn plain(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    key.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}

fn summary_entries(name: &str, summary: &Summary) -> Vec<(String, Entry)> {
    let Summary { count, sum, min, max } = *summary;
    let average = u128::from(sum) * 10_000 / u128::from(count.max(1));
    let mut entries = vec![(format!("avg_{name}"), Entry::Fraction(average))];
    for (prefix, value) in [("min", min), ("max", max), ("cnt", count), ("sum", sum)] {
        entries.push((format!("{prefix}_{name}"), Entry::Number(value.into())));
    }
    entries
}

/// Rows as they are gathered.
#[derive(Default)]
struct Rows(Vec<Metric>);

impl Rows {
    fn put(&mut self, name: impl Into<Cow<'static, str>>, value: MetricValue) {
        self.0.push(Metric { name: name.into(), key: None, value });
    }

    fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.put(name, MetricValue::Text(value.into()));
    }

    fn gauge(&mut self, name: &'static str, value: impl TryInto<i64>) {
        self.put(name, MetricValue::Gauge(value.try_into().unwrap_or(i64::MAX)));
    }

    fn counter(&mut self, name: &'static str, value: u64) {
        self.put(name, MetricValue::Counter(value));
    }

    fn of(&mut self, key: &str, name: &'static str, value: MetricValue) {
        self.0.push(Metric { name: name.into(), key: Some(key.into()), value });
    }
}

/// All metrics, in the order in which `mntr` shows them.
pub(super) fn all(view: &View<'_, '_>) -> Vec<Metric> {
    let mut rows = Rows::default();
    rows.text("version", view.env.options.version.clone());
    rows.text("server_state", view.status.mode());
    let uptime = view.core.now().saturating_since(view.status.serving_since()).as_millis();
    if let Some(status) = view.status.in_ensemble() {
        rows.text("peer_state", peer_state(status.state, status.phase));
        rows.gauge("quorum_size", view.core.peer().config().ensemble.voters().count());
    }
    if view.leads_ensemble() {
        rows.gauge("leader_uptime", uptime);
        of_leader(view, &mut rows);
    } else if view.core.peer().config().observer_master_port.is_some() {
        // As a follower of ZooKeeper's that is an observer master.
        rows.gauge("synced_observers", synced(view, true));
    }
    rows.gauge("uptime", uptime);
    of_service(view, &mut rows);
    if let Some(descriptors) = &view.env.options.descriptors {
        let (open, max) = descriptors.read();
        rows.gauge("open_file_descriptor_count", open);
        rows.gauge("max_file_descriptor_count", max);
    }
    for (name, figure) in &view.env.options.gauges {
        rows.gauge(name, figure.read());
    }
    for (name, figure) in &view.env.options.figures {
        rows.counter(name, figure.read());
    }
    if view.status.in_ensemble().is_some() {
        of_heartbeats(&view.core.peer().heartbeats(), &mut rows);
        let peer = view.core.peer();
        rows.gauge("zab_unapplied", unapplied(peer.last_zxid(), peer.delivered()));
        // What is not known is not shown.
        if let Some(is_safe) = Safety::new(view).safe_to_stop.is_safe() {
            rows.gauge("zab_safe_to_stop", i64::from(is_safe));
        }
    }
    of_memory(view, &mut rows);
    of_quotas(view, &mut rows);
    of_namespaces(view, &mut rows);
    counted(view, &mut rows);
    rows.0
}

fn of_service(view: &View<'_, '_>, rows: &mut Rows) {
    let stats = &view.metrics.stats;
    let average = u64::try_from(stats.latency_avg_ten_thousandths()).unwrap_or(u64::MAX);
    rows.put("avg_latency", MetricValue::Fraction(average));
    rows.gauge("min_latency", stats.latency_min_ms);
    rows.gauge("max_latency", stats.latency_max_ms);
    rows.gauge("packets_received", stats.received);
    rows.gauge("packets_sent", stats.sent);
    rows.gauge("num_alive_connections", view.clients.len());
    rows.gauge("outstanding_requests", view.outstanding());
    rows.gauge("znode_count", view.node_count());
    rows.gauge("watch_count", view.watches.len());
    rows.gauge("ephemerals_count", view.state.tree().ephemerals_count());
    // ZooKeeper counts the root twice, the second time as `/`.
    let root = "/".len() as u64;
    rows.gauge("approximate_data_size", view.state.tree().approximate_data_size() + root);
    rows.gauge("global_sessions", view.state.db().sessions.len());
    rows.gauge("local_sessions", view.local.len());
    rows.gauge("last_client_response_size", stats.responses.last);
    rows.gauge("min_client_response_size", stats.responses.min);
    rows.gauge("max_client_response_size", stats.responses.max);
}

fn synced(view: &View<'_, '_>, observer: bool) -> usize {
    view.core.peer().learners().filter(|l| l.synced && l.observer == observer).count()
}

fn of_leader(view: &View<'_, '_>, rows: &mut Rows) {
    let Sizes { last, min, max } = view.metrics.stats.proposals;
    rows.gauge("last_proposal_size", last);
    rows.gauge("min_proposal_size", min);
    rows.gauge("max_proposal_size", max);
    rows.gauge("learners", view.core.peer().learners().count());
    rows.gauge("synced_followers", synced(view, false));
    rows.gauge("synced_observers", synced(view, true));
    rows.gauge("pending_syncs", view.role.syncs());
    for learner in view.core.peer().learners() {
        if let Some(behind) = learner.behind {
            let behind = i64::try_from(behind).unwrap_or(i64::MAX);
            rows.of(&learner.origin.sid.to_string(), "zab_behind", MetricValue::Gauge(behind));
        }
    }
}

/// How many transactions wait between the log and the tree: not committed yet, as far as this server knows.
fn unapplied(logged: Zxid, applied: Zxid) -> u32 {
    if logged.epoch() == applied.epoch() {
        logged.counter().saturating_sub(applied.counter())
    } else {
        // How many the epoch before had is not known.
        logged.counter()
    }
}

/// Bytes by who makes this server keep them, as far as that is bounded.
fn of_memory(view: &View<'_, '_>, rows: &mut Rows) {
    let unsent: usize = view.clients.iter().map(|(_, client)| client.unsent()).sum();
    for (owner, len) in [
        ("clients", view.clients.kept_len()),
        ("unsent", unsent),
        ("window", view.core.peer().window_len_bytes()),
    ] {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        rows.of(owner, "zab_memory_bytes", MetricValue::Gauge(len));
    }
}

fn of_quotas(view: &View<'_, '_>, rows: &mut Rows) {
    for (namespace, quota) in view.state.tree().quotas_by_namespace() {
        for (name, value) in [
            ("quota_count_limit_per_namespace", quota.count_limit),
            ("quota_bytes_limit_per_namespace", quota.bytes_limit),
            ("quota_count_usage_per_namespace", quota.count_usage),
            ("quota_bytes_usage_per_namespace", quota.bytes_usage),
        ] {
            if value > -1 {
                rows.of(namespace, name, MetricValue::Gauge(value));
            }
        }
    }
}

fn of_namespaces(view: &View<'_, '_>, rows: &mut Rows) {
    for (namespace, name, value) in view.metrics.namespaces.rows() {
        match namespace {
            Some(namespace) => rows.of(namespace, name, value.into()),
            None => rows.put(name, value.into()),
        }
    }
}

/// What is counted in the table of `metrics`, and the like of what others count.
fn counted(view: &View<'_, '_>, rows: &mut Rows) {
    let is_counter = |value: &metrics::Value<'_>| matches!(value, metrics::Value::Counter(_));
    let (counters, summaries): (Vec<_>, Vec<_>) =
        view.metrics.rows().partition(|(_, value)| is_counter(value));
    put_counted(counters, rows);
    let syncs = view.core.peer().sync_counts();
    rows.counter("diff_count", syncs.from_log);
    rows.counter("snap_count", syncs.snapshots);
    rows.counter("digest_mismatches_count", view.state.digest_mismatches());
    for (cause, count) in &view.metrics.failovers {
        rows.of(cause, "zab_failovers", MetricValue::Counter(*count));
    }
    for (why, count) in HoldEnd::ALL.iter().zip(view.metrics.held_closed) {
        rows.counter(why.metric(), count);
    }
    if let Some(fsyncs) = &view.env.options.fsync_times {
        rows.put("fsynctime", MetricValue::Summary(fsyncs.read()));
    }
    for (name, summary) in &view.env.options.summaries {
        rows.put(*name, MetricValue::Summary(summary.read()));
    }
    // A leader applies what a quorum has acknowledged at once: the two are the same moment.
    let committed = view.metrics.rows().find(|(name, _)| *name == "proposal_latency");
    let acked = committed.map(|(_, value)| ("quorum_ack_latency", value));
    put_counted(summaries, rows);
    put_counted(acked.into_iter().collect(), rows);
}

fn put_counted(counted: Vec<(&'static str, metrics::Value<'_>)>, rows: &mut Rows) {
    for (name, value) in counted {
        rows.put(name, value.into());
    }
}

pub(super) fn peer_state(state: ServerState, phase: Phase) -> String {
    let state = match state {
        ServerState::Looking => "looking",
        ServerState::Following => "following",
        ServerState::Leading => "leading",
        ServerState::Observing => "observing",
    };
    let phase = match phase {
        Phase::Election => return state.into(),
        Phase::Discovery => "discovery",
        Phase::Synchronization => "synchronization",
        Phase::Broadcast => "broadcast",
    };
    format!("{state} - {phase}")
}

/// What ZooKeeper has nothing like: under names of this server's own.
fn of_heartbeats(status: &HeartbeatStatus, rows: &mut Rows) {
    let millis = |span: Option<Duration>| span.unwrap_or_default().as_millis();
    rows.gauge("zab_heartbeat_interval_ms", millis(status.interval));
    rows.gauge("zab_suspect_limit_ms", millis(status.limit));
    rows.counter("zab_heartbeats_sent", status.sent);
    rows.counter("zab_heartbeats_answered", status.answered);
    rows.counter("zab_suspicions", status.suspicions);
    rows.counter("zab_suspicions_true", status.suspicions_true);
    rows.counter("zab_suspicions_false", status.suspicions_false);
    rows.counter("zab_own_pauses", status.pauses);
    rows.gauge("zab_longest_own_pause_ms", status.longest_pause.as_millis());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_applied_is_counted() {
        let zxid = |epoch: i64, counter: i64| Zxid::from_raw(epoch << 32 | counter);
        assert_eq!(unapplied(zxid(3, 9), zxid(3, 4)), 5);
        assert_eq!(unapplied(zxid(3, 4), zxid(3, 4)), 0);
        assert_eq!(unapplied(zxid(4, 2), zxid(3, 9)), 2);
    }
}
