//! What concerns clients and the tree (`ZooKeeperServer`, `NIOServerCnxnFactory`, `DataTree`,
//! `BlueThrottle`, `RequestThrottler`).

use super::Fate::{Checked, Guards, Ignored, Refused, Risks, Used, Warned};
use super::Reader::{Bool, Double, GetInt, GetLong, IfYes, Text};
use super::When::{Off, On};
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
        "globalOutstandingLimit", GetInt(MIN), "1000", Guards("requests of all clients under way, above which who has one of them is not read; voters share it: each has this divided by their number less one, if they are more than two");
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

pub(super) const THROTTLES: Section = Section {
    title: "Throttles",
    place: Place::Property,
    keys: keys! {
        "connection_throttle_tokens", GetInt(0), "0", Guards("handshakes that may come at once, 0 for any number; who comes when there are no tokens left is disconnected");
        "connection_throttle_fill_time", GetInt(1), "1", Guards("milliseconds after which tokens come");
        "connection_throttle_fill_count", GetInt(0), "1", Guards("how many come");
        "connection_throttle_freeze_time", GetInt(-1), "-1", Guards("milliseconds after which the chance to be disconnected changes, whatever there is of tokens; -1: nobody is by chance");
        "connection_throttle_drop_increase", Double, "0.02", Used("how much that chance grows when there are no tokens");
        "connection_throttle_drop_decrease", Double, "0.002", Used("how much it falls when there are enough");
        "connection_throttle_decrease_ratio", Double, "0", Used("the part of the tokens that may be missing then");
        "connection_throttle_weight_enabled", Bool, "false", Used("handshakes take tokens by what they cost; tokens and fill_count then count new sessions");
        "connection_throttle_global_session_weight", GetInt(1), "3", Guards("tokens of a new session, at least those of a local one");
        "connection_throttle_local_session_weight", GetInt(1), "1", Guards("tokens of a new local session, which every other takes at least");
        "connection_throttle_renew_session_weight", GetInt(1), "2", Guards("tokens of a session that goes on, at least those of a local one");
        "request_throttle_max_requests", GetInt(0), "0", Guards("requests of all clients under way, from which on further ones wait in order; 0 for any number");
        "request_throttle_stall_time", GetInt(MIN), "100", Ignored("whoever waits goes on as soon as an answer makes room");
        "request_throttle_drop_stale", Bool, "true", Ignored("a request that waits is not read yet, and goes with its connection");
        "request_stale_connection_check", Bool, "true", Ignored("as request_throttle_drop_stale");
        "request_stale_latency_check", Bool, "false", Ignored("a session does not live on by requests that wait");
        "request_throttler.shutdownTimeout", GetInt(MIN), "10000", Ignored("nothing has to be emptied");
        "throttled_op_wait_time", GetInt(0), "0", Guards("milliseconds: who has waited longer because of request_throttle_max_requests is answered with ThrottledOp (-127); 0 for nobody");
        "largeRequestThreshold", GetInt(-1), "-1", Guards("bytes above which a request is a large one, -1 for none");
        "largeRequestMaxBytes", GetInt(1), "104857600", Guards("bytes of large requests under way; who sends one more is disconnected");
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
