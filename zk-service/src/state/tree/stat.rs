//! The numbers kept with every node.

use bytes::BufMut;
use zab_proto::wire::jute::Reader;
use zab_proto::{DecodeError, Zxid};

/// `StatPersisted`: a node's numbers as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatPersisted {
    /// Transaction that created the node.
    pub czxid: Zxid,
    /// Transaction of the last change of its data.
    pub mzxid: Zxid,
    /// Transaction of the last change of its children.
    pub pzxid: Zxid,
    /// Time of creation, in ms since 1970.
    pub ctime: i64,
    /// Time of the last change of its data, in ms since 1970.
    pub mtime: i64,
    /// The owner as stored; see [`Owner`].
    pub ephemeral_owner: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of creations of children. The sequence number of the next sequential child.
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
}

impl StatPersisted {
    /// Encoded length in bytes.
    pub const LEN: usize = 60;

    /// The numbers of a new node.
    #[must_use]
    pub fn created(zxid: Zxid, time: i64, ephemeral_owner: i64) -> Self {
        Self {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            ephemeral_owner,
            ..Self::default()
        }
    }

    /// Who owns the node.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::from_raw(self.ephemeral_owner)
    }

    /// The numbers as clients see them.
    #[must_use]
    pub fn to_client(&self, data_len: usize, num_children: u32) -> Stat {
        let num_children = num_children.cast_signed();
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            // Clients count deletions too: as many as creations, less the children left.
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: match self.owner() {
                Owner::Session(session) => session,
                Owner::Persistent | Owner::Container | Owner::Ttl(_) => 0,
            },
            data_length: i32::try_from(data_len).unwrap_or(i32::MAX),
            num_children,
            pzxid: self.pzxid,
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: Zxid::from_raw(reader.i64()?),
            mzxid: Zxid::from_raw(reader.i64()?),
            ctime: reader.i64()?,
            mtime: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            ephemeral_owner: reader.i64()?,
            pzxid: Zxid::from_raw(reader.i64()?),
        })
    }

    /// Writes the record.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.czxid.raw());
        out.put_i64(self.mzxid.raw());
        out.put_i64(self.ctime);
        out.put_i64(self.mtime);
        out.put_i32(self.version);
        out.put_i32(self.cversion);
        out.put_i32(self.aversion);
        out.put_i64(self.ephemeral_owner);
        out.put_i64(self.pzxid.raw());
    }
}

/// `Stat`: a node's numbers as sent to clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// Transaction that created the node.
    pub czxid: Zxid,
    /// Transaction of the last change of its data.
    pub mzxid: Zxid,
    /// Time of creation, in ms since 1970.
    pub ctime: i64,
    /// Time of the last change of its data, in ms since 1970.
    pub mtime: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of creations and deletions of children.
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
    /// The session that owns an ephemeral node, otherwise 0.
    pub ephemeral_owner: i64,
    /// Length of the data in bytes; 0 for null.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// Transaction of the last change of its children.
    pub pzxid: Zxid,
}

impl Stat {
    /// Encoded length in bytes.
    pub const LEN: usize = 68;

    /// Writes the record.
    #[inline]
    pub fn write(&self, out: &mut impl BufMut) {
        // Composed in one piece: each reply to a read has one, and a buffer that grows looks after its
        // room with each field.
        let mut record = [0; Self::LEN];
        let mut fields = &mut record[..];
        fields.put_i64(self.czxid.raw());
        fields.put_i64(self.mzxid.raw());
        fields.put_i64(self.ctime);
        fields.put_i64(self.mtime);
        fields.put_i32(self.version);
        fields.put_i32(self.cversion);
        fields.put_i32(self.aversion);
        fields.put_i64(self.ephemeral_owner);
        fields.put_i32(self.data_length);
        fields.put_i32(self.num_children);
        fields.put_i64(self.pzxid.raw());
        out.put_slice(&record);
    }
}

/// Who owns a node, decoded from `ephemeralOwner`.
///
/// TTL owners are always recognised: ZooKeeper without `extendedTypesEnabled` takes them for
/// session ids and deletes such nodes at its next start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody.
    Persistent,
    /// A session: the node is ephemeral.
    Session(i64),
    /// Nobody, but servers delete the node once its last child is gone.
    Container,
    /// Nobody, but servers delete the node when it is unchanged and childless for this long, in ms.
    Ttl(u64),
}

impl Owner {
    const CONTAINER: i64 = i64::MIN;
    const TTL_MASK: u64 = 0xff << 56;
    /// The longest time to live, in ms.
    pub const TTL_MAX_MS: u64 = 0xff_ffff_ffff;

    /// Decodes the stored number. An owner whose top byte is `0xff` with reserved bits set is a
    /// session, which only a server of id 255 can have made.
    #[must_use]
    pub fn from_raw(raw: i64) -> Self {
        let bits = raw.cast_unsigned();
        match raw {
            0 => Self::Persistent,
            Self::CONTAINER => Self::Container,
            _ if bits & !Self::TTL_MAX_MS == Self::TTL_MASK => Self::Ttl(bits & Self::TTL_MAX_MS),
            _ => Self::Session(raw),
        }
    }

    /// The number to store. A time to live keeps its low 40 bits.
    #[must_use]
    pub fn to_raw(self) -> i64 {
        match self {
            Self::Persistent => 0,
            Self::Session(session) => session,
            Self::Container => Self::CONTAINER,
            Self::Ttl(ttl_ms) => (Self::TTL_MASK | (ttl_ms & Self::TTL_MAX_MS)).cast_signed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        for (raw, owner) in [
            (0, Owner::Persistent),
            (0x8000_0000_0000_0000, Owner::Container),
            (0xff00_0000_0000_01f4, Owner::Ttl(500)),
            (0xff00_00ff_ffff_ffff, Owner::Ttl(Owner::TTL_MAX_MS)),
            (0x0100_0020_2e3e_0000, Owner::Session(0x0100_0020_2e3e_0000)),
            (0xff00_0100_0000_0001, Owner::Session(-0x00ff_feff_ffff_ffff)),
        ] {
            let raw = u64::cast_signed(raw);
            assert_eq!(Owner::from_raw(raw), owner);
            assert_eq!(owner.to_raw(), raw);
        }
    }

    #[test]
    fn a_fresh_root_shows_a_negative_cversion() {
        assert_eq!(StatPersisted::default().to_client(0, 1).cversion, -1);
    }
}
