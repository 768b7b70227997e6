//! The client's side of ZooKeeper's client protocol: what is asked, and what an answer says.
//!
//! Answers are read to the last byte and without mercy, unlike a client that has to go on: this one judges.

use bytes::BufMut;
use zab_harness::client::{put_auth, put_part, put_request, put_set_watches};
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zk_service::Opcode;

use crate::zk::acl::{self, Entry, User};

/// A frame that no server sends: a client that reads it submits again what it has in flight, on its next
/// connection ([`ResubmittedAfterSnapshot`](crate::Mutation)).
pub(crate) const RESUBMIT: [u8; 20] =
    [0, 0, 0, 16, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Its xid.
pub(crate) const XID_RESUBMIT: i32 = -128;

/// What a create makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    pub(crate) kind: Kind,
    pub(crate) sequential: bool,
}

/// How long a node lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Persistent,
    Ephemeral,
    /// Until its last child is gone.
    Container,
    /// Until it has been childless and unchanged for so long, in ms.
    Ttl(i64),
}

impl Mode {
    fn flags(self) -> i32 {
        match (self.kind, self.sequential) {
            (Kind::Persistent, false) => 0,
            (Kind::Ephemeral, false) => 1,
            (Kind::Persistent, true) => 2,
            (Kind::Ephemeral, true) => 3,
            (Kind::Container, _) => 4,
            (Kind::Ttl(_), false) => 5,
            (Kind::Ttl(_), true) => 6,
        }
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Create {
        path: String,
        data: u64,
        acl: Vec<Entry>,
        mode: Mode,
    },
    Delete {
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: u64,
        version: i32,
    },
    SetAcl {
        path: String,
        acl: Vec<Entry>,
        version: i32,
    },
    /// In a multi only.
    Check {
        path: String,
        version: i32,
    },
    Multi(Vec<Self>),
    Get {
        path: String,
        watch: bool,
    },
    Exists {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
    GetAcl {
        path: String,
    },
    Ephemerals,
    /// addauth.
    Auth(User),
    Sync {
        path: String,
    },
    Ping,
    SetWatches(WatchLists),
    AddWatch {
        path: String,
        recursive: bool,
    },
    RemoveWatches {
        path: String,
        kind: WatchKind,
    },
    Close,
}

/// What removeWatches removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WatchKind {
    Child = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    Recursive = 5,
}

/// What a client arms again on a new connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct WatchLists {
    /// The last zxid that the client has seen.
    pub(crate) since: i64,
    pub(crate) data: Vec<String>,
    pub(crate) exist: Vec<String>,
    pub(crate) child: Vec<String>,
    pub(crate) persistent: Vec<String>,
    pub(crate) recursive: Vec<String>,
}

impl WatchLists {
    pub(crate) fn is_empty(&self) -> bool {
        let fire_once = [&self.data, &self.exist, &self.child];
        !self.needs_two() && fire_once.iter().all(|list| list.is_empty())
    }

    /// Whether setWatches cannot say it.
    fn needs_two(&self) -> bool {
        !(self.persistent.is_empty() && self.recursive.is_empty())
    }
}

impl Request {
    pub(crate) fn op(&self) -> Opcode {
        match self {
            Self::Create { mode, .. } => match mode.kind {
                Kind::Persistent | Kind::Ephemeral => Opcode::Create2,
                Kind::Container => Opcode::CreateContainer,
                Kind::Ttl(_) => Opcode::CreateTtl,
            },
            Self::Delete { .. } => Opcode::Delete,
            Self::Set { .. } => Opcode::SetData,
            Self::SetAcl { .. } => Opcode::SetAcl,
            Self::Check { .. } => Opcode::Check,
            Self::Multi(_) => Opcode::Multi,
            Self::Get { .. } => Opcode::GetData,
            Self::Exists { .. } => Opcode::Exists,
            Self::Children { .. } => Opcode::GetChildren2,
            Self::GetAcl { .. } => Opcode::GetAcl,
            Self::Ephemerals => Opcode::GetEphemerals,
            Self::Auth(_) => Opcode::Auth,
            Self::Sync { .. } => Opcode::Sync,
            Self::Ping => Opcode::Ping,
            Self::SetWatches(lists) if lists.needs_two() => Opcode::SetWatches2,
            Self::SetWatches(_) => Opcode::SetWatches,
            Self::AddWatch { .. } => Opcode::AddWatch,
            Self::RemoveWatches { .. } => Opcode::RemoveWatches,
            Self::Close => Opcode::CloseSession,
        }
    }

