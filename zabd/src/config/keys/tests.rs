//! The table of keys against its pages, and each key against what it says of itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::config::{Origin, ServerConfig, SystemProperties};
use crate::{options, ports};

/// Names of properties and keys in the sources of ZooKeeper 3.8 and 3.9: every literal that a server reads.
const KNOWN_TO_ZOOKEEPER: &str = "
    4lw.commands.whitelist DigestAuthenticationProvider.digestAlg DigestAuthenticationProvider.enabled
    DigestAuthenticationProvider.superDigest IPAuthenticationProvider.usexforwardedfor
    SASLAuthenticationProvider.superPassword X509AuthenticationProvider.superUser admin.commandURL
    admin.enableServer admin.forceHttps admin.httpVersion admin.idleTimeout admin.needClientAuth
    admin.portUnification admin.rateLimiterIntervalInMS admin.restore.enabled admin.serverAddress
    admin.serverPort admin.snapshot.enabled allowSaslFailedClients audit.enable audit.impl.class
    authProvider.1 autopurge.purgeInterval autopurge.snapRetainCount bitHashCacheSize client.certReload
    client.portUnification clientPort clientPortAddress clientPortListenBacklog clientTcpKeepAlive
    closeSessionTxn.enabled cnxTimeout commitLogCount commitProcessor.maxCommitBatchSize
    commitProcessor.maxReadBatchSize commitProcessor.numWorkerThreads commitProcessor.shutdownTimeout
    connectToLearnerMasterLimit connection_throttle_decrease_ratio connection_throttle_drop_decrease
    connection_throttle_drop_increase connection_throttle_fill_count connection_throttle_fill_time
    connection_throttle_freeze_time connection_throttle_global_session_weight
    connection_throttle_local_session_weight connection_throttle_renew_session_weight
    connection_throttle_tokens connection_throttle_weight_enabled dataDir dataLogDir datadir.autocreate
    db.autocreate digest.enabled dynamicConfigFile electionAlg electionPortBindRetry emulate353TTLNodes
    enableEagerACLCheck enforce.auth.enabled enforce.auth.schemes enforceQuota ensembleAuthName
    extendedTypesEnabled fastleader.maxNotificationInterval fastleader.minNotificationInterval fips-mode
    flushDelay follower.nodelay follower.skipLearnerRequestToNextProcessor forceSnapshotSync forceSync
    forward_learner_requests_to_commit_processor_disabled fsync.warningthresholdms
    globalOutstandingLimit group.1 initLimit intBufferStartingSizeBytes java.security.auth.login.config
    jmx.log4j.disable jute.maxbuffer jute.maxbuffer.extrasize jvm.pause.info-threshold.ms
    jvm.pause.monitor jvm.pause.sleep.time.ms jvm.pause.warn-threshold.ms
    kerberos.canonicalizeHostNames kerberos.minReLoginTimeMs kerberos.removeHostFromPrincipal
    kerberos.removeRealmFromPrincipal kinit largeRequestMaxBytes largeRequestThreshold
    leader.ackLoggingFrequency leader.closeSocketAsync leader.maxConcurrentDiffSyncs
    leader.maxConcurrentSnapSyncs leader.maxTimeToWaitForEpoch leader.nodelay
    leaderConnectDelayDuringRetryMs leaderServes learner.asyncSending learner.closeSocketAsync
    letAnySaslUserDoX localSessionsEnabled localSessionsUpgradingEnabled maxBatchSize maxClientCnxns
    maxCnxns maxGetChildrenResponseCacheSize maxInProcessingDeadWatchers maxResponseCacheSize
    maxSessionTimeout maxWriteQueuePollTime messageTracker.BufferSize messageTracker.Enabled
    metricsProvider.className metricsProvider.exportJvmInfo metricsProvider.httpHost
    metricsProvider.httpPort metricsProvider.maxQueueSize metricsProvider.numWorkerThreads
    metricsProvider.workerShutdownTimeoutMs minSessionTimeout multiAddress.enabled
    multiAddress.reachabilityCheckEnabled multiAddress.reachabilityCheckTimeoutMs
    netty.advancedFlowControl.enabled netty.server.earlyDropSecureConnectionHandshakes
    netty.server.outstandingHandshake.limit nio.directBufferBytes nio.numSelectorThreads
    nio.numWorkerThreads nio.sessionlessCnxnTimeout nio.shutdownTimeout observer.election.DelayMs
    observer.reconnectDelayMs observer.syncEnabled observerMaster.sizeLimit observerMasterPort oraclePath
    pathStats.delay pathStats.enabled pathStats.initialDelay pathStats.maxDepth pathStats.sampleRate
    pathStats.slotCapacity pathStats.slotDuration pathStats.topPathMax peerType portUnification
    preAllocSize quorum.auth.enableSasl quorum.auth.kerberos.servicePrincipal
    quorum.auth.learner.saslLoginContext quorum.auth.learnerRequireSasl
    quorum.auth.server.saslLoginContext quorum.auth.serverRequireSasl quorum.cnxn.threads.size
    quorumCnxnTimeoutMs quorumListenOnAllIPs readonlymode.enabled reconfigEnabled
    request_stale_connection_check request_stale_latency_check request_throttle_drop_stale
    request_throttle_max_requests request_throttle_stall_time request_throttler.shutdownTimeout
    requireKerberosConfig sasl.serverconfig secureClientPort secureClientPortAddress
    security.auth_to_local serializeLastProcessedZxid.enabled server.1 server.realm serverCnxnFactory
    sessionRequireClientSASLAuth skipACL snapCount snapSizeLimitInKb snapshot.compression.method
    snapshot.trust.empty snapshotSizeFactor ssl.allowReverseDnsLookup ssl.authProvider ssl.ciphersuites
    ssl.clientAuth ssl.clientHostnameVerification ssl.context.supplier.class ssl.crl
    ssl.enabledProtocols ssl.handshakeDetectionTimeoutMillis ssl.hostnameVerification
    ssl.keyStore.location ssl.keyStore.password ssl.keyStore.passwordPath ssl.keyStore.type ssl.ocsp
    ssl.protocol ssl.quorum.clientAuth ssl.quorum.keyStore.location ssl.quorum.trustStore.location
    ssl.sslProvider ssl.trustStore.location ssl.trustStore.password ssl.trustStore.passwordPath
    ssl.trustStore.type sslQuorum sslQuorumReloadCertFiles standaloneEnabled superUser superUser.1
    syncEnabled syncLimit tcpKeepAlive test.allowDiscontinuousProposals testingonly.initialZxid
    throttled_op_wait_time tickTime txnLogSizeLimitInKb watchManagerName watcherCleanIntervalInSeconds
    watcherCleanThreadsNum watcherCleanThreshold weight.1 znode.container.checkIntervalMs
    znode.container.maxNeverUsedIntervalMs znode.container.maxPerMinute";

