//! Observers that learn from followers: what they show, what they ask, and whom they do not hold up.

use std::time::Duration;

use zab_harness::{Cluster, Memory};
use zab_proto::{CloseReason, ServerState, Sid, SyncMode};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 3000;

fn cluster(voters: usize, observers: usize) -> Cluster {
    let mut cluster = Cluster::new(voters, observers).configure(|config| {
        config.detection.heartbeat = Duration::ZERO;
        config.observer_master_port = Some(PORT);
    });
    cluster.start_all();
    cluster.run(SECOND);
    cluster.closed.clear();
    cluster
}

fn learners(cluster: &Cluster, i: usize) -> Vec<Sid> {
    let learners = cluster.node(i).peer().learners();
    learners.filter(|learner| learner.observer).map(|learner| learner.origin.sid).collect()
}

/// Who serves an observer.
fn master(cluster: &Cluster, observer: usize, voters: usize) -> usize {
    let sid = Sid(observer as i64 + 1);
    let running = |i: &usize| cluster.servers[*i].node.is_some();
    let serves = |i: &usize| running(i) && learners(cluster, *i).contains(&sid);
    (0..voters).find(serves).expect("somebody serves it")
}

#[test]
fn followers_serve_observers_and_the_leader_has_none() {
    let mut cluster = cluster(3, 6);
    let leader = cluster.leader().expect("a leader");
    assert!((3..9).all(|i| cluster.serving(i)));
    assert_eq!(learners(&cluster, leader), []);
    let followers = (0..3).filter(|i| *i != leader);
    assert!(followers.clone().all(|i| !learners(&cluster, i).is_empty()));
    assert_eq!(followers.map(|i| learners(&cluster, i).len()).sum::<usize>(), 6);
    // Each observer's client writes through its master, and sees what it has written.
    for i in 3..9 {
        cluster.write(i, &[b"line", b"?"]);
    }
    cluster.run(3 * SECOND);
    for i in 0..9 {
        assert_eq!(cluster.lines(i).len(), 6, "server {i}");
    }
    for i in 3..9 {
        let synced = &cluster.node(i).app().synced;
        assert_eq!(synced.len(), 1, "each answer comes to who has asked, {i}");
    }
    let status = cluster.node(4).peer().status();
    assert_eq!(
        (status.state, status.leader),
        (ServerState::Observing, Some(Sid(leader as i64 + 1)))
    );
    assert_eq!(cluster.closed, []);
}

/// What is in flight at the master is told to nobody before the master is told that it is committed.
#[test]
fn an_observer_shows_nothing_that_its_master_does_not_know_to_be_committed() {
    let mut cluster = cluster(3, 1);
    let leader = cluster.leader().expect("a leader");
    let near = master(&cluster, 3, 3);
    let far = (0..3).find(|i| ![leader, near].contains(i)).expect("another follower");
    cluster.kill(far);
    cluster.freeze(near);
    cluster.write(leader, &[b"a"]);
    assert_eq!(cluster.lines(3).len(), 0);
    cluster.thaw(near);
    cluster.run(SECOND);
    assert_eq!((cluster.lines(near).len(), cluster.lines(3).len()), (1, 1));
}

#[test]
fn an_observer_whose_master_is_lost_goes_to_the_next_one() {
    let mut cluster = cluster(3, 2);
    let leader = cluster.leader().expect("a leader");
    let before = master(&cluster, 3, 3);
    cluster.kill(before);
    cluster.write(leader, &[b"in between"]);
    cluster.run(SECOND);
    let after = master(&cluster, 3, 3);
    assert_ne!((after, after), (before, leader));
    assert!(cluster.serving(3) && cluster.serving(4));
    cluster.write(3, &[b"through the other"]);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(3), ["in between", "through the other"]);
    let modes = &cluster.node(3).app().history;
    assert!(modes.iter().all(|status| status.sync != Some(SyncMode::Snap)));
}

/// The new master may be behind the old one: it is waited for, and the observer is not cut back.
#[test]
fn an_observer_that_is_ahead_of_its_new_master_waits_for_it() {
    let mut cluster = cluster(3, 1);
    let leader = cluster.leader().expect("a leader");
    let before = master(&cluster, 3, 3);
    let slow = (0..3).find(|i| ![leader, before].contains(i)).expect("another follower");
    cluster.slow = Some((slow, 0));
    cluster.write(leader, &[b"a", b"b"]);
    assert_eq!((cluster.lines(3).len(), cluster.lines(slow).len()), (2, 0));
    // The slow one has to hear the observer: it takes everything that is short.
    cluster.kill(before);
    cluster.take(200);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(3).len(), 2);
    cluster.slow = None;
    cluster.take(0);
    cluster.run(2 * SECOND);
    assert!(cluster.serving(3));
    cluster.write(3, &[b"c"]);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(3), ["a", "b", "c"]);
}

