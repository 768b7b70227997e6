//! What single transactions do.
#![expect(clippy::unwrap_used, reason = "a test has no other way to fail")]

use bytes::BufMut;
use zab_proto::Zxid;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::wire::txn::TxnHeader;
use zk_service::acl::{Acl, AclList, write_acls};
use zk_service::tree::Owner;
use zk_service::txn::{CreateKind, CreateTxn, PartsBuf, Paths, Payload, Txn};
use zk_service::{Applied, Code, Database, Event, Opcode};

const SESSION: i64 = 0x0100_0000_0000_0001;

/// A database that notes the triggers of each transaction.
struct Fixture {
    database: Database,
    zxid: i64,
    triggers: Vec<(Event, String, Vec<Acl>)>,
}

impl Fixture {
    fn new() -> Self {
        Self { database: Database::new(true), zxid: 0, triggers: Vec::new() }
    }

    fn apply(&mut self, txn: &Txn<'_>) -> Applied {
        self.zxid += 1;
        let header = TxnHeader {
            client_id: SESSION,
            cxid: 0,
            zxid: Zxid::from_raw(self.zxid),
            time: 1000 + self.zxid,
            kind: txn.kind().wire(),
        };
        self.triggers.clear();
        let triggers = &mut self.triggers;
        self.database.apply(&header, txn, &mut |trigger| {
            triggers.push((trigger.event, trigger.path.to_owned(), trigger.acl.to_vec()));
        })
    }

    fn ok(&mut self, txn: &Txn<'_>) {
        let applied = self.apply(txn);
        assert!(applied.outcome.code.is_ok(), "{txn:?}: {applied:?}");
    }

    fn create(&mut self, path: &str) {
        self.ok(&create(path, b"", CreateKind::Create { ephemeral: false }));
    }

    fn events(&self) -> Vec<(Event, &str)> {
        self.triggers.iter().map(|(event, path, _)| (*event, path.as_str())).collect()
    }

    fn text(&self, path: &str) -> &str {
        let data = self.database.tree.node(path).and_then(|node| node.data());
        str::from_utf8(data.unwrap()).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.database.tree.node(path).is_some()
    }
}

fn create<'a>(path: &'a str, data: &'a [u8], kind: CreateKind) -> Txn<'a> {
    let (acl, parent_cversion) = (AclList::NULL, -1);
    Txn::Create(CreateTxn { path: path.into(), data: Some(data), acl, parent_cversion, kind })
}

fn delete(path: &str) -> Txn<'_> {
    Txn::Delete { path: path.into(), container: false }
}

fn set_data<'a>(path: &'a str, data: Option<&'a [u8]>) -> Txn<'a> {
    Txn::SetData { path: path.into(), data, version: 1, reconfig: false }
}

fn encoded(acls: &[Acl]) -> Vec<u8> {
    let mut out = Vec::new();
    write_acls(acls, &mut out);
    out
}

#[test]
fn a_new_database() {
    let database = Database::new(true);
    assert_eq!(database.tree.digest(), Some(0x51c6_d660));
    assert_eq!(database.tree.node_count(), 4);
    let node = |path| database.tree.node(path).unwrap();
    assert_eq!(node("/").stat().cversion, -1);
    assert_eq!(node("").path(), "/");
    assert_eq!(node("/zookeeper").stat().cversion, -2);
    assert_eq!(node("/zookeeper/config").acl(), [Acl::world(1)]);
    assert_eq!(node("/zookeeper/config").acl_key(), 1);
    assert_eq!(node("/zookeeper/config").persisted().aversion, -1);
    assert_eq!(node("/").acl_key(), -1);
    assert!(database.tree.node("/zookeeper/").is_none());
    assert_eq!(Database::new(false).tree.digest(), None);
}

