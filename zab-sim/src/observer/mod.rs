//! The all-knowing observer: what it reads on the wire and on the disks, and what it holds against the
//! servers.

pub(crate) mod change;
pub mod check;
pub mod coverage;
pub(crate) mod epochs;
pub(crate) mod members;
pub(crate) mod stream;
pub(crate) mod tap;
pub(crate) mod views;
pub(crate) mod votes;
