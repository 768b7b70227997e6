//! What can be configured.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use zab_proto::Membership;
use zab_sasl::{NameRules, Users};

use crate::audit::AuditLog;
use crate::metrics::Summary;
use crate::throttle::{ConnectionThrottle, LargeRequests, RequestThrottle};

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

/// Where a figure comes from that somebody else measures.
pub struct Probe<T>(Arc<dyn Fn(bool) -> T + Send + Sync>);

impl<T> Probe<T> {
    /// A figure that is asked for with `read`; `true` means that it is to begin anew behind this
    /// (`srst`).
    pub fn new(read: impl Fn(bool) -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn read(&self) -> T {
        (self.0)(false)
    }

    pub(crate) fn reset(&self) {
        (self.0)(true);
    }
}

impl<T> Clone for Probe<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Probe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
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

/// What is called when another configuration of the ensemble is in force.
#[derive(Clone, Default)]
pub struct OnReconfigured(Option<Arc<Configured>>);

type Configured = dyn Fn(&Membership) + Send + Sync;

impl OnReconfigured {
    /// Calls `act`, on the server's thread.
    pub fn new(act: impl Fn(&Membership) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(act)))
    }

    pub(crate) fn call(&self, ensemble: &Membership) {
        if let Some(act) = &self.0 {
            act(ensemble);
        }
    }
}

impl fmt::Debug for OnReconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReconfigured")
    }
}

/// Scheme `ensemble` of auth packets (`EnsembleAuthenticationProvider`), with which a client makes
/// sure that it has come to the ensemble it means. It earns no identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnsembleAuth {
    /// `zookeeper.ensembleAuthName`: the ensemble's names; `None`: any name is right.
    pub names: Option<Vec<String>>,
}

impl EnsembleAuth {
    /// Whether a client that means the ensemble `name` is in the right place. One that names none
    /// always is.
    pub(crate) fn accepts(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        name.is_empty() || self.names.as_ref().is_none_or(|names| names.iter().any(|n| *n == name))
    }
}

/// Who may log in by SASL (request 102), and what comes of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SaslOptions {
    /// Names and passwords of the section `Server` of the JAAS file; `None`: clients that try are told
    /// to go on without, as ZooKeeper does.
    pub users: Option<Arc<Users>>,
    /// The scheme `sasl` is known in ACLs (`authProvider.*` names `SASLAuthenticationProvider`).
    pub in_acls: bool,
    /// How names become identities.
    pub names: NameRules,
    /// `zookeeper.superUser`, `zookeeper.superUser.*`: identities that may do everything.
    pub super_users: Vec<String>,
    /// `zookeeper.letAnySaslUserDoX`: an id that stands in ACLs for everybody who has logged in.
    pub any_user: Option<String>,
    /// `zookeeper.allowSaslFailedClients`: who fails to log in goes on without.
    pub failed_may_stay: bool,
}

/// The hash function of the scheme `digest`. Identities are `user:base64(hash(user:password))`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DigestAlgorithm {
    /// SHA-1, ZooKeeper's default.
    #[default]
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    /// The algorithm that Java calls so, in any case (`MessageDigest.getInstance`).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" | "SHA" => Some(Self::Sha1),
            "SHA-224" => Some(Self::Sha224),
            "SHA-256" => Some(Self::Sha256),
            "SHA-384" => Some(Self::Sha384),
            "SHA-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    pub(crate) fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha224 => Sha224::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha384 => Sha384::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }
}