    /// The operation that the answer to a part of a multi names.
    fn result_op(&self) -> Opcode {
        if matches!(self, Self::Create { .. }) { Opcode::Create2 } else { self.op() }
    }

    /// Whether it becomes a transaction.
    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::Delete { .. }
                | Self::Set { .. }
                | Self::SetAcl { .. }
                | Self::Multi(_)
                | Self::Close
        )
    }

    /// Its name in the coverage table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { mode, .. } => match (mode.kind, mode.sequential) {
                (Kind::Persistent, false) => "client: create",
                (Kind::Persistent, true) => "client: create sequential",
                (Kind::Ephemeral, false) => "client: create ephemeral",
                (Kind::Ephemeral, true) => "client: create ephemeral sequential",
                (Kind::Container, _) => "client: createContainer",
                (Kind::Ttl(_), _) => "client: createTTL",
            },
            Self::Delete { .. } => "client: delete",
            Self::Set { .. } => "client: setData",
            Self::SetAcl { .. } => "client: setACL",
            Self::Check { .. } => "client: check",
            Self::Multi(_) => "client: multi",
            Self::Get { .. } => "client: getData",
            Self::Exists { .. } => "client: exists",
            Self::Children { .. } => "client: getChildren",
            Self::GetAcl { .. } => "client: getACL",
            Self::Ephemerals => "client: getEphemerals",
            Self::Auth(_) => "client: addauth",
            Self::Sync { .. } => "client: sync",
            Self::Ping => "client: ping",
            Self::SetWatches(lists) if lists.needs_two() => "client: setWatches2",
            Self::SetWatches(_) => "client: setWatches",
            Self::AddWatch { recursive: false, .. } => "client: addWatch",
            Self::AddWatch { recursive: true, .. } => "client: addWatch recursive",
            Self::RemoveWatches { .. } => "client: removeWatches",
            Self::Close => "client: closeSession",
        }
    }

    /// Appends the frame.
    pub(crate) fn encode(&self, xid: i32, out: &mut Vec<u8>) {
        put_request(out, xid, self.op().wire(), |out| self.record(out));
    }

    fn record(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create { path, data, acl, mode } => {
                out.put_ustring(Some(path));
                out.put_buffer(Some(&data.to_be_bytes()));
                acl::write(acl, out);
                out.put_i32(mode.flags());
                if let Kind::Ttl(ttl_ms) = mode.kind {
                    out.put_i64(ttl_ms);
                }
            }
            Self::Delete { path, version } | Self::Check { path, version } => {
                out.put_ustring(Some(path));
                out.put_i32(*version);
            }
            Self::Set { path, data, version } => {
                out.put_ustring(Some(path));
                out.put_buffer(Some(&data.to_be_bytes()));
                out.put_i32(*version);
            }
            Self::SetAcl { path, acl, version } => {
                out.put_ustring(Some(path));
                acl::write(acl, out);
                out.put_i32(*version);
            }
            Self::Auth(user) => put_auth(out, "digest", user.credentials().map(str::as_bytes)),
            Self::Multi(parts) => {
                for part in parts {
                    put_part(out, part.op().wire(), false);
                    part.record(out);
                }
                put_part(out, -1, true);
            }
            Self::Get { path, watch }
            | Self::Exists { path, watch }
            | Self::Children { path, watch } => {
                out.put_ustring(Some(path));
                out.put_bool(*watch);
            }
            Self::Ephemerals => out.put_ustring(Some("/")),
            Self::Sync { path } | Self::GetAcl { path } => out.put_ustring(Some(path)),
            Self::SetWatches(lists) => {
                let WatchLists { since, data, exist, child, persistent, recursive } = lists;
                let all = [&data[..], exist, child, persistent, recursive];
                put_set_watches(out, *since, &all[..if lists.needs_two() { 5 } else { 3 }]);
            }
            Self::AddWatch { path, recursive } => {
                out.put_ustring(Some(path));
                out.put_i32(i32::from(*recursive));
            }
            Self::RemoveWatches { path, kind } => {
                out.put_ustring(Some(path));
                out.put_i32(*kind as i32);
            }
            Self::Ping | Self::Close => {}
        }
    }
}

