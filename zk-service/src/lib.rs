//! The ZooKeeper service: clients, sessions, watches and the data tree, as an
//! [`Application`](zab_proto::Application) of `zab-proto`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod acl;
mod apply;
mod code;
mod database;
mod jute;
mod snapshot;
pub mod tree;
pub mod txn;

pub use apply::{Applied, Event, Outcome, Trigger};
pub use code::Code;
pub use database::{Database, DigestCheck, Sessions};
pub use snapshot::{Loaded, Loader};
