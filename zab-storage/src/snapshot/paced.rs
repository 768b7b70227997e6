//! Snapshots that reach the disk as they are written.
//!
//! What is only written waits in the page cache, and the `fdatasync` of the log that comes next may have to wait for
//! all of it: on a busy disk a hundred megabytes cost writers a tenth of a second and more. So a snapshot is synced
//! in pieces, and between them the log has the disk for as long as the last piece took.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use crate::fs::OutFile;

/// How a snapshot shares the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// As fast as the disk takes it: nothing else is done meanwhile.
    Full,
    /// At most half of the disk's time.
    Half,
}

impl Pace {
    /// How long the disk is left to the log after a piece that took so long.
    fn pause(self, took: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Half => took.min(PAUSE_MAX),
        }
    }
}

/// Bytes that are synced at once. Writing them takes a disk of 100 MB/s 2.5 ms.
pub(crate) const PIECE_LEN: usize = 256 << 10;

/// After a piece the log has the disk for no longer than this: a disk that stalls would not end a snapshot.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The file of a snapshot, synced piece by piece.
#[derive(Debug)]
pub(crate) struct PacedFile {
    out: BufWriter<Pieces>,
}

#[derive(Debug)]
struct Pieces {
    file: OutFile,
    pace: Pace,
}

impl PacedFile {
    pub(crate) fn new(file: OutFile, pace: Pace) -> Self {
        Self { out: BufWriter::with_capacity(PIECE_LEN, Pieces { file, pace }) }
    }

    /// Writes and syncs what is left.
    pub(crate) fn finish(self) -> io::Result<OutFile> {
        let pieces = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(pieces.file)
    }
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begin = Instant::now();
        let len = self.file.write(&bytes[..bytes.len().min(PIECE_LEN)])?;
        self.file.sync_written()?;
        std::thread::sleep(self.pace.pause(begin.elapsed()));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_the_disk_for_as_long_as_a_piece_took_but_a_stall_ends() {
        let pauses = |pace: Pace| [PAUSE_MAX / 2, 2 * PAUSE_MAX].map(|took| pace.pause(took));
        assert_eq!(pauses(Pace::Half), [PAUSE_MAX / 2, PAUSE_MAX]);
        assert_eq!(pauses(Pace::Full), [Duration::ZERO; 2]);
    }
}
