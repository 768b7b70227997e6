//! What quorum packets carry in their data field.

use bytes::BufMut;

use super::jute::{BufMutExt, Reader};
use crate::{DecodeError, Sid};

/// The protocol version of all releases since 3.4, in LEADERINFO and [`LearnerInfo`].
pub const PROTOCOL_VERSION: i32 = 0x1_0000;

/// What ends a snapshot stream: the path `/` instead of another node, and a signature.
pub const SNAPSHOT_END: &[u8] = b"\0\0\0\x01/\0\0\0\x0aBenWasHere";

/// FOLLOWERINFO and OBSERVERINFO: who wants to learn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// The learner's id; `None` asks for one of the leader's choice, below 0.
    pub sid: Option<Sid>,
    /// Below [`PROTOCOL_VERSION`]: the learner expects neither LEADERINFO nor a configuration.
    pub protocol_version: i32,
    /// Version of the learner's committed configuration.
    pub config_version: i64,
}

impl LearnerInfo {
    /// Encoded length in bytes.
    pub const LEN: usize = 20;

    /// Reads what a learner of any release sends. Never fails: a short body is that of an old
    /// release, and fields that it lacks have the value they had then.
    #[must_use]
    pub fn parse(data: Option<&[u8]>) -> Self {
        let oldest = Self { sid: None, protocol_version: 1, config_version: 0 };
        let Some(data) = data else { return oldest };
        let mut reader = Reader::new(data);
        // A field that is cut off counts as missing, and with it all that would follow.
        let sid = reader.i64().ok();
        let protocol_version = sid.and_then(|_| reader.i32().ok());
        let config_version = protocol_version.and_then(|_| reader.i64().ok());
        Self {
            sid: Some(Sid(sid.unwrap_or(0))),
            protocol_version: protocol_version.unwrap_or(oldest.protocol_version),
            config_version: config_version.unwrap_or(oldest.config_version),
        }
    }

    /// Our own introduction.
    #[must_use]
    pub fn encode(sid: Sid, config_version: i64) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut out = &mut bytes[..];
        out.put_i64(sid.0);
        out.put_i32(PROTOCOL_VERSION);
        out.put_i64(config_version);
        bytes
    }
}

/// The number in LEADERINFO (protocol version) or ACKEPOCH (current epoch, or -1).
///
/// # Errors
/// [`DecodeError::UnexpectedEof`] if there is none.
pub fn parse_i32(data: Option<&[u8]>) -> Result<i32, DecodeError> {
    Reader::new(data.unwrap_or_default()).i32()
}

/// REQUEST: a client's request, on its way to the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The client's session.
    pub session_id: i64,
    /// The client's number of the request.
    pub cxid: i32,
    /// Operation code.
    pub op: i32,
    /// The request record as the client sent it; may be empty.
    pub record: &'a [u8],
}

impl<'a> Request<'a> {
    /// Bytes in front of the record.
    pub const HEAD_LEN: usize = 16;

    /// Splits the body.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer than 16 bytes.
    pub fn parse(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        Ok(Self {
            session_id: reader.i64()?,
            cxid: reader.i32()?,
            op: reader.i32()?,
            record: reader.rest(),
        })
    }

    /// Writes the body.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.session_id);
        out.put_i32(self.cxid);
        out.put_i32(self.op);
        out.put_slice(self.record);
    }
}

/// A session and its time-out: an entry of a learner's PING, and the question of REVALIDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Its id.
    pub id: i64,
    /// Its time-out in milliseconds.
    pub timeout: i32,
}

impl Session {
    /// Encoded length in bytes.
    pub const LEN: usize = 12;

