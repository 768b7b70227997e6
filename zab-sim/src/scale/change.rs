//! What changes of the members cost, in ensembles of any size: one voter replaced by another, the same while
//! the leader is lost between proposal and commit, and the leader itself replaced.

use figures::plot::Plot;
use zab_proto::{Role, Sid, Zxid};

use super::measurement::{Measurement, Sim, agreed, all_serve};
use super::report::{kinds, rows, sent, times};
use super::{Place, Samples, Size, Timing, What, Work};
use crate::check::Failure;
use crate::members::{member, server_of, sid_of};
use crate::plan::Death;
use crate::queue::HostIx;

/// The ensembles of the table in `docs/membership.md`; with `quick` only small ones.
pub(super) fn works(quick: bool) -> Vec<Work> {
    let sizes: &[Size] = match quick {
        true => &[(3, 0, 2, 2), (5, 3, 2, 2)],
        false => &[
            (3, 0, 10, 5),
            (5, 0, 10, 5),
            (25, 0, 3, 3),
            (51, 0, 2, 2),
            (101, 0, 1, 2),
            (5, 10, 10, 5),
            (5, 100, 2, 2),
        ],
    };
    super::works(sizes, &[Timing::Early], &[false])
}

/// Three changes in each round, with one server that comes in and goes out.
pub(super) fn measure(work: &Work, seed: u64) -> Result<Samples, Failure> {
    let measurement = Measurement::new(&work.case, seed, 1);
    play(measurement, work.rounds)
}

fn play(mut measurement: Measurement, rounds: usize) -> Result<Samples, Failure> {
    measurement.start_all()?;
    for _ in 0..rounds {
        measurement.pause();
        measurement.replace()?;
        measurement.pause();
        measurement.lose_in_the_middle()?;
        measurement.pause();
        measurement.hand_over()?;
    }
    Ok(measurement.end())
}

fn goes_by(world: &Sim, server: HostIx, zxid: Zxid) -> bool {
    world.checker().views[server].in_force.version >= zxid.raw()
}

impl Measurement {
    /// The server without a vote takes the place of a voter: of the leader, or of another one.
    fn propose_change(&mut self, leader: HostIx, of_leader: bool) -> Result<Zxid, Failure> {
        let mut next = self.world.checker().committed_members().clone();
        let fits = |sid: &Sid| (server_of(*sid) == leader) == of_leader;
        let old = next.voters().find(fits).expect("there are several");
        let absent = |server: &HostIx| !next.members.contains_key(&sid_of(*server));
        let spare = (0..self.world.options.servers()).find(absent).expect("there is one spare");
        next.members.remove(&old);
        next.members.insert(sid_of(spare), member(spare, Role::Participant));
        let text = "the change is not taken".to_owned();
        let proposed = self.world.propose_members(leader, next);
        proposed.ok_or(Failure { invariant: "scale", text })
    }

    fn replace(&mut self) -> Result<(), Failure> {
        let (leader, begin) = (self.leader()?, self.world.now);
        let zxid = self.propose_change(leader, false)?;
        self.until("the change is in force", |world| goes_by(world, leader, zxid))?;
        self.add(What::InForce, begin);
        let servers = self.world.options.servers();
        self.until("… everywhere", |world| (0..servers).all(|s| goes_by(world, s, zxid)))?;
        self.add(What::InForceAll, begin);
        self.until("all serve", |world| all_serve(world, None))
    }

    fn lose_in_the_middle(&mut self) -> Result<(), Failure> {
        let old = self.leader()?;
        let zxid = self.propose_change(old, false)?;
        let others = 0..self.world.options.servers();
        self.until("another server has the change", |world| {
            let mut others = others.clone().filter(|server| *server != old);
            others.any(|server| world.disks[server].issued.find(zxid).is_some())
        })?;
        let (begin, before) = (self.world.now, self.sent());
        self.world.die(old, Death::Kill);
        self.until("the others agree", |world| agreed(world, Some(old)))?;
        self.add(What::MiddleDecided, begin);
        self.commit_next(old)?;
        self.add(What::MiddleCommit, begin);
        self.until("all serve", |world| all_serve(world, Some(old)))?;
        self.add(What::MiddleAll, begin);
        self.add_sent([What::MiddleVotes, What::MiddleBytes], before);
        self.world.start(old);
        self.until("all serve", |world| all_serve(world, None))
    }

