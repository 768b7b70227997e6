//! What is done of a read that is answered in pieces.

use bytes::BufMut;
use zab_proto::Zxid;

/// How far the read at the head of a connection's queue has come.
#[derive(Debug, Default)]
pub(in crate::service) struct Progress {
    /// Of a setWatches.
    pub(super) rearming: Option<Rearming>,
    /// Of a read that shows one instant.
    pub(super) partial: Option<Box<Partial>>,
    /// The last transaction that this shows.
    zxid: Zxid,
}

/// How far the lists of a setWatches are worked through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rearming {
    /// The last zxid that the client has seen.
    pub(super) since: i64,
    /// The present list, and the paths that are left of it.
    pub(super) list: usize,
    pub(super) left: usize,
    /// Where in the record the next path is.
    pub(super) at: usize,
}

/// What is done of a read that shows one instant.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The body of the reply so far.
    pub(super) body: Vec<u8>,
    /// The list in hand.
    pub(super) list: Option<PartList>,
    /// Of a multiRead: whether its record is one, where in it the next part is, where in the body that is
    /// answered, and the work so far.
    pub(super) is_checked: bool,
    pub(super) at: usize,
    pub(super) part_at: usize,
    pub(super) work: u64,
}

/// A list in the body of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartList {
    /// Where it begins.
    start: usize,
    pub(super) count: i32,
    /// The place of the node that was listed last.
    pub(super) last: Option<u32>,
}

impl Progress {
    /// A piece is answered from the state after this transaction. Whether the read begins again, as the
    /// pieces before were of another one.
    pub(in crate::service) fn begins_again(&mut self, zxid: Zxid) -> bool {
        self.partial.take_if(|_| self.zxid != zxid).is_some()
    }

    /// What is done shows the state after this transaction.
    pub(super) fn set_aside(&mut self, partial: Option<Box<Partial>>, zxid: Zxid) {
        if partial.is_some() {
            self.partial = partial;
            self.zxid = zxid;
        }
    }

    /// Bytes that are kept.
    pub(in crate::service) fn len_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.body.capacity())
    }
}

impl Partial {
    /// The list in hand, or a new one at the end of the body.
    pub(super) fn begin_list(&mut self) -> PartList {
        self.list.take().unwrap_or_else(|| {
            let start = self.body.len();
            self.body.put_i32(0);
            PartList { start, count: 0, last: None }
        })
    }

    /// Returns how many bytes the list has.
    pub(super) fn end_list(&mut self, list: PartList) -> usize {
        self.body[list.start..list.start + 4].copy_from_slice(&list.count.to_be_bytes());
        self.body.len() - list.start
    }
}
