//! An ensemble that is measured: what every measurement waits for and does.

use zab_proto::{Membership, Phase, ServerState};

use super::{Case, Samples, What};
use crate::check::Failure;
use crate::counter::Counter;
use crate::members::server_of;
use crate::queue::{Event, HostIx, MILLI, SECOND};
use crate::replica::Replica;
use crate::trace::Trace;
use crate::world::World;

pub(super) type Sim = World<Replica<Counter>>;

/// The ensemble, and what was measured of it.
pub(super) struct Measurement {
    pub(super) world: Sim,
    pub(super) samples: Samples,
}

impl Measurement {
    /// With `spares` servers that are no members.
    pub(super) fn new(case: &Case, seed: u64, spares: usize) -> Self {
        let mut options = case.options(seed);
        options.spares = spares;
        let mut world = Sim::asleep(options, Trace::new(0));
        world.initialize();
        Self { world, samples: Samples::default() }
    }

    /// All servers start within 10 ms.
    pub(super) fn start_all(&mut self) -> Result<(), Failure> {
        for server in 0..self.world.options.servers() {
            let at = self.world.rng.below(10 * MILLI);
            self.world.queue.push(at, Event::Start { server });
        }
        self.until("all serve", |world| all_serve(world, None))
    }

    /// Everything up to the moment at which `done` holds.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Sim) -> bool,
    ) -> Result<(), Failure> {
        let deadline = self.world.now + 600 * SECOND;
        if self.world.run_until(deadline, &mut done) {
            return Ok(());
        }
        let text = format!("not in time: {what}");
        Err(self.world.failure().unwrap_or(Failure { invariant: "scale", text }))
    }

    /// Until nothing of what was before is under way, and off the beat of ticks.
    pub(super) fn pause(&mut self) {
        let until = self.world.now + 3 * SECOND + self.world.rng.below(2 * SECOND);
        self.world.run_until(until, |_| false);
    }

    /// Who leads.
    pub(super) fn leader(&self) -> Result<HostIx, Failure> {
        let text = "no leader".to_owned();
        self.world.leader().ok_or(Failure { invariant: "scale", text })
    }

    /// Proposes a transaction of 100 bytes; its place in the history.
    pub(super) fn propose(&mut self, leader: HostIx) -> usize {
        let world = &mut self.world;
        let server = &mut world.servers[leader];
        let now = server.clock(world.now);
        let node = server.node.as_mut().expect("the leader runs");
        let proposed = node.with(now, |_, core| Replica::<Counter>::propose(core, &[0; 100]));
        assert!(proposed, "an established leader with an empty window takes proposals");
        world.settle(leader);
        let image = &world.disks[leader].issued;
        world.checker().position_of(image.base()) + image.log.len()
    }

    /// Proposes a transaction, and waits until the leader has delivered it.
    pub(super) fn commit(&mut self, leader: HostIx) -> Result<(), Failure> {
        let target = self.propose(leader);
        self.until("a commit", |world| world.checker().server(leader).position >= target)
    }

    /// The same with the next leader, once it takes transactions: one that a change leaves without a vote takes none.
    pub(super) fn commit_next(&mut self, old: HostIx) -> Result<(), Failure> {
        let takes = |world: &Sim, server: HostIx| {
            let node = world.servers[server].node.as_ref();
            node.is_some_and(|node| node.peer().next_zxid().is_some())
        };
        self.until("another one leads", |world| {
            world.leader().is_some_and(|leader| leader != old && takes(world, leader))
        })?;
        let leader = self.leader()?;
        self.commit(leader)
    }

    /// What has passed since `begin`.
    pub(super) fn add(&mut self, what: What, begin: u64) {
        self.samples.add(what, millis(self.world.now - begin));
    }

    /// Notifications, and bytes on the election ports, so far.
    pub(super) fn sent(&self) -> (u64, u64) {
        let checker = self.world.checker();
        (checker.coverage.notifications, checker.coverage.election_bytes)
    }

    /// What of these was sent since there were `before`.
    pub(super) fn add_sent(&mut self, [votes, bytes]: [What; 2], before: (u64, u64)) {
        let after = self.sent();
        self.samples.add(votes, count(after.0 - before.0));
        self.samples.add(bytes, count(after.1 - before.1));
    }

    /// What was measured.
    pub(super) fn end(mut self) -> Samples {
        self.samples.events = self.world.events;
        self.samples
    }
}

/// Whether a server serves clients.
pub(super) fn serves(world: &Sim, server: HostIx) -> bool {
    world.checker().server(server).status.is_some_and(|status| status.phase == Phase::Broadcast)
}

/// Whether all do, but for one that is lost.
pub(super) fn all_serve(world: &Sim, lost: Option<HostIx>) -> bool {
    (0..world.options.servers()).filter(|server| Some(*server) != lost).all(|s| serves(world, s))
}

/// Whether all voters that are there, of what is in force and of the last change, follow one of them.
pub(super) fn agreed(world: &Sim, lost: Option<HostIx>) -> bool {
    let checker = world.checker();
    let last = checker.changes.values().next_back();
    let all = [Some(checker.committed_members()), last].into_iter().flatten();
    let voters = all.flat_map(Membership::voters).map(server_of).filter(|s| Some(*s) != lost);
    let mut leaders = voters.map(|server| {
        let status = checker.server(server).status;
        status.filter(|status| status.state != ServerState::Looking)?.leader
    });
    let first = leaders.next().flatten();
    first.is_some_and(|leader| Some(server_of(leader)) != lost)
        && leaders.all(|leader| leader == first)
}

#[expect(clippy::cast_precision_loss, reason = "below 2^52")]
pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "below 2^52")]
fn count(n: u64) -> f64 {
    n as f64
}
