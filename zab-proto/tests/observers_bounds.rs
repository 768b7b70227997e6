//! What a server keeps for observers, which are no members that anybody depends on, is bounded: each bound is
//! exceeded twofold, at the follower that serves them and at the leader.

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{CloseReason, Sid, Zxid};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 3000;

/// Questions of observers that may wait at a follower for its leader's answers, and places in the history at which
/// a learner may wait for the answers to its syncs.
const ASKED_MAX: usize = 1 << 16;

/// Sessions of observers that may wait for the leader's next PING.
const TOUCHED_MAX: usize = 1 << 20;

fn cluster(observers: usize, port: Option<u16>) -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, observers).configure(|config| {
        config.detection.heartbeat = Duration::ZERO;
        config.observer_master_port = port;
        // What is asked meets the bound on the number of questions first.
        config.limits.requests_len_max_bytes = 64 << 20;
    });
    cluster.start_all();
    cluster.run(SECOND);
    cluster.closed.clear();
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

/// The observers that a server serves.
fn served(cluster: &Cluster, i: usize) -> Vec<usize> {
    let learners = cluster.node(i).peer().learners().filter(|learner| learner.observer);
    learners.map(|learner| usize::try_from(learner.origin.sid.0 - 1).expect("a member")).collect()
}

/// A follower that serves two observers or more, and these.
fn master(cluster: &Cluster, leader: usize) -> (usize, Vec<usize>) {
    let all = (0..3).filter(|i| *i != leader).map(|i| (i, served(cluster, i)));
    all.max_by_key(|(_, served)| served.len()).expect("there are followers")
}

fn packet(kind: PacketType, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::new(kind, Zxid::from_raw(-1), Some(data)).write(&mut bytes);
    bytes
}

/// A client's sync: session, cxid and operation, and what the journal knows it by.
fn sync() -> Vec<u8> {
    let mut data = vec![0; 12];
    data.extend_from_slice(&9_i32.to_be_bytes());
    data.push(b'?');
    packet(PacketType::REQUEST, &data)
}

fn session(id: u64) -> [u8; 12] {
    let mut entry = [0; 12];
    entry[..8].copy_from_slice(&id.to_be_bytes());
    entry[8..].copy_from_slice(&4000_u32.to_be_bytes());
    entry
}

/// Two observers ask in turn for syncs that the leader does not answer. (Those of one in a row are one.) Who asks
/// for too many is closed; what this server's own clients asked before and after that is answered.
#[test]
fn observers_whose_syncs_wait_at_their_master_in_too_great_a_number_are_closed() {
    let (mut cluster, leader) = cluster(4, Some(PORT));
    let (near, served) = master(&cluster, leader);
    cluster.freeze(leader);
    cluster.write(near, &[b"?"]);
    let mut asked = 0;
    for n in 0..2 * ASKED_MAX {
        let observer = served[n % 2];
        if self::served(&cluster, near).contains(&observer) {
            cluster.forge(observer, near, &sync());
            asked += 1;
        }
    }
    // The own one is the first that waits. Who asked last may go on, as that takes no more room.
    assert_eq!(asked, ASKED_MAX + ASKED_MAX / 2);
    let closed = |cluster: &Cluster| cluster.closed.clone();
    assert_eq!(closed(&cluster), [(near, CloseReason::NotReading)]);
    cluster.write(near, &[b"?"]);
    cluster.forge(served[0], near, &sync());
    assert_eq!(closed(&cluster), [(near, CloseReason::NotReading); 2]);
    cluster.write(near, &[b"?"]);
    assert_eq!(cluster.node(near).app().synced.len(), 0);
    cluster.thaw(leader);
    cluster.run(SECOND);
    assert_eq!(cluster.node(near).app().synced.len(), 3, "each answer comes to who has asked");
    assert!((0..7).all(|i| cluster.serving(i)), "{:?}", cluster.closed);
    assert_eq!(cluster.leader(), Some(leader));
}

