//! Deterministic simulation of ensembles.
//!
//! Any number of servers, their clients, disks, clocks and the network between them live in one
//! thread on virtual time; one seed decides everything. After every event an observer compares what
//! it saw on the wire and on the disks with the invariants of the protocol.
//!
//! [`Options`] says what a run is like, [`run()`] does it. To put an application of your own into
//! the simulator, implement [`StateMachine`](replica::StateMachine) or the whole of [`Subject`].
//! [`Zk`](zk::Zk) is the ZooKeeper service as such a subject.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod carry;
pub mod check;
pub mod counter;
pub mod coverage;
mod disk;
mod drive;
mod epochs;
mod faults;
mod image;
pub mod limits;
pub mod minimise;
pub mod mutation;
mod net;
pub mod options;
pub mod plan;
mod probe;
pub mod profile;
pub mod queue;
pub mod recovery;
pub mod replica;
pub mod rng;
pub mod run;
pub mod scale;
pub mod scenarios;
pub mod script;
mod siege;
mod stream;
pub mod subject;
mod tamper;
mod tap;
pub mod trace;
mod votes;
pub mod world;
pub mod zk;

pub use check::{Failure, Ghost};
pub use mutation::Mutation;
pub use options::Options;
pub use run::{Outcome, run};
pub use subject::{Client, Subject, Wish};
pub use trace::Trace;
pub use world::World;
