//! Whole elections. The bounds are those that the product promises: a few round trips when nothing
//! must be waited for.

use alloc::format;
use alloc::sync::Arc;

use super::net::{MS, Net, US, ensemble};
use crate::election::algorithm::{Algorithm, CastVote};
use crate::quorums::Quorums;
use crate::{ElectionConfig, Epoch, Instant, ServerState, Sid, Vote, Zxid};

const FOLLOWING: ServerState = ServerState::Following;
const LEADING: ServerState = ServerState::Leading;
const OBSERVING: ServerState = ServerState::Observing;

/// An ensemble of `n` voters with a leader, established.
fn running(n: i64) -> Net {
    let mut net = Net::new(ensemble(n, &[], &[]), 7);
    for sid in 1..=n {
        net.boot(sid, 0, 0, true);
    }
    net.elect(1000 * MS);
    net.establish(1);
    net.run_for(100 * MS);
    net
}

#[test]
fn cold_start_together() {
    for n in [3, 5] {
        for seed in 0..50 {
            let mut net = Net::new(ensemble(n, &[], &[]), seed);
            for sid in 1..=n {
                net.boot(sid, 0, 0, true);
            }
            let (leader, time) = net.elect(1000 * MS);
            assert_eq!(leader, n);
            assert!(time < 3 * MS, "{n} servers took {time:?}, seed {seed}");
        }
    }
}

#[test]
fn one_byte_at_a_time() {
    let mut net = Net::new(ensemble(3, &[], &[]), 1);
    net.chunk = 1;
    (1..=3).for_each(|sid| net.boot(sid, 0, 0, true));
    assert_eq!(net.elect(100 * MS).0, 3);
}

#[test]
fn one_server_alone() {
    let mut net = Net::new(ensemble(1, &[], &[]), 1);
    net.boot(1, 0, 0, true);
    assert_eq!(net.outcome(1), Some((LEADING, 1)));
}

/// A server that is not up yet refuses the dials of the others, so two of three need not wait. The
/// third finds them.
#[test]
fn cold_start_staggered() {
    for seed in 0..50 {
        let mut net = Net::new(ensemble(3, &[], &[]), seed);
        net.boot(1, 0, 0, true);
        net.run_for(5000 * MS);
        assert_eq!(net.outcome(1), None);
        net.boot(2, 0, 0, true);
        let (leader, time) = net.elect(1000 * MS);
        assert_eq!(leader, 2);
        assert!(time < 3 * MS, "{time:?}");
        net.establish(1);
        net.run_for(5000 * MS);
        net.boot(3, 0, 0, true);
        let (leader, time) = net.elect(1000 * MS);
        assert_eq!(leader, 2);
        assert!(time < 3 * MS, "{time:?}");
        assert_eq!(net.outcome(3), Some((FOLLOWING, 2)));
    }
}

/// Starts within a few round trips of each other race with refused dials, and sometimes a minority
/// decides too early. Whoever wins, nobody waits for it.
#[test]
fn cold_start_within_milliseconds() {
    for seed in 0..400 {
        for n in [3, 5] {
            let mut net = Net::new(ensemble(n, &[], &[]), seed);
            for i in 0..n {
                let gap = net.random(if seed.is_multiple_of(2) { 600 } else { 3000 });
                net.run_for(US * u32::try_from(gap).unwrap());
                net.boot(1 + (i + i64::try_from(seed).unwrap()) % n, 0, 0, true);
            }
            let (_, time) = net.elect(1000 * MS);
            assert!(time < 3 * MS, "{time:?}, seed {seed}");
        }
    }
}

#[test]
fn the_longest_history_wins() {
    let mut net = Net::new(ensemble(3, &[], &[]), 3);
    net.boot(1, 1, 0x1_0000_0005, true);
    net.boot(2, 1, 0x1_0000_0009, true);
    net.boot(3, 1, 0x1_0000_0002, true);
    assert_eq!(net.elect(1000 * MS).0, 2);
}

