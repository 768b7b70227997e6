//! Quotas: how many nodes and bytes there are below a path.
//!
//! The limits and the usage of `/a` are ordinary nodes, `/zookeeper/quota/a/zookeeper_limits` and
//! `/zookeeper/quota/a/zookeeper_stats`. Each server keeps the usage up to date by itself: without
//! a transaction, a change of numbers, an event or a trace in the digest.

use std::collections::BTreeMap;
use std::fmt;

use hashbrown::HashSet;

use super::{NodeId, QUOTA_PATH, Tree};
use crate::metrics::namespaces::namespace;

const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// A usage is counted at once if fewer nodes are below its path; others are counted in turns.
const COUNTED_AT_ONCE_MAX: u32 = 100;

/// The limited paths.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    paths: HashSet<Box<str>>,
}

/// Path of the node that holds the limits of `path`.
#[must_use]
pub fn quota_limits_path(path: &str) -> String {
    format!("{QUOTA_PATH}{path}/{LIMITS}")
}

/// Path of the node that holds the usage of `path`.
#[must_use]
pub fn quota_stats_path(path: &str) -> String {
    format!("{QUOTA_PATH}{path}/{STATS}")
}

/// What a limits or usage node says; -1 is "not given".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaText {
    /// Nodes: the usage, or the limit that is only warned of.
    pub count: i64,
    /// Bytes of data: the usage, or the limit that is only warned of.
    pub bytes: i64,
    /// Most nodes allowed.
    pub count_hard_limit: i64,
    /// Most bytes allowed.
    pub byte_hard_limit: i64,
}

impl QuotaText {
    /// Nothing given.
    pub const NONE: Self = Self { count: -1, bytes: -1, count_hard_limit: -1, byte_hard_limit: -1 };

    /// A usage.
    #[must_use]
    pub fn usage(count: i64, bytes: i64) -> Self {
        Self { count, bytes, ..Self::NONE }
    }

    /// Parses the data of a limits or usage node: parts separated by runs of `,` and `;`, each a
    /// key and a value separated by `=`. `None` for what is no such text. Keys that are not known
    /// are ignored.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let mut parsed = Self::NONE;
        let text = str::from_utf8(data).ok()?;
        for part in text.split([',', ';']).filter(|part| !part.is_empty()) {
            let mut fields = part.split('=');
            let (key, value) = (fields.next()?, fields.next()?);
            let value = if value.is_empty() { -1 } else { value.parse().ok()? };
            match key {
                "count" => parsed.count = value,
                "bytes" => parsed.bytes = value,
                "countHardLimit" => parsed.count_hard_limit = value,
                "byteHardLimit" => parsed.byte_hard_limit = value,
                _ => {}
            }
        }
        Some(parsed)
    }
}

impl fmt::Display for QuotaText {
    /// The text that [`parse`](Self::parse) reads, in ZooKeeper's order of keys. The odd `=` keeps
    /// old readers from the keys they do not know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count, self.bytes)?;
        let hard =
            [("byteHardLimit", self.byte_hard_limit), ("countHardLimit", self.count_hard_limit)];
        let mut given = hard.into_iter().filter(|&(_, value)| value != -1);
        let Some((key, value)) = given.next() else { return Ok(()) };
        write!(f, "=;{key}={value}")?;
        given.try_for_each(|(key, value)| write!(f, ";{key}={value}"))
    }
}

/// The quotas below one child of the root, together. -1 where none is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NamespaceQuota {
    pub(crate) count_limit: i64,
    pub(crate) bytes_limit: i64,
    pub(crate) count_usage: i64,
    pub(crate) bytes_usage: i64,
}

impl Tree {
    /// Limits and usage of all quotas, summed up by the first part of their path. A hard limit goes
    /// before one that is only warned of.
    pub(crate) fn quotas_by_namespace(&self) -> BTreeMap<&str, NamespaceQuota> {
        let mut sums = BTreeMap::new();
        let add = |sum: &mut i64, value: i64| {
            if value > -1 {
                *sum = (*sum).max(0).saturating_add(value);
            }
        };
        let read = |path: String| self.node(&path)?.data().and_then(QuotaText::parse);
        for path in &self.quotas.paths {
            let none = NamespaceQuota {
                count_limit: -1,
                bytes_limit: -1,
                count_usage: -1,
                bytes_usage: -1,
            };
            let sum = sums.entry(namespace(path)).or_insert(none);
            let limit = |hard: i64, soft: i64| if hard > -1 { hard } else { soft };
            if let Some(limits) = read(quota_limits_path(path)) {
                add(&mut sum.count_limit, limit(limits.count_hard_limit, limits.count));
                add(&mut sum.bytes_limit, limit(limits.byte_hard_limit, limits.bytes));
            }
            if let Some(usage) = read(quota_stats_path(path)) {
                add(&mut sum.count_usage, usage.count);
                add(&mut sum.bytes_usage, usage.bytes);
            }
        }
        sums
    }

