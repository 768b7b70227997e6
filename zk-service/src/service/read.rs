//! Requests that are answered from the local tree.

mod pieces;
mod progress;
mod rearm;

use std::borrow::Cow;

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{DecodeError, Zxid};

use crate::auth::{Access, Judge, user_name};
use crate::cost;
use crate::metrics::namespaces::Namespaces;
use crate::options::ServiceOptions;
use crate::protocol::acl::perms;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, sync_op, write_op};
use crate::protocol::reply::Reply;
use crate::protocol::request::{RawPath, path};
use crate::service::read::progress::Partial;
pub(in crate::service) use crate::service::read::progress::Progress;
use crate::state::listing::{Listings, Piece, SHARED_COUNT_MIN, Share};
use crate::state::tree::{NodeRef, Stat, Tree};
use crate::state::watch::{Kind, Watches};

/// What a read may look at.
#[derive(Debug)]
pub(in crate::service) struct Reading<'a> {
    tree: &'a Tree,
    judge: Judge<'a>,
    watches: &'a mut Watches,
    /// The connection, as the watches know it.
    slot: u32,
    session: i64,
    listings: &'a mut Listings,
    /// Work that may be done now, of what can be done in pieces.
    piece_work: u64,
    /// Where the list of children is that the body of the reply begins with.
    list: Listed,
    options: &'a ServiceOptions,
    namespaces: &'a mut Namespaces,
    /// What was done in the pieces before this one.
    partial: Option<Box<Partial>>,
    /// Where the body of the reply begins.
    body_at: usize,
    /// What it took, beside the bytes of the reply.
    work: u64,
}

/// A list that a reply begins with.
#[derive(Debug, Default)]
enum Listed {
    /// In the body like all else, if there is one.
    #[default]
    Here,
    /// Others may be sent it, too.
    Shared(Share),
    /// It, or something else, takes longer: there is no reply yet.
    NotYet,
}

/// A reply that is complete.
#[derive(Debug)]
pub(in crate::service) struct Answered {
    /// Bytes of its frame.
    pub(in crate::service) len: usize,
    /// A list that belongs into it and is sent to others, too, and the index in the buffer where it begins.
    pub(in crate::service) list: Option<(usize, Share)>,
}

impl From<DecodeError> for Code {
    fn from(_: DecodeError) -> Self {
        Self::MARSHALLING_ERROR
    }
}

impl<'a> Reading<'a> {
    /// A read, of a client whose ephemerals are those of `session`. `watching`: the watches, and the connection as
    /// these know it. `lists`: those that are made, and the
    /// work that may be done now on what can be done in pieces.
    pub(in crate::service) fn new(
        tree: &'a Tree,
        judge: Judge<'a>,
        session: i64,
        watching: (&'a mut Watches, u32),
        lists: (&'a mut Listings, u64),
        options: &'a ServiceOptions,
        namespaces: &'a mut Namespaces,
    ) -> Self {
        let (watches, slot) = watching;
        let (listings, piece_work) = lists;
        Self {
            tree,
            judge,
            watches,
            slot,
            session,
            listings,
            piece_work,
            list: Listed::Here,
            options,
            namespaces,
            partial: None,
            body_at: 0,
            work: 0,
        }
    }

    /// Answers a read: appends its reply to `out`. `None`: there is more to do, in a further piece, of which
    /// `progress` takes note. Returns what it took, too.
    pub(in crate::service) fn answer(
        mut self,
        (op, record): (Opcode, &[u8]),
        (xid, zxid): (i32, Zxid),
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> (Option<Answered>, u64) {
        let armed = if matches!(op, Opcode::SetWatches | Opcode::SetWatches2) {
            self.set_watches((op, record), &mut progress.rearming, out)
        } else {
            Ok(())
        };
        self.partial = progress.partial.take();
        let mut reply = Reply::begin(out);
        self.body_at = reply.body_at();
        let result = armed.and_then(|()| self.put_body((op, record), reply.body()));
        progress.set_aside(self.partial, zxid);
        let work = self.work + self.judge.take_work();
        let list = match self.list {
            Listed::Here => None,
            Listed::Shared(list) => Some(list).filter(|_| result.is_ok()),
            Listed::NotYet => {
                reply.cancel();
                return (None, work);
            }
        };
        let list_len = list.as_ref().map_or(0, |list| list.bytes().len());
        reply.add_elsewhere(list_len);
        let len = reply.end(xid, zxid.raw(), result.err().unwrap_or_default());
        let work = work + cost::listed(list_len) + cost::bytes(len - list_len);
        (Some(Answered { len, list: list.map(|list| (self.body_at, list)) }), work)
    }

    /// Appends the body of the reply.
    fn put_body(&mut self, (op, record): (Opcode, &[u8]), out: &mut Vec<u8>) -> Result<(), Code> {
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
        self.watches.len_bytes_of(self.slot) > self.options.watches_len_max_bytes
    }

    /// Refuses `more` bytes that would make the reply too long. It cannot be encoded, as it were.
    fn check_len(&self, out: &[u8], more: usize) -> Result<(), Code> {
        let len = out.len() - self.body_at + more;
        if len <= self.options.read_len_max() { Ok(()) } else { Err(Code::MARSHALLING_ERROR) }
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
    #[inline]
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
        let node = found?;
        self.namespaces.read(node.path(), 0);
        node.stat().write(out);
        Ok(())
    }

    fn get_data(&mut self, path: RawPath<'_>, out: &mut Vec<u8>) -> Result<(), Code> {
        let node = self.readable(path)?;
        self.check_len(out, node.data().unwrap_or_default().len() + 4 + Stat::LEN)?;
        out.put_buffer(node.data());
        node.stat().write(out);
        self.namespaces.read(node.path(), node.data().map_or(0, <[u8]>::len));
        Ok(())
    }

    fn list_children(&mut self, path: RawPath<'_>, out: &mut Vec<u8>) -> Result<NodeRef<'a>, Code> {
        let node = self.readable(path)?;
        if node.child_count() < SHARED_COUNT_MIN {
            let begun = out.len();
            self.put_children(node, out)?;
            self.listed(node, out.len() - begun);
            return Ok(node);
        }
        let mut listed = 0;
        let count_max = cost::children(self.piece_work);
        let piece = Piece { count_max, len_max: self.options.read_len_max() };
        let list = self.listings.list(node, piece, &mut listed);
        self.work += cost::CHILD * u64::from(listed);
        let list = list?;
        if let Some(list) = &list {
            self.listed(node, list.bytes().len());
        }
        self.list = list.map_or(Listed::NotYet, Listed::Shared);
        Ok(node)
    }

    /// A list of all children is answered, `len` bytes of a `vector<ustring>`.
    fn listed(&mut self, node: NodeRef<'_>, len: usize) {
        let lengths = 4 + 4 * node.child_count() as usize;
        self.namespaces.read(node.path(), len.saturating_sub(lengths));
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
}
