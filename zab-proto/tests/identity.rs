//! Which ensemble a data directory belongs to (rule R24): one story per test.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use zab_harness::{Cluster, Image, Memory};
use zab_proto::wire::Parsed;
use zab_proto::wire::body::LearnerInfo;
use zab_proto::wire::extension::{self, Tag};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Channel, EnsembleId, Epoch, Identity, Incoming, Input, Notice, Sid, Zxid};

const SECOND: Duration = Duration::from_secs(1);

fn members(voters: usize, observers: usize) -> Cluster {
    let mut cluster = Cluster::new(voters, observers);
    cluster.without_id = Some(Vec::new());
    cluster
}

fn three() -> Cluster {
    let mut cluster = members(3, 0);
    cluster.start_all();
    cluster.run(SECOND);
    cluster
}

fn identities(cluster: &Cluster) -> Vec<Option<Identity>> {
    cluster.servers.iter().map(|server| server.disk.image.identity).collect()
}

/// The one id that all servers have on disk, confirmed.
fn common_id(cluster: &Cluster) -> EnsembleId {
    let all = identities(cluster);
    let first = all[0].expect("an id");
    assert!(first.confirmed && all.iter().all(|other| *other == Some(first)), "{all:?}");
    first.id
}

fn is_foreign(notice: &Notice, sid: usize) -> bool {
    matches!(notice, Notice::OtherEnsemble { sid: found, .. } if *found == Sid(sid as i64 + 1))
}

/// Whether `i` has said that `j` belongs to another ensemble.
fn named(cluster: &Cluster, i: usize, j: usize) -> bool {
    cluster.notices.iter().any(|(_, who, notice, _)| *who == i && is_foreign(notice, j))
}

/// The disk of a member of another ensemble, whose epochs and zxids are ahead of any here.
fn foreign_disk() -> Image {
    let mut other = three();
    for _ in 0..3 {
        let leader = other.leader().expect("a leader");
        other.write(leader, &[b"theirs", b"theirs, too"]);
        other.kill(leader);
        other.run(SECOND);
        other.start(leader);
        other.run(SECOND);
    }
    let mut image = other.servers[1].disk.image.clone();
    let identity = image.identity.expect("an id");
    image.identity = Some(Identity { id: EnsembleId::new(0xf0e), ..identity });
    image
}

fn put(cluster: &mut Cluster, i: usize, image: Image) {
    cluster.servers[i].disk = Memory::default();
    cluster.servers[i].disk.image = image;
}

fn is_served(cluster: &mut Cluster, servers: &[usize], line: &str) {
    let leader = cluster.leader().expect("a leader");
    cluster.write(leader, &[line.as_bytes()]);
    for i in servers {
        assert_eq!(cluster.lines(*i).last().map(String::as_str), Some(line), "server {i}");
    }
}

#[test]
fn an_ensemble_gets_an_id_at_its_birth_and_keeps_it() {
    let mut cluster = three();
    let id = common_id(&cluster);
    for leaves in 0..3 {
        cluster.kill(leaves);
        cluster.run(SECOND);
        cluster.start(leaves);
        cluster.run(SECOND);
        assert_eq!(common_id(&cluster), id);
    }
    assert!(!cluster.notices.iter().any(|(_, _, notice, _)| notice.is_error()));
}

#[test]
fn it_waits_for_all_voters_and_not_for_observers() {
    let mut cluster = members(3, 1);
    cluster.start(0);
    cluster.start(1);
    cluster.run(SECOND);
    is_served(&mut cluster, &[0, 1], "a");
    assert_eq!(identities(&cluster), [None; 4]);
    cluster.start(2);
    cluster.run(SECOND);
    let id = cluster.servers[2].disk.image.identity.expect("an id");
    cluster.start(3);
    cluster.run(SECOND);
    assert_eq!(common_id(&cluster), id.id);
}

#[test]
fn beside_a_member_that_keeps_none_there_is_none() {
    for without in 0..3 {
        let mut cluster = members(3, 0);
        cluster.without_id = Some(vec![without]);
        cluster.start_all();
        cluster.run(SECOND);
        is_served(&mut cluster, &[0, 1, 2], "a");
        assert_eq!(identities(&cluster), [None; 3]);
    }
}

