//! The AdminServer and the port of the Prometheus provider.

use std::fs;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use runtime_core::Handle;
use zab_storage::{FsyncTimes, SnapshotRequest, StartTimes};
use zk_admin::{AdminOptions, AdminServer, Counts, Facts, Https, Restore, SnapshotFile};
use zk_service::{Probe, Service, Summary};

use crate::config::ServerConfig;
use crate::dir_sizes::{DirSizes, size_of};
use crate::pauses::Pauses;

/// The server for administrators, and what it shares with each incarnation of the server.
#[derive(Debug)]
pub(crate) struct Admin {
    server: Option<AdminServer>,
    counts: Arc<Counts>,
    /// Times of fsyncs.
    pub(crate) fsync_times: FsyncTimes,
    /// Times of snapshots.
    pub(crate) snapshot_times: FsyncTimes,
    /// Times of starts.
    pub(crate) start_times: StartTimes,
    /// Sizes of the directories.
    pub(crate) dir_sizes: DirSizes,
    /// A snapshot is wanted.
    pub(crate) snapshot_request: SnapshotRequest,
    /// Pauses of the loop, if they are looked for.
    pub(crate) pauses: Option<Pauses>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Unserved {
    /// The AdminServer of a server alone.
    Admin(String),
    /// The port for Prometheus.
    Metrics(String),
}

impl Admin {
    /// Serves the ports that `config` asks for. A member of an ensemble goes on without an AdminServer
    /// when its port is taken, and so does a server alone whose port nobody has chosen: 8080 is everybody's
    /// default.
    ///
    /// # Errors
    /// A port that cannot be had otherwise.
    pub(crate) fn start(
        config: &ServerConfig,
        https: Option<Https>,
        restore: Arc<dyn Restore>,
    ) -> Result<Self, Unserved> {
        let mut admin = Self {
            server: None,
            counts: Arc::default(),
            fsync_times: FsyncTimes::default(),
            snapshot_times: FsyncTimes::default(),
            start_times: StartTimes::default(),
            dir_sizes: DirSizes::new(config),
            snapshot_request: SnapshotRequest::default(),
            pauses: config.pauses.map(Pauses::new),
        };
        let keys = &config.admin;
        let metrics = keys.metrics.as_ref().map(|at| bind(at).map_err(Unserved::Metrics));
        let metrics = metrics.transpose()?;
        if let Some((host, port)) = &keys.metrics {
            log::info!("Started Prometheus metrics provider on address {host}, port {port}");
        }
        let port = match keys.admin.as_ref().map(bind) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(error)) if config.standalone && keys.port_is_set => {
                return Err(Unserved::Admin(error));
            }
            Some(Err(error)) => {
                log::warn!(
                    "Problem starting AdminServer, going on without it: {error} (admin.serverPort \
                     chooses another port, admin.enableServer=false none)"
                );
                None
            }
        };
        if port.is_none() && metrics.is_none() {
            return Ok(admin);
        }
        let mut facts = facts(config, &admin.fsync_times, &admin.snapshot_request);
        facts.restore = Some(restore);
        let counts = Arc::clone(&admin.counts);
        let has_port = port.is_some();
        let options = AdminOptions::default().with(|options| {
            options.admin = port;
            options.https = https;
            options.metrics = metrics;
            options.command_url.clone_from(&keys.command_url);
            options.idle_timeout = keys.idle_timeout;
            options.rate_limit_interval = keys.rate_limit_interval;
            options.trusts_forwarded_for = keys.trusts_forwarded_for;
            options.snapshot_enabled = keys.snapshot_enabled;
            options.restore_enabled = keys.restore_enabled;
            options.process_metrics = keys.process_metrics;
            options.facts = facts;
            options.counts = counts;
        });
        let server =
            AdminServer::start(options).map_err(|error| Unserved::Admin(error.to_string()))?;
        if let Some((host, port)) = keys.admin.as_ref().filter(|_| has_port) {
            let url = &keys.command_url;
            log::info!("Started AdminServer on address {host}, port {port} and command URL {url}");
        }
        admin.server = Some(server);
        Ok(admin)
    }

    /// From now on this server is asked; `None`: there is none at present.
    pub(crate) fn ask(&self, handle: Option<Handle<Service>>) {
        if let Some(server) = &self.server {
            server.source().set(handle);
        }
    }
}

