//! The few requests of ZooKeeper's client protocol that a load needs, and a blocking connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use zab_proto::wire::jute::{Reader, Writer};

/// A request of the load.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// create, persistent, open to the world.
    Create(&'a str, &'a [u8]),
    /// setData, any version.
    Set(&'a str, &'a [u8]),
    /// getData without a watch.
    Get(&'a str),
}

/// Appends the ConnectRequest of a new session.
pub fn connect(out: &mut Vec<u8>, timeout_ms: i32) {
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
pub fn request(out: &mut Vec<u8>, xid: i32, request: Request<'_>) {
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

/// Appends a ping, which keeps the session alive.
pub fn ping(out: &mut Vec<u8>) {
    frame(out, |out| {
        out.put_i32(-2);
        out.put_i32(11);
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
#[must_use]
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    let len = 4 + usize::try_from(i32::from_be_bytes(*prefix)).ok()?;
    (bytes.len() >= len).then_some(len)
}

/// xid and error code of a reply frame.
#[must_use]
pub fn reply(frame: &[u8]) -> (i32, i32) {
    let mut reader = Reader::new(&frame[4..]);
    let mut header = || Some((reader.i32().ok()?, reader.i64().ok()?, reader.i32().ok()?));
    header().map_or((0, -1), |(xid, _, err)| (xid, err))
}

/// A session on one blocking connection.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    buf: Vec<u8>,
    xid: i32,
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// If the server does not answer, or not with a session, within `limit`.
    pub fn open(addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let mut buf = Vec::new();
        connect(&mut buf, 20_000);
        stream.write_all(&buf)?;
        let mut session = Self { stream, buf, xid: 0 };
        session.read_frame()?;
        let timeout = session.buf.get(8..12).ok_or(io::ErrorKind::InvalidData)?;
        if timeout == [0; 4] {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(session)
    }

    /// Sends one request and waits for its reply; the error code.
    ///
    /// # Errors
    /// If the connection breaks first.
    pub fn call(&mut self, what: Request<'_>) -> io::Result<i32> {
        self.xid += 1;
        self.buf.clear();
        request(&mut self.buf, self.xid, what);
        self.stream.write_all(&self.buf)?;
        loop {
            self.read_frame()?;
            let (xid, err) = reply(&self.buf);
            if xid == self.xid {
                return Ok(err);
            }
        }
    }

    /// The connection, between two requests.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn read_frame(&mut self) -> io::Result<()> {
        self.buf.resize(4, 0);
        self.stream.read_exact(&mut self.buf)?;
        let prefix: [u8; 4] = self.buf[..].try_into().expect("four bytes");
        let len = usize::try_from(i32::from_be_bytes(prefix))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.buf.resize(4 + len, 0);
        self.stream.read_exact(&mut self.buf[4..])
    }
}
