//! Reads one transaction log of ZooKeeper, of whatever server: `read_log DATA_DIR/version-2/log.1`.

use std::error::Error;
use std::path::Path;

use zab_proto::wire::txn::TxnHeader;
use zab_storage::{End, LogReader};

#[cfg_attr(test, expect(dead_code, reason = "the test calls `run`"))]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("which file?")?;
    run(Path::new(&path)).map(drop)
}

/// Prints each record, and returns how many there are. A checksum that does not match, a length that
/// cannot be, a zxid that does not rise: all of this is an error which names the file and the byte.
pub(crate) fn run(path: &Path) -> Result<usize, Box<dyn Error>> {
    let mut reader = LogReader::open(path)?;
    let mut count = 0;
    while let Some(record) = reader.next()? {
        let TxnHeader { client_id, cxid, time, kind, .. } = TxnHeader::parse(record.txn)?;
        println!("{}: session {client_id:#x}, cxid {cxid}, {time} ms, type {kind}", record.zxid);
        count += 1;
    }
    // A crash may have cut off the last record: recovery goes on from the one before.
    if reader.end() == Some(End::Torn) {
        println!("the record at byte {} is cut off", reader.offset());
    }
    Ok(count)
}
