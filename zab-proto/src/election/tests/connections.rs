//! The rules of connections, one by one, on a single port.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::driver::{Driver, NOW, handshake};
use super::net::{MS, US, config, ensemble};
use crate::election::ElectionPort;
use crate::wire::Parsed;
use crate::wire::extension::{self, Tag};
use crate::wire::notification::{Notification, parse_frame};
use crate::{CloseReason, ConnId, DecodeError, Epoch, ServerState, Sid, Violation, Vote, Zxid};

/// Server 2 of three, looking.
fn looking() -> Driver {
    let mut driver = Driver::new(&config(Sid(2), &ensemble(3, &[], &[])));
    driver.look(0, 0);
    driver
}

/// The frame of a vote of round 1, for an empty history.
fn vote(state: i32, leader: i64) -> Vec<u8> {
    vote_of(state, leader, 0, 1)
}

fn vote_of(state: i32, leader: i64, zxid: i64, election_epoch: i64) -> Vec<u8> {
    let notification = Notification {
        state,
        leader: Sid(leader),
        zxid: Zxid::from_raw(zxid),
        election_epoch,
        peer_epoch: Epoch(0),
        version: 2,
        config: Some(b"version=0"),
    };
    let mut frame = vec![0; notification.frame_len()];
    notification.emit_frame(&mut frame);
    frame
}

/// The leaders of the votes in `bytes`.
fn leaders(mut bytes: &[u8]) -> Vec<i64> {
    let mut leaders = vec![];
    while let Parsed::Complete { value, len } = parse_frame(bytes) {
        leaders.push(Notification::parse(value).unwrap().leader.0);
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    leaders
}

#[test]
fn everybody_is_dialled_at_the_start() {
    let mut driver = looking();
    assert_eq!(driver.dials.len(), 2);
    let conn = driver.dial_to("h:2001");
    assert!(ElectionPort::owns(conn));
    assert!(!ElectionPort::owns(ConnId::core(0, 1)));
    assert!(!ElectionPort::owns(ConnId::client(conn.slot(), 1)));
}

#[test]
fn a_smaller_server_is_dialled_and_kept() {
    let mut driver = looking();
    let conn = driver.dial_to("h:2001");
    driver.open(conn);
    let sent = driver.take_sent(conn);
    let own = handshake(2, "h:2002");
    assert_eq!(sent[..own.len()], own);
    assert_eq!(leaders(&sent[own.len()..]), [2]);
    assert!(driver.closed.is_empty());
}

#[test]
fn a_larger_server_is_only_told_to_call() {
    let mut driver = looking();
    let conn = driver.dial_to("h:2003");
    driver.open(conn);
    assert_eq!(driver.take_sent(conn), handshake(2, "h:2002"));
    assert_eq!(driver.closed, [(conn, CloseReason::Superseded)]);
    // It gets time for that: ZooKeeper takes a second request as a reason to hang up.
    driver.pass(150 * MS);
    assert!(driver.dials.iter().all(|(_, to)| to != "h:2003"));
    driver.pass(100 * MS);
    driver.dial_to("h:2003");
}

#[test]
fn a_call_back_replaces_the_own_dial() {
    let mut driver = looking();
    let dial = driver.dial_to("h:2003");
    let conn = driver.called_by(3);
    assert_eq!(driver.closed, [(dial, CloseReason::Superseded)]);
    driver.open(dial);
    assert!(driver.take_sent(dial).is_empty(), "a larger server must not be told to call now");
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
}

#[test]
fn a_smaller_server_is_called_back_where_the_configuration_says() {
    for text in ["other:77", "0.0.0.0:77", "192.0.2.1:77", "[::1]:5|b:6"] {
        let mut driver = looking();
        let dial = driver.dial_to("h:2001");
        driver.close(dial);
        let conn = driver.accept();
        driver.feed(conn, &handshake(1, text));
        assert_eq!(driver.closed, [(conn, CloseReason::Superseded)]);
        let (call, to) = driver.dials.pop().unwrap();
        assert_eq!(to, "h:2001", "{text}");
        driver.close(call);
        driver.pass(2 * MS);
        driver.dial_to("h:2001");
    }
}

/// A server that is not in the configuration is called at a literal address, if at all.
#[test]
fn strangers_do_not_choose_whom_we_dial() {
    let called = |text: &str| {
        let mut driver = looking();
        driver.dials.clear();
        let conn = driver.accept();
        driver.feed(conn, &handshake(0, text));
        driver.dials.pop().map(|(_, to)| to)
    };
    assert_eq!(called("internal.host:22"), None);
    assert_eq!(called("192.0.2.1:77|internal.host:22").as_deref(), Some("192.0.2.1:77"));
}

/// Without the option for it, who is not in the configuration gets neither an answer nor a dial.
#[test]
fn who_is_not_in_the_configuration_is_refused() {
    let mut config = config(Sid(2), &ensemble(3, &[], &[]));
    config.allow_unlisted = false;
    let mut driver = Driver::new(&config);
    driver.look(0, 0);
    driver.dials.clear();
    for sid in [0, 9, -1, -7, i64::MIN] {
        let conn = driver.accept();
        driver.feed(conn, &handshake(sid, "192.0.2.1:77"));
        let reason = CloseReason::Violation(Violation::Stranger(Sid(sid)));
        assert_eq!(driver.closed.pop(), Some((conn, reason)));
        assert!(driver.dials.is_empty() && driver.take_sent(conn).is_empty());
    }
}

#[test]
fn crossing_dials_do_not_cut_each_other() {
    let mut driver = looking();
    let dial = driver.dial_to("h:2001");
    let crossing = driver.accept();
    driver.feed(crossing, &handshake(1, "h:2001"));
    driver.open(dial);
    let crossing = driver.accept();
    driver.feed(crossing, &handshake(1, "h:2001"));
    assert_eq!(driver.closed.len(), 2);
    assert!(driver.closed.iter().all(|(conn, _)| *conn != dial));
    // Later it means that the other side has lost the connection.
    driver.pass(150 * MS);
    let conn = driver.accept();
    driver.feed(conn, &handshake(1, "h:2001"));
    assert!(driver.closed.contains(&(dial, CloseReason::Superseded)));
    driver.dial_to("h:2001");
}

#[test]
fn a_new_connection_replaces_the_old_one() {
    let mut driver = looking();
    let old = driver.called_by(3);
    let new = driver.called_by(3);
    assert!(driver.closed.contains(&(old, CloseReason::Superseded)));
    // The old one is forgotten: nothing that happens to it matters.
    driver.close(old);
    assert_eq!(driver.feed(old, &vote(0, 3)), vote(0, 3).len());
    driver.take_sent(new);
    driver.feed(new, &vote(0, 3));
    assert_eq!(leaders(&driver.take_sent(new)), [3]);
}

#[test]
fn the_last_vote_is_repeated_on_a_new_connection() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
    let conn = driver.called_by(3);
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
}

