//! What an operator asks a ZooKeeper server over HTTP.
//!
//! The AdminServer's commands of Apache ZooKeeper 3.8 and 3.9, `/metrics` for Prometheus, probes
//! (`/alive`, `/ready`, `/lag`, `/safe-to-stop`), and a live page, for a server that runs
//! [`zk_service::Service`] on any of the runtimes.
//!
//! One thread beside the server's loop carries everything: HTTP/1 by `hyper` on `smol`. Each request
//! costs the loop one closure between two events, which returns values; what is made of them, and who is
//! slow to read it, is this thread's business. Connections, requests and the time for both are bounded;
//! `docs/admin.md` has the numbers.
//!
//! ```no_run
//! # fn example(handle: runtime_core::Handle<zk_service::Service>) -> std::io::Result<()> {
//! use std::net::TcpListener;
//! use zk_admin::{AdminOptions, AdminServer};
//!
//! let port = TcpListener::bind("127.0.0.1:8080")?;
//! let admin = AdminServer::start(AdminOptions::default().with(|options| options.admin = Some(port)))?;
//! admin.source().set(Some(handle));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod body;
mod commands;
mod counts;
mod guard;
mod http;
mod json;
mod live;
mod options;
mod probes;
mod prometheus;
mod restore;
mod route;
mod secure;
mod snapshot;
mod source;

use std::io;
use std::rc::Rc;
use std::thread;

use smol::channel::{Sender, bounded};
use smol::{LocalExecutor, future};

pub use counts::Counts;
pub use options::{AcceptHttps, AdminOptions, Facts, Https, SnapshotFile};
pub use restore::{Restorable, Restore, Restored};
pub use source::Source;

/// A running admin server. It ends with this value.
#[derive(Debug)]
pub struct AdminServer {
    source: Source,
    /// Closed with this value.
    _alive: Sender<()>,
}

impl AdminServer {
    /// Serves the ports of `options` on a thread of its own. Until [`Source::set`] names a server, there
    /// is none that serves.
    ///
    /// # Errors
    /// If a port cannot be served, or no thread started.
    pub fn start(options: AdminOptions) -> io::Result<Self> {
        let source = Source::default();
        let (alive, ends) = bounded::<()>(1);
        let ports = http::Ports::new(&options)?;
        let asked = source.clone();
        thread::Builder::new().name("admin".into()).spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let site = Rc::new(route::Site::new(options, asked));
            http::serve(&executor, &site, ports);
            // Until the other end is dropped.
            let _ = future::block_on(executor.run(ends.recv()));
        })?;
        Ok(Self { source, _alive: alive })
    }

    /// The server that is asked.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }
}
