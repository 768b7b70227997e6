//! The pace of an ensemble is that of its quorum: who reads slowly, or not at all, delays nobody else,
//! at whatever stage, and gets there if it can.

use std::time::Duration;

use zab_harness::{Cluster, Memory};
use zab_proto::{CloseReason, Phase, SyncMode};

const SECOND: Duration = Duration::from_secs(1);

fn narrow(voters: usize, observers: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(voters, observers).narrow();
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.closed.clear();
    (cluster, leader)
}

fn lines(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{i:250}")).collect()
}

fn write_all(cluster: &mut Cluster, i: usize, lines: &[String]) {
    cluster.write(i, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
}

/// Connections closed for a reason that is nobody's wish.
fn closed(cluster: &Cluster) -> Vec<(usize, CloseReason)> {
    let closed = cluster.closed.iter().copied();
    closed.filter(|(_, reason)| *reason != CloseReason::Superseded).collect()
}

/// Lets a slow server read on until it has everything.
fn catch_up(cluster: &mut Cluster, slow: usize, piece: usize, count: usize) {
    for _ in 0..1_000_000 / piece {
        if cluster.servers[slow].node.is_some() && cluster.lines(slow).len() == count {
            return;
        }
        cluster.take(piece);
    }
    let closed = &cluster.closed;
    panic!("it has {} of {count} lines: {closed:?}", cluster.lines(slow).len());
}

/// A learner in service stops reading, inside a transaction or between two, while forty windows are
/// written. What it lacks comes from the log, in order, with its commits.
#[test]
fn a_learner_that_reads_slowly_goes_on_from_the_log() {
    for observers in [0, 1] {
        for (first, piece) in [(0, 1000), (7, 7), (130, 61), (1000, 333)] {
            let (mut cluster, leader) = narrow(3, observers);
            let slow = if observers > 0 { 3 } else { (leader + 1) % 3 };
            // It falls behind, catches up, and falls behind again on the same link.
            for round in 1..=3 {
                cluster.slow = Some((slow, first));
                write_all(&mut cluster, leader, &lines(100));
                let count = round * 100;
                assert_eq!(cluster.lines(leader).len(), count, "the writes wait for nobody");
                catch_up(&mut cluster, slow, piece, count);
                assert_eq!(cluster.lines(slow), cluster.lines(leader));
            }
            cluster.slow = None;
            cluster.take(0);
            write_all(&mut cluster, slow, &lines(20));
            let counts: Vec<_> = (0..3 + observers).map(|i| cluster.lines(i).len()).collect();
            assert_eq!(counts, vec![320; 3 + observers], "{:?}", cluster.closed);
            assert_eq!(closed(&cluster), []);
        }
    }
}

/// The same while it is being synchronised: it is let in as soon as it has the snapshot, and the
/// window has moved on by far meanwhile.
#[test]
fn a_snapshot_that_is_read_slowly_stops_nothing() {
    for observers in [0, 1] {
        for piece in [97, 1500] {
            let (cluster, leader) = narrow(3, observers);
            let mut cluster = cluster.configure(|config| config.trust_empty = false);
            let late = if observers > 0 { 3 } else { (leader + 1) % 3 };
            write_all(&mut cluster, leader, &lines(40));
            cluster.kill(late);
            cluster.servers[late].disk = Memory::default();
            cluster.closed.clear();
            cluster.slow = Some((late, 600));
            cluster.start(late);
            cluster.run(SECOND / 10);
            for n in 1..=10 {
                write_all(&mut cluster, leader, &lines(40));
                assert_eq!(cluster.lines(leader).len(), 40 + n * 40);
                cluster.take(piece);
            }
            catch_up(&mut cluster, late, piece, 440);
            assert_eq!(cluster.node(late).peer().status().sync, Some(SyncMode::Snap));
            assert_eq!(cluster.lines(late), cluster.lines(leader));
            assert_eq!(closed(&cluster), []);
        }
    }
}

/// A DIFF whose end has left the window before it was sent.
#[test]
fn a_diff_goes_on_from_the_log() {
    let (mut cluster, leader) = narrow(3, 1);
    for late in [(leader + 1) % 3, 3] {
        write_all(&mut cluster, leader, &lines(1));
        let before = cluster.lines(leader).len();
        cluster.kill(late);
        write_all(&mut cluster, leader, &lines(3));
        cluster.closed.clear();
        cluster.slow = Some((late, 0));
        cluster.start(late);
        while cluster.node(late).peer().status().phase < Phase::Synchronization {
            cluster.run(SECOND / 100);
            cluster.take(20);
        }
        write_all(&mut cluster, leader, &lines(200));
        assert_eq!(cluster.lines(leader).len(), before + 203);
        catch_up(&mut cluster, late, 100, before + 203);
        let status = cluster.node(late).peer().status();
        assert_eq!(status.sync, Some(SyncMode::Diff));
        assert_eq!(cluster.lines(late), cluster.lines(leader));
        assert_eq!(closed(&cluster), []);
        cluster.slow = None;
        cluster.take(0);
    }
}

/// The log that a learner would go on from is gone: it is told so, comes again, and gets a snapshot.
#[test]
fn who_lacks_what_the_log_has_lost_begins_again() {
    let (mut cluster, leader) = narrow(3, 1);
    for slow in [(leader + 1) % 3, 3] {
        let before = cluster.lines(leader).len();
        cluster.closed.clear();
        cluster.slow = Some((slow, 0));
        write_all(&mut cluster, leader, &lines(40));
        cluster.servers[leader].disk.snapshot_every = Some(10);
        write_all(&mut cluster, leader, &lines(40));
        cluster.servers[leader].disk.snapshot_every = None;
        write_all(&mut cluster, leader, &lines(1));
        cluster.slow = None;
        cluster.take(0);
        cluster.run(SECOND);
        assert_eq!(cluster.lines(slow), cluster.lines(leader));
        assert_eq!(cluster.lines(slow).len(), before + 81);
        assert!(cluster.closed.contains(&(leader, CloseReason::NotInLog)), "{:?}", cluster.closed);
        assert_eq!(cluster.node(slow).peer().status().sync, Some(SyncMode::Snap));
    }
}

/// Whoever takes nothing at all is closed after `syncLimit`, and nobody waits until then.
#[test]
fn who_takes_nothing_delays_nobody() {
    for observers in [0, 1] {
        let (mut cluster, leader) = narrow(3, observers);
        let deaf = if observers > 0 { 3 } else { (leader + 1) % 3 };
        cluster.deaf = Some(deaf);
        write_all(&mut cluster, leader, &lines(200));
        assert_eq!(cluster.lines(leader), lines(200));
        cluster.run(12 * SECOND);
        assert!(cluster.closed.contains(&(leader, CloseReason::Silent)), "{:?}", cluster.closed);
        assert!(!cluster.serving(deaf));
    }
}

/// A quorum that is slow is waited for, and loses nobody for it.
#[test]
fn the_pace_is_the_quorums() {
    let (mut cluster, leader) = narrow(3, 0);
    cluster.kill((leader + 1) % 3);
    let slow = (leader + 2) % 3;
    cluster.closed.clear();
    cluster.slow = Some((slow, 100));
    write_all(&mut cluster, leader, &lines(100));
    assert_eq!(cluster.lines(leader).len(), 0);
    assert!(!cluster.node(leader).peer().can_propose(300), "the window is full");
    catch_up(&mut cluster, slow, 100, 100);
    assert_eq!(cluster.lines(leader), lines(100));
    assert_eq!(closed(&cluster), []);
}

/// Voters do not wait for a snapshot behind observers.
#[test]
fn an_observer_makes_room_for_a_voter() {
    let (cluster, leader) = narrow(3, 1);
    let mut cluster = cluster.configure(|config| {
        config.trust_empty = false;
        config.limits.snapshots_max = 1;
    });
    let voter = (leader + 1) % 3;
    write_all(&mut cluster, leader, &lines(40));
    for i in 0..4 {
        // So that the bound is that of the leader, too.
        cluster.kill(i);
        cluster.start(i);
    }
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let voter = if voter == leader { (leader + 1) % 3 } else { voter };
    for i in [3, voter] {
        cluster.kill(i);
        cluster.servers[i].disk = Memory::default();
    }
    cluster.closed.clear();
    cluster.slow = Some((3, 600));
    cluster.start(3);
    cluster.run(SECOND);
    cluster.start(voter);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(voter).len(), 40);
    assert!(cluster.closed.contains(&(leader, CloseReason::SnapshotWanted)));
    cluster.slow = None;
    cluster.take(0);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(3).len(), 40);
}