    fn hand_over(&mut self) -> Result<(), Failure> {
        let (old, begin) = (self.leader()?, self.world.now);
        self.propose_change(old, true)?;
        self.commit_next(old)?;
        self.add(What::HandedCommit, begin);
        self.until("all serve", |world| all_serve(world, None))?;
        self.add(What::HandedAll, begin);
        Ok(())
    }
}

/// Results as Markdown.
pub(super) fn table(works: &[Work], results: &[Samples]) -> String {
    let head = [
        "servers",
        "place",
        "in force on the leader, ms",
        "on all",
        "leader lost between: decided, ms",
        "next commit",
        "all serve",
        "votes / KB sent",
        "leader replaced: next commit, ms",
        "all serve",
    ];
    rows(head, works, results, |work, samples| {
        vec![
            work.case.size(),
            work.case.place.name().into(),
            times(samples, What::InForce),
            times(samples, What::InForceAll),
            times(samples, What::MiddleDecided),
            times(samples, What::MiddleCommit),
            times(samples, What::MiddleAll),
            sent(samples, [What::MiddleVotes, What::MiddleBytes]),
            times(samples, What::HandedCommit),
            times(samples, What::HandedAll),
        ]
    })
}

/// The next commit after each kind of change.
pub(super) fn plots(works: &[Work], results: &[Samples]) -> Vec<Plot> {
    let shown = [
        ("a voter replaced, in force on all", What::InForceAll, false),
        ("leader lost between proposal and commit", What::MiddleCommit, false),
        ("leader replaced", What::HandedCommit, false),
    ];
    let title = "Changes of the members: until the next commit";
    Place::ALL.map(|place| kinds(title, works, results, place, &shown)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::{CHANGES, Case, run};
    use super::*;

    #[test]
    fn changes_take_round_trips_and_no_time_outs() {
        let works = works(true);
        let results = run(&CHANGES, &works, 2, |_, _| ()).expect("nothing fails");
        for (work, samples) in works.iter().zip(&results) {
            let most = if work.case.place == Place::Lan { 30.0 } else { 5000.0 };
            for what in [What::InForce, What::MiddleCommit, What::HandedCommit] {
                let values = samples.of(what);
                assert!(
                    values.len() == 4 && values.iter().all(|ms| *ms < most),
                    "{what:?} {values:?}"
                );
            }
        }
        assert!(table(&works, &results).lines().count() == works.len() + 2);
        assert_eq!(plots(&works, &results).len(), 2);
    }

    /// Servers that wait as ZooKeeper's do, and have no heartbeats: who leads next is there long before anybody has waited
    /// for `initLimit`, 20 s here.
    #[test]
    fn with_apaches_waits_and_no_heartbeats_a_change_costs_no_init_limit() {
        for place in Place::ALL {
            let timing = Timing::Apache;
            let case = Case { voters: 3, observers: 0, place, timing, masters: false };
            let mut longest = [0.0_f64; 2];
            for seed in 0..40 {
                let mut measurement = Measurement::new(&case, seed, 1);
                measurement.world.options.heartbeat = 0;
                let samples = play(measurement, 3).expect("nothing fails");
                for (longest, what) in
                    longest.iter_mut().zip([What::MiddleCommit, What::HandedCommit])
                {
                    *longest = samples.of(what).iter().copied().fold(*longest, f64::max);
                }
            }
            assert!(longest.iter().all(|ms| *ms < 4000.0), "{place:?} {longest:?}");
        }
    }
}
