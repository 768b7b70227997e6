//! Stories of small clusters, one per test.

use std::time::Duration;

use zab_harness::{Cluster, Memory};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{CloseReason, DigestVerdict, Epoch, Phase, SyncMode, Zxid};

const SECOND: Duration = Duration::from_secs(1);

fn three() -> Cluster {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    cluster.run(SECOND);
    cluster
}

fn sync_mode(cluster: &Cluster, i: usize) -> Option<SyncMode> {
    cluster.node(i).peer().status().sync
}

#[test]
fn three_servers_elect_and_replicate() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    for i in 0..3 {
        assert!(cluster.serving(i));
        cluster.write(i, &[format!("from {i}").as_bytes()]);
    }
    for i in 0..3 {
        assert_eq!(cluster.lines(i), ["from 0", "from 1", "from 2"]);
    }
    assert_eq!(cluster.node(leader).peer().learners().filter(|learner| learner.synced).count(), 2);
    assert_eq!(cluster.client_bytes.len(), 3 * "from 0".len(), "each client hears of its own line");
}

#[test]
fn a_standalone_server_serves_at_once() {
    let mut cluster = Cluster::new(1, 0).configure(|config| config.standalone = true);
    cluster.start_all();
    cluster.settle();
    cluster.write(0, &[b"a", b"b"]);
    assert_eq!(cluster.lines(0), ["a", "b"]);
    cluster.kill(0);
    cluster.start(0);
    cluster.settle();
    cluster.write(0, &[b"c"]);
    assert_eq!(cluster.lines(0), ["a", "b", "c"]);
    assert_eq!(cluster.node(0).peer().delivered().raw(), 3);
}

#[test]
fn the_survivors_go_on_without_the_leader_and_without_waiting() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[b"before"]);
    cluster.kill(leader);
    cluster.run(Duration::from_millis(3));
    let next = cluster.leader().expect("a new leader within 3 ms");
    cluster.write(next, &[b"after"]);
    assert_eq!(cluster.lines(next), ["before", "after"]);
    cluster.start(leader);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(leader), ["before", "after"]);
    assert_eq!(sync_mode(&cluster, leader), Some(SyncMode::Diff));
}

#[test]
fn a_wiped_server_is_brought_back_by_snapshot() {
    let mut cluster = three().configure(|config| config.trust_empty = false);
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[b"a", b"b", b"c"]);
    let wiped = (leader + 1) % 3;
    cluster.kill(wiped);
    cluster.servers[wiped].disk = Memory::default();
    cluster.start(wiped);
    cluster.run(SECOND);
    assert_eq!(sync_mode(&cluster, wiped), Some(SyncMode::Snap));
    assert_eq!(cluster.lines(wiped), ["a", "b", "c"]);
    cluster.write(wiped, &[b"d"]);
    cluster.kill(wiped);
    cluster.start(wiped);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(wiped), ["a", "b", "c", "d"]);
}

#[test]
fn a_wiped_server_does_not_vote() {
    let mut cluster = three().configure(|config| config.trust_empty = false);
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[b"a"]);
    let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(wiped);
    cluster.servers[wiped].disk = Memory::default();
    cluster.kill(leader);
    cluster.kill(other);
    cluster.start(wiped);
    cluster.start(other);
    cluster.run(60 * SECOND);
    assert_eq!(cluster.leader(), None, "one voter and an empty disk are no quorum");
    cluster.start(leader);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.lines(wiped), ["a"]);
}

