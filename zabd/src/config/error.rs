//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The file, if it comes from one.
    pub file: Option<PathBuf>,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// The key, if it is about one.
    pub key: Option<String>,
    /// What is wrong, in ZooKeeper's words where it has some.
    pub reason: String,
    /// What would be right.
    pub accepted: Option<&'static str>,
}

impl Invalid {
    /// A fault of the configuration as a whole.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { file: None, line: None, key: None, reason: reason.into(), accepted: None }
    }

    pub(crate) fn accepted(self, accepted: &'static str) -> Self {
        Self { accepted: Some(accepted), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)?;
        if let Some(accepted) = self.accepted {
            write!(f, " (accepted: {accepted})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
