//! A leader that makes way: who follows it, how soon, and that nothing is lost or done twice.

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::{Config, Notice, ReignEnd, ResignError, ServerState, Sid};

const SECOND: Duration = Duration::from_secs(1);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sid(i: usize) -> Sid {
    Sid(i64::try_from(i).expect("a few servers") + 1)
}

fn serving(voters: usize, observers: usize, change: impl FnOnce(&mut Config)) -> (Cluster, usize) {
    let mut cluster = Cluster::new(voters, observers).configure(change);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.notices.clear();
    cluster.closed.clear();
    (cluster, leader)
}

fn resign(cluster: &mut Cluster, i: usize) -> Result<(), ResignError> {
    let now = cluster.now;
    cluster.servers[i].node.as_mut().expect("a running server").resign(now)
}

fn reign_end(cluster: &Cluster, i: usize) -> Option<ReignEnd> {
    cluster.notices.iter().find_map(|(_, who, notice, _)| match notice {
        Notice::ReignEnded { reason, .. } if *who == i => Some(*reason),
        _ => None,
    })
}

/// From any leader to the next, again and again, without a moment of virtual time for the election.
#[test]
fn the_successor_serves_at_once() {
    for voters in [3, 5] {
        let (mut cluster, mut leader) = serving(voters, 1, |_| {});
        for round in 0..20 {
            let line = format!("before {round}");
            cluster.write(leader, &[line.as_bytes()]);
            let last = cluster.node(leader).peer().last_zxid();
            resign(&mut cluster, leader).expect("all are there");
            cluster.settle();
            let next = cluster.leader().expect("a leader at the same instant");
            assert_ne!(next, leader);
            // The log is told thrice a minute of what repeats.
            match reign_end(&cluster, leader) {
                Some(ReignEnd::Resigned { successor: Some(_) }) => {}
                end => assert!(end.is_none() && round >= 3, "{end:?}"),
            }
            for i in 0..voters {
                assert!(cluster.serving(i), "server {i} in round {round}");
                assert!(cluster.lines(i).contains(&line));
            }
            assert_eq!(cluster.node(leader).peer().status().state, ServerState::Following);
            assert!(cluster.node(next).peer().delivered() >= last);
            cluster.notices.clear();
            cluster.run(SECOND);
            leader = next;
        }
        assert!(cluster.serving(voters), "the observer");
    }
}

#[test]
fn who_does_not_lead_says_so() {
    let (mut cluster, leader) = serving(3, 1, |_| {});
    let statuses =
        |cluster: &Cluster| -> Vec<_> { (0..4).map(|i| cluster.node(i).peer().status()).collect() };
    let before = statuses(&cluster);
    for i in (0..4).filter(|i| *i != leader) {
        assert_eq!(resign(&mut cluster, i), Err(ResignError::NotLeading));
    }
    cluster.run(SECOND);
    assert_eq!(statuses(&cluster), before);
    assert!(cluster.closed.is_empty() && cluster.notices.is_empty());
}

/// Who is stopped does not answer, suspected or not: the leader leads on, and serves meanwhile.
#[test]
fn without_a_successor_nothing_changes() {
    let (mut cluster, leader) = serving(5, 0, |_| {});
    let others: Vec<usize> = (0..5).filter(|i| *i != leader).collect();
    cluster.write(leader, &[b"before"]);
    let status = cluster.node(leader).peer().status();
    // Nobody suspects them yet, and their acknowledgements say that they have everything.
    others[1..].iter().for_each(|i| cluster.freeze(*i));
    assert_eq!(resign(&mut cluster, leader), Ok(()));
    cluster.write(leader, &[b"meanwhile"]);
    cluster.run(ms(300));
    assert_eq!(cluster.node(leader).peer().status(), status);
    assert!(cluster.node(leader).peer().can_propose(1));
    others[1..].iter().for_each(|i| cluster.thaw(*i));
    cluster.run(ms(100));
    let next = cluster.leader().expect("they have answered");
    assert_ne!(next, leader);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(next), ["before", "meanwhile"]);
    // And where nobody at all is heard any more it says so at once.
    let others: Vec<usize> = (0..5).filter(|i| *i != next).collect();
    cluster.run(4 * SECOND);
    others.iter().for_each(|i| cluster.freeze(*i));
    cluster.run(ms(350));
    assert_eq!(resign(&mut cluster, next), Err(ResignError::NoSuccessor));
    assert_eq!(cluster.leader(), Some(next));
}

/// Without heartbeats a silent quorum is noticed after `syncLimit`, and a leader that is asked knows it sooner.
#[test]
fn it_waits_for_a_tick_and_leads_on() {
    let (mut cluster, leader) = serving(3, 0, |config| {
        config.detection.heartbeat = Duration::ZERO;
    });
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    others.iter().for_each(|i| cluster.freeze(*i));
    assert_eq!(resign(&mut cluster, leader), Ok(()));
    cluster.run(ms(1999));
    assert!(cluster.notices.is_empty());
    cluster.run(ms(1));
    assert!(cluster.notices.iter().any(|told| told.2 == Notice::NotResigned));
    others.iter().for_each(|i| cluster.thaw(*i));
    cluster.run(SECOND);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(reign_end(&cluster, leader), None);
}

