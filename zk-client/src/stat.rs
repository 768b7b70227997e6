//! What a server says of a node besides its data.

use zab_proto::DecodeError;
use zab_proto::wire::jute::Reader;

/// What a server says of a node besides its data (ZooKeeper's `Stat`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// The transaction that created the node.
    pub czxid: i64,
    /// The transaction that set the data last.
    pub mzxid: i64,
    /// When the node was created, in milliseconds since 1970.
    pub ctime: i64,
    /// When the data was set last, in milliseconds since 1970.
    pub mtime: i64,
    /// How often the data was set.
    pub version: i32,
    /// How often children were created and deleted.
    pub cversion: i32,
    /// How often the ACL was set.
    pub aversion: i32,
    /// The session that an ephemeral node belongs to, 0 for any other node.
    pub ephemeral_owner: i64,
    /// Length of the data in bytes.
    pub data_length: i32,
    /// Children right now.
    pub num_children: i32,
    /// The transaction that created or deleted a child last.
    pub pzxid: i64,
}

impl Stat {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: reader.i64()?,
            mzxid: reader.i64()?,
            ctime: reader.i64()?,
            mtime: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            ephemeral_owner: reader.i64()?,
            data_length: reader.i32()?,
            num_children: reader.i32()?,
            pzxid: reader.i64()?,
        })
    }
}
