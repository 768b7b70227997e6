//! Data directories of Apache ZooKeeper, recovered and compared with what ZooKeeper recovered.
#![expect(clippy::unwrap_used, reason = "a test has no other way to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zab_proto::wire::jute::Reader;
use zab_proto::{SnapshotDigest, Zxid};
use zk_service::acl::AclList;
use zk_service::tree::{Owner, StatPersisted, node_digest};
use zk_service::txn::Payload;
use zk_service::{Database, DigestCheck, Loader};

const SCENARIOS: [&str; 14] = [
    "acls",
    "basic-crud",
    "closesession-nobody",
    "ephemerals-sessions",
    "foreign-writer",
    "fuzzy-snapshot",
    "legacy-txns",
    "multi",
    "no-digest",
    "quorum-reconfig",
    "quota",
    "ttl-container",
    "v39",
    "v39-nodigest",
];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/storage")
}

/// A scenario's files.
struct Scenario {
    name: &'static str,
    snapshots: BTreeMap<i64, Vec<u8>>,
    /// Payloads of all logs, in order of the files and their records.
    txns: Vec<Vec<u8>>,
    recovered: Value,
}

impl Scenario {
    fn read(name: &'static str) -> Self {
        let (mut snapshots, mut logs) = (BTreeMap::new(), BTreeMap::new());
        let dir = vectors().join(name);
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            let (kind, zxid) = file.split_once('.').unwrap();
            let files = match kind {
                "snapshot" => &mut snapshots,
                "log" => &mut logs,
                _ => continue,
            };
            files.insert(i64::from_str_radix(zxid, 16).unwrap(), fs::read(&path).unwrap());
        }
        let recovered = fs::read(dir.join("recovered.json")).unwrap();
        let recovered = serde_json::from_slice(&recovered).unwrap();
        let txns = logs.values().flat_map(|log| records(log)).collect();
        Self { name, snapshots, txns, recovered }
    }

    fn all() -> impl Iterator<Item = Self> {
        SCENARIOS.into_iter().map(Self::read)
    }

    fn has_digests(&self) -> bool {
        hex(&self.recovered["treeDigest"]) != 0
    }
}

/// Payloads of a log file.
fn records(log: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(&log[16..]);
    let mut records = Vec::new();
    while let (Ok(_crc), Ok(Some(payload))) = (reader.i64(), reader.buffer()) {
        if payload.is_empty() {
            break;
        }
        records.push(payload.to_vec());
        assert_eq!(reader.bytes(1).unwrap(), b"B");
    }
    records
}

/// A snapshot file without its header: the loaded state's length and digest section.
struct SnapshotFile<'a> {
    stream: &'a [u8],
    digest: Option<SnapshotDigest>,
}

/// Loads a snapshot file in pieces of `step` more bytes.
fn load(file: &[u8], zxid: i64, digests: bool, step: usize) -> (Database, SnapshotFile<'_>) {
    let body = &file[16..];
    let mut loader = Loader::new(digests, usize::MAX);
    let (mut consumed, mut offered) = (0, 0);
    loop {
        offered = (offered + step).min(body.len());
        let progress = loader.push(&body[consumed..offered]).unwrap();
        consumed += progress.consumed;
        if progress.done {
            break;
        }
        assert!(offered < body.len(), "the snapshot has no end");
    }
    let mut after = Reader::new(&body[consumed + 13..]);
    let digest = matches!(after.remaining(), 33 | 54).then(|| SnapshotDigest {
        zxid: Zxid::from_raw(after.i64().unwrap()),
        version: after.i32().unwrap(),
        digest: after.i64().unwrap().cast_unsigned(),
    });
    let mut database = Database::new(digests);
    let check = database.install(loader.finish().unwrap(), Zxid::from_raw(zxid), digest);
    assert!(!matches!(check, DigestCheck::Mismatch { .. }), "{check:?}");
    (database, SnapshotFile { stream: &body[..consumed], digest })
}

/// Applies the transactions after the database's zxid. Returns how many, and how many digests
/// were compared and were equal.
fn replay(database: &mut Database, txns: &[Vec<u8>]) -> (u64, u64) {
    let (mut applied, mut equal) = (0, 0);
    let from = database.last_zxid();
    for payload in txns {
        let Payload { header, txn, digest } = Payload::decode(payload).unwrap();
        if header.zxid <= from {
            continue;
        }
        database.apply(&header, &txn, &mut |_| {});
        applied += 1;
        match database.check_digest(header.zxid, digest) {
            DigestCheck::Equal => equal += 1,
            DigestCheck::Skipped => {}
            DigestCheck::Mismatch { .. } => panic!("digest after {header:?} {txn:?}"),
        }
    }
    (applied, equal)
}

