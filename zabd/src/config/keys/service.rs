//! What concerns clients and the tree (`ZooKeeperServer`, `NIOServerCnxnFactory`, `DataTree`,
//! `BlueThrottle`, `RequestThrottler`).

use super::Fate::{Checked, Guards, Ignored, Refused, Risks, Used, Warned};
use super::Reader::{Bool, Double, GetInt, GetLong, IfYes, Text};
use super::When::{Above, Changed, Off, On};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;

pub(super) const CLIENTS: Section = Section {
    title: "Clients",
    place: Place::Property,
    keys: keys! {
        "maxCnxns", GetInt(MIN), "0", Guards("connections of all clients together, 0 for any number");
        "nio.sessionlessCnxnTimeout", GetInt(1), "10000", Used("milliseconds that a connection may be without a session");
        "clientTcpKeepAlive", Bool, "false", Used("keep-alive probes on connections of clients");
        "4lw.commands.whitelist", Text, "srvr", Used("four-letter words that are answered, joined by commas, or * for all");
        "globalOutstandingLimit", GetInt(MIN), "1000", Warned(Changed, "requests are bounded for each connection, not by one number for the server");
        "jute.maxbuffer.extrasize", GetInt(0), "", Guards("bytes that a field on the peer ports and on disk may be longer than jute.maxbuffer; as much again if not set");
        "maxResponseCacheSize", GetInt(MIN), "400", Ignored("replies are made from the tree each time; there is no cache");
        "maxGetChildrenResponseCacheSize", GetInt(MIN), "400", Ignored("replies are made from the tree each time; there is no cache");
        "ensembleAuthName", Text, "", Checked("names of this ensemble joined by commas, if the provider EnsembleAuthenticationProvider is there; warned of if not");
        "serverCnxnFactory", Text, "org.apache.zookeeper.server.NIOServerCnxnFactory", Ignored("the runtime is chosen with --runtime");
    },
};

pub(super) const TREE: Section = Section {
    title: "The tree",
    place: Place::Property,
    keys: keys! {
        "extendedTypesEnabled", Bool, "false", Used("TTL nodes may be created");
        "emulate353TTLNodes", Bool, "false", Refused(On, "the TTL nodes of ZooKeeper 3.5.3 would be taken for ephemeral nodes of sessions that have ended");
        "enforceQuota", Bool, "false", Guards("hard limits of quotas are enforced");
        "skipACL", IfYes, "no", Risks("access control lists are not looked at", On, "every client may read and write everything");
        "enableEagerACLCheck", Bool, "false", Ignored("the leader checks each write in its order, which is never laxer");
        "digest.enabled", Bool, "true", Used("transactions carry the digest of the tree");
        "closeSessionTxn.enabled", Bool, "true", Warned(Off, "the end of a session always lists its ephemeral nodes, as since ZooKeeper 3.6");
        "watchManagerName", Text, "org.apache.zookeeper.server.watch.WatchManager", Ignored("there is one kind of watch table");
        "watcherCleanThreshold", GetInt(MIN), "1000", Ignored("watches of a closed connection go with it");
        "watcherCleanIntervalInSeconds", GetInt(MIN), "600", Ignored("watches of a closed connection go with it");
        "watcherCleanThreadsNum", GetInt(MIN), "2", Ignored("watches of a closed connection go with it");
        "maxInProcessingDeadWatchers", GetInt(MIN), "-1", Ignored("watches of a closed connection go with it");
        "bitHashCacheSize", GetInt(MIN), "10", Ignored("there is one kind of watch table");
    },
};

const NO_CONNECTION_THROTTLE: &str = "used with connection_throttle_tokens only";
const NO_REQUEST_THROTTLE: &str = "used with request_throttle_max_requests only";

pub(super) const THROTTLES: Section = Section {
    title: "Throttles",
    place: Place::Property,
    keys: keys! {
        "connection_throttle_tokens", GetInt(MIN), "0", Warned(Above(0), "new sessions are not throttled");
        "connection_throttle_fill_time", GetInt(MIN), "1", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_fill_count", GetInt(MIN), "1", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_freeze_time", GetInt(MIN), "-1", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_drop_increase", Double, "0.02", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_drop_decrease", Double, "0.002", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_decrease_ratio", Double, "0", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_weight_enabled", Bool, "false", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_global_session_weight", GetInt(MIN), "3", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_local_session_weight", GetInt(MIN), "1", Ignored(NO_CONNECTION_THROTTLE);
        "connection_throttle_renew_session_weight", GetInt(MIN), "2", Ignored(NO_CONNECTION_THROTTLE);
        "request_throttle_max_requests", GetInt(MIN), "0", Warned(Above(0), "requests are bounded for each connection, not by one number for the server");
        "request_throttle_stall_time", GetInt(MIN), "100", Ignored(NO_REQUEST_THROTTLE);
        "request_throttle_drop_stale", Bool, "true", Ignored(NO_REQUEST_THROTTLE);
        "request_stale_connection_check", Bool, "true", Ignored(NO_REQUEST_THROTTLE);
        "request_stale_latency_check", Bool, "false", Ignored(NO_REQUEST_THROTTLE);
        "request_throttler.shutdownTimeout", GetInt(MIN), "10000", Ignored(NO_REQUEST_THROTTLE);
        "throttled_op_wait_time", GetInt(MIN), "0", Warned(Above(0), "no request is answered with ThrottledOp");
        "largeRequestThreshold", GetInt(MIN), "-1", Warned(Above(0), "large requests are not counted apart; jute.maxbuffer bounds each");
        "largeRequestMaxBytes", GetInt(MIN), "104857600", Ignored("used with largeRequestThreshold only");
        "pathStats.enabled", Bool, "false", Warned(On, "statistics of paths are not kept");
        "pathStats.*", Text, "", Ignored("used with pathStats.enabled only");
        "messageTracker.Enabled", Bool, "false", Warned(On, "messages between leader and learners are not kept for the log");
        "messageTracker.BufferSize", GetInt(MIN), "10", Ignored("used with messageTracker.Enabled only");
        "intBufferStartingSizeBytes", GetInt(MIN), "1024", Ignored("buffers grow as they need to");
        "nio.numSelectorThreads", GetInt(MIN), "", Ignored("one thread serves all connections");
        "nio.numWorkerThreads", GetInt(MIN), "", Ignored("one thread serves all connections");
        "nio.directBufferBytes", GetInt(MIN), "65536", Ignored("one thread serves all connections");
        "nio.shutdownTimeout", GetLong(i64::MIN), "5000", Ignored("one thread serves all connections");
        "netty.advancedFlowControl.enabled", Bool, "false", Ignored("a client that does not read is not read from either");
    },
};
