//! Encrypted connections, as a layer between a runtime's sockets and the core: `NetHandler`
//! around `NetHandler` (`layered.rs`), so that neither of the two knows of it.
//!
//! What encrypts is a [`Cipher`], bytes in and bytes out, one for each connection; a [`Security`] makes
//! them and says where they are wanted. Nothing here knows TLS.

mod layer;

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zab_proto::Channel;

pub(crate) use self::layer::{Layer, LayerOutput};
use crate::Port;

/// Why a connection could not be secured, or is no longer.
pub type CipherError = Box<dyn StdError + Send + Sync>;

/// What the connections of a port begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expects {
    /// Nothing is encrypted.
    Plain,
    /// A handshake; whatever else comes ends the connection.
    Handshake,
    /// Either, told apart by the first byte.
    Either,
}

/// Times and numbers of handshakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandshakeLimits {
    /// How long somebody on a port of members may be silent before it is known what he speaks
    /// (`ssl.quorum.handshakeDetectionTimeoutMillis`).
    pub detection: Duration,
    /// How long the handshake of an accepted connection may take.
    pub handshake: Duration,
    /// Handshakes with clients at a time, beyond which further connections are closed at once; `None`: any
    /// number (`netty.server.outstandingHandshake.limit`).
    pub clients_max: Option<usize>,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            detection: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            clients_max: None,
        }
    }
}

/// What happens to connections, for whoever counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeEvent {
    /// A handshake has begun.
    Begun(Channel),
    /// One has ended well.
    Done(Channel),
    /// One has failed or took too long.
    Failed(Channel),
    /// A connection was closed because too many handshakes are under way.
    Refused(Channel),
    /// A connection without encryption was accepted where either is.
    Plain(Channel),
}

/// Says which connections are encrypted, and makes what encrypts them.
pub trait Security: Send + Sync + fmt::Debug {
    /// What a port expects.
    fn expects(&self, port: Port) -> Expects;

    /// Whether connections that this server dials are encrypted.
    fn dials(&self, channel: Channel) -> bool;

    /// For a connection that has come from `remote`.
    ///
    /// # Errors
    /// If there is nothing to encrypt with.
    fn accept(&self, port: Port, remote: SocketAddr) -> Result<Box<dyn Cipher>, CipherError>;

    /// For a connection that was dialled at `addresses` (`host:port`, joined by `|`) and reached
    /// `remote`.
    ///
    /// # Errors
    /// If there is nothing to encrypt with.
    fn dial(
        &self,
        channel: Channel,
        addresses: &str,
        remote: Option<IpAddr>,
    ) -> Result<Box<dyn Cipher>, CipherError>;

    /// Times and numbers.
    fn limits(&self) -> HandshakeLimits {
        HandshakeLimits::default()
    }

    /// Called on the server's thread; must not block.
    fn happened(&self, event: HandshakeEvent) {
        let _ = event;
    }
}

/// What encrypts one connection. Never blocks, and does no input or output of its own.
pub trait Cipher: Send + fmt::Debug {
    /// Takes bytes from the network and appends what they carry to `plain`; returns how many bytes it took.
    /// Zero although there were some: nothing more will ever be taken.
    ///
    /// # Errors
    /// The connection must be ended, after what [`write`](Self::write) still has.
    fn read(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, CipherError>;

    /// Whether the handshake is under way. When it no longer is, the other side is who it must be.
    fn is_handshaking(&self) -> bool;

    /// Whether the other side has said that nothing more will come.
    fn has_ended(&self) -> bool;

    /// Encrypts a piece of at most [`PIECE_LEN_MAX`] bytes, after the handshake.
    ///
    /// # Errors
    /// The connection must be ended.
    fn seal(&mut self, plain: &[u8]) -> Result<(), CipherError>;

    /// Moves encrypted bytes into `buf`; returns how many.
    fn write(&mut self, buf: &mut [u8]) -> usize;

    /// Whether [`write`](Self::write) has something.
    fn wants_write(&self) -> bool;

    /// Says to the other side that nothing more will come.
    fn end(&mut self);

    /// The subject of the other side's certificate (RFC 2253), if it has shown one.
    fn subject(&self) -> Option<String>;

    /// How the connection is encrypted, for the log.
    fn describe(&self) -> String;
}

/// The longest piece that is encrypted at once, in bytes: what a TLS record may hold.
pub const PIECE_LEN_MAX: usize = 16 * 1024;
