//! The ZooKeeper service: clients, sessions, watches and the data tree, as an
//! [`Application`](zab_proto::Application) of `zab-proto`.
//!
//! One write's way: `service` (`handle_bytes`) → `service::intake` → `service::role` → on a learner
//! the core, which forwards it → the leader's `service::role` → its `prep` → the core, which replicates
//! it → `service` (`deliver`) → `state` → `service::answer`. Reads go from `service::intake` to
//! `service::read`, after the writes of their session. Functions and ZooKeeper's classes beside them: `docs/architecture.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
// A new operation must be decided wherever one is: `Opcode` is matched without a wildcard.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod audit;
mod auth;
mod cost;
mod metrics;
mod options;
mod protocol;
mod service;
mod state;
mod throttle;

pub use audit::{AuditLine, AuditLog, AuditResult};
pub use metrics::Summary;
pub use options::{
    DigestAlgorithm, EnsembleAuth, Entropy, OnOutdated, OnReconfigured, Probe, SaslOptions,
    ServiceOptions, WallClock,
};
pub use protocol::code::Code;
pub use protocol::event::Event;
pub use protocol::opcode::{OpClass, Opcode};
pub use protocol::{acl, txn};
pub use service::Service;
pub use service::look;
pub use state::apply::{Applied, Outcome, Trigger};
pub use state::census::Census;
pub use state::database::{Database, DigestCheck, Sessions};
pub use state::snapshot::{Loaded, Loader};
pub use state::tree;
pub use state::watch::WATCH_LEN_BYTES;
pub use throttle::{ConnectionThrottle, LargeRequests, RequestThrottle};
