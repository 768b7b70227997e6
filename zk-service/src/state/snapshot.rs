//! Snapshots: sessions, ACL map and nodes, ended by the path `/`. The same bytes in files, where
//! storage adds a header and checksums, and between servers.

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader, text};
use zab_proto::{BadSnapshot, DecodeError, InstallProgress, SnapshotDigest, Zxid};

use crate::protocol::acl::AclList;
use crate::state::database::{Database, DigestCheck, Sessions, Snapshot};
use crate::state::tree::{NodeRecord, StatPersisted, Tree};

/// Ends the nodes.
const END: &[u8] = b"/";

impl Database {
    /// Opens a snapshot of the state as it is now; the number names it. `None` if eight are open.
    pub fn snapshot_open(&mut self) -> Option<u32> {
        let mut head = Vec::new();
        head.put_len(self.sessions.len());
        for (session, timeout_ms) in self.sessions.iter() {
            head.put_i64(session);
            head.put_i32(timeout_ms);
        }
        let slot = self.tree.image_open(head)?;
        let id = self.next_snapshot;
        self.next_snapshot = id.wrapping_add(1);
        self.snapshots[slot] = Some(Snapshot { id, digest: self.digest() });
        Some(id)
    }

    fn slot(&self, snapshot: u32) -> Option<usize> {
        self.snapshots.iter().position(|open| open.is_some_and(|open| open.id == snapshot))
    }

    /// Writes the next bytes of a snapshot; 0 means its end, or that an installation has ended it.
    /// Work is bounded by `buf`, or by the longest node if that is longer.
    pub fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.slot(snapshot).map_or(0, |slot| self.tree.image_read(slot, buf))
    }

    /// The digest of the state in a snapshot; `None` if digests are off.
    #[must_use]
    pub fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        self.slot(snapshot).and_then(|slot| self.snapshots[slot]?.digest)
    }

    /// Bytes of the longest node in what was read of a snapshot.
    #[must_use]
    pub fn snapshot_longest(&self, snapshot: u32) -> usize {
        self.slot(snapshot).map_or(0, |slot| self.tree.image_longest(slot))
    }

    /// Closes a snapshot, read to its end or not.
    pub fn snapshot_close(&mut self, snapshot: u32) {
        if let Some(slot) = self.slot(snapshot) {
            self.snapshots[slot] = None;
            self.tree.image_close(slot);
        }
    }

    /// A loaded snapshot becomes the state, as of `zxid`. `digest` is what its file says; it is
    /// compared now, or when the transaction it belongs to has been applied if the snapshot is
    /// fuzzy. Open snapshots of the old state end here, without their rest.
    pub fn install(
        &mut self,
        loaded: Loaded,
        zxid: Zxid,
        digest: Option<SnapshotDigest>,
    ) -> DigestCheck {
        let next_snapshot = self.next_snapshot;
        *self = Self::from_parts(loaded.tree, loaded.sessions);
        (self.last_zxid, self.next_snapshot) = (zxid, next_snapshot);
        match digest {
            Some(digest) if digest.zxid == zxid && zxid != Zxid::ZERO => {
                self.compare(digest.version, digest.digest)
            }
            Some(digest) if digest.zxid > zxid => {
                self.pending_digest = Some(digest);
                DigestCheck::Skipped
            }
            _ => DigestCheck::Skipped,
        }
    }
}

/// A whole snapshot, decoded.
#[derive(Debug)]
pub struct Loaded {
    tree: Tree,
    sessions: Sessions,
}

/// Decodes a snapshot in pieces, beside the state in force.
#[derive(Debug)]
pub struct Loader {
    section: Section,
    tree: Tree,
    sessions: Sessions,
    field_len_max: usize,
    /// Bytes that the item at the front has, as far as they are known.
    needs: usize,
}

/// What is expected next.
#[derive(Debug)]
enum Section {
    SessionCount,
    Sessions { left: usize },
    AclCount,
    AclKey { left: usize },
    AclEntries { left: usize, key: i64, count: i32, entries_left: i32, raw: Vec<u8> },
    Nodes,
    Done,
}

impl Loader {
    /// Begins a snapshot. Digests are kept if `digests`; a string or buffer of more than
    /// `field_len_max` bytes is refused.
    #[must_use]
    pub fn new(digests: bool, field_len_max: usize) -> Self {
        Self {
            section: Section::SessionCount,
            tree: Tree::empty(digests),
            sessions: Sessions::default(),
            field_len_max,
            needs: 0,
        }
    }

