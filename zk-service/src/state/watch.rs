//! Who watches which path.
//!
//! Watches belong to a connection, in a *data* and a *child* table. The three modes (standard,
//! persistent, persistent recursive) are independent bits per connection, path and table, the rule
//! of ZooKeeper 3.9. Recursive watches live in the data table only.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet, hash_set};

use crate::protocol::event::Event;
use crate::protocol::path;

/// What a watch counts for beside its path, in bytes: its places in the tables.
pub const WATCH_LEN_BYTES: usize = 144;

/// Modes of a watch: a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Modes(u8);

impl Modes {
    /// Fires once.
    pub(super) const STANDARD: Self = Self(1);
    /// Stays.
    pub(super) const PERSISTENT: Self = Self(2);
    /// Stays, and covers all descendants.
    pub(super) const RECURSIVE: Self = Self(4);
    pub(super) const ANY: Self = Self(7);

    fn contains_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Which of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Data,
    Child,
}

#[derive(Debug)]
struct Watcher {
    slot: u32,
    modes: Modes,
}

/// Who has heard of the present event. Nobody hears of it twice.
#[derive(Debug, Default)]
struct Notified {
    /// By slot: the number of the last event heard of.
    last: Vec<u64>,
    event: u64,
}

impl Notified {
    fn begin(&mut self) {
        self.event += 1;
    }

    /// Whether it is news for `slot`.
    fn is_news(&mut self, slot: u32) -> bool {
        let at = slot as usize;
        if self.last.len() <= at {
            self.last.resize(at + 1, 0);
        }
        std::mem::replace(&mut self.last[at], self.event) != self.event
    }
}

/// One table. Connections are named by their slot.
#[derive(Debug, Default)]
pub(super) struct WatchTable {
    by_path: HashMap<Arc<str>, Vec<Watcher>>,
    by_slot: HashMap<u32, Watching>,
    /// Recursive watches of the table; while there are none, ancestors are not looked at.
    recursive: usize,
    len: usize,
    /// Bytes of all entries. A path is counted for each connection that watches it, though it is
    /// kept once.
    len_bytes: usize,
    /// Connections that have ended and watched so much that it is cleared away in pieces: in `by_path`
    /// only there may be something of them. It counts nothing, and nobody hears of it.
    ended: HashSet<u32>,
    /// What of theirs is left in `by_path`.
    litter: Vec<(u32, hash_set::IntoIter<Arc<str>>)>,
}

/// With this many paths or fewer what a connection watches is removed at once.
const PATHS_AT_ONCE_MAX: usize = 1000;

/// What one connection watches.
#[derive(Debug, Default)]
struct Watching {
    paths: HashSet<Arc<str>>,
    len_bytes: usize,
}

fn entry_len_bytes(path: &str) -> usize {
    path.len() + WATCH_LEN_BYTES
}

impl WatchTable {
    fn add(&mut self, slot: u32, path: &str, modes: Modes) {
        // Looked up on the side that is short where many watch one path.
        if self.by_slot.get(&slot).is_some_and(|watching| watching.paths.contains(path))
            && let Some(watchers) = self.by_path.get_mut(path)
            && let Some(watcher) = watchers.iter_mut().find(|w| w.slot == slot)
        {
            let present = &mut watcher.modes;
            if modes.contains_any(Modes::RECURSIVE) && !present.contains_any(modes) {
                self.recursive += 1;
            }
            present.0 |= modes.0;
            return;
        }
        let path = match self.by_path.get_key_value(path) {
            Some((path, _)) => Arc::clone(path),
            None => path.into(),
        };
        let watching = self.by_slot.entry(slot).or_default();
        watching.len_bytes += entry_len_bytes(&path);
        self.len_bytes += entry_len_bytes(&path);
        watching.paths.insert(Arc::clone(&path));
        self.by_path.entry(path).or_default().push(Watcher { slot, modes });
        self.recursive += usize::from(modes.contains_any(Modes::RECURSIVE));
        self.len += 1;
    }