/// The same with questions about sessions.
#[test]
fn an_observer_whose_questions_wait_at_its_master_in_too_great_a_number_is_closed() {
    let (mut cluster, leader) = cluster(4, Some(PORT));
    let (near, served) = master(&cluster, leader);
    cluster.freeze(leader);
    let question = |id: usize| packet(PacketType::REVALIDATE, &session(id as u64));
    for chunk in 0..2 * ASKED_MAX / 1024 {
        let questions: Vec<u8> =
            (chunk * 1024..).take(1024).flat_map(|id| question(id + 1)).collect();
        if self::served(&cluster, near).contains(&served[0]) {
            cluster.forge(served[0], near, &questions);
        }
        assert_eq!(cluster.closed.is_empty(), chunk < ASKED_MAX / 1024);
    }
    assert_eq!(cluster.closed, [(near, CloseReason::NotReading)]);
    // Another one that asks is closed, too, and comes back; this server's own clients are answered.
    cluster.forge(served[1], near, &question(1 << 40));
    cluster.act(near, |_, core| assert!(core.revalidate(&session(1 << 41))));
    assert_eq!(cluster.closed, [(near, CloseReason::NotReading); 2]);
    cluster.thaw(leader);
    cluster.run(SECOND);
    assert_eq!(cluster.node(near).app().revalidated, 1);
    assert!((0..7).all(|i| cluster.serving(i)), "{:?}", cluster.closed);
}

/// More sessions than may wait for the leader's next PINGs: those that are kept reach it, as many with each answer as a
/// packet holds, and each once.
#[test]
fn sessions_of_observers_that_wait_for_the_leaders_next_ping_are_bounded() {
    let (mut cluster, leader) = cluster(2, Some(PORT));
    let (near, served) = master(&cluster, leader);
    const EACH: usize = 1 << 16;
    // The second time the same ones: those that are waiting are named again.
    for _ in 0..2 {
        for chunk in 0..2 * TOUCHED_MAX / EACH {
            let ids = (chunk * EACH..).take(EACH);
            let sessions: Vec<u8> = ids.flat_map(|id| session(id as u64)).collect();
            cluster.forge(served[0], near, &packet(PacketType::PING, &sessions));
        }
    }
    assert_eq!(cluster.node(leader).app().touched, 0);
    cluster.run(30 * SECOND);
    assert_eq!(cluster.node(leader).app().touched, TOUCHED_MAX);
    assert!((0..5).all(|i| cluster.serving(i)));
    assert_eq!(cluster.closed, []);
}

/// Under the leader itself: an observer that asks for syncs at more places in the history than it may, as none of
/// them is committed.
#[test]
fn an_observer_whose_syncs_wait_at_the_leader_at_too_many_places_is_closed() {
    let (mut cluster, leader) = cluster(1, None);
    let mut cluster = {
        cluster.freeze((leader + 1) % 3);
        cluster.freeze((leader + 2) % 3);
        cluster
    };
    let mut places = 0;
    for _ in 0..2 * ASKED_MAX {
        let before = cluster.node(leader).peer().last_zxid();
        cluster.act(leader, |journal, core| {
            let Some(zxid) = core.next_zxid().filter(|_| core.can_propose(TxnHeader::LEN)) else {
                return;
            };
            assert!(zxid > before);
            journal.submit(core, 1, b"");
        });
        assert!(cluster.node(leader).peer().last_zxid() > before, "the window has room");
        if served(&cluster, leader) == [3] {
            cluster.forge(3, leader, &sync());
            places += 1;
        }
    }
    assert_eq!(places, ASKED_MAX + 1);
    assert_eq!(cluster.closed, [(leader, CloseReason::NotReading)]);
    assert_eq!(cluster.node(leader).peer().config().sid, Sid(leader as i64 + 1));
    cluster.thaw((leader + 1) % 3);
    cluster.thaw((leader + 2) % 3);
    cluster.run(SECOND);
    assert!((0..4).all(|i| cluster.serving(i)));
}
