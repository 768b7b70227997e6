//! Options of a session.

use std::sync::Arc;
use std::time::Duration;

use crate::hosts::{Host, parse_connect_string};
use crate::sasl::Mechanism;

/// Options of a [`Session`](crate::Session).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The servers. They are tried in an order shuffled by [`seed`](Self::seed).
    pub hosts: Vec<Host>,
    /// The client's own root in the tree, `/` or empty for the whole tree.
    pub chroot: String,
    /// The session timeout asked for, 30 s by default. The server has limits of its own and tells what it granted.
    pub session_timeout: Duration,
    /// Whether a server that has lost its ensemble may serve us, which lets reads through only.
    pub read_only: bool,
    /// How to log in at each server before anything else; not at all by default. A login that fails ends
    /// the session with [`AuthFailed`](crate::Code::AuthFailed).
    pub sasl: Option<Arc<dyn Mechanism>>,
    /// What to go on with instead of a new one: the id of a session, and its password.
    pub resume: Option<(i64, Vec<u8>)>,
    /// How long a request waits for a server before it fails with
    /// [`ConnectionLoss`](crate::Code::ConnectionLoss), counted from the loss of the connection. Each
    /// server is tried at least once. By default as long as [`session_timeout`](Self::session_timeout)
    /// is by default; zero is what ZooKeeper's own client does.
    pub patience: Duration,
    /// Any number that differs between clients.
    pub seed: u64,
    /// Requests without an answer that was fetched, 10,000 by default: more are refused as
    /// [`Busy`](crate::Refused::Busy).
    pub requests_max: usize,
    /// The same in bytes, 64 MiB by default. One request is always taken.
    pub requests_len_max_bytes: usize,
    /// Events of watches that were not fetched, 100,000 by default: what comes on top is counted
    /// and told as [`Event::Missed`](crate::Event::Missed).
    pub events_max: usize,
    /// The longest frame, sent or received, 16 MiB by default. A server refuses requests of more than
    /// its `jute.maxbuffer` (1 MiB by default) by closing the connection.
    pub frame_len_max_bytes: usize,
}

impl Options {
    /// For these servers.
    #[must_use]
    pub fn new(hosts: Vec<Host>) -> Self {
        Self {
            hosts,
            chroot: String::new(),
            session_timeout: Duration::from_secs(30),
            read_only: false,
            sasl: None,
            resume: None,
            patience: Duration::from_secs(30),
            seed: 0,
            requests_max: 10_000,
            requests_len_max_bytes: 64 << 20,
            events_max: 100_000,
            frame_len_max_bytes: 16 << 20,
        }
    }

    /// From a connect string such as `a:2181,b:2181/root`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(connect_string: &str) -> Result<Self, String> {
        let (hosts, root) = parse_connect_string(connect_string)?;
        crate::path::Chroot::new(root).map_err(|reason| format!("{root}: {reason}"))?;
        let mut options = Self::new(hosts);
        root.clone_into(&mut options.chroot);
        Ok(options)
    }
}
