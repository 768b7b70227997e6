//! The keys that are ZooKeeper's own in `zoo.cfg` (`QuorumPeerConfig.parseProperties`).

use super::Fate::{Checked, Ignored, Refused, Used, Warned};
use super::Reader::{Hours, ParseInt, ParseLong, Port, StrictBool, Text};
use super::When::{Changed, Off};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;

pub(super) const SERVER: Section = Section {
    title: "The server",
    place: Place::File,
    keys: keys! {
        "dataDir", Text, "", Used("directory of snapshots, epochs and myid; must be set");
        "dataLogDir", Text, "", Used("directory of the transaction log; dataDir if not set");
        "clientPort", Port, "", Used("a port number, 0 for any free one: where clients connect");
        "clientPortAddress", Text, "0.0.0.0", Used("the address or name of clientPort");
        "secureClientPort", Port, "", Checked("where clients connect with TLS, beside clientPort or instead of it; needs ssl.keyStore.location");
        "secureClientPortAddress", Text, "0.0.0.0", Checked("the address or name of secureClientPort");
        "clientPortListenBacklog", ParseInt(MIN), "-1", Used("connections that wait to be accepted, -1 for the system's maximum");
        "maxClientCnxns", ParseInt(MIN), "60", Used("connections per client address, 0 for any number");
        "tickTime", ParseInt(MIN), "3000", Used("milliseconds, at least 1: the unit of time");
        "minSessionTimeout", ParseInt(MIN), "-1", Used("milliseconds, -1 for 2 ticks");
        "maxSessionTimeout", ParseInt(MIN), "-1", Used("milliseconds, -1 for 20 ticks");
        "localSessionsEnabled", StrictBool, "false", Used("a member of an ensemble keeps new sessions to itself, without a transaction, and as leader takes writes of such sessions; set it on all members. A standalone server has none");
        "localSessionsUpgradingEnabled", StrictBool, "false", Used("with localSessionsEnabled: a session becomes one of the ensemble before it creates an ephemeral node, which is refused otherwise (-120)");
        "autopurge.snapRetainCount", ParseInt(MIN), "3", Used("snapshots that a purge leaves, at least 3");
        "autopurge.purgeInterval", Hours, "0", Used("hours between purges, or a number with unit h or d; 0 for never");
        "metricsProvider.className", Text, "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider", Checked("with the Prometheus provider, /metrics is served on a port of its own; the default and the null provider are the same here, mntr shows all");
        "metricsProvider.httpHost", Text, "0.0.0.0", Checked("with the Prometheus provider: the address or name of its port");
        "metricsProvider.httpPort", Port, "7000", Checked("with the Prometheus provider: its port, without which the server does not start");
        "metricsProvider.exportJvmInfo", StrictBool, "true", Checked("figures of the process with the metrics, process_*");
        "metricsProvider.numWorkerThreads", ParseInt(MIN), "1", Ignored("metrics are counted where things happen, without threads or queues");
        "metricsProvider.maxQueueSize", ParseInt(MIN), "1000000", Ignored("as metricsProvider.numWorkerThreads");
        "metricsProvider.workerShutdownTimeoutMs", ParseLong(i64::MIN), "1000", Ignored("as metricsProvider.numWorkerThreads");
        "metricsProvider.*", Text, "", Ignored("settings of other providers");
        "jvm.pause.monitor", StrictBool, "false", Checked("pauses of the server's loop are looked for, measured (jvm_pause_time_ms) and told");
        "jvm.pause.warn-threshold.ms", ParseInt(0), "10000", Checked("with jvm.pause.monitor: milliseconds above which a pause is warned of");
        "jvm.pause.info-threshold.ms", ParseInt(0), "1000", Checked("with jvm.pause.monitor: milliseconds above which a pause is told");
        "jvm.pause.sleep.time.ms", ParseInt(1), "500", Checked("with jvm.pause.monitor: milliseconds between two looks");
    },
};

pub(super) const ENSEMBLE: Section = Section {
    title: "The ensemble",
    place: Place::File,
    keys: keys! {
        "server.*", Text, "", Used("server.<id>=<host>:<quorum port>:<election port>[:participant|observer][|...][;[<client host>:]<client port>]");
        "group.*", Text, "", Used("group.<number>=<id>:<id>:...");
        "weight.*", Text, "1", Used("weight.<id>=<number>");
        "dynamicConfigFile", Text, "", Used("the file with the keys server.N, group.N and weight.N");
        "peerType", Text, "participant", Used("participant or observer; the server's own line wins");
        "initLimit", ParseInt(MIN), "", Used("ticks, at least 1: how long a learner may connect and synchronise");
        "syncLimit", ParseInt(MIN), "", Used("ticks, at least 1: how long a learner or its leader may be silent");
        "connectToLearnerMasterLimit", ParseInt(MIN), "0", Used("ticks, 0 for initLimit: how long a learner tries to connect");
        "electionAlg", ParseInt(MIN), "3", Refused(Changed, "Invalid electionAlg value. Only 3 is supported.");
        "quorumListenOnAllIPs", StrictBool, "false", Used("peer ports listen on all addresses of the machine");
        "standaloneEnabled", StrictBool, "true", Used("a list of one server is a standalone server");
        "reconfigEnabled", StrictBool, "false", Used("clients may change the members (reconfig), and this server follows; without it, it ends with exit code 6 when a ZooKeeper leader changes them");
        "syncEnabled", StrictBool, "true", Warned(Off, "an observer writes log and snapshots all the same");
        "observerMasterPort", ParseInt(MIN), "0", Used("the port on which followers serve observers, and on which an observer learns from a follower; the same on all servers; 0: observers learn from the leader");
        "multiAddress.enabled", StrictBool, "false", Used("a server may have several addresses, joined by |");
        "multiAddress.reachabilityCheckEnabled", StrictBool, "true", Ignored("the addresses of a server are dialled one after the other, unreachable ones are skipped");
        "multiAddress.reachabilityCheckTimeoutMs", ParseInt(0), "1000", Used("milliseconds for each of several addresses of a server");
        "oraclePath", Text, "", Checked("a file that others write: with exactly two voters, one that does not hear the other is a quorum alone while the first byte of the file is 1. What it commits alone can be lost. With any other number of voters, or groups, it has no effect, and is warned of");
        "sslQuorum", StrictBool, "false", Checked("members are dialled with TLS and have to dial with it; needs ssl.quorum.keyStore.location and trustStore.location");
        "portUnification", StrictBool, "false", Checked("members may dial with TLS and without; they are dialled as sslQuorum says");
        "sslQuorumReloadCertFiles", StrictBool, "false", Ignored("certificates are read again whenever they change");
        "quorum.auth.enableSasl", StrictBool, "false", Checked("members may log in by SASL (DIGEST-MD5); both sections of the JAAS file are needed");
        "quorum.auth.serverRequireSasl", StrictBool, "false", Checked("members that do not log in are refused; needs quorum.auth.learnerRequireSasl");
        "quorum.auth.learnerRequireSasl", StrictBool, "false", Checked("this server logs in wherever it dials a member; needs quorum.auth.enableSasl");
        "quorum.auth.learner.saslLoginContext", Text, "QuorumLearner", Checked("the section of the JAAS file with this server's own name and password");
        "quorum.auth.server.saslLoginContext", Text, "QuorumServer", Checked("the section of the JAAS file with the names and passwords of members");
        "quorum.auth.kerberos.servicePrincipal", Text, "zkquorum/localhost", Ignored("used with Kerberos only");
        "quorum.cnxn.threads.size", ParseInt(MIN), "20", Ignored("no threads are needed to authenticate");
    },
};
