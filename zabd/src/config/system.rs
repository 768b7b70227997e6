//! System properties: `zookeeper.K` from the command line, or key `K` of the configuration file.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Named values, by full name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SystemProperties {
    values: BTreeMap<String, String>,
}

impl SystemProperties {
    /// Sets a property by its full name. A later value replaces an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// Takes the `-Dname=value` options out of a JVM command line, such as `SERVER_JVMFLAGS`.
    pub fn set_jvm_flags(&mut self, flags: &str) {
        for option in flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-D")) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            self.set(name, value);
        }
    }

    /// The property `zookeeper.<key>`, or `<key>` if it is one of Java's own.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        let own = PLAIN.contains(&key).then(|| self.values.get(key)).flatten();
        own.or_else(|| self.values.get(&format!("zookeeper.{key}"))).map(String::as_str)
    }

    /// True for exactly `true`, in any case.
    #[must_use]
    pub fn bool(&self, key: &str, default: bool) -> bool {
        self.text(key).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }

    /// A number; `default`, with a warning, if it is none.
    pub fn number<T: FromStr + Copy + std::fmt::Display>(&self, key: &str, default: T) -> T {
        let Some(text) = self.text(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            log::warn!("zookeeper.{key}: {text:?} is not a usable number, using {default}");
            default
        })
    }

    /// All properties, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Whether ZooKeeper or this server knows `zookeeper.<key>`.
#[must_use]
pub(crate) fn is_known(key: &str) -> bool {
    PLAIN.contains(&key)
        || KNOWN.contains(&key)
        || FAMILIES.iter().any(|family| key.starts_with(family))
}

/// A known key that `key` may have been meant to be.
#[must_use]
pub(crate) fn similar(key: &str) -> Option<&'static str> {
    let plain = |key: &str| key.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = plain(key);
    let known = super::file::KEYS.iter().chain(KNOWN).chain(PLAIN);
    known.copied().find(|known| plain(known) == wanted)
}

/// Java properties without the prefix. Users expect them to work in the file, too.
pub(crate) const PLAIN: &[&str] = &[
    "jute.maxbuffer",
    "readonlymode.enabled",
    "znode.container.checkIntervalMs",
    "znode.container.maxPerMinute",
    "znode.container.maxNeverUsedIntervalMs",
    "leader.nodelay",
    "follower.nodelay",
    "java.security.auth.login.config",
    "fsync.warningthresholdms",
];

/// Beginnings of names that are open-ended or belong to features accepted and ignored.
const FAMILIES: &[&str] = &[
    "ssl.",
    "superUser.",
    "authProvider.",
    "pathStats.",
    "messageTracker.",
    "watcherClean",
    "audit.",
    "sasl.",
    "kerberos.",
];

const KNOWN: &[&str] = &[
    "globalOutstandingLimit",
    "maxCnxns",
    "nio.sessionlessCnxnTimeout",
    "nio.numSelectorThreads",
    "nio.numWorkerThreads",
    "nio.directBufferBytes",
    "nio.shutdownTimeout",
    "intBufferStartingSizeBytes",
    "clientTcpKeepAlive",
    "tcpKeepAlive",
    "4lw.commands.whitelist",
    "snapCount",
    "snapSizeLimitInKb",
    "txnLogSizeLimitInKb",
    "preAllocSize",
    "forceSync",
    "flushDelay",
    "maxWriteQueuePollTime",
    "maxBatchSize",
    "commitLogCount",
    "snapshotSizeFactor",
    "forceSnapshotSync",
    "snapshot.compression.method",
    "snapshot.trust.empty",
    "serializeLastProcessedZxid.enabled",
    "digest.enabled",
    "closeSessionTxn.enabled",
    "datadir.autocreate",
    "db.autocreate",
    "extendedTypesEnabled",
    "emulate353TTLNodes",
    "enforceQuota",
    "skipACL",
    "enableEagerACLCheck",
    "maxResponseCacheSize",
    "maxGetChildrenResponseCacheSize",
    "request_throttle_max_requests",
    "request_throttle_stall_time",
    "request_throttle_drop_stale",
    "request_stale_connection_check",
    "request_stale_latency_check",
    "request_throttler.shutdownTimeout",
    "throttled_op_wait_time",
    "connection_throttle_tokens",
    "connection_throttle_fill_time",
    "connection_throttle_fill_count",
    "connection_throttle_freeze_time",
    "connection_throttle_drop_increase",
    "connection_throttle_drop_decrease",
    "connection_throttle_decrease_ratio",
    "connection_throttle_weight_enabled",
    "connection_throttle_global_session_weight",
    "connection_throttle_local_session_weight",
    "connection_throttle_renew_session_weight",
    "largeRequestThreshold",
    "largeRequestMaxBytes",
    "commitProcessor.numWorkerThreads",
    "commitProcessor.maxReadBatchSize",
    "commitProcessor.maxCommitBatchSize",
    "commitProcessor.shutdownTimeout",
    "watchManagerName",
    "bitHashCacheSize",
    "maxInProcessingDeadWatchers",
    "leaderServes",
    "cnxTimeout",
    "quorumCnxnTimeoutMs",
    "electionPortBindRetry",
    "fastleader.minNotificationInterval",
    "fastleader.maxNotificationInterval",
    "leader.maxConcurrentSnapSyncs",
    "leader.maxConcurrentDiffSyncs",
    "leader.maxTimeToWaitForEpoch",
    "leader.ackLoggingFrequency",
    "leader.closeSocketAsync",
    "learner.closeSocketAsync",
    "learner.asyncSending",
    "leaderConnectDelayDuringRetryMs",
    "observer.reconnectDelayMs",
    "observer.election.DelayMs",
    "observer.syncEnabled",
    "observerMaster.sizeLimit",
    "forward_learner_requests_to_commit_processor_disabled",
    "follower.skipLearnerRequestToNextProcessor",
    "DigestAuthenticationProvider.enabled",
    "DigestAuthenticationProvider.superDigest",
    "DigestAuthenticationProvider.digestAlg",
    "superUser",
    "X509AuthenticationProvider.superUser",
    "IPAuthenticationProvider.usexforwardedfor",
    "sessionRequireClientSASLAuth",
    "enforce.auth.enabled",
    "enforce.auth.schemes",
    "allowSaslFailedClients",
    "ensembleAuthName",
    "admin.enableServer",
    "admin.serverAddress",
    "admin.serverPort",
    "admin.commandURL",
    "admin.idleTimeout",
    "admin.portUnification",
    "admin.forceHttps",
    "admin.needClientAuth",
    "admin.httpVersion",
    "admin.rateLimiterIntervalInMS",
    "admin.snapshot.enabled",
    "admin.restore.enabled",
    "client.portUnification",
    "client.certReload",
    "fips-mode",
    "serverCnxnFactory",
    "testingonly.initialZxid",
    "jute.maxbuffer.extrasize",
    "election.earlyFinalize",
];
