//! The leader's table of all sessions. It alone expires them.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use zab_proto::{ConnId, Instant};

/// Who may write for a session: the server that its client is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The leader itself.
    Local,
    /// A learner, by its connection.
    Learner(ConnId),
}

/// Why a request of a session is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Not known, or about to be closed.
    Expired,
    /// Another server owns it.
    Moved,
}

#[derive(Debug)]
struct Tracked {
    owner: Option<Owner>,
    /// End of its bucket: a multiple of the tick.
    deadline: u64,
    closing: bool,
}

/// The leader's table of all sessions, with their deadlines rounded up to ticks.
///
/// A touch only writes the new deadline; the session changes its bucket when the old one comes up.
#[derive(Debug)]
pub(super) struct Tracker {
    tick: u64,
    sessions: HashMap<i64, Tracked>,
    buckets: BTreeMap<u64, Vec<i64>>,
}

impl Tracker {
    pub(super) fn new(tick: Duration) -> Self {
        let tick = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { tick, sessions: HashMap::new(), buckets: BTreeMap::new() }
    }

    /// End of the bucket that a session touched now falls into.
    pub(super) fn deadline(&self, now: Instant, timeout: Duration) -> u64 {
        (now + timeout).as_nanos() / self.tick * self.tick + self.tick
    }

    /// Begins to track a session, with a full time-out from now.
    pub(super) fn add(&mut self, now: Instant, id: i64, timeout: Duration, owner: Option<Owner>) {
        let deadline = self.deadline(now, timeout);
        let tracked = Tracked { owner, deadline, closing: false };
        self.sessions.insert(id, tracked);
        self.buckets.entry(deadline).or_default().push(id);
    }

    /// Forgets a session; its bucket drops it when it comes up.
    pub(super) fn remove(&mut self, id: i64) {
        self.sessions.remove(&id);
    }

    /// A sign of life. False if the session is unknown or closing.
    pub(super) fn touch(&mut self, now: Instant, id: i64, timeout: Duration) -> bool {
        let deadline = self.deadline(now, timeout);
        match self.sessions.get_mut(&id) {
            Some(tracked) if !tracked.closing => {
                tracked.deadline = tracked.deadline.max(deadline);
                true
            }
            _ => false,
        }
    }

    /// Gives a session to a server, as a re-attach does.
    pub(super) fn set_owner(&mut self, id: i64, owner: Owner) {
        if let Some(tracked) = self.sessions.get_mut(&id) {
            tracked.owner = Some(owner);
        }
    }

    /// Whether `owner` may write for the session. A session without owner becomes its own.
    pub(super) fn check(&mut self, id: i64, owner: Owner) -> Result<(), Refused> {
        match self.sessions.get_mut(&id) {
            Some(tracked) if !tracked.closing => {
                if *tracked.owner.get_or_insert(owner) == owner {
                    Ok(())
                } else {
                    Err(Refused::Moved)
                }
            }
            _ => Err(Refused::Expired),
        }
    }

    /// Whether a session is known, or at its end.
    pub(super) fn knows(&self, id: i64) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Marks a session as about to be closed. False if it is unknown.
    pub(super) fn set_closing(&mut self, id: i64) -> bool {
        self.sessions.get_mut(&id).map(|tracked| tracked.closing = true).is_some()
    }

    /// When the first bucket ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.buckets.keys().next().map(|deadline| Instant::from_nanos(*deadline))
    }

    /// The next session whose time is up. It is listed again one tick later, in case its close
    /// cannot be proposed now.
    pub(super) fn expired(&mut self, now: Instant) -> Option<i64> {
        loop {
            let mut first = self.buckets.first_entry()?;
            let bucket = *first.key();
            if bucket > now.as_nanos() {
                return None;
            }
            let Some(id) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            let Some(tracked) = self.sessions.get_mut(&id) else { continue };
            let late = tracked.deadline <= now.as_nanos();
            if late {
                tracked.deadline = bucket.max(now.as_nanos()).saturating_add(self.tick);
            }
            self.buckets.entry(tracked.deadline).or_default().push(id);
            if late && !tracked.closing {
                return Some(id);
            }
        }
    }

    /// The sessions by the instant at which they end, for `dump`; ids in order.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (Instant, Vec<i64>)> {
        let mut buckets: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for (id, tracked) in &self.sessions {
            buckets.entry(tracked.deadline).or_default().push(*id);
        }
        buckets.into_iter().map(|(deadline, mut ids)| {
            ids.sort_unstable();
            (Instant::from_nanos(deadline), ids)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn expiry_is_rounded_up_to_ticks_and_moved_by_touches() {
        let mut tracker = Tracker::new(TICK);
        tracker.add(at(100), 1, Duration::from_secs(4), None);
        tracker.add(at(100), 2, Duration::from_secs(4), None);
        assert_eq!(tracker.expired(at(5999)), None);
        assert!(tracker.touch(at(3000), 2, Duration::from_secs(4)));
        assert_eq!(tracker.expired(at(6000)), Some(1));
        assert_eq!(tracker.expired(at(6000)), None);
        tracker.remove(1);
        assert_eq!(tracker.expired(at(8000)), Some(2));
        assert!(tracker.set_closing(2));
        assert!(!tracker.touch(at(8000), 2, Duration::from_secs(4)));
        assert_eq!(tracker.expired(at(20_000)), None);
        assert_eq!(tracker.check(2, Owner::Local), Err(Refused::Expired));
        tracker.remove(2);
        assert_eq!(tracker.expired(at(40_000)), None);
        assert!(tracker.buckets.is_empty());
    }

    #[test]
    fn ownership() {
        let mut tracker = Tracker::new(TICK);
        let learner = Owner::Learner(ConnId::core(3, 0));
        tracker.add(at(0), 1, TICK, None);
        assert_eq!(tracker.check(1, learner), Ok(()));
        assert_eq!(tracker.check(1, Owner::Local), Err(Refused::Moved));
        tracker.set_owner(1, Owner::Local);
        assert_eq!(tracker.check(1, learner), Err(Refused::Moved));
        assert_eq!(tracker.check(7, learner), Err(Refused::Expired));
    }
}