const QUESTIONS: usize = 80_000;

/// A learner that asks and does not take the answers is not read any more once a MiB of them waits for
/// it. Nobody else notices, and all are answered when it takes them.
#[test]
fn who_does_not_take_its_answers_is_not_asked_on() {
    for observers in [0, 1] {
        let (mut cluster, leader) = narrow(3, observers);
        let slow = if observers > 0 { 3 } else { (leader + 1) % 3 };
        cluster.slow = Some((slow, 0));
        cluster.act(slow, |_, core| {
            // More than two MiB of answers.
            (0..QUESTIONS).for_each(|_| assert!(core.revalidate(&[7; 12])));
        });
        let asked = QUESTIONS * 32;
        assert!((asked / 2..asked).contains(&cluster.unread(leader)), "{}", cluster.unread(leader));
        write_all(&mut cluster, leader, &lines(40));
        assert_eq!(cluster.lines(leader).len(), 40);
        cluster.slow = None;
        cluster.take(0);
        assert_eq!(cluster.node(slow).app().revalidated, QUESTIONS);
        assert_eq!((cluster.unread(leader), cluster.lines(slow).len()), (0, 40));
        assert_eq!(closed(&cluster), []);
    }
}

/// Syncs take no room at the leader, however many there are. They are read while a quorum needs what
/// is behind them, and each is answered.
#[test]
fn syncs_are_counted_and_not_kept() {
    for observers in [0, 1] {
        let (mut cluster, leader) = narrow(3, observers);
        let slow = if observers > 0 { 3 } else { (leader + 1) % 3 };
        cluster.kill((leader + 2) % 3);
        cluster.closed.clear();
        cluster.slow = Some((slow, 0));
        let mut sync = vec![0; 16];
        sync.push(b'?');
        cluster.act(slow, |_, core| {
            let ask = |_| assert!(core.request(&sync, &(-1i32).to_be_bytes()));
            (0..QUESTIONS).for_each(ask);
        });
        assert_eq!(cluster.unread(leader), 0);
        cluster.slow = None;
        cluster.take(0);
        cluster.run(SECOND);
        assert_eq!(cluster.node(slow).app().synced.len(), QUESTIONS);
        write_all(&mut cluster, slow, &lines(4));
        assert_eq!(cluster.lines(leader).len(), 4);
        assert_eq!(closed(&cluster), []);
    }
}

