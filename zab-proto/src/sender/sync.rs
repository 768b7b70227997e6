//! How a learner gets the history that it lacks: DIFF, TRUNC or SNAP.

use super::{LearnerStage, Links, Own, Sender};
use crate::history::History;
use crate::quorums::Quorums;
use crate::shared::{Control, SNAP_SIGNATURE, Shared};
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{CloseReason, ConnId, LogDemand, Zxid};

/// How to bring a learner to the server's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// The transactions from an index on.
    Diff(Index),
    /// Cut back to a zxid, then the transactions from an index on.
    Trunc(Zxid, Index),
    /// The same as DIFF, if the log on disk has what the window no longer has.
    Log,
    Snap,
}

/// Who is served first where there is not enough for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rank {
    Voter,
    /// An observer that the configuration names.
    Member,
    Other,
}

impl Rank {
    pub(crate) fn of(quorums: &Quorums, link: &Sender) -> Self {
        if !link.observer && quorums.is_voter(link.sid) {
            Self::Voter
        } else if quorums.is_member(link.sid) {
            Self::Member
        } else {
            Self::Other
        }
    }
}

/// Chooses DIFF, TRUNC or SNAP for a learner whose last zxid is `peer`.
///
/// DIFF needs the proof that the learner's history is a prefix of this one: its last zxid is held
/// exactly, never just within the range (ZOOKEEPER-1154; B-19 of `docs/catalogue.md`). A zxid with
/// counter 0 is no transaction: it says "everything of the epochs before", which an established
/// leader of that epoch reports.
///
/// Otherwise the learner has a tail that this history lacks, and `below`, the newest own transaction
/// under it, is what both have: if it is of the epoch of `peer`, the learner got both from one leader.
/// If it is of an older epoch, the leader that proposed `peer` was established with a history that
/// ended in `below`: this server has synchronised with that leader or a later one, or it could not
/// lead, and has nothing of that epoch. An Apache learner can be cut within an epoch only; across,
/// SNAP is preferred, but never one that holds less than the learner does: a crash between it and
/// the transactions after it would lose what the learner had acknowledged. Before the epoch is
/// established the application lacks the end of the history (rule R6), so then it is TRUNC.
fn plan(history: &History, peer: Zxid) -> Plan {
    let window = &history.window;
    if peer == Zxid::NONE {
        return Plan::Snap;
    }
    if peer < window.base() {
        return Plan::Log;
    }
    let next = window.after(peer);
    let below = window.zxid_before(next);
    let same_epoch = below.epoch() == peer.epoch() && below.counter() > 0;
    let whole = history.delivered() >= next;
    if below == peer || peer.counter() == 0 {
        Plan::Diff(next)
    } else if same_epoch || !whole {
        Plan::Trunc(below, next)
    } else {
        Plan::Snap
    }
}

impl Sender {
    /// Begins to bring the learner to this server's history. Everything below `sync_end` goes out as committed
    /// before NEWLEADER.
    pub(crate) fn begin(&mut self, shared: &mut Shared, sync_end: Index) {
        let history = &shared.history;
        let last = history.window.zxid_before(sync_end.max(history.window.first()));
        let next = match plan(history, self.reported.last_zxid) {
            Plan::Diff(next) => {
                self.out.put_bare(PacketType::DIFF, last);
                shared.syncs.from_log += 1;
                next
            }
            Plan::Trunc(zxid, next) => {
                self.out.put_bare(PacketType::TRUNC, zxid);
                shared.syncs.from_log += 1;
                next
            }
            Plan::Log => {
                self.stage = LearnerStage::SendingLog;
                self.next = history.window.first();
                self.reading = Some(self.next);
                self.commits_sent = self.next;
                self.sync_end = sync_end.max(self.next);
                let (after, through) = (self.reported.last_zxid, history.window.base());
                self.last_sent = through;
                let (conn, any_length) = (self.conn, false);
                shared.control.push_back(Control::Log { conn, after, through, any_length });
                return;
            }
            Plan::Snap => {
                self.stage = LearnerStage::SnapshotQueued;
                return;
            }
        };
        self.next = next;
        self.last_sent = history.window.zxid_before(next);
        self.commits_sent = next;
        self.sync_end = sync_end.max(next);
        self.stage = LearnerStage::SendingHistory;
    }

