//! Transactions (each after its length in two bytes), applied, with a snapshot in the middle.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_proto::SnapshotDigest;
use zk_service::txn::Payload;
use zk_service::{Database, Loader};

fuzz_target!(|data: &[u8]| {
    let txns = split(data);
    let mut database = Database::new(true);
    apply(&mut database, &txns[..txns.len() / 2]);
    let before = (database.digest(), database.tree.node_count(), database.sessions.clone());
    let snapshot = database.snapshot_open().expect("the first one");
    let mut bytes = vec![0; 100];
    let len = database.snapshot_read(snapshot, &mut bytes);
    bytes.truncate(len);
    apply(&mut database, &txns[txns.len() / 2..]);

    // The first is the state at its opening, the second is that of now.
    let first = load(rest(&mut database, snapshot, bytes), before.0);
    assert_eq!((first.digest(), first.tree.node_count(), first.sessions.clone()), before);
    let now = database.snapshot_open().expect("the second one");
    let digest = database.digest();
    let mut second = load(rest(&mut database, now, Vec::new()), digest);
    assert_eq!(second.digest(), digest);
    assert_eq!(second.tree.ephemerals_count(), database.tree.ephemerals_count());
    assert!(second.tree.containers().count() == database.tree.containers().count());

    // Replay over a state that has it all ends, whatever it makes of it.
    apply(&mut second, &txns);
    let nodes = second.tree.node("/").expect("the root").subtree();
    let sum = nodes.fold(0_u64, |sum, node| sum.wrapping_add(node.digest()));
    assert_eq!(second.tree.digest(), Some(sum));
});

fn split(mut data: &[u8]) -> Vec<&[u8]> {
    let mut txns = Vec::new();
    while let Some((head, rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*head)).min(rest.len());
        let (txn, rest) = rest.split_at(len);
        txns.push(txn);
        data = rest;
    }
    txns
}

fn apply(database: &mut Database, txns: &[&[u8]]) {
    for payload in txns.iter().filter_map(|txn| Payload::decode(txn).ok()) {
        database.apply(&payload.header, &payload.txn, &mut |trigger| {
            assert!(trigger.path.starts_with('/'));
        });
    }
}

fn rest(database: &mut Database, snapshot: u32, mut bytes: Vec<u8>) -> Vec<u8> {
    let mut piece = [0; 1000];
    loop {
        match database.snapshot_read(snapshot, &mut piece) {
            0 => return bytes,
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn load(bytes: Vec<u8>, digest: Option<SnapshotDigest>) -> Database {
    let mut loader = Loader::new(true, usize::MAX);
    let progress = loader.push(&bytes).expect("our own snapshot");
    assert!(progress.done && progress.consumed == bytes.len());
    let mut database = Database::new(true);
    let zxid = digest.expect("digests are on").zxid;
    database.install(loader.finish().expect("done"), zxid, None);
    database
}
