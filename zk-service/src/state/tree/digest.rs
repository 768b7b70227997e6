//! Digests of nodes. The digest of the tree is their wrapping sum.

use crate::state::tree::StatPersisted;

/// Digest of one node, version 2: CRC-32 over path, data and numbers. Nodes below `/zookeeper`
/// count nothing, since servers change them on their own.
///
/// `path` may be `""` or `"/"` for the root.
#[must_use]
pub fn node_digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u64 {
    NodeDigest::new(path, data, stat).get()
}

/// The digest of a node. Kept beside the node it makes a change of its numbers cost the checksum of these
/// alone, however long the data is, and the data need not be at hand to predict it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeDigest(u32);

impl NodeDigest {
    /// Of what is not there, or not asked for, or counts nothing.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> Self {
        if counts_nothing(path) {
            return Self::NONE;
        }
        let path = if path == "/" { "" } else { path };
        let parts = [path.as_bytes(), data.unwrap_or_default(), &encode(stat)];
        // Short pieces are summed byte by byte, long ones sixteen at a time: so those of an ordinary node are laid
        // one behind the other first.
        let mut together = [0; 256];
        let mut len = 0;
        for part in parts {
            let Some(place) = together.get_mut(len..len + part.len()) else {
                let mut crc = crc32fast::Hasher::new();
                parts.iter().for_each(|part| crc.update(part));
                return Self(crc.finalize());
            };
            place.copy_from_slice(part);
            len += part.len();
        }
        Self(crc32fast::hash(&together[..len]))
    }

    /// What it will be when the numbers of the node at `path` are no longer `before` but `after`.
    ///
    /// Of texts of one length the CRC-32 of `a ^ b ^ c` is that of `a`, of `b` and of `c` combined alike: with
    /// nothing but zeros for `c`, both texts' common beginning falls out.
    pub(crate) fn changed(self, path: &str, before: &StatPersisted, after: &StatPersisted) -> Self {
        // Zero may be the checksum of a node that counts as well.
        if self == Self::NONE && counts_nothing(path) {
            return self;
        }
        let mut bits = encode(before);
        for (bit, after) in bits.iter_mut().zip(encode(after)) {
            *bit ^= after;
        }
        Self(self.0 ^ crc32fast::hash(&bits) ^ UNCHANGED)
    }

    /// What the node adds to the digest of the tree.
    pub(crate) fn get(self) -> u64 {
        u64::from(self.0)
    }
}

/// CRC-32 of as many zeros as the numbers have bytes.
const UNCHANGED: u32 = 0x0412_8908;

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

#[cfg(test)]
mod tests {
    use zab_proto::Zxid;

    use super::*;

    #[test]
    fn follows_every_number() {
        assert_eq!(crc32fast::hash(&[0; StatPersisted::LEN]), UNCHANGED);
        let mut stat = StatPersisted::default();
        let mut digest = NodeDigest::new("/a", Some(b"data"), &stat);
        for turn in 1..=32 {
            let small = i32::MAX / turn;
            let large = i64::MAX / i64::from(turn);
            let changes: [fn(&mut StatPersisted, i64, i32); 9] = [
                |stat, large, _| stat.czxid = Zxid::from_raw(large),
                |stat, large, _| stat.mzxid = Zxid::from_raw(large),
                |stat, large, _| stat.pzxid = Zxid::from_raw(large),
                |stat, large, _| stat.ctime = large,
                |stat, large, _| stat.mtime = -large,
                |stat, large, _| stat.ephemeral_owner = large,
                |stat, _, small| stat.version = small,
                |stat, _, small| stat.cversion = -small,
                |stat, _, small| stat.aversion = small,
            ];
            for change in changes {
                let before = stat;
                change(&mut stat, large, small);
                digest = digest.changed("/a", &before, &stat);
                assert_eq!(digest, NodeDigest::new("/a", Some(b"data"), &stat));
            }
        }
    }

    #[test]
    fn does_not_depend_on_how_it_is_summed() {
        let stat = StatPersisted { version: 3, ..StatPersisted::default() };
        let data: Vec<u8> = (0..=255).cycle().take(600).collect();
        for len in 0..data.len() {
            let whole = [b"/a", &data[..len], &encode(&stat)].concat();
            let digest = NodeDigest::new("/a", Some(&data[..len]), &stat);
            assert_eq!(digest, NodeDigest(crc32fast::hash(&whole)), "{len} bytes");
        }
    }

    #[test]
    fn what_counts_nothing_never_does() {
        let before = StatPersisted::default();
        let after = StatPersisted { version: 7, ..before };
        let config = NodeDigest::new("/zookeeper/config", Some(b"data"), &before);
        assert_eq!(config, NodeDigest::NONE);
        assert_eq!(config.changed("/zookeeper/config", &before, &after), NodeDigest::NONE);
        // A node whose checksum happens to be zero counts again with its next change.
        let changed = NodeDigest::NONE.changed("/a", &before, &after);
        assert_ne!(changed, NodeDigest::NONE);
        assert_eq!(changed.changed("/a", &after, &before), NodeDigest::NONE);
    }
}
