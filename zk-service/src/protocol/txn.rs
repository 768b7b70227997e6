//! Transactions: what a log record or a proposal holds after its header.
//!
//! Everything borrows from the bytes it was read from and is written back exactly as it was read.

use std::borrow::Cow;

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader, text};
use zab_proto::wire::txn::TxnHeader;

use crate::protocol::acl::AclList;
use crate::protocol::code::Code;
use crate::protocol::opcode::{Opcode, auth_op, read_op, sync_op};

/// The digest algorithm in use.
pub const DIGEST_VERSION: i32 = 2;

/// `TxnDigest`: the digest of the tree after a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    /// The algorithm, [`DIGEST_VERSION`].
    pub version: i32,
    /// The digest of the whole tree.
    pub digest: u64,
}

impl TxnDigest {
    /// Encoded length in bytes.
    pub const LEN: usize = 12;

    /// A digest of the present version.
    #[must_use]
    pub fn new(digest: u64) -> Self {
        Self { version: DIGEST_VERSION, digest }
    }

    /// Reads a digest where the reader stands; `None` if fewer than [`LEN`](Self::LEN) bytes remain.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.remaining() < Self::LEN {
            return None;
        }
        let version = reader.i32().ok()?;
        Some(Self { version, digest: reader.i64().ok()?.cast_unsigned() })
    }

    /// Writes the digest.
    pub fn write(self, out: &mut impl BufMut) {
        out.put_i32(self.version);
        out.put_i64(self.digest.cast_signed());
    }
}

/// A whole transaction payload: the same bytes in the log and in PROPOSAL and INFORM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// Who caused it, its zxid, time and type.
    pub header: TxnHeader,
    /// What it does.
    pub txn: Txn<'a>,
    /// The tree's digest after it.
    pub digest: Option<TxnDigest>,
}

impl<'a> Payload<'a> {
    /// Decodes a payload. Bytes after it are ignored, as in ZooKeeper.
    ///
    /// # Errors
    /// If the body does not decode, the type is unknown, or a part of a multi is either.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = TxnHeader::read(&mut reader)?;
        let txn = Txn::read(header.kind, &mut reader)?;
        let digest = TxnDigest::read(&mut reader);
        Ok(Self { header, txn, digest })
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.header.write(out);
        self.txn.write(out);
        if let Some(digest) = self.digest {
            digest.write(out);
        }
    }
}

/// The body of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Txn<'a> {
    /// `create`, `create2`, `createContainer`, `createTTL`.
    Create(CreateTxn<'a>),
    /// `delete`; with `container`, `deleteContainer` (made by servers for containers and TTL nodes).
    Delete {
        /// The node.
        path: Cow<'a, str>,
        /// Whether the type is `deleteContainer`.
        container: bool,
    },
    /// `setData`; with `reconfig`, the new configuration in `/zookeeper/config`.
    SetData {
        /// The node.
        path: Cow<'a, str>,
        /// The new data; `None` is null.
        data: Option<&'a [u8]>,
        /// The version after the change.
        version: i32,
        /// Whether the type is `reconfig`.
        reconfig: bool,
    },
    /// `setACL`.
    SetAcl {
        /// The node.
        path: Cow<'a, str>,
        /// The new list.
        acl: AclList<'a>,
        /// The ACL version after the change.
        version: i32,
    },
    /// `check`: nothing to apply. Legal in a multi only, but old releases logged it by itself.
    Check {
        /// The node.
        path: Cow<'a, str>,
        /// The version after a change, which there is not.
        version: i32,
    },
    /// `multi`.
    Multi(Parts<'a>),
    /// `createSession`.
    CreateSession {
        /// Session time-out in ms.
        timeout_ms: i32,
    },
    /// `closeSession`; `None` if the record has no body.
    CloseSession(Option<Paths<'a>>),
    /// A refused request.
    Error(Code),
}

/// The body of the four create transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTxn<'a> {
    /// Path of the new node, sequence number included.
    pub path: Cow<'a, str>,
    /// Its data; `None` is null.
    pub data: Option<&'a [u8]>,
    /// Its ACL.
    pub acl: AclList<'a>,
    /// The parent's persisted cversion after the change; -1: one more than it is.
    pub parent_cversion: i32,
    /// Which of the four it is.
    pub kind: CreateKind,
}

/// Which create a [`CreateTxn`] is, and who owns the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateKind {
    /// `create` in the form before ZooKeeper 3.4, without `parentCVersion`.
    CreateV0 {
        /// Whether the session owns the node.
        ephemeral: bool,
    },
    /// `create`.
    Create {
        /// Whether the session owns the node.
        ephemeral: bool,
    },
    /// `create2`.
    Create2 {
        /// Whether the session owns the node.
        ephemeral: bool,
    },
    /// `createContainer`.
    Container,
    /// `createTTL`.
    Ttl {
        /// Time to live in ms.
        ttl_ms: i64,
    },
}

