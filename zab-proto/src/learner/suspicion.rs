//! Whether the leader is still there.
//!
//! With a leader that grants heartbeats, silence means that nothing at all has come of it, on the quorum
//! or on the election connection. How much of it is suspicious adapts (`heartbeat/limit.rs`). Before a
//! learner suspects its leader it excludes itself: a pause of its own process, and bytes that it has
//! not read yet. A leader that is suspected is left, as if its connection had closed.

use core::time::Duration;

use super::{Learner, LearnerStep};
use crate::heartbeat::{self, Gaps, Limit};
use crate::shared::Shared;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::Packet;
use crate::{CloseReason, Instant, StopSafety};

/// What a learner knows of its leader's heartbeats.
#[derive(Debug)]
pub(super) struct Suspicion {
    limit: Limit,
    gaps: Gaps,
    /// The leader's last sign of life.
    heard_at: Instant,
    /// From when silence counts: since the last sign of life, or since this process runs again.
    since: Instant,
    /// This process was away since the last sign of life: how long that gap was says nothing.
    tainted: bool,
    /// Nobody is suspected before heartbeats were kept until then.
    active_at: Instant,
    /// Others who hear nothing either have brought the end of this silence forward to this time.
    early: Option<Instant>,
    halvings: u32,
    /// What the leader says of whether the ensemble can spare this server.
    spare: Option<bool>,
    /// The limit was reached, and everything that has come by this time is read before that counts.
    second_look: Option<Instant>,
}

impl Suspicion {
    fn new(now: Instant, limit: Limit) -> Self {
        Self {
            limit,
            gaps: Gaps::new(now),
            heard_at: now,
            since: now,
            tainted: false,
            active_at: now + PROBATION,
            early: None,
            halvings: 0,
            spare: None,
            second_look: None,
        }
    }

    fn heard(&mut self, now: Instant) {
        let gap = now.saturating_since(self.heard_at);
        if !self.tainted {
            if gap > self.limit.of(self.gaps.worst()) {
                self.active_at = now + PROBATION;
            }
            self.gaps.add(now, gap);
        }
        self.heard_at = now;
        self.tainted = false;
        self.begin(now);
    }

    /// Silence counts from now on.
    fn begin(&mut self, now: Instant) {
        self.since = now;
        self.early = None;
        self.halvings = 0;
        self.second_look = None;
    }

    fn limit(&self, factor: u32) -> Duration {
        self.limit.widened(self.gaps.worst(), factor)
    }

    fn deadline(&self, factor: u32) -> Instant {
        let limit = self.since + self.limit(factor);
        self.early.map_or(limit, |early| early.min(limit)).max(self.active_at)
    }

    /// Another voter looks for a leader. Who hears the leader need not care; who does not has less time
    /// to wait. Somebody who sends such votes all the time gets no further than twice, and the end of the
    /// third heartbeat: a leader that was away for less does not ask whether it is still one.
    fn halve(&mut self, now: Instant, factor: u32) {
        if self.halvings == HALVINGS_MAX {
            return;
        }
        self.halvings += 1;
        let left = self.deadline(factor).saturating_since(now);
        let earliest = self.since + HEARTBEATS_MIN * self.limit.every;
        self.early = Some((now + left / 2).max(earliest));
    }
}

impl Learner {
    /// Takes over the heartbeat that a LEADERINFO grants.
    pub(super) fn note_heartbeat(&mut self, shared: &mut Shared, packet: &Packet<'_>) {
        let Some(wanted) = shared.config.heartbeat() else { return };
        let granted = heartbeat::decode(extension::field(packet.data, 4, Tag::HEARTBEAT));
        // A leader that was not asked to cannot make this server wait for less.
        let granted = granted.map(|every| Limit::new(&shared.config, every.max(wanted)));
        match (&mut self.suspicion, granted) {
            (Some(suspicion), Some(limit)) => {
                suspicion.limit = limit;
                if self.step == LearnerStep::Live {
                    shared.watchdog.watch(shared.now, Some(limit.every));
                }
            }
            (None, Some(limit)) => self.suspicion = Some(Suspicion::new(shared.now, limit)),
            (_, None) => {}
        }
    }

