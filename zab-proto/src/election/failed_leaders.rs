//! Leaders that were elected and could not be followed.
//!
//! Votes are relayed, so a majority can keep electing a server that only some of its members can reach.
//! A server therefore does not adopt votes for a leader that it lost before that leader's epoch was
//! established, as long as the remaining voters form a quorum.

use alloc::vec::Vec;
use core::time::Duration;

use crate::{Instant, Sid};

/// Whom this server does not vote for at present.
#[derive(Debug)]
pub(super) struct FailedLeaders {
    /// Who was elected in vain since a leader was last established.
    leaders: Vec<Sid>,
    limit: Duration,
    /// Voters that were heard in this election.
    heard: Vec<Sid>,
    /// While looking: until when those not heard of yet may still be enough.
    grace_until: Option<Instant>,
    /// While looking: until when the leaders are avoided at most.
    until: Option<Instant>,
}

impl FailedLeaders {
    /// Others may follow a leader in vain for `init_limit` before they avoid it, too.
    pub(super) fn new(init_limit: Duration) -> Self {
        let limit = init_limit + GRACE;
        Self { leaders: Vec::new(), limit, heard: Vec::new(), grace_until: None, until: None }
    }

    pub(super) fn add(&mut self, leader: Sid) {
        if !self.leaders.contains(&leader) {
            self.leaders.push(leader);
        }
    }

    pub(super) fn contains(&self, leader: Sid) -> bool {
        self.leaders.contains(&leader)
    }

    /// There is a leader, or nothing comes of it without those.
    pub(super) fn clear(&mut self) {
        self.leaders.clear();
        self.end();
    }

    /// An election begins.
    pub(super) fn begin(&mut self, now: Instant) {
        let shuns = !self.leaders.is_empty();
        self.heard.clear();
        self.grace_until = shuns.then(|| now + GRACE);
        self.until = shuns.then(|| now + self.limit);
    }

    /// The election is over.
    pub(super) fn end(&mut self) {
        (self.grace_until, self.until) = (None, None);
    }

    /// A voter that has a vote was heard.
    pub(super) fn hear(&mut self, from: Sid) {
        if self.until.is_some() && !self.heard.contains(&from) {
            self.heard.push(from);
        }
    }

    /// Looks whether the others are a quorum: those who were heard, and for a while those who might
    /// still be. If not, it [is over](Self::is_over).
    pub(super) fn watch(
        &mut self,
        now: Instant,
        gone: impl Fn(Sid) -> bool,
        is_quorum: impl FnOnce(&dyn Fn(Sid) -> bool) -> bool,
    ) {
        if self.until.is_none() {
            return;
        }
        self.grace_until.take_if(|grace| *grace <= now);
        let may_come = |sid| self.grace_until.is_some() && !gone(sid);
        let counts = |sid| !self.contains(sid) && (self.heard.contains(&sid) || may_come(sid));
        if !is_quorum(&counts) {
            (self.grace_until, self.until) = (None, Some(now));
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.grace_until.or(self.until)
    }
}

/// Long enough to have heard from every server that is LOOKING.
const GRACE: Duration = Duration::from_secs(2);
