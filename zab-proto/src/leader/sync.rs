//! Synchronisation, the leader's half: how a learner gets the history, and when enough have it.

use super::link::{Link, Stage};
use super::{Leader, Step};
use crate::history::History;
use crate::quorums::Quorums;
use crate::shared::{Control, SNAP_SIGNATURE, Shared};
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{CloseReason, ConnId, Instant, LogDemand, Zxid};

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

/// Who is served first where there is not enough for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    Voter,
    /// An observer that the configuration names.
    Member,
    Other,
}

impl Rank {
    pub(super) fn of(quorums: &Quorums, link: &Link) -> Self {
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
                shared.syncs.from_log += 1;
                next
            }
            Plan::Trunc(zxid, next) => {
                link.out.put_bare(PacketType::TRUNC, zxid);
                shared.syncs.from_log += 1;
                next
            }
            Plan::Log => {
                link.stage = Stage::Reading;
                link.next = history.window.first();
                link.reading = Some(link.next);
                link.commits_sent = link.next;
                link.cut = cut.max(link.next);
                let (after, through) = (link.reported.1, history.window.base());
                link.last_sent = through;
                let any_length = false;
                shared.control.push_back(Control::Log { conn, after, through, any_length });
                return;
            }
            Plan::Snap => {
                link.stage = Stage::Queued;
                self.open_snapshots(shared);
                return;
            }
        };
        link.next = next;
        link.last_sent = history.window.zxid_before(next);
        link.commits_sent = next;
        link.cut = cut.max(next);
        link.stage = Stage::CatchingUp;
    }

    /// Asks for the application's snapshot for as many waiting learners as may have one: those that
    /// count for more first. They do not wait for others that count for less.
    pub(super) fn open_snapshots(&mut self, shared: &mut Shared) {
        let max = shared.config.limits.snapshots_max;
        let rank = |link: &Link| Rank::of(&shared.quorums, link);
        while let Some(next) = self
            .all()
            .filter(|link| link.stage == Stage::Queued)
            .min_by_key(|link| rank(link))
            .map(|link| (rank(link), link.conn))
        {
            let open = || self.all().filter(|link| link.has_snapshot());
            if open().count() >= max {
                let least = open().max_by_key(|link| (rank(link), link.lent));
                let least = least.filter(|link| rank(link) > next.0).map(|link| link.conn);
                if let Some(conn) = least {
                    // Which comes back here.
                    self.close(shared, conn, CloseReason::SnapshotWanted);
                }
                return;
            }
            if let Some(link) = self.link(next.1) {
                link.stage = Stage::Snapshot;
                shared.control.push_back(Control::Snapshot(next.1));
            }
        }
    }

    /// Closes who takes a snapshot at no pace at all while others that count for as much wait for one.
    pub(super) fn watch_snapshots(&mut self, shared: &mut Shared) {
        let (config, quorums) = (&shared.config, &shared.quorums);
        let rank = |link: &Link| Rank::of(quorums, link);
        let waiting = self.all().filter(|link| link.stage == Stage::Queued).map(rank).min();
        let Some(waiting) = waiting else { return };
        let per_half_tick = u128::from(SNAPSHOT_PACE_MIN) * config.tick_time.as_millis() / 2000;
        let idle = |link: &Link| {
            let sent = u128::from(link.sent_bytes - link.lent_at_bytes);
            link.stage == Stage::Lent
                && rank(link) >= waiting
                && link.lent > 2 * config.init_limit
                && sent < per_half_tick * u128::from(link.lent)
        };
        let slow = self.all().find(|link| idle(link)).map(|link| link.conn);
        if let Some(conn) = slow {
            self.close(shared, conn, CloseReason::SnapshotWanted);
        }
    }

    /// Whether the log can be read for a learner. If not, one that was sent nothing yet gets a
    /// snapshot, and one that needs the log to go on has to come again for a newer one.
    pub(crate) fn log_opened(&mut self, shared: &mut Shared, conn: ConnId, opened: bool) {
        let last = shared.history.last();
        let Some(link) = self.link(conn).filter(|link| link.reading.is_some()) else { return };
        let begins = link.stage == Stage::Reading;
        match (begins, opened) {
            (true, true) => {
                link.out.put_bare(PacketType::DIFF, last);
                shared.syncs.from_log += 1;
            }
            (true, false) => {
                link.reading = None;
                link.stage = Stage::Queued;
                self.open_snapshots(shared);
            }
            (false, true) => {}
            (false, false) => self.close(shared, conn, CloseReason::NotInLog),
        }
    }

    /// Whether more of the log is wanted for a learner now.
    pub(crate) fn wants_log(&self, history: &History, conn: ConnId) -> LogDemand {
        let link = self.links.get(conn.slot() as usize).and_then(Option::as_ref);
        let Some(link) = link.filter(|link| link.conn == conn && link.reading.is_some()) else {
            return LogDemand::Ended;
        };
        let next = link.stage == Stage::Reading || link.is_behind(history);
        if next && link.out.len_bytes() < LOG_AHEAD_LEN { LogDemand::Now } else { LogDemand::Later }
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
        if link.reading.is_none() {
            return;
        }
        let begins = link.stage == Stage::Reading;
        match record {
            // The window, if it still has what follows, begins behind `last_sent`.
            Some((zxid, txn)) if begins && zxid <= link.last_sent => {
                link.out.put(PacketType::PROPOSAL, zxid, Some(txn));
                link.out.put_bare(PacketType::COMMIT, zxid);
            }
            Some((zxid, txn)) if !begins && link.last_sent.is_followed_by(zxid) => {
                link.put_logged(&shared.history, own, zxid, txn);
                // The end of the log may be told only after more has been sent from the window.
                link.reading = link.reading.filter(|end| link.next < *end);
            }
            None if begins => {
                link.stage = Stage::CatchingUp;
                link.reading = None;
            }
            // Not the history that the window had (rule R8).
            Some(_) | None => self.close(shared, conn, CloseReason::LogUnreadable),
        }
    }

    /// Has the log read for learners that the window has left behind, and reads those again that have
    /// taken what they were owed.
    pub(super) fn attend(&mut self, shared: &mut Shared) {
        let (first, through) = (shared.history.window.first(), shared.history.window.base());
        for link in self.links.iter_mut().flatten() {
            if link.reading.is_none() && link.next < first && link.is_behind(&shared.history) {
                link.reading = Some(first);
                let (conn, after, any_length) = (link.conn, link.last_sent, true);
                shared.control.push_back(Control::Log { conn, after, through, any_length });
            }
            if link.owing && link.has_taken() {
                link.owing = false;
                shared.control.push_back(Control::Resume(link.conn));
            }
        }
    }

    /// The application's snapshot is about to be opened: it is the state after everything
    /// delivered so far. False if the learner has gone.
    pub(crate) fn lend_snapshot(&mut self, history: &History, conn: ConnId) -> bool {
        let established = self.is_established();
        let Some(link) = self.link(conn) else { return false };
        link.stage = Stage::Lent;
        link.lent = 0;
        link.lent_at_bytes = link.sent_bytes;
        link.last_sent = history.delivered_zxid();
        link.out.put_bare(PacketType::SNAP, link.last_sent);
        link.next = history.delivered();
        link.commits_sent = link.next;
        link.cut = if established { history.committed() } else { history.end() };
        true
    }

    /// Part of the snapshot is on its way.
    pub(crate) fn snapshot_sent(&mut self, conn: ConnId, n: usize, longest: usize) {
        if let Some(link) = self.link(conn) {
            link.sent_bytes += n as u64;
            link.note_len(longest, 0);
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
            || !shared.quorums.is_quorum(|sid| self.heard.contains(&sid))
        {
            return;
        }
        self.step = Step::Established;
        self.heard.clear();
        self.last_proposed = Zxid::new(self.epoch, 0);
        shared.history.commit(self.first);
        self.begin_members(now, shared);
        let alive_until = now + shared.config.ticks(shared.config.sync_limit + 1);
        let silent_at = now + shared.config.ticks(shared.config.sync_limit);
        for link in self.links.iter_mut().flatten().filter(|link| link.stage == Stage::Synced) {
            link.alive_until = link.alive_until.max(alive_until);
            link.silent_at = silent_at;
        }
        self.welcome_waiting = true;
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
        if !self.welcome_waiting {
            return;
        }
        self.welcome_waiting = false;
        let mut welcomed = false;
        let committed = shared.history.committed();
        for link in self.links.iter_mut().flatten().filter(|link| link.stage == Stage::Synced) {
            if link.cut <= committed {
                link.stage = Stage::Live;
                link.out.put_bare(PacketType::UPTODATE, Zxid::from_raw(-1));
                welcomed = true;
            } else {
                self.welcome_waiting = true;
            }
        }
        if welcomed {
            self.tend_identity(shared);
        }
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
