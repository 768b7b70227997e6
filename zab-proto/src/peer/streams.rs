//! Snapshots and logs between servers: what becomes of them outside of the core.
//!
//! [`Node`](crate::Node) makes these calls for its application and storage.

use super::roles::Role;
use crate::{ConnId, Instant, LogDemand, Peer, Zxid};

impl Peer {
    /// What the application made of the bytes of [`Message::Snapshot`](crate::Message::Snapshot).
    pub fn snapshot_received(&mut self, _now: Instant, _conn: ConnId, done: bool) {
        if let Role::Learner(learner) = &mut self.role {
            learner.snapshot_received(done);
        }
    }

    /// Who has learners: the answer to [`Output::Log`](crate::Output::Log).
    pub fn log_opened(&mut self, conn: ConnId, opened: bool) {
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.log_opened(&mut self.shared, conn, opened),
            Role::Leader(leader) => leader.log_opened(&mut self.shared, conn, opened),
        }
    }

    /// Whether a learner can take more of the log now.
    #[must_use]
    pub fn wants_log(&self, conn: ConnId) -> LogDemand {
        match &self.role {
            Role::Leader(leader) => leader.wants_log(&self.shared.history, conn),
            Role::Learner(learner) => learner.wants_log(&self.shared.history, conn),
            Role::Looking(_) => LogDemand::Ended,
        }
    }

    /// Who has learners: the next transaction of the log for a learner; `None` is the end of what
    /// [`Output::Log`](crate::Output::Log) asked for.
    pub fn log_record(&mut self, conn: ConnId, record: Option<(Zxid, &[u8])>) {
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.log_record(&mut self.shared, conn, record),
            Role::Leader(leader) => leader.log_record(&mut self.shared, conn, record),
        }
    }

    /// Who has learners: `n` bytes of the lent snapshot went to the socket; the longest piece so far that its
    /// reader has to hold whole has `longest` bytes.
    pub fn snapshot_sent(&mut self, conn: ConnId, n: usize, longest: usize) {
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => learner.snapshot_sent(conn, n, longest),
            Role::Leader(leader) => leader.snapshot_sent(conn, n, longest),
        }
    }
}
