//! Path to node, for all nodes in one table.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::node::{Node, NodeId};

/// A hash table of node numbers. The paths stay in the nodes; the hashes stay here, so that
/// growing touches no node.
///
/// A path may stay here for a while after its node is gone. Its place then is vacant, or is that of a
/// node with another path; or with the same, and then there are two entries for it.
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
    fn hash(&self, path: &[u8]) -> u32 {
        self.hasher.hash_one(path) as u32
    }

    pub(super) fn find(&self, nodes: &[Node], path: &[u8]) -> Option<NodeId> {
        let hash = self.hash(path);
        let is_it = |e: &Entry| {
            let node = &nodes[e.id.index()];
            e.hash == hash && node.path.as_bytes() == path && !node.is_vacant(e.id)
        };
        self.table.find(wide(hash), is_it).map(|e| e.id)
    }

    /// Adds a path that is not there.
    pub(super) fn insert(&mut self, path: &str, id: NodeId) {
        let hash = self.hash(path.as_bytes());
        self.table.insert_unique(wide(hash), Entry { hash, id }, |e| e.wide());
    }

    /// Removes a path. The node's place may be another's already, so that the hash counts, too: of two
    /// entries with both equal, either may go.
    pub(super) fn remove(&mut self, path: &str, id: NodeId) {
        let hash = self.hash(path.as_bytes());
        let is_it = |e: &Entry| e.id == id && e.hash == hash;
        if let Ok(entry) = self.table.find_entry(wide(hash), is_it) {
            entry.remove();
        }
    }
}
