//! The records of nodes as they will be, on top of the committed tree.

use std::sync::Arc;

use zab_proto::Zxid;

use super::{Prep, View, len, read_acl};
use crate::auth::rules::Rules;
use crate::protocol::path;
use crate::state::tree::{NodeDigest, NodeRef, StatPersisted, Tree};

/// A node as it will be.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) zxid: Zxid,
    /// The node will be gone; the rest is as it was.
    pub(super) deleted: bool,
    pub(super) stat: StatPersisted,
    pub(super) children: u32,
    /// `None`: the one in the tree.
    pub(super) acl: Option<Arc<Rules>>,
    pub(super) data_len: usize,
    /// Of the node as this record has it; kept by [`Prep::put`].
    pub(super) digest: NodeDigest,
}

impl Record {
    fn counts(&self) -> u64 {
        if self.deleted { 0 } else { self.digest.get() }
    }
}

/// What a record that is put says of its node's path and data.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// They are as before; the numbers may not be.
    Same,
    /// The node is new, or has this data now.
    Data(Option<&'a [u8]>),
}

#[derive(Debug)]
pub(super) struct SharedAcl {
    pub(super) encoded: Box<[u8]>,
    pub(super) rules: Arc<Rules>,
}

impl Prep {
    /// The node as it will be; `None` if it will not be.
    pub(super) fn lookup(&self, tree: &Tree, path: &str) -> Option<Record> {
        if let Some(record) = self.records.get(path) {
            return (!record.deleted).then(|| record.clone());
        }
        let node = self.in_tree(tree, path)?;
        Some(Record {
            zxid: Zxid::ZERO,
            deleted: false,
            stat: *node.persisted(),
            children: node.child_count(),
            acl: None,
            data_len: len(node.data()),
            digest: node.node_digest(),
        })
    }

    /// The node in the tree, unless it is about to go with its session.
    pub(super) fn in_tree<'t>(&self, tree: &'t Tree, path: &str) -> Option<NodeRef<'t>> {
        tree.node(path).filter(|node| !self.goes_with_session(*node))
    }

    /// The numbers of a node as it will be; `None` if it will not be, or will have children.
    pub(in crate::service::role) fn childless(
        &self,
        tree: &Tree,
        path: &str,
    ) -> Option<StatPersisted> {
        self.lookup(tree, path).filter(|node| node.children == 0).map(|node| node.stat)
    }

    /// Replaces the record of a node and brings the digest up to date.
    pub(super) fn put(
        &mut self,
        view: View<'_>,
        zxid: Zxid,
        path: &str,
        mut record: Record,
        content: Content<'_>,
    ) {
        let key: Arc<str> = match self.records.get_key_value(path) {
            Some((key, _)) => Arc::clone(key),
            None => path.into(),
        };
        record.zxid = zxid;
        if view.digests {
            let last = self.records.get(path);
            let in_tree = match last {
                Some(_) => None,
                None => self.in_tree(view.tree, path),
            };
            record.digest = match content {
                Content::Data(data) => NodeDigest::new(path, data, &record.stat),
                Content::Same => {
                    let stat =
                        last.map(|last| &last.stat).or_else(|| in_tree.map(NodeRef::persisted));
                    stat.map_or(record.digest, |stat| {
                        record.digest.changed(path, stat, &record.stat)
                    })
                }
            };
            let before = last.map_or_else(|| in_tree.map_or(0, NodeRef::digest), Record::counts);
            self.digest = self.digest.wrapping_sub(before).wrapping_add(record.counts());
        }
        let before = self.records.insert(Arc::clone(&key), record);
        self.queue.push_back((zxid, Arc::clone(&key)));
        self.undo.push((key, before));
    }

    /// Records that a node, which exists, and its entry in its parent are gone.
    pub(super) fn remove(&mut self, view: View<'_>, zxid: Zxid, path: &str) {
        let parent_path = path::split(path).map_or("", |(parent, _)| parent);
        if let Some(mut parent) = self.lookup(view.tree, parent_path) {
            parent.stat.pzxid = zxid;
            parent.children = parent.children.saturating_sub(1);
            self.put(view, zxid, parent_path, parent, Content::Same);
        }
        if let Some(mut node) = self.lookup(view.tree, path) {
            node.deleted = true;
            self.put(view, zxid, path, node, Content::Same);
        }
    }

    /// The list as a shared value.
    pub(super) fn share_acl(&mut self, encoded: &[u8]) -> Arc<Rules> {
        match &self.last_acl {
            Some(last) if *last.encoded == *encoded => Arc::clone(&last.rules),
            _ => {
                let rules = Arc::new(Rules::read(read_acl(encoded)));
                self.last_acl =
                    Some(SharedAcl { encoded: encoded.into(), rules: Arc::clone(&rules) });
                rules
            }
        }
    }

    /// Takes back what the request in hand has recorded, but for the first `to` records.
    pub(super) fn rollback(&mut self, to: usize) {
        while self.undo.len() > to {
            let Some((path, before)) = self.undo.pop() else { return };
            self.queue.pop_back();
            // The request may have taken many turns, in which what was there before was applied.
            match before.filter(|record| record.zxid > self.applied) {
                Some(record) => self.records.insert(path, record),
                None => self.records.remove(&path),
            };
        }
        if to > 0 {
            return;
        }
        if let Some((session, before)) = self.undo_closed.take() {
            match before {
                Some(zxid) => self.closed.insert(session, zxid),
                None => self.closed.remove(&session),
            };
        }
        self.digest = self.undo_digest;
    }
}
