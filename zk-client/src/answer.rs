//! What servers answer.

use bytes::Bytes;
use zab_proto::DecodeError;
use zab_proto::wire::jute::Reader;

use crate::acl::Acl;
use crate::error::Code;
use crate::path::Chroot;
use crate::request::opcode;
use crate::stat::Stat;

/// What a request that succeeded is answered. Which one belongs to which request is said there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// The node, with its number if it is sequential.
    Created(String, Option<Stat>),
    /// The node after the change.
    Stat(Stat),
    /// The node, if it exists.
    Exists(Option<Stat>),
    /// The node's data, which can be null.
    Data(Option<Bytes>, Stat),
    /// The names of the children, in no order.
    Children(Vec<String>, Option<Stat>),
    /// The node's access control list.
    Acl(Vec<Acl>, Stat),
    /// The path that was given.
    Synced(String),
    /// One for each operation. In a multi, one error means that nothing was done; the code of
    /// those in front of it is then `Ok`, of those after it `RuntimeInconsistency`.
    Multi(Vec<Result<Self, Code>>),
    /// Paths, in no order.
    Names(Vec<String>),
    /// A number of nodes.
    Number(i32),
    /// Who this connection is, as scheme and user.
    Identities(Vec<(String, String)>),
}

/// Decodes the record after the header of a successful reply to a request of this kind.
pub(crate) fn decode(opcode: i32, body: &Bytes, root: &Chroot) -> Result<Answer, DecodeError> {
    let mut reader = Reader::new(body);
    if let opcode::MULTI | opcode::MULTI_READ = opcode {
        return decode_multi(body, &mut reader, root);
    }
    let reader = &mut reader;
    Ok(match opcode {
        opcode::EXISTS => Answer::Exists(Some(Stat::read(reader)?)),
        opcode::GET_ACL => Answer::Acl(Acl::read_list(reader)?, Stat::read(reader)?),
        opcode::GET_CHILDREN2 => {
            let names = read_names(reader, str::to_owned)?;
            Answer::Children(names, Some(Stat::read(reader)?))
        }
        opcode::SYNC => Answer::Synced(root.strip(&read_string(reader)?)),
        opcode::RECONFIG => read_data(body, reader)?,
        opcode::CREATE_CONTAINER | opcode::CREATE_TTL => read_created(true, reader, root)?,
        opcode::SET_ACL => Answer::Stat(Stat::read(reader)?),
        opcode::GET_EPHEMERALS => Answer::Names(read_names(reader, |path| root.strip(path))?),
        opcode::GET_ALL_CHILDREN_NUMBER => Answer::Number(reader.i32()?),
        opcode::WHO_AM_I => {
            let count = reader.vector()?.unwrap_or(0);
            let mut ids = Vec::new();
            for _ in 0..count {
                ids.push((read_string(reader)?, read_string(reader)?));
            }
            Answer::Identities(ids)
        }
        // A watch is answered with an error code, which says nothing that the header does not.
        opcode::ADD_WATCH | opcode::CHECK_WATCHES | opcode::REMOVE_WATCHES | opcode::AUTH => {
            Answer::Done
        }
        other => read_op(other, body, reader, root)?,
    })
}

/// What can also be part of a multi.
fn read_op(
    opcode: i32,
    frame: &Bytes,
    reader: &mut Reader<'_>,
    root: &Chroot,
) -> Result<Answer, DecodeError> {
    Ok(match opcode {
        opcode::CREATE => read_created(false, reader, root)?,
        opcode::CREATE2 => read_created(true, reader, root)?,
        opcode::DELETE | opcode::CHECK => Answer::Done,
        opcode::SET_DATA => Answer::Stat(Stat::read(reader)?),
        opcode::GET_DATA => read_data(frame, reader)?,
        opcode::GET_CHILDREN => Answer::Children(read_names(reader, str::to_owned)?, None),
        other => return Err(DecodeError::BadValue(i64::from(other))),
    })
}

fn decode_multi(
    frame: &Bytes,
    reader: &mut Reader<'_>,
    root: &Chroot,
) -> Result<Answer, DecodeError> {
    let mut results = Vec::new();
    loop {
        let (kind, done, _) = (reader.i32()?, reader.bool()?, reader.i32()?);
        if done {
            return Ok(Answer::Multi(results));
        }
        results.push(match kind {
            opcode::ERROR => Err(Code::from_number(reader.i32()?)),
            kind => Ok(read_op(kind, frame, reader, root)?),
        });
    }
}

fn read_created(
    with_stat: bool,
    reader: &mut Reader<'_>,
    root: &Chroot,
) -> Result<Answer, DecodeError> {
    let path = root.strip(&read_string(reader)?);
    let stat = if with_stat { Some(Stat::read(reader)?) } else { None };
    Ok(Answer::Created(path, stat))
}

/// The data is part of the frame, and stays there.
fn read_data(frame: &Bytes, reader: &mut Reader<'_>) -> Result<Answer, DecodeError> {
    let data = reader.buffer()?.map(|data| frame.slice_ref(data));
    Ok(Answer::Data(data, Stat::read(reader)?))
}

pub(crate) fn read_string(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(reader.string()?.unwrap_or_default().into_owned())
}

fn read_names(
    reader: &mut Reader<'_>,
    each: impl Fn(&str) -> String,
) -> Result<Vec<String>, DecodeError> {
    let count = reader.vector()?.unwrap_or(0);
    // The count promises nothing: no room is made for it.
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(each(&reader.string()?.unwrap_or_default()));
    }
    Ok(names)
}
