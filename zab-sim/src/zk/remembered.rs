//! What a client believes to be armed, which it arms again on each new connection.

use std::collections::BTreeSet;

use crate::zk::history::Told;
use crate::zk::model::{code, event};
use crate::zk::wire::{Request, WatchKind, WatchLists};

/// The watches of a client, by kind.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Remembered {
    /// A request was answered.
    pub(crate) fn answered(&mut self, request: &Request, code: i32) {
        match request {
            Request::Get { path, watch: true } if code == 0 => {
                self.data.insert(path.clone());
            }
            Request::Exists { path, watch: true } if code == 0 => {
                self.data.insert(path.clone());
            }
            Request::Exists { path, watch: true } if code == code::NO_NODE => {
                self.exist.insert(path.clone());
            }
            Request::Children { path, watch: true } if code == 0 => {
                self.child.insert(path.clone());
            }
            Request::AddWatch { path, recursive } if code == 0 => {
                let list = if *recursive { &mut self.recursive } else { &mut self.persistent };
                list.insert(path.clone());
            }
            Request::RemoveWatches { path, kind } if code == 0 => self.remove(path, *kind),
            _ => {}
        }
    }

    fn remove(&mut self, path: &str, kind: WatchKind) {
        if matches!(kind, WatchKind::Data | WatchKind::Any) {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if matches!(kind, WatchKind::Child | WatchKind::Any) {
            self.child.remove(path);
        }
        if matches!(kind, WatchKind::Persistent | WatchKind::Any) {
            self.persistent.remove(path);
        }
        if matches!(kind, WatchKind::Recursive | WatchKind::Any) {
            self.recursive.remove(path);
        }
    }

    /// An event has come.
    pub(crate) fn told(&mut self, told: &Told) {
        if told.kind != event::CHILDREN_CHANGED {
            self.data.remove(&told.path);
            self.exist.remove(&told.path);
        }
        if matches!(told.kind, event::DELETED | event::CHILDREN_CHANGED) {
            self.child.remove(&told.path);
        }
    }

    /// What to arm again for a client that has seen `since`; `None`: nothing.
    pub(crate) fn lists(&self, since: i64) -> Option<WatchLists> {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        let lists = WatchLists {
            since,
            data: list(&self.data),
            exist: list(&self.exist),
            child: list(&self.child),
            persistent: list(&self.persistent),
            recursive: list(&self.recursive),
        };
        (!lists.is_empty()).then_some(lists)
    }
}