    /// The deepest path with a quota that is `path` or above it.
    #[must_use]
    pub fn quota_path<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.quotas.paths.is_empty() {
            return None;
        }
        let upwards = |path: &&'p str| path.rsplit_once('/').map(|(parent, _)| parent);
        std::iter::successors(Some(path), upwards).find(|&path| self.quotas.paths.contains(path))
    }

    /// Whether `nodes` and `bytes` more at `path` keep to the hard limits of its quota, going by the
    /// usage at present. A limit that is only to be warned of is warned of.
    pub(crate) fn quota_allows(&self, path: &str, nodes: i64, bytes: i64) -> bool {
        let Some(limited) = self.quota_path(path) else { return true };
        let read = |path: String| self.node(&path)?.data().and_then(QuotaText::parse);
        let Some(usage) = read(quota_stats_path(limited)) else { return true };
        let Some(limits) = read(quota_limits_path(limited)) else { return true };
        let within = |what, usage: i64, more: i64, hard: i64, soft: i64| {
            let limit = if hard > -1 { hard } else { soft };
            let exceeded = more != 0 && limit > -1 && usage.saturating_add(more) > limit;
            if exceeded {
                log::debug!("Quota exceeded: {limited} [{what} {usage} + {more}, limit {limit}]");
            }
            !exceeded || hard <= -1
        };
        within("count", usage.count, nodes, limits.count_hard_limit, limits.count)
            && within("bytes", usage.bytes, bytes, limits.byte_hard_limit, limits.bytes)
    }

    /// After the creation of a node.
    pub(in crate::state) fn quota_created(&mut self, id: NodeId) {
        let node = self.get(id);
        if let Some((limited, name)) = limited_path(&node.path) {
            // The quota of the root itself cannot exist.
            if name == LIMITS && !limited.is_empty() {
                let limited = limited.into();
                self.quotas.paths.insert(limited);
            } else if name == STATS {
                let limited = String::from(limited);
                let top = self.node(&limited);
                if top.is_some_and(|top| top.descendant_count() >= COUNTED_AT_ONCE_MAX) {
                    self.recounts.add(&limited);
                } else {
                    self.recount(&limited);
                }
            }
        }
        if !self.quotas.paths.is_empty() {
            let node = self.get(id);
            let (path, bytes) = (node.path.clone(), node.data_len());
            self.adjust_usage(id, &path, 1, as_i64(bytes));
        }
    }

    /// Whether any node has a quota.
    pub(in crate::state) fn has_quotas(&self) -> bool {
        !self.quotas.paths.is_empty()
    }

    /// After the deletion of the node at `path` with `data_len` bytes, which was `id`.
    pub(in crate::state) fn quota_deleted(&mut self, id: NodeId, path: &str, data_len: usize) {
        if self.quotas.paths.is_empty() {
            return;
        }
        if let Some((limited, LIMITS)) = limited_path(path) {
            self.quotas.paths.remove(limited);
        }
        self.adjust_usage(id, path, -1, -as_i64(data_len));
    }

    /// After a change of the data of a node.
    pub(in crate::state) fn quota_changed(
        &mut self,
        id: NodeId,
        path: &str,
        old_len: usize,
        new_len: usize,
    ) {
        if !self.quotas.paths.is_empty() && old_len != new_len {
            self.adjust_usage(id, path, 0, as_i64(new_len) - as_i64(old_len));
        }
    }

    /// After loading: finds the quotas and counts all usages again.
    pub(super) fn load_quotas(&mut self) {
        let Some(top) = self.node(QUOTA_PATH) else { return };
        let limits = top.subtree().filter(|node| node.child_count() == 0 && node.name() == LIMITS);
        let paths = limits.filter_map(|node| limited_path(node.path()));
        let paths: Vec<String> = paths.map(|(limited, _)| limited.into()).collect();
        for path in paths.into_iter().filter(|path| !path.is_empty()) {
            self.recounts.add(&path);
            self.quotas.paths.insert(path.into());
        }
        self.go_on_counting(usize::MAX);
    }

    /// Counts the subtree of `path`, which is small, into its usage node.
    fn recount(&mut self, path: &str) {
        self.recounts.forget(path);
        let (mut count, mut bytes) = (0, 0);
        if let Some(top) = self.node(path) {
            for node in top.subtree() {
                count += 1;
                bytes += as_i64(node.data().unwrap_or_default().len());
            }
        }
        self.set_usage(path, count, bytes);
    }

    /// Adds to the usage of the quota that `path` falls under, if any.
    fn adjust_usage(&mut self, id: NodeId, path: &str, count: i64, bytes: i64) {
        let Some(limited) = self.quota_path(path) else { return };
        if self.recounts.adjust(limited, id, count, bytes) {
            return;
        }
        let Some(stats) = self.find(&quota_stats_path(limited)) else { return };
        // What clients have written there may be anything.
        let data = self.get(stats).data.as_deref().unwrap_or_default();
        let mut usage = QuotaText::parse(data).unwrap_or(QuotaText::NONE);
        usage.count = usage.count.wrapping_add(count);
        usage.bytes = usage.bytes.wrapping_add(bytes);
        let text = usage.to_string();
        self.change_data(stats, Some(text.as_bytes()), |_| {});
    }
}

/// Of the path of a quota node: the limited path and the node's name.
fn limited_path(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    Some((parent.strip_prefix(QUOTA_PATH)?, name))
}

fn as_i64(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let text = "count=3,bytes=-1=;byteHardLimit=40;countHardLimit=6";
        let parsed = QuotaText::parse(text.as_bytes()).unwrap();
        assert_eq!(
            parsed,
            QuotaText { count: 3, bytes: -1, count_hard_limit: 6, byte_hard_limit: 40 }
        );
        assert_eq!(parsed.to_string(), text);
        assert_eq!(QuotaText::usage(1, 2).to_string(), "count=1,bytes=2");
        assert_eq!(QuotaText::parse(b""), Some(QuotaText::NONE));
        assert_eq!(QuotaText::parse(b"count=,;;x=y=z"), None);
        assert_eq!(
            QuotaText::parse(b"count=;,bytes=7=z").map(|q| (q.count, q.bytes)),
            Some((-1, 7))
        );
        assert_eq!(QuotaText::parse(b"count"), None);
        assert_eq!(QuotaText::parse(b"\xff"), None);
    }
}
