//! What the benches share: a client of ZooKeeper's protocol that keeps many requests in flight,
//! ensembles of whole server processes, and the ways in which results are shown.

pub use figures::{Json, Map, json, plot};

pub mod alloc;
pub mod client;
pub mod ensemble;
pub mod flow;
pub mod grpc;
pub mod load;
pub mod nodes;
pub mod report;
pub mod secure;
