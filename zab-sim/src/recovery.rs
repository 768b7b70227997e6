//! After the chaos: everything heals, and then the ensemble must be as good as new.

use zab_proto::Phase;

use crate::members::sid_of;
use crate::net::Side;
use crate::options::Options;
use crate::plan::{Death, slowness};
use crate::queue::{Event, HostIx, MILLI, SECOND};
use crate::siege::besiege;
use crate::subject::{Client, Subject};
use crate::world::World;

/// The servers recover and do their work within this time after the last fault, in ns.
///
/// Every silence, retry and back-off of the protocol may be at its longest once: the notification
/// back-off (which starts anew when a peer is reachable again) and `initLimit` of each phase.
pub(crate) fn patience(options: &Options) -> u64 {
    let tick = tick(options);
    60 * SECOND + 20 * u64::from(options.init_limit + options.sync_limit) * tick
}

pub(crate) fn tick(options: &Options) -> u64 {
    u64::try_from(options.tick_time.as_nanos()).unwrap_or(SECOND)
}

/// An fsync, or a packet, takes no longer on average once all faults have ended, in ns.
fn delay_max(options: &Options) -> u64 {
    tick(options) / 20
}

/// Heals everything and waits until all servers serve the same history and every client has a new
/// write done. E7, L1–L4.
pub fn converge<A: Subject>(world: &mut World<A>) {
    world.heal();
    let before = world.completed();
    let changes = world.role_changes();
    world.await_health(&before);
    let quiet = u64::from(A::QUIET_TICKS) * tick(&world.options);
    let until = world.now + quiet;
    world.run_until(until, |_| false);
    for (server, (before, now)) in changes.iter().zip(world.role_changes()).enumerate() {
        let lasting = world.options.counter_max == u32::MAX;
        if lasting && now - before > ROLE_CHANGES_MAX {
            let text = format!("s{} changes its role {} times", server + 1, now - before);
            world.checker.borrow_mut().fail("L4", text);
        }
    }
}

/// What must hold of an ensemble in good health: it is not disturbed by a server that restarts
/// (E6) or limps (L6), and does not need the links of a minority (E7), each tried after some of the runs, and comes to rest without work (L5).
pub(crate) fn examine<A: Subject>(world: &mut World<A>) {
    settle(world);
    world.clients.iter_mut().for_each(|seat| seat.client.trouble());
    if world.options.reconfigures() {
        // Which servers can be missed is another question there.
        return rest(world);
    }
    // With small counters epochs end by themselves.
    let lasting = world.options.counter_max == u32::MAX;
    // Without a voter that counts, a guest makes a new epoch begin.
    let lasting = lasting && !world.has_guests();
    match world.options.seed % 4 {
        0 if lasting => restart_one(world),
        1 if lasting => cripple_one(world),
        2 if lasting => split(world),
        _ => {}
    }
    if lasting && world.options.identities && world.failure().is_none() {
        besiege(world);
    }
    // Sessions that end at rest use up small counters, and the election after that may wait for a dial
    // that hangs.
    if world.failure().is_none() && (lasting || A::QUIET_TICKS == 0) {
        rest(world);
    }
}

/// More than any server needs to find its place once all links work.
const ROLE_CHANGES_MAX: u32 = 100;

/// Waits for what is left of the chaos: bytes that were delayed, readers that rest and disks that
/// stalled before. Whatever lasts as long as a time-out would be blamed on the healthy.
fn settle<A: Subject>(world: &mut World<A>) {
    let until = world.latest_delay();
    // What is left of the chaos itself may have been awaited for nearly a time-out already.
    let over = world.aftermath <= world.now && until <= world.now + tick(&world.options) / 2;
    // Or it has cost somebody its leader since all were well.
    let over = over && (0..world.servers.len()).all(|server| world.serves(server));
    if world.failure().is_some() || over {
        return;
    }
    let until = until.max(world.aftermath);
    world.quiet = true;
    world.run_until(until, |_| false);
    world.quiet = false;
    let before = world.completed();
    world.heal();
    world.await_health(&before);
}

/// E6: a server that restarts finds the leader, and nobody else is disturbed.
fn restart_one<A: Subject>(world: &mut World<A>) {
    let Some(server) = world.dispensable() else { return };
    let before = world.role_changes();
    world.checker.borrow_mut().coverage.count("healed: a server restarted");
    world.trace.say(|| format!("s{} restarts among healthy servers", server + 1));
    world.die(server, Death::Kill);
    world.queue.push(world.now + 10 * MILLI, Event::Start { server });
    let deadline = world.now + patience(&world.options);
    if !world.run_until(deadline, |world| world.serves(server)) && world.failure().is_none() {
        let text = format!("s{} cannot rejoin\n{}", server + 1, world.describe());
        world.checker.borrow_mut().fail("L1", text);
    }
    world.undisturbed("E6", server, &before);
}

