//! Snapshots taken and loaded while transactions go on.
#![expect(clippy::unwrap_used, reason = "a test has no other way to fail")]

mod support;

use std::collections::BTreeMap;

use bytes::BufMut;
use support::{History, Random, Record, dump, fuzzy};
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{SnapshotDigest, Zxid};
use zk_service::acl::{AclList, write_acls};
use zk_service::txn::{CreateKind, CreateTxn, Payload, Txn};
use zk_service::{Database, DigestCheck, Loader};

/// An open snapshot, and what must be in it.
struct Open {
    id: u32,
    bytes: Vec<u8>,
    nodes: BTreeMap<String, Record>,
    sessions: Vec<(i64, i32)>,
    digest: Option<SnapshotDigest>,
}

fn load(bytes: &[u8]) -> zk_service::Loaded {
    let mut loader = Loader::new(true, usize::MAX);
    let progress = loader.push(bytes).unwrap();
    assert_eq!((progress.consumed, progress.done), (bytes.len(), true));
    loader.finish().unwrap()
}

impl Open {
    fn new(database: &mut Database) -> Option<Self> {
        Some(Self {
            id: database.snapshot_open()?,
            bytes: Vec::new(),
            nodes: dump(database),
            sessions: database.sessions.iter().collect(),
            digest: database.digest(),
        })
    }

    /// Reads up to `n` bytes; true at the end.
    fn read(&mut self, database: &mut Database, n: usize) -> bool {
        let mut piece = vec![0; n];
        let len = database.snapshot_read(self.id, &mut piece);
        self.bytes.extend_from_slice(&piece[..len]);
        len == 0
    }

    /// Loading checks that parents come first, and that no node comes twice.
    fn check(self, database: &Database) {
        assert_eq!(database.snapshot_digest(self.id), self.digest);
        let mut loaded = Database::new(true);
        let zxid = self.digest.unwrap().zxid;
        let check = loaded.install(load(&self.bytes), zxid, self.digest);
        assert!(zxid == Zxid::ZERO || check == DigestCheck::Equal, "{check:?}");
        assert_eq!(loaded.tree.missing_acls().count(), 0);
        assert_eq!(dump(&loaded), self.nodes);
        assert!(loaded.sessions.iter().eq(self.sessions));
    }
}

#[test]
fn each_is_the_state_at_its_opening() {
    for seed in 1..=60 {
        let mut history = History::new(seed);
        let mut random = Random::new(seed + 1000);
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..400 {
            match random.below(8) {
                0 => open.extend(Open::new(&mut history.database)),
                1 if !open.is_empty() && random.below(4) == 0 => {
                    let aborted = open.swap_remove(random.below(open.len()));
                    history.database.snapshot_close(aborted.id);
                }
                2..5 if !open.is_empty() => {
                    let at = random.below(open.len());
                    let n = 1 + random.below(600);
                    if open[at].read(&mut history.database, n) {
                        let finished = open.swap_remove(at);
                        let id = finished.id;
                        finished.check(&history.database);
                        history.database.snapshot_close(id);
                    }
                }
                _ => history.step(),
            }
            assert!(open.len() <= 8);
        }
        for mut last in open {
            while !last.read(&mut history.database, 100) {}
            last.check(&history.database);
        }
    }
}

/// A snapshot as ZooKeeper writes it: sessions and ACLs first, then the nodes one by one while
/// transactions are applied, each with the children it has by then.
fn fuzzy(history: &mut History, random: &mut Random) -> Vec<u8> {
    let mut out = fuzzy::begin(&history.database);
    let mut stack = vec![String::from("/")];
    while let Some(path) = stack.pop() {
        for _ in 0..random.below(4) {
            history.step();
        }
        let prefix = path.trim_end_matches('/');
        if fuzzy::put_node(&history.database, &path, &mut out) {
            let node = history.database.tree.node(&path).unwrap();
            stack.extend(node.children().map(|name| format!("{prefix}/{name}")));
        }
    }
    fuzzy::end(&mut out);
    out
}

#[test]
fn replay_over_a_fuzzy_snapshot_converges() {
    let (mut failures, mut missing) = (0, 0);
    for seed in 1..=200 {
        let mut history = History::new(seed);
        let mut random = Random::new(seed + 1000);
        for _ in 0..random.below(200) {
            history.step();
        }
        let zxid = history.database.last_zxid();
        let snapshot = fuzzy(&mut history, &mut random);
        let digest = history.database.digest();
        for _ in 0..random.below(30) {
            history.step();
        }

        let mut recovered = Database::new(true);
        recovered.install(load(&snapshot), zxid, digest);
        missing += recovered.tree.missing_acls().count();
        let from = usize::try_from(zxid.raw()).unwrap();
        for payload in &history.log[from..] {
            let Payload { header, txn, digest } = Payload::decode(payload).unwrap();
            let applied = recovered.apply(&header, &txn, &mut |_| {});
            let refused = matches!(txn, Txn::Error(_));
            failures += usize::from(!applied.outcome.code.is_ok() && !refused);
            let check = recovered.check_digest(header.zxid, digest);
            assert!(!matches!(check, DigestCheck::Mismatch { .. }), "seed {seed}: {check:?}");
        }
        assert_eq!(dump(&recovered), dump(&history.database), "seed {seed}");
        assert!(recovered.sessions.iter().eq(history.database.sessions.iter()));
        assert_eq!(recovered.tree.missing_acls().count(), 0, "seed {seed}");
        let tree = &history.database.tree;
        assert_eq!(recovered.tree.ephemerals_count(), tree.ephemerals_count());
        assert_eq!(recovered.tree.containers().count(), tree.containers().count());
        assert_eq!(recovered.tree.ttls().count(), tree.ttls().count());
        assert_eq!(recovered.tree.approximate_data_size(), tree.approximate_data_size());
    }
    assert!(failures > 100 && missing > 10, "nothing was fuzzy: {failures}, {missing}");
}

