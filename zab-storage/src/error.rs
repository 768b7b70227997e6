//! What can go wrong, in words for the operator. Every message names the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zab_proto::Zxid;

/// An error of the storage. None of them may be retried: a server that gets one stops.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    Io {
        /// What was tried, as in "cannot {action} {path}".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The directories cannot be used as they are configured.
    Directory {
        /// The directory or file in question.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No file can be made in a directory: it is read-only, somebody else's, or full.
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// A log or snapshot is damaged where no crash can have damaged it.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes (of the uncompressed stream).
        offset: u64,
        /// The last good transaction before the damage, if one was read.
        after: Option<Zxid>,
        /// What is wrong there.
        what: Damage,
    },
    /// Transactions are missing.
    Hole {
        /// The file in which the later transaction was found.
        path: PathBuf,
        /// The last transaction before the hole.
        after: Zxid,
        /// The first one after it.
        next: Zxid,
    },
    /// The newest snapshot is damaged, and older snapshots with the log do not reach as far.
    Lost {
        /// The damaged snapshot.
        path: PathBuf,
        /// How far the rest reaches.
        reached: Zxid,
    },
    /// There are log entries but no snapshot to apply them to.
    NoSnapshot(PathBuf),
    /// There are snapshots, and none of them can be loaded.
    NoValidSnapshot(PathBuf),
    /// `currentEpoch`, `acceptedEpoch` or `myid` holds no number.
    NotANumber(PathBuf),
    /// The history cannot be cut back to this zxid: the log does not hold it.
    TruncateTarget {
        /// The directory of the log.
        path: PathBuf,
        /// The zxid to cut back to.
        after: Zxid,
        /// Why not.
        reason: &'static str,
    },
    /// The files do not reach the zxid that was asked for.
    Short {
        /// The directory of the log.
        path: PathBuf,
        /// How far they reach.
        reached: Zxid,
        /// What was asked for, or what the snapshot needs after it.
        wanted: Zxid,
    },
    /// An earlier error has stopped the storage; nothing was written since.
    Stopped,
}

/// What is wrong inside a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// The header is cut short.
    ShortHeader,
    /// The magic number is another one.
    BadMagic(u32),
    /// A length no record can have.
    BadLength(i32),
    /// The checksum does not match the bytes.
    BadChecksum,
    /// The record is too short for a transaction header.
    NoHeader,
    /// A zxid that does not follow its predecessor.
    OutOfOrder(Zxid),
    /// What follows the snapshot's tree is no seal, digest or zxid section.
    BadSeal,
    /// The application cannot decode the snapshot.
    Undecodable,
    /// The snapshot ends before the application has all of it.
    CutShort,
    /// A transaction that the application cannot apply.
    NotApplicable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortHeader => f.write_str("the file header is cut short"),
            Self::BadMagic(magic) => write!(f, "bad magic number {magic:#010x}"),
            Self::BadLength(len) => write!(f, "unreasonable record length {len}"),
            Self::BadChecksum => f.write_str("checksum mismatch"),
            Self::NoHeader => f.write_str("record too short for a transaction header"),
            Self::OutOfOrder(zxid) => write!(f, "transaction {zxid} is out of order"),
            Self::BadSeal => f.write_str("malformed end of snapshot"),
            Self::Undecodable => f.write_str("the tree does not decode"),
            Self::CutShort => f.write_str("the tree is cut short"),
            Self::NotApplicable => f.write_str("the transaction cannot be applied"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Unwritable { path, source } => {
                write!(f, "cannot write in {}: {source}", path.display())
            }
            Self::Directory { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Damaged { path, offset, after, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())?;
                match after {
                    Some(zxid) => write!(f, " (last good transaction {zxid})"),
                    None => Ok(()),
                }
            }
            Self::Hole { path, after, next } => write!(
                f,
                "transactions are missing between {after} and {next} (in {})",
                path.display()
            ),
            Self::Lost { path, reached } => write!(
                f,
                "{} is damaged, and older snapshots with the log reach only to {reached}",
                path.display()
            ),
            Self::NoSnapshot(dir) => {
                write!(f, "no snapshot found in {}, but there are log entries", dir.display())
            }
            Self::NoValidSnapshot(dir) => {
                write!(f, "none of the snapshots in {} can be loaded", dir.display())
            }
            Self::NotANumber(path) => write!(f, "{} does not hold a number", path.display()),
            Self::TruncateTarget { path, after, reason } => {
                write!(f, "cannot truncate the log in {} to {after}: {reason}", path.display())
            }
            Self::Short { path, reached, wanted } => write!(
                f,
                "the log in {} reaches only to {reached}, not to {wanted}",
                path.display()
            ),
            Self::Stopped => f.write_str("the storage has stopped after an earlier error"),
        }
    }
}

impl Error {
    /// Whether a new start of the server, in this process or another one, will do when the disk has
    /// space again or can be written again: the system has refused a write or a new file. False if it
    /// has failed at making something durable that it took before, as nobody knows then what is on the
    /// disk; and for whatever is wrong with what is there.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        let (Self::Io { source, .. } | Self::Unwritable { source, .. }) = self else {
            return false;
        };
        let durable = matches!(self, Self::Io { action: "fsync" | "sync directory", .. });
        let refused = matches!(
            source.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
        );
        !durable && (refused || crate::fs::is_out_of_descriptors(source))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Unwritable { source, .. } => Some(source),
            Self::Directory { .. }
            | Self::Damaged { .. }
            | Self::Hole { .. }
            | Self::Lost { .. }
            | Self::NoSnapshot(_)
            | Self::NoValidSnapshot(_)
            | Self::NotANumber(_)
            | Self::TruncateTarget { .. }
            | Self::Short { .. }
            | Self::Stopped => None,
        }
    }
}

/// Puts the action and the path into an I/O error.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_path_buf(),
            source: Arc::new(source),
        })
    }
}
