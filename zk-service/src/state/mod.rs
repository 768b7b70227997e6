//! What transactions change: the same on every server that has applied the same ones.

pub(crate) mod apply;
pub(crate) mod database;
pub(crate) mod snapshot;
pub mod tree;
pub(crate) mod watch;
