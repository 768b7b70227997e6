//! As much of HTTP/2, gRPC and etcd's messages as a load needs: unary calls, each on a stream of
//! its own, header blocks without compression.
//!
//! A load never has so much under way that the server's flow-control window of 64 KiB matters; the
//! own window is opened again as data comes.

use std::collections::HashSet;
use std::io;

use crate::client::{Reply, Request};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// How much may come before the window is opened again.
const WINDOW: usize = 32 * 1024;

/// Appends the preface and empty settings.
pub(crate) fn hello(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(out, SETTINGS, 0, 0, &[]);
}

/// The calls of one connection.
#[derive(Debug, Default)]
pub struct Calls {
    sent: u32,
    /// Streams that have had their message and not their end.
    answered: HashSet<u32>,
    received: usize,
    message: Vec<u8>,
}

impl Calls {
    pub(crate) fn request(&mut self, out: &mut Vec<u8>, what: Request<'_>) -> u64 {
        let (method, fields) = match what {
            Request::Create(path, data) | Request::Set(path, data) => {
                ("/etcdserverpb.KV/Put", (path, Some(data)))
            }
            Request::Get(path) => ("/etcdserverpb.KV/Range", (path, None)),
        };
        let message = &mut self.message;
        message.clear();
        message.extend_from_slice(&[0; 5]);
        field(message, 1, fields.0.as_bytes());
        match fields.1 {
            Some(data) => field(message, 2, data),
            // serializable = true
            None => message.extend_from_slice(&[7 << 3, 1]),
        }
        let len = u32::try_from(message.len() - 5).expect("a short message");
        message[1..5].copy_from_slice(&len.to_be_bytes());
        let stream = 2 * self.sent + 1;
        frame(out, HEADERS, END_HEADERS, stream, &headers(method));
        frame(out, DATA, END_STREAM, stream, message);
        self.sent += 1;
        u64::from(self.sent) - 1
    }

    pub(crate) fn decode<'b>(
        &mut self,
        bytes: &'b [u8],
        out: &mut Vec<u8>,
    ) -> io::Result<Option<(usize, Option<Reply<'b>>)>> {
        let Some(head) = bytes.first_chunk::<9>() else { return Ok(None) };
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(body) = bytes.get(9..9 + len) else { return Ok(None) };
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let reply = |err, body| Some(Reply { seq: u64::from(stream / 2), err, body });
        let mut found = None;
        match kind {
            DATA => {
                self.received += len;
                if self.received > WINDOW {
                    let more = u32::try_from(self.received).expect("about a window");
                    frame(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
                    self.received = 0;
                }
                // An answer is far shorter than a frame may be, so that it comes in one.
                if len >= 5 && self.answered.insert(stream) {
                    found = reply(0, &body[5..]);
                }
            }
            // An end without a message before it.
            HEADERS if flags & END_STREAM != 0 && !self.answered.remove(&stream) => {
                found = reply(-1, body);
            }
            RST_STREAM => found = reply(-1, body),
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, body),
            GOAWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        Ok(Some((9 + len, found)))
    }
}

/// Whether a RangeResponse ends with one pair, of the value `data`, and the count 1.
pub(crate) fn has_value(message: &[u8], data: &[u8]) -> bool {
    let ends = |message: &[u8]| message.ends_with(data);
    message.strip_suffix(&[4 << 3, 1]).is_some_and(ends)
}

/// A header block of literals that enter no table.
fn headers(method: &str) -> Vec<u8> {
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(u8::try_from(text.len()).expect("short"));
        block.extend_from_slice(text.as_bytes());
    };
    // :method POST and :scheme http are in the static table, as are the names that follow.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, method);
    block.push(0x01);
    text(&mut block, "localhost");
    block.extend_from_slice(&[0x0f, 0x10]);
    text(&mut block, "application/grpc");
    block.push(0x00);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

/// A field of bytes.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        message.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    message.push(u8::try_from(len).expect("seven bits"));
    message.extend_from_slice(bytes);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    let len = u32::try_from(body.len()).expect("a short frame").to_be_bytes();
    out.extend_from_slice(&len[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}
