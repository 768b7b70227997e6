//! What concerns elections and learners (`QuorumCnxManager`, `FastLeaderElection`, `Leader`,
//! `Learner`, `Observer`, `CommitProcessor`).

use super::Fate::{Guards, Ignored, Used, Warned};
use super::Reader::{Bool, GetInt, GetLong, ParseInt, Unless};
use super::When::{Changed, Off};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;

pub(super) const PEERS: Section = Section {
    title: "Elections and learners",
    place: Place::Property,
    keys: keys! {
        "cnxTimeout", ParseInt(0), "5000", Guards("milliseconds for connecting to another server");
        "quorumCnxnTimeoutMs", GetInt(MIN), "-1", Ignored("a connection of the election is not ended for being silent");
        "electionPortBindRetry", GetInt(0), "3", Used("further attempts to bind the peer ports, one a second; 0 for any number");
        "tcpKeepAlive", Bool, "false", Used("keep-alive probes on connections between servers");
        "fastleader.minNotificationInterval", GetInt(0), "200", Used("milliseconds until a vote is sent again, at first");
        "fastleader.maxNotificationInterval", GetInt(0), "60000", Used("milliseconds until a vote is sent again, at most");
        "election.earlyFinalize", Bool, "true", Used("this server's own: an election ends as soon as all have voted");
        "leaderConnectDelayDuringRetryMs", GetInt(0), "100", Used("milliseconds between attempts to connect to the leader, at most");
        "leaderServes", Unless("no"), "yes", Used("the leader of an ensemble serves clients, too");
        "leader.maxConcurrentSnapSyncs", GetInt(MIN), "4", Used("learners that may be sent a snapshot at a time, at least 1; ZooKeeper's default is 10");
        "leader.maxConcurrentDiffSyncs", GetInt(MIN), "100", Ignored("learners that are sent transactions only do not wait for each other");
        "leader.maxTimeToWaitForEpoch", GetInt(MIN), "-1", Ignored("initLimit bounds how long a new leader waits");
        "leader.ackLoggingFrequency", GetInt(MIN), "1000", Ignored("acknowledgements are not logged");
        "observer.reconnectDelayMs", GetLong(i64::MIN), "0", Warned(Changed, "an observer that has lost its leader, or has tried all observer masters, waits as observer.election.DelayMs says");
        "observer.election.DelayMs", GetLong(0), "200", Used("milliseconds at most by which an observer delays its part in an election");
        "observer.syncEnabled", Bool, "true", Warned(Off, "an observer writes log and snapshots all the same");
        "observerMaster.sizeLimit", GetInt(MIN), "33554432", Ignored("an observer that lags is served from the log on disk, and nothing is kept for it in memory");
        "forward_learner_requests_to_commit_processor_disabled", Bool, "false", Ignored("there is no commit processor");
        "follower.skipLearnerRequestToNextProcessor", Bool, "false", Ignored("there is no commit processor");
    },
};
