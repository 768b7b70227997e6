//! From the configuration to what core, storage, service and runtime take.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use runtime_core::{Listen, NetOptions, Oracle, OracleFile, ServerOptions};
use zab_proto::{Config, DetectionConfig, ElectionConfig, Limits};
use zab_storage::{Compression, OnConfigurations};
use zk_service::{
    ConnectionThrottle, DigestAlgorithm, LargeRequests, RequestThrottle, ServiceOptions,
};

use crate::config::{ServerConfig, SystemProperties};
use crate::dynamic::{self, DynamicFiles};

/// What a runtime takes. The ports are bound apart from it.
pub(crate) fn server(config: &ServerConfig) -> ServerOptions {
    let core = core(config);
    let net = net(config, &core);
    let storage = storage(config, &core);
    let mut options = ServerOptions::new(core, Listen::default(), &config.data_dir);
    options.net = net;
    options.oracle =
        config.oracle.as_ref().map(|path| -> Arc<dyn Oracle> { Arc::new(OracleFile::new(path)) });
    options.storage = storage;
    options
}

fn core(config: &ServerConfig) -> Config {
    let properties = &config.properties;
    let mut core = if config.standalone {
        Config::standalone(config.sid)
    } else {
        Config::new(config.sid, config.ensemble.clone())
    };
    core.tick_time = config.tick_time;
    core.init_limit = config.init_limit;
    core.sync_limit = config.sync_limit;
    core.connect_to_learner_master_limit = config.connect_to_learner_master_limit;
    core.observer_master_port = config.observer_master_port;
    core.multi_address = config.multi_address;
    core.reconfig = config.changes_members();
    core.oracle = config.oracle.is_some();
    core.allow_unlisted = properties.bool("zab.allowUnlistedServers", false);
    core.check_addresses = properties.bool("zab.checkPeerAddresses", true);
    // ZooKeeper trusts an empty directory by default. Here the operator has to say so, because a
    // wiped server that votes can undo what was acknowledged (rule R14).
    core.trust_empty |= properties.bool("db.autocreate", false);
    core.election = election(properties);
    core.detection = detection(properties);
    core.limits = limits(properties);
    // Every member may be connected twice on each port while connections are replaced.
    let links_max = core.ensemble.members.len().saturating_mul(4);
    core.limits.links_max = core.limits.links_max.max(links_max);
    // Any number will do that differs between servers and starts.
    core.seed = RandomState::new().hash_one(config.sid.0);
    core
}

fn election(properties: &SystemProperties) -> ElectionConfig {
    let mut election = ElectionConfig::default();
    let ms = |key, default: Duration| milliseconds(properties, key, default);
    election.min_notification_interval =
        ms("fastleader.minNotificationInterval", election.min_notification_interval);
    election.max_notification_interval =
        ms("fastleader.maxNotificationInterval", election.max_notification_interval);
    election.early_finalize = properties.bool("election.earlyFinalize", election.early_finalize);
    election.leader_retry_max = ms("leaderConnectDelayDuringRetryMs", election.leader_retry_max);
    election.observer_delay_max = ms("observer.election.DelayMs", election.observer_delay_max);
    election
}

fn detection(properties: &SystemProperties) -> DetectionConfig {
    let mut detection = DetectionConfig::default();
    let ms = |key, default: Duration| milliseconds(properties, key, default);
    detection.heartbeat = ms("zab.heartbeatMs", detection.heartbeat);
    detection.suspect_min = ms("zab.suspectMinMs", detection.suspect_min);
    detection.disk_stall_max = ms("zab.diskStallMaxMs", detection.disk_stall_max);
    detection
}

/// `jute.maxbuffer`: the longest frame of a client, in bytes.
fn jute_max_buffer(properties: &SystemProperties) -> usize {
    properties.number("jute.maxbuffer", JUTE_MAX_BUFFER).min(FIELD_LEN_MAX_BYTES)
}

fn limits(properties: &SystemProperties) -> Limits {
    let mut limits = Limits::default();
    let max_buffer = jute_max_buffer(properties);
    let extra = properties.number("jute.maxbuffer.extrasize", max_buffer).max(EXTRA_MIN_BYTES);
    let snapshots = properties.number("leader.maxConcurrentSnapSyncs", limits.snapshots_max);
    limits.field_len_max_bytes = max_buffer.saturating_add(extra).min(FIELD_LEN_MAX_BYTES);
    // Smaller numbers become ZooKeeper's default there, too.
    limits.retained_txns =
        properties.number("commitLogCount", limits.retained_txns).max(limits.retained_txns);
    limits.snapshots_max = snapshots.max(1);
    limits.window_len_max_bytes =
        properties.number("zab.window.maxBytes", limits.window_len_max_bytes);
    limits.retained_len_max_bytes =
        properties.number("zab.retained.maxBytes", limits.retained_len_max_bytes);
    limits.requests_len_max_bytes =
        properties.number("zab.learner.maxRequestBytes", limits.requests_len_max_bytes);
    limits
}