#[test]
fn a_newer_epoch_beats_a_longer_history() {
    let mut net = Net::new(ensemble(3, &[], &[]), 3);
    net.boot(1, 2, 0x1_0000_0005, true);
    net.boot(2, 2, 0x1_0000_0004, true);
    net.boot(3, 1, 0x1_0000_0999, true);
    assert_eq!(net.elect(1000 * MS).0, 1);
}

#[test]
fn without_the_early_rule_it_waits() {
    let mut net = Net::new(ensemble(3, &[], &[]), 3);
    net.early = false;
    (1..=3).for_each(|sid| net.boot(sid, 0, 0, true));
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 3);
    assert!(time >= 200 * MS && time < 204 * MS, "{time:?}");
}

/// A voter behind a black hole might still come with a better vote.
#[test]
fn the_silent_are_waited_for() {
    let mut net = Net::new(ensemble(3, &[], &[]), 3);
    net.cut.extend([(Sid(1), Sid(3)), (Sid(2), Sid(3))]);
    net.boot(1, 0, 0, true);
    net.boot(2, 0, 0, true);
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 2);
    assert!(time >= 200 * MS && time < 204 * MS, "{time:?}");
}

#[test]
fn leader_killed() {
    for seed in 0..50 {
        let mut net = running(3);
        net.random(seed + 1);
        for sid in 1..=3 {
            net.server(Sid(sid)).zxid = 0x1_0000_0000 + if sid == 1 { 9 } else { 5 };
        }
        let order = if seed % 2 == 0 { [1, 2] } else { [2, 1] };
        let gap = US * u32::try_from(seed * 40).unwrap();
        net.kill_leader(3, &[(order[0], 60 * US), (order[1], 60 * US + gap)]);
        let (leader, time) = net.elect(1000 * MS);
        assert_eq!(leader, 1, "the longer history");
        assert!(time < 2 * MS, "{time:?} with a gap of {gap:?}");
    }
}

#[test]
fn leader_of_five_killed() {
    let mut net = running(5);
    let notice = [(2, 60 * US), (4, 100 * US), (1, 500 * US), (3, 1500 * US)];
    net.kill_leader(5, &notice);
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 4);
    assert!(time < 2 * MS, "{time:?}");
}

/// The leader's election connection is still open: it may be alive and have the best history.
#[test]
fn a_leader_that_resigned_is_waited_for() {
    let mut net = running(3);
    for sid in 1..=2 {
        net.look(Sid(sid), Some(Sid(3)));
    }
    net.run_for(20 * MS);
    assert_eq!(net.outcome(1), None);
    net.look(Sid(3), None);
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 3);
    assert!(time < 2 * MS, "{time:?}");
}

#[test]
fn a_restarted_follower_finds_the_leader() {
    let mut net = running(3);
    net.kill(1);
    net.run_for(100 * MS);
    net.boot(1, 1, 0, true);
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 3);
    assert!(time < 2 * MS, "{time:?}");
}

/// The killed leader comes back with an epoch and a history that nobody has: it follows.
#[test]
fn an_established_leader_stays() {
    let mut net = running(3);
    net.kill_leader(3, &[(1, 60 * US), (2, 60 * US)]);
    net.elect(1000 * MS);
    net.establish(2);
    net.boot(3, 1, 0x1_0000_0999, true);
    assert_eq!(net.elect(1000 * MS).0, 2);
    assert_eq!(net.outcome(3), Some((FOLLOWING, 2)));
}

#[test]
fn observers_join() {
    let mut net = Net::new(ensemble(5, &[4, 5], &[]), 3);
    for sid in 1..=5 {
        net.boot(sid, 0, 0, true);
    }
    assert_eq!(net.elect(1000 * MS).0, 3);
    assert_eq!(net.outcome(4), Some((OBSERVING, 3)));
    net.establish(1);
    net.kill(5);
    net.run_for(50 * MS);
    net.boot(5, 1, 0, true);
    let (leader, time) = net.elect(1000 * MS);
    assert_eq!(leader, 3);
    assert_eq!(net.outcome(5), Some((OBSERVING, 3)));
    assert!(time < 2 * MS, "{time:?}");
}

