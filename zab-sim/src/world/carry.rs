//! What a server wants, carried out: dials, bytes, disk work.

use zab_proto::{Channel, ConnId, Input, NetOutput, Notice, ReignEnd, ServerState, Sid};

use crate::mutation::Mutation;
use crate::net::{EndState, Side};
use crate::queue::{Event, HostIx};
use crate::subject::Subject;
use crate::tap::{Flow, Tap};
use crate::world::World;

impl<A: Subject> World<A> {
    pub(crate) fn input(&mut self, server: HostIx, input: Input) {
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        if let Some(node) = &mut s.node {
            node.handle_input(now, input);
            self.settle(server);
        }
    }

    /// Carries out all that a server wants.
    pub(crate) fn settle(&mut self, server: HostIx) {
        loop {
            let s = &mut self.servers[server];
            let now = s.clock(self.now);
            let Some(node) = &mut s.node else { return };
            let Some(output) = node.poll_output(now, &mut self.disks[server]) else { break };
            self.compare();
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    let s = &mut self.servers[server];
                    match &mut s.node {
                        Some(node) if s.swamped && channel == Channel::Quorum => {
                            node.handle_input(now, Input::Closed { conn });
                        }
                        _ => self.connect(server, conn, channel, &addresses),
                    }
                }
                NetOutput::Transmit(name) => {
                    if let Some((conn, side)) = self.lookup(server, name) {
                        if self.options.transmit_delay > 0 {
                            let at = self.now + self.rng.exponential(self.options.transmit_delay);
                            self.queue.push(at, Event::Writable { conn, from: side });
                        } else {
                            self.transmit(server, conn, side);
                        }
                    }
                }
                NetOutput::Resume(name) => {
                    if let Some((conn, at)) = self.lookup(server, name) {
                        self.queue.push(self.now, Event::Readable { conn, at });
                    }
                }
                NetOutput::Close(name, reason) => {
                    self.note_close(reason);
                    self.judge_suspicion(server, reason);
                    if let Some((conn, side)) = self.lookup(server, name) {
                        self.trace.say(|| format!("s{} closes {name:?}: {reason}", server + 1));
                        self.close(server, name, conn, side);
                    }
                }
                NetOutput::Reconfigured => self.note_members(server),
                NetOutput::AskOracle => self.answer_oracle(server),
                NetOutput::Notice(notice, _) => {
                    if let Notice::ReignEnded { reason: ReignEnd::HandedOver { to }, .. } = notice {
                        self.note_hand_over(server, to);
                    }
                    self.trace.say(|| format!("s{}  {notice}", server + 1));
                }
                NetOutput::Became(status) => {
                    if self.servers[server].misled && status.state == ServerState::Looking {
                        self.pause(server);
                    }
                    self.trace.say(|| format!("s{} is now {status:?}", server + 1));
                    self.checker.borrow_mut().on_became(self.now, server, &status, &self.disks);
                    self.note_reign(&status);
                }
            }
        }
        self.compare();
        self.check_quorate(server);
        self.note_limits(server);
        self.kick(server);
        self.arm(server);
        self.pull_hooks();
    }

    /// Who leads, and whose process runs, has a quorum.
    fn check_quorate(&self, server: HostIx) {
        if !self.servers[server].paused {
            let issued = &self.disks[server].issued;
            let holds = |zxid| issued.find(zxid).is_some();
            self.checker.borrow_mut().check_quorate(self.now, server, holds);
        }
    }

    /// A server asks its oracle, which answers at once.
    fn answer_oracle(&mut self, server: HostIx) {
        let mut checker = self.checker.borrow_mut();
        let granted = checker.granted[server];
        checker.coverage.count(if granted { "oracle: granted" } else { "oracle: denied" });
        drop(checker);
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        if let Some(node) = &mut s.node {
            node.handle_input(now, Input::Oracle { granted });
        }
    }

    /// A leader ends, as the members have changed.
    fn note_hand_over(&self, server: HostIx, to: Option<Sid>) {
        let mut checker = self.checker.borrow_mut();
        checker.coverage.count(match to {
            Some(_) => "members: led by a designated server",
            None => "members: left to an election",
        });
        if let Some(leader) = to {
            checker.on_handed_over(server, leader);
        }
    }

    /// A server closes a connection.
    fn close(&mut self, server: HostIx, name: ConnId, conn: u32, side: Side) {
        self.judge_closing(server, name, conn);
        self.transmit(server, conn, side);
        self.unbind(server, name);
        self.net.close(self.now, conn, side, &mut self.queue);
        // Drivers tell of the ends of clients' connections, whoever wished them.
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        if let Some(node) = s.node.as_mut().filter(|_| name.is_client()) {
            node.handle_input(now, Input::Closed { conn: name });
        }
    }

    /// Lets a disk begin its next piece of work.
    pub(crate) fn kick(&mut self, server: HostIx) {
        let incarnation = self.servers[server].incarnation;
        let early = self.options.mutation == Some(Mutation::AckBeforeFsync);
        let through = self.disks[server].last_ticket;
        let work = self.disks[server].start();
        if let Some(latency) = work.batch {
            self.disks[server].busy_until = self.now + latency;
            self.queue.push(self.now + latency, Event::Durable { server, incarnation });
            if early {
                let s = &mut self.servers[server];
                let now = s.clock(self.now);
                if let Some(node) = &mut s.node {
                    node.handle_input(now, Input::Persisted { through });
                }
                self.settle(server);
            }
        }
        if let Some(latency) = work.log {
            self.queue.push(self.now + latency, Event::LogReady { server, incarnation });
        }
        if let Some(latency) = work.publish {
            self.queue.push(self.now + latency, Event::Published { server, incarnation });
        }
    }

    fn connect(&mut self, server: HostIx, name: ConnId, channel: Channel, addresses: &str) {
        let target = addresses.strip_prefix('s').and_then(|rest| {
            let sid: usize = rest.split(':').next()?.parse().ok()?;
            (1..=self.servers.len()).contains(&sid).then(|| sid - 1)
        });
        let Some(to) = target else {
            self.checker.borrow_mut().fail("address", format!("dials {addresses}"));
            return;
        };
        if self.nameless[to] {
            // The resolver has no answer, sooner or later.
            self.trace.say(|| format!("s{} cannot resolve s{}", server + 1, to + 1));
            let conn = self.net.unresolved(self.now, server, name, channel, &mut self.queue);
            self.bind(server, name, conn);
            return;
        }
        let conn = self.net.dial(self.now, server, Some(name), to, channel, &mut self.queue);
        self.bind(server, name, conn);
    }

    /// Moves a server's bytes to the network until one of them has had enough.
    pub(crate) fn transmit(&mut self, server: HostIx, conn: u32, side: Side) {
        let end = *self.net.conn(conn).end(side);
        if end.state != EndState::Open {
            return;
        }
        let name = end.name.expect("an open end has a name");
        let channel = self.net.conn(conn).channel;
        loop {
            let room = self.net.room(conn, side).min(self.scratch.len());
            let s = &mut self.servers[server];
            let now = s.clock(self.now);
            let Some(node) = &mut s.node else { return };
            if room == 0 {
                if let Some(tap) = self.taps.get_mut(conn as usize) {
                    tap.blocked(side);
                }
                return;
            }
            let probe = node.app_mut();
            let to = self.net.conn(conn).end(side.other()).host;
            if probe.opened > 0 && self.held.contains(&(server, to)) {
                return;
            }
            probe.raw = 0;
            probe.ended = false;
            let n = node.poll_transmit(now, name, &mut self.scratch[..room]);
            let (raw, ended) = (node.app().raw, node.app().ended);
            if n == 0 && !ended {
                return;
            }
            if channel == Channel::Client {
                self.judge_answer(server);
            }
            let out = self.read_along(conn, side, channel, n, (raw, ended));
            let bytes = out.as_deref().unwrap_or(&self.scratch[..n]);
            self.net.write(self.now, conn, side, bytes, &mut self.queue);
            if n == 0 {
                return;
            }
        }
    }

    fn read_along(
        &mut self,
        conn: u32,
        side: Side,
        channel: Channel,
        n: usize,
        (raw, ended): (usize, bool),
    ) -> Option<Vec<u8>> {
        let wire = matches!(
            self.options.mutation,
            Some(
                Mutation::SyncSkipsOne
                    | Mutation::AckOvertakesNewLeader
                    | Mutation::MasterInformsUncommitted
                    | Mutation::ActivatedOnProposal
                    | Mutation::SuccessorBehind
            )
        ) || self.has_packet_rules;
        if self.taps.len() <= conn as usize {
            self.taps.resize_with(conn as usize + 1, Tap::default);
        }
        let c = self.net.conn(conn);
        let mut checker = self.checker.borrow_mut();
        let mut flow = Flow {
            from: c.end(side).host,
            to: c.end(side.other()).host,
            side,
            disks: &self.disks,
            checker: &mut checker,
            trace: &mut self.trace,
            mutation: self.options.mutation,
            packet_rules: &mut self.packet_rules,
            now: self.now,
            out: (wire && channel == Channel::Quorum).then(Vec::new),
        };
        let tap = &mut self.taps[conn as usize];
        match channel {
            Channel::Quorum => tap.quorum(&self.scratch[..n], raw, ended, &mut flow),
            Channel::Election => {
                flow.checker.coverage.election_bytes += n as u64;
                tap.election(&self.scratch[..n], &mut flow);
            }
            Channel::Client => {}
        }
        flow.out
    }
}
