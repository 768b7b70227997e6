//! The end of a session, which takes its ephemerals with it, however many they are: prepared in pieces.
//!
//! Nothing else is prepared and nothing is applied until it is done, so that every piece finds the tree
//! and the records as the first one did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zab_proto::wire::jute::{BufMutExt, Reader};

use super::{Content, Prep, Requester, View, encode};
use crate::cost;
use crate::protocol::txn::{Paths, Txn};
use crate::state::tree::{NodeRef, Owner, Tree};

/// How far the end of a session is prepared.
///
/// A node that nothing pending has touched gets no record of its own: that its owner is gone says enough.
/// Only its parent has, and once, whatever it loses.
#[derive(Debug)]
pub(super) struct Closing {
    stage: ClosingStep,
    /// The list of paths is given up beyond so many bytes: then each server goes by its own index.
    len_max: usize,
    /// Bytes of that list so far.
    len: usize,
    /// Ephemerals that are as the tree has them, to be listed.
    untouched: Vec<u32>,
    /// What all of them count in the tree's digest.
    digest: u64,
    /// By the places of nodes, how many children they lose.
    parents: BTreeMap<u32, u32>,
    /// Mostly, one parent has most of them.
    last_parent: (Option<u32>, u32),
    /// Ephemerals that the session will have by what is pending.
    touched: BTreeSet<Arc<str>>,
    /// The list in order.
    paths: BTreeSet<Arc<str>>,
    encoded: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClosingStep {
    /// The session's nodes in the tree are looked at, from behind this place on.
    Tree(Option<u32>),
    /// What is pending is looked at, from this place in the queue on.
    Pending(usize),
    /// Parents lose their children.
    Parents,
    /// Nodes with records of their own go.
    Touched,
    /// The list is put into order, from this one of those in the tree on.
    Sort(usize),
    Encode,
    Done,
}

impl Closing {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            stage: ClosingStep::Tree(None),
            len_max,
            // Their number. It makes the list as long as it will be, or that is given up.
            len: 4,
            untouched: Vec::new(),
            digest: 0,
            parents: BTreeMap::new(),
            last_parent: (None, 0),
            touched: BTreeSet::new(),
            paths: BTreeSet::new(),
            encoded: Vec::new(),
        }
    }

    fn count(&mut self, path: &str) {
        self.len = self.len.saturating_add(4 + path.len());
        if !self.is_listed() {
            self.untouched = Vec::new();
        }
    }

    fn is_listed(&self) -> bool {
        self.len <= self.len_max
    }

    fn count_parent(&mut self, place: Option<u32>) {
        match (&mut self.last_parent, place) {
            ((last, lost), Some(_)) if *last == place => *lost += 1,
            ((last, lost), _) => {
                if let Some(parent) = last {
                    *self.parents.entry(*parent).or_default() += *lost;
                }
                (*last, *lost) = (place, 1);
            }
        }
    }

    /// Writes the transaction, once it is done.
    pub(super) fn encode(&self, from: &Requester<'_>, out: &mut Vec<u8>) {
        let paths = self.is_listed().then_some(&*self.encoded);
        let read = |paths| Paths::read(&mut Reader::new(paths)).expect("was just written");
        encode(&Txn::CloseSession(paths.map(read)), from, out);
    }
}

impl Prep {
    /// Goes on with the end of a session while less than `work_max` is counted, but at least by one step.
    /// Whether it is done: that the session and its ephemerals are gone is recorded then.
    pub(super) fn close(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        (closing, work_max): (&mut Closing, u64),
    ) -> bool {
        loop {
            closing.stage = match closing.stage {
                ClosingStep::Tree(after) => {
                    self.look_at_tree(view.tree, from, closing, (after, work_max))
                }
                ClosingStep::Pending(at) => self.look_at_pending(from, closing, at),
                ClosingStep::Parents => self.take_child(view, from, closing),
                ClosingStep::Touched => self.take_touched(view, from, closing),
                ClosingStep::Sort(at) => self.sort(view.tree, closing, at),
                ClosingStep::Encode => self.list(from, closing),
                ClosingStep::Done => return true,
            };
            if self.work >= work_max && closing.stage != ClosingStep::Done {
                return false;
            }
        }
    }

