//! The data tree.
//!
//! Reading is public. Changes come from transactions only, through
//! [`Database::apply`](crate::Database::apply).

pub(in crate::state) mod acl;
mod digest;
mod image;
mod index;
mod node;
mod owners;
mod quota;
mod recount;
mod stat;

pub(crate) use self::digest::NodeDigest;
pub(in crate::state) use self::image::LOCAL_IMAGES_MAX;
pub(in crate::state) use self::node::NodeId;

pub use self::digest::node_digest;
pub use self::node::NodeRef;
pub use self::quota::{QuotaText, quota_limits_path, quota_stats_path};
pub use self::stat::{Owner, Stat, StatPersisted};

use std::collections::btree_set;

use self::acl::{AclCache, AclSlot};
use self::image::Images;
use self::index::PathIndex;
use self::node::Node;
use self::owners::Owners;
use self::quota::Quotas;
use self::recount::Recounts;
use crate::protocol::acl::{Acl, AclList, perms, write_acls};
use zab_proto::wire::jute::Reader;
use zab_proto::{BadSnapshot, Zxid};

/// Node of the ensemble's configuration.
pub const CONFIG_PATH: &str = "/zookeeper/config";
/// Top of the quota nodes.
pub const QUOTA_PATH: &str = "/zookeeper/quota";

/// ZooKeeper's nodes, with everything that is derived from them.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    vacant: Vec<NodeId>,
    /// Nodes that are removed, but are in the index still.
    removed: Vec<Removed>,
    index: PathIndex,
    acls: AclCache,
    owners: Owners,
    quotas: Quotas,
    recounts: Recounts,
    /// Sum of all nodes' digests; `None` if they are off.
    digest: Option<u64>,
    data_size: u64,
    images: Images,
}

impl Tree {
    /// The tree of a new database. Digests are kept if `digests`.
    pub(super) fn new(digests: bool) -> Self {
        let mut tree = Self::empty(digests);
        let open = AclSlot::OPEN;
        let root = tree.insert_root(Some(Box::default()), open, StatPersisted::default());
        let zookeeper = tree.insert(root, "/zookeeper", Some(&[]), open, StatPersisted::default());
        tree.insert(zookeeper, QUOTA_PATH, Some(&[]), open, StatPersisted::default());
        tree.insert_config();
        tree
    }

    /// A tree without even a root, to be loaded.
    pub(super) fn empty(digests: bool) -> Self {
        Self {
            nodes: Vec::new(),
            vacant: Vec::new(),
            removed: Vec::new(),
            index: PathIndex::default(),
            acls: AclCache::new(),
            owners: Owners::default(),
            quotas: Quotas::default(),
            recounts: Recounts::default(),
            digest: digests.then_some(0),
            data_size: 0,
            images: Images::default(),
        }
    }

    /// Adds `/zookeeper/config` as a new tree has it, if `/zookeeper` is there.
    fn insert_config(&mut self) -> Option<NodeId> {
        let parent = self.find("/zookeeper")?;
        let mut list = Vec::new();
        write_acls(&[Acl::world(perms::READ)], &mut list);
        let list = AclList::read(&mut Reader::new(&list)).expect("just written");
        let acl = self.acls.take(list);
        let stat = StatPersisted { aversion: -1, ..StatPersisted::default() };
        Some(self.insert(parent, CONFIG_PATH, Some(&[]), acl, stat))
    }

    /// Overwrites the configuration node, outside of any transaction: it is not part of the digest.
    pub(super) fn set_config(&mut self, text: &[u8], version: Zxid, time: i64) {
        let Some(id) = self.find(CONFIG_PATH).or_else(|| self.insert_config()) else { return };
        self.change_data(id, Some(text), |stat| {
            stat.version = -1;
            stat.mzxid = version;
            stat.mtime = time;
        });
    }

    /// While loading: a node, after its parent. The root has the empty path.
    pub(super) fn load(&mut self, record: &NodeRecord<'_>) -> Result<(), BadSnapshot> {
        if self.index.find(&self.nodes, record.path.as_bytes()).is_some() {
            return Err(BadSnapshot);
        }
        let acl = self.acls.take_key(record.acl_key);
        if record.path.is_empty() {
            self.insert_root(record.data.map(Box::from), acl, record.stat);
            return Ok(());
        }
        let (parent, _) = split_path(record.path).ok_or(BadSnapshot)?;
        if self.nodes.is_empty() {
            return Err(BadSnapshot);
        }
        // As a transaction finds it: no client may create `//a`, but a log may hold it, and then it
        // is a child of the root.
        let parent = self.find(parent).ok_or(BadSnapshot)?;
        self.insert(parent, record.path, record.data, acl, record.stat);
        Ok(())
    }

