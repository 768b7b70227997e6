//! Snapshots that reach the disk as they are written.
//!
//! What is only written waits in the page cache, and the `fdatasync` of the log that comes next may have to wait for
//! all of it: on a busy disk a hundred megabytes cost writers a tenth of a second and more. So a snapshot goes past the page
//! cache, piece by piece, and between the pieces the log has the disk for as long as the last one took. Where the file
//! system has no such writes, each piece is synced instead.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::fs::{BLOCK_LEN, OutFile};

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

/// Bytes that are written at once. Writing them takes a disk of 100 MB/s 2.5 ms.
pub(crate) const PIECE_LEN: usize = 256 << 10;

/// After a piece the log has the disk for no longer than this: a disk that stalls would not end a snapshot.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The file of a snapshot, on the disk piece by piece.
#[derive(Debug)]
pub(crate) struct PacedFile {
    file: OutFile,
    pace: Pace,
    piece: Piece,
}

impl PacedFile {
    pub(crate) fn new(file: OutFile, pace: Pace) -> Self {
        Self { file, pace, piece: Piece::new() }
    }

    /// Writes and syncs what is left.
    pub(crate) fn finish(mut self) -> io::Result<OutFile> {
        let (blocks, rest) = self.piece.split();
        self.file.write_all(blocks)?;
        self.file.end_direct()?;
        self.file.write_all(rest)?;
        self.file.sync_written()?;
        Ok(self.file)
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        self.file.write_all(self.piece.filled())?;
        if !self.file.is_direct() {
            self.file.sync_written()?;
        }
        self.piece.len = 0;
        std::thread::sleep(self.pace.pause(begin.elapsed()));
        Ok(())
    }
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.piece.fill(bytes);
        if self.piece.len == PIECE_LEN {
            self.write_piece()?;
        }
        Ok(len)
    }

    /// Nothing: only whole pieces go past the page cache.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The piece that is being filled, aligned to blocks.
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    /// Where the first block begins in `memory`, which never moves.
    start: usize,
    len: usize,
}

impl Piece {
    fn new() -> Self {
        let memory = vec![0; PIECE_LEN + BLOCK_LEN];
        // An address whose distance to the next block is not known costs direct writes, nothing else.
        let start = memory.as_ptr().align_offset(BLOCK_LEN).min(BLOCK_LEN);
        Self { memory, start, len: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// What is whole blocks, and the rest.
    fn split(&self) -> (&[u8], &[u8]) {
        self.filled().split_at(self.len - self.len % BLOCK_LEN)
    }

    /// Takes as many bytes as it has room for.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(PIECE_LEN - self.len);
        let at = self.start + self.len;
        self.memory[at..at + len].copy_from_slice(&bytes[..len]);
        self.len += len;
        len
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::crash_tests::TempDir;
    use crate::fs::Fs;

    #[test]
    fn the_log_has_the_disk_for_as_long_as_a_piece_took_but_a_stall_ends() {
        let pauses = |pace: Pace| [PAUSE_MAX / 2, 2 * PAUSE_MAX].map(|took| pace.pause(took));
        assert_eq!(pauses(Pace::Half), [PAUSE_MAX / 2, PAUSE_MAX]);
        assert_eq!(pauses(Pace::Full), [Duration::ZERO; 2]);
    }

    /// Any length: whole pieces, whole blocks, and what is left of a block.
    #[test]
    fn what_goes_past_the_page_cache_is_what_was_written() {
        let dir = TempDir::new();
        fs::create_dir_all(dir.version_2()).unwrap();
        let path = dir.version_2().join("tmp");
        let mut rng = fastrand::Rng::with_seed(7);
        for len in [
            0,
            1,
            BLOCK_LEN - 1,
            BLOCK_LEN,
            PIECE_LEN - 1,
            PIECE_LEN,
            PIECE_LEN + BLOCK_LEN + 1,
            2 * PIECE_LEN,
        ] {
            let bytes = Vec::from_iter(std::iter::repeat_with(|| rng.u8(..)).take(len));
            let mut file =
                PacedFile::new(Fs::default().create_direct(path.clone()).unwrap(), Pace::Full);
            for part in bytes.chunks(1000) {
                file.write_all(part).unwrap();
            }
            file.finish().unwrap();
            assert!(fs::read(&path).unwrap() == bytes, "{len} bytes");
        }
    }

    /// A disk whose blocks are longer, or memory that is not aligned to them, is found out by a write.
    #[test]
    fn a_file_that_refuses_to_be_written_past_the_page_cache_is_written_through_it() {
        let dir = TempDir::new();
        fs::create_dir_all(dir.version_2()).unwrap();
        let path = dir.version_2().join("tmp");
        let mut out = Fs::default().create_direct(path.clone()).unwrap();
        out.write_all(&[7; 100]).unwrap();
        assert!(!out.is_direct());
        out.write_all(&[8; 100]).unwrap();
        out.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [[7; 100], [8; 100]].concat());
    }
}
