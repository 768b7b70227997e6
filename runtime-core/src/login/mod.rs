//! Logins of members at the beginning of their connections (`QuorumAuth`), as a layer between what is
//! encrypted, if anything, and the core.
//!
//! On the quorum port the login comes first; on the election port it comes after the dialler's
//! handshake. The core hears nothing of a connection's beginning before the login is done: what a
//! dialler says he is, is not believed before he has shown it. Nothing here knows SASL: a [`Logins`]
//! makes an [`Exchange`] for each connection, bytes in and bytes out.

mod layer;

use std::fmt;
use std::net::SocketAddr;

use zab_proto::Channel;

pub(crate) use self::layer::LoginLayer;
use crate::CipherError;

/// How members log in.
pub trait Logins: Send + Sync + fmt::Debug {
    /// For a connection that this server has dialled, if it logs in there.
    fn dial(&self, channel: Channel, remote: Option<SocketAddr>) -> Option<Box<dyn Exchange>>;

    /// For a connection that has come, whose first byte after the handshake is
    /// [`first_byte`](Self::first_byte).
    fn accept(&self, channel: Channel, remote: SocketAddr) -> Box<dyn Exchange>;

    /// Whether this server logs in where it dials.
    fn dials(&self) -> bool;

    /// Whether those that connect have to log in.
    fn is_required(&self) -> bool;

    /// What a login begins with, and nothing else that members say.
    fn first_byte(&self) -> u8;
}

/// One side of a login. Never blocks, and does no input or output of its own.
pub trait Exchange: Send + fmt::Debug {
    /// Appends what must be said first, if this side begins.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Takes at most one message from the front of `bytes` and appends the answer to `out`. Returns how
    /// many bytes that was, 0 if there is more of it to come, and whether the login is done.
    ///
    /// # Errors
    /// The login has failed. What is in `out` by then is sent before the connection ends.
    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CipherError>;
}
