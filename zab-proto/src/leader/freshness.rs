//! Proof, on demand, that this server still leads: `sync` is answered only after a quorum has
//! answered a PING that was sent after the request came (rule R18).

use alloc::vec::Vec;

use super::Leader;
use super::link::{Link, Stage};
use crate::shared::{Control, Shared};
use crate::window::Index;
use crate::{ConnId, Instant, Sid};

/// Rounds and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    running: bool,
    /// Who has answered, ascending; kept for its memory.
    answered: Vec<Sid>,
    /// Requests that came before the running round began, and those that came since.
    asked: Vec<Asked>,
    next: Vec<Asked>,
    /// Proven fresh, waiting for their transactions: own clients only.
    proven: Vec<(Index, u64)>,
    tokens: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    /// End of what was proposed when the request came.
    gate: Index,
    who: Who,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Own(u64),
    Learner(ConnId),
}

impl Leader {
    /// A client of this server asks for freshness.
    pub(crate) fn sync(&mut self, now: Instant, shared: &mut Shared) -> u64 {
        self.freshness.tokens += 1;
        let token = self.freshness.tokens;
        self.ask(now, shared, Who::Own(token));
        token
    }

    /// A learner does.
    pub(crate) fn sync_learner(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        let gate = shared.history.end();
        if let Some(link) = self.link(conn) {
            link.syncs.push_back(gate);
            self.ask(now, shared, Who::Learner(conn));
        }
    }

    fn ask(&mut self, now: Instant, shared: &mut Shared, who: Who) {
        self.freshness.next.push(Asked { gate: shared.history.end(), who });
        if !self.freshness.running {
            self.begin_round(now, shared);
        }
    }

    fn begin_round(&mut self, now: Instant, shared: &mut Shared) {
        self.freshness.running = true;
        self.freshness.asked.append(&mut self.freshness.next);
        let zxid = self.last_proposed;
        for link in self.links.iter_mut().flatten() {
            let counts = link.stage == Stage::Live && link.counts();
            if counts {
                link.ping(zxid);
            }
            link.round = counts.then_some(link.pings_sent);
        }
        self.count_pongs(now, shared);
    }

    /// Begins a running round anew, with the learners of now.
    pub(super) fn renew_round(&mut self, now: Instant, shared: &mut Shared) {
        if self.freshness.running {
            self.begin_round(now, shared);
        }
    }

    /// Ends the round once a quorum has answered.
    pub(super) fn count_pongs(&mut self, now: Instant, shared: &mut Shared) {
        if !self.freshness.running {
            return;
        }
        let mut answered = core::mem::take(&mut self.freshness.answered);
        answered.clear();
        answered.push(shared.config.sid);
        let done = |link: &&Link| link.round.is_some_and(|ping| link.pongs >= ping);
        answered.extend(self.all().filter(done).map(|link| link.sid));
        answered.sort_unstable();
        let quorum = shared.config.ensemble.is_quorum(|sid| answered.binary_search(&sid).is_ok());
        self.freshness.answered = answered;
        if !quorum {
            return;
        }
        self.freshness.running = false;
        let mut asked = core::mem::take(&mut self.freshness.asked);
        for Asked { gate, who } in asked.drain(..) {
            match who {
                Who::Own(token) => self.freshness.proven.push((gate, token)),
                Who::Learner(conn) => {
                    if let Some(link) = self.link(conn) {
                        link.proven += 1;
                    }
                }
            }
        }
        self.freshness.asked = asked;
        self.release_syncs(shared);
        if !self.freshness.next.is_empty() {
            self.begin_round(now, shared);
        }
    }

    /// Answers own clients for whom everything proposed before they asked is committed. Deliveries
    /// come out first.
    pub(super) fn release_syncs(&mut self, shared: &mut Shared) {
        let committed = shared.history.committed();
        let control = &mut shared.control;
        self.freshness.proven.retain(|(gate, token)| {
            let wait = *gate > committed;
            if !wait {
                control.push_back(Control::Synced(*token));
            }
            wait
        });
    }
}
