//! One learner: where it stands in the handshake and in the history, and what to send it next.

use alloc::collections::VecDeque;

use crate::history::History;
use crate::shared::Outbox;
use crate::types::StateSummary;
use crate::window::Index;
use crate::wire::packet::{self, BARE_LEN, HEAD_LEN, NULL_AUTH, PacketType};
use crate::{ConnId, Epoch, Instant, Origin, Sid, Zxid};

/// The names of a leader's own transactions, which follow each other from counter 1 on. So what was
/// proposed can be committed when the window no longer holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) epoch: Epoch,
    /// The index of the first.
    pub(crate) first: Index,
}

impl Own {
    pub(super) fn zxid(self, index: Index) -> Zxid {
        let counter = index + 1 - self.first;
        Zxid::new(self.epoch, u32::try_from(counter).expect("an epoch has fewer than 2^32"))
    }
}

/// How far a learner has come. Later stages include what the earlier ones brought.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum LearnerStage {
    /// Connected.
    Connected,
    /// Has said who it is; the epoch is not chosen or not durable yet.
    Introduced,
    /// Was sent LEADERINFO.
    LeaderInfoSent,
    /// Has acknowledged the epoch; a quorum has not yet.
    EpochAcked,
    /// Waits until a snapshot of the application may be opened for it.
    SnapshotQueued,
    /// A snapshot is asked for and not opened yet.
    SnapshotAsked,
    /// The application's snapshot goes out.
    SendingSnapshot,
    /// Waits for what lies between its history and the window, and is sent that from the log.
    SendingLog,
    /// Is sent the committed history that it lacks.
    SendingHistory,
    /// Was sent NEWLEADER.
    NewLeaderSent,
    /// Has acknowledged NEWLEADER; the ensemble is not established yet.
    NewLeaderAcked,
    /// Was sent UPTODATE.
    UpToDate,
}

/// What one learner is sent.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) conn: ConnId,
    pub(crate) sid: Sid,
    pub(crate) observer: bool,
    /// When something was written to it.
    pub(crate) sent_at: Instant,
    /// When it was last heard of, or took what it is sent.
    pub(crate) active_at: Instant,
    pub(crate) stage: LearnerStage,
    /// The history that it reported (ACKEPOCH).
    pub(crate) reported: StateSummary,
    pub(crate) out: Outbox,
    /// Nothing was left to send when last asked.
    pub(crate) idle: bool,
    /// The driver holds bytes of it that wait for [`Control::Resume`](crate::shared::Control).
    pub(crate) paused: bool,
    /// Next transaction to send. If the window no longer has it, it comes from the log.
    pub(crate) next: Index,
    /// The zxid before it.
    pub(crate) last_sent: Zxid,
    /// The log is being read for this learner, up to the transaction before this one.
    pub(crate) reading: Option<Index>,
    /// Transactions below were sent with their COMMIT (participants).
    pub(crate) commits_sent: Index,
    /// The changes of the members, committed in this reign, that it has not been told of: the index of each,
    /// and who leads from there on.
    pub(crate) changes: VecDeque<(Index, Sid)>,
    /// Bytes of the transaction at `next` that are sent already.
    part_sent: usize,
    /// End of the history sent before NEWLEADER.
    pub(crate) sync_end: Index,
    /// Bytes of proposals sent after NEWLEADER and before UPTODATE.
    early_len: usize,
    /// How many there may be. It cannot commit them yet and has to keep them.
    early_len_max: usize,
    /// Forwarded syncs, by their place in the stream, and how many there are at that place: each is
    /// answered after the COMMIT of everything below, before any other, and as soon as it is proven.
    syncs: VecDeque<(Index, u64)>,
    /// How many of them, from the oldest on, are proven fresh; how many of the others the running
    /// sync round proves, and how many the next one.
    proven: u64,
    proving: u64,
    unproven: u64,
    /// It is not read until it has taken the answers that wait for it.
    pub(crate) owing: bool,
    /// PINGs that it has to answer.
    pub(crate) pings_sent: u64,
    /// Bytes given to the driver, and how many it were at the last half tick.
    pub(crate) sent_bytes: u64,
    pub(crate) sent_before: u64,
    /// Bytes of the longest field that it was sent and has not shown to have taken, and the transaction
    /// it was, or one before those that follow the snapshot it was in.
    longest: (usize, Index),
    /// For how many half ticks in a row there was something to send and not a byte was taken.
    pub(crate) untaken: u32,
    /// How long the application's snapshot has been lent, in half ticks, and how much was sent before.
    pub(crate) lent: u32,
    pub(crate) lent_at_bytes: u64,
    /// When silence ends the connection.
    pub(crate) silent_at: Instant,
}

