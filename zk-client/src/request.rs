//! What can be asked, and its bytes.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use zab_proto::wire::jute::BufMutExt;

use crate::acl::Acl;
use crate::path::{self, Chroot};
use crate::watch::{AddWatchMode, WatcherType};

/// The version that every node has, for conditions.
pub const ANY_VERSION: i32 = -1;

/// Where servers keep the members of their ensemble. It lies outside of any client's own root.
pub(crate) const CONFIG_NODE: &str = "/zookeeper/config";

/// What kind of node is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CreateMode {
    /// It stays until it is deleted.
    #[default]
    Persistent,
    /// It is deleted when the session ends.
    Ephemeral,
    /// A number is appended to its name, one higher with each child that was created beside it.
    PersistentSequential,
    /// Both.
    EphemeralSequential,
    /// The server deletes it some time after its last child.
    Container,
    /// The server deletes it when it had no children and was not changed for this long.
    PersistentWithTtl(Duration),
    /// The same, with a number.
    PersistentSequentialWithTtl(Duration),
}

impl CreateMode {
    fn flags(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
            Self::Container => 4,
            Self::PersistentWithTtl(_) => 5,
            Self::PersistentSequentialWithTtl(_) => 6,
        }
    }

    fn ttl(self) -> Option<Duration> {
        match self {
            Self::PersistentWithTtl(ttl) | Self::PersistentSequentialWithTtl(ttl) => Some(ttl),
            _ => None,
        }
    }

    fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential
                | Self::EphemeralSequential
                | Self::PersistentSequentialWithTtl(_)
        )
    }
}

/// A node to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create {
    /// Its path; of a sequential node, without the number.
    pub path: String,
    /// Its data; null and empty are not the same.
    pub data: Option<Bytes>,
    /// Its access control list, which must not be empty.
    pub acl: Vec<Acl>,
    /// Its kind.
    pub mode: CreateMode,
    /// Whether the answer shall tell its [`Stat`](crate::Stat) (create2). Containers and nodes with
    /// a time-to-live always do.
    pub stat: bool,
}

impl Create {
    /// A node that is open to everybody.
    pub fn new(path: impl Into<String>, data: impl Into<Bytes>, mode: CreateMode) -> Self {
        let (path, data) = (path.into(), Some(data.into()));
        Self { path, data, acl: Acl::open(), mode, stat: true }
    }

    pub(crate) fn opcode(&self) -> i32 {
        match self.mode {
            CreateMode::Container => opcode::CREATE_CONTAINER,
            _ if self.mode.ttl().is_some() => opcode::CREATE_TTL,
            _ if self.stat => opcode::CREATE2,
            _ => opcode::CREATE,
        }
    }

    fn put(&self, path: &str, out: &mut impl BufMut) {
        out.put_ustring(Some(path));
        out.put_buffer(self.data.as_deref());
        Acl::put_list(&self.acl, out);
        out.put_i32(self.mode.flags());
        if let Some(ttl) = self.mode.ttl() {
            out.put_i64(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        }
    }

    /// The number makes `/a/` a valid path.
    fn check(&self) -> Result<(), &'static str> {
        match self.mode.is_sequential() {
            true => path::validate(&format!("{}1", self.path)),
            false => path::validate(&self.path),
        }
    }
}

/// One operation of a [`Request::Multi`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Creates a node.
    Create(Create),
    /// Deletes a node that has this version.
    Delete(String, i32),
    /// Sets the data of a node that has this version.
    SetData(String, Option<Bytes>, i32),
    /// Holds if a node has this version.
    Check(String, i32),
}

impl Op {
    /// The path that it is for.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Create(create) => &create.path,
            Self::Delete(path, _) | Self::SetData(path, _, _) | Self::Check(path, _) => path,
        }
    }
}

/// One operation of a [`Request::MultiRead`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOp {
    /// The data of a node.
    GetData(String),
    /// The names of a node's children.
    GetChildren(String),
}

