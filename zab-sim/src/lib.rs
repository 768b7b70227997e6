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

pub mod counter;
mod faults;
pub mod limits;
pub mod minimise;
mod observer;
pub mod options;
pub mod recovery;
pub mod run;
pub mod scale;
pub mod scenarios;
pub mod script;
pub mod world;
pub mod zk;

// Named from here, whichever folder they are in.
use faults::{away, members, siege, tamper};
pub use faults::{mutation, plan, profile};
use observer::{change, epochs, stream, tap, views, votes};
pub use observer::{check, coverage};
use world::{disk, image, net, probe};
pub use world::{queue, replica, rng, subject, trace};

pub use check::{Checker, Failure};
pub use mutation::Mutation;
pub use options::Options;
pub use run::{Outcome, run};
pub use subject::{Client, InHand, Subject, Wish};
pub use trace::Trace;
pub use world::World;
