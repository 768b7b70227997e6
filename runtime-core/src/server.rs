//! A server on a thread of its own, whichever runtime's loop it runs.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use zab_proto::{Application, Channel, Config};

use crate::{Disk, Error, Handle, Listeners, Loaded, NetOptions, ServerOptions, load};

/// What makes a server's loop turn, from any thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// An event loop that can run a server.
pub trait Runtime {
    /// Serves on this thread until [`Handle::shutdown`] or an error. `load` brings application and
    /// disk, given what wakes the loop; `started` is told when the loop is about to run.
    ///
    /// # Errors
    /// That of `load`; [`Error::Config`]; what ended the loop.
    fn serve<A: Application, D: Disk>(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
        started: impl FnOnce(Handle<A>),
    ) -> Result<(), Error>;
}

/// A server on a thread of its own, on the loop of `R`; `()` stands for any. Dropping it stops it,
/// closes its ports and joins the thread.
pub struct Server<A, R = ()> {
    handle: Handle<A>,
    ports: Vec<(Channel, SocketAddr)>,
    thread: Option<JoinHandle<Result<(), Error>>>,
    runtime: PhantomData<fn(R)>,
}

impl<A, R> fmt::Debug for Server<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("handle", &self.handle)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

impl<A: Application + Send + 'static, R: Runtime> Server<A, R> {
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
        let ServerOptions { config, listen: _, net, mut storage, inline_storage, oracle } = options;
        storage.alone |= config.standalone;
        Self::start_with(listeners, net, config, move |wake| {
            let loaded = load(app, storage, inline_storage, Box::new(move || wake()))?;
            Ok(Loaded { oracle, ..loaded })
        })
    }

    /// The same with storage of the caller's. `load` runs on the server's thread, given what wakes
    /// its loop; connections wait meanwhile.
    ///
    /// # Errors
    /// That of `load`, [`Error::Config`], or [`Error::Io`] if the loop cannot be made.
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
        let (sender, start) = sync_channel(1);
        let thread = Builder::new().name(format!("zab-{}", config.sid)).spawn(move || {
            let mut running = false;
            let started = |handle| {
                running = true;
                // The starter waits for it.
                let _ = sender.send(handle);
            };
            let result = R::serve(listeners, options, config, load, started);
            if let Err(error) = &result
                && running
            {
                log::error!("{error}");
            }
            result
        })?;
        match start.recv() {
            Ok(handle) => Ok(Self { handle, ports, thread: Some(thread), runtime: PhantomData }),
            // The loop never ran, and the thread tells why.
            Err(_) => Err(thread
                .join()
                .map_or(Error::Panicked, |result| result.err().unwrap_or(Error::Panicked))),
        }
    }
}

impl<A, R> Server<A, R> {
    /// The same server; that it runs on `R` is no longer known.
    #[must_use]
    pub fn on_any_runtime(mut self) -> Server<A> {
        Server {
            handle: self.handle.clone(),
            ports: std::mem::take(&mut self.ports),
            thread: self.thread.take(),
            runtime: PhantomData,
        }
    }

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

impl<A, R> Drop for Server<A, R> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            // Its error was logged when it happened.
            let _ = thread.join();
        }
    }
}
