//! Nothing in silence, and no storms: who ends a connection or a role says why, on both sides; what fails
//! again and again becomes slow; who waits says for whom.

use std::time::Duration;

use zab_harness::{Cluster, Memory};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    CloseReason, Limits, Notice, Phase, ProposeError, ReignEnd, ServerState, Sid, Violation, Zxid,
};

const SECOND: Duration = Duration::from_secs(1);

/// Without heartbeats, whose limits are those of `tests/heartbeat.rs`.
fn three() -> (Cluster, usize) {
    let mut cluster =
        Cluster::new(3, 1).configure(|config| config.detection.heartbeat = Duration::ZERO);
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

/// Who acknowledges what he cannot have is heard no more, nothing is committed by it, and both sides say so.
#[test]
fn an_acknowledgement_of_what_was_not_sent_ends_the_link() {
    for (follower, ahead, believed) in
        [(1, 1, false), (2, 1000, false), (1, 1 << 32, false), (1, 0, true), (3, 1, false)]
    {
        let (mut cluster, leader) = three();
        let follower = if follower == 3 { 3 } else { (leader + follower) % 3 };
        cluster.write(leader, &[b"x"]);
        cluster.closed.clear();
        let last = Zxid::from_raw(cluster.node(leader).peer().status().epoch.0 << 32 | 1);
        let lie = Zxid::from_raw(last.raw() + ahead);
        let mut bytes = Vec::new();
        Packet::new(PacketType::ACK, lie, None).write(&mut bytes);
        cluster.forge(follower, leader, &bytes);
        let reason = CloseReason::Violation(Violation::AckOfUnsent(lie));
        assert_eq!(cluster.closed.contains(&(leader, reason)), !believed, "{lie}");
        let gone = |notice: &Notice| notice.to_string().contains("which it was not sent");
        assert_eq!(told(&cluster, leader).iter().any(gone), !believed);
        assert_eq!(told(&cluster, follower).is_empty(), believed);
        cluster.run(SECOND);
        cluster.write(leader, &[b"y"]);
        for i in 0..4 {
            assert_eq!(cluster.lines(i), ["x", "y"], "server {i}");
        }
        assert_eq!(cluster.leader(), Some(leader));
    }
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
    let lost =
        |reason| Notice::LearnerLost { sid: sid(follower), observer, phase, reason, longest: 0 };
    let left = |reason| Notice::LeaderLost { leader: sid(leader), phase, reason, longest: 0 };
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
        assert!(waits.contains(&format!("{} (h{other}:{})", other + 1, 2000 + other)), "{waits}");
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
        let lost = Notice::LeaderLost { leader: sid(leader), phase, reason, longest: 0 };
        assert!(told(&cluster, late).contains(&lost));
        cluster.run(10 * SECOND);
        let counted = |told: &&(_, usize, Notice, u64)| told.1 == leader && told.3 > 5;
        assert!(cluster.notices.iter().any(|told| counted(&told)), "what was kept back is counted");
        cluster.act(late, |app, _| app.refuses = false);
        cluster.run(5 * SECOND);
        assert!(cluster.serving(late));
    }
}

/// Members with different limits (`jute.maxbuffer`): who is sent more than it takes, in a proposal or in
/// a snapshot, leaves at once instead of waiting for bytes that have no room. Both sides say how many
/// bytes it is about, it comes again seldom, and nobody else is disturbed.
#[test]
fn who_takes_less_than_it_is_sent_says_so_at_once() {
    const LINE: usize = 1_500_000;
    for (late, wiped) in [(1, false), (1, true), (3, false), (3, true)] {
        let (cluster, leader) = three();
        let late = if late == 3 { 3 } else { (leader + late) % 3 };
        let mut cluster = cluster.configure(|config| config.trust_empty = false);
        // Bytes come in pieces, as from a socket.
        cluster.read_max = 1 << 16;
        cluster.kill(late);
        cluster.notices.clear();
        if wiped {
            cluster.act(leader, |app, core| app.submit(core, 0, &[b'x'; LINE]));
            cluster.servers[late].disk = Memory::default();
        }
        // Less than half of it, as a connection has room for two fields.
        let mut cluster = cluster.configure(|config| config.limits.field_len_max_bytes = LINE / 4);
        cluster.start(late);
        cluster.run(SECOND);
        if !wiped {
            assert!(cluster.serving(late));
            cluster.notices.clear();
            cluster.act(leader, |app, core| app.submit(core, 0, &[b'x'; LINE]));
            cluster.run(SECOND);
        }
        let said = told(&cluster, late);
        let told_of = |notice: &&Notice| match notice {
            Notice::LeaderLost { reason: Some(CloseReason::TooLong { len, max }), .. } => {
                assert_eq!(*max, LINE / 4);
                *len > LINE / 2 && (wiped || *len > LINE)
            }
            _ => false,
        };
        let lost = said.iter().find(told_of).unwrap_or_else(|| panic!("{said:?}"));
        assert!(lost.is_error() && lost.to_string().contains("jute.maxbuffer"), "{lost}");
        let waits = cluster.node(late).peer().waits_for().expect("it does not serve");
        assert!(waits.contains("jute.maxbuffer"), "{waits}");
        let said = told(&cluster, leader);
        let sent = said.iter().find_map(|notice| match notice {
            Notice::LearnerLost { reason: None, longest, .. } => {
                (*longest > LINE).then(|| (*longest, notice.to_string()))
            }
            _ => None,
        });
        let (longest, text) = sent.unwrap_or_else(|| panic!("{said:?}"));
        assert!(text.contains(&longest.to_string()) && text.contains("jute.maxbuffer"), "{text}");
        // It goes on trying, and more and more slowly.
        let attempts = |cluster: &Cluster| {
            let history = &cluster.node(late).app().history;
            history.iter().filter(|status| status.state == ServerState::Looking).count()
        };
        let before = attempts(&cluster);
        cluster.run(120 * SECOND);
        let tried = attempts(&cluster) - before;
        assert!((5..25).contains(&tried), "{tried} attempts in two minutes");
        for i in (0..4).filter(|i| *i != late) {
            assert!(cluster.serving(i));
        }
        // Mended.
        cluster.kill(late);
        let mut cluster = cluster.configure(|config| config.limits = Limits::default());
        cluster.start(late);
        cluster.run(5 * SECOND);
        assert!(cluster.serving(late));
    }
}

