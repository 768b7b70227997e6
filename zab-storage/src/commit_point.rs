//! How far the log is known to be committed: a lower bound, kept beside it.
//!
//! A log does not say which of its records are committed, and the application may have no others. What
//! lies after the last snapshot would have to wait in memory, at every start, until a leader is known.
//! Raft's implementations keep the commit index in their hard state for this; here it is a small file
//! that is overwritten once per [`EVERY_LEN`] of log, without an fsync: a bound that is too low, or
//! lost, costs memory and nothing else.
//!
//! One that is too high would break rule R6. It is written after the records that it speaks of, by the
//! thread that writes them, so what it names is on the disk, and it names its record by zxid and
//! checksum: in a log that has another record there, or none, it is not believed.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::Path;

use zab_proto::Zxid;

use crate::checksum::Checksum;
use crate::error::{Context, Error};
use crate::fs::Fs;

/// The file in the log directory.
const NAME: &str = ".zab-committed";

/// The bound rises once per this many bytes of log, and lags behind by as much.
const EVERY_LEN: usize = 1 << 20;

/// A record that is committed, with all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommitPoint {
    pub(crate) zxid: Zxid,
    /// Adler-32 of its payload, as in the log.
    pub(crate) checksum: u32,
}

impl CommitPoint {
    /// Writes it over the one before. The text has always the same length, and its own checksum.
    pub(crate) fn write(self, fs: &Fs, dir: &Path) -> Result<(), Error> {
        let path = dir.join(NAME);
        let mut file = if path.exists() { fs.open(path) } else { fs.create(path) }?;
        file.write_all(self.text().as_bytes()).context("write", file.path())
    }

    /// The one that was written last, if it can be read. Whatever is wrong with it, the start goes on
    /// without.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join(NAME)).ok()?;
        let (zxid, rest) = text.split_once(' ')?;
        let (checksum, _) = rest.split_once(' ')?;
        let zxid = Zxid::from_raw(i64::from_str_radix(zxid, 16).ok()?);
        let point = Self { zxid, checksum: u32::from_str_radix(checksum, 16).ok()? };
        (point.text() == text).then_some(point)
    }

    fn text(self) -> String {
        let text = format!("{:016x} {:08x}", self.zxid.raw(), self.checksum);
        let check = Checksum::of(text.as_bytes());
        format!("{text} {check:08x}\n")
    }
}

/// Records that may become the commit point: one per [`EVERY_LEN`] of what was appended.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    waiting: VecDeque<CommitPoint>,
    since: usize,
}

impl Candidates {
    pub(crate) fn appended(&mut self, zxid: Zxid, txn: &[u8]) {
        self.since += txn.len();
        if self.since >= EVERY_LEN {
            self.since = 0;
            self.waiting.push_back(CommitPoint { zxid, checksum: Checksum::of(txn) });
        }
    }

    /// The newest that is committed, if there is one that was not before.
    pub(crate) fn committed(&mut self, zxid: Zxid) -> Option<CommitPoint> {
        let mut newest = None;
        while self.waiting.front().is_some_and(|point| point.zxid <= zxid) {
            newest = self.waiting.pop_front();
        }
        newest
    }

    /// What lies above `after` is cut off.
    pub(crate) fn truncate(&mut self, after: Zxid) {
        self.waiting.retain(|point| point.zxid <= after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_foreign_file_is_no_commit_point() {
        let dir = std::env::temp_dir().join(format!("zab-commit-point-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(CommitPoint::read(&dir), None);
        let old = CommitPoint { zxid: Zxid::from_raw(0x1_0000_0001), checksum: 7 };
        let new = CommitPoint { zxid: Zxid::from_raw(0x2_0000_00ff), checksum: 0xffff_fff0 };
        for point in [old, new] {
            point.write(&Fs::default(), &dir).unwrap();
            assert_eq!(CommitPoint::read(&dir), Some(point));
        }
        let (old, new) = (old.text(), new.text());
        assert_eq!(old.len(), new.len());
        for at in 0..=new.len() {
            // Overwritten up to here; and cut off here.
            let torn = format!("{}{}", &new[..at], &old[at..]);
            for text in [&torn, &new[..at]] {
                fs::write(dir.join(NAME), text).unwrap();
                let read = CommitPoint::read(&dir).map(CommitPoint::text);
                assert!(read.is_none_or(|read| read == old || read == new), "{text}");
            }
        }
        fs::write(dir.join(NAME), [0xff; 36]).unwrap();
        assert_eq!(CommitPoint::read(&dir), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn one_candidate_per_mebibyte() {
        let mut candidates = Candidates::default();
        for n in 1..=100 {
            candidates.appended(Zxid::from_raw(n), &[0; 100 << 10]);
        }
        let zxid = |point: Option<CommitPoint>| point.map(|point| point.zxid.raw());
        assert_eq!(zxid(candidates.committed(Zxid::from_raw(10))), None);
        assert_eq!(zxid(candidates.committed(Zxid::from_raw(40))), Some(33));
        candidates.truncate(Zxid::from_raw(60));
        assert_eq!(zxid(candidates.committed(Zxid::from_raw(100))), Some(55));
        assert_eq!(zxid(candidates.committed(Zxid::from_raw(100))), None);
    }
}