    fn remove(&mut self, slot: u32, path: &str, modes: Modes) -> bool {
        let Some(watchers) = self.by_path.get_mut(path) else { return false };
        let Some(at) = watchers.iter().position(|w| w.slot == slot) else { return false };
        let watcher = &mut watchers[at];
        if !watcher.modes.contains_any(modes) {
            return false;
        }
        if watcher.modes.0 & modes.0 & Modes::RECURSIVE.0 != 0 {
            self.recursive -= 1;
        }
        watcher.modes.0 &= !modes.0;
        if watcher.modes.0 == 0 {
            watchers.remove(at);
            self.forget(slot, path);
        }
        true
    }

    /// The pair is gone from `by_path`; takes it out of everything else.
    fn forget(&mut self, slot: u32, path: &str) {
        self.len -= 1;
        self.len_bytes -= entry_len_bytes(path);
        if self.by_path.get(path).is_some_and(Vec::is_empty) {
            self.by_path.remove(path);
        }
        if let Some(watching) = self.by_slot.get_mut(&slot) {
            watching.paths.remove(path);
            watching.len_bytes -= entry_len_bytes(path);
            if watching.paths.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
    }

    fn remove_slot(&mut self, slot: u32) {
        let Some(watching) = self.by_slot.remove(&slot) else { return };
        self.len_bytes -= watching.len_bytes;
        self.len -= watching.paths.len();
        let at_once = watching.paths.len() <= PATHS_AT_ONCE_MAX;
        self.ended.insert(slot);
        self.litter.push((slot, watching.paths.into_iter()));
        if at_once {
            // It is the last, and so the first to be cleared away.
            self.sweep(PATHS_AT_ONCE_MAX + 1);
        }
    }

    /// Clears away up to so many entries of connections that have ended, the latest first.
    fn sweep(&mut self, count: usize) {
        let mut count = count;
        while let Some((slot, paths)) = self.litter.last_mut() {
            for path in paths.by_ref().take(count) {
                count -= 1;
                let Some(watchers) = self.by_path.get_mut(&path) else { continue };
                if let Some(at) = watchers.iter().position(|w| w.slot == *slot) {
                    let watcher = watchers.remove(at);
                    self.recursive -= usize::from(watcher.modes.contains_any(Modes::RECURSIVE));
                }
                if watchers.is_empty() {
                    self.by_path.remove(&path);
                }
            }
            if paths.len() > 0 {
                return;
            }
            self.ended.remove(slot);
            self.litter.pop();
        }
    }

    fn has(&self, slot: u32, path: &str, modes: Modes) -> bool {
        self.by_path
            .get(path)
            .is_some_and(|ws| ws.iter().any(|w| w.slot == slot && w.modes.contains_any(modes)))
    }

    /// Adds to `hit` who is to hear of an event on `path`; standard watches are used up.
    fn trigger(&mut self, path: &str, event: Event, told: &mut Notified, hit: &mut Vec<u32>) {
        let mut used = Vec::new();
        if let Some(watchers) = self.by_path.get_mut(path) {
            for watcher in watchers.iter_mut().filter(|w| !self.ended.contains(&w.slot)) {
                if told.is_news(watcher.slot) {
                    hit.push(watcher.slot);
                }
                watcher.modes.0 &= !Modes::STANDARD.0;
                if watcher.modes.0 == 0 {
                    used.push(watcher.slot);
                }
            }
            watchers.retain(|w| w.modes.0 != 0);
        }
        for slot in used {
            self.forget(slot, path);
        }
        if self.recursive > 0 && event != Event::ChildrenChanged {
            for ancestor in path::ancestors(path) {
                let watchers = self.by_path.get(ancestor).map(Vec::as_slice).unwrap_or_default();
                let live = |w: &&Watcher| !self.ended.contains(&w.slot);
                let recursive = |w: &&Watcher| w.modes.contains_any(Modes::RECURSIVE);
                for watcher in watchers.iter().filter(recursive).filter(live) {
                    if told.is_news(watcher.slot) {
                        hit.push(watcher.slot);
                    }
                }
            }
        }
    }

    /// Entries: pairs of connection and path.
    fn len(&self) -> usize {
        self.len
    }

    fn len_bytes_of(&self, slot: u32) -> usize {
        self.by_slot.get(&slot).map_or(0, |watching| watching.len_bytes)
    }

    /// Watched paths.
    fn paths(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = u32>)> {
        let live = |slot: &u32| !self.ended.contains(slot);
        self.by_path
            .iter()
            .filter(move |(_, ws)| self.ended.is_empty() || ws.iter().any(|w| live(&w.slot)))
            .map(move |(path, ws)| (&**path, ws.iter().map(|w| w.slot).filter(live)))
    }

    /// Connections that watch, and their paths.
    fn slots(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = &str>)> {
        self.by_slot
            .iter()
            .map(|(slot, watching)| (*slot, watching.paths.iter().map(|path| &**path)))
    }
}

/// Data watches, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchSummary {
    /// Connections that have any.
    pub connections: usize,
    /// Paths that have any.
    pub paths: usize,
    /// All.
    pub watches: usize,
}

