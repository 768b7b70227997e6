//! The header in front of every transaction, in the log as on the wire.

use alloc::vec::Vec;

use bytes::BufMut;

use super::jute::Reader;
use crate::{DecodeError, Zxid};

/// `TxnHeader`: who caused a transaction, which one it is, when it was made and what it does.
///
/// A transaction is this header, the record that belongs to `kind`, and optionally a digest of the
/// tree after it. Only the header concerns the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnHeader {
    /// Session that caused it; 0: the server itself.
    pub client_id: i64,
    /// The session's request number.
    pub cxid: i32,
    /// Its place in the history.
    pub zxid: Zxid,
    /// When the leader made it, in milliseconds since 1970.
    pub time: i64,
    /// Operation code; -1: an error.
    pub kind: i32,
}

impl TxnHeader {
    /// Encoded length in bytes.
    pub const LEN: usize = 32;

    /// The header of the record that stands for a zxid which a Java leader took and never proposed.
    /// It is an error transaction, which changes nothing in any implementation, of a request that
    /// no client can send.
    #[must_use]
    pub fn unused(zxid: Zxid, time: i64) -> Self {
        Self { client_id: 0, cxid: -1, zxid, time, kind: ERROR }
    }

    /// The whole record after an [`unused`](Self::unused) header.
    #[must_use]
    pub fn unused_txn(zxid: Zxid, time: i64) -> Vec<u8> {
        let mut txn = Vec::with_capacity(Self::LEN + 4);
        Self::unused(zxid, time).write(&mut txn);
        txn.put_i32(INCONSISTENT);
        txn
    }

    /// Whether this is the header of an [`unused`](Self::unused) zxid.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        (self.client_id, self.cxid, self.kind) == (0, -1, ERROR)
    }

    /// Reads a header from the front of a transaction.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer than [`LEN`](Self::LEN) bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(bytes))
    }

    /// Reads a header where the reader stands.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer than [`LEN`](Self::LEN) bytes.
    #[inline]
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            client_id: reader.i64()?,
            cxid: reader.i32()?,
            zxid: Zxid::from_raw(reader.i64()?),
            time: reader.i64()?,
            kind: reader.i32()?,
        })
    }

    /// Writes the header.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.client_id);
        out.put_i32(self.cxid);
        out.put_i64(self.zxid.raw());
        out.put_i64(self.time);
        out.put_i32(self.kind);
    }
}

/// The type of a transaction that stands for a refused request; its body is the error's code (i32).
const ERROR: i32 = -1;

/// ZooKeeper's `RUNTIMEINCONSISTENCY`.
const INCONSISTENT: i32 = -2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let header = TxnHeader {
            client_id: 0x1000_0000_0001,
            cxid: 7,
            zxid: Zxid::from_raw(0x1_0000_0002),
            time: 1_700_000_000_000,
            kind: -11,
        };
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!(out.len(), TxnHeader::LEN);
        assert_eq!(TxnHeader::parse(&out), Ok(header));
        assert_eq!(TxnHeader::parse(&out[..31]), Err(DecodeError::UnexpectedEof));
    }
}
