//! The leader's preparation stage: a request becomes a transaction.
//!
//! A request is checked against the tree as it will be once everything proposed before it is
//! applied: the committed tree with the pending records of this module on top.

pub(super) mod begun;
mod closing;
mod kind;
mod multi;
mod pending;
mod reconfig;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use zab_proto::wire::jute::Reader;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{DecodeError, Zxid};

use self::kind::{create_kind, owner};
use self::pending::{Content, Record, SharedAcl};
pub(super) use self::reconfig::Members;
use crate::auth::{Access, Ids, Judge};
use crate::cost;
use crate::metrics::namespaces::namespace;
use crate::protocol::acl::{AclList, perms};
use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::path;
use crate::protocol::request::{Create, Write};
use crate::protocol::txn::{CreateTxn, PartsBuf, Txn, TxnDigest};
use crate::state::tree::{NodeDigest, Owner, StatPersisted, Tree};

/// A closeSession lists at most this many bytes of paths; beyond, each server removes what its own
/// index of ephemerals holds. ZooKeeper cannot read a record above its field limit back.
const CLOSE_PATHS_LEN_MAX_BYTES: usize = 1 << 20;
/// Header and digest of a transaction.
const TXN_OVERHEAD_BYTES: usize = 64;

/// Who asks, and for what position in the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requester<'a> {
    pub(super) session: i64,
    pub(super) cxid: i32,
    /// Whether the session may write through the server it came from.
    pub(super) valid: Result<(), Code>,
    /// It is known to the server that it came from alone, and owns nothing: how it is refused an ephemeral node.
    pub(super) local: Option<Code>,
    pub(super) ids: Ids<'a>,
    pub(super) zxid: Zxid,
    /// Wall clock, ms since 1970.
    pub(super) time: i64,
}

/// What preparation looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) tree: &'a Tree,
    pub(super) access: &'a Access,
    /// Who is asked for the members, if they may be changed (`reconfigEnabled`).
    pub(super) members: Option<Members<'a>>,
    /// TTL nodes may be created.
    pub(super) extended_types: bool,
    /// Hard limits of quotas are enforced.
    pub(super) enforce_quota: bool,
    /// Transactions carry the digest of the tree.
    pub(super) digests: bool,
    /// Longest transaction that every server can read, in bytes.
    pub(super) txn_len_max: usize,
}

/// Changes that are proposed but not yet applied.
#[derive(Debug, Default)]
pub(super) struct Prep {
    records: HashMap<Arc<str>, Record>,
    /// The sessions whose end is proposed: their ephemerals in the tree count as gone.
    closed: HashMap<i64, Zxid>,
    /// The records by zxid, to drop them when they are applied.
    queue: VecDeque<(Zxid, Arc<str>)>,
    /// What is applied to the tree.
    applied: Zxid,
    /// The tree's digest after the last proposal.
    digest: u64,
    /// What the request in hand has replaced.
    undo: Vec<(Arc<str>, Option<Record>)>,
    undo_digest: u64,
    /// The session whose end the request in hand records, and the end recorded before, if it had
    /// one.
    undo_closed: Option<(i64, Option<Zxid>)>,
    acl: Vec<u8>,
    /// The list written last, encoded and decoded: most are equal.
    last_acl: Option<SharedAcl>,
    parts: PartsBuf,
    /// Work done since it was counted last.
    pub(super) work: u64,
    /// The first parts of the paths of writes refused for a quota, until they are counted.
    pub(super) quota_exceeded: Vec<Box<str>>,
}

impl Prep {
    /// With nothing pending.
    pub(super) fn new(tree: &Tree) -> Self {
        Self { digest: tree.digest().unwrap_or_default(), ..Self::default() }
    }