/// Transactions longer than the half of the window that learners may hold do not wait for one that
/// reads nothing.
#[test]
fn long_transactions_do_not_wait_for_who_lags() {
    let mut cluster = Cluster::new(3, 0).configure(|config| {
        config.limits.window_len_max_bytes = 250;
        config.limits.retained_txns = 0;
        config.limits.retained_len_max_bytes = 0;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.deaf = Some((leader + 1) % 3);
    let lines: Vec<String> = (0..20).map(|i| format!("{i:0$}", [60, 230][i % 2])).collect();
    for line in &lines {
        write_all(&mut cluster, leader, std::slice::from_ref(line));
    }
    assert_eq!(cluster.lines(leader), lines);
    assert!(cluster.serving((leader + 1) % 3), "nobody was given up for it");
}

/// Two voters whose windows and ways to the leader hold one transaction.
fn one_at_a_time(observers: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(2, observers).configure(|config| {
        config.limits.window_len_max_bytes = 1;
        config.limits.retained_len_max_bytes = 0;
        config.limits.requests_len_max_bytes = 1;
        config.limits.field_len_max_bytes = 400;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

/// A request comes in front of the acknowledgement that makes room for it, while the window holds a
/// transaction that is longer than its bound.
#[test]
fn a_request_lets_the_acknowledgement_behind_it_through() {
    let (mut cluster, leader) = one_at_a_time(0);
    let follower = 1 - leader;
    cluster.closed.clear();
    cluster.servers[follower].disk.stalled = true;
    let lines = [format!("{:240}", 0), format!("{:240}", 1)];
    write_all(&mut cluster, leader, &lines[..1]);
    write_all(&mut cluster, follower, &lines[1..]);
    cluster.servers[follower].disk.stalled = false;
    cluster.run(SECOND);
    assert_eq!(cluster.lines(leader), lines);
    assert_eq!(closed(&cluster), []);
}

/// The same when the window is full of what others have sent that have left since.
#[test]
fn what_was_taken_of_those_who_left_stops_nobody() {
    let (mut cluster, leader) = one_at_a_time(3);
    let follower = 1 - leader;
    cluster.servers[follower].disk.stalled = true;
    let lines: Vec<String> = (0..5).map(|i| format!("{i:240}")).collect();
    write_all(&mut cluster, leader, &lines[..1]);
    for (observer, line) in (2..5).zip(lines[1..4].chunks(1)) {
        write_all(&mut cluster, observer, line);
    }
    (2..5).for_each(|observer| cluster.kill(observer));
    cluster.closed.clear();
    write_all(&mut cluster, follower, &lines[4..]);
    cluster.servers[follower].disk.stalled = false;
    cluster.run(SECOND);
    assert_eq!(cluster.lines(leader), lines);
    assert_eq!(closed(&cluster), []);
}

/// An observer reads no further than its disk is once its window is full, and then comes to the PINGs long
/// after they were sent. It says how far it is, and is not taken for silent.
#[test]
fn an_observer_with_a_slow_disk_is_not_silent() {
    let (mut cluster, leader) = narrow(3, 1);
    let slow = 3;
    cluster.servers[slow].disk.writes_left = Some(0);
    write_all(&mut cluster, leader, &lines(400));
    let tenth = SECOND / 10;
    for written in (0..400).step_by(2) {
        let before = cluster.lines(slow).len();
        assert!(before <= written + 20, "{before} lines, and {written} on its disk");
        cluster.servers[slow].disk.writes_left = Some(2);
        cluster.run(tenth);
    }
    assert_eq!(closed(&cluster), [], "20 s, and its leader waits for 10");
    assert_eq!(cluster.lines(slow).len(), 400);
}
