//! What runs out: zxids and connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::{Channel, CloseReason, Epoch, Incoming, Sid};

const SECOND: Duration = Duration::from_secs(1);

fn alone() -> Cluster {
    Cluster::new(1, 0).configure(|config| {
        config.standalone = true;
        config.trust_empty = true;
        config.limits.counter_max = 5;
    })
}

/// Alone, the next epoch begins by itself, also when the counter ends with the process.
#[test]
fn a_standalone_server_goes_on_when_the_counter_is_used_up() {
    for restarts in [false, true] {
        let mut cluster = alone();
        cluster.start(0);
        for n in 1..=13 {
            cluster.write(0, &[b"."]);
            assert_eq!(cluster.lines(0).len(), n);
            if restarts {
                cluster.kill(0);
                cluster.start(0);
            }
        }
        let peer = cluster.node(0).peer();
        assert_eq!(peer.last_zxid().raw(), 0x3_0000_0001, "four of each epoch");
        assert_eq!(peer.epochs(), (Epoch(3), Epoch(3)));
        let image = &cluster.servers[0].disk.image;
        assert_eq!((image.accepted, image.current), (Some(Epoch(3)), Some(Epoch(3))));
    }
}

/// Its directory is as good as any for an ensemble.
#[test]
fn a_standalone_history_of_many_epochs_counts_in_an_ensemble() {
    let mut cluster = alone();
    cluster.start(0);
    (0..13).for_each(|_| cluster.write(0, &[b"."]));
    cluster.kill(0);
    let image = cluster.servers[0].disk.image.clone();
    let mut cluster = Cluster::new(3, 0).configure(|config| config.trust_empty = false);
    cluster.servers[0].disk.image = image;
    cluster.servers[1].disk.image = cluster.servers[0].disk.image.clone();
    cluster.start_all();
    cluster.run(5 * SECOND);
    assert!((0..3).all(|i| cluster.serving(i) && cluster.lines(i).len() == 13));
}

/// An ensemble elects at the end of each epoch, with all its learners, and loses nothing.
#[test]
fn an_ensemble_goes_on_when_the_counter_is_used_up() {
    let mut cluster = Cluster::new(3, 1).configure(|config| config.limits.counter_max = 5);
    cluster.start_all();
    cluster.run(SECOND);
    // The leader's client has to ask again after an election, a learner's, too.
    for n in 0..40 {
        let i = (n + cluster.leader().expect("a leader")) % 4;
        cluster.write(i, &[b"."]);
        cluster.run(SECOND);
        assert!((0..4).all(|i| cluster.serving(i)));
    }
    let count = cluster.lines(0).len();
    assert!(count >= 30, "{count}");
    assert!((0..4).all(|i| cluster.lines(i).len() == count));
    assert!(cluster.node(0).peer().last_zxid().epoch() > Epoch(6));
}

fn strangers(cluster: &mut Cluster, i: usize, count: usize) -> usize {
    let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1).into());
    let now = cluster.now;
    let node = cluster.servers[i].node.as_mut().expect("a running server");
    (0..count).filter(|_| node.accept(now, Channel::Quorum, &incoming).is_some()).count()
}

/// Connections that say nothing take no place from those that do: not at a leader, not at a server
/// that looks for one, and they end by themselves.
#[test]
fn silent_connections_keep_nobody_out() {
    let mut cluster = Cluster::new(3, 1).configure(|config| config.limits.links_max = 8);
    cluster.start_all();
    cluster.run(SECOND);
    let leader = cluster.leader().expect("a leader");
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(strangers(&mut cluster, leader, 16), 16, "the older ones make room");
    for late in [follower, 3] {
        cluster.kill(late);
        strangers(&mut cluster, leader, 16);
        cluster.start(late);
        cluster.run(SECOND);
        assert!(cluster.serving(late));
    }
    assert!(cluster.closed.contains(&(leader, CloseReason::MadeRoom)));
    assert_eq!(cluster.node(leader).peer().learners().count(), 3);
    // Without a quorum there is no leader, and who comes is held.
    cluster.kill(leader);
    cluster.kill(follower);
    cluster.kill(3);
    cluster.run(30 * SECOND);
    cluster.closed.clear();
    assert_eq!(strangers(&mut cluster, other, 16), 16);
    cluster.run(21 * SECOND);
    let ended = |reason| cluster.closed.iter().filter(|closed| **closed == (other, reason)).count();
    assert_eq!((ended(CloseReason::MadeRoom), ended(CloseReason::Silent)), (8, 8));
    strangers(&mut cluster, other, 16);
    for i in [leader, follower, 3] {
        cluster.start(i);
        strangers(&mut cluster, other, 16);
    }
    cluster.run(2 * SECOND);
    assert!((0..4).all(|i| cluster.serving(i)));
    assert_eq!(cluster.node(0).peer().config().sid, Sid(1));
}
