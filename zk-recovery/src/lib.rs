#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backup;
mod error;
pub mod forced;
pub mod in_place;
mod manifest;
pub mod restore;
mod running;
mod tree;

use std::path::PathBuf;

pub use error::Error;
pub use manifest::{MANIFEST_NAME, Manifest};

/// A member's data, as its configuration names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// `dataDir`.
    pub data_dir: PathBuf,
    /// `dataLogDir`; the same if it is not set.
    pub log_dir: PathBuf,
}

impl Member {
    /// Everything in one directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self { log_dir: data_dir.clone(), data_dir }
    }

    fn view(&self) -> zab_storage::View {
        zab_storage::View::new(&self.data_dir, &self.log_dir)
    }
}