fn net(config: &ServerConfig, core: &Config) -> NetOptions {
    let properties = &config.properties;
    let mut net = NetOptions::for_config(core);
    net.connect_timeout = milliseconds(properties, "cnxTimeout", net.connect_timeout);
    net.address_timeout = config.address_timeout;
    net.client_unread_max_bytes = jute_max_buffer(properties) + FRAME_HEAD_LEN_BYTES;
    net.peer_keep_alive = properties.bool("tcpKeepAlive", false);
    net.client_keep_alive = properties.bool("clientTcpKeepAlive", false);
    net.clients_turn_bytes = properties.number("zab.clients.turnBytes", net.clients_turn_bytes);
    net.peer_descriptors = properties.number("zab.descriptors.peers", net.peer_descriptors);
    net.file_descriptors = properties.number("zab.descriptors.files", net.file_descriptors);
    net.connections_max = properties.number("zab.maxConnections", net.connections_max);
    net
}

fn storage(config: &ServerConfig, core: &Config) -> zab_storage::Options {
    let properties = &config.properties;
    let default = zab_storage::Options::new(&config.data_dir);
    let kilobytes = |key, default: u64| {
        let default = i64::try_from(default >> 10).unwrap_or(i64::MAX);
        // Zero and below: off.
        u64::try_from(properties.number(key, default)).unwrap_or(0).saturating_mul(1024)
    };
    zab_storage::Options::new(&config.data_dir).with(|options| {
        options.log_dir = config.data_log_dir.clone();
        options.prealloc_bytes = kilobytes("preAllocSize", default.prealloc_bytes);
        options.force_sync = properties.bool("forceSync", true);
        options.snap_count = properties.number("snapCount", default.snap_count).max(2);
        options.snap_size_limit = kilobytes("snapSizeLimitInKb", default.snap_size_limit);
        options.txn_log_size_limit = kilobytes("txnLogSizeLimitInKb", default.txn_log_size_limit);
        options.fsync_warning =
            milliseconds(properties, "fsync.warningthresholdms", default.fsync_warning);
        options.compression = compression(properties);
        options.zxid_section =
            properties.bool("serializeLastProcessedZxid.enabled", default.zxid_section);
        options.datadir_autocreate =
            properties.bool("datadir.autocreate", default.datadir_autocreate);
        options.autocreate = core.trust_empty;
        options.trust_empty_snapshot = properties.bool("snapshot.trust.empty", false);
        options.max_batch =
            usize::try_from(properties.number::<i64>("maxBatchSize", 0)).unwrap_or(0);
        options.snapshot_size_factor =
            snapshot_size_factor(properties, default.snapshot_size_factor);
        options.seed = core.seed;
        options.configurations = dynamic::left_behind(config);
        if let Some(files) = DynamicFiles::of(config) {
            options.on_configurations = OnConfigurations::new(move |texts| files.write(texts));
        }
    })
}

/// What ZooKeeper does not take becomes its default.
fn snapshot_size_factor(properties: &SystemProperties, default: f64) -> f64 {
    let factor = properties.fraction("snapshotSizeFactor", default);
    if factor <= 1.0 { factor } else { default }
}

/// The start is refused for any other name.
fn digest_algorithm(properties: &SystemProperties) -> DigestAlgorithm {
    let name = properties.text("DigestAuthenticationProvider.digestAlg");
    name.and_then(DigestAlgorithm::from_name).unwrap_or_default()
}

fn compression(properties: &SystemProperties) -> Compression {
    let method = properties.text("snapshot.compression.method").unwrap_or_default();
    match method.to_ascii_lowercase().as_str() {
        "gz" => Compression::Gz,
        "snappy" => Compression::Snappy,
        _ => Compression::None,
    }
}

/// `globalOutstandingLimit`: below zero as zero, with which each client has one request under way.
fn outstanding_limit(properties: &SystemProperties) -> usize {
    let default = ServiceOptions::default().global_outstanding_limit;
    let limit =
        properties.number("globalOutstandingLimit", i64::try_from(default).unwrap_or(i64::MAX));
    usize::try_from(limit).unwrap_or(0)
}