/// A source of random numbers.
#[derive(Clone)]
pub struct Entropy(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Entropy {
    /// A source that asks `next`.
    pub fn new(next: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// The operating system's: the keys of the standard library's hash maps come from it.
    #[must_use]
    pub fn system() -> Self {
        // One key for each source; what differs from number to number is the message.
        let (key, count) = (RandomState::new(), AtomicU64::new(0));
        Self::new(move || key.hash_one(count.fetch_add(1, Ordering::Relaxed)))
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

/// Options of a [`Service`](crate::Service); the defaults are ZooKeeper's.
///
/// ```
/// # use std::time::Duration;
/// let options = zk_service::ServiceOptions::default().with(|options| {
///     options.tick_time = Duration::from_secs(2);
///     options.max_client_cnxns = 0;
/// });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// The server id that session ids begin with; 1 on a standalone server. The rest of them is
    /// random.
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
    /// `zookeeper.connection_throttle_*`.
    pub connection_throttle: ConnectionThrottle,
    /// `zookeeper.globalOutstandingLimit`: requests of all clients under way, above which who has one of them waits for
    /// its answer. Voters of an ensemble of more than two share it: each has this divided by their number less one.
    /// Reads that are answered at once are none.
    pub global_outstanding_limit: usize,
    /// `zookeeper.request_throttle_max_requests` and what belongs to it.
    pub request_throttle: RequestThrottle,
    /// `zookeeper.largeRequestThreshold` and what belongs to it.
    pub large_requests: LargeRequests,
    /// `zookeeper.leaderServes`: the leader of an ensemble serves clients, too. Otherwise it closes
    /// their connections, as a server without a leader does.
    pub leader_serves: bool,
    /// `zookeeper.nio.sessionlessCnxnTimeout`: how long a connection may be without a session.
    pub sessionless_timeout: Duration,
    /// `zookeeper.4lw.commands.whitelist`: names, or `*`. `srvr` is always allowed, and `isro` with
    /// `read_only_mode`.
    pub four_letter_whitelist: Vec<String>,
    /// `zookeeper.extendedTypesEnabled`: TTL nodes may be created.
    pub extended_types: bool,
    /// `zookeeper.enforceQuota`: hard limits of quotas are enforced.
    pub enforce_quota: bool,
    /// `zookeeper.skipACL`.
    pub skip_acl: bool,
    /// `zookeeper.DigestAuthenticationProvider.enabled`.
    pub digest_auth: bool,
    /// `zookeeper.DigestAuthenticationProvider.digestAlg`: the same on all servers of an ensemble.
    pub digest_algorithm: DigestAlgorithm,
    /// `zookeeper.DigestAuthenticationProvider.superDigest`: `super:<base64>`.
    pub super_digest: Option<String>,
    /// Scheme `x509` is known: clients are who their certificates say.
    pub x509_auth: bool,
    /// `zookeeper.X509AuthenticationProvider.superUser`: the subject of the super user's certificate.
    pub x509_super_user: Option<String>,
    /// `zookeeper.enforce.auth.enabled` with `zookeeper.enforce.auth.schemes`: a client has to have
    /// an identity of one of these schemes before it sends anything but auth packets. Empty: none.
    pub enforce_auth: Vec<String>,
    /// Logins by SASL.
    pub sasl: SaslOptions,
    /// Scheme `ensemble`; `None`: not known (no `zookeeper.authProvider.*` names it).
    pub ensemble_auth: Option<EnsembleAuth>,
    /// `readonlymode.enabled`: a member that has found no leader for a while lets clients read, and `isro`
    /// may be asked.
    pub read_only_mode: bool,
    /// `localSessionsEnabled`: a member of an ensemble keeps new sessions to itself, and as leader takes writes of
    /// those of its learners. All members are to have the same value. A standalone server has none.
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled`: a local session becomes one of the ensemble before it creates an ephemeral
    /// node. Without it, such nodes are refused with code -120, in a multi of a learner's client with -112.
    pub local_sessions_upgrading: bool,
    /// `zookeeper.digest.enabled`: transactions carry the digest of the tree.
    pub digests: bool,
    /// `znode.container.checkIntervalMs`.
    pub container_check_interval: Duration,
    /// `znode.container.maxNeverUsedIntervalMs`; zero: a container that was never used stays.
    pub container_never_used: Duration,
    /// Bytes queued for a client from which on its requests wait until it has read some.
    pub out_len_soft_max_bytes: usize,
    /// Bytes of events queued for a client at which it is disconnected: it does not read them. The
    /// events of one transaction are not counted before the next one.
    pub events_len_max_bytes: usize,
    /// Bytes of one client's watches, their paths and `WATCH_LEN_BYTES` for each: at the bound it
    /// is disconnected.
    pub watches_len_max_bytes: usize,
    /// Bytes of identities that one client may collect with auth packets. They go with each request
    /// that is forwarded, so that `Limits::field_len_max_bytes` bounds them, too. At the bound the
    /// packet is refused, and the client disconnected.
    pub ids_len_max_bytes: usize,
    /// Bytes that all clients together make this server keep for them: requests that wait, answers
    /// and events that they do not read, identities, watches. At the bound those are disconnected
    /// that take the most.
    pub clients_len_max_bytes: usize,
    /// How long clients are held at most while there is no leader, before their connections are closed:
    /// until then they go on with the next one, with all they have asked. Never longer than a third
    /// of their session's time-out. `None`: two ticks; zero: they are closed at once, as by ZooKeeper.
    pub hold_clients: Option<Duration>,
    /// Bytes of all clients' writes in flight that are kept, so that they can be submitted again. One
    /// client may have [`out_len_soft_max_bytes`](Self::out_len_soft_max_bytes) of them. Who has more
    /// in flight when the leader is lost is disconnected.
    pub hold_len_max_bytes: usize,
    /// Work done for clients before peers and timers are heard again, in units of about a
    /// nanosecond. One request may exceed it.
    pub work_per_turn: u64,
    /// Whether what takes more than a turn is done in pieces. Off only where a test shows what that is for.
    #[doc(hidden)]
    pub cuts: bool,
    /// Work of the parts of one multiRead. Parts behind it are answered by an error.
    pub work_per_request: u64,
    /// Longest reply, in bytes; never less than two of the longest frames of a client. A request
    /// with a longer one, or the part of a multiRead that would make it longer, is answered by an
    /// error.
    pub reply_len_max_bytes: usize,
    /// Requests of one client in flight, from which on further ones wait.
    pub in_flight_max: usize,
    /// Version text shown by the four-letter words.
    pub version: String,
    /// What `conf` shows, line by line; the membership follows.
    pub conf: Vec<(String, String)>,
    /// Text of `/zookeeper/config` in an ensemble, until another configuration is in force.
    pub membership: Option<String>,
    /// Clients may change the members (`reconfigEnabled`); to be the same as
    /// [`Config::reconfig`](zab_proto::Config::reconfig) in an ensemble.
    pub reconfig: bool,
    /// An ensemble keeps two voters, as one alone is another kind of server (`standaloneEnabled`).
    pub standalone_enabled: bool,
    /// What `envi` shows.
    pub environment: Vec<(String, String)>,
    /// Sizes in bytes of the data and the log directory, for `dirs`.
    pub dir_sizes: Option<Probe<(u64, u64)>>,
    /// Times of the log's fsyncs in ms, for `mntr`.
    pub fsync_times: Option<Probe<Summary>>,
    /// Further summaries of the process for `mntr`, by their names there.
    pub summaries: Vec<(&'static str, Probe<Summary>)>,
    /// Open file descriptors and how many there may be, for `mntr`.
    pub descriptors: Option<Probe<(u64, u64)>>,
    /// Further counters of the process for `mntr`, by their names there.
    pub figures: Vec<(&'static str, Probe<u64>)>,
    /// The same of what rises and falls.
    pub gauges: Vec<(&'static str, Probe<u64>)>,
    /// The audit log, if there is one.
    pub audit: Option<AuditLog>,
    /// Called when the ensemble's members have changed to others than this server's: it is to end.
    pub on_outdated: OnOutdated,
    /// Called when another configuration of the ensemble is in force.
    pub on_reconfigured: OnReconfigured,
    /// Source of the times in transactions.
    pub wall_clock: WallClock,
    /// Where the random part of session ids comes from. Who could guess an id could take over the
    /// session: its password is a function of it.
    pub entropy: Entropy,
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
            connection_throttle: ConnectionThrottle::default(),
            global_outstanding_limit: 1000,
            request_throttle: RequestThrottle::default(),
            large_requests: LargeRequests::default(),
            leader_serves: true,
            sessionless_timeout: Duration::from_secs(10),
            four_letter_whitelist: vec!["srvr".into()],
            extended_types: false,
            enforce_quota: false,
            skip_acl: false,
            digest_auth: true,
            digest_algorithm: DigestAlgorithm::default(),
            super_digest: None,
            x509_auth: false,
            x509_super_user: None,
            enforce_auth: Vec::new(),
            sasl: SaslOptions::default(),
            ensemble_auth: None,
            read_only_mode: false,
            local_sessions: false,
            local_sessions_upgrading: false,
            digests: true,
            container_check_interval: Duration::from_secs(60),
            container_never_used: Duration::ZERO,
            out_len_soft_max_bytes: 1 << 20,
            events_len_max_bytes: 4 << 20,
            watches_len_max_bytes: 128 << 20,
            ids_len_max_bytes: 128 << 10,
            clients_len_max_bytes: 2 << 30,
            hold_clients: None,
            hold_len_max_bytes: 256 << 20,
            work_per_turn: 4_000_000,
            cuts: true,
            work_per_request: 10_000_000,
            reply_len_max_bytes: 64 << 20,
            in_flight_max: 1000,
            version: concat!(
                "3.9.4-zab-",
                env!("CARGO_PKG_VERSION"),
                ", built on 2026-01-01 00:00 UTC"
            )
            .into(),
            conf: Vec::new(),
            membership: None,
            reconfig: false,
            standalone_enabled: true,
            environment: Vec::new(),
            dir_sizes: None,
            fsync_times: None,
            summaries: Vec::new(),
            descriptors: None,
            figures: Vec::new(),
            gauges: Vec::new(),
            audit: None,
            on_outdated: OnOutdated::default(),
            on_reconfigured: OnReconfigured::default(),
            wall_clock: WallClock::system(),
            entropy: Entropy::system(),
        }
    }
}

impl ServiceOptions {
    /// The same with what `change` changes.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The session time-out that a client gets that asks for `requested_ms`, in ms.
    pub(crate) fn session_timeout_ms(&self, requested_ms: i32) -> i32 {
        let ms = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        let min = ms(self.min_session_timeout.unwrap_or(self.tick_time * 2));
        let max = ms(self.max_session_timeout.unwrap_or(self.tick_time * 20));
        requested_ms.max(min).min(max)
    }

    /// How long clients are held at most while there is no leader.
    pub(crate) fn hold_clients(&self) -> Duration {
        self.hold_clients.unwrap_or(self.tick_time * 2)
    }

    /// Longest body of the reply to a read, in bytes. A length is an `int` in the end, and a frame has a header.
    #[inline]
    pub(crate) fn read_len_max(&self) -> usize {
        let len = self.reply_len_max_bytes.max(self.jute_max_buffer.saturating_mul(2));
        len.min(i32::MAX as usize - (1 << 10))
    }

    /// Whether a four-letter word may be executed.
    pub(crate) fn allows_word(&self, word: &str) -> bool {
        word == "srvr"
            || (word == "isro" && self.read_only_mode)
            || self.four_letter_whitelist.iter().any(|w| w == "*" || w == word)
    }
}
