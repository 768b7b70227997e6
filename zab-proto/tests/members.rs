//! Changes of the members where single steps matter. Random ones, with faults in every step, are the
//! simulator's (`zab-sim --profile members`).

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Config, Member, Membership, Role, ServerState, Sid};

const SECOND: Duration = Duration::from_secs(1);

/// An ensemble of so many voters and observers, whose members may change, that has a leader.
fn serving(voters: usize, observers: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(voters, observers).configure(|config| config.reconfig = true);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

fn ensemble(cluster: &Cluster, i: usize) -> Membership {
    cluster.node(i).peer().config().ensemble.clone()
}

/// The leader proposes the members that `change` makes of those of now.
fn propose(cluster: &mut Cluster, leader: usize, change: impl FnOnce(&mut Membership)) {
    let mut next = ensemble(cluster, leader);
    change(&mut next);
    cluster.act(leader, |_, core| {
        let zxid = core.next_zxid().expect("room");
        next.version = zxid.raw();
        let mut txn = Vec::new();
        TxnHeader { client_id: 1, cxid: 1, zxid, time: 0, kind: 16 }.write(&mut txn);
        for field in ["/zookeeper/config", &next.text()] {
            txn.extend_from_slice(&u32::try_from(field.len()).expect("short").to_be_bytes());
            txn.extend_from_slice(field.as_bytes());
        }
        txn.extend_from_slice(&(-1_i32).to_be_bytes());
        core.propose(&txn).expect("it is taken");
    });
}

fn set_role(ensemble: &mut Membership, sid: i64, role: Role) {
    ensemble.members.get_mut(&Sid(sid)).expect("a member").role = role;
}

/// An observer becomes a voter by a change that it has not heard of, and without which nothing is committed
/// any more. It comes as an observer, as it does not know better, and has to count all the same.
#[test]
fn an_observer_that_is_needed_as_a_voter_counts_before_it_knows() {
    let (mut cluster, leader) = serving(1, 1);
    // Observers are not told of proposals.
    propose(&mut cluster, leader, |next| set_role(next, 2, Role::Participant));
    cluster.run(SECOND);
    assert!(cluster.node(0).peer().is_reconfiguring());
    cluster.kill(0);
    cluster.start(0);
    cluster.run(20 * SECOND);
    assert!(cluster.serving(0) && cluster.serving(1));
    for i in 0..2 {
        assert_eq!(ensemble(&cluster, i).voters().count(), 2, "server {i}");
        assert!(!cluster.node(i).peer().is_reconfiguring());
        assert_ne!(cluster.node(i).peer().status().state, ServerState::Observing);
    }
}

/// The same where observers learn from followers. None of these serves before the epoch is established, which
/// it is not without this observer: the leader itself has to hear of it.
#[test]
fn an_observer_that_is_needed_as_a_voter_goes_to_the_leader_and_not_to_a_follower() {
    let port = |config: &mut Config| {
        config.reconfig = true;
        config.observer_master_port = Some(2191);
    };
    let mut cluster = Cluster::new(3, 1).configure(port);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    let away = (0..3).find(|i| *i != leader).expect("a follower");
    cluster.kill(away);
    // Two of three voters have it on disk, and of the four to come one more is needed.
    propose(&mut cluster, leader, |next| set_role(next, 4, Role::Participant));
    cluster.run(SECOND);
    let rest: Vec<usize> = (0..3).filter(|i| *i != away).collect();
    rest.iter().for_each(|i| cluster.kill(*i));
    rest.iter().for_each(|i| cluster.start(*i));
    cluster.run(30 * SECOND);
    for i in [rest[0], rest[1], 3] {
        assert!(cluster.serving(i), "server {i}");
        assert_eq!(ensemble(&cluster, i).voters().count(), 4, "server {i}");
        assert_ne!(cluster.node(i).peer().status().state, ServerState::Observing);
    }
    cluster.start(away);
    cluster.run(10 * SECOND);
    assert!(cluster.serving(away));
}

/// What an observer says counts for no quorum as long as it has no vote in any configuration.
#[test]
fn an_observer_without_a_vote_does_not_count() {
    let (mut cluster, _) = serving(3, 1);
    (0..3).for_each(|i| cluster.kill(i));
    cluster.start(0);
    cluster.run(20 * SECOND);
    assert_eq!(cluster.leader(), None);
    cluster.start(1);
    cluster.run(20 * SECOND);
    assert!(cluster.serving(0) && cluster.serving(1) && cluster.serving(3));
}

/// Nobody leads on without a quorum of a change that is under way, though the members of before are
/// all there.
#[test]
fn a_leader_ends_without_a_quorum_of_what_it_proposes() {
    let (mut cluster, leader) = serving(3, 2);
    let new: Vec<usize> = vec![3, 4];
    new.iter().for_each(|i| cluster.kill(*i));
    propose(&mut cluster, leader, |next| {
        for sid in 1..=3 {
            set_role(next, sid, if sid == 1 { Role::Participant } else { Role::Observer });
        }
        new.iter().for_each(|i| set_role(next, *i as i64 + 1, Role::Participant));
    });
    cluster.run(30 * SECOND);
    assert_eq!(cluster.leader(), None);
    new.iter().for_each(|i| cluster.start(*i));
    cluster.run(30 * SECOND);
    assert!((0..5).all(|i| cluster.serving(i)));
    let voters: Vec<Sid> = ensemble(&cluster, 0).voters().collect();
    assert_eq!(voters, [1, 4, 5].map(Sid));
}

/// A server logs a change that is lost, and is sent a snapshot of what came after it, with the next change, which is
/// not committed. It crashes at any write of that, before or after the others acknowledge. Whatever is on its
/// disk then, the lost change holds up nobody: its voters are not there, and this server is needed.
#[test]
fn a_lost_change_behind_a_snapshot_holds_up_nobody() {
    for (writes, others_write) in (0..10).flat_map(|writes| [(writes, true), (writes, false)]) {
        let mut cluster = Cluster::new(5, 4).configure(|config| config.reconfig = true);
        (0..5).for_each(|i| cluster.start(i));
        cluster.run(4 * SECOND);
        // The first transaction of all, so that no other server has one in common with it to cut back to.
        let away = cluster.leader().expect("a leader");
        propose_unheard(&mut cluster, away, &[7, 8, 9]);
        cluster.kill(away);
        assert_eq!(cluster.servers[away].disk.image.log.len(), 1);
        cluster.run(5 * SECOND);

        let leader = cluster.leader().expect("another leader");
        cluster.servers[leader].disk.snapshot_every = Some(2);
        cluster.write(leader, &[b"one", b"two"]);
        assert!(cluster.servers[leader].disk.image.snapshot.is_some());
        propose_unheard(&mut cluster, leader, &[away as i64 + 1, leader as i64 + 1, 6]);
        let others: Vec<usize> = (0..5).filter(|i| ![away, leader].contains(i)).collect();
        others.iter().chain([&leader]).for_each(|i| cluster.kill(*i));

        cluster.servers[away].disk.writes_left = Some(writes);
        if !others_write {
            // They promise the epoch, and no more.
            others.iter().for_each(|i| cluster.servers[*i].disk.writes_left = Some(1));
        }
        let present = [leader, away, others[0], others[1]];
        present.iter().for_each(|i| cluster.start(*i));
        cluster.run(5 * SECOND);
        present.iter().for_each(|i| cluster.kill(*i));

        present.iter().for_each(|i| cluster.servers[*i].disk.writes_left = None);
        [away, others[0], others[1], 5].iter().for_each(|i| cluster.start(*i));
        cluster.run(60 * SECOND);
        let stored = &cluster.servers[away].disk.image.configurations;
        let serve = cluster.leader().is_some() && cluster.serving(away);
        assert!(serve, "crashed after {writes} writes, {others_write}: {stored:#?}");
    }
}

/// A leader proposes a change to these voters, and only its own disk takes note of it.
fn propose_unheard(cluster: &mut Cluster, leader: usize, voters: &[i64]) {
    cluster.swallows = (0..5).map(|i| (leader, i)).collect();
    propose(cluster, leader, |next| {
        for member in next.members.clone().keys() {
            let votes = voters.contains(&member.0);
            set_role(next, member.0, if votes { Role::Participant } else { Role::Observer });
        }
    });
    cluster.swallows.clear();
}

/// Without `Config::reconfig` a server goes by the list that it was given, whatever was stored when it
/// could change its members.
#[test]
fn without_changes_the_given_list_counts() {
    let off = |config: &mut Config| config.reconfig = false;
    let mut cluster = Cluster::new(3, 0).configure(off);
    let mut other = Membership { version: 1 << 40, ..Membership::default() };
    other.members.insert(Sid(9), Member::parse(Sid(9), "h:1:2:participant").expect("a line"));
    for server in &mut cluster.servers {
        server.disk.image.configurations = vec![other.text()];
    }
    cluster.start_all();
    cluster.run(4 * SECOND);
    for i in 0..3 {
        assert!(cluster.serving(i));
        assert_eq!(ensemble(&cluster, i).members.len(), 3);
    }
}