impl<'a> Txn<'a> {
    /// The transaction type in the header.
    #[must_use]
    pub fn kind(&self) -> Opcode {
        match self {
            Self::Create(create) => match create.kind {
                CreateKind::CreateV0 { .. } | CreateKind::Create { .. } => Opcode::Create,
                CreateKind::Create2 { .. } => Opcode::Create2,
                CreateKind::Container => Opcode::CreateContainer,
                CreateKind::Ttl { .. } => Opcode::CreateTtl,
            },
            Self::Delete { container: false, .. } => Opcode::Delete,
            Self::Delete { container: true, .. } => Opcode::DeleteContainer,
            Self::SetData { reconfig: false, .. } => Opcode::SetData,
            Self::SetData { reconfig: true, .. } => Opcode::Reconfig,
            Self::SetAcl { .. } => Opcode::SetAcl,
            Self::Check { .. } => Opcode::Check,
            Self::Multi(_) => Opcode::Multi,
            Self::CreateSession { .. } => Opcode::CreateSession,
            Self::CloseSession(_) => Opcode::CloseSession,
            Self::Error(_) => Opcode::Error,
        }
    }

    /// The path of the node concerned, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Create(CreateTxn { path, .. })
            | Self::Delete { path, .. }
            | Self::SetData { path, .. }
            | Self::SetAcl { path, .. }
            | Self::Check { path, .. } => Some(path),
            Self::Multi(_)
            | Self::CreateSession { .. }
            | Self::CloseSession(_)
            | Self::Error(_) => None,
        }
    }

    /// Reads the body of a transaction of type `kind`.
    ///
    /// # Errors
    /// [`DecodeError::BadValue`] for a type that is none, otherwise those of the fields.
    pub fn read(kind: i32, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let op = Opcode::from_wire(kind).ok_or_else(|| DecodeError::BadValue(i64::from(kind)))?;
        match op {
            Opcode::Create => read_create_or_v0(reader),
            Opcode::Multi => Parts::read(reader).map(Self::Multi),
            Opcode::CreateSession => Ok(Self::CreateSession { timeout_ms: reader.i32()? }),
            Opcode::CloseSession => read_close_session(reader).map(Self::CloseSession),
            Opcode::SetAcl => Ok(Self::SetAcl {
                path: read_path(reader)?,
                acl: AclList::read(reader)?,
                version: reader.i32()?,
            }),
            Opcode::Reconfig => read_set_data(reader, true),
            Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::Check
            | Opcode::DeleteContainer
            | Opcode::Error
            | read_op!()
            | sync_op!()
            | auth_op!() => Self::read_part(op, reader),
        }
    }

    /// Reads what may be a part of a multi.
    fn read_part(op: Opcode, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match op {
            Opcode::Create => {
                read_create(reader, |ephemeral| CreateKind::Create { ephemeral }).map(Self::Create)
            }
            Opcode::Create2 => {
                read_create(reader, |ephemeral| CreateKind::Create2 { ephemeral }).map(Self::Create)
            }
            Opcode::CreateContainer | Opcode::CreateTtl => read_owned_create(op, reader),
            Opcode::Delete | Opcode::DeleteContainer => Ok(Self::Delete {
                path: read_path(reader)?,
                container: op == Opcode::DeleteContainer,
            }),
            Opcode::SetData => read_set_data(reader, false),
            Opcode::Check => Ok(Self::Check { path: read_path(reader)?, version: reader.i32()? }),
            Opcode::Error => Ok(Self::Error(Code(reader.i32()?))),
            Opcode::SetAcl
            | Opcode::Multi
            | Opcode::Reconfig
            | Opcode::CreateSession
            | Opcode::CloseSession
            | read_op!()
            | sync_op!()
            | auth_op!() => Err(DecodeError::BadValue(i64::from(op.wire()))),
        }
    }

    /// Writes the body.
    pub fn write(&self, out: &mut impl BufMut) {
        match self {
            Self::Create(create) => create.write(out),
            Self::Delete { path, .. } => out.put_ustring(Some(path)),
            Self::SetData { path, data, version, .. } => {
                out.put_ustring(Some(path));
                out.put_buffer(*data);
                out.put_i32(*version);
            }
            Self::SetAcl { path, acl, version } => {
                out.put_ustring(Some(path));
                acl.write(out);
                out.put_i32(*version);
            }
            Self::Check { path, version } => {
                out.put_ustring(Some(path));
                out.put_i32(*version);
            }
            Self::Multi(parts) => parts.write(out),
            Self::CreateSession { timeout_ms } => out.put_i32(*timeout_ms),
            Self::CloseSession(None) => {}
            Self::CloseSession(Some(paths)) => paths.write(out),
            Self::Error(code) => out.put_i32(code.0),
        }
    }
}

