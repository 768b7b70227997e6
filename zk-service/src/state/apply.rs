//! Applying transactions: the only code that changes the tree and the session table.
//!
//! Everything here succeeds or does nothing, on records that were checked when they were prepared
//! and on the same records replayed over a snapshot that contains their effects already.

use std::sync::Arc;

use zab_proto::Zxid;
use zab_proto::wire::txn::TxnHeader;

use crate::auth::rules::Rules;
use crate::protocol::acl::{Acl, AclList};
use crate::protocol::code::Code;
use crate::protocol::event::Event;
use crate::protocol::opcode::Opcode;
use crate::protocol::txn::{CreateKind, CreateTxn, Txn};
use crate::state::database::Database;
use crate::state::steps::Step;
use crate::state::tree::{NodeId, Owner, Stat, StatPersisted, split_path};

/// What an applied transaction does to watches.
#[derive(Clone, Copy, Debug)]
pub struct Trigger<'a> {
    /// What happened.
    pub event: Event,
    /// To which node; `/` is the root.
    pub path: &'a str,
    /// Bytes of data that the node has, or had when it was deleted.
    pub data_len: usize,
    /// The node's ACL: after the change, or before a deletion. Watchers without READ hear nothing.
    pub acl: &'a [Acl],
    pub(crate) rules: &'a Arc<Rules>,
}

/// The outcome of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The outcome of the whole. For a multi the first code of its parts that is not
    /// [`Code::OK`].
    pub outcome: Outcome,
    /// The outcomes of a multi's parts.
    pub parts: Vec<Outcome>,
}

/// The outcome of a transaction or of a part of a multi. The path that a reply may need is the
/// transaction's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Transaction type, which is also the type in a multi's reply: [`Opcode::Error`] throughout a failed one.
    pub kind: Opcode,
    /// Success, or why not.
    pub code: Code,
    /// The node's numbers after a successful create, setData, setACL or reconfig.
    pub stat: Option<Stat>,
}

impl Outcome {
    fn new(kind: Opcode, result: Result<Option<Stat>, Code>) -> Self {
        let (code, stat) = match result {
            Ok(stat) => (Code::OK, stat),
            Err(code) => (code, None),
        };
        Self { kind, code, stat }
    }

    /// Of a part of a failed multi: the parts before the failure report success.
    pub(super) fn refused(part: &Txn<'_>) -> Self {
        let code = if let Txn::Error(code) = part { *code } else { Code::OK };
        Self { kind: Opcode::Error, code, stat: None }
    }
}

