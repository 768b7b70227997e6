//! One port in the place of a real server: it hears what that server heard and must say what that
//! server said. Equal notifications in a row count as one, since they are repeated on timers.
//!
//! The recordings are described in `tests/vectors/README.md`.

use alloc::vec;
use alloc::vec::Vec;

use super::driver::Driver;
use super::net::config;
use crate::wire::Parsed;
use crate::wire::notification::{Notification, parse_frame};
use crate::{ConnId, Epoch, Membership, ServerState, Sid};

/// A recorded connection: what either side said, message by message.
struct Recorded {
    from: i64,
    to: i64,
    dialler: Vec<Vec<u8>>,
    acceptor: Vec<Vec<u8>>,
}

fn recording(text: &str) -> Vec<Recorded> {
    let mut all = vec![];
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["conn", from, to] = words[..] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            all.push(Recorded { from, to, dialler: vec![], acceptor: vec![] });
        } else if let [direction @ ("a2b" | "b2a"), _, hex] = words[..] {
            let last = all.last_mut().unwrap();
            let side = if direction == "a2b" { &mut last.dialler } else { &mut last.acceptor };
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            side.push((0..hex.len()).step_by(2).map(byte).collect());
        }
    }
    all
}

/// The configuration that a recorded notification carries.
fn ensemble(frame: &[u8]) -> Membership {
    Membership::parse_text(Notification::parse(&frame[4..]).unwrap().config.unwrap()).unwrap()
}

/// The connections that `to` accepted from `from`, in order.
fn between(all: &[Recorded], from: i64, to: i64) -> Vec<&Recorded> {
    all.iter().filter(|one| (one.from, one.to) == (from, to)).collect()
}