/// Both tables.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    data: WatchTable,
    pub(super) child: WatchTable,
    told: Notified,
    /// Who hears of the last event; used again and again.
    hit: Vec<u32>,
}

impl Watches {
    fn table(&mut self, kind: Kind) -> &mut WatchTable {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Child => &mut self.child,
        }
    }

    /// A standard watch, as reads and setWatches set it.
    pub(crate) fn add_standard(&mut self, kind: Kind, slot: u32, path: &str) {
        self.table(kind).add(slot, path, Modes::STANDARD);
    }

    /// addWatch mode 0.
    pub(crate) fn add_persistent(&mut self, slot: u32, path: &str) {
        self.data.add(slot, path, Modes::PERSISTENT);
        self.child.add(slot, path, Modes::PERSISTENT);
    }

    /// addWatch mode 1.
    pub(crate) fn add_recursive(&mut self, slot: u32, path: &str) {
        self.data.add(slot, path, Modes::RECURSIVE);
    }

    /// The tables and modes that a watcher type of checkWatches and removeWatches means.
    fn selection(watcher_type: i32) -> Option<(&'static [Kind], Modes)> {
        Some(match watcher_type {
            1 => (&[Kind::Child], Modes::STANDARD),
            2 => (&[Kind::Data], Modes::STANDARD),
            3 => (&[Kind::Data, Kind::Child], Modes::ANY),
            4 => (&[Kind::Data, Kind::Child], Modes::PERSISTENT),
            5 => (&[Kind::Data, Kind::Child], Modes::RECURSIVE),
            _ => return None,
        })
    }

    /// checkWatches; `None`: no such watcher type.
    pub(crate) fn has(&mut self, slot: u32, path: &str, watcher_type: i32) -> Option<bool> {
        let (kinds, modes) = Self::selection(watcher_type)?;
        Some(kinds.iter().any(|kind| self.table(*kind).has(slot, path, modes)))
    }

    /// removeWatches: whether there was one; `None`: no such watcher type.
    pub(crate) fn remove(&mut self, slot: u32, path: &str, watcher_type: i32) -> Option<bool> {
        let (kinds, modes) = Self::selection(watcher_type)?;
        let mut removed = false;
        for kind in kinds {
            removed |= self.table(*kind).remove(slot, path, modes);
        }
        Some(removed)
    }

    /// A connection ended. Its slot may be another's when it [is free](Self::is_free).
    pub(crate) fn remove_slot(&mut self, slot: u32) {
        self.data.remove_slot(slot);
        self.child.remove_slot(slot);
    }

    /// Whether nothing is left of who was in this slot before.
    pub(crate) fn is_free(&self, slot: u32) -> bool {
        !self.data.ended.contains(&slot) && !self.child.ended.contains(&slot)
    }

    /// Clears away up to so many entries, in each table, of connections that have ended.
    pub(crate) fn sweep(&mut self, count: usize) {
        self.data.sweep(count);
        self.child.sweep(count);
    }

    /// Whether there is something to [`sweep`](Self::sweep).
    pub(crate) fn is_littered(&self) -> bool {
        !self.data.litter.is_empty() || !self.child.litter.is_empty()
    }

    /// Data watches, as numbers.
    pub(crate) fn summary(&self) -> WatchSummary {
        let (connections, paths) = (self.data.by_slot.len(), self.data.paths().count());
        WatchSummary { connections, paths, watches: self.data.len() }
    }

    /// Data watches: connections and paths.
    pub(crate) fn of_data(&self) -> impl Iterator<Item = (u32, &str)> {
        self.data.slots().flat_map(|(slot, paths)| paths.map(move |path| (slot, path)))
    }

    /// Entries in both tables.
    pub(crate) fn len(&self) -> usize {
        self.data.len() + self.child.len()
    }

    /// Bytes of the entries in both tables.
    pub(crate) fn len_bytes(&self) -> usize {
        self.data.len_bytes + self.child.len_bytes
    }

    /// Bytes of one connection's entries.
    pub(crate) fn len_bytes_of(&self, slot: u32) -> usize {
        self.data.len_bytes_of(slot) + self.child.len_bytes_of(slot)
    }

    /// The connections that hear of an event on `path`.
    ///
    /// A deletion goes through the child table too, but nobody hears of it twice.
    pub(crate) fn trigger(&mut self, path: &str, event: Event) -> &[u32] {
        self.hit.clear();
        if self.len() == 0 {
            return &[];
        }
        self.told.begin();
        let Self { data, child, told, hit } = self;
        match event {
            Event::ChildrenChanged => child.trigger(path, event, told, hit),
            Event::Created | Event::DataChanged => data.trigger(path, event, told, hit),
            Event::Deleted => {
                data.trigger(path, event, told, hit);
                child.trigger(path, event, told, hit);
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(watches: &mut Watches, path: &str, event: Event) -> Vec<u32> {
        watches.trigger(path, event).to_vec()
    }

    /// What a connection with very many watches leaves behind is cleared away in pieces, and nobody can
    /// tell.
    #[test]
    fn what_ended_connections_leave_counts_nothing() {
        let mut watches = Watches::default();
        let path = |n: usize| format!("/p{n}");
        let count = 2 * PATHS_AT_ONCE_MAX;
        for slot in [1, 2] {
            (0..count).for_each(|n| watches.add_persistent(slot, &path(n)));
        }
        watches.add_recursive(1, "/");
        watches.add_standard(Kind::Data, 3, &path(0));
        let (len, len_bytes) = (watches.len(), watches.len_bytes_of(1));
        let all = watches.len_bytes();
        watches.remove_slot(1);
        assert_eq!((watches.len(), watches.len_bytes()), (len - 2 * count - 1, all - len_bytes));
        assert!(!watches.is_free(1) && watches.is_free(2));
        let mut rounds = 0;
        while watches.is_littered() {
            assert_eq!(watches.len_bytes_of(1), 0);
            let mut heard = fire(&mut watches, &path(rounds), Event::DataChanged);
            heard.sort_unstable();
            assert_eq!(heard, if rounds == 0 { vec![2, 3] } else { vec![2] });
            assert!(watches.data.paths().all(|(_, slots)| slots.eq([2])));
            watches.sweep(100);
            rounds += 1;
        }
        assert_eq!(rounds, count / 100 + 1, "the last entry is the one above 2,000");
        assert!(watches.is_free(1));
        assert_eq!(watches.data.recursive, 0);
        watches.add_standard(Kind::Data, 1, "/new");
        watches.remove_slot(2);
        watches.remove_slot(1);
        assert!(watches.is_free(1), "few are removed at once");
        watches.sweep(usize::MAX);
        assert!(watches.data.by_path.is_empty() && watches.child.by_path.is_empty());
        assert_eq!((watches.len(), watches.len_bytes()), (0, 0));
    }

    #[test]
    fn standard_watches_fire_once() {
        let mut watches = Watches::default();
        watches.add_standard(Kind::Data, 1, "/a");
        watches.add_standard(Kind::Data, 1, "/a");
        watches.add_standard(Kind::Data, 2, "/a");
        assert_eq!(watches.len(), 2);
        assert_eq!(fire(&mut watches, "/a", Event::ChildrenChanged), [0_u32; 0]);
        assert_eq!(fire(&mut watches, "/a", Event::DataChanged), [1, 2]);
        assert_eq!(fire(&mut watches, "/a", Event::DataChanged), [0_u32; 0]);
        assert_eq!(watches.len(), 0);
        assert!(watches.data.by_slot.is_empty() && watches.data.by_path.is_empty());
    }

    #[test]
    fn deletion_is_heard_once_but_uses_up_both() {
        let mut watches = Watches::default();
        watches.add_standard(Kind::Data, 1, "/a");
        watches.add_standard(Kind::Child, 1, "/a");
        watches.add_standard(Kind::Child, 2, "/a");
        assert_eq!(fire(&mut watches, "/a", Event::Deleted), [1, 2]);
        assert_eq!(watches.len(), 0);
    }

    /// With a step for each pair of watchers this would be hundreds of millions of steps.
    #[test]
    fn twenty_thousand_watchers_of_one_node() {
        let mut watches = Watches::default();
        let all: Vec<u32> = (0..20_000).collect();
        for slot in all.iter().copied() {
            watches.add_standard(Kind::Data, slot, "/a");
            watches.add_standard(Kind::Child, slot, "/a");
            watches.add_recursive(slot, "/");
        }
        assert_eq!(fire(&mut watches, "/a", Event::Deleted), all);
        assert_eq!(fire(&mut watches, "/a", Event::Created), all);
        assert_eq!(watches.len(), all.len());
    }

    #[test]
    fn modes_are_independent() {
        let mut watches = Watches::default();
        watches.add_persistent(1, "/a");
        watches.add_standard(Kind::Data, 1, "/a");
        assert_eq!(watches.has(1, "/a", 2), Some(true));
        assert_eq!(fire(&mut watches, "/a", Event::DataChanged), [1]);
        assert_eq!(watches.has(1, "/a", 2), Some(false));
        assert_eq!(watches.has(1, "/a", 4), Some(true));
        assert_eq!(fire(&mut watches, "/a", Event::DataChanged), [1]);
        assert_eq!(watches.remove(1, "/a", 4), Some(true));
        assert_eq!(watches.remove(1, "/a", 4), Some(false));
        assert_eq!(watches.remove(1, "/a", 6), None);
        assert_eq!(watches.len(), 0);
    }

    #[test]
    fn recursive_watches_cover_descendants_but_not_children_changed() {
        let mut watches = Watches::default();
        watches.add_recursive(1, "/");
        watches.add_recursive(1, "/a");
        assert_eq!(fire(&mut watches, "/a/b/c", Event::Created), [1]);
        assert_eq!(fire(&mut watches, "/a", Event::Deleted), [1]);
        assert_eq!(fire(&mut watches, "/", Event::DataChanged), [1]);
        assert_eq!(fire(&mut watches, "/a", Event::ChildrenChanged), [0_u32; 0]);
        watches.remove_slot(1);
        assert_eq!(watches.data.recursive, 0);
        assert_eq!(fire(&mut watches, "/a", Event::Deleted), [0_u32; 0]);
    }
}