/// An observer that loses the leader before the voters have another, or before they miss it, is told.
#[test]
fn observers_hear_of_the_next_leader() {
    for seed in 0..50 {
        let mut net = Net::new(ensemble(4, &[4], &[]), seed);
        (1..=4).for_each(|sid| net.boot(sid, 0, 0, true));
        assert_eq!(net.elect(1000 * MS).0, 3);
        net.establish(1);
        net.run_for(500 * MS);
        let gap = US * u32::try_from(seed * 20).unwrap();
        let lost = net.now;
        net.kill_leader(3, &[(4, 20 * US), (1, 20 * US + gap), (2, 20 * US + 2 * gap)]);
        assert_eq!(net.elect(1000 * MS).0, 2);
        assert_eq!(net.outcome(4), Some((OBSERVING, 2)));
        let time = net.now.saturating_since(lost);
        assert!(time < 4 * MS, "{time:?} with a gap of {gap:?}");
    }
}

/// An observer that looks for the leader while its epoch is established hears two votes that do not agree, and
/// there is no third.
#[test]
fn observers_join_while_an_epoch_is_established() {
    for gap in 0..40 {
        let mut net = Net::new(ensemble(4, &[4], &[]), 3);
        (1..=3).for_each(|sid| net.boot(sid, 0, 0, true));
        assert_eq!(net.elect(1000 * MS).0, 3);
        net.establish(1);
        net.kill_leader(3, &[(1, 60 * US), (2, 60 * US)]);
        net.run_for(10 * MS);
        net.boot(4, 0, 0, true);
        net.run_for(10 * gap * US);
        for sid in [2, 1] {
            net.establish_on(Sid(sid), 2);
            net.run_for(100 * US);
        }
        let (leader, time) = net.elect(1000 * MS);
        assert_eq!(leader, 2);
        assert!(time < 2 * MS, "{time:?} with a gap of {gap}");
    }
}

/// A server that no configuration names is answered on the connection that it keeps.
#[test]
fn a_joiner_is_answered() {
    let mut net = running(3);
    let members = net.ensemble.clone();
    for joiner in [8, 9] {
        net.ensemble = members.clone();
        let line = format!("h:{}:{}:observer", 1000 + joiner, 2000 + joiner);
        net.ensemble.set(&format!("server.{joiner}"), &line).unwrap();
        net.boot(joiner, 0, 0, true);
        let (leader, time) = net.elect(1000 * MS);
        assert_eq!(leader, 3);
        assert!(time < 3 * MS, "{time:?}");
        net.kill(joiner);
        net.run_for(10 * MS);
    }
}

/// Three groups of three, of which the last weighs nothing.
#[test]
fn weightless_servers_follow() {
    let groups = [
        ("group.1", "1:2:3"),
        ("group.2", "4:5:6"),
        ("group.3", "7:8:9"),
        ("weight.7", "0"),
        ("weight.8", "0"),
        ("weight.9", "0"),
    ];
    let mut net = Net::new(ensemble(9, &[], &groups), 3);
    for sid in 1..=9 {
        net.boot(sid, 0, 0, true);
    }
    while (1..=6).any(|sid| net.outcome(sid).is_none()) {
        net.step();
    }
    let (leader, _) = net.elect(1000 * MS);
    assert_eq!(leader, 6);
}

