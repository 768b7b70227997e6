//! Sessions that only this server knows (`localSessionsEnabled`; ZooKeeper's `LocalSessionTracker` and
//! `UpgradeableSessionTracker`).
//!
//! No transaction begins or ends them, this server alone expires them, and they go on here or nowhere.
//! They own nothing: before a session creates an ephemeral node it becomes one of the ensemble, with the
//! same id (`localSessionsUpgradingEnabled`), or the node is refused.
//!
//! The table belongs to the process, not to a role: a local session outlives a change of leader, with a full
//! time-out from the beginning of the next role. (ZooKeeper's is lost with the role.) There is one exception.
//! The leader knows no owner of such a session, so it cannot refuse what a connection from before still brings
//! it. A server that comes back to the leader it had, in the same epoch, therefore ends the local sessions
//! with writes of which it does not know whether they are carried out: a later write with the same number
//! would be answered with their transactions. In a later epoch they are known; see `service/hold.rs`.

use std::time::Duration;

use hashbrown::HashMap;
use zab_proto::Instant;

use crate::service::role::leader::duration;
use crate::service::role::tracker::{Owner, Tracker};
use crate::service::role::{Cx, Request};
use crate::state::State;

#[derive(Debug)]
struct Local {
    /// As it was agreed when the session began, in ms.
    timeout_ms: i32,
    /// A connection of it has ended before all its writes were answered, and whether these are carried out
    /// is not known yet.
    unsettled: bool,
}

/// The sessions of this server alone.
#[derive(Debug)]
pub(in crate::service) struct LocalSessions {
    tick: Duration,
    deadlines: Tracker,
    sessions: HashMap<i64, Local>,
    /// Those that are about to become sessions of the ensemble, with their time-outs in ms: it is proposed
    /// and not applied here yet.
    upgrading: HashMap<i64, i32>,
    /// When the service was called last. After a gap this process has slept, and signs of life may not have
    /// reached it.
    awake: Instant,
    /// Nothing expires before.
    not_before: Instant,
}

impl LocalSessions {
    pub(in crate::service) fn new(tick: Duration) -> Self {
        Self {
            tick,
            deadlines: Tracker::new(tick),
            sessions: HashMap::new(),
            upgrading: HashMap::new(),
            awake: Instant::ZERO,
            not_before: Instant::ZERO,
        }
    }

