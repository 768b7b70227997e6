//! What a fault does, and the steps of the protocol that faults are tied to.

pub(crate) mod away;
pub(crate) mod forge;
pub(crate) mod members;
pub mod mutation;
pub mod plan;
pub mod profile;
pub(crate) mod siege;
pub(crate) mod tamper;

use zab_proto::{Channel, Epoch};

use crate::disk::Disk;
use crate::net::{EndState, Side};
use crate::plan::{Death, Fault, When};
use crate::queue::{Event, HostIx};
use crate::rng::Rng;
use crate::subject::Subject;
use crate::world::World;

impl<A: Subject> World<A> {
    /// A dead process leaves its connections.
    pub(crate) fn abandon(&mut self, server: HostIx, death: Death) {
        for (conn, side) in self.net.of_host(server) {
            match death {
                Death::Kill => self.net.close(self.now, conn, side, &mut self.queue),
                Death::Power => self.net.end_mut(conn, side).state = EndState::Gone,
            }
        }
    }

    /// Fires the faults that are tied to steps just seen.
    pub(crate) fn pull_hooks(&mut self) {
        let mut seen = std::mem::take(&mut self.checker.borrow_mut().hooks);
        if !self.healed && !self.hooked.is_empty() {
            for (server, hook) in &seen {
                self.pull_hook(*server, hook);
            }
        }
        if self.plan.is_empty() {
            self.steps.extend_from_slice(&seen);
        }
        seen.clear();
        self.checker.borrow_mut().hooks = seen;
    }

