//! `zoo.cfg` and system properties, as ZooKeeper reads them.

mod admin;
mod audit;
mod error;
mod file;
mod judge;
pub mod keys;
mod logging;
mod number;
mod sasl;
mod security;
mod size;
mod system;
mod tls;

use std::fs;
use std::io::ErrorKind;
use std::iter::repeat;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zab_proto::{Member, Membership, Sid};
use zk_service::EnsembleAuth;

pub use zab_sasl::properties;

pub use self::admin::{AdminConfig, PauseConfig};
pub use self::audit::{AuditConfig, AuditFile};
pub use self::error::{Invalid, Origin};
use self::file::FileKeys;
pub use self::logging::LogConfig;
pub(crate) use self::logging::{FORMAT as LOG_FORMAT, LEVEL as LOG_LEVEL};
pub use self::sasl::{MemberLogins, SaslConfig};
pub use self::system::SystemProperties;
pub use self::tls::TlsConfig;
pub(crate) use self::tls::blame as blame_property;

/// The configuration of one server, complete and free of contradictions.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// The text of that file.
    pub text: String,
    /// Snapshots, epochs, `myid`.
    pub data_dir: PathBuf,
    /// Transaction logs.
    pub data_log_dir: PathBuf,
    /// Where clients connect: host and port, if anywhere.
    pub client: Option<(String, u16)>,
    /// `clientPortListenBacklog`.
    pub client_backlog: Option<u32>,
    /// Connections per client address; 0: any number.
    pub max_client_cnxns: u32,
    /// ZooKeeper's basic time unit.
    pub tick_time: Duration,
    /// Shortest session time-out granted.
    pub min_session_timeout: Duration,
    /// Longest session time-out granted.
    pub max_session_timeout: Duration,
    /// `localSessionsEnabled`.
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled`.
    pub local_sessions_upgrading: bool,
    /// Ticks a learner may take to connect and synchronise.
    pub init_limit: u32,
    /// Ticks a synchronised learner and its leader may be silent.
    pub sync_limit: u32,
    /// Ticks a learner tries to connect to its leader; 0: `init_limit`.
    pub connect_to_learner_master_limit: u32,
    /// The port on which followers serve observers, if they do.
    pub observer_master_port: Option<u16>,
    /// Peer ports listen on all addresses, not on the member's own.
    pub listen_on_all_ips: bool,
    /// One server alone.
    pub standalone: bool,
    /// This server's id; 0 when standalone without `myid`.
    pub sid: Sid,
    /// Where this server's own ports are; in no configuration if it is no member any more.
    pub own: Option<Member>,
    /// The members; empty when standalone.
    pub ensemble: Membership,
    /// The file that says whether one of two voters is a quorum.
    pub oracle: Option<PathBuf>,
    /// `reconfigEnabled`; see [`changes_members`](Self::changes_members).
    pub reconfig: bool,
    /// An ensemble keeps two voters (`standaloneEnabled`).
    pub standalone_enabled: bool,
    /// The file with the members, if they have one of their own.
    pub dynamic: Option<PathBuf>,
    /// How many snapshots a purge leaves.
    pub snap_retain_count: usize,
    /// How often to purge, if at all.
    pub purge_interval: Option<Duration>,
    /// Members may have several addresses.
    pub multi_address: bool,
    /// How long one of several addresses may take.
    pub address_timeout: Duration,
    /// Name of the metrics provider.
    pub metrics_provider: String,
    /// Clients are who their certificates say.
    pub x509_auth: bool,
    /// With one of these schemes clients must log in; empty: they need not.
    pub enforce_auth: Vec<String>,
    /// The scheme `ensemble`, if clients may use it.
    pub ensemble_auth: Option<EnsembleAuth>,
    /// Who may log in by SASL.
    pub sasl: SaslConfig,
    /// What is served over HTTP.
    pub admin: AdminConfig,
    /// Pauses of the loop, if they are looked for.
    pub pauses: Option<PauseConfig>,
    /// Which ports speak TLS, and how.
    pub tls: TlsConfig,
    /// What is logged, and in which form.
    pub log: LogConfig,
    /// Where the audit log goes, if there is one.
    pub audit: Option<AuditConfig>,
    /// Everything else.
    pub properties: SystemProperties,
}

/// Why there is no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// Exit code 2.
    Invalid(Invalid),
    /// Exit code 1: the id of `myid` is not in the list.
    NotAMember(Sid),
}

impl From<Invalid> for LoadError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::NotAMember(sid) => write!(f, "My id {sid} not in the peer list"),
        }
    }
}

impl std::error::Error for LoadError {}

impl ServerConfig {
    /// Reads a configuration file. Warnings go to the log.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &Path, properties: SystemProperties) -> Result<Self, LoadError> {
        warn_if_relative(path);
        let bytes = fs::read(path).map_err(|error| {
            Invalid::new(format!("Error processing {}: {error}", path.display()))
        })?;
        Self::parse(&bytes, properties, Some(path)).map_err(|error| match error {
            LoadError::Invalid(invalid) => invalid.in_file(path).into(),
            error @ LoadError::NotAMember(_) => error,
        })
    }

    /// Reads the text of a configuration file. The files it names are read, too.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(
        bytes: &[u8],
        mut properties: SystemProperties,
        path: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let mut keys = FileKeys::default();
        for entry in properties::parse(bytes).map_err(|line| malformed(path, line))? {
            let origin = Origin::File(path.map(Path::to_path_buf), Some(entry.line));
            if !keys.set(&entry.key, &entry.value, &origin)? {
                properties.set(origin, property_name(&entry.key), entry.value);
            }
        }
        if let Some(dynamic) = keys.path("dynamicConfigFile") {
            warn_if_relative(&dynamic);
            if let Some(key) = first_member_key(bytes) {
                let reason = format!("parameter: {key} must be in a separate dynamic config file");
                return Err(Invalid::new(reason).into());
            }
            keys.ensemble = load_dynamic(&dynamic)?;
            let next = path.map(next_of).filter(|next| next.exists());
            if let Some(next) = next.filter(|_| !keys.is_on("reconfigEnabled")) {
                log::warn!("{}: a reconfiguration is under way, and is not used", next.display());
            }
        }
        keys.ensemble.complete().map_err(|error| Invalid::new(error.to_string()))?;
        Self::check(keys, properties, path, String::from_utf8_lossy(bytes).into_owned())
    }

    /// The form without a file: `<clientPort> <dataDir> [tickTime] [maxClientCnxns]`.
    ///
    /// # Errors
    /// An argument that is no number.
    pub fn from_arguments(
        arguments: &[String],
        properties: SystemProperties,
    ) -> Result<Self, LoadError> {
        let mut keys = FileKeys::default();
        let values = arguments.iter().map(String::as_str).chain(repeat("0"));
        let names = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
        for (at, (name, value)) in names.into_iter().zip(values).enumerate() {
            // Without a file, connections per address are not limited by default.
            if at < arguments.len() || name == "maxClientCnxns" {
                keys.set(name, value, &Origin::CommandLine)?;
            }
        }
        Self::check(keys, properties, None, String::new())
    }

    /// Whether the members may change while this server runs: there are none of a server alone.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        self.reconfig && !self.standalone
    }

    /// Where the audit log was to go of a server whose configuration cannot be used.
    pub(crate) fn audit_of(
        file: Option<&Path>,
        mut properties: SystemProperties,
    ) -> Option<AuditConfig> {
        let bytes = file.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        for entry in properties::parse(&bytes).unwrap_or_default() {
            let origin = Origin::File(file.map(Path::to_path_buf), Some(entry.line));
            properties.set(origin, property_name(&entry.key), entry.value);
        }
        // What is wrong with that, too, is said when the rest is right.
        AuditConfig::read(&properties).ok().flatten()
    }

    fn check(
        mut keys: FileKeys,
        properties: SystemProperties,
        path: Option<&Path>,
        text: String,
    ) -> Result<Self, LoadError> {
        keys.take_defaults(&properties);
        let (data_dir, data_log_dir) = directories(&keys)?;
        let tick_time = positive(&keys, "tickTime")?;
        let (min_session_timeout, max_session_timeout) = session_timeouts(&keys, tick_time)?;
        let multi_address = keys.is_on("multiAddress.enabled");
        let standalone = check_ensemble(&keys, multi_address)?;
        let tls = TlsConfig::read(&keys, &properties, standalone)?;
        let (init_limit, sync_limit) = if standalone {
            (0, 0)
        } else {
            (positive(&keys, "initLimit")?, positive(&keys, "syncLimit")?)
        };
        check_detection(&properties, tick_time, sync_limit)?;
        let sid = read_myid(&data_dir, standalone)?;
        let client = client_address(&keys, sid)?;
        if !standalone {
            check_role(&keys, sid)?;
        }
        properties.check()?;
        let x509_auth = tls.clients.is_some() || security::has_x509(&properties);
        let sasl = SaslConfig::read(&keys, &properties, standalone)?;
        let log = LogConfig::read(&properties)?;
        let audit = AuditConfig::read(&properties)?;
        let enforce_auth = security::check(&properties, x509_auth, &sasl.clients)?;
        let admin = AdminConfig::read(&keys, &properties)?;
        let pauses = PauseConfig::read(&keys);
        let count = |name| u32::try_from(keys.number(name)).unwrap_or(0);
        Ok(Self {
            file: path.map(Path::to_path_buf),
            text,
            data_dir,
            data_log_dir,
            client,
            client_backlog: u32::try_from(keys.number("clientPortListenBacklog")).ok(),
            max_client_cnxns: count("maxClientCnxns"),
            tick_time: millis(tick_time),
            min_session_timeout: millis(min_session_timeout),
            max_session_timeout: millis(max_session_timeout),
            local_sessions: keys.is_on("localSessionsEnabled"),
            local_sessions_upgrading: keys.is_on("localSessionsUpgradingEnabled"),
            init_limit,
            sync_limit,
            connect_to_learner_master_limit: count("connectToLearnerMasterLimit"),
            observer_master_port: observer_master_port(&keys)?,
            listen_on_all_ips: keys.is_on("quorumListenOnAllIPs"),
            standalone,
            sid: sid.unwrap_or_default(),
            oracle: keys.path("oraclePath").filter(|_| !standalone),
            reconfig: keys.is_on("reconfigEnabled"),
            standalone_enabled: keys.is_on("standaloneEnabled"),
            dynamic: keys.path("dynamicConfigFile"),
            snap_retain_count: snap_retain_count(&keys),
            purge_interval: hours(count("autopurge.purgeInterval")),
            multi_address,
            address_timeout: millis(count("multiAddress.reachabilityCheckTimeoutMs")),
            metrics_provider: metrics_provider(&keys),
            own: sid.and_then(|sid| keys.ensemble.members.get(&sid).cloned()),
            ensemble: if standalone { Membership::default() } else { keys.ensemble },
            x509_auth,
            enforce_auth,
            sasl,
            admin,
            pauses,
            tls,
            ensemble_auth: security::ensemble_auth(&properties),
            log,
            audit,
            properties,
        })
    }
}

/// `dataDir` and `dataLogDir`.
fn directories(keys: &FileKeys) -> Result<(PathBuf, PathBuf), Invalid> {
    let data_dir = keys.path("dataDir").ok_or_else(|| Invalid::new("dataDir is not set"))?;
    warn_if_relative(&data_dir);
    let data_log_dir = keys.path("dataLogDir").unwrap_or_else(|| data_dir.clone());
    if keys.text("dataLogDir").is_some() {
        warn_if_relative(&data_log_dir);
    }
    Ok((data_dir, data_log_dir))
}

/// How soon a silent leader is noticed fits the ticks. Defaults are fitted to them by the core.
fn check_detection(
    properties: &SystemProperties,
    tick_time: u32,
    sync_limit: u32,
) -> Result<(), Invalid> {
    let heartbeat: u64 = properties.number("zab.heartbeatMs", 0);
    let suspect: u64 = properties.number("zab.suspectMinMs", 0);
    let half_tick = u64::from(tick_time) / 2;
    if heartbeat > half_tick {
        return Err(Invalid::new(format!(
            "zab.heartbeatMs={heartbeat} is above half of tickTime ({half_tick}), when a PING is sent \
             anyway"
        )));
    }
    let longest = u64::from(tick_time) * u64::from(sync_limit);
    if sync_limit > 0 && suspect > longest {
        return Err(Invalid::new(format!(
            "zab.suspectMinMs={suspect} is above syncLimit ticks ({longest}), which end a silent \
             connection anyway"
        )));
    }
    if suspect > 0 && suspect < 5 * heartbeat {
        log::warn!(
            "zab.suspectMinMs={suspect} is less than five heartbeats, which are the limit then"
        );
    }
    Ok(())
}

/// The list of members is one that can be used; returns whether this is a server alone.
fn check_ensemble(keys: &FileKeys, multi_address: bool) -> Result<bool, Invalid> {
    let standalone_enabled = keys.is_on("standaloneEnabled");
    let voters = keys.ensemble.voters().count();
    keys.ensemble
        .check_participants(standalone_enabled)
        .map_err(|error| Invalid::new(error.to_string()))?;
    if !multi_address {
        let check = keys.ensemble.check_single_addresses();
        check.map_err(|error| Invalid::new(error.to_string()))?;
    }
    let standalone = voters <= usize::from(standalone_enabled);
    size::warn(voters, standalone);
    size::warn_of_oracle(keys, voters, standalone);
    Ok(standalone)
}

fn snap_retain_count(keys: &FileKeys) -> usize {
    let retain = keys.number("autopurge.snapRetainCount");
    if retain < MIN_SNAP_RETAIN_COUNT {
        log::warn!(
            "{}: Invalid autopurge.snapRetainCount: {retain}. Defaulting to {MIN_SNAP_RETAIN_COUNT}",
            keys.at("autopurge.snapRetainCount")
        );
    }
    usize::try_from(retain.max(MIN_SNAP_RETAIN_COUNT)).unwrap_or(3)
}

const MIN_SNAP_RETAIN_COUNT: i32 = 3;

fn malformed(path: Option<&Path>, line: usize) -> Invalid {
    let origin = Origin::File(path.map(Path::to_path_buf), Some(line));
    let invalid = Invalid::new("Malformed \\uxxxx encoding.").accepted("four hexadecimal digits");
    Invalid { origin: Some(origin), ..invalid }
}

/// None, if there are none.
fn hours(count: u32) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(u64::from(count) * 3600))
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

fn metrics_provider(keys: &FileKeys) -> String {
    let default = "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider";
    keys.text("metricsProvider.className").unwrap_or(default).to_owned()
}

/// A number that must be there and positive.
/// The port of observer masters, if there is one.
fn observer_master_port(keys: &FileKeys) -> Result<Option<u16>, Invalid> {
    const NAME: &str = "observerMasterPort";
    let value = keys.number(NAME);
    if value <= 0 {
        return Ok(None);
    }
    u16::try_from(value).map(Some).map_err(|_| {
        keys.blame(NAME, Invalid::new(format!("{value} is no port")).accepted("0 to 65535"))
    })
}

fn positive(keys: &FileKeys, name: &str) -> Result<u32, Invalid> {
    let value = keys.number(name);
    match u32::try_from(value) {
        Ok(0) => Err(Invalid::new(format!("{name} is not set"))),
        Ok(value) => Ok(value),
        Err(_) => {
            let invalid = Invalid::new(format!("{value} is negative")).accepted("at least 1");
            Err(keys.blame(name, invalid))
        }
    }
}

/// A key that is not the file's own is the property `zookeeper.<key>`, except for those that have
/// no prefix.
fn property_name(key: &str) -> String {
    match keys::find(key) {
        Some((keys::Place::Plain, _)) => key.to_owned(),
        _ => format!("zookeeper.{key}"),
    }
}

fn warn_if_relative(path: &Path) {
    if path.is_relative() && !path.starts_with(".") {
        log::warn!("{} is relative. Prepend ./ to indicate that you're sure!", path.display());
    }
}

/// Where ZooKeeper keeps a configuration that is proposed and not committed.
fn next_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".dynamic.next");
    name.into()
}

fn first_member_key(bytes: &[u8]) -> Option<String> {
    let is_member = |key: &str| ["server.", "group", "weight"].iter().any(|p| key.starts_with(p));
    let mut entries = properties::parse(bytes).ok()?.into_iter().map(|entry| entry.key);
    entries.find(|key| is_member(key))
}

/// The members, from a file of their own, whose name may end in the configuration's version.
fn load_dynamic(path: &Path) -> Result<Membership, Invalid> {
    let bytes = fs::read(path)
        .map_err(|error| Invalid::new(format!("Error processing {}: {error}", path.display())))?;
    let mut ensemble = Membership::default();
    for entry in properties::parse(&bytes).map_err(|line| malformed(Some(path), line))? {
        let origin = Origin::File(Some(path.to_path_buf()), Some(entry.line));
        let at = |invalid| origin.blame(&entry.key, invalid);
        if entry.key == "version" {
            return Err(at(Invalid::new("dynamic file shouldn't have version inside")));
        }
        let form = file::member_form(&entry.key);
        let set = ensemble.set(&entry.key, &entry.value);
        if !set.map_err(|error| at(Invalid::new(error.to_string()).accepted(form)))? {
            let reason = format!("Unrecognised parameter: {}", entry.key);
            return Err(at(Invalid::new(reason).accepted("server.N, group.N and weight.N")));
        }
    }
    let suffix = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.'));
    let version = suffix.and_then(|(_, hex)| i64::from_str_radix(hex, 16).ok());
    ensemble.version = version.unwrap_or(0);
    Ok(ensemble)
}

fn session_timeouts(keys: &FileKeys, tick_time: u32) -> Result<(u32, u32), Invalid> {
    let or_ticks = |name, ticks| match keys.number(name) {
        -1 => Ok(tick_time.saturating_mul(ticks)),
        value => u32::try_from(value)
            .map_err(|_| keys.blame(name, Invalid::new(format!("{value} ms is negative")))),
    };
    let min = or_ticks("minSessionTimeout", 2)?;
    let max = or_ticks("maxSessionTimeout", 20)?;
    if min > max {
        let reason = "minSessionTimeout must not be larger than maxSessionTimeout";
        return Err(Invalid::new(reason));
    }
    Ok((min, max))
}

/// `dataDir/myid`: the first line is the id and nothing else.
fn read_myid(data_dir: &Path, standalone: bool) -> Result<Option<Sid>, Invalid> {
    let path = data_dir.join("myid");
    let in_file = |reason: String| Invalid::new(reason).in_file(&path);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && standalone => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(in_file("myid file is missing".into()).accepted("this server's id"));
        }
        Err(error) => return Err(in_file(error.to_string())),
    };
    let line = text.lines().next().unwrap_or_default();
    match line.parse() {
        Ok(sid) => Ok(Some(Sid(sid))),
        Err(_) if standalone => Ok(None),
        Err(_) => Err(in_file(format!("serverid {line} is not a number"))
            .accepted("the server's id alone on the first line, without blanks")),
    }
}

/// The client port may stand in the file, in the server's line, or in both if they agree.
fn client_address(keys: &FileKeys, sid: Option<Sid>) -> Result<Option<(String, u16)>, Invalid> {
    for name in ["clientPort", "secureClientPort"] {
        let address = format!("{name}Address");
        if keys.port(name).is_none() && keys.text(&address).is_some() {
            let reason = format!("{address} is set but {name} is not set");
            return Err(keys.blame(&address, Invalid::new(reason)));
        }
    }
    let host = keys.text("clientPortAddress").unwrap_or("0.0.0.0");
    let own = keys.port("clientPort").map(|port| (host.to_owned(), port));
    let line = sid.and_then(|sid| keys.ensemble.members.get(&sid)?.client.clone());
    let client = match (own, line) {
        (Some(own), Some(line)) if !is_same_address(&own, &line) => {
            let (sid, a, b) = (sid.unwrap_or_default(), shown(&own), shown(&line));
            return Err(Invalid::new(format!(
                "client address for this server (id = {sid}) in static config file is {a} is \
                 different from client address found in dynamic file: {b}"
            )));
        }
        (own, line) => line.or(own),
    };
    Ok(client)
}

fn shown((host, port): &(String, u16)) -> String {
    format!("{host}:{port}")
}

/// Names are not looked up: only what cannot be the same is taken as different.
fn is_same_address(a: &(String, u16), b: &(String, u16)) -> bool {
    let ip = |host: &str| host.parse::<std::net::IpAddr>().ok();
    let differ = match (ip(&a.0), ip(&b.0)) {
        (Some(a), Some(b)) => a != b && !(a.is_unspecified() && b.is_unspecified()),
        (None, _) | (_, None) => false,
    };
    a.1 == b.1 && !differ
}

fn check_role(keys: &FileKeys, sid: Option<Sid>) -> Result<(), LoadError> {
    let sid = sid.unwrap_or_default();
    let Some(member) = keys.ensemble.members.get(&sid) else {
        return Err(LoadError::NotAMember(sid));
    };
    let peer_type = keys.peer_type();
    if member.role != peer_type {
        log::warn!(
            "Peer type from servers list ({:?}) doesn't match peerType ({peer_type:?}). \
             Defaulting to servers list.",
            member.role
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;

/// Keys and values of a configuration file; none of one that does not parse.
pub(crate) fn entries(bytes: &[u8]) -> Vec<(String, String)> {
    let entries = properties::parse(bytes).unwrap_or_default();
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}
