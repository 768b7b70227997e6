//! The observer's view of elections: what was said, what was heard, and what was made of it.

use std::collections::BTreeMap;

use zab_proto::wire::notification::Notification;
use zab_proto::{Epoch, ServerState, Sid, Status, Zxid};

use crate::check::Checker;
use crate::disk::Disk;
use crate::members::sid_of;
use crate::queue::{HostIx, MILLI};

/// A vote that was sent or heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ballot {
    state: ServerState,
    round: i64,
    vote: (Sid, Zxid, Epoch),
}

impl Ballot {
    fn of(notification: &Notification<'_>) -> Option<Self> {
        let vote = (notification.leader, notification.zxid, notification.peer_epoch);
        let state = notification.server_state()?;
        Some(Self { state, round: notification.election_epoch, vote })
    }

    fn is_settled(&self) -> bool {
        self.state != ServerState::Looking
    }

    /// The order of votes.
    fn rank(&self) -> (Epoch, Zxid, Sid) {
        let (leader, zxid, epoch) = self.vote;
        (epoch, zxid, leader)
    }

    /// Whether the two speak for the same leader. Those who have one may have got it by different
    /// elections, or know its epoch at different times.
    fn agrees(&self, other: &Self) -> bool {
        if self.is_settled() && other.is_settled() {
            let same = self.round == other.round || self.vote.2 == other.vote.2;
            return self.vote.0 == other.vote.0 && same;
        }
        (self.round, self.vote) == (other.round, other.vote)
    }
}

/// Who cast a vote, its round, and what it was for.
type Cast = (HostIx, i64, Sid, Zxid, Epoch);

/// What is remembered of each server's election.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// What each has heard from whom since it began to look.
    heard: Vec<Vec<(HostIx, Ballot)>>,
    /// What each last said while looking, and when.
    said: Vec<Option<(Ballot, u64)>>,
    /// What it had said before that moment.
    said_before: Vec<Option<Ballot>>,
    /// When each last heard a vote.
    heard_at: Vec<u64>,
    /// Current epoch and last zxid on the voter's disk when it first cast a vote.
    cast: BTreeMap<Cast, (Epoch, Zxid)>,
}

impl Votes {
    /// For so many servers.
    pub(crate) fn new(servers: usize) -> Self {
        let heard = (0..servers).map(|_| Vec::new()).collect();
        Self {
            heard,
            said: vec![None; servers],
            said_before: vec![None; servers],
            heard_at: vec![0; servers],
            cast: BTreeMap::new(),
        }
    }
}

/// When the next notification of a connection is due, and in which of the sender's elections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    election: u32,
    at: u64,
}

impl Checker {
    /// A server enters an election.
    pub(crate) fn forget_votes(&mut self, server: HostIx) {
        self.votes.heard[server].clear();
        (self.votes.said[server], self.votes.said_before[server]) = (None, None);
    }

    /// Whether a server has voted since it began to look.
    pub(crate) fn has_said(&self, server: HostIx) -> bool {
        self.votes.said[server].is_some()
    }

    /// A looking server says something for the first time on a connection, or again.
    pub(crate) fn on_said(
        &mut self,
        now: u64,
        server: HostIx,
        vote: &Notification<'_>,
        disk: &Disk,
    ) {
        let Some(ballot) = Ballot::of(vote) else { return };
        let earlier = self.votes.said[server].filter(|(_, at)| *at < now);
        if let Some((earlier, _)) = earlier {
            self.votes.said_before[server] = Some(earlier);
        }
        self.votes.said[server] = Some((ballot, now));
        let (leader, zxid, epoch) = ballot.vote;
        let image = &disk.durable;
        let sample = (image.current_in_effect(), image.last().0);
        // Whoever has no vote takes over whatever it hears.
        if self.has_vote(server) {
            self.votes.cast.entry((server, ballot.round, leader, zxid, epoch)).or_insert(sample);
        }
    }

