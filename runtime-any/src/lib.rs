//! The runtimes by name: one chosen while the program runs. Which there are is a matter of the
//! features `mio`, `smol` and `std`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(any(feature = "mio", feature = "smol", feature = "std")))]
compile_error!("a server needs a runtime: one of the features mio, smol and std");

use runtime_core::{Error, Listeners, ServerOptions};
use zab_proto::Application;

/// A server on a thread of its own, whichever runtime it is on. Dropping it stops it, closes its ports
/// and joins the thread.
pub type Server<A> = runtime_core::Server<A>;

/// The event loop that a server runs on.
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

    /// Its name: that of its feature.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "mio")]
            Self::Mio => "mio",
            #[cfg(feature = "smol")]
            Self::Smol => "smol",
            #[cfg(feature = "std")]
            Self::Std => "std",
        }
    }

    /// The runtime of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|runtime| runtime.name() == name)
    }

    /// Starts a server on ports that are bound already; `options.listen` is not used.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Storage`].
    pub fn start_on<A: Application + Send + 'static>(
        self,
        listeners: Listeners,
        options: ServerOptions,
        app: A,
    ) -> Result<Server<A>, Error> {
        Ok(match self {
            #[cfg(feature = "mio")]
            Self::Mio => runtime_mio::Server::start_on(listeners, options, app)?.on_any_runtime(),
            #[cfg(feature = "smol")]
            Self::Smol => runtime_smol::Server::start_on(listeners, options, app)?.on_any_runtime(),
            #[cfg(feature = "std")]
            Self::Std => runtime_std::Server::start_on(listeners, options, app)?.on_any_runtime(),
        })
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self::ALL[0]
    }
}