#[test]
fn an_installation_ends_open_snapshots() {
    let mut history = History::new(5);
    for _ in 0..50 {
        history.step();
    }
    let mut whole = Open::new(&mut history.database).unwrap();
    while !whole.read(&mut history.database, 1000) {}
    let mut old = Open::new(&mut history.database).unwrap();
    assert!(!old.read(&mut history.database, 100));
    let zxid = history.database.last_zxid();
    history.database.install(load(&whole.bytes), zxid, None);
    assert!(old.read(&mut history.database, 100));
    let mut new = Open::new(&mut history.database).unwrap();
    history.database.snapshot_close(old.id);
    assert!(!new.read(&mut history.database, 100));
}

#[test]
fn damaged_snapshots_are_refused_or_read_without_harm() {
    let mut history = History::new(3);
    for _ in 0..100 {
        history.step();
    }
    let mut open = Open::new(&mut history.database).unwrap();
    while !open.read(&mut history.database, 1000) {}
    let mut random = Random::new(7);
    for _ in 0..2000 {
        let mut bytes = open.bytes.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        let mut loader = Loader::new(true, usize::MAX);
        let (mut from, mut to) = (0, 0);
        while to < bytes.len() {
            to = (to + 1 + random.below(300)).min(bytes.len());
            match loader.push(&bytes[from..to]) {
                Ok(progress) => from += progress.consumed,
                Err(_) => break,
            }
        }
    }
}

/// No client can create such nodes, but a fuzzer can write a log.
#[test]
fn odd_paths_of_a_log_come_back_from_a_snapshot() {
    let mut database = Database::new(true);
    let mut acl = Vec::new();
    write_acls(&[], &mut acl);
    for (zxid, path) in [(1, "//a"), (2, "/a"), (3, "/a/b")] {
        let kind = CreateKind::Create { ephemeral: false };
        let acl = AclList::read(&mut Reader::new(&acl)).unwrap();
        let create = CreateTxn { path: path.into(), data: None, acl, parent_cversion: zxid, kind };
        let txn = Txn::Create(create);
        let zxid = Zxid::from_raw(zxid.into());
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, kind: txn.kind().wire() };
        database.apply(&header, &txn, &mut |_| {});
    }
    let mut open = Open::new(&mut database).unwrap();
    while !open.read(&mut database, 100) {}
    open.check(&database);
}

#[test]
fn what_is_no_tree_is_refused() {
    let node = |out: &mut Vec<u8>, path: &str| {
        out.put_ustring(Some(path));
        out.put_buffer(None);
        out.put_i64(-1);
        out.put_slice(&[0; 60]);
    };
    let refused = |paths: &[&str]| {
        let mut out = vec![0; 8];
        paths.iter().for_each(|path| node(&mut out, path));
        out.put_ustring(Some("/"));
        Loader::new(true, usize::MAX).push(&out).is_err()
    };
    assert!(refused(&[]));
    assert!(refused(&["/a"]));
    assert!(refused(&["", ""]));
    assert!(refused(&["", "/a", "/a"]));
    assert!(refused(&["", "/a/b"]));
    assert!(refused(&["", "a"]));
    assert!(!refused(&["", "/a", "/a/b"]));
}

#[test]
fn a_null_acl_list_is_refused() {
    let mut out = Vec::new();
    out.put_len(0);
    out.put_len(1);
    out.put_i64(5);
    AclList::NULL.write(&mut out);
    assert!(Loader::new(true, usize::MAX).push(&out).is_err());
}

/// So that a long node is refused when its length has come, not when a buffer is full.
#[test]
fn the_length_of_a_node_is_known_before_its_bytes_have_come() {
    let long = vec![b'x'; 3_000_000];
    let (mut db, mut acl) = (Database::new(true), Vec::new());
    write_acls(&[], &mut acl);
    let kind = CreateKind::Create { ephemeral: false };
    let acl = AclList::read(&mut Reader::new(&acl)).unwrap();
    let (path, data) = ("/long".into(), Some(&long[..]));
    let create = Txn::Create(CreateTxn { path, data, acl, parent_cversion: 1, kind });
    let (zxid, kind) = (Zxid::from_raw(1), create.kind().wire());
    let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, kind };
    db.apply(&header, &create, &mut |_| {});
    let id = db.snapshot_open().unwrap();
    let mut bytes = vec![0; 4_000_000];
    let len = db.snapshot_read(id, &mut bytes);
    bytes.truncate(len);
    let longest = db.snapshot_longest(id);
    assert!((long.len()..long.len() + 100).contains(&longest), "{longest}");
    let node = bytes.windows(5).position(|at| at == b"/long").unwrap() - 4;
    let mut loader = Loader::new(true, usize::MAX);
    let seen = &bytes[..node + 4 + 5 + 4];
    let consumed = loader.push(seen).unwrap().consumed;
    assert_eq!((consumed, loader.push(&seen[consumed..]).unwrap().consumed), (node, 0));
    assert_eq!(loader.needs(), 4 + 5 + 4 + long.len());
    assert!(loader.push(&bytes[node..]).unwrap().done);
}
