//! What clients ask: operation codes and request records, borrowed from the frame.

use std::borrow::Cow;

use zab_proto::DecodeError;
use zab_proto::wire::jute::Reader;

use crate::protocol::acl::AclList;

/// Operation codes.
pub(crate) mod op {
    pub(crate) use crate::protocol::txn::op::{
        CHECK, CLOSE_SESSION, CREATE, CREATE_CONTAINER, CREATE_SESSION, CREATE_TTL, CREATE2,
        DELETE, ERROR, MULTI, RECONFIG, SET_ACL, SET_DATA,
    };

    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const GET_ACL: i32 = 6;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const GET_CHILDREN2: i32 = 12;
    pub(crate) const CHECK_WATCHES: i32 = 17;
    pub(crate) const REMOVE_WATCHES: i32 = 18;
    pub(crate) const MULTI_READ: i32 = 22;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const SET_WATCHES: i32 = 101;
    pub(crate) const SASL: i32 = 102;
    pub(crate) const GET_EPHEMERALS: i32 = 103;
    pub(crate) const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub(crate) const SET_WATCHES2: i32 = 105;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const WHO_AM_I: i32 = 107;
}

/// Whether an operation becomes a transaction.
pub(crate) fn is_write(op: i32) -> bool {
    matches!(
        op,
        op::CREATE
            | op::CREATE2
            | op::CREATE_CONTAINER
            | op::CREATE_TTL
            | op::DELETE
            | op::SET_DATA
            | op::SET_ACL
            | op::MULTI
            | op::RECONFIG
            | op::CLOSE_SESSION
    )
}

/// Whether an operation is answered from the local tree, in the order of its session.
pub(crate) fn is_read(op: i32) -> bool {
    matches!(
        op,
        op::EXISTS
            | op::GET_DATA
            | op::GET_ACL
            | op::GET_CHILDREN
            | op::GET_CHILDREN2
            | op::PING
            | op::CHECK_WATCHES
            | op::REMOVE_WATCHES
            | op::MULTI_READ
            | op::SET_WATCHES
            | op::SET_WATCHES2
            | op::GET_EPHEMERALS
            | op::GET_ALL_CHILDREN_NUMBER
            | op::ADD_WATCH
            | op::WHO_AM_I
    )
}

type Result<T> = std::result::Result<T, DecodeError>;
type Text<'a> = Cow<'a, str>;

/// Reads a path that must not be null.
pub(crate) fn path<'a>(reader: &mut Reader<'a>) -> Result<Text<'a>> {
    reader.string()?.ok_or(DecodeError::BadLength(-1))
}

/// The first frame of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) last_zxid_seen: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) session: i64,
    pub(crate) password: &'a [u8],
    /// `None`: a client from before 3.4, which expects no such byte in the answer either.
    pub(crate) read_only: Option<bool>,
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
        reader.i32()?;
        Ok(Self {
            last_zxid_seen: reader.i64()?,
            timeout_ms: reader.i32()?,
            session: reader.i64()?,
            password: reader.buffer()?.unwrap_or_default(),
            read_only: reader.bool().ok(),
        })
    }
}

/// create, create2, createContainer, createTTL.
#[derive(Clone, Debug)]
pub(crate) struct Create<'a> {
    pub(crate) op: i32,
    pub(crate) path: Text<'a>,
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) acl: AclList<'a>,
    pub(crate) flags: i32,
    /// -1 for all but createTTL.
    pub(crate) ttl: i64,
}

impl Create<'_> {
    pub(crate) const CONTAINER: i32 = 4;

    pub(crate) fn is_ephemeral(&self) -> bool {
        matches!(self.flags, 1 | 3)
    }

    pub(crate) fn is_sequential(&self) -> bool {
        matches!(self.flags, 2 | 3 | 6)
    }

    pub(crate) fn has_ttl(&self) -> bool {
        matches!(self.flags, 5 | 6)
    }
}

