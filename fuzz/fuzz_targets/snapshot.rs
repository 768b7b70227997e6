//! A snapshot stream, in arbitrary pieces; what loads is written out and loaded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_proto::Zxid;
use zk_service::{Database, Loaded, Loader};

const FIELD_LEN_MAX: usize = 100_000;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, stream)) = data.split_first() else { return };
    let whole = load(stream, stream.len().max(1));
    let pieces = load(stream, usize::from(piece) + 1);
    assert_eq!(whole.is_some(), pieces.is_some());
    let (Some((loaded, len)), Some((other, other_len))) = (whole, pieces) else { return };
    assert_eq!(len, other_len);
    let first = written(loaded);
    assert_eq!(first, written(other));
    let (again, len) = load(&first, first.len()).expect("our own snapshot");
    assert_eq!(len, first.len());
    assert_eq!(written(again), first);
});

/// Loads `stream`, which arrives `piece` bytes at a time; also how long the snapshot was.
fn load(stream: &[u8], piece: usize) -> Option<(Loaded, usize)> {
    let mut loader = Loader::new(true, FIELD_LEN_MAX);
    let (mut used, mut arrived) = (0, 0);
    while arrived < stream.len() {
        arrived = (arrived + piece).min(stream.len());
        let progress = loader.push(&stream[used..arrived]).ok()?;
        used += progress.consumed;
        assert!(used <= arrived);
        if progress.done {
            return Some((loader.finish().expect("done"), used));
        }
    }
    assert!(loader.finish().is_none());
    None
}

fn written(loaded: Loaded) -> Vec<u8> {
    let mut database = Database::new(true);
    database.install(loaded, Zxid::from_raw(1), None);
    let snapshot = database.snapshot_open().expect("none is open");
    let mut bytes = Vec::new();
    let mut buf = [0; 777];
    loop {
        match database.snapshot_read(snapshot, &mut buf) {
            0 => break,
            n => bytes.extend_from_slice(&buf[..n]),
        }
    }
    database.snapshot_close(snapshot);
    bytes
}