impl Sender {
    pub(crate) fn new(conn: ConnId, silent_at: Instant, early_len_max: usize) -> Self {
        Self {
            conn,
            sid: Sid(0),
            observer: false,
            sent_at: Instant::ZERO,
            active_at: Instant::ZERO,
            stage: LearnerStage::Connected,
            reported: StateSummary { current_epoch: Epoch(0), last_zxid: Zxid::NONE },
            out: Outbox::default(),
            idle: true,
            paused: false,
            next: 0,
            last_sent: Zxid::ZERO,
            reading: None,
            commits_sent: 0,
            changes: VecDeque::new(),
            part_sent: 0,
            sync_end: 0,
            early_len: 0,
            early_len_max,
            syncs: VecDeque::new(),
            proven: 0,
            proving: 0,
            unproven: 0,
            owing: false,
            pings_sent: 0,
            sent_bytes: 0,
            sent_before: 0,
            longest: (0, 0),
            untaken: 0,
            lent: 0,
            lent_at_bytes: 0,
            silent_at,
        }
    }

    /// Whether the learner is expected to say something, so that silence is a fault. While it
    /// waits for a quorum it has nothing to say.
    pub(crate) fn is_awaited(&self) -> bool {
        match self.stage {
            LearnerStage::Connected
            | LearnerStage::LeaderInfoSent
            | LearnerStage::SendingSnapshot
            | LearnerStage::SendingLog
            | LearnerStage::SendingHistory
            | LearnerStage::NewLeaderSent
            | LearnerStage::UpToDate => true,
            LearnerStage::Introduced
            | LearnerStage::EpochAcked
            | LearnerStage::SnapshotQueued
            | LearnerStage::SnapshotAsked
            | LearnerStage::NewLeaderAcked => false,
        }
    }

    /// A half tick has passed. Restarts the silence timer of a learner that has taken bytes since the last
    /// one, and of a learner that owes nothing yet (for example while it queues for a snapshot).
    pub(crate) fn note_progress(&mut self, now: Instant, silent_at: Instant, history: &History) {
        let receives =
            (LearnerStage::SendingSnapshot..=LearnerStage::NewLeaderSent).contains(&self.stage);
        let takes = receives && self.sent_bytes != self.sent_before;
        if !self.is_awaited() || takes {
            self.silent_at = silent_at;
        }
        if takes {
            self.active_at = now;
        }
        let waits = self.stage == LearnerStage::SendingSnapshot || self.has_output(history);
        let untaken = waits && self.sent_bytes == self.sent_before;
        self.untaken = if untaken { self.untaken + 1 } else { 0 };
        self.lent += u32::from(self.stage == LearnerStage::SendingSnapshot);
        self.sent_before = self.sent_bytes;
    }

    /// Whether it has taken nothing of what it is sent, for as many ticks as it may be silent before it is
    /// synchronised, and afterwards.
    pub(crate) fn is_not_reading(&self, init_limit: u32, sync_limit: u32) -> bool {
        let ticks =
            if self.stage >= LearnerStage::NewLeaderAcked { sync_limit } else { init_limit };
        self.untaken > 2 * ticks
    }

    /// A snapshot of the application is open for it, or about to be.
    pub(crate) fn has_snapshot(&self) -> bool {
        matches!(self.stage, LearnerStage::SnapshotAsked | LearnerStage::SendingSnapshot)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { sid: self.sid, conn: self.conn }
    }

    /// The oldest transaction that is best kept in the window for this learner. If the window cannot
    /// wait, it comes from the log.
    pub(crate) fn wants(&self) -> Option<Index> {
        (self.stage >= LearnerStage::SendingSnapshot).then(|| self.reading.unwrap_or(self.next))
    }

    /// Whether the next transaction has to come from the log.
    pub(crate) fn is_behind(&self, history: &History) -> bool {
        self.next < history.window.first() && matches!(self.step(history), NextPacket::Txn(_))
    }

