//! The event loop that a member runs on.

use std::any::Any;
use std::fmt;

use runtime_core::{Error, Handle, Listeners, ServerOptions};
use zab_proto::Application;

/// The event loop that a member runs on: as many as the crate's features allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Runtime {
    /// One `mio` event loop.
    #[cfg(feature = "mio")]
    Mio,
    /// `smol` tasks.
    #[cfg(feature = "smol")]
    Smol,
    /// Blocking threads.
    #[cfg(feature = "std")]
    Std,
}

impl Runtime {
    /// All that there are, the default first.
    pub const ALL: &'static [Self] = &[
        #[cfg(feature = "mio")]
        Self::Mio,
        #[cfg(feature = "smol")]
        Self::Smol,
        #[cfg(feature = "std")]
        Self::Std,
    ];

    pub(crate) fn start<A: Application + Send + 'static>(
        self,
        listeners: Listeners,
        options: ServerOptions,
        app: A,
    ) -> Result<Running<A>, Error> {
        Ok(match self {
            #[cfg(feature = "mio")]
            Self::Mio => {
                let server = runtime_mio::Server::start_on(listeners, options, app)?;
                Running { handle: server.handle().clone(), _server: Box::new(server) }
            }
            #[cfg(feature = "smol")]
            Self::Smol => {
                let server = runtime_smol::Server::start_on(listeners, options, app)?;
                Running { handle: server.handle().clone(), _server: Box::new(server) }
            }
            #[cfg(feature = "std")]
            Self::Std => {
                let server = runtime_std::Server::start_on(listeners, options, app)?;
                Running { handle: server.handle().clone(), _server: Box::new(server) }
            }
        })
    }
}

/// A server that ends when dropped.
pub(crate) struct Running<A> {
    pub(crate) handle: Handle<A>,
    _server: Box<dyn Any + Send>,
}

impl<A> fmt::Debug for Running<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}
