//! Nothing in silence, and no storms: who ends a connection or a role says why, on both sides; what fails
//! again and again becomes slow; who waits says for whom.

mod common;

use std::time::Duration;

use common::Cluster;
use common::memory::Memory;
use zab_proto::{CloseReason, Notice, Phase, ReignEnd, ServerState, Sid, Violation};

const SECOND: Duration = Duration::from_secs(1);

fn three() -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.notices.clear();
    (cluster, leader)
}

fn sid(i: usize) -> Sid {
    Sid(i64::try_from(i).expect("a few servers") + 1)
}

fn told(cluster: &Cluster, i: usize) -> Vec<Notice> {
    cluster.notices.iter().filter(|told| told.1 == i).map(|told| told.2).collect()
}

#[test]
fn the_end_of_a_link_is_told_on_both_sides() {
    let (mut cluster, leader) = three();
    let follower = (leader + 1) % 3;
    let violation = CloseReason::Violation(Violation::BadTxn);
    // The learner closes, then the leader.
    let conn = cluster.node(leader).peer().learners().find(|l| l.origin.sid == sid(follower));
    let conn = conn.expect("it follows").origin;
    cluster.act(leader, |_, core| core.close(conn, violation));
    let (phase, observer) = (Phase::Broadcast, false);
    let lost = |reason| Notice::LearnerLost { sid: sid(follower), observer, phase, reason };
    let left = |reason| Notice::LeaderLost { leader: sid(leader), phase, reason };
    assert_eq!(told(&cluster, leader), [lost(Some(violation))]);
    assert_eq!(told(&cluster, follower), [left(None)]);
    cluster.run(SECOND);
    assert!(cluster.serving(follower));
    cluster.notices.clear();
    cluster.deaf = Some(follower);
    cluster.run(11 * SECOND);
    assert!(told(&cluster, leader).contains(&lost(Some(CloseReason::Silent))));
    assert_eq!(told(&cluster, follower)[0], left(Some(CloseReason::Silent)));
}

#[test]
fn the_end_of_a_reign_is_told() {
    let (mut cluster, leader) = three();
    cluster.isolate(leader);
    cluster.run(30 * SECOND);
    let ends = |reason| move |notice: &Notice| matches!(notice, Notice::ReignEnded { reason: why, .. } if *why == reason);
    assert!(told(&cluster, leader).iter().any(ends(ReignEnd::QuorumLost)));
    let waits = cluster.node(leader).peer().waits_for().expect("it does not serve");
    for other in (0..3).filter(|other| *other != leader) {
        assert!(waits.contains(&format!("{} (h:{})", other + 1, 2000 + other)), "{waits}");
    }
    assert_eq!(cluster.node((leader + 1) % 3).peer().waits_for(), None);
}

/// A member that cannot be synchronised tries again more and more slowly, says so with a count, does not
/// disturb the others, and is let in when its trouble is over.
#[test]
fn what_fails_again_and_again_becomes_slow() {
    for late in [1, 3] {
        let (cluster, leader) = three();
        let mut cluster = cluster.configure(|config| config.trust_empty = false);
        let late = if late == 3 { 3 } else { (leader + late) % 3 };
        cluster.write(leader, &[b"."]);
        cluster.kill(late);
        cluster.servers[late].disk = Memory::default();
        cluster.notices.clear();
        cluster.start(late);
        cluster.act(late, |app, _| app.refuses = true);
        let before: Vec<_> = (0..4).map(|i| cluster.node(i).app().history.len()).collect();
        cluster.run(60 * SECOND);
        let history = &cluster.node(late).app().history;
        let state = ServerState::Looking;
        let attempts = history.iter().filter(|status| status.state == state).count();
        assert!((10..60).contains(&attempts), "{attempts} attempts in a minute");
        for i in (0..4).filter(|i| *i != late) {
            assert_eq!(cluster.node(i).app().history.len(), before[i]);
            assert!(cluster.serving(i));
        }
        let said = |i: usize| told(&cluster, i).len();
        assert!((1..6).contains(&said(leader)), "{:?}", told(&cluster, leader));
        assert!((1..8).contains(&said(late)), "{:?}", told(&cluster, late));
        let phase = Phase::Synchronization;
        let reason = Some(CloseReason::Violation(Violation::BadSnapshot));
        let lost = Notice::LeaderLost { leader: sid(leader), phase, reason };
        assert!(told(&cluster, late).contains(&lost));
        cluster.run(10 * SECOND);
        let counted = |told: &&(_, usize, Notice, u64)| told.1 == leader && told.3 > 5;
        assert!(cluster.notices.iter().any(|told| counted(&told)), "what was kept back is counted");
        cluster.act(late, |app, _| app.refuses = false);
        cluster.run(5 * SECOND);
        assert!(cluster.serving(late));
    }
}

/// A first start of which one server is missing.
#[test]
fn who_waits_says_for_whom_once_a_minute() {
    let mut cluster = Cluster::new(3, 0).configure(|config| config.trust_empty = false);
    cluster.start(0);
    cluster.start(2);
    cluster.run(190 * SECOND);
    for i in [0, 2] {
        let waits = cluster.node(i).peer().waits_for().expect("it does not serve");
        assert!(waits.contains("2 (h:2001)") && !waits.contains("h:2002"), "{waits}");
        assert!(waits.contains("initialize"), "{waits}");
        let said = told(&cluster, i);
        let secs = [1, 61, 121, 181].map(|secs| Notice::Waiting { secs });
        assert_eq!(said, secs);
    }
    cluster.start(1);
    cluster.run(2 * SECOND);
    assert!((0..3).all(|i| cluster.node(i).peer().waits_for().is_none()));
    // With a history, but without a quorum.
    cluster.kill(0);
    cluster.kill(1);
    cluster.notices.clear();
    cluster.run(60 * SECOND);
    let waits = cluster.node(2).peer().waits_for().expect("it does not serve");
    assert!(waits.contains("1 (h:2000), 2 (h:2001)"), "{waits}");
    assert!(told(&cluster, 2).iter().any(|notice| matches!(notice, Notice::Waiting { .. })));
}
