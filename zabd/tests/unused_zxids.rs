//! Directories that ZooKeeper wrote, with zxids missing in the log: those that a leader took and
//! never used are told from those that were lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{DigestVerdict, Recovered, Zxid};
use zab_storage::{Error, LogReader, Options, Store};
use zk_service::{Service, ServiceOptions};

struct TempDir(PathBuf);

impl TempDir {
    /// A copy of what ZooKeeper left in one of its runs.
    fn captured(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-unused-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("version-2")).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../zk-service/tests/vectors/storage")
            .join(name);
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("log.") || name.starts_with("snapshot.") {
                fs::copy(&path, dir.join("version-2").join(name)).unwrap();
            }
        }
        Self(dir)
    }

    /// Leaves the snapshot of nothing, so that every record counts.
    fn from_the_beginning(name: &str) -> Self {
        let dir = Self::captured(name);
        for path in dir.files("snapshot.") {
            if !path.ends_with("snapshot.0") {
                fs::remove_file(path).unwrap();
            }
        }
        dir
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("version-2")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
        paths
    }

    /// Header of every record, with its place in its file.
    fn records(&self) -> Vec<(PathBuf, std::ops::Range<usize>, TxnHeader)> {
        let mut found = Vec::new();
        for path in self.files("log.") {
            let mut reader = LogReader::open(&path).unwrap();
            while let Some(record) = reader.next().unwrap() {
                let start = usize::try_from(record.offset).unwrap();
                let header = TxnHeader::parse(record.txn).unwrap();
                // Checksum and length in front, a mark behind.
                found.push((path.clone(), start..start + 12 + record.txn.len() + 1, header));
            }
        }
        found.sort_by_key(|(_, _, header)| header.zxid);
        found
    }

    /// Takes one record out of the log.
    fn remove(&self, zxid: Zxid) {
        let records = self.records();
        let (path, place, _) = records.iter().find(|(_, _, header)| header.zxid == zxid).unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes.drain(place.clone());
        fs::write(path, bytes).unwrap();
    }

    /// Writes a record for an unused zxid in the place of one, as a learner does that does not know yet
    /// whether it was used.
    fn fill(&self, zxid: Zxid) {
        let records = self.records();
        let (path, place, header) =
            records.iter().find(|(_, _, header)| header.zxid == zxid).unwrap();
        let mut bytes = fs::read(path).unwrap();
        let txn = TxnHeader::unused_txn(zxid, header.time);
        let mut record = adler32(&txn).to_be_bytes().to_vec();
        record.extend_from_slice(&u32::try_from(txn.len()).unwrap().to_be_bytes());
        record.extend_from_slice(&txn);
        record.push(b'B');
        bytes.splice(place.clone(), record);
        fs::write(path, bytes).unwrap();
    }

    fn recover(&self) -> (Result<Recovered, Error>, Service) {
        let mut service = Service::new(ServiceOptions::default());
        let mut store = Store::open(Options::new(&self.0)).unwrap();
        (store.recover(&mut service), service)
    }
}

fn adler32(bytes: &[u8]) -> u64 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u64::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a refused request leaves in the log changes nothing: without it the log is what a leader of
/// 3.8 leaves that met a malformed multi, which takes a zxid and is never proposed.
#[test]
fn a_zxid_that_was_never_used_is_filled() {
    let mut tried = 0;
    for name in ["acls", "basic-crud", "quota", "ttl-container"] {
        let whole = TempDir::from_the_beginning(name);
        let (recovered, _) = whole.recover();
        let last = recovered.unwrap().last();
        let records = whole.records();
        for (_, _, header) in &records[1..records.len() - 1] {
            let digest_follows = header.zxid.raw() + 3 < last.raw();
            if header.kind != -1 || !digest_follows {
                continue;
            }
            let dir = TempDir::from_the_beginning(name);
            dir.remove(header.zxid);
            let (recovered, service) = dir.recover();
            let recovered = recovered.unwrap_or_else(|e| panic!("{name} {}: {e}", header.zxid));
            assert_eq!(recovered.last(), last, "{name}");
            let zxids: Vec<Zxid> = recovered.txns().map(|(zxid, _)| zxid).collect();
            assert!(zxids.windows(2).all(|pair| pair[0].is_followed_by(pair[1])), "{name}");
            let filled = recovered.txns().find(|(zxid, _)| *zxid == header.zxid).unwrap().1;
            assert!(TxnHeader::parse(filled).unwrap().is_unused(), "{name}");
            // Nothing of the trial is left: what is committed is not known yet.
            let loaded = service.database().digest().unwrap();
            assert_eq!((loaded.zxid, loaded.digest), (Zxid::ZERO, 0x51c6_d660), "{name}");
            tried += 1;
        }
    }
    assert!(tried > 3, "only {tried}");
}

/// Only the digest can tell: a directory written without digests is refused as well.
#[test]
fn a_lost_transaction_is_missed() {
    let mut tried = 0;
    for name in ["acls", "basic-crud", "multi", "no-digest"] {
        let records = TempDir::from_the_beginning(name).records();
        for (_, _, header) in &records[1..records.len() - 1] {
            // A new node is in the digest (except below /zookeeper).
            if header.kind != 1 {
                continue;
            }
            let dir = TempDir::from_the_beginning(name);
            dir.remove(header.zxid);
            match dir.recover().0 {
                Err(Error::Hole { next, .. }) => assert!(next > header.zxid, "{name}"),
                other => panic!("{name} without {}: {other:?}", header.zxid),
            }
            tried += 1;
        }
    }
    assert!(tried > 5, "only {tried}");
}

/// A learner that died before it knew has filled the gap in its log. What it filled is proven like a gap:
/// it starts in any case, but then a snapshot is to replace what is not proven.
#[test]
fn what_a_learner_filled_is_proven_at_its_next_start() {
    let mut tried = [0; 3];
    for (name, digests) in [("acls", true), ("basic-crud", true), ("no-digest", false)] {
        let whole = TempDir::from_the_beginning(name);
        let records = whole.records();
        let last = records.last().unwrap().2.zxid;
        for (_, _, header) in &records[1..records.len() - 1] {
            let digest_follows = header.zxid.raw() + 3 < last.raw();
            let (case, proven) = match (header.kind, digests) {
                (-1, true) if digest_follows => (0, DigestVerdict::Agrees),
                (1, true) if digest_follows => (1, DigestVerdict::Differs),
                (1, false) => (2, DigestVerdict::Absent),
                _ => continue,
            };
            let dir = TempDir::from_the_beginning(name);
            dir.fill(header.zxid);
            let recovered = dir.recover().0.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(recovered.unused_proven, proven, "{name} {}", header.zxid);
            assert_eq!(recovered.last(), last, "{name}");
            tried[case] += 1;
        }
    }
    assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");
}
