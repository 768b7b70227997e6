//! One ensemble's life: started, used, and robbed of its leaders.

use std::collections::VecDeque;

use zab_proto::{Phase, ServerState};

use super::{Case, Samples, What};
use crate::check::{Failure, Ghost};
use crate::counter::Counter;
use crate::plan::Death;
use crate::queue::{Event, HostIx, MILLI, SECOND};
use crate::replica::Replica;
use crate::trace::Trace;
use crate::world::World;

type Sim = World<Replica<Counter>>;

/// Commits measured one after the other.
const ONE_BY_ONE: usize = 30;
/// Commits measured many at a time, and how many.
const PIPELINED: usize = 320;
const IN_FLIGHT: usize = 32;

/// Starts an ensemble, lets it commit, and takes its leader away `losses` times.
///
/// # Errors
/// A broken invariant, or what did not happen in time.
pub fn measure(case: &Case, seed: u64, losses: usize) -> Result<Samples, Failure> {
    let mut world = Sim::asleep(case.options(seed), Trace::new(0));
    world.initialize();
    let mut trial = Trial { world, samples: Samples::default() };
    let mut leader = trial.cold_start()?;
    trial.pause();
    trial.commit_one_by_one(leader)?;
    trial.commit_pipelined(leader)?;
    for _ in 0..losses {
        trial.pause();
        leader = trial.lose(leader)?;
    }
    trial.samples.events = trial.world.events;
    Ok(trial.samples)
}

struct Trial {
    world: Sim,
    samples: Samples,
}

/// When the steps of an election were first seen, in ns.
#[derive(Default)]
struct Marks {
    decided: Option<u64>,
    serves: Option<u64>,
    all: Option<u64>,
    committed: Option<u64>,
}

impl Marks {
    /// Looks at an ensemble that has lost the server `lost`. `target`: the transaction waited for,
    /// by its place in the history of the leader.
    fn look(&mut self, world: &Sim, lost: Option<HostIx>, target: Option<(HostIx, usize)>) {
        let ghost = world.ghost();
        let others = |n: usize| (0..n).filter(move |server| Some(*server) != lost);
        let now = world.now;
        if self.decided.is_none() && agreed(&ghost, others(world.options.voters), lost) {
            self.decided = Some(now);
        }
        if self.decided.is_none() {
            return;
        }
        let serves = |server: HostIx, as_leader: bool| {
            ghost.server(server).status.is_some_and(|status| {
                status.phase == Phase::Broadcast
                    && (!as_leader || status.state == ServerState::Leading)
            })
        };
        if self.serves.is_none() && others(world.options.voters).any(|s| serves(s, true)) {
            self.serves = Some(now);
        }
        if self.serves.is_none() {
            return;
        }
        if self.all.is_none() && others(world.options.servers()).all(|s| serves(s, false)) {
            self.all = Some(now);
        }
        if target.is_some_and(|(leader, position)| ghost.server(leader).position >= position) {
            self.committed.get_or_insert(now);
        }
    }
}

/// Whether all `voters` have decided for one leader, which is not the one that is lost.
fn agreed(ghost: &Ghost, voters: impl Iterator<Item = HostIx>, lost: Option<HostIx>) -> bool {
    let mut elected = None;
    for voter in voters {
        let Some(leader) = ghost.server(voter).status.and_then(|status| status.leader) else {
            return false;
        };
        if *elected.get_or_insert(leader) != leader {
            return false;
        }
    }
    elected.is_some_and(|leader| usize::try_from(leader.0 - 1).ok() != lost)
}

#[expect(clippy::cast_precision_loss, reason = "below 2^52")]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

