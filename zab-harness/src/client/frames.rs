//! What every frame begins with, and the handshake.

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

/// The xids that are not numbers of requests.
pub mod xid {
    /// An event.
    pub const EVENT: i32 = -1;
    /// A ping and its answer.
    pub const PING: i32 = -2;
    /// Credentials and their answer.
    pub const AUTH: i32 = -4;
    /// Watches set again, and the answer.
    pub const SET_WATCHES: i32 = -8;
}

/// Appends a frame: its length, and what `body` appends.
pub fn put_frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = i32::try_from(out.len() - at - 4).expect("a frame is shorter than 2 GB");
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// A frame with these bytes in it.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + body.len());
    out.put_buffer(Some(body));
    out
}

/// The first whole frame in `bytes`, without its length; `None` if more bytes are needed.
///
/// # Panics
/// If its length is negative.
pub fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let len = i32::from_be_bytes(*bytes.first_chunk()?);
    bytes[4..].get(..usize::try_from(len).expect("a length is not negative"))
}

/// Appends a request, with what `record` appends after the header.
pub fn put_request(out: &mut Vec<u8>, xid: i32, op: i32, record: impl FnOnce(&mut Vec<u8>)) {
    put_frame(out, |out| {
        out.put_i32(xid);
        out.put_i32(op);
        record(out);
    });
}

/// A request.
pub fn request(xid: i32, op: i32, record: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + record.len());
    put_request(&mut out, xid, op, |out| out.put_slice(record));
    out
}

/// A ConnectRequest: for a new session, or to go on with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// The last zxid that the client has seen.
    pub last_zxid: i64,
    /// The time-out that the client asks for.
    pub timeout_ms: i32,
    /// The session's id, 0 for a new one.
    pub session: i64,
    /// The session's password.
    pub password: [u8; 16],
    /// Whether a server that only reads will do. `None` leaves the field out, as clients before 3.4 do.
    pub read_only: Option<bool>,
}

impl Connect {
    /// For a new session.
    pub fn new(timeout_ms: i32) -> Self {
        Self { last_zxid: 0, timeout_ms, session: 0, password: [0; 16], read_only: Some(false) }
    }

    /// To go on with a session.
    pub fn again(timeout_ms: i32, session: i64, password: [u8; 16]) -> Self {
        Self { session, password, ..Self::new(timeout_ms) }
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_frame(out, |out| {
            out.put_i32(0);
            out.put_i64(self.last_zxid);
            out.put_i32(self.timeout_ms);
            out.put_i64(self.session);
            out.put_buffer(Some(&self.password));
            if let Some(read_only) = self.read_only {
                out.put_bool(read_only);
            }
        });
    }

    /// The frame.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
}

/// A session as its server has answered a [`Connect`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connected {
    /// The time-out that the server grants.
    pub timeout_ms: i32,
    /// The session's id.
    pub session: i64,
    /// The session's password.
    pub password: [u8; 16],
}

impl Connected {
    /// Reads a ConnectResponse; `Ok(None)` is a refusal.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn read(frame: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        reader.i32()?;
        let (timeout_ms, session) = (reader.i32()?, reader.i64()?);
        let password = reader.buffer()?.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        Ok((session != 0 && timeout_ms > 0).then_some(Self { timeout_ms, session, password }))
    }
}

/// The header of everything but a ConnectResponse that comes from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHeader {
    /// The request's, or one of [`xid`].
    pub xid: i32,
    /// The last zxid that the server has applied.
    pub zxid: i64,
    /// ZooKeeper's error code, 0 if all went well.
    pub code: i32,
}

/// Splits a frame into header and body.
///
/// # Errors
/// If it is cut off.
pub fn reply(frame: &[u8]) -> Result<(ReplyHeader, &[u8]), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ReplyHeader { xid: reader.i32()?, zxid: reader.i64()?, code: reader.i32()? };
    Ok((header, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kazoo sends it, and as servers have answered it.
    #[test]
    fn a_handshake_is_zookeepers() {
        let connect = Connect { last_zxid: 7, ..Connect::again(10_000, 0x1234, [9; 16]) };
        let mut expected = vec![0, 0, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x27, 0x10];
        expected.extend([0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 16]);
        expected.extend([9; 16]);
        expected.push(0);
        assert_eq!(connect.to_vec(), expected);
        let old = Connect { read_only: None, ..connect }.to_vec();
        assert_eq!((old[3], &old[4..]), (44, &expected[4..48]));

        let mut answer = vec![0, 0, 0, 0, 0, 0, 0x27, 0x10, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
        answer.extend([0, 0, 0, 16]);
        answer.extend([9; 16]);
        let connected = Connected { timeout_ms: 10_000, session: 0x1234, password: [9; 16] };
        assert_eq!(Connected::read(&answer), Ok(Some(connected)));
        assert_eq!(Connected::read(&answer[..35]), Err(DecodeError::UnexpectedEof));
        assert_eq!(Connected::read(&[&[0; 16][..], &answer[16..]].concat()), Ok(None));
    }

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let two = [request(1, 11, b"ab"), frame(b"")].concat();
        assert_eq!(two, [0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 11, b'a', b'b', 0, 0, 0, 0]);
        for len in 0..14 {
            assert_eq!(first_frame(&two[..len]), None);
        }
        assert_eq!(first_frame(&two), Some(&two[4..14]));
        assert_eq!(first_frame(&two[14..]), Some(&[][..]));
        let answer = [&two[4..8], &7_i64.to_be_bytes(), &(-101_i32).to_be_bytes(), b"x"].concat();
        let header = ReplyHeader { xid: 1, zxid: 7, code: -101 };
        assert_eq!(reply(&answer), Ok((header, &b"x"[..])));
        assert_eq!(reply(&answer[..15]), Err(DecodeError::UnexpectedEof));
    }
}
