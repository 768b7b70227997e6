//! Whether this leader may still be one.
//!
//! Three things can go wrong that it does not notice by any closed connection:
//!
//! * No quorum answers. Followers that hear nothing have looked for another leader after their limit;
//!   after twice that, this one takes no more writes and looks, too.
//! * This process was away, and does not know what has happened meanwhile: others may have elected another
//!   leader. It serves nothing, plain reads included, before a quorum has answered a PING that was sent after
//!   that. Answers come in the order of the PINGs on the same connection, and a follower that has left has
//!   closed it: so at the time of such an answer no other leader can have been established with
//!   that quorum, and what this leader has applied is the newest. The acknowledgements of NEWLEADER are
//!   such answers for a pause before that; a pause while they are under way is as one after them.
//! * Its own disk hangs, while followers' disks go on. They can elect one of themselves; this server
//!   cannot even vote before its disk has come back (rule R2).

use core::time::Duration;

use super::link::Link;
use super::{Leader, LeaderStep};
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::window::Index;
use crate::{Instant, Notice, ReignEnd};

/// What this leader knows of itself.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// It serves nothing until a quorum has answered.
    doubted: bool,
    /// While its disk owes something.
    owed: Option<Owed>,
}

/// A disk that owes something.
#[derive(Debug)]
struct Owed {
    /// What it has.
    durable: Index,
    /// Since when it has not had more.
    since: Instant,
    /// What was committed when half of the time had passed that it may take.
    committed: Option<Index>,
}

impl Standing {
    /// Whether a quorum has to show first that this leader is still followed.
    pub(super) fn doubted(&self) -> bool {
        self.doubted
    }
}

impl Leader {
    /// Whether applications may answer clients.
    pub(crate) fn may_serve(&self) -> bool {
        !self.standing.doubted
    }

    /// The pause between heartbeats and the limit, for monitors.
    pub(crate) fn heartbeat(&self, shared: &Shared) -> (Option<Duration>, Option<Duration>) {
        (self.beats.every.filter(|_| self.beats.poll_timeout().is_some()), self.beats.limit(shared))
    }

    /// Looks from now on whether this process runs when it should.
    pub(super) fn watch_itself(&self, now: Instant, shared: &mut Shared) {
        let beats = self.beats.every.filter(|_| self.beats.poll_timeout().is_some());
        let every = beats.unwrap_or(shared.config.tick_time / 2);
        shared.watchdog.watch(now, Some(every));
    }

    /// This process was away for a while.
    pub(crate) fn was_away(&mut self, now: Instant, shared: &mut Shared, away: Duration) {
        // The disk may have written and not have been heard.
        self.standing.owed = None;
        self.beats.since = now;
        // Followers with heartbeats may suspect this leader three heartbeats after the last one, which may
        // have been sent one and a half before the pause: so any pause that is noticed is long enough.
        // Others wait for `syncLimit` ticks, and were sent something half a tick before.
        let config = &shared.config;
        let others = config.ticks(config.sync_limit).saturating_sub(config.tick_time);
        let unnoticed = match self.step {
            LeaderStep::AwaitFollowerInfo
            | LeaderStep::PersistEpoch
            | LeaderStep::AwaitAckEpoch => return,
            LeaderStep::Established if !self.beats.granted => others,
            LeaderStep::AwaitNewLeaderAck | LeaderStep::Established => Duration::ZERO,
        };
        if away <= unnoticed {
            return;
        }
        // What was asked before this pause may have been answered before it, too.
        for link in self.links.iter_mut() {
            link.proof = None;
        }
        if !self.standing.doubted {
            self.standing.doubted = true;
            let away_ms = u32::try_from(away.as_millis()).unwrap_or(u32::MAX);
            shared.notice(now, Notice::Away { away_ms });
        }
        self.tend_standing(shared);
    }

    /// Who doubts himself asks those whom he has not asked yet.
    pub(super) fn tend_standing(&mut self, shared: &Shared) {
        if self.standing.doubted && self.is_established() {
            self.ask_for_proof(shared);
        }
    }

    /// Asks everybody who counts for an answer that proves that this leader is still followed.
    fn ask_for_proof(&mut self, shared: &Shared) {
        let zxid = self.last_proposed;
        for link in self.links.iter_mut() {
            let asks = link.to.stage == LearnerStage::UpToDate
                && link.counts()
                && !link.to.is_slow_to_take();
            if asks && link.proof.is_none() {
                link.to.ping(zxid);
                link.proof = Some(link.to.pings_sent);
            }
        }
        self.count_proofs(shared);
    }

    /// Serves again once a quorum has answered.
    pub(super) fn count_proofs(&mut self, shared: &Shared) {
        if !self.standing.doubted {
            return;
        }
        let proves = |link: &Link| link.proof.is_some_and(|ping| link.pongs >= ping);
        if self.is_quorum(shared, proves) {
            self.standing.doubted = false;
        }
    }

    /// Whether this leader has to give up, by what it knows at a heartbeat or half tick.
    pub(super) fn judge_itself(&mut self, now: Instant, shared: &Shared) -> Option<ReignEnd> {
        if !self.is_established() {
            return None;
        }
        self.tend_standing(shared);
        if self.standing.doubted {
            // Everybody who could prove it has gone, most likely to the next leader.
            let live = |link: &Link| link.to.stage == LearnerStage::UpToDate && link.counts();
            if !self.is_quorum(shared, live) && !shared.awaits_oracle(now) {
                return Some(ReignEnd::QuorumLost);
            }
        }
        if let Some(limit) = self.beats.limit(shared)
            && now >= self.beats.since + 2 * limit
        {
            let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
            let silent_ms = millis(now.saturating_since(self.beats.since));
            return Some(ReignEnd::QuorumSilent { silent_ms, limit_ms: millis(2 * limit) });
        }
        self.is_disk_stalled(now, shared).then_some(ReignEnd::DiskStalled)
    }

    /// Whether the own disk completes nothing any more, while those of a quorum of followers do.
    ///
    /// Without this server's disk, committed means: on the disks of a quorum of others. That they have more proves nothing, as
    /// their disks may have stopped with this one, on a host that they share. That they have had more in the second half of the
    /// time does.
    fn is_disk_stalled(&mut self, now: Instant, shared: &Shared) -> bool {
        let limit = shared.config.detection.disk_stall_max;
        let (durable, end) = (shared.history.durable(), shared.history.end());
        if limit.is_zero() || durable == end {
            self.standing.owed = None;
            return false;
        }
        let committed = shared.history.committed();
        match &mut self.standing.owed {
            Some(owed) if owed.durable == durable => {
                if owed.committed.is_none() && now >= owed.since + limit / 2 {
                    owed.committed = Some(committed);
                }
                let goes_on = owed.committed.is_some_and(|then| committed > then.max(durable));
                now >= owed.since + limit && goes_on
            }
            owed => {
                *owed = Some(Owed { durable, since: now, committed: None });
                false
            }
        }
    }
}
