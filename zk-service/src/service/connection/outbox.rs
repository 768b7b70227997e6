//! What waits to be sent on a connection.

use std::collections::VecDeque;

use crate::state::listing::Share;

/// Buffers above this capacity are given back when they run empty: many connections are idle.
const KEPT_LEN_MAX_BYTES: usize = 4 << 10;
/// From here on a buffer that is half used up is moved to its front.
const COMPACT_LEN_BYTES: usize = 64 << 10;

/// A stream of bytes, with lists in it that other connections are sent, too.
#[derive(Debug, Default)]
pub(in crate::service) struct Outbox {
    bytes: Vec<u8>,
    /// What of them is sent.
    at: usize,
    /// Bytes that were in front of them.
    before: u64,
    lists: VecDeque<Attached>,
    /// Bytes of the lists that are not sent.
    lists_len: usize,
    /// Bytes sent so far, of both.
    sent_len: u64,
}

/// A list in the stream.
#[derive(Debug)]
struct Attached {
    /// The bytes in front of it, lists aside.
    place: u64,
    list: Share,
    at: usize,
}

impl Outbox {
    /// Where more bytes are appended.
    pub(in crate::service) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Inserts a list in front of the byte at `index` of the [buffer](Self::buffer), after all other
    /// lists.
    pub(in crate::service) fn attach(&mut self, index: usize, list: Share) {
        let place = self.before + index as u64;
        self.lists_len += list.bytes().len();
        self.lists.push_back(Attached { place, list, at: 0 });
    }

    /// Bytes not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.bytes.len() - self.at + self.lists_len
    }

    /// Bytes sent so far.
    pub(super) fn sent_len(&self) -> u64 {
        self.sent_len
    }

    /// Bytes that are kept for this connection alone.
    pub(super) fn own_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of lists that others may be sent, too.
    pub(super) fn lists_len(&self) -> usize {
        self.lists_len
    }

    /// Moves what comes next to `buf`; returns how many bytes.
    pub(super) fn send(&mut self, buf: &mut [u8]) -> usize {
        let mut len = 0;
        while len < buf.len() {
            let moved = self.move_next(&mut buf[len..]);
            if moved == 0 {
                break;
            }
            len += moved;
        }
        self.before += compact(&mut self.bytes, &mut self.at) as u64;
        self.sent_len += len as u64;
        len
    }

    fn move_next(&mut self, buf: &mut [u8]) -> usize {
        let sent = self.before + self.at as u64;
        let Some(next) = self.lists.front_mut() else {
            let n = copy(&self.bytes[self.at..], buf);
            self.at += n;
            return n;
        };
        let ahead = usize::try_from(next.place - sent).unwrap_or(usize::MAX);
        if ahead > 0 {
            let n = copy(&self.bytes[self.at..self.at + ahead], buf);
            self.at += n;
            return n;
        }
        let n = copy(&next.list.bytes()[next.at..], buf);
        next.at += n;
        self.lists_len -= n;
        if next.at == next.list.bytes().len() {
            self.lists.pop_front();
        }
        n
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}

/// Gives back what a buffer holds before `at`, if that is worth it. Returns how much that was.
pub(super) fn compact(buffer: &mut Vec<u8>, at: &mut usize) -> usize {
    if *at == buffer.len() {
        if buffer.capacity() > KEPT_LEN_MAX_BYTES {
            *buffer = Vec::new();
        }
        buffer.clear();
    } else if *at > COMPACT_LEN_BYTES && *at > buffer.len() / 2 {
        buffer.drain(..*at);
    } else {
        return 0;
    }
    std::mem::take(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_where_they_were_put() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        let list: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut got = Vec::new();
        let mut piece = [0; 777];
        for n in 0..200_u32 {
            // A header, a list, and what follows it.
            let head = outbox.buffer().len();
            outbox.buffer().extend_from_slice(&[1; 20]);
            outbox.buffer().extend_from_slice(&n.to_be_bytes());
            expected.extend_from_slice(&[1; 20]);
            if n % 3 != 0 {
                outbox.attach(head + 20, Share::of(&list[..n as usize * 7]));
                expected.extend_from_slice(&list[..n as usize * 7]);
            }
            expected.extend_from_slice(&n.to_be_bytes());
            assert_eq!(outbox.unsent(), expected.len() - got.len());
            for _ in 0..n % 5 {
                let len = outbox.send(&mut piece);
                got.extend_from_slice(&piece[..len]);
            }
        }
        while outbox.unsent() > 0 {
            let len = outbox.send(&mut piece);
            assert!(len > 0);
            got.extend_from_slice(&piece[..len]);
        }
        assert!(got == expected);
        assert_eq!(outbox.sent_len(), expected.len() as u64);
        assert_eq!((outbox.own_len(), outbox.lists_len(), outbox.send(&mut piece)), (0, 0, 0));
    }
}