/// Rule R14: a wiped server neither votes nor is elected, but follows.
#[test]
fn a_wiped_server_only_follows() {
    let mut net = running(3);
    net.kill(1);
    net.kill(2);
    net.kill(3);
    net.run_for(10 * MS);
    net.boot(1, 1, 0x1_0000_0001, true);
    net.boot(3, 0, 0, false);
    net.run_for(3000 * MS);
    assert_eq!(net.outcome(1), None, "one vote of three is no quorum");
    assert_eq!(net.outcome(3), None);
    net.boot(2, 1, 0x1_0000_0001, true);
    assert_eq!(net.elect(1000 * MS).0, 2);
    assert!(!net.server(Sid(3)).port.is_bootstrapped());
}

/// What was said when the ensemble was empty does not prove that it still is.
#[test]
fn old_news_is_no_evidence() {
    let mut net = Net::new(ensemble(3, &[], &[]), 5);
    (1..=3).for_each(|sid| net.boot(sid, 0, 0, true));
    net.elect(1000 * MS);
    // Nobody asks, so the last words of all servers remain votes of the first round.
    net.establish(1);
    for sid in 1..=3 {
        net.server(Sid(sid)).zxid = 0x1_0000_0005;
    }
    net.kill(1);
    net.run_for(10 * MS);
    net.boot(1, 0, 0, false);
    net.elect(1000 * MS);
    assert!(!net.server(Sid(1)).port.is_bootstrapped());
    assert_eq!(net.outcome(1), Some((FOLLOWING, 3)));
}

#[test]
fn an_empty_ensemble_is_born() {
    for n in [1, 3, 5] {
        for seed in 0..20 {
            let mut net = Net::new(ensemble(n, &[], &[]), seed);
            for sid in 1..=n {
                net.boot(sid, 0, 0, false);
            }
            let (leader, time) = net.elect(1000 * MS);
            assert!((1..=n).contains(&leader));
            assert!(time < 25 * MS, "{n} servers took {time:?}, seed {seed}");
            assert!((1..=n).any(|sid| net.server(Sid(sid)).port.is_bootstrapped()));
        }
    }
}

#[test]
fn an_ensemble_is_not_born_without_all() {
    let mut net = Net::new(ensemble(3, &[], &[]), 1);
    net.boot(1, 0, 0, false);
    net.boot(3, 0, 0, false);
    net.run_for(10_000 * MS);
    assert_eq!((net.outcome(1), net.outcome(3)), (None, None));
    net.boot(2, 0, 0, false);
    net.elect(50 * MS);
}

/// One server decides early for 2, which meanwhile hears of 3: nobody waits for `initLimit`.
#[test]
fn deserters_are_noticed() {
    let mut net = Net::new(ensemble(3, &[], &[]), 1);
    net.boot(1, 0, 0, true);
    net.boot(2, 0, 0, true);
    assert_eq!(net.elect(10 * MS).0, 2);
    // 1 loses heart and looks again just when a better candidate appears.
    net.boot(3, 1, 0x1_0000_0000, true);
    net.look(Sid(1), None);
    assert_eq!(net.elect(450 * MS).0, 3);
}

/// Two of five reach one of the others only, which cannot help hearing of them: those three elect one
/// of themselves in the end (E7).
#[test]
fn who_cannot_be_followed_is_not_elected_for_ever() {
    let mut net = Net::new(ensemble(5, &[], &[]), 3);
    let cut = [(2, 4), (2, 5), (3, 4), (3, 5), (4, 5)];
    net.cut.extend(cut.map(|(a, b)| (Sid(a), Sid(b))));
    (1..=5).for_each(|sid| net.boot(sid, 0, 0, true));
    for expected in [5, 4, 3] {
        let end = net.now + 1000 * MS;
        while (1..=3).any(|sid| net.outcome(sid).is_none()) {
            assert!(net.now < end, "{:?}", net.outcomes());
            net.step();
        }
        for sid in 1..=3 {
            assert_eq!(net.outcome(sid).map(|(_, leader)| leader), Some(expected));
        }
        if expected != 3 {
            (1..=3).for_each(|sid| net.look(Sid(sid), Some(Sid(expected))));
        }
    }
    assert_eq!(net.outcome(3), Some((LEADING, 3)));
}