/// L6: while one server is of no use, the clients of the others get their writes done.
fn cripple_one<A: Subject>(world: &mut World<A>) {
    let Some(server) = world.dispensable() else { return };
    let (changes, completed) = (world.role_changes(), world.completed());
    let began = world.now;
    let hosts = world.client_hosts();
    let others: Vec<HostIx> = (0..world.servers.len()).filter(|other| *other != server).collect();
    let way = world.rng.below(5);
    world.checker.borrow_mut().coverage.count("healed: a server crippled");
    world.trace.say(|| format!("s{} is crippled in way {way}", server + 1));
    match way {
        0 => world.disks[server].stall(true),
        1 => world.pause(server),
        // It is of use, but slow: in service, and while it is synchronised.
        2 | 3 => {
            let rest = slowness(&mut world.rng);
            world.net.set_rest(world.now, server, rest, &mut world.queue);
            if way == 3 {
                world.die(server, Death::Kill);
                world.queue.push(world.now + tick(&world.options), Event::Start { server });
            }
        }
        _ => others.iter().for_each(|other| world.net.cut(server, *other)),
    }
    let ticks = u64::from(4 * world.options.sync_limit) * tick(&world.options);
    let until = world.now + 4 * SECOND + ticks;
    let (mut committed, mut since, mut longest) = (0, world.now, 0);
    world.run_until(until, |world| {
        let now = world.checker.borrow().committed();
        if now > committed {
            longest = longest.max(world.now - since);
            (committed, since) = (now, world.now);
        }
        false
    });
    if world.failure().is_some() {
        return;
    }
    longest = longest.max(world.now - since);
    let elsewhere = |host: &&Option<HostIx>| host.is_some_and(|host| host != server);
    // Those who sent something longer than a field wait for it in vain before they go on.
    // Who had to go elsewhere may have tried the crippled one in between.
    let stayed = world.client_hosts();
    let steady: Vec<bool> = (0..hosts.len())
        .map(|at| {
            let client = &world.clients[at].client;
            hosts[at] == stayed[at] && client.in_vain_until() < began
        })
        .collect();
    // Where that is possible, all of them may do so at a time.
    let refuses = world.clients.iter().any(|seat| seat.client.in_vain_until() > 0);
    let awaited = !refuses && hosts.iter().any(|host| elsewhere(&host));
    if awaited && longest > SECOND + 2 * tick(&world.options) {
        let text = format!("s{} kept all from writing for {} ms", server + 1, longest / MILLI);
        world.checker.borrow_mut().fail("L6", text);
    }
    for (client, before) in completed.iter().enumerate() {
        let seat = &world.clients[client];
        let waits = steady[client] && elsewhere(&&hosts[client]);
        if waits && seat.client.completed() == *before {
            let text = format!("s{} keeps client {} from writing", server + 1, client + 1);
            world.checker.borrow_mut().fail("L6", text);
        }
    }
    world.undisturbed("L6", server, &changes);
    let before = world.completed();
    world.heal();
    world.await_health(&before);
}

/// E7: a majority whose members reach each other has a leader, though one of them hears of the rest,
/// which reaches nobody else.
fn split<A: Subject>(world: &mut World<A>) {
    let voters = world.options.voters;
    if voters < 4 {
        return;
    }
    let mut core: Vec<HostIx> = (0..voters).collect();
    while core.len() > voters / 2 + 1 {
        core.swap_remove(world.rng.index(core.len()));
    }
    let hub = world.rng.pick(&core);
    world.checker.borrow_mut().coverage.count("healed: a majority with one link to the rest");
    world.trace.say(|| format!("s{} alone reaches others than {core:?}", hub + 1));
    for a in 0..world.servers.len() {
        for b in (0..world.servers.len()).filter(|b| *b != a && *b != hub && a != hub) {
            if !(core.contains(&a) && core.contains(&b)) {
                world.net.cut(a, b);
            }
        }
    }
    let (before, completed) = (world.checker.borrow().committed(), world.completed());
    let deadline = world.now + patience(&world.options);
    let led = world.run_until(deadline, |world| {
        world.leader().is_some_and(|leader| core.contains(&leader))
            && core.iter().all(|server| world.serves(*server))
            && world.checker.borrow().committed() > before
    });
    if !led && world.failure().is_none() {
        let text = format!("{core:?} have no leader{}", world.describe());
        world.checker.borrow_mut().fail("E7", text);
    }
    if world.failure().is_none() {
        world.heal();
        world.await_health(&completed);
    }
}

