//! Histories made transaction by transaction, and snapshots cut at chosen points of them.

use std::collections::BTreeMap;

use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Application, Epoch, Zxid};
use zk_service::acl::{Acl, AclList, write_acls};
use zk_service::txn::{CreateKind, CreateTxn, PartsBuf, Paths, Payload, Txn, TxnDigest};
use zk_service::{Database, Loader};

use crate::harness::{Image, World};
use crate::options;
use crate::support::{Record, dump, fuzzy};

/// The session of all transactions.
pub(crate) const SESSION: i64 = 0x0100_0000_0000_0007;

/// A database, and the transactions that made it what it is.
pub(crate) struct Schedule {
    pub(crate) database: Database,
    log: Vec<(Zxid, Vec<u8>)>,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self { database: Database::new(true), log: Vec::new() }
    }

    pub(crate) fn zxid(&self, n: usize) -> Zxid {
        Zxid::new(Epoch(1), u32::try_from(n).unwrap())
    }

    /// Applies one more transaction.
    pub(crate) fn apply(&mut self, txn: &Txn<'_>) {
        let zxid = self.zxid(self.log.len() + 1);
        let time = 1_000_000 + zxid.raw();
        let header = TxnHeader { client_id: SESSION, cxid: 0, zxid, time, kind: txn.kind().wire() };
        let applied = self.database.apply(&header, txn, &mut |_| {});
        assert!(applied.outcome.code.is_ok(), "{txn:?}: {applied:?}");
        let digest = self.database.tree.digest().map(TxnDigest::new);
        let mut payload = Vec::new();
        Payload { header, txn: txn.clone(), digest }.encode(&mut payload);
        self.log.push((zxid, payload));
    }

    pub(crate) fn create_session(&mut self) {
        self.apply(&Txn::CreateSession { timeout_ms: 4000 });
    }

    /// Ends the session and its ephemerals.
    pub(crate) fn close_session(&mut self) {
        let mut paths = Vec::new();
        let owned: Vec<_> =
            self.database.tree.ephemerals_of(SESSION).map(|node| node.path().to_owned()).collect();
        paths.put_len(owned.len());
        owned.iter().for_each(|path| paths.put_ustring(Some(path)));
        let paths = Paths::read(&mut Reader::new(&paths)).unwrap();
        self.apply(&Txn::CloseSession(Some(paths)));
    }

    pub(crate) fn create(&mut self, path: &str) {
        self.create_with(path, &[Acl::world(31)], false);
    }

    pub(crate) fn create_ephemeral(&mut self, path: &str) {
        self.create_with(path, &[Acl::world(31)], true);
    }

    pub(crate) fn create_with(&mut self, path: &str, acl: &[Acl], ephemeral: bool) {
        let parent = &path[..path.rfind('/').unwrap()];
        let parent_cversion = self.database.tree.node(parent).unwrap().persisted().cversion + 1;
        let acl = encoded(acl);
        self.apply(&create(path, list(&acl), parent_cversion, ephemeral));
    }

    /// A create that leaves its parent with this cversion.
    pub(crate) fn create_as(&mut self, path: &str, parent_cversion: i32) {
        let acl = encoded(&[Acl::world(31)]);
        self.apply(&create(path, list(&acl), parent_cversion, false));
    }

    pub(crate) fn delete(&mut self, path: &str) {
        self.apply(&Txn::Delete { path: path.into(), container: false });
    }

    pub(crate) fn set_data(&mut self, path: &str, data: &[u8], version: i32) {
        let data = Some(data);
        self.apply(&Txn::SetData { path: path.into(), data, version, reconfig: false });
    }

    pub(crate) fn set_acl(&mut self, path: &str, acl: &[Acl]) {
        let version = self.database.tree.node(path).unwrap().persisted().aversion + 1;
        let acl = encoded(acl);
        self.apply(&Txn::SetAcl { path: path.into(), acl: list(&acl), version });
    }

    /// One transaction: data of a node, a node below it and one beside it.
    pub(crate) fn multi(&mut self, set: &str, below: &str, beside: &str) {
        let acl = encoded(&[Acl::world(31)]);
        let cversion = |path: &str| {
            let parent = &path[..path.rfind('/').unwrap()];
            self.database.tree.node(parent).unwrap().persisted().cversion + 1
        };
        let mut parts = PartsBuf::default();
        let version = self.database.tree.node(set).unwrap().persisted().version + 1;
        let data = Some(&b"changed"[..]);
        parts.push(&Txn::SetData { path: set.into(), data, version, reconfig: false });
        parts.push(&create(below, list(&acl), cversion(below), false));
        parts.push(&create(beside, list(&acl), cversion(beside), false));
        self.apply(&Txn::Multi(parts.parts()));
    }

    /// A snapshot of our own, as of now.
    pub(crate) fn image(&mut self) -> Image {
        let id = self.database.snapshot_open().unwrap();
        let mut snapshot = Vec::new();
        self.read(id, usize::MAX, &mut snapshot);
        let digest = self.database.snapshot_digest(id);
        self.database.snapshot_close(id);
        Image { snapshot, zxid: self.database.last_zxid(), digest, log: Vec::new() }
    }

    /// Reads up to `n` bytes of an open snapshot.
    pub(crate) fn read(&mut self, id: u32, mut n: usize, out: &mut Vec<u8>) {
        let mut piece = [0; 64];
        while n > 0 {
            let room = n.min(piece.len());
            let len = self.database.snapshot_read(id, &mut piece[..room]);
            if len == 0 {
                return;
            }
            out.extend_from_slice(&piece[..len]);
            n -= len;
        }
    }

    /// Begins a snapshot as ZooKeeper writes it: sessions and ACLs as they are now.
    pub(crate) fn fuzzy(&self) -> Fuzzy {
        let out = fuzzy::begin(&self.database);
        Fuzzy { zxid: self.database.last_zxid(), out }
    }

    /// Servers that recover from these snapshots and the log behind each, and form an ensemble.
    pub(crate) fn recover(&self, mut images: Vec<Image>) -> World {
        for image in &mut images {
            let behind = self.log.iter().filter(|(zxid, _)| *zxid > image.zxid);
            image.log = behind.cloned().collect();
        }
        World::recovered(&images, &options())
    }

    /// All servers that recover from these snapshots and the log behind end where the history does,
    /// and so do the snapshots that they write next.
    pub(crate) fn assert_recovered(&self, images: Vec<Image>) {
        let mut world = self.recover(images);
        crate::assert_equal_trees(&world);
        for node in &mut world.nodes {
            let service = node.app_mut();
            let (id, mut snapshot) = (service.snapshot_open(), vec![0; 1 << 16]);
            let len = service.snapshot_read(id, &mut snapshot);
            snapshot.truncate(len);
            let (zxid, digest) = (service.database().last_zxid(), service.snapshot_digest(id));
            assert_eq!(load(&Image { snapshot, zxid, digest, log: Vec::new() }), self.seen());
            service.snapshot_close(id);
        }
        let recovered = world.service(0).database();
        assert_eq!(self.seen(), seen(recovered));
        assert_eq!(recovered.tree.digest(), self.database.tree.digest());
        assert_eq!(recovered.last_zxid(), self.database.last_zxid());
        assert_eq!(recovered.tree.missing_acls().count(), 0);
    }

    /// Tree and sessions.
    pub(crate) fn seen(&self) -> Seen {
        seen(&self.database)
    }
}