impl CreateTxn<'_> {
    fn write(&self, out: &mut impl BufMut) {
        out.put_ustring(Some(&self.path));
        out.put_buffer(self.data);
        self.acl.write(out);
        match self.kind {
            CreateKind::CreateV0 { ephemeral } => out.put_bool(ephemeral),
            CreateKind::Create { ephemeral } | CreateKind::Create2 { ephemeral } => {
                out.put_bool(ephemeral);
                out.put_i32(self.parent_cversion);
            }
            CreateKind::Container => out.put_i32(self.parent_cversion),
            CreateKind::Ttl { ttl_ms } => {
                out.put_i32(self.parent_cversion);
                out.put_i64(ttl_ms);
            }
        }
    }
}

fn read_path<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    reader.string()?.ok_or(DecodeError::BadLength(-1))
}

fn read_create<'a>(
    reader: &mut Reader<'a>,
    kind: fn(bool) -> CreateKind,
) -> Result<CreateTxn<'a>, DecodeError> {
    let path = read_path(reader)?;
    let data = reader.buffer()?;
    let acl = AclList::read(reader)?;
    let kind = kind(reader.bool()?);
    let parent_cversion =
        if matches!(kind, CreateKind::CreateV0 { .. }) { -1 } else { reader.i32()? };
    Ok(CreateTxn { path, data, acl, parent_cversion, kind })
}

/// A `create` that ends early is one of the old form.
fn read_create_or_v0<'a>(reader: &mut Reader<'a>) -> Result<Txn<'a>, DecodeError> {
    let from = reader.clone();
    let create = match read_create(reader, |ephemeral| CreateKind::Create { ephemeral }) {
        Err(DecodeError::UnexpectedEof) => {
            *reader = from;
            read_create(reader, |ephemeral| CreateKind::CreateV0 { ephemeral })
        }
        result => result,
    };
    create.map(Txn::Create)
}

/// `createContainer` and `createTTL` have no `ephemeral` field.
fn read_owned_create<'a>(op: Opcode, reader: &mut Reader<'a>) -> Result<Txn<'a>, DecodeError> {
    let path = read_path(reader)?;
    let data = reader.buffer()?;
    let acl = AclList::read(reader)?;
    let parent_cversion = reader.i32()?;
    let kind = if op == Opcode::CreateTtl {
        CreateKind::Ttl { ttl_ms: reader.i64()? }
    } else {
        CreateKind::Container
    };
    Ok(Txn::Create(CreateTxn { path, data, acl, parent_cversion, kind }))
}

fn read_set_data<'a>(reader: &mut Reader<'a>, reconfig: bool) -> Result<Txn<'a>, DecodeError> {
    Ok(Txn::SetData {
        path: read_path(reader)?,
        data: reader.buffer()?,
        version: reader.i32()?,
        reconfig,
    })
}

/// A record without a body is empty or holds a digest alone. A body is never taken for that
/// digest: one that begins with 2, its number of paths, has at least 16 bytes.
fn read_close_session<'a>(reader: &mut Reader<'a>) -> Result<Option<Paths<'a>>, DecodeError> {
    let digest_alone = || {
        let mut ahead = reader.clone();
        reader.remaining() == TxnDigest::LEN && ahead.i32() == Ok(DIGEST_VERSION)
    };
    if reader.remaining() == 0 || digest_alone() {
        return Ok(None);
    }
    Paths::read(reader).map(Some)
}

/// A place among the parts of a multi, or the paths of a closeSession: how many are before it, and of how
/// many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cursor {
    index: i32,
    at: usize,
}

impl Cursor {
    /// Reads what is at this place of `count` things in `bytes`, and goes on behind it.
    fn read<'a, T>(
        &mut self,
        (count, bytes): (i32, &'a [u8]),
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Option<T> {
        if self.index >= count {
            return None;
        }
        let mut reader = Reader::new(bytes.get(self.at..)?);
        let item = read(&mut reader).ok()?;
        self.index += 1;
        self.at += reader.position();
        Some(item)
    }
}

fn read_text<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    reader.ustring()?.map(text).ok_or(DecodeError::BadLength(-1))
}

/// The `vector<ustring>` of a `closeSession`, checked but not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paths<'a> {
    count: i32,
    bytes: &'a [u8],
}

