//! W6: which watches a connection has on its server, from what passed on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::Failure;
use crate::coverage::Coverage;
use crate::zk::acl::{User, permits, perms};
use crate::zk::history::{Answered, Call, Told};
use crate::zk::model::{Model, Node, code, event};
use crate::zk::replay::failure;
use crate::zk::wire::{Request, WatchKind, WatchLists};

/// The watches of a connection.
///
/// All of them hear of everything behind the cursor: a watch is set with an answer, and everything
/// up to the answer's zxid has been gone through by then.
#[derive(Debug)]
pub(crate) struct Armed {
    user: User,
    data: BTreeSet<String>,
    child: BTreeSet<String>,
    /// Persistent ones, and how often each has fired.
    persistent: BTreeMap<String, u32>,
    recursive: BTreeSet<String>,
    /// How much of [`Model::triggers`] has been gone through.
    cursor: usize,
    /// Events that setWatches made up, before its answer.
    made_up: Vec<Told>,
}

impl Armed {
    /// Those of a new connection of `user`: none.
    pub(crate) fn new(user: User) -> Self {
        Self {
            user,
            data: BTreeSet::new(),
            child: BTreeSet::new(),
            persistent: BTreeMap::new(),
            recursive: BTreeSet::new(),
            cursor: 0,
            made_up: Vec::new(),
        }
    }