fn connection_throttle(properties: &SystemProperties) -> ConnectionThrottle {
    let name = |name: &str| format!("connection_throttle_{name}");
    let number = |key: &str, default: u32| properties.number(&name(key), default);
    let fraction = |key: &str, default: f64| properties.fraction(&name(key), default);
    let freeze_ms: i64 = properties.number(&name("freeze_time"), -1);
    let mut throttle = ConnectionThrottle::default();
    throttle.tokens = number("tokens", throttle.tokens);
    throttle.fill_time = milliseconds(properties, &name("fill_time"), throttle.fill_time);
    throttle.fill_count = number("fill_count", throttle.fill_count);
    throttle.freeze_time = u64::try_from(freeze_ms).ok().map(Duration::from_millis);
    throttle.drop_increase = fraction("drop_increase", throttle.drop_increase);
    throttle.drop_decrease = fraction("drop_decrease", throttle.drop_decrease);
    throttle.decrease_ratio = fraction("decrease_ratio", throttle.decrease_ratio);
    throttle.weighed = properties.bool(&name("weight_enabled"), throttle.weighed);
    throttle.global_weight = number("global_session_weight", throttle.global_weight);
    throttle.renew_weight = number("renew_session_weight", throttle.renew_weight);
    throttle.local_weight = number("local_session_weight", throttle.local_weight);
    throttle
}

fn large_requests(properties: &SystemProperties) -> LargeRequests {
    let threshold: i64 = properties.number("largeRequestThreshold", -1);
    LargeRequests {
        threshold: usize::try_from(threshold).ok().filter(|threshold| *threshold > 0),
        max_bytes: properties.number("largeRequestMaxBytes", LargeRequests::default().max_bytes),
    }
}

/// What the service takes.
pub(crate) fn service(config: &ServerConfig) -> ServiceOptions {
    let properties = &config.properties;
    let default = ServiceOptions::default();
    let whitelist = properties.text("4lw.commands.whitelist");
    let ms = |key, default: Duration| milliseconds(properties, key, default);
    let number = |key, default: usize| properties.number(key, default);
    ServiceOptions::default().with(|options| {
        options.session_server_id = if config.standalone { 1 } else { config.sid.0 };
        options.tick_time = config.tick_time;
        options.min_session_timeout = Some(config.min_session_timeout);
        options.max_session_timeout = Some(config.max_session_timeout);
        options.local_sessions = config.local_sessions;
        options.local_sessions_upgrading = config.local_sessions_upgrading;
        options.jute_max_buffer = jute_max_buffer(properties);
        options.max_client_cnxns = config.max_client_cnxns;
        options.max_cnxns = properties.number("maxCnxns", 0);
        options.connection_throttle = connection_throttle(properties);
        options.global_outstanding_limit = outstanding_limit(properties);
        options.request_throttle = RequestThrottle {
            max_requests: number("request_throttle_max_requests", 0),
            wait_max: ms("throttled_op_wait_time", Duration::ZERO),
        };
        options.large_requests = large_requests(properties);
        options.leader_serves = properties.bool("leaderServes", default.leader_serves);
        options.sessionless_timeout = ms("nio.sessionlessCnxnTimeout", default.sessionless_timeout);
        options.four_letter_whitelist = whitelist.map_or(default.four_letter_whitelist, |words| {
            words.split(',').map(|word| word.trim().to_owned()).collect()
        });
        options.extended_types = properties.bool("extendedTypesEnabled", default.extended_types);
        options.enforce_quota = properties.bool("enforceQuota", default.enforce_quota);
        options.skip_acl = properties.bool("skipACL", false);
        options.digest_auth =
            properties.bool("DigestAuthenticationProvider.enabled", default.digest_auth);
        options.digest_algorithm = digest_algorithm(properties);
        options.super_digest =
            properties.text("DigestAuthenticationProvider.superDigest").map(str::to_owned);
        options.x509_auth = config.x509_auth;
        options.x509_super_user =
            properties.text("X509AuthenticationProvider.superUser").map(str::to_owned);
        options.enforce_auth = config.enforce_auth.clone();
        options.sasl = config.sasl.clients.clone();
        options.ensemble_auth = config.ensemble_auth.clone();
        options.read_only_mode = properties.bool("readonlymode.enabled", default.read_only_mode);
        options.digests = properties.bool("digest.enabled", default.digests);
        options.container_check_interval =
            ms("znode.container.checkIntervalMs", default.container_check_interval);
        options.container_never_used =
            ms("znode.container.maxNeverUsedIntervalMs", default.container_never_used);
        options.in_flight_max = number("zab.client.maxRequests", default.in_flight_max);
        options.out_len_soft_max_bytes =
            number("zab.client.maxReplyBytes", default.out_len_soft_max_bytes);
        options.events_len_max_bytes =
            number("zab.client.maxEventBytes", default.events_len_max_bytes);
        options.watches_len_max_bytes =
            number("zab.client.maxWatchBytes", default.watches_len_max_bytes);
        options.ids_len_max_bytes =
            number("zab.client.maxIdentityBytes", default.ids_len_max_bytes);
        options.hold_clients = Some(ms("zab.holdClientsMs", config.tick_time * 2));
        options.hold_len_max_bytes = number("zab.hold.maxBytes", default.hold_len_max_bytes);
        options.clients_len_max_bytes =
            number("zab.clients.maxBytes", default.clients_len_max_bytes);
        options.reply_len_max_bytes = number("zab.reply.maxBytes", default.reply_len_max_bytes);
        options.work_per_turn = properties.number("zab.work.perTurn", default.work_per_turn);
        options.work_per_request =
            properties.number("zab.work.perRequest", default.work_per_request);
        options.conf = conf(config);
        options.membership = (!config.standalone).then(|| config.ensemble.text());
        options.reconfig = config.reconfig;
        options.standalone_enabled = config.standalone_enabled;
        options.environment = environment();
    })
}

