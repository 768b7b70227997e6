//! What clients are told: frames of replies, events and handshakes.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;

use crate::protocol::code::Code;
use crate::protocol::event::Event;
use crate::protocol::session_id::password;

/// xid of an event.
const XID_EVENT: i32 = -1;
/// xid of the reply to a ping.
pub(crate) const XID_PING: i32 = -2;
/// State of every event: connected.
const SYNC_CONNECTED: i32 = 3;
const HEADER_LEN: usize = 4 + 16;
/// Length that the frame of a reply without a body says.
const HEADER_ONLY: i32 = 16;

/// A reply under construction at the end of a buffer: its length and header are filled in last.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Bytes of the body that are elsewhere.
    elsewhere: usize,
}

impl<'a> Reply<'a> {
    /// Begins a reply; the body must be appended to [`body`](Self::body).
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        Self { out, start, elsewhere: 0 }
    }

    /// Where the body goes.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Where the body begins in the buffer.
    pub(crate) fn body_at(&self) -> usize {
        self.start + HEADER_LEN
    }

    /// So many bytes of the body are elsewhere.
    pub(crate) fn add_elsewhere(&mut self, len: usize) {
        self.elsewhere += len;
    }

    /// There is no reply yet.
    pub(crate) fn cancel(self) {
        self.out.truncate(self.start);
    }

    /// Completes the frame and returns its length in bytes. The body of a failed request is
    /// dropped. So is one that is too long for a frame, which makes the reply an error: reads have a
    /// lower bound, but the reply to a multi may be longer than its request.
    pub(crate) fn end(self, xid: i32, zxid: i64, code: Code) -> usize {
        let len = self.out.len() - self.start + self.elsewhere;
        let (frame_len, code) = match i32::try_from(len - 4) {
            Ok(len) if code.is_ok() => (len, code),
            Ok(_) => (HEADER_ONLY, code),
            Err(_) => (HEADER_ONLY, Code::MARSHALLING_ERROR),
        };
        let len = if frame_len == HEADER_ONLY {
            self.out.truncate(self.start + HEADER_LEN);
            HEADER_LEN
        } else {
            len
        };
        self.put_header(frame_len, xid, zxid, code);
        len
    }

    /// Completes the frame with its body, which is short, even if the request has failed. Returns its
    /// length in bytes.
    pub(crate) fn end_whole(self, xid: i32, zxid: i64, code: Code) -> usize {
        let len = self.out.len() - self.start;
        self.put_header(i32::try_from(len - 4).unwrap_or(i32::MAX), xid, zxid, code);
        len
    }

    fn put_header(self, frame_len: i32, xid: i32, zxid: i64, code: Code) {
        let header = &mut self.out[self.start..];
        header[..4].copy_from_slice(&frame_len.to_be_bytes());
        header[4..8].copy_from_slice(&xid.to_be_bytes());
        header[8..16].copy_from_slice(&zxid.to_be_bytes());
        header[16..20].copy_from_slice(&code.0.to_be_bytes());
    }
}

/// Appends an event. `zxid` is that of the change, or -1 for events made up by setWatches.
pub(crate) fn event(out: &mut Vec<u8>, zxid: i64, event: Event, path: &str) {
    let mut reply = Reply::begin(out);
    reply.body().put_i32(event as i32);
    reply.body().put_i32(SYNC_CONNECTED);
    reply.body().put_ustring(Some(path));
    reply.end(XID_EVENT, zxid, Code::OK);
}

/// Appends the answer to a handshake. `session` is `None` for a refusal; `read_only` says what the
/// byte after the password is, if the client expects it.
pub(crate) fn connect(out: &mut Vec<u8>, session: Option<(i64, i32)>, read_only: Option<bool>) {
    let (id, timeout_ms) = session.unwrap_or((0, 0));
    let password = session.map_or([0; 16], |(id, _)| password(id));
    out.put_len(36 + usize::from(read_only.is_some()));
    out.put_i32(0);
    out.put_i32(timeout_ms);
    out.put_i64(id);
    out.put_buffer(Some(&password));
    if let Some(read_only) = read_only {
        out.put_bool(read_only);
    }
}

/// Appends the header of one result in the reply to a multi.
pub(crate) fn multi_header(out: &mut Vec<u8>, kind: i32, done: bool, err: i32) {
    out.put_i32(kind);
    out.put_bool(done);
    out.put_i32(err);
}

/// Appends the end of the results of a multi.
pub(crate) fn multi_end(out: &mut Vec<u8>) {
    multi_header(out, -1, true, -1);
}

/// Appends a failed result of a multi.
pub(crate) fn multi_error(out: &mut Vec<u8>, code: Code) {
    multi_header(out, -1, false, code.0);
    out.put_i32(code.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn frames() {
        let mut out = Vec::new();
        event(&mut out, 3, Event::Created, "/w");
        assert_eq!(
            hex(&out),
            "0000001effffffff0000000000000003000000000000000100000003000000022f77"
        );
        out.clear();
        let mut reply = Reply::begin(&mut out);
        reply.body().put_i32(5);
        assert_eq!(reply.end(7, 9, Code::NO_NODE), 20);
        assert_eq!(hex(&out), "00000010000000070000000000000009ffffff9b");
    }

    #[test]
    fn handshakes() {
        let mut out = Vec::new();
        connect(&mut out, Some((0x0100_001d_358e_0000, 10_000)), Some(false));
        assert_eq!(
            hex(&out),
            "000000250000000000002710\
             0100001d358e000000000010300349cafdacc8168ec119860e46676500"
        );
        out.clear();
        connect(&mut out, None, None);
        assert_eq!(out.len(), 40);
        assert_eq!(out[3], 36);
    }
}
