//! Fast leader election: rounds, votes and when they decide.
//!
//! Every server proposes the best candidate it has heard of: the one with the highest current
//! epoch, then the longest history, then the highest id. Once a quorum proposes the same one in the
//! same round it is elected, unless a better one shows up within the finalising wait. A server that
//! comes late finds the leader by the answers of those that follow it already.
//!
//! Source: ZooKeeper `FastLeaderElection.lookForLeader` and `Messenger.WorkerReceiver`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::failed_leaders::FailedLeaders;
use crate::quorums::Quorums;
use crate::wire::notification::{Notification, VERSION};
use crate::{ElectionConfig, Epoch, Instant, ServerState, Sid, Vote, Zxid};

/// A vote as it travels: with the round it belongs to and the state of who cast it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CastVote {
    /// The caster's state.
    pub(super) state: ServerState,
    /// Whom it votes for or follows.
    pub(super) vote: Vote,
    /// The round: ZooKeeper's logical clock.
    pub(super) election_epoch: i64,
    /// The notification's format version, where it matters for [`agrees`](Self::agrees).
    pub(super) version: i32,
}

impl CastVote {
    /// As the notification it is sent in.
    pub(super) fn notification<'a>(&self, config: &'a [u8]) -> Notification<'a> {
        Notification {
            state: Notification::state_code(self.state),
            leader: self.vote.leader,
            zxid: self.vote.zxid,
            election_epoch: self.election_epoch,
            peer_epoch: self.vote.peer_epoch,
            version: VERSION,
            config: Some(config),
        }
    }

    /// ZooKeeper's equality of votes. Those who have a leader may differ in zxid and round, which
    /// they took from different elections; before ZOOKEEPER-1732 (version 0) also in the epoch.
    fn agrees(&self, other: &Self) -> bool {
        if self.state == ServerState::Looking || other.state == ServerState::Looking {
            return self.vote == other.vote && self.election_epoch == other.election_epoch;
        }
        self.vote.leader == other.vote.leader
            && ((self.version > 0) != (other.version > 0)
                || self.vote.peer_epoch == other.vote.peer_epoch)
    }
}

/// The outcome of an election.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    /// What this server becomes.
    pub(super) state: ServerState,
    /// The vote that won.
    pub(super) vote: Vote,
}

/// What one input to the algorithm leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Step {
    /// To be sent to all voters.
    pub(super) broadcast: Option<CastVote>,
    /// To be sent to the sender of the notification.
    pub(super) answer: Option<CastVote>,
    /// The election is over.
    pub(super) decided: Option<Decision>,
}

/// Votes by who cast them. Only voters get in.
pub(super) type Votes = BTreeMap<Sid, CastVote>;

/// The election as one server sees it.
#[derive(Debug)]
pub(super) struct Algorithm {
    me: Sid,
    times: ElectionConfig,
    quorums: Arc<Quorums>,
    /// The own vote: while looking the proposal, then what the last election decided.
    own: CastVote,
    /// The vote this server began its election with.
    initial: Vote,
    /// The latest round it has voted in. Who finds an ensemble takes over its round, which may be
    /// an earlier one.
    last_round: i64,
    /// Members that look for a leader with a vote that is not counted, as last heard: observers, and
    /// voters by rule R14. After a decision voters of other opinion, too.
    waiting: BTreeSet<Sid>,
    /// Servers that are no voters in any configuration known here, and candidates all the same, as a voter
    /// says that a change makes them voters.
    pub(super) newcomers: BTreeSet<Sid>,
    /// The votes of this round (ZooKeeper's `recvset`).
    received: Votes,
    /// What servers that have a leader say (`outofelection`).
    out_of_election: Votes,
    failed_leaders: FailedLeaders,
    interval: Duration,
    resend_at: Option<Instant>,
    final_at: Option<Instant>,
    /// The last decision did not wait for the end of the finalising wait, and no leader was established
    /// since.
    hasty: bool,
    /// Members change (`Config::reconfig`).
    reconfig: bool,
    /// Every decision waits, until a leader is established.
    patient: bool,
}