/// The other way round: a learner forwards more than its leader takes, which costs it this one link.
/// The leader's own limit holds for what it proposes, too.
#[test]
fn who_sends_more_than_its_leader_takes_loses_the_link_and_hears_how_much_it_was() {
    const LINE: usize = 1_500_000;
    let mut cluster = Cluster::new(3, 0);
    for i in 0..3 {
        // The one with the highest id leads.
        let max = if i == 2 { LINE / 2 } else { 2 * LINE };
        cluster = cluster.configure(|config| config.limits.field_len_max_bytes = max);
        cluster.start(i);
    }
    cluster.run(SECOND);
    assert_eq!(cluster.leader(), Some(2));
    cluster.notices.clear();
    cluster.act(0, |_, core| assert!(core.request(&[b'x'; LINE], &(-1_i32).to_be_bytes())));
    cluster.run(SECOND);
    let reason = Some(CloseReason::TooLong { len: LINE, max: LINE / 2 });
    let (observer, phase) = (false, Phase::Broadcast);
    let lost = Notice::LearnerLost { sid: sid(0), observer, phase, reason, longest: 0 };
    assert_eq!(told(&cluster, 2), [lost]);
    assert!(lost.is_error());
    let left = Notice::LeaderLost { leader: sid(2), phase, reason: None, longest: LINE };
    assert_eq!(told(&cluster, 0), [left]);
    assert!(left.to_string().contains("does its jute.maxbuffer allow"), "{left}");
    assert!(
        (0..3).all(|i| cluster.serving(i)),
        "it comes again at once: the next request is another"
    );
    cluster.act(2, |_, core| {
        let zxid = core.next_zxid().expect("it leads");
        let mut txn = Vec::new();
        TxnHeader { client_id: 1, cxid: 0, zxid, time: 0, kind: 5 }.write(&mut txn);
        txn.resize(LINE, b'x');
        assert_eq!(core.propose(&txn), Err(ProposeError::TooLarge));
        assert!(!core.request(&[], &[]), "a leader forwards nothing");
    });
    // Nor does a learner forward what nobody of its own limit would take.
    cluster.act(1, |_, core| assert!(!core.request(&[b'x'; 4 * LINE], &[])));
    assert!((0..3).all(|i| cluster.serving(i)));
}

/// A first start of which one server is missing.
#[test]
fn who_waits_says_for_whom() {
    let mut cluster = Cluster::new(3, 0).configure(|config| config.trust_empty = false);
    cluster.start(0);
    cluster.start(2);
    cluster.run(190 * SECOND);
    for i in [0, 2] {
        let waits = cluster.node(i).peer().waits_for().expect("it does not serve");
        assert!(waits.contains("2 (h1:2001)") && !waits.contains(":2002"), "{waits}");
        assert!(waits.contains("initialize"), "{waits}");
        let said = told(&cluster, i);
        let secs: Vec<_> = (0..19).map(|n| Notice::Waiting { secs: 1 + 10 * n }).collect();
        assert_eq!(said, secs);
    }
    cluster.start(1);
    cluster.run(2 * SECOND);
    assert!((0..3).all(|i| cluster.node(i).peer().waits_for().is_none()));
    // With a history, but without a quorum.
    cluster.kill(0);
    cluster.kill(1);
    cluster.notices.clear();
    cluster.run(190 * SECOND);
    let waits = cluster.node(2).peer().waits_for().expect("it does not serve");
    assert!(waits.contains("1 (h0:2000), 2 (h1:2001)"), "{waits}");
    let is_wait = |notice: &&Notice| matches!(notice, Notice::Waiting { .. });
    assert_eq!(told(&cluster, 2).iter().filter(is_wait).count(), 4, "once a minute");
}
