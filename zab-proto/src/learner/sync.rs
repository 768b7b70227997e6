//! Synchronisation, the learner's half.
//!
//! Everything that comes before NEWLEADER is kept aside: neither the history nor anything durable
//! changes until it is complete (rule R5). At NEWLEADER it becomes the history, is made durable,
//! then the current epoch is, and only then NEWLEADER is acknowledged (rules R1, R3).

use super::{Learner, LearnerStep};
use crate::history::Standing;
use crate::reconfig;
use crate::shared::{SNAP_SIGNATURE, Shared};
use crate::window::{Index, Window};
use crate::wire::body;
use crate::wire::packet::{Packet, PacketType};
use crate::wire::txn::TxnHeader;
use crate::{CloseReason, DecodeError, Message, SyncMode, Violation, Zxid};

/// What a synchronisation has brought so far.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The zxid that the first transaction follows.
    base: Zxid,
    txns: Window,
    /// How many of them are committed.
    committed: Index,
    snapshot: Snapshot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Snapshot {
    None,
    Coming,
    Done,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self {
            base: Zxid::ZERO,
            txns: Window::new(Zxid::ZERO),
            committed: 0,
            snapshot: Snapshot::None,
        }
    }

    fn begin(&mut self, base: Zxid, snapshot: Snapshot) {
        *self = Self { base, txns: Window::new(base), snapshot, ..Self::new() };
    }

    pub(super) fn is_staged(&self) -> bool {
        self.snapshot != Snapshot::None
    }

    pub(super) fn is_snapshot_done(&self) -> bool {
        self.snapshot == Snapshot::Done
    }
}

