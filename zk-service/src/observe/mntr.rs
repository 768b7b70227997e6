//! The metrics that `mntr` prints, under ZooKeeper's names.
//!
//! What is not measured is not shown: a constant zero looks like health. `docs/monitoring.md` lists
//! what ZooKeeper has beside this.

use std::fmt::{Display, Write};
use std::time::Duration;

use zab_proto::{Core, HeartbeatStatus, Phase, ServerState};

use crate::metrics::{Histogram, HoldEnd, Summary};
use crate::service::Service;

impl Service {
    /// What `mntr` says.
    pub(crate) fn mntr(&self, core: &Core<'_>, out: &mut String) {
        put(out, "version", &self.env.options.version);
        put(out, "server_state", self.status.mode());
        let uptime = core.now().saturating_since(self.status.serving_since()).as_millis();
        if let Some(status) = self.status.in_ensemble() {
            put(out, "peer_state", peer_state(status.state, status.phase));
            put(out, "quorum_size", core.peer().config().ensemble.voters().count());
        }
        if self.status.mode() == "leader" {
            put(out, "leader_uptime", uptime);
            self.put_leader(core, out);
        }
        let stats = &self.metrics.stats;
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
        put(out, "num_alive_connections", self.clients.len());
        put(out, "outstanding_requests", self.outstanding());
        put(out, "znode_count", self.node_count());
        put(out, "watch_count", self.watches.len());
        put(out, "ephemerals_count", self.state.tree().ephemerals_count());
        // ZooKeeper counts the root twice, the second time as `/`.
        let root = "/".len() as u64;
        put(out, "approximate_data_size", self.state.tree().approximate_data_size() + root);
        put(out, "global_sessions", self.state.db().sessions.len());
        put(out, "last_client_response_size", response(stats.response_last.unwrap_or(0)));
        put(out, "min_client_response_size", response(stats.response_min));
        put(out, "max_client_response_size", response(stats.response_max));
        if let Some(descriptors) = &self.env.options.descriptors {
            let (open, max) = descriptors.read();
            put(out, "open_file_descriptor_count", open);
            put(out, "max_file_descriptor_count", max);
        }
        for (name, figure) in &self.env.options.figures {
            put(out, name, figure.read());
        }
        if self.status.in_ensemble().is_some() {
            put_heartbeats(&core.peer().heartbeats(), out);
        }
        self.put_quotas(out);
        self.put_counters(out);
        self.put_summaries(out);
    }

    fn put_leader(&self, core: &Core<'_>, out: &mut String) {
        let (last, min, max) = self.proposal_sizes();
        put(out, "last_proposal_size", last);
        put(out, "min_proposal_size", min);
        put(out, "max_proposal_size", max);
        let synced = |observer| {
            core.peer().learners().filter(|l| l.synced && l.observer == observer).count()
        };
        put(out, "learners", core.peer().learners().count());
        put(out, "synced_followers", synced(false));
        put(out, "synced_observers", synced(true));
        put(out, "pending_syncs", self.role.syncs());
    }

    fn put_quotas(&self, out: &mut String) {
        for (namespace, quota) in self.state.tree().quotas_by_namespace() {
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
        for (namespace, count) in &self.metrics.quota_exceeded {
            put(out, &format!("{namespace}_quota_exceeded_error_per_namespace"), count);
        }
    }

    fn put_counters(&self, out: &mut String) {
        let metrics = &self.metrics;
        for (name, value) in [
            ("bytes_received_count", metrics.bytes_received),
            ("response_bytes", metrics.response_bytes),
            ("watch_bytes", metrics.watch_bytes),
            ("proposal_count", metrics.proposals),
            ("commit_count", metrics.commits),
            ("learner_commit_received_count", metrics.commits_received),
            ("connection_request_count", metrics.handshakes),
            ("connection_revalidate_count", metrics.reattachments),
            ("revalidate_count", metrics.revalidations),
            ("connection_rejected", metrics.refused),
            ("connection_drop_count", metrics.dropped),
            ("sessionless_connections_expired", metrics.sessionless_expired),
            ("stale_sessions_expired", metrics.sessions_expired),
            ("looking_count", metrics.looking),
            ("ensemble_auth_success", metrics.ensemble_auth_success),
            ("ensemble_auth_fail", metrics.ensemble_auth_fail),
            ("ensemble_auth_skip", metrics.ensemble_auth_skip),
            ("digest_mismatches_count", self.state.digest_mismatches()),
            ("zab_held", metrics.held),
            ("zab_resubmitted", metrics.resubmitted),
        ] {
            put(out, name, value);
        }
        for (why, count) in HoldEnd::ALL.iter().zip(metrics.held_closed) {
            put(out, why.metric(), count);
        }
    }

    fn put_summaries(&self, out: &mut String) {
        let metrics = &self.metrics;
        if let Some(fsyncs) = &self.env.options.fsync_times {
            put_summary(out, "fsynctime", &fsyncs.read());
        }
        for (name, summary) in [
            ("election_time", &metrics.election_time),
            ("unavailable_time", &metrics.unavailable_time),
            ("leader_unavailable_time", &metrics.leader_unavailable_time),
            ("node_created_watch_count", &metrics.created_watches),
            ("node_deleted_watch_count", &metrics.deleted_watches),
            ("node_changed_watch_count", &metrics.changed_watches),
            ("node_children_watch_count", &metrics.children_watches),
        ] {
            put_summary(out, name, summary);
        }
        put_histogram(out, "readlatency", &metrics.read_latency);
        put_histogram(out, "updatelatency", &metrics.update_latency);
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
    let _ = writeln!(out, "zk_avg_{name}\t{}", crate::metrics::stats::decimal(ten_thousandths));
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
        // Writing to a string cannot fail.
        let _ = writeln!(out, "zab_{name}\t{value}");
    }
}