#[test]
fn the_latest_vote_wins() {
    let mut driver = looking();
    let conn = driver.accept();
    driver.port.handle_bytes(NOW, conn, &handshake(3, "h:2003"));
    driver.port.handle_bytes(NOW, conn, &vote(0, 3));
    driver.drain();
    assert_eq!(leaders(&driver.take_sent(conn)), [3], "the vote for 2 never left");
}

#[test]
fn frames_are_sent_in_any_pieces() {
    let mut driver = looking();
    let conn = driver.dial_to("h:2001");
    driver.port.opened(NOW, conn);
    let mut whole = vec![];
    let mut piece = [0];
    while driver.port.poll_transmit(conn, &mut piece) == 1 {
        whole.push(piece[0]);
    }
    let own = handshake(2, "h:2002");
    assert_eq!(whole[..own.len()], own);
    assert_eq!(leaders(&whole[own.len()..]), [2]);
    assert_eq!(driver.port.poll_transmit(conn, &mut []), 0);
}

#[test]
fn malformed_bytes_close_their_connection_only() {
    let mut driver = looking();
    let good = driver.called_by(3);
    let bad = driver.accept();
    driver.feed(bad, &[0xff; 30]);
    let reason = CloseReason::Malformed(DecodeError::BadValue(-1));
    assert_eq!(driver.closed.pop(), Some((bad, reason)));
    driver.take_sent(good);
    driver.feed(good, &[0, 0, 0, 3, 1, 2, 3]);
    assert_eq!(driver.port.counters().malformed, 1);
    driver.feed(good, &vote(7, 3));
    assert_eq!(driver.port.counters().malformed, 2);
    driver.feed(good, &vote(0, 3));
    assert_eq!(leaders(&driver.take_sent(good)), [3], "it goes on");
    assert_eq!(driver.port.counters().malformed_config, 0);
    driver.feed(good, &[0, 8, 0, 1]);
    let reason = CloseReason::Malformed(DecodeError::BadLength(524_289));
    assert_eq!(driver.closed.pop(), Some((good, reason)));
}

