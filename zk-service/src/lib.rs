//! The ZooKeeper service: clients, sessions, watches and the data tree, as an
//! [`Application`](zab_proto::Application) of `zab-proto`.
//!
//! One write's way through the house: `client` → `intake` → on a learner the core, which forwards
//! it → `leader` → `prep` → the core, which replicates it → `deliver` → `apply` → `watch` →
//! `client`. Reads go from `intake` to `read`, after the writes of their session.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod acl;
mod apply;
mod auth;
mod budget;
mod client;
mod code;
mod database;
mod deliver;
mod four_letter;
mod intake;
mod leader;
mod metrics;
mod mntr;
mod options;
mod path;
mod prep;
mod queue;
mod read;
mod reply;
mod request;
mod rules;
mod schedule;
mod service;
mod session;
mod snapshot;
mod stats;
pub mod tree;
pub mod txn;
mod watch;

pub use apply::{Applied, Event, Outcome, Trigger};
pub use code::Code;
pub use database::{Database, DigestCheck, Sessions};
pub use metrics::Summary;
pub use options::{
    DigestAlgorithm, EnsembleAuth, Entropy, OnOutdated, Probe, ServiceOptions, WallClock,
};
pub use service::Service;
pub use snapshot::{Loaded, Loader};
pub use watch::WATCH_LEN_BYTES;
