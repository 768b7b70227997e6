//! A member of an ensemble that has found no leader for a while, and lets clients read.
//!
//! Its sessions are its own: no other server knows of them, nothing of them is in a transaction, and
//! they end with the role. What it shows is what it knows to be committed; others may have gone on.

use std::time::Duration;

use zab_proto::Instant;

use crate::service::role::Resumed;
use crate::service::role::tracker::{Owner, Tracker};

/// The service of a server without a leader.
#[derive(Debug)]
pub(in crate::service) struct ReadOnly {
    since: Instant,
    sessions: Tracker,
    count: usize,
    /// Handshakes that could not be granted here.
    refused: u64,
}

impl ReadOnly {
    pub(in crate::service) fn new(now: Instant, tick: Duration) -> Self {
        Self { since: now, sessions: Tracker::new(tick), count: 0, refused: 0 }
    }

    /// Begins a session.
    pub(super) fn open(&mut self, now: Instant, session: i64, timeout_ms: i32) {
        self.sessions.add(now, session, timeout(timeout_ms), Some(Owner::Local));
        self.count += 1;
    }

    /// A client wants to go on with a session: it may if it was begun here.
    pub(super) fn resume(&mut self, now: Instant, session: i64, timeout_ms: i32) -> Resumed {
        Resumed::Decided { valid: self.touch(now, session, timeout_ms) }
    }

    /// A sign of life. False if the session is at its end.
    pub(super) fn touch(&mut self, now: Instant, session: i64, timeout_ms: i32) -> bool {
        self.sessions.touch(now, session, timeout(timeout_ms))
    }

    /// The next session whose time is up. It is forgotten.
    pub(in crate::service) fn expire(&mut self, now: Instant) -> Option<i64> {
        let session = self.sessions.expired(now)?;
        self.close(session);
        Some(session)
    }

    /// A session ends.
    pub(in crate::service) fn close(&mut self, session: i64) {
        if self.sessions.set_closing(session) {
            self.sessions.remove(session);
            self.count -= 1;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.next_deadline()
    }

    pub(super) fn buckets(&self) -> Vec<(Instant, Vec<i64>)> {
        self.sessions.buckets().collect()
    }

    /// A handshake is not granted. Whether it is the first.
    pub(in crate::service) fn refuse(&mut self) -> bool {
        self.refused += 1;
        self.refused == 1
    }

    /// What it was, for the log.
    pub(in crate::service) fn summary(&self, now: Instant) -> String {
        let ms = now.saturating_since(self.since).as_millis();
        format!("{ms} ms, with {} sessions; {} handshakes were refused", self.count, self.refused)
    }
}

fn timeout(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
