//! The ACL cache: nodes share equal lists, named by keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BufMut;
use hashbrown::HashMap;
use zab_proto::wire::jute::BufMutExt;

use crate::auth::rules::Rules;
use crate::protocol::acl::{Acl, AclList, perms, write_acls};

/// Key of [(31, world, anyone)] for null lists and built-in nodes; never in the map.
const OPEN_KEY: i64 = -1;

/// Index into the cache; what a node holds instead of the eight bytes of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::state) struct AclSlot(u32);

impl AclSlot {
    /// The slot of [`OPEN_KEY`].
    pub(super) const OPEN: Self = Self(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Entry {
    key: i64,
    /// Nodes that use it. The open entry is not counted.
    uses: u64,
    /// The encoded entries, without their count. `None` while the list is not known.
    raw: Option<Box<[u8]>>,
    rules: Arc<Rules>,
}

/// ACL lists by key, with the number of nodes that use each.
///
/// Keys are local to a server. A key is dropped with its last use and never given again in the
/// same run, as in ZooKeeper's `ReferenceCountedACLCache`.
#[derive(Debug)]
pub(super) struct AclCache {
    entries: Vec<Entry>,
    vacant: Vec<AclSlot>,
    by_list: HashMap<Box<[u8]>, AclSlot>,
    by_key: BTreeMap<i64, AclSlot>,
    last_key: i64,
}

impl AclCache {
    pub(super) fn new() -> Self {
        let rules = Arc::new(Rules::new(&[Acl::world(perms::ALL)]));
        let open = Entry { key: OPEN_KEY, uses: 1, raw: None, rules };
        Self {
            entries: vec![open],
            vacant: Vec::new(),
            by_list: HashMap::new(),
            by_key: BTreeMap::new(),
            last_key: 0,
        }
    }

    /// Takes one use of a list.
    pub(super) fn take(&mut self, list: AclList<'_>) -> AclSlot {
        if list.is_null() {
            return AclSlot::OPEN;
        }
        let slot = match self.by_list.get(list.raw_entries()) {
            Some(&slot) => slot,
            None => self.insert(self.last_key + 1, Some(list)),
        };
        self.entries[slot.index()].uses += 1;
        slot
    }

    /// Gives one use back.
    pub(super) fn release(&mut self, slot: AclSlot) {
        if slot == AclSlot::OPEN {
            return;
        }
        let entry = &mut self.entries[slot.index()];
        entry.uses -= 1;
        if entry.uses == 0 {
            self.remove(slot);
        }
    }

    pub(super) fn rules(&self, slot: AclSlot) -> &Arc<Rules> {
        &self.entries[slot.index()].rules
    }

    pub(super) fn key(&self, slot: AclSlot) -> i64 {
        self.entries[slot.index()].key
    }

    /// Keys that nodes use although no list came with the snapshot.
    pub(super) fn placeholders(&self) -> impl Iterator<Item = i64> {
        self.lists().filter(|(_, entry)| entry.raw.is_none()).map(|(key, _)| key)
    }

    fn lists(&self) -> impl Iterator<Item = (i64, &Entry)> {
        self.by_key.iter().map(|(&key, &slot)| (key, &self.entries[slot.index()]))
    }

    /// Writes the map: every key that a node may name but [`OPEN_KEY`].
    pub(super) fn write(&self, out: &mut impl BufMut) {
        out.put_len(self.by_key.len());
        for (key, entry) in self.lists() {
            out.put_i64(key);
            write_acls(entry.rules.acls(), out);
        }
    }

    /// While loading: an entry of the map, not used yet.
    pub(super) fn load(&mut self, key: i64, list: AclList<'_>) {
        if key != OPEN_KEY && !self.by_key.contains_key(&key) {
            self.insert(key, Some(list));
        }
    }

    /// While loading: takes one use of a key, and makes a placeholder that grants nothing if the
    /// map did not have it (a fuzzy snapshot; replay supplies the list).
    pub(super) fn take_key(&mut self, key: i64) -> AclSlot {
        if key == OPEN_KEY {
            return AclSlot::OPEN;
        }
        let slot = match self.by_key.get(&key) {
            Some(&slot) => slot,
            None => self.insert(key, None),
        };
        self.entries[slot.index()].uses += 1;
        slot
    }

    /// After loading: drops what no node uses. A new tree has used key 1 already, so that one is
    /// not given either.
    pub(super) fn finish_load(&mut self) {
        let unused = |slot: &AclSlot| self.entries[slot.index()].uses == 0;
        let unused: Vec<AclSlot> = self.by_key.values().copied().filter(unused).collect();
        for slot in unused {
            self.remove(slot);
        }
        self.last_key = self.last_key.max(1);
    }

    fn insert(&mut self, key: i64, list: Option<AclList<'_>>) -> AclSlot {
        self.last_key = self.last_key.max(key);
        let (raw, rules): (Option<Box<[u8]>>, _) = match list {
            Some(list) => (Some(list.raw_entries().into()), Rules::read(list)),
            None => (None, Rules::new(&[Acl::world(0)])),
        };
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => AclSlot(u32::try_from(self.entries.len()).expect("fewer than 2^32 lists")),
        };
        if let Some(raw) = &raw {
            // Should two keys name one list, the later one is the one to share.
            self.by_list.insert(raw.clone(), slot);
        }
        self.by_key.insert(key, slot);
        let entry = Entry { key, uses: 0, raw, rules: Arc::new(rules) };
        if slot.index() == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[slot.index()] = entry;
        }
        slot
    }

