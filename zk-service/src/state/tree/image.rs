//! Images of the tree as it was at one instant, written while transactions go on.
//!
//! An image walks the slab. A node that changes before the walk has reached it is written first,
//! in its old state; a bit per node remembers what is written. A node is never written before its
//! parent. The cost of an open image is proportional to what changes meanwhile.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;

use super::Tree;
use super::acl::AclCache;
use super::node::{Node, NodeId};

/// How many images may be open at a time.
pub(in crate::state) const LOCAL_IMAGES_MAX: usize = 8;

/// Bytes that an image produces ahead of what is asked for.
const PIECE_LEN_BYTES: usize = 64 << 10;

/// The open images, by slot.
#[derive(Debug, Default)]
pub(super) struct Images {
    slots: [Option<Box<Image>>; LOCAL_IMAGES_MAX],
    open: usize,
}

impl Images {
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    fn open(&mut self) -> impl Iterator<Item = &mut Image> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// A node comes into being, of which no open image must tell.
    pub(super) fn born(&mut self, id: NodeId) {
        if !self.is_empty() {
            self.open().for_each(|image| image.mark(id));
        }
    }

    #[cold]
    pub(super) fn preserve(&mut self, nodes: &[Node], acls: &AclCache, id: NodeId) {
        self.open().for_each(|image| image.write_with_ancestors(nodes, acls, id));
    }
}

#[derive(Debug)]
struct Image {
    /// One bit per place in the slab at the opening: written, or not to be written.
    written: Vec<u64>,
    /// Length of the slab at the opening.
    end: u32,
    /// Everything before is written.
    cursor: u32,
    /// What is written and not yet read, from `read` on.
    out: Vec<u8>,
    read: usize,
    finished: bool,
    /// Bytes of the longest node that was written.
    longest: usize,
}

impl Image {
    fn is_written(&self, id: NodeId) -> bool {
        id.0 >= self.end || self.written[id.index() / 64] >> (id.0 % 64) & 1 == 1
    }

    fn mark(&mut self, id: NodeId) {
        if id.0 < self.end {
            self.written[id.index() / 64] |= 1 << (id.0 % 64);
        }
    }

    fn write_with_ancestors(&mut self, nodes: &[Node], acls: &AclCache, id: NodeId) {
        if self.is_written(id) {
            return;
        }
        let parent = nodes[id.index()].parent;
        if parent == NodeId::NONE || self.is_written(parent) {
            self.write(nodes, acls, id);
            return;
        }
        // Above a written node all are written, so the path upwards ends at the first such one.
        let upwards = |&id: &NodeId| nodes[id.index()].parent.some();
        let missing: Vec<NodeId> = std::iter::successors(Some(id), upwards)
            .take_while(|&id| !self.is_written(id))
            .collect();
        for &id in missing.iter().rev() {
            self.write(nodes, acls, id);
        }
    }

    fn write(&mut self, nodes: &[Node], acls: &AclCache, id: NodeId) {
        let node = &nodes[id.index()];
        let begin = self.out.len();
        self.out.put_ustring(Some(&node.path));
        self.out.put_buffer(node.data.as_deref());
        self.out.put_i64(acls.key(node.acl));
        node.stat.write(&mut self.out);
        self.longest = self.longest.max(self.out.len() - begin);
        self.mark(id);
    }

    /// Walks on until a piece is ready or the walk has ended.
    fn refill(&mut self, nodes: &[Node], acls: &AclCache, want: usize) {
        self.out.clear();
        self.read = 0;
        while self.out.len() < want && self.cursor < self.end {
            let id = NodeId(self.cursor);
            if !nodes[id.index()].is_vacant(id) {
                self.write_with_ancestors(nodes, acls, id);
            }
            self.cursor += 1;
        }
        if self.cursor == self.end && !self.finished {
            self.out.put_ustring(Some("/"));
            self.finished = true;
        }
    }
}

impl Tree {
    /// Opens an image, to begin with `head` and the ACL map. `None` if too many are open.
    pub(in crate::state) fn image_open(&mut self, head: Vec<u8>) -> Option<usize> {
        let slot = self.images.slots.iter().position(Option::is_none)?;
        let mut out = head;
        self.acls.write(&mut out);
        let end = u32::try_from(self.nodes.len()).expect("nodes have 32-bit numbers");
        self.images.slots[slot] = Some(Box::new(Image {
            written: vec![0; self.nodes.len().div_ceil(64)],
            end,
            cursor: 0,
            out,
            read: 0,
            finished: false,
            longest: 0,
        }));
        self.images.open += 1;
        Some(slot)
    }

    /// Reads on in an image; 0 is its end, and the answer for a slot that is not open.
    pub(in crate::state) fn image_read(&mut self, slot: usize, buf: &mut [u8]) -> usize {
        let Self { images, nodes, acls, .. } = self;
        let Some(Some(image)) = images.slots.get_mut(slot) else { return 0 };
        let mut filled = 0;
        while filled < buf.len() {
            if image.read == image.out.len() {
                image.refill(nodes, acls, (buf.len() - filled).min(PIECE_LEN_BYTES));
                if image.out.is_empty() {
                    break;
                }
            }
            let ready = &image.out[image.read..];
            let len = ready.len().min(buf.len() - filled);
            buf[filled..][..len].copy_from_slice(&ready[..len]);
            image.read += len;
            filled += len;
        }
        filled
    }

    /// Bytes of the longest node that was written to an image so far.
    pub(in crate::state) fn image_longest(&self, slot: usize) -> usize {
        self.images.slots.get(slot).and_then(Option::as_deref).map_or(0, |image| image.longest)
    }

    /// Closes an image, finished or not.
    pub(in crate::state) fn image_close(&mut self, slot: usize) {
        if self.images.slots.get_mut(slot).and_then(Option::take).is_some() {
            self.images.open -= 1;
        }
    }
}
