//! Which follower an observer learns from (`QuorumPeer.findLearnerMaster`).

use core::time::Duration;

use super::Peer;
use crate::Sid;

impl Peer {
    /// The next follower to learn from, if followers serve observers: all of them in a random order, then all
    /// of them again. `None`: the leader itself.
    pub(super) fn next_master(&mut self, leader: Sid) -> Option<Sid> {
        self.shared.config.observer_master_port?;
        let quorums = self.shared.quorums.clone();
        let may = |sid: &Sid| *sid != leader && quorums.committed().is_voter(*sid);
        self.masters.retain(may);
        if self.masters.is_empty() {
            self.masters.extend(quorums.committed().voters().filter(may));
            for at in (1..self.masters.len()).rev() {
                let other = self.random_index(at + 1);
                self.masters.swap(at, other);
            }
        }
        self.masters.pop()
    }

    /// A random number below `below`. The lowest bits are the worst of xorshift's, and few are needed.
    fn random_index(&mut self, below: usize) -> usize {
        self.random_below(Duration::MAX);
        let mixed = self.random.wrapping_mul(XORSHIFT_STAR) >> 33;
        usize::try_from(mixed).unwrap_or(0) % below
    }
}

/// The multiplier of xorshift64*.
const XORSHIFT_STAR: u64 = 0x2545_f491_4f6c_dd1d;
