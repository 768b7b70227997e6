//! Runs a [`Node`](zab_proto::Node) on blocking threads: one owns the core, and each connection
//! has one that reads and one that writes.
//!
//! The same shape as `runtime-mio`, file by file: what differs is what an event loop changes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod driver;
mod net;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

pub use runtime_core::{
    Disk, Error, Handle, Listen, Listeners, Loaded, NetOptions, ServerOptions, StatusBoard,
};
use zab_proto::{Application, Channel, Config};

pub use crate::driver::Driver;

/// What makes the server's loop turn, from any thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A server on threads of its own. Dropping it stops it, closes its ports and ends the threads.
#[derive(Debug)]
pub struct Server<A> {
    handle: Handle<A>,
    ports: Vec<(Channel, SocketAddr)>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl<A: Application + Send + 'static> Server<A> {
    /// Binds the ports, starts a thread, loads the data directories and serves.
    ///
    /// Returns when the loop runs. A member of an ensemble serves clients later, when it has a
    /// leader: see [`Handle::wait_serving`].
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Config`] or [`Error::Storage`].
    pub fn start(options: ServerOptions, app: A) -> Result<Self, Error> {
        let listeners = Listeners::bind(&options.listen)?;
        Self::start_on(listeners, options, app)
    }

    /// The same on ports that are bound already; `options.listen` is not used.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Storage`].
    pub fn start_on(listeners: Listeners, options: ServerOptions, app: A) -> Result<Self, Error> {
        let ServerOptions { config, listen: _, net, storage, inline_storage } = options;
        Self::start_with(listeners, net, config, move |wake| {
            runtime_core::load(app, storage, inline_storage, Box::new(move || wake()))
        })
    }

    /// The same with storage of the caller's. `load` runs on the server's thread, given what wakes
    /// its loop; connections wait meanwhile.
    ///
    /// # Errors
    /// That of `load`, or those of [`Driver::new`].
    pub fn start_with<D, L>(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: L,
    ) -> Result<Self, Error>
    where
        D: Disk,
        L: FnOnce(Wake) -> Result<Loaded<A, D>, Error> + Send + 'static,
    {
        let ports = listeners.ports().collect();
        let (started, start) = sync_channel(1);
        let thread = Builder::new().name(format!("zab-{}", config.sid)).spawn(move || {
            let mut driver = match Driver::new(listeners, options, config, load) {
                Ok(driver) => driver,
                Err(error) => {
                    // The starter waits for it.
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let _ = started.send(Ok(driver.handle()));
            let result = driver.run();
            if let Err(error) = &result {
                log::error!("{error}");
            }
            result
        })?;
        let handle = start.recv().map_err(|_| Error::Panicked)??;
        Ok(Self { handle, ports, thread: Some(thread) })
    }
}

impl<A> Server<A> {
    /// The server's end that other threads may hold.
    #[must_use]
    pub fn handle(&self) -> &Handle<A> {
        &self.handle
    }

    /// The addresses the server listens on, with their real ports.
    pub fn addresses(&self, channel: Channel) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.iter().filter(move |port| port.0 == channel).map(|port| port.1)
    }

    /// Waits until the server ends: by [`Handle::shutdown`], or by itself with an error.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn join(mut self) -> Result<(), Error> {
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Err(Error::Panicked)))
    }
}

impl<A> Drop for Server<A> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            // Its error was logged when it happened.
            let _ = thread.join();
        }
    }
}