#[test]
fn triggers_in_order_with_the_acl_of_their_node() {
    let mut fixture = Fixture::new();
    fixture.create("/a");
    assert_eq!(fixture.events(), [(Event::Created, "/a"), (Event::ChildrenChanged, "/")]);
    let acls = [Acl::world(1)];
    let list = encoded(&acls);
    let acl = AclList::read(&mut Reader::new(&list)).unwrap();
    fixture.ok(&Txn::Create(CreateTxn {
        path: "/a/b".into(),
        data: None,
        acl,
        parent_cversion: 1,
        kind: CreateKind::Container,
    }));
    assert_eq!(fixture.triggers[0].2, acls);
    assert_eq!(fixture.triggers[1].2, [Acl::world(31)]);
    fixture.ok(&set_data("/a/b", Some(b"x")));
    assert_eq!(fixture.events(), [(Event::DataChanged, "/a/b")]);
    fixture.ok(&Txn::SetAcl { path: "/a".into(), acl, version: 1 });
    assert_eq!(fixture.events(), []);
    fixture.ok(&delete("/a/b"));
    assert_eq!(fixture.events(), [(Event::Deleted, "/a/b"), (Event::ChildrenChanged, "/a")]);
    assert_eq!(fixture.triggers[0].2, acls, "although nobody uses the list any more");
    assert_eq!(fixture.apply(&delete("/a/b")).outcome.code, Code::NO_NODE);
    assert_eq!(fixture.events(), []);
}

#[test]
fn owners() {
    let mut fixture = Fixture::new();
    fixture.ok(&create("/e", b"", CreateKind::Create2 { ephemeral: true }));
    fixture.ok(&create("/c", b"", CreateKind::Container));
    fixture.ok(&create("/t", b"", CreateKind::Ttl { ttl_ms: 500 }));
    let tree = &fixture.database.tree;
    assert_eq!(tree.node("/e").unwrap().stat().ephemeral_owner, SESSION);
    assert_eq!(tree.node("/c").unwrap().stat().ephemeral_owner, 0);
    assert_eq!(tree.node("/t").unwrap().owner(), Owner::Ttl(500));
    assert_eq!(tree.node("/t").unwrap().stat().ephemeral_owner, 0);
    assert_eq!(tree.ephemerals_count(), 1);
    assert_eq!(tree.containers().map(|n| n.path()).collect::<Vec<_>>(), ["/c"]);
    assert_eq!(tree.ttls().map(|n| n.path()).collect::<Vec<_>>(), ["/t"]);
    assert_eq!(fixture.database.dead_sessions().collect::<Vec<_>>(), [SESSION]);
    for path in ["/e", "/c", "/t"] {
        fixture.ok(&delete(path));
    }
    let tree = &fixture.database.tree;
    assert_eq!(
        (tree.ephemerals_count(), tree.containers().count(), tree.ttls().count()),
        (0, 0, 0)
    );
    assert_eq!(fixture.database.dead_sessions().count(), 0);
}

#[test]
fn closing_a_session_deletes_what_is_listed_and_what_is_left() {
    let mut fixture = Fixture::new();
    fixture.ok(&Txn::CreateSession { timeout_ms: 4000 });
    assert_eq!(fixture.database.sessions.get(SESSION), Some(4000));
    for path in ["/1", "/2", "/3"] {
        fixture.ok(&create(path, b"", CreateKind::Create { ephemeral: true }));
    }
    fixture.create("/persistent");
    let mut list = Vec::new();
    list.put_len(3);
    ["/3", "/gone", "/persistent"].iter().for_each(|path| list.put_ustring(Some(path)));
    let paths = Paths::read(&mut Reader::new(&list)).unwrap();
    fixture.ok(&Txn::CloseSession(Some(paths)));
    let deleted: Vec<_> =
        fixture.triggers.iter().filter(|t| t.0 == Event::Deleted).map(|t| t.1.as_str()).collect();
    assert_eq!(deleted, ["/3", "/persistent", "/1", "/2"]);
    assert!(fixture.database.sessions.is_empty());
    assert_eq!(fixture.database.tree.ephemerals_count(), 0);
    let root = *fixture.database.tree.node("/").unwrap().persisted();
    assert_eq!((root.pzxid, root.cversion), (Zxid::from_raw(6), 4));
}

#[test]
fn a_close_session_without_a_body() {
    let header = TxnHeader {
        client_id: SESSION,
        cxid: 1,
        zxid: Zxid::from_raw(9),
        time: 1,
        kind: Opcode::CloseSession.wire(),
    };
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    assert_eq!(Payload::decode(&bytes).unwrap().txn, Txn::CloseSession(None));
    bytes.put_i32(2);
    bytes.put_i64(0x001f_ffff_0000_0000);
    let payload = Payload::decode(&bytes).unwrap();
    assert_eq!(payload.txn, Txn::CloseSession(None));
    assert_eq!(payload.digest.map(|digest| digest.digest), Some(0x001f_ffff_0000_0000));
}