    /// A notification has arrived.
    pub(crate) fn on_heard(
        &mut self,
        now: u64,
        server: HostIx,
        from: HostIx,
        vote: &Notification<'_>,
    ) {
        let Some(ballot) = Ballot::of(vote) else { return };
        self.votes.heard_at[server] = now;
        let heard = &mut self.votes.heard[server];
        if (from < self.voters || self.dynamic) && !heard.contains(&(from, ballot)) {
            heard.push((from, ballot));
        }
    }

    /// What a looking server has heard last of another one that looks.
    pub(crate) fn last_heard(&self, server: HostIx, from: HostIx) -> Option<Notification<'static>> {
        let heard = self.votes.heard[server].iter().rev();
        let (_, ballot) =
            heard.filter(|(_, ballot)| !ballot.is_settled()).find(|(who, _)| *who == from)?;
        let (leader, zxid, peer_epoch) = ballot.vote;
        Some(Notification {
            state: Notification::state_code(ballot.state),
            leader,
            zxid,
            election_epoch: ballot.round,
            peer_epoch,
            version: 2,
            config: None,
        })
    }

    /// E1, E4: a server stops looking for a leader.
    pub(crate) fn on_decided(&mut self, server: HostIx, status: &Status) {
        let Some(leader) = status.leader else { return };
        if self.is_designated(server, leader) {
            self.coverage.count("members: led without an election");
            return;
        }
        let name = server + 1;
        let heard = &self.votes.heard[server];
        let mut reasons = heard.iter().filter_map(|(_, basis)| {
            let electors = self.electors(server, leader, basis);
            self.may_decide(server, |voter| electors.contains(&voter)).then_some((electors, *basis))
        });
        let Some(first) = reasons.next() else {
            // Whoever is a quorum by himself has nobody to hear.
            let alone = self.voters == 1 || self.may_decide(server, |voter| voter == server);
            // Who leads without the other of two has its own word alone.
            let word = |(from, ballot): &(HostIx, Ballot)| {
                sid_of(*from) == leader && ballot.state == ServerState::Leading
            };
            let word = self.oracle && self.may_lead_alone(leader) && heard.iter().any(word);
            if !(alone && sid_of(server) == leader || word && sid_of(server) != leader) {
                self.fail(
                    "E1",
                    format!(
                        "s{name} takes s{leader} for elected, having heard {:?}",
                        self.votes.heard[server]
                    ),
                );
            }
            return;
        };
        if status.state != ServerState::Leading {
            return;
        }
        // Votes may still come for what a leader had before it restarted and got more. One good reason
        // is enough.
        let Some(text) = self.is_behind(name, leader, &first) else { return };
        if reasons.all(|reason| self.is_behind(name, leader, &reason).is_some()) {
            self.fail("E4", text);
        }
    }

    /// Which of its electors had more than a leader when it voted.
    fn is_behind(
        &self,
        name: HostIx,
        leader: Sid,
        (electors, basis): &(Vec<HostIx>, Ballot),
    ) -> Option<String> {
        let (_, zxid, epoch) = basis.vote;
        electors.iter().find_map(|elector| {
            let sample = self.votes.cast.get(&(*elector, basis.round, leader, zxid, epoch))?;
            let behind = *sample > (epoch, zxid);
            behind
                .then(|| format!("s{name} is elected at {zxid} by s{} at {sample:?}", elector + 1))
        })
    }

    /// The voters whose word, as heard by `server`, makes `leader` elected in the way of `basis`.
    fn electors(&self, server: HostIx, leader: Sid, basis: &Ballot) -> Vec<HostIx> {
        if basis.vote.0 != leader {
            return Vec::new();
        }
        let heard = &self.votes.heard[server];
        let own = i64::try_from(server + 1) == Ok(leader.0);
        let claims = |(from, ballot): &(HostIx, Ballot)| {
            i64::try_from(from + 1) == Ok(leader.0) && ballot.state == ServerState::Leading
        };
        if basis.is_settled() && !own && !heard.iter().any(claims) {
            return Vec::new();
        }
        let agreeing = heard.iter().filter(|(_, ballot)| ballot.agrees(basis));
        let mut electors: Vec<HostIx> = agreeing.map(|(from, _)| *from).collect();
        if self.agrees_itself(server, basis) {
            electors.push(server);
        }
        electors
    }

    /// Whether the own vote of `server` counts for `basis`. It follows the best one heard, and the
    /// election may end before it is sent again: E1 is about the vote held, not the one last sent.
    fn agrees_itself(&self, server: HostIx, basis: &Ballot) -> bool {
        let own = i64::try_from(server + 1) == Ok(basis.vote.0.0);
        // Who has not spoken yet holds a vote for itself, which is good for those, too, who follow it
        // from before it restarted.
        let Some((said, at)) = self.votes.said[server] else { return own || !basis.is_settled() };
        if said.agrees(basis) {
            return true;
        }
        // One of several votes read at once may decide the election, and the next one end it again. What
        // is said in the end is of the next round then, and goes out before the decision is told.
        let before = self.votes.said_before[server].filter(|_| at == self.votes.heard_at[server]);
        if before.is_some_and(|before| before.agrees(basis)) {
            return true;
        }
        // Who may have lost its disk has no vote, unless the ensemble is just born (R14).
        if said.vote.1 == Zxid::NONE && !self.is_birth(server) {
            return false;
        }
        let held_more =
            said.round > basis.round || said.round == basis.round && said.rank() > basis.rank();
        if !basis.is_settled() {
            return !held_more;
        }
        // A candidate takes its vote for itself along into the round of a third server, and finds
        // there, not having spoken yet, one that still follows it from before it restarted.
        let mut there = self.votes.heard[server]
            .iter()
            .map(|(_, ballot)| ballot)
            .filter(|ballot| !ballot.is_settled() && ballot.round == basis.round)
            .peekable();
        let candidate = i64::try_from(server + 1) == Ok(said.vote.0.0);
        candidate
            && said.vote == basis.vote
            && there.peek().is_some()
            && there.all(|ballot| ballot.rank() <= basis.rank())
    }

    /// Whether `server` has heard every other voter say that it is empty.
    fn is_birth(&self, server: HostIx) -> bool {
        let says_empty = |ballot: &Ballot| {
            !ballot.is_settled() && (Zxid::NONE..=Zxid::ZERO).contains(&ballot.vote.1)
        };
        let heard = &self.votes.heard[server];
        (0..self.voters)
            .filter(|voter| *voter != server)
            .all(|voter| heard.iter().any(|(from, ballot)| *from == voter && says_empty(ballot)))
    }

    /// E8: a looking server sends a notification on a connection to a voter.
    pub(crate) fn on_notified(&mut self, server: HostIx, due: &mut Option<Due>, now: u64) {
        let watched = &self.servers[server];
        let election = watched.elections;
        // Who hears of other members while it looks begins anew once these are on its disk.
        let view = &mut self.views[server];
        if view.said <= view.since && now > view.since {
            view.begun_anew = now;
        }
        view.said = now;
        if let Some(due) = due.filter(|due| due.election == election) {
            let begun = watched.resumed_at.max(view.begun_anew) + SLACK;
            let late = now.saturating_sub(due.at.max(begun));
            if late > 0 {
                let text = format!("s{} looks and is silent {late} ns too long", server + 1);
                self.fail("E8", text);
            }
        }
        *due = Some(Due { election, at: now + allowance(self.notification_max) });
    }

    /// E8: a looking server hears a voter that it could not reach before: it is in a hurry now.
    pub(crate) fn on_reachable(&mut self, server: HostIx, due: &mut Option<Due>, now: u64) {
        let election = self.servers[server].elections;
        if let Some(due) = due.as_mut().filter(|due| due.election == election) {
            due.at = due.at.min(now + allowance(self.notification_min));
        }
    }
}

/// `interval` by the slowest clock, and some time for the way to the socket.
fn allowance(interval: u64) -> u64 {
    interval + interval / 10 + SLACK
}

const SLACK: u64 = 10 * MILLI;
