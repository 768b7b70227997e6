//! Synchronisation, the leader's half: how a learner gets the history, and when enough have it.

use super::{Leader, LeaderStep};
use crate::history::History;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{CloseReason, ConnId, Instant, LogDemand, Zxid};

impl Leader {
    /// The end of what a learner is sent before NEWLEADER. Before the epoch is established the whole
    /// initial history goes out as committed; after that, what is committed.
    fn sync_end(&self, history: &History) -> Index {
        if self.is_established() { history.committed() } else { history.end() }
    }

    /// Begins to synchronise a learner that has promised the epoch.
    pub(super) fn synchronize(&mut self, shared: &mut Shared, conn: ConnId) {
        let sync_end = self.sync_end(&shared.history);
        let Some(link) = self.link(conn) else { return };
        link.to.begin(shared, sync_end);
        if link.to.stage == LearnerStage::SnapshotQueued {
            self.open_snapshots(shared);
        }
    }

    /// Asks for the application's snapshot for as many waiting learners as may have one.
    pub(super) fn open_snapshots(&mut self, shared: &mut Shared) {
        if let Some(conn) = self.links.open_snapshots(shared) {
            // Which comes back here.
            self.close(shared, conn, CloseReason::SnapshotWanted);
        }
    }

    /// Closes who takes a snapshot at no pace at all while others that count for as much wait for one.
    pub(super) fn watch_snapshots(&mut self, shared: &mut Shared) {
        if let Some(conn) = self.links.idle_snapshot(shared) {
            self.close(shared, conn, CloseReason::SnapshotWanted);
        }
    }

    /// Whether the log can be read for a learner.
    pub(crate) fn log_opened(&mut self, shared: &mut Shared, conn: ConnId, opened: bool) {
        let Some(link) = self.link(conn) else { return };
        match link.to.log_opened(shared, opened) {
            Ok(()) if link.to.stage == LearnerStage::SnapshotQueued => self.open_snapshots(shared),
            Ok(()) => {}
            Err(reason) => self.close(shared, conn, reason),
        }
    }

    /// Whether more of the log is wanted for a learner now.
    pub(crate) fn wants_log(&self, history: &History, conn: ConnId) -> LogDemand {
        self.links.get(conn).map_or(LogDemand::Ended, |link| link.to.wants_log(history))
    }

    /// The next transaction of the log, or its end.
    pub(crate) fn log_record(
        &mut self,
        shared: &mut Shared,
        conn: ConnId,
        record: Option<(Zxid, &[u8])>,
    ) {
        let own = self.own();
        let Some(link) = self.link(conn) else { return };
        if let Err(reason) = link.to.log_record(&shared.history, own, record) {
            self.close(shared, conn, reason);
        }
    }

    /// The application's snapshot is about to be opened for a learner. False if it has gone.
    pub(crate) fn lend_snapshot(&mut self, history: &History, conn: ConnId) -> bool {
        let sync_end = self.sync_end(history);
        let Some(link) = self.link(conn) else { return false };
        link.to.lend(history, sync_end);
        true
    }

    /// Part of the snapshot is on its way.
    pub(crate) fn snapshot_sent(&mut self, conn: ConnId, n: usize, longest: usize) {
        if let Some(link) = self.link(conn) {
            link.to.snapshot_sent(n, longest);
        }
    }

    /// The snapshot is written out; the rest of the history follows its signature.
    pub(crate) fn snapshot_done(&mut self, shared: &mut Shared, conn: ConnId) {
        if self.link(conn).is_some_and(|link| link.to.snapshot_done()) {
            self.open_snapshots(shared);
        }
    }

    /// The acknowledgement of NEWLEADER.
    pub(super) fn on_synced(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        let established = self.is_established();
        let step = self.step;
        let silent_at = now + shared.config.ticks(shared.config.sync_limit);
        let Some(link) = self.link(conn) else { return };
        link.to.stage = LearnerStage::NewLeaderAcked;
        link.to.silent_at = silent_at;
        link.acked = link.acked.max(link.to.sync_end);
        let (sid, counts, acked) = (link.to.sid, link.counts(), link.acked);
        if counts {
            self.write_epoch(shared);
            // No acknowledgement comes for what it brought along.
            self.hear_ack(sid, acked);
            self.commit_acked(shared);
        }
        if established {
            self.uptodate_pending = true;
            self.welcome_synced(shared);
        } else if step == LeaderStep::AwaitNewLeaderAck && counts {
            self.hear(sid);
            self.count_syncs(now, shared);
        }
    }

    /// Establishes the epoch once a quorum, this server included, is synchronised.
    pub(super) fn count_syncs(&mut self, now: Instant, shared: &mut Shared) {
        if self.step != LeaderStep::AwaitNewLeaderAck {
            return;
        }
        if shared.history.is_current_durable() && shared.history.is_settled() {
            self.hear(shared.config.sid);
        }
        if !self.heard.contains(&shared.config.sid)
            || !shared.quorums.is_quorum(|sid| self.heard.contains(&sid))
        {
            return;
        }
        self.step = LeaderStep::Established;
        self.heard.clear();
        self.last_proposed = Zxid::new(self.epoch, 0);
        shared.history.commit(self.first_proposal);
        self.begin_members(now, shared);
        let alive_until = now + shared.config.ticks(shared.config.sync_limit + 1);
        let silent_at = now + shared.config.ticks(shared.config.sync_limit);
        for link in
            self.links.iter_mut().filter(|link| link.to.stage == LearnerStage::NewLeaderAcked)
        {
            link.alive_until = link.alive_until.max(alive_until);
            link.to.silent_at = silent_at;
        }
        self.uptodate_pending = true;
        self.welcome_synced(shared);
        self.watch_itself(now, shared);
        self.tend_standing(shared);
        self.announce(shared);
    }

    /// UPTODATE to all that are synchronised: commits flow from here on.
    ///
    /// A learner takes all that it holds then as committed, and may hold proposals that are not
    /// (its acknowledgements of them may have been lost with its last connection). It waits until
    /// they are.
    pub(super) fn welcome_synced(&mut self, shared: &mut Shared) {
        if !self.uptodate_pending {
            return;
        }
        self.uptodate_pending = false;
        let mut welcomed = false;
        let committed = shared.history.committed();
        for link in
            self.links.iter_mut().filter(|link| link.to.stage == LearnerStage::NewLeaderAcked)
        {
            if link.to.sync_end <= committed {
                link.to.stage = LearnerStage::UpToDate;
                link.to.out.put_bare(PacketType::UPTODATE, Zxid::from_raw(-1));
                welcomed = true;
            } else {
                self.uptodate_pending = true;
            }
        }
        if welcomed {
            self.tend_identity(shared);
        }
    }
}