    /// Reads one entry; more bytes are ignored.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer than [`LEN`](Self::LEN) bytes.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        Ok(Self { id: reader.i64()?, timeout: reader.i32()? })
    }

    /// Reads all entries of a learner's PING.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if the last one is cut off. (A missing body is an error of
    /// the learner, too: without sessions it sends an empty one.)
    pub fn parse_all(data: &[u8]) -> Result<impl Iterator<Item = Self>, DecodeError> {
        let (entries, rest) = data.as_chunks::<{ Self::LEN }>();
        if rest.is_empty() {
            Ok(entries.iter().filter_map(|entry| Self::parse(entry).ok()))
        } else {
            Err(DecodeError::UnexpectedEof)
        }
    }

    /// Writes the entry.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.id);
        out.put_i32(self.timeout);
    }
}

/// The answer to REVALIDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revalidated {
    /// The session asked about.
    pub id: i64,
    /// Whether it lives, and now belongs to the learner that asked.
    pub valid: bool,
}

impl Revalidated {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer than 9 bytes.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        Ok(Self { id: reader.i64()?, valid: reader.bool()? })
    }

    /// Writes the answer.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.id);
        out.put_bool(self.valid);
    }
}

/// COMMITANDACTIVATE and INFORMANDACTIVATE: who shall lead in the new configuration, and the
/// transaction after it (empty in the former, whose transaction came as a PROPOSAL).
///
/// # Errors
/// [`DecodeError::UnexpectedEof`] if there are fewer than 8 bytes.
pub fn parse_activate(data: &[u8]) -> Result<(Sid, &[u8]), DecodeError> {
    let mut reader = Reader::new(data);
    let leader = Sid(reader.i64()?);
    Ok((leader, reader.rest()))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn learner_info_of_any_length() {
        let full = LearnerInfo::encode(Sid(3), 0x1_0000_0002);
        let parse = |len: usize| LearnerInfo::parse(Some(&full[..len]));
        let current = LearnerInfo {
            sid: Some(Sid(3)),
            protocol_version: PROTOCOL_VERSION,
            config_version: 0x1_0000_0002,
        };
        assert_eq!(parse(20), current);
        assert_eq!(LearnerInfo::parse(Some(&[&full[..], b"more"].concat())), current);
        let without_config = LearnerInfo { config_version: 0, ..current };
        let sid_only = LearnerInfo { protocol_version: 1, ..without_config };
        for len in 0..20 {
            let expected = match len {
                12.. => without_config,
                8.. => sid_only,
                _ => LearnerInfo { sid: Some(Sid(0)), ..sid_only },
            };
            assert_eq!(parse(len), expected, "{len} bytes");
        }
        assert_eq!(LearnerInfo::parse(None), LearnerInfo { sid: None, ..sid_only });
    }

    #[test]
    fn short_bodies() {
        assert_eq!(parse_i32(None), Err(DecodeError::UnexpectedEof));
        assert_eq!(parse_i32(Some(&[0, 0, 0])), Err(DecodeError::UnexpectedEof));
        assert_eq!(parse_i32(Some(&[0xff; 5])), Ok(-1));
        assert!(Request::parse(&[0; 15]).is_err());
        assert!(Session::parse(&[0; 11]).is_err());
        assert!(Session::parse_all(&[0; 13]).is_err());
        assert!(Revalidated::parse(&[0; 8]).is_err());
        assert!(parse_activate(&[0; 7]).is_err());
    }

    #[test]
    fn round_trips() {
        let request = Request { session_id: -1, cxid: 2, op: -10, record: b"\0\0\x27\x10" };
        let session = Session { id: 0x77, timeout: 10_000 };
        let answer = Revalidated { id: 0x77, valid: true };
        let mut out = Vec::new();
        request.write(&mut out);
        assert_eq!(Request::parse(&out), Ok(request));
        out.clear();
        session.write(&mut out);
        assert_eq!(Session::parse(&out), Ok(session));
        session.write(&mut out);
        let all: Vec<_> = Session::parse_all(&out).expect("whole entries").collect();
        assert_eq!(all, [session, session]);
        assert_eq!(Session::parse_all(b"").expect("no entries").count(), 0);
        out.clear();
        answer.write(&mut out);
        assert_eq!(Revalidated::parse(&out), Ok(answer));
    }
}