    fn pull_hook(&mut self, server: HostIx, hook: &str) {
        let mut at = 0;
        while at < self.hooked.len() {
            let (index, left) = self.hooked[at];
            let When::After { hook: wanted, delay, .. } = self.plan[index].when else {
                unreachable!("only hooked faults are listed")
            };
            if wanted != hook {
                at += 1;
                continue;
            }
            if left > 1 {
                self.hooked[at].1 -= 1;
                at += 1;
                continue;
            }
            self.hooked.swap_remove(at);
            self.queue.push(self.now + delay, Event::Triggered { index, server });
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.trace.say(|| format!("FAULT {fault:?}"));
        self.checker.borrow_mut().coverage.count(fault.class());
        let now = self.now;
        match fault {
            Fault::Die { server, death, down } => {
                self.die(server, death);
                self.queue.push(now + down, Event::Start { server });
            }
            Fault::Pause { server, length } => {
                self.pause(server);
                self.queue.push(now + length, Event::Unpause { server });
            }
            Fault::CutOneWay { from, to, length } => self.cut(from, to, length),
            Fault::Cut { a, b, length } => {
                self.cut(a, b, length);
                self.cut(b, a, length);
            }
            Fault::Isolate { server, length } => {
                for other in (0..self.servers.len()).filter(|other| *other != server) {
                    self.cut(server, other, length);
                    self.cut(other, server, length);
                }
            }
            Fault::Reset { server } => {
                for (conn, _) in self.net.of_host(server) {
                    if self.rng.chance(500) {
                        self.net.reset(now, conn, &mut self.queue);
                    }
                }
            }
            Fault::Stall { server, length } => {
                self.disks[server].stall(true);
                self.queue.push(now + length, Event::Unstall { server });
            }
            Fault::Slow { server, rest, length } => {
                self.net.set_rest(now, server, rest, &mut self.queue);
                self.queue.push(now + length, Event::Unslow { server });
            }
            Fault::Wipe { server, down } => self.wipe(server, down),
            Fault::Resign => self.resign(),
            Fault::Misremember { server, rise, down } => self.misremember(server, rise, down),
            Fault::Unresolved { server, length } => {
                self.nameless[server] = true;
                self.queue.push(now + length, Event::Resolved { server });
            }
            Fault::Garble { from, to, bytes } => {
                let bytes = garbage(bytes);
                self.inject_bytes(from, to, Channel::Election, &bytes);
            }
            Fault::Accost { server, words } => siege::accost_in_trouble(self, server, words),
            Fault::Swizzle { order, pause } => self.swizzle(order, pause),
            Fault::Reconfigure { choice } => self.reconfigure(choice),
        }
    }

    /// Whoever leads makes way, if there is a successor.
    fn resign(&mut self) {
        let Some(leader) = self.leader().filter(|leader| self.is_up(*leader)) else { return };
        let s = &mut self.servers[leader];
        let now = s.clock(self.now);
        let result = s.node.as_mut().map(|node| node.resign(now));
        self.trace.say(|| format!("s{} is asked to make way: {result:?}", leader + 1));
        if result == Some(Ok(())) {
            self.checker.borrow_mut().coverage.count("a leader makes way");
        }
        self.settle(leader);
    }

    /// Bytes that `from` never sent reach `to` on the newest open connection of the two; whether
    /// there is one.
    pub(crate) fn inject_bytes(
        &mut self,
        from: HostIx,
        to: HostIx,
        channel: Channel,
        bytes: &[u8],
    ) -> bool {
        let fits = |(conn, side): &(u32, Side)| {
            let conn = self.net.conn(*conn);
            let ends = [conn.end(*side), conn.end(side.other())];
            conn.channel == channel
                && ends[1].host == to
                && ends.iter().all(|end| end.state == EndState::Open)
        };
        let Some((conn, side)) = self.net.of_host(from).into_iter().rfind(fits) else {
            return false;
        };
        self.net.write(self.now, conn, side, bytes, &mut self.queue);
        true
    }

    /// Cuts every link at a time of its own, and mends each in another order.
    fn swizzle(&mut self, order: u64, pause: u64) {
        let mut rng = Rng::new(order, 0);
        for from in 0..self.servers.len() {
            for to in (0..self.servers.len()).filter(|to| *to != from) {
                let begin = self.now + rng.below(pause + 1);
                self.queue.push(begin, Event::Cut { from, to });
                self.queue.push(begin + rng.below(2 * pause + 1), Event::Heal { from, to });
            }
        }
    }

    fn cut(&mut self, from: HostIx, to: HostIx, length: u64) {
        if from != to {
            self.checker.borrow_mut().sever(from, to);
            self.net.cut(from, to);
            self.queue.push(self.now + length, Event::Heal { from, to });
        }
    }

    /// An `acceptedEpoch` is damaged while its server is down. What is beyond belief costs the server its
    /// vote until it is synchronised, as an empty directory does: so only one of three or more has such a file
    /// at a time, and no other voter has an empty directory then.
    fn misremember(&mut self, server: HostIx, rise: i64, down: u64) {
        let beyond = |disk: &Disk| {
            let known = disk.durable.current_in_effect();
            disk.durable.accepted.is_some_and(|accepted| !accepted.is_plausible(known))
        };
        let voters = self.disks.iter().take(self.options.voters);
        let others = voters.enumerate().filter(|(other, _)| *other != server);
        let vote = others.into_iter().all(|(_, disk)| disk.durable.current.is_some());
        let spare = self.options.voters >= 3 && vote && !self.disks.iter().any(beyond);
        if rise > Epoch::PLAUSIBLE_RISE && !spare {
            return;
        }
        self.die(server, Death::Kill);
        let accepted = self.disks[server].durable.accepted.unwrap_or_default();
        self.disks[server].damage_epochs(Epoch(accepted.0.saturating_add(rise)), None);
        self.queue.push(self.now + down, Event::Start { server });
    }

    /// Whether nothing relies on what one of the disks has, as all have the same.
    pub(crate) fn can_spare_one(&self) -> bool {
        let checker = self.checker.borrow();
        let last = checker.last_committed();
        let chain = checker.chain_at(last);
        let has = |other: HostIx| {
            let disk = &self.disks[other];
            disk.issued.last().0 == last && checker.holds(&disk.durable, last, chain)
        };
        // Nor on an acknowledgement of the epoch that is still under way.
        let settled = self.disks[0].durable.current.is_some()
            && self.disks.iter().all(|d| d.durable.current == self.disks[0].durable.current);
        let led = self.leader().is_some();
        led && settled && (0..self.options.voters).all(has) && self.options.voters >= 3
    }

    /// A disk is replaced, if every transaction is committed and on the disks of all others, so that
    /// nothing relies on what the replaced one has acknowledged.
    fn wipe(&mut self, server: HostIx, down: u64) {
        let spare = self.can_spare_one();
        if server < self.options.voters && !spare {
            return;
        }
        self.die(server, Death::Power);
        self.disks[server].wipe();
        self.compare();
        self.queue.push(self.now + down, Event::Start { server });
    }
}

/// What nobody meant: the beginning of a frame, a frame that is no vote, or anything.
fn garbage(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed, 0);
    let len = rng.index(80) + 1;
    let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64().to_be_bytes()[0]).collect();
    let claimed = rng.pick(&[0, 8, 40, len, 100, 70_000]);
    if let Some(head) = bytes.first_chunk_mut::<4>().filter(|_| rng.chance(800)) {
        *head = u32::try_from(claimed).unwrap_or(0).to_be_bytes();
    }
    bytes
}
