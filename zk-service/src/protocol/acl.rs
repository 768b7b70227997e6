//! Access control lists as records. Who may do what with them is decided elsewhere.

use std::borrow::Cow;

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

/// Permission bits of an ACL entry.
pub mod perms {
    /// Read data and children.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All of the above.
    pub const ALL: i32 = 31;
}

/// One entry of an ACL: an identity and what it may do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acl {
    /// Permission bits ([`perms`]); unknown bits are kept.
    pub perms: i32,
    /// Scheme of the identity. Null reads as empty.
    pub scheme: Box<str>,
    /// The identity within the scheme. Null reads as empty.
    pub id: Box<str>,
}

impl Acl {
    /// An entry.
    #[must_use]
    pub fn new(perms: i32, scheme: &str, id: &str) -> Self {
        Self { perms, scheme: scheme.into(), id: id.into() }
    }

    /// Everyone, with the given permissions.
    #[must_use]
    pub fn world(perms: i32) -> Self {
        Self::new(perms, "world", "anyone")
    }

    /// Writes the entry.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i32(self.perms);
        out.put_ustring(Some(&self.scheme));
        out.put_ustring(Some(&self.id));
    }
}

/// Writes a `vector<ACL>`.
pub fn write_acls(acls: &[Acl], out: &mut impl BufMut) {
    out.put_len(acls.len());
    for acl in acls {
        acl.write(out);
    }
}

/// A `vector<ACL>` as it stands in a record, checked but not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AclList<'a> {
    count: i32,
    entries: &'a [u8],
}

/// One entry of an [`AclList`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclEntry<'a> {
    /// Permission bits.
    pub perms: i32,
    /// Scheme of the identity; `None` is null.
    pub scheme: Option<Cow<'a, str>>,
    /// The identity; `None` is null.
    pub id: Option<Cow<'a, str>>,
}

impl AclEntry<'_> {
    /// Whether the id is null although its scheme cannot do without.
    pub(crate) fn has_null_id(&self) -> bool {
        self.id.is_none() && matches!(self.scheme.as_deref(), Some("world" | "ip" | "digest"))
    }
}

impl<'a> AclList<'a> {
    /// The null list.
    pub const NULL: AclList<'static> = AclList { count: -1, entries: &[] };

    /// Reads a list where the reader stands.
    ///
    /// # Errors
    /// Those of the fields.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.i32()?;
        let from = reader.clone();
        for _ in 0..count {
            skip_entry(reader)?;
        }
        let entries = &from.rest()[..from.remaining() - reader.remaining()];
        Ok(Self { count, entries })
    }

    /// A list from `count` encoded entries, which must decode.
    pub(crate) fn from_raw(count: i32, entries: &'a [u8]) -> Self {
        Self { count, entries }
    }

    /// Whether ZooKeeper stumbles over a null in it, rather than refusing it.
    pub(super) fn has_null(self) -> bool {
        self.iter().any(|entry| entry.has_null_id() || (entry.scheme.is_none() && self.len() > 1))
    }

    /// Whether the list is null.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.count == -1
    }

    /// Number of entries. A negative count is an empty list, as in ZooKeeper.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count <= 0
    }

    /// The encoded entries, without their count. Equal lists have equal bytes, since nobody writes
    /// malformed text.
    pub(crate) fn raw_entries(self) -> &'a [u8] {
        self.entries
    }

    /// What the entries of `world:anyone` grant. Nothing is decoded for that, so that a long list costs
    /// little before it is asked for more.
    pub(crate) fn of_everybody(self) -> i32 {
        let mut reader = Reader::new(self.entries);
        let mut granted = 0;
        for _ in 0..self.len() {
            let (Ok(perms), Ok(scheme), Ok(id)) =
                (reader.i32(), reader.ustring(), reader.ustring())
            else {
                break;
            };
            if scheme == Some(b"world") && id == Some(b"anyone") {
                granted |= perms;
            }
        }
        granted
    }

    /// The entries in order, each with its bytes.
    pub(crate) fn iter_raw(self) -> impl Iterator<Item = (AclEntry<'a>, &'a [u8])> {
        let mut reader = Reader::new(self.entries);
        (0..self.len()).map_while(move |_| {
            let rest = reader.rest();
            let entry = read_entry(&mut reader).ok()?;
            Some((entry, &rest[..rest.len() - reader.remaining()]))
        })
    }

    /// The entries in order.
    pub fn iter(self) -> impl Iterator<Item = AclEntry<'a>> {
        let mut reader = Reader::new(self.entries);
        (0..self.len()).map_while(move |_| read_entry(&mut reader).ok())
    }

    /// The entries, owned.
    #[must_use]
    pub fn to_acls(self) -> Box<[Acl]> {
        let text = |text: Option<Cow<'_, str>>| text.unwrap_or_default().into_owned().into();
        self.iter()
            .map(|e| Acl { perms: e.perms, scheme: text(e.scheme), id: text(e.id) })
            .collect()
    }

    /// Writes the list as it was read.
    pub fn write(self, out: &mut impl BufMut) {
        out.put_i32(self.count);
        out.put_slice(self.entries);
    }
}

fn skip_entry(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    reader.i32()?;
    reader.ustring()?;
    reader.ustring()?;
    Ok(())
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<AclEntry<'a>, DecodeError> {
    Ok(AclEntry { perms: reader.i32()?, scheme: reader.string()?, id: reader.string()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip() {
        let acls = [Acl::world(perms::READ), Acl::new(perms::ALL, "digest", "a:b")];
        let mut bytes = Vec::new();
        write_acls(&acls, &mut bytes);
        bytes.push(7);
        let mut reader = Reader::new(&bytes);
        let list = AclList::read(&mut reader).unwrap();
        assert_eq!((reader.remaining(), list.len()), (1, 2));
        assert_eq!(*list.to_acls(), acls);
        let mut again = Vec::new();
        list.write(&mut again);
        assert_eq!(again, bytes[..bytes.len() - 1]);
    }

    #[test]
    fn counts() {
        let null = (-1_i32).to_be_bytes();
        assert!(AclList::read(&mut Reader::new(&null)).unwrap().is_null());
        let negative = (-2_i32).to_be_bytes();
        let list = AclList::read(&mut Reader::new(&negative)).unwrap();
        assert!(list.is_empty() && !list.is_null());
        let many = i32::MAX.to_be_bytes();
        assert_eq!(AclList::read(&mut Reader::new(&many)), Err(DecodeError::UnexpectedEof));
    }
}
