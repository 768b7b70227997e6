//! The few requests that a load needs, in ZooKeeper's client protocol and in etcd's, and a blocking
//! connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use rustls::ClientConfig;
use zab_proto::wire::jute::{BufMutExt, Reader};

use crate::grpc;
use crate::secure::Stream;

/// A request of the load.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// create, persistent, open to the world; put in etcd.
    Create(&'a str, &'a [u8]),
    /// setData, any version; put in etcd.
    Set(&'a str, &'a [u8]),
    /// getData without a watch; range in etcd, answered by the server that is asked, as in
    /// ZooKeeper (`serializable`).
    Get(&'a str),
}

/// The language of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// ZooKeeper's client protocol.
    ZooKeeper,
    /// etcd's version 3: gRPC.
    Etcd,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The number that [`Codec::request`] gave the request.
    pub seq: u64,
    /// ZooKeeper's error code; for etcd 0, or -1 for any failure.
    pub err: i32,
    /// What comes after the header: a record, or a message.
    pub body: &'a [u8],
}

/// One connection's side of a protocol, without the connection.
#[derive(Debug)]
pub enum Codec {
    /// ZooKeeper's: requests sent so far, and whether the session is open.
    ZooKeeper(u64, bool),
    /// etcd's.
    Etcd(grpc::Calls),
}

impl Codec {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        match wire {
            Wire::ZooKeeper => Self::ZooKeeper(0, false),
            Wire::Etcd => Self::Etcd(grpc::Calls::default()),
        }
    }

    /// Appends what a connection begins with.
    pub fn hello(&self, out: &mut Vec<u8>) {
        match self {
            Self::ZooKeeper(..) => connect(out, 20_000),
            Self::Etcd(_) => grpc::hello(out),
        }
    }

    /// Appends a request and returns its number; they count from 0.
    ///
    /// # Panics
    /// If a connection has had 2^31 requests.
    pub fn request(&mut self, out: &mut Vec<u8>, what: Request<'_>) -> u64 {
        match self {
            Self::ZooKeeper(sent, _) => {
                *sent += 1;
                let xid = i32::try_from(*sent).expect("fewer than 2^31 requests");
                request(out, xid, what);
                *sent - 1
            }
            Self::Etcd(calls) => calls.request(out, what),
        }
    }

    /// Reads what is at the front of `bytes`: its length, and the answer if it is one. What has to
    /// be said in turn is appended to `out`. `None`: more bytes are needed.
    ///
    /// # Errors
    /// If the server refuses the session, or talks of something else.
    pub fn decode<'b>(
        &mut self,
        bytes: &'b [u8],
        out: &mut Vec<u8>,
    ) -> io::Result<Option<(usize, Option<Reply<'b>>)>> {
        let (_, open) = match self {
            Self::ZooKeeper(sent, open) => (sent, open),
            Self::Etcd(calls) => return calls.decode(bytes, out),
        };
        let Some(len) = frame_len(bytes) else { return Ok(None) };
        let frame = &bytes[4..len];
        if !*open {
            // ConnectResponse: a session that is refused has no time-out.
            *open = frame.get(4..8).is_some_and(|timeout| timeout != [0; 4]);
            let refused = io::ErrorKind::ConnectionRefused;
            return if *open { Ok(Some((len, None))) } else { Err(refused.into()) };
        }
        let mut reader = Reader::new(frame);
        let mut header = || Some((reader.i32().ok()?, reader.i64().ok()?, reader.i32().ok()?));
        let (xid, _, err) = header().ok_or(io::ErrorKind::InvalidData)?;
        let seq = u64::try_from(xid - 1).ok();
        Ok(Some((len, seq.map(|seq| Reply { seq, err, body: &frame[16..] }))))
    }

    /// Whether `reply` is a good answer to `request`: no error, and exactly the record that belongs
    /// to it, with the data asked for.
    #[must_use]
    pub fn is_good(&self, reply: Reply<'_>, request: Request<'_>, data: &[u8]) -> bool {
        if reply.err != 0 {
            return false;
        }
        let body = reply.body;
        match (self, request) {
            (Self::Etcd(_), Request::Get(_)) => grpc::has_value(body, data),
            (Self::Etcd(_), _) => true,
            (Self::ZooKeeper(..), Request::Get(_)) => {
                body.len() == 4 + data.len() + STAT_LEN && body[4..].starts_with(data)
            }
            (Self::ZooKeeper(..), Request::Set(..)) => body.len() == STAT_LEN,
            (Self::ZooKeeper(..), Request::Create(path, _)) => body.len() == 4 + path.len(),
        }
    }
}