/// An empty observer, one that lags behind the window, and one that the log serves.
#[test]
fn masters_send_snapshots_and_what_is_in_their_logs() {
    let mut cluster = Cluster::new(3, 2).narrow();
    cluster = cluster.configure(|config| config.observer_master_port = Some(PORT));
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let lines: Vec<String> = (0..100).map(|i| format!("{i:250}")).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    // Forty windows are written while an observer reads nothing: nobody waits for it, its master least.
    cluster.slow = Some((3, 77));
    cluster.write(leader, &lines);
    assert_eq!(cluster.lines(leader).len(), 100, "the writes wait for nobody");
    assert_eq!(cluster.lines(4).len(), 100, "nor does another observer");
    let near = master(&cluster, 3, 3);
    assert!(cluster.node(near).peer().window_len_bytes() <= 2048 + 1024);
    for _ in 0..1000 {
        cluster.take(61);
    }
    assert_eq!(cluster.lines(3).len(), 100, "{:?}", cluster.closed);
    cluster.slow = None;
    cluster.take(0);
    // One comes back after a while, one comes with nothing.
    cluster.kill(3);
    cluster.kill(4);
    cluster.servers[4].disk = Memory::default();
    cluster.write(leader, &lines[..6]);
    // Otherwise an empty directory counts, and the log has everything.
    let mut cluster = cluster.configure(|config| config.trust_empty = false);
    cluster.start(3);
    cluster.start(4);
    cluster.run(3 * SECOND);
    assert_eq!((cluster.lines(3).len(), cluster.lines(4).len()), (106, 106));
    let sync = |i| cluster.node(i).peer().status().sync;
    assert_eq!((sync(3), sync(4)), (Some(SyncMode::Diff), Some(SyncMode::Snap)));
    assert_eq!(learners(&cluster, leader), []);
}

/// Who takes nothing at all is closed, and it was never waited for.
#[test]
fn an_observer_that_reads_nothing_is_closed_by_its_master() {
    let mut cluster = cluster(3, 1);
    let leader = cluster.leader().expect("a leader");
    let near = master(&cluster, 3, 3);
    cluster.deaf = Some(3);
    for _ in 0..30 {
        cluster.write(leader, &[b"line"]);
        cluster.run(SECOND);
    }
    assert_eq!(cluster.lines(near).len(), 30);
    let silent = [CloseReason::NotReading, CloseReason::Silent];
    let by_master = |(i, reason): &(usize, CloseReason)| *i == near && silent.contains(reason);
    assert!(cluster.closed.iter().any(by_master), "{:?}", cluster.closed);
}

/// Three voters and so many observers: what the leader, and who sends most of the others, sends for ten writes of 100
/// bytes and two ticks, and the bytes in the window of any server afterwards.
fn load(observers: usize, port: Option<u16>) -> (u64, u64, usize) {
    let mut cluster = Cluster::new(3, observers).configure(|config| {
        config.detection.heartbeat = Duration::ZERO;
        config.observer_master_port = port;
        config.limits.links_max = 256 + 2 * observers;
    });
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    assert!((0..3 + observers).all(|i| cluster.serving(i)));
    cluster.sent.fill(0);
    cluster.write(leader, &[&[7; 100][..]; 10]);
    cluster.run(4 * SECOND);
    assert!((0..3 + observers).all(|i| cluster.lines(i).len() == 10));
    let others = (0..3).filter(|i| *i != leader).map(|i| cluster.sent[i]).max();
    let window = (0..3).map(|i| cluster.node(i).peer().window_len_bytes()).max();
    (cluster.sent[leader], others.unwrap_or(0), window.unwrap_or(0))
}

#[test]
fn the_leader_sends_to_its_followers_alone() {
    let observers = std::env::var("OBSERVERS").map_or(60, |n| n.parse().expect("a number"));
    let (direct, none) = (load(observers, None), load(0, None));
    let masters = load(observers, Some(PORT));
    println!(
        "{observers} observers: {direct:?} without masters, {masters:?} with them; without observers: {none:?}"
    );
    assert!(masters.0 < none.0 + none.0 / 2 && direct.0 > 10 * masters.0);
    assert!(masters.1 < direct.0 * 3 / 4, "each follower has its share");
    assert!(masters.2 <= direct.2.max(none.2));
}

/// Nobody is served by a follower that has no leader, and voters never are.
#[test]
fn without_its_leader_a_follower_serves_no_observer() {
    let mut cluster = cluster(3, 1);
    let leader = cluster.leader().expect("a leader");
    let near = master(&cluster, 3, 3);
    let far = (0..3).find(|i| ![leader, near].contains(i)).expect("another follower");
    cluster.kill(leader);
    cluster.kill(far);
    cluster.run(SECOND);
    assert!(!cluster.serving(near) && !cluster.serving(3));
    assert_eq!(learners(&cluster, near), []);
    cluster.start(leader);
    cluster.run(20 * SECOND);
    assert!(cluster.serving(3));
    let again = cluster.leader().expect("a leader");
    assert_eq!(learners(&cluster, again), []);
}
