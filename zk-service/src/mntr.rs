//! The metrics that `mntr` prints, under ZooKeeper's names.
//!
//! Stages of ZooKeeper's pipeline that do not exist here are there all the same, with zeros:
//! dashboards ask for them.

use std::fmt::{Display, Write};

use zab_proto::{Core, Phase, ServerState};

use crate::service::Service;

/// Counters (`c`), summaries (`s`) and summaries with percentiles (`p`) of ZooKeeper 3.9, without
/// those that are named after znodes and servers.
const NAMES: &str = include_str!("mntr.txt");

impl Service {
    /// What `mntr` says.
    pub(crate) fn mntr(&self, core: &Core<'_>, out: &mut String) {
        put(out, "version", &self.options.version);
        put(out, "server_state", self.mode());
        let uptime = core.now().saturating_since(self.serving_since).as_millis();
        if let Some(status) = self.status.filter(|_| !self.standalone) {
            put(out, "peer_state", peer_state(status.state, status.phase));
            put(out, "quorum_size", core.peer().config().ensemble.voters().count());
        }
        if self.mode() == "leader" {
            put(out, "leader_uptime", uptime);
            self.put_leader(core, out);
        }
        let stats = &self.stats;
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
        put(out, "ephemerals_count", self.db.tree.ephemerals_count());
        put(out, "approximate_data_size", self.db.tree.approximate_data_size());
        put(out, "global_sessions", self.db.sessions.len());
        put(out, "last_client_response_size", response(stats.response_last.unwrap_or(0)));
        put(out, "min_client_response_size", response(stats.response_min));
        put(out, "max_client_response_size", response(stats.response_max));
        put(out, "connection_drop_probability", "0.0");
        for name in [
            "local_sessions",
            "auth_failed_count",
            "non_mtls_local_conn_count",
            "non_mtls_remote_conn_count",
            "outstanding_tls_handshake",
        ] {
            put(out, name, 0);
        }
        put_counters(
            out,
            &[
                ("bytes_received_count", stats.bytes_received),
                ("commit_count", stats.commits),
                ("proposal_count", stats.proposals),
                ("connection_request_count", stats.connections),
                ("connection_rejected", stats.refused),
                ("connection_drop_count", stats.dropped),
                ("revalidate_count", stats.revalidations),
                ("sessionless_connections_expired", stats.sessionless_expired),
                ("digest_mismatches_count", self.digest_mismatches),
            ],
        );
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
        put(out, "synced_non_voting_followers", 0);
        put(out, "pending_syncs", self.own_syncs.len());
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

/// Appends one metric.
fn put(out: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(out, "zk_{name}\t{value}");
}

/// Appends all counters and summaries; `known` are the counters that are counted.
fn put_counters(out: &mut String, known: &[(&str, u64)]) {
    for line in NAMES.lines() {
        let Some((kind, name)) = line.split_once(' ') else { continue };
        if kind == "c" {
            let value = known.iter().find(|(known, _)| *known == name).map_or(0, |(_, v)| *v);
            put(out, name, value);
            continue;
        }
        let _ = writeln!(out, "zk_avg_{name}\t0.0");
        let percentiles: &[&str] = if kind == "p" { &["p50", "p95", "p99", "p999"] } else { &[] };
        for prefix in ["min", "max", "cnt", "sum"].iter().chain(percentiles) {
            let _ = writeln!(out, "zk_{prefix}_{name}\t0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_counters_are_in_the_list() {
        let mut out = String::new();
        put_counters(&mut out, &[("commit_count", 7)]);
        assert!(out.contains("zk_commit_count\t7\n"));
        assert!(out.contains("zk_p999_readlatency\t0\n"));
        assert!(out.contains("zk_avg_fsynctime\t0.0\n"));
        assert!(out.lines().count() > 450);
    }
}
