//! One learner, as its leader sees it: where it stands in the handshake and in the history.

use alloc::collections::VecDeque;

use crate::history::History;
use crate::shared::Outbox;
use crate::window::Index;
use crate::wire::packet::{self, BARE_LEN, HEAD_LEN, NULL_AUTH, PacketType};
use crate::{ConnId, Epoch, Instant, Origin, Sid, Zxid};

/// How far a learner has come. Later stages include what the earlier ones brought.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Connected.
    Hello,
    /// Has said who it is; the epoch is not chosen or not durable yet.
    Introduced,
    /// Was sent LEADERINFO.
    Invited,
    /// Has acknowledged the epoch; a quorum has not yet.
    Promised,
    /// Waits until a snapshot of the application may be opened for it.
    Queued,
    /// A snapshot is asked for and not opened yet.
    Snapshot,
    /// The application's snapshot goes out.
    Lent,
    /// Is sent what the window no longer has, from the log.
    Reading,
    /// Is sent the committed history that it lacks.
    CatchingUp,
    /// Was sent NEWLEADER.
    Asked,
    /// Has acknowledged NEWLEADER; the ensemble is not established yet.
    Synced,
    /// Was sent UPTODATE.
    Live,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) sid: Sid,
    pub(super) observer: bool,
    /// It has promised a higher epoch than this leader's, and counts to no quorum (rule R19).
    pub(super) guest: bool,
    /// It can join as a guest: it is a member of ours.
    pub(super) can_be_guest: bool,
    /// The accepted epoch of its introduction.
    pub(super) accepted: Epoch,
    /// When it was last heard of, or took what it is sent.
    pub(super) active_at: Instant,
    pub(super) stage: Stage,
    /// Last zxid and current epoch it reported (ACKEPOCH).
    pub(super) reported: (Epoch, Zxid),
    pub(super) out: Outbox,
    /// Nothing was left to send when last asked.
    pub(super) idle: bool,
    /// The driver holds bytes of it that wait for [`Control::Resume`](crate::shared::Control).
    pub(super) paused: bool,
    /// Next transaction to send.
    pub(super) next: Index,
    /// Transactions below were sent with their COMMIT (participants).
    pub(super) commits_sent: Index,
    /// Bytes of the transaction at `next` that are sent already.
    part_sent: usize,
    /// End of the history sent before NEWLEADER.
    pub(super) cut: Index,
    /// Transactions below are acknowledged.
    pub(super) acked: Index,
    /// Forwarded syncs, by their place in the stream: each is answered behind the COMMIT of
    /// everything below, before any other, and as soon as it is proven.
    pub(super) syncs: VecDeque<Index>,
    /// How many of them, from the oldest on, are proven fresh.
    pub(super) proven: usize,
    /// PINGs that it has to answer, and those that it has answered, in the same order.
    pub(super) pings_sent: u64,
    pub(super) pongs: u64,
    /// The PING whose answer counts for the running round of freshness.
    pub(super) round: Option<u64>,
    /// Bytes given to the driver, and how many it were at the last half tick.
    pub(super) sent_bytes: u64,
    pub(super) sent_before: u64,
    /// There was something to send at the last half tick; and since then not a byte was taken.
    pub(super) waits: bool,
    pub(super) stuck: bool,
    /// When silence ends the connection.
    pub(super) silent_at: Instant,
    /// Until when it counts as alive in the leader's quorum test.
    pub(super) alive_until: Instant,
    /// The proposal whose acknowledgement is watched, and since when.
    pub(super) watched: Option<(Index, Instant)>,
}

impl Link {
    pub(super) fn new(conn: ConnId, silent_at: Instant, alive_until: Instant) -> Self {
        Self {
            conn,
            sid: Sid(0),
            observer: false,
            guest: false,
            can_be_guest: false,
            accepted: Epoch(0),
            active_at: Instant::ZERO,
            stage: Stage::Hello,
            reported: (Epoch(0), Zxid::NONE),
            out: Outbox::default(),
            idle: true,
            paused: false,
            next: 0,
            commits_sent: 0,
            part_sent: 0,
            cut: 0,
            acked: 0,
            syncs: VecDeque::new(),
            proven: 0,
            pings_sent: 0,
            pongs: 0,
            round: None,
            sent_bytes: 0,
            sent_before: 0,
            waits: false,
            stuck: false,
            silent_at,
            alive_until,
            watched: None,
        }
    }

    /// Whether what it says counts to the quorums of this epoch, if it is a voter: its promise, its
    /// acknowledgements, that it is alive.
    pub(super) fn counts(&self) -> bool {
        !self.observer && !self.guest
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { sid: self.sid, conn: self.conn }
    }

