//! The observer's view of epochs: promises, leaders, the history each begins with.

use zab_proto::{Epoch, Phase, ServerState, Status, Zxid};

use crate::check::Checker;
use crate::disk::Disk;
use crate::image::Image;
use crate::queue::HostIx;

/// A leader's attempt at an epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reign {
    /// The last zxid and chain of the history it begins with.
    initial: (Zxid, u64),
}

impl Checker {
    /// Whether `image` holds the history with which `epoch` began, for every server that tried to
    /// lead it (an epoch that failed may be led by another server later).
    pub(crate) fn holds_initial(&self, image: &Image, epoch: Epoch) -> bool {
        let mut reigns = self.reigns.range((epoch, 0)..=(epoch, usize::MAX)).peekable();
        reigns.peek().is_none()
            || reigns.any(|(_, reign)| self.holds(image, reign.initial.0, reign.initial.1))
    }

    /// A leader tells its new epoch. P4 (its own part).
    pub(crate) fn on_leader_info(&mut self, leader: HostIx, epoch: Epoch, disk: &Disk) {
        if disk.durable.accepted < Some(epoch) {
            let text = format!("s{} proposes epoch {epoch} before it accepted it", leader + 1);
            self.fail("P4", text);
        }
        let initial = disk.issued.last();
        self.reigns.entry((epoch, leader)).or_insert(Reign { initial });
    }

    /// A learner acknowledges a leader's epoch. P2, and what it claims must be durable (R4).
    pub(crate) fn on_ack_epoch(
        &mut self,
        learner: HostIx,
        leader: HostIx,
        epoch: Epoch,
        claim: Option<(Epoch, Zxid)>,
        disk: &Disk,
    ) {
        let name = learner + 1;
        self.hooks.push((learner, "ack epoch"));
        // Without a claim it is no promise: the leader does not count it.
        let Some((current, last)) = claim else { return };
        if disk.durable.accepted < Some(epoch) {
            self.fail("P2", format!("s{name} acknowledges epoch {epoch}, which is not durable"));
        }
        if (learner < self.voters || self.dynamic) && last != Zxid::NONE {
            let promised = *self.promises.entry((learner, epoch)).or_insert(leader);
            if promised != leader {
                let text = format!("s{name} promises epoch {epoch} to two servers");
                self.fail("P2", text);
            }
        }
        self.check_claim(learner, "ACKEPOCH", current, last, disk);
    }

    /// What a server says of its history is what its disk holds (E3, R4). To a leader it may say that it
    /// has nothing: it asks for a snapshot.
    pub(crate) fn check_claim(
        &mut self,
        server: HostIx,
        message: &str,
        current: Epoch,
        last: Zxid,
        disk: &Disk,
    ) {
        let (durable, _) = disk.durable.last();
        let recorded = disk.durable.current.unwrap_or_default();
        let asks = message == "ACKEPOCH" && last == Zxid::ZERO;
        if last != Zxid::NONE && last != durable && !asks {
            let text = format!("s{}: {message} claims {last}, disk has {durable}", server + 1);
            self.fail("E3", text);
        }
        if last != Zxid::NONE && current > recorded.max(durable.epoch()) {
            let text =
                format!("s{}: {message} claims epoch {current}, disk has {recorded}", server + 1);
            self.fail("E3", text);
        }
    }

    /// A learner acknowledges NEWLEADER. V2.
    pub(crate) fn on_ack_new_leader(
        &mut self,
        (learner, leader): (HostIx, HostIx),
        epoch: Epoch,
        through: Option<Zxid>,
        disks: &[Disk],
    ) {
        let disk = &disks[learner];
        if through.is_some_and(|through| disk.durable.last().0 < through) {
            let text = format!("s{} acknowledges NEWLEADER {epoch} without what came", learner + 1);
            self.fail("V2", text);
        }
        self.compare_histories(learner, leader, epoch, disks);
        self.count(learner, epoch, disk.durable.last().0, disk);
        let Some(reign) = self.reigns.get(&(epoch, leader)) else { return };
        let (zxid, chain) = reign.initial;
        let is_durable = disk.durable.current_in_effect() >= epoch;
        if !is_durable || !self.holds(&disk.durable, zxid, chain) {
            let what = if is_durable { "history" } else { "epoch" };
            let text = format!("s{} acknowledges NEWLEADER {epoch} without {what}", learner + 1);
            self.fail("V2", text);
        }
        self.hooks.push((learner, "ack newleader"));
    }

    /// B9: a learner's history is part of its leader's, from NEWLEADER on.
    fn compare_histories(&mut self, learner: HostIx, leader: HostIx, epoch: Epoch, disks: &[Disk]) {
        let leads = self.servers[leader].status.is_some_and(|status| {
            let leads = status.state == ServerState::Leading && status.phase != Phase::Discovery;
            leads && status.epoch == epoch
        });
        let (last, chain) = disks[learner].issued.last();
        if leads && !self.holds(&disks[leader].issued, last, chain) {
            let text = format!("s{} has {last}, its leader does not", learner + 1);
            self.fail("B9", text);
        }
    }

