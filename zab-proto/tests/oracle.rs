//! Two voters and an oracle (`oraclePath`, `docs/election.md`): when one of them is a quorum, when it is not,
//! and what becomes of what it has committed alone.

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::{Config, Epoch, Input, Notice, Phase, ReignEnd, ServerState, Sid};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Two voters with oracles that say no, and so many observers. Nobody runs.
fn pair(observers: usize) -> Cluster {
    Cluster::new(2, observers).configure(|config| config.oracle = true)
}

/// The same, serving; who leads, and who follows.
fn serving(observers: usize) -> (Cluster, usize, usize) {
    let mut cluster = pair(observers);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader, 1 - leader)
}

fn epoch(cluster: &Cluster, i: usize) -> Epoch {
    cluster.node(i).peer().status().epoch
}

fn state(cluster: &Cluster, i: usize) -> ServerState {
    cluster.node(i).peer().status().state
}

fn leads(cluster: &Cluster, i: usize) -> bool {
    cluster.leader() == Some(i)
}

/// What operators were told of the oracle of a server.
fn told(cluster: &Cluster, i: usize) -> Vec<bool> {
    let said = cluster.notices.iter().filter_map(|(_, who, notice, _)| match notice {
        Notice::Oracle { granted, .. } if *who == i => Some(*granted),
        _ => None,
    });
    said.collect()
}

/// It is asked by whoever lacks the other, and by nobody else.
#[test]
fn two_that_are_up_need_no_oracle() {
    let (mut cluster, leader, _) = serving(1);
    cluster.write(leader, &[b"a"]);
    cluster.run(60 * SECOND);
    assert!((0..3).all(|i| cluster.serving(i)));
    assert_eq!(cluster.asked, [0; 3]);
    assert_eq!(cluster.lines(1 - leader), ["a"]);
}

#[test]
fn a_follower_whose_leader_is_gone_leads_alone_if_it_is_granted_and_the_other_comes_back() {
    let (mut cluster, leader, survivor) = serving(1);
    cluster.write(leader, &[b"both"]);
    cluster.run(SECOND);
    cluster.oracles[survivor] = Some(true);
    let before = cluster.now;
    cluster.kill(leader);
    while !leads(&cluster, survivor) {
        cluster.run(MS);
        assert!(cluster.now < before + 2 * SECOND, "nobody leads");
    }
    // Not before the other could have said a word.
    assert!(cluster.now >= before + 200 * MS, "{:?} after {before:?}", cluster.now);
    cluster.write(survivor, &[b"alone", b"again"]);
    cluster.run(60 * SECOND);
    assert_eq!(cluster.lines(survivor), ["both", "alone", "again"]);
    assert_eq!(cluster.lines(2), ["both", "alone", "again"], "the observer follows, too");
    assert_eq!(told(&cluster, survivor), [true], "it is said but once");
    let reign = epoch(&cluster, survivor);
    cluster.start(leader);
    cluster.run(4 * SECOND);
    assert_eq!(state(&cluster, leader), ServerState::Following);
    assert_eq!(cluster.lines(leader), ["both", "alone", "again"]);
    assert_eq!(epoch(&cluster, survivor), reign, "nobody was disturbed");
    // From here on they are two again.
    cluster.oracles[survivor] = Some(false);
    let asked = cluster.asked.clone();
    cluster.write(leader, &[b"two"]);
    cluster.run(60 * SECOND);
    assert_eq!(cluster.lines(survivor).last().map(String::as_str), Some("two"));
    assert_eq!(cluster.asked, asked);
}

