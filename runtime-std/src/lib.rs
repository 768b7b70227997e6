//! Runs a [`Node`](zab_proto::Node) on blocking threads: one owns the core, and each connection
//! has one that reads and one that writes.
//!
//! The same shape as `runtime-mio`, file by file: what differs is what an event loop changes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod driver;
mod net;
mod threads;

pub use runtime_core::{
    Disk, Error, Handle, Listen, Listeners, Loaded, NetOptions, ServerOptions, StatusBoard, Wake,
};
use zab_proto::{Application, Config};

pub use crate::driver::Driver;

/// A server on threads of its own. Dropping it stops it, closes its ports and ends the threads.
pub type Server<A> = runtime_core::Server<A, Runtime>;

/// Blocking threads, as [`Server`] runs them.
#[derive(Debug)]
pub struct Runtime;

impl runtime_core::Runtime for Runtime {
    fn serve<A: Application, D: Disk>(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
        started: impl FnOnce(Handle<A>),
    ) -> Result<(), Error> {
        let mut driver = Driver::new(listeners, options, config, load)?;
        started(driver.handle());
        driver.run()
    }
}