impl Database {
    /// Applies a committed or replayed transaction.
    ///
    /// Tells `sink` what watches to trigger, in order: for a created node, itself and its parent;
    /// for a deleted one likewise (data watches before child watches); for changed data the node.
    ///
    /// Failures are part of replay; in service they mean that replicas have diverged.
    pub fn apply(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Applied {
        let Some(mut steps) = self.begin(header, txn) else {
            let outcome = self.apply_at_once(header, txn, sink);
            return Applied { outcome, parts: Vec::new() };
        };
        let mut parts = Vec::new();
        loop {
            match self.step(header, txn, &mut steps, sink) {
                Step::Part(_, outcome) => parts.push(outcome),
                Step::Removed | Step::Missing(_) => {}
                Step::End => break,
            }
        }
        Applied { outcome: self.end(header.zxid, txn, &steps), parts }
    }

    /// Applies a transaction that does not [begin](Self::begin) with a first step.
    pub(super) fn apply_at_once(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Outcome {
        let outcome = self.apply_single(header, txn, sink);
        self.applied(header.zxid);
        outcome
    }

    pub(super) fn apply_single(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Outcome {
        let result = match txn {
            Txn::Create(create) => self.create(header, create, sink).map(Some),
            Txn::Delete { path, .. } => self.delete(header.zxid, path, sink).map(|()| None),
            Txn::SetData { path, data, version, .. } => {
                self.set_data(header, path, *data, *version, sink).map(Some)
            }
            Txn::SetAcl { path, acl, version } => self.set_acl(path, *acl, *version).map(Some),
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.client_id, *timeout_ms);
                Ok(None)
            }
            Txn::Error(code) => Err(*code),
            // What is applied in steps never reaches here, neither from the top nor as a part.
            Txn::Check { .. } | Txn::Multi(_) | Txn::CloseSession(_) => Ok(None),
        };
        Outcome::new(txn.kind(), result)
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        txn: &CreateTxn<'_>,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Result<Stat, Code> {
        let (parent_path, _) = split_path(&txn.path).ok_or(Code::NO_NODE)?;
        let parent = self.tree.find(parent_path).ok_or(Code::NO_NODE)?;
        let acl = self.tree.take_acl(txn.acl);
        if let Some(existing) = self.tree.find(&txn.path) {
            // A fuzzy snapshot may hold the node without its ACL, so the record supplies it. And it
            // may hold the parent as it was before, so the creation counts even so. ZooKeeper
            // counts a plain create only, and is left with a wrong parent after other kinds.
            self.tree.adopt_acl(existing, acl);
            self.count_creation(parent, txn.parent_cversion, header.zxid);
            return Err(Code::NODE_EXISTS);
        }
        self.count_creation(parent, txn.parent_cversion, header.zxid);
        let owner = owner(header, txn.kind).to_raw();
        let stat = StatPersisted::created(header.zxid, header.time, owner);
        let id = self.tree.insert(parent, &txn.path, txn.data, acl, stat);
        self.tree.quota_created(id);
        self.trigger(Event::Created, id, sink);
        self.trigger(Event::ChildrenChanged, parent, sink);
        Ok(self.tree.view(id).stat())
    }

    /// The parent's side of a creation. A record older than the parent changes nothing.
    fn count_creation(&mut self, parent: NodeId, cversion: i32, zxid: Zxid) {
        let present = self.tree.get(parent).stat.cversion;
        let cversion = if cversion == -1 { present.wrapping_add(1) } else { cversion };
        if cversion > present {
            self.tree.change_stat(parent, |stat| {
                stat.cversion = cversion;
                stat.pzxid = zxid;
            });
        }
    }

    pub(super) fn delete(
        &mut self,
        zxid: Zxid,
        path: &str,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Result<(), Code> {
        let (parent_path, name) = split_path(path).ok_or(Code::NO_NODE)?;
        if name.is_empty() {
            return Err(Code::NO_NODE);
        }
        let parent = self.tree.find(parent_path).ok_or(Code::NO_NODE)?;
        if zxid > self.tree.get(parent).stat.pzxid {
            self.tree.change_stat(parent, |stat| stat.pzxid = zxid);
        }
        let id = self.tree.find(path).ok_or(Code::NO_NODE)?;
        self.remove(id, parent, sink);
        Ok(())
    }

    fn remove(&mut self, id: NodeId, parent: NodeId, sink: &mut impl FnMut(Trigger<'_>)) {
        let data_len = self.tree.view(id).data().map_or(0, <[u8]>::len);
        // Told before it is done, while the node's ACL is still there.
        self.trigger(Event::Deleted, id, sink);
        let path = self.tree.remove(id);
        self.tree.quota_deleted(id, &path, data_len);
        self.trigger(Event::ChildrenChanged, parent, sink);
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Result<Stat, Code> {
        let id = self.tree.find(path).ok_or(Code::NO_NODE)?;
        let old_len = self.tree.change_data(id, data, |stat| {
            stat.version = version;
            stat.mtime = header.time;
            stat.mzxid = header.zxid;
        });
        self.tree.quota_changed(id, path, old_len, data.map_or(0, <[u8]>::len));
        self.trigger(Event::DataChanged, id, sink);
        Ok(self.tree.view(id).stat())
    }

    fn set_acl(&mut self, path: &str, acl: AclList<'_>, version: i32) -> Result<Stat, Code> {
        let id = self.tree.find(path).ok_or(Code::NO_NODE)?;
        self.tree.change_acl(id, acl, |stat| stat.aversion = version);
        Ok(self.tree.view(id).stat())
    }

    /// One of perhaps very many. None is created meanwhile, so a node that is there is the one that was
    /// owned.
    pub(super) fn remove_ephemeral(
        &mut self,
        zxid: Zxid,
        id: NodeId,
        sink: &mut impl FnMut(Trigger<'_>),
    ) {
        let Some(parent) = self.tree.parent_of(id) else { return };
        if zxid > self.tree.get(parent).stat.pzxid {
            self.tree.change_stat(parent, |stat| stat.pzxid = zxid);
        }
        let node = self.tree.view(id);
        let data_len = node.data().map_or(0, <[u8]>::len);
        let path = self.tree.has_quotas().then(|| Box::<str>::from(node.path()));
        self.trigger(Event::Deleted, id, sink);
        self.tree.remove_and_leave(id);
        if let Some(path) = path {
            self.tree.quota_deleted(id, &path, data_len);
        }
        self.trigger(Event::ChildrenChanged, parent, sink);
    }

    fn trigger(&self, event: Event, id: NodeId, sink: &mut impl FnMut(Trigger<'_>)) {
        let node = self.tree.view(id);
        let data_len = node.data().map_or(0, <[u8]>::len);
        sink(Trigger { event, path: node.path(), data_len, acl: node.acl(), rules: node.rules() });
    }
}

fn owner(header: &TxnHeader, kind: CreateKind) -> Owner {
    match kind {
        CreateKind::CreateV0 { ephemeral: true }
        | CreateKind::Create { ephemeral: true }
        | CreateKind::Create2 { ephemeral: true } => Owner::Session(header.client_id),
        CreateKind::CreateV0 { ephemeral: false }
        | CreateKind::Create { ephemeral: false }
        | CreateKind::Create2 { ephemeral: false } => Owner::Persistent,
        CreateKind::Container => Owner::Container,
        CreateKind::Ttl { ttl_ms } => Owner::Ttl(ttl_ms.cast_unsigned()),
    }
}