#[test]
fn a_leader_whose_follower_is_gone_leads_on_if_it_is_granted() {
    let (mut cluster, leader, other) = serving(0);
    cluster.oracles[leader] = Some(true);
    let reign = epoch(&cluster, leader);
    cluster.kill(other);
    cluster.write(leader, &[b"alone"]);
    assert_eq!(cluster.lines(leader), ["alone"], "at once");
    cluster.run(60 * SECOND);
    assert!(leads(&cluster, leader) && epoch(&cluster, leader) == reign);
    cluster.start(other);
    cluster.run(4 * SECOND);
    assert!(cluster.serving(other) && epoch(&cluster, leader) == reign);
    assert_eq!(cluster.lines(other), ["alone"]);
}

/// What was proposed to both and is on one disk is committed once the oracle says so
/// (`QuorumOracleMaj.revalidateOutstandingProp`).
#[test]
fn what_waits_for_the_other_is_committed_with_the_grant() {
    let (mut cluster, leader, other) = serving(0);
    cluster.oracles[leader] = None;
    cluster.freeze(other);
    cluster.write(leader, &[b"waits"]);
    cluster.run(10 * MS);
    cluster.kill(other);
    cluster.thaw(other);
    cluster.run(10 * MS);
    assert!(cluster.lines(leader).is_empty());
    let now = cluster.now;
    let node = cluster.servers[leader].node.as_mut().expect("it runs");
    node.handle_input(now, Input::Oracle { granted: true });
    cluster.settle();
    assert_eq!(cluster.lines(leader), ["waits"]);
}

#[test]
fn without_a_grant_nobody_serves_alone() {
    for (says, expects) in [(Some(false), vec![false]), (None, vec![])] {
        for gone_leads in [true, false] {
            let (mut cluster, leader, other) = serving(1);
            let (gone, left) = if gone_leads { (leader, other) } else { (other, leader) };
            cluster.oracles[left] = says;
            cluster.kill(gone);
            cluster.write(left, &[b"no"]);
            cluster.run(4 * SECOND);
            for _ in 0..600 {
                cluster.run(100 * MS);
                assert!(!cluster.serving(left) && !cluster.serving(2));
            }
            assert!(cluster.lines(left).is_empty());
            assert_eq!(told(&cluster, left), expects);
            let waits = cluster.node(left).peer().waits_for().expect("it says for whom");
            assert_eq!(waits.contains("oraclePath"), says.is_some(), "{waits}");
            // It is asked on and on, as the grant may come late; and not twice at a time.
            assert!(cluster.asked[left] > 30 || says.is_none());
            assert!(cluster.asked[left] <= 1 || says.is_some(), "{:?}", cluster.asked);
            if says.is_some() {
                cluster.oracles[left] = Some(true);
                cluster.run(2 * SECOND);
                assert!(leads(&cluster, left));
            }
        }
    }
}

#[test]
fn a_grant_that_is_withdrawn_ends_the_reign_within_a_tick_and_one_that_is_not_renewed_too() {
    for (says, beats) in [(Some(false), true), (None, true), (Some(false), false), (None, false)] {
        let mut cluster = pair(0);
        if !beats {
            cluster = cluster.configure(|config| config.detection.heartbeat = Duration::ZERO);
        }
        cluster.start_all();
        cluster.run(4 * SECOND);
        let leader = cluster.leader().expect("a leader");
        cluster.oracles[leader] = Some(true);
        cluster.kill(1 - leader);
        cluster.run(10 * SECOND);
        assert!(leads(&cluster, leader));
        cluster.oracles[leader] = says;
        // It is asked each second, its answer counts for two, and the quorum is looked for each two.
        cluster.run(2 * SECOND);
        cluster.write(leader, &[b"late"]);
        cluster.run(2 * SECOND);
        assert!(!cluster.serving(leader), "{says:?}");
        assert!(cluster.lines(leader).is_empty());
        let lost = cluster.notices.iter().rev().find_map(|(_, _, notice, _)| match notice {
            Notice::ReignEnded { reason, .. } => Some(*reason),
            _ => None,
        });
        let lost = lost.expect("it says so");
        let silent = beats && matches!(lost, ReignEnd::QuorumSilent { .. });
        assert!(silent || lost == ReignEnd::QuorumLost, "{lost}");
    }
}

