//! The metrics that `mntr` prints, under ZooKeeper's names.
//!
//! Stages of ZooKeeper's pipeline that do not exist here are there all the same, with zeros:
//! dashboards ask for them.

use std::fmt::{Display, Write};

/// Counters (`c`), summaries (`s`) and summaries with percentiles (`p`) of ZooKeeper 3.9, without
/// those that are named after znodes and servers.
const NAMES: &str = include_str!("mntr.txt");

/// Appends one metric.
pub(crate) fn put(out: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(out, "zk_{name}\t{value}");
}

/// Appends all counters and summaries; `known` are the counters that are counted.
pub(crate) fn put_counters(out: &mut String, known: &[(&str, u64)]) {
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