    /// Notes the ephemerals of the session that are as the tree has them.
    fn look_at_tree(
        &mut self,
        tree: &Tree,
        from: &Requester<'_>,
        closing: &mut Closing,
        (mut after, work_max): (Option<u32>, u64),
    ) -> ClosingStep {
        let is_closed = self.closed.contains_key(&from.session);
        let nodes = tree.ephemerals_behind(from.session, after).filter(|_| !is_closed);
        for node in nodes {
            self.work += cost::NODE;
            after = Some(node.place());
            if self.records.is_empty() || !self.records.contains_key(node.path()) {
                closing.untouched.push(node.place());
                closing.count(node.path());
                closing.digest = closing.digest.wrapping_add(node.digest());
                closing.count_parent(node.parent().map(NodeRef::place));
            }
            if self.work >= work_max {
                return ClosingStep::Tree(after);
            }
        }
        closing.count_parent(None);
        ClosingStep::Pending(0)
    }

    /// Notes the ephemerals that the session will have by what is pending. Each record is in the queue.
    fn look_at_pending(
        &mut self,
        from: &Requester<'_>,
        closing: &mut Closing,
        at: usize,
    ) -> ClosingStep {
        let Some((_, path)) = self.queue.get(at) else {
            self.digest = self.digest.wrapping_sub(closing.digest);
            return ClosingStep::Parents;
        };
        self.work += cost::PART;
        let is_owned = Owner::Session(from.session);
        let record = self.records.get(path);
        if record.is_some_and(|record| !record.deleted && record.stat.owner() == is_owned)
            && closing.touched.insert(Arc::clone(path))
        {
            closing.count(path);
        }
        ClosingStep::Pending(at + 1)
    }

    fn take_child(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        closing: &mut Closing,
    ) -> ClosingStep {
        let Some((place, lost)) = closing.parents.pop_first() else { return ClosingStep::Touched };
        self.work += 2 * cost::NODE;
        let Some(parent) = view.tree.at_place(place) else { return ClosingStep::Parents };
        let path = super::normal(parent.path());
        if let Some(mut parent) = self.lookup(view.tree, path) {
            parent.stat.pzxid = from.zxid;
            parent.children = parent.children.saturating_sub(lost);
            self.put(view, from.zxid, path, parent, Content::Same);
        }
        ClosingStep::Parents
    }

    fn take_touched(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        closing: &mut Closing,
    ) -> ClosingStep {
        let Some(path) = closing.touched.pop_first() else { return ClosingStep::Sort(0) };
        self.work += 3 * cost::NODE;
        self.remove(view, from.zxid, &path);
        if closing.is_listed() {
            closing.paths.insert(path);
        }
        ClosingStep::Touched
    }

    fn sort(&mut self, tree: &Tree, closing: &mut Closing, at: usize) -> ClosingStep {
        let Some(place) = closing.untouched.get(at).filter(|_| closing.is_listed()) else {
            if closing.is_listed() {
                closing.encoded.put_len(closing.paths.len());
            }
            return ClosingStep::Encode;
        };
        self.work += 2 * cost::NODE;
        if let Some(node) = tree.at_place(*place) {
            closing.paths.insert(node.path().into());
        }
        ClosingStep::Sort(at + 1)
    }

    fn list(&mut self, from: &Requester<'_>, closing: &mut Closing) -> ClosingStep {
        self.work += cost::PART;
        match closing.paths.pop_first() {
            Some(path) => {
                // Those of before the list was given up.
                if closing.is_listed() {
                    closing.encoded.put_ustring(Some(&path));
                }
                ClosingStep::Encode
            }
            None => {
                let session = from.session;
                self.undo_closed = Some((session, self.closed.insert(session, from.zxid)));
                ClosingStep::Done
            }
        }
    }

    /// Whether a node of the tree is about to go with its session.
    pub(super) fn goes_with_session(&self, node: NodeRef<'_>) -> bool {
        !self.closed.is_empty()
            && matches!(node.owner(), Owner::Session(session) if self.closed.contains_key(&session))
    }
}
