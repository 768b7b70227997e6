//! Elections among ports in memory, on virtual time.

mod connections;
mod driver;
mod net;
mod random;
mod recorded;
mod scenarios;
