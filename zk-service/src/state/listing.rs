//! Long lists of children, as replies have them.
//!
//! A node may have a million children, and hundreds of clients may ask for them at one time. Their list
//! is made in pieces that fit a turn, once for all who ask, and kept until one of the children is gone:
//! children are listed oldest first, so that one that comes is appended, also while the list is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zab_proto::Zxid;
use zab_proto::wire::jute::BufMutExt;

use crate::protocol::code::Code;
use crate::state::tree::{NodeId, NodeRef};

/// Shorter lists are made again each time.
pub(crate) const SHARED_COUNT_MIN: u32 = 2_000;
/// Lists that are kept, or made, at one time. Who asks for another one waits until one of these is done.
const LISTS_MAX: usize = 4;
/// Bytes of lists that are kept though nobody is being sent them. The latest one may be longer.
const IDLE_LEN_MAX_BYTES: usize = 16 << 20;
/// So often a list is begun again since a child was gone; then it is made in one piece.
const RESTARTS_MAX: u32 = 3;
/// A list that nobody has asked to go on with for so many requests for others is given up.
const PATIENCE: u64 = 4096;

/// An encoded `vector<ustring>`.
#[derive(Debug)]
pub(super) struct List {
    bytes: Vec<u8>,
    holders: AtomicUsize,
    /// Bytes of all lists that have holders.
    held: Arc<AtomicUsize>,
}

impl Clone for List {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), ..Self::new(&self.held) }
    }
}

/// One client's share of a list.
#[derive(Debug)]
pub(crate) struct Share(Arc<List>);

impl Share {
    fn new(list: &Arc<List>) -> Self {
        if list.holders.fetch_add(1, Ordering::Relaxed) == 0 {
            list.held.fetch_add(list.bytes.len(), Ordering::Relaxed);
        }
        Self(Arc::clone(list))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::new(&Arc::new(List { bytes: bytes.into(), ..List::new(&Arc::default()) }))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.0.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.held.fetch_sub(self.0.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// A list, as far as it is made, and of what.
#[derive(Debug)]
struct Entry {
    node: u32,
    /// Another node may be in its place.
    czxid: Zxid,
    /// Creations among the children, and children, when the list was gone on with last.
    cversion: i32,
    children: u32,
    list: Arc<List>,
    count: u32,
    /// The child that was listed last.
    last: Option<NodeId>,
    restarts: u32,
    used: u64,
}

/// How far one request may go on with a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// So many children are listed at most; `None`: all there are, at once.
    pub(crate) count_max: Option<u32>,
    /// Longest list, in bytes.
    pub(crate) len_max: usize,
}

/// The lists that are kept or made.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    entries: Vec<Entry>,
    held: Arc<AtomicUsize>,
    /// Requests so far.
    clock: u64,
}

impl Listings {
    /// Bytes to be sent to clients. A list counts once, however many there are.
    pub(crate) fn held_len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Forgets all lists: the tree is going to be another one.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The list of a node's children, or `None` if there is more to do: to be asked again. Counts the
    /// children listed in `listed`.
    ///
    /// # Errors
    /// [`Code::MARSHALLING_ERROR`] if it is too long.
    #[inline(never)]
    pub(crate) fn list(
        &mut self,
        node: NodeRef<'_>,
        piece: Piece,
        listed: &mut u32,
    ) -> Result<Option<Share>, Code> {
        self.clock += 1;
        let Some(at) = self.find_or_begin(node, piece.count_max.is_none()) else { return Ok(None) };
        let entry = &mut self.entries[at];
        entry.used = self.clock;
        entry.catch_up(node);
        let whole = piece.count_max.is_none() || entry.restarts > RESTARTS_MAX;
        let count_max = if whole { u32::MAX } else { piece.count_max.unwrap_or(u32::MAX) };
        let before = entry.count;
        let done = entry.go_on(node, count_max, piece.len_max);
        // Less is listed than before if it was begun again.
        *listed += entry.count.checked_sub(before).unwrap_or(entry.count);
        match done {
            Err(code) => {
                self.entries.swap_remove(at);
                Err(code)
            }
            Ok(false) => Ok(None),
            Ok(true) => {
                let share = Share::new(&entry.list);
                self.give_back(at);
                Ok(Some(share))
            }
        }
    }

