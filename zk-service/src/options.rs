//! What can be configured.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of wall-clock time, in milliseconds since 1970.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl WallClock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The clock of the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// The time now.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// What is called when this server's list of members is out of date.
#[derive(Clone)]
pub struct OnOutdated(Arc<dyn Fn() + Send + Sync>);

impl OnOutdated {
    /// Calls `act`, on the server's thread.
    pub fn new(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(act))
    }

    pub(crate) fn call(&self) {
        (self.0)();
    }
}

impl Default for OnOutdated {
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for OnOutdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnOutdated")
    }
}

/// Options of a [`Service`](crate::Service); the defaults are ZooKeeper's.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// The server id that session ids begin with; 1 on a standalone server.
    pub session_server_id: i64,
    /// `tickTime`.
    pub tick_time: Duration,
    /// `minSessionTimeout`; `None`: two ticks.
    pub min_session_timeout: Option<Duration>,
    /// `maxSessionTimeout`; `None`: twenty ticks.
    pub max_session_timeout: Option<Duration>,
    /// `jute.maxbuffer`: longest frame of a client, in bytes. A longer one closes the connection.
    pub jute_max_buffer: usize,
    /// `maxClientCnxns`: connections per client address, 0: unlimited. More are refused.
    pub max_client_cnxns: u32,
    /// `maxCnxns`: connections in all, 0: unlimited. More are refused.
    pub max_cnxns: u32,
    /// `zookeeper.nio.sessionlessCnxnTimeout`: how long a connection may be without a session.
    pub sessionless_timeout: Duration,
    /// `zookeeper.4lw.commands.whitelist`: names, or `*`. `srvr` is always allowed.
    pub four_letter_whitelist: Vec<String>,
    /// `zookeeper.extendedTypesEnabled`: TTL nodes may be created.
    pub extended_types: bool,
    /// `zookeeper.enforceQuota`: hard limits of quotas are enforced.
    pub enforce_quota: bool,
    /// `zookeeper.skipACL`.
    pub skip_acl: bool,
    /// `zookeeper.DigestAuthenticationProvider.enabled`.
    pub digest_auth: bool,
    /// `zookeeper.DigestAuthenticationProvider.superDigest`: `super:<base64>`.
    pub super_digest: Option<String>,
    /// `zookeeper.digest.enabled`: transactions carry the digest of the tree.
    pub digests: bool,
    /// `znode.container.checkIntervalMs`.
    pub container_check_interval: Duration,
    /// `znode.container.maxNeverUsedIntervalMs`; zero: a container that was never used stays.
    pub container_never_used: Duration,
    /// Bytes queued for a client from which on its requests wait until it has read some.
    pub out_len_soft_max_bytes: usize,
    /// Bytes queued for a client, by events that it does not read, at which it is disconnected.
    pub out_len_max_bytes: usize,
    /// Requests of one client in flight, from which on further ones wait.
    pub in_flight_max: usize,
    /// Version text shown by the four-letter words.
    pub version: String,
    /// What `conf` shows, line by line; the membership follows.
    pub conf: Vec<(String, String)>,
    /// Text of `/zookeeper/config` in an ensemble.
    pub membership: Option<String>,
    /// What `envi` shows.
    pub environment: Vec<(String, String)>,
    /// Sizes in bytes of the data and the log directory, for `dirs`.
    pub dir_sizes: fn() -> (u64, u64),
    /// Called when the ensemble's members have changed to others than this server's: it is to end.
    pub on_outdated: OnOutdated,
    /// Source of the times in transactions.
    pub wall_clock: WallClock,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            session_server_id: 1,
            tick_time: Duration::from_secs(3),
            min_session_timeout: None,
            max_session_timeout: None,
            jute_max_buffer: 0xf_ffff,
            max_client_cnxns: 60,
            max_cnxns: 0,
            sessionless_timeout: Duration::from_secs(10),
            four_letter_whitelist: vec!["srvr".into()],
            extended_types: false,
            enforce_quota: false,
            skip_acl: false,
            digest_auth: true,
            super_digest: None,
            digests: true,
            container_check_interval: Duration::from_secs(60),
            container_never_used: Duration::ZERO,
            out_len_soft_max_bytes: 1 << 20,
            out_len_max_bytes: 64 << 20,
            in_flight_max: 1000,
            version: concat!(
                "3.9.4-zab-",
                env!("CARGO_PKG_VERSION"),
                ", built on 2026-01-01 00:00 UTC"
            )
            .into(),
            conf: Vec::new(),
            membership: None,
            environment: Vec::new(),
            dir_sizes: || (0, 0),
            on_outdated: OnOutdated::default(),
            wall_clock: WallClock::system(),
        }
    }
}

impl ServiceOptions {
    /// The session time-out that a client gets that asks for `requested_ms`, in ms.
    pub(crate) fn session_timeout_ms(&self, requested_ms: i32) -> i32 {
        let ms = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        let min = ms(self.min_session_timeout.unwrap_or(self.tick_time * 2));
        let max = ms(self.max_session_timeout.unwrap_or(self.tick_time * 20));
        requested_ms.max(min).min(max)
    }

    /// Whether a four-letter word may be executed.
    pub(crate) fn allows_word(&self, word: &str) -> bool {
        word == "srvr" || self.four_letter_whitelist.iter().any(|w| w == "*" || w == word)
    }
}
