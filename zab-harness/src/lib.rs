//! What the tests, fuzzers and benches of several crates need, and no published crate does.
//!
//! * [`Cluster`]: nodes, disks and byte streams on virtual time, for one story per test. What needs
//!   a thousand schedules is the simulator's.
//! * [`Trio`]: three cores joined by buffers and nothing else, for measuring what the core costs.
//! * [`Journal`]: the smallest useful application; [`Memory`]: a disk in memory that can be slow,
//!   full or lost.
//! * [`client`]: frames and records of ZooKeeper's client protocol, and a connection that sends them.
//! * `suite` (with the feature of that name): what every runtime must do, on sockets and files.
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "this is test code: it fails by panicking, and is read where it is called"
)]
#![cfg_attr(feature = "suite", expect(clippy::unwrap_used, reason = "it fails by panicking"))]

pub mod client;
mod cluster;
mod journal;
mod memory;
#[cfg(feature = "suite")]
pub mod suite;
mod trio;

pub use cluster::{Cluster, Server};
pub use journal::Journal;
pub use memory::{Image, Memory};
pub use trio::Trio;
