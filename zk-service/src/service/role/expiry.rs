//! The end of sessions whose clients are not heard of any more, and of nodes that nobody needs.

use std::time::Duration;

use zab_proto::Instant;

use crate::auth::Ids;
use crate::cost;
use crate::options::ServiceOptions;
use crate::service::role::Cx;
use crate::service::role::leader::{Leader, OVERHEAD_BYTES};
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
    /// Where a look at containers and TTL nodes goes on that has begun.
    scan: Option<Scan>,
    /// Something that is due waits for the next turn.
    overdue: bool,
}

/// How far containers and TTL nodes are looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// The containers are done.
    ttls: bool,
    /// The place of the last one.
    last: Option<u32>,
}

impl Expiry {
    pub(super) fn new(now: Instant, options: &ServiceOptions) -> Self {
        Self {
            tick: options.tick_time,
            awake: now,
            doubt: None,
            not_before: now,
            next_scan: now + options.container_check_interval,
            scan: None,
            overdue: false,
        }
    }

    /// Something that is due goes on in the next turn.
    pub(super) fn postpone(&mut self) {
        self.overdue = true;
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
        let half_tick = self.expiry.awake + self.expiry.tick / 2;
        // While a request is prepared there is no scan.
        let scan = self.begun.is_none().then_some(self.expiry.next_scan);
        let regular = scan.map_or(half_tick, |scan| scan.min(half_tick));
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
        self.close_dead(cx);
        if self.begun.is_some() {
            // What is due is due when that is prepared.
            return;
        }
        if self.expiry.doubt.is_none()
            && now >= self.expiry.not_before
            && cx.core.can_propose(OVERHEAD_BYTES)
        {
            while let Some(session) = self.tracker.expired(now) {
                let timeout_ms = cx.state.db().sessions.get(session).unwrap_or_default();
                log::info!("Expiring session {session:#x}, timeout of {timeout_ms}ms exceeded");
                if !self.close_session(cx, session) {
                    break;
                }
                cx.metrics.sessions_expired += 1;
                if self.begun.is_some() {
                    break;
                }
                if self.prep.work >= cx.schedule.left_unbilled() {
                    self.expiry.overdue = true;
                    break;
                }
            }
        }
        if now >= self.expiry.next_scan {
            self.expiry.next_scan = now + cx.env.options.container_check_interval;
            self.expiry.scan = Some(Scan::default());
        }
        self.remove_unneeded(cx);
    }

    /// Goes on with a look at containers and TTL nodes, as far as this turn and the room there is allow.
    fn remove_unneeded(&mut self, cx: &mut Cx<'_, '_>) {
        while let Some(scan) = self.expiry.scan {
            self.remove_unneeded_of(cx, scan);
            if self.expiry.scan.is_none_or(|now| now.ttls == scan.ttls) {
                return;
            }
        }
    }

    /// The same for one of both kinds.
    fn remove_unneeded_of(&mut self, cx: &mut Cx<'_, '_>, mut scan: Scan) {
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
        let tree = cx.state.tree();
        let containers = (!scan.ttls).then(|| tree.containers_behind(scan.last));
        let ttls = scan.ttls.then(|| tree.ttls_behind(scan.last));
        for node in containers.into_iter().flatten().chain(ttls.into_iter().flatten()) {
            if self.prep.work >= cx.schedule.left_unbilled() {
                self.expiry.postpone();
                return;
            }
            let path = node.path();
            let goes = node.child_count() == 0
                && unneeded(node.persisted())
                // What is under way may have used, changed or replaced it.
                && self.prep.childless(tree, path).is_some_and(|stat| unneeded(&stat));
            if goes {
                if !cx.core.can_propose(path.len() + OVERHEAD_BYTES) {
                    return;
                }
                let Some(from) = Self::requester(cx, (0, 0), Ok(()), Ids::default()) else {
                    return;
                };
                self.prep.work += cost::WRITE;
                self.prep.delete_container(cx.view(), &from, path, &mut self.txn);
                if self.propose(cx).is_none() {
                    return;
                }
            }
            // What waits for room takes nothing of the turns meanwhile.
            self.prep.work += cost::PART;
            scan.last = Some(node.place());
            self.expiry.scan = Some(scan);
        }
        self.expiry.scan = (!scan.ttls).then_some(Scan { ttls: true, last: None });
    }
}
