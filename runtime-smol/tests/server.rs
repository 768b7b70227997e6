//! The suite of all runtimes on smol tasks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

// Written for the core's own tests.
#[path = "../../zab-proto/tests/common/journal.rs"]
mod journal;
#[path = "../../runtime-core/tests/suite/mod.rs"]
mod suite;

use runtime_smol as runtime;