    /// The window is about to forget what is below `first`: what is begun is kept to be finished.
    pub(crate) fn leave_window(&mut self, history: &History, first: Index) {
        if self.part_sent == 0 || self.next >= first {
            return;
        }
        let kind = match self.step(history) {
            NextPacket::Txn(kind) => kind,
            step => unreachable!("a transaction is half sent, not {step:?}"),
        };
        let zxid = history.window.zxid(self.next);
        let mut packet = Outbox::default();
        packet.put(kind, zxid, Some(history.window.txn(self.next)));
        self.out.put_front(packet, self.part_sent);
        self.passed(zxid);
    }

    /// The transaction at `next` is on its way.
    pub(super) fn passed(&mut self, zxid: Zxid) {
        self.part_sent = 0;
        self.last_sent = zxid;
        self.next += 1;
    }

    /// The next transaction, from the log, and what is due after it.
    pub(crate) fn put_logged(&mut self, history: &History, own: Own, zxid: Zxid, txn: &[u8]) {
        let NextPacket::Txn(kind) = self.step(history) else { return };
        match self.change_at(self.next).filter(|_| kind == PacketType::INFORM) {
            Some(leader) => self.put_activation(PacketType::INFORMANDACTIVATE, zxid, leader, txn),
            None => self.out.put(kind, zxid, Some(txn)),
        }
        self.note_len(txn.len(), self.next);
        self.early_len += if self.is_early() { txn.len() } else { 0 };
        self.passed(zxid);
        while !self.is_slow_to_take() {
            match self.step(history) {
                NextPacket::Commit => self.put_commit(own),
                NextPacket::Sync => self.put_sync(),
                NextPacket::Nothing | NextPacket::Txn(_) | NextPacket::NewLeader => return,
            }
        }
    }

    /// It is sent a field of `len` bytes, which is part of the transaction at `index`.
    pub(crate) fn note_len(&mut self, len: usize, index: Index) {
        if len > self.longest.0 {
            self.longest = (len, index);
        }
    }

    /// It has taken everything below `index`, however long.
    pub(crate) fn has_shown(&mut self, index: Index) {
        if self.longest.1 < index {
            self.longest = (0, 0);
        }
    }

    /// Bytes of the longest field that it may not have been able to take.
    pub(crate) fn longest(&self) -> usize {
        self.longest.0
    }

    /// It was sent NEWLEADER, and UPTODATE not yet.
    fn is_early(&self) -> bool {
        matches!(self.stage, LearnerStage::NewLeaderSent | LearnerStage::NewLeaderAcked)
    }

    pub(super) fn next_commit(&mut self, own: Own) -> [u8; BARE_LEN] {
        // While it catches up, each transaction is committed before the next one is sent; later, all
        // that is not committed is this leader's own.
        let zxid = match self.stage {
            LearnerStage::SendingHistory => self.last_sent,
            _ => own.zxid(self.commits_sent),
        };
        self.commits_sent += 1;
        packet::bare(PacketType::COMMIT, zxid)
    }

    /// Whether everything that is committed has gone out, with what it is told of that.
    pub(crate) fn is_told(&self, history: &History) -> bool {
        let told = if self.observer { self.next } else { self.commits_sent };
        told >= history.committed() && self.out.is_empty()
    }

    /// A sync that must be answered after everything below `gate`; false if there are too many.
    pub(crate) fn ask_sync(&mut self, gate: Index) -> bool {
        self.unproven += 1;
        match self.syncs.back_mut() {
            Some((last, count)) if *last == gate => *count += 1,
            _ => self.syncs.push_back((gate, 1)),
        }
        self.syncs.len() <= SYNC_PLACES_MAX
    }

    /// A sync round begins, for all that was asked so far.
    pub(crate) fn begin_round(&mut self) {
        self.proving += core::mem::take(&mut self.unproven);
    }

    /// The round has ended.
    pub(crate) fn end_round(&mut self) {
        self.proven += core::mem::take(&mut self.proving);
    }

