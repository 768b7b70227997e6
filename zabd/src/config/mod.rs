//! `zoo.cfg` and system properties, as ZooKeeper reads them.

mod error;
mod file;
pub mod properties;
mod system;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zab_proto::{Ensemble, Role, Sid};

pub use self::error::Invalid;
use self::file::FileKeys;
pub use self::system::SystemProperties;

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
    /// Ticks a learner may take to connect and synchronise.
    pub init_limit: u32,
    /// Ticks a synchronised learner and its leader may be silent.
    pub sync_limit: u32,
    /// Ticks a learner tries to connect to its leader; 0: `init_limit`.
    pub connect_to_learner_master_limit: u32,
    /// Peer ports listen on all addresses, not on the member's own.
    pub listen_on_all_ips: bool,
    /// One server alone.
    pub standalone: bool,
    /// This server's id; 0 when standalone without `myid`.
    pub sid: Sid,
    /// The members; empty when standalone.
    pub ensemble: Ensemble,
    /// Observers write log and snapshots.
    pub sync_enabled: bool,
    /// `localSessionsEnabled`.
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled`.
    pub local_sessions_upgrading: bool,
    /// `reconfigEnabled`.
    pub reconfig: bool,
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
        let in_file = |invalid: Invalid| Invalid { file: Some(path.to_path_buf()), ..invalid };
        let bytes = fs::read(path).map_err(|error| {
            Invalid::new(format!("Error processing {}: {error}", path.display()))
        })?;
        Self::parse(&bytes, properties, Some(path)).map_err(|error| match error {
            LoadError::Invalid(invalid) if invalid.file.is_none() => in_file(invalid).into(),
            error => error,
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
        let shown = path.map_or_else(|| "configuration".into(), |path| path.display().to_string());
        let mut keys = FileKeys::default();
        for entry in properties::parse(bytes).map_err(malformed)? {
            let (key, value) = (entry.key.as_str(), entry.value.as_str());
            let at = |invalid| Invalid { line: Some(entry.line), key: Some(key.into()), ..invalid };
            if !keys.set(key, value).map_err(at)? {
                take_property(key, value, &mut properties, &format!("{shown}:{}", entry.line));
            }
        }
        if let Some(dynamic) = keys.dynamic_config_file.clone() {
            warn_if_relative(&dynamic);
            if let Some(key) = first_member_key(bytes) {
                let reason = format!("parameter: {key} must be in a separate dynamic config file");
                return Err(Invalid::new(reason).into());
            }
            keys.ensemble = load_dynamic(&dynamic)?;
            if let Some(next) = path.map(next_of).filter(|next| next.exists()) {
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
        let mut keys = FileKeys { max_client_cnxns: 0, ..FileKeys::default() };
        for (key, value) in
            ["clientPort", "dataDir", "tickTime", "maxClientCnxns"].iter().zip(arguments)
        {
            let at = |invalid| Invalid { key: Some((*key).into()), ..invalid };
            keys.set(key, value).map_err(at)?;
        }
        Self::check(keys, properties, None, String::new())
    }

    fn check(
        keys: FileKeys,
        properties: SystemProperties,
        path: Option<&Path>,
        text: String,
    ) -> Result<Self, LoadError> {
        let data_dir = keys.data_dir.clone().ok_or_else(|| Invalid::new("dataDir is not set"))?;
        warn_if_relative(&data_dir);
        let data_log_dir = keys.data_log_dir.clone().unwrap_or_else(|| data_dir.clone());
        if keys.data_log_dir.is_some() {
            warn_if_relative(&data_log_dir);
        }
        let tick_time = positive(keys.tick_time, "tickTime")?;
        let (min_session_timeout, max_session_timeout) = session_timeouts(&keys, tick_time)?;
        let voters = keys.ensemble.voters().count();
        keys.ensemble
            .check_participants(keys.standalone_enabled)
            .map_err(|error| Invalid::new(error.to_string()))?;
        if !keys.multi_address_enabled {
            let check = keys.ensemble.check_single_addresses();
            check.map_err(|error| Invalid::new(error.to_string()))?;
        }
        let standalone = voters <= usize::from(keys.standalone_enabled);
        warn_about_size(voters, standalone);
        let (init_limit, sync_limit) = if standalone {
            (0, 0)
        } else {
            (positive(keys.init_limit, "initLimit")?, positive(keys.sync_limit, "syncLimit")?)
        };
        let sid = read_myid(&data_dir, standalone)?;
        let client = client_address(&keys, sid)?;
        if !standalone {
            check_role(&keys, sid)?;
        }
        let retain = keys.snap_retain_count;
        if retain < MIN_SNAP_RETAIN_COUNT {
            log::warn!(
                "Invalid autopurge.snapRetainCount: {retain}. Defaulting to {MIN_SNAP_RETAIN_COUNT}"
            );
        }
        Ok(Self {
            file: path.map(Path::to_path_buf),
            text,
            data_dir,
            data_log_dir,
            client,
            client_backlog: u32::try_from(keys.client_port_listen_backlog).ok(),
            max_client_cnxns: u32::try_from(keys.max_client_cnxns).unwrap_or(0),
            tick_time: millis(tick_time),
            min_session_timeout: millis(min_session_timeout),
            max_session_timeout: millis(max_session_timeout),
            init_limit,
            sync_limit,
            connect_to_learner_master_limit: u32::try_from(keys.connect_to_learner_master_limit)
                .unwrap_or(0),
            listen_on_all_ips: keys.quorum_listen_on_all_ips,
            standalone,
            sid: sid.unwrap_or_default(),
            ensemble: if standalone { Ensemble::default() } else { keys.ensemble },
            sync_enabled: keys.sync_enabled,
            local_sessions: keys.local_sessions_enabled,
            local_sessions_upgrading: keys.local_sessions_upgrading_enabled,
            reconfig: keys.reconfig_enabled,
            snap_retain_count: usize::try_from(retain.max(MIN_SNAP_RETAIN_COUNT)).unwrap_or(3),
            purge_interval: u64::try_from(keys.purge_interval_hours)
                .ok()
                .filter(|hours| *hours > 0)
                .map(|hours| Duration::from_secs(hours * 3600)),
            multi_address: keys.multi_address_enabled,
            address_timeout: millis(u32::try_from(keys.multi_address_timeout_ms).unwrap_or(1000)),
            metrics_provider: keys.metrics_provider,
            properties,
        })
    }
}

const MIN_SNAP_RETAIN_COUNT: i32 = 3;

fn malformed(line: usize) -> Invalid {
    let reason = "Malformed \\uxxxx encoding.";
    Invalid { line: Some(line), ..Invalid::new(reason).accepted("four hexadecimal digits") }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// A number that must be there and positive.
fn positive(value: i32, key: &str) -> Result<u32, Invalid> {
    match u32::try_from(value) {
        Ok(0) => Err(Invalid::new(format!("{key} is not set"))),
        Ok(value) => Ok(value),
        Err(_) => {
            let invalid = Invalid::new(format!("{value} is negative")).accepted("at least 1");
            Err(Invalid { key: Some(key.into()), ..invalid })
        }
    }
}

/// A key that is not the file's own is `zookeeper.<key>`.
fn take_property(key: &str, value: &str, properties: &mut SystemProperties, place: &str) {
    if system::PLAIN.contains(&key) {
        properties.set(key, value);
    } else if let Some(rest) = key.strip_prefix("zookeeper.") {
        log::warn!(
            "{place}: {key} has no effect: in the file the prefix is left out. Write {rest}={value}"
        );
    } else if !system::is_known(key) {
        match system::similar(key) {
            Some(meant) => log::warn!("{place}: unknown key {key}, did you mean {meant}?"),
            None => log::warn!("{place}: unknown key {key}"),
        }
    }
    properties.set(format!("zookeeper.{key}"), value);
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
fn load_dynamic(path: &Path) -> Result<Ensemble, Invalid> {
    let in_file = |invalid: Invalid| Invalid { file: Some(path.to_path_buf()), ..invalid };
    let bytes = fs::read(path)
        .map_err(|error| Invalid::new(format!("Error processing {}: {error}", path.display())))?;
    let mut ensemble = Ensemble::default();
    for entry in properties::parse(&bytes).map_err(malformed).map_err(in_file)? {
        let at = |invalid| {
            in_file(Invalid { line: Some(entry.line), key: Some(entry.key.clone()), ..invalid })
        };
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
    let or_ticks = |value: i32, ticks| match value {
        -1 => Ok(tick_time.saturating_mul(ticks)),
        value => u32::try_from(value)
            .map_err(|_| Invalid::new(format!("a session time-out of {value} ms is negative"))),
    };
    let min = or_ticks(keys.min_session_timeout, 2)?;
    let max = or_ticks(keys.max_session_timeout, 20)?;
    if min > max {
        let reason = "minSessionTimeout must not be larger than maxSessionTimeout";
        return Err(Invalid::new(reason));
    }
    Ok((min, max))
}

fn warn_about_size(voters: usize, standalone: bool) {
    if standalone {
        if voters == 1 {
            log::error!("Invalid configuration, only one server specified (ignoring)");
        }
        return;
    }
    if voters <= 2 {
        log::warn!("No server failure will be tolerated. You need at least 3 servers.");
    } else if voters.is_multiple_of(2) {
        log::warn!("Non-optimal configuration, consider an odd number of servers.");
    }
}

/// `dataDir/myid`: the first line is the id and nothing else.
fn read_myid(data_dir: &Path, standalone: bool) -> Result<Option<Sid>, Invalid> {
    let path = data_dir.join("myid");
    let in_file = |reason: String| Invalid { file: Some(path.clone()), ..Invalid::new(reason) };
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
    for (port, address, name) in [
        (keys.client_port, &keys.client_port_address, "clientPort"),
        (keys.secure_client_port, &keys.secure_client_port_address, "secureClientPort"),
    ] {
        if port.is_none() && address.is_some() {
            return Err(Invalid::new(format!("{name}Address is set but {name} is not set")));
        }
    }
    if keys.secure_client_port.is_some() {
        log::warn!("secureClientPort: TLS is not supported, the port stays closed");
    }
    let own = keys
        .client_port
        .map(|port| (keys.client_port_address.clone().unwrap_or_else(|| "0.0.0.0".into()), port));
    let line = sid.and_then(|sid| keys.ensemble.members.get(&sid)?.client.clone());
    match (own, line) {
        (Some(own), Some(line)) if !is_same_address(&own, &line) => {
            let (sid, a, b) = (sid.unwrap_or_default(), shown(&own), shown(&line));
            Err(Invalid::new(format!(
                "client address for this server (id = {sid}) in static config file is {a} is \
                 different from client address found in dynamic file: {b}"
            )))
        }
        (own, line) => Ok(line.or(own)),
    }
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
    let peer_type = keys.peer_type.unwrap_or(Role::Participant);
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
