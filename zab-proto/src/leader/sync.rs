//! Synchronisation, the leader's half: how a learner gets the history, and when enough have it.

use super::link::Stage;
use super::{Leader, Step};
use crate::history::History;
use crate::shared::{Control, SNAP_SIGNATURE, Shared};
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{ConnId, Instant, Zxid};

/// How to bring a learner to the leader's history.
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

/// Chooses DIFF, TRUNC or SNAP for a learner whose last zxid is `peer`.
///
/// DIFF needs the proof that the learner's history is a prefix of this one: its last zxid is held
/// exactly, never just within the range (safety.md B-19). A zxid with counter 0 is no transaction:
/// it says "everything of the epochs before", which an established leader of that epoch reports.
///
/// Otherwise the learner has a tail that this history lacks, and `below`, the newest own transaction
/// under it, is what both have: if it is of the epoch of `peer`, the learner got both from one leader.
/// If it is of an older epoch, the leader that proposed `peer` was established with a history that
/// ended in `below`: this server has synchronised with that leader or a later one, or it could not
/// lead, and has nothing of that epoch. An Apache learner can be cut within an epoch only; across,
/// SNAP is preferred, but never one that holds less than the learner does: a crash between it and
/// the transactions behind it would lose what the learner had acknowledged. Before the epoch is
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

impl Leader {
    /// Begins to synchronise a learner that has promised the epoch.
    pub(super) fn synchronize(&mut self, shared: &mut Shared, conn: ConnId) {
        let history = &shared.history;
        // Before the epoch is established the whole initial history goes out as committed; after
        // that, what is committed.
        let cut = if self.is_established() { history.committed() } else { history.end() };
        let last = history.window.zxid_before(cut.max(history.window.first()));
        let Some(link) = self.link(conn) else { return };
        let next = match plan(history, link.reported.1) {
            Plan::Diff(next) => {
                link.out.put_bare(PacketType::DIFF, last);
                next
            }
            Plan::Trunc(zxid, next) => {
                link.out.put_bare(PacketType::TRUNC, zxid);
                next
            }
            Plan::Log => {
                // The window is held from here on, so that it joins what the log brings.
                link.stage = Stage::Reading;
                link.next = history.window.first();
                link.commits_sent = link.next;
                link.cut = cut.max(link.next);
                let (after, through) = (link.reported.1, history.window.base());
                shared.control.push_back(Control::Log { conn, after, through });
                return;
            }
            Plan::Snap => {
                link.stage = Stage::Queued;
                self.open_snapshots(shared);
                return;
            }
        };
        link.next = next;
        link.commits_sent = next;
        link.cut = cut.max(next);
        link.stage = Stage::CatchingUp;
    }

    /// Asks for the application's snapshot for as many waiting learners as may have one.
    pub(super) fn open_snapshots(&mut self, shared: &mut Shared) {
        let open = |stage| stage == Stage::Snapshot || stage == Stage::Lent;
        let mut free = shared.config.limits.snapshots_max;
        free = free.saturating_sub(self.all().filter(|link| open(link.stage)).count());
        for link in self.links.iter_mut().flatten().filter(|link| link.stage == Stage::Queued) {
            if free == 0 {
                return;
            }
            free -= 1;
            link.stage = Stage::Snapshot;
            shared.control.push_back(Control::Snapshot(link.conn));
        }
    }

    /// Whether the log can be read for a learner. If not, it gets a snapshot.
    pub(crate) fn log_opened(&mut self, shared: &mut Shared, conn: ConnId, opened: bool) {
        let last = shared.history.last();
        let Some(link) = self.link(conn).filter(|link| link.stage == Stage::Reading) else {
            return;
        };
        if opened {
            link.out.put_bare(PacketType::DIFF, last);
        } else {
            link.stage = Stage::Queued;
            self.open_snapshots(shared);
        }
    }

    /// Whether more of the log is wanted for a learner now; `None` if no more ever.
    pub(crate) fn wants_log(&self, conn: ConnId) -> Option<bool> {
        let link = self.links.get(conn.slot() as usize)?.as_ref()?;
        let reads = link.conn == conn && link.stage == Stage::Reading;
        reads.then(|| link.out.len_bytes() < LOG_AHEAD_LEN)
    }