    fn put_sync(&mut self) {
        if let Some((_, count)) = self.syncs.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.syncs.pop_front();
            }
            self.proven -= 1;
            self.out.put_bare(PacketType::SYNC, Zxid::ZERO);
        }
    }

    /// Whether so much waits to be sent to it besides transactions that it must be asked for nothing
    /// more.
    pub(crate) fn is_slow_to_take(&self) -> bool {
        self.out.len_bytes() > OWED_LEN_MAX
    }

    /// Whether it has taken enough to be read again.
    pub(crate) fn has_taken(&self) -> bool {
        self.out.len_bytes() <= OWED_LEN_MAX / 2
    }

    pub(crate) fn ping(&mut self, zxid: Zxid) {
        self.out.put_bare(PacketType::PING, zxid);
        // A learner answers none that it reads before UPTODATE.
        if self.stage == LearnerStage::UpToDate {
            self.pings_sent += 1;
        }
    }

    /// What remains to be sent once the outbox is empty.
    fn step(&self, history: &History) -> NextPacket {
        match self.stage {
            LearnerStage::SendingHistory if self.commits_sent < self.next => NextPacket::Commit,
            LearnerStage::SendingHistory if self.next < self.sync_end => {
                NextPacket::Txn(PacketType::PROPOSAL)
            }
            LearnerStage::SendingHistory => NextPacket::NewLeader,
            LearnerStage::NewLeaderSent | LearnerStage::NewLeaderAcked
                if !self.observer && self.next < history.end() =>
            {
                let room = self.part_sent > 0 || self.early_len < self.early_len_max;
                if room { NextPacket::Txn(PacketType::PROPOSAL) } else { NextPacket::Nothing }
            }
            LearnerStage::UpToDate => self.live_step(history),
            _ => NextPacket::Nothing,
        }
    }

    /// A Java learner takes the answers to its own writes and syncs in the order in which it sent
    /// the requests: a COMMIT that overtakes a SYNC would pass for another server's, and its
    /// client would wait for ever. So a sync that is not proven yet holds back what follows it.
    fn live_step(&self, history: &History) -> NextPacket {
        let told = if self.observer { self.next } else { self.commits_sent };
        let sync_due = self.syncs.front().is_some_and(|(gate, _)| *gate <= told);
        if self.part_sent > 0 {
            // What is begun must be finished before anything else.
            let kind = if self.observer { PacketType::INFORM } else { PacketType::PROPOSAL };
            NextPacket::Txn(kind)
        } else if sync_due && self.proven > 0 {
            NextPacket::Sync
        } else if self.observer {
            let more = !sync_due && self.next < history.committed();
            if more { NextPacket::Txn(PacketType::INFORM) } else { NextPacket::Nothing }
        } else if !sync_due && self.commits_sent < history.committed().min(self.next) {
            NextPacket::Commit
        } else if self.next < history.end() {
            NextPacket::Txn(PacketType::PROPOSAL)
        } else {
            NextPacket::Nothing
        }
    }

    /// Whether `transmit` has something to write.
    pub(crate) fn has_output(&self, history: &History) -> bool {
        !self.out.is_empty()
            || match self.step(history) {
                NextPacket::Nothing => false,
                NextPacket::Txn(_) => self.next >= history.window.first(),
                NextPacket::Commit | NextPacket::Sync | NextPacket::NewLeader => true,
            }
    }

    /// Fills `buf`: what is in the outbox first, but never inside a transaction, then what follows
    /// from the position in the history.
    pub(crate) fn transmit(
        &mut self,
        history: &History,
        own: Own,
        config_text: &str,
        buf: &mut [u8],
    ) -> usize {
        let mut written = 0;
        loop {
            if self.part_sent == 0 {
                written += self.out.transmit(&mut buf[written..]);
                if !self.out.is_empty() {
                    return written;
                }
            }
            let room = &mut buf[written..];
            match self.step(history) {
                NextPacket::Nothing => return written,
                NextPacket::Txn(_) if self.next < history.window.first() => return written,
                NextPacket::Txn(kind) => {
                    let is_informed = kind == PacketType::INFORM && self.part_sent == 0;
                    let change = is_informed.then(|| self.change_at(self.next)).flatten();
                    if let Some(leader) = change {
                        self.put_change(history, leader);
                        continue;
                    }
                    let (n, done) = self.transmit_txn(kind, history, room);
                    written += n;
                    if !done {
                        return written;
                    }
                }
                NextPacket::Commit if !self.changes.is_empty() => self.put_commit(own),
                NextPacket::Commit => {
                    let commit = self.next_commit(own);
                    match room.first_chunk_mut::<BARE_LEN>() {
                        Some(room) => {
                            *room = commit;
                            written += BARE_LEN;
                        }
                        None => self.out.put_raw(&commit),
                    }
                }
                NextPacket::Sync => self.put_sync(),
                NextPacket::NewLeader => {
                    self.stage = LearnerStage::NewLeaderSent;
                    let zxid = Zxid::new(own.epoch, 0);
                    self.out.put(PacketType::NEWLEADER, zxid, Some(config_text.as_bytes()));
                }
            }
        }
    }

    /// Writes (the rest of) the transaction at `next`; true if it is out completely.
    fn transmit_txn(
        &mut self,
        kind: PacketType,
        history: &History,
        buf: &mut [u8],
    ) -> (usize, bool) {
        let zxid = history.window.zxid(self.next);
        let txn = history.window.txn(self.next);
        let head = packet::head(kind, zxid, txn.len());
        let len = HEAD_LEN + txn.len() + NULL_AUTH.len();
        self.note_len(txn.len(), self.next);
        self.early_len += if self.part_sent == 0 && self.is_early() { txn.len() } else { 0 };
        if self.part_sent == 0
            && let Some(buf) = buf.get_mut(..len)
        {
            buf[..HEAD_LEN].copy_from_slice(&head);
            buf[HEAD_LEN..HEAD_LEN + txn.len()].copy_from_slice(txn);
            buf[HEAD_LEN + txn.len()..].copy_from_slice(NULL_AUTH);
            self.passed(zxid);
            return (len, true);
        }
        let mut written = 0;
        let mut begin = 0;
        for part in [&head[..], txn, NULL_AUTH] {
            let skip = self.part_sent.saturating_sub(begin).min(part.len());
            let n = (part.len() - skip).min(buf.len() - written);
            buf[written..written + n].copy_from_slice(&part[skip..skip + n]);
            written += n;
            self.part_sent += n;
            begin += part.len();
        }
        if self.part_sent < len {
            return (written, false);
        }
        self.passed(zxid);
        (written, true)
    }
}

