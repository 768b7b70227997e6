//! An observer that asks and never reads, at its master. What waits for the leader is told in
//! `tests/observers_bounds.rs`.

use alloc::vec::Vec;

use super::{Link, Observers};
use crate::leader::LearnerIdentity;
use crate::sender::Sender;
use crate::{ConnId, Instant};

/// Twice as many places in the history as an observer may wait at for the answers to its syncs.
const PLACES: u64 = 2 << 16;

#[test]
fn an_observer_that_does_not_read_the_answers_to_its_syncs_is_closed() {
    let mut observers = Observers::default();
    let conn = ConnId::core(0, 0);
    let to = Sender::new(conn, Instant::ZERO, 0);
    let link = Link {
        to,
        remote: None,
        said: LearnerIdentity::default(),
        told: None,
        until: Instant::ZERO,
    };
    observers.links.insert(conn, link);
    let mut ask = |committed| {
        // The leader answers at once.
        observers.note_sync(Some(conn));
        let own = observers.is_own_sync(committed);
        assert!(observers.syncs.is_empty());
        // As its owner does.
        own.inspect_err(|conn| observers.forget(*conn))
    };
    // Any number at one place are one.
    assert!((0..PLACES).all(|_| ask(1) == Ok(false)));
    let closed: Vec<u64> = (1..=PLACES).filter(|place| ask(*place) == Err(conn)).collect();
    assert_eq!(closed, [PLACES / 2 + 1], "once, and what is answered later is nobody's");
    // Questions of this server's own clients are not mistaken for those of who has left.
    observers.note_sync(Some(conn));
    observers.note_sync(None);
    assert_eq!([observers.is_own_sync(9), observers.is_own_sync(9)], [Ok(false), Ok(true)]);
}