#[test]
fn recovery_equals_that_of_zookeeper() {
    for scenario in Scenario::all() {
        let name = scenario.name;
        let (&zxid, file) = scenario.snapshots.last_key_value().unwrap();
        let (mut database, _) = load(file, zxid, scenario.has_digests(), 7);
        let (applied, _) = replay(&mut database, &scenario.txns);
        assert_eq!(applied, scenario.recovered["replayed"].as_u64().unwrap(), "{name}");
        assert_eq!(scenario.recovered["digestMismatches"], 0, "{name}");
        compare(name, &database, &scenario.recovered);
    }
}

#[test]
fn every_digest_of_a_whole_history_is_reached() {
    let mut compared = 0;
    for scenario in Scenario::all().filter(Scenario::has_digests) {
        if scenario.snapshots.contains_key(&0) {
            let mut database = Database::new(true);
            compared += replay(&mut database, &scenario.txns).1;
            let last = scenario.recovered["treeDigest"].clone();
            assert_eq!(database.tree.digest(), Some(hex(&last)), "{}", scenario.name);
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn a_fuzzy_snapshot_is_caught_up_with() {
    let scenario = Scenario::read("fuzzy-snapshot");
    let (&zxid, file) = scenario.snapshots.last_key_value().unwrap();
    let (mut database, snapshot) = load(file, zxid, true, usize::MAX / 2);
    assert!(snapshot.digest.unwrap().zxid > Zxid::from_raw(zxid));
    let after = database.tree.digest();
    let (applied, equal) = replay(&mut database, &scenario.txns);
    assert!(equal > 0 && equal < applied, "not compared before the digest's zxid, then each");
    assert_ne!(database.tree.digest(), after);
}

#[test]
fn transactions_are_written_as_they_were_read() {
    let mut kinds = BTreeSet::new();
    for scenario in Scenario::all() {
        for bytes in &scenario.txns {
            let payload = Payload::decode(bytes).unwrap();
            assert_eq!(payload.txn.kind().wire(), payload.header.kind);
            kinds.insert(payload.header.kind);
            let mut again = Vec::new();
            payload.encode(&mut again);
            assert_eq!(&again, bytes, "{}: {payload:?}", scenario.name);
        }
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [-11, -10, -1, 1, 2, 5, 7, 14, 15, 16, 19, 20, 21]
    );
}

#[test]
fn snapshots_are_written_as_they_were_read() {
    for scenario in Scenario::all() {
        for (&zxid, file) in &scenario.snapshots {
            let (mut database, snapshot) = load(file, zxid, true, usize::MAX / 2);
            let snapshot_id = database.snapshot_open().unwrap();
            let mut ours = vec![0; file.len() * 2];
            let len = database.snapshot_read(snapshot_id, &mut ours);
            assert_eq!(database.snapshot_read(snapshot_id, &mut ours[len..]), 0);
            let (ours, theirs) = (Parsed::new(&ours[..len]), Parsed::new(snapshot.stream));
            let what = format!("{} {zxid:#x}", scenario.name);
            assert_eq!(ours.sessions, theirs.sessions, "{what}");
            assert_eq!(ours.nodes, theirs.nodes, "{what}");
            for (key, acl) in &ours.acls {
                assert_eq!(theirs.acls.get(key), Some(acl), "{what}");
            }
        }
    }
}

#[test]
fn digests_of_single_nodes() {
    let nodes = fs::read(vectors().join("node-digest.json")).unwrap();
    let nodes: Value = serde_json::from_slice(&nodes).unwrap();
    for node in nodes.as_array().unwrap() {
        let stat = persisted(&node["stat"]);
        let digest = node_digest(text(&node["path"]), bytes(&node["data"]).as_deref(), &stat);
        assert_eq!(digest, hex(&node["nodeDigest"]), "{node}");
    }
}

/// A snapshot stream in its parts; nodes in no order, and without the usage of quotas, which is
/// counted again when a snapshot is loaded.
#[derive(Debug)]
struct Parsed<'a> {
    sessions: &'a [u8],
    acls: BTreeMap<i64, Vec<u8>>,
    nodes: BTreeSet<&'a [u8]>,
}

impl<'a> Parsed<'a> {
    fn new(stream: &'a [u8]) -> Self {
        let mut reader = Reader::new(stream);
        let sessions = reader.i32().unwrap();
        reader.bytes(usize::try_from(sessions).unwrap() * 12).unwrap();
        let sessions = &stream[..reader.position()];
        let mut acls = BTreeMap::new();
        for _ in 0..reader.i32().unwrap() {
            let key = reader.i64().unwrap();
            let mut list = Vec::new();
            AclList::read(&mut reader).unwrap().write(&mut list);
            acls.insert(key, list);
        }
        let mut nodes = BTreeSet::new();
        loop {
            let from = reader.position();
            let path = reader.string().unwrap().unwrap();
            if path == "/" {
                assert_eq!(reader.remaining(), 0);
                return Self { sessions, acls, nodes };
            }
            reader.buffer().unwrap();
            reader.bytes(8 + StatPersisted::LEN).unwrap();
            if !path.ends_with("/zookeeper_stats") {
                assert!(nodes.insert(&stream[from..reader.position()]), "{path} twice");
            }
        }
    }
}

fn compare(name: &str, database: &Database, recovered: &Value) {
    let zxid = database.last_zxid().raw().cast_unsigned();
    assert_eq!(zxid, hex(&recovered["lastZxid"]), "{name}");
    assert_eq!(database.tree.digest().unwrap_or(0), hex(&recovered["treeDigest"]), "{name}");
    let sessions: Vec<_> = database.sessions.iter().collect();
    let expected: Vec<_> = array(&recovered["sessions"])
        .map(|s| (hex(&s["id"]).cast_signed(), int(&s["timeout"])))
        .collect();
    assert_eq!(sessions, expected, "{name}");
    assert_eq!(database.tree.missing_acls().count(), 0, "{name}");

    let paths = |nodes: Vec<&str>| nodes.into_iter().map(String::from).collect::<BTreeSet<_>>();
    let listed = |list: &Value| paths(array(list).map(text).collect());
    let tree = &database.tree;
    let containers = tree.containers().map(|node| node.path()).collect();
    assert_eq!(paths(containers), listed(&recovered["containers"]), "{name}");
    let ttls = tree.ttls().map(|node| node.path()).collect();
    assert_eq!(paths(ttls), listed(&recovered["ttls"]), "{name}");
    let ephemerals = recovered["ephemerals"].as_object().unwrap();
    assert_eq!(tree.ephemeral_owners().count(), ephemerals.len(), "{name}");
    for (session, expected) in ephemerals {
        let session = hex(&Value::from(session.as_str())).cast_signed();
        let nodes = tree.ephemerals_of(session).map(|node| node.path()).collect();
        assert_eq!(paths(nodes), listed(expected), "{name}");
    }

    let nodes: Vec<_> = array(&recovered["nodes"]).collect();
    assert_eq!(tree.node_count(), nodes.len(), "{name}");
    let mut children = 0;
    for expected in nodes {
        let path = text(&expected["path"]);
        let node = tree.node(path).unwrap_or_else(|| panic!("{name}: no {path}"));
        let what = format!("{name}: {path}");
        assert_eq!(node.path(), path, "{what}");
        assert_eq!(node.data().map(<[u8]>::to_vec), bytes(&expected["data"]), "{what}");
        assert_eq!(*node.persisted(), persisted(&expected["persisted"]), "{what}");
        assert_eq!(node.acl_key(), expected["aclKey"].as_i64().unwrap(), "{what}");
        let acl = array(&expected["acl"]);
        let acl: Vec<_> =
            acl.map(|a| (int(&a["perms"]), text(&a["scheme"]), text(&a["id"]))).collect();
        let ours: Vec<_> = node.acl().iter().map(|a| (a.perms, &*a.scheme, &*a.id)).collect();
        assert_eq!(ours, acl, "{what}");
        let (stat, client) = (node.stat(), &expected["client"]);
        assert_eq!(stat.cversion, int(&client["cversion"]), "{what}");
        assert_eq!(stat.ephemeral_owner, hex(&client["ephemeralOwner"]).cast_signed(), "{what}");
        assert_eq!(stat.data_length, int(&client["dataLength"]), "{what}");
        assert_eq!(stat.num_children, int(&client["numChildren"]), "{what}");
        if let Owner::Session(session) = node.owner() {
            assert!(tree.ephemerals_of(session).any(|owned| owned.path() == path), "{what}");
        }
        for name in node.children() {
            let child = format!("{}/{name}", path.trim_end_matches('/'));
            assert_eq!(tree.node(&child).and_then(|child| child.parent()).unwrap().path(), path);
            children += 1;
        }
    }
    assert_eq!(children + 1, tree.node_count(), "{name}: every node but the root is a child");
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(text(value).strip_prefix("0x").unwrap(), 16).unwrap()
}

fn int(value: &Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let digits = value.as_str()?;
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    Some((0..digits.len()).step_by(2).map(byte).collect())
}

fn persisted(value: &Value) -> StatPersisted {
    let zxid = |field: &str| Zxid::from_raw(hex(&value[field]).cast_signed());
    StatPersisted {
        czxid: zxid("czxid"),
        mzxid: zxid("mzxid"),
        pzxid: zxid("pzxid"),
        ctime: value["ctime"].as_i64().unwrap(),
        mtime: value["mtime"].as_i64().unwrap(),
        ephemeral_owner: hex(&value["ephemeralOwner"]).cast_signed(),
        version: int(&value["version"]),
        cversion: int(&value["cversion"]),
        aversion: int(&value["aversion"]),
    }
}