    /// An answer has come: with it no event up to its zxid is missing. It may set a watch.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answered: &Answered,
        model: &Model,
        coverage: &mut Coverage,
    ) -> Result<(), Failure> {
        let Answered { zxid, code, .. } = *answered;
        if let Some(missing) = self.next(zxid, model, coverage) {
            let text = format!("an answer as of {zxid:#x} before {missing:x?}");
            return Err(failure("W6", text));
        }
        let ok = code == 0;
        match &call.request {
            Request::Get { path, watch: true } if ok => {
                self.data.insert(path.clone());
            }
            Request::Exists { path, watch: true } if ok || code == code::NO_NODE => {
                self.data.insert(path.clone());
            }
            Request::Children { path, watch: true } if ok => {
                self.child.insert(path.clone());
            }
            Request::AddWatch { path, recursive: true } if ok => {
                self.recursive.insert(path.clone());
            }
            Request::AddWatch { path, recursive: false } if ok => {
                self.persistent.entry(path.clone()).or_default();
            }
            Request::RemoveWatches { path, kind } => {
                let expected = if self.remove(path, *kind) { 0 } else { code::NO_WATCHER };
                if code != expected {
                    return Err(failure("W6", format!("{call:x?} should be {expected}")));
                }
            }
            Request::SetWatches(lists) if ok => self.set_watches(lists, zxid, model)?,
            _ => {}
        }
        if let Some(told) = self.made_up.first() {
            return Err(failure("W6", format!("an event that nobody asked for: {told:x?}")));
        }
        Ok(())
    }

    /// An event has come: it is the next one that this connection has to hear of.
    pub(crate) fn told(
        &mut self,
        told: &Told,
        model: &Model,
        coverage: &mut Coverage,
    ) -> Result<(), Failure> {
        if told.zxid == -1 {
            self.made_up.push(told.clone());
            return Ok(());
        }
        match self.next(told.zxid, model, coverage) {
            Some(due) if due == told => Ok(()),
            Some(due) => Err(failure("W6", format!("{told:x?} before {due:x?}"))),
            None => Err(failure("W6", format!("{told:x?} without a watch, or not its first"))),
        }
    }

    /// Goes on to the next event up to `zxid` that a watch is for, and that the user may hear of.
    /// Watches that fire once are used up.
    fn next<'a>(
        &mut self,
        zxid: i64,
        model: &'a Model,
        coverage: &mut Coverage,
    ) -> Option<&'a Told> {
        let triggers = model.triggers();
        if self.is_empty() {
            let before = triggers.partition_point(|trigger| trigger.told.zxid <= zxid);
            self.cursor = self.cursor.max(before);
        }
        while let Some(trigger) = triggers.get(self.cursor)
            && trigger.told.zxid <= zxid
        {
            self.cursor += 1;
            if self.fires(&trigger.told, coverage) {
                if permits(&trigger.acl, perms::READ, self.user) {
                    return Some(&trigger.told);
                }
                coverage.count("watch: kept from who may not read");
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.data.is_empty()
            && self.child.is_empty()
            && self.persistent.is_empty()
            && self.recursive.is_empty()
    }

    /// Whether the connection hears of a change, once by whatever watches.
    fn fires(&mut self, trigger: &Told, coverage: &mut Coverage) -> bool {
        let path = trigger.path.as_str();
        let of_children = trigger.kind == event::CHILDREN_CHANGED;
        let by_data = !of_children && self.data.remove(path);
        // A deletion uses up both, and is told once.
        let by_child = (of_children || trigger.kind == event::DELETED) && self.child.remove(path);
        let mut persistent = self.persistent.get_mut(path);
        if let Some(fired) = &mut persistent {
            **fired += 1;
            coverage.add_count("watch: persistent, again", u64::from(**fired > 1));
        }
        let by_persistent = persistent.is_some();
        let at = !of_children && self.recursive.contains(path);
        let below =
            !of_children && ancestors(path).any(|ancestor| self.recursive.contains(ancestor));
        coverage.add_count("watch: recursive, of a node below", u64::from(below));
        by_data || by_child || by_persistent || at || below
    }

    fn remove(&mut self, path: &str, kind: WatchKind) -> bool {
        let is = |wanted: WatchKind| kind == wanted || kind == WatchKind::Any;
        let removed = [
            is(WatchKind::Data) && self.data.remove(path),
            is(WatchKind::Child) && self.child.remove(path),
            is(WatchKind::Persistent) && self.persistent.remove(path).is_some(),
            is(WatchKind::Recursive) && self.recursive.remove(path),
        ];
        removed.contains(&true)
    }

    fn set_watches(&mut self, lists: &WatchLists, zxid: i64, model: &Model) -> Result<(), Failure> {
        let mut missed = Vec::new();
        let user = self.user;
        // Of what it may not read, a client has missed nothing.
        let told = |node: &Node| node.permits(perms::READ, user).is_ok();
        let mut tell = |kind, path: &String| {
            missed.push(Told { zxid: -1, kind, path: path.clone() });
        };
        for path in &lists.data {
            match model.node_at(path, zxid) {
                None => tell(event::DELETED, path),
                Some(node) if told(node) && node.mzxid > lists.since => {
                    tell(event::DATA_CHANGED, path);
                }
                Some(_) => {
                    self.data.insert(path.clone());
                }
            }
        }
        for path in &lists.exist {
            match model.node_at(path, zxid) {
                Some(node) if told(node) => tell(event::CREATED, path),
                _ => {
                    self.data.insert(path.clone());
                }
            }
        }
        for path in &lists.child {
            match model.node_at(path, zxid) {
                None => tell(event::DELETED, path),
                Some(node) if told(node) && node.pzxid > lists.since => {
                    tell(event::CHILDREN_CHANGED, path);
                }
                Some(_) => {
                    self.child.insert(path.clone());
                }
            }
        }
        for path in &lists.persistent {
            self.persistent.entry(path.clone()).or_default();
        }
        self.recursive.extend(lists.recursive.iter().cloned());
        missed.sort();
        self.made_up.sort();
        if missed != self.made_up {
            let text = format!("setWatches told {:x?}, not {missed:x?}", self.made_up);
            return Err(failure("W6", text));
        }
        self.made_up.clear();
        Ok(())
    }
}

/// The nodes above a node.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let slashes = path.match_indices('/').filter(move |_| path != "/");
    slashes.map(move |(at, _)| if at == 0 { "/" } else { &path[..at] })
}
