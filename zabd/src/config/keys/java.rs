//! Properties without the prefix, and what concerns Java itself.

use super::Fate::{Checked, Guards, Ignored, Used, Warned};
use super::Reader::{Bool, GetInt, GetLong, Text, Unless};
use super::When::{Always, Changed};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;

pub(super) const PLAIN: Section = Section {
    title: "Properties without a prefix",
    place: Place::Plain,
    keys: keys! {
        "jute.maxbuffer", GetInt(1), "1048575", Guards("bytes of a client's longest request, and of the longest field");
        "readonlymode.enabled", Bool, "false", Used("a member that finds no leader for max(2 s, tickTime) lets clients read that say that this is enough; isro is answered");
        "fsync.warningthresholdms", GetLong(0), "1000", Used("milliseconds that an fsync may take without a warning; also with the prefix");
        "znode.container.checkIntervalMs", GetInt(1), "60000", Used("milliseconds between looks at containers and TTL nodes");
        "znode.container.maxPerMinute", GetInt(MIN), "10000", Warned(Changed, "containers and TTL nodes are removed as soon as they are found");
        "znode.container.maxNeverUsedIntervalMs", GetLong(0), "0", Used("milliseconds after which a container that was never used is removed, 0 for never");
        "leader.nodelay", Unless("false"), "true", Ignored("nothing is delayed to fill packets");
        "follower.nodelay", Unless("false"), "true", Ignored("nothing is delayed to fill packets");
        "learner.asyncSending", Bool, "false", Ignored("nobody waits for a learner to take what it is sent");
        "learner.closeSocketAsync", Bool, "false", Ignored("nobody waits for a connection to close");
        "leader.closeSocketAsync", Bool, "false", Ignored("nobody waits for a connection to close");
        "java.security.auth.login.config", Text, "", Checked("the JAAS file with names and passwords of clients and members, for SASL");
    },
};

pub(super) const PIPELINE: Section = Section {
    title: "Threads of ZooKeeper that are not there",
    place: Place::Property,
    keys: keys! {
        "commitProcessor.*", Text, "", Ignored("there is no commit processor");
        "log.*", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "root.logger", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "console.threshold", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "tracelog.*", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "auditlog.*", Text, "", Ignored("of the audit log, auditlog.file says where it goes");
        "jmx.*", Text, "", Ignored("there is no Java virtual machine; mntr has the figures");
        "request.timeout", GetInt(MIN), "0", Ignored("a setting of clients");
        "clientCnxnSocket", Text, "", Ignored("a setting of clients");
        "disableAutoWatchReset", Bool, "false", Ignored("a setting of clients");
    },
};

pub(super) const MACHINE: Section = Section {
    title: "Properties of Java",
    place: Place::Plain,
    keys: keys! {
        "com.sun.management.jmxremote*", Text, "", Warned(Always, "there is no JMX; mntr has the figures");
        "java.*", Text, "", Ignored("a setting of the Java virtual machine");
        "javax.*", Text, "", Ignored("a setting of the Java virtual machine");
        "jdk.*", Text, "", Ignored("a setting of the Java virtual machine");
        "sun.*", Text, "", Ignored("a setting of the Java virtual machine");
        "com.sun.*", Text, "", Ignored("a setting of the Java virtual machine");
        "networkaddress.cache.*", Text, "", Ignored("names are looked up anew for each connection");
        "user.*", Text, "", Ignored("a setting of the Java virtual machine");
        "file.encoding", Text, "", Ignored("a setting of the Java virtual machine");
        "log4j*", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "logback*", Text, "", Ignored("the log goes to stderr; RUST_LOG says how much of it");
        "io.netty.*", Text, "", Ignored("a setting of a library that is not used");
    },
};