/// The rest of it would be the votes to come.
#[test]
fn a_frame_that_does_not_end_closes_its_connection() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    driver.feed(conn, &vote(0, 3));
    driver.pass(Duration::from_secs(30));
    assert!(driver.closed.iter().all(|(closed, _)| *closed != conn), "silence is no fault");
    driver.feed(conn, &[0, 0, 0xff, 0xff, 1, 2, 3]);
    driver.pass(Duration::from_secs(9));
    assert!(driver.closed.iter().all(|(closed, _)| *closed != conn));
    driver.pass(Duration::from_secs(2));
    assert!(driver.closed.contains(&(conn, CloseReason::Silent)));
}

#[test]
fn a_server_with_our_id_is_refused() {
    let mut driver = looking();
    let conn = driver.accept();
    driver.feed(conn, &handshake(2, "h:2002"));
    assert_eq!(driver.closed, [(conn, CloseReason::Violation(Violation::OwnSid))]);
}

#[test]
fn silent_connections_make_room() {
    let mut driver = looking();
    let mut accepted = vec![];
    for _ in 0..300 {
        driver.pass(US);
        accepted.push(driver.accept());
    }
    driver.drain();
    // Of 256, two are our dials.
    let closed: Vec<ConnId> = driver.closed.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(closed, accepted[..300 - 254]);
    driver.called_by(3);
    driver.closed.clear();
    driver.pass(Duration::from_secs(11));
    assert_eq!(driver.closed.len(), 254);
    assert!(driver.closed.iter().all(|(_, reason)| *reason == CloseReason::Silent));
}

/// Voters may hold all connections; nobody is thrown out for a newcomer then.
#[test]
fn too_many_are_refused() {
    let mut config = config(Sid(2), &ensemble(3, &[], &[]));
    config.limits.links_max = 2;
    let mut driver = Driver::new(&config);
    driver.look(0, 0);
    assert_eq!(driver.port.accept(NOW, None), None);
    assert!(driver.closed.is_empty());
}

#[test]
fn strangers_get_a_share_of_the_connections() {
    let mut driver = looking();
    for sid in 100..200 {
        let conn = driver.accept();
        driver.feed(conn, &handshake(sid, "x:1"));
    }
    assert_eq!(driver.closed.len(), 100 - 256 / 4);
    driver.called_by(3);
    assert_eq!(driver.closed.len(), 100 - 256 / 4 + 1, "but for the dial that it replaces");
}

/// Two servers that each take the other for a non-voter must not answer each other for ever.
#[test]
fn strangers_are_answered_at_a_measured_pace() {
    let mut driver = looking();
    let conn = driver.accept();
    driver.feed(conn, &handshake(9, "x:9"));
    assert!(driver.take_sent(conn).is_empty());
    driver.feed(conn, &vote(1, 9));
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
    for _ in 0..20 {
        driver.feed(conn, &vote(0, 9));
    }
    assert!(driver.take_sent(conn).is_empty());
    driver.pass(15 * MS);
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
    driver.pass(15 * MS);
    assert!(driver.take_sent(conn).is_empty());
}

#[test]
fn those_with_a_leader_are_dialled_only_to_answer() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    let dial = driver.dial_to("h:2001");
    driver.close(dial);
    driver.feed(conn, &vote(0, 3));
    assert_eq!(driver.decided, Some(Sid(3)), "1 is unreachable");
    driver.dials.clear();
    driver.take_sent(conn);
    driver.pass(Duration::from_secs(60));
    assert!(driver.dials.is_empty());
    driver.close(conn);
    driver.pass(Duration::from_secs(60));
    assert!(driver.dials.is_empty());
    // 3 looks again and is told at once.
    let conn = driver.called_by(3);
    driver.take_sent(conn);
    driver.port.established(driver.now, Epoch(1));
    driver.feed(conn, &vote(0, 3));
    let sent = driver.take_sent(conn);
    let answer = Notification::parse(&sent[4..]).unwrap();
    assert_eq!(answer.server_state(), Some(ServerState::Following));
    assert_eq!((answer.leader, answer.peer_epoch), (Sid(3), Epoch(1)));
}