    /// Takes note of what the leader says of this server.
    pub(super) fn note_spare(&mut self, packet: &Packet<'_>) {
        let spare = extension::field(packet.data, 4, Tag::SPARE).and_then(<[u8]>::first);
        if let (Some(suspicion), Some(spare)) = (&mut self.suspicion, spare) {
            suspicion.spare = Some(*spare == 1);
        }
    }

    /// Whether this server may be stopped, as its leader has said and has not taken back: it would within
    /// a heartbeat, and is heard.
    pub(crate) fn stop_safety(&self, now: Instant, shared: &Shared) -> StopSafety {
        let leader = self.leader;
        let Some((suspicion, spare)) =
            self.suspicion.as_ref().and_then(|known| Some((known, known.spare?)))
        else {
            return StopSafety::Untold { leader };
        };
        let silence = now.saturating_since(suspicion.heard_at);
        if silence > suspicion.limit(shared.suspicions.factor(now)) {
            return StopSafety::NoLeader;
        }
        let heard_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        match spare {
            true => StopSafety::SpareByLeader { leader, heard_ms },
            false => StopSafety::TooFewByLeader { leader, heard_ms },
        }
    }

    /// UPTODATE has come: from now on heartbeats are sent.
    pub(super) fn begin_suspicion(&mut self, shared: &mut Shared) {
        let now = shared.now;
        if let Some(suspicion) = &mut self.suspicion {
            *suspicion = Suspicion::new(now, suspicion.limit);
            shared.watchdog.watch(now, Some(suspicion.limit.every));
        }
    }

    /// The pause between heartbeats and the present limit, for monitors.
    pub(crate) fn heartbeat(&self, shared: &Shared) -> (Option<Duration>, Option<Duration>) {
        let live = self.suspicion.as_ref().filter(|_| self.step == LearnerStep::Live);
        let factor = shared.suspicions.factor(shared.now);
        let active = live.filter(|suspicion| shared.now >= suspicion.active_at);
        (live.map(|known| known.limit.every), active.map(|known| known.limit(factor)))
    }

    /// Something has come of the leader, on whatever connection.
    pub(crate) fn hear_leader(&mut self, now: Instant) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.heard(now);
        }
    }

    /// This process was away, or did not read: what came meanwhile is still to be read.
    pub(crate) fn excuse_leader(&mut self, now: Instant) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.tainted = true;
            suspicion.begin(now);
        }
    }

    /// A vote of another voter that looks for a leader has come.
    pub(crate) fn hear_looking(&mut self, now: Instant, shared: &Shared) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.halve(now, shared.suspicions.factor(now));
        }
    }

    pub(super) fn suspicion_deadline(&self, shared: &Shared) -> Option<Instant> {
        let suspicion = self.suspicion.as_ref().filter(|_| self.step == LearnerStep::Live)?;
        let factor = shared.suspicions.factor(shared.now);
        Some(suspicion.second_look.unwrap_or_else(|| suspicion.deadline(factor)))
    }

    /// Leaves a leader that has been silent for too long. True if so.
    pub(super) fn judge_leader(&mut self, now: Instant, shared: &mut Shared) -> bool {
        let due = self.suspicion_deadline(shared).is_some_and(|at| now >= at);
        let Some(suspicion) = self.suspicion.as_mut().filter(|_| due) else { return false };
        if self.paused {
            // It is not read, as this server's disk is slow: what it sends waits in the socket.
            self.excuse_leader(now);
            return false;
        }
        if suspicion.second_look.is_none() {
            // A runtime tells of the time when it has read its sockets. If it is woken by this deadline
            // alone, it has not looked at them yet; it has when it is called again.
            suspicion.second_look = Some(now + SECOND_LOOK);
            return false;
        }
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        let factor = shared.suspicions.factor(now);
        let reason = CloseReason::Suspected {
            silent_ms: millis(now.saturating_since(suspicion.heard_at)),
            limit_ms: millis(suspicion.limit(factor)),
            worst_gap_ms: millis(suspicion.gaps.worst()),
        };
        let (leader, epoch) = (self.leader, self.epoch);
        shared.suspicions.suspect(&mut shared.heartbeats, leader, epoch);
        self.suspects = true;
        self.leave(shared, reason);
        true
    }

    /// Whether the role ends as the leader is silent, so that it need not be waited for in the next
    /// election.
    pub(crate) fn suspects(&self) -> bool {
        self.suspects
    }
}

