//! Sessions of the ensemble that have ended under this leader.
//!
//! With local sessions a leader takes requests of sessions that it does not know, if another server has given the
//! id. What a learner has forwarded for a session of the ensemble may still be on its way when the session has ended
//! elsewhere, and would pass for such a request. (With ZooKeeper's leader it does.) Nothing of it comes under
//! the next leader: a learner that serves in a later epoch has closed the connections of what ended before.

use std::collections::VecDeque;

use hashbrown::HashSet;

/// The last sessions that have ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    ids: HashSet<i64>,
    /// The oldest first.
    order: VecDeque<i64>,
}

impl Ended {
    /// A session has ended.
    pub(super) fn add(&mut self, session: i64) {
        if !self.ids.insert(session) {
            return;
        }
        self.order.push_back(session);
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Whether a session is one of them.
    pub(super) fn has(&self, session: i64) -> bool {
        self.ids.contains(&session)
    }
}

/// So many are kept, in some 2 MiB. A learner whose requests come later than the ends of as many sessions has been
/// closed as silent on the way.
const ENDED_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sessions_that_ended_are_known() {
        let mut ended = Ended::default();
        let twofold = 2 * i64::try_from(ENDED_MAX).unwrap();
        for session in (0..twofold).chain([twofold - 1]) {
            ended.add(session);
        }
        assert_eq!((ended.ids.len(), ended.order.len()), (ENDED_MAX, ENDED_MAX));
        let first = twofold / 2;
        assert!(!ended.has(first - 1) && ended.has(first) && ended.has(twofold - 1));
    }
}