/// A leader that has just restarted sends a snapshot of what it has applied, and behind it what it has
/// logged. The wiped server crashes between any two writes of these; then all that is left is a server
/// that never had the last transaction, which the wiped one had acknowledged once.
#[test]
fn a_wiped_server_does_not_vote_with_half_a_history() {
    let mut served = 0;
    for writes in 0..12 {
        let mut cluster = three().configure(|config| config.trust_empty = false);
        let leader = cluster.leader().expect("a leader");
        let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.write(leader, &[b"a", b"b", b"c"]);
        cluster.servers[other].disk.stalled = true;
        cluster.write(leader, &[b"z"]);
        assert_eq!(cluster.lines(leader), ["a", "b", "c", "z"], "committed without {other}");
        (0..3).for_each(|i| cluster.kill(i));
        cluster.servers[other].disk.stalled = false;
        cluster.servers[other].disk.writes_left = Some(1);
        cluster.servers[wiped].disk = Memory::default();
        cluster.servers[wiped].disk.writes_left = Some(writes);
        cluster.start_all();
        cluster.run(SECOND);
        (0..3).for_each(|i| cluster.kill(i));
        cluster.servers[wiped].disk.writes_left = None;
        cluster.servers[other].disk.writes_left = None;
        cluster.start(wiped);
        cluster.start(other);
        cluster.run(60 * SECOND);
        if let Some(leader) = cluster.leader() {
            assert_eq!(cluster.lines(leader), ["a", "b", "c", "z"], "after {writes} writes");
            served += 1;
        }
    }
    assert!((1..12).contains(&served), "sometimes it had all of it in time: {served}");
}

/// What a leader of ZooKeeper 3.8 has left out makes a history doubted: it counts, and is not told to the
/// next leader, who sends a snapshot of what it has applied and behind it what it has logged. All of this
/// takes effect at once: a crash between the two would leave less than the server had acknowledged.
#[test]
fn a_doubted_history_is_replaced_as_a_whole() {
    let mut served = 0;
    for writes in 0..12 {
        let mut cluster = three().configure(|config| config.trust_empty = false);
        let leader = cluster.leader().expect("a leader");
        let (doubted, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.write(leader, &[b"a", b"b", b"c"]);
        cluster.servers[other].disk.stalled = true;
        cluster.write(leader, &[b"z"]);
        assert_eq!(cluster.lines(leader), ["a", "b", "c", "z"], "committed without {other}");
        (0..3).for_each(|i| cluster.kill(i));
        // Both have logged one more, behind a zxid that was not used; one of them has the proof.
        for i in [leader, doubted] {
            let log = &mut cluster.servers[i].disk.image.log;
            let (last, bytes) = log.last().expect("z is logged").clone();
            let [unused, next] = [1, 2].map(|n| Zxid::from_raw(last.raw() + n));
            log.push((unused, TxnHeader::unused_txn(unused, 0).to_vec()));
            let mut txn = Vec::new();
            TxnHeader { zxid: next, ..TxnHeader::parse(&bytes).expect("a header") }.write(&mut txn);
            txn.extend_from_slice(&bytes[txn.len()..]);
            log.push((next, txn));
        }
        cluster.servers[leader].disk.unused_proven = DigestVerdict::Agrees;
        cluster.servers[other].disk.stalled = false;
        cluster.servers[other].disk.writes_left = Some(1);
        cluster.servers[doubted].disk.writes_left = Some(writes);
        cluster.start_all();
        cluster.run(SECOND);
        // Unless it did not even get to promise the epoch.
        assert_eq!(sync_mode(&cluster, doubted), (writes > 0).then_some(SyncMode::Snap));
        (0..3).for_each(|i| cluster.kill(i));
        for i in [doubted, other] {
            cluster.servers[i].disk.writes_left = None;
            cluster.start(i);
        }
        cluster.run(60 * SECOND);
        let leader = cluster.leader().expect("two of three, whose histories count");
        let lines = cluster.lines(leader);
        assert_eq!(lines[..lines.len().min(4)], ["a", "b", "c", "z"], "after {writes} writes");
        served += 1;
    }
    assert_eq!(served, 12);
}

/// A follower whose `acceptedEpoch` is damaged replaces its history by what the leader has committed, and by what follows
/// only later: until then its acknowledgements of that, from before, do not count.
#[test]
fn what_a_doubted_history_held_counts_when_it_is_acknowledged_again() {
    let mut cluster = Cluster::new(5, 0);
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let [doubted, late, third, fourth] = [1, 2, 3, 4].map(|n| (leader + n) % 5);
    cluster.write(leader, &[b"a"]);
    for i in [late, third, fourth] {
        cluster.servers[i].disk.stalled = true;
    }
    cluster.write(leader, &[b"z"]);
    let has = |cluster: &Cluster, i: usize| cluster.servers[i].disk.image.log.len();
    assert_eq!([leader, doubted, late].map(|i| has(&cluster, i)), [2, 2, 1]);
    cluster.kill(doubted);
    cluster.servers[doubted].disk.image.accepted = Some(Epoch(1 << 30));
    // It reads up to the beginning of the snapshot.
    cluster.slow = Some((doubted, 0));
    cluster.start(doubted);
    for _ in 0..10_000 {
        if cluster.node(doubted).peer().status().phase == Phase::Synchronization {
            break;
        }
        cluster.take(10);
        cluster.run(SECOND / 1000);
    }
    assert_eq!(cluster.lines(leader), ["a"]);
    cluster.servers[late].disk.stalled = false;
    cluster.run(SECOND / 100);
    assert_eq!([leader, late].map(|i| has(&cluster, i)), [2, 2]);
    assert_eq!(cluster.lines(leader), ["a"], "two of five have it for good");
    cluster.slow = None;
    cluster.take(0);
    cluster.run(SECOND / 100);
    assert_eq!(sync_mode(&cluster, doubted), Some(SyncMode::Snap));
    assert_eq!(cluster.lines(leader), ["a", "z"]);
}

/// Who comes back to the leader it had has the epoch on its disk already, but not what it has missed.
#[test]
fn what_was_missed_is_durable_before_it_is_acknowledged() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    let away = (leader + 1) % 3;
    cluster.isolate(away);
    cluster.write(leader, &[b"a", b"b", b"c"]);
    cluster.run(30 * SECOND);
    assert!(!cluster.serving(away));
    cluster.servers[away].disk.stalled = true;
    cluster.cut.clear();
    cluster.run(5 * SECOND);
    assert_eq!(sync_mode(&cluster, away), Some(SyncMode::Diff));
    assert_eq!(cluster.node(away).peer().status().phase, Phase::Synchronization);
    cluster.servers[away].disk.stalled = false;
    cluster.run(SECOND);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(cluster.serving(away));
    assert_eq!(cluster.lines(away), ["a", "b", "c"]);
}