#[test]
fn a_multi_applies_its_parts_or_nothing() {
    let mut fixture = Fixture::new();
    let mut parts = PartsBuf::default();
    parts.push(&create("/a", b"1", CreateKind::Create2 { ephemeral: false }));
    parts.push(&set_data("/a", Some(b"22")));
    parts.push(&Txn::Check { path: "/a".into(), version: 2 });
    parts.push(&delete("/a"));
    let applied = fixture.apply(&Txn::Multi(parts.parts()));
    assert_eq!(applied.outcome.code, Code::OK);
    let kinds: Vec<_> = applied.parts.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [Opcode::Create2, Opcode::SetData, Opcode::Check, Opcode::Delete]);
    assert_eq!(applied.parts[1].stat.unwrap().data_length, 2);
    assert_eq!(fixture.triggers.len(), 5);

    let digest = fixture.database.tree.digest();
    parts.clear();
    parts.push(&create("/b", b"", CreateKind::Create { ephemeral: false }));
    parts.push(&Txn::Error(Code::BAD_VERSION));
    parts.push(&Txn::Error(Code::RUNTIME_INCONSISTENCY));
    let applied = fixture.apply(&Txn::Multi(parts.parts()));
    assert_eq!(applied.outcome.code, Code::BAD_VERSION);
    let parts: Vec<_> = applied.parts.iter().map(|part| (part.kind, part.code.0)).collect();
    assert_eq!(parts, [(Opcode::Error, 0), (Opcode::Error, -103), (Opcode::Error, -2)]);
    assert_eq!(fixture.database.tree.digest(), digest);
    assert_eq!(fixture.database.last_zxid(), Zxid::from_raw(2));
    assert!(fixture.triggers.is_empty());
}

#[test]
fn a_multi_with_an_unknown_part_does_not_decode() {
    let mut bytes = Vec::new();
    let header = TxnHeader {
        client_id: 1,
        cxid: 1,
        zxid: Zxid::from_raw(1),
        time: 1,
        kind: Opcode::Multi.wire(),
    };
    header.write(&mut bytes);
    bytes.put_len(1);
    bytes.put_i32(Opcode::SetAcl.wire());
    bytes.put_buffer(Some(b"\0\0\0\x02/a\0\0\0\0\0\0\0\x01"));
    assert!(Payload::decode(&bytes).is_err());
}

#[test]
fn sequence_of_children() {
    let mut fixture = Fixture::new();
    for path in ["/a", "/a/1", "/a/2", "/a/3", "/a/2/x"] {
        fixture.create(path);
    }
    let names = |f: &Fixture| -> Vec<String> {
        f.database.tree.node("/a").unwrap().children().map(String::from).collect()
    };
    assert_eq!(names(&fixture), ["1", "2", "3"]);
    let tree = &fixture.database.tree;
    let below: Vec<_> = tree.node("/a").unwrap().subtree().map(|n| n.path()).collect();
    assert_eq!(below, ["/a", "/a/1", "/a/2", "/a/2/x", "/a/3"]);
    fixture.ok(&delete("/a/1"));
    assert_eq!(names(&fixture), ["2", "3"]);
    fixture.create("/a/4");
    fixture.ok(&delete("/a/3"));
    assert_eq!(names(&fixture), ["2", "4"]);
    fixture.ok(&delete("/a/4"));
    fixture.create("/a/5");
    assert_eq!(names(&fixture), ["2", "5"]);
    let stat = fixture.database.tree.node("/a").unwrap().stat();
    assert_eq!((stat.num_children, stat.cversion), (2, 8));
    fixture.ok(&delete("/a"));
    assert!(!fixture.exists("/a/2/x"), "nothing is left without its parents");
    assert_eq!(fixture.database.tree.node_count(), 4);
    assert_eq!(
        fixture.database.tree.approximate_data_size(),
        Database::new(true).tree.approximate_data_size()
    );
}