impl Trial {
    /// Everything up to the moment at which `done` holds.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Sim) -> bool) -> Result<(), Failure> {
        let deadline = self.world.now + 600 * SECOND;
        if self.world.run_until(deadline, &mut done) {
            return Ok(());
        }
        let text = format!("not in time: {what}");
        Err(self.world.failure().unwrap_or(Failure { invariant: "scale", text }))
    }

    /// Until nothing of what was before is under way, and off the beat of ticks.
    fn pause(&mut self) {
        let until = self.world.now + 3 * SECOND + self.world.rng.below(2 * SECOND);
        self.world.run_until(until, |_| false);
    }

    fn cold_start(&mut self) -> Result<HostIx, Failure> {
        let mut begin = 0;
        for server in 0..self.world.options.voters {
            let at = self.world.rng.below(10 * MILLI);
            begin = begin.max(at);
            self.world.queue.push(at, Event::Start { server });
        }
        for server in self.world.options.voters..self.world.options.servers() {
            let at = self.world.rng.below(begin + 1);
            self.world.queue.push(at, Event::Start { server });
        }
        let kinds = [
            What::ColdDecided,
            What::ColdServes,
            What::ColdCommit,
            What::ColdAll,
            What::ColdVotes,
            What::ColdBytes,
        ];
        self.elect(None, begin, kinds)
    }

    /// The leader dies; in the end it is back.
    fn lose(&mut self, old: HostIx) -> Result<HostIx, Failure> {
        let begin = self.world.now;
        self.world.die(old, Death::Kill);
        let kinds = [
            What::LostDecided,
            What::LostServes,
            What::LostCommit,
            What::LostAll,
            What::LostVotes,
            What::LostBytes,
        ];
        let leader = self.elect(Some(old), begin, kinds)?;
        self.world.start(old);
        self.until("the old leader follows", |world| {
            world.ghost().server(old).status.is_some_and(|s| s.phase == Phase::Broadcast)
        })?;
        Ok(leader)
    }

    /// An election that began at `begin`, up to the first commit and until all serve.
    fn elect(
        &mut self,
        lost: Option<HostIx>,
        begin: u64,
        [decided, serves, commit, all, votes, bytes]: [What; 6],
    ) -> Result<HostIx, Failure> {
        let sent = |world: &Sim| {
            let ghost = world.ghost();
            (ghost.coverage.notifications, ghost.coverage.election_bytes)
        };
        let before = sent(&self.world);
        let mut marks = Marks::default();
        self.until("a leader serves", |world| {
            marks.look(world, lost, None);
            marks.serves.is_some()
        })?;
        let leader = self.world.leader().expect("one serves");
        let target = self.propose(leader);
        self.until("all serve and the first commit", |world| {
            marks.look(world, lost, Some((leader, target)));
            marks.all.is_some() && marks.committed.is_some()
        })?;
        let times = [marks.decided, marks.serves, marks.committed, marks.all];
        for (what, at) in [decided, serves, commit, all].into_iter().zip(times) {
            let at = at.expect("it was waited for");
            self.samples.add(what, millis(at.saturating_sub(begin)));
        }
        let after = sent(&self.world);
        self.samples.add(votes, count(after.0 - before.0));
        self.samples.add(bytes, count(after.1 - before.1));
        Ok(leader)
    }

    /// Proposes a transaction of 100 bytes; its place in the history.
    fn propose(&mut self, leader: HostIx) -> usize {
        let world = &mut self.world;
        let server = &mut world.servers[leader];
        let now = server.clock(world.now);
        let node = server.node.as_mut().expect("the leader runs");
        let proposed = node.with(now, |_, core| Replica::<Counter>::propose(core, &[0; 100]));
        assert!(proposed, "an established leader with an empty window takes proposals");
        world.settle(leader);
        self.proposed(leader)
    }

    /// How many transactions the leader's history holds.
    fn proposed(&self, leader: HostIx) -> usize {
        let image = &self.world.disks[leader].issued;
        self.world.ghost().position_of(image.base()) + image.log.len()
    }

    fn commit_one_by_one(&mut self, leader: HostIx) -> Result<(), Failure> {
        let servers = self.world.options.servers();
        for _ in 0..ONE_BY_ONE {
            let begin = self.world.now;
            let target = self.propose(leader);
            self.until("a commit", |w| w.ghost().server(leader).position >= target)?;
            self.samples.add(What::CommitOne, millis(self.world.now - begin));
            let mut late = 0;
            self.until("a commit everywhere", |world| {
                let ghost = world.ghost();
                while late < servers && ghost.server(late).position >= target {
                    late += 1;
                }
                late == servers
            })?;
            self.samples.add(What::CommitOneAll, millis(self.world.now - begin));
            let until = self.world.now + self.world.rng.below(10 * MILLI);
            self.world.run_until(until, |_| false);
        }
        Ok(())
    }

    fn commit_pipelined(&mut self, leader: HostIx) -> Result<(), Failure> {
        let mut flight = VecDeque::new();
        for sent in 0..PIPELINED + IN_FLIGHT {
            if let Some((target, begin)) = flight.front().copied()
                && (flight.len() == IN_FLIGHT || sent >= PIPELINED)
            {
                self.until("a commit", |w| w.ghost().server(leader).position >= target)?;
                self.samples.add(What::CommitMany, millis(self.world.now - begin));
                flight.pop_front();
            }
            if sent < PIPELINED {
                let begin = self.world.now;
                flight.push_back((self.propose(leader), begin));
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "below 2^52")]
fn count(n: u64) -> f64 {
    n as f64
}