impl Admin {
    /// What the AdminServer counts, for `mntr`.
    pub(crate) fn figures(&self) -> Vec<(&'static str, Probe<u64>)> {
        let counter = |of: fn(&Counts) -> &AtomicU64| {
            let counts = Arc::clone(&self.counts);
            Probe::new(move |reset| {
                let count = of(&counts);
                if reset { count.swap(0, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) }
            })
        };
        vec![
            ("zab_slow_fsyncs", {
                let times = self.fsync_times.clone();
                // Set back with `fsynctime`, of which it is a part.
                Probe::new(move |_| times.summary().slow)
            }),
            ("insecure_admin_count", counter(|counts| &counts.insecure)),
            ("restore_error_count", counter(|counts| &counts.restore_errors)),
            ("restore_rate_limited_count", counter(|counts| &counts.restores_limited)),
            ("snapshot_error_count", counter(|counts| &counts.snapshot_errors)),
            ("snapshot_rate_limited_count", counter(|counts| &counts.snapshots_limited)),
        ]
    }

    /// How long restores took.
    pub(crate) fn restore_time(&self) -> Probe<Summary> {
        let counts = Arc::clone(&self.counts);
        Probe::new(move |reset| counts.restore_time(reset))
    }
}

fn bind((host, port): &(String, u16)) -> Result<TcpListener, String> {
    let bound = (host.as_str(), *port)
        .to_socket_addrs()
        .and_then(|addresses| TcpListener::bind(addresses.collect::<Vec<_>>().as_slice()));
    bound.map_err(|error: io::Error| format!("{host}:{port}: {error}"))
}

fn facts(config: &ServerConfig, times: &FsyncTimes, request: &SnapshotRequest) -> Facts {
    let mut facts = Facts::default();
    let data = config.data_dir.join("version-2");
    let log = config.data_log_dir.join("version-2");
    let snapshots = data.clone();
    facts.dir_sizes = Arc::new(move || (size_of(&data), size_of(&log)));
    facts.last_snapshot = Arc::new(move || newest_snapshot(&snapshots));
    let request = request.clone();
    facts.take_snapshot = Some(Arc::new(move || request.make()));
    let times = times.clone();
    facts.slow_fsyncs = Arc::new(move || times.summary().slow);
    let properties = config.properties.iter();
    facts.properties =
        properties.map(|(name, s)| (name.to_owned(), shown(name, &s.value))).collect();
    for (name, value) in [
        ("java.io.tmpdir", std::env::temp_dir().display().to_string()),
        ("os.name", std::env::consts::OS.into()),
        ("os.arch", std::env::consts::ARCH.into()),
    ] {
        facts.properties.push((name.into(), value));
    }
    facts.initial_configuration = config.file.is_some().then(|| {
        let lines = config.text.lines().map(|line| match line.split_once('=') {
            Some((name, value)) => format!("{name}={}", shown(name.trim(), value)),
            None => line.to_owned(),
        });
        lines.map(|line| line + "\n").collect()
    });
    facts
}

/// A value as anybody may see it: not if it is a password.
fn shown(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    let is_secret = name.ends_with("password") || name.ends_with("superdigest");
    if is_secret { "*****".into() } else { value.to_owned() }
}

/// The snapshot file with the highest zxid.
fn newest_snapshot(dir: &Path) -> Option<SnapshotFile> {
    let files = fs::read_dir(dir).ok()?.flatten();
    let named = files.filter_map(|file| Some((snapshot_zxid(&file.file_name())?, file.path())));
    let (zxid, path): (i64, PathBuf) = named.max_by_key(|(zxid, _)| *zxid)?;
    let written = fs::metadata(&path).and_then(|m| m.modified()).ok()?;
    let timestamp = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Some(SnapshotFile { zxid, timestamp, path })
}

/// The zxid of `snapshot.<zxid>`, compressed or not.
fn snapshot_zxid(name: &std::ffi::OsStr) -> Option<i64> {
    let rest = name.to_str()?.strip_prefix("snapshot.")?;
    let (digits, suffix) = rest.split_once('.').unwrap_or((rest, ""));
    let known = ["", "gz", "snappy"].contains(&suffix);
    known.then(|| i64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots() {
        for (name, zxid) in [
            ("snapshot.0", Some(0)),
            ("snapshot.10000001f", Some(0x1_0000_001f)),
            ("snapshot.a.gz", Some(10)),
            ("snapshot.a.snappy", Some(10)),
            ("snapshot.a.tmp", None),
            ("log.a", None),
            ("snapshot.", None),
        ] {
            assert_eq!(snapshot_zxid(std::ffi::OsStr::new(name)), zxid, "{name}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for name in [
            "zookeeper.ssl.keyStore.password",
            "ssl.quorum.trustStore.password",
            "zookeeper.DigestAuthenticationProvider.superDigest",
        ] {
            assert_eq!(shown(name, "secret"), "*****");
        }
        assert_eq!(shown("zookeeper.ssl.keyStore.passwordPath", "/x"), "/x");
    }
}