/// A write, decoded.
#[derive(Clone, Debug)]
pub(crate) enum Write<'a> {
    Create(Create<'a>),
    Delete { path: Text<'a>, version: i32 },
    SetData { path: Option<Text<'a>>, data: Option<&'a [u8]>, version: i32 },
    SetAcl { path: Option<Text<'a>>, acl: AclList<'a>, version: i32 },
    Check { path: Text<'a>, version: i32 },
    Multi(Multi<'a>),
    Reconfig,
    CloseSession,
}

impl<'a> Write<'a> {
    /// Decodes the record of a write. Anything that is no write is `BadValue`.
    pub(crate) fn decode(op: i32, record: &'a [u8]) -> Result<Self> {
        match op {
            op::MULTI => Multi::decode(record).map(Self::Multi),
            op::RECONFIG => Ok(Self::Reconfig),
            op::CLOSE_SESSION => Ok(Self::CloseSession),
            op::CHECK => Err(DecodeError::BadValue(op.into())),
            _ => Self::single(op, &mut Reader::new(record)),
        }
    }

    fn single(op: i32, reader: &mut Reader<'a>) -> Result<Self> {
        Ok(match op {
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                Self::Create(Create {
                    op,
                    path: path(reader)?,
                    data: reader.buffer()?,
                    acl: AclList::read(reader)?,
                    flags: reader.i32()?,
                    ttl: if op == op::CREATE_TTL { reader.i64()? } else { -1 },
                })
            }
            op::DELETE => Self::Delete { path: path(reader)?, version: reader.i32()? },
            op::SET_DATA => Self::SetData {
                path: reader.string()?,
                data: reader.buffer()?,
                version: reader.i32()?,
            },
            op::SET_ACL => Self::SetAcl {
                path: reader.string()?,
                acl: AclList::read(reader)?,
                version: reader.i32()?,
            },
            op::CHECK => Self::Check { path: path(reader)?, version: reader.i32()? },
            _ => return Err(DecodeError::BadValue(op.into())),
        })
    }

    /// Whether a null hides where ZooKeeper leaders of some releases stumble over it: a learner
    /// answers such requests itself.
    pub(crate) fn has_null(&self) -> bool {
        match self {
            Self::SetData { path, .. } | Self::SetAcl { path, .. } => path.is_none(),
            Self::Multi(multi) => multi.iter().any(|part| match part {
                Self::Create(create) => create.acl.is_null() || create.acl.has_null(),
                Self::SetData { path, .. } => path.is_none(),
                Self::SetAcl { .. }
                | Self::Delete { .. }
                | Self::Check { .. }
                | Self::Multi(_)
                | Self::Reconfig
                | Self::CloseSession => false,
            }),
            Self::Create(_)
            | Self::Delete { .. }
            | Self::Check { .. }
            | Self::Reconfig
            | Self::CloseSession => false,
        }
    }
}

/// The header before each part of a multi, in requests and replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MultiHeader {
    pub(crate) op: i32,
    pub(crate) done: bool,
}

impl MultiHeader {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let header = Self { op: reader.i32()?, done: reader.bool()? };
        reader.i32()?;
        Ok(header)
    }
}

/// The parts of a multi: checked when decoded, decoded again while iterating.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multi<'a> {
    record: &'a [u8],
}

impl<'a> Multi<'a> {
    fn decode(record: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(record);
        while Self::part(&mut reader)?.is_some() {}
        Ok(Self { record })
    }

    fn part(reader: &mut Reader<'a>) -> Result<Option<Write<'a>>> {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(None);
        }
        if matches!(header.op, op::SET_ACL) {
            return Err(DecodeError::BadValue(header.op.into()));
        }
        let part = Write::single(header.op, reader)?;
        match &part {
            Write::Create(create)
                if create.op != op::CREATE_TTL && !(0..=4).contains(&create.flags) =>
            {
                Err(DecodeError::BadValue(create.flags.into()))
            }
            Write::SetData { path: None, .. } => Err(DecodeError::BadLength(-1)),
            _ => Ok(Some(part)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Write<'a>> + use<'a> {
        let mut reader = Reader::new(self.record);
        std::iter::from_fn(move || Self::part(&mut reader).ok().flatten())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use zab_proto::wire::jute::BufMutExt;

    use super::*;

    fn create(out: &mut Vec<u8>, path: Option<&str>, flags: i32) {
        out.put_ustring(path);
        out.put_buffer(Some(b"x"));
        out.put_len(1);
        out.put_i32(31);
        out.put_ustring(Some("world"));
        out.put_ustring(Some("anyone"));
        out.put_i32(flags);
    }

    fn header(out: &mut Vec<u8>, op: i32, done: bool) {
        out.put_i32(op);
        out.put_bool(done);
        out.put_i32(-1);
    }

    #[test]
    fn truncation_never_decodes() {
        let mut record = Vec::new();
        create(&mut record, Some("/a"), 3);
        let Ok(Write::Create(whole)) = Write::decode(op::CREATE, &record) else {
            panic!("decodes")
        };
        assert!(whole.is_ephemeral() && whole.is_sequential());
        assert_eq!(whole.acl.iter().count(), 1);
        for len in 0..record.len() {
            assert!(Write::decode(op::CREATE, &record[..len]).is_err());
        }
    }

    #[test]
    fn a_multi_is_checked_as_a_whole() {
        let multi = |op, flags, path| {
            let mut record = Vec::new();
            header(&mut record, op, false);
            create(&mut record, path, flags);
            header(&mut record, -1, true);
            Write::decode(op::MULTI, &record)
                .map(|write| matches!(write, Write::Multi(m) if m.iter().count() == 1))
        };
        assert_eq!(multi(op::CREATE, 0, Some("/a")), Ok(true));
        assert!(multi(op::CREATE, 5, Some("/a")).is_err());
        assert!(multi(op::CREATE, 0, None).is_err());
        assert!(multi(op::GET_DATA, 0, Some("/a")).is_err());
        assert!(Write::decode(op::MULTI, &[0, 0, 0, 1]).is_err());
    }

    #[test]
    fn huge_counts_reserve_nothing() {
        let mut record = Vec::new();
        record.put_ustring(Some("/a"));
        record.put_i32(i32::MAX);
        assert!(Write::decode(op::SET_ACL, &record).is_err());
    }
}
