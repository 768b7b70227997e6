//! The ZooKeeper service: clients, sessions, watches and the data tree, as an
//! [`Application`](zab_proto::Application) of `zab-proto`.
//!
//! One write's way through the house: `client` → `intake` → on a learner the core, which forwards
//! it → `leader` → `prep` → the core, which replicates it → `deliver` → `apply` → `watch` →
//! `client`. Reads go from `intake` to `read`, after the writes of their session.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod apply;
mod auth;
mod budget;
mod client;
mod database;
mod deliver;
mod four_letter;
mod intake;
mod leader;
mod metrics;
mod mntr;
mod options;
mod prep;
mod protocol;
mod queue;
mod read;
mod rules;
mod schedule;
mod service;
mod session;
mod snapshot;
mod stats;
pub mod tree;
mod watch;

pub use apply::{Applied, Outcome, Trigger};
pub use database::{Database, DigestCheck, Sessions};
pub use metrics::Summary;
pub use options::{
    DigestAlgorithm, EnsembleAuth, Entropy, OnOutdated, Probe, ServiceOptions, WallClock,
};
pub use protocol::code::Code;
pub use protocol::event::Event;
pub use protocol::{acl, txn};
pub use service::Service;
pub use snapshot::{Loaded, Loader};
pub use watch::WATCH_LEN_BYTES;