/// What `conf` shows.
fn conf(config: &ServerConfig) -> Vec<(String, String)> {
    let version_dir = |dir: &std::path::Path| dir.join("version-2").display().to_string();
    let backlog = config.client_backlog.map_or_else(|| "-1".into(), |n| n.to_string());
    let port = config.client.as_ref().map_or_else(|| "-1".into(), |(_, port)| port.to_string());
    let secure = config.tls.secure_client.as_ref();
    let secure = secure.map_or_else(|| "-1".into(), |(_, port)| port.to_string());
    let mut conf = vec![
        ("clientPort", port),
        ("secureClientPort", secure),
        ("dataDir", version_dir(&config.data_dir)),
        ("dataLogDir", version_dir(&config.data_log_dir)),
        ("tickTime", config.tick_time.as_millis().to_string()),
        ("maxClientCnxns", config.max_client_cnxns.to_string()),
        ("minSessionTimeout", config.min_session_timeout.as_millis().to_string()),
        ("maxSessionTimeout", config.max_session_timeout.as_millis().to_string()),
        ("clientPortListenBacklog", backlog),
        ("serverId", if config.standalone { 0 } else { config.sid.0 }.to_string()),
    ];
    let member = config.ensemble.members.get(&config.sid);
    if let Some(address) = member.and_then(|member| member.addresses.first()) {
        let observer = member.is_some_and(|m| m.role == zab_proto::Role::Observer);
        conf.extend([
            ("initLimit", config.init_limit.to_string()),
            ("syncLimit", config.sync_limit.to_string()),
            ("electionAlg", "3".into()),
            ("electionPort", address.election_port.to_string()),
            ("quorumPort", address.quorum_port.to_string()),
            ("peerType", u8::from(observer).to_string()),
        ]);
    }
    conf.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What `envi` shows, as far as it means something without Java.
fn environment() -> Vec<(String, String)> {
    let read = |path| {
        std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |s| s.trim().to_owned())
    };
    let var = |name| std::env::var(name).unwrap_or_else(|_| "unknown".into());
    let dir =
        std::env::current_dir().map_or_else(|_| "unknown".into(), |d| d.display().to_string());
    [
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("os.name", std::env::consts::OS.into()),
        ("os.arch", std::env::consts::ARCH.into()),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("user.name", var("USER")),
        ("user.home", var("HOME")),
        ("user.dir", dir),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn milliseconds(properties: &SystemProperties, key: &str, default: Duration) -> Duration {
    let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(properties.number(key, default))
}

/// ZooKeeper's default of `jute.maxbuffer`, in bytes.
const JUTE_MAX_BUFFER: usize = 0xf_ffff;
/// Smaller values of `jute.maxbuffer.extrasize` are raised to this, in bytes.
const EXTRA_MIN_BYTES: usize = 1024;
/// The longest field that the encoding can name, in bytes.
const FIELD_LEN_MAX_BYTES: usize = i32::MAX as usize;
/// The length in front of a client's frame, in bytes.
const FRAME_HEAD_LEN_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_field_is_a_frame_and_its_extra() {
        for (flags, expected) in [
            ("", 2_097_150),
            ("-Djute.maxbuffer=4194304", 8_388_608),
            ("-Djute.maxbuffer=4194304 -Dzookeeper.jute.maxbuffer.extrasize=5000", 4_199_304),
            ("-Djute.maxbuffer=4194304 -Dzookeeper.jute.maxbuffer.extrasize=3", 4_195_328),
            ("-Djute.maxbuffer=100", 1124),
            ("-Djute.maxbuffer=2147483647", 2_147_483_647),
        ] {
            let mut properties = SystemProperties::default();
            properties.set_jvm_flags(&crate::config::Origin::CommandLine, flags);
            assert_eq!(limits(&properties).field_len_max_bytes, expected, "{flags}");
        }
    }
}