    /// Turns a client's request, other than a multi, into a transaction in `out`. A request that is refused
    /// becomes an error transaction.
    pub(super) fn request(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        op: Opcode,
        record: &[u8],
        out: &mut Vec<u8>,
    ) {
        let decoded = Write::decode(op, record).map_err(|_: DecodeError| Code::MARSHALLING_ERROR);
        let judge = &mut Judge::new(view.access, from.ids);
        self.finish(view, from, out, |prep, out| match decoded? {
            // It is prepared in pieces.
            Write::Multi(_) => Err(Code::UNIMPLEMENTED),
            Write::Reconfig(change) => prep.reconfig(view, from, judge, &change, out),
            write @ (Write::Create(_)
            | Write::Delete { .. }
            | Write::SetData { .. }
            | Write::SetAcl { .. }
            | Write::Check { .. }
            | Write::CloseSession) => {
                let mut acl = std::mem::take(&mut prep.acl);
                let result = prep
                    .single(view, from, judge, &write, false, &mut acl)
                    .map(|txn| encode(&txn, from, out));
                prep.acl = acl;
                result
            }
        });
        self.work += judge.take_work();
    }

    /// A new session.
    pub(super) fn create_session(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        timeout_ms: i32,
        out: &mut Vec<u8>,
    ) {
        self.finish(view, from, out, |_, out| {
            encode(&Txn::CreateSession { timeout_ms }, from, out);
            Ok(())
        });
    }

    /// Removal of a container or TTL node that nobody needs any more.
    pub(super) fn delete_container(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        path: &str,
        out: &mut Vec<u8>,
    ) {
        self.finish(view, from, out, |prep, out| {
            let node = prep.lookup(view.tree, path).ok_or(Code::NO_NODE)?;
            if node.children > 0 {
                return Err(Code::NOT_EMPTY);
            }
            if matches!(node.stat.owner(), Owner::Persistent | Owner::Session(_)) {
                return Err(Code::BAD_VERSION);
            }
            prep.remove(view, from.zxid, path);
            encode(&Txn::Delete { path: path.into(), container: true }, from, out);
            Ok(())
        });
    }

    /// Takes back what the last call has recorded: its transaction was not proposed.
    pub(super) fn undo(&mut self) {
        self.rollback(0);
    }

