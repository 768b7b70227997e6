//! This server's history on its way to disk and to the application, and the promises that wait
//! for the disk.
//!
//! One ordered stream of storage outputs is derived from positions in the window and a short queue
//! of everything that is not an append (rule R2). Tickets are given out as outputs are taken, so
//! the order of tickets is the order on disk.

mod splice;
mod standing;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use self::standing::Standing;
use crate::window::{Index, Window};
use crate::wire::txn::TxnHeader;
use crate::{DigestVerdict, Epoch, EpochKind, Identity, Output, Ticket, Violation, Zxid};

/// A storage output other than an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    SetEpoch(EpochKind, Epoch),
    SetIdentity(Identity),
    /// The oldest of those that wait.
    SetConfigurations,
    Truncate(Zxid),
    Install(Zxid),
}

/// Zxids that a leader left out, filled on the assumption that it never used them (rule R8). Until
/// that is proven, nothing from `first` on goes to storage, so nothing of it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    /// The first of the records that fill it.
    first: Index,
    /// The transaction after it.
    next: Index,
    proof: Proof,
}

/// How far the proof of a [`Gap`] is. Each state but the last waits for the application's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    /// Nothing of it is delivered.
    Open,
    /// Asked: does the transaction after it bring a digest?
    Asked,
    /// It does. After its delivery: does the state have that digest?
    Possible,
}

/// The history and its progress.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) window: Window,
    /// Entries below are handed to storage.
    appended: Index,
    /// Entries below are durable.
    durable: Index,
    /// Entries below are known to be committed.
    committed: Index,
    /// The newest zxid that a leader has told this process to be committed. A leader without it is
    /// not this ensemble's, whatever it says.
    proven: Zxid,
    /// `acceptedEpoch` on disk is not what `accepted` says, as it was damaged, or is a promise that does not
    /// count yet.
    promise_due: bool,
    /// The next leader is told of no history, so that it sends a snapshot.
    yields: bool,
    /// Entries below are applied.
    delivered: Index,
    /// Entries below that are not applied yet came as a whole, from the disk or from a leader's
    /// synchronisation, and have `tail_len` bytes. They must be kept however many they are until
    /// they are known to be committed, so no bound of the window is about them.
    tail_end: Index,
    tail_len: usize,
    delivered_zxid: Zxid,
    /// The application's state holds effects of transactions up to here: above `delivered_zxid` only
    /// after recovery from a fuzzy snapshot.
    floor: Zxid,
    /// Entries below that are not handed to storage yet follow a snapshot that will be installed, and are
    /// staged beside it: both take effect at once.
    staged_end: Index,
    /// A snapshot that will be installed, until all that follows it has been pushed.
    installs: Option<Zxid>,
    /// Operations not yet handed to storage, each with the appends that come before it.
    waiting: VecDeque<(Index, Op)>,
    /// Operations handed to storage and not yet durable.
    issued: VecDeque<(Ticket, Op)>,
    next_ticket: u64,
    accepted: Epoch,
    current: Epoch,
    accepted_durable: Epoch,
    /// Which ensemble this directory belongs to, as last asked of storage, and whether storage has it.
    identity: Option<Identity>,
    identity_durable: bool,
    /// Configurations not yet handed to storage, each for its operation, and those handed over last.
    configurations: VecDeque<Vec<String>>,
    configurations_issued: Vec<String>,
    /// It has changed since [`take_identity_change`](Self::take_identity_change).
    identity_changed: bool,
    standing: Standing,
    /// A leader was asked for one, and sent something else.
    snapshot_denied: bool,
    /// Gaps that are not proven yet, oldest first.
    gaps: VecDeque<Gap>,
}

