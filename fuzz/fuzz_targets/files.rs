//! Log and snapshot files. The first byte says which, and how the file is compressed.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use zab_storage::{LogReader, SnapshotReader};
use zk_service::Loader;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let names = ["log.1", "snapshot.1", "snapshot.1.gz", "snapshot.1.snappy"];
    let path = file(names[usize::from(kind) % names.len()]);
    fs::write(&path, bytes).expect("a file for the input");
    if kind.is_multiple_of(4) {
        read_log(&path, bytes.len());
    } else {
        read_snapshot(&path);
    }
});

/// One directory for each process.
fn file(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("zab-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the input");
    dir.join(name)
}

fn read_log(path: &Path, len: usize) {
    let Ok(mut log) = LogReader::open(path) else { return };
    let mut read = 0;
    while let Ok(Some(record)) = log.next() {
        read += record.txn.len();
        assert!(read <= len, "more than the file holds");
    }
    assert!(log.offset() <= len as u64);
}

fn read_snapshot(path: &Path) {
    let Ok(mut snapshot) = SnapshotReader::open(path) else { return };
    let mut loader = Loader::new(true, 100_000);
    loop {
        let Ok(progress) = loader.push(snapshot.bytes()) else { return };
        snapshot.consume(progress.consumed);
        if progress.done {
            break;
        }
        if !matches!(snapshot.fill(), Ok(Some(_))) {
            return;
        }
    }
    let _ = snapshot.finish();
}