#[test]
fn an_ensemble_that_is_upgraded_member_by_member_gets_one_with_the_last() {
    let mut cluster = members(5, 0);
    cluster.without_id = Some((0..5).collect());
    cluster.start_all();
    cluster.run(SECOND);
    is_served(&mut cluster, &[0, 1, 2, 3, 4], "before");
    for i in 0..5 {
        assert_eq!(identities(&cluster), [None; 5]);
        cluster.without_id.as_mut().expect("a list").retain(|without| *without != i);
        cluster.kill(i);
        cluster.run(SECOND);
        cluster.start(i);
        cluster.run(SECOND);
        is_served(&mut cluster, &[0, 1, 2, 3, 4], &format!("{i} is upgraded"));
    }
    common_id(&cluster);
}

#[test]
fn a_foreign_directory_that_is_there_first_does_not_win() {
    let foreign = foreign_disk();
    for out in 0..3 {
        let mut cluster = three();
        is_served(&mut cluster, &[0, 1, 2], "ours");
        let id = common_id(&cluster);
        (0..3).for_each(|i| cluster.kill(i));
        put(&mut cluster, out, foreign.clone());
        let (first, second) = ((out + 1) % 3, (out + 2) % 3);
        cluster.start(out);
        cluster.run(SECOND);
        cluster.start(first);
        cluster.run(30 * SECOND);
        assert!(!cluster.serving(first) && !cluster.serving(out), "without a quorum of its own");
        assert!(named(&cluster, first, out) && named(&cluster, out, first), "{out}");
        let waits = cluster.node(out).peer().waits_for().expect("it waits");
        assert!(waits.contains(&format!("another ensemble: {} (h{first}:", first + 1)), "{waits}");
        // Nobody gave up anything for it.
        cluster.start(second);
        cluster.run(SECOND);
        is_served(&mut cluster, &[first, second], "again ours");
        assert_eq!(cluster.lines(first), ["ours", "again ours"]);
        assert!(named(&cluster, second, out) && named(&cluster, out, second));
        cluster.run(60 * SECOND);
        assert!(!cluster.serving(out));
        assert_eq!(cluster.servers[out].disk.image.log.len(), foreign.log.len());
        // As the error says: with an empty directory it is a member.
        cluster.kill(out);
        put(&mut cluster, out, Image::default());
        cluster.start(out);
        cluster.run(SECOND);
        is_served(&mut cluster, &[0, 1, 2], "whole");
        assert_eq!(common_id(&cluster), id);
    }
}

/// Twice as many as could lead.
#[test]
fn foreign_directories_together_are_another_ensemble() {
    let foreign = foreign_disk();
    let mut cluster = members(5, 0);
    cluster.start_all();
    cluster.run(SECOND);
    is_served(&mut cluster, &[0, 1, 2, 3, 4], "ours");
    (0..5).for_each(|i| cluster.kill(i));
    put(&mut cluster, 0, foreign.clone());
    put(&mut cluster, 1, foreign);
    cluster.start_all();
    cluster.run(SECOND);
    is_served(&mut cluster, &[2, 3, 4], "still ours");
    assert!(!cluster.serving(0) && !cluster.serving(1));
    assert_eq!(cluster.lines(2), ["ours", "still ours"]);
}

#[test]
fn an_established_leader_refuses_it_by_name_and_goes_on() {
    let foreign = foreign_disk();
    for observer in [false, true] {
        let mut cluster = members(3, 1);
        cluster.start_all();
        cluster.run(SECOND);
        is_served(&mut cluster, &[0, 1, 2, 3], "ours");
        let leader = cluster.leader().expect("a leader");
        let out = if observer { 3 } else { (leader + 1) % 3 };
        cluster.kill(out);
        put(&mut cluster, out, foreign.clone());
        cluster.start(out);
        cluster.run(30 * SECOND);
        assert_eq!(cluster.leader(), Some(leader));
        let others: Vec<usize> = (0..3).filter(|i| *i != out).collect();
        is_served(&mut cluster, &others, "still ours");
        assert!(
            !cluster.serving(out) && named(&cluster, out, leader) && named(&cluster, leader, out)
        );
    }
}

