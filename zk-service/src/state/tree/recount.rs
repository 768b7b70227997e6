//! Usages of quotas that are counted while the server goes on.
//!
//! One walk over the places of all nodes counts for all paths that were asked about before it began,
//! however many they are and however they lie in each other. What changes at a place that the walk has
//! passed changes the sums at once; what changes ahead of it is counted when it gets there.

use std::collections::{BTreeMap, BTreeSet};

use super::quota::{QuotaText, quota_stats_path};
use super::{NodeId, Tree};

/// The root has the empty path.
fn parent_of<'p>(path: &&'p str) -> Option<&'p str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// The paths that must be counted, or are being counted.
#[derive(Debug, Default)]
pub(super) struct Recounts {
    /// For the next walk.
    waiting: BTreeSet<Box<str>>,
    walk: Option<Walk>,
}

/// The walk in hand.
#[derive(Debug)]
struct Walk {
    /// The place that comes next.
    next: usize,
    sums: BTreeMap<Box<str>, Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    nodes: i64,
    bytes: i64,
}

impl Sum {
    fn add(&mut self, nodes: i64, bytes: i64) {
        self.nodes = self.nodes.wrapping_add(nodes);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl Recounts {
    /// Whether there is nothing to count.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.walk.is_none()
    }

    /// Has a path counted, from the beginning.
    pub(super) fn add(&mut self, path: &str) {
        self.forget(path);
        self.waiting.insert(path.into());
    }

    /// The usage of a path is known.
    pub(super) fn forget(&mut self, path: &str) {
        self.waiting.remove(path);
        if let Some(walk) = &mut self.walk {
            walk.sums.remove(path);
        }
    }

    /// The node at a place has come, gone or changed, and counts to `path`. Whether that is still being
    /// counted.
    pub(super) fn adjust(&mut self, path: &str, id: NodeId, nodes: i64, bytes: i64) -> bool {
        if let Some(walk) = &mut self.walk
            && let Some(sum) = walk.sums.get_mut(path)
        {
            if id.index() < walk.next {
                sum.add(nodes, bytes);
            }
            return true;
        }
        self.waiting.contains(path)
    }
}

impl Tree {
    /// Goes on counting, with about so many look-ups. Returns what is left of them.
    pub(super) fn go_on_counting(&mut self, mut count: usize) -> usize {
        while count > 0 {
            let Self { recounts, nodes, .. } = self;
            if recounts.walk.is_none() {
                if recounts.waiting.is_empty() {
                    return count;
                }
                let paths = std::mem::take(&mut recounts.waiting);
                let sums = paths.into_iter().map(|path| (path, Sum::default())).collect();
                recounts.walk = Some(Walk { next: 0, sums });
            }
            let Some(walk) = &mut recounts.walk else { return count };
            let Some(node) = nodes.get(walk.next).filter(|_| !walk.sums.is_empty()) else {
                // All places are passed: the sums are usages.
                match walk.sums.pop_first() {
                    Some((path, sum)) => self.set_usage(&path, sum.nodes, sum.bytes),
                    None => self.recounts.walk = None,
                }
                count -= 1;
                continue;
            };
            let id = NodeId::at(walk.next);
            walk.next += 1;
            count -= 1;
            if node.is_vacant(id) {
                continue;
            }
            let bytes = i64::try_from(node.data_len()).unwrap_or(i64::MAX);
            let depth = 1 + walk.sums.len().ilog2() as usize / 4;
            for path in std::iter::successors(Some(&*node.path), parent_of) {
                if let Some(sum) = walk.sums.get_mut(path) {
                    sum.add(1, bytes);
                }
                count = count.saturating_sub(depth);
            }
        }
        0
    }

    /// Writes what is below a path into its usage node.
    pub(super) fn set_usage(&mut self, path: &str, nodes: i64, bytes: i64) {
        if let Some(stats) = self.find(&quota_stats_path(path)) {
            let text = QuotaText::usage(nodes, bytes).to_string();
            self.change_data(stats, Some(text.as_bytes()), |_| {});
        }
    }
}
