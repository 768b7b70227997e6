//! What became of suspicions, and what is learnt of it.

use core::time::Duration;

use super::HeartbeatStatus;
use crate::{Epoch, Instant, Sid};

/// A server's suspicions of its leaders.
#[derive(Debug, Default)]
pub(crate) struct Suspicions {
    /// The leader that was suspected last, in its epoch, until there is a leader again.
    open: Option<(Sid, Epoch)>,
    /// By how much the limit is widened, and until when.
    factor: u32,
    until: Instant,
}

/// For how long a false suspicion is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The limit is doubled so often at most.
const FACTOR_MAX: u32 = 64;

impl Suspicions {
    /// `leader` is suspected.
    pub(crate) fn suspect(&mut self, status: &mut HeartbeatStatus, leader: Sid, epoch: Epoch) {
        status.suspicions += 1;
        self.open = Some((leader, epoch));
    }

    /// There is a leader: the one that was suspected, still in its epoch, or another.
    pub(crate) fn resolve(
        &mut self,
        now: Instant,
        status: &mut HeartbeatStatus,
        leader: Sid,
        epoch: Epoch,
    ) {
        let Some(suspected) = self.open.take() else { return };
        if suspected != (leader, epoch) {
            status.suspicions_true += 1;
            return;
        }
        status.suspicions_false += 1;
        self.factor = (2 * self.factor(now)).min(FACTOR_MAX);
        self.until = now + REMEMBERED;
    }

    /// By how much limits are widened.
    pub(crate) fn factor(&self, now: Instant) -> u32 {
        if now < self.until { self.factor } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_ones_double_the_limit_for_a_minute() {
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let (mut memory, mut status) = (Suspicions::default(), HeartbeatStatus::default());
        let (leader, epoch) = (Sid(3), Epoch(7));
        memory.resolve(at(1), &mut status, leader, epoch);
        assert_eq!((memory.factor(at(1)), status), (1, HeartbeatStatus::default()));
        memory.suspect(&mut status, leader, epoch);
        memory.resolve(at(1), &mut status, leader, Epoch(8));
        memory.suspect(&mut status, leader, epoch);
        memory.resolve(at(1), &mut status, Sid(2), Epoch(8));
        assert_eq!((memory.factor(at(1)), status.suspicions_true), (1, 2));
        let mut falsely = |now| {
            memory.suspect(&mut status, leader, epoch);
            memory.resolve(now, &mut status, leader, epoch);
            [memory.factor(now), memory.factor(now + REMEMBERED)]
        };
        assert_eq!(falsely(at(10)), [2, 1]);
        assert_eq!(falsely(at(20)), [4, 1]);
        assert_eq!(falsely(at(80)), [2, 1]);
        // Twice as often as the bound takes.
        let factors: u32 = (0..12).map(|_| falsely(at(81))[0]).max().unwrap_or_default();
        assert_eq!(factors, FACTOR_MAX);
        assert_eq!((status.suspicions, status.suspicions_false), (17, 15));
    }
}
