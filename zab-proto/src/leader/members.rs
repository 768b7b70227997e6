//! Changes of the members, the leader's half: from the proposal to who leads afterwards.
//!
//! A proposal that changes the members, and all after it, are committed by quorums of the old and the new
//! configuration together, until it is committed itself. From there on the new one counts alone. A leader
//! that is not a voter of it, or has another address in it, names a successor that has all that was proposed
//! as far as any has, commits nothing more, and stays until everybody is told. Nobody depends on the
//! successor: whoever does not reach it looks for a leader as at any other time.

use super::link::Link;
use super::{Leader, LeaderStep};
use crate::quorums::Quorums;
use crate::reconfig;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::window::Index;
use crate::wire::txn::TxnHeader;
use crate::{Instant, Membership, ProposeError, ReignEnd, Sid, Zxid};

/// Where a change of the members is.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The index of a change that is proposed and not committed.
    pending: Option<Index>,
    over: Option<Over>,
}

/// This server is not to lead in the new configuration.
#[derive(Clone, Copy, Debug)]
struct Over {
    /// Who does; `None`: who is elected.
    successor: Option<Sid>,
    /// When to look next whether everybody has been told.
    look_at: Instant,
    /// Until when it waits for that.
    until: Instant,
}

impl Change {
    /// Whether this leader is to propose and commit nothing more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// How far of `index` a quorum of all that count at present commits.
    pub(super) fn committable(&self, index: Index) -> Index {
        self.pending.map_or(index, |pending| index.min(pending + 1))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.over.map(|over| over.look_at)
    }
}

impl Leader {
    /// A change of the members is about to be proposed.
    pub(super) fn introduce(
        &mut self,
        shared: &mut Shared,
        header: &TxnHeader,
        txn: &[u8],
    ) -> Result<(), ProposeError> {
        let ensemble = reconfig::proposed(shared, header, txn).filter(|_| !self.standalone);
        let ensemble = ensemble.ok_or(ProposeError::BadTxn)?;
        if !shared.quorums.next().is_empty() {
            return Err(ProposeError::Reconfiguring);
        }
        reconfig::introduce(shared, ensemble);
        self.change.pending = Some(shared.history.end());
        self.note_members(shared);
        Ok(())
    }

    /// The voters have changed: acknowledgements of others count from now on.
    fn note_members(&mut self, shared: &Shared) {
        let acked = |sid: Sid| {
            let known = self.acks.iter().find(|entry| entry.0 == sid).map(|entry| entry.1);
            let counts = |link: &&Link| {
                link.to.sid == sid && link.counts() && link.to.stage >= LearnerStage::NewLeaderAcked
            };
            let linked = self.links.iter().find(counts).map(|link| link.acked);
            known.max(linked).unwrap_or(0)
        };
        let voters = shared.quorums.voters().iter();
        self.acks = voters.map(|sid| (*sid, acked(*sid))).collect();
        self.acks_changed = true;
    }

    /// The first configuration of an ensemble gets the version of its first epoch (`Leader.lead`), so that
    /// a change can be told from what was there before.
    pub(super) fn name_first_version(&mut self, shared: &mut Shared) {
        let quorums = &shared.quorums;
        if shared.config.reconfig && quorums.newest().version == 0 {
            let version = Zxid::new(self.epoch, 0).raw();
            let committed = quorums.committed().clone();
            let first = Membership { version, ..committed.clone() };
            reconfig::set(shared, Quorums::new(committed, [first]));
            self.config_text = reconfig::tell(shared);
        }
    }

    /// The epoch is established. What was being introduced in the history that it begins with is committed
    /// with it, as a quorum of all that count has acknowledged NEWLEADER. (UPTODATE has no room for a
    /// successor: a leader that is no longer a voter leaves the choice to an election.)
    pub(super) fn begin_members(&mut self, now: Instant, shared: &mut Shared) {
        if reconfig::begin(shared, self.last_proposed) {
            self.settle_members(now, shared, None);
        }
    }

    /// Whether the change that was pending is committed, and in force from now on.
    pub(super) fn activate(&mut self, shared: &mut Shared) -> bool {
        let committed = shared.history.committed();
        let Some(index) = self.change.pending.filter(|pending| *pending < committed) else {
            return false;
        };
        self.change.pending = None;
        let successor = self.successor(shared, index);
        let leader = successor.unwrap_or(shared.config.sid);
        reconfig::activate(shared, shared.history.window.zxid(index));
        let placed = |link: &&mut Link| {
            link.to.stage >= LearnerStage::SendingSnapshot
                && link.to.stage != LearnerStage::SnapshotQueued
        };
        for link in self.links.iter_mut().filter(placed) {
            link.to.changes.push_back((index, leader));
        }
        self.settle_members(shared.now, shared, successor);
        true
    }

    fn settle_members(&mut self, now: Instant, shared: &Shared, successor: Option<Sid>) {
        self.config_text = reconfig::tell_committed(shared);
        self.note_members(shared);
        if successor.is_some() || !shared.quorums.committed().is_voter(shared.config.sid) {
            let until = now + shared.config.tick_time;
            self.change.over = Some(Over { successor, look_at: now + LOOK_EVERY, until });
        }
    }

    /// Who leads in the new configuration, if this server does not: a voter that has acknowledged the
    /// change, and of those the one that has most of what follows it.
    fn successor(&self, shared: &Shared, index: Index) -> Option<Sid> {
        let (me, committed) = (shared.config.sid, shared.quorums.committed());
        let new = shared.quorums.newest();
        let stays = new.is_voter(me)
            && committed
                .members
                .get(&me)
                .zip(new.members.get(&me))
                .is_none_or(|(old, new)| old.has_same_quorum_addresses(new));
        let others = self.acks.iter().filter(|(sid, acked)| {
            !stays && *sid != me && new.is_voter(*sid) && new.weight(*sid) > 0 && *acked > index
        });
        others.max_by_key(|(sid, acked)| (*acked, *sid)).map(|(sid, _)| *sid)
    }

    /// Whether this leader ends now, as others lead from here on: once all are told, or after a tick.
    pub(super) fn hand_over(&mut self, now: Instant, shared: &Shared) -> Option<ReignEnd> {
        let over = self.change.over.as_mut().filter(|over| now >= over.look_at)?;
        over.look_at = now + LOOK_EVERY;
        let (successor, until) = (over.successor, over.until);
        let mut live = self.links.iter().filter(|link| link.to.stage == LearnerStage::UpToDate);
        // Who reads that another one leads leaves by itself. A connection that is closed from here before
        // may take with it what is still on its way.
        let told = match successor {
            Some(_) => live.next().is_none(),
            None => live.all(|link| link.to.is_told(&shared.history)),
        };
        (told || now >= until).then_some(ReignEnd::HandedOver { to: successor })
    }

    /// Whether the voters of a configuration that are synchronised followers, and this server, are a
    /// quorum of it.
    pub(crate) fn has_synced_quorum(&self, shared: &Shared, ensemble: &Membership) -> bool {
        let follows = |sid: Sid| {
            self.links.iter().any(|link| {
                link.to.sid == sid && link.counts() && link.to.stage == LearnerStage::UpToDate
            })
        };
        self.step == LeaderStep::Established
            && Quorums::new(ensemble.clone(), [])
                .is_quorum(|sid| sid == shared.config.sid || follows(sid))
    }
}

/// How often it is looked whether everybody is told. Usually that is a matter of one write to each socket.
const LOOK_EVERY: core::time::Duration = core::time::Duration::from_millis(5);
