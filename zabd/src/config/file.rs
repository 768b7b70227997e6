//! The keys of the configuration file, one by one.

use std::path::PathBuf;

use zab_proto::{Ensemble, Role};

use super::error::Invalid;

/// Values as the file has them, not yet checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct FileKeys {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) data_log_dir: Option<PathBuf>,
    pub(crate) client_port: Option<u16>,
    pub(crate) client_port_address: Option<String>,
    pub(crate) secure_client_port: Option<u16>,
    pub(crate) secure_client_port_address: Option<String>,
    pub(crate) client_port_listen_backlog: i32,
    pub(crate) tick_time: i32,
    pub(crate) min_session_timeout: i32,
    pub(crate) max_session_timeout: i32,
    pub(crate) max_client_cnxns: i32,
    pub(crate) init_limit: i32,
    pub(crate) sync_limit: i32,
    pub(crate) connect_to_learner_master_limit: i32,
    pub(crate) quorum_listen_on_all_ips: bool,
    pub(crate) peer_type: Option<Role>,
    pub(crate) sync_enabled: bool,
    pub(crate) local_sessions_enabled: bool,
    pub(crate) local_sessions_upgrading_enabled: bool,
    pub(crate) standalone_enabled: bool,
    pub(crate) reconfig_enabled: bool,
    pub(crate) dynamic_config_file: Option<PathBuf>,
    pub(crate) snap_retain_count: i32,
    pub(crate) purge_interval_hours: i32,
    pub(crate) multi_address_enabled: bool,
    pub(crate) multi_address_timeout_ms: i32,
    pub(crate) metrics_provider: String,
    pub(crate) ensemble: Ensemble,
}

impl Default for FileKeys {
    fn default() -> Self {
        Self {
            data_dir: None,
            data_log_dir: None,
            client_port: None,
            client_port_address: None,
            secure_client_port: None,
            secure_client_port_address: None,
            client_port_listen_backlog: -1,
            tick_time: 3000,
            min_session_timeout: -1,
            max_session_timeout: -1,
            max_client_cnxns: 60,
            init_limit: 0,
            sync_limit: 0,
            connect_to_learner_master_limit: 0,
            quorum_listen_on_all_ips: false,
            peer_type: None,
            sync_enabled: true,
            local_sessions_enabled: false,
            local_sessions_upgrading_enabled: false,
            standalone_enabled: true,
            reconfig_enabled: false,
            dynamic_config_file: None,
            snap_retain_count: 3,
            purge_interval_hours: 0,
            multi_address_enabled: false,
            multi_address_timeout_ms: 1000,
            metrics_provider: DEFAULT_METRICS_PROVIDER.into(),
            ensemble: Ensemble::default(),
        }
    }
}

