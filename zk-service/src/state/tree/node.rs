//! A node as it is kept in memory, and as others see it.

use std::sync::Arc;

use crate::auth::rules::Rules;
use crate::protocol::acl::Acl;
use crate::state::tree::acl::AclSlot;
use crate::state::tree::{NodeDigest, Owner, Stat, StatPersisted, Tree};

/// Place of a node in the slab.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::state) struct NodeId(pub(super) u32);

impl NodeId {
    pub(in crate::state) const ROOT: Self = Self(0);
    pub(super) const NONE: Self = Self(u32::MAX);

    /// The node at a place in the slab that is taken.
    pub(super) fn at(index: usize) -> Self {
        u32::try_from(index).map_or(Self::NONE, Self)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The node, unless it is [`NONE`](Self::NONE).
    pub(super) fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// A node: 128 bytes beside its path and data, and nine in the index.
///
/// Siblings are a ring through `prev_sibling` (the first child's is the last child) and a list
/// through `next_sibling`, oldest first, so that children cost no memory of their own.
#[derive(Debug)]
pub(in crate::state) struct Node {
    pub(in crate::state) stat: StatPersisted,
    /// The whole path; empty for the root.
    pub(super) path: Box<str>,
    pub(super) data: Option<Box<[u8]>>,
    pub(super) acl: AclSlot,
    /// What the node counts in the tree's digest; nothing if digests are off.
    pub(super) digest: NodeDigest,
    pub(super) children: u32,
    /// Nodes below this one.
    pub(super) descendants: u32,
    pub(super) parent: NodeId,
    pub(super) first_child: NodeId,
    pub(super) next_sibling: NodeId,
    pub(super) prev_sibling: NodeId,
}

const _: () = assert!(size_of::<Node>() == 128, "as the documentation says");

impl Node {
    pub(super) fn new(path: Box<str>, data: Option<Box<[u8]>>, acl: AclSlot) -> Self {
        Self {
            stat: StatPersisted::default(),
            path,
            data,
            acl,
            digest: NodeDigest::NONE,
            children: 0,
            descendants: 0,
            parent: NodeId::NONE,
            first_child: NodeId::NONE,
            next_sibling: NodeId::NONE,
            prev_sibling: NodeId::NONE,
        }
    }

    /// What stands in the slab where no node is.
    pub(super) fn vacant() -> Self {
        Self::new(Box::default(), None, AclSlot::OPEN)
    }

    /// Whether this is no node, at the place `id`.
    pub(super) fn is_vacant(&self, id: NodeId) -> bool {
        self.parent == NodeId::NONE && id != NodeId::ROOT
    }

    pub(super) fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    /// Contribution to [`Tree::approximate_data_size`].
    pub(super) fn size(&self) -> u64 {
        (self.path.len() + self.data_len()) as u64
    }
}

/// A node of a [`Tree`], to be read.
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'a> {
    pub(super) tree: &'a Tree,
    pub(super) id: NodeId,
}

impl<'a> NodeRef<'a> {
    fn node(self) -> &'a Node {
        &self.tree.nodes[self.id.index()]
    }

    fn at(self, id: NodeId) -> Self {
        Self { tree: self.tree, id }
    }

    /// A number that no other node of the tree has.
    pub(crate) fn place(self) -> u32 {
        self.id.0
    }

    /// Its path; `/` for the root.
    #[must_use]
    pub fn path(self) -> &'a str {
        if self.id == NodeId::ROOT { "/" } else { &self.node().path }
    }

    /// The last component of its path; empty for the root.
    #[must_use]
    pub fn name(self) -> &'a str {
        let path = &self.node().path;
        path.rfind('/').map_or("", |slash| &path[slash + 1..])
    }

    /// Its data; `None` is null, which is not the same as empty.
    #[must_use]
    pub fn data(self) -> Option<&'a [u8]> {
        self.node().data.as_deref()
    }

    /// Its numbers as clients see them.
    #[must_use]
    pub fn stat(self) -> Stat {
        let node = self.node();
        node.stat.to_client(node.data_len(), node.children)
    }

    /// Its numbers as stored.
    #[must_use]
    pub fn persisted(self) -> &'a StatPersisted {
        &self.node().stat
    }

    /// Who owns it.
    #[must_use]
    pub fn owner(self) -> Owner {
        self.node().stat.owner()
    }

    /// Its ACL.
    #[must_use]
    pub fn acl(self) -> &'a [Acl] {
        self.rules().acls()
    }

    /// Its ACL, to be asked.
    pub(crate) fn rules(self) -> &'a Arc<Rules> {
        self.tree.acls.rules(self.node().acl)
    }

    /// The key of its ACL, which is local to this server; -1: open to everyone.
    #[must_use]
    pub fn acl_key(self) -> i64 {
        self.tree.acls.key(self.node().acl)
    }

    /// Number of children.
    #[must_use]
    pub fn child_count(self) -> u32 {
        self.node().children
    }

    /// Names of its children, oldest first.
    pub fn children(self) -> impl Iterator<Item = &'a str> {
        let skip = self.node().path.len() + 1;
        self.child_nodes().map(move |child| &child.node().path[skip..])
    }

    /// The children that are younger than `last`, one of them or one that was, with their names.
    pub(in crate::state) fn children_after(
        self,
        last: Option<NodeId>,
    ) -> impl Iterator<Item = (NodeId, &'a str)> {
        let skip = self.node().path.len() + 1;
        let next = match last {
            Some(last) => self.at(last).node().next_sibling,
            None => self.node().first_child,
        };
        std::iter::successors(next.some(), move |&id| self.at(id).node().next_sibling.some())
            .map(move |id| (id, &self.at(id).node().path[skip..]))
    }

    /// The same by places.
    pub(crate) fn children_behind(
        self,
        place: Option<u32>,
    ) -> impl Iterator<Item = (u32, &'a str)> {
        self.children_after(place.map(NodeId)).map(|(id, name)| (id.0, name))
    }

    /// Its children, oldest first.
    pub fn child_nodes(self) -> impl Iterator<Item = NodeRef<'a>> {
        std::iter::successors(self.node().first_child.some(), move |&id| {
            self.at(id).node().next_sibling.some()
        })
        .map(move |id| self.at(id))
    }

    /// The node and everything below it, parents before children.
    pub fn subtree(self) -> impl Iterator<Item = NodeRef<'a>> {
        std::iter::successors(Some(self.id), move |&id| self.next_in_subtree(id))
            .map(move |id| self.at(id))
    }

    fn next_in_subtree(self, mut id: NodeId) -> Option<NodeId> {
        if let Some(child) = self.at(id).node().first_child.some() {
            return Some(child);
        }
        while id != self.id {
            let node = self.at(id).node();
            if let Some(sibling) = node.next_sibling.some() {
                return Some(sibling);
            }
            id = node.parent;
        }
        None
    }

    /// Its parent; the root has none.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        self.node().parent.some().map(|id| self.at(id))
    }

    /// Number of nodes below it.
    #[must_use]
    pub fn descendant_count(self) -> u32 {
        self.node().descendants
    }

    /// What it counts in the tree's digest; 0 if digests are off.
    #[must_use]
    pub fn digest(self) -> u64 {
        self.node().digest.get()
    }

    /// The same, to be followed through changes.
    pub(crate) fn node_digest(self) -> NodeDigest {
        self.node().digest
    }
}
