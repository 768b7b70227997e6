//! Requests that are answered from the local tree.

mod rearm;

use std::borrow::Cow;

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

use crate::auth::{Access, Judge, user_name};
use crate::cost;
use crate::options::Bounds;
use crate::protocol::acl::perms;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, sync_op, write_op};
use crate::protocol::reply;
use crate::protocol::request::{MultiHeader, RawPath, path};
use crate::state::listing::{Listings, Piece, SHARED_COUNT_MIN, Share};
use crate::state::tree::{NodeRef, Stat, Tree};
use crate::state::watch::{Kind, Watches};

/// What a read may look at.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    tree: &'a Tree,
    judge: Judge<'a>,
    watches: &'a mut Watches,
    /// The connection, as the watches know it.
    slot: u32,
    session: i64,
    /// Bytes of watches at which nothing is added any more.
    watches_len_max: usize,
    listings: &'a mut Listings,
    /// How much of a long list may be made now.
    piece: Piece,
    /// Work that may be done now, of what can be done in pieces.
    piece_work: u64,
    /// Where the list of children is that the body of the reply begins with.
    list: Listed,
    bounds: Bounds,
    /// Where the body of the reply begins.
    body_at: usize,
    /// What it took, beside the bytes of the reply.
    work: u64,
}

/// A list that a reply begins with.
#[derive(Debug, Default)]
pub(crate) enum Listed {
    /// In the body like all else, if there is one.
    #[default]
    Here,
    /// Others may be sent it, too.
    Shared(Share),
    /// It, or something else, takes longer: there is no reply yet.
    NotYet,
}

impl From<DecodeError> for Code {
    fn from(_: DecodeError) -> Self {
        Self::MARSHALLING_ERROR
    }
}

