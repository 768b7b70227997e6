//! Digests of nodes. The digest of the tree is their wrapping sum.

use crate::state::tree::StatPersisted;

/// Digest of one node, version 2: CRC-32 over path, data and numbers. Nodes below `/zookeeper`
/// count nothing, since servers change them on their own.
///
/// `path` may be `""` or `"/"` for the root.
#[must_use]
pub fn node_digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u64 {
    ContentCrc::new(path, data).digest(path, stat)
}

/// The part of a node's digest that comes before its numbers: path and data. With it a digest can
/// be predicted without the data at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContentCrc(u32);

impl ContentCrc {
    /// Of what is not there, or not asked for, or counts nothing.
    pub(super) const NONE: Self = Self(0);

    pub(crate) fn new(path: &str, data: Option<&[u8]>) -> Self {
        if counts_nothing(path) {
            return Self::NONE;
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(if path == "/" { b"" } else { path.as_bytes() });
        crc.update(data.unwrap_or_default());
        Self(crc.finalize())
    }

    /// The digest of the node at `path` with these numbers.
    pub(crate) fn digest(self, path: &str, stat: &StatPersisted) -> u64 {
        // The end of a session asks this of all its nodes: mostly without a look at their paths.
        if self == Self::NONE && counts_nothing(path) {
            return 0;
        }
        let mut crc = crc32fast::Hasher::new_with_initial(self.0);
        crc.update(&encode(stat));
        u64::from(crc.finalize())
    }
}

fn counts_nothing(path: &str) -> bool {
    path.starts_with("/zookeeper/")
}

/// The numbers in the order that the digest takes them: `pzxid` third, unlike the record.
fn encode(stat: &StatPersisted) -> [u8; StatPersisted::LEN] {
    let mut out = [0; StatPersisted::LEN];
    let longs = [
        (0, stat.czxid.raw()),
        (8, stat.mzxid.raw()),
        (16, stat.pzxid.raw()),
        (24, stat.ctime),
        (32, stat.mtime),
        (52, stat.ephemeral_owner),
    ];
    for (at, value) in longs {
        out[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    for (at, value) in [(40, stat.version), (44, stat.cversion), (48, stat.aversion)] {
        out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    out
}
