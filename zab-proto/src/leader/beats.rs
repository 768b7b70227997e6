//! Heartbeats: what learners are promised, when they are sent, and what a leader concludes when no
//! quorum answers.
//!
//! A learner that was granted a heartbeat hears of this leader at least so often: a PING is sent if nothing
//! else was written to its connection within half of it, or if it has not answered for as long. What it
//! answers (a PING, an acknowledgement) proves that it has read what this leader has sent, on this
//! connection and so in this epoch.
//!
//! The other half is about this leader itself (`leader/standing.rs`).

use core::time::Duration;

use super::Leader;
use super::identity::LeaderInfo;
use super::link::Link;
use crate::heartbeat::{self, Gaps, Limit};
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::wire::body::LearnerInfo;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{ConnId, Instant, Zxid};

/// A learner's heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// What the learner wants.
    wanted: Duration,
    /// What it was granted.
    pub(super) every: Duration,
    /// When the next one is due.
    at: Instant,
}

/// All heartbeats of a leader.
#[derive(Debug)]
pub(super) struct Beats {
    /// The pause between those of a follower. `None`: there are none.
    pub(super) every: Option<Duration>,
    /// What this server's configuration says.
    own: Option<Duration>,
    /// When to look for learners that are due.
    next: Instant,
    /// Somebody was granted heartbeats.
    pub(super) granted: bool,
    /// From when the silence of a quorum counts: since its last answer, or since this process runs again.
    pub(super) since: Instant,
    /// The worst silence.
    pub(super) gaps: Gaps,
    /// Somebody who counts has had heartbeats, so that silence means something. If only others are needed for
    /// a quorum, it is never silent.
    pub(super) armed: bool,
    /// Kept for its memory.
    answers: alloc::vec::Vec<Instant>,
}

impl Beats {
    pub(super) fn new(now: Instant, shared: &Shared) -> Self {
        let own = shared.config.heartbeat();
        Self {
            every: own,
            own,
            next: now,
            granted: false,
            since: now,
            gaps: Gaps::new(now),
            armed: false,
            answers: alloc::vec::Vec::with_capacity(shared.quorums.voters().len()),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.granted.then_some(self.next)
    }

    /// How long a quorum may be silent before a follower would suspect this leader; `None` without
    /// heartbeats.
    pub(super) fn limit(&self, shared: &Shared) -> Option<Duration> {
        let every = self.every.filter(|_| self.armed)?;
        Some(Limit::new(&shared.config, every).of(self.gaps.worst()))
    }
}

impl Leader {
    /// What a learner asks for in its introduction.
    pub(super) fn note_wanted(&mut self, now: Instant, conn: ConnId, packet: &Packet<'_>) {
        let wanted = extension::field(packet.data, LearnerInfo::LEN, Tag::HEARTBEAT);
        let wanted = heartbeat::decode(wanted).filter(|_| self.beats.own.is_some());
        if let Some(link) = self.link(conn) {
            link.beat = wanted.map(|wanted| Beat { wanted, every: wanted, at: now });
            self.beats.granted |= wanted.is_some();
        }
        self.spread_beats();
    }

    /// Chooses the pause for the number of learners that there are now: all of them together are sent
    /// no more than [`BEATS_PER_SEC_MAX`] heartbeats.
    fn spread_beats(&mut self) {
        let Some(own) = self.beats.own else { return };
        let beating = || self.links.iter().filter(|link| link.beat.is_some());
        let quarters: u32 = beating().map(|link| if link.to.observer { 1 } else { OBSERVER }).sum();
        let floor_ms =
            (1000 * u64::from(quarters)).div_ceil(u64::from(OBSERVER * BEATS_PER_SEC_MAX));
        let every = own.max(Duration::from_millis(floor_ms));
        self.beats.every = Some(every);
        for link in self.links.iter_mut() {
            let share = if link.to.observer { OBSERVER * every } else { every };
            if let Some(beat) = &mut link.beat {
                beat.every = share.max(beat.wanted).min(Duration::from_millis(u16::MAX.into()));
            }
        }
    }

    /// Tells learners that were granted something else.
    fn tell_beats(&mut self) {
        let epoch = Zxid::new(self.epoch, 0);
        for link in self.links.iter_mut().filter(|link| link.to.stage == LearnerStage::UpToDate) {
            let granted = link.granted();
            if granted != link.told_beat {
                link.told_beat = granted;
                let data = LeaderInfo { heartbeat: granted, ..LeaderInfo::default() }.encode();
                link.to.out.put(PacketType::LEADERINFO, epoch, Some(&data));
            }
        }
    }

    /// Sends the heartbeats that are due.
    pub(super) fn send_beats(&mut self, now: Instant, shared: &mut Shared) {
        let Some(every) = self.beats.every.filter(|_| self.beats.granted) else { return };
        if now < self.beats.next {
            return;
        }
        self.beats.next = now + every;
        self.spread_beats();
        self.tell_beats();
        let zxid = self.last_proposed;
        for link in self.links.iter_mut().filter(|link| link.to.stage == LearnerStage::UpToDate) {
            let waits = !link.to.idle || link.to.has_output(&shared.history);
            // What is due before it is looked at again is due now.
            let due = link.beat.as_mut().filter(|beat| beat.at < now + every / 2);
            let Some(beat) = due else { continue };
            beat.at = now + beat.every;
            let half = beat.every / 2;
            let recent = |at: Instant| now < at + half;
            let told_and_heard = recent(link.to.sent_at) && recent(link.answered_at);
            if !waits && !told_and_heard {
                link.to.ping(zxid);
                shared.heartbeats.sent += 1;
            }
        }
    }

    /// Measures how long ago a quorum has answered.
    pub(super) fn watch_answers(&mut self, now: Instant, shared: &Shared) {
        if !self.is_established() {
            return;
        }
        // Who is a quorum alone needs nobody's answer.
        if self.is_quorum(shared, |_| false) {
            self.beats.since = now;
            return;
        }
        let live = |link: &Link| link.to.stage == LearnerStage::UpToDate && link.counts();
        // Who has no heartbeat answers every half tick, and is believed to be there for `syncLimit`, as by
        // ZooKeeper's leader.
        let answered = |link: &Link| match link.beat {
            None if link.alive_until >= now => now,
            _ => link.answered_at,
        };
        let mut answers = core::mem::take(&mut self.beats.answers);
        answers.clear();
        answers.extend(self.links.iter().filter(|link| live(link)).map(answered));
        answers.sort_unstable_by(|a, b| b.cmp(a));
        // The latest time since which a quorum has answered.
        let has = |at: Instant| self.is_quorum(shared, |link| live(link) && answered(link) >= at);
        let latest = answers.iter().copied().find(|at| has(*at));
        let beating = self.links.iter().any(|link| live(link) && link.beat.is_some());
        self.beats.answers = answers;
        let beats = &mut self.beats;
        if beating && !beats.armed {
            (beats.armed, beats.since) = (true, now);
        }
        if let Some(latest) = latest.filter(|latest| *latest > beats.since) {
            beats.gaps.add(now, latest.saturating_since(beats.since));
            beats.since = latest;
        }
    }
}

impl Link {
    /// The pause between heartbeats that this learner was granted.
    pub(super) fn granted(&self) -> Option<Duration> {
        self.beat.map(|beat| beat.every)
    }
}

/// How many heartbeats a leader sends in a second at most.
const BEATS_PER_SEC_MAX: u32 = 2000;

/// An observer is sent one where a follower is sent so many.
const OBSERVER: u32 = 4;
