//! Why an ensemble did not start.

use std::time::Duration;
use std::{fmt, io};

use zab_proto::Sid;

/// Why an ensemble did not start or does not serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A directory or port could not be had.
    Io(io::Error),
    /// A member did not start.
    Server(runtime_core::Error),
    /// A member did not serve within this time.
    NotServing(Sid, Duration),
    /// All members serve, but none leads.
    NoLeader(Duration),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
            Self::NotServing(sid, waited) => {
                write!(f, "server {sid} does not serve after {waited:?}")
            }
            Self::NoLeader(waited) => write!(f, "nobody leads after {waited:?}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Server(error) => Some(error),
            Self::NotServing(..) | Self::NoLeader(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<runtime_core::Error> for Error {
    fn from(error: runtime_core::Error) -> Self {
        Self::Server(error)
    }
}