/// What is proposed is waited for, and nothing is proposed meanwhile.
#[test]
fn what_is_under_way_is_committed_first() {
    let (mut cluster, leader) = serving(3, 0, |_| {});
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for i in &others {
        cluster.servers[*i].disk.stalled = true;
    }
    cluster.write(leader, &[b"under way"]);
    resign(&mut cluster, leader).expect("they have all that is committed");
    cluster.settle();
    assert!(!cluster.node(leader).peer().can_propose(1));
    cluster.write(others[0], &[b"too late"]);
    cluster.run(ms(500));
    assert_eq!(cluster.leader(), Some(leader), "it waits");
    assert_eq!(cluster.lines(leader), [] as [&str; 0]);
    cluster.servers[others[1]].disk.stalled = false;
    // The one that has everything is elected, whatever its id; the other one cannot vote yet.
    cluster.run(ms(250));
    assert_eq!(cluster.leader(), Some(others[1]));
    assert_eq!(
        reign_end(&cluster, leader),
        Some(ReignEnd::Resigned { successor: Some(sid(others[1])) })
    );
    cluster.servers[others[0]].disk.stalled = false;
    cluster.run(SECOND);
    for i in 0..3 {
        assert!(cluster.serving(i));
        assert_eq!(cluster.lines(i), ["under way"], "what came too late is asked again, or is not");
    }
}

/// Nobody gets everything within a tick: there is no way back, and the election decides.
#[test]
fn it_does_not_wait_for_ever() {
    let (mut cluster, leader) = serving(3, 0, |_| {});
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for i in &others {
        cluster.servers[*i].disk.stalled = true;
    }
    cluster.write(leader, &[b"under way"]);
    resign(&mut cluster, leader).expect("they have all that is committed");
    cluster.run(ms(1999));
    assert_eq!(reign_end(&cluster, leader), None);
    cluster.run(ms(1));
    assert_eq!(reign_end(&cluster, leader), Some(ReignEnd::Resigned { successor: None }));
    for i in &others {
        cluster.servers[*i].disk.stalled = false;
    }
    cluster.run(2 * SECOND);
    let next = cluster.leader().expect("somebody");
    for i in 0..3 {
        assert!(cluster.serving(i));
        assert_eq!(cluster.lines(i), ["under way"]);
    }
    assert_eq!(resign(&mut cluster, next), Ok(()), "it can be asked again");
}

/// Acknowledgements stand behind requests that wait for room: with a window of a few transactions.
#[test]
fn requests_in_front_of_acknowledgements_do_not_hold_it_up() {
    let (mut cluster, leader) = serving(3, 0, |config| {
        config.limits.window_len_max_bytes = 2048;
        config.limits.retained_len_max_bytes = 0;
    });
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let line = [b'x'; 250];
    for i in &others {
        cluster.servers[*i].disk.stalled = true;
        cluster.write(*i, &[&line[..]; 40]);
    }
    cluster.run(ms(100));
    let before = cluster.lines(leader).len();
    resign(&mut cluster, leader).expect("they have all that is committed");
    for i in &others {
        cluster.servers[*i].disk.stalled = false;
    }
    cluster.run(ms(100));
    let next = cluster.leader().expect("a leader");
    assert_ne!(next, leader);
    assert!(matches!(reign_end(&cluster, leader), Some(ReignEnd::Resigned { successor: Some(_) })));
    assert!(cluster.lines(next).len() >= before);
}

/// The successor dies at the moment in which it is voted for.
#[test]
fn a_successor_that_dies_costs_one_election() {
    let (mut cluster, leader) = serving(3, 0, |_| {});
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let successor = *others.iter().max().expect("two");
    cluster.write(leader, &[b"kept"]);
    resign(&mut cluster, leader).expect("all are there");
    while reign_end(&cluster, leader).is_none() {
        cluster.step();
    }
    cluster.kill(successor);
    let begin = cluster.now;
    while cluster.leader().is_none() {
        cluster.run(ms(10));
    }
    let next = cluster.leader().expect("a leader");
    assert_ne!(next, successor);
    assert!(
        cluster.now.saturating_since(begin) <= 2 * SECOND,
        "a tick, as for any candidate that dies"
    );
    assert_eq!(cluster.lines(next), ["kept"]);
}

#[test]
fn with_two_the_other_one_leads() {
    let (mut cluster, leader) = serving(2, 0, |_| {});
    resign(&mut cluster, leader).expect("a quorum of two goes on");
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1 - leader));
}
