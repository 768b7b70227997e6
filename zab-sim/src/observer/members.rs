//! The observer's view of the membership: which configuration is in force at each place of the committed
//! history, and whose word counts there. M1, M2, M4; all quorums.

use zab_proto::{Membership, Sid, Zxid};

use crate::check::Checker;
use crate::members::{server_of, sid_of};
use crate::queue::HostIx;

impl Checker {
    /// The configuration that is committed.
    pub(crate) fn committed_members(&self) -> &Membership {
        self.configs.last().expect("the first one is")
    }

    /// Whether the voters for which `test` holds are a quorum of a configuration, or one of two is whose oracle
    /// says so.
    pub(crate) fn is_quorum(&self, ensemble: &Membership, test: impl Fn(HostIx) -> bool) -> bool {
        let granted = |sid| self.granted[server_of(sid)] && test(server_of(sid));
        ensemble.is_quorum(|sid| test(server_of(sid)))
            || ensemble.voters().count() == 2 && ensemble.voters().any(granted)
    }

    /// Whether `sid` is one of two voters, of what is or may be in force.
    pub(crate) fn may_lead_alone(&self, sid: Sid) -> bool {
        let mut all = self.configs.iter().chain(self.changes.values());
        all.any(|ensemble| ensemble.is_voter(sid) && ensemble.voters().count() == 2)
    }

    /// The configuration by which a transaction is committed, if it is none itself.
    fn in_force(&self, zxid: Zxid) -> &Membership {
        let older = self.configs.iter().rev().find(|config| config.version < zxid.raw());
        older.unwrap_or(&self.configs[0])
    }

    /// Whether the voters for which `test` holds commit the transaction of this zxid: a quorum of the
    /// configuration in force, and of the new one if the transaction makes it (M2).
    pub(crate) fn is_committed_by(&self, zxid: Zxid, test: impl Fn(HostIx) -> bool) -> bool {
        let is = |ensemble: &Membership| self.is_quorum(ensemble, &test);
        is(self.in_force(zxid)) && self.changes.get(&zxid).is_none_or(is)
    }

    /// Whether they may begin an epoch with a history that ends at `last`: a quorum of the committed
    /// configuration, and of those that the history introduces.
    pub(crate) fn may_begin(
        &self,
        last: Zxid,
        holds: impl Fn(Zxid) -> bool,
        test: impl Fn(HostIx) -> bool,
    ) -> bool {
        let is = |ensemble: &Membership| self.is_quorum(ensemble, &test);
        let committed = self.committed_members();
        let behind =
            Zxid::from_raw(committed.version + 1)..=last.max(Zxid::from_raw(committed.version + 1));
        let mut next = self.changes.range(behind).filter(|(zxid, _)| holds(**zxid));
        is(committed) && next.all(|(_, ensemble)| is(ensemble))
    }

    /// A server logs a change of the members. M2: its leader proposes none while another is under way.
    pub(crate) fn on_change(
        &mut self,
        server: HostIx,
        zxid: Zxid,
        ensemble: Membership,
        holds: impl Fn(Zxid) -> bool,
    ) {
        let leads = self.reigns.contains_key(&(zxid.epoch(), server));
        if leads && !self.changes.contains_key(&zxid) {
            let committed = self.last_committed();
            let pending = self.changes.range(..zxid).next_back().map(|(zxid, _)| *zxid);
            if let Some(pending) = pending.filter(|z| *z > committed && holds(*z)) {
                let text = format!("s{} proposes {zxid} while {pending} is under way", server + 1);
                self.fail("M2", text);
            }
            self.hooks.push((server, "members proposed"));
            self.changes.insert(zxid, ensemble);
            self.begin_change(server, zxid);
            return;
        }
        self.changes.insert(zxid, ensemble);
    }

    /// A transaction is committed: another configuration is in force if it makes one. M1.
    pub(crate) fn commit_members(&mut self, zxid: Zxid) {
        let Some(ensemble) = self.changes.get(&zxid) else { return };
        let before = self.committed_members();
        if ensemble.version <= before.version {
            let text = format!("{zxid} follows a configuration of version {:x}", before.version);
            self.fail("M1", text);
            return;
        }
        let removed = before.voters().filter(|sid| !ensemble.is_voter(*sid)).count();
        let added = ensemble.voters().filter(|sid| !before.is_voter(*sid)).count();
        let what = match (added, removed) {
            (0, 0) => "members: committed, the same voters",
            (_, 0) => "members: committed, more voters",
            (0, _) => "members: committed, fewer voters",
            _ => "members: committed, other voters",
        };
        let ensemble = ensemble.clone();
        self.coverage.count(what);
        self.configs.push(ensemble);
        self.commit_change(zxid);
    }

    /// A leader tells that a transaction is committed. M4: it is a voter of what is in force there.
    pub(crate) fn check_commit_by(&mut self, leader: HostIx, zxid: Zxid) {
        if !self.in_force(zxid).is_voter(sid_of(leader)) {
            let text = format!("s{} commits {zxid} and has no vote there", leader + 1);
            self.fail("M4", text);
        }
        if self.changes.contains_key(&zxid) {
            self.hooks.push((leader, "members committed"));
        }
    }

    /// A server goes by another configuration. M1: it is one that is committed. The first version of an
    /// epoch has the members of before.
    pub(crate) fn on_activated(&mut self, now: u64, server: HostIx, ensemble: &Membership) {
        self.hooks.push((server, "members in force"));
        self.note_view(now, server, Some(ensemble));
        self.enforce_change(server, ensemble.version);
        let version = Zxid::from_raw(ensemble.version);
        let same = |config: &&Membership| {
            let is_first = version.counter() == 0 && config.version < ensemble.version;
            (is_first || config.version == ensemble.version) && config.members == ensemble.members
        };
        if self.configs.iter().rev().find(same).is_none() {
            let text = format!("s{} goes by {version}, which is not committed", server + 1);
            self.fail("M1", text);
        }
        self.coverage.count(if ensemble.is_voter(sid_of(server)) {
            "members: in force, with a vote"
        } else if ensemble.members.contains_key(&sid_of(server)) {
            "members: in force, as an observer"
        } else {
            "members: in force, as a stranger"
        });
    }
}
