//! Attempts that fail, and waits that last: the former become slower, the latter are said.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::{Peer, Role};
use crate::{Instant, Notice, ReignEnd};

/// This server does not serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    since: Instant,
    /// When it is said the next time.
    pub(super) tell_at: Instant,
}

/// How often in a row a role has ended without much of a service, and since when there is one.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    serving_since: Option<Instant>,
    /// How the last time with a leader has ended.
    pub(super) last_loss: Option<Notice>,
}

impl Attempts {
    /// A leader is established, here or elsewhere.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.serving_since = Some(now);
    }

    /// The role has ended. What has served for [`ENOUGH`] was a success: leaders may be killed one after
    /// the other. Returns how long to wait before the next attempt: not at all after a success or the
    /// first few failures, which are part of a good fail-over; then longer and longer, up to `max`.
    pub(super) fn ended(&mut self, now: Instant, max: Duration) -> Duration {
        let (served, enough) = (self.serving_since.take(), ENOUGH.min(max));
        if served.is_some_and(|since| now.saturating_since(since) >= enough) {
            self.failed = 0;
            return Duration::ZERO;
        }
        self.failed = self.failed.saturating_add(1);
        self.pause(PAUSE_MIN, max)
    }

    /// It makes no sense to try again at once: a pause of `first`, and longer and longer ones up to
    /// `max`.
    pub(super) fn refused(&mut self, first: Duration, max: Duration) -> Duration {
        self.failed = self.failed.max(FREE + 1);
        self.pause(first, max)
    }

    fn pause(&self, first: Duration, max: Duration) -> Duration {
        match self.failed.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => (first * (1 << doublings.min(10))).min(max),
        }
    }
}

impl Peer {
    /// Gives up leading, and says why.
    pub(super) fn abdicate(&mut self, now: Instant, reason: ReignEnd) {
        if let Role::Leader(leader) = &self.role {
            let epoch = leader.epoch();
            self.shared.notice(now, Notice::ReignEnded { epoch, reason });
        }
        match reason {
            ReignEnd::HandedOver { to: Some(leader) } => self.succeed(now, leader),
            _ => self.look(now, None),
        }
    }

    /// Whether this server serves, or at least could.
    fn is_serving(&self) -> bool {
        self.advertised.is_some() || self.shared.config.standalone
    }

    pub(super) fn note_waiting(&mut self, now: Instant) {
        if self.is_serving() {
            self.waiting = None;
        } else if self.waiting.is_none() {
            self.waiting = Some(Waiting { since: now, tell_at: now + TELL_FIRST });
        }
    }

    pub(super) fn tell_waiting(&mut self, now: Instant) {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| now >= waiting.tell_at) else {
            return;
        };
        let awaits_birth = matches!(self.role, Role::Looking(_)) && self.election.awaits_birth();
        waiting.tell_at = now + if awaits_birth { TELL_OF_BIRTH_EVERY } else { TELL_EVERY };
        let secs = now.saturating_since(waiting.since).as_secs();
        self.shared.notice(now, Notice::Waiting { secs });
    }

    /// For whom or what this server waits, if it does not serve: a text for logs and monitors.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        if self.is_serving() {
            return None;
        }
        let shared = &self.shared;
        Some(match &self.role {
            Role::Leader(leader) => leader.waits_for(shared),
            Role::Learner(learner) => learner.waits_for(shared),
            Role::Looking(_) if shared.outdated => String::from(
                "the members of the ensemble have changed: to be started again with the new list",
            ),
            Role::Looking(looking) if !looking.begun => {
                let Attempts { failed, last_loss, .. } = &self.attempts;
                let why = last_loss.map_or_else(String::new, |loss| format!(". {loss}"));
                format!("pauses before its next attempt, after {failed} that came to nothing{why}")
            }
            Role::Looking(_) if self.election.awaits_birth() => format!(
                "its data directory is empty, and it votes when all voters are seen to be empty, too, or \
                 follows the leader of those that are not; not seen to be empty: {}. Start these, or, if \
                 the ensemble is new, put an empty file `initialize` into the data directory and start \
                 this server again (or with db.autocreate=true, which is Apache's rule for all starts)",
                shared.names(self.election.missing()),
            ),
            Role::Looking(_) => {
                let missing = shared.names(self.election.missing());
                let missing = if missing.is_empty() { "nobody" } else { &missing };
                let denied = match shared.oracle.denies() {
                    true => "; the oracle (oraclePath) does not let this server lead without it",
                    false => "",
                };
                let foreign = shared.names(self.election.foreign());
                let foreign = match foreign.is_empty() {
                    true => foreign,
                    false => format!("; with the data of another ensemble: {foreign}"),
                };
                format!(
                    "looks for a leader that a quorum votes for; no vote came from: {missing}{denied}{foreign}"
                )
            }
        })
    }
}

/// Roles in a row that may end early without a pause, and the first pause.
const FREE: u32 = 3;
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long a role has to have served to be no failure: ten elections a second harm nobody.
const ENOUGH: Duration = Duration::from_millis(100);

/// When a wait is said for the first time, and how often then.
const TELL_FIRST: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// At its first start somebody sits in front of it who has to do something.
const TELL_OF_BIRTH_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    #[test]
    fn what_fails_again_and_again_becomes_slow_and_what_succeeds_is_quick() {
        let mut attempts = Attempts::default();
        let mut now = Instant::ZERO;
        let mut pauses = || attempts.ended(now, TICK).as_millis();
        assert_eq!([pauses(), pauses(), pauses()], [0; 3]);
        assert_eq!([pauses(), pauses(), pauses()], [10, 20, 40]);
        assert!((0..100).all(|_| pauses() <= TICK.as_millis()));
        assert_eq!(pauses(), TICK.as_millis());
        // To be let in and thrown out at once is no success.
        attempts.succeeded(now);
        assert_eq!(attempts.ended(now, TICK), TICK);
        attempts.succeeded(now);
        now = now + ENOUGH / 2;
        assert_eq!(attempts.ended(now, TICK), TICK);
        // To have served for a while is one, however often that ends.
        for _ in 0..20 {
            attempts.succeeded(now);
            now = now + ENOUGH;
            assert_eq!(attempts.ended(now, TICK), Duration::ZERO);
        }
        assert_eq!(attempts.refused(PAUSE_MIN, TICK), PAUSE_MIN);
        assert_eq!(attempts.refused(TICK, 10 * TICK), TICK);
        attempts.ended(now, TICK);
        assert_eq!(attempts.refused(TICK, 10 * TICK), 2 * TICK);
    }
}
