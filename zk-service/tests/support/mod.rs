//! Histories of valid transactions, made up from a seed.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod fuzzy;

use std::collections::BTreeMap;

use zab_proto::Zxid;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::wire::txn::TxnHeader;
use zk_service::Database;
use zk_service::acl::{Acl, AclList, write_acls};
use zk_service::tree::{NodeRef, Owner, StatPersisted};
use zk_service::txn::{CreateKind, CreateTxn, PartsBuf, Paths, Payload, Txn, TxnDigest};

/// Numbers that are the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}

/// A database, and the transactions that made it what it is.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) database: Database,
    pub(crate) log: Vec<Vec<u8>>,
    pub(crate) random: Random,
    zxid: i64,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self { database: Database::new(true), log: Vec::new(), random, zxid: 0 }
    }

    /// Applies one more transaction.
    pub(crate) fn step(&mut self) {
        self.zxid += 1;
        let acls = [Acl::world(31), Acl::new(1, "ip", "10.0.0.1"), Acl::new(3, "digest", "a:b")];
        let mut acl = Vec::new();
        let from = self.random.below(acls.len());
        write_acls(&acls[from..=from + self.random.below(acls.len() - from)], &mut acl);
        let acl = AclList::read(&mut Reader::new(&acl)).unwrap();
        let data = vec![7; self.random.below(30)];
        let data = (self.random.below(9) != 0).then_some(&data[..]);
        match self.random.below(20) {
            0 => self.push(1, &Txn::CreateSession { timeout_ms: 1000 }),
            1 => self.close_session(),
            2 => {
                let mut parts = PartsBuf::default();
                // Parts on different nodes, so that each is valid after the others.
                let (create, set) = (self.create(acl, data), self.set_data(data));
                create.iter().chain(&set).for_each(|part| parts.push(part));
                self.push(1, &Txn::Multi(parts.parts()));
            }
            3..6 => {
                let txn = self.set_acl(acl);
                self.push_some(txn);
            }
            6..10 => {
                let txn = self.delete();
                self.push_some(txn);
            }
            10..14 => {
                let txn = self.set_data(data);
                self.push_some(txn);
            }
            _ => {
                let txn = self.create(acl, data);
                self.push_some(txn);
            }
        }
    }

    fn push_some(&mut self, txn: Option<Txn<'_>>) {
        let session = i64::try_from(self.random.below(3)).unwrap();
        match txn {
            Some(txn) => self.push(session + 1, &txn),
            None => self.push(1, &Txn::Error(zk_service::Code::NO_NODE)),
        }
    }

    fn push(&mut self, client_id: i64, txn: &Txn<'_>) {
        let header = TxnHeader {
            client_id,
            cxid: 0,
            zxid: Zxid::from_raw(self.zxid),
            time: 1_000_000 + self.zxid,
            kind: txn.kind().wire(),
        };
        let applied = self.database.apply(&header, txn, &mut |_| {});
        if !matches!(txn, Txn::Error(_)) {
            assert!(applied.outcome.code.is_ok(), "{txn:?}: {applied:?}");
        }
        let digest = self.database.tree.digest().map(TxnDigest::new);
        let mut payload = Vec::new();
        Payload { header, txn: txn.clone(), digest }.encode(&mut payload);
        self.log.push(payload);
    }

    fn close_session(&mut self) {
        let session = i64::try_from(self.random.below(3)).unwrap() + 1;
        let paths = self.database.tree.ephemerals_of(session).map(|node| node.path().to_owned());
        let mut bytes = Vec::new();
        let paths: Vec<_> = paths.collect();
        bytes.put_len(paths.len());
        for path in &paths {
            bytes.put_ustring(Some(path));
        }
        let paths = Paths::read(&mut Reader::new(&bytes)).unwrap();
        // Always with a body: without one, replay cannot know what a fuzzy snapshot has lost.
        self.push(session, &Txn::CloseSession(Some(paths)));
    }

    fn nodes(&self, filter: impl Fn(NodeRef<'_>) -> bool) -> Vec<String> {
        let root = self.database.tree.node("/").unwrap();
        let nodes = root.subtree().filter(|n| !n.path().starts_with("/zookeeper") && filter(*n));
        nodes.map(|node| node.path().to_owned()).collect()
    }

    fn create<'a>(&mut self, acl: AclList<'a>, data: Option<&'a [u8]>) -> Option<Txn<'a>> {
        let parents = self.nodes(|node| !matches!(node.owner(), Owner::Session(_)));
        let parent = self.random.pick(&parents)?;
        let name = self.random.below(8);
        let path = format!("{}/{name}", parent.trim_end_matches('/'));
        if path.len() > 12 || self.database.tree.node(&path).is_some() {
            return None;
        }
        let parent_cversion = self.database.tree.node(&parent)?.persisted().cversion + 1;
        let kind = match self.random.below(8) {
            0 => CreateKind::Container,
            1 => CreateKind::Ttl { ttl_ms: 5 },
            2 => CreateKind::Create2 { ephemeral: false },
            3 => CreateKind::Create2 { ephemeral: true },
            4 => CreateKind::Create { ephemeral: true },
            _ => CreateKind::Create { ephemeral: false },
        };
        Some(Txn::Create(CreateTxn { path: path.into(), data, acl, parent_cversion, kind }))
    }

    fn delete(&mut self) -> Option<Txn<'static>> {
        let leaves = self.nodes(|node| node.child_count() == 0 && node.path() != "/");
        Some(Txn::Delete { path: self.random.pick(&leaves)?.into(), container: false })
    }

    fn set_data<'a>(&mut self, data: Option<&'a [u8]>) -> Option<Txn<'a>> {
        let path = self.nodes(|_| true);
        let path = self.random.pick(&path)?;
        let version = self.database.tree.node(&path)?.persisted().version + 1;
        Some(Txn::SetData { path: path.into(), data, version, reconfig: false })
    }

    fn set_acl<'a>(&mut self, acl: AclList<'a>) -> Option<Txn<'a>> {
        let path = self.nodes(|_| true);
        let path = self.random.pick(&path)?;
        let version = self.database.tree.node(&path)?.persisted().aversion + 1;
        Some(Txn::SetAcl { path: path.into(), acl, version })
    }
}

/// A node in full, as records and lists have it.
pub(crate) type Record = (Option<Vec<u8>>, Vec<Acl>, StatPersisted);

/// All nodes by path. Keys of ACLs are local and not compared.
pub(crate) fn dump(database: &Database) -> BTreeMap<String, Record> {
    let root = database.tree.node("/").unwrap();
    let record = |node: NodeRef<'_>| {
        (node.data().map(<[u8]>::to_vec), node.acl().to_vec(), *node.persisted())
    };
    root.subtree().map(|node| (node.path().to_owned(), record(node))).collect()
}