    /// A learner acknowledges everything up to `zxid`. It counts unless the learner has promised a
    /// higher epoch (R19).
    fn count(&mut self, learner: HostIx, epoch: Epoch, zxid: Zxid, disk: &Disk) {
        if disk.durable.accepted.is_none_or(|accepted| accepted > epoch) {
            self.coverage.count("guest acknowledges");
            return;
        }
        let known = self.counted.entry((epoch, learner)).or_insert(zxid);
        *known = zxid.max(*known);
    }

    /// Whether `leader` and those whose acknowledgements count have everything up to `zxid`.
    fn acknowledged(&self, leader: HostIx, epoch: Epoch, zxid: Zxid) -> bool {
        self.is_committed_by(zxid, |server| {
            let known = self.counted.get(&(epoch, server));
            server == leader || known.is_some_and(|known| *known >= zxid)
        })
    }

    /// A learner acknowledges a proposal. V3, B9.
    pub(crate) fn on_ack(&mut self, learner: HostIx, leader: HostIx, zxid: Zxid, disks: &[Disk]) {
        let disk = &disks[learner];
        self.compare_histories(learner, leader, zxid.epoch(), disks);
        self.count(learner, zxid.epoch(), zxid, disk);
        self.acknowledge_change(zxid);
        if zxid > disk.durable.base() && disk.durable.find(zxid).is_none() {
            let text = format!("s{} acknowledges {zxid}, which is not on its disk", learner + 1);
            self.fail("V3", text);
        }
        self.hooks.push((learner, "ack"));
    }

    /// A leader tells that a transaction of its own epoch is committed. B7.
    pub(crate) fn on_commit(&mut self, leader: HostIx, zxid: Zxid, disks: &[Disk]) {
        if zxid <= self.last_committed() || !self.reigns.contains_key(&(zxid.epoch(), leader)) {
            return;
        }
        let Some(rec) = disks[leader].issued.find(zxid) else {
            self.fail("B7", format!("s{} commits {zxid} and does not have it", leader + 1));
            return;
        };
        let chain = rec.chain;
        self.check_commit_by(leader, zxid);
        let has = |server: HostIx| self.holds(&disks[server].durable, zxid, chain);
        if !self.is_committed_by(zxid, has) {
            let text = format!("s{} commits {zxid}, not on the disks of a quorum", leader + 1);
            self.fail("B7", text);
        }
        if !self.acknowledged(leader, zxid.epoch(), zxid) {
            let text = format!("s{} commits {zxid} with the word of guests", leader + 1);
            self.fail("R19", text);
        }
        self.commit_through(leader, &disks[leader].issued, zxid);
        self.hooks.push((leader, "commit"));
    }

    /// Whether a server follows, as far as it has said.
    pub(crate) fn follows(&self, server: HostIx) -> bool {
        let status = self.servers[server].status;
        status.is_some_and(|status| status.state == ServerState::Following)
    }

    /// An observer master passes on a transaction. It is committed, and the master has been told so: it has
    /// applied it itself. B7.
    pub(crate) fn on_relayed(&mut self, master: HostIx, observer: HostIx, zxid: Zxid) {
        let live =
            self.servers[observer].status.is_some_and(|status| status.phase == Phase::Broadcast);
        self.coverage.count(match live {
            true => "master: told in service",
            false => "master: told before NEWLEADER",
        });
        if self.applied(master) < zxid {
            let text = format!("s{} passes on {zxid} before it is committed there", master + 1);
            self.fail("B7", text);
        }
    }

    /// A server's role or phase has changed.
    pub(crate) fn on_became(&mut self, now: u64, server: HostIx, status: &Status, disks: &[Disk]) {
        self.coverage.became(status);
        let before = self.servers[server].status.replace(*status);
        let looked = before.is_none_or(|before| before.state == ServerState::Looking);
        if status.state == ServerState::Looking {
            self.forget_votes(server);
            self.on_left(server, before.and_then(|before| before.leader));
        } else if looked {
            self.on_decided(server, status);
        }
        if let Some(before) = before {
            self.note_abdication(&before, status, &disks[server]);
        }
        self.hooks.push((server, hook_of(status)));
        self.servers[server].elections += 1;
        let led = before.is_some_and(|before| before.state == ServerState::Leading);
        if status.state == ServerState::Leading && !led {
            self.check_candidate(server);
        }
        if status.phase != Phase::Broadcast {
            return;
        }
        if status.state == ServerState::Leading {
            self.note_view(now, server, None);
            self.establish(server, status.epoch, disks);
            self.settle_change(server, self.last_committed());
        } else {
            self.check_serving(server, status);
        }
    }