/// What can be asked of a server. Paths are those below the client's root.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what their names say, and alike in all")]
pub enum Request {
    /// Creates a node: [`Answer::Created`](crate::Answer::Created).
    Create(Create),
    /// Deletes a node without children that has this version: [`Answer::Done`](crate::Answer::Done).
    Delete { path: String, version: i32 },
    /// Whether a node exists: [`Answer::Exists`](crate::Answer::Exists). The watch is set in both cases.
    Exists { path: String, watch: bool },
    /// [`Answer::Data`](crate::Answer::Data).
    GetData { path: String, watch: bool },
    /// Sets the data of a node that has this version: [`Answer::Stat`](crate::Answer::Stat).
    SetData { path: String, data: Option<Bytes>, version: i32 },
    /// [`Answer::Acl`](crate::Answer::Acl).
    GetAcl { path: String },
    /// Sets the ACL of a node whose ACL has this version: [`Answer::Stat`](crate::Answer::Stat).
    SetAcl { path: String, acl: Vec<Acl>, version: i32 },
    /// The names of the children: [`Answer::Children`](crate::Answer::Children), with the node's
    /// own stat if `stat` asks for it.
    GetChildren { path: String, watch: bool, stat: bool },
    /// What follows sees all that was committed before: [`Answer::Synced`](crate::Answer::Synced).
    Sync { path: String },
    /// All of these or none: [`Answer::Multi`](crate::Answer::Multi).
    Multi(Vec<Op>),
    /// Each of these by itself: [`Answer::Multi`](crate::Answer::Multi).
    MultiRead(Vec<ReadOp>),
    /// The members of the ensemble: [`Answer::Data`](crate::Answer::Data).
    GetConfig { watch: bool },
    /// Changes the members of the ensemble: [`Answer::Data`](crate::Answer::Data). Texts as in
    /// ZooKeeper's manual; `version` is that of the present configuration or -1.
    Reconfig {
        joining: Option<String>,
        leaving: Option<String>,
        members: Option<String>,
        version: i64,
    },
    /// Sets a watch that stays: [`Answer::Done`](crate::Answer::Done).
    AddWatch { path: String, mode: AddWatchMode },
    /// Whether this connection has such a watch: [`Answer::Done`](crate::Answer::Done), or the
    /// error [`NoWatcher`](crate::Code::NoWatcher).
    CheckWatches { path: String, kind: WatcherType },
    /// Removes watches: as `CheckWatches`.
    RemoveWatches { path: String, kind: WatcherType },
    /// The session's ephemeral nodes: [`Answer::Names`](crate::Answer::Names), whole paths.
    GetEphemerals { prefix: String },
    /// How many nodes are below one: [`Answer::Number`](crate::Answer::Number).
    GetAllChildrenNumber { path: String },
    /// Who this connection is: [`Answer::Identities`](crate::Answer::Identities).
    WhoAmI,
    /// Shows credentials, now and whenever the client connects again:
    /// [`Answer::Done`](crate::Answer::Done).
    Auth { scheme: String, credentials: Bytes },
}

pub(crate) mod opcode {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_ACL: i32 = 6;
    pub(crate) const SET_ACL: i32 = 7;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const GET_CHILDREN2: i32 = 12;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const CREATE2: i32 = 15;
    pub(crate) const RECONFIG: i32 = 16;
    pub(crate) const CHECK_WATCHES: i32 = 17;
    pub(crate) const REMOVE_WATCHES: i32 = 18;
    pub(crate) const CREATE_CONTAINER: i32 = 19;
    pub(crate) const CREATE_TTL: i32 = 21;
    pub(crate) const MULTI_READ: i32 = 22;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const SET_WATCHES: i32 = 101;
    pub(crate) const SASL: i32 = 102;
    pub(crate) const GET_EPHEMERALS: i32 = 103;
    pub(crate) const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub(crate) const SET_WATCHES2: i32 = 105;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const WHO_AM_I: i32 = 107;
    pub(crate) const CLOSE_SESSION: i32 = -11;
    pub(crate) const ERROR: i32 = -1;
}

impl Request {
    pub(crate) fn opcode(&self) -> i32 {
        match self {
            Self::Create(create) => create.opcode(),
            Self::Delete { .. } => opcode::DELETE,
            Self::Exists { .. } => opcode::EXISTS,
            Self::GetData { .. } | Self::GetConfig { .. } => opcode::GET_DATA,
            Self::SetData { .. } => opcode::SET_DATA,
            Self::GetAcl { .. } => opcode::GET_ACL,
            Self::SetAcl { .. } => opcode::SET_ACL,
            Self::GetChildren { stat: false, .. } => opcode::GET_CHILDREN,
            Self::GetChildren { stat: true, .. } => opcode::GET_CHILDREN2,
            Self::Sync { .. } => opcode::SYNC,
            Self::Multi(_) => opcode::MULTI,
            Self::MultiRead(_) => opcode::MULTI_READ,
            Self::Reconfig { .. } => opcode::RECONFIG,
            Self::AddWatch { .. } => opcode::ADD_WATCH,
            Self::CheckWatches { .. } => opcode::CHECK_WATCHES,
            Self::RemoveWatches { .. } => opcode::REMOVE_WATCHES,
            Self::GetEphemerals { .. } => opcode::GET_EPHEMERALS,
            Self::GetAllChildrenNumber { .. } => opcode::GET_ALL_CHILDREN_NUMBER,
            Self::WhoAmI => opcode::WHO_AM_I,
            Self::Auth { .. } => opcode::AUTH,
        }
    }

