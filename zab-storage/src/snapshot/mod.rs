//! One snapshot file: its format, a reader and the writer.
//!
//! The application's bytes (sessions, ACL map, nodes, the final path "/") stand between a file
//! header and the seals; they are the same bytes that go over the wire in a SNAP.

mod paced;
mod reader;
mod snappy;
mod writer;

#[cfg(test)]
pub(crate) use paced::PIECE_LEN;
pub(crate) use paced::Pace;
pub use reader::{SnapshotReader, Trailer};
pub(crate) use reader::{compression_of, is_plausible};
pub(crate) use writer::SnapshotWriter;

/// "ZKSN".
pub(crate) const MAGIC: u32 = 0x5a4b_534e;
const VERSION: u32 = 2;
/// The database id that ZooKeeper writes; nobody checks it.
const DB_ID: i64 = -1;
/// The string "/" after each checksum.
const SEAL_PATH: [u8; 5] = [0, 0, 0, 1, b'/'];
/// Checksum (long) and "/".
const SEAL_LEN: usize = 13;
/// zxid, version, digest.
const DIGEST_LEN: usize = 20;
/// lastProcessedZxid.
const ZXID_LEN: usize = 8;
/// The digest algorithm in use.
const DIGEST_VERSION: i32 = 2;