/// Without the leader that could not be followed there is no quorum: it gets another chance, at once if
/// it is known that nobody else is left, or else when nobody else is heard.
#[test]
fn who_is_needed_is_elected_again() {
    for (alone, bounds) in [(true, 0..10), (false, 2000..2300)] {
        let mut net = Net::new(ensemble(3, &[], &[]), 3);
        if !alone {
            net.cut.extend([(Sid(1), Sid(2)), (Sid(2), Sid(3))]);
        }
        net.boot(1, 0, 0, true);
        net.boot(3, 0, 0, true);
        net.elect(300 * MS);
        let mut again = || {
            net.look(Sid(1), Some(Sid(3)));
            net.look(Sid(3), None);
            let (leader, time) = net.elect(30_000 * MS);
            net.establish(1);
            assert_eq!(leader, 3);
            time.as_millis()
        };
        let time = again();
        assert!(bounds.contains(&time), "{time} ms");
        // Once it has been established its loss says nothing about the next time.
        let time = again();
        assert!(time < 300, "{time} ms");
    }
}

/// Who was elected without those that are avoided, and was not followed by enough, may need them (E7).
#[test]
fn who_led_in_vain_avoids_nobody() {
    let mut net = Net::new(ensemble(3, &[], &[]), 3);
    (1..=3).for_each(|sid| net.boot(sid, 0, 0, true));
    for (lost, expected) in [(Some(Sid(3)), 3), (None, 2), (None, 3)] {
        let end = net.now + 1000 * MS;
        while (1..=2).any(|sid| net.outcome(sid).is_none()) {
            assert!(net.now < end, "{:?}", net.outcomes());
            net.step();
        }
        for sid in 1..=2 {
            assert_eq!(net.outcome(sid).map(|(_, leader)| leader), Some(expected));
            net.look(Sid(sid), lost);
        }
        net.look(Sid(3), None);
    }
}

/// Back-off is bounded (E8) and a lone server does not flood.
#[test]
fn a_lone_server_is_patient() {
    let mut net = Net::new(ensemble(3, &[], &[]), 1);
    net.boot(1, 0, 0, true);
    let mut steps = 0;
    let end = net.now + 60_000 * MS;
    while net.now < end {
        net.step();
        steps += 1;
    }
    assert!(steps < 2 * 3 * 100, "{steps} events in a minute");
}

/// Who joins an ensemble takes over its round, and yet never votes again in one it has voted in
/// (E2): its vote there, for a better candidate, may still be counted.
#[test]
fn no_round_comes_twice() {
    let quorums = Arc::new(Quorums::new(ensemble(3, &[], &[]), None));
    let mut algorithm = Algorithm::new(Sid(1), quorums, ElectionConfig::default(), 1000 * MS);
    let now = Instant::from_nanos(1);
    let vote =
        |sid, zxid| Vote { leader: Sid(sid), zxid: Zxid::from_raw(zxid), peer_epoch: Epoch(4) };
    let cast = |state, election_epoch| CastVote {
        state,
        vote: vote(3, 0x4_0000_000e),
        election_epoch,
        version: 2,
    };
    algorithm.start(now, vote(1, 0x4_0000_0002));
    let hear = |algorithm: &mut Algorithm, from, cast| {
        algorithm.on_notification(now, Sid(from), cast, |_| false)
    };
    hear(&mut algorithm, 3, cast(ServerState::Looking, 7));
    assert_eq!((algorithm.vote().election_epoch, algorithm.vote().vote.leader), (7, Sid(3)));
    hear(&mut algorithm, 2, cast(FOLLOWING, 6));
    assert!(hear(&mut algorithm, 3, cast(LEADING, 6)).decided.is_some());
    assert_eq!(algorithm.vote().election_epoch, 6);
    algorithm.end();
    algorithm.start(now, vote(1, 0x4_0000_0002));
    assert_eq!(algorithm.vote().election_epoch, 8);
}