#[test]
fn every_key_of_zookeeper_is_in_the_table() {
    let missing: Vec<_> =
        KNOWN_TO_ZOOKEEPER.split_whitespace().filter(|name| find(name).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_key_has_one_row_and_a_default_that_can_be_read() {
    let mut seen = BTreeSet::new();
    for (_, key) in all() {
        assert!(seen.insert(key.name), "{} has two rows", key.name);
        let readable = key.default.is_empty() || key.reader.can_read(key.default);
        assert!(readable, "{}: {}", key.name, key.default);
        let relied_on = match key.fate {
            Fate::Warned(When::Always, _) | Fate::Refused(When::Always, _) => false,
            Fate::Warned(when, _) | Fate::Refused(when, _) | Fate::Risks(_, when, _) => {
                when.applies(key, key.default)
            }
            _ => false,
        };
        // The exception is said where its default is.
        assert!(!relied_on || key.name == "admin.enableServer", "{} by default", key.name);
    }
}

#[test]
fn suggestions() {
    for (name, meant) in [
        ("ticktime", Some("tickTime")),
        ("snap_count", Some("snapCount")),
        ("snapCuont", Some("snapCount")),
        ("maxClientCnxn", Some("maxClientCnxns")),
        ("jute.max.buffer", Some("jute.maxbuffer")),
        ("maxConcurrentSnapSyncs", Some("leader.maxConcurrentSnapSyncs")),
        ("traceFile", None),
        ("x", None),
    ] {
        assert_eq!(similar(name), meant, "{name}");
    }
}

/// A directory with what the keys of the ensemble need, gone with the test.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("zabd-keys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("myid"), "1").unwrap();
        Self(dir)
    }

    /// All that the parts of the server are given for `lines` and `property`, as text.
    fn options(&self, lines: &[(&str, &str)], property: Option<(&str, &str)>) -> String {
        let mut text = String::new();
        let dir = self.0.display().to_string();
        let base = [
            ("dataDir", dir.as_str()),
            ("clientPort", "0"),
            ("initLimit", "10"),
            ("syncLimit", "5"),
            ("server.1", "127.0.0.1:1:2"),
            ("server.2", "127.0.0.1:3:4"),
            ("server.3", "127.0.0.1:5:6"),
        ];
        let kept = base.iter().filter(|(key, _)| lines.iter().all(|line| line.0 != *key));
        for (key, value) in kept.chain(lines) {
            text += &format!("{key}={value}\n");
        }
        let mut properties = SystemProperties::default();
        if let Some((name, value)) = property {
            properties.set(Origin::CommandLine, name, value);
        }
        let config = ServerConfig::parse(text.as_bytes(), properties, None)
            .unwrap_or_else(|error| panic!("{text}{property:?}: {error}"));
        let mut server = options::server(&config);
        // Drawn again at each start.
        server.config.seed = 0;
        server.storage.seed = 0;
        let purge = (config.purge_interval, config.snap_retain_count);
        let bind_retry = config.properties.number("electionPortBindRetry", 3);
        let ports = ports::wanted(&config);
        let service = options::service(&config);
        format!("{server:#?}\n{service:#?}\n{ports:?}{purge:?}{bind_retry}")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A usable value other than the default.
fn other_value(key: &Key) -> &'static str {
    match (key.name, key.reader) {
        ("dataLogDir", _) => "/some/where/else",
        ("clientPortAddress", _) => "127.0.0.7",
        ("server.*", _) => "127.0.0.9:7:8",
        ("group.*", _) => "1:2:3",
        ("weight.*", _) => "7",
        ("4lw.commands.whitelist", _) => "ruok,stat",
        ("DigestAuthenticationProvider.superDigest", _) => "super:abc",
        ("X509AuthenticationProvider.superUser", _) => "CN=root",
        ("superUser" | "superUser.*" | "letAnySaslUserDoX", _) => "somebody",
        ("snapshot.compression.method", _) => "GZ",
        ("DigestAuthenticationProvider.digestAlg", _) => "sha-512",
        (_, Reader::StrictBool | Reader::Bool) if key.default == "true" => "False",
        (_, Reader::StrictBool | Reader::Bool) => "True",
        (_, Reader::IfYes) => "yes",
        (_, Reader::Unless(off)) => off,
        (_, Reader::GetInt(_) | Reader::GetLong(_)) => "0x1f3",
        (_, Reader::ParseInt(_) | Reader::ParseLong(_)) => "499",
        (_, Reader::Double) => "0.5",
        (_, Reader::Port | Reader::Hours) => "7",
        (name, reader) => panic!("{name}: no value for {reader:?}"),
    }
}

/// Proves that what the table calls used is used: another value gives the parts of the server
/// other options, the default gives them the same ones, and what it does not call used changes
/// nothing.
#[test]
fn exactly_the_used_keys_change_something() {
    let dir = Dir::new();
    let plain = dir.options(&[], None);
    let mut wrong = Vec::new();
    for (place, key) in all() {
        // These have tests of their own, or a meaning only together with others.
        if ["dataDir", "dynamicConfigFile", "peerType", "standaloneEnabled", "multiAddress.enabled"]
            .contains(&key.name)
        {
            continue;
        }
        let used = matches!(
            key.fate,
            Fate::Used(_) | Fate::Guards(_) | Fate::Risks(..) | Fate::Demands(..)
        );
        if !used {
            continue;
        }
        let name = match key.name {
            "server.*" => "server.3",
            "group.*" => "group.1",
            "weight.*" => "weight.1",
            "superUser.*" => "superUser.7",
            name => name,
        };
        let value = match key.name {
            "maxSessionTimeout" => "499000",
            "commitLogCount" => "501",
            _ => other_value(key),
        };
        let by_file = |value| {
            let grouped = [(name, value), ("group.1", "1:2:3")];
            let lines = if name == "weight.1" { &grouped[..] } else { &grouped[..1] };
            dir.options(lines, None)
        };
        if by_file(value) == plain {
            wrong.push(format!("{name}={value} changes nothing"));
        }
        if !key.default.is_empty() && key.name != "weight.*" && by_file(key.default) != plain {
            wrong.push(format!("{name}={} is not the default", key.default));
        }
        let property = match place {
            Place::File => continue,
            Place::Property => format!("zookeeper.{name}"),
            Place::Plain => name.to_owned(),
        };
        if dir.options(&[], Some((&property, value))) == plain {
            wrong.push(format!("-D{property}={value} changes nothing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The page is the introduction and what `zabd keys` prints. To bring it up to date, replace all
/// below the marker by that.
#[test]
fn the_documentation_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, table) = page.split_once("<!-- zabd keys -->\n").expect("the marker");
    assert!(
        table.trim() == markdown().trim(),
        "docs/configuration.md is not what `zabd keys` prints"
    );
}
