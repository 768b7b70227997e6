//! `zabd inspect`: what a log, a snapshot or the id of the ensemble holds, and whether it is whole.
//!
//! The text is that of ZooKeeper's log and snapshot tools, as far as it does not depend on the
//! reader's language. JSON comes as one object per line, so that a log of any size can be piped:
//! records first, then one object with `end` (log) or `digest` (snapshot) and the verdict.

mod identity;
mod json;
mod log;
mod snapshot;
mod text;

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use zab_storage::Error;

use crate::exit;

/// What a file is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file of the transaction log, `log.<zxid>`.
    Log,
    /// A snapshot, `snapshot.<zxid>`, perhaps compressed.
    Snapshot,
    /// The id of the ensemble, `ensembleId`.
    Identity,
}

/// How whole a file is.
#[derive(Debug)]
enum Verdict {
    /// All of it is good.
    Whole,
    /// Good up to a record that is cut off, as a crash leaves the end of the last log. Recovery goes
    /// on from there and loses nothing that was acknowledged.
    Torn { offset: u64 },
    /// What no crash explains.
    Damaged(String),
}

/// Prints `file` to `out` and the verdict to `complaints`; the exit code. [`exit::OK`]: whole;
/// [`exit::TORN`]: a torn tail; [`exit::DAMAGED`]: damaged; [`exit::UNEXPECTED`]: it cannot be
/// read.
pub fn run(
    kind: Kind,
    file: &Path,
    as_json: bool,
    out: &mut impl Write,
    complaints: &mut impl Write,
) -> u8 {
    let printed = match kind {
        Kind::Log => log::print(file, as_json, out),
        Kind::Snapshot => snapshot::print(file, as_json, out),
        Kind::Identity => identity::print(file, as_json, out),
    };
    let flushed = out.flush();
    let name = file.display();
    let (code, complaint) = match printed.and_then(|verdict| flushed.map(|()| verdict)) {
        Ok(Verdict::Whole) => return exit::OK,
        Ok(Verdict::Torn { offset }) => {
            (exit::TORN, format!("{name} ends in a torn record at byte {offset}"))
        }
        Ok(Verdict::Damaged(what)) => (exit::DAMAGED, what),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return exit::OK,
        Err(error) => (exit::UNEXPECTED, error.to_string()),
    };
    // There is nowhere else to say it.
    let _ = writeln!(complaints, "zabd: {complaint}");
    code
}

/// Damage is what we are here to tell of; everything else stops us.
fn verdict_of(error: Error) -> io::Result<Verdict> {
    match error {
        Error::Damaged { .. } => Ok(Verdict::Damaged(error.to_string())),
        // A compressed stream that does not decompress.
        Error::Io { ref path, ref source, .. }
            if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
                || (source.kind() == ErrorKind::UnexpectedEof && path.exists()) =>
        {
            Ok(Verdict::Damaged(error.to_string()))
        }
        Error::Io { ref source, .. } => Err(io::Error::new(source.kind(), error.to_string())),
        error => Err(io::Error::other(error)),
    }
}
