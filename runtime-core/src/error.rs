//! Why a server did not start, or stopped.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use zab_proto::{Channel, ConfigError};

/// Why a server did not start, or stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A port could not be bound.
    Bind {
        /// Which of the ports.
        channel: Channel,
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// The data directory could not be read, or a write failed (rule R10: nothing is sent after).
    Storage(Box<dyn StdError + Send + Sync>),
    /// The application must not go on ([`Application::failed`](zab_proto::Application::failed)):
    /// nothing was sent after that.
    Application(Box<str>),
    /// The event loop itself failed.
    Io(io::Error),
    /// The server's thread panicked: a broken invariant.
    Panicked,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { channel, addr, source } => {
                let port = match channel {
                    Channel::Election => "election",
                    Channel::Quorum => "quorum",
                    Channel::Client => "client",
                };
                write!(f, "cannot bind {port} port {addr}: {source}")
            }
            Self::Config(error) => error.fmt(f),
            Self::Storage(error) => error.fmt(f),
            Self::Application(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "event loop: {error}"),
            Self::Panicked => f.write_str("a broken invariant stopped the server"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Bind { source, .. } => Some(source),
            Self::Config(error) => Some(error),
            Self::Storage(error) => Some(error.as_ref()),
            Self::Io(error) => Some(error),
            Self::Application(_) | Self::Panicked => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
