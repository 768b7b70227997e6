//! What concerns log and snapshots (`FileTxnLog`, `FileTxnSnapLog`, `FilePadding`, `SnapStream`,
//! `ZKDatabase`).

use super::Fate::{Ignored, Risks, Used, Warned};
use super::Reader::{Bool, Double, GetInt, GetLong, ParseInt, ParseLong, Text, Unless};
use super::When::{Always, Changed, NotIn, Off, On};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;

pub(super) const STORAGE: Section = Section {
    title: "Log and snapshots",
    place: Place::Property,
    keys: keys! {
        "snapCount", GetInt(MIN), "100000", Used("transactions between snapshots, at least 2; the number is drawn anew between half of it and it");
        "snapSizeLimitInKb", GetLong(i64::MIN), "4194304", Used("KiB of log between snapshots, 0 for any size");
        "txnLogSizeLimitInKb", GetLong(i64::MIN), "-1", Used("KiB after which a new log file begins, 0 and below for any size");
        "preAllocSize", ParseLong(0), "65536", Used("KiB that a log file grows by");
        "forceSync", Unless("no"), "yes", Risks("transactions are on the disk before they are acknowledged", Off, "what was acknowledged can be lost when the machine loses power");
        "flushDelay", GetLong(i64::MIN), "0", Ignored("what waits while the disk is busy is written together");
        "maxWriteQueuePollTime", GetLong(i64::MIN), "0", Ignored("what waits while the disk is busy is written together");
        "maxBatchSize", GetInt(MIN), "0", Used("transactions that are written with one fsync at most, 0 for all that wait; ZooKeeper's default is 1000");
        "commitLogCount", ParseInt(MIN), "500", Used("transactions kept in memory for learners that come back; fewer than 500 become 500");
        "snapshotSizeFactor", Double, "0.33", Used("a learner is sent a part of the log files only up to this part of the snapshot's size; negative for never, above 1 becomes 0.33");
        "forceSnapshotSync", Bool, "false", Warned(On, "learners get a snapshot only if they need one");
        "snapshot.compression.method", Text, "", Risks("gz or snappy; empty for none", NotIn(&["", "gz", "snappy"]), "the method is not known, snapshots are not compressed");
        "snapshot.trust.empty", Bool, "false", Used("a log without any snapshot is believed, as after an update from ZooKeeper 3.4");
        "serializeLastProcessedZxid.enabled", Bool, "false", Used("snapshots end with the last zxid in them; ZooKeeper 3.9's default is true, 3.8 does not know it");
        "datadir.autocreate", Bool, "true", Used("missing data directories are made");
        "db.autocreate", Bool, "false", Risks("an empty data directory counts as an empty history; ZooKeeper's default is true, see initialize", On, "a server whose disk was wiped votes, and can undo what was acknowledged");
        "testingonly.initialZxid", Text, "", Warned(Always, "the first zxid is not set");
        "test.allowDiscontinuousProposals", Bool, "false", Warned(Changed, "a gap in the proposals is never allowed");
    },
};