/// L3, L5: without clients, everybody applies everything, and nothing is left over.
fn rest<A: Subject>(world: &mut World<A>) {
    world.quiet = true;
    let ticks = u64::from(4 * world.options.sync_limit + A::QUIET_TICKS) * tick(&world.options);
    let mut until = world.now + 2 * SECOND + ticks;
    let patience = u64::try_from(world.options.election.handshake_timeout.as_nanos()).unwrap_or(0);
    if world.options.faults.garble > 0 {
        // Votes are behind the beginning of a frame that does not end, until that is noticed.
        until += patience;
    }
    world.run_until(until, |_| false);
    // Who lost power before he introduced himself is noticed as late.
    world.run_until(until + patience, |world| {
        let conns = world.servers.iter().map(|server| server.names.len());
        conns.max() <= Some(world.connections_max())
    });
    await_laggards(world, 2 * SECOND + ticks);
    let n = world.servers.len();
    world.checker.borrow_mut().coverage.count("healed: at rest");
    for server in 0..n {
        if world.failure().is_some() {
            return;
        }
        let (position, committed) = {
            let checker = world.checker.borrow();
            (checker.server(server).position, checker.committed())
        };
        let conns = world.servers[server].names.len();
        let text = if !world.serves(server) || position != committed {
            format!("applied {position} of {committed}\n{}", world.describe())
        } else if !world.disks[server].is_idle() {
            "has a disk that is still at work".to_owned()
        } else if conns > world.connections_max() {
            format!("has {conns} connections")
        } else if world.net.backlog(server) > BACKLOG_MAX {
            format!("has {} bytes under way", world.net.backlog(server))
        } else {
            continue;
        };
        let text = format!("at rest, s{} {text}", server + 1);
        world.checker.borrow_mut().fail("L5", text);
    }
}

/// Nobody waits for who is not needed for the quorum, and one whose window holds a transaction waits for its disk
/// with each. However far behind it is when the clients stop, it has to go on, at a tenth of the pace of such
/// a disk at least, until it has everything.
fn await_laggards<A: Subject>(world: &mut World<A>, period: u64) {
    let pace = usize::try_from(period / (10 * delay_max(&world.options))).unwrap_or(1).max(1);
    let behind = |world: &World<A>, at: usize, position: usize| {
        position < world.checker.borrow().committed() || !world.disks[at].is_idle()
    };
    loop {
        let before = world.positions();
        let lag = before.iter().enumerate().filter(|(at, before)| behind(world, *at, **before));
        let lag: Vec<HostIx> = lag.map(|(at, _)| at).collect();
        let needed = !world.checker.borrow().quorum(|voter| !lag.contains(&voter));
        if lag.is_empty() || needed || world.failure().is_some() {
            return;
        }
        let until = world.now + period;
        world.run_until(until, |world| {
            world.positions().iter().enumerate().all(|(at, now)| !behind(world, at, *now))
        });
        let committed = world.checker.borrow().committed();
        let mut both = before.iter().zip(world.positions());
        if both.any(|(before, now)| now < (before + pace).min(committed)) {
            return;
        }
    }
}

/// Bytes of heartbeats that may be under way to a server.
const BACKLOG_MAX: usize = 4096;

impl<A: Subject> World<A> {
    /// When the last of what is on its way, or being written, will be there.
    fn latest_delay(&self) -> u64 {
        let busy = self.disks.iter().map(|disk| disk.busy_until).max().unwrap_or(0);
        busy.max(self.net.latest_arrival())
    }

    /// Ends all faults: everything runs, every link works.
    pub fn heal(&mut self) {
        self.healed = true;
        self.aftermath = self.latest_delay();
        self.nameless.fill(false);
        // A world in which the protocol's time-outs make sense.
        let delay_max = delay_max(&self.options);
        self.net.heal(delay_max);
        self.trace.say(|| "all faults end".to_owned());
        let hosts = self.servers.len() + self.clients.len();
        for from in 0..hosts {
            for to in 0..hosts {
                if self.net.is_cut(from, to) {
                    self.net.mend(self.now, from, to, &mut self.queue);
                }
            }
        }
        // What an examination cuts later is mended whole: a connection that breaks then would be taken for
        // somebody's doing.
        self.net.mend_whole();
        for server in 0..self.servers.len() {
            self.disks[server].heal(delay_max);
            self.queue.push(self.now, Event::Unstall { server });
            self.queue.push(self.now, Event::Unslow { server });
            self.queue.push(self.now, Event::Start { server });
            if self.servers[server].paused {
                self.queue.push(self.now, Event::Unpause { server });
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].client.persevere();
            self.queue.push(self.now, Event::Client { client });
        }
    }