#[test]
fn an_empty_ensemble_begins_when_all_are_seen_to_be_empty() {
    let mut cluster = Cluster::new(3, 0).configure(|config| config.trust_empty = false);
    cluster.start(0);
    cluster.start(1);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), None);
    cluster.start(2);
    cluster.run(2 * SECOND);
    assert!((0..3).all(|i| cluster.serving(i)));
}

#[test]
fn uncommitted_proposals_of_an_isolated_leader_are_truncated() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[b"kept"]);
    cluster.isolate(leader);
    cluster.write(leader, &[b"lost"]);
    cluster.run(30 * SECOND);
    let next = cluster.leader().expect("the others have a leader");
    assert_ne!(next, leader);
    assert_eq!(cluster.node(leader).peer().status().phase, Phase::Election, "lost its quorum");
    cluster.cut.clear();
    cluster.run(90 * SECOND);
    assert_eq!(sync_mode(&cluster, leader), Some(SyncMode::Trunc));
    cluster.write(next, &[b"more"]);
    for i in 0..3 {
        assert_eq!(cluster.lines(i), ["kept", "more"]);
    }
    cluster.kill(leader);
    cluster.start(leader);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(leader), ["kept", "more"]);
}

#[test]
fn a_snapshot_that_is_being_written_ends_with_the_history_it_belongs_to() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    cluster.servers[leader].disk.snapshot_every = Some(1);
    cluster.servers[leader].disk.snapshot_stalled = true;
    cluster.write(leader, &[b"a"]);
    cluster.isolate(leader);
    cluster.write(leader, &[b"lost"]);
    cluster.run(30 * SECOND);
    cluster.cut.clear();
    cluster.run(30 * SECOND);
    assert_eq!(sync_mode(&cluster, leader), Some(SyncMode::Trunc));
    assert_eq!(cluster.servers[leader].disk.image.snapshot, None);
    cluster.servers[leader].disk.snapshot_stalled = false;
    cluster.write(leader, &[b"b"]);
    cluster.run(SECOND);
    assert!(cluster.servers[leader].disk.image.snapshot.is_some(), "another one is begun");
    assert_eq!(cluster.lines(leader), ["a", "b"]);
}

