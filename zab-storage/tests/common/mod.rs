//! What the tests of this crate share: directories, transactions, and an application that keeps
//! the bytes of its snapshot and understands only where they end.
#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use zab_proto::{
    Application, BadSnapshot, ClientOutput, ConnId, Core, Incoming, InstallProgress, Instant,
    Origin, SnapshotDigest, Status, Zxid,
};

/// A directory that goes with the test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zab-storage-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn version_2(&self) -> PathBuf {
        self.0.join("version-2")
    }

    /// The names in `version-2`, sorted, without hidden ones.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.version_2()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Copies the files of a directory over those of another.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A copy of a captured directory.
pub(crate) fn captured(name: &str) -> TempDir {
    let dir = TempDir::new();
    copy(&vectors().join(name).join("version-2"), &dir.version_2());
    dir
}

/// A transaction of `len` bytes behind its header.
pub(crate) fn txn(zxid: i64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[12..20].copy_from_slice(&zxid.to_be_bytes());
    bytes[28..32].copy_from_slice(&5i32.to_be_bytes());
    bytes.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
    bytes
}

/// A tree with one node whose data is `data`.
pub(crate) fn body(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&i32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&[0; 68]);
    bytes.extend_from_slice(&[0, 0, 0, 1, b'/']);
    bytes
}

/// Keeps the bytes of a snapshot.
#[derive(Default)]
pub(crate) struct Bytes {
    pub(crate) state: Vec<u8>,
    pub(crate) zxid: Option<Zxid>,
    pub(crate) digest: Option<SnapshotDigest>,
    /// What was applied behind the snapshot.
    pub(crate) delivered: Vec<Zxid>,
    stage: Vec<u8>,
    read: usize,
}

impl Bytes {
    pub(crate) fn new() -> Self {
        Self { state: body(b"initial"), ..Self::default() }
    }
}

/// Where a tree ends: `None` if it goes on.
fn end_of_tree(bytes: &[u8]) -> Result<Option<usize>, BadSnapshot> {
    let mut at = 0;
    Ok(walk(bytes, &mut at)?.map(|()| at))
}

fn walk(bytes: &[u8], at: &mut usize) -> Result<Option<()>, BadSnapshot> {
    macro_rules! get {
        ($e:expr) => {
            match $e {
                Some(value) => value,
                None => return Ok(None),
            }
        };
    }
    let sessions = get!(int(bytes, at));
    get!(skip(bytes, at, count(sessions)? * 12));
    for _ in 0..count(get!(int(bytes, at)))? {
        get!(skip(bytes, at, 8));
        for _ in 0..count(get!(int(bytes, at)))? {
            get!(skip(bytes, at, 4));
            for _ in 0..2 {
                let len = get!(int(bytes, at));
                get!(skip(bytes, at, count(len)?));
            }
        }
    }
    loop {
        let len = get!(int(bytes, at));
        let start = *at;
        get!(skip(bytes, at, count(len)?));
        if bytes[start..*at] == *b"/" {
            return Ok(Some(()));
        }
        let data = get!(int(bytes, at));
        get!(skip(bytes, at, count(data.max(0))? + 68));
    }
}

fn int(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let raw = bytes.get(*at..*at + 4)?.try_into().unwrap();
    *at += 4;
    Some(i32::from_be_bytes(raw))
}

fn skip(bytes: &[u8], at: &mut usize, len: usize) -> Option<()> {
    *at += len;
    (*at <= bytes.len()).then_some(())
}

fn count(n: i32) -> Result<usize, BadSnapshot> {
    usize::try_from(n).map_err(|_| BadSnapshot)
}

impl Application for Bytes {
    fn snapshot_open(&mut self) -> u32 {
        self.read = 0;
        7
    }

    fn snapshot_read(&mut self, _: u32, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.state.len() - self.read);
        buf[..n].copy_from_slice(&self.state[self.read..self.read + n]);
        self.read += n;
        n
    }

    fn snapshot_digest(&self, _: u32) -> Option<SnapshotDigest> {
        self.digest
    }

    fn snapshot_close(&mut self, _: u32) {}

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let before = self.stage.len();
        self.stage.extend_from_slice(bytes);
        let Some(end) = end_of_tree(&self.stage)? else {
            return Ok(InstallProgress { consumed: bytes.len(), done: false });
        };
        self.stage.truncate(end);
        Ok(InstallProgress { consumed: end - before, done: true })
    }

    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.state = std::mem::take(&mut self.stage);
        self.zxid = Some(zxid);
        self.digest = digest;
        self.delivered.clear();
    }

    fn install_abort(&mut self) {
        self.stage.clear();
    }

    fn deliver(&mut self, _: Instant, zxid: Zxid, _: &[u8]) {
        self.delivered.push(zxid);
    }

    // What follows is never called by the storage.

    fn became(&mut self, _: &mut Core<'_>, _: &Status) {}
    fn request(&mut self, _: &mut Core<'_>, _: Origin, _: &[u8], _: &[u8]) {}
    fn touched(&mut self, _: &mut Core<'_>, _: Origin, _: &[u8]) {}
    fn revalidate(&mut self, _: &mut Core<'_>, _: Origin, _: &[u8]) {}
    fn take_touched(&mut self, _: &mut Vec<u8>) {}
    fn revalidated(&mut self, _: &mut Core<'_>, _: &[u8]) {}
    fn synced(&mut self, _: &mut Core<'_>, _: Option<u64>) {}
    fn accept(&mut self, _: &mut Core<'_>, _: &Incoming) -> Option<ConnId> {
        None
    }
    fn handle_bytes(&mut self, _: &mut Core<'_>, _: ConnId, _: &[u8]) -> usize {
        0
    }
    fn poll_transmit(&mut self, _: ConnId, _: &mut [u8]) -> usize {
        0
    }
    fn closed(&mut self, _: &mut Core<'_>, _: ConnId) {}
    fn poll_output(&mut self) -> Option<ClientOutput> {
        None
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn handle_timeout(&mut self, _: &mut Core<'_>) {}
}