/// A voter whose vote is not counted takes no part in the election, and is told how it has ended. So is who
/// votes for somebody else to the end: it would ask again after 200 ms, 400 ms and so on, and the others may
/// need it to have a leader at all.
#[test]
fn who_waits_without_a_vote_is_told_of_the_leader_and_who_votes_for_another() {
    for (votes_for, is_told) in [(None, true), (Some(1), true), (Some(3), false)] {
        let mut driver = looking();
        let first = driver.dial_to("h:2001");
        driver.open(first);
        let third = driver.called_by(3);
        driver.feed(first, &vote_of(0, 1, Zxid::NONE.raw(), 0));
        if let Some(leader) = votes_for {
            driver.feed(first, &vote(0, leader));
        }
        driver.feed(third, &vote(0, 3));
        driver.take_sent(first);
        driver.pass(Duration::from_secs(1));
        assert_eq!(driver.decided, Some(Sid(3)));
        let sent = driver.take_sent(first);
        let mut rest = &sent[..];
        let mut told = None;
        while let Parsed::Complete { value, len } = parse_frame(rest) {
            told = Notification::parse(value).unwrap().server_state();
            rest = &rest[len..];
        }
        // Who has voted for the same one decides for itself.
        assert_eq!(told == Some(ServerState::Following), is_told, "{votes_for:?} {told:?}");
    }
}

/// Server 2 has lost the history that others still vote for.
#[test]
fn a_vote_for_what_we_no_longer_have_starts_a_new_round() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    driver.take_sent(conn);
    driver.feed(conn, &vote_of(0, 2, 7, 4));
    let sent = driver.take_sent(conn);
    let vote = Notification::parse(&sent[4..]).unwrap();
    assert_eq!((vote.leader, vote.zxid, vote.election_epoch), (Sid(2), Zxid::ZERO, 5));
}

/// The leader was restarted after it had been voted for, and has forgotten the round.
#[test]
fn a_restarted_leader_is_noticed() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    let dial = driver.dial_to("h:2001");
    driver.close(dial);
    driver.feed(conn, &vote_of(0, 3, 0, 5));
    assert_eq!(driver.decided, Some(Sid(3)));
    let conn = driver.called_by(3);
    driver.feed(conn, &vote_of(0, 3, 0, 1));
    assert_eq!(driver.decided, Some(Sid(3)), "it may be a late copy");
    driver.feed(conn, &vote_of(0, 3, 0, 1));
    assert_eq!(driver.decided, None);
}

/// Between two roles nobody is sent to the lost leader.
#[test]
fn nothing_is_said_between_two_roles() {
    let mut driver = looking();
    let conn = driver.called_by(3);
    let dial = driver.dial_to("h:2001");
    driver.close(dial);
    driver.feed(conn, &vote(0, 3));
    driver.take_sent(conn);
    driver.port.end();
    driver.feed(conn, &vote(0, 3));
    assert!(driver.take_sent(conn).is_empty());
    driver.look(0, 0);
    assert_eq!(leaders(&driver.take_sent(conn)), [2]);
}

#[test]
fn unreachable_servers_are_redialled_at_a_growing_pace() {
    let mut driver = looking();
    let mut dials = vec![];
    let end = driver.now + Duration::from_secs(10);
    while driver.now < end {
        if let Some(at) = driver.dials.iter().position(|(_, to)| to == "h:2001") {
            let (conn, _) = driver.dials.remove(at);
            dials.push(driver.now - NOW);
            driver.close(conn);
        }
        driver.pass(MS);
    }
    let millis: Vec<u128> = dials.iter().map(Duration::as_millis).collect();
    assert_eq!(millis[..6], [0, 1, 3, 7, 15, 31]);
    assert!(millis.windows(2).all(|pair| pair[1] - pair[0] <= 1001), "{millis:?}");
}

