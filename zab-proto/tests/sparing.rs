//! Whether a server can be stopped now: who says so, when it is taken back, and that what is said is true.

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::{Sid, StopSafety};

const SECOND: Duration = Duration::from_secs(1);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sid(i: usize) -> Sid {
    Sid(i64::try_from(i).expect("a few servers") + 1)
}

fn safety(cluster: &Cluster, i: usize) -> StopSafety {
    cluster.node(i).peer().stop_safety(cluster.now)
}

fn is_safe(cluster: &Cluster, i: usize) -> Option<bool> {
    safety(cluster, i).is_safe()
}

fn serving(voters: usize, observers: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(voters, observers);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

#[test]
fn each_of_three_may_go_but_none_when_one_has_gone() {
    let (mut cluster, leader) = serving(3, 1);
    let (gone, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(safety(&cluster, leader), StopSafety::Spare);
    let by_leader = |safety: StopSafety| match safety {
        StopSafety::SpareByLeader { leader: by, heard_ms } => by == sid(leader) && heard_ms <= 50,
        _ => false,
    };
    assert!(by_leader(safety(&cluster, gone)) && by_leader(safety(&cluster, stays)));
    assert_eq!(safety(&cluster, 3), StopSafety::NoVote);
    // Its connection closes, and everybody hears of it at that moment.
    cluster.kill(gone);
    cluster.settle();
    assert_eq!(safety(&cluster, leader), StopSafety::TooFew { lacking: vec![sid(gone)] });
    assert!(matches!(safety(&cluster, stays), StopSafety::TooFewByLeader { .. }));
    assert_eq!(safety(&cluster, 3), StopSafety::NoVote, "an observer is never needed");
    cluster.start(gone);
    cluster.run(2 * SECOND);
    for i in 0..3 {
        assert_eq!(is_safe(&cluster, i), Some(true), "server {i}");
    }
}

/// What a yes promises, for every server of three and of five, one after the other.
#[test]
fn who_may_go_is_not_missed() {
    for voters in [3, 5] {
        let (mut cluster, _) = serving(voters, 0);
        for i in 0..voters {
            assert_eq!(is_safe(&cluster, i), Some(true), "server {i}");
            cluster.kill(i);
            cluster.run(SECOND);
            let leader = cluster.leader().expect("a leader without it");
            let line = format!("without {i}");
            cluster.write(leader, &[line.as_bytes()]);
            cluster.start(i);
            cluster.run(2 * SECOND);
            assert_eq!(cluster.lines(i).last(), Some(&line));
        }
    }
}

#[test]
fn a_silent_follower_does_not_count() {
    let (mut cluster, leader) = serving(3, 0);
    let (frozen, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.freeze(frozen);
    cluster.run(ms(400));
    assert_eq!(safety(&cluster, leader), StopSafety::TooFew { lacking: vec![sid(frozen)] });
    assert_eq!(is_safe(&cluster, other), Some(false));
    // The leader alone is heard no more: nobody knows.
    cluster.freeze(leader);
    cluster.run(ms(249));
    assert_eq!(is_safe(&cluster, other), Some(false));
    cluster.run(ms(100));
    assert_eq!(safety(&cluster, other), StopSafety::NoLeader);
}

/// A follower that answers, and whose disk has nothing of what is committed, would have to be waited for.
#[test]
fn a_follower_that_lags_does_not_count() {
    let (mut cluster, leader) = serving(3, 0);
    let (slow, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.servers[slow].disk.stalled = true;
    cluster.write(leader, &[b"on two disks"]);
    assert_eq!(is_safe(&cluster, leader), Some(true), "it may be on its way");
    cluster.run(2 * SECOND);
    assert_eq!(safety(&cluster, leader), StopSafety::TooFew { lacking: vec![sid(slow)] });
    assert_eq!(is_safe(&cluster, other), Some(false));
    assert_eq!(is_safe(&cluster, slow), Some(true), "the other two have it");
    cluster.servers[slow].disk.stalled = false;
    cluster.run(2 * SECOND);
    assert_eq!(is_safe(&cluster, leader), Some(true));
}

#[test]
fn under_load_the_answer_does_not_flicker() {
    let (mut cluster, leader) = serving(3, 0);
    for round in 0..500_u32 {
        let line = round.to_string();
        cluster.send((leader + round as usize) % 3, &[line.as_bytes()]);
        cluster.step();
        assert_eq!(is_safe(&cluster, leader), Some(true), "{round}");
        cluster.run(ms(u64::from(round % 23)));
    }
}

#[test]
fn who_synchronises_somebody_is_needed() {
    let (mut cluster, leader) = serving(5, 0);
    let newcomer = (leader + 1) % 5;
    cluster.kill(newcomer);
    let lines: Vec<String> = (0..200).map(|n| format!("line {n} {}", "x".repeat(200))).collect();
    for line in &lines {
        cluster.write(leader, &[line.as_bytes()]);
    }
    assert_eq!(safety(&cluster, leader), StopSafety::Spare, "four of five");
    cluster.slow = Some((newcomer, 0));
    cluster.start(newcomer);
    let mut steps = 0;
    while !cluster.serving(newcomer) {
        let learners = vec![sid(newcomer)];
        let is_here = cluster.node(leader).peer().learners().any(|l| l.origin.sid == sid(newcomer));
        if is_here {
            assert_eq!(safety(&cluster, leader), StopSafety::Synchronises { learners });
            let follower = (leader + 2) % 5;
            assert_eq!(
                is_safe(&cluster, follower),
                Some(true),
                "nobody catches up from a follower"
            );
            steps += 1;
        }
        cluster.take(100);
        cluster.run(ms(5));
    }
    assert!(steps > 100, "{steps}");
    assert_eq!(safety(&cluster, leader), StopSafety::Spare);
}

#[test]
fn without_heartbeats_a_follower_does_not_know() {
    let mut cluster = Cluster::new(3, 0).configure(|config| {
        config.detection.heartbeat = Duration::ZERO;
    });
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    assert_eq!(safety(&cluster, leader), StopSafety::Spare, "its PINGs are answered as ever");
    assert_eq!(safety(&cluster, (leader + 1) % 3), StopSafety::Untold { leader: sid(leader) });
}

#[test]
fn two_are_always_too_few_to_lose_one() {
    let (cluster, leader) = serving(2, 0);
    let other = 1 - leader;
    assert_eq!(safety(&cluster, leader), StopSafety::TooFew { lacking: vec![] });
    assert_eq!(is_safe(&cluster, other), Some(false));
}
