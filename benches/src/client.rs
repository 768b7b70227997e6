//! The few requests that a load needs, in ZooKeeper's client protocol and in etcd's, and a blocking
//! connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use zab_harness::client::{self, Connect, Connected};
use zk_service::Opcode;

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
            Self::ZooKeeper(..) => Connect::new(20_000).put(out),
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
        let Some(frame) = client::first_frame(bytes) else { return Ok(None) };
        let len = 4 + frame.len();
        let odd = |_| io::ErrorKind::InvalidData;
        if !*open {
            *open = Connected::read(frame).map_err(odd)?.is_some();
            let refused = io::ErrorKind::ConnectionRefused;
            return if *open { Ok(Some((len, None))) } else { Err(refused.into()) };
        }
        let (header, body) = client::reply(frame).map_err(odd)?;
        let seq = u64::try_from(header.xid - 1).ok();
        Ok(Some((len, seq.map(|seq| Reply { seq, err: header.code, body }))))
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

/// Appends a request.
fn request(out: &mut Vec<u8>, xid: i32, request: Request<'_>) {
    let op = match request {
        Request::Create(..) => Opcode::Create,
        Request::Set(..) => Opcode::SetData,
        Request::Get(_) => Opcode::GetData,
    };
    client::put_request(out, xid, op.wire(), |out| match request {
        Request::Create(path, data) => client::put_create(out, path, data, 0),
        Request::Set(path, data) => client::put_set_data(out, path, data),
        Request::Get(path) => client::put_read(out, path, false),
    });
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