impl History {
    /// A history whose window holds what was recovered, of which the application has everything up to
    /// `delivered`; all of it is durable.
    pub(crate) fn new(
        window: Window,
        delivered: Zxid,
        floor: Zxid,
        accepted: Epoch,
        current: Epoch,
        trusted: bool,
    ) -> Self {
        let (applied, end) = (window.after(delivered), window.end());
        let mut history = Self {
            window,
            tail_end: applied,
            tail_len: 0,
            appended: end,
            durable: end,
            committed: applied,
            proven: Zxid::ZERO,
            promise_due: false,
            yields: false,
            delivered: applied,
            delivered_zxid: delivered,
            floor,
            staged_end: end,
            installs: None,
            waiting: VecDeque::with_capacity(8),
            issued: VecDeque::with_capacity(8),
            next_ticket: 1,
            accepted,
            current,
            accepted_durable: accepted,
            identity: None,
            identity_durable: true,
            identity_changed: false,
            configurations: VecDeque::new(),
            configurations_issued: Vec::new(),
            standing: if trusted { Standing::Whole } else { Standing::Untrusted },
            snapshot_denied: false,
            gaps: VecDeque::new(),
        };
        history.extend_tail();
        history
    }

    pub(crate) fn last(&self) -> Zxid {
        self.window.last()
    }

    pub(crate) fn end(&self) -> Index {
        self.window.end()
    }

    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    pub(crate) fn delivered(&self) -> Index {
        self.delivered
    }

    pub(crate) fn delivered_zxid(&self) -> Zxid {
        self.delivered_zxid
    }

    /// The accepted epoch, as last asked of storage.
    pub(crate) fn accepted(&self) -> Epoch {
        self.accepted
    }

    /// The current epoch, as last asked of storage.
    pub(crate) fn current(&self) -> Epoch {
        self.current
    }

    pub(crate) fn is_accepted_durable(&self) -> bool {
        self.accepted_durable == self.accepted
    }

    /// Whether the current epoch, as last asked of storage, is durable, and with it all that came before.
    /// Who comes back to the same leader writes the same epoch again, after what it has missed.
    pub(crate) fn is_current_durable(&self) -> bool {
        let is_current = |op: &Op| matches!(op, Op::SetEpoch(EpochKind::Current, _));
        !self.waiting.iter().any(|(_, op)| is_current(op))
            && !self.issued.iter().any(|(_, op)| is_current(op))
    }

    /// What may be believed of it. A gap whose proof is under way is doubted.
    pub(crate) fn standing(&self) -> Standing {
        let asked = self.gaps.front().is_some_and(|gap| gap.proof != Proof::Open);
        if asked { self.standing.doubted() } else { self.standing }
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.standing.is_trusted()
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.standing().is_doubted()
    }

    /// The empty directory counts from now on (rule R14).
    pub(crate) fn trust(&mut self) {
        self.standing = self.standing.trusted();
    }

    /// The last stream that should have completed the history had a gap, or was too long to be kept
    /// aside: a snapshot is neither.
    pub(crate) fn want_snapshot(&mut self) {
        self.standing = self.standing.wants_snapshot();
    }

    /// The leader that was asked for a snapshot sends something else.
    pub(crate) fn deny_snapshot(&mut self) {
        self.standing = self.standing.denied();
        self.snapshot_denied = true;
    }

    /// Which ensemble this directory belongs to.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// What was found on the disk.
    pub(crate) fn recover_identity(&mut self, identity: Option<Identity>) {
        self.identity = identity;
        self.identity_changed = true;
    }

    /// Whether storage has the present id.
    pub(crate) fn is_identity_durable(&self) -> bool {
        self.identity_durable
    }

