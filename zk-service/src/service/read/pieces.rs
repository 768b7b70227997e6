//! Reads that are answered in pieces, and show what was there at one instant all the same.
//!
//! If something is applied between two pieces, the read begins again; the second time nothing is applied
//! until it is answered (`service/admission.rs`).

use zab_proto::wire::jute::{BufMutExt, Reader};

use super::progress::Partial;
use super::{Listed, Reading};
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::reply;
use crate::protocol::request::{MultiHeader, RawPath};
use crate::state::tree::{NodeRef, Stat};

impl Reading<'_> {
    /// Whether this piece is long enough.
    fn is_piece_done(&self) -> bool {
        self.work >= self.piece_work
    }

    /// There is more to do.
    fn set_aside(&mut self, partial: Partial) {
        self.partial = Some(Box::new(partial));
        self.list = Listed::NotYet;
    }

    fn begin_or_resume(&mut self) -> Partial {
        self.partial.take().map_or_else(Partial::default, |partial| *partial)
    }

    pub(super) fn get_ephemerals(&mut self, prefix: &str, out: &mut Vec<u8>) -> Result<(), Code> {
        let all = matches!(prefix.trim(), "" | "/");
        let mut partial = self.begin_or_resume();
        let mut list = partial.begin_list();
        // However short a turn is, there is one more in each piece.
        let begun = list.last;
        for node in self.tree.ephemerals_behind(self.session, begun) {
            if list.last != begun && self.is_piece_done() {
                partial.list = Some(list);
                self.set_aside(partial);
                return Ok(());
            }
            self.work += cost::NODE;
            list.last = Some(node.place());
            if all || node.path().starts_with(prefix) {
                partial.body.put_ustring(Some(node.path()));
                self.check_len(out, partial.body.len())?;
                list.count += 1;
            }
        }
        partial.end_list(list);
        out.extend_from_slice(&partial.body);
        Ok(())
    }

    /// Parts that make the reply too long, or that come after too much work, get a code: what comes
    /// after them may still fit. A part is shown as the tree is at one instant, and so are all.
    pub(super) fn multi_read(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), Code> {
        let mut partial = self.begin_or_resume();
        let mut reader = Reader::new(record.get(partial.at..).unwrap_or_default());
        if !partial.is_checked {
            self.work += cost::parsed(record.len());
            while part(&mut reader)?.is_some() {}
            partial.is_checked = true;
            reader = Reader::new(record);
        }
        let (mut is_first, at) = (true, partial.at);
        loop {
            partial.at = at + reader.position();
            let Some((op, path)) = part(&mut reader)? else { break };
            self.work += self.judge.take_work();
            let goes_on =
                (is_first || !self.is_piece_done()) && self.put_part(op, path, &mut partial, out);
            if !goes_on {
                partial.work += self.work;
                self.set_aside(partial);
                return Ok(());
            }
            is_first = false;
        }
        reply::multi_end(&mut partial.body);
        out.extend_from_slice(&partial.body);
        Ok(())
    }

    /// Appends what a part is answered. False: its list goes on in the next piece.
    fn put_part(
        &mut self,
        op: Opcode,
        path: RawPath<'_>,
        partial: &mut Partial,
        out: &[u8],
    ) -> bool {
        if partial.list.is_none() {
            partial.part_at = partial.body.len();
        }
        self.read_part(op, path, partial, out).unwrap_or_else(|code| {
            partial.body.truncate(partial.part_at);
            partial.list = None;
            reply::multi_error(&mut partial.body, code);
            true
        })
    }

    fn read_part(
        &mut self,
        op: Opcode,
        path: RawPath<'_>,
        partial: &mut Partial,
        out: &[u8],
    ) -> Result<bool, Code> {
        if partial.list.is_none() {
            let work = partial.work + self.work + cost::bytes(partial.body.len());
            if work > self.options.work_per_request {
                return Err(Code::MARSHALLING_ERROR);
            }
            reply::multi_header(&mut partial.body, op.wire(), false, 0);
        }
        let node = self.readable(path)?;
        if op == Opcode::GetData {
            let len = node.data().unwrap_or_default().len() + 4 + Stat::LEN;
            self.check_len(out, partial.body.len() + len)?;
            partial.body.put_buffer(node.data());
            node.stat().write(&mut partial.body);
            self.namespaces.read(node.path(), node.data().map_or(0, <[u8]>::len));
            return Ok(true);
        }
        self.put_children_of_part(node, partial, out)
    }

    fn put_children_of_part(
        &mut self,
        node: NodeRef<'_>,
        partial: &mut Partial,
        out: &[u8],
    ) -> Result<bool, Code> {
        let mut list = partial.begin_list();
        let begun = list.last;
        for (place, name) in node.children_behind(list.last) {
            if list.last != begun && self.is_piece_done() {
                partial.list = Some(list);
                return Ok(false);
            }
            self.work += cost::CHILD;
            partial.body.put_ustring(Some(name));
            self.check_len(out, partial.body.len())?;
            list.last = Some(place);
            list.count += 1;
        }
        let len = partial.end_list(list);
        self.listed(node, len);
        Ok(true)
    }
}

/// The next part of a multiRead; `None` at the end.
fn part<'a>(reader: &mut Reader<'a>) -> Result<Option<(Opcode, RawPath<'a>)>, Code> {
    let header = MultiHeader::decode(reader)?;
    if header.done {
        return Ok(None);
    }
    let Some(op @ (Opcode::GetData | Opcode::GetChildren)) = Opcode::from_wire(header.op) else {
        return Err(Code::MARSHALLING_ERROR);
    };
    let path = RawPath::read(reader)?;
    reader.bool()?;
    Ok(Some((op, path)))
}
