//! What clients ask: request records, borrowed from the frame.

use std::borrow::Cow;

use zab_proto::DecodeError;
use zab_proto::wire::jute::{Reader, text};

use crate::protocol::acl::AclList;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, read_op, sync_op};

type Result<T> = std::result::Result<T, DecodeError>;
type Text<'a> = Cow<'a, str>;

/// A path as a client has sent it, whose bytes are not known to be text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawPath<'a>(pub(crate) &'a [u8]);

impl<'a> RawPath<'a> {
    /// Reads one that must not be null.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self> {
        reader.ustring()?.map(Self).ok_or(DecodeError::BadLength(-1))
    }

    pub(crate) fn text(self) -> Text<'a> {
        text(self.0)
    }
}

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
    pub(crate) op: Opcode,
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

/// Other members of the ensemble (`ReconfigRequest`).
#[derive(Clone, Debug)]
pub(crate) struct Reconfig<'a> {
    /// Server lines of who is to join, separated by commas.
    pub(crate) joining: Option<Text<'a>>,
    /// Ids of who is to leave, separated by commas.
    pub(crate) leaving: Option<Text<'a>>,
    /// All members from then on; the other two do not count then.
    pub(crate) members: Option<Text<'a>>,
    /// The version that it is to be a change of; -1: any.
    pub(crate) version: i64,
}

impl<'a> Reconfig<'a> {
    fn decode(record: &'a [u8]) -> Result<Self> {
        let reader = &mut Reader::new(record);
        Ok(Self {
            joining: reader.string()?,
            leaving: reader.string()?,
            members: reader.string()?,
            version: reader.i64()?,
        })
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
    Reconfig(Reconfig<'a>),
    CloseSession,
}

impl<'a> Write<'a> {
    /// Decodes the record of a write. Anything that is no write is `BadValue`.
    pub(crate) fn decode(op: Opcode, record: &'a [u8]) -> Result<Self> {
        match op {
            Opcode::Multi => Multi::decode(record).map(Self::Multi),
            Opcode::Reconfig => Reconfig::decode(record).map(Self::Reconfig),
            Opcode::CloseSession => Ok(Self::CloseSession),
            Opcode::Create
            | Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::SetAcl => Self::single(op, &mut Reader::new(record)),
            internal_op!() | read_op!() | sync_op!() | auth_op!() => Err(no_write(op)),
        }
    }

    fn single(op: Opcode, reader: &mut Reader<'a>) -> Result<Self> {
        Ok(match op {
            Opcode::Create | Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl => {
                Self::Create(Create {
                    op,
                    path: path(reader)?,
                    data: reader.buffer()?,
                    acl: AclList::read(reader)?,
                    flags: reader.i32()?,
                    ttl: if op == Opcode::CreateTtl { reader.i64()? } else { -1 },
                })
            }
            Opcode::Delete => Self::Delete { path: path(reader)?, version: reader.i32()? },
            Opcode::SetData => Self::SetData {
                path: reader.string()?,
                data: reader.buffer()?,
                version: reader.i32()?,
            },
            Opcode::SetAcl => Self::SetAcl {
                path: reader.string()?,
                acl: AclList::read(reader)?,
                version: reader.i32()?,
            },
            Opcode::Check => Self::Check { path: path(reader)?, version: reader.i32()? },
            Opcode::Multi
            | Opcode::Reconfig
            | Opcode::CloseSession
            | Opcode::CreateSession
            | Opcode::DeleteContainer
            | Opcode::Error
            | read_op!()
            | sync_op!()
            | auth_op!() => return Err(no_write(op)),
        })
    }

    /// Whether ZooKeeper wants a session of the ensemble for it, and makes a local one such a session if it may
    /// (`QuorumZooKeeperServer.checkUpgradeSession`): it looks at create and create2 alone, in a multi, too.
    pub(crate) fn makes_ephemeral(&self) -> bool {
        match self {
            Self::Create(create) => {
                matches!(create.op, Opcode::Create | Opcode::Create2) && create.is_ephemeral()
            }
            Self::Multi(multi) => multi.iter().any(|part| part.makes_ephemeral()),
            Self::Delete { .. }
            | Self::SetData { .. }
            | Self::SetAcl { .. }
            | Self::Check { .. }
            | Self::Reconfig(_)
            | Self::CloseSession => false,
        }
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
                | Self::Reconfig(_)
                | Self::CloseSession => false,
            }),
            Self::Create(_)
            | Self::Delete { .. }
            | Self::Check { .. }
            | Self::Reconfig(_)
            | Self::CloseSession => false,
        }
    }
}

