//! What the admin server is told at its start.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use runtime_core::{Cipher, CipherError, Expects, HandshakeLimits};

use crate::counts::Counts;
use crate::restore::Restore;

/// The default of `admin.idleTimeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of `admin.rateLimiterIntervalInMS`.
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(300);

/// Ports and rules of an admin server; the defaults are ZooKeeper's.
#[derive(Debug)]
#[non_exhaustive]
pub struct AdminOptions {
    /// The port with the commands, the probes and the page.
    pub admin: Option<TcpListener>,
    /// What encrypts connections to that port; `None`: nothing.
    pub https: Option<Https>,
    /// The port of the Prometheus provider, with `/metrics` alone.
    pub metrics: Option<TcpListener>,
    /// `admin.commandURL`: in front of a command's name.
    pub command_url: String,
    /// `admin.idleTimeout`: a connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// `admin.rateLimiterIntervalInMS`: between two snapshots; zero for no limit.
    pub rate_limit_interval: Duration,
    /// `IPAuthenticationProvider.usexforwardedfor`: the address for the scheme `ip` is the first one of
    /// `X-Forwarded-For`, which a proxy in front has to write.
    pub trusts_forwarded_for: bool,
    /// `admin.snapshot.enabled`.
    pub snapshot_enabled: bool,
    /// `admin.restore.enabled`.
    pub restore_enabled: bool,
    /// `metricsProvider.exportJvmInfo`: figures of the process with the metrics.
    pub process_metrics: bool,
    /// What only the process knows.
    pub facts: Facts,
    /// What is counted, for the server's metrics.
    pub counts: Arc<Counts>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            admin: None,
            https: None,
            metrics: None,
            command_url: "/commands".into(),
            idle_timeout: IDLE_TIMEOUT,
            rate_limit_interval: RATE_LIMIT_INTERVAL,
            trusts_forwarded_for: false,
            snapshot_enabled: true,
            restore_enabled: true,
            process_metrics: true,
            facts: Facts::default(),
            counts: Arc::default(),
        }
    }
}

impl AdminOptions {
    /// The same with what `change` changes.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// How connections to the port with the commands are encrypted.
#[derive(Clone)]
pub struct Https {
    /// What they begin with: a handshake (`admin.forceHttps`), or either (`admin.portUnification`).
    pub expects: Expects,
    /// What encrypts a connection from an address.
    pub accept: AcceptHttps,
    /// Told of each handshake whether it went well.
    pub happened: Arc<dyn Fn(bool) + Send + Sync>,
    /// How long a handshake may take.
    pub limits: HandshakeLimits,
}

/// What encrypts a connection from an address, or why nothing can.
pub type AcceptHttps =
    Arc<dyn Fn(SocketAddr) -> Result<Box<dyn Cipher>, CipherError> + Send + Sync>;

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https").field("expects", &self.expects).finish_non_exhaustive()
    }
}

/// A snapshot file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// The last transaction in it.
    pub zxid: i64,
    /// When it was written, in seconds since 1970.
    pub timestamp: u64,
    /// Where it is.
    pub path: std::path::PathBuf,
}

/// What the process around the server knows. All of it is asked on the admin server's thread, so that a
/// disk that stands still does not hold the server's loop.
#[derive(Clone)]
#[non_exhaustive]
pub struct Facts {
    /// Sizes in bytes of the data and the log directory.
    pub dir_sizes: Arc<dyn Fn() -> (u64, u64) + Send + Sync>,
    /// The newest snapshot file.
    pub last_snapshot: Arc<dyn Fn() -> Option<SnapshotFile> + Send + Sync>,
    /// Has a snapshot written soon, if there is something new; `None`: that cannot be had.
    pub take_snapshot: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Puts another state in the place of the server's; `None`: that cannot be had.
    pub restore: Option<Arc<dyn Restore>>,
    /// fsyncs that took longer than the limit for a warning.
    pub slow_fsyncs: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// System properties, as ZooKeeper calls them.
    pub properties: Vec<(String, String)>,
    /// The text of the configuration file.
    pub initial_configuration: Option<String>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            dir_sizes: Arc::new(|| (0, 0)),
            last_snapshot: Arc::new(|| None),
            take_snapshot: None,
            restore: None,
            slow_fsyncs: Arc::new(|| 0),
            properties: Vec::new(),
            initial_configuration: None,
        }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Facts")
    }
}
