//! Connections of which nothing comes any more.
//!
//! A client says something in every third of its session's time-out. A connection that is silent for all of
//! it has a client that is gone, or that has gone on elsewhere: then the session lives, its end will never close
//! this connection, and the kernel notices only after hours. It would count to the connections of its
//! address until then (`NIOServerCnxnFactory`'s `cnxnExpiryQueue`).
//!
//! Silence is the client's own only if everything was taken that has come of it: a connection that waits has
//! something unread. And after a pause of this process what has come meanwhile is read first: so whoever
//! is found silent is closed when it is found so again.

use std::time::Duration;

use zab_proto::{ConnId, Instant};

use super::table::Clients;
use super::{Client, Life};

/// How often all connections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a connection was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    at: Instant,
    /// It was found silent since.
    found_silent: bool,
}

impl Hearing {
    /// It was heard now.
    pub(super) fn new(at: Instant) -> Self {
        Self { at, found_silent: false }
    }
}

impl Client {
    fn is_silent(&self, now: Instant) -> bool {
        self.state == Life::Open && self.unread == 0 && now >= self.heard.at + self.timeout()
    }
}

impl Clients {
    /// When connections are looked at next, if there are any.
    pub(in crate::service) fn silence_deadline(&self) -> Option<Instant> {
        (self.len() > 0).then_some(self.silence_due)
    }

    /// The connections that were silent for the time-outs of their sessions, at the last look and at this one.
    pub(in crate::service) fn silent(&mut self, now: Instant) -> Vec<ConnId> {
        let mut silent = Vec::new();
        if now < self.silence_due || self.len() == 0 {
            return silent;
        }
        self.silence_due = now + LOOK_EVERY;
        for (conn, client) in self.each_mut() {
            let is_silent = client.is_silent(now);
            if is_silent && client.heard.found_silent {
                silent.push(conn);
            }
            client.heard.found_silent = is_silent;
        }
        silent
    }
}
