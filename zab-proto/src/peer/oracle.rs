//! The oracle of two voters: whom this server lacks in its present role, when to ask, and what follows from
//! the answer. What is known of it is in [`crate::oracle`].

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Peer, Role};
use crate::shared::Control;
use crate::{Instant, Notice, Sid};

impl Peer {
    /// Looks whom this server lacks, and asks if it is time.
    pub(super) fn tend_oracle(&mut self, now: Instant) {
        if !self.shared.config.oracle {
            return;
        }
        let partners = self.shared.quorums.partners(self.shared.config.sid);
        // The first tally of an election never counts: the other has not had the time to say a word. A leader
        // whose follower has gone knows as much as it ever will.
        let patience = self.shared.config.election.min_notification_interval;
        let (lacking, patience): (Vec<Sid>, Duration) = match &self.role {
            Role::Looking(looking) if !looking.begun || !self.election.stands() => {
                self.shared.oracle.rest();
                self.apply_oracle(now);
                return;
            }
            Role::Looking(_) => {
                let lacks = |sid: &Sid| self.election.lacks(*sid);
                (partners.into_iter().filter(lacks).collect(), patience)
            }
            Role::Leader(leader) => {
                let lacking = partners.into_iter().filter(|sid| leader.lacks(*sid)).collect();
                (lacking, if leader.is_established() { Duration::ZERO } else { patience })
            }
            Role::Learner(_) => (Vec::new(), patience),
        };
        let oracle = &mut self.shared.oracle;
        oracle.lack(now, lacking, patience);
        if oracle.asks(now) {
            self.shared.control.push_back(Control::AskOracle);
        }
        self.apply_oracle(now);
    }

    /// It has answered.
    pub(super) fn on_oracle(&mut self, now: Instant, granted: bool) {
        let tick = self.shared.config.tick_time;
        if let Some(without) = self.shared.oracle.answer(now, granted, tick) {
            self.shared.notice(now, Notice::Oracle { granted, without });
        }
        self.apply_oracle(now);
    }

    /// An answer counts for a tick and no longer.
    pub(super) fn lapse_oracle(&mut self, now: Instant) {
        if self.shared.config.oracle {
            self.apply_oracle(now);
        }
    }

    /// This process was away, and the oracle may have decided for the other meanwhile.
    pub(super) fn doubt_oracle(&mut self, now: Instant) {
        if self.shared.config.oracle {
            self.shared.oracle.was_away(now);
            self.apply_oracle(now);
        }
    }

    /// Lets count what the oracle has said.
    fn apply_oracle(&mut self, now: Instant) {
        let shared = &mut self.shared;
        let without = shared.oracle.granted(now);
        if without == shared.quorums.absent() {
            return;
        }
        let quorums = Arc::new(shared.quorums.without(without.to_vec()));
        shared.quorums = Arc::clone(&quorums);
        if !shared.members_changed {
            self.election.set_quorums(now, quorums);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.on_oracle(now, &mut self.shared);
        }
    }
}