    /// The oldest transaction this learner still needs from the window.
    pub(super) fn needs(&self) -> Option<Index> {
        match self.stage {
            Stage::Hello | Stage::Introduced | Stage::Invited | Stage::Promised => None,
            Stage::Queued | Stage::Snapshot => None,
            Stage::Lent
            | Stage::Reading
            | Stage::CatchingUp
            | Stage::Asked
            | Stage::Synced
            | Stage::Live => {
                // An observer is sent commits only while it catches up.
                let informed = self.observer && self.stage > Stage::CatchingUp;
                Some(if informed { self.next } else { self.next.min(self.commits_sent) })
            }
        }
    }

    pub(super) fn ping(&mut self, zxid: Zxid) {
        self.out.put_bare(PacketType::PING, zxid);
        // A learner answers none that it reads before UPTODATE.
        if self.stage == Stage::Live {
            self.pings_sent += 1;
        }
    }

    /// What remains to be sent once the outbox is empty.
    fn step(&self, history: &History) -> Step {
        match self.stage {
            Stage::CatchingUp if self.commits_sent < self.next => Step::Commit,
            Stage::CatchingUp if self.next < self.cut => Step::Txn(PacketType::PROPOSAL),
            Stage::CatchingUp => Step::NewLeader,
            Stage::Asked | Stage::Synced if !self.observer && self.next < history.end() => {
                Step::Txn(PacketType::PROPOSAL)
            }
            Stage::Live => self.live_step(history),
            _ => Step::Nothing,
        }
    }

    /// A Java learner takes the answers to its own writes and syncs in the order in which it sent
    /// the requests: a COMMIT that overtakes a SYNC would pass for another server's, and its
    /// client would wait for ever. So a sync that is not proven yet holds back what follows it.
    fn live_step(&self, history: &History) -> Step {
        let told = if self.observer { self.next } else { self.commits_sent };
        let sync_due = self.syncs.front().is_some_and(|gate| *gate <= told);
        if self.part_sent > 0 {
            // What is begun must be finished before anything else.
            let kind = if self.observer { PacketType::INFORM } else { PacketType::PROPOSAL };
            Step::Txn(kind)
        } else if sync_due && self.proven > 0 {
            Step::Sync
        } else if self.observer {
            let more = !sync_due && self.next < history.committed();
            if more { Step::Txn(PacketType::INFORM) } else { Step::Nothing }
        } else if !sync_due && self.commits_sent < history.committed().min(self.next) {
            Step::Commit
        } else if self.next < history.end() {
            Step::Txn(PacketType::PROPOSAL)
        } else {
            Step::Nothing
        }
    }

    /// Whether `transmit` has something to write.
    pub(super) fn has_output(&self, history: &History) -> bool {
        !self.out.is_empty() || self.step(history) != Step::Nothing
    }

    /// Fills `buf`: what is in the outbox first, but never inside a transaction, then what follows
    /// from the position in the history.
    pub(super) fn transmit(
        &mut self,
        history: &History,
        new_leader: (Zxid, &str),
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
                Step::Nothing => return written,
                Step::Txn(kind) => {
                    let (n, done) = self.transmit_txn(kind, history, room);
                    written += n;
                    if !done {
                        return written;
                    }
                }
                Step::Commit => {
                    let commit =
                        packet::bare(PacketType::COMMIT, history.window.zxid(self.commits_sent));
                    self.commits_sent += 1;
                    match room.first_chunk_mut::<BARE_LEN>() {
                        Some(room) => {
                            *room = commit;
                            written += BARE_LEN;
                        }
                        None => self.out.put_raw(&commit),
                    }
                }
                Step::Sync => {
                    self.syncs.pop_front();
                    self.proven -= 1;
                    self.out.put_bare(PacketType::SYNC, Zxid::ZERO);
                }
                Step::NewLeader => {
                    self.stage = Stage::Asked;
                    self.out.put(
                        PacketType::NEWLEADER,
                        new_leader.0,
                        Some(new_leader.1.as_bytes()),
                    );
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
        if self.part_sent == 0
            && let Some(buf) = buf.get_mut(..len)
        {
            buf[..HEAD_LEN].copy_from_slice(&head);
            buf[HEAD_LEN..HEAD_LEN + txn.len()].copy_from_slice(txn);
            buf[HEAD_LEN + txn.len()..].copy_from_slice(NULL_AUTH);
            self.next += 1;
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
        self.part_sent = 0;
        self.next += 1;
        (written, true)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
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
        let mut link = Link::new(ConnId::core(0, 0), Instant::ZERO, Instant::ZERO);
        link.stage = Stage::Live;
        history.push(Zxid::new(epoch, 1), b"before the sync");
        link.syncs.push_back(history.end());
        history.push(Zxid::new(epoch, 2), b"behind the sync");
        history.commit(history.end());
        let kinds = |link: &mut Link| {
            let mut buf = [0; 1024];
            let len = link.transmit(&history, (Zxid::ZERO, ""), &mut buf);
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
        link.proven += 1;
        assert_eq!(kinds(&mut link), [PacketType::SYNC, commit]);
    }
}
