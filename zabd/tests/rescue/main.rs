//! Backups, restoration and forced recovery, with real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod ensemble;
mod forced;
