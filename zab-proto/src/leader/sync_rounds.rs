//! Proof, on demand, that this server still leads: `sync` is answered only after a quorum has
//! answered a PING that was sent after the request came (rule R18).

use alloc::vec::Vec;

use super::Leader;
use super::link::Link;
use crate::sender::LearnerStage;
use crate::shared::{Control, Shared};
use crate::window::Index;
use crate::{CloseReason, ConnId, Instant, Sid};

/// Rounds and who waits for them.
#[derive(Debug, Default)]
pub(super) struct SyncRounds {
    running: bool,
    /// Who has answered, ascending; kept for its memory.
    answered: Vec<Sid>,
    /// Requests of own clients that came before the running round began, and those that came since,
    /// each with the end of what was proposed then. Those of learners are counted at their links.
    asked: Vec<(Index, u64)>,
    next: Vec<(Index, u64)>,
    /// Somebody has asked since the running round began.
    next_wanted: bool,
    /// Proven fresh, waiting for their transactions.
    proven: Vec<(Index, u64)>,
    tokens: u64,
}

impl Leader {
    /// A client of this server asks for a sync.
    pub(crate) fn sync(&mut self, now: Instant, shared: &mut Shared) -> u64 {
        self.sync_rounds.tokens += 1;
        let token = self.sync_rounds.tokens;
        self.sync_rounds.next.push((shared.history.end(), token));
        self.ask(now, shared);
        token
    }

    /// A learner does.
    pub(crate) fn sync_learner(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        let gate = shared.history.end();
        let Some(link) = self.link(conn) else { return };
        if link.to.ask_sync(gate) {
            self.ask(now, shared);
        } else {
            self.close(shared, conn, CloseReason::NotReading);
        }
    }

    fn ask(&mut self, now: Instant, shared: &mut Shared) {
        self.sync_rounds.next_wanted = true;
        if !self.sync_rounds.running {
            self.begin_round(now, shared);
        }
    }

    fn begin_round(&mut self, now: Instant, shared: &mut Shared) {
        self.sync_rounds.running = true;
        self.sync_rounds.next_wanted = false;
        self.sync_rounds.asked.append(&mut self.sync_rounds.next);
        let zxid = self.last_proposed;
        for link in self.links.iter_mut() {
            link.to.begin_round();
            let counts = link.to.stage == LearnerStage::UpToDate
                && link.counts()
                && !link.to.is_slow_to_take();
            if counts {
                link.to.ping(zxid);
            }
            link.round = counts.then_some(link.to.pings_sent);
        }
        self.count_pongs(now, shared);
    }

    /// Begins a running round again, with the learners of now.
    pub(super) fn renew_round(&mut self, now: Instant, shared: &mut Shared) {
        if self.sync_rounds.running {
            self.begin_round(now, shared);
        }
    }

    /// Ends the round once a quorum has answered.
    pub(super) fn count_pongs(&mut self, now: Instant, shared: &mut Shared) {
        if !self.sync_rounds.running {
            return;
        }
        let mut answered = core::mem::take(&mut self.sync_rounds.answered);
        answered.clear();
        answered.push(shared.config.sid);
        let done = |link: &&Link| link.round.is_some_and(|ping| link.pongs >= ping);
        answered.extend(self.links.iter().filter(done).map(|link| link.to.sid));
        answered.sort_unstable();
        let quorum = shared.quorums.is_quorum(|sid| answered.binary_search(&sid).is_ok());
        self.sync_rounds.answered = answered;
        if !quorum {
            return;
        }
        self.sync_rounds.running = false;
        self.sync_rounds.proven.append(&mut self.sync_rounds.asked);
        self.links.iter_mut().for_each(|link| link.to.end_round());
        self.release_syncs(shared);
        if self.sync_rounds.next_wanted {
            self.begin_round(now, shared);
        }
    }

    /// Answers own clients for whom everything proposed before they asked is committed. Deliveries
    /// come out first.
    pub(super) fn release_syncs(&mut self, shared: &mut Shared) {
        let committed = shared.history.committed();
        let control = &mut shared.control;
        self.sync_rounds.proven.retain(|(gate, token)| {
            let wait = *gate > committed;
            if !wait {
                control.push_back(Control::Synced(*token));
            }
            wait
        });
    }
}
