//! Which role this server is in: looking, following or observing, leading, and how one ends and the
//! next begins.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::patience::PAUSE_MIN;
use super::{Held, Peer};
use crate::election::ElectionOutput;
use crate::leader::Leader;
use crate::learner::Learner;
use crate::reconfig;
use crate::shared::{Control, Shared};
use crate::wire::txn::TxnHeader;
use crate::{
    Channel, CloseReason, Epoch, Instant, Membership, Notice, ReignEnd, ServerState, Sid, Vote,
};

#[derive(Debug)]
pub(super) enum Role {
    Looking(Looking),
    Learner(Learner),
    Leader(Leader),
}

/// Between two roles.
#[derive(Debug)]
pub(super) struct Looking {
    /// The election has begun. It waits for the disk to settle, so that the vote tells the truth.
    pub(super) begun: bool,
    pub(super) not_before: Instant,
    /// The leader whose loss ended the last role.
    pub(super) lost: Option<Sid>,
    /// It was silent, so that its connection may look whole.
    pub(super) suspects: bool,
    /// Whom the first vote is for, if this server made way for it. It has the same history.
    pub(super) votes_for: Option<Sid>,
}

impl Peer {
    /// Carries role changes through until nothing changes any more.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            self.tell_members(now);
            self.tend_oracle(now);
            if let Role::Learner(learner) = &self.role
                && learner.has_failed()
                && let Some(leader) = learner.successor()
            {
                self.succeed(now, leader);
            }
            if let Role::Learner(learner) = &self.role
                && learner.has_failed()
            {
                let (leader, epoch) = (learner.leader(), learner.epoch());
                let ahead = learner.has_promised() && learner.is_ahead(&self.shared);
                let overtaxed = learner.is_overtaxed();
                let loss = learner.loss();
                // That its master is gone tells an observer nothing of the leader.
                let lost = learner.master().is_none().then_some(leader);
                self.shared.notice(now, loss);
                self.attempts.last_loss = Some(loss);
                self.look(now, lost);
                if overtaxed {
                    self.pause_long(now);
                }
                if ahead {
                    self.on_refused(now, leader, epoch);
                }
            }
            if let Role::Leader(leader) = &self.role
                && leader.is_overtaken()
            {
                self.abdicate(now, ReignEnd::Overtaken);
            }
            self.make_way(now);
            if self.shared.history.take_identity_change() {
                self.election.set_identity(self.shared.history.identity());
            }
            self.begin_election(now);
            self.note_established(now);
            let Some(output) = self.election.poll_output() else {
                self.note_waiting(now);
                return;
            };
            match output {
                ElectionOutput::Connect { conn, addresses } => {
                    let channel = Channel::Election;
                    self.shared.control.push_back(Control::Connect { conn, channel, addresses });
                }
                ElectionOutput::Transmit { conn } => {
                    self.shared.control.push_back(Control::Transmit(conn));
                }
                ElectionOutput::Close { conn, reason } => {
                    self.shared.control.push_back(Control::Close { conn, reason });
                }
                ElectionOutput::Decided { state, vote } => self.decided(now, state, vote),
                ElectionOutput::Newcomer(sid, member) => {
                    self.shared.newcomers.insert(sid, member);
                }
                ElectionOutput::NewerConfig(ensemble) => self.on_newer_config(now, ensemble),
                ElectionOutput::Notice(notice) => self.shared.notice(now, notice),
                ElectionOutput::Overtaken => self.abdicate(now, ReignEnd::Deserted),
            }
        }
    }

    /// The advertised vote follows the epoch once it is established (`QuorumPeer.updateElectionVote`).
    fn note_established(&mut self, now: Instant) {
        let (leader, epoch) = match &self.role {
            Role::Learner(learner) if learner.is_live() => (learner.leader(), learner.epoch()),
            Role::Leader(leader) if leader.is_established() => {
                (self.shared.config.sid, leader.epoch())
            }
            Role::Looking(_) | Role::Learner(_) | Role::Leader(_) => return,
        };
        if self.advertised != Some(epoch) {
            self.advertised = Some(epoch);
            let Shared { suspicions, heartbeats, .. } = &mut self.shared;
            suspicions.resolve(now, heartbeats, leader, epoch);
            self.attempts.succeeded(now);
            self.shared.history.establish();
            self.election.established(now, epoch);
        }
    }

    /// Begins the election once everything asked of storage is durable (rules R2, R4).
    fn begin_election(&mut self, now: Instant) {
        let Role::Looking(looking) = &mut self.role else { return };
        if self.shared.outdated {
            return;
        }
        let history = &mut self.shared.history;
        if !looking.begun && history.is_settled() && now >= looking.not_before {
            looking.begun = true;
            let own = Vote {
                leader: looking.votes_for.unwrap_or(self.shared.config.sid),
                zxid: history.last(),
                peer_epoch: history.current(),
            };
            let lost = looking.lost.map(|leader| (leader, looking.suspects));
            self.election.start(now, own, history.is_trusted(), lost);
        }
        if looking.begun && !history.is_trusted() && self.election.is_bootstrapped() {
            history.trust();
        }
    }

    /// The election hears of it when the members are others.
    fn tell_members(&mut self, now: Instant) {
        if core::mem::take(&mut self.shared.members_changed) {
            self.election.reconfigure(now, &self.shared.config, Arc::clone(&self.shared.quorums));
        }
    }

    /// A member has a newer configuration than this server, which looks for a leader.
    fn on_newer_config(&mut self, now: Instant, ensemble: Membership) {
        let Role::Looking(looking) = &mut self.role else { return };
        if reconfig::hear(&mut self.shared, ensemble) {
            // The next vote is cast in the new configuration, once that is stored.
            looking.begun = false;
            self.election.end();
            self.tell_members(now);
        }
    }

    /// Follows a leader, or leads, without an election, as a change of the members says. If nothing comes
    /// of that, there will be one.
    pub(super) fn succeed(&mut self, now: Instant, leader: Sid) {
        self.look(now, None);
        self.tell_members(now);
        let (me, quorums) = (self.shared.config.sid, &self.shared.quorums);
        if !quorums.committed().is_voter(leader) {
            return;
        }
        let state = if leader == me {
            ServerState::Leading
        } else if quorums.is_observer(me) {
            ServerState::Observing
        } else {
            ServerState::Following
        };
        let history = &self.shared.history;
        let vote = Vote { leader, zxid: history.last(), peer_epoch: history.current() };
        self.election.designate(state, vote);
        self.decided(now, state, vote);
    }

    /// Whether what was recovered changes the members. `applied` are the changes that the application
    /// has already, and the window perhaps no longer; `stored` the configurations that storage has.
    pub(super) fn observe_history(&mut self, applied: &[Vec<u8>], stored: &[String]) {
        let read = |txn: &[u8]| reconfig::configuration(&TxnHeader::parse(txn).ok()?, txn);
        let mut logged: Vec<Membership> = applied.iter().filter_map(|txn| read(txn)).collect();
        let known = logged.len();
        let history = &self.shared.history;
        let rest = history.delivered()..history.end();
        logged.extend(rest.filter_map(|index| read(history.window.txn(index))));
        if self.shared.config.reconfig {
            reconfig::recover(&mut self.shared, stored, logged, known);
            return;
        }
        // Those before the last one are over.
        if let Some(last) = logged.last() {
            reconfig::observe(&mut self.shared, last);
        }
        self.shared.outdated = self.shared.changing && !self.shared.config.standalone;
    }

    fn decided(&mut self, now: Instant, state: ServerState, elected: Vote) {
        let held = core::mem::take(&mut self.held);
        if state == ServerState::Leading {
            let mut leader = Leader::new(now, &mut self.shared);
            for Held { conn, remote, .. } in held {
                leader.accept(now, &self.shared, conn, remote);
                self.shared.control.push_back(Control::Resume(conn));
            }
            self.role = Role::Leader(leader);
        } else {
            for Held { conn, .. } in held {
                self.shared.close(conn, CloseReason::RoleEnded);
            }
            let observer = state == ServerState::Observing;
            // Followers serve once the epoch is established, which may need this server.
            let learns_from_followers = observer && !self.election.is_needed();
            let master =
                if learns_from_followers { self.next_master(elected.leader) } else { None };
            let learner = Learner::new(now, &mut self.shared, elected, observer, master);
            self.role = Role::Learner(learner);
        }
    }

    /// Gives up the present role and looks for a leader.
    pub(super) fn look(&mut self, now: Instant, lost: Option<Sid>) {
        if matches!(self.role, Role::Looking(_)) {
            return;
        }
        let mut not_before = now + self.attempts.ended(now, self.shared.config.tick_time);
        let suspects = matches!(&self.role, Role::Learner(learner) if learner.suspects());
        match &mut self.role {
            Role::Looking(_) => {}
            Role::Learner(learner) => {
                learner.end(&mut self.shared);
                // Masters are tried one after the other without a pause.
                let tried = learner.master().is_none() || self.masters.is_empty();
                if tried && self.status().state == ServerState::Observing {
                    let delay_max = self.shared.config.election.observer_delay_max;
                    not_before = not_before.max(now + self.random_below(delay_max));
                }
            }
            Role::Leader(leader) => leader.end(&mut self.shared),
        }
        self.advertised = None;
        // What was under way waits for the next leader, and for as long as that takes.
        self.shared.history.extend_tail();
        self.shared.outdated |= self.shared.changing;
        self.election.end();
        self.role =
            Role::Looking(Looking { begun: false, not_before, lost, suspects, votes_for: None });
        self.shared.control.push_back(Control::Became(self.status()));
    }

    /// A leader has refused this server's history, which is ahead of its own. If it is the leader
    /// whose time is over, another one will be elected soon; if not, nothing comes of asking again.
    fn on_refused(&mut self, now: Instant, leader: Sid, epoch: Epoch) {
        let history = &self.shared.history;
        let own = history.current().max(history.last().epoch());
        self.shared.notice(now, Notice::Ahead { leader, epoch, own });
        let pause = self.attempts.refused(PAUSE_MIN, self.shared.config.tick_time);
        if let Role::Looking(looking) = &mut self.role {
            looking.not_before = looking.not_before.max(now + pause);
        }
    }

    /// Until an operator changes a limit, each further attempt costs the leader as much as this one,
    /// and comes to nothing.
    fn pause_long(&mut self, now: Instant) {
        let config = &self.shared.config;
        let (shortest, longest) = (config.tick_time, config.ticks(config.init_limit));
        let pause = self.attempts.refused(shortest, longest);
        if let Role::Looking(looking) = &mut self.role {
            looking.not_before = looking.not_before.max(now + pause);
        }
    }

    /// A random duration below `limit` (xorshift).
    pub(super) fn random_below(&mut self, limit: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.random % nanos)
    }
}
