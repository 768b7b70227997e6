//! The end of a session, which takes its ephemerals with it, however many they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use zab_proto::wire::jute::BufMutExt;

use super::{Prep, Requester, View};
use crate::cost;
use crate::state::tree::{NodeRef, Owner, Tree};

impl Prep {
    /// Records that a session and its ephemerals are gone. Returns the encoded list of their paths, in
    /// order, unless it would be longer than `len_max`; then each server goes by its own index.
    ///
    /// A node that nothing pending has touched gets no record of its own: that its owner is gone says
    /// enough. Only its parent has, and once, whatever it loses.
    pub(super) fn close(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        len_max: usize,
    ) -> Option<Vec<u8>> {
        let session = from.session;
        // Their numbers make the list as long as it will be, or it is given up.
        let mut listed = Some((Vec::new(), 4));
        let mut list = |path: &str| {
            if let Some((paths, len)) = &mut listed {
                *len += 4 + path.len();
                if *len <= len_max {
                    paths.push(Arc::<str>::from(path));
                } else {
                    listed = None;
                }
            }
        };
        // Mostly, one parent has most of them: they are counted before they are sorted by its path.
        let mut parents = Vec::<(NodeRef<'_>, u32)>::new();
        for node in self.untouched(view.tree, session) {
            list(node.path());
            self.digest = self.digest.wrapping_sub(node.digest());
            self.work += cost::NODE;
            let Some(parent) = node.parent() else { continue };
            match parents.last_mut() {
                Some((last, lost)) if last.is(parent) => *lost += 1,
                _ => parents.push((parent, 1)),
            }
        }
        let mut by_path = BTreeMap::<&str, u32>::new();
        for (parent, lost) in parents {
            *by_path.entry(parent.path()).or_default() += lost;
        }
        let touched = self.touched(session);
        touched.iter().for_each(|path| list(path));
        for (path, lost) in by_path {
            let path = super::normal(path);
            if let Some(mut parent) = self.lookup(view.tree, path) {
                parent.stat.pzxid = from.zxid;
                parent.children = parent.children.saturating_sub(lost);
                self.put(view, from.zxid, path, parent);
            }
        }
        for path in touched {
            self.work += cost::NODE;
            self.remove(view, from.zxid, &path);
        }
        self.undo_closed = Some((session, self.closed.insert(session, from.zxid)));
        let (mut paths, _) = listed?;
        paths.sort_unstable();
        let mut encoded = Vec::new();
        encoded.put_len(paths.len());
        paths.iter().for_each(|path| encoded.put_ustring(Some(path)));
        Some(encoded)
    }

    /// Whether a node of the tree is about to go with its session.
    pub(super) fn goes_with_session(&self, node: NodeRef<'_>) -> bool {
        !self.closed.is_empty()
            && matches!(node.owner(), Owner::Session(session) if self.closed.contains_key(&session))
    }

    /// The ephemerals of a session that are as the tree has them.
    fn untouched<'t>(&self, tree: &'t Tree, session: i64) -> Vec<NodeRef<'t>> {
        if self.closed.contains_key(&session) {
            return Vec::new();
        }
        let nodes = tree.ephemerals_of(session);
        if self.records.len() >= tree.ephemerals_count_of(session) {
            return nodes.filter(|node| !self.records.contains_key(node.path())).collect();
        }
        // Few are pending beside very many nodes: those are looked up in the tree.
        let pending = self.records.keys().filter_map(|path| self.in_tree(tree, path));
        let mut pending: Vec<NodeRef<'t>> = pending.collect();
        pending.sort_unstable_by_key(|node| node.place());
        nodes
            .filter(|node| pending.binary_search_by_key(&node.place(), |n| n.place()).is_err())
            .collect()
    }

    /// The paths of the ephemerals that a session will have by what is pending, in order.
    fn touched(&self, session: i64) -> Vec<Arc<str>> {
        let is_owned = Owner::Session(session);
        let mut paths: Vec<Arc<str>> = self
            .records
            .iter()
            .filter(|(_, record)| !record.deleted && record.stat.owner() == is_owned)
            .map(|(path, _)| Arc::clone(path))
            .collect();
        paths.sort_unstable();
        paths
    }
}
