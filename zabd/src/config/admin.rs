//! `admin.*` and `metricsProvider.*`: the ports for administrators and for Prometheus.

use std::time::Duration;

use super::error::Invalid;
use super::file::{FileKeys, PROMETHEUS};
use super::system::SystemProperties;
use super::tls::blame;

/// `jvm.pause.*`: when a pause of the server's loop is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PauseConfig {
    /// Between two looks.
    pub sleep: Duration,
    /// A pause above this is told.
    pub info: Duration,
    /// A pause above this is warned of.
    pub warn: Duration,
}

impl PauseConfig {
    /// Reads the keys; `None`: pauses are not looked for.
    pub(super) fn read(keys: &FileKeys) -> Option<Self> {
        let millis = |name| Duration::from_millis(u64::from(keys.number(name).unsigned_abs()));
        keys.is_on("jvm.pause.monitor").then(|| Self {
            sleep: millis("jvm.pause.sleep.time.ms"),
            info: millis("jvm.pause.info-threshold.ms"),
            warn: millis("jvm.pause.warn-threshold.ms"),
        })
    }
}

/// What is served over HTTP, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminConfig {
    /// Host and port of the AdminServer, if there is one.
    pub admin: Option<(String, u16)>,
    /// Its port is written down, not the default.
    pub port_is_set: bool,
    /// In front of the commands' names.
    pub command_url: String,
    /// After which a connection without motion is closed.
    pub idle_timeout: Duration,
    /// Between two snapshots.
    pub rate_limit_interval: Duration,
    /// A proxy in front says from which address somebody comes.
    pub trusts_forwarded_for: bool,
    /// The command `snapshot` is answered.
    pub snapshot_enabled: bool,
    /// The command `restore` is answered.
    pub restore_enabled: bool,
    /// Host and port of the Prometheus provider, if it is asked for.
    pub metrics: Option<(String, u16)>,
    /// Figures of the process with the metrics.
    pub process_metrics: bool,
}

const URL: &str = "admin.commandURL";
const PORT: &str = "admin.serverPort";
const IDLE: &str = "admin.idleTimeout";

impl AdminConfig {
    /// Reads the keys.
    ///
    /// # Errors
    /// A value that cannot be.
    pub(super) fn read(keys: &FileKeys, properties: &SystemProperties) -> Result<Self, Invalid> {
        let is_on = properties.bool("admin.enableServer", true);
        let port: i64 = properties.number(PORT, 8080);
        let Ok(port) = u16::try_from(port) else {
            let invalid = Invalid::new(format!("port out of range:{port}")).accepted("0 to 65535");
            return Err(blame(properties, PORT, invalid));
        };
        let host = properties.text("admin.serverAddress").unwrap_or("0.0.0.0").to_owned();
        let command_url = properties.text(URL).unwrap_or("/commands").trim_end_matches('/');
        if !command_url.starts_with('/') {
            let invalid = Invalid::new(format!("{command_url:?} is no path"));
            return Err(blame(properties, URL, invalid.accepted("a path such as /commands")));
        }
        let idle: u64 = properties.number(IDLE, 30_000);
        let limit: u64 = properties.number("admin.rateLimiterIntervalInMS", 300_000);
        let prometheus = keys.text("metricsProvider.className") == Some(PROMETHEUS);
        let metrics = || {
            let host = keys.text("metricsProvider.httpHost").unwrap_or("0.0.0.0").to_owned();
            (host, keys.port("metricsProvider.httpPort").unwrap_or(7000))
        };
        Ok(Self {
            admin: is_on.then_some((host, port)),
            port_is_set: properties.text(PORT).is_some(),
            command_url: command_url.to_owned(),
            idle_timeout: Duration::from_millis(idle),
            rate_limit_interval: Duration::from_millis(limit),
            trusts_forwarded_for: properties
                .bool("IPAuthenticationProvider.usexforwardedfor", false),
            snapshot_enabled: properties.bool("admin.snapshot.enabled", true),
            restore_enabled: properties.bool("admin.restore.enabled", true),
            metrics: prometheus.then(metrics),
            process_metrics: keys.is_on("metricsProvider.exportJvmInfo"),
        })
    }
}
