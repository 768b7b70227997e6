//! What the benches share: a client of ZooKeeper's protocol that keeps many requests in flight, and
//! ensembles of whole server processes.

pub mod client;
pub mod ensemble;
pub mod load;
pub mod report;