    fn remove(&mut self, slot: AclSlot) {
        let nothing = Arc::clone(self.rules(AclSlot::OPEN));
        let entry = &mut self.entries[slot.index()];
        self.by_key.remove(&entry.key);
        if let Some(raw) = entry.raw.take()
            && self.by_list.get(&raw) == Some(&slot)
        {
            self.by_list.remove(&raw);
        }
        entry.rules = nothing;
        self.vacant.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use zab_proto::wire::jute::Reader;

    use super::*;

    fn encoded(acls: &[Acl]) -> Vec<u8> {
        let mut out = Vec::new();
        write_acls(acls, &mut out);
        out
    }

    fn list(bytes: &[u8]) -> AclList<'_> {
        AclList::read(&mut Reader::new(bytes)).unwrap()
    }

    #[test]
    fn keys_are_shared_counted_and_never_given_again() {
        let (a, b) = (encoded(&[Acl::world(1)]), encoded(&[Acl::world(2), Acl::world(1)]));
        let mut cache = AclCache::new();
        let first = cache.take(list(&a));
        assert_eq!(cache.take(list(&a)), first);
        let second = cache.take(list(&b));
        assert_eq!((cache.key(first), cache.key(second)), (1, 2));
        cache.release(first);
        assert_eq!(*cache.rules(first).acls(), [Acl::world(1)]);
        cache.release(first);
        let third = cache.take(list(&a));
        assert_eq!((third, cache.key(third)), (first, 3), "a slot is reused, a key is not");
        let open = cache.take(AclList::NULL);
        assert_eq!(cache.key(open), -1);
    }

    #[test]
    fn a_missing_key_is_held_by_a_list_that_grants_nothing() {
        let (a, empty) = (encoded(&[Acl::world(1)]), encoded(&[]));
        let mut cache = AclCache::new();
        cache.load(5, list(&a));
        cache.load(6, list(&empty));
        let (known, missing) = (cache.take_key(5), cache.take_key(9));
        cache.finish_load();
        assert_eq!(*cache.rules(known).acls(), [Acl::world(1)]);
        assert_eq!(*cache.rules(missing).acls(), [Acl::world(0)]);
        assert_eq!(cache.placeholders().collect::<Vec<_>>(), [9]);
        let next = cache.take(list(&empty));
        assert_eq!(cache.key(next), 10, "the unused key 6 was purged");
        cache.release(missing);
        assert_eq!(cache.placeholders().count(), 0);
    }
}
