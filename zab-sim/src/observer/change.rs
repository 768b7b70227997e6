//! How far a change of the members has come, and what befell servers meanwhile: for the coverage table.

use zab_proto::{Sid, Zxid};

use crate::check::Checker;
use crate::members::sid_of;
use crate::queue::HostIx;

/// What a change has reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    /// It is in its leader's log.
    Proposed,
    /// Another server has acknowledged it.
    Acknowledged,
    /// It is committed.
    Committed,
    /// Another server than its leader goes by it, and not all do.
    InForce,
}

/// What befalls a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    LeaderCrashed,
    FollowerCrashed,
    LinkCut,
    /// No blow: the change itself is without its leader.
    LeaderRemoved,
    Restarted,
    SuccessorCrashed,
}

/// All steps with all that may befall servers there. Nobody is named to lead before the change is committed.
pub const STEPS: [[&str; 6]; 4] = [
    [
        "change proposed: leader crashed",
        "change proposed: follower crashed",
        "change proposed: link of the leader cut",
        "change proposed: without its leader",
        "change proposed: restart from disk",
        "",
    ],
    [
        "change acknowledged: leader crashed",
        "change acknowledged: follower crashed",
        "change acknowledged: link of the leader cut",
        "change acknowledged: without its leader",
        "change acknowledged: restart from disk",
        "",
    ],
    [
        "change committed: leader crashed",
        "change committed: follower crashed",
        "change committed: link of the leader cut",
        "change committed: without its leader",
        "change committed: restart from disk",
        "change committed: designated leader crashed",
    ],
    [
        "change in force: leader crashed",
        "change in force: follower crashed",
        "change in force: link of the leader cut",
        "change in force: without its leader",
        "change in force: restart from disk",
        "change in force: designated leader crashed",
    ],
];

/// The change that was proposed last, until it is in force on all its members or lost.
#[derive(Debug, Default)]
pub(crate) struct Change {
    now: Option<(Step, Zxid)>,
    /// Who proposed it, or completes it.
    leader: HostIx,
    successor: Option<Sid>,
}

impl Change {
    /// The change names who leads next.
    pub(crate) fn name(&mut self, leader: Sid) {
        self.successor = Some(leader);
    }
}

impl Checker {
    /// A change is proposed.
    pub(crate) fn begin_change(&mut self, leader: HostIx, zxid: Zxid) {
        self.change = Change { now: None, leader, successor: None };
        self.advance(Step::Proposed, zxid);
    }

    /// A server acknowledges everything up to `zxid`.
    pub(crate) fn acknowledge_change(&mut self, zxid: Zxid) {
        if let Some((Step::Proposed, change)) = self.change.now.filter(|(_, at)| *at <= zxid) {
            self.advance(Step::Acknowledged, change);
        }
    }

    /// A change is committed.
    pub(crate) fn commit_change(&mut self, zxid: Zxid) {
        if self.change.now.is_some_and(|(_, at)| at == zxid) {
            self.advance(Step::Committed, zxid);
        }
    }

    /// A server goes by the configuration of this version.
    pub(crate) fn enforce_change(&mut self, server: HostIx, version: i64) {
        let Some((step, zxid)) = self.change.now.filter(|(_, at)| at.raw() == version) else {
            return;
        };
        if step == Step::Committed && server != self.change.leader {
            self.advance(Step::InForce, zxid);
        }
        let members = &self.changes[&zxid].members;
        let goes_by = |sid: &Sid| {
            let view = self.views.get(crate::members::server_of(*sid));
            view.is_some_and(|view| view.in_force.version >= version)
        };
        // As long as another server is to lead, there is something to come.
        if members.keys().all(goes_by) && self.change.successor.is_none() {
            self.change.now = None;
        }
    }

    /// A leader is established. Whether the change is committed with that, is known by now.
    pub(crate) fn settle_change(&mut self, leader: HostIx, epoch_begins_at: Zxid) {
        let Some((step, zxid)) = self.change.now else { return };
        let completes = step == Step::Committed && zxid >= epoch_begins_at;
        self.change.successor = None;
        self.change.leader = leader;
        if !completes {
            self.change.now = None;
        }
    }

    fn advance(&mut self, step: Step, zxid: Zxid) {
        self.change.now = Some((step, zxid));
        let without =
            !self.changes.get(&zxid).is_some_and(|to| to.is_voter(sid_of(self.change.leader)));
        if without {
            self.count_blow(Blow::LeaderRemoved);
        }
    }

    fn count_blow(&mut self, blow: Blow) {
        if let Some((step, _)) = self.change.now {
            let what = STEPS[step as usize][blow as usize];
            if !what.is_empty() {
                self.coverage.count(what);
            }
        }
    }

    /// A process has died.
    pub(crate) fn strike(&mut self, server: HostIx) {
        let Some((_, zxid)) = self.change.now else { return };
        let sid = sid_of(server);
        if server == self.change.leader {
            self.count_blow(Blow::LeaderCrashed);
        } else if self.change.successor == Some(sid) {
            self.count_blow(Blow::SuccessorCrashed);
        } else if self.committed_members().is_voter(sid) || self.changes[&zxid].is_voter(sid) {
            self.count_blow(Blow::FollowerCrashed);
        }
    }

    /// Nothing passes from one server to the other.
    pub(crate) fn sever(&mut self, from: HostIx, to: HostIx) {
        if self.change.leader == from || self.change.leader == to {
            self.count_blow(Blow::LinkCut);
        }
    }

    /// A process has started.
    pub(crate) fn revive(&mut self) {
        self.count_blow(Blow::Restarted);
    }
}