impl FileKeys {
    /// Takes one entry. Returns whether the key is one of the file's own; any other is a system
    /// property.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<bool, Invalid> {
        Ok(self.set_paths_and_ports(key, value)?
            || self.set_times_and_limits(key, value)?
            || self.set_switch(key, value)?
            || self.set_member(key, value)?
            || check_ignored(key, value)?)
    }

    fn set_paths_and_ports(&mut self, key: &str, value: &str) -> Result<bool, Invalid> {
        match key {
            "dataDir" => self.data_dir = Some(value.into()),
            "dataLogDir" => self.data_log_dir = Some(value.into()),
            "dynamicConfigFile" => self.dynamic_config_file = Some(value.into()),
            "clientPort" => self.client_port = Some(port(value)?),
            "clientPortAddress" => self.client_port_address = Some(value.into()),
            "secureClientPort" => self.secure_client_port = Some(port(value)?),
            "secureClientPortAddress" => self.secure_client_port_address = Some(value.into()),
            "clientPortListenBacklog" => {
                self.client_port_listen_backlog =
                    number(value, "connections, -1 for the system's")?;
            }
            "observerMasterPort" => {
                if number(value, "a port, or 0 for none")? > 0 {
                    log::warn!("observerMasterPort: observers are served by the leader only");
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_times_and_limits(&mut self, key: &str, value: &str) -> Result<bool, Invalid> {
        match key {
            "tickTime" => self.tick_time = number(value, "milliseconds, at least 1")?,
            "minSessionTimeout" => {
                self.min_session_timeout = number(value, "milliseconds, -1 for 2 ticks")?;
            }
            "maxSessionTimeout" => {
                self.max_session_timeout = number(value, "milliseconds, -1 for 20 ticks")?;
            }
            "maxClientCnxns" => {
                self.max_client_cnxns = number(value, "connections per address, 0 for any number")?;
            }
            "initLimit" => self.init_limit = number(value, "ticks, at least 1")?,
            "syncLimit" => self.sync_limit = number(value, "ticks, at least 1")?,
            "connectToLearnerMasterLimit" => {
                self.connect_to_learner_master_limit = number(value, "ticks, 0 for initLimit")?;
            }
            "electionAlg" => {
                if number(value, "3")? != 3 {
                    let reason = "Invalid electionAlg value. Only 3 is supported.";
                    return Err(Invalid::new(reason).accepted("3"));
                }
            }
            "autopurge.snapRetainCount" => {
                self.snap_retain_count = number(value, "snapshots, at least 3")?;
            }
            "autopurge.purgeInterval" => self.purge_interval_hours = hours(value)?,
            "multiAddress.reachabilityCheckTimeoutMs" => {
                self.multi_address_timeout_ms = number(value, "milliseconds")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_switch(&mut self, key: &str, value: &str) -> Result<bool, Invalid> {
        let switch = match key {
            "quorumListenOnAllIPs" => &mut self.quorum_listen_on_all_ips,
            "syncEnabled" => &mut self.sync_enabled,
            "localSessionsEnabled" => &mut self.local_sessions_enabled,
            "localSessionsUpgradingEnabled" => &mut self.local_sessions_upgrading_enabled,
            "standaloneEnabled" => &mut self.standalone_enabled,
            "reconfigEnabled" => &mut self.reconfig_enabled,
            "multiAddress.enabled" => &mut self.multi_address_enabled,
            _ => return Ok(false),
        };
        *switch = boolean(key, value)?;
        Ok(true)
    }

    fn set_member(&mut self, key: &str, value: &str) -> Result<bool, Invalid> {
        match key {
            "peerType" => {
                self.peer_type = Some(match value.to_ascii_lowercase().as_str() {
                    "participant" => Role::Participant,
                    "observer" => Role::Observer,
                    _ => {
                        let reason = format!("Unrecognised peertype: {value}");
                        return Err(Invalid::new(reason).accepted("participant or observer"));
                    }
                });
                Ok(true)
            }
            "metricsProvider.className" => {
                if !METRICS_PROVIDERS.contains(&value) {
                    return Err(Invalid::new("metrics provider class was not found")
                        .accepted("ZooKeeper's Default, Null and Prometheus providers"));
                }
                self.metrics_provider = value.into();
                Ok(true)
            }
            _ => {
                let set = self.ensemble.set(key, value);
                set.map_err(|error| Invalid::new(error.to_string()).accepted(member_form(key)))
            }
        }
    }
}

/// What is accepted for the keys of the ensemble.
pub(crate) fn member_form(key: &str) -> &'static str {
    if key.starts_with("group") {
        "group.<number>=<id>:<id>:..."
    } else if key.starts_with("weight") {
        "weight.<id>=<number>"
    } else {
        "server.<id>=<host>:<quorum port>:<election port>[:participant|observer][|...]\
         [;[<client host>:]<client port>]"
    }
}

/// Keys whose value must be right although nothing depends on it, and switches of what is not
/// there: those must be off, because the operator relies on what they protect.
fn check_ignored(key: &str, value: &str) -> Result<bool, Invalid> {
    match key {
        "sslQuorum"
        | "quorum.auth.enableSasl"
        | "quorum.auth.serverRequireSasl"
        | "quorum.auth.learnerRequireSasl" => {
            if boolean(key, value)? {
                let reason =
                    "connections between members can be neither encrypted nor authenticated";
                return Err(Invalid::new(reason).accepted("false"));
            }
        }
        "portUnification"
        | "sslQuorumReloadCertFiles"
        | "multiAddress.reachabilityCheckEnabled"
        | "jvm.pause.monitor" => {
            boolean(key, value)?;
        }
        "quorum.cnxn.threads.size"
        | "jvm.pause.warn-threshold.ms"
        | "jvm.pause.info-threshold.ms"
        | "jvm.pause.sleep.time.ms" => {
            number(value, "a whole number")?;
        }
        "oraclePath" => {
            return Err(Invalid::new("the oracle of two-server ensembles is not supported")
                .accepted("three or more participants"));
        }
        "quorum.auth.learner.saslLoginContext"
        | "quorum.auth.server.saslLoginContext"
        | "quorum.auth.kerberos.servicePrincipal" => {}
        _ => return Ok(key.starts_with("metricsProvider.")),
    }
    Ok(true)
}

fn not_a_number(value: &str) -> String {
    format!("For input string: \"{value}\"")
}

fn number(value: &str, accepted: &'static str) -> Result<i32, Invalid> {
    value.parse().map_err(|_| Invalid::new(not_a_number(value)).accepted(accepted))
}

fn port(value: &str) -> Result<u16, Invalid> {
    let accepted = "a port number, 0 to 65535";
    let port = number(value, accepted)?;
    let out_of_range = |_| Invalid::new(format!("port out of range:{port}")).accepted(accepted);
    port.try_into().map_err(out_of_range)
}

fn boolean(key: &str, value: &str) -> Result<bool, Invalid> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let reason = format!("Invalid option {value} for {key}. Choose 'true' or 'false.'");
            Err(Invalid::new(reason).accepted("true or false"))
        }
    }
}

/// Hours, or as of ZooKeeper 3.10 a number with a unit; rounded up to hours.
fn hours(value: &str) -> Result<i32, Invalid> {
    let accepted = "hours, or a number with unit h or d; 0 for never";
    let (digits, factor) = match value.as_bytes().last() {
        Some(b'h') => (&value[..value.len() - 1], 1),
        Some(b'd') => (&value[..value.len() - 1], 24),
        _ => (value, 1),
    };
    let hours = digits.parse::<i32>().ok().and_then(|n| n.checked_mul(factor));
    hours.ok_or_else(|| Invalid::new(not_a_number(value)).accepted(accepted))
}

pub(crate) const DEFAULT_METRICS_PROVIDER: &str =
    "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider";

const METRICS_PROVIDERS: &[&str] = &[
    DEFAULT_METRICS_PROVIDER,
    "org.apache.zookeeper.metrics.impl.NullMetricsProvider",
    "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
];

/// The keys above, to find what a misspelt one was meant to be.
pub(crate) const KEYS: &[&str] = &[
    "dataDir",
    "dataLogDir",
    "dynamicConfigFile",
    "clientPort",
    "clientPortAddress",
    "secureClientPort",
    "secureClientPortAddress",
    "clientPortListenBacklog",
    "observerMasterPort",
    "tickTime",
    "minSessionTimeout",
    "maxSessionTimeout",
    "maxClientCnxns",
    "initLimit",
    "syncLimit",
    "connectToLearnerMasterLimit",
    "electionAlg",
    "quorumListenOnAllIPs",
    "peerType",
    "syncEnabled",
    "localSessionsEnabled",
    "localSessionsUpgradingEnabled",
    "standaloneEnabled",
    "reconfigEnabled",
    "autopurge.snapRetainCount",
    "autopurge.purgeInterval",
    "sslQuorum",
    "portUnification",
    "multiAddress.enabled",
    "multiAddress.reachabilityCheckEnabled",
    "multiAddress.reachabilityCheckTimeoutMs",
    "metricsProvider.className",
];
