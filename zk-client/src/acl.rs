//! Who may do what with a node.

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

/// Permissions, as bits (ZooKeeper's `ZooDefs.Perms`).
pub mod perms {
    /// Data and children may be read.
    pub const READ: i32 = 1;
    /// The data may be set.
    pub const WRITE: i32 = 2;
    /// Children may be created.
    pub const CREATE: i32 = 4;
    /// Children may be deleted.
    pub const DELETE: i32 = 8;
    /// The ACL may be set.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// One entry of a node's access control list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl {
    /// Bits of [`perms`].
    pub perms: i32,
    /// How the id must be understood: `world`, `auth`, `digest`, `ip`, `sasl`, `x509`.
    pub scheme: String,
    /// Who, in the form of the scheme.
    pub id: String,
}

impl Acl {
    /// An entry.
    #[must_use]
    pub fn new(perms: i32, scheme: &str, id: &str) -> Self {
        Self { perms, scheme: scheme.to_owned(), id: id.to_owned() }
    }

    /// Everybody may do everything: the list that nodes have unless something else is asked for.
    #[must_use]
    pub fn open() -> Vec<Self> {
        vec![Self::new(perms::ALL, "world", "anyone")]
    }

    pub(crate) fn put_list(list: &[Self], out: &mut impl BufMut) {
        out.put_len(list.len());
        for acl in list {
            out.put_i32(acl.perms);
            out.put_ustring(Some(&acl.scheme));
            out.put_ustring(Some(&acl.id));
        }
    }

    pub(crate) fn read_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        let count = reader.vector()?.unwrap_or(0);
        let mut list = Vec::new();
        for _ in 0..count {
            let perms = reader.i32()?;
            let scheme = reader.string()?.unwrap_or_default().into_owned();
            let id = reader.string()?.unwrap_or_default().into_owned();
            list.push(Self { perms, scheme, id });
        }
        Ok(list)
    }
}