/// Whatever comes, the port neither panics nor loses another connection, and takes whole frames.
#[test]
fn noise_does_no_harm() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = move |below: u64| random.u64(..below);
    let mut driver = looking();
    let good = driver.called_by(3);
    for _ in 0..3000 {
        let conn = driver.accept();
        let mut bytes = match next(3) {
            0 => vec![],
            1 => handshake(1, "h:2001"),
            _ => handshake(100 + i64::try_from(next(50)).unwrap(), "x:1"),
        };
        bytes.extend_from_slice(&vote(0, 2));
        for _ in 0..next(4) {
            let at = usize::try_from(next(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        assert!(driver.feed(conn, &bytes) <= bytes.len());
        driver.close(conn);
        driver.pass(MS);
        driver.dials.clear();
    }
    assert!(driver.closed.iter().all(|(conn, _)| *conn != good));
}

/// Two voters of which one knows of a change and goes on to a voter of the new configuration: the other
/// follows its first vote at once, and is left. It does so once, and then waits for what is still to come.
#[test]
fn a_hasty_decision_that_was_in_vain_is_the_last_one() {
    for reconfig in [true, false] {
        let mut config = config(Sid(1), &ensemble(2, &[], &[]));
        config.reconfig = reconfig;
        let mut driver = Driver::new(&config);
        driver.look(0, 0);
        let conn = driver.called_by(2);
        driver.feed(conn, &vote_of(0, 2, 5, 1));
        assert_eq!(driver.decided, Some(Sid(2)), "all voters agree");
        driver.port.end();
        driver.look(0, 0);
        let round = 2;
        driver.feed(conn, &vote_of(0, 2, 5, round));
        assert_eq!(driver.decided, (!reconfig).then_some(Sid(2)));
        if reconfig {
            driver.pass(config.election.finalize_wait / 2);
            assert_eq!(driver.decided, None);
            driver.pass(config.election.finalize_wait);
            assert_eq!(driver.decided, Some(Sid(2)), "it does not wait for ever");
            driver.port.established(driver.now, Epoch(1));
            driver.port.end();
            driver.look(0, 0);
            driver.feed(conn, &vote_of(0, 2, 5, round + 1));
            assert_eq!(driver.decided, Some(Sid(2)), "at once, after a leader");
        }
    }
}

/// A candidate that no configuration known here names needs this server's vote to lead, and is told of it
/// when it is cast.
#[test]
fn a_candidate_from_outside_hears_the_votes_for_it() {
    let mut config = config(Sid(1), &ensemble(2, &[], &[]));
    config.reconfig = true;
    let mut driver = Driver::new(&config);
    driver.look(0, 0);
    let (known, outside) = (driver.called_by(2), driver.called_by(5));
    driver.take_sent(outside);
    let mut payload = vote_of(0, 5, 7, 1).split_off(4);
    extension::begin(&mut payload);
    extension::put(&mut payload, Tag::CANDIDATE, b"h:1005:2005:participant");
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.append(&mut payload);
    driver.feed(known, &frame);
    assert!(leaders(&driver.take_sent(outside)).contains(&5));
}

/// A leader that a change has named is left at once when it looks for one itself, as it was never told, or
/// leads on while a quorum wants another one.
#[test]
fn a_named_leader_that_others_do_not_want_is_left() {
    let mut config = config(Sid(1), &ensemble(3, &[], &[]));
    config.reconfig = true;
    for leader in [1, 3] {
        let mut driver = Driver::new(&config);
        driver.look(0, 0);
        let (second, third) = (driver.called_by(2), driver.called_by(3));
        for conn in [second, third] {
            driver.feed(conn, &vote(0, 1));
        }
        let named = Vote { leader: Sid(leader), zxid: Zxid::ZERO, peer_epoch: Epoch(0) };
        driver.port.end();
        let state = if leader == 1 { ServerState::Leading } else { ServerState::Following };
        driver.port.designate(state, named);
        driver.decided = Some(Sid(leader));
        // One that had not heard of it yet comes along after all.
        driver.feed(second, &vote_of(0, 2, 0, 7));
        driver.feed(second, &vote_of(1, leader, 0, -1));
        assert_eq!(driver.decided, Some(Sid(leader)));
        driver.feed(third, &vote_of(0, 2, 0, 7));
        assert_eq!(driver.decided, (leader == 1).then_some(Sid(1)), "3 itself does not lead");
        driver.feed(second, &vote_of(0, 2, 0, 7));
        assert_eq!(driver.decided, None);
    }
}
