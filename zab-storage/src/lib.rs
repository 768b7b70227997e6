//! ZooKeeper's files: transaction log, snapshots, epoch files, `myid`.
//!
//! Ordinary blocking code, bit for bit compatible with Apache ZooKeeper 3.8 and 3.9.
//! [`Store::open`] locks a server's directories, [`Store::recover`] loads their content, and
//! [`Store::into_disk`] begins to write: [`Disk`] is the [`Storage`](zab_proto::Storage) of a
//! running server, with one writer thread and group commit, or on the caller's thread.
//! [`LogReader`] and [`SnapshotReader`] read single files, [`View`] a whole directory that may be in
//! use, and [`seed`](seed()) makes one.
//!
//! What is written when, and what a crash at any point leaves, is told in `docs/storage.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod checksum;
mod commit_point;
mod configurations;
#[cfg(test)]
mod crash_tests;
mod disk;
mod epoch;
mod error;
mod foreign;
mod fs;
mod identity;
mod install;
mod log_file;
mod log_source;
mod names;
mod purge;
mod recover;
mod schedule;
mod seed;
mod snapshot;
mod snapshot_job;
mod store;
mod times;
mod view;

pub use configurations::{OnConfigurations, read_configurations};
pub use disk::{Disk, Mode};
pub use epoch::read_myid;
pub use error::{Damage, Error};
pub use identity::{parse_identity, read_identity};
pub use log_file::{End, LogReader, Record};
pub use names::Compression;
pub use purge::purge;
pub use seed::{Seed, put_back, seed, seed_file, write_snapshot};
pub use snapshot::{SnapshotReader, Trailer};
pub use store::{Options, Store, check_recovered};
pub use times::{FsyncSummary, FsyncTimes, SnapshotRequest, StartTimes};
pub use view::{Epochs, Loaded, Survey, Through, View};