    /// How many there are.
    pub(in crate::service) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether a session is one of them.
    pub(in crate::service) fn knows(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether a session is about to become one of the ensemble.
    pub(super) fn is_upgrading(&self, session: i64) -> bool {
        self.upgrading.contains_key(&session)
    }

    /// Whether an id is taken.
    pub(in crate::service) fn has_id(&self, session: i64) -> bool {
        self.knows(session) || self.is_upgrading(session)
    }

    /// Begins a session.
    pub(in crate::service) fn open(&mut self, now: Instant, session: i64, timeout_ms: i32) {
        self.sessions.insert(session, Local { timeout_ms, unsettled: false });
        self.deadlines.add(now, session, duration(timeout_ms), Some(Owner::Local));
    }

    /// A session ends.
    pub(in crate::service) fn close(&mut self, session: i64) {
        if self.sessions.remove(&session).is_some() {
            self.deadlines.remove(session);
        }
    }

    /// A sign of life. False if it is not one of these sessions.
    pub(in crate::service) fn touch(
        &mut self,
        now: Instant,
        session: i64,
        timeout_ms: i32,
    ) -> bool {
        !self.sessions.is_empty() && self.deadlines.touch(now, session, duration(timeout_ms))
    }

    /// A connection of a session ends with writes that are not answered.
    pub(in crate::service) fn unsettle(&mut self, session: i64) {
        if let Some(local) = self.sessions.get_mut(&session) {
            local.unsettled = true;
        }
    }

    /// What was asked for a session before is carried out, or never will be.
    pub(in crate::service) fn settle(&mut self, session: i64) {
        if let Some(local) = self.sessions.get_mut(&session) {
            local.unsettled = false;
        }
    }

    /// The time-out of a session in ms, if it is one of these.
    pub(super) fn timeout_ms(&self, session: i64) -> Option<i32> {
        self.sessions.get(&session).map(|local| local.timeout_ms)
    }

    /// It is proposed that a session becomes one of the ensemble: its leader keeps it alive from now on.
    pub(super) fn upgrade(&mut self, session: i64) {
        if let Some(timeout_ms) = self.timeout_ms(session) {
            self.close(session);
            self.upgrading.insert(session, timeout_ms);
        }
    }

    /// A session has begun in the ensemble. Whether it was one of these.
    pub(in crate::service) fn upgraded(&mut self, session: i64) -> bool {
        !self.upgrading.is_empty() && self.upgrading.remove(&session).is_some()
    }

    /// A role begins. `same_epoch`: this server is back with the leader it had. Returns the sessions that are
    /// over, since nobody knows what is still carried out for them.
    pub(in crate::service) fn begin_role(
        &mut self,
        now: Instant,
        same_epoch: bool,
        state: &State,
    ) -> Vec<i64> {
        let mut over = Vec::new();
        for (session, timeout_ms) in std::mem::take(&mut self.upgrading) {
            if state.has_session(session) {
                continue;
            }
            // It was not proposed, or is not part of the history that this role begins with.
            self.sessions.insert(session, Local { timeout_ms, unsettled: same_epoch });
        }
        self.sessions.retain(|session, local| {
            if same_epoch && local.unsettled {
                over.push(*session);
                return false;
            }
            local.unsettled = false;
            true
        });
        self.deadlines = Tracker::new(self.tick);
        for (session, local) in &self.sessions {
            let timeout = duration(local.timeout_ms);
            self.deadlines.add(now, *session, timeout, Some(Owner::Local));
        }
        over.sort_unstable();
        over
    }

    /// Notes that the process is awake.
    pub(in crate::service) fn wake(&mut self, now: Instant) {
        if now.saturating_since(self.awake) > self.tick {
            self.not_before = now + self.tick;
        }
        self.awake = now;
    }

    /// The next session whose time is up. It is forgotten.
    pub(in crate::service) fn expire(&mut self, now: Instant) -> Option<(i64, i32)> {
        if self.sessions.is_empty() || now < self.not_before {
            return None;
        }
        let session = self.deadlines.expired(now)?;
        let timeout_ms = self.timeout_ms(session)?;
        self.close(session);
        Some((session, timeout_ms))
    }

    /// When [`Self::expire`] wants to be called while a role is served.
    pub(in crate::service) fn poll_timeout(&self) -> Option<Instant> {
        if self.sessions.is_empty() {
            return None;
        }
        let half_tick = self.awake + self.tick / 2;
        let deadline = self.deadlines.next_deadline().filter(|deadline| *deadline > self.awake);
        Some(deadline.map_or(half_tick, |deadline| deadline.min(half_tick)))
    }

    /// By when which sessions expire, in order.
    pub(in crate::service) fn buckets(&self) -> Vec<(Instant, Vec<i64>)> {
        self.deadlines.buckets().collect()
    }
}

/// The record of the request that makes a session one of the ensemble, if this server may do so and a request
/// of it needs that.
pub(super) fn upgrade_record(cx: &Cx<'_, '_>, request: &Request<'_>) -> Option<[u8; 4]> {
    let timeout_ms = cx.local.timeout_ms(request.session)?;
    let may = cx.env.options.local_sessions_upgrading;
    (may && cx.is_to_upgrade(request)).then(|| timeout_ms.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_session_ends_after_its_time_out_and_not_when_it_is_touched() {
        let mut local = LocalSessions::new(TICK);
        for session in [1, 2] {
            local.open(at(0), session, 400);
        }
        let mut ended = Vec::new();
        for ms in (0..=1000).step_by(50) {
            local.wake(at(ms));
            if ms <= 500 {
                assert!(local.touch(at(ms), 2, 400));
            }
            while let Some((session, _)) = local.expire(at(ms)) {
                ended.push((ms, session));
            }
        }
        assert_eq!(ended, [(500, 1), (1000, 2)]);
        assert!(!local.touch(at(1000), 1, 400));
        assert_eq!((local.len(), local.poll_timeout()), (0, None));
    }

    #[test]
    fn after_a_sleep_clients_are_heard_first() {
        let mut local = LocalSessions::new(TICK);
        local.wake(at(0));
        local.open(at(0), 1, 400);
        local.wake(at(2000));
        assert_eq!(local.expire(at(2000)), None);
        assert!(local.touch(at(2000), 1, 400));
        local.wake(at(2050));
        local.wake(at(2100));
        assert_eq!(local.expire(at(2100)), None);
    }

    #[test]
    fn what_is_not_known_to_be_carried_out_ends_its_session_in_the_same_epoch_alone() {
        let state = State::new(false);
        for (same_epoch, left) in [(false, vec![1, 2, 3]), (true, vec![1])] {
            let mut local = LocalSessions::new(TICK);
            for session in 1..=4 {
                local.open(at(0), session, 400);
            }
            local.unsettle(2);
            local.upgrade(3);
            assert!(!local.knows(3) && local.has_id(3));
            local.unsettle(4);
            local.settle(4);
            local.close(4);
            let over = local.begin_role(at(10), same_epoch, &state);
            assert_eq!(over, if same_epoch { vec![2, 3] } else { vec![] });
            assert_eq!((1..=4).filter(|id| local.knows(*id)).collect::<Vec<_>>(), left);
            assert_eq!(local.buckets(), [(at(500), left)]);
        }
    }
}