    /// The next transaction of the log, or its end.
    pub(crate) fn log_record(
        &mut self,
        shared: &Shared,
        conn: ConnId,
        record: Option<(Zxid, &[u8])>,
    ) {
        let through = shared.history.window.base();
        let Some(link) = self.link(conn).filter(|link| link.stage == Stage::Reading) else {
            return;
        };
        match record {
            // Records before the learner's position repeat what it has; above the base they are in
            // the window, too.
            Some((zxid, txn)) if zxid <= through => {
                link.out.put(PacketType::PROPOSAL, zxid, Some(txn));
                link.out.put_bare(PacketType::COMMIT, zxid);
            }
            Some(_) => {}
            None => link.stage = Stage::CatchingUp,
        }
    }

    /// The application's snapshot is about to be opened: it is the state after everything
    /// delivered so far. False if the learner has gone.
    pub(crate) fn lend_snapshot(&mut self, history: &History, conn: ConnId) -> bool {
        let established = self.is_established();
        let Some(link) = self.link(conn) else { return false };
        link.stage = Stage::Lent;
        link.out.put_bare(PacketType::SNAP, history.delivered_zxid());
        link.next = history.delivered();
        link.commits_sent = link.next;
        link.cut = if established { history.committed() } else { history.end() };
        true
    }

    /// Part of the snapshot is on its way.
    pub(crate) fn snapshot_sent(&mut self, conn: ConnId, n: usize) {
        if let Some(link) = self.link(conn) {
            link.sent_bytes += n as u64;
            link.stuck &= n == 0;
        }
    }

    /// The snapshot is written out; the rest of the history follows its signature.
    pub(crate) fn snapshot_done(&mut self, shared: &mut Shared, conn: ConnId) {
        let Some(link) = self.link(conn) else { return };
        if link.stage == Stage::Lent {
            link.out.put_raw(SNAP_SIGNATURE);
            link.stage = Stage::CatchingUp;
            self.open_snapshots(shared);
        }
    }

    /// The acknowledgement of NEWLEADER.
    pub(super) fn on_synced(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        let established = self.is_established();
        let step = self.step;
        let silent_at = now + shared.config.ticks(shared.config.sync_limit);
        let Some(link) = self.link(conn) else { return };
        link.stage = Stage::Synced;
        link.silent_at = silent_at;
        link.acked = link.acked.max(link.cut);
        let (sid, counts, acked) = (link.sid, link.counts(), link.acked);
        if counts {
            // No acknowledgement comes for what it brought along.
            self.hear_ack(sid, acked);
            self.commit_acked(shared);
        }
        if established {
            self.welcome_waiting = true;
            self.welcome_synced(shared);
        } else if step == Step::Syncs && counts {
            self.hear(sid);
            self.count_syncs(now, shared);
        }
    }

    /// Establishes the epoch once a quorum, this server included, is synchronised.
    pub(super) fn count_syncs(&mut self, now: Instant, shared: &mut Shared) {
        if self.step != Step::Syncs {
            return;
        }
        if shared.history.is_current_durable() && shared.history.is_settled() {
            self.hear(shared.config.sid);
        }
        if !self.heard.contains(&shared.config.sid)
            || !shared.config.ensemble.is_quorum(|sid| self.heard.contains(&sid))
        {
            return;
        }
        self.step = Step::Established;
        self.heard.clear();
        self.last_proposed = Zxid::new(self.epoch, 0);
        shared.history.commit(self.first);
        let alive_until = now + shared.config.ticks(shared.config.sync_limit + 1);
        let silent_at = now + shared.config.ticks(shared.config.sync_limit);
        for link in self.links.iter_mut().flatten().filter(|link| link.stage == Stage::Synced) {
            link.alive_until = link.alive_until.max(alive_until);
            link.silent_at = silent_at;
        }
        self.welcome_waiting = true;
        self.welcome_synced(shared);
        self.announce(shared);
    }

    /// UPTODATE to all that are synchronised: commits flow from here on.
    ///
    /// A learner takes all that it holds then as committed, and may hold proposals that are not
    /// (its acknowledgements of them may have been lost with its last connection). It waits until
    /// they are.
    pub(super) fn welcome_synced(&mut self, shared: &Shared) {
        if !self.welcome_waiting {
            return;
        }
        self.welcome_waiting = false;
        let committed = shared.history.committed();
        for link in self.links.iter_mut().flatten().filter(|link| link.stage == Stage::Synced) {
            if link.cut <= committed {
                link.stage = Stage::Live;
                link.out.put_bare(PacketType::UPTODATE, Zxid::from_raw(-1));
            } else {
                self.welcome_waiting = true;
            }
        }
    }
}

/// How much of the log is read ahead of a learner's socket.
const LOG_AHEAD_LEN: usize = 256 * 1024;

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
