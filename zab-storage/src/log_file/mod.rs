//! One file of the transaction log: its format, a reader and the writer.

mod reader;
mod writer;

pub use reader::{End, LogReader, Record};
pub(crate) use writer::{LogWriter, Roll};

use byteorder::{BigEndian, ByteOrder};
use bytes::BufMut;
use zab_proto::Zxid;

use crate::checksum::Checksum;

/// "ZKLG".
pub(crate) const MAGIC: u32 = 0x5a4b_4c47;
/// The version ZooKeeper writes and nobody checks.
const VERSION: u32 = 2;
/// Magic, version, and a database id that is always 0.
pub(crate) const HEADER_LEN: u64 = 16;
/// Checksum and length in front of a payload.
const PREFIX_LEN: usize = 12;
/// The end marker, which tells a whole record from one that a crash cut off inside the padding.
const END_OF_RECORD: u8 = b'B';
/// The header of every transaction: clientId, cxid, zxid, time, type.
const TXN_HEADER_LEN: usize = 32;

/// Appends a record to `out`. The checksum covers the payload only.
pub(crate) fn encode(out: &mut Vec<u8>, txn: &[u8]) {
    let len = i32::try_from(txn.len()).expect("a transaction is shorter than 2 GiB");
    out.reserve(PREFIX_LEN + txn.len() + 1);
    out.put_u64(u64::from(Checksum::of(txn)));
    out.put_i32(len);
    out.put_slice(txn);
    out.put_u8(END_OF_RECORD);
}

/// The bytes in front of the first record.
fn header() -> [u8; 16] {
    let mut header = [0; 16];
    BigEndian::write_u32(&mut header, MAGIC);
    BigEndian::write_u32(&mut header[4..], VERSION);
    header
}

/// The zxid in a transaction's header; `None` if there is no header.
pub(crate) fn zxid_of(txn: &[u8]) -> Option<Zxid> {
    let header = txn.first_chunk::<TXN_HEADER_LEN>()?;
    Some(Zxid::from_raw(BigEndian::read_i64(&header[12..])))
}

/// Whether a transaction is the record of a failed request, the only kind whose zxid may be that
/// of its predecessor (ZooKeeper 3.9 logs malformed requests so).
pub(crate) fn is_error(txn: &[u8]) -> bool {
    const ERROR: i32 = -1;
    txn.get(28..32).is_some_and(|kind| BigEndian::read_i32(kind) == ERROR)
}
