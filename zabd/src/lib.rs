//! The daemon's parts: configuration, one server, a whole local ensemble.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod audit;
pub mod command_line;
pub mod config;
mod dir_sizes;
mod dynamic;
mod ending;
pub mod exit;
pub mod inspect;
pub mod java_env;
pub mod local;
pub mod logging;
mod mending;
mod notify;
pub mod operate;
mod options;
pub mod pages;
mod pauses;
mod ports;
mod purge;
mod rebind;
mod reload;
mod restore;
mod running;
mod sasl;
pub mod server;
mod tls;