    /// This directory belongs to the ensemble of this id. A confirmation is not taken back.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        let confirmed = self.identity.is_some_and(|own| own.id == identity.id && own.confirmed);
        let identity = Identity { confirmed: confirmed || identity.confirmed, ..identity };
        if self.identity == Some(identity) {
            return;
        }
        self.identity = Some(identity);
        self.identity_durable = false;
        self.identity_changed = true;
        self.enqueue(Op::SetIdentity(identity));
    }

    /// These are the configurations from now on: the committed one, then those that are being introduced.
    pub(crate) fn set_configurations(&mut self, texts: Vec<String>) {
        self.configurations.push_back(texts);
        self.enqueue(Op::SetConfigurations);
    }

    /// Whether storage has not said yet that it has the present configurations.
    pub(crate) fn awaits_configurations(&self) -> bool {
        self.waiting.iter().any(|(_, op)| *op == Op::SetConfigurations)
            || self.issued.iter().any(|(_, op)| *op == Op::SetConfigurations)
    }

    /// Whether the id has changed since this was asked last.
    pub(crate) fn take_identity_change(&mut self) -> bool {
        core::mem::take(&mut self.identity_changed)
    }

    /// Whether it is worth asking for a snapshot in the place of transactions that are too many to be
    /// kept aside. Asked once: not every leader has one that holds what this server does, and Apache's
    /// choose for themselves. What such a leader sends is taken, however long it is.
    pub(crate) fn can_ask_for_snapshot(&self) -> bool {
        self.is_trusted() && !self.snapshot_denied
    }

    /// Bytes in the window that its bounds are about: all but the part of the tail that waits to be
    /// known as committed.
    pub(crate) fn held_len_bytes(&self) -> usize {
        self.window.len_bytes() - self.tail_len
    }

    /// Bytes of the tail that is not applied yet.
    pub(crate) fn tail_len_bytes(&self) -> usize {
        self.tail_len
    }

    /// All that there is belongs to the tail.
    pub(crate) fn extend_tail(&mut self) {
        let from = self.tail_end.max(self.delivered);
        self.tail_len += self.len_bytes_between(from, self.end());
        self.tail_end = self.end();
    }

    /// Whether a long tail is being applied, and enough of it to let go of the memory.
    pub(crate) fn is_release_due(&self) -> bool {
        self.delivered < self.tail_end && self.delivered.is_multiple_of(RELEASE_EVERY)
    }

    fn len_bytes_between(&self, from: Index, end: Index) -> usize {
        (from..end).map(|index| self.window.txn(index).len()).sum()
    }

    /// The history is not to be built upon until a snapshot has replaced it.
    pub(crate) fn doubt(&mut self) {
        self.standing = self.standing.doubted();
    }

    /// This history is the ensemble's.
    pub(crate) fn establish(&mut self) {
        self.standing = self.standing.established();
        self.snapshot_denied = false;
    }

    /// Puts records in the place of the zxids between the newest and `next`, of the same epoch, and
    /// remembers to have them proven. This server's log, and what it sends when it leads, is without
    /// gaps: learners and servers since 3.9.4 refuse them.
    pub(crate) fn fill_gap(&mut self, next: Zxid, time: i64) {
        let first = self.end();
        for unused in (self.last().raw() + 1..next.raw()).map(Zxid::from_raw) {
            self.window.push(unused, &TxnHeader::unused_txn(unused, time));
        }
        self.gaps.push_back(Gap { first, next: self.end(), proof: Proof::Open });
    }

    /// Whether the application has to say something of a gap before anything else is delivered.
    pub(crate) fn awaits_proof(&self) -> bool {
        self.gaps.front().is_some_and(|gap| gap.proof == Proof::Asked || self.delivered > gap.next)
    }

    /// The oldest gap that is not proven: the zxids on both sides of it.
    pub(crate) fn gap(&self) -> Option<(Zxid, Zxid)> {
        let gap = self.gaps.front()?;
        Some((self.window.zxid_before(gap.first), self.window.zxid(gap.next)))
    }

    /// The application's word of the oldest gap: anything but `Agrees` ends the history in front of it.
    pub(crate) fn prove(&mut self, verdict: DigestVerdict) -> Result<(), Violation> {
        if !self.awaits_proof() {
            return Ok(());
        }
        let Some(gap) = self.gaps.front_mut() else { return Ok(()) };
        if verdict == DigestVerdict::Agrees {
            if gap.proof == Proof::Asked {
                gap.proof = Proof::Possible;
            } else {
                self.gaps.pop_front();
            }
            return Ok(());
        }
        let Some((after, next)) = self.gap() else { return Ok(()) };
        self.give_up_gaps();
        Err(Violation::UnprovenGap { after, next })
    }

    /// Abandons all unproven gaps and drops everything after the first one; none of it was handed to
    /// storage. If the application has already applied transactions past the gap, its state and this
    /// history are [`Standing::Broken`] until a snapshot replaces both.
    pub(crate) fn give_up_gaps(&mut self) {
        let Some(Gap { first, .. }) = self.gaps.front().copied() else { return };
        self.gaps.clear();
        self.standing =
            if self.delivered > first { Standing::Broken } else { self.standing.wants_snapshot() };
        self.cut(first);
        self.committed = self.committed.min(first);
        self.delivered = self.delivered.min(first);
    }

    /// Whether nothing is on its way to disk, so that a vote can be computed (rules R2, R4).
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.issued.is_empty() && self.durable == self.end()
    }

    /// Adds a transaction to the end.
    pub(crate) fn push(&mut self, zxid: Zxid, txn: &[u8]) {
        self.window.push(zxid, txn);
    }

    pub(crate) fn set_epoch(&mut self, kind: EpochKind, epoch: Epoch) {
        match kind {
            EpochKind::Accepted => {
                assert!(epoch >= self.accepted, "an accepted epoch never falls (P1)");
                self.accepted = epoch;
            }
            EpochKind::Current => {
                assert!(epoch >= self.current, "a current epoch never falls (P1)");
                assert!(epoch <= self.accepted, "current epoch above the accepted one (P3)");
                self.current = epoch;
            }
        }
        self.enqueue(Op::SetEpoch(kind, epoch));
    }

    /// This history cannot be brought to the leader's by what a leader of its zxid sends. The next
    /// leader is asked for a snapshot in its place.
    pub(crate) fn yield_once(&mut self) {
        self.yields = true;
    }

    /// Whether the leader of now is to replace the history; asked once.
    pub(crate) fn take_yield(&mut self) -> bool {
        core::mem::take(&mut self.yields)
    }

    /// The accepted epoch on disk is missing or damaged. It is written again once a leader has synchronised this
    /// server.
    pub(crate) fn owe_promise(&mut self) {
        self.promise_due = true;
    }

    /// Promises `epoch` to its leader. Returns the current epoch, for ACKEPOCH; -1 if the promise does not
    /// count.
    ///
    /// That of a server whose history does not count (rule R14) is written only by [`enter`](Self::enter),
    /// after all that the leader has sent. On disk it would make the history count after a crash in
    /// between, though it may lack what was committed, and a promise that was lost may have been of a
    /// higher epoch than this one. The history of all others counts before, in between and afterwards: what
    /// a leader sends is added to it, replaces it in one durable switch, or only cuts off what the leader
    /// does not have (rule R5; `splice.rs`).
    pub(crate) fn promise(&mut self, epoch: Epoch) -> Epoch {
        if self.is_trusted() {
            self.set_epoch(EpochKind::Accepted, epoch);
            return self.current;
        }
        self.promise_due = true;
        Epoch(-1)
    }

    /// A leader has synchronised this server in `epoch`.
    pub(crate) fn enter(&mut self, epoch: Epoch) {
        self.trust();
        if core::mem::take(&mut self.promise_due) || self.accepted < epoch {
            self.set_epoch(EpochKind::Accepted, self.accepted.max(epoch));
        }
        self.set_epoch(EpochKind::Current, epoch);
    }

    /// The newest zxid that is known to be committed, by a leader's word to this process.
    pub(crate) fn proven(&self) -> Zxid {
        self.proven
    }

    fn enqueue(&mut self, op: Op) {
        self.waiting.push_back((self.end(), op));
    }

    /// Everything below `index` is committed.
    pub(crate) fn commit(&mut self, index: Index) {
        assert!(index <= self.end(), "only what is in the history can be committed");
        if index > self.committed {
            self.committed = index;
            self.proven = self.window.zxid_before(index);
        }
    }

    /// Storage reports progress.
    pub(crate) fn persisted(&mut self, through: Ticket) {
        while let Some((ticket, op)) = self.issued.front().copied() {
            if ticket > through {
                break;
            }
            self.issued.pop_front();
            match op {
                Op::SetEpoch(EpochKind::Accepted, epoch) => self.accepted_durable = epoch,
                Op::SetIdentity(identity) => {
                    self.identity_durable |= self.identity == Some(identity);
                }
                Op::SetEpoch(EpochKind::Current, _) | Op::Truncate(_) | Op::SetConfigurations => {}
                Op::Install(_) => self.durable = self.durable.max(self.staged_end),
            }
        }
        while self.durable < self.appended && self.window.ticket(self.durable) <= through {
            self.durable += 1;
        }
    }

    pub(crate) fn has_storage_output(&self) -> bool {
        let op = self.waiting.front().is_some_and(|(at, _)| *at <= self.appended);
        op || self.appended < self.storable()
    }

    /// Entries below may go to storage.
    fn storable(&self) -> Index {
        self.gaps.front().map_or_else(|| self.end(), |gap| gap.first)
    }

    pub(crate) fn has_delivery(&self) -> bool {
        self.delivered < self.committed && !self.standing.is_doubted()
    }

    /// The next storage output.
    pub(crate) fn poll_storage(&mut self) -> Option<Output<'_>> {
        let ticket = Ticket(self.next_ticket);
        if let Some((at, op)) = self.waiting.front().copied()
            && at <= self.appended
        {
            self.waiting.pop_front();
            self.issued.push_back((ticket, op));
            self.next_ticket += 1;
            return Some(match op {
                Op::SetEpoch(kind, epoch) => Output::SetEpoch { ticket, kind, epoch },
                Op::SetIdentity(identity) => Output::SetIdentity { ticket, identity },
                Op::SetConfigurations => {
                    let texts = self.configurations.pop_front();
                    self.configurations_issued = texts.expect("one for each operation");
                    Output::SetConfigurations { ticket, texts: &self.configurations_issued }
                }
                Op::Truncate(after) => Output::Truncate { ticket, after },
                Op::Install(zxid) => Output::Install { ticket, zxid },
            });
        }
        if self.appended == self.storable() {
            return None;
        }
        let index = self.appended;
        self.appended += 1;
        if index < self.staged_end {
            // Durable with the snapshot, which comes after it.
            self.window.set_ticket(index, Ticket(u64::MAX));
            let (zxid, txn) = (self.window.zxid(index), self.window.txn(index));
            return Some(Output::Stage { zxid, txn });
        }
        self.next_ticket += 1;
        self.window.set_ticket(index, ticket);
        Some(Output::Append { ticket, zxid: self.window.zxid(index), txn: self.window.txn(index) })
    }

    /// The next committed transaction for the application.
    pub(crate) fn poll_deliver(&mut self) -> Option<Output<'_>> {
        if !self.has_delivery() {
            return None;
        }
        if let Some(gap) = self.gaps.front_mut()
            && (gap.first, gap.proof) == (self.delivered, Proof::Open)
        {
            gap.proof = Proof::Asked;
            let Gap { first, next, .. } = *gap;
            return Some(Output::Gap {
                after: self.window.zxid_before(first),
                zxid: self.window.zxid(next),
                txn: self.window.txn(next),
            });
        }
        let index = self.delivered;
        self.delivered += 1;
        if index < self.tail_end {
            self.tail_len -= self.window.txn(index).len();
        }
        let zxid = self.window.zxid(index);
        self.delivered_zxid = zxid;
        Some(Output::Deliver { zxid, txn: self.window.txn(index) })
    }

    /// Up to where entries can be forgotten that nobody needs: below `needed` (a learner's position),
    /// applied, durable, and beyond what is kept to synchronise learners.
    pub(crate) fn releasable(&self, needed: Index, keep_txns: usize, keep_bytes: usize) -> Index {
        let limit = needed.min(self.delivered).min(self.durable);
        let mut release = self.window.first();
        let mut bytes = self.window.len_bytes();
        let mut txns = usize::try_from(self.end() - release).unwrap_or(usize::MAX);
        while release < limit && (txns > keep_txns || bytes > keep_bytes) {
            bytes -= self.window.txn(release).len();
            txns -= 1;
            release += 1;
        }
        release
    }

    /// Forgets the entries below `first`, which [`releasable`](Self::releasable) has named.
    pub(crate) fn release(&mut self, first: Index) {
        self.window.release(first);
    }
}

/// How many transactions of a tail are applied before the memory of the applied ones is given back.
const RELEASE_EVERY: u64 = 1024;