impl Algorithm {
    pub(super) fn new(
        me: Sid,
        quorums: Arc<Quorums>,
        times: ElectionConfig,
        init_limit: Duration,
    ) -> Self {
        let vote = Vote { leader: me, zxid: Zxid::NONE, peer_epoch: Epoch(0) };
        let state = ServerState::Looking;
        Self {
            me,
            times,
            quorums,
            own: CastVote { state, vote, election_epoch: 0, version: 0 },
            initial: vote,
            last_round: 0,
            waiting: BTreeSet::new(),
            newcomers: BTreeSet::new(),
            received: Votes::new(),
            out_of_election: Votes::new(),
            failed_leaders: FailedLeaders::new(init_limit),
            interval: Duration::ZERO,
            resend_at: None,
            final_at: None,
            hasty: false,
            reconfig: false,
            patient: false,
        }
    }

    /// With `Config::reconfig` or without.
    pub(super) fn with_reconfig(self, reconfig: bool) -> Self {
        Self { reconfig, ..self }
    }

    /// Others count from now on.
    pub(super) fn reconfigure(&mut self, quorums: Arc<Quorums>) {
        self.waiting.retain(|sid| quorums.is_member(*sid));
        self.newcomers.clear();
        self.quorums = quorums;
    }

    /// The same voters, of which others are a quorum.
    pub(super) fn set_quorums(&mut self, quorums: Arc<Quorums>) {
        self.quorums = quorums;
    }

    /// There is a leader without an election. Its round is that of none (`QuorumPeer.updateVote`).
    pub(super) fn designate(&mut self, state: ServerState, vote: Vote) {
        self.last_round = self.last_round.max(self.own.election_epoch);
        self.own = CastVote { state, vote, election_epoch: -1, version: 0 };
        (self.resend_at, self.final_at) = (None, None);
        self.failed_leaders.end();
    }

    /// Whether `sid` can be elected.
    pub(super) fn is_candidate(&self, sid: Sid) -> bool {
        self.quorums.is_voter(sid) || self.newcomers.contains(&sid)
    }

    pub(super) fn quorums(&self) -> &Quorums {
        &self.quorums
    }

    /// What this server answers; between two roles there is nothing to say.
    pub(super) fn answer(&self) -> Option<CastVote> {
        let silent = self.own.state == ServerState::Looking && !self.is_looking();
        (!silent).then_some(self.own)
    }

    /// What this server stands for at present.
    pub(super) fn vote(&self) -> CastVote {
        self.own
    }

    /// Whether a vote of this server has come since the round began.
    pub(super) fn has_vote_of(&self, sid: Sid) -> bool {
        self.received.contains_key(&sid) || self.out_of_election.contains_key(&sid)
    }