/// FOLLOWERINFO of server 2, from the data of `identity`, byte by byte.
fn introduction(identity: Option<Identity>) -> Vec<u8> {
    let mut data = LearnerInfo::encode(Sid(2), 0).to_vec();
    extension::begin(&mut data);
    let mut value = Vec::new();
    if let Some(identity) = identity {
        let bits = u128::from_str_radix(&identity.id.to_string(), 16).expect("hexadecimal");
        value.extend_from_slice(&bits.to_be_bytes());
        value.push(u8::from(identity.confirmed));
    }
    extension::put(&mut data, Tag::IDENTITY, &value);
    let mut bytes = Vec::new();
    let zxid = Zxid::new(Epoch(0), 0);
    Packet::new(PacketType::FOLLOWERINFO, zxid, Some(&data)).write(&mut bytes);
    bytes
}

/// A member whose votes were not heard, or did not say it yet.
#[test]
fn the_quorum_port_compares_as_well() {
    let mut cluster = three();
    let id = common_id(&cluster);
    let leader = cluster.leader().expect("a leader");
    assert_ne!(leader, 1);
    cluster.kill(1);
    let other = Identity { id: EnsembleId::new(0xf0e), confirmed: true };
    let same = Identity { id, confirmed: true };
    let tentative = Identity { confirmed: false, ..other };
    for (identity, foreign) in
        [(Some(other), true), (Some(same), false), (Some(tentative), false), (None, false)]
    {
        cluster.notices.clear();
        let now = cluster.now;
        let remote = Incoming::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let server = &mut cluster.servers[leader];
        let node = server.node.as_mut().expect("it runs");
        let conn = node.accept(now, Channel::Quorum, &remote).expect("room");
        node.handle_bytes(now, conn, &introduction(identity), &mut server.disk);
        let mut bytes = [0; 4096];
        let n = node.poll_transmit(now, conn, &mut bytes);
        let Parsed::Complete { value: reply, .. } = Packet::parse(&bytes[..n], 4096) else {
            panic!("an answer");
        };
        // It hears which ensemble this is, whether it may stay or not.
        assert_eq!(reply.kind, PacketType::LEADERINFO);
        let value = extension::field(reply.data, 4, Tag::IDENTITY).expect("the id");
        assert_eq!(value[16], 1);
        let shown = node.peer().learners().any(|learner| learner.origin.sid == Sid(2));
        assert_eq!(shown, !foreign, "{identity:?}");
        cluster.settle();
        assert_eq!(named(&cluster, leader, 1), foreign, "{identity:?}");
        // It does not leave: then it is made to.
        cluster.run(3 * SECOND);
        let node = cluster.servers[leader].node.as_mut().expect("it runs");
        node.handle_input(cluster.now, Input::Closed { conn });
        assert_eq!(cluster.leader(), Some(leader));
    }
}

