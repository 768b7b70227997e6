//! Which voters the ensemble can spare: what the leader knows, and tells its followers.
//!
//! A voter is *fit* if it is a live follower that counts, has answered lately, and has on disk what was
//! committed half a tick ago (what was committed since may be on its way; it is, under load, at every
//! moment). The leader is fit if its own disk has that. A voter can be spared if the fit ones without it
//! are a quorum.

use alloc::vec::Vec;
use core::mem;

use super::Leader;
use super::identity::LeaderInfo;
use super::link::Link;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::window::Index;
use crate::wire::packet::PacketType;
use crate::{ConnId, Instant, Sid, StopSafety, Zxid};

/// What the leader knows of whom it can spare.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// What was committed at the last half tick, and at the one before.
    committed: [Index; 2],
    /// The fit voters when followers were told last.
    fit: Vec<Sid>,
    /// Live followers that have heartbeats: they are told. When there is another, everybody is.
    told: Vec<ConnId>,
}

impl Leader {
    /// A half tick has passed.
    pub(super) fn note_committed(&mut self, shared: &Shared) {
        let [last, _] = self.spares.committed;
        self.spares.committed = [shared.history.committed(), last];
    }

    /// The fit voters, this server among them if it is one.
    pub(super) fn fit<'a>(
        &'a self,
        now: Instant,
        shared: &'a Shared,
    ) -> impl Iterator<Item = Sid> + 'a {
        let [_, wanted] = self.spares.committed;
        let config = &shared.config;
        let limit = self.beats.limit(shared);
        let is_fit = move |link: &&Link| {
            let heard = match (link.beat, limit) {
                (Some(beat), Some(limit)) => link.answered_at + limit.max(beat.every * 5) >= now,
                _ => link.to.active_at + 2 * config.tick_time >= now,
            };
            heard
                && link.to.stage == LearnerStage::UpToDate
                && link.counts()
                && link.acked >= wanted
        };
        let own = (shared.history.durable() >= wanted).then_some(config.sid);
        let others = self.links.iter().filter(is_fit).map(|link| link.to.sid);
        own.into_iter().chain(others).filter(|sid| shared.quorums.is_voter(*sid))
    }

    /// Whether this leader may be stopped.
    pub(crate) fn stop_safety(&self, now: Instant, shared: &Shared) -> StopSafety {
        if self.standalone {
            return StopSafety::Standalone;
        }
        if !self.is_established() || self.standing.doubted() {
            return StopSafety::NoLeader;
        }
        let fit: Vec<Sid> = self.fit(now, shared).collect();
        let me = shared.config.sid;
        if !can_spare(shared, &fit, me) {
            let voters = shared.quorums.voters().iter().copied();
            let lacking = voters.filter(|sid| *sid != me && !fit.contains(sid)).collect();
            return StopSafety::TooFew { lacking };
        }
        let behind = |link: &&Link| {
            link.to.stage > LearnerStage::Connected
                && link.to.stage < LearnerStage::UpToDate
                && !link.foreign
        };
        let learners: Vec<Sid> = self.links.iter().filter(behind).map(|link| link.to.sid).collect();
        if learners.is_empty() { StopSafety::Spare } else { StopSafety::Synchronises { learners } }
    }

    /// Tells followers with heartbeats whether they can be spared, if that has changed for anybody.
    pub(super) fn tell_spares(&mut self, now: Instant, shared: &Shared) {
        if !self.beats.granted || !self.is_established() {
            return;
        }
        let mut fit = mem::take(&mut self.spares.fit);
        let mut told = mem::take(&mut self.spares.told);
        let hears = |link: &&Link| {
            link.to.stage == LearnerStage::UpToDate && !link.to.observer && link.beat.is_some()
        };
        let same = self.fit(now, shared).eq(fit.iter().copied())
            && self.links.iter().filter(hears).map(|link| link.to.conn).eq(told.iter().copied());
        if !same {
            fit.clear();
            fit.extend(self.fit(now, shared));
            told.clear();
            told.extend(self.links.iter().filter(hears).map(|link| link.to.conn));
            let epoch = Zxid::new(self.epoch, 0);
            for link in self.links.iter_mut().filter(|link| hears(&&**link)) {
                let spare = can_spare(shared, &fit, link.to.sid);
                if link.told_spare != Some(spare) {
                    link.told_spare = Some(spare);
                    let data = LeaderInfo { spare: Some(spare), ..LeaderInfo::default() }.encode();
                    link.to.out.put(PacketType::LEADERINFO, epoch, Some(&data));
                }
            }
        }
        (self.spares.fit, self.spares.told) = (fit, told);
    }
}

/// Whether the fit voters are a quorum without `sid`.
fn can_spare(shared: &Shared, fit: &[Sid], sid: Sid) -> bool {
    shared.quorums.is_quorum(|other| other != sid && fit.contains(&other))
}