    fn find_or_begin(&mut self, node: NodeRef<'_>, at_once: bool) -> Option<usize> {
        let (place, czxid) = (node.place(), node.persisted().czxid);
        if let Some(at) = self.entries.iter().position(|e| (e.node, e.czxid) == (place, czxid)) {
            return Some(at);
        }
        if self.entries.len() >= LISTS_MAX {
            // One that is done, or whose clients are gone, makes room.
            let clock = self.clock;
            let free = |entry: &Entry| entry.is_done() || clock - entry.used > PATIENCE || at_once;
            let oldest = (0..self.entries.len())
                .filter(|at| free(&self.entries[*at]))
                .min_by_key(|at| (!self.entries[*at].is_done(), self.entries[*at].used))?;
            self.entries.swap_remove(oldest);
        }
        self.entries.push(Entry::new(node, &self.held));
        Some(self.entries.len() - 1)
    }

    /// Keeps no more than is allowed of what is done, but for the list at `latest`.
    fn give_back(&mut self, latest: usize) {
        let latest = self.entries[latest].used;
        let is_done = |entry: &&Entry| entry.is_done();
        let len = |entry: &Entry| entry.list.bytes.len();
        while self.entries.iter().filter(is_done).map(len).sum::<usize>() > IDLE_LEN_MAX_BYTES
            && let Some(at) = (0..self.entries.len())
                .filter(|at| self.entries[*at].is_done() && self.entries[*at].used != latest)
                .min_by_key(|at| self.entries[*at].used)
        {
            self.entries.swap_remove(at);
        }
    }
}

impl Entry {
    fn new(node: NodeRef<'_>, held: &Arc<AtomicUsize>) -> Self {
        Self {
            node: node.place(),
            czxid: node.persisted().czxid,
            cversion: node.persisted().cversion,
            children: node.child_count(),
            list: Arc::new(List::new(held)),
            count: 0,
            last: None,
            restarts: 0,
            used: 0,
        }
    }

    /// Whether all children are listed that there were when it was asked for last.
    fn is_done(&self) -> bool {
        self.count == self.children
    }

    /// The node may have changed since: if children have only come, they are behind what is listed.
    fn catch_up(&mut self, node: NodeRef<'_>) {
        let (cversion, children) = (node.persisted().cversion, node.child_count());
        let created = i64::from(cversion) - i64::from(self.cversion);
        let more = i64::from(children) - i64::from(self.children);
        // The counter of creations stands still at its end.
        if created != more || cversion == i32::MAX {
            let restarts = if self.is_done() { 0 } else { self.restarts + 1 };
            *self = Self { restarts, ..Self::new(node, &self.list.held) };
        }
        (self.cversion, self.children) = (cversion, children);
    }

    /// Lists up to so many children more. Whether that is all.
    fn go_on(&mut self, node: NodeRef<'_>, count_max: u32, len_max: usize) -> Result<bool, Code> {
        if self.is_done() {
            return Ok(true);
        }
        // If others are being sent it as it was, this goes on with a copy.
        let bytes = &mut Arc::make_mut(&mut self.list).bytes;
        let mut children = node.children_after(self.last);
        for (id, name) in children.by_ref().take(count_max as usize) {
            bytes.put_ustring(Some(name));
            self.last = Some(id);
            self.count += 1;
            if bytes.len() > len_max {
                return Err(Code::MARSHALLING_ERROR);
            }
        }
        bytes[..4].copy_from_slice(&self.count.cast_signed().to_be_bytes());
        if !self.is_done() && children.next().is_none() {
            // What the numbers of the node say of its children is not so.
            *self = Self::new(node, &self.list.held);
            return self.go_on(node, node.child_count(), len_max);
        }
        Ok(self.is_done())
    }
}

impl List {
    fn new(held: &Arc<AtomicUsize>) -> Self {
        Self { bytes: vec![0; 4], holders: AtomicUsize::new(0), held: Arc::clone(held) }
    }
}
