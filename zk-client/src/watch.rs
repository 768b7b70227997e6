//! Watches: what they tell, and the list of those that a server has to know of.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};
use zab_proto::wire::jute::BufMutExt;

use crate::request::opcode;

/// What happened to a node that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// It was created.
    NodeCreated,
    /// It was deleted.
    NodeDeleted,
    /// Its data was set.
    NodeDataChanged,
    /// A child was created or deleted.
    NodeChildrenChanged,
    /// The client removed its watch of getData or exists.
    DataWatchRemoved,
    /// The client removed its watch of getChildren.
    ChildWatchRemoved,
    /// The client removed a watch that stays.
    PersistentWatchRemoved,
}

impl EventKind {
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::NodeCreated,
            2 => Self::NodeDeleted,
            3 => Self::NodeDataChanged,
            4 => Self::NodeChildrenChanged,
            _ => return None,
        })
    }
}

/// An event of a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The node, as the caller knows it.
    pub path: String,
    /// The transaction that did it, if the server is of 3.9 or newer and saw it happen; -1 else.
    pub zxid: i64,
}

/// Watches that stay when they have fired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddWatchMode {
    /// The node and its children.
    Persistent,
    /// The node and everything below it.
    PersistentRecursive,
}

impl AddWatchMode {
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::PersistentRecursive => 1,
        }
    }
}

/// Which watches of a node are meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WatcherType {
    /// Those of getChildren.
    Children,
    /// Those of getData and exists.
    Data,
    /// All.
    Any,
    /// Those of [`AddWatchMode::Persistent`]. Not known to 3.8.
    Persistent,
    /// Those of [`AddWatchMode::PersistentRecursive`]. Not known to 3.8.
    PersistentRecursive,
}

impl WatcherType {
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Children => 1,
            Self::Data => 2,
            Self::Any => 3,
            Self::Persistent => 4,
            Self::PersistentRecursive => 5,
        }
    }
}

/// How a server keeps a watch, and in which list of setWatches2 it is told of it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Data,
    Exist,
    Child,
    Persistent,
    PersistentRecursive,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Data, Self::Exist, Self::Child, Self::Persistent, Self::PersistentRecursive];
    fn removal(self) -> EventKind {
        match self {
            Self::Data | Self::Exist => EventKind::DataWatchRemoved,
            Self::Child => EventKind::ChildWatchRemoved,
            Self::Persistent | Self::PersistentRecursive => EventKind::PersistentWatchRemoved,
        }
    }

    /// The kinds that are gone when they have fired.
    const STANDARD: [Self; 3] = [Self::Data, Self::Exist, Self::Child];
}

/// The watches that a session has, by their full paths. A server keeps them for a connection, so
/// that they must be set again on each new one.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    set: BTreeSet<(Kind, String)>,
}

/// Paths of one setWatches, in bytes: as ZooKeeper's own client has it, far below the longest
/// frame that a server takes.
const BATCH_LEN_BYTES: usize = 128 << 10;