    /// Whether the log can be read for the learner. If not, one that was sent nothing yet waits for a
    /// snapshot, and one that needs the log to go on has to come again for a newer one.
    pub(crate) fn log_opened(
        &mut self,
        shared: &mut Shared,
        opened: bool,
    ) -> Result<(), CloseReason> {
        if self.reading.is_none() {
            return Ok(());
        }
        match (self.stage == LearnerStage::SendingLog, opened) {
            (true, true) => {
                self.out.put_bare(PacketType::DIFF, shared.history.last());
                shared.syncs.from_log += 1;
            }
            (true, false) => {
                self.reading = None;
                self.stage = LearnerStage::SnapshotQueued;
            }
            (false, true) => {}
            (false, false) => return Err(CloseReason::NotInLog),
        }
        Ok(())
    }

    /// Whether more of the log is wanted now.
    pub(crate) fn wants_log(&self, history: &History) -> LogDemand {
        if self.reading.is_none() {
            return LogDemand::Ended;
        }
        let next = self.stage == LearnerStage::SendingLog || self.is_behind(history);
        if next && self.out.len_bytes() < LOG_AHEAD_LEN { LogDemand::Now } else { LogDemand::Later }
    }

    /// The next transaction of the log, or its end.
    pub(crate) fn log_record(
        &mut self,
        history: &History,
        own: Own,
        record: Option<(Zxid, &[u8])>,
    ) -> Result<(), CloseReason> {
        if self.reading.is_none() {
            return Ok(());
        }
        let begins = self.stage == LearnerStage::SendingLog;
        match record {
            // The window, if it still has what follows, begins after `last_sent`.
            Some((zxid, txn)) if begins && zxid <= self.last_sent => {
                self.out.put(PacketType::PROPOSAL, zxid, Some(txn));
                self.out.put_bare(PacketType::COMMIT, zxid);
            }
            Some((zxid, txn)) if !begins && self.last_sent.is_followed_by(zxid) => {
                self.put_logged(history, own, zxid, txn);
                // The end of the log may be told only after more has been sent from the window.
                self.reading = self.reading.filter(|end| self.next < *end);
            }
            None if begins => {
                self.stage = LearnerStage::SendingHistory;
                self.reading = None;
            }
            // Not the history that the window had (rule R8).
            Some(_) | None => return Err(CloseReason::LogUnreadable),
        }
        Ok(())
    }

    /// The application's snapshot is about to be opened: it is the state after everything delivered so
    /// far. What follows it, below `sync_end`, goes out before NEWLEADER.
    pub(crate) fn lend(&mut self, history: &History, sync_end: Index) {
        self.stage = LearnerStage::SendingSnapshot;
        self.lent = 0;
        self.lent_at_bytes = self.sent_bytes;
        self.last_sent = history.delivered_zxid();
        self.out.put_bare(PacketType::SNAP, self.last_sent);
        self.next = history.delivered();
        self.commits_sent = self.next;
        self.sync_end = sync_end;
    }

    /// Part of the snapshot is on its way.
    pub(crate) fn snapshot_sent(&mut self, n: usize, longest: usize) {
        self.sent_bytes += n as u64;
        self.note_len(longest, 0);
    }

    /// The snapshot is written out; the rest of the history follows its signature. False if none was lent.
    pub(crate) fn snapshot_done(&mut self) -> bool {
        let lent = self.stage == LearnerStage::SendingSnapshot;
        if lent {
            self.out.put_raw(SNAP_SIGNATURE);
            self.stage = LearnerStage::SendingHistory;
        }
        lent
    }
}