/// An event: its type and path.
pub(crate) fn event(body: &[u8]) -> Result<(i32, String), DecodeError> {
    let mut reader = Reader::new(body);
    let (kind, _state) = (reader.i32()?, reader.i32()?);
    Ok((kind, text(&mut reader)?))
}

fn text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(reader.string()?.ok_or(DecodeError::BadLength(-1))?.into_owned())
}

/// A node's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Stat {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) version: i32,
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    pub(crate) owner: i64,
    pub(crate) data_len: i32,
    pub(crate) children: i32,
    pub(crate) pzxid: i64,
}

impl Stat {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: reader.i64()?,
            mzxid: reader.i64()?,
            ctime: reader.i64()?,
            mtime: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            owner: reader.i64()?,
            data_len: reader.i32()?,
            children: reader.i32()?,
            pzxid: reader.i64()?,
        })
    }
}

/// The body of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing, or the request failed.
    Nothing,
    Created(String, Stat),
    Numbers(Stat),
    Data(Vec<u8>, Stat),
    /// Names in order.
    Names(Vec<String>, Stat),
    Paths(Vec<String>),
    Acl(Vec<Entry>, Stat),
    /// Code and body of each part.
    Parts(Vec<(i32, Self)>),
}

/// Reads the body of the answer to `request`, all of it.
pub(crate) fn answer(request: &Request, code: i32, body: &[u8]) -> Result<Answer, DecodeError> {
    let mut reader = Reader::new(body);
    let answer = if code == 0 { body_of(request, &mut reader)? } else { Answer::Nothing };
    if reader.remaining() > 0 {
        return Err(DecodeError::BadLength(i64::try_from(reader.remaining()).unwrap_or(0)));
    }
    Ok(answer)
}

fn body_of(request: &Request, reader: &mut Reader<'_>) -> Result<Answer, DecodeError> {
    Ok(match request {
        Request::Create { .. } => Answer::Created(text(reader)?, Stat::read(reader)?),
        Request::Set { .. } | Request::SetAcl { .. } | Request::Exists { .. } => {
            Answer::Numbers(Stat::read(reader)?)
        }
        Request::GetAcl { .. } => Answer::Acl(acl::read(reader)?, Stat::read(reader)?),
        Request::Get { .. } => {
            let data = reader.buffer()?.unwrap_or_default().to_vec();
            Answer::Data(data, Stat::read(reader)?)
        }
        Request::Children { .. } => {
            let names = texts(reader)?;
            Answer::Names(names, Stat::read(reader)?)
        }
        Request::Ephemerals => Answer::Paths(texts(reader)?),
        Request::Sync { .. } => {
            text(reader)?;
            Answer::Nothing
        }
        Request::Multi(parts) => Answer::Parts(parts_of(parts, reader)?),
        Request::AddWatch { .. } => match reader.i32()? {
            0 => Answer::Nothing,
            other => return Err(DecodeError::BadValue(i64::from(other))),
        },
        Request::Delete { .. }
        | Request::Check { .. }
        | Request::Auth(_)
        | Request::Ping
        | Request::SetWatches(_)
        | Request::RemoveWatches { .. }
        | Request::Close => Answer::Nothing,
    })
}

fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count = reader.vector()?.unwrap_or(0);
    let mut list = (0..count).map(|_| text(reader)).collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    Ok(list)
}

fn parts_of(parts: &[Request], reader: &mut Reader<'_>) -> Result<Vec<(i32, Answer)>, DecodeError> {
    let mut results = Vec::new();
    for part in parts {
        let (op, _done, _) = (reader.i32()?, reader.bool()?, reader.i32()?);
        if op == -1 {
            results.push((reader.i32()?, Answer::Nothing));
        } else if Opcode::from_wire(op) == Some(part.result_op()) {
            results.push((0, body_of(part, reader)?));
        } else {
            return Err(DecodeError::BadValue(i64::from(op)));
        }
    }
    let end = (reader.i32()?, reader.bool()?, reader.i32()?);
    if end == (-1, true, -1) { Ok(results) } else { Err(DecodeError::BadValue(i64::from(end.0))) }
}