    /// Encodes the outcome of `prepare`: a transaction with its digest, or an error. A transaction may
    /// be longer than its request, and one that is too long for some server is an error, too.
    fn finish(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        out: &mut Vec<u8>,
        prepare: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), Code>,
    ) {
        self.begin(out);
        let result = prepare(self, out);
        self.complete(view, from, result, out);
    }

    /// A request is about to be prepared.
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.clear();
        self.undo.clear();
        self.undo_digest = self.digest;
        self.undo_closed = None;
    }

    /// See [`finish`](Self::finish).
    fn complete(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        result: Result<(), Code>,
        out: &mut Vec<u8>,
    ) {
        let prepared = result.and_then(|()| {
            if view.digests {
                TxnDigest::new(self.digest).write(out);
            }
            if out.len() <= view.txn_len_max { Ok(()) } else { Err(Code::BAD_ARGUMENTS) }
        });
        if let Err(code) = prepared {
            self.rollback(0);
            out.clear();
            encode(&Txn::Error(code), from, out);
        }
    }

    /// The quota as it is used now: what is in flight may exceed it, as in ZooKeeper.
    fn check_quota(
        &mut self,
        view: View<'_>,
        path: &str,
        nodes: i64,
        bytes: i64,
    ) -> Result<(), Code> {
        if view.enforce_quota && !view.tree.quota_allows(path, nodes, bytes) {
            self.quota_exceeded.push(namespace(path).into());
            return Err(Code::QUOTA_EXCEEDED);
        }
        Ok(())
    }

    /// One operation, alone or as a part of a multi.
    fn single<'a>(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        write: &'a Write<'_>,
        in_multi: bool,
        acl: &'a mut Vec<u8>,
    ) -> Result<Txn<'a>, Code> {
        self.work += cost::WRITE;
        match write {
            Write::Create(create) => self.create(view, from, judge, create, in_multi, acl),
            Write::Delete { path, version } => self.delete(view, from, judge, path, *version),
            Write::SetData { path, data, version } => {
                self.set_data(view, from, judge, path.as_deref(), (*data, *version))
            }
            Write::SetAcl { path, acl: list, version } => {
                self.set_acl(view, from, judge, path.as_deref(), (*list, *version), acl)
            }
            Write::Check { path, version } => {
                let node = self.checked(view, from, judge, path, perms::READ)?;
                check_version(node.stat.version, *version)?;
                Ok(Txn::Check { path: shown(path), version: next_version(node.stat.version) })
            }
            Write::Multi(_) | Write::Reconfig(_) | Write::CloseSession => Err(Code::UNIMPLEMENTED),
        }
    }

    fn create<'a>(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        create: &'a Create<'_>,
        in_multi: bool,
        acl: &'a mut Vec<u8>,
    ) -> Result<Txn<'a>, Code> {
        let kind = create_kind(create, in_multi, view.extended_types)?;
        from.valid?;
        if let Some(code) = from.local.filter(|_| owner(kind, from.session) == from.session) {
            // Its server makes it a session of the ensemble first (`localSessionsUpgradingEnabled`).
            return Err(code);
        }
        let (parent_path, _) = path::split(&create.path).ok_or(Code::BAD_ARGUMENTS)?;
        self.work += cost::parsed(create.acl.raw_entries().len());
        view.access.fix(create.acl, from.ids, acl)?;
        let mut parent = self.lookup(view.tree, parent_path).ok_or(Code::NO_NODE)?;
        permit(view, parent_path, &parent, perms::CREATE, judge)?;
        let path = if create.is_sequential() {
            if parent.stat.cversion == i32::MAX {
                // The number could not be counted, and would be given again.
                return Err(Code::BAD_ARGUMENTS);
            }
            Cow::Owned(format!("{}{:010}", create.path, parent.stat.cversion))
        } else {
            Cow::Borrowed(&*create.path)
        };
        if !path::is_valid(&path) || path == "/zookeeper/quota/zookeeper_limits" {
            // The latter would stop Apache members for good.
            return Err(Code::BAD_ARGUMENTS);
        }
        if self.lookup(view.tree, normal(&path)).is_some() {
            return Err(Code::NODE_EXISTS);
        }
        if matches!(parent.stat.owner(), Owner::Session(_)) {
            return Err(Code::NO_CHILDREN_FOR_EPHEMERALS);
        }
        let data_len = len(create.data);
        self.check_quota(view, &path, 1, difference(data_len, 0))?;
        // No server lets the counter go back, so it stays at its end.
        if let Some(cversion) = parent.stat.cversion.checked_add(1) {
            parent.stat.cversion = cversion;
            parent.stat.pzxid = from.zxid;
        }
        let parent_cversion = parent.stat.cversion;
        parent.children += 1;
        self.put(view, from.zxid, parent_path, parent, Content::Same);
        let node = Record {
            zxid: from.zxid,
            deleted: false,
            stat: StatPersisted::created(from.zxid, from.time, owner(kind, from.session)),
            children: 0,
            acl: Some(self.share_acl(acl)),
            data_len,
            digest: NodeDigest::NONE,
        };
        self.put(view, from.zxid, &path, node, Content::Data(create.data));
        let acl = read_acl(acl);
        Ok(Txn::Create(CreateTxn { path, data: create.data, acl, parent_cversion, kind }))
    }

    fn delete<'a>(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        path: &'a str,
        version: i32,
    ) -> Result<Txn<'a>, Code> {
        from.valid?;
        let (parent_path, name) = path::split(path).ok_or(Code::BAD_ARGUMENTS)?;
        let poison = name == "zookeeper_limits"
            && parent_path.starts_with("/zookeeper")
            && parent_path.len() <= "/zookeeper/quota".len();
        if path::is_built_in(path) || poison {
            return Err(Code::BAD_ARGUMENTS);
        }
        let parent = self.lookup(view.tree, parent_path).ok_or(Code::NO_NODE)?;
        permit(view, parent_path, &parent, perms::DELETE, judge)?;
        let node = self.lookup(view.tree, path).ok_or(Code::NO_NODE)?;
        check_version(node.stat.version, version)?;
        if node.children > 0 {
            return Err(Code::NOT_EMPTY);
        }
        self.remove(view, from.zxid, path);
        Ok(Txn::Delete { path: path.into(), container: false })
    }

    fn set_data<'a>(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        path: Option<&'a str>,
        (data, version): (Option<&'a [u8]>, i32),
    ) -> Result<Txn<'a>, Code> {
        let path = path.unwrap_or_default();
        let mut node = self.checked(view, from, judge, path, perms::WRITE)?;
        if is_bad_quota_stats(path, data) {
            return Err(Code::BAD_ARGUMENTS);
        }
        self.check_quota(view, normal(path), 0, difference(len(data), node.data_len))?;
        check_version(node.stat.version, version)?;
        let version = next_version(node.stat.version);
        node.stat.version = version;
        node.data_len = len(data);
        node.stat.mzxid = from.zxid;
        node.stat.mtime = from.time;
        self.put(view, from.zxid, normal(path), node, Content::Data(data));
        Ok(Txn::SetData { path: shown(path), data, version, reconfig: false })
    }

    fn set_acl<'a>(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        path: Option<&'a str>,
        (list, version): (AclList<'_>, i32),
        acl: &'a mut Vec<u8>,
    ) -> Result<Txn<'a>, Code> {
        from.valid?;
        let path = path.filter(|path| path::is_valid(path)).ok_or(Code::BAD_ARGUMENTS)?;
        self.work += cost::parsed(list.raw_entries().len());
        view.access.fix(list, from.ids, acl)?;
        let mut node = self.checked(view, from, judge, path, perms::ADMIN)?;
        check_version(node.stat.aversion, version)?;
        let version = next_version(node.stat.aversion);
        node.stat.aversion = version;
        node.acl = Some(self.share_acl(acl));
        self.put(view, from.zxid, normal(path), node, Content::Same);
        let acl = read_acl(acl);
        Ok(Txn::SetAcl { path: shown(path), acl, version })
    }

    /// Session, path, existence and permission: how setData, setACL and check begin.
    fn checked(
        &self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        path: &str,
        wanted: i32,
    ) -> Result<Record, Code> {
        from.valid?;
        if !path::is_valid(path) {
            return Err(Code::BAD_ARGUMENTS);
        }
        let path = normal(path);
        let node = self.lookup(view.tree, path).ok_or(Code::NO_NODE)?;
        permit(view, path, &node, wanted, judge)?;
        Ok(node)
    }
}