/// Tree and sessions.
pub(crate) type Seen = (BTreeMap<String, Record>, Vec<(i64, i32)>);

fn seen(database: &Database) -> Seen {
    (dump(database), database.sessions.iter().collect())
}

/// What a snapshot alone holds.
pub(crate) fn load(image: &Image) -> Seen {
    let mut loader = Loader::new(true, usize::MAX);
    assert!(loader.push(&image.snapshot).unwrap().done);
    let mut database = Database::new(true);
    database.install(loader.finish().unwrap(), image.zxid, image.digest);
    seen(&database)
}

/// A snapshot whose nodes are written while transactions are applied.
pub(crate) struct Fuzzy {
    pub(crate) zxid: Zxid,
    out: Vec<u8>,
}

impl Fuzzy {
    /// Writes a node as it is now; parents first.
    pub(crate) fn node(&mut self, schedule: &Schedule, path: &str) {
        assert!(fuzzy::put_node(&schedule.database, path, &mut self.out), "no {path}");
    }

    /// Writes the built-in nodes and the end, with the digest of now.
    pub(crate) fn end(mut self, schedule: &Schedule) -> Image {
        for path in ["/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            self.node(schedule, path);
        }
        fuzzy::end(&mut self.out);
        let digest = schedule.database.digest();
        Image { snapshot: self.out, zxid: self.zxid, digest, log: Vec::new() }
    }
}

fn encoded(acl: &[Acl]) -> Vec<u8> {
    let mut out = Vec::new();
    write_acls(acl, &mut out);
    out
}

fn list(encoded: &[u8]) -> AclList<'_> {
    AclList::read(&mut Reader::new(encoded)).unwrap()
}

fn create<'a>(path: &'a str, acl: AclList<'a>, parent_cversion: i32, ephemeral: bool) -> Txn<'a> {
    let (data, kind) = (Some(&b"new"[..]), CreateKind::Create { ephemeral });
    Txn::Create(CreateTxn { path: path.into(), data, acl, parent_cversion, kind })
}
