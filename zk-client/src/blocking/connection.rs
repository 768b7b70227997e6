//! The connection of a client whose calls wait: one thread reads, others write.

use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::hosts::Host;

/// A connection that one thread reads from while others write to it.
pub trait Connection: Send + Sync + Debug {
    /// Waits for bytes, at most this long. Zero bytes are the end.
    ///
    /// # Errors
    /// Those of the connection; `WouldBlock` or `TimedOut` when the time is over.
    fn read(&self, buf: &mut [u8], timeout: Duration) -> io::Result<usize>;

    /// Writes what can be written within some milliseconds, and tells how much that was.
    ///
    /// # Errors
    /// Those of the connection; `WouldBlock` or `TimedOut` if it was nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends it, also for a `read` that waits.
    fn close(&self);
}

/// Makes connections: in the clear, through TLS, through a proxy.
pub trait Dial: Send + Debug {
    /// Connects to a server, within about this time.
    ///
    /// # Errors
    /// If that is not possible.
    fn dial(&mut self, host: &Host, timeout: Duration) -> io::Result<Box<dyn Connection>>;
}

/// Connections in the clear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&mut self, host: &Host, timeout: Duration) -> io::Result<Box<dyn Connection>> {
        let stream = connect(host, Instant::now() + timeout)?;
        Ok(Box::new(TcpConnection { stream, timeout: Mutex::new(Duration::ZERO) }))
    }
}

/// Tries all addresses of a server.
pub(super) fn connect(host: &Host, until: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host.name.as_str(), host.port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// How long a write may take. Whoever writes holds the client's lock meanwhile, and a server that
/// reads nothing must not keep us from reading what it says.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct TcpConnection {
    stream: TcpStream,
    /// The one that is set, which spares most system calls.
    timeout: Mutex<Duration>,
}

impl Connection for TcpConnection {
    fn read(&self, buf: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let timeout = timeout.max(Duration::from_millis(1));
        if let Ok(mut set) = self.timeout.lock()
            && *set != timeout
        {
            self.stream.set_read_timeout(Some(timeout))?;
            *set = timeout;
        }
        (&self.stream).read(buf)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    fn close(&self) {
        // It may have ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
