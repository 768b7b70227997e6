//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// Where it was written, if it comes from one place.
    pub origin: Option<Origin>,
    /// The key, as it is written there, if it is about one.
    pub key: Option<String>,
    /// What is wrong, in ZooKeeper's words where it has some.
    pub reason: String,
    /// What would be right.
    pub accepted: Option<&'static str>,
}

impl Invalid {
    /// A fault of the configuration as a whole.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { origin: None, key: None, reason: reason.into(), accepted: None }
    }

    pub(crate) fn accepted(self, accepted: &'static str) -> Self {
        Self { accepted: Some(accepted), ..self }
    }

    /// The fault is in `file`, if it is not known to be somewhere else.
    pub(crate) fn in_file(self, file: impl Into<PathBuf>) -> Self {
        let origin = self.origin.unwrap_or_else(|| Origin::File(Some(file.into()), None));
        Self { origin: Some(origin), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
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

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `-Dname=value` on the command line, or an argument of the form without a file.
    CommandLine,
    /// `-Dname=value` in a variable of the environment.
    Variable(&'static str),
    /// `-Dname=value` in an assignment of a file for the Java virtual machine, with its line, from 1.
    Assigned(PathBuf, usize),
    /// A file, and the line in it, from 1.
    File(Option<PathBuf>, Option<usize>),
}

impl Origin {
    /// What is wrong with `key`, which was written here.
    pub(crate) fn blame(&self, key: impl Into<String>, invalid: Invalid) -> Invalid {
        Invalid { origin: Some(self.clone()), key: Some(key.into()), ..invalid }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::Assigned(file, line) => write!(f, "{}:{line}", file.display()),
            Self::File(file, line) => {
                let name = file.as_ref().map(|file| file.display());
                match name {
                    Some(name) => write!(f, "{name}")?,
                    None => f.write_str("configuration")?,
                }
                line.map_or(Ok(()), |line| write!(f, ":{line}"))
            }
        }
    }
}
