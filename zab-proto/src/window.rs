//! The window: the recent part of the history, each transaction's bytes stored once.
//!
//! Entries are named by an index that rises by one per transaction for as long as the process
//! lives; everyone else (storage, delivery, each learner's sender) holds such positions. Bytes lie
//! in chunks that are recycled, so a steady flow of transactions allocates nothing.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::{Ticket, Zxid};

/// Position of a transaction. Indices are not reused, except those cut off by a truncation.
pub(crate) type Index = u64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    zxid: Zxid,
    chunk: u64,
    start: u32,
    len: u32,
    ticket: Ticket,
}

/// A contiguous range of the history.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Index of the first entry.
    first: Index,
    /// The zxid before the first entry.
    base: Zxid,
    chunks: VecDeque<Vec<u8>>,
    /// Number of the first chunk.
    first_chunk: u64,
    spare: Vec<Vec<u8>>,
    len_bytes: usize,
}

impl Window {
    pub(crate) fn new(base: Zxid) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            base,
            chunks: VecDeque::new(),
            first_chunk: 0,
            spare: Vec::new(),
            len_bytes: 0,
        }
    }

    /// Index of the oldest entry.
    pub(crate) fn first(&self) -> Index {
        self.first
    }

    /// Index that the next entry will get.
    pub(crate) fn end(&self) -> Index {
        self.first + self.entries.len() as u64
    }

    /// The zxid right before the oldest entry.
    pub(crate) fn base(&self) -> Zxid {
        self.base
    }

    /// The newest zxid.
    pub(crate) fn last(&self) -> Zxid {
        self.entries.back().map_or(self.base, |entry| entry.zxid)
    }

    /// Payload bytes held.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Adds the next transaction.
    pub(crate) fn push(&mut self, zxid: Zxid, txn: &[u8]) {
        let fits = self.chunks.back().is_some_and(|c| c.capacity() - c.len() >= txn.len());
        if !fits {
            let chunk = match self.spare.pop() {
                Some(chunk) if txn.len() <= CHUNK_LEN => chunk,
                spare => {
                    self.spare.extend(spare);
                    Vec::with_capacity(txn.len().max(CHUNK_LEN))
                }
            };
            self.chunks.push_back(chunk);
        }
        let number = self.first_chunk + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("one was just added");
        let start = u32::try_from(chunk.len()).expect("chunks are far below 4 GiB");
        let len = u32::try_from(txn.len()).expect("frames are far below 4 GiB");
        chunk.extend_from_slice(txn);
        self.entries.push_back(Entry { zxid, chunk: number, start, len, ticket: Ticket(0) });
        self.len_bytes += txn.len();
    }

    fn entry(&self, index: Index) -> &Entry {
        &self.entries[Self::offset(self.first, index)]
    }

    fn offset(first: Index, index: Index) -> usize {
        usize::try_from(index - first).expect("an index of a live entry")
    }

    /// The zxid at `index`, or the base for the index before the first.
    pub(crate) fn zxid(&self, index: Index) -> Zxid {
        self.entry(index).zxid
    }

    /// The zxid before `index`.
    pub(crate) fn zxid_before(&self, index: Index) -> Zxid {
        if index == self.first { self.base } else { self.zxid(index - 1) }
    }

    /// The payload at `index`.
    pub(crate) fn txn(&self, index: Index) -> &[u8] {
        let entry = self.entry(index);
        let chunk = Self::offset(self.first_chunk, entry.chunk);
        let start = entry.start as usize;
        &self.chunks[chunk][start..start + entry.len as usize]
    }

    /// The storage ticket given to `index`.
    pub(crate) fn ticket(&self, index: Index) -> Ticket {
        self.entry(index).ticket
    }

    pub(crate) fn set_ticket(&mut self, index: Index, ticket: Ticket) {
        let at = Self::offset(self.first, index);
        self.entries[at].ticket = ticket;
    }

    /// The index of the first entry above `zxid`.
    pub(crate) fn after(&self, zxid: Zxid) -> Index {
        self.first + self.entries.partition_point(|entry| entry.zxid <= zxid) as u64
    }

    /// Whether the history up to exactly `zxid` is known: it is an entry, or the base.
    pub(crate) fn holds(&self, zxid: Zxid) -> bool {
        self.zxid_before(self.after(zxid).max(self.first)) == zxid && zxid >= self.base
    }

    /// Forgets entries below `index`.
    pub(crate) fn release(&mut self, index: Index) {
        while self.first < index {
            let Some(entry) = self.entries.pop_front() else { return };
            self.base = entry.zxid;
            self.first += 1;
            self.len_bytes -= entry.len as usize;
        }
        let needed = self.entries.front().map_or(u64::MAX, |entry| entry.chunk);
        // The chunk being filled stays even when empty of live entries.
        while self.chunks.len() > 1 && self.first_chunk < needed {
            let chunk = self.chunks.pop_front().expect("more than one");
            self.first_chunk += 1;
            self.recycle(chunk);
        }
    }

    /// Cuts off entries from `index` on.
    pub(crate) fn truncate(&mut self, index: Index) {
        while self.end() > index {
            let Some(entry) = self.entries.pop_back() else { return };
            self.len_bytes -= entry.len as usize;
            let chunk = Self::offset(self.first_chunk, entry.chunk);
            while self.chunks.len() > chunk + 1 {
                let spare = self.chunks.pop_back().expect("longer than the chunk's number");
                self.recycle(spare);
            }
            self.chunks[chunk].truncate(entry.start as usize);
        }
    }

    /// Forgets everything; the history is now `base`, and the next index stays what it was.
    pub(crate) fn clear(&mut self, base: Zxid) {
        let end = self.end();
        self.release(end);
        self.base = base;
    }

    fn recycle(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() == CHUNK_LEN && self.spare.len() < SPARE_MAX {
            chunk.clear();
            self.spare.push(chunk);
        }
    }
}