    /// A process is about to die: how far has a synchronisation come?
    pub(crate) fn on_dying(&mut self, server: HostIx, durable: &Image, issued: &Image) {
        let syncs = self.servers[server].status.is_some_and(|status| {
            status.phase == Phase::Synchronization && status.state != ServerState::Leading
        });
        // NEWLEADER has come when the epoch is asked for, behind the history.
        let status = self.servers[server].status.map(|status| status.epoch);
        if !syncs || issued.current != status {
            return;
        }
        self.coverage.count(if durable.last() != issued.last() {
            "died at NEWLEADER, history not durable"
        } else if durable.current != issued.current {
            "died at NEWLEADER, epoch not durable"
        } else {
            "died at NEWLEADER, all durable"
        });
    }

    /// A leader gives up with proposals that are not committed.
    fn note_abdication(&mut self, before: &Status, now: &Status, disk: &Disk) {
        let led = before.state == ServerState::Leading && before.phase == Phase::Broadcast;
        let last = self.last_committed();
        let pending = |zxid: &Zxid| *zxid > last && disk.issued.find(*zxid).is_some();
        if led && self.changes.keys().next_back().is_some_and(pending) {
            self.coverage.count("members: proposed, and its leader lost");
        }
        if led && now.state == ServerState::Looking && disk.issued.last().0 > self.last_committed()
        {
            self.coverage.count("leader gave up with proposals under way");
        }
    }

    /// V1, V2 (of a quorum), V8, V9.
    fn establish(&mut self, leader: HostIx, epoch: Epoch, disks: &[Disk]) {
        let initial = disks[leader].issued.last();
        let reign = *self.reigns.entry((epoch, leader)).or_insert(Reign { initial });
        let (zxid, chain) = reign.initial;
        let name = leader + 1;
        let other = *self.established.entry(epoch).or_insert(leader);
        if other != leader {
            self.fail("V1", format!("s{} and s{name} both lead epoch {epoch}", other + 1));
        }
        if self.established.keys().next_back() != Some(&epoch) {
            // Older than an epoch that is established already: it had its quorum before, and
            // learns of it late. Its history is a prefix of the newer one (V9).
            let newer = self.canon_holds(zxid, chain);
            if !newer {
                self.fail("V9", format!("epoch {epoch} of s{name} is not part of the newer one"));
            }
            return;
        }
        let synced = |server: HostIx| {
            let image = &disks[server].durable;
            // Who leads alone writes it with the first proposal.
            let alone = server == leader && self.granted[leader];
            (alone || image.current_in_effect() >= epoch) && self.holds(image, zxid, chain)
        };
        let issued = &disks[leader].issued;
        // A change below its base is committed, and counted as such, or was lost before the snapshot.
        let holds = |change: Zxid| issued.find(change).is_some();
        if !self.may_begin(zxid, holds, synced) {
            let text = format!("s{name} leads epoch {epoch} without a synchronised quorum");
            self.fail("V2", text);
        }
        if !self.dynamic && !self.acknowledged(leader, epoch, Zxid::ZERO) {
            let text = format!("s{name} leads epoch {epoch} by the word of guests");
            self.fail("R19", text);
        }
        let image = &disks[leader].issued;
        let last = self.last_committed();
        if last > zxid || !self.holds(image, last, self.chain_at(last)) {
            let text = format!("s{name} leads epoch {epoch} at {zxid} without committed {last}");
            self.fail("V8", text);
        }
        self.commit_through(leader, image, zxid);
    }

    fn canon_holds(&self, zxid: Zxid, chain: u64) -> bool {
        zxid <= self.last_committed() && self.chain_at(zxid) == chain
    }

    /// V5: who serves has applied the history its epoch began with.
    fn check_serving(&mut self, server: HostIx, status: &Status) {
        let name = server + 1;
        let Some(leader) = self.established.get(&status.epoch).copied() else {
            let text = format!("s{name} serves in epoch {}, not established", status.epoch);
            self.fail("V5", text);
            return;
        };
        let Some(reign) = self.reigns.get(&(status.epoch, leader)) else { return };
        let needed = self.position_of(reign.initial.0);
        let position = self.servers[server].position;
        if position < needed {
            let text = format!("s{name} serves with {position} transactions, not {needed}");
            self.fail("V5", text);
        }
    }
}

/// The name under which a plan can be hooked to a change of role.
fn hook_of(status: &Status) -> &'static str {
    match (status.state, status.phase) {
        (ServerState::Looking, _) => "looking",
        (ServerState::Leading, Phase::Broadcast) => "leading",
        (ServerState::Leading, _) => "about to lead",
        (_, Phase::Discovery) => "discovery",
        (_, Phase::Synchronization) => "synchronization",
        (_, Phase::Broadcast) => "following",
        (_, Phase::Election) => "election",
    }
}