/// A server that knows that no better vote can come leads at once; those for whom a voter may be there still wait for the
/// finalising wait, which is as long as `initLimit` here. It waits for them as long.
#[test]
fn a_leader_that_has_not_waited_waits_for_those_who_do() {
    let mut cluster = Cluster::new(5, 0).configure(|config| {
        config.tick_time = Duration::from_millis(20);
        config.init_limit = 10;
        config.detection.heartbeat = Duration::ZERO;
    });
    cluster.start_all();
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("a leader");
    let rest: Vec<usize> = (0..5).filter(|i| *i != leader).collect();
    let (mute, next) = (rest[0], rest[3]);
    // The next leader cannot reach one that the others can, and that never says anything.
    cluster.kill(mute);
    cluster.cut.push((mute, next));
    cluster.start(mute);
    cluster.run(Duration::from_millis(500));
    assert!(cluster.serving(mute));
    cluster.freeze(mute);
    cluster.kill(leader);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.leader(), Some(next));
    assert!(rest[1..].iter().all(|i| cluster.serving(*i)));
}

#[test]
fn five_servers_survive_two_and_stop_without_a_quorum() {
    let mut cluster = Cluster::new(5, 0);
    cluster.start_all();
    cluster.run(SECOND);
    cluster.kill(4);
    cluster.kill(3);
    cluster.run(SECOND);
    let leader = cluster.leader().expect("three of five");
    cluster.write(leader, &[b"three"]);
    let gone = (0..3).find(|i| *i != leader).expect("another");
    cluster.kill(gone);
    cluster.write(leader, &[b"two"]);
    assert_eq!(cluster.lines(leader), ["three"], "nothing commits without a quorum");
    cluster.run(30 * SECOND);
    assert_eq!(cluster.leader(), None);
    cluster.start(4);
    cluster.run(90 * SECOND);
    assert!(cluster.leader().is_some());
}

#[test]
fn observers_learn_and_forward() {
    let mut cluster = Cluster::new(3, 2);
    cluster.start_all();
    cluster.run(2 * SECOND);
    cluster.write(4, &[b"by an observer"]);
    for i in 0..5 {
        assert_eq!(cluster.lines(i), ["by an observer"], "server {i}");
    }
    // Observers do not count.
    let followers: Vec<usize> = (0..3).filter(|i| Some(*i) != cluster.leader()).collect();
    cluster.kill(followers[0]);
    cluster.kill(followers[1]);
    let leader = cluster.leader().expect("not noticed yet");
    cluster.write(leader, &[b"never"]);
    assert_eq!(cluster.lines(leader), ["by an observer"]);
}

#[test]
fn bytes_come_one_at_a_time() {
    let mut cluster = Cluster::new(3, 1);
    cluster.read_max = 1;
    cluster.start_all();
    cluster.run(2 * SECOND);
    cluster.write(0, &[b"x", b"y"]);
    cluster.write(3, &[b"z"]);
    for i in 0..4 {
        assert_eq!(cluster.lines(i), ["x", "y", "z"]);
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    for i in 0..3 {
        cluster.servers[i].disk.stalled = true;
    }
    cluster.write(leader, &[b"waits"]);
    assert_eq!(cluster.lines(leader), Vec::<String>::new());
    let follower = (leader + 1) % 3;
    cluster.servers[follower].disk.stalled = false;
    cluster.settle();
    assert_eq!(cluster.lines(leader), Vec::<String>::new(), "one of three is durable");
    cluster.servers[leader].disk.stalled = false;
    cluster.settle();
    assert_eq!(cluster.lines(leader), ["waits"]);
}

#[test]
fn a_sync_of_the_leader_ends_with_the_writes_before_it() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    for i in 0..3 {
        cluster.servers[i].disk.stalled = true;
    }
    // The quorum answers the sync's PING long before it has the write on disk.
    cluster.write(leader, &[b"before", b"?"]);
    assert_eq!(cluster.node(leader).app().synced, []);
    for i in 0..3 {
        cluster.servers[i].disk.stalled = false;
    }
    cluster.settle();
    assert_eq!(cluster.lines(leader), ["before"]);
    assert_eq!(cluster.node(leader).app().synced, [(Some(1), 1)]);
}

