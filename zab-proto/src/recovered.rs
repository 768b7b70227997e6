//! What storage found when the server started, and what may be believed of it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::history::History;
use crate::reconfig;
use crate::window::{Index, Window};
use crate::wire::txn::TxnHeader;
use crate::{DigestVerdict, Epoch, Identity, Notice, Zxid};

/// What storage found when the server started. All of it must be durable: synced again after
/// reading, as bytes that survived in the page cache are not on disk yet (rule R4).
#[derive(Clone, Debug)]
pub struct Recovered {
    /// `acceptedEpoch`; `None` if the file is missing.
    pub accepted_epoch: Option<Epoch>,
    /// `currentEpoch`; `None` if the file is missing.
    pub current_epoch: Option<Epoch>,
    /// Which ensemble the directory belongs to; `None` if no file says so.
    pub identity: Option<Identity>,
    /// The application's state is a snapshot as of this zxid; `None` without a snapshot.
    pub snapshot: Option<Zxid>,
    /// A fuzzy snapshot holds effects of transactions up to here; else equal to `snapshot`.
    pub snapshot_end: Zxid,
    /// An `initialize` marker was found: an empty directory must be trusted.
    pub initialize: bool,
    /// Whether the records that stand for unused zxids (`TxnHeader::is_unused`) are right: what
    /// [`Application::agrees`](crate::Application::agrees) says after them. Without such records it
    /// has no meaning.
    pub unused_proven: DigestVerdict,
    /// What [`Storage::set_configurations`](crate::Storage::set_configurations) has stored last. Not heeded
    /// without [`Config::reconfig`](crate::Config::reconfig), nor where the configuration is newer.
    pub configurations: Vec<String>,
    window: Option<Window>,
    /// Entries of the window below were handed to the application.
    delivered: Index,
    /// Of the transactions that were handed to the application and forgotten, those that change the
    /// members.
    pub(crate) reconfigs: Vec<Vec<u8>>,
}

impl Default for Recovered {
    fn default() -> Self {
        Self {
            accepted_epoch: None,
            current_epoch: None,
            identity: None,
            snapshot: None,
            snapshot_end: Zxid::ZERO,
            initialize: false,
            unused_proven: DigestVerdict::Absent,
            configurations: Vec::new(),
            window: None,
            delivered: 0,
            reconfigs: Vec::new(),
        }
    }
}

impl Recovered {
    /// Adds the next record of the log. Records at or below the snapshot (to be set before) are
    /// skipped, and so is one that repeats the zxid of the record before it (`docs/storage.md`,
    /// "Recovery").
    pub fn push(&mut self, zxid: Zxid, txn: &[u8]) {
        let base = self.snapshot.unwrap_or(Zxid::ZERO);
        let window = self.window.get_or_insert_with(|| Window::new(base));
        if zxid > window.last() {
            window.push(zxid, txn);
        }
    }

    /// Fills the places between the newest record and `next`, of the same epoch: zxids that were taken
    /// and never used. Learners refuse a history with gaps.
    pub fn push_unused(&mut self, next: Zxid, time: i64) {
        for zxid in self.last().raw() + 1..next.raw() {
            let zxid = Zxid::from_raw(zxid);
            self.push(zxid, &TxnHeader::unused_txn(zxid, time));
        }
    }

    /// Everything up to `through` is known to be committed: hands it to `apply`, oldest first, and
    /// keeps of it only what serves to synchronise learners. So a log of any length is read in little
    /// memory. What follows waits in memory until a leader is established (rule R6).
    ///
    /// Known to be committed is
    /// * what this server has applied before (it was committed then, and stays so: rule R6);
    /// * on a server that is an ensemble of its own, everything;
    /// * in front of a transaction of a later epoch, everything: a leader proposes only once a quorum
    ///   has its initial history on disk and has taken its epoch for the current one
    ///   (`Leader.waitForNewLeaderAck`), so that every later leader has that history, too. And who
    ///   has the proposal has what was in front of it on that leader, as a history is completed in
    ///   order (rules R1, R5, R8).
    pub fn deliver(&mut self, through: Zxid, mut apply: impl FnMut(Zxid, &[u8])) {
        let Some(window) = &mut self.window else { return };
        let end = window.after(through);
        while self.delivered < end {
            let (zxid, txn) = (window.zxid(self.delivered), window.txn(self.delivered));
            if TxnHeader::parse(txn).is_ok_and(|header| header.kind == reconfig::RECONFIG) {
                self.reconfigs.push(txn.to_vec());
            }
            apply(zxid, txn);
            self.delivered += 1;
            while window.first() < self.delivered
                && (window.end() - window.first() > RETAINED_TXNS
                    || window.len_bytes() > RETAINED_LEN_BYTES)
            {
                window.release(window.first() + 1);
            }
        }
    }

