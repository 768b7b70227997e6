//! The end of sessions whose clients are not heard of any more, and of nodes that nobody needs.

use std::time::Duration;

use zab_proto::Instant;

use crate::auth::Ids;
use crate::options::ServiceOptions;
use crate::protocol::opcode::Opcode;
use crate::role::Cx;
use crate::role::leader::{Leader, OVERHEAD_BYTES, Submission};
use crate::role::tracker::Owner;
use crate::state::tree::{self, StatPersisted};

/// When a leader looks for what is to end.
#[derive(Debug)]
pub(super) struct Expiry {
    tick: Duration,
    /// When the service was called last. A gap means that this process has slept, and that signs of
    /// life may not have reached it.
    awake: Instant,
    /// After a gap: nothing expires before this freshness round has ended, ...
    doubt: Option<u64>,
    /// ... nor before this time, so that what waits on sockets is read first.
    not_before: Instant,
    /// When containers and TTL nodes are looked at next.
    next_scan: Instant,
    /// Sessions whose time is up wait for the next turn.
    overdue: bool,
}

impl Expiry {
    pub(super) fn new(now: Instant, options: &ServiceOptions) -> Self {
        Self {
            tick: options.tick_time,
            awake: now,
            doubt: None,
            not_before: now,
            next_scan: now + options.container_check_interval,
            overdue: false,
        }
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.overdue
    }
}

impl Leader {
    /// Notes that the process is awake.
    pub(super) fn wake(&mut self, cx: &mut Cx<'_, '_>) {
        let now = cx.core.now();
        if now.saturating_since(self.expiry.awake) > self.expiry.tick {
            self.expiry.doubt = Some(cx.core.sync());
            self.expiry.not_before = now + self.expiry.tick;
        }
        self.expiry.awake = now;
    }

    /// A freshness round has ended. Whether it was the leader's own.
    pub(super) fn is_own(&mut self, token: u64) -> bool {
        let own = self.expiry.doubt == Some(token);
        if own {
            self.expiry.doubt = None;
        }
        own
    }

    /// When [`Self::expire`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        let regular = self.expiry.next_scan.min(self.expiry.awake + self.expiry.tick / 2);
        // A bucket that is overdue waits for the end of a doubt, or for room.
        match self.tracker.next_deadline().filter(|deadline| *deadline > self.expiry.awake) {
            Some(deadline) => regular.min(deadline),
            None => regular,
        }
    }

    /// Closes the sessions whose time is up and removes containers and TTL nodes that are not
    /// needed any more.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_, '_>) {
        let now = cx.core.now();
        self.expiry.overdue = false;
        if self.expiry.doubt.is_none()
            && now >= self.expiry.not_before
            && cx.core.can_propose(OVERHEAD_BYTES)
        {
            while let Some(session) = self.tracker.expired(now) {
                log::info!("Expiring session {session:#x}");
                if !self.close_session(cx, session) {
                    break;
                }
                cx.metrics.sessions_expired += 1;
                if self.prep.work >= cx.schedule.left_unbilled() {
                    self.expiry.overdue = true;
                    break;
                }
            }
        }
        if now >= self.expiry.next_scan {
            self.expiry.next_scan = now + cx.env.options.container_check_interval;
            self.remove_unneeded(cx);
        }
    }

    /// Closes a session without a client's asking.
    pub(super) fn close_session(&mut self, cx: &mut Cx<'_, '_>, session: i64) -> bool {
        let owner = Owner::Local;
        let ids = Ids::default();
        let op = Opcode::CloseSession;
        let request = Submission { owner, session, cxid: 0, op, record: &[], ids, moved: false };
        self.submit(cx, &request).is_some()
    }

    fn remove_unneeded(&mut self, cx: &mut Cx<'_, '_>) {
        let wall_ms = cx.env.options.wall_clock.now_ms();
        let never_used = cx.env.options.container_never_used;
        let old = |stat: &StatPersisted, age: Duration| {
            u128::try_from(wall_ms.saturating_sub(stat.mtime)).is_ok_and(|ms| ms > age.as_millis())
        };
        let unneeded = |stat: &StatPersisted| match stat.owner() {
            tree::Owner::Container => {
                stat.cversion > 0 || (!never_used.is_zero() && old(stat, never_used))
            }
            tree::Owner::Ttl(ttl_ms) => old(stat, Duration::from_millis(ttl_ms)),
            tree::Owner::Persistent | tree::Owner::Session(_) => false,
        };
        let nodes = cx.state.tree().containers().chain(cx.state.tree().ttls());
        for node in nodes.filter(|node| node.child_count() == 0 && unneeded(node.persisted())) {
            let path = node.path();
            // What is under way may have used, changed or replaced it.
            if !self.prep.childless(cx.state.tree(), path).is_some_and(|stat| unneeded(&stat)) {
                continue;
            }
            if !cx.core.can_propose(path.len() + OVERHEAD_BYTES) {
                return;
            }
            let Some(from) = Self::requester(cx, (0, 0), Ok(()), Ids::default()) else {
                return;
            };
            self.prep.delete_container(cx.view(), &from, path, &mut self.txn);
            if self.propose(cx).is_none() {
                return;
            }
        }
    }
}
