//! The metrics that `mntr` prints, under ZooKeeper's names.
//!
//! What is not measured is not shown: a constant zero looks like health. `docs/monitoring.md` lists
//! what ZooKeeper has beside this.

use std::fmt::{Display, Write};
use std::time::Duration;

use zab_proto::{HeartbeatStatus, Phase, ServerState};

use crate::metrics::stats::decimal;
use crate::metrics::{Histogram, HoldEnd, Summary, Value};
use crate::observe::View;
use crate::observe::report::{ProposalSizes, Safety};

/// What `mntr` says.
pub(super) fn text(view: &View<'_, '_>) -> String {
    let mut text = String::new();
    let out = &mut text;
    put(out, "version", &view.env.options.version);
    put(out, "server_state", view.status.mode());
    let uptime = view.core.now().saturating_since(view.status.serving_since()).as_millis();
    if let Some(status) = view.status.in_ensemble() {
        put(out, "peer_state", peer_state(status.state, status.phase));
        put(out, "quorum_size", view.core.peer().config().ensemble.voters().count());
    }
    if view.leads_ensemble() {
        put(out, "leader_uptime", uptime);
        put_leader(view, out);
    }
    let stats = &view.metrics.stats;
    let response = |n: usize| match stats.response_last {
        Some(_) => i64::try_from(n).unwrap_or(i64::MAX),
        None => -1,
    };
    put(out, "uptime", uptime);
    put(out, "avg_latency", stats.latency_avg());
    put(out, "min_latency", stats.latency_min_ms);
    put(out, "max_latency", stats.latency_max_ms);
    put(out, "packets_received", stats.received);
    put(out, "packets_sent", stats.sent);
    put(out, "num_alive_connections", view.clients.len());
    put(out, "outstanding_requests", view.outstanding());
    put(out, "znode_count", view.node_count());
    put(out, "watch_count", view.watches.len());
    put(out, "ephemerals_count", view.state.tree().ephemerals_count());
    // ZooKeeper counts the root twice, the second time as `/`.
    let root = "/".len() as u64;
    put(out, "approximate_data_size", view.state.tree().approximate_data_size() + root);
    put(out, "global_sessions", view.state.db().sessions.len());
    put(out, "last_client_response_size", response(stats.response_last.unwrap_or(0)));
    put(out, "min_client_response_size", response(stats.response_min));
    put(out, "max_client_response_size", response(stats.response_max));
    if let Some(descriptors) = &view.env.options.descriptors {
        let (open, max) = descriptors.read();
        put(out, "open_file_descriptor_count", open);
        put(out, "max_file_descriptor_count", max);
    }
    for (name, figure) in &view.env.options.figures {
        put(out, name, figure.read());
    }
    if view.status.in_ensemble().is_some() {
        put_heartbeats(&view.core.peer().heartbeats(), out);
        // What is not known is not shown.
        if let Some(is_safe) = Safety::new(view).safe_to_stop.is_safe() {
            put_own(out, "safe_to_stop", u8::from(is_safe).into());
        }
    }
    put_quotas(view, out);
    put_metrics(view, out);
    text
}

fn put_leader(view: &View<'_, '_>, out: &mut String) {
    let ProposalSizes { last, min, max } = ProposalSizes::new(view);
    put(out, "last_proposal_size", last);
    put(out, "min_proposal_size", min);
    put(out, "max_proposal_size", max);
    let synced = |observer| {
        view.core.peer().learners().filter(|l| l.synced && l.observer == observer).count()
    };
    put(out, "learners", view.core.peer().learners().count());
    put(out, "synced_followers", synced(false));
    put(out, "synced_observers", synced(true));
    put(out, "pending_syncs", view.role.syncs());
}

fn put_quotas(view: &View<'_, '_>, out: &mut String) {
    for (namespace, quota) in view.state.tree().quotas_by_namespace() {
        for (name, value) in [
            ("quota_count_limit", quota.count_limit),
            ("quota_bytes_limit", quota.bytes_limit),
            ("quota_count_usage", quota.count_usage),
            ("quota_bytes_usage", quota.bytes_usage),
        ] {
            if value > -1 {
                put(out, &format!("{namespace}_{name}_per_namespace"), value);
            }
        }
    }
    for (namespace, count) in &view.metrics.quota_exceeded {
        put(out, &format!("{namespace}_quota_exceeded_error_per_namespace"), count);
    }
}

/// What is counted in the table of `metrics`, and the like of what others count.
fn put_metrics(view: &View<'_, '_>, out: &mut String) {
    let is_counter = |value: &Value<'_>| matches!(value, Value::Counter(_));
    let (counters, summaries): (Vec<_>, Vec<_>) =
        view.metrics.rows().partition(|(_, value)| is_counter(value));
    put_rows(counters, out);
    put(out, "digest_mismatches_count", view.state.digest_mismatches());
    for (why, count) in HoldEnd::ALL.iter().zip(view.metrics.held_closed) {
        put(out, why.metric(), count);
    }
    if let Some(fsyncs) = &view.env.options.fsync_times {
        put_summary(out, "fsynctime", &fsyncs.read());
    }
    put_rows(summaries, out);
}

fn put_rows(rows: Vec<(&str, Value<'_>)>, out: &mut String) {
    for (name, value) in rows {
        match value {
            Value::Counter(count) => put(out, name, count),
            Value::Summary(summary) => put_summary(out, name, summary),
            Value::Histogram(histogram) => put_histogram(out, name, histogram),
        }
    }
}

fn peer_state(state: ServerState, phase: Phase) -> String {
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

/// Appends one metric. Names of znodes are in some: a control character in one would make a line.
fn put(out: &mut String, name: &str, value: impl Display) {
    out.push_str("zk_");
    out.extend(name.chars().map(|c| if c.is_control() { '?' } else { c }));
    let _ = writeln!(out, "\t{value}");
}

fn put_summary(out: &mut String, name: &str, summary: &Summary) {
    let Summary { count, sum, min, max } = *summary;
    let ten_thousandths = u128::from(sum) * 10_000 / u128::from(count.max(1));
    let _ = writeln!(out, "zk_avg_{name}\t{}", decimal(ten_thousandths));
    for (prefix, value) in [("min", min), ("max", max), ("cnt", count), ("sum", sum)] {
        let _ = writeln!(out, "zk_{prefix}_{name}\t{value}");
    }
}

fn put_histogram(out: &mut String, name: &str, histogram: &Histogram) {
    put_summary(out, name, &histogram.summary);
    for (prefix, per_mille) in [("p50", 500), ("p95", 950), ("p99", 990), ("p999", 999)] {
        let _ = writeln!(out, "zk_{prefix}_{name}\t{}", histogram.percentile(per_mille));
    }
}

/// What ZooKeeper has nothing like: under names of this server's own.
fn put_heartbeats(status: &HeartbeatStatus, out: &mut String) {
    let millis = |span: Option<Duration>| span.unwrap_or_default().as_millis();
    for (name, value) in [
        ("heartbeat_interval_ms", millis(status.interval)),
        ("suspect_limit_ms", millis(status.limit)),
        ("heartbeats_sent", status.sent.into()),
        ("heartbeats_answered", status.answered.into()),
        ("suspicions", status.suspicions.into()),
        ("suspicions_true", status.suspicions_true.into()),
        ("suspicions_false", status.suspicions_false.into()),
        ("own_pauses", status.pauses.into()),
        ("longest_own_pause_ms", status.longest_pause.as_millis()),
    ] {
        put_own(out, name, value);
    }
}

fn put_own(out: &mut String, name: &str, value: u128) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "zab_{name}\t{value}");
}