    /// The newest transaction that the application has: of the snapshot, or delivered since.
    #[must_use]
    pub fn delivered(&self) -> Zxid {
        let base = self.snapshot.unwrap_or(Zxid::ZERO);
        self.window.as_ref().map_or(base, |window| window.zxid_before(self.delivered))
    }

    /// The zxid in front of the oldest transaction that is still in memory.
    #[must_use]
    pub fn base(&self) -> Zxid {
        let snapshot = self.snapshot.unwrap_or(Zxid::ZERO);
        self.window.as_ref().map_or(snapshot, Window::base)
    }

    /// Forgets the log: it is read once more, and the application is at the snapshot again.
    pub fn rewind(&mut self) {
        (self.window, self.delivered) = (None, 0);
        self.reconfigs.clear();
    }

    /// The transactions after the snapshot, but for those that were [delivered](Self::deliver) and
    /// forgotten.
    pub fn txns(&self) -> impl Iterator<Item = (Zxid, &[u8])> {
        let windows = self.window.iter();
        windows.flat_map(|w| (w.first()..w.end()).map(|index| (w.zxid(index), w.txn(index))))
    }

    /// The transaction of this zxid, if it is in memory.
    #[must_use]
    pub fn txn(&self, zxid: Zxid) -> Option<&[u8]> {
        let window = self.window.as_ref().filter(|window| zxid > window.base())?;
        window.holds(zxid).then(|| window.txn(window.after(zxid) - 1))
    }

    /// The newest zxid found.
    #[must_use]
    pub fn last(&self) -> Zxid {
        let base = self.snapshot.unwrap_or(Zxid::ZERO);
        self.window.as_ref().map_or(base, Window::last)
    }

    /// What is wrong with the epoch files, if they are damaged.
    pub(crate) fn damaged_epochs(&self) -> Option<Notice> {
        let history = self.last().epoch();
        let (accepted, current) = (self.accepted_epoch, self.current_epoch);
        let believed = self.believed_epochs();
        (believed != (accepted, current)).then_some(Notice::DamagedEpochs {
            accepted,
            current,
            history,
        })
    }

    /// The accepted and the current epoch, without those that are beyond belief.
    fn believed_epochs(&self) -> (Option<Epoch>, Option<Epoch>) {
        let history = self.last().epoch().max(Epoch(0));
        let current = self.current_epoch.filter(|epoch| epoch.is_plausible(history));
        let floor = current.unwrap_or_default().max(history);
        (self.accepted_epoch.filter(|epoch| epoch.is_plausible(floor)), current)
    }