/// Transactions that are large beside the window and slow on the wire: the leader waits, and drops
/// nobody.
#[test]
fn a_full_window_waits_for_slow_streams_and_disks() {
    let mut cluster = Cluster::new(3, 1).configure(|config| {
        config.limits.window_len_max_bytes = 2048;
        config.limits.retained_len_max_bytes = 1024;
        config.limits.field_len_max_bytes = 1024;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.closed.clear();
    cluster.send_max = 100;
    let lines: Vec<String> = (0..200).map(|i| format!("{i:250}")).collect();
    cluster.write(leader, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert!((0..4).all(|i| cluster.lines(i) == lines));
    // One follower's disk is slower than its stream.
    cluster.send_max = usize::MAX;
    let slow = (leader + 1) % 3;
    cluster.servers[slow].disk.stalled = true;
    cluster.write(leader, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
    cluster.servers[slow].disk.stalled = false;
    cluster.settle();
    assert!((0..4).all(|i| cluster.lines(i).len() == 400));
    assert_eq!(cluster.closed, []);
}

/// On a learner's connection the acknowledgements that make room stand behind requests that want it.
#[test]
fn a_full_window_takes_requests_in_front_of_acknowledgements() {
    let mut cluster = Cluster::new(3, 0).configure(|config| {
        config.limits.window_len_max_bytes = 2048;
        config.limits.retained_len_max_bytes = 1024;
        config.limits.requests_len_max_bytes = 32 * 1024;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.closed.clear();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let lines: Vec<String> = (0..40).map(|i| format!("{i:250}")).collect();
    for i in followers {
        cluster.servers[i].disk.stalled = true;
    }
    for i in followers {
        cluster.write(i, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    assert_eq!(cluster.lines(leader).len(), 0);
    for i in followers {
        cluster.servers[i].disk.stalled = false;
    }
    cluster.settle();
    assert!((0..3).all(|i| cluster.lines(i).len() == 80));
    assert_eq!(cluster.closed, []);
}

#[test]
fn a_long_history_is_bounded_in_memory_and_restored_from_disk() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    for i in 0..3 {
        cluster.servers[i].disk.snapshot_every = Some(700);
    }
    let away = (leader + 1) % 3;
    cluster.kill(away);
    let lines: Vec<String> = (0..3000).map(|i| format!("line {i}")).collect();
    for chunk in lines.chunks(100) {
        cluster.write(leader, &chunk.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
    }
    cluster.start(away);
    cluster.run(SECOND);
    assert_eq!(sync_mode(&cluster, away), Some(SyncMode::Snap), "too far behind for the window");
    assert_eq!(cluster.lines(away), lines);
    for i in 0..3 {
        cluster.kill(i);
    }
    cluster.start_all();
    cluster.run(2 * SECOND);
    assert!((0..3).all(|i| cluster.lines(i) == lines));
}

/// More than a learner has room for until NEWLEADER comes as a snapshot, if not at the first attempt.
#[test]
fn who_misses_more_than_a_window_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 0).configure(|config| {
        config.limits.window_len_max_bytes = 2048;
        config.limits.retained_len_max_bytes = 1024;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let late = (leader + 1) % 3;
    cluster.write(leader, &[b"first"]);
    cluster.kill(late);
    let lines: Vec<String> = (0..100).map(|i| format!("{i:250}")).collect();
    cluster.write(leader, &lines.iter().map(String::as_bytes).collect::<Vec<_>>());
    cluster.start(late);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.lines(late).len(), 101);
    assert_eq!(sync_mode(&cluster, late), Some(SyncMode::Snap));
    assert!(cluster.closed.contains(&(late, CloseReason::TooFarBehind)), "{:?}", cluster.closed);
}

#[test]
fn what_the_window_has_forgotten_comes_from_the_log() {
    let mut cluster = three();
    let leader = cluster.leader().expect("a leader");
    let away = (leader + 1) % 3;
    cluster.write(away, &[b"first"]);
    cluster.kill(away);
    let lines: Vec<String> = (0..20_000).map(|i| format!("line {i} {}", "x".repeat(100))).collect();
    for chunk in lines.chunks(100) {
        cluster.write(leader, &chunk.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
    }
    cluster.start(away);
    cluster.run(SECOND);
    assert_eq!(sync_mode(&cluster, away), Some(SyncMode::Diff));
    assert_eq!(cluster.lines(away)[1..], lines);
    cluster.write(away, &[b"last"]);
    assert_eq!(cluster.lines(leader).len(), 20_002);
}