impl<'a> Paths<'a> {
    /// Reads a `vector<ustring>` where the reader stands.
    ///
    /// # Errors
    /// Those of the fields; [`DecodeError::BadLength`] for a null path.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.i32()?;
        let from = reader.clone();
        for _ in 0..count {
            reader.ustring()?.ok_or(DecodeError::BadLength(-1))?;
        }
        let bytes = &from.rest()[..from.remaining() - reader.remaining()];
        Ok(Self { count, bytes })
    }

    /// The number of paths, and all of them as they were read.
    pub(super) fn raw(self) -> (i32, &'a [u8]) {
        (self.count, self.bytes)
    }

    /// What [`raw`](Self::raw) has given.
    pub(super) fn from_raw((count, bytes): (i32, &'a [u8])) -> Self {
        Self { count, bytes }
    }

    /// The paths in order.
    pub fn iter(self) -> impl Iterator<Item = Cow<'a, str>> {
        let mut next = Cursor::default();
        std::iter::from_fn(move || self.next(&mut next))
    }

    /// The path at a place, which goes on behind it.
    pub(crate) fn next(self, next: &mut Cursor) -> Option<Cow<'a, str>> {
        next.read(self.raw(), read_text)
    }

    /// Writes the vector as it was read.
    pub fn write(self, out: &mut impl BufMut) {
        out.put_i32(self.count);
        out.put_slice(self.bytes);
    }
}

/// The parts of a multi, checked but not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts<'a> {
    count: i32,
    bytes: &'a [u8],
    failed: bool,
}

impl<'a> Parts<'a> {
    /// Reads a `MultiTxn`, every part of it: one that does not decode spoils the whole.
    ///
    /// # Errors
    /// Those of the parts; [`DecodeError::BadValue`] for a type that no part may have.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.i32()?;
        let from = reader.clone();
        let mut failed = false;
        for _ in 0..count {
            failed |= matches!(read_framed_part(reader)?, Txn::Error(_));
        }
        let bytes = &from.rest()[..from.remaining() - reader.remaining()];
        Ok(Self { count, bytes, failed })
    }

    /// Number of parts.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether there are no parts, which is legal.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count <= 0
    }

    /// Whether a part is an error: then none is applied.
    #[must_use]
    pub fn is_failed(self) -> bool {
        self.failed
    }

    /// The number of parts, and all of them as they were read.
    pub(super) fn raw(self) -> (i32, &'a [u8]) {
        (self.count, self.bytes)
    }

    /// What [`raw`](Self::raw) has given, of parts that have or have not [failed](Self::is_failed).
    pub(super) fn from_raw((count, bytes): (i32, &'a [u8]), failed: bool) -> Self {
        Self { count, bytes, failed }
    }

    /// The parts in order.
    pub fn iter(self) -> impl Iterator<Item = Txn<'a>> {
        let mut next = Cursor::default();
        std::iter::from_fn(move || self.next(&mut next))
    }

    /// The part at a place, which goes on behind it.
    pub(crate) fn next(self, next: &mut Cursor) -> Option<Txn<'a>> {
        next.read(self.raw(), read_framed_part)
    }

    /// Writes the `MultiTxn` as it was read.
    pub fn write(self, out: &mut impl BufMut) {
        out.put_i32(self.count);
        out.put_slice(self.bytes);
    }
}

fn read_framed_part<'a>(reader: &mut Reader<'a>) -> Result<Txn<'a>, DecodeError> {
    let kind = reader.i32()?;
    let op = Opcode::from_wire(kind).ok_or_else(|| DecodeError::BadValue(i64::from(kind)))?;
    let body = reader.buffer()?.ok_or(DecodeError::BadLength(-1))?;
    Txn::read_part(op, &mut Reader::new(body))
}

/// Puts a multi together, part by part.
#[derive(Clone, Debug, Default)]
pub struct PartsBuf {
    count: i32,
    bytes: Vec<u8>,
    failed: bool,
}

impl PartsBuf {
    /// Removes all parts.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
        self.failed = false;
    }

    /// Appends a part, which must be of a kind that a multi may have: anything but sessions,
    /// `setACL`, `reconfig`, `multi` and the old form of `create`.
    ///
    /// # Panics
    /// After 2³¹ − 1 parts or a part of as many bytes.
    pub fn push(&mut self, part: &Txn<'_>) {
        self.count = self.count.checked_add(1).expect("a multi has fewer than 2^31 parts");
        self.bytes.put_i32(part.kind().wire());
        let at = self.bytes.len();
        self.bytes.put_i32(0);
        part.write(&mut self.bytes);
        let len = i32::try_from(self.bytes.len() - at - 4).expect("a part is shorter than 2 GiB");
        self.bytes[at..at + 4].copy_from_slice(&len.to_be_bytes());
        self.failed |= matches!(part, Txn::Error(_));
    }

    /// Encoded length of the parts so far, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The parts so far.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts { count: self.count, bytes: &self.bytes, failed: self.failed }
    }
}