/// An oracle is no reason not to listen: whoever looks as well is elected with, and by, this server.
#[test]
fn a_grant_elects_nobody_while_the_other_is_heard() {
    let mut cluster = pair(0);
    cluster.oracles = vec![Some(true); 2];
    cluster.start(0);
    cluster.run(100 * MS);
    assert_eq!(state(&cluster, 0), ServerState::Looking, "not in the first tally");
    cluster.start(1);
    cluster.run(10 * SECOND);
    assert!(cluster.serving(0) && cluster.serving(1));
    assert_eq!(cluster.asked.iter().sum::<usize>(), 0);
}

/// The one that comes back finds the leader by that one's word alone, whatever its own oracle says: the
/// other is not gone.
#[test]
fn who_comes_back_with_a_grant_that_was_left_over_follows_all_the_same() {
    let (mut cluster, leader, survivor) = serving(0);
    cluster.oracles = vec![Some(true); 2];
    cluster.kill(leader);
    cluster.run(2 * SECOND);
    cluster.write(survivor, &[b"alone"]);
    cluster.start(leader);
    cluster.run(4 * SECOND);
    assert!(leads(&cluster, survivor));
    assert_eq!(state(&cluster, leader), ServerState::Following);
    assert_eq!(cluster.lines(leader), ["alone"]);
}

/// The price of it (`docs/election.md`): the one leads alone, dies, and the other leads without it. What the
/// first has committed is gone, on both in the same way. They never make two histories of one epoch.
#[test]
fn what_one_has_committed_alone_is_lost_if_the_other_leads_next_and_they_agree_again() {
    for turns in 1..4 {
        let (mut cluster, leader, other) = serving(0);
        cluster.write(leader, &[b"both"]);
        cluster.run(SECOND);
        cluster.oracles = vec![Some(true); 2];
        let mut reigns = vec![epoch(&cluster, leader)];
        cluster.kill(0);
        cluster.kill(1);
        let mut last = leader;
        for turn in 0..turns {
            for who in [leader, other] {
                cluster.start(who);
                cluster.run(2 * SECOND);
                assert!(leads(&cluster, who), "turn {turn}, {who}");
                let epoch = epoch(&cluster, who);
                assert!(!reigns.contains(&epoch), "{epoch} again, of {reigns:?}");
                reigns.push(epoch);
                let line = format!("{who} alone, {turn}");
                cluster.write(who, &[line.as_bytes(), b"more"]);
                cluster.run(SECOND);
                cluster.kill(who);
                last = who;
            }
        }
        cluster.start(last);
        cluster.run(2 * SECOND);
        cluster.start(1 - last);
        cluster.run(10 * SECOND);
        assert!(cluster.serving(0) && cluster.serving(1));
        assert_eq!(cluster.lines(0), cluster.lines(1));
        let lines = cluster.lines(0);
        assert!(lines.contains(&format!("{last} alone, {}", turns - 1)), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with(&format!("{} ", 1 - last))), "{lines:?}");
    }
}

