//! The parts of the daemon that are worth testing by themselves.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
