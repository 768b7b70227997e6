//! How an observer comes to a follower, and gets the history that it lacks.

use super::{Learner, Link};
use crate::history::History;
use crate::identity::differ;
use crate::leader::{LeaderInfo, LearnerIdentity};
use crate::sender::{LearnerStage, Own};
use crate::shared::Shared;
use crate::types::StateSummary;
use crate::wire::body::LearnerInfo;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{CloseReason, ConnId, DecodeError, Epoch, Instant, LogDemand, Notice, Violation, Zxid};

impl Learner {
    /// OBSERVERINFO. Voters are the leader's own affair.
    pub(super) fn invite(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.observers.links.get(conn) else { return Ok(()) };
        let sid = shared.admit(conn, link.remote, packet.data)?;
        let said = LearnerIdentity::read(packet);
        let own = shared.history.identity();
        if let Some((ours, theirs)) = differ(own, said.stored) {
            shared.notice(now, Notice::OtherEnsemble { sid, theirs, ours });
            return Err(CloseReason::Violation(Violation::OtherEnsemble { theirs, ours }));
        }
        if let Some((older, active_at)) = self.observers.links.rival(conn, sid) {
            if now.saturating_since(active_at) < shared.config.tick_time {
                return Err(CloseReason::Violation(Violation::Duplicate(sid)));
            }
            self.close_observer(shared, older, CloseReason::Superseded);
        }
        let epoch = self.epoch;
        let Some(link) = self.observers.links.get_mut(conn) else { return Ok(()) };
        let can_be_guest = extension::field(packet.data, LearnerInfo::LEN, Tag::GUEST).is_some();
        link.to.sid = sid;
        link.to.observer = true;
        link.to.stage = LearnerStage::LeaderInfoSent;
        link.said = said;
        link.told = own.filter(|_| said.keeps);
        // An epoch that was promised and never established keeps no observer out.
        let guest = can_be_guest && packet.zxid.epoch() > epoch;
        let told = LeaderInfo { guest, identity: link.told, ..LeaderInfo::default() };
        link.to.out.put(PacketType::LEADERINFO, Zxid::new(epoch, 0), Some(&told.encode()));
        Ok(())
    }

    /// ACKEPOCH.
    pub(super) fn on_observer_promise(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        conn: ConnId,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let data = packet.data.and_then(|data| data.first_chunk::<4>());
        let Some(data) = data else {
            return Err(CloseReason::Malformed(DecodeError::UnexpectedEof));
        };
        // It has been with a later leader than this server's.
        if packet.zxid.epoch() > self.epoch {
            return Err(CloseReason::Violation(Violation::LearnerAhead));
        }
        let until = now + shared.config.ticks(shared.config.init_limit);
        if let Some(link) = self.observers.links.get_mut(conn) {
            let current_epoch = Epoch(i64::from(i32::from_be_bytes(*data)));
            link.to.reported = StateSummary { current_epoch, last_zxid: packet.zxid };
            link.to.stage = LearnerStage::EpochAcked;
            link.until = until;
        }
        self.begin_observers(shared);
        Ok(())
    }

    /// Begins to synchronise observers that have nothing which this server does not know to be committed.
    /// The others come from a master that was faster: what they have will come here, too.
    pub(in crate::learner) fn begin_observers(&mut self, shared: &mut Shared) {
        let committed = shared.history.committed();
        let last = shared.history.window.zxid_before(committed.max(shared.history.window.first()));
        let mut queued = false;
        let may = |link: &&mut Link| {
            link.to.stage == LearnerStage::EpochAcked && link.to.reported.last_zxid <= last
        };
        for link in self.observers.links.iter_mut().filter(may) {
            link.to.begin(shared, committed);
            queued |= link.to.stage == LearnerStage::SnapshotQueued;
        }
        if queued {
            self.open_snapshots(shared);
        }
    }

    pub(super) fn open_snapshots(&mut self, shared: &mut Shared) {
        if let Some(conn) = self.observers.links.open_snapshots(shared) {
            // Which comes back here.
            self.close_observer(shared, conn, CloseReason::SnapshotWanted);
        }
    }

    /// Whether the log can be read for an observer.
    pub(crate) fn log_opened(&mut self, shared: &mut Shared, conn: ConnId, opened: bool) {
        let Some(link) = self.observers.links.get_mut(conn) else { return };
        match link.to.log_opened(shared, opened) {
            Ok(()) if link.to.stage == LearnerStage::SnapshotQueued => self.open_snapshots(shared),
            Ok(()) => {}
            Err(reason) => self.close_observer(shared, conn, reason),
        }
    }

    /// Whether more of the log is wanted for an observer now.
    pub(crate) fn wants_log(&self, history: &History, conn: ConnId) -> LogDemand {
        let link = self.observers.links.get(conn).filter(|_| !self.failed);
        link.map_or(LogDemand::Ended, |link| link.to.wants_log(history))
    }

    /// The next transaction of the log, or its end.
    pub(crate) fn log_record(
        &mut self,
        shared: &mut Shared,
        conn: ConnId,
        record: Option<(Zxid, &[u8])>,
    ) {
        let own = Own { epoch: self.epoch, first: 0 };
        let Some(link) = self.observers.links.get_mut(conn) else { return };
        if let Err(reason) = link.to.log_record(&shared.history, own, record) {
            self.close_observer(shared, conn, reason);
        }
    }

    /// The application's snapshot is about to be opened for an observer. False if it has gone.
    pub(crate) fn lend_snapshot(&mut self, history: &History, conn: ConnId) -> bool {
        let Some(link) = self.observers.links.get_mut(conn).filter(|_| !self.failed) else {
            return false;
        };
        link.to.lend(history, history.committed());
        true
    }

    /// Part of the snapshot is on its way.
    pub(crate) fn snapshot_sent(&mut self, conn: ConnId, n: usize, longest: usize) {
        if let Some(link) = self.observers.links.get_mut(conn) {
            link.to.snapshot_sent(n, longest);
        }
    }

    /// The snapshot is written out.
    pub(crate) fn snapshot_done(&mut self, shared: &mut Shared, conn: ConnId) {
        let link = self.observers.links.get_mut(conn);
        if link.is_some_and(|link| link.to.snapshot_done()) {
            self.open_snapshots(shared);
        }
    }
}
