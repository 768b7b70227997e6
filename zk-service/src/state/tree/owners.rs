//! Nodes by who owns them. The sets are ordered, so that what is made of them is the same in
//! every run.

use std::collections::{BTreeMap, BTreeSet, btree_set};
use std::ops::Bound;

use super::Owner;
use super::node::NodeId;

#[derive(Debug, Default)]
pub(super) struct Owners {
    ephemerals: BTreeMap<i64, BTreeSet<NodeId>>,
    ephemerals_count: usize,
    containers: BTreeSet<NodeId>,
    ttls: BTreeSet<NodeId>,
}

impl Owners {
    pub(super) fn insert(&mut self, owner: Owner, id: NodeId) {
        match owner {
            Owner::Persistent => {}
            Owner::Session(session) => {
                self.ephemerals_count += 1;
                self.ephemerals.entry(session).or_default().insert(id);
            }
            Owner::Container => {
                self.containers.insert(id);
            }
            Owner::Ttl(_) => {
                self.ttls.insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, owner: Owner, id: NodeId) {
        match owner {
            Owner::Persistent => {}
            Owner::Session(session) => {
                let Some(nodes) = self.ephemerals.get_mut(&session) else { return };
                self.ephemerals_count -= usize::from(nodes.remove(&id));
                if nodes.is_empty() {
                    self.ephemerals.remove(&session);
                }
            }
            Owner::Container => {
                self.containers.remove(&id);
            }
            Owner::Ttl(_) => {
                self.ttls.remove(&id);
            }
        }
    }

    pub(super) fn take_ephemerals(&mut self, session: i64) -> btree_set::IntoIter<NodeId> {
        let nodes = self.ephemerals.remove(&session).unwrap_or_default();
        self.ephemerals_count -= nodes.len();
        nodes.into_iter()
    }

    pub(super) fn ephemerals_count(&self) -> usize {
        self.ephemerals_count
    }

    pub(super) fn ephemerals_count_of(&self, session: i64) -> usize {
        self.ephemerals.get(&session).map_or(0, BTreeSet::len)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = i64> {
        self.ephemerals.keys().copied()
    }

    pub(super) fn ephemerals_of(&self, session: i64) -> impl Iterator<Item = NodeId> {
        self.ephemerals.get(&session).into_iter().flatten().copied()
    }

    pub(super) fn ephemerals_behind(
        &self,
        session: i64,
        id: Option<NodeId>,
    ) -> impl Iterator<Item = NodeId> {
        let all = self.ephemerals.get(&session);
        all.into_iter().flat_map(move |all| all.range(behind(id))).copied()
    }

    pub(super) fn containers_behind(&self, id: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        self.containers.range(behind(id)).copied()
    }

    pub(super) fn ttls_behind(&self, id: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        self.ttls.range(behind(id)).copied()
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = NodeId> {
        self.containers.iter().copied()
    }

    pub(super) fn ttls(&self) -> impl Iterator<Item = NodeId> {
        self.ttls.iter().copied()
    }
}

/// What is behind a node in order, or all.
fn behind(id: Option<NodeId>) -> (Bound<NodeId>, Bound<NodeId>) {
    (id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}