    /// Who is told of the leader when an election is decided. Some take no part in it, others have voted for
    /// somebody else to the end. They would hear of the leader only by asking, which they do more and more
    /// seldom: where reigns are short, never while there is one. An observer that has lost the leader a moment
    /// before the voters have would ask again after 200 ms. Servers of ZooKeeper tell nobody.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Sid> + '_ {
        self.waiting.iter().copied()
    }

    /// The leader of the last election is lost, and the next one has not begun.
    pub(super) fn end(&mut self) {
        self.own.state = ServerState::Looking;
        (self.resend_at, self.final_at) = (None, None);
    }

    /// Whether it has entered an election that is not over.
    pub(super) fn is_looking(&self) -> bool {
        self.resend_at.is_some()
    }

    /// Begins an election with the vote `initial`, which the caller then sends to all voters.
    ///
    /// A server whose history is not to be counted stays in the round before the first: so all who
    /// take part find it lagging and answer at once, which is all it wants from them. All others
    /// begin a round they never voted in, for votes only rise within a round
    /// (`FastLeaderElection.totalOrderPredicate`).
    pub(super) fn start(&mut self, now: Instant, initial: Vote) {
        // So does who is no voter in what it knows, where members change, as it is no candidate that others
        // would adopt a round with: if it is a voter of one that is being introduced, they may need its vote
        // in theirs.
        let observes = self.reconfig && self.quorums.is_observer(self.me);
        let stranger = observes || !self.quorums.is_member(self.me);
        if stranger {
            self.last_round = self.last_round.max(self.own.election_epoch);
        }
        let election_epoch = if initial.zxid == Zxid::NONE || stranger {
            self.own.election_epoch.min(0)
        } else {
            self.last_round = self.last_round.max(self.own.election_epoch).wrapping_add(1);
            self.last_round
        };
        self.own =
            CastVote { state: ServerState::Looking, vote: initial, election_epoch, version: 0 };
        self.initial = initial;
        self.slow_down();
        self.received.clear();
        self.out_of_election.clear();
        self.interval = self.times.min_notification_interval.max(INTERVAL_FLOOR);
        self.resend_at = Some(now + self.interval);
        self.final_at = None;
        self.failed_leaders.begin(now);
        self.count_own();
    }

    /// The leader just elected could not be followed.
    pub(super) fn avoid(&mut self, leader: Sid) {
        self.failed_leaders.add(leader);
    }

    /// Nothing came of an election in which votes were not adopted: they may be needed.
    pub(super) fn avoid_nobody(&mut self) {
        self.failed_leaders.clear();
    }

    /// Where members change: if nothing came of a decision that did not wait, the next ones do.
    ///
    /// A decision is early when all voters agree, and who they are is what a change alters. A voter that
    /// has not heard of it takes the first vote of another for all that is to come. The other goes on
    /// to a voter of the new configuration, of which the first one learns when it follows already. With the
    /// same delays each election would end like this.
    fn slow_down(&mut self) {
        self.patient |= self.reconfig && self.hasty;
    }

    /// The epoch of the leader just elected is established (ZOOKEEPER-1732): all members of an
    /// ensemble tell a joiner the same one. Whether the vote has changed.
    pub(super) fn established(&mut self, epoch: Epoch) -> bool {
        (self.hasty, self.patient) = (false, false);
        self.failed_leaders.clear();
        core::mem::replace(&mut self.own.vote.peer_epoch, epoch) != epoch
    }

    /// Takes a notification from `from`. `gone` tells whether a server is known to be unreachable.
    pub(super) fn on_notification(
        &mut self,
        now: Instant,
        from: Sid,
        heard: CastVote,
        gone: impl Fn(Sid) -> bool,
    ) -> Step {
        let mut step = Step::default();
        let looking = heard.state == ServerState::Looking;
        let is_counted = self.quorums.is_voter(from) && heard.vote.zxid != Zxid::NONE;
        if looking && !is_counted && self.quorums.is_member(from) {
            self.waiting.insert(from);
        } else {
            self.waiting.remove(&from);
        }
        if !self.is_looking() {
            let asked = looking || !self.quorums.is_voter(from);
            step.answer = self.answer().filter(|_| asked);
            return step;
        }
        if !self.quorums.is_voter(from) {
            step.answer = Some(self.own);
            return step;
        }
        let mut answer = looking && heard.election_epoch < self.own.election_epoch;
        if heard.vote.zxid != Zxid::NONE {
            self.failed_leaders.hear(from);
        }
        if self.is_candidate(heard.vote.leader) {
            match heard.state {
                ServerState::Looking => {
                    let (changed, newcomer) = self.on_looking(from, heard);
                    step.broadcast = changed.then_some(self.own);
                    answer |= newcomer && !changed;
                }
                ServerState::Following | ServerState::Leading => {
                    step.decided = self.on_out_of_election(from, heard);
                }
                ServerState::Observing => {}
            }
        }
        // What is said now is still a vote, even if the next line ends the election.
        step.answer = answer.then_some(self.own);
        step.decided = step.decided.or_else(|| self.evaluate(now, gone));
        step
    }

    /// Looks again whether a quorum agrees and nothing is left to wait for. To be called when a
    /// server has become unreachable.
    pub(super) fn evaluate(
        &mut self,
        now: Instant,
        gone: impl Fn(Sid) -> bool,
    ) -> Option<Decision> {
        let is_quorum = |counts: &dyn Fn(Sid) -> bool| {
            self.quorums.is_quorum(|sid| sid == self.me || counts(sid))
        };
        self.failed_leaders.watch(now, &gone, is_quorum);
        if !self.is_looking() || !self.is_quorum(&self.received, &self.own) {
            self.final_at = None;
            return None;
        }
        let final_at = *self.final_at.get_or_insert(now + self.times.finalize_wait);
        let early = self.times.early_finalize && !self.patient && self.nobody_left(gone);
        let waited = final_at <= now;
        (early || waited).then(|| {
            self.hasty = !waited;
            self.decide(self.own)
        })
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, gone: impl Fn(Sid) -> bool) -> Step {
        let mut step = Step { decided: self.evaluate(now, &gone), ..Step::default() };
        if self.failed_leaders.is_over(now) && self.forgive() {
            step = Step { broadcast: Some(self.own), decided: self.evaluate(now, gone), ..step };
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            let longest = self.times.max_notification_interval.max(INTERVAL_FLOOR);
            self.interval = (self.interval * 2).min(longest);
            self.resend_at = Some(now + self.interval);
            step.broadcast = Some(self.own);
        }
        step
    }

    /// Somebody has become reachable: the pauses between notifications are short again, or a server
    /// that had waited long would not hear of a leader for up to a minute, to which
    /// `FastLeaderElection.lookForLeader` lengthens them.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(resend_at) = &mut self.resend_at {
            self.interval = self.times.min_notification_interval.max(INTERVAL_FLOOR);
            *resend_at = (*resend_at).min(now + self.interval);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.resend_at, self.final_at, self.failed_leaders.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Nothing comes of it without leaders that failed. Whether the own vote has changed.
    fn forgive(&mut self) -> bool {
        self.failed_leaders.clear();
        let before = self.own.vote;
        let round = self.own.election_epoch;
        let heard = self
            .received
            .values()
            .filter(|cast| cast.state == ServerState::Looking && cast.election_epoch == round);
        let heard: Vec<Vote> = heard.map(|cast| cast.vote).collect();
        for vote in heard {
            if self.is_better(&vote, &self.own.vote) {
                self.own.vote = vote;
            }
        }
        let changed = self.own.vote != before;
        if changed {
            self.final_at = None;
            self.count_own();
        }
        changed
    }

    /// A vote of this or another round. Returns whether the own vote has changed, and whether the
    /// sender is new to this round. A newcomer may have had a leader when the own vote came, and
    /// ignored it; ZooKeeper leaves it waiting until votes are repeated.
    fn on_looking(&mut self, from: Sid, heard: CastVote) -> (bool, bool) {
        if self.initial.zxid == Zxid::NONE
            || heard.vote.zxid == Zxid::NONE
            || heard.election_epoch < self.own.election_epoch
        {
            return (false, false);
        }
        let before = self.own;
        // A vote for more history than this server has: it was cast before a crash or a wiped disk
        // took it. Votes only rise within a round, so only a new round gets rid of it.
        let outdated = heard.vote.leader == self.me && self.is_better(&heard.vote, &self.initial);
        let round = heard.election_epoch.saturating_add(i64::from(outdated));
        if round > before.election_epoch {
            self.own.election_epoch = round;
            self.own.vote = self.initial;
            self.received.clear();
        }
        let failed = self.failed_leaders.contains(heard.vote.leader);
        if !outdated && !failed && self.is_better(&heard.vote, &self.own.vote) {
            self.own.vote = heard.vote;
        }
        let changed = self.own != before;
        if changed {
            self.final_at = None;
            self.count_own();
        }
        if outdated {
            return (changed, false);
        }
        let known = self.received.insert(from, CastVote { version: 0, ..heard });
        (changed, known.is_none_or(|vote| vote.state != ServerState::Looking))
    }

    /// An answer of somebody who has a leader.
    fn on_out_of_election(&mut self, from: Sid, heard: CastVote) -> Option<Decision> {
        if heard.election_epoch == self.own.election_epoch {
            self.received.insert(from, CastVote { version: 0, ..heard });
            // The own vote is among these. It may be needed by a leader that has not heard of a change.
            let follow = |sid| self.received.get(&sid).is_some_and(|cast| cast.agrees(&heard));
            let joins = heard.vote.leader != self.me && self.quorums.is_followed_by(follow);
            let agreed = joins || self.is_quorum(&self.received, &heard);
            if agreed && self.is_leading(&self.received, &heard) {
                return Some(self.decide(heard));
            }
        }
        self.out_of_election.insert(from, heard);
        let follow = |sid| self.out_of_election.get(&sid).is_some_and(|cast| cast.agrees(&heard));
        let is_followed = self.quorums.is_followed_by(follow)
            || (heard.vote.leader == from && from != self.me && self.quorums.may_lead_alone(from));
        (is_followed && self.is_leading(&self.out_of_election, &heard)).then(|| self.decide(heard))
    }

    /// Whether the leader that `heard` speaks of says so too. We ourselves lead only if it is the
    /// present round that elected us.
    fn is_leading(&self, votes: &Votes, heard: &CastVote) -> bool {
        if heard.vote.leader == self.me {
            return heard.election_epoch == self.own.election_epoch;
        }
        votes.get(&heard.vote.leader).is_some_and(|vote| vote.state == ServerState::Leading)
    }

    fn is_quorum(&self, votes: &Votes, vote: &CastVote) -> bool {
        self.quorums.is_quorum(|sid| votes.get(&sid).is_some_and(|cast| cast.agrees(vote)))
    }

    /// Whether no better vote can come soon: every voter has chosen as we have, or is known to be
    /// unreachable. Votes for a server without weight never count as better.
    fn nobody_left(&self, gone: impl Fn(Sid) -> bool) -> bool {
        self.quorums.voters().iter().all(|sid| {
            let agrees = self.received.get(sid).is_some_and(|cast| {
                cast.agrees(&self.own)
                    || (cast.state != ServerState::Looking
                        && cast.vote.leader == self.own.vote.leader)
            });
            agrees || *sid == self.me || self.quorums.weight(*sid) == 0 || gone(*sid)
        })
    }

    /// The order of votes: current epoch, history, id.
    pub(super) fn is_better(&self, new: &Vote, old: &Vote) -> bool {
        let rank = |vote: &Vote| (vote.peer_epoch, vote.zxid, vote.leader);
        self.quorums.weight(new.leader) != 0 && rank(new) > rank(old)
    }

    /// The own vote counts like any other; ZooKeeper sends it to itself.
    fn count_own(&mut self) {
        if self.quorums.is_voter(self.me) && self.initial.zxid != Zxid::NONE {
            self.received.insert(self.me, self.own);
        }
    }

    fn decide(&mut self, elected: CastVote) -> Decision {
        let state = if elected.vote.leader == self.me {
            ServerState::Leading
        } else if self.quorums.is_observer(self.me) {
            ServerState::Observing
        } else {
            ServerState::Following
        };
        self.last_round = self.last_round.max(self.own.election_epoch);
        let looks = |cast: &CastVote| cast.state == ServerState::Looking;
        let others = self.received.iter().filter(|(sid, cast)| {
            **sid != self.me && looks(cast) && cast.vote.leader != elected.vote.leader
        });
        self.waiting.extend(others.map(|(sid, _)| *sid));
        self.own = CastVote { state, version: 0, ..elected };
        self.resend_at = None;
        self.final_at = None;
        self.failed_leaders.end();
        Decision { state, vote: elected.vote }
    }
}

/// A configured interval of nothing would never let the loop rest.
const INTERVAL_FLOOR: Duration = Duration::from_millis(1);