fn no_write(op: Opcode) -> DecodeError {
    DecodeError::BadValue(op.wire().into())
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

    /// Reads the next part; `None` at the end.
    pub(crate) fn part(reader: &mut Reader<'a>) -> Result<Option<Write<'a>>> {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(None);
        }
        // Neither lists nor multis nor the end of a session may be parts.
        let part = match Opcode::from_wire(header.op) {
            Some(Opcode::SetAcl) | None => return Err(DecodeError::BadValue(header.op.into())),
            Some(op) => Write::single(op, reader)?,
        };
        if let Write::Create(create) = &part
            && create.op != Opcode::CreateTtl
            && !(0..=4).contains(&create.flags)
        {
            return Err(DecodeError::BadValue(create.flags.into()));
        }
        if matches!(part, Write::SetData { path: None, .. }) {
            return Err(DecodeError::BadLength(-1));
        }
        Ok(Some(part))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Write<'a>> + use<'a> {
        let mut reader = Reader::new(self.record);
        std::iter::from_fn(move || Self::part(&mut reader).ok().flatten())
    }
}

/// The places of those parts of a multi that are create2: they are answered with the node's stat, but are creates in the
/// transaction (see `prep`). Empty for all other requests.
pub(crate) fn stat_parts(op: Opcode, record: &[u8]) -> Box<[u32]> {
    if op != Opcode::Multi {
        return Box::default();
    }
    let asks =
        |part: &Write<'_>| matches!(part, Write::Create(create) if create.op == Opcode::Create2);
    let parts = (0..).zip(Multi { record }.iter());
    parts.filter(|(_, part)| asks(part)).map(|(place, _)| place).collect()
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
        let Ok(Write::Create(whole)) = Write::decode(Opcode::Create, &record) else {
            panic!("decodes")
        };
        assert!(whole.is_ephemeral() && whole.is_sequential());
        assert_eq!(whole.acl.iter().count(), 1);
        for len in 0..record.len() {
            assert!(Write::decode(Opcode::Create, &record[..len]).is_err());
        }
    }

    #[test]
    fn a_multi_is_checked_as_a_whole() {
        let multi = |op, flags, path| {
            let mut record = Vec::new();
            header(&mut record, Opcode::wire(op), false);
            create(&mut record, path, flags);
            header(&mut record, -1, true);
            Write::decode(Opcode::Multi, &record)
                .map(|write| matches!(write, Write::Multi(m) if m.iter().count() == 1))
        };
        assert_eq!(multi(Opcode::Create, 0, Some("/a")), Ok(true));
        assert!(multi(Opcode::Create, 5, Some("/a")).is_err());
        assert!(multi(Opcode::Create, 0, None).is_err());
        assert!(multi(Opcode::GetData, 0, Some("/a")).is_err());
        assert!(Write::decode(Opcode::Multi, &[0, 0, 0, 1]).is_err());
    }

    #[test]
    fn huge_counts_reserve_nothing() {
        let mut record = Vec::new();
        record.put_ustring(Some("/a"));
        record.put_i32(i32::MAX);
        assert!(Write::decode(Opcode::SetAcl, &record).is_err());
    }
}