impl Learner {
    /// DIFF, TRUNC or SNAP.
    pub(super) fn on_plan(
        &mut self,
        shared: &mut Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        if self.is_ahead(shared) {
            return Err(CloseReason::Violation(Violation::LeaderBehind));
        }
        let history = &mut shared.history;
        let unexpected = CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0));
        let standing = history.standing();
        let concealed = standing != Standing::Whole;
        let replaced = packet.kind == PacketType::SNAP && packet.zxid >= history.last();
        if standing == Standing::WantsSnapshot && !replaced {
            history.deny_snapshot();
            return Err(unexpected);
        }
        match packet.kind {
            // A history that the leader was not told of cannot be the base of anything.
            PacketType::DIFF | PacketType::TRUNC if concealed && history.last() != Zxid::ZERO => {
                return Err(unexpected);
            }
            PacketType::DIFF => {
                self.sync = Some(SyncMode::Diff);
                self.incoming.begin(history.last(), Snapshot::None);
            }
            PacketType::TRUNC => {
                self.sync = Some(SyncMode::Trunc);
                self.incoming.begin(packet.zxid, Snapshot::None);
                if packet.zxid < history.proven() {
                    return Err(CloseReason::Violation(Violation::LeaderBehind));
                }
                if !history.can_truncate(packet.zxid) {
                    // What should be cut is applied already, or the target is not in this history:
                    // a snapshot must replace it. That is this leader's word, which it may have for
                    // its own epoch and not beyond: the next vote is cast with this history.
                    shared.history.yield_once();
                    return Err(CloseReason::Violation(Violation::BadTruncation));
                }
            }
            PacketType::SNAP => {
                self.sync = Some(SyncMode::Snap);
                self.incoming.begin(packet.zxid, Snapshot::Coming);
                self.step = LearnerStep::Snapshot;
                self.announce(shared);
                return Ok(());
            }
            _ => return Err(unexpected),
        }
        self.step = LearnerStep::Syncing;
        self.announce(shared);
        Ok(())
    }

    /// The application has taken part of the snapshot, or all of it.
    pub(crate) fn snapshot_received(&mut self, done: bool) {
        if done && self.incoming.snapshot == Snapshot::Coming {
            self.incoming.snapshot = Snapshot::Done;
        }
    }

    /// The text that ends a snapshot stream.
    pub(super) fn take_signature<'b>(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<Message<'b>>), CloseReason> {
        let bad = CloseReason::Violation(Violation::BadSnapshot);
        if !bytes.iter().zip(SNAP_SIGNATURE).all(|(got, expected)| got == expected) {
            return Err(bad);
        }
        if bytes.len() < SNAP_SIGNATURE.len() {
            return Ok((0, None));
        }
        self.step = LearnerStep::Syncing;
        Ok((SNAP_SIGNATURE.len(), None))
    }

    /// A packet between the plan and UPTODATE.
    pub(super) fn on_sync_packet(
        &mut self,
        shared: &mut Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        let data = || packet.data.ok_or(CloseReason::Malformed(DecodeError::UnexpectedEof));
        match packet.kind {
            PacketType::PROPOSAL => self.take_txn(shared, packet.zxid, data()?),
            PacketType::COMMIT => self.take_commit(shared, packet.zxid),
            PacketType::COMMITANDACTIVATE => {
                self.take_commit(shared, packet.zxid)?;
                reconfig::end_outdated(shared)
            }
            PacketType::INFORM => self.take_inform(shared, packet.zxid, data()?),
            PacketType::INFORMANDACTIVATE => {
                let (_, txn) = body::parse_activate(data()?).map_err(CloseReason::Malformed)?;
                self.take_inform(shared, packet.zxid, txn)?;
                reconfig::end_outdated(shared)
            }
            PacketType::NEWLEADER if self.step == LearnerStep::Syncing => {
                self.on_new_leader(shared, packet)
            }
            PacketType::UPTODATE if self.step == LearnerStep::Synced => {
                self.on_up_to_date(shared);
                Ok(())
            }
            PacketType::NEWLEADER | PacketType::UPTODATE => {
                Err(CloseReason::Violation(Violation::UnexpectedPacket(packet.kind.0)))
            }
            // PING and the like: ignored, as by `Learner.syncWithLeader`.
            _ => Ok(()),
        }
    }

    pub(super) fn take_inform(
        &mut self,
        shared: &mut Shared,
        zxid: Zxid,
        txn: &[u8],
    ) -> Result<(), CloseReason> {
        self.take_txn(shared, zxid, txn)?;
        self.take_commit(shared, zxid)
    }

    /// A transaction, in any phase from the plan on.
    pub(super) fn take_txn(
        &mut self,
        shared: &mut Shared,
        zxid: Zxid,
        txn: &[u8],
    ) -> Result<(), CloseReason> {
        let aside = self.step == LearnerStep::Syncing;
        let last = if aside { self.incoming.txns.last() } else { shared.history.last() };
        // A leader may repeat what a learner or a fuzzy snapshot has.
        if zxid <= last {
            return Ok(());
        }
        // Counter 0 names an epoch, and what a leader makes itself is of its own epoch.
        let epoch = zxid.epoch();
        let stray = zxid.counter() == 0
            || epoch > self.epoch
            || (self.step == LearnerStep::Live && epoch != self.epoch);
        if stray {
            return Err(CloseReason::Violation(Violation::Gap));
        }
        let header = TxnHeader::parse(txn).ok().filter(|header| header.zxid == zxid);
        let header = header.ok_or(CloseReason::Violation(Violation::BadTxn))?;
        // What is kept aside is not part of the history before NEWLEADER.
        if !aside || !shared.config.reconfig {
            reconfig::observe_txn(shared, &header, txn);
        }
        let long =
            aside && self.incoming.txns.len_bytes() > shared.config.limits.window_len_max_bytes;
        if long && self.sync != Some(SyncMode::Snap) && shared.history.can_ask_for_snapshot() {
            // The next attempt would be sent as much again; a snapshot takes no room here. What
            // follows behind a snapshot, or comes in the place of one, is taken whatever its length:
            // to refuse it, too, would keep this server out for ever.
            shared.history.want_snapshot();
            return Err(CloseReason::TooFarBehind);
        }
        if !last.is_followed_by(zxid) {
            self.check_gap(shared, last, zxid)?;
            shared.history.fill_gap(zxid, header.time);
        }
        let window = if aside { &mut self.incoming.txns } else { &mut shared.history.window };
        window.push(zxid, txn);
        Ok(())
    }

    /// Whether counters may be missing in front of `next`.
    ///
    /// A leader of ZooKeeper 3.8 takes a zxid for some malformed requests and proposes nothing
    /// (`PrepRequestProcessor.pRequest`; rule R8). What a leader sends behind NEWLEADER comes as it
    /// proposes it, whole and in order: a counter missing there may be unused. Nothing behind it is
    /// logged or acknowledged before the digest behind it has proven that ([`Output::Gap`]). What
    /// comes before NEWLEADER must be durable for the epoch to begin, and may lack transactions
    /// that were committed (ZOOKEEPER-4925, 2099, 2846): a gap there is refused, and the next
    /// attempt asks for a snapshot, which holds everything.
    ///
    /// [`Output::Gap`]: crate::Output::Gap
    fn check_gap(&self, shared: &mut Shared, last: Zxid, next: Zxid) -> Result<(), CloseReason> {
        if self.step == LearnerStep::Syncing || next.raw() - last.raw() > UNUSED_MAX {
            shared.history.want_snapshot();
            return Err(CloseReason::Violation(Violation::Gap));
        }
        Ok(())
    }

    /// The commit of the oldest uncommitted transaction, in any phase from the plan on.
    pub(super) fn take_commit(
        &mut self,
        shared: &mut Shared,
        zxid: Zxid,
    ) -> Result<(), CloseReason> {
        let aside = self.step == LearnerStep::Syncing;
        let (window, committed) = if aside {
            (&self.incoming.txns, &mut self.incoming.committed)
        } else {
            (&shared.history.window, &mut self.committed)
        };
        // Nobody commits an unused zxid.
        let mut index = *committed;
        while index < window.end() && window.zxid(index) < zxid && is_unused(window, index) {
            index += 1;
        }
        if index < window.end() && window.zxid(index) == zxid {
            *committed = index + 1;
            return Ok(());
        }
        // The commit of a repeated transaction is repeated as well.
        if zxid <= window.zxid_before(*committed) {
            return Ok(());
        }
        Err(CloseReason::Violation(Violation::CommitOrder))
    }

    /// NEWLEADER: what was kept aside becomes the history, then the epoch becomes current.
    fn on_new_leader(
        &mut self,
        shared: &mut Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        if packet.zxid != Zxid::new(self.epoch, 0) {
            return Err(CloseReason::Violation(Violation::OldEpoch));
        }
        if self.is_behind(shared) {
            return Err(CloseReason::Violation(Violation::LeaderBehind));
        }
        reconfig::compare_leader(shared, packet.data.unwrap_or_default())?;
        // The history up to here is the leader's and counts as committed at UPTODATE; no COMMIT
        // comes for it (`Learner.syncWithLeader`, DIFF).
        let (history, txns) = (&mut shared.history, &self.incoming.txns);
        let base = if self.sync == Some(SyncMode::Trunc) {
            history.splice(self.incoming.base, txns)
        } else {
            if self.sync == Some(SyncMode::Snap) {
                history.install(self.incoming.base);
            }
            let base = history.end();
            history.extend(txns, txns.first());
            base
        };
        // Stored before a snapshot takes effect that may hold the change.
        reconfig::observe_leader(shared, packet.data.unwrap_or_default());
        shared.history.seal();
        self.committed = base + self.incoming.committed;
        // Transactions that were committed already need no acknowledgement.
        self.acked = self.committed;
        self.incoming = Incoming::new();
        shared.history.enter(self.epoch);
        self.step = LearnerStep::Storing;
        self.acknowledge(shared);
        Ok(())
    }

    /// Whether this server has been with a leader of a later epoch than this one's. It tells in
    /// ACKEPOCH, and expects to be refused.
    pub(crate) fn is_ahead(&self, shared: &Shared) -> bool {
        self.epoch < shared.history.current().max(shared.history.last().epoch())
    }

    /// Whether what has come ends before something that was committed while this process ran.
    fn is_behind(&self, shared: &Shared) -> bool {
        let proven = shared.history.proven();
        self.sync != Some(SyncMode::Diff) && self.incoming.txns.last() < proven
    }

    /// Sends the acknowledgements whose promises are durable: NEWLEADER's first, then those of
    /// transactions, in order.
    pub(super) fn acknowledge(&mut self, shared: &mut Shared) {
        let history = &shared.history;
        if self.step == LearnerStep::Storing {
            // The epoch is written after everything that came before NEWLEADER.
            if !history.is_current_durable() {
                return;
            }
            self.out.put_bare(PacketType::ACK, Zxid::new(self.epoch, 0));
            self.step = LearnerStep::Synced;
        }
        if self.step < LearnerStep::Synced {
            return;
        }
        if self.observer {
            self.show_progress(shared);
            return;
        }
        while self.acked < history.durable() {
            if !is_unused(&history.window, self.acked) {
                self.out.put_bare(PacketType::ACK, history.window.zxid(self.acked));
            }
            self.acked += 1;
        }
    }

    /// An observer whose window is full is read no further than its disk is, and PINGs come behind all
    /// that the leader has sent meanwhile. So that it does not pass for silent, it says how far it is. A
    /// leader counts no acknowledgement of an observer (`Leader.processAck` ignores what is committed).
    fn show_progress(&mut self, shared: &Shared) {
        let due = self.shown_at + shared.config.tick_time / 2 <= shared.now;
        let durable = shared.history.window.zxid_before(shared.history.durable());
        if self.paused && due && self.step == LearnerStep::Live && durable.counter() > 0 {
            self.shown_at = shared.now;
            // Apache's observer master closes on an acknowledgement, and takes a PING at any time.
            match self.master {
                None => self.out.put_bare(PacketType::ACK, durable),
                Some(_) => self.out.put(PacketType::PING, self.ping, Some(b"")),
            }
        }
    }

    /// UPTODATE: the leader is established, its history committed.
    fn on_up_to_date(&mut self, shared: &mut Shared) {
        self.out.put_bare(PacketType::ACK, Zxid::new(self.epoch, 0));
        self.step = LearnerStep::Live;
        self.config_text = reconfig::tell_committed(shared);
        shared.history.commit(self.committed);
        self.adopt_identity(shared);
        self.begin_suspicion(shared);
        self.announce(shared);
        self.activate(shared, None);
    }

    /// Something has become durable.
    pub(crate) fn on_persisted(&mut self, shared: &mut Shared) {
        self.send_promise(shared);
        self.acknowledge(shared);
        self.confirm_identity(shared);
    }
}

/// More zxids in a row than this are not believed to be unused.
const UNUSED_MAX: i64 = 1 << 16;

fn is_unused(window: &Window, index: Index) -> bool {
    TxnHeader::parse(window.txn(index)).is_ok_and(|header| header.is_unused())
}
