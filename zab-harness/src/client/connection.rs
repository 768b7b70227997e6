//! A connection with a session, one request at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::frames::{Connect, Connected, reply, request};

/// A blocking connection with a session. It sends what it is told and connects once; a test decides what
/// happens next.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    session: Connected,
    last_xid: i32,
    last_zxid: i64,
}

impl Connection {
    /// Connects and shakes hands. Reads and writes wait for `limit`.
    ///
    /// # Errors
    /// If the server does not answer, or refuses the session ([`ErrorKind::ConnectionRefused`]).
    pub fn open(
        address: impl ToSocketAddrs,
        connect: &Connect,
        limit: Duration,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(&connect.to_vec())?;
        let answer = read_frame(&mut stream)?;
        let session = Connected::read(&answer).map_err(|_| ErrorKind::InvalidData)?;
        let refused = || io::Error::new(ErrorKind::ConnectionRefused, "the session is refused");
        let session = session.ok_or_else(refused)?;
        Ok(Self { stream, session, last_xid: 0, last_zxid: connect.last_zxid })
    }

    /// What the server has granted.
    pub fn session(&self) -> Connected {
        self.session
    }

    /// The handshake by which another connection takes this client over, with what it has seen.
    pub fn again(&self) -> Connect {
        let Connected { timeout_ms, session, password } = self.session;
        Connect { last_zxid: self.last_zxid, ..Connect::again(timeout_ms, session, password) }
    }

    /// The socket, for bytes that are no request, or answers that nobody waits for.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends a request and waits for its reply: the error code and the body.
    ///
    /// # Errors
    /// If the connection ends or falls silent first.
    ///
    /// # Panics
    /// If something else is answered.
    pub fn call(&mut self, op: i32, record: &[u8]) -> io::Result<(i32, Vec<u8>)> {
        self.last_xid += 1;
        self.stream.write_all(&request(self.last_xid, op, record))?;
        let answer = read_frame(&mut self.stream)?;
        let (header, body) = reply(&answer).map_err(|_| ErrorKind::InvalidData)?;
        assert_eq!(header.xid, self.last_xid, "answers come in order");
        self.last_zxid = self.last_zxid.max(header.zxid);
        Ok((header.code, body.to_vec()))
    }
}

/// Reads a frame, without its length.
///
/// # Errors
/// If the stream ends or falls silent first.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).map_err(|_| ErrorKind::InvalidData)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok(body)
}