fn permit(
    view: View<'_>,
    path: &str,
    node: &Record,
    wanted: i32,
    judge: &mut Judge<'_>,
) -> Result<(), Code> {
    let permitted = match (&node.acl, view.tree.node(path)) {
        (Some(acl), _) => judge.permits(acl, wanted),
        (None, Some(node)) => judge.permits(node.rules(), wanted),
        (None, None) => false,
    };
    if permitted { Ok(()) } else { Err(Code::NO_AUTH) }
}

/// A list that [`Access::fix`] has written.
fn read_acl(encoded: &[u8]) -> AclList<'_> {
    AclList::read(&mut Reader::new(encoded)).expect("was just written")
}

fn encode(txn: &Txn<'_>, from: &Requester<'_>, out: &mut Vec<u8>) {
    TxnHeader {
        client_id: from.session,
        cxid: from.cxid,
        zxid: from.zxid,
        time: from.time,
        kind: txn.kind().wire(),
    }
    .write(out);
    txn.write(out);
}

/// The root's path is empty inside.
fn normal(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

fn shown(path: &str) -> Cow<'_, str> {
    Cow::Borrowed(path)
}

fn len(data: Option<&[u8]>) -> usize {
    data.map_or(0, <[u8]>::len)
}

fn difference(after: usize, before: usize) -> i64 {
    let signed = |len| i64::try_from(len).unwrap_or(i64::MAX);
    signed(after) - signed(before)
}

fn check_version(current: i32, expected: i32) -> Result<(), Code> {
    if expected == -1 || expected == current { Ok(()) } else { Err(Code::BAD_VERSION) }
}

/// The version after this one. It is never -1, which in a request means any (ZOOKEEPER-4743).
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}

/// Text in a quota's statistics that Apache members would stop at when they apply the next change.
fn is_bad_quota_stats(path: &str, data: Option<&[u8]>) -> bool {
    if !path.starts_with("/zookeeper/quota/") || !path.ends_with("/zookeeper_stats") {
        return false;
    }
    let Some(text) = data.and_then(|data| std::str::from_utf8(data).ok()) else { return true };
    text.split([',', ';']).filter(|part| !part.is_empty()).any(|part| {
        let value = part.split('=').nth(1);
        value.is_none_or(|value| !value.is_empty() && value.parse::<i64>().is_err())
    })
}