    /// Applies the rules for missing epoch files.
    ///
    /// * Nothing at all was found: the history is empty, and counts only if told so (rule R14).
    /// * A current epoch below that of the newest transaction is what a crash between history and
    ///   epoch leaves behind (rule R3); holding a transaction of an epoch is as good as having
    ///   synchronised with its leader. (`QuorumPeer.loadDataBase` refuses to start.)
    /// * Histories of epoch 0 come from standalone servers, which keep no epoch files.
    /// * An accepted epoch that is missing, though the server has been in an ensemble, is a promise
    ///   forgotten: the history does not count until a leader has synchronised it (rule R14, P5).
    /// * An accepted epoch that is out of range, or above the history by more than elections can have
    ///   raised it, is damage (rule R21): the file does not say what was promised, so it counts as
    ///   forgotten. The same holds for a current epoch.
    /// * The id of an ensemble beside an empty history keeps nobody apart: there is nothing that could be
    ///   another ensemble's (rule R24).
    /// * Records for zxids that are not proven to be unused (rule R8): a snapshot is to replace the
    ///   history, and if something was lost, or nothing is after them, it does not count before.
    pub(crate) fn into_history(self, trust_empty: bool) -> History {
        let last = self.last();
        let (accepted_epoch, current_epoch) = self.believed_epochs();
        let damaged = self.damaged_epochs().is_some();
        let floor = current_epoch.unwrap_or_default().max(last.epoch()).max(Epoch(0));
        let empty = last == Zxid::ZERO && current_epoch.is_none();
        let current = if accepted_epoch.is_some_and(|accepted| accepted < last.epoch()) {
            current_epoch.unwrap_or_default()
        } else {
            floor
        };
        let accepted = accepted_epoch.unwrap_or_default().max(current);
        let unused =
            |(_, txn): (Zxid, &[u8])| TxnHeader::parse(txn).is_ok_and(|header| header.is_unused());
        let has_gap = self.unused_proven != DigestVerdict::Agrees && self.txns().any(unused);
        // What follows would be the proof.
        let gap_last = has_gap && self.txns().last().is_some_and(unused);
        let lossy = has_gap && (gap_last || self.unused_proven == DigestVerdict::Differs);
        let promise_lost =
            accepted_epoch.is_none_or(|accepted| accepted < floor) && floor > Epoch(0);
        let trusted =
            !promise_lost && !damaged && !lossy && (!empty || trust_empty || self.initialize);
        let identity = self
            .identity
            .map(|identity| Identity { confirmed: identity.confirmed && !empty, ..identity });
        let delivered = self.delivered();
        let window = self.window.unwrap_or_else(|| Window::new(delivered));
        let floor = self.snapshot_end.max(delivered);
        let mut history = History::new(window, delivered, floor, accepted, current, trusted);
        history.recover_identity(identity);
        if damaged || promise_lost {
            history.owe_promise();
        }
        if has_gap {
            history.doubt();
        }
        history
    }
}

