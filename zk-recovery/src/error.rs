//! What can go wrong, in words for the operator.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The files of a data directory.
    Storage(zab_storage::Error),
    /// A system call failed.
    Io {
        /// What was tried, as in "cannot {action} {path}".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It is refused, for this reason.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Io { source, .. } => Some(source),
            Self::Refused(_) => None,
        }
    }
}

impl From<zab_storage::Error> for Error {
    fn from(error: zab_storage::Error) -> Self {
        Self::Storage(error)
    }
}

/// Puts the action and the path into an I/O error.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
    }
}
