//! What a learner is told of changes of the members: followers with the commit, observers with the
//! transaction.

use super::{LearnerStage, Own, Sender};
use crate::history::History;
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{Sid, Zxid};

impl Sender {
    /// An observer is told of a change of the members together with its commit.
    pub(super) fn put_change(&mut self, history: &History, leader: Sid) {
        let (zxid, txn) = (history.window.zxid(self.next), history.window.txn(self.next));
        self.put_activation(PacketType::INFORMANDACTIVATE, zxid, leader, txn);
        self.note_len(txn.len(), self.next);
        self.passed(zxid);
    }

    pub(super) fn put_commit(&mut self, own: Own) {
        let index = self.commits_sent;
        let commit = self.next_commit(own);
        // What it is sent before NEWLEADER is committed, and NEWLEADER says what is in force after it.
        match self.change_at(index).filter(|_| self.stage != LearnerStage::SendingHistory) {
            Some(leader) => {
                let zxid = own.zxid(index);
                self.put_activation(PacketType::COMMITANDACTIVATE, zxid, leader, b"");
            }
            None => self.out.put_raw(&commit),
        }
    }

    /// Who leads from the change on that is at `index`, if one is, of those that it has not been told of.
    pub(super) fn change_at(&mut self, index: Index) -> Option<Sid> {
        while self.changes.front().is_some_and(|(at, _)| *at < index) {
            self.changes.pop_front();
        }
        self.changes.front().filter(|(at, _)| *at == index).map(|(_, leader)| *leader)
    }

    pub(super) fn put_activation(&mut self, kind: PacketType, zxid: Zxid, leader: Sid, txn: &[u8]) {
        let mut data = leader.0.to_be_bytes().to_vec();
        data.extend_from_slice(txn);
        self.out.put(kind, zxid, Some(&data));
    }
}