/// Bytes of a `Stat` record.
const STAT_LEN: usize = 68;

/// Appends the ConnectRequest of a new session.
fn connect(out: &mut Vec<u8>, timeout_ms: i32) {
    frame(out, |out| {
        out.put_i32(0);
        out.put_i64(0);
        out.put_i32(timeout_ms);
        out.put_i64(0);
        out.put_buffer(Some(&[0; 16]));
        out.put_bool(false);
    });
}

/// Appends a request.
fn request(out: &mut Vec<u8>, xid: i32, request: Request<'_>) {
    frame(out, |out| {
        out.put_i32(xid);
        match request {
            Request::Create(path, data) => {
                out.put_i32(1);
                out.put_ustring(Some(path));
                out.put_buffer(Some(data));
                out.put_i32(1);
                out.put_i32(31);
                out.put_ustring(Some("world"));
                out.put_ustring(Some("anyone"));
                out.put_i32(0);
            }
            Request::Set(path, data) => {
                out.put_i32(5);
                out.put_ustring(Some(path));
                out.put_buffer(Some(data));
                out.put_i32(-1);
            }
            Request::Get(path) => {
                out.put_i32(4);
                out.put_ustring(Some(path));
                out.put_bool(false);
            }
        }
    });
}

fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = i32::try_from(out.len() - at - 4).expect("a short frame");
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// The length of the first whole frame in `bytes`, its prefix included.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    let len = 4 + usize::try_from(i32::from_be_bytes(*prefix)).ok()?;
    (bytes.len() >= len).then_some(len)
}

/// One blocking connection, with one request at a time.
#[derive(Debug)]
pub struct Session {
    stream: Stream<TcpStream>,
    codec: Codec,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Session {
    /// Connects; in ZooKeeper, opens a session.
    ///
    /// # Errors
    /// If the server does not answer, or not with a session, within `limit`.
    pub fn open(wire: Wire, addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::open_over(None, wire, addr, limit)
    }

    /// The same within TLS, if there is something to do it with.
    ///
    /// # Errors
    /// As those of [`open`](Self::open), and if the handshake fails.
    pub fn open_over(
        tls: Option<&Arc<ClientConfig>>,
        wire: Wire,
        addr: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let stream = Stream::begin(stream, tls)?;
        let codec = Codec::new(wire);
        let mut session = Self { stream, codec, out: Vec::new(), input: Vec::new() };
        session.codec.hello(&mut session.out);
        session.flush()?;
        while wire == Wire::ZooKeeper && !matches!(session.codec, Codec::ZooKeeper(_, true)) {
            session.read(None)?;
        }
        Ok(session)
    }

    /// Sends one request and waits for its reply; the error code.
    ///
    /// # Errors
    /// If the connection breaks first.
    pub fn call(&mut self, what: Request<'_>) -> io::Result<i32> {
        let seq = self.codec.request(&mut self.out, what);
        self.flush()?;
        loop {
            if let Some(err) = self.read(Some(seq))? {
                return Ok(err);
            }
        }
    }

    /// The connection between two requests: nothing is on its way but what etcd says unasked.
    #[must_use]
    pub fn into_parts(self) -> (Stream<TcpStream>, Codec, Vec<u8>) {
        (self.stream, self.codec, self.input)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.stream.flush()?;
        self.out.clear();
        Ok(())
    }

    /// Takes what has come, and waits for something if nothing has.
    fn read(&mut self, awaited: Option<u64>) -> io::Result<Option<i32>> {
        let mut found = None;
        loop {
            let decoded = self.codec.decode(&self.input, &mut self.out)?;
            let Some((len, reply)) = decoded else { break };
            if let Some(reply) = reply.filter(|reply| Some(reply.seq) == awaited) {
                found = Some(reply.err);
            }
            self.input.drain(..len);
            if found.is_some() || awaited.is_none() {
                self.flush()?;
                return Ok(found);
            }
        }
        self.flush()?;
        let mut buf = [0; 4096];
        match self.stream.read(&mut buf)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.input.extend_from_slice(&buf[..n]);
                Ok(None)
            }
        }
    }
}
