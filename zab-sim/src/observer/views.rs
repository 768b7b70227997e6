//! The observer's view of what each server goes by: whose votes count for it, whom it may follow without an
//! election, and whether it leads with a quorum. M3, M4, and what E1, E4, E5 and E8 rest on where the
//! members change.

use std::collections::BTreeMap;

use zab_proto::{Membership, Phase, ServerState, Sid, Zxid};

use crate::check::Checker;
use crate::disk::Disk;
use crate::members::{server_of, sid_of};
use crate::options::Options;
use crate::queue::{HostIx, MILLI};

/// What one server goes by.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The configuration that is in force there.
    pub(crate) in_force: Membership,
    /// Since when, or since when it leads.
    pub(crate) since: u64,
    /// Who leads next without an election, as a change has said.
    designated: Option<Sid>,
    /// Whom it followed last: who gets another role comes back without an election, too.
    followed: Option<Sid>,
    /// When it last sent a notification, and when it first did since other members are in force.
    pub(crate) said: u64,
    pub(crate) begun_anew: u64,
    /// What NEWLEADER told it last, when it acknowledged that.
    pub(crate) told: Option<String>,
}

impl View {
    /// Of a server that has just started with that configuration.
    pub(crate) fn new(in_force: Membership) -> Self {
        Self {
            in_force,
            since: 0,
            designated: None,
            followed: None,
            said: 0,
            begun_anew: 0,
            told: None,
        }
    }
}

/// When a leader last heard of a learner, and when that one's connection began.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    linked: u64,
    heard: u64,
}

/// Who was heard by whom, and after what time without a quorum a leader is to end.
#[derive(Debug)]
pub(crate) struct Quorate {
    heard: BTreeMap<(HostIx, HostIx), Heard>,
    /// From the last word of a learner that is synchronised.
    silence: u64,
    /// From the beginning of a connection.
    beginning: u64,
}

impl Quorate {
    /// By the limits of the run. A leader looks once in a tick, and its clock may be slow by a tenth.
    pub(crate) fn new(options: &Options) -> Self {
        let tick = u64::try_from(options.tick_time.as_nanos()).unwrap_or(u64::MAX / 100);
        let ticks = |n: u32| tick * u64::from(n + LOOKS) * 11 / 10 + 10 * MILLI;
        Self {
            heard: BTreeMap::new(),
            silence: ticks(options.sync_limit + 1),
            beginning: ticks(options.init_limit + options.sync_limit),
        }
    }
}

/// Ticks that may pass before a leader notices.
const LOOKS: u32 = 2;

impl Checker {
    /// A process starts, with the members of its configuration file.
    pub(crate) fn on_begun(&mut self, server: HostIx, ensemble: &Membership) {
        let told = self.views[server].told.take();
        self.views[server] = View { told, ..View::new(ensemble.clone()) };
    }

    /// Whether the votes of those for which `test` holds may end an election of `server`. Where members
    /// change, it counts by what is in force there and what is being introduced: of that the
    /// observer knows only that it is newer.
    pub(crate) fn may_decide(&self, server: HostIx, test: impl Fn(HostIx) -> bool) -> bool {
        if !self.dynamic {
            return self.quorum(test);
        }
        let is = |ensemble: &Membership| self.is_quorum(ensemble, &test);
        let own = &self.views[server].in_force;
        let mut newer = self.changes.range(Zxid::from_raw(own.version)..);
        is(own) || newer.any(|(_, ensemble)| is(ensemble))
    }

    /// Whether `sid` is a voter, or was one or is to become one where members change.
    pub(crate) fn is_ever_voter(&self, sid: Sid) -> bool {
        if !self.dynamic {
            return (1..=self.voters).contains(&usize::try_from(sid.0).unwrap_or(0));
        }
        let mut all = self.configs.iter().chain(self.changes.values());
        all.any(|ensemble| ensemble.is_voter(sid))
    }

    /// Whether `server` takes part in elections by what it knows itself, at least.
    pub(crate) fn has_vote(&self, server: HostIx) -> bool {
        !self.dynamic || self.views[server].in_force.is_voter(sid_of(server))
    }

    /// Whether `server` tells `other` its votes.
    pub(crate) fn is_notified(&self, server: HostIx, other: HostIx) -> bool {
        if self.dynamic {
            return self.views[server].in_force.is_voter(sid_of(other));
        }
        other < self.voters
    }

    /// Whether a server is no voter of what is in force on it: it enters the rounds of others, after each
    /// election anew.
    pub(crate) fn is_stranger(&self, server: HostIx) -> bool {
        self.dynamic && !self.has_vote(server)
    }

