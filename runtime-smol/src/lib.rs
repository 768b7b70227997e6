//! Runs a [`Node`](zab_proto::Node) on smol: one task owns the core and all connections, others
//! accept and dial, all on one thread.
//!
//! The same shape as `runtime-mio`, file by file: what differs is what an event loop changes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod driver;
mod mailbox;
mod net;

pub use runtime_core::{
    Disk, Error, Handle, Listen, Listeners, Loaded, NetOptions, ServerOptions, StatusBoard, Wake,
};
use zab_proto::{Application, Config};

pub use crate::driver::Driver;

/// A server on a thread of its own. Dropping it stops it, closes its ports and joins the thread.
pub type Server<A> = runtime_core::Server<A, Runtime>;

/// A smol executor, as [`Server`] runs it.
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
        smol::block_on(driver.run())
    }
}
