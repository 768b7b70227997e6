//! The bounds of a run, drawn from its seed, and which of them were met.

use zab_proto::{CloseReason, Limits, Recovered, ServerState};

use crate::mutation::Mutation;
use crate::queue::HostIx;
use crate::rng::Rng;
use crate::subject::Subject;
use crate::world::World;

/// Bounds from barely one transaction to the default. Of the requests and transactions of the
/// simulator's own clients some are longer than the shortest field.
pub(crate) fn draw(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    limits.field_len_max_bytes = rng.pick(&[900, limits.field_len_max_bytes]);
    limits.window_len_max_bytes = rng.pick(&[1, 250, 1000, 10_000, limits.window_len_max_bytes]);
    limits.retained_len_max_bytes = rng.pick(&[0, 500, 5000, limits.retained_len_max_bytes]);
    limits.requests_len_max_bytes = rng.pick(&[1, 300, 2000, limits.requests_len_max_bytes]);
    limits.snapshots_max = rng.pick(&[1, 2, limits.snapshots_max]);
    limits
}

impl<A: Subject> World<A> {
    /// Looks whether what a starting server has to keep is more than its window holds. With a mutation
    /// that keeps it from joining anybody.
    pub(crate) fn is_swamped(&self, recovered: &Recovered, limits: &Limits) -> bool {
        let waiting = recovered.txns().filter(|(zxid, _)| *zxid > recovered.delivered());
        let len: usize = waiting.map(|(_, txn)| txn.len()).sum();
        if len <= limits.window_len_max_bytes + limits.retained_len_max_bytes {
            return false;
        }
        self.checker.borrow_mut().coverage.count("limit: tail of the log longer than the window");
        self.options.mutation == Some(Mutation::RecoveredTailCounts)
    }

    /// Counts the bounds that a server is at after an event.
    pub(crate) fn note_limits(&mut self, server: HostIx) {
        let Some(node) = &mut self.servers[server].node else { return };
        let limits = &node.peer().config().limits;
        let bound = limits.window_len_max_bytes + limits.retained_len_max_bytes;
        let full = node.peer().window_len_bytes() > bound;
        let lent = node.app().opened as usize >= limits.snapshots_max;
        let state = node.peer().status().state;
        let mut checker = self.checker.borrow_mut();
        if full {
            checker.coverage.count(match state {
                ServerState::Looking => "limit: window full, Looking",
                ServerState::Following => "limit: window full, Following",
                ServerState::Leading => "limit: window full, Leading",
                ServerState::Observing => "limit: window full, Observing",
            });
        }
        if lent {
            checker.coverage.count("limit: as many snapshots open as may be");
        }
        for met in node.app_mut().app.take_met() {
            checker.coverage.count(met);
        }
    }

    /// Counts the bound for which a learner leaves its leader.
    pub(crate) fn note_close(&self, reason: CloseReason) {
        if reason == CloseReason::TooFarBehind {
            let what = "limit: synchronisation longer than the window";
            self.checker.borrow_mut().coverage.count(what);
        }
    }
}