/// Large enough that recycling is rare, small enough for a server of a few MB.
const CHUNK_LEN: usize = 64 * 1024;

/// Chunks kept for reuse: 1 MiB.
const SPARE_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn z(counter: u32) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    #[test]
    fn entries_keep_their_bytes_while_chunks_come_and_go() {
        let mut window = Window::new(Zxid::ZERO);
        let txn =
            |i: u32| -> Vec<u8> { alloc::vec![i.to_be_bytes()[3]; 1 + (i as usize * 97) % 5000] };
        for i in 1..=2000 {
            window.push(z(i), &txn(i));
            if i > 100 {
                window.release(u64::from(i) - 100);
            }
            for live in window.first()..window.end() {
                let n = u32::try_from(live).unwrap() + 1;
                assert_eq!(window.zxid(live), z(n));
            }
            let oldest = u32::try_from(window.first()).unwrap() + 1;
            assert_eq!(window.txn(window.first()), txn(oldest));
            assert_eq!(window.txn(window.end() - 1), txn(i));
        }
        assert!(window.spare.len() <= SPARE_MAX);
        assert_eq!(window.base(), z(1900));
    }

    #[test]
    fn a_truncated_tail_can_be_written_again() {
        let mut window = Window::new(z(4));
        for i in 5..400 {
            window.push(z(i), &[7; 1000]);
        }
        window.truncate(window.after(z(9)));
        assert_eq!((window.last(), window.end()), (z(9), 5));
        assert!(
            window.holds(z(9)) && window.holds(z(4)) && !window.holds(z(10)) && !window.holds(z(3))
        );
        window.push(Zxid::new(Epoch(2), 1), b"new");
        assert_eq!(window.txn(5), b"new");
        assert_eq!(window.txn(4), [7; 1000]);
        window.clear(z(77));
        assert_eq!(
            (window.base(), window.last(), window.first(), window.end()),
            (z(77), z(77), 6, 6)
        );
    }
}
