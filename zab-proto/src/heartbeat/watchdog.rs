//! Whether this process runs when it should.
//!
//! Who was stopped, swapped out or had no processor for a while sees everybody else as silent. So before
//! anybody is suspected, a server looks at itself: it asks to be woken every heartbeat, and if that
//! happens late by more than half of one, it was away itself. Its own deadlines begin again then, and what
//! it measured in between is no measure of others.
//!
//! The proof rests on one thing: the clock goes on while the process does not run. The runtimes use the
//! system's monotonic clock, which does under SIGSTOP and for lack of a processor. (While a whole host is
//! suspended it stands still on Linux; then the others have noticed, and the kernel of this host has
//! not been there to acknowledge anything either.)

use core::time::Duration;

use crate::Instant;

/// Finds pauses of this process.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// How often it asks to be woken; `None`: nobody needs to know.
    every: Option<Duration>,
    /// When the core was called last, and when it must be called at the latest.
    seen: Instant,
    due: Instant,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self { every: None, seen: Instant::ZERO, due: Instant::ZERO }
    }

    /// Looks from now on every so often.
    pub(crate) fn watch(&mut self, now: Instant, every: Option<Duration>) {
        if self.every == every {
            return;
        }
        self.every = every;
        self.seen = now;
        self.due = now + every.unwrap_or_default();
    }

    /// The core is called at `now`. Returns how long this process was away, if it was.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Duration> {
        let every = self.every.filter(|_| now > self.seen)?;
        let late = now > self.due + every / 2;
        let away = now.saturating_since(self.seen);
        self.seen = now;
        self.due = now + every;
        late.then_some(away)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_call_is_a_pause_and_a_busy_server_has_none() {
        let ms = Duration::from_millis;
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let mut watchdog = Watchdog::new();
        assert_eq!(watchdog.look(at(100_000)), None);
        assert_eq!(watchdog.poll_timeout(), None);
        watchdog.watch(at(100_000), Some(ms(50)));
        // Called all the time, on time, and a little late.
        for now in [100_001, 100_002, 100_052, 100_127] {
            assert_eq!(watchdog.look(at(now)), None, "at {now}");
            assert_eq!(watchdog.poll_timeout(), Some(at(now + 50)));
        }
        assert_eq!(watchdog.look(at(100_127 + 76)), Some(ms(76)));
        assert_eq!(watchdog.look(at(130_000)), Some(ms(29_797)));
        assert_eq!(watchdog.look(at(130_000)), None, "said once");
        // To watch in the same way does not conceal a pause.
        watchdog.watch(at(131_000), Some(ms(50)));
        assert_eq!(watchdog.look(at(131_000)), Some(ms(1000)));
        watchdog.watch(at(131_000), None);
        assert_eq!(watchdog.look(at(140_000)), None);
        watchdog.watch(at(150_000), Some(ms(50)));
        assert_eq!(watchdog.look(at(150_060)), None);
    }
}