    /// The path that it is for, as the caller knows it.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Create(create) => Some(&create.path),
            Self::Delete { path, .. }
            | Self::Exists { path, .. }
            | Self::GetData { path, .. }
            | Self::SetData { path, .. }
            | Self::GetAcl { path }
            | Self::SetAcl { path, .. }
            | Self::GetChildren { path, .. }
            | Self::Sync { path }
            | Self::AddWatch { path, .. }
            | Self::CheckWatches { path, .. }
            | Self::RemoveWatches { path, .. }
            | Self::GetEphemerals { prefix: path }
            | Self::GetAllChildrenNumber { path } => Some(path),
            Self::GetConfig { .. } => Some(CONFIG_NODE),
            Self::Multi(_)
            | Self::MultiRead(_)
            | Self::Reconfig { .. }
            | Self::WhoAmI
            | Self::Auth { .. } => None,
        }
    }

    /// Checks all paths in it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Create(create) => create.check(),
            Self::Multi(ops) => ops.iter().try_for_each(|op| match op {
                Op::Create(create) => create.check(),
                other => path::validate(other.path()),
            }),
            Self::MultiRead(ops) => ops.iter().try_for_each(|op| match op {
                ReadOp::GetData(path) | ReadOp::GetChildren(path) => path::validate(path),
            }),
            other => other.path().map_or(Ok(()), path::validate),
        }
    }

    /// Appends the record after the header.
    pub(crate) fn put(&self, root: &Chroot, out: &mut impl BufMut) {
        let put_path = |out: &mut dyn BufMut, path: &str| {
            let path = root.full(path);
            out.put_len(path.len());
            out.put_slice(path.as_bytes());
        };
        match self {
            Self::Create(create) => create.put(&root.full(&create.path), out),
            Self::Delete { path, version } => {
                put_path(out, path);
                out.put_i32(*version);
            }
            Self::Exists { path, watch }
            | Self::GetData { path, watch }
            | Self::GetChildren { path, watch, .. } => {
                put_path(out, path);
                out.put_bool(*watch);
            }
            Self::SetData { path, data, version } => {
                put_path(out, path);
                out.put_buffer(data.as_deref());
                out.put_i32(*version);
            }
            Self::GetAcl { path }
            | Self::Sync { path }
            | Self::GetAllChildrenNumber { path }
            | Self::GetEphemerals { prefix: path } => put_path(out, path),
            Self::SetAcl { path, acl, version } => {
                put_path(out, path);
                Acl::put_list(acl, out);
                out.put_i32(*version);
            }
            Self::Multi(ops) => put_multi(ops, root, out),
            Self::MultiRead(ops) => put_multi_read(ops, root, out),
            Self::GetConfig { watch } => {
                out.put_ustring(Some(CONFIG_NODE));
                out.put_bool(*watch);
            }
            Self::Reconfig { joining, leaving, members, version } => {
                out.put_ustring(joining.as_deref());
                out.put_ustring(leaving.as_deref());
                out.put_ustring(members.as_deref());
                out.put_i64(*version);
            }
            Self::AddWatch { path, mode } => {
                put_path(out, path);
                out.put_i32(mode.number());
            }
            Self::CheckWatches { path, kind } | Self::RemoveWatches { path, kind } => {
                put_path(out, path);
                out.put_i32(kind.number());
            }
            Self::WhoAmI => {}
            Self::Auth { scheme, credentials } => {
                out.put_i32(0);
                out.put_ustring(Some(scheme));
                out.put_buffer(Some(credentials));
            }
        }
    }
}

fn put_multi_header(kind: i32, done: bool, out: &mut impl BufMut) {
    out.put_i32(kind);
    out.put_bool(done);
    out.put_i32(-1);
}

fn put_multi(ops: &[Op], root: &Chroot, out: &mut impl BufMut) {
    for op in ops {
        let path = root.full(op.path());
        let kind = match op {
            Op::Create(create) => create.opcode(),
            Op::Delete(..) => opcode::DELETE,
            Op::SetData(..) => opcode::SET_DATA,
            Op::Check(..) => opcode::CHECK,
        };
        put_multi_header(kind, false, out);
        match op {
            Op::Create(create) => create.put(&path, out),
            Op::SetData(_, data, version) => {
                out.put_ustring(Some(&path));
                out.put_buffer(data.as_deref());
                out.put_i32(*version);
            }
            Op::Delete(_, version) | Op::Check(_, version) => {
                out.put_ustring(Some(&path));
                out.put_i32(*version);
            }
        }
    }
    put_multi_header(opcode::ERROR, true, out);
}

fn put_multi_read(ops: &[ReadOp], root: &Chroot, out: &mut impl BufMut) {
    for op in ops {
        let (kind, path) = match op {
            ReadOp::GetData(path) => (opcode::GET_DATA, path),
            ReadOp::GetChildren(path) => (opcode::GET_CHILDREN, path),
        };
        put_multi_header(kind, false, out);
        out.put_ustring(Some(&root.full(path)));
        // The server does not look at the watch flag here.
        out.put_bool(false);
    }
    put_multi_header(opcode::ERROR, true, out);
}