impl<L: AsRef<Sender> + AsMut<Sender>> Links<L> {
    /// Asks for the application's snapshot for as many waiting learners as may have one: those that
    /// count for more first. They do not wait for others that count for less: who that is, is returned, to be
    /// closed.
    pub(crate) fn open_snapshots(&mut self, shared: &mut Shared) -> Option<ConnId> {
        let max = shared.config.limits.snapshots_max;
        let rank = |link: &Sender| Rank::of(&shared.quorums, link);
        while let Some(next) = self
            .senders()
            .filter(|link| link.stage == LearnerStage::SnapshotQueued)
            .min_by_key(|link| rank(link))
            .map(|link| (rank(link), link.conn))
        {
            let open = || self.senders().filter(|link| link.has_snapshot());
            if open().count() >= max {
                let least = open().max_by_key(|link| (rank(link), link.lent));
                return least.filter(|link| rank(link) > next.0).map(|link| link.conn);
            }
            let link = self.get_mut(next.1)?.as_mut();
            link.stage = LearnerStage::SnapshotAsked;
            shared.control.push_back(Control::Snapshot(next.1));
        }
        None
    }

    /// Who takes a snapshot at no pace at all while others that count for as much wait for one.
    pub(crate) fn idle_snapshot(&self, shared: &Shared) -> Option<ConnId> {
        let (config, quorums) = (&shared.config, &shared.quorums);
        let rank = |link: &Sender| Rank::of(quorums, link);
        let waiting = self
            .senders()
            .filter(|link| link.stage == LearnerStage::SnapshotQueued)
            .map(rank)
            .min()?;
        let per_half_tick = u128::from(SNAPSHOT_PACE_MIN) * config.tick_time.as_millis() / 2000;
        let idle = |link: &&Sender| {
            let sent = u128::from(link.sent_bytes - link.lent_at_bytes);
            link.stage == LearnerStage::SendingSnapshot
                && rank(link) >= waiting
                && link.lent > 2 * config.init_limit
                && sent < per_half_tick * u128::from(link.lent)
        };
        self.senders().find(idle).map(|link| link.conn)
    }
}

/// How much of the log is read ahead of a learner's socket.
const LOG_AHEAD_LEN: usize = 256 * 1024;

/// Bytes per second below which a snapshot that others wait for is not sent on. On such a link it
/// would take hours.
const SNAPSHOT_PACE_MIN: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use crate::window::Window;

    fn z(epoch: i64, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    /// (1,1) (1,2) (3,1), of which the first `delivered` are applied.
    fn history(delivered: u64) -> History {
        let epoch = Epoch(3);
        let mut history = History::new(Window::new(z(1, 0)), z(1, 0), z(1, 0), epoch, epoch, true);
        for zxid in [z(1, 1), z(1, 2), z(3, 1)] {
            history.push(zxid, b"txn");
        }
        history.commit(delivered);
        while history.poll_deliver().is_some() {}
        history
    }

    #[test]
    fn a_prefix_gets_the_rest() {
        for (peer, next) in [(z(1, 0), 0), (z(1, 1), 1), (z(1, 2), 2), (z(2, 0), 2), (z(3, 1), 3)] {
            assert_eq!(plan(&history(0), peer), Plan::Diff(next), "{peer}");
        }
        assert_eq!(plan(&history(3), z(0, 7)), Plan::Log);
        assert_eq!(plan(&history(3), Zxid::NONE), Plan::Snap);
    }

    #[test]
    fn a_tail_is_cut_off() {
        assert_eq!(plan(&history(3), z(1, 9)), Plan::Trunc(z(1, 2), 2));
        assert_eq!(plan(&history(3), z(3, 2)), Plan::Trunc(z(3, 1), 3));
    }

    #[test]
    fn a_snapshot_never_holds_less_than_the_learner() {
        // The learner shares (1,1) and (1,2), and the tail is another epoch's.
        assert_eq!(plan(&history(2), z(2, 5)), Plan::Snap);
        for delivered in [0, 1] {
            assert_eq!(plan(&history(delivered), z(2, 5)), Plan::Trunc(z(1, 2), 2));
        }
    }
}