#[test]
fn the_error_says_what_to_do() {
    let (theirs, ours) = (EnsembleId::new(1), EnsembleId::new(2));
    let text = Notice::OtherEnsemble { sid: Sid(3), theirs, ours }.to_string();
    for part in ["Server 3", &theirs.to_string(), &ours.to_string(), "empty one", "ensembleId"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn who_has_no_id_is_taken_and_gets_it() {
    let mut cluster = three();
    is_served(&mut cluster, &[0, 1, 2], "a");
    let id = common_id(&cluster);
    // A backup from before, and the operator's word that a directory belongs here.
    for i in 0..3 {
        cluster.kill(i);
        cluster.servers[i].disk.image.identity = None;
        cluster.start(i);
        cluster.run(SECOND);
        is_served(&mut cluster, &[0, 1, 2], &format!("{i} is back"));
        assert_eq!(common_id(&cluster), id);
    }
    // On all at once: the ensemble gets another one.
    (0..3).for_each(|i| cluster.kill(i));
    (0..3).for_each(|i| cluster.servers[i].disk.image.identity = None);
    cluster.start_all();
    cluster.run(SECOND);
    assert_ne!(common_id(&cluster), id);
}

#[test]
fn the_id_of_an_empty_directory_keeps_nobody_out() {
    let mut cluster = three();
    is_served(&mut cluster, &[0, 1, 2], "a");
    let id = common_id(&cluster);
    cluster.kill(1);
    let identity = Some(Identity { id: EnsembleId::new(99), confirmed: true });
    put(&mut cluster, 1, Image { identity, ..Image::default() });
    cluster.start(1);
    cluster.run(SECOND);
    is_served(&mut cluster, &[0, 1, 2], "b");
    assert_eq!(common_id(&cluster), id);
}

#[test]
fn tentative_ids_give_way() {
    let mut cluster = three();
    is_served(&mut cluster, &[0, 1, 2], "a");
    (0..3).for_each(|i| cluster.kill(i));
    for (i, server) in cluster.servers.iter_mut().enumerate() {
        let id = EnsembleId::new(100 + i as u128);
        server.disk.image.identity = Some(Identity { id, confirmed: false });
    }
    cluster.start_all();
    cluster.run(SECOND);
    let id = common_id(&cluster);
    assert!((100..103).any(|known| EnsembleId::new(known) == id), "no new one is needed: {id}");
    // One that is confirmed comes before others.
    (0..3).for_each(|i| cluster.kill(i));
    for (i, server) in cluster.servers.iter_mut().enumerate() {
        let id = EnsembleId::new([7, 7, 8][i]);
        server.disk.image.identity = Some(Identity { id, confirmed: i == 2 });
    }
    cluster.start_all();
    cluster.run(SECOND);
    assert_eq!(common_id(&cluster), EnsembleId::new(8));
}

#[test]
fn a_standalone_server_has_one_and_can_be_joined() {
    let mut alone = members(1, 0).configure(|config| config.standalone = true);
    alone.start_all();
    alone.settle();
    alone.write(0, &[b"alone"]);
    let id = common_id(&alone);
    let image = alone.servers[0].disk.image.clone();
    let mut cluster = members(3, 0).configure(|config| config.trust_empty = false);
    put(&mut cluster, 1, image);
    cluster.start_all();
    cluster.run(2 * SECOND);
    // Empty directories do not vote (rule R14), so the operator vouches for one.
    cluster.kill(0);
    let mut cluster = cluster.configure(|config| config.trust_empty = true);
    cluster.start(0);
    cluster.run(SECOND);
    is_served(&mut cluster, &[0, 1, 2], "joined");
    assert_eq!(cluster.lines(2), ["alone", "joined"]);
    assert_eq!(common_id(&cluster), id);
}

/// A leader ends at each point of the birth of the id, with what its disk and the others' disks have
/// then; so does a follower.
#[test]
fn a_crash_between_any_two_steps_leaves_one_id() {
    let mut ids = std::collections::BTreeSet::new();
    for victim in 0..3 {
        for both in [false, true] {
            for steps in 0..40 {
                let mut cluster = members(3, 0);
                cluster.start_all();
                let mut done = 0;
                while done < steps {
                    if !cluster.step() {
                        cluster.run(Duration::from_millis(1));
                    }
                    done += 1;
                }
                cluster.kill(victim);
                if both {
                    cluster.kill((victim + 1) % 3);
                }
                cluster.run(2 * SECOND);
                cluster.start(victim);
                if both {
                    cluster.run(SECOND);
                    cluster.start((victim + 1) % 3);
                }
                // A follower may wait for `initLimit` for a leader that has ended.
                cluster.run(50 * SECOND);
                is_served(&mut cluster, &[0, 1, 2], "whole");
                ids.insert(common_id(&cluster));
                assert!(!cluster.notices.iter().any(|(_, _, notice, _)| notice.is_error()));
            }
        }
    }
    assert!(ids.len() > 3, "some were made after the crash, and some before");
}

/// The disks of the others do not write: what one leader has stored alone is taken over.
#[test]
fn an_id_that_one_server_has_alone_is_nobodys_obstacle() {
    for stays in 0..3 {
        let mut cluster = three();
        is_served(&mut cluster, &[0, 1, 2], "a");
        let id = common_id(&cluster);
        (0..3).for_each(|i| cluster.kill(i));
        for (i, server) in cluster.servers.iter_mut().enumerate() {
            let identity = Identity { id, confirmed: false };
            server.disk.image.identity = (i == stays).then_some(identity);
        }
        let others = [(stays + 1) % 3, (stays + 2) % 3];
        others.iter().for_each(|i| cluster.start(*i));
        cluster.run(SECOND);
        is_served(&mut cluster, &others, "without it");
        assert_eq!(cluster.servers[others[0]].disk.image.identity, None);
        cluster.start(stays);
        cluster.run(SECOND);
        assert_eq!(common_id(&cluster), id);
        assert!(cluster.node(stays).peer().last_zxid() > Zxid::ZERO);
    }
}