    /// While loading: an entry of the ACL map.
    pub(super) fn load_acl(&mut self, key: i64, list: AclList<'_>) {
        self.acls.load(key, list);
    }

    /// After loading: derives what snapshots do not say. Fails if there is no root.
    pub(super) fn finish_load(&mut self) -> Result<(), BadSnapshot> {
        if self.nodes.is_empty() {
            return Err(BadSnapshot);
        }
        self.acls.finish_load();
        self.load_quotas();
        Ok(())
    }

    /// The node at a path; `/` and the empty path are the root.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        self.find(path).map(|id| self.view(id))
    }

    /// The node whose path has these bytes: then they are text.
    pub(crate) fn node_of_bytes(&self, path: &[u8]) -> Option<NodeRef<'_>> {
        self.find_bytes(path).map(|id| self.view(id))
    }

    /// Number of nodes, built-in ones included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.vacant.len()
    }

    /// Sum of the lengths of all paths and data, in bytes.
    #[must_use]
    pub fn approximate_data_size(&self) -> u64 {
        self.data_size
    }

    /// Digest of the tree, version 2; `None` if digests are off.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        self.digest
    }

    /// Number of ephemeral nodes.
    #[must_use]
    pub fn ephemerals_count(&self) -> usize {
        self.owners.ephemerals_count()
    }

    /// Sessions that own ephemeral nodes, in order of their ids as signed numbers.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = i64> {
        self.owners.sessions()
    }

    /// The ephemeral nodes of a session.
    pub fn ephemerals_of(&self, session: i64) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.ephemerals_of(session).map(|id| self.view(id))
    }

    /// The ephemeral nodes of a session behind a [place](NodeRef::place) in their order.
    pub(crate) fn ephemerals_behind(
        &self,
        session: i64,
        place: Option<u32>,
    ) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.ephemerals_behind(session, place.map(NodeId)).map(|id| self.view(id))
    }

    /// The node at a [place](NodeRef::place), if there is one.
    pub(crate) fn at_place(&self, place: u32) -> Option<NodeRef<'_>> {
        let id = NodeId(place);
        let node = self.nodes.get(id.index())?;
        (!node.is_vacant(id)).then(|| self.view(id))
    }

    /// How many ephemeral nodes a session has.
    #[must_use]
    pub fn ephemerals_count_of(&self, session: i64) -> usize {
        self.owners.ephemerals_count_of(session)
    }

    /// The containers.
    pub fn containers(&self) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.containers().map(|id| self.view(id))
    }

    /// The nodes with a time to live.
    pub fn ttls(&self) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.ttls().map(|id| self.view(id))
    }

    /// The containers behind a [place](NodeRef::place) in their order.
    pub(crate) fn containers_behind(
        &self,
        place: Option<u32>,
    ) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.containers_behind(place.map(NodeId)).map(|id| self.view(id))
    }

    /// The nodes with a time to live behind a place in their order.
    pub(crate) fn ttls_behind(&self, place: Option<u32>) -> impl Iterator<Item = NodeRef<'_>> {
        self.owners.ttls_behind(place.map(NodeId)).map(|id| self.view(id))
    }

    /// Keys of ACLs that a fuzzy snapshot lacked and no replayed transaction has supplied yet.
    /// Nobody has permissions on their nodes. If any are left when the server starts serving, the log
    /// says so.
    pub fn missing_acls(&self) -> impl Iterator<Item = i64> {
        self.acls.placeholders()
    }

    pub(super) fn view(&self, id: NodeId) -> NodeRef<'_> {
        NodeRef { tree: self, id }
    }

    pub(in crate::state) fn find(&self, path: &str) -> Option<NodeId> {
        self.find_bytes(path.as_bytes())
    }

    fn find_bytes(&self, path: &[u8]) -> Option<NodeId> {
        if path == b"/" { Some(NodeId::ROOT) } else { self.index.find(&self.nodes, path) }
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The parent of a node other than the root, if there is a node at `id`: a deletion above may
    /// have taken it.
    pub(super) fn parent_of(&self, id: NodeId) -> Option<NodeId> {
        self.nodes[id.index()].parent.some()
    }

    /// Takes one use of a list, for a node to be inserted.
    pub(super) fn take_acl(&mut self, list: AclList<'_>) -> AclSlot {
        self.acls.take(list)
    }

    /// Removes the ephemerals of a session from the index of owners and returns them.
    pub(super) fn take_ephemerals(&mut self, session: i64) -> btree_set::IntoIter<NodeId> {
        self.owners.take_ephemerals(session)
    }

    fn insert_root(
        &mut self,
        data: Option<Box<[u8]>>,
        acl: AclSlot,
        stat: StatPersisted,
    ) -> NodeId {
        let mut root = Node::new(Box::default(), data, acl);
        root.stat = stat;
        self.data_size += root.size();
        self.nodes.push(root);
        self.index.insert("", NodeId::ROOT);
        self.count_content(NodeId::ROOT);
        NodeId::ROOT
    }

    /// Adds a node whose path is not taken, with one use of its ACL taken already.
    pub(super) fn insert(
        &mut self,
        parent: NodeId,
        path: &str,
        data: Option<&[u8]>,
        acl: AclSlot,
        stat: StatPersisted,
    ) -> NodeId {
        let mut node = Node::new(path.into(), data.map(Box::from), acl);
        node.stat = stat;
        node.parent = parent;
        self.data_size += node.size();
        let id = match self.vacant.pop() {
            Some(id) => {
                self.nodes[id.index()] = node;
                id
            }
            None => {
                let id = u32::try_from(self.nodes.len()).ok().map(NodeId).and_then(NodeId::some);
                self.nodes.push(node);
                id.expect("fewer than 2^32 - 1 nodes")
            }
        };
        self.images.born(id);
        self.index.insert(path, id);
        self.link(parent, id);
        self.owners.insert(stat.owner(), id);
        self.count_content(id);
        id
    }

    /// Removes a node other than the root, and what is below it. Returns its path.
    ///
    /// Nothing is below it when its deletion was prepared. Only a fuzzy snapshot can hold children,
    /// made after this deletion and another creation; those transactions follow in the log.
    pub(super) fn remove(&mut self, id: NodeId) -> Box<str> {
        loop {
            let leaf = self.first_leaf(id);
            let node = self.remove_leaf(leaf);
            self.index.remove(&node.path, leaf);
            if leaf == id {
                return node.path;
            }
        }
    }

    /// Like [`remove`](Self::remove), for one of very many nodes that go at once: the tree answers as
    /// if they had never been, and what takes longest is left for [`sweep`](Self::sweep).
    pub(super) fn remove_and_leave(&mut self, id: NodeId) {
        loop {
            let leaf = self.first_leaf(id);
            let node = self.remove_leaf(leaf);
            self.removed.push(Removed { id: leaf, path: node.path, _data: node.data });
            if leaf == id {
                return;
            }
        }
    }

    /// Does what was left to be done later, as much as clearing away so many nodes that are removed: their
    /// places in the index, and their memory.
    pub(super) fn sweep(&mut self, count: usize) {
        let count = self.go_on_counting(count);
        let rest = self.removed.len().saturating_sub(count);
        for node in self.removed.drain(rest..) {
            self.index.remove(&node.path, node.id);
        }
        if rest == 0 {
            self.removed = Vec::new();
        }
    }

    /// Whether there is something to [`sweep`](Self::sweep).
    pub(crate) fn is_littered(&self) -> bool {
        !self.removed.is_empty() || !self.recounts.is_empty()
    }

    fn first_leaf(&self, id: NodeId) -> NodeId {
        debug_assert_ne!(id, NodeId::ROOT);
        let mut leaf = id;
        while let Some(child) = self.get(leaf).first_child.some() {
            leaf = child;
        }
        leaf
    }

    /// Removes a leaf from everything but the index, in which a place where no node is counts nothing.
    fn remove_leaf(&mut self, id: NodeId) -> Node {
        self.preserve(id);
        self.unlink(id);
        let node = std::mem::replace(&mut self.nodes[id.index()], Node::vacant());
        self.owners.remove(node.stat.owner(), id);
        self.acls.release(node.acl);
        self.data_size -= node.size();
        self.digest = self.digest.map(|digest| digest.wrapping_sub(node.digest.get()));
        self.vacant.push(id);
        node
    }

    /// Changes a node's numbers.
    pub(super) fn change_stat(&mut self, id: NodeId, change: impl FnOnce(&mut StatPersisted)) {
        self.preserve(id);
        self.change_numbers(id, change);
    }

    /// Changes a node's data and numbers. Returns the old length.
    pub(super) fn change_data(
        &mut self,
        id: NodeId,
        data: Option<&[u8]>,
        change: impl FnOnce(&mut StatPersisted),
    ) -> usize {
        self.preserve(id);
        let node = &mut self.nodes[id.index()];
        let old_len = node.data_len();
        self.data_size -= node.size();
        match (&mut node.data, data) {
            (Some(old), Some(new)) if old.len() == new.len() => old.copy_from_slice(new),
            (slot, new) => *slot = new.map(Box::from),
        }
        self.data_size += node.size();
        change(&mut node.stat);
        self.count_content(id);
        old_len
    }

    /// Gives a node another ACL. The old one is released first: a list that only this node had
    /// comes back under a new key, as in ZooKeeper.
    pub(super) fn change_acl(
        &mut self,
        id: NodeId,
        list: AclList<'_>,
        change: impl FnOnce(&mut StatPersisted),
    ) {
        self.preserve(id);
        self.acls.release(self.get(id).acl);
        self.nodes[id.index()].acl = self.acls.take(list);
        self.change_numbers(id, change);
    }

    /// Gives a node another ACL, of which one use is taken already.
    pub(super) fn adopt_acl(&mut self, id: NodeId, acl: AclSlot) {
        self.preserve(id);
        let old = std::mem::replace(&mut self.nodes[id.index()].acl, acl);
        self.acls.release(old);
    }

    /// Before a node is changed or removed: its present state goes to the images that lack it.
    fn preserve(&mut self, id: NodeId) {
        if !self.images.is_empty() {
            self.images.preserve(&self.nodes, &self.acls, id);
        }
    }

    /// Changes the number of nodes below `id` and below all that are above it.
    fn count_below(&mut self, mut id: NodeId, change: impl Fn(&mut u32)) {
        loop {
            let node = &mut self.nodes[id.index()];
            change(&mut node.descendants);
            match node.parent.some() {
                Some(parent) => id = parent,
                None => return,
            }
        }
    }

    fn link(&mut self, parent: NodeId, id: NodeId) {
        self.count_below(parent, |count| *count += 1);
        self.nodes[parent.index()].children += 1;
        let Some(first) = self.get(parent).first_child.some() else {
            self.nodes[parent.index()].first_child = id;
            self.nodes[id.index()].prev_sibling = id;
            return;
        };
        let last = self.get(first).prev_sibling;
        self.nodes[last.index()].next_sibling = id;
        self.nodes[id.index()].prev_sibling = last;
        self.nodes[first.index()].prev_sibling = id;
    }

    fn unlink(&mut self, id: NodeId) {
        let &Node { parent, next_sibling: next, prev_sibling: prev, .. } = self.get(id);
        self.count_below(parent, |count| *count -= 1);
        let parent = &mut self.nodes[parent.index()];
        parent.children -= 1;
        let first = parent.first_child;
        if first == id {
            parent.first_child = next;
        } else {
            self.nodes[prev.index()].next_sibling = next;
        }
        // The successor, or for the last child the first one, points back to the predecessor.
        let back = next.some().unwrap_or(first);
        self.nodes[back.index()].prev_sibling = prev;
    }

    fn change_numbers(&mut self, id: NodeId, change: impl FnOnce(&mut StatPersisted)) {
        let node = &mut self.nodes[id.index()];
        let before = node.stat;
        change(&mut node.stat);
        if self.digest.is_some() {
            let digest = node.digest.changed(&node.path, &before, &node.stat);
            self.count(id, digest);
        }
    }

    /// Path or data of a node are new, and its numbers may be.
    fn count_content(&mut self, id: NodeId) {
        if self.digest.is_some() {
            let node = self.get(id);
            let digest = NodeDigest::new(&node.path, node.data.as_deref(), &node.stat);
            self.count(id, digest);
        }
    }

    /// The node counts `digest` now, in place of what it counted.
    fn count(&mut self, id: NodeId, digest: NodeDigest) {
        let before = std::mem::replace(&mut self.nodes[id.index()].digest, digest);
        self.digest =
            self.digest.map(|all| all.wrapping_sub(before.get()).wrapping_add(digest.get()));
    }
}

/// What is left of a node that is removed. Its place in the slab may be another's already.
#[derive(Debug)]
struct Removed {
    id: NodeId,
    path: Box<str>,
    _data: Option<Box<[u8]>>,
}

/// A node as a snapshot has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRecord<'a> {
    pub(super) path: &'a str,
    pub(super) data: Option<&'a [u8]>,
    pub(super) acl_key: i64,
    pub(super) stat: StatPersisted,
}

/// A path split at its last `/`: the parent's path (empty for the root) and the name.
#[must_use]
pub fn split_path(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/')
}
