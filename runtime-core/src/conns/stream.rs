//! The socket of a connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// A connected socket that never waits.
pub trait Stream: Read + Write {
    /// Whether readiness is level-triggered. If so, a short read means that the socket is empty; if
    /// not, only `WouldBlock` does.
    const LEVEL_TRIGGERED: bool;

    /// The socket was found empty: it must be reported when it no longer is.
    ///
    /// # Errors
    /// If it cannot be; the connection counts as broken.
    fn await_readable(&self) -> io::Result<()>;

    /// The socket was found full: it must be reported when it no longer is.
    ///
    /// # Errors
    /// If it cannot be; the connection counts as broken.
    fn await_writable(&self) -> io::Result<()>;

    /// The address of the other side.
    ///
    /// # Errors
    /// If the connection is gone.
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// Ends a direction.
    ///
    /// # Errors
    /// If the connection is gone.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
}
