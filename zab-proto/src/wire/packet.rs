//! `QuorumPacket`, the one record of the quorum port.
//!
//! There is no length in front of a packet: it ends where its last field ends. After a
//! [`PacketType::SNAP`] a raw snapshot stream follows before the next packet.

use core::fmt;

use bytes::BufMut;

use super::Parsed;
use super::jute::{BufMutExt, Reader};
use crate::{DecodeError, Zxid};

/// What a packet is. Unknown numbers are kept, so that they can be logged and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketType(pub i32);

/// Declares the known types and their names at once.
macro_rules! packet_types {
    ($($(#[$doc:meta])+ $name:ident = $number:literal,)+) => {
        impl PacketType {
            $($(#[$doc])+ pub const $name: Self = Self($number);)+

            /// ZooKeeper's name of the type, if it is a known one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

packet_types! {
    /// Learner to leader: a client's request.
    REQUEST = 1,
    /// Leader to follower: a transaction to log and acknowledge.
    PROPOSAL = 2,
    /// Learner to leader: everything up to this zxid is durable.
    ACK = 3,
    /// Leader to follower: apply the transaction.
    COMMIT = 4,
    /// Both ways: a sign of life; the learner's has the sessions that were alive.
    PING = 5,
    /// Both ways: is a session still valid?
    REVALIDATE = 6,
    /// Leader to learner: the oldest forwarded sync is answered.
    SYNC = 7,
    /// Leader to observer: a committed transaction.
    INFORM = 8,
    /// Leader to follower: apply a reconfiguration.
    COMMITANDACTIVATE = 9,
    /// Leader to learner: the end of the history to synchronise.
    NEWLEADER = 10,
    /// Follower to leader: its first packet.
    FOLLOWERINFO = 11,
    /// Leader to learner: the ensemble serves.
    UPTODATE = 12,
    /// Leader to learner: transactions that are missing follow.
    DIFF = 13,
    /// Leader to learner: forget everything after this zxid.
    TRUNC = 14,
    /// Leader to learner: a snapshot follows.
    SNAP = 15,
    /// Observer to leader: its first packet.
    OBSERVERINFO = 16,
    /// Leader to learner: the new epoch.
    LEADERINFO = 17,
    /// Learner to leader: the epoch is accepted.
    ACKEPOCH = 18,
    /// Leader to observer: a committed reconfiguration.
    INFORMANDACTIVATE = 19,
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl fmt::Debug for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One packet, borrowed from the bytes it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: PacketType,
    /// What it is about.
    pub zxid: Zxid,
    /// Its body, see [`body`](super::body); `None` is null.
    pub data: Option<&'a [u8]>,
    /// Identities of a client: an encoded `vector<Id>` with its count, [`NULL_AUTH`] for most.
    pub auth: &'a [u8],
}

/// An absent vector of identities.
pub const NULL_AUTH: &[u8] = &[0xff; 4];

/// Bytes of a packet in front of its data: type, zxid and the data's length.
pub const HEAD_LEN: usize = 16;

/// The shortest packet: no data, no identities.
pub const BARE_LEN: usize = HEAD_LEN + NULL_AUTH.len();

impl<'a> Packet<'a> {
    /// A packet without identities.
    #[must_use]
    pub fn new(kind: PacketType, zxid: Zxid, data: Option<&'a [u8]>) -> Self {
        Self { kind, zxid, data, auth: NULL_AUTH }
    }

    /// Reads the packet at the front of `bytes`.
    ///
    /// Data of more than `field_len_max` bytes is malformed, and so are identities of more than
    /// that in all, of which ZooKeeper bounds only the single strings: a connection needs a buffer
    /// of no more than [`len_max`](Self::len_max).
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8], field_len_max: usize) -> Parsed<Self> {
        Parsed::from_result(Self::read(bytes, field_len_max))
    }

    #[inline]
    fn read(bytes: &'a [u8], field_len_max: usize) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::with_field_len_max(bytes, field_len_max);
        let kind = PacketType(reader.i32()?);
        let zxid = Zxid::from_raw(reader.i64()?);
        let data = reader.buffer()?;
        let auth = reader.rest();
        let start = reader.position();
        if let Some(count @ 1..) = reader.vector()? {
            skip_identities(&mut reader, count, field_len_max)?;
        }
        let len = reader.position();
        Ok((Self { kind, zxid, data, auth: &auth[..len - start] }, len))
    }

    /// The longest packet that [`parse`](Self::parse) accepts, in bytes.
    #[must_use]
    pub fn len_max(field_len_max: usize) -> usize {
        field_len_max.saturating_mul(2).saturating_add(BARE_LEN)
    }

    /// Length on the wire in bytes.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEAD_LEN + self.data.map_or(0, <[u8]>::len) + self.auth.len()
    }

    /// Writes the packet to the front of `buf` and returns its length.
    ///
    /// # Panics
    /// If `buf` is shorter than [`encoded_len`](Self::encoded_len).
    pub fn emit(&self, mut buf: &mut [u8]) -> usize {
        self.write(&mut buf);
        self.encoded_len()
    }

    /// Writes the packet.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i32(self.kind.0);
        out.put_i64(self.zxid.raw());
        out.put_buffer(self.data);
        out.put_slice(self.auth);
    }
}

/// Walks over `count` identities: pairs of strings, 8 bytes or more each. A length that leads
/// beyond the limit is refused at once, not when that much has arrived.
#[cold]
fn skip_identities(
    reader: &mut Reader<'_>,
    count: usize,
    field_len_max: usize,
) -> Result<(), DecodeError> {
    let mut budget = count
        .checked_mul(8)
        .and_then(|len| field_len_max.checked_sub(len))
        .ok_or_else(|| DecodeError::BadLength(i64::try_from(count).unwrap_or(i64::MAX)))?;
    for _ in 0..2 * count {
        reader.set_field_len_max(budget);
        budget -= reader.ustring()?.map_or(0, <[u8]>::len);
    }
    Ok(())
}

/// A packet with neither data nor identities (ACK, COMMIT, SYNC, UPTODATE, DIFF, ...).
#[inline]
#[must_use]
pub fn bare(kind: PacketType, zxid: Zxid) -> [u8; BARE_LEN] {
    let mut bytes = [0; BARE_LEN];
    Packet::new(kind, zxid, None).emit(&mut bytes);
    bytes
}

/// What stands in front of `data_len` bytes of data, after which [`NULL_AUTH`] ends the packet:
/// for sending data from where it lies.
///
/// # Panics
/// If `data_len` is more than `i32::MAX`.
#[inline]
#[must_use]
pub fn head(kind: PacketType, zxid: Zxid, data_len: usize) -> [u8; HEAD_LEN] {
    let mut bytes = [0; HEAD_LEN];
    let mut out = &mut bytes[..];
    out.put_i32(kind.0);
    out.put_i64(zxid.raw());
    out.put_len(data_len);
    bytes
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::*;

    const LIMIT: usize = 64;

    fn encode(packet: &Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        packet.write(&mut out);
        out
    }

    #[test]
    fn emitters_agree() {
        let zxid = Zxid::from_raw(0x1_0000_0002);
        let ack = Packet::new(PacketType::ACK, zxid, None);
        assert_eq!(encode(&ack), bare(PacketType::ACK, zxid));
        let proposal = Packet::new(PacketType::PROPOSAL, zxid, Some(b"txn"));
        let parts = [&head(PacketType::PROPOSAL, zxid, 3)[..], b"txn", NULL_AUTH].concat();
        assert_eq!(encode(&proposal), parts);
        let mut memory = [0; 64];
        assert_eq!(proposal.emit(&mut memory), proposal.encoded_len());
        assert_eq!(memory[..proposal.encoded_len()], parts);
    }

    #[test]
    fn limits() {
        let at = [7; LIMIT];
        let packet = Packet::new(PacketType::PROPOSAL, Zxid::ZERO, Some(&at));
        let bytes = encode(&packet);
        assert_eq!(
            Packet::parse(&bytes, LIMIT),
            Parsed::Complete { value: packet, len: bytes.len() }
        );
        let above = DecodeError::BadLength(64);
        assert_eq!(Packet::parse(&bytes[..16], LIMIT - 1), Parsed::Malformed(above));
        let negative = head(PacketType::ACK, Zxid::ZERO, 0);
        let negative = [&negative[..12], &(-2_i32).to_be_bytes()].concat();
        let below = DecodeError::BadLength(-2);
        assert_eq!(Packet::parse(&negative, LIMIT), Parsed::Malformed(below));
    }

    #[test]
    fn identities() {
        let packet = |count: i32, ids: &[Option<&str>]| {
            let mut auth = Vec::new();
            auth.put_i32(count);
            ids.iter().for_each(|id| auth.put_ustring(*id));
            encode(&Packet { auth: &auth, ..Packet::new(PacketType::REQUEST, Zxid::NONE, None) })
        };
        let is_complete = |bytes: &[u8]| match Packet::parse(bytes, LIMIT) {
            Parsed::Complete { value, len } => {
                assert_eq!((encode(&value), len), (bytes.to_vec(), bytes.len()));
                true
            }
            Parsed::Incomplete => false,
            Parsed::Malformed(error) => panic!("{error}"),
        };
        assert!(is_complete(&packet(2, &[Some("ip"), Some("127.0.0.1"), None, Some("")])));
        assert!(is_complete(&packet(0, &[])));
        assert!(is_complete(&packet(-5, &[])), "a negative count is an empty vector");
        assert!(!is_complete(&packet(2, &[Some("ip"), Some("127.0.0.1"), None])));
        let malformed = |bytes: &[u8]| matches!(Packet::parse(bytes, LIMIT), Parsed::Malformed(_));
        assert!(malformed(&packet(9, &[])), "72 bytes at least");
        assert!(malformed(&packet(i32::MAX, &[])));
        let long = "x".repeat(LIMIT - 8);
        assert!(is_complete(&packet(1, &[Some(&long), Some("")])));
        let over = packet(1, &[Some(&long), Some("1")]);
        assert!(malformed(&over));
        assert!(malformed(&over[..over.len() - 1]), "as soon as the length is known");
    }

    #[test]
    fn unknown_types_are_printable() {
        assert_eq!(format!("{:?}", PacketType::COMMIT), "COMMIT");
        assert_eq!(format!("{}", PacketType(77)), "type 77");
    }
}
