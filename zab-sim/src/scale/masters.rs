//! What observers cost that learn from followers: a leader and three followers, of which two may be missing to none
//! but their observers. Beside them the same observers under the leader.

use figures::plot::Plot;
use zab_proto::{ServerState, Sid};

use super::measurement::{Measurement, Sim, all_serve, millis, serves};
use super::report::{kinds, rows, sent, times};
use super::{Place, Samples, Size, Timing, What, Work};
use crate::check::Failure;
use crate::members::sid_of;
use crate::plan::Death;
use crate::queue::HostIx;

/// Transactions whose way to the last observer is measured.
const COMMITS: usize = 10;

/// The ensembles of the table in `docs/membership.md`; with `quick` only a small one.
pub(super) fn works(quick: bool) -> Vec<Work> {
    let sizes: &[Size] = match quick {
        true => &[(4, 9, 1, 2)],
        false => &[(4, 30, 5, 4), (4, 100, 3, 3), (4, 300, 2, 2), (4, 1000, 1, 2)],
    };
    super::works(sizes, &[Timing::Early], &[false, true])
}

/// Starts an ensemble, and takes a follower and the leader away in each round.
pub(super) fn measure(work: &Work, seed: u64) -> Result<Samples, Failure> {
    let mut measurement = Measurement::new(&work.case, seed, 0);
    let mut leader = measurement.cold_start()?;
    measurement.pause();
    measurement.commit_one_by_one(leader, COMMITS)?;
    for _ in 0..work.rounds {
        if work.case.masters {
            measurement.pause();
            measurement.lose_master(leader)?;
        }
        measurement.pause();
        leader = measurement.lose(leader)?;
    }
    Ok(measurement.end())
}

/// The observers that a server serves.
fn observers(world: &Sim, server: HostIx) -> Vec<HostIx> {
    let served: Vec<Sid> = match &world.servers[server].node {
        Some(node) => {
            let learners = node.peer().learners().filter(|learner| learner.observer);
            learners.filter(|learner| learner.synced).map(|learner| learner.origin.sid).collect()
        }
        None => Vec::new(),
    };
    (0..world.options.servers()).filter(|other| served.contains(&sid_of(*other))).collect()
}

impl Measurement {
    /// The follower with the most observers dies while a transaction is proposed; in the end it is back.
    fn lose_master(&mut self, leader: HostIx) -> Result<(), Failure> {
        let followers = (0..self.world.options.voters).filter(|server| *server != leader);
        let old = followers.max_by_key(|server| observers(&self.world, *server).len());
        let old = old.expect("there are followers");
        let orphans = observers(&self.world, old);
        let begin = self.world.now;
        self.world.die(old, Death::Kill);
        let target = self.propose(leader);
        let (mut committed, mut served) = (None, None);
        let mut left: Vec<HostIx> = orphans.clone();
        self.until("a commit, and all observers serve", |world| {
            let has = || world.checker().server(leader).position >= target;
            committed = committed.or_else(|| has().then_some(world.now));
            // They serve until they notice.
            left.retain(|server| serves(world, *server));
            let all = || left.is_empty() && orphans.iter().all(|server| serves(world, *server));
            served = served.or_else(|| all().then_some(world.now));
            committed.is_some() && served.is_some()
        })?;
        for (what, at) in [(What::MasterCommit, committed), (What::MasterAll, served)] {
            self.samples.add(what, millis(at.unwrap_or(begin) - begin));
        }
        let status = self.world.checker().server(leader).status;
        let leads = status.is_some_and(|status| status.state == ServerState::Leading);
        assert!(leads, "nobody else is disturbed");
        self.world.start(old);
        self.until("all serve", |world| all_serve(world, None))
    }
}

/// Results as Markdown.
pub(super) fn table(works: &[Work], results: &[Samples]) -> String {
    let head = [
        "servers",
        "place",
        "observers learn from",
        "commit, ms",
        "on the last observer",
        "follower lost: next commit, ms",
        "its observers serve",
        "leader lost: next commit, ms",
        "all serve",
        "votes / KB sent",
    ];
    rows(head, works, results, |work, samples| {
        vec![
            work.case.size(),
            work.case.place.name().into(),
            if work.case.masters { "followers" } else { "the leader" }.into(),
            times(samples, What::CommitOne),
            times(samples, What::CommitOneAll),
            times(samples, What::MasterCommit),
            times(samples, What::MasterAll),
            times(samples, What::LostCommit),
            times(samples, What::LostAll),
            sent(samples, [What::LostVotes, What::LostBytes]),
        ]
    })
}

/// Until all observers have a transaction, and until they serve when a server is lost.
pub(super) fn plots(works: &[Work], results: &[Samples]) -> Vec<Plot> {
    let shown = [
        ("a commit on all, under the leader", What::CommitOneAll, false),
        ("a commit on all, under followers", What::CommitOneAll, true),
        ("follower lost: its observers serve", What::MasterAll, true),
        ("leader lost: all serve, under the leader", What::LostAll, false),
        ("leader lost: all serve, under followers", What::LostAll, true),
    ];
    let title = "Observers that learn from three followers, or from the leader";
    Place::ALL.map(|place| kinds(title, works, results, place, &shown)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::{MASTERS, run};
    use super::*;

    /// Who loses its follower is served by another one, and nobody else notices.
    #[test]
    fn observers_of_a_lost_follower_are_served_by_the_others() {
        let works = works(true);
        let results = run(&MASTERS, &works, 2, |_, _| ()).expect("nothing fails");
        for (work, samples) in works.iter().zip(&results) {
            let wan = work.case.place == Place::Wan;
            let all = |what, count, most: f64| {
                let values = samples.of(what);
                assert!(
                    values.len() == count && values.iter().all(|ms| *ms < most),
                    "{work:?} {what:?} {values:?}"
                );
            };
            let masters = usize::from(work.case.masters);
            all(What::MasterCommit, 2 * masters, if wan { 500.0 } else { 2.0 });
            all(What::MasterAll, 2 * masters, if wan { 3000.0 } else { 500.0 });
            all(What::LostAll, 2, if wan { 5000.0 } else { 2500.0 });
        }
        assert_eq!(table(&works, &results).lines().count(), works.len() + 2);
        assert_eq!(plots(&works, &results).len(), 2);
    }
}