impl<'a> Reading<'a> {
    /// A read, of a client whose ephemerals are those of `session`. `watching`: the watches, the connection as these know it,
    /// and the bytes of watches at which it adds none any more. `lists`: those that are made, and the
    /// work that may be done now on what can be done in pieces.
    pub(crate) fn new(
        tree: &'a Tree,
        judge: Judge<'a>,
        session: i64,
        watching: (&'a mut Watches, u32, usize),
        lists: (&'a mut Listings, u64),
        bounds: Bounds,
    ) -> Self {
        let (watches, slot, watches_len_max) = watching;
        let (listings, piece_work) = lists;
        Self {
            tree,
            judge,
            watches,
            slot,
            session,
            watches_len_max,
            listings,
            piece: Piece { count_max: cost::children(piece_work), len_max: bounds.len },
            piece_work,
            list: Listed::Here,
            bounds,
            body_at: 0,
            work: 0,
        }
    }

    /// What it took, beside the bytes of the reply, and where the list is that its body begins with.
    pub(crate) fn finish(mut self) -> (u64, Listed) {
        (self.work + self.judge.take_work(), self.list)
    }

    /// Answers a read: appends the body of its reply to `out`, where it begins at `body_at`.
    pub(crate) fn answer(
        &mut self,
        (op, record): (Opcode, &[u8]),
        out: &mut Vec<u8>,
        body_at: usize,
    ) -> Result<(), Code> {
        self.body_at = body_at;
        let mut reader = Reader::new(record);
        let reader = &mut reader;
        match op {
            Opcode::Ping | Opcode::SetWatches | Opcode::SetWatches2 => Ok(()),
            Opcode::Exists => self.exists(RawPath::read(reader)?, reader.bool()?, out),
            Opcode::GetData => {
                let (path, watch) = (RawPath::read(reader)?, reader.bool()?);
                self.get_data(path, out)?;
                self.watch(Kind::Data, path, watch);
                Ok(())
            }
            Opcode::GetChildren | Opcode::GetChildren2 => {
                let (path, watch) = (RawPath::read(reader)?, reader.bool()?);
                let node = self.list_children(path, out)?;
                if matches!(self.list, Listed::NotYet) {
                    return Ok(());
                }
                if op == Opcode::GetChildren2 {
                    node.stat().write(out);
                }
                self.watch(Kind::Child, path, watch);
                Ok(())
            }
            Opcode::GetAcl => self.get_acl(RawPath::read(reader)?, out),
            Opcode::GetAllChildrenNumber => {
                let node = self.readable(RawPath::read(reader)?)?;
                out.put_i32(node.descendant_count().cast_signed());
                Ok(())
            }
            Opcode::GetEphemerals => {
                let prefix = reader.string()?.unwrap_or_default();
                self.get_ephemerals(&prefix, out)
            }
            Opcode::WhoAmI => {
                self.who_am_i(out);
                Ok(())
            }
            Opcode::AddWatch => self.add_watch(reader.string()?.as_deref(), reader.i32()?, out),
            Opcode::CheckWatches | Opcode::RemoveWatches => {
                let path = if op == Opcode::CheckWatches {
                    path(reader)?
                } else {
                    // Nobody watches null.
                    reader.string()?.unwrap_or_default()
                };
                let watcher_type = reader.i32()?;
                let had = if op == Opcode::CheckWatches {
                    self.watches.has(self.slot, &path, watcher_type)
                } else {
                    self.watches.remove(self.slot, &path, watcher_type)
                };
                match had {
                    None => Err(Code::MARSHALLING_ERROR),
                    Some(false) => Err(Code::NO_WATCHER),
                    Some(true) => Ok(()),
                }
            }
            Opcode::MultiRead => self.multi_read(record, out),
            write_op!() | sync_op!() | auth_op!() | internal_op!() => Err(Code::UNIMPLEMENTED),
        }
    }

    /// Whether the connection watches more than it may, and is about to be closed.
    fn watches_too_much(&self) -> bool {
        self.watches.len_bytes_of(self.slot) > self.watches_len_max
    }

    /// Refuses `more` bytes that would make the reply too long. It cannot be encoded, as it were.
    fn check_len(&self, out: &[u8], more: usize) -> Result<(), Code> {
        let len = out.len() - self.body_at + more;
        if len <= self.bounds.len { Ok(()) } else { Err(Code::MARSHALLING_ERROR) }
    }

    fn watch(&mut self, kind: Kind, path: RawPath<'_>, wanted: bool) {
        if wanted && !self.watches_too_much() {
            self.work += cost::WATCH;
            self.watches.add_standard(kind, self.slot, &path.text());
        }
    }

    /// A watch on null is none: there is nothing to tell of.
    fn watch_persistently(&mut self, path: Option<&str>, recursively: bool) {
        let Some(path) = path.filter(|_| !self.watches_too_much()) else { return };
        self.work += cost::WATCH;
        if recursively {
            self.watches.add_recursive(self.slot, path);
        } else {
            self.watches.add_persistent(self.slot, path);
        }
    }

    /// The node at a path. Nodes' paths are text, so that whether one is text is asked only if there is
    /// no node with its bytes.
    fn node(&self, path: RawPath<'_>) -> Result<NodeRef<'a>, Code> {
        let found = self.tree.node_of_bytes(path.0).or_else(|| match path.text() {
            Cow::Owned(mended) => self.tree.node(&mended),
            Cow::Borrowed(_) => None,
        });
        found.ok_or(Code::NO_NODE)
    }

    /// A node that the requester may read.
    fn readable(&mut self, path: RawPath<'_>) -> Result<NodeRef<'a>, Code> {
        self.work += cost::NODE;
        let node = self.node(path)?;
        if self.judge.permits(node.rules(), perms::READ) { Ok(node) } else { Err(Code::NO_AUTH) }
    }

    fn exists(&mut self, path: RawPath<'_>, watch: bool, out: &mut Vec<u8>) -> Result<(), Code> {
        if path.0.contains(&0) {
            return Err(Code::BAD_ARGUMENTS);
        }
        let found = self.readable(path);
        if !matches!(found, Err(Code::NO_AUTH)) {
            self.watch(Kind::Data, path, watch);
        }
        found?.stat().write(out);
        Ok(())
    }

    fn get_data(&mut self, path: RawPath<'_>, out: &mut Vec<u8>) -> Result<(), Code> {
        let node = self.readable(path)?;
        self.check_len(out, node.data().unwrap_or_default().len() + 4 + Stat::LEN)?;
        out.put_buffer(node.data());
        node.stat().write(out);
        Ok(())
    }

    fn list_children(&mut self, path: RawPath<'_>, out: &mut Vec<u8>) -> Result<NodeRef<'a>, Code> {
        let node = self.readable(path)?;
        if node.child_count() < SHARED_COUNT_MIN {
            self.put_children(node, out)?;
            return Ok(node);
        }
        let mut listed = 0;
        let list = self.listings.list(node, self.piece, &mut listed);
        self.work += cost::CHILD * u64::from(listed);
        self.list = list?.map_or(Listed::NotYet, Listed::Shared);
        Ok(node)
    }

    fn put_children(&mut self, node: NodeRef<'_>, out: &mut Vec<u8>) -> Result<(), Code> {
        out.put_i32(node.child_count().cast_signed());
        for name in node.children() {
            self.work += cost::CHILD;
            out.put_ustring(Some(name));
            self.check_len(out, 0)?;
        }
        Ok(())
    }

    fn get_acl(&mut self, path: RawPath<'_>, out: &mut Vec<u8>) -> Result<(), Code> {
        let node = self.node(path)?;
        if !self.judge.permits(node.rules(), perms::READ | perms::ADMIN) {
            return Err(Code::NO_AUTH);
        }
        let admin = self.judge.permits(node.rules(), perms::ADMIN);
        Access::show(node.acl(), admin, out);
        node.stat().write(out);
        Ok(())
    }

    fn get_ephemerals(&mut self, prefix: &str, out: &mut Vec<u8>) -> Result<(), Code> {
        let all = matches!(prefix.trim(), "" | "/");
        let at = out.len();
        out.put_i32(0);
        let mut count = 0_i32;
        for node in self.tree.ephemerals_of(self.session) {
            self.work += cost::NODE;
            if all || node.path().starts_with(prefix) {
                out.put_ustring(Some(node.path()));
                self.check_len(out, 0)?;
                count += 1;
            }
        }
        out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }

    fn who_am_i(&mut self, out: &mut Vec<u8>) {
        self.work += cost::parsed(self.judge.ids().len_bytes());
        out.put_len(self.judge.ids().iter().count());
        for (scheme, id) in self.judge.ids().iter() {
            out.put_ustring(Some(&scheme));
            out.put_ustring(Some(user_name(&scheme, &id)));
        }
    }

    fn add_watch(&mut self, path: Option<&str>, mode: i32, out: &mut Vec<u8>) -> Result<(), Code> {
        match mode {
            0 => self.watch_persistently(path, false),
            1 => self.watch_persistently(path, true),
            _ => return Err(Code::MARSHALLING_ERROR),
        }
        out.put_i32(0);
        Ok(())
    }

    /// Parts that make the reply too long, or that come after too much work, get a code: what comes
    /// after them may still fit. A part is shown as the tree is at one instant, and so are all.
    fn multi_read(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), Code> {
        let mut items = Vec::new();
        let mut reader = Reader::new(record);
        self.work += cost::parsed(record.len());
        loop {
            let header = MultiHeader::decode(&mut reader)?;
            if header.done {
                break;
            }
            let Some(op @ (Opcode::GetData | Opcode::GetChildren)) = Opcode::from_wire(header.op)
            else {
                return Err(Code::MARSHALLING_ERROR);
            };
            items.push((op, RawPath::read(&mut reader)?));
            reader.bool()?;
        }
        for (op, path) in items {
            let start = out.len();
            reply::multi_header(out, op.wire(), false, 0);
            self.work += self.judge.take_work();
            let result = if self.work + cost::bytes(start - self.body_at) > self.bounds.work {
                Err(Code::MARSHALLING_ERROR)
            } else if op == Opcode::GetData {
                self.get_data(path, out)
            } else {
                self.readable(path).and_then(|node| self.put_children(node, out))
            };
            if let Err(code) = result {
                out.truncate(start);
                reply::multi_error(out, code);
            }
        }
        reply::multi_end(out);
        Ok(())
    }
}