#[test]
fn the_usage_of_a_quota() {
    let mut fixture = Fixture::new();
    fixture.ok(&create("/app", b"1234", CreateKind::Create { ephemeral: false }));
    fixture.create("/zookeeper/quota/app");
    fixture.create("/zookeeper/quota/app/zookeeper_limits");
    fixture.create("/zookeeper/quota/app/zookeeper_stats");
    let stats = "/zookeeper/quota/app/zookeeper_stats";
    assert_eq!(fixture.text(stats), "count=1,bytes=4");
    assert_eq!(fixture.database.tree.quota_path("/app/x/y"), Some("/app"));
    assert_eq!(fixture.database.tree.quota_path("/application"), None);
    fixture.ok(&create("/app/b", b"55555", CreateKind::Create { ephemeral: false }));
    assert_eq!(fixture.text(stats), "count=2,bytes=9");
    fixture.ok(&set_data("/app/b", None));
    assert_eq!(fixture.text(stats), "count=2,bytes=4");
    assert_eq!(fixture.events(), [(Event::DataChanged, "/app/b")]);
    let usage = *fixture.database.tree.node(stats).unwrap().persisted();
    assert_eq!((usage.version, usage.mzxid), (0, Zxid::from_raw(4)));
    fixture.ok(&set_data(stats, Some(b"nonsense")));
    fixture.ok(&delete("/app/b"));
    assert_eq!(fixture.text(stats), "count=-2,bytes=-1");
    fixture.ok(&delete("/zookeeper/quota/app/zookeeper_limits"));
    fixture.create("/app/c");
    assert_eq!(fixture.text(stats), "count=-2,bytes=-1");
}

/// Records that stop a server of ZooKeeper for good.
#[test]
fn poison() {
    let mut fixture = Fixture::new();
    fixture.create("/zookeeper/quota/zookeeper_limits");
    assert_eq!(fixture.database.tree.quota_path("/a"), None);
    fixture.ok(&delete("/zookeeper/quota/zookeeper_limits"));
    fixture.create("/zookeeper/zookeeper_limits");
    fixture.ok(&delete("/zookeeper/zookeeper_limits"));
    fixture.create("/zookeeperX");
    fixture.create("/zookeeperX/zookeeper_limits");
    fixture.ok(&delete("/zookeeperX/zookeeper_limits"));
    fixture.ok(&Txn::Check { path: "/none".into(), version: 1 });
    fixture.ok(&create("/ttl", b"", CreateKind::Ttl { ttl_ms: -1 }));
    for path in ["", "/", "no-slash"] {
        assert_eq!(fixture.apply(&delete(path)).outcome.code, Code::NO_NODE, "{path:?}");
    }
    let again = create("/", b"", CreateKind::Create { ephemeral: false });
    assert_eq!(fixture.apply(&again).outcome.code, Code::NODE_EXISTS);
}

/// What takes longest of the end of a session with very many nodes is done later. Nobody can tell.
#[test]
fn what_is_left_of_removed_nodes_shows_nowhere() {
    let mut f = Fixture::new();
    f.create("/p");
    let path = |n: usize| format!("/p/e{n:04}");
    let ephemeral = CreateKind::Create { ephemeral: true };
    for round in 0..3 {
        for n in 0..1000 {
            f.ok(&create(&path(n), b"mine", ephemeral));
        }
        let digest = f.database.tree.digest();
        f.ok(&Txn::CloseSession(None));
        assert_ne!(f.database.tree.digest(), digest);
        assert!((0..1000).all(|n| !f.exists(&path(n))), "round {round}");
        let tree = &f.database.tree;
        let parent = tree.node("/p").unwrap();
        assert_eq!((parent.child_count(), parent.children().count()), (0, 0));
        assert_eq!((parent.descendant_count(), tree.ephemerals_count()), (0, 0));
        let sum = tree.node("/").unwrap().subtree().fold(0_u64, |sum, node| {
            assert!(!node.path().starts_with("/p/"));
            sum.wrapping_add(node.digest())
        });
        assert_eq!(tree.digest(), Some(sum));
        // Names come back at once, in other places than before: every third is gone again.
        for n in (0..1000).rev() {
            f.create(&path(n));
            assert!(f.exists(&path(n)));
            if n % 3 == 0 {
                f.ok(&delete(&path(n)));
                assert!(!f.exists(&path(n)));
            }
        }
        assert!((0..1000).all(|n| f.exists(&path(n)) == (n % 3 != 0)), "round {round}");
        for n in (0..1000).filter(|n| n % 3 != 0) {
            f.ok(&delete(&path(n)));
        }
    }
}
