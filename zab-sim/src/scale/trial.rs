//! One ensemble's life: started, used, and robbed of its leaders.

use std::collections::VecDeque;

use zab_proto::ServerState;

use super::measurement::{Measurement, Sim, agreed, all_serve, millis, serves};
use super::{Samples, Size, Timing, What, Work};
use crate::check::Failure;
use crate::plan::Death;
use crate::queue::{Event, HostIx, MILLI};

/// Commits measured one after the other.
const ONE_BY_ONE: usize = 30;
/// Commits measured many at a time, and how many.
const PIPELINED: usize = 320;
const IN_FLIGHT: usize = 32;

/// The ensembles of `docs/benchmarks/scale.md`; with `quick` only small ones, and few seeds.
pub(super) fn works(quick: bool) -> Vec<Work> {
    let sizes: &[Size] = match quick {
        true => &[(3, 0, 2, 2), (5, 0, 2, 2), (5, 10, 2, 2)],
        false => &[
            (3, 0, 40, 5),
            (5, 0, 40, 5),
            (7, 0, 40, 5),
            (9, 0, 40, 5),
            (15, 0, 20, 5),
            (25, 0, 20, 5),
            (51, 0, 5, 4),
            (101, 0, 3, 3),
            (5, 10, 40, 5),
            (5, 100, 5, 4),
            (5, 1000, 1, 2),
        ],
    };
    super::works(sizes, &Timing::ALL, &[false])
}

/// Starts an ensemble, lets it commit, and takes its leader away as often as there are rounds.
pub(super) fn measure(work: &Work, seed: u64) -> Result<Samples, Failure> {
    let mut measurement = Measurement::new(&work.case, seed, 0);
    let mut leader = measurement.cold_start()?;
    measurement.pause();
    measurement.commit_one_by_one(leader, ONE_BY_ONE)?;
    measurement.commit_pipelined(leader)?;
    for _ in 0..work.rounds {
        measurement.pause();
        leader = measurement.lose(leader)?;
    }
    Ok(measurement.end())
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
        let now = world.now;
        if self.decided.is_none() && agreed(world, lost) {
            self.decided = Some(now);
        }
        if self.decided.is_none() {
            return;
        }
        let leads = |server: HostIx| {
            let status = world.checker().server(server).status;
            status.is_some_and(|status| status.state == ServerState::Leading)
        };
        let mut others = (0..world.options.voters).filter(|server| Some(*server) != lost);
        if self.serves.is_none() && others.any(|server| serves(world, server) && leads(server)) {
            self.serves = Some(now);
        }
        if self.serves.is_none() {
            return;
        }
        if self.all.is_none() && all_serve(world, lost) {
            self.all = Some(now);
        }
        let has = |(leader, position)| world.checker().server(leader).position >= position;
        if target.is_some_and(has) {
            self.committed.get_or_insert(now);
        }
    }
}

impl Measurement {
    /// From nothing to an ensemble that serves.
    pub(super) fn cold_start(&mut self) -> Result<HostIx, Failure> {
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
    pub(super) fn lose(&mut self, old: HostIx) -> Result<HostIx, Failure> {
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
        self.until("the old leader follows", |world| serves(world, old))?;
        Ok(leader)
    }

    /// An election that began at `begin`, up to the first commit and until all serve.
    fn elect(
        &mut self,
        lost: Option<HostIx>,
        begin: u64,
        [decided, serves, commit, all, votes, bytes]: [What; 6],
    ) -> Result<HostIx, Failure> {
        let before = self.sent();
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
        self.add_sent([votes, bytes], before);
        Ok(leader)
    }

    /// So many transactions, each proposed when the one before is everywhere.
    pub(super) fn commit_one_by_one(
        &mut self,
        leader: HostIx,
        times: usize,
    ) -> Result<(), Failure> {
        let servers = self.world.options.servers();
        for _ in 0..times {
            let begin = self.world.now;
            let target = self.propose(leader);
            self.until("a commit", |w| w.checker().server(leader).position >= target)?;
            self.add(What::CommitOne, begin);
            let mut late = 0;
            self.until("a commit everywhere", |world| {
                let checker = world.checker();
                while late < servers && checker.server(late).position >= target {
                    late += 1;
                }
                late == servers
            })?;
            self.add(What::CommitOneAll, begin);
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
                self.until("a commit", |w| w.checker().server(leader).position >= target)?;
                self.add(What::CommitMany, begin);
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

#[cfg(test)]
mod tests {
    use super::super::{Case, ELECTIONS, Place, json, report, run};
    use super::*;

    /// Same seeds, same tables, with any number of threads; and what is measured is plausible.
    #[test]
    fn tables_reproduce() {
        let works = works(true);
        let first = run(&ELECTIONS, &works, 1, |_, _| ()).expect("nothing fails");
        let second = run(&ELECTIONS, &works, 3, |_, _| ()).expect("nothing fails");
        assert_eq!(report::tables(&works, &first), report::tables(&works, &second));
        assert_eq!(json(&works, &first).to_string(), json(&works, &second).to_string());
        for (work, samples) in works.iter().zip(&first) {
            let all = |what, range: std::ops::Range<f64>| {
                let values = samples.of(what);
                assert!(!values.is_empty() && values.iter().all(|ms| range.contains(ms)));
            };
            match (work.case.timing, work.case.place) {
                (Timing::Early, Place::Lan) => {
                    all(What::ColdDecided, 0.1..10.0);
                    all(What::LostCommit, 0.5..10.0);
                    all(What::CommitOne, 0.2..2.0);
                }
                (Timing::Apache, Place::Lan) => {
                    all(What::ColdDecided, 190.0..1000.0);
                    all(What::LostCommit, 200.0..1000.0);
                }
                (_, Place::Wan) => {
                    all(What::LostCommit, 200.0..5000.0);
                    all(What::CommitOne, 65.0..270.0);
                }
            }
        }
        assert_eq!(report::plots(&works, &first).len(), 4);
    }

    /// Where a refusal takes longer than the pause behind it, the first dial of a leader, which came
    /// before that knew that it leads, was the last: election followed election for over a minute.
    #[test]
    fn far_leaders_that_open_their_port_late_are_reached() {
        let (place, timing) = (Place::Wan, Timing::Apache);
        let case = Case { voters: 3, observers: 0, place, timing, masters: false };
        let work = Work { case, seeds: 40, rounds: 5 };
        for seed in 0..work.seeds {
            let samples = measure(&work, seed).expect("nothing fails");
            let latest = samples.of(What::LostCommit).iter().copied().fold(0.0, f64::max);
            assert!(latest < 3000.0, "seed {seed}: {latest} ms");
        }
    }
}
