//! Heartbeats: what is agreed, how soon a silent leader is noticed, who is not disturbed by that, and
//! what a leader that was away or is cut off does not say any more.

use std::time::Duration;

use zab_harness::Cluster;
use zab_proto::{CloseReason, Notice, Phase, ReignEnd, ServerState, Sid};

const SECOND: Duration = Duration::from_secs(1);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sid(i: usize) -> Sid {
    Sid(i64::try_from(i).expect("a few servers") + 1)
}

/// Servers that have heartbeats and have kept them for long enough.
fn beating(voters: usize, observers: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(voters, observers);
    cluster.start_all();
    cluster.run(4 * SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.notices.clear();
    cluster.closed.clear();
    (cluster, leader)
}

/// How long it takes until somebody else than `old` leads, in steps of a millisecond.
fn time_to_replace(cluster: &mut Cluster, old: usize, longest: Duration) -> Option<Duration> {
    let begin = cluster.now;
    loop {
        let new = (0..cluster.servers.len())
            .filter(|i| *i != old && !cluster.frozen.contains(i))
            .find(|i| {
                cluster.serving(*i)
                    && cluster.node(*i).peer().status().state == ServerState::Leading
            });
        let passed = cluster.now.saturating_since(begin);
        if new.is_some() {
            return Some(passed);
        }
        if passed > longest {
            return None;
        }
        cluster.run(ms(1));
    }
}

fn suspected(cluster: &Cluster, i: usize) -> usize {
    let is = |notice: &Notice| {
        matches!(notice, Notice::LeaderLost { reason: Some(CloseReason::Suspected { .. }), .. })
    };
    cluster.notices.iter().filter(|(_, who, notice, _)| *who == i && is(notice)).count()
}

#[test]
fn a_frozen_leader_is_replaced_and_follows_when_it_comes_back() {
    for voters in [3, 5] {
        let (mut cluster, leader) = beating(voters, 1);
        cluster.write(leader, &[b"before"]);
        cluster.freeze(leader);
        let passed = time_to_replace(&mut cluster, leader, SECOND).expect("a new leader");
        assert!(passed >= ms(200) && passed <= ms(300), "{passed:?}");
        let others: Vec<usize> = (0..voters).filter(|i| *i != leader).collect();
        cluster.run(2 * SECOND);
        assert!(others.iter().all(|i| cluster.serving(*i)));
        assert!(others.iter().map(|i| suspected(&cluster, *i)).sum::<usize>() >= voters / 2);
        let said = cluster.notices.iter().map(|told| told.2.to_string()).find(|text| {
            text.contains("suspected after") && text.contains("limit") && text.contains("worst gap")
        });
        assert!(said.is_some(), "{:?}", cluster.notices);
        for i in &others {
            let status = cluster.node(*i).peer().heartbeats();
            assert_eq!(status.suspicions, status.suspicions_true, "{status:?}");
        }
        cluster.write(others[0], &[b"meanwhile"]);
        cluster.run(10 * SECOND);
        cluster.thaw(leader);
        cluster.run(SECOND);
        assert!(cluster.serving(leader));
        assert_eq!(cluster.lines(leader), ["before", "meanwhile"]);
        assert_eq!(cluster.node(leader).peer().status().state, ServerState::Following);
        assert!(cluster.node(leader).peer().heartbeats().pauses >= 1);
    }
}

#[test]
fn nobody_is_suspected_in_peace_or_under_load() {
    let (mut cluster, leader) = beating(3, 2);
    for round in 0..2000_u32 {
        cluster.run(ms(u64::from(round % 97)));
        let line = round.to_string();
        cluster.write((leader + round as usize) % 5, &[line.as_bytes()]);
    }
    for i in 0..5 {
        let status = cluster.node(i).peer().heartbeats();
        assert_eq!((status.suspicions, status.pauses), (0, 0));
        assert!(cluster.serving(i));
    }
    assert!(cluster.closed.is_empty() && cluster.notices.is_empty(), "{:?}", cluster.notices);
}

/// One of two links of the leader swallows what it sends: who hears nothing looks, cannot get back,
/// and disturbs nobody. When it hears the leader again, that was a false suspicion, and the limit doubles.
#[test]
fn a_link_that_swallows_costs_one_follower() {
    let (mut cluster, leader) = beating(3, 0);
    let (deaf, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let status = cluster.node(leader).peer().status();
    cluster.swallows.push((leader, deaf));
    cluster.run(SECOND);
    assert_eq!(suspected(&cluster, deaf), 1);
    cluster.run(20 * SECOND);
    assert_eq!(cluster.node(leader).peer().status(), status, "the leader stays");
    assert!(cluster.serving(leader) && cluster.serving(other) && !cluster.serving(deaf));
    assert_eq!(suspected(&cluster, other), 0);
    cluster.swallows.clear();
    // Streams that have swallowed something are broken for good.
    cluster.kill(deaf);
    cluster.start(deaf);
    cluster.run(5 * SECOND);
    assert!(cluster.serving(deaf));
}

/// A pause of the leader that is too short for a new one to be elected: it is followed again.
#[test]
fn a_false_suspicion_doubles_the_limit_for_a_minute() {
    let (mut cluster, leader) = beating(3, 0);
    let hasty = (leader + 1) % 3;
    let limit = |cluster: &Cluster| cluster.node(hasty).peer().heartbeats().limit;
    assert_eq!(limit(&cluster), Some(ms(250)));
    // Only one of two hears nothing, and nothing is lost.
    cluster.slow = Some((hasty, 0));
    cluster.run(ms(400));
    assert_eq!(suspected(&cluster, hasty), 1);
    cluster.slow = Some((hasty, usize::MAX));
    cluster.take(0);
    cluster.run(4 * SECOND);
    assert!(cluster.serving(hasty));
    let status = cluster.node(hasty).peer().heartbeats();
    assert_eq!((status.suspicions, status.suspicions_false), (1, 1));
    assert_eq!(status.limit, Some(ms(500)));
    cluster.run(60 * SECOND);
    assert_eq!(limit(&cluster), Some(ms(250)));
    assert_eq!(cluster.leader(), Some(leader));
}

/// A host that stops with all that is on it: everybody was away, nobody was silent.
#[test]
fn who_was_away_suspects_nobody_and_is_no_measure() {
    for pause in [ms(80), ms(400), 5 * SECOND] {
        let (mut cluster, leader) = beating(3, 0);
        let status = cluster.node(leader).peer().status();
        (0..3).for_each(|i| cluster.freeze(i));
        cluster.run(pause);
        (0..3).for_each(|i| cluster.thaw(i));
        cluster.run(SECOND);
        assert_eq!(cluster.node(leader).peer().status(), status);
        for i in 0..3 {
            let status = cluster.node(i).peer().heartbeats();
            assert_eq!((status.pauses, status.suspicions), (1, 0), "after {pause:?}");
            assert!(status.longest_pause >= pause.saturating_sub(ms(50)));
            assert_eq!(status.limit, Some(ms(250)), "its own pause is no gap of others");
        }
    }
}

#[test]
fn a_frozen_follower_disturbs_nobody() {
    let (mut cluster, leader) = beating(3, 0);
    let (frozen, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let status = cluster.node(leader).peer().status();
    cluster.freeze(frozen);
    for _ in 0..60 {
        cluster.run(ms(100));
        cluster.write(other, &[b"."]);
    }
    assert_eq!(cluster.node(leader).peer().status(), status);
    assert_eq!(cluster.lines(other).len(), 60);
    cluster.thaw(frozen);
    cluster.run(SECOND);
    assert_eq!(cluster.lines(frozen).len(), 60);
    assert_eq!(cluster.node(frozen).peer().heartbeats().suspicions, 0);
    assert!(cluster.notices.is_empty(), "{:?}", cluster.notices);
}

/// A leader that nobody answers gives up after twice the limit, not after `syncLimit`.
#[test]
fn a_leader_that_no_quorum_answers_gives_up() {
    let (mut cluster, leader) = beating(3, 0);
    let begin = cluster.now;
    for other in (0..3).filter(|i| *i != leader) {
        cluster.swallows.extend([(leader, other), (other, leader)]);
    }
    cluster.run(SECOND);
    let ends = |notice: &Notice| {
        matches!(
            notice,
            Notice::ReignEnded { reason: ReignEnd::QuorumSilent { .. } | ReignEnd::QuorumLost, .. }
        )
    };
    let told = cluster.notices.iter().find(|told| told.1 == leader && ends(&told.2));
    let (at, ..) = told.expect("the end of its reign");
    let passed = at.saturating_since(begin);
    assert!(passed >= ms(400) && passed <= ms(700), "{passed:?}");
}

/// A leader that is a quorum by itself needs no answer, whoever follows it.
#[test]
fn who_is_a_quorum_alone_leads_on() {
    for learners in [0, 1] {
        let (mut cluster, leader) = beating(1, learners);
        if learners > 0 {
            cluster.freeze(1);
        }
        cluster.run(5 * SECOND);
        cluster.write(leader, &[b"x"]);
        assert_eq!(cluster.lines(leader), ["x"]);
        assert!(cluster.notices.is_empty(), "{:?}", cluster.notices);
        // It was away: nobody can have been elected in its place.
        cluster.freeze(leader);
        cluster.send(leader, &[b"!"]);
        cluster.client_bytes.clear();
        cluster.run(60 * SECOND);
        cluster.thaw(leader);
        cluster.run(ms(1));
        assert_eq!(cluster.client_bytes, b"[1]");
    }
}

/// What clients asked while the leader did not run is answered only when a quorum has answered it.
#[test]
fn a_thawed_leader_answers_nothing_from_its_past() {
    // The others have elected a new leader meanwhile.
    let (mut cluster, leader) = beating(3, 0);
    cluster.freeze(leader);
    cluster.send(leader, &[b"!"]);
    cluster.run(SECOND);
    let new = cluster.leader().expect("a new leader");
    cluster.write(new, &[b"x"]);
    cluster.client_bytes.clear();
    cluster.thaw(leader);
    assert_eq!(cluster.client_bytes, b"", "a read of the past");
    cluster.run(5 * SECOND);
    assert!(matches!(&cluster.client_bytes[..], b"" | b"[1]"), "{:?}", cluster.client_bytes);
    assert!(cluster.serving(leader));

    // They were away, too: it leads on, and answers as soon as one of them has answered.
    let (mut cluster, leader) = beating(3, 0);
    (0..3).for_each(|i| cluster.freeze(i));
    cluster.send(leader, &[b"!"]);
    cluster.run(5 * SECOND);
    cluster.thaw(leader);
    cluster.run(ms(5));
    assert_eq!(cluster.client_bytes, b"");
    assert!(!cluster.node(leader).peer().may_serve());
    let away = |notice: &Notice| matches!(notice, Notice::Away { away_ms: 4900..=5100 });
    assert!(cluster.notices.iter().any(|told| told.1 == leader && away(&told.2)));
    cluster.thaw((leader + 1) % 3);
    cluster.run(ms(1));
    assert_eq!(cluster.client_bytes, b"[0]");
    assert_eq!(cluster.leader(), Some(leader));

    // A pause that nobody can have noticed changes nothing. Twice as long, and it must be proven.
    for (pause, answered) in [(ms(70), true), (ms(150), false)] {
        let (mut cluster, leader) = beating(3, 0);
        (0..3).for_each(|i| cluster.freeze(i));
        cluster.send(leader, &[b"!"]);
        cluster.run(pause);
        cluster.thaw(leader);
        assert_eq!(cluster.client_bytes == b"[0]", answered, "after {pause:?}");
        cluster.thaw((leader + 1) % 3);
        assert_eq!(cluster.client_bytes, b"[0]");
    }
}

/// The same while it is becoming one: the acknowledgements of NEWLEADER that it reads afterwards may be older
/// than the reign of another.
#[test]
fn a_leader_that_was_away_before_it_was_established_answers_nothing_from_its_past() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    let synchronises = |cluster: &Cluster| {
        let is = |phase: Phase, i: &usize| {
            let status = cluster.node(*i).peer().status();
            status.state == ServerState::Leading && status.phase == phase
        };
        (0..3).find(|i| is(Phase::Synchronization, i))
    };
    let leader = loop {
        if !cluster.step() {
            cluster.run(ms(1));
        }
        if let Some(leader) = synchronises(&cluster) {
            break leader;
        }
    };
    cluster.freeze(leader);
    cluster.send(leader, &[b"!"]);
    assert!(time_to_replace(&mut cluster, leader, 60 * SECOND).is_some(), "nobody else leads");
    let new = cluster.leader().expect("a new leader");
    cluster.write(new, &[b"x"]);
    cluster.client_bytes.clear();
    cluster.notices.clear();
    cluster.thaw(leader);
    assert_eq!(cluster.client_bytes, b"", "a read of the past");
    let away = |notice: &Notice| matches!(notice, Notice::Away { .. });
    assert!(cluster.notices.iter().any(|told| told.1 == leader && away(&told.2)));
    cluster.run(5 * SECOND);
    assert!(matches!(&cluster.client_bytes[..], b"" | b"[1]"), "{:?}", cluster.client_bytes);
    assert!(cluster.serving(leader));
    assert_eq!(cluster.lines(leader), ["x"]);
}

/// It was away again before anybody had answered: what it had asked is answered from before that.
#[test]
fn an_answer_from_before_a_second_pause_proves_nothing() {
    let (mut cluster, leader) = beating(3, 0);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    (0..3).for_each(|i| cluster.freeze(i));
    cluster.send(leader, &[b"!"]);
    cluster.run(5 * SECOND);
    cluster.thaw(leader);
    cluster.run(ms(5));
    assert!(!cluster.node(leader).peer().may_serve());
    cluster.freeze(leader);
    others.iter().for_each(|i| cluster.thaw(*i));
    assert!(time_to_replace(&mut cluster, leader, 5 * SECOND).is_some());
    let new = cluster.leader().filter(|i| *i != leader).unwrap_or(others[0]);
    cluster.write(new, &[b"x"]);
    cluster.client_bytes.clear();
    cluster.thaw(leader);
    assert_eq!(cluster.client_bytes, b"", "a read of the past");
    cluster.run(5 * SECOND);
    assert_eq!(cluster.lines(leader), ["x"]);
}

#[test]
fn a_leader_whose_disk_hangs_makes_way() {
    for (hang, limit) in [
        (Hang::Alone, 2),
        (Hang::Alone, 4),
        (Hang::WithOne, 2),
        (Hang::BeforeAll, 2),
        (Hang::Alone, 0),
    ] {
        let limit = Duration::from_secs(limit);
        let mut cluster =
            Cluster::new(3, 0).configure(|config| config.detection.disk_stall_max = limit);
        cluster.start_all();
        cluster.run(4 * SECOND);
        let leader = cluster.leader().expect("a leader");
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        cluster.notices.clear();
        cluster.servers[leader].disk.stalled = true;
        cluster.servers[others[0]].disk.stalled = hang == Hang::WithOne;
        cluster.write(leader, &[b"x"]);
        if hang == Hang::BeforeAll {
            cluster.run(ms(100));
            assert!(cluster.lines(others[0]).contains(&"x".to_owned()), "committed by the others");
            for other in others {
                cluster.servers[other].disk.stalled = true;
            }
        }
        if hang != Hang::Alone || limit.is_zero() {
            cluster.write(leader, &[b"y"]);
            assert_eq!(
                time_to_replace(&mut cluster, leader, 2 * limit + 4 * SECOND),
                None,
                "{hang:?}"
            );
            continue;
        }
        // What others have from before proves nothing, what they had lately does.
        assert_eq!(time_to_replace(&mut cluster, leader, limit + SECOND), None);
        cluster.write(leader, &[b"y"]);
        let passed = time_to_replace(&mut cluster, leader, SECOND).expect("another leader");
        // The others wait for its vote, which it cannot cast before its disk has come back.
        assert!(passed <= ms(350), "{passed:?} for {limit:?}");
        let stalled = |notice: &Notice| {
            matches!(notice, Notice::ReignEnded { reason: ReignEnd::DiskStalled, .. })
        };
        assert!(cluster.notices.iter().any(|told| told.1 == leader && stalled(&told.2)));
        // What it has acknowledged to nobody comes back when its disk does.
        cluster.servers[leader].disk.stalled = false;
        cluster.run(2 * SECOND);
        assert!(cluster.serving(leader));
        assert_eq!(cluster.lines(leader), ["x", "y"]);
    }
}

/// Whose disk hangs besides the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hang {
    Alone,
    WithOne,
    /// All of them, with the leader's first by the time of one write: a host that they share.
    BeforeAll,
}

/// Beside members without heartbeats, and when they are switched off, everything is as in ZooKeeper.
#[test]
fn without_agreement_the_limit_is_that_of_zookeeper() {
    for (leader_has, others_have) in [(false, false), (false, true), (true, false)] {
        let mut cluster = Cluster::new(3, 0);
        for i in 0..3 {
            // The one with the highest id leads.
            let has = if i == 2 { leader_has } else { others_have };
            let every = if has { ms(50) } else { Duration::ZERO };
            cluster = cluster.configure(|config| config.detection.heartbeat = every);
            cluster.start(i);
        }
        cluster.run(10 * SECOND);
        assert_eq!(cluster.leader(), Some(2));
        for i in 0..3 {
            let status = cluster.node(i).peer().heartbeats();
            let nothing = (status.interval, status.limit, status.sent, status.answered);
            assert_eq!(nothing, (None, None, 0, 0), "server {i}");
        }
        let asked = cluster.node(0).app().touches_asked;
        assert!((8..=10).contains(&asked), "{asked} PINGs in ten seconds");
        cluster.freeze(2);
        let passed = time_to_replace(&mut cluster, 2, 15 * SECOND).expect("a new leader");
        assert!(passed >= 9 * SECOND && passed <= 11 * SECOND, "{passed:?}");
    }
}

#[test]
fn heartbeats_are_sent_where_nothing_else_is() {
    let (mut cluster, leader) = beating(3, 1);
    let follower = (leader + 1) % 3;
    let sent = |cluster: &Cluster| cluster.node(leader).peer().heartbeats().sent;
    let asked = |cluster: &Cluster| cluster.node(follower).app().touches_asked;
    let (before, touches) = (sent(&cluster), asked(&cluster));
    cluster.run(10 * SECOND);
    // Two followers every 50 ms, one observer every 200 ms.
    let idle = sent(&cluster) - before;
    assert!((400..=460).contains(&idle), "{idle} heartbeats");
    let touches = asked(&cluster) - touches;
    assert!((9..=12).contains(&touches), "sessions were asked for {touches} times");
    let answered = cluster.node(follower).peer().heartbeats().answered;
    assert!(answered >= 180, "{answered}");
    let before = sent(&cluster);
    for _ in 0..1000 {
        cluster.run(ms(10));
        cluster.write(leader, &[b"."]);
    }
    let busy = sent(&cluster) - before;
    assert!(busy < 100, "{busy} heartbeats beside a stream of transactions");
}

/// Two thousand heartbeats a second, whatever is asked for.
#[test]
fn heartbeats_become_slower_with_the_number_of_learners() {
    let mut cluster = Cluster::new(3, 16).configure(|config| config.detection.heartbeat = ms(1));
    cluster.start_all();
    cluster.run(3 * SECOND);
    let leader = cluster.leader().expect("a leader");
    let status = |cluster: &Cluster, i: usize| cluster.node(i).peer().heartbeats();
    // Two followers and a quarter of 16 observers: 6 in 3 ms.
    assert_eq!(status(&cluster, leader).interval, Some(ms(3)));
    assert_eq!(status(&cluster, (leader + 1) % 3).interval, Some(ms(3)));
    assert_eq!(status(&cluster, 18).interval, Some(ms(12)));
    let before = status(&cluster, leader).sent;
    cluster.run(SECOND);
    let sent = status(&cluster, leader).sent - before;
    assert!((1500..=2000).contains(&sent), "{sent} heartbeats in a second");
}

/// A quorum with a member of Apache's in it (here: one without heartbeats) is judged by `syncLimit`, also
/// while those with heartbeats are silent.
#[test]
fn a_quorum_with_a_member_without_heartbeats_is_not_hurried() {
    for voters in [3, 5] {
        let mut cluster = Cluster::new(voters, 0);
        for i in 0..voters {
            let every = if i == 0 { Duration::ZERO } else { ms(50) };
            cluster = cluster.configure(|config| config.detection.heartbeat = every);
            cluster.start(i);
        }
        cluster.run(4 * SECOND);
        let leader = cluster.leader().expect("a leader");
        assert_eq!(leader, voters - 1);
        let status = cluster.node(leader).peer().status();
        // The others but one.
        for i in 1..=(voters - 1) / 2 {
            cluster.freeze(i);
        }
        cluster.run(5 * SECOND);
        assert_eq!(cluster.node(leader).peer().status(), status);
        cluster.write(leader, &[b"x"]);
        assert_eq!(cluster.lines(leader), ["x"]);
    }
}

/// A vote of another voter that looks for a leader shortens the wait of who hears nothing either.
#[test]
fn suspicion_spreads() {
    let mut cluster = Cluster::new(3, 0);
    for i in 0..3 {
        let min = if i == 0 { ms(4000) } else { ms(250) };
        cluster = cluster.configure(|config| config.detection.suspect_min = min);
        cluster.start(i);
    }
    cluster.run(4 * SECOND);
    assert_eq!(cluster.leader(), Some(2));
    cluster.freeze(2);
    let passed = time_to_replace(&mut cluster, 2, 10 * SECOND).expect("a new leader");
    assert!(passed >= ms(1000) && passed < ms(2500), "{passed:?}");
    assert_eq!(sid(cluster.leader().expect("one")), Sid(2));
}