    /// Waits until all servers serve one history and each client has done more than `before`. L1.
    pub(crate) fn await_health(&mut self, before: &[u64]) {
        let positions: Vec<usize> = self.positions();
        let deadline = self.now + patience(&self.options);
        // Far more than clients and heartbeats can cause in that time.
        let storm = self.events + patience(&self.options) / SECOND * 20_000;
        let mut uniform = false;
        self.run_until(deadline, |world| {
            // Looking at everything after every event would be slow.
            uniform = world.events.is_multiple_of(64)
                && world.clients.iter().zip(before).all(|(seat, n)| seat.client.completed() > *n)
                && world.is_uniform(&positions);
            uniform || world.events > storm
        });
        if !uniform && self.failure().is_none() {
            let text = format!("not healthy in time after the last fault{}", self.describe());
            self.checker.borrow_mut().fail("L1", text);
        }
    }

    /// Connections of one server, at most, when everybody has found everybody.
    fn connections_max(&self) -> usize {
        4 * (self.servers.len() - 1) + 2 * self.clients.len()
    }

    /// How much each server has applied.
    fn positions(&self) -> Vec<usize> {
        let checker = self.checker.borrow();
        (0..self.servers.len()).map(|server| checker.server(server).position).collect()
    }

    /// Whether all servers serve, in one epoch, with the whole history but for what is on its way.
    ///
    /// Who the quorum does not need may instead have applied much since it had `positions`: the writers do not wait
    /// for it, and one with a window of a transaction or two is slower than they are.
    fn is_uniform(&self, positions: &[usize]) -> bool {
        let checker = self.checker.borrow();
        let Some(leader) = self.leader() else { return false };
        let epoch = checker.server(leader).status.map(|status| status.epoch);
        let enough = checker.committed().saturating_sub(UNDER_WAY);
        let members = checker.committed_members();
        let have = checker.quorum(|voter| checker.server(voter).position >= enough);
        positions.iter().enumerate().all(|(server, before)| {
            let watched = checker.server(server);
            let needed = !have && members.is_voter(sid_of(server));
            let goes_on = !needed && watched.position >= before + 2 * UNDER_WAY;
            watched.status.is_some_and(|status| {
                status.phase == Phase::Broadcast && Some(status.epoch) == epoch
            }) && (watched.position >= enough || goes_on)
        })
    }

    pub(crate) fn serves(&self, server: HostIx) -> bool {
        let status = self.checker.borrow().server(server).status;
        status.is_some_and(|status| status.phase == Phase::Broadcast)
    }

    /// Whether a server has promised a higher epoch than the leader's.
    fn has_guests(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let led = self.disks[leader].durable.accepted;
        self.disks.iter().any(|disk| disk.durable.accepted > led)
    }

    /// A server, not the leader, without which there is a quorum.
    fn dispensable(&mut self) -> Option<HostIx> {
        let leader = self.leader()?;
        let first = if self.options.voters >= 3 { 0 } else { self.options.voters };
        let others: Vec<_> = (first..self.servers.len()).filter(|s| *s != leader).collect();
        (!others.is_empty()).then(|| self.rng.pick(&others))
    }

    fn undisturbed(&mut self, invariant: &'static str, but: HostIx, before: &[u32]) {
        let now = self.role_changes();
        // Who learns from a follower looks for another one when that is gone.
        let judged = if self.options.masters { self.options.voters } else { now.len() };
        let disturbed = (0..judged).find(|other| *other != but && now[*other] != before[*other]);
        if let Some(other) = disturbed {
            let text = format!("s{} disturbs s{}", but + 1, other + 1);
            self.checker.borrow_mut().fail(invariant, text);
        }
    }

    pub(crate) fn role_changes(&self) -> Vec<u32> {
        let checker = self.checker.borrow();
        (0..self.servers.len()).map(|server| checker.server(server).elections).collect()
    }

    pub(crate) fn completed(&self) -> Vec<u64> {
        self.clients.iter().map(|seat| seat.client.completed()).collect()
    }

    /// The server of each client.
    pub(crate) fn client_hosts(&self) -> Vec<Option<HostIx>> {
        let host = |conn| self.net.conn(conn).end(Side::Acceptor).host;
        self.clients.iter().map(|seat| seat.conn.map(host)).collect()
    }

    /// How everybody is.
    pub(crate) fn describe(&self) -> String {
        let checker = self.checker.borrow();
        let mut text = String::new();
        for server in 0..self.servers.len() {
            let watched = checker.server(server);
            let at = watched.position;
            let status = watched.status.map_or_else(
                || "down or undecided".to_owned(),
                |s| format!("{:?} {:?} epoch {} leader {:?}", s.state, s.phase, s.epoch, s.leader),
            );
            let (durable, _) = self.disks[server].durable.last();
            text += &format!("\n  s{}: {status}, applied {at}, disk {durable}", server + 1);
        }
        for seat in &self.clients {
            text += &format!("\n  client: {} writes", seat.client.completed());
        }
        text
    }
}

/// Transactions that may be under way to a server that keeps up.
const UNDER_WAY: usize = 100;
