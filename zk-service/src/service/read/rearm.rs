//! setWatches and setWatches2: a client that was elsewhere arms its watches again.

use zab_proto::wire::jute::Reader;

use super::progress::Rearming;
use super::{Listed, Reading};
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::event::Event;
use crate::protocol::opcode::Opcode;
use crate::protocol::reply;
use crate::protocol::request::RawPath;
use crate::state::watch::Kind;

/// So many paths are in a piece, however short a turn is: clients with few watches have them all as of one instant.
const PIECE_LEN_MIN: usize = 16;

impl Reading<'_> {
    /// Arms what the client lists, and appends to `out` the events that it has missed since; or a piece
    /// of it, of which `progress` takes note. What is changed between two pieces is missed by what is not
    /// armed yet, and told by what is.
    ///
    /// Of a node that it may not read, a client has missed nothing: when it was changed is not for it
    /// to know. The watch is armed, in case the ACL changes.
    #[inline(never)]
    pub(super) fn set_watches(
        &mut self,
        (op, record): (Opcode, &[u8]),
        progress: &mut Option<Rearming>,
        out: &mut Vec<u8>,
    ) -> Result<(), Code> {
        let lists: &[List] = if op == Opcode::SetWatches { &List::ALL[..3] } else { &List::ALL };
        let (mut now, mut reader) = match progress.take() {
            Some(now) => (now, Reader::new(record.get(now.at..).unwrap_or_default())),
            None => {
                // All or nothing: the record is walked over before anything is armed.
                let mut reader = Reader::new(record);
                let since = reader.i64()?;
                for list in lists {
                    for _ in 0..count(&mut reader)? {
                        list.path(&mut reader)?;
                    }
                }
                let mut reader = Reader::new(record);
                reader.i64()?;
                let left = count(&mut reader)?;
                (Rearming { since, list: 0, left, at: 0 }, reader)
            }
        };
        let work_max = self.work.saturating_add(self.piece_work);
        let mut armed = 0;
        loop {
            while now.left == 0 {
                now.list += 1;
                if now.list == lists.len() {
                    return Ok(());
                }
                now.left = count(&mut reader)?;
            }
            if armed >= PIECE_LEN_MIN && self.work >= work_max {
                now.at += reader.position();
                *progress = Some(now);
                self.list = Listed::NotYet;
                return Ok(());
            }
            armed += 1;
            now.left -= 1;
            self.work += cost::NODE;
            let path = lists[now.list].path(&mut reader)?;
            self.set_watch(lists[now.list], path, now.since, out);
        }
    }

    fn set_watch(&mut self, list: List, path: Option<RawPath<'_>>, since: i64, out: &mut Vec<u8>) {
        let Some(path) = path else { return };
        let kind = match list {
            List::Data | List::Exist => Kind::Data,
            List::Child => Kind::Child,
            List::Persistent => return self.watch_persistently(Some(&path.text()), false),
            List::Recursive => return self.watch_persistently(Some(&path.text()), true),
        };
        let missed = match (list, self.readable(path)) {
            (List::Exist, Ok(_)) => Some(Event::Created),
            (List::Data | List::Child, Err(Code::NO_NODE)) => Some(Event::Deleted),
            (List::Data, Ok(node)) if node.persisted().mzxid.raw() > since => {
                Some(Event::DataChanged)
            }
            (List::Child, Ok(node)) if node.persisted().pzxid.raw() > since => {
                Some(Event::ChildrenChanged)
            }
            _ => None,
        };
        match missed {
            Some(event) => reply::event(out, -1, event, &path.text()),
            None => self.watch(kind, path, true),
        }
    }
}

fn count(reader: &mut Reader<'_>) -> Result<usize, Code> {
    reader.vector()?.ok_or(Code::MARSHALLING_ERROR)
}

/// The lists of setWatches, in order; setWatches2 has all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum List {
    Data,
    Exist,
    Child,
    Persistent,
    Recursive,
}

impl List {
    const ALL: [Self; 5] =
        [Self::Data, Self::Exist, Self::Child, Self::Persistent, Self::Recursive];

    fn path<'r>(self, reader: &mut Reader<'r>) -> Result<Option<RawPath<'r>>, Code> {
        Ok(match self {
            Self::Persistent | Self::Recursive => reader.ustring()?.map(RawPath),
            Self::Data | Self::Exist | Self::Child => Some(RawPath::read(reader)?),
        })
    }
}
