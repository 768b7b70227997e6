//! Connections over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime_core::{Cipher, PIECE_LEN_MAX};
use zab_tls::Dialer;

use super::connection::{Connection, Dial, connect};
use crate::hosts::Host;

/// Connections over TLS. The whole handshake is part of dialling: who is connected to is known when it
/// ends, and a server's refusal is a reason that can be told.
#[derive(Clone, Debug)]
pub struct Tls {
    dialer: Arc<Dialer>,
}

impl Tls {
    /// With this trust and identity.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer: Arc::new(dialer) }
    }
}

impl Dial for Tls {
    fn dial(&mut self, host: &Host, timeout: Duration) -> io::Result<Box<dyn Connection>> {
        let until = Instant::now() + timeout;
        let stream = connect(host, until)?;
        let remote = stream.peer_addr()?.ip();
        let cipher = self.dialer.dial(&host.name, remote).map_err(io::Error::other)?;
        let connection = TlsConnection {
            stream,
            inner: Mutex::new(Inner { cipher, plain: Vec::new(), read: 0, out: Vec::new() }),
        };
        connection.shake_hands(until)?;
        Ok(Box::new(connection))
    }
}

/// Bytes of the network that are read at once: a record and what surrounds it.
const READ_LEN: usize = PIECE_LEN_MAX + 1024;
/// How long a call waits for a connection that takes no more bytes; the caller holds the client's lock.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5);
const SHORTEST: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct TlsConnection {
    stream: TcpStream,
    /// Locked while bytes are encrypted, decrypted and written, never while they are waited for.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    cipher: Box<dyn Cipher>,
    /// What was decrypted; the first `read` bytes of it were fetched.
    plain: Vec<u8>,
    read: usize,
    /// What was encrypted and not taken by the connection yet: at most one piece, and what TLS itself says.
    out: Vec<u8>,
}

impl TlsConnection {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shake_hands(&self, until: Instant) -> io::Result<()> {
        let mut inner = self.lock();
        let mut buf = vec![0; READ_LEN];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = "the TLS handshake took too long: perhaps the port speaks no TLS";
                return Err(io::Error::new(ErrorKind::TimedOut, reason));
            }
            self.stream.set_write_timeout(Some(left))?;
            inner.flush(&self.stream)?;
            if !inner.cipher.is_handshaking() {
                self.stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                return Ok(());
            }
            self.stream.set_read_timeout(Some(left.max(SHORTEST)))?;
            match (&self.stream).read(&mut buf) {
                Ok(0) => {
                    let reason = "the server has ended the connection in the TLS handshake";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, reason));
                }
                Ok(len) => inner.take(&self.stream, &buf[..len])?,
                Err(error) if is_retried(error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Inner {
    /// Decrypts what came from the network. Whatever the outcome, what TLS has to say to it is said, such as
    /// why the connection is given up.
    fn take(&mut self, stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && !self.cipher.has_ended() {
            match self.cipher.read(bytes, &mut self.plain) {
                Ok(0) => break,
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) => {
                    let _ = self.flush(stream);
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
            }
        }
        match self.flush(stream) {
            Err(error) if is_retried(error.kind()) => Ok(()),
            result => result,
        }
    }

    /// Hands over what was decrypted.
    fn fetch(&mut self, buf: &mut [u8]) -> usize {
        let left = &self.plain[self.read..];
        let len = left.len().min(buf.len());
        buf[..len].copy_from_slice(&left[..len]);
        self.read += len;
        if self.read == self.plain.len() {
            self.plain.clear();
            self.read = 0;
        }
        len
    }

    /// Writes what was encrypted; fails with `WouldBlock` or `TimedOut` if not all of it is taken.
    fn flush(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        loop {
            while self.cipher.wants_write() {
                let at = self.out.len();
                self.out.resize(at + READ_LEN, 0);
                let len = self.cipher.write(&mut self.out[at..]);
                self.out.truncate(at + len);
                if len == 0 {
                    break;
                }
            }
            if self.out.is_empty() {
                return Ok(());
            }
            let written = stream.write(&self.out)?;
            self.out.drain(..written);
        }
    }
}

impl Connection for TlsConnection {
    fn read(&self, buf: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let until = Instant::now() + timeout;
        let mut bytes = vec![0; READ_LEN];
        loop {
            let mut inner = self.lock();
            match inner.flush(&self.stream) {
                Ok(()) => {}
                // What the connection does not take now it may take soon.
                Err(error) if is_retried(error.kind()) => {}
                Err(error) => return Err(error),
            }
            let len = inner.fetch(buf);
            if len > 0 || inner.cipher.has_ended() {
                return Ok(len);
            }
            let mut left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            if !inner.out.is_empty() {
                left = left.min(WRITE_TIMEOUT);
            }
            drop(inner);
            self.stream.set_read_timeout(Some(left.max(SHORTEST)))?;
            match (&self.stream).read(&mut bytes) {
                Ok(0) => return Ok(0),
                Ok(len) => self.lock().take(&self.stream, &bytes[..len])?,
                Err(error) if is_retried(error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        inner.flush(&self.stream)?;
        let piece = &bytes[..bytes.len().min(PIECE_LEN_MAX)];
        inner.cipher.seal(piece).map_err(io::Error::other)?;
        match inner.flush(&self.stream) {
            // The piece is on its way: `read` and the next `write` go on with it.
            Err(error) if !is_retried(error.kind()) => Err(error),
            _ => Ok(piece.len()),
        }
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.cipher.end();
        // It may have ended by itself.
        let _ = inner.flush(&self.stream);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn is_retried(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
