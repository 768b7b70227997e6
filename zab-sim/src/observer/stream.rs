//! What may pass between a leader and a learner, and in which order. V4, V7.

use std::collections::VecDeque;

use zab_proto::Zxid;
use zab_proto::wire::packet::PacketType;

use crate::check::Checker;

/// What has passed on one connection of the quorum port.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The last zxid that the learner reported with ACKEPOCH.
    reported: Zxid,
    leader_info: bool,
    /// How the synchronisation began.
    plan: Option<PacketType>,
    /// The last transaction that the learner has.
    last: Zxid,
    /// Proposals that no COMMIT has come for.
    uncommitted: VecDeque<Zxid>,
    /// Transactions since the plan.
    txns: u32,
    /// What the learner had to have when NEWLEADER was said.
    new_leader: Option<Zxid>,
    acked: bool,
    up_to_date: bool,
    last_ack: Option<Zxid>,
}

impl Stream {
    /// A packet of the leader.
    pub(crate) fn leader_says(&mut self, kind: PacketType, zxid: Zxid, checker: &mut Checker) {
        let legal = match kind {
            // An established leader says it again when the ensemble has got an id (rule R24).
            PacketType::LEADERINFO => {
                !std::mem::replace(&mut self.leader_info, true) || self.up_to_date
            }
            PacketType::DIFF | PacketType::TRUNC | PacketType::SNAP => self.begin(kind, zxid),
            PacketType::PROPOSAL => self.propose(zxid, checker),
            PacketType::COMMIT | PacketType::COMMITANDACTIVATE => {
                self.uncommitted.pop_front() == Some(zxid)
            }
            PacketType::INFORM | PacketType::INFORMANDACTIVATE => {
                follows(std::mem::replace(&mut self.last, zxid), zxid)
            }
            PacketType::NEWLEADER => {
                checker.coverage.count(self.kind());
                self.plan.is_some() && self.new_leader.replace(self.last).is_none()
            }
            PacketType::UPTODATE => self.acked && !std::mem::replace(&mut self.up_to_date, true),
            _ => true,
        };
        if !legal {
            checker.fail("V7", format!("{kind} {zxid} is out of place: {self:?}"));
        }
    }

    fn begin(&mut self, kind: PacketType, zxid: Zxid) -> bool {
        self.last = if kind == PacketType::DIFF { self.reported } else { zxid };
        self.plan.replace(kind).is_none()
    }

    fn propose(&mut self, zxid: Zxid, checker: &mut Checker) -> bool {
        if self.new_leader.is_some() && !self.up_to_date {
            checker.coverage.count(match self.plan {
                Some(PacketType::SNAP) => "proposal between NEWLEADER and UPTODATE, SNAP",
                Some(PacketType::TRUNC) => "proposal between NEWLEADER and UPTODATE, TRUNC",
                _ => "proposal between NEWLEADER and UPTODATE, DIFF",
            });
        }
        self.txns += 1;
        self.uncommitted.push_back(zxid);
        follows(std::mem::replace(&mut self.last, zxid), zxid)
    }

    /// How the learner was synchronised.
    fn kind(&self) -> &'static str {
        match (self.plan, self.txns > 0) {
            (Some(PacketType::DIFF), false) => "sync: nothing to send",
            (Some(PacketType::DIFF), true) => "sync: DIFF",
            (Some(PacketType::TRUNC), false) => "sync: TRUNC",
            (Some(PacketType::TRUNC), true) => "sync: TRUNC and DIFF",
            (Some(PacketType::SNAP), false) => "sync: SNAP",
            (Some(PacketType::SNAP), true) => "sync: SNAP and DIFF",
            _ => "sync: none",
        }
    }

    /// ACKEPOCH of the learner.
    pub(crate) fn promised(&mut self, last: Zxid) {
        self.reported = last;
    }

    /// What an acknowledgement of NEWLEADER says to be on the learner's disk; nothing if that is not the
    /// first one.
    pub(crate) fn synchronized_through(&self) -> Option<Zxid> {
        self.new_leader.filter(|_| !self.acked)
    }

    /// Whether UPTODATE has passed.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// ACK of the learner. V4.
    pub(crate) fn acknowledged(&mut self, zxid: Zxid, name: usize, checker: &mut Checker) {
        if zxid.counter() == 0 {
            self.acked = true;
            return;
        }
        if !self.acked {
            checker.fail("V4", format!("s{name} acknowledges {zxid} before NEWLEADER"));
        }
        // An observer says now and then how far it is, and nobody counts it.
        let observes = name > checker.voters || checker.dynamic;
        let legal = |last: Zxid| follows(last, zxid) || observes && last <= zxid;
        if self.last_ack.is_some_and(|last| !legal(last)) {
            let last = self.last_ack.unwrap_or_default();
            checker.fail("V4", format!("s{name} acknowledges {zxid} after {last}"));
        }
        self.last_ack = Some(zxid);
    }
}

/// Whether `next` is the transaction behind `last`.
fn follows(last: Zxid, next: Zxid) -> bool {
    next.raw() == last.raw() + 1 || (next.epoch() > last.epoch() && next.counter() == 1)
}
