//! Windows that are short beside what they must hold.

use std::time::Duration;

use zab_harness::{Cluster, Memory};
use zab_proto::{CloseReason, SyncMode};

const SECOND: Duration = Duration::from_secs(1);

/// A window of 2 KiB, and lines of 250 bytes to fill it with.
fn narrow(voters: usize, observers: usize) -> Cluster {
    let mut cluster = Cluster::new(voters, observers).configure(|config| {
        config.limits.window_len_max_bytes = 2048;
        config.limits.retained_len_max_bytes = 1024;
        config.limits.field_len_max_bytes = 1024;
    });
    cluster.start_all();
    cluster.run(SECOND);
    cluster
}

fn long_lines(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{i:250}")).collect()
}

fn write_all(cluster: &mut Cluster, i: usize, lines: &[String]) {
    cluster.write(i, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
}

/// What a member finds in its log must wait until a leader is known, however much it is: longer than
/// the window by ten times, without a snapshot.
#[test]
fn a_log_tail_longer_than_the_window_keeps_nobody_out() {
    let mut cluster = narrow(3, 1);
    let leader = cluster.leader().expect("a leader");
    let lines = long_lines(100);
    write_all(&mut cluster, leader, &lines);
    cluster.closed.clear();
    // One at a time, the leader first.
    for i in [leader, (leader + 1) % 3, 3] {
        cluster.kill(i);
        cluster.run(SECOND);
        cluster.start(i);
        cluster.run(SECOND);
        assert!(cluster.serving(i), "{:?}", cluster.closed);
    }
    // All at once.
    (0..4).for_each(|i| cluster.kill(i));
    cluster.start_all();
    cluster.run(SECOND);
    assert!((0..4).all(|i| cluster.serving(i) && cluster.lines(i) == lines));
    assert!(!cluster.closed.iter().any(|(_, reason)| *reason == CloseReason::TooFarBehind));
    // And the window is as wide as before.
    let leader = cluster.leader().expect("a leader");
    write_all(&mut cluster, leader, &lines);
    assert!((0..4).all(|i| cluster.lines(i).len() == 200));
}

/// The same when the tail is one that no other member has: it is cut off, and counts for nothing.
#[test]
fn a_long_tail_that_was_never_committed_is_cut_off() {
    let mut cluster = narrow(3, 0);
    let leader = cluster.leader().expect("a leader");
    write_all(&mut cluster, leader, &long_lines(8));
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // Its window is full of what nobody acknowledges, and it starts again and again with it.
    others.iter().for_each(|i| cluster.servers[*i].disk.stalled = true);
    write_all(&mut cluster, leader, &long_lines(40));
    (0..3).for_each(|i| cluster.kill(i));
    others.iter().for_each(|i| cluster.servers[*i].disk.stalled = false);
    assert!(cluster.servers[leader].disk.image.log.len() > 8 + 7, "more than the window");
    others.iter().for_each(|i| cluster.start(*i));
    cluster.run(SECOND);
    let next = cluster.leader().expect("a new leader");
    write_all(&mut cluster, next, &long_lines(8));
    cluster.closed.clear();
    cluster.start(leader);
    cluster.run(SECOND);
    assert!(cluster.serving(leader), "{:?}", cluster.closed);
    assert_eq!(cluster.lines(leader), cluster.lines(next));
    assert_eq!(cluster.lines(leader).len(), 16);
}

/// A leader that reads its whole log to who has nothing never sends a snapshot. Asked for one once,
/// and sending transactions all the same, it is taken at its word.
#[test]
fn a_leader_without_a_snapshot_is_not_asked_for_ever() {
    for observers in [0, 1] {
        let mut cluster = narrow(3, observers);
        let leader = cluster.leader().expect("a leader");
        cluster.servers.iter_mut().for_each(|server| server.disk.log_from_start = true);
        let late = if observers > 0 { 3 } else { (leader + 1) % 3 };
        cluster.write(leader, &[b"first"]);
        cluster.kill(late);
        write_all(&mut cluster, leader, &long_lines(100));
        cluster.start(late);
        cluster.run(10 * SECOND);
        assert_eq!(cluster.lines(late).len(), 101, "{:?}", cluster.closed);
        assert_eq!(cluster.node(late).peer().status().sync, Some(SyncMode::Diff));
        let refused = (late, CloseReason::TooFarBehind);
        assert_eq!(cluster.closed.iter().filter(|closed| **closed == refused).count(), 1);
    }
}

/// What follows a snapshot has no other way to come.
#[test]
fn what_follows_a_snapshot_is_taken_whatever_its_length() {
    let mut cluster = narrow(3, 0);
    let leader = cluster.leader().expect("a leader");
    let late = (leader + 1) % 3;
    cluster.kill(late);
    write_all(&mut cluster, leader, &long_lines(100));
    cluster.servers[late].disk = Memory::default();
    // Its own window holds two transactions, the leader's a hundred.
    cluster = cluster.configure(|config| {
        config.limits.window_len_max_bytes = 512;
        config.trust_empty = false;
    });
    cluster.closed.clear();
    cluster.send_max = 100;
    cluster.start(late);
    for _ in 0..40 {
        cluster.step();
    }
    write_all(&mut cluster, leader, &long_lines(6));
    cluster.send_max = usize::MAX;
    cluster.run(SECOND);
    assert_eq!(cluster.node(late).peer().status().sync, Some(SyncMode::Snap));
    assert_eq!(cluster.lines(late).len(), 106, "{:?}", cluster.closed);
    assert!(!cluster.closed.contains(&(late, CloseReason::TooFarBehind)));
}

/// Each bound barely above nothing: whatever is larger than a bound goes alone.
#[test]
fn bounds_below_one_transaction_hold_up_nobody() {
    for (window, retained, requests) in [(1, 0, 1), (300, 0, 300), (1, 2000, 1), (300, 300, 1)] {
        let mut cluster = Cluster::new(3, 1).configure(|config| {
            config.limits.window_len_max_bytes = window;
            config.limits.retained_len_max_bytes = retained;
            config.limits.requests_len_max_bytes = requests;
            config.limits.field_len_max_bytes = 400;
        });
        cluster.start_all();
        cluster.run(SECOND);
        cluster.closed.clear();
        let lines = long_lines(5);
        for i in 0..4 {
            write_all(&mut cluster, i, &lines);
        }
        cluster.run(SECOND);
        for i in 0..4 {
            assert_eq!(cluster.lines(i).len(), 20, "{i}: {window} {retained} {requests}");
        }
        assert_eq!(cluster.closed, []);
    }
}

/// A leader whose window is wider than a follower's: that one leaves, with more under way than it has
/// room for, and must come back with it.
#[test]
fn what_was_under_way_keeps_nobody_out() {
    let mut cluster = Cluster::new(3, 0).configure(|config| {
        config.limits.window_len_max_bytes = 20_000;
        config.limits.requests_len_max_bytes = 1;
        config.limits.field_len_max_bytes = 400;
        config.limits.retained_len_max_bytes = 0;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let (small, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(small);
    cluster = cluster.configure(|config| config.limits.window_len_max_bytes = 512);
    cluster.start(small);
    cluster.run(SECOND);
    assert!(cluster.serving(small));
    cluster.closed.clear();
    // Nothing is committed until a disk of theirs has it.
    for i in [small, other] {
        cluster.servers[i].disk.stalled = true;
    }
    write_all(&mut cluster, leader, &long_lines(60));
    assert!(cluster.closed.contains(&(small, CloseReason::TooFarBehind)), "{:?}", cluster.closed);
    for i in [small, other] {
        cluster.servers[i].disk.stalled = false;
    }
    cluster.run(5 * SECOND);
    assert!(cluster.serving(small), "{:?}", cluster.closed);
    assert!((0..3).all(|i| cluster.lines(i).len() == 60));
}
