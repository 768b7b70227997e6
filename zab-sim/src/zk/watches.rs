//! W6: which watches a connection has on its server, from what passed on it.

use std::collections::BTreeMap;

use crate::check::Failure;
use crate::zk::history::{Answered, Call, Told};
use crate::zk::model::{Model, code};
use crate::zk::replay::failure;
use crate::zk::wire::{Request, WatchLists};

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const DATA_CHANGED: i32 = 3;
const CHILDREN_CHANGED: i32 = 4;

/// The watches of a connection: path, and the zxid as of which it was set.
#[derive(Debug, Default)]
pub(crate) struct Armed {
    data: BTreeMap<String, i64>,
    child: BTreeMap<String, i64>,
    /// Events that setWatches made up, before its answer.
    made_up: Vec<Told>,
}

impl Armed {
    /// An answer has come: with it no event up to its zxid is missing. It may set a watch.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answered: &Answered,
        model: &Model,
    ) -> Result<(), Failure> {
        let Answered { zxid, code, .. } = *answered;
        self.nothing_missing(zxid, model)?;
        let ok = code == 0;
        match &call.request {
            Request::Get { path, watch: true } if ok => set(&mut self.data, path, zxid),
            Request::Exists { path, watch: true } if ok || code == code::NO_NODE => {
                set(&mut self.data, path, zxid);
            }
            Request::Children { path, watch: true } if ok => set(&mut self.child, path, zxid),
            Request::SetWatches(lists) if ok => self.set_watches(lists, zxid, model)?,
            _ => {}
        }
        if let Some(told) = self.made_up.first() {
            return Err(failure("W6", format!("an event that nobody asked for: {told:x?}")));
        }
        Ok(())
    }

    fn nothing_missing(&self, zxid: i64, model: &Model) -> Result<(), Failure> {
        let data = self.data.iter().map(|(path, since)| (path, model.data_event(path, *since)));
        let child = self.child.iter().map(|(path, since)| (path, model.child_event(path, *since)));
        for (path, event) in data.chain(child) {
            if let Some((at, kind)) = event.filter(|(at, _)| *at <= zxid) {
                let text =
                    format!("an answer as of {zxid:#x} before event {kind} of {path} at {at:#x}");
                return Err(failure("W6", text));
            }
        }
        Ok(())
    }

    /// An event has come: it is the first one for a watch.
    pub(crate) fn told(&mut self, told: &Told, model: &Model) -> Result<(), Failure> {
        if told.zxid == -1 {
            self.made_up.push(told.clone());
            return Ok(());
        }
        self.nothing_missing(told.zxid - 1, model)?;
        let Told { zxid, kind, path } = told;
        let data = self.data.get(path).and_then(|since| model.data_event(path, *since));
        let child = self.child.get(path).and_then(|since| model.child_event(path, *since));
        let (by_data, by_child) = (data == Some((*zxid, *kind)), child == Some((*zxid, *kind)));
        if by_data {
            self.data.remove(path);
        }
        // A deletion uses up both, and is told once.
        if by_child {
            self.child.remove(path);
        }
        if by_data || by_child {
            return Ok(());
        }
        Err(failure("W6", format!("{told:x?} without a watch, or not its first")))
    }

    fn set_watches(&mut self, lists: &WatchLists, zxid: i64, model: &Model) -> Result<(), Failure> {
        let mut missed = Vec::new();
        let mut tell = |kind, path: &String| {
            missed.push(Told { zxid: -1, kind, path: path.clone() });
        };
        for path in &lists.data {
            match model.node_at(path, zxid) {
                None => tell(DELETED, path),
                Some(node) if node.mzxid > lists.since => tell(DATA_CHANGED, path),
                Some(_) => set(&mut self.data, path, zxid),
            }
        }
        for path in &lists.exist {
            match model.node_at(path, zxid) {
                None => set(&mut self.data, path, zxid),
                Some(_) => tell(CREATED, path),
            }
        }
        for path in &lists.child {
            match model.node_at(path, zxid) {
                None => tell(DELETED, path),
                Some(node) if node.pzxid > lists.since => tell(CHILDREN_CHANGED, path),
                Some(_) => set(&mut self.child, path, zxid),
            }
        }
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

/// Setting a watch again changes nothing.
fn set(watches: &mut BTreeMap<String, i64>, path: &str, zxid: i64) {
    watches.entry(path.to_owned()).or_insert(zxid);
}