/// How long heartbeats must have been kept before a leader can be suspected.
const PROBATION: Duration = Duration::from_secs(2);

/// How many heartbeats must be missing before anybody is suspected, whatever others say.
const HEARTBEATS_MIN: u32 = 3;

/// How often a silence is shortened by votes of others.
const HALVINGS_MAX: u32 = 2;

/// Between the first and the second look at a leader that is silent for too long.
const SECOND_LOOK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Membership, Sid};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + ms(millis)
    }

    fn fresh() -> Suspicion {
        let config = Config::new(Sid(1), Membership::default());
        Suspicion::new(at(0), Limit::new(&config, ms(50)))
    }

    /// Regular heartbeats up to some time.
    fn beating(until: u64) -> Suspicion {
        let mut suspicion = fresh();
        (1..=until / 50).for_each(|beat| suspicion.heard(at(beat * 50)));
        suspicion
    }

    #[test]
    fn nobody_is_suspected_before_heartbeats_were_kept() {
        assert_eq!(fresh().deadline(1), at(2000));
        assert_eq!(beating(500).deadline(1), at(2000));
        assert_eq!(beating(5000).deadline(1), at(5250));
        // They were not kept: it begins again, and the gap widens the limit.
        let mut suspicion = beating(500);
        suspicion.heard(at(900));
        assert_eq!(suspicion.deadline(1), at(2900));
        (0..=60).for_each(|beat| suspicion.heard(at(900 + beat * 50)));
        assert_eq!(suspicion.deadline(1), at(3900) + ms(4 * 400));
    }

    #[test]
    fn an_own_pause_is_no_measure_of_the_leader() {
        let mut suspicion = beating(5000);
        suspicion.tainted = true;
        suspicion.begin(at(9000));
        assert_eq!(suspicion.deadline(1), at(9250));
        suspicion.heard(at(9001));
        assert_eq!(suspicion.deadline(1), at(9251), "the gap was no sample");
        suspicion.heard(at(9101));
        assert_eq!(suspicion.deadline(1), at(9101) + ms(400), "this one was");
    }

    #[test]
    fn votes_shorten_a_silence_and_no_more_than_that() {
        let mut suspicion = beating(5000);
        suspicion.halve(at(5050), 1);
        assert_eq!(suspicion.deadline(1), at(5150));
        suspicion.halve(at(5060), 1);
        assert_eq!(suspicion.deadline(1), at(5150), "three heartbeats");
        // Twice as many, and more: the bound holds.
        (0..4).for_each(|_| suspicion.halve(at(5070), 1));
        assert_eq!(suspicion.deadline(1), at(5150));
        suspicion.heard(at(5062));
        assert_eq!(suspicion.deadline(1), at(5312));
        // At once after a heartbeat: three more may still come.
        (0..4).for_each(|_| suspicion.halve(at(5062), 1));
        assert_eq!(suspicion.deadline(1), at(5212));
    }

    #[test]
    fn a_false_suspicion_doubles_the_limit() {
        assert_eq!(beating(5000).deadline(2), at(5500));
        assert_eq!(beating(5000).deadline(u32::MAX), at(15_000));
    }
}