/// What is kept of what was delivered. The core lets go of what its [limits](crate::Limits) do not
/// allow.
const RETAINED_TXNS: u64 = 500;
const RETAINED_LEN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn history(
        accepted: Option<i64>,
        current: Option<i64>,
        last: (i64, u32),
    ) -> (Epoch, Epoch, bool) {
        let mut recovered = Recovered {
            accepted_epoch: accepted.map(Epoch),
            current_epoch: current.map(Epoch),
            ..Recovered::default()
        };
        if last != (0, 0) {
            recovered.push(Zxid::new(Epoch(last.0), last.1), b"");
        }
        let history = recovered.into_history(false);
        (history.accepted(), history.current(), history.is_trusted())
    }

    #[test]
    fn an_empty_directory_does_not_count() {
        assert_eq!(history(None, None, (0, 0)), (Epoch(0), Epoch(0), false));
        // It promised an epoch and crashed before it was synchronised.
        assert_eq!(history(Some(3), None, (0, 0)), (Epoch(3), Epoch(0), false));
    }

    #[test]
    fn an_ensemble_without_transactions_counts() {
        assert_eq!(history(Some(2), Some(2), (0, 0)), (Epoch(2), Epoch(2), true));
    }

    #[test]
    fn a_standalone_history_counts() {
        assert_eq!(history(None, None, (0, 7)), (Epoch(0), Epoch(0), true));
    }

    #[test]
    fn a_crash_between_history_and_epoch_is_legal() {
        assert_eq!(history(Some(4), Some(3), (4, 2)), (Epoch(4), Epoch(4), true));
        assert_eq!(history(Some(4), None, (4, 2)), (Epoch(4), Epoch(4), true));
    }

    #[test]
    fn epochs_beyond_belief_are_damage() {
        let most = Epoch::PLAUSIBLE_RISE;
        assert_eq!(history(Some(4 + most), Some(4), (4, 2)), (Epoch(4 + most), Epoch(4), true));
        for damaged in [5 + most, 4 + 2 * most, 0x7fff_ffff, 0x8000_0004, i64::MAX, -1, i64::MIN] {
            // The history is as good as ever, and does not count until a leader has been followed.
            assert_eq!(history(Some(damaged), Some(4), (4, 2)), (Epoch(4), Epoch(4), false));
            assert_eq!(history(Some(5), Some(damaged), (4, 2)), (Epoch(5), Epoch(4), false));
            assert_eq!(history(Some(damaged), Some(damaged), (4, 2)), (Epoch(4), Epoch(4), false));
        }
        assert_eq!(history(Some(i64::MAX), None, (0, 0)), (Epoch(0), Epoch(0), false));
    }

    /// Trusted, and doubted.
    fn with_gap(proven: DigestVerdict, followed: bool) -> (bool, bool) {
        let epoch = Some(Epoch(4));
        let mut recovered = Recovered {
            accepted_epoch: epoch,
            current_epoch: epoch,
            snapshot: Some(Zxid::new(Epoch(4), 1)),
            unused_proven: proven,
            ..Recovered::default()
        };
        let next = Zxid::new(Epoch(4), 3);
        recovered.push_unused(next, 0);
        if followed {
            recovered.push(next, b"");
        }
        let history = recovered.into_history(false);
        (history.is_trusted(), history.is_doubted())
    }

    #[test]
    fn a_gap_is_doubted_until_it_is_proven() {
        assert_eq!(with_gap(DigestVerdict::Agrees, true), (true, false));
        assert_eq!(with_gap(DigestVerdict::Absent, true), (true, true));
        assert_eq!(with_gap(DigestVerdict::Differs, true), (false, true));
        // What would prove it is not there.
        assert_eq!(with_gap(DigestVerdict::Absent, false), (false, true));
    }

    #[test]
    fn a_lost_promise_does_not_count() {
        assert!(!history(None, Some(4), (4, 2)).2);
        assert!(!history(None, None, (4, 2)).2);
        assert!(!history(Some(2), Some(2), (4, 2)).2);
    }
    #[test]
    fn what_is_known_to_be_committed_leaves_the_memory() {
        let z = |counter| Zxid::new(Epoch(4), counter);
        let snapshot = Some(z(1));
        let mut recovered = Recovered { snapshot, snapshot_end: z(1), ..Recovered::default() };
        let mut applied = 1;
        for counter in 2..=3000 {
            recovered.push(z(counter), &[1; 100]);
            // The newest ten are not known to be.
            recovered.deliver(z(counter.saturating_sub(10)), |zxid, txn| {
                applied += 1;
                assert_eq!((zxid, txn), (z(applied), &[1; 100][..]));
            });
        }
        assert_eq!((recovered.delivered(), recovered.last()), (z(2990), z(3000)));
        assert_eq!((recovered.base(), recovered.txns().count()), (z(2500), 500));
        let mut history = recovered.into_history(false);
        assert_eq!((history.delivered_zxid(), history.last()), (z(2990), z(3000)));
        // What is applied is not cut off any more, what is not may be.
        assert!(!history.can_truncate(z(2989)) && history.can_truncate(z(2990)));
        assert!(!history.has_delivery());
        history.commit(history.end());
        let Some(crate::Output::Deliver { zxid, .. }) = history.poll_deliver() else {
            panic!("the rest is committed");
        };
        assert_eq!(zxid, z(2991));
    }

    #[test]
    fn a_log_can_be_read_again() {
        let z = |counter| Zxid::new(Epoch(4), counter);
        let mut recovered = Recovered::default();
        for _ in 0..2 {
            recovered.push(z(1), b"a");
            recovered.push(z(2), b"b");
            let mut applied = 0;
            recovered.deliver(z(7), |_, _| applied += 1);
            assert_eq!((applied, recovered.delivered()), (2, z(2)));
            recovered.rewind();
            assert_eq!((recovered.delivered(), recovered.last()), (Zxid::ZERO, Zxid::ZERO));
        }
    }
}