/// At how many places in the history a learner may wait for the answers to its syncs. More than a few
/// of them come from one that does not take its commits.
const SYNC_PLACES_MAX: usize = 1 << 16;

/// How many bytes besides transactions (answers, PINGs, what was read of the log) may wait for a
/// learner. Above, none of its requests is read, nor what it says after them.
pub(crate) const OWED_LEN_MAX: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NextPacket {
    Nothing,
    Txn(PacketType),
    Commit,
    Sync,
    NewLeader,
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::window::Window;

    #[test]
    fn a_sync_keeps_its_place_among_the_commits() {
        let epoch = Epoch(1);
        let mut history =
            History::new(Window::new(Zxid::ZERO), Zxid::ZERO, Zxid::ZERO, epoch, epoch, true);
        let mut link = Sender::new(ConnId::core(0, 0), Instant::ZERO, 0);
        link.stage = LearnerStage::UpToDate;
        history.push(Zxid::new(epoch, 1), b"before the sync");
        assert!(link.ask_sync(history.end()));
        history.push(Zxid::new(epoch, 2), b"behind the sync");
        history.commit(history.end());
        let kinds = |link: &mut Sender| {
            let mut buf = [0; 1024];
            let len = link.transmit(&history, Own { epoch, first: 0 }, "", &mut buf);
            let mut rest = &buf[..len];
            let mut kinds = Vec::new();
            while let crate::wire::Parsed::Complete { value, len } =
                packet::Packet::parse(rest, 1024)
            {
                kinds.push(value.kind);
                rest = &rest[len..];
            }
            kinds
        };
        let (proposal, commit) = (PacketType::PROPOSAL, PacketType::COMMIT);
        assert_eq!(kinds(&mut link), [proposal, commit, proposal]);
        link.begin_round();
        link.end_round();
        assert_eq!(kinds(&mut link), [PacketType::SYNC, commit]);
    }

    #[test]
    fn syncs_are_kept_by_their_place() {
        let mut link = Sender::new(ConnId::core(0, 0), Instant::ZERO, 0);
        assert!((0..1_000_000).all(|_| link.ask_sync(1)));
        assert_eq!(link.syncs.len(), 1);
        let places = 2..1 + SYNC_PLACES_MAX as u64;
        assert!(places.clone().all(|gate| link.ask_sync(gate)));
        assert!(!link.ask_sync(places.end), "the link is closed");
    }
}
