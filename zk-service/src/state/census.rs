//! What a snapshot holds, without room for all of it: it is counted as it goes by.

use zab_proto::wire::jute::{Reader, text};
use zab_proto::{BadSnapshot, DecodeError, InstallProgress, Zxid};

use crate::state::tree::{Owner, StatPersisted, node_digest};

/// Counts a snapshot's sessions and nodes, fed in pieces as a [`Loader`](crate::Loader) is. It keeps nothing of
/// them, so that a node that comes twice, or without its parent, is not noticed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Census {
    /// Nodes, the root and those below `/zookeeper` among them.
    pub nodes: u64,
    /// Nodes of users: neither the root nor below `/zookeeper`.
    pub user_nodes: u64,
    /// Of these, ephemeral ones.
    pub ephemerals: u64,
    /// Open sessions.
    pub sessions: u64,
    /// The last transaction that any node speaks of.
    pub last_zxid: Zxid,
    /// The last time that any node speaks of, in ms since 1970.
    pub last_change_ms: i64,
    /// The digest of the tree.
    pub digest: u64,
    section: Section,
}

/// What is expected next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Section {
    #[default]
    SessionCount,
    Sessions(usize),
    AclCount,
    /// A key, with so many lists to come.
    AclLists(usize),
    /// Entries of a list, with so many lists to come behind it.
    AclEntries(i32, usize),
    Nodes,
    Done,
}

impl Census {
    /// Takes the next bytes. What is not consumed is to be offered again, with more behind it.
    ///
    /// # Errors
    /// [`BadSnapshot`] if the bytes do not decode.
    pub fn push(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let mut reader = Reader::with_field_len_max(bytes, usize::MAX);
        loop {
            let consumed = reader.position();
            if self.section == Section::Done {
                return Ok(InstallProgress { consumed, done: true });
            }
            match self.step(&mut reader) {
                Ok(next) => self.section = next,
                Err(DecodeError::UnexpectedEof) => {
                    return Ok(InstallProgress { consumed, done: false });
                }
                Err(_) => return Err(BadSnapshot),
            }
        }
    }

    /// Takes one item, or fails without having taken anything.
    fn step(&mut self, reader: &mut Reader<'_>) -> Result<Section, DecodeError> {
        Ok(match self.section {
            Section::SessionCount => Section::Sessions(reader.vector()?.unwrap_or(0)),
            Section::Sessions(0) => Section::AclCount,
            Section::Sessions(left) => {
                let (_session, _timeout_ms) = (reader.i64()?, reader.i32()?);
                self.sessions += 1;
                Section::Sessions(left - 1)
            }
            Section::AclCount => Section::AclLists(reader.vector()?.unwrap_or(0)),
            Section::AclLists(0) => Section::Nodes,
            Section::AclLists(left) => {
                let (_key, count) = (reader.i64()?, reader.i32()?);
                Section::AclEntries(count, left - 1)
            }
            Section::AclEntries(count @ 1.., left) => {
                let (_perms, _scheme, _id) = (reader.i32()?, reader.ustring()?, reader.ustring()?);
                Section::AclEntries(count - 1, left)
            }
            Section::AclEntries(0, left) => Section::AclLists(left),
            Section::AclEntries(count, _) => return Err(DecodeError::BadLength(count.into())),
            Section::Nodes => return self.node(reader),
            Section::Done => Section::Done,
        })
    }

    fn node(&mut self, reader: &mut Reader<'_>) -> Result<Section, DecodeError> {
        let raw = reader.ustring()?.ok_or(DecodeError::BadLength(-1))?;
        if raw == b"/" {
            return if self.nodes == 0 {
                Err(DecodeError::BadLength(0))
            } else {
                Ok(Section::Done)
            };
        }
        let data = reader.buffer()?;
        let _acl_key = reader.i64()?;
        let stat = StatPersisted::read(reader)?;
        let name = text(raw);
        self.nodes += 1;
        if !name.is_empty() && !is_reserved(&name) {
            self.user_nodes += 1;
            let of_session = matches!(stat.owner(), Owner::Session(_));
            self.ephemerals += u64::from(of_session);
            self.last_change_ms = self.last_change_ms.max(stat.ctime).max(stat.mtime);
        }
        self.last_zxid = self.last_zxid.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
        self.digest = self.digest.wrapping_add(node_digest(&name, data, &stat));
        Ok(Section::Nodes)
    }
}

/// Of the servers themselves.
fn is_reserved(path: &str) -> bool {
    path.strip_prefix("/zookeeper").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::database::Database;

    /// In pieces of any length the same comes out, and it is what the tree says of itself.
    #[test]
    fn a_snapshot_is_counted_as_it_goes_by() {
        let mut database = Database::new(true);
        let snapshot = database.snapshot_open().expect("one may be open");
        let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 16]);
        while let n @ 1.. = database.snapshot_read(snapshot, &mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        for piece in [1, 7, all.len()] {
            let (mut census, mut offered, mut done) = (Census::default(), Vec::new(), false);
            for bytes in all.chunks(piece) {
                offered.extend_from_slice(bytes);
                let progress = census.push(&offered).expect("it decodes");
                offered.drain(..progress.consumed);
                done = progress.done;
            }
            assert!(done && offered.is_empty(), "in pieces of {piece}");
            assert_eq!(census.nodes, database.tree.node_count() as u64);
            assert_eq!((census.user_nodes, census.ephemerals, census.sessions), (0, 0, 0));
            assert_eq!(Some(census.digest), database.tree.digest());
        }
        assert!(Census::default().push(&[0xff; 64]).is_err());
        assert!(!Census::default().push(&all[..all.len() - 1]).expect("no damage").done);
    }
}