fn no_repeats(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = frames.into_iter().collect();
    frames.dedup();
    frames
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = vec![];
    while let Parsed::Complete { len, .. } = parse_frame(bytes) {
        frames.push(bytes[..len].to_vec());
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    no_repeats(frames)
}

impl Driver {
    fn accept_and_feed(&mut self, handshake: &[u8]) -> ConnId {
        let conn = self.accept();
        self.feed(conn, handshake);
        conn
    }

    /// Everything said on `conn` so far.
    fn said(&self, conn: ConnId) -> Vec<Vec<u8>> {
        let on = self.sent.iter().filter(|(to, _)| *to == conn);
        frames(&on.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>())
    }
}

#[test]
fn the_smallest_of_three_at_a_cold_start() {
    let text = include_str!("../../../tests/vectors/election/cold_start_3_together.txt");
    let all = recording(text);
    let (two, three) = (between(&all, 2, 1)[0], between(&all, 3, 1)[0]);
    let mut driver = Driver::new(&config(Sid(1), &ensemble(&two.dialler[1])));
    driver.look(0, 0);
    let call = driver.dial_to("127.0.0.1:24013");
    driver.open(call);
    assert_eq!(driver.take_sent(call), between(&all, 1, 3)[0].dialler[0]);
    let to_two = driver.accept_and_feed(&two.dialler[0]);
    driver.feed(to_two, &two.dialler[1]);
    let to_three = driver.accept_and_feed(&three.dialler[0]);
    driver.feed(to_three, &three.dialler[1]);
    driver.feed(to_two, &two.dialler[2]);
    assert_eq!(driver.said(to_two), two.acceptor);
    assert_eq!(driver.said(to_three), three.acceptor);
    assert_eq!(driver.decided, Some(Sid(3)));
}

#[test]
fn the_largest_of_three_at_a_cold_start() {
    let text = include_str!("../../../tests/vectors/election/cold_start_3_together.txt");
    let all = recording(text);
    let (one, two) = (between(&all, 3, 1)[0], between(&all, 3, 2)[0]);
    let mut driver = Driver::new(&config(Sid(3), &ensemble(&one.dialler[1])));
    driver.look(0, 0);
    for (recorded, address) in [(one, "127.0.0.1:24011"), (two, "127.0.0.1:24012")] {
        let conn = driver.dial_to(address);
        driver.open(conn);
        let sent = driver.take_sent(conn);
        assert_eq!(sent, recorded.dialler.concat());
        recorded.acceptor.iter().for_each(|frame| {
            driver.feed(conn, frame);
        });
        let repeated = driver.take_sent(conn);
        assert!(frames(&repeated).iter().all(|frame| *frame == recorded.dialler[1]));
    }
    assert_eq!(driver.decided, Some(Sid(3)));
}

/// Server 1 follows 2, which is killed, then 3, and tells everyone who asks.
#[test]
fn a_follower_through_a_fail_over() {
    let text = include_str!("../../../tests/vectors/election/leader_kill_under_load.txt");
    let all = recording(text);
    let (two, three) = (between(&all, 2, 1), between(&all, 3, 1)[0]);
    let mut driver = Driver::new(&config(Sid(1), &ensemble(&three.dialler[1])));
    driver.look(0, 0);
    let refused = driver.dial_to("127.0.0.1:24113");
    driver.close(refused);
    let to_two = driver.accept_and_feed(&two[0].dialler[0]);
    driver.feed(to_two, &two[0].dialler[1]);
    assert_eq!(driver.said(to_two), two[0].acceptor);
    assert_eq!(driver.decided, Some(Sid(2)));
    driver.port.established(driver.now, Epoch(1));

    let to_three = driver.accept_and_feed(&three.dialler[0]);
    driver.feed(to_three, &three.dialler[1]);
    driver.close(to_two);
    driver.feed(to_three, &three.dialler[2]);
    driver.port.end();
    driver.look(1, 0x1_0000_0043);
    driver.feed(to_three, &three.dialler[3]);
    assert_eq!(driver.said(to_three), no_repeats(three.acceptor.clone()));
    let refused = driver.dial_to("127.0.0.1:24112");
    driver.close(refused);
    assert_eq!(driver.decided, Some(Sid(3)));
    driver.port.established(driver.now, Epoch(2));

    let to_two = driver.accept_and_feed(&two[1].dialler[0]);
    two[1].dialler[1..].iter().for_each(|frame| {
        driver.feed(to_two, frame);
    });
    assert_eq!(driver.said(to_two), no_repeats(two[1].acceptor.clone()));
}

/// Server 3 comes late and learns of the leader from those that have it.
#[test]
fn a_late_server_finds_the_leader() {
    let text = include_str!("../../../tests/vectors/election/cold_start_3_staggered.txt");
    let all = recording(text);
    let (one, two) = (between(&all, 3, 1)[0], between(&all, 3, 2)[0]);
    let mut driver = Driver::new(&config(Sid(3), &ensemble(&one.dialler[1])));
    driver.look(0, 0);
    let [(to_one, _), (to_two, _)] = driver.dials[..] else { panic!("{:?}", driver.dials) };
    for (conn, recorded) in [(to_one, one), (to_two, two)] {
        driver.open(conn);
        assert_eq!(driver.take_sent(conn), recorded.dialler[..2].concat());
        recorded.acceptor.iter().for_each(|frame| {
            driver.feed(conn, frame);
        });
        assert!(driver.said(conn).iter().all(|frame| *frame == recorded.dialler[1]));
    }
    assert_eq!(driver.decided, Some(Sid(2)));
    assert_eq!(driver.port.algorithm.vote().state, ServerState::Following);
}

#[test]
fn what_an_observer_says_first() {
    let text = include_str!("../../../tests/vectors/election/observer_join.txt");
    let all = recording(text);
    let one = between(&all, 4, 1)[0];
    let mut config = config(Sid(4), &ensemble(&one.dialler[1]));
    config.ensemble.complete().unwrap();
    let mut driver = Driver::new(&config);
    driver.look(0, 0);
    assert_eq!(driver.dials.len(), 3);
    let conn = driver.dials[0].0;
    driver.open(conn);
    assert_eq!(driver.take_sent(conn), one.dialler[..2].concat());
}