/// A reign alone in which nothing was proposed is worth nothing beside one in which something was, though its
/// epoch may be the higher one: whoever led it comes back as if it had not, and wins no election by it.
#[test]
fn an_empty_reign_alone_stands_in_nobodys_way() {
    for first in [0, 1] {
        let (mut cluster, leader, _) = serving(0);
        let second = 1 - first;
        cluster.write(leader, &[b"both"]);
        cluster.run(SECOND);
        (0..2).for_each(|i| cluster.kill(i));
        cluster.oracles[first] = Some(true);
        for _ in 0..3 {
            cluster.start(first);
            cluster.run(2 * SECOND);
            assert!(leads(&cluster, first));
            cluster.kill(first);
        }
        cluster.oracles = vec![Some(false); 2];
        cluster.oracles[second] = Some(true);
        cluster.start(second);
        cluster.run(2 * SECOND);
        cluster.write(second, &[b"alone"]);
        cluster.start(first);
        cluster.run(4 * SECOND);
        assert!(leads(&cluster, second) && cluster.serving(first), "{first} first");
        cluster.write(second, &[b"more"]);
        cluster.run(SECOND);
        cluster.oracles[second] = Some(false);
        cluster.run(10 * SECOND);
        assert!(cluster.serving(0) && cluster.serving(1));
        for i in 0..2 {
            assert_eq!(cluster.lines(i), ["both", "alone", "more"], "{first} first");
        }
        // And the same after the next election.
        (0..2).for_each(|i| cluster.kill(i));
        cluster.start_all();
        cluster.run(4 * SECOND);
        assert!(cluster.serving(0) && cluster.serving(1));
        assert_eq!(cluster.lines(first), ["both", "alone", "more"]);
    }
}

/// The process was stopped while it led alone: the oracle may have decided for the other meanwhile. Nothing is
/// answered before it has been asked again.
#[test]
fn a_leader_that_was_away_asks_again_before_it_serves() {
    let (mut cluster, leader, other) = serving(0);
    cluster.oracles[leader] = Some(true);
    cluster.kill(other);
    cluster.run(10 * SECOND);
    for says in [Some(true), Some(false)] {
        cluster.freeze(leader);
        cluster.oracles[leader] = says;
        cluster.run(10 * SECOND);
        cluster.send(leader, &[b"late"]);
        cluster.thaw(leader);
        cluster.run(4 * SECOND);
        // Of the second time nothing is committed.
        assert_eq!(cluster.lines(leader), ["late"], "{says:?}");
        assert_eq!(leads(&cluster, leader), says == Some(true));
    }
}

/// With any other number of voters, with groups, and without `Config::oracle`, it is never asked.
#[test]
fn nobody_else_asks() {
    let configure = |voters, oracle: bool| {
        Cluster::new(voters, 0).configure(move |config: &mut Config| config.oracle = oracle)
    };
    let groups = |cluster: Cluster| {
        cluster.configure(|config| {
            config.ensemble.set("group.1", "1:2").expect("a group");
            config.ensemble.complete().expect("all have weights");
        })
    };
    let cases = [configure(3, true), configure(4, true), configure(2, false), groups(pair(0))];
    for mut cluster in cases {
        let voters = cluster.servers.len();
        cluster.oracles = vec![Some(true); voters];
        cluster.start_all();
        cluster.run(4 * SECOND);
        assert!(cluster.leader().is_some());
        (1..voters).for_each(|i| cluster.kill(i));
        cluster.run(60 * SECOND);
        assert_eq!(cluster.node(0).peer().status().phase, Phase::Election);
        assert_eq!(cluster.asked.iter().sum::<usize>(), 0);
    }
}

/// A directory that comes up empty has nothing to lead with (rule R14), whatever the oracle says.
#[test]
fn an_empty_directory_is_not_trusted_for_a_grant() {
    let mut cluster = pair(0).configure(|config| config.trust_empty = false);
    cluster.oracles = vec![Some(true); 2];
    cluster.start(0);
    cluster.run(60 * SECOND);
    assert_eq!(state(&cluster, 0), ServerState::Looking);
    assert_eq!(cluster.asked, [0, 0]);
    // All voters are seen to be empty: they begin.
    cluster.start(1);
    cluster.run(10 * SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[b"a"]);
    cluster.run(SECOND);
    // One of them loses its disk, and comes back to the other, which leads alone.
    cluster.kill(1 - leader);
    cluster.servers[1 - leader].disk = zab_harness::Memory::default();
    cluster.run(4 * SECOND);
    assert!(leads(&cluster, leader));
    cluster.start(1 - leader);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.lines(1 - leader), ["a"]);
    assert_eq!(cluster.node(leader).peer().config().sid, Sid(leader as i64 + 1));
}