    /// E5: who begins to lead has a vote in what is in force there, or in what may be introduced.
    pub(crate) fn check_candidate(&mut self, server: HostIx) {
        let sid = sid_of(server);
        let may = if self.dynamic {
            let own = &self.views[server].in_force;
            let mut newer = self.changes.range(Zxid::from_raw(own.version)..);
            own.is_voter(sid) || newer.any(|(_, ensemble)| ensemble.is_voter(sid))
        } else {
            server < self.voters
        };
        if !may {
            self.fail("E5", format!("s{} leads and has no vote", server + 1));
        }
    }

    /// A change that is committed names the next leader. M4: that one has a vote by it, and has it.
    pub(crate) fn on_named(
        &mut self,
        (from, to): (HostIx, HostIx),
        zxid: Zxid,
        leader: Sid,
        disks: &[Disk],
    ) {
        if leader == sid_of(from) {
            self.on_told(to, leader);
            return;
        }
        let votes = self.changes.get(&zxid).is_some_and(|ensemble| ensemble.is_voter(leader));
        let has = disks
            .get(server_of(leader))
            .is_some_and(|disk| zxid <= disk.durable.base() || disk.durable.find(zxid).is_some());
        if !votes || !has {
            let what = if votes { "does not have it" } else { "has no vote by it" };
            self.fail("M4", format!("{zxid} makes s{leader} the leader, which {what}"));
        }
        self.views[from].designated = Some(leader);
        self.views[to].designated = Some(leader);
        self.change.name(leader);
        self.hooks.push((server_of(leader), "successor named"));
    }

    /// An observer is told who leads: of the leader itself, or of the follower that it learns from. It may have heard of
    /// another one.
    pub(crate) fn on_told(&mut self, observer: HostIx, leader: Sid) {
        self.views[observer].designated = Some(leader);
    }

    /// A leader ends, and follows the one it has named.
    pub(crate) fn on_handed_over(&mut self, server: HostIx, leader: Sid) {
        self.views[server].designated = Some(leader);
    }

    /// A server has lost its leader, or leaves it for a moment.
    pub(crate) fn on_left(&mut self, server: HostIx, leader: Option<Sid>) {
        self.views[server].followed = leader;
    }

    /// Whether a server that has said nothing since it began to look follows whom a change has named, or
    /// comes back to its leader in another role.
    pub(crate) fn is_designated(&mut self, server: HostIx, leader: Sid) -> bool {
        let silent = self.dynamic && !self.has_said(server);
        let view = &mut self.views[server];
        let named = view.designated.take_if(|named| *named == leader).is_some();
        let back = view.followed.take() == Some(leader) && leader != sid_of(server);
        silent && (named || back)
    }

    /// Another configuration is in force on a server, or it begins to lead.
    pub(crate) fn note_view(&mut self, now: u64, server: HostIx, in_force: Option<&Membership>) {
        let view = &mut self.views[server];
        view.since = now;
        if let Some(in_force) = in_force {
            view.in_force = in_force.clone();
            // What was due to be said was due by the configuration before.
            self.servers[server].elections += 1;
        }
    }

    /// A learner's connection begins, or something has come over it.
    pub(crate) fn on_learner(&mut self, now: u64, leader: HostIx, learner: HostIx, begins: bool) {
        if !self.dynamic {
            return;
        }
        let heard = self.quorate.heard.entry((leader, learner)).or_default();
        if begins {
            heard.linked = now;
        } else {
            heard.heard = now;
        }
    }

    /// M3: who leads has a quorum of what is in force there, and of a change that it has proposed, among
    /// those that it has heard of lately.
    pub(crate) fn check_quorate(&mut self, now: u64, leader: HostIx, holds: impl Fn(Zxid) -> bool) {
        let watched = &self.servers[leader];
        let leads = watched.status.is_some_and(|status| {
            status.state == ServerState::Leading && status.phase == Phase::Broadcast
        });
        let view = &self.views[leader];
        let settled = view.since.max(watched.resumed_at) + self.quorate.silence;
        if !leads || !self.dynamic || now < settled {
            return;
        }
        let lives = |server: HostIx| {
            let heard = self.quorate.heard.get(&(leader, server)).copied();
            let Heard { linked, heard } = heard.unwrap_or_default();
            server == leader
                || now <= heard + self.quorate.silence
                // Who came before it led begins with it.
                || now <= linked.max(view.since) + self.quorate.beginning
        };
        let mut newer = self.changes.range(Zxid::from_raw(view.in_force.version + 1)..);
        let old = self.is_quorum(&view.in_force, lives);
        let new = newer.all(|(zxid, next)| !holds(*zxid) || self.is_quorum(next, lives));
        if !old || !new {
            let what = if old { "is being introduced" } else { "is in force" };
            self.fail("M3", format!("s{} leads without a quorum of what {what}", leader + 1));
        }
    }
}