    /// After a [`push`](Self::push) that has used nothing: how many bytes must be offered at once,
    /// at least.
    #[must_use]
    pub fn needs(&self) -> usize {
        self.needs
    }

    /// Takes the next bytes. What is not consumed must be offered again, with more after it.
    ///
    /// # Errors
    /// [`BadSnapshot`] if the bytes do not decode, a node comes twice or without its parent, or
    /// there is no root.
    pub fn push(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let mut reader = Reader::with_field_len_max(bytes, self.field_len_max);
        loop {
            let consumed = reader.position();
            if matches!(self.section, Section::Done) {
                return Ok(InstallProgress { consumed, done: true });
            }
            match self.step(&mut reader) {
                Ok(Ok(())) => {}
                Err(DecodeError::UnexpectedEof) => {
                    self.needs = self.len_of_item(&bytes[consumed..]);
                    return Ok(InstallProgress { consumed, done: false });
                }
                Ok(Err(BadSnapshot)) | Err(_) => return Err(BadSnapshot),
            }
        }
    }

    /// The decoded snapshot; `None` before its end was reached.
    #[must_use]
    pub fn finish(self) -> Option<Loaded> {
        let Self { section, tree, sessions, .. } = self;
        matches!(section, Section::Done).then_some(Loaded { tree, sessions })
    }

    /// Takes one item, or fails without having taken anything.
    fn step(&mut self, reader: &mut Reader<'_>) -> Result<Result<(), BadSnapshot>, DecodeError> {
        match &mut self.section {
            Section::SessionCount => {
                self.section = Section::Sessions { left: reader.vector()?.unwrap_or(0) };
            }
            Section::Sessions { left: 0 } => self.section = Section::AclCount,
            Section::Sessions { left } => {
                let (session, timeout_ms) = (reader.i64()?, reader.i32()?);
                self.sessions.insert(session, timeout_ms);
                *left -= 1;
            }
            Section::AclCount => {
                self.section = Section::AclKey { left: reader.vector()?.unwrap_or(0) };
            }
            Section::AclKey { left: 0 } => self.section = Section::Nodes,
            &mut Section::AclKey { left } => {
                let (key, count) = (reader.i64()?, reader.i32()?);
                if count == -1 {
                    return Ok(Err(BadSnapshot));
                }
                let raw = Vec::new();
                self.section = Section::AclEntries { left, key, count, entries_left: count, raw };
            }
            Section::AclEntries { entries_left: 1.., raw, .. } => {
                let from = reader.clone();
                let (_perms, _scheme, _id) = (reader.i32()?, reader.ustring()?, reader.ustring()?);
                raw.extend_from_slice(&from.rest()[..from.remaining() - reader.remaining()]);
                if let Section::AclEntries { entries_left, .. } = &mut self.section {
                    *entries_left -= 1;
                }
            }
            Section::AclEntries { left, key, count, raw, .. } => {
                self.tree.load_acl(*key, AclList::from_raw(*count, raw));
                self.section = Section::AclKey { left: *left - 1 };
            }
            Section::Nodes => return self.node(reader),
            Section::Done => {}
        }
        Ok(Ok(()))
    }

    /// How long the item at the front of `bytes` is at least, which are too few for it.
    fn len_of_item(&self, bytes: &[u8]) -> usize {
        let mut at = match self.section {
            Section::Nodes => 0,
            // The permissions.
            Section::AclEntries { entries_left: 1.., .. } => 4,
            Section::SessionCount
            | Section::Sessions { .. }
            | Section::AclCount
            | Section::AclKey { .. }
            | Section::AclEntries { .. }
            | Section::Done => return bytes.len() + 1,
        };
        // Path and data, or scheme and id: each after its length.
        for _ in 0..2 {
            let Some(head) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { break };
            at += 4 + usize::try_from(i32::from_be_bytes(*head)).unwrap_or(0);
        }
        at.max(bytes.len() + 1)
    }

    fn node(&mut self, reader: &mut Reader<'_>) -> Result<Result<(), BadSnapshot>, DecodeError> {
        let path = reader.ustring()?.ok_or(DecodeError::BadLength(-1))?;
        if path == END {
            self.section = Section::Done;
            return Ok(self.tree.finish_load());
        }
        let data = reader.buffer()?;
        let acl_key = reader.i64()?;
        let stat = StatPersisted::read(reader)?;
        Ok(self.tree.load(&NodeRecord { path: &text(path), data, acl_key, stat }))
    }
}