impl Watches {
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) fn add(&mut self, kind: Kind, path: String) {
        self.set.insert((kind, path));
    }

    /// What an event leaves of the watches on its path.
    pub(crate) fn fired(&mut self, event: EventKind, path: &str) {
        let gone = match event {
            EventKind::NodeCreated | EventKind::NodeDataChanged => &Kind::STANDARD[..2],
            EventKind::NodeChildrenChanged => &Kind::STANDARD[2..],
            EventKind::NodeDeleted => &Kind::STANDARD[..],
            // Not sent by servers.
            _ => return,
        };
        self.forget(gone, path);
    }

    /// The server has removed them: which there were.
    pub(crate) fn removed(&mut self, of: WatcherType, path: &str) -> Vec<EventKind> {
        let kinds = match of {
            WatcherType::Children => &Kind::ALL[2..3],
            WatcherType::Data => &Kind::ALL[..2],
            WatcherType::Any => &Kind::ALL,
            WatcherType::Persistent => &Kind::ALL[3..4],
            WatcherType::PersistentRecursive => &Kind::ALL[4..],
        };
        let mut events = Vec::new();
        for kind in kinds {
            if self.set.remove(&(*kind, path.to_owned())) {
                events.push(kind.removal());
            }
        }
        events.dedup();
        events
    }

    fn forget(&mut self, kinds: &[Kind], path: &str) {
        for kind in kinds {
            self.set.remove(&(*kind, path.to_owned()));
        }
    }

    /// The requests that set all of them again for a client that has seen everything up to `zxid`:
    /// opcodes and records. Servers before 3.6 know only the first kind of request.
    pub(crate) fn rearm(&self, zxid: i64) -> Vec<(i32, BytesMut)> {
        let mut requests = Vec::new();
        let mut batch: [Vec<&str>; 5] = Default::default();
        let mut len = 0;
        for (kind, path) in &self.set {
            if len > 0 && len + path.len() > BATCH_LEN_BYTES {
                requests.push(request(&batch, zxid));
                (batch, len) = (Default::default(), 0);
            }
            batch[*kind as usize].push(path);
            len += path.len();
        }
        if len > 0 {
            requests.push(request(&batch, zxid));
        }
        requests
    }
}

fn request(lists: &[Vec<&str>; 5], zxid: i64) -> (i32, BytesMut) {
    let stays = lists[3..].iter().any(|list| !list.is_empty());
    let (opcode, count) = if stays { (opcode::SET_WATCHES2, 5) } else { (opcode::SET_WATCHES, 3) };
    let mut body = BytesMut::new();
    body.put_i64(zxid);
    for list in &lists[..count] {
        body.put_len(list.len());
        for path in list {
            body.put_ustring(Some(path));
        }
    }
    (opcode, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_use_up_what_they_use_up_on_the_server() {
        let all = || {
            let mut watches = Watches::default();
            for kind in Kind::ALL {
                watches.add(kind, "/a".into());
                watches.add(kind, "/b".into());
            }
            watches
        };
        for (event, left) in [
            (EventKind::NodeCreated, 3),
            (EventKind::NodeDataChanged, 3),
            (EventKind::NodeChildrenChanged, 4),
            (EventKind::NodeDeleted, 2),
        ] {
            let mut watches = all();
            watches.fired(event, "/a");
            assert_eq!(watches.len(), left + 5, "{event:?}");
        }
        for (of, left) in [
            (WatcherType::Children, 4),
            (WatcherType::Data, 3),
            (WatcherType::Any, 0),
            (WatcherType::Persistent, 4),
            (WatcherType::PersistentRecursive, 4),
        ] {
            let mut watches = all();
            assert!(!watches.removed(of, "/b").is_empty());
            assert!(watches.removed(of, "/b").is_empty());
            assert_eq!(watches.len(), left + 5, "{of:?}");
        }
    }

    #[test]
    fn batches_are_bounded_and_complete() {
        let mut watches = Watches::default();
        assert!(watches.rearm(1).is_empty());
        for i in 0..4000 {
            watches.add(Kind::Data, format!("/{i:0>100}"));
        }
        // Longer than any batch by itself.
        watches.add(Kind::Child, format!("/{}", "x".repeat(2 * BATCH_LEN_BYTES)));
        watches.add(Kind::Persistent, "/p".into());
        let requests = watches.rearm(7);
        let text = |requests: &[(i32, BytesMut)]| -> usize {
            requests.iter().map(|(_, body)| body.len()).sum()
        };
        assert!(text(&requests) > 4000 * 101 + 2 * BATCH_LEN_BYTES);
        assert_eq!(requests.len(), 6);
        for (opcode, body) in &requests[..4] {
            assert_eq!((*opcode, &body[..8]), (opcode::SET_WATCHES, &7_i64.to_be_bytes()[..]));
            assert!(body.len() < BATCH_LEN_BYTES + BATCH_LEN_BYTES / 8, "{}", body.len());
        }
        assert_eq!(requests[5].0, opcode::SET_WATCHES2);
    }
}
