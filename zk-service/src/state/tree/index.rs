//! Path to node, for all nodes in one table.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::node::{Node, NodeId};

/// A hash table of node numbers. The paths stay in the nodes; the hashes stay here, so that
/// growing touches no node.
///
/// The hash is seeded per process, since clients choose the paths. Its order is never observed.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    table: HashTable<Entry>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    id: NodeId,
}

impl Entry {
    /// The table takes its buckets from the low bits and its tags from the high ones.
    fn wide(self) -> u64 {
        wide(self.hash)
    }
}

fn wide(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl PathIndex {
    #[expect(clippy::cast_possible_truncation, reason = "the other half is not kept")]
    fn hash(&self, path: &str) -> u32 {
        self.hasher.hash_one(path.as_bytes()) as u32
    }

    pub(super) fn find(&self, nodes: &[Node], path: &str) -> Option<NodeId> {
        let hash = self.hash(path);
        let is_it = |e: &Entry| e.hash == hash && *nodes[e.id.index()].path == *path;
        self.table.find(wide(hash), is_it).map(|e| e.id)
    }

    /// Adds a path that is not there.
    pub(super) fn insert(&mut self, path: &str, id: NodeId) {
        let hash = self.hash(path);
        self.table.insert_unique(wide(hash), Entry { hash, id }, |e| e.wide());
    }

    pub(super) fn remove(&mut self, path: &str, id: NodeId) {
        let hash = self.hash(path);
        if let Ok(entry) = self.table.find_entry(wide(hash), |e| e.id == id) {
            entry.remove();
        }
    }
}
