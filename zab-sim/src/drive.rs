//! What each event does: the loop every runtime is, over simulated sockets, disks and clocks.

use std::net::{Ipv4Addr, SocketAddr};

use zab_proto::{Channel, ConnId, Input, NetOutput, ServerState};

use crate::mutation::Mutation;
use crate::net::{EndState, Side};
use crate::plan::{Death, Fault, When};
use crate::queue::{Event, HostIx, MICRO, SECOND};
use crate::subject::{Client, Subject, Wish};
use crate::tap::{Flow, Tap};
use crate::world::World;

impl<A: Subject> World<A> {
    pub(crate) fn handle(&mut self, event: Event) {
        if let Some(server) = self.server_of(event)
            && self.servers[server].paused
        {
            self.servers[server].deferred.push(event);
            return;
        }
        match event {
            Event::Syn { conn } => self.on_syn(conn),
            Event::Accept { conn } => self.on_accept(conn),
            Event::SynAck { conn, opened } => self.on_syn_ack(conn, opened),
            Event::Arrive { conn, from, len } => {
                if self.net.arrive(conn, from, len) {
                    self.offer(conn, from.other());
                }
            }
            Event::Reset { conn, at } => self.on_reset(conn, at),
            Event::Writable { conn, from } => self.on_writable(conn, from),
            Event::Readable { conn, at } => {
                self.net.read_on(conn, at);
                self.offer(conn, at);
            }
            Event::Timer { server } => self.on_timer(server),
            Event::Durable { server, incarnation } => self.on_durable(server, incarnation),
            Event::Published { server, incarnation } => {
                if self.servers[server].incarnation == incarnation && self.is_up(server) {
                    self.disks[server].publish();
                    self.settle(server);
                }
            }
            Event::Start { server } => self.start(server),
            Event::Unpause { server } => self.unpause(server),
            Event::Unstall { server } => {
                self.disks[server].stall(false);
                self.kick(server);
            }
            Event::Fault { index } => self.fault(self.plan[index].what),
            Event::Triggered { index, server } => {
                self.fault(self.plan[index].what.aimed_at(server));
            }
            Event::Heal { from, to } => self.net.mend(self.now, from, to, &mut self.queue),
            Event::Client { client } => {
                self.with_client(client, |client, wish| client.wake(wish));
            }
        }
    }

    /// The server whose process must be awake for the event.
    fn server_of(&self, event: Event) -> Option<HostIx> {
        let host = match event {
            Event::Accept { conn } => self.net.conn(conn).end(Side::Acceptor).host,
            Event::SynAck { conn, .. } => self.net.conn(conn).end(Side::Dialler).host,
            Event::Arrive { conn, from, .. } => self.net.conn(conn).end(from.other()).host,
            Event::Reset { conn, at } | Event::Readable { conn, at } => {
                self.net.conn(conn).end(at).host
            }
            Event::Writable { conn, from } => self.net.conn(conn).end(from).host,
            Event::Timer { server }
            | Event::Durable { server, .. }
            | Event::Published { server, .. } => server,
            _ => return None,
        };
        (host < self.servers.len()).then_some(host)
    }

    fn on_syn(&mut self, conn: u32) {
        let (from, to) = self.hosts(conn);
        if self.net.is_cut(from, to) || self.net.is_cut(to, from) || !self.servers[to].host_up {
            self.net.dial_timeout(self.now, conn, &mut self.queue);
            return;
        }
        let opened = self.servers[to].node.is_some() && self.listens(to, conn);
        let at = self.now + self.net.delay(to, from);
        if opened {
            self.queue.push(self.now, Event::Accept { conn });
        }
        self.queue.push(at, Event::SynAck { conn, opened });
    }

    /// Whether the port that was dialled is open, in a process that runs.
    fn listens(&self, server: HostIx, conn: u32) -> bool {
        let status = self.ghost.borrow().server(server).status;
        !self.options.quorum_port_when_leading
            || self.net.conn(conn).channel != Channel::Quorum
            || status.is_some_and(|status| status.state == ServerState::Leading)
    }

    fn on_accept(&mut self, conn: u32) {
        let server = self.net.conn(conn).end(Side::Acceptor).host;
        let channel = self.net.conn(conn).channel;
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        let name = s.node.as_mut().and_then(|node| node.accept(now, channel, remote));
        let Some(name) = name else {
            self.net.close(self.now, conn, Side::Acceptor, &mut self.queue);
            return;
        };
        self.bind(server, name, conn);
        let end = self.net.end_mut(conn, Side::Acceptor);
        end.name = Some(name);
        end.state = EndState::Open;
        self.settle(server);
        self.offer(conn, Side::Acceptor);
    }

    fn on_syn_ack(&mut self, conn: u32, opened: bool) {
        let end = self.net.end_mut(conn, Side::Dialler);
        if end.state != EndState::Pending {
            return;
        }
        end.state = if opened { EndState::Open } else { EndState::Closed };
        let (host, name) = (end.host, end.name);
        if host >= self.servers.len() {
            let client = host - self.servers.len();
            if opened {
                self.with_client(client, |client, wish| client.opened(wish));
            } else {
                self.lose_client(conn, client);
            }
            return;
        }
        let name = name.expect("a server names its dials");
        let input =
            if opened { Input::Opened { conn: name } } else { Input::Closed { conn: name } };
        if !opened {
            self.unbind(host, name);
        }
        self.input(host, input);
        if opened {
            self.offer(conn, Side::Dialler);
        }
    }

    /// Offers what has arrived to whoever owns the end.
    fn offer(&mut self, conn: u32, at: Side) {
        let end = *self.net.conn(conn).end(at);
        match end.state {
            EndState::Open => {}
            EndState::Gone => {
                // The host is back, the process is not: the kernel answers with a reset.
                if self.servers.get(end.host).is_none_or(|s| s.host_up) {
                    let delay = self.net.delay(end.host, end.host);
                    self.queue.push(self.now + delay, Event::Reset { conn, at: at.other() });
                }
                return;
            }
            EndState::Pending | EndState::Closed => return,
        }
        if end.host >= self.servers.len() {
            self.offer_client(conn, at, end.host - self.servers.len());
            return;
        }
        let name = end.name.expect("an open end has a name");
        let server = end.host;
        loop {
            let (bytes, ended) = self.net.readable(conn, at);
            let s = &mut self.servers[server];
            let now = s.clock(self.now);
            let Some(node) = &mut s.node else { return };
            let mut used = 0;
            if !bytes.is_empty() {
                used = node.handle_bytes(now, name, bytes, &mut self.disks[server]);
            }
            let left = bytes.len() - used;
            self.net.consume(self.now, conn, at, used, &mut self.queue);
            self.settle(server);
            if self.net.conn(conn).end(at).state != EndState::Open {
                return;
            }
            if used > 0 && left > 0 {
                continue;
            }
            if ended && (left == 0 || used == 0) {
                self.end_of_stream(conn, at);
            }
            return;
        }
    }

    fn offer_client(&mut self, conn: u32, at: Side, client: usize) {
        let (bytes, ended) = self.net.readable(conn, at);
        let bytes = bytes.to_vec();
        let mut used = 0;
        self.with_client(client, |client, wish| used = client.received(&bytes, wish));
        if self.net.conn(conn).end(at).state != EndState::Open {
            return;
        }
        self.net.consume(self.now, conn, at, used, &mut self.queue);
        if ended {
            self.end_of_stream(conn, at);
        }
    }

    /// The other side has closed: this side does, too.
    fn end_of_stream(&mut self, conn: u32, at: Side) {
        self.on_reset(conn, at);
        self.net.forget(conn);
    }

    fn on_reset(&mut self, conn: u32, at: Side) {
        let end = self.net.end_mut(conn, at);
        if !matches!(end.state, EndState::Open | EndState::Pending) {
            return;
        }
        end.state = EndState::Closed;
        let (host, name) = (end.host, end.name);
        if host >= self.servers.len() {
            self.lose_client(conn, host - self.servers.len());
            return;
        }
        let Some(name) = name else { return };
        self.unbind(host, name);
        self.input(host, Input::Closed { conn: name });
    }

    fn on_writable(&mut self, conn: u32, from: Side) {
        let end = *self.net.conn(conn).end(from);
        if end.state == EndState::Open && end.host < self.servers.len() {
            self.transmit(end.host, conn, from);
            self.settle(end.host);
        }
    }

    fn on_timer(&mut self, server: HostIx) {
        if self.disarm(server) {
            let s = &self.servers[server];
            let due = s.node.as_ref().and_then(zab_proto::Node::poll_timeout);
            if due.is_some_and(|due| due <= s.clock(self.now)) {
                self.input(server, Input::Timeout);
            } else {
                self.arm(server);
            }
        }
    }

    fn on_durable(&mut self, server: HostIx, incarnation: u32) {
        if self.servers[server].incarnation != incarnation || !self.is_up(server) {
            return;
        }
        match self.disks[server].complete() {
            Some(through) => {
                self.compare();
                if self.options.mutation != Some(Mutation::AckBeforeFsync) {
                    self.input(server, Input::Persisted { through });
                } else {
                    self.settle(server);
                }
            }
            None => {
                self.ghost.borrow_mut().coverage.count("fault: disk failed");
                self.die(server, Death::Kill);
                let at = self.now + self.rng.range(SECOND / 10, SECOND);
                self.queue.push(at, Event::Start { server });
            }
        }
    }

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
                    self.connect(server, conn, channel, &addresses);
                }
                NetOutput::Transmit(name) => {
                    if let Some((conn, side)) = self.lookup(server, name) {
                        if self.options.lazy_transmit {
                            let at = self.now + self.rng.exponential(20 * MICRO);
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
                    if let Some((conn, side)) = self.lookup(server, name) {
                        self.trace.say(|| format!("s{} closes {name:?}: {reason}", server + 1));
                        self.transmit(server, conn, side);
                        self.unbind(server, name);
                        self.net.close(self.now, conn, side, &mut self.queue);
                    }
                }
                NetOutput::Became(status) => {
                    self.trace.say(|| format!("s{} is now {status:?}", server + 1));
                    self.ghost.borrow_mut().on_became(server, &status, &self.disks);
                }
            }
        }
        self.compare();
        self.kick(server);
        self.arm(server);
        self.pull_hooks();
    }

    /// Lets a disk begin its next piece of work.
    pub(crate) fn kick(&mut self, server: HostIx) {
        let incarnation = self.servers[server].incarnation;
        let early = self.options.mutation == Some(Mutation::AckBeforeFsync);
        let through = self.disks[server].last_ticket;
        let work = self.disks[server].start();
        if let Some(latency) = work.batch {
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
            self.ghost.borrow_mut().fail("address", format!("dials {addresses}"));
            return;
        };
        let conn = self.net.dial(self.now, server, Some(name), to, channel, &mut self.queue);
        self.bind(server, name, conn);
    }

    /// Moves a server's bytes to the network until one of them has had enough.
    fn transmit(&mut self, server: HostIx, conn: u32, side: Side) {
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
                return;
            }
            let probe = node.app_mut();
            probe.raw = 0;
            probe.ended = false;
            let n = node.poll_transmit(now, name, &mut self.scratch[..room]);
            let (raw, ended) = (node.app().raw, node.app().ended);
            if n == 0 && !ended {
                return;
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
            Some(Mutation::SyncSkipsOne | Mutation::AckOvertakesNewLeader)
        );
        if self.taps.len() <= conn as usize {
            self.taps.resize_with(conn as usize + 1, Tap::default);
        }
        let c = self.net.conn(conn);
        let mut ghost = self.ghost.borrow_mut();
        let mut flow = Flow {
            from: c.end(side).host,
            to: c.end(side.other()).host,
            side,
            disks: &self.disks,
            ghost: &mut ghost,
            trace: &mut self.trace,
            mutation: self.options.mutation,
            out: (wire && channel == Channel::Quorum).then(Vec::new),
        };
        let tap = &mut self.taps[conn as usize];
        match channel {
            Channel::Quorum => tap.quorum(&self.scratch[..n], raw, ended, &mut flow),
            Channel::Election => {
                flow.ghost.coverage.election_bytes += n as u64;
                tap.election(&self.scratch[..n], &mut flow);
            }
            Channel::Client => {}
        }
        flow.out
    }

    // Names of connections.

    fn hosts(&self, conn: u32) -> (HostIx, HostIx) {
        let c = self.net.conn(conn);
        (c.end(Side::Dialler).host, c.end(Side::Acceptor).host)
    }

    fn bind(&mut self, server: HostIx, name: ConnId, conn: u32) {
        self.servers[server].names.insert(name, conn);
    }

    fn unbind(&mut self, server: HostIx, name: ConnId) {
        self.servers[server].names.remove(&name);
    }

    fn lookup(&self, server: HostIx, name: ConnId) -> Option<(u32, Side)> {
        let conn = *self.servers[server].names.get(&name)?;
        let dialled = self.net.conn(conn).end(Side::Dialler).name == Some(name)
            && self.net.conn(conn).end(Side::Dialler).host == server;
        Some((conn, if dialled { Side::Dialler } else { Side::Acceptor }))
    }

    // Clients.

    fn lose_client(&mut self, conn: u32, client: usize) {
        if self.clients[client].conn == Some(conn) {
            self.clients[client].conn = None;
            self.with_client(client, |client, wish| client.closed(wish));
        }
    }

    pub(crate) fn with_client(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut A::Client, &mut Wish<'_>),
    ) {
        let seat = &mut self.clients[client];
        let mut wish = Wish {
            now: self.now,
            rng: &mut seat.rng,
            trace: &mut self.trace,
            servers: self.servers.len(),
            connect: None,
            disconnect: false,
            send: Vec::new(),
            wake_at: None,
        };
        act(&mut seat.client, &mut wish);
        let Wish { connect, disconnect, send, wake_at, .. } = wish;
        let host = self.servers.len() + client;
        if let Some(conn) = self.clients[client].conn
            && !send.is_empty()
        {
            self.net.write(self.now, conn, Side::Dialler, &send, &mut self.queue);
        }
        if (disconnect || connect.is_some())
            && let Some(conn) = self.clients[client].conn.take()
        {
            self.net.close(self.now, conn, Side::Dialler, &mut self.queue);
        }
        if let Some(to) = connect {
            let conn = self.net.dial(self.now, host, None, to, Channel::Client, &mut self.queue);
            self.clients[client].conn = Some(conn);
        }
        if let Some(at) = wake_at {
            self.queue.push(at.max(self.now + 1), Event::Client { client });
        }
    }

    // Faults.

    /// A dead process leaves its connections.
    pub(crate) fn abandon(&mut self, server: HostIx, death: Death) {
        for (conn, side) in self.net.of_host(server) {
            match death {
                Death::Kill => self.net.close(self.now, conn, side, &mut self.queue),
                Death::Power => self.net.end_mut(conn, side).state = EndState::Gone,
            }
        }
    }

    fn unpause(&mut self, server: HostIx) {
        self.servers[server].paused = false;
        for event in std::mem::take(&mut self.servers[server].deferred) {
            self.queue.push(self.now, event);
        }
    }

    /// Fires the faults that are tied to steps just seen.
    fn pull_hooks(&mut self) {
        let mut seen = std::mem::take(&mut self.ghost.borrow_mut().hooks);
        if !self.healed && !self.hooked.is_empty() {
            for (server, hook) in &seen {
                self.pull_hook(*server, hook);
            }
        }
        if self.plan.is_empty() {
            self.steps.extend_from_slice(&seen);
        }
        seen.clear();
        self.ghost.borrow_mut().hooks = seen;
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
        self.ghost.borrow_mut().coverage.count(fault.class());
        let now = self.now;
        match fault {
            Fault::Die { server, death, down } => {
                self.die(server, death);
                self.queue.push(now + down, Event::Start { server });
            }
            Fault::Pause { server, length } => {
                self.servers[server].paused = true;
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
            Fault::Wipe { server, down } => self.wipe(server, down),
        }
    }

    fn cut(&mut self, from: HostIx, to: HostIx, length: u64) {
        if from != to {
            self.net.cut(from, to);
            self.queue.push(self.now + length, Event::Heal { from, to });
        }
    }

    /// A disk is replaced, if every transaction is committed and on the disks of all others, so that
    /// nothing relies on what the replaced one has acknowledged.
    fn wipe(&mut self, server: HostIx, down: u64) {
        let spare = {
            let ghost = self.ghost.borrow();
            let last = ghost.last_committed();
            let chain = ghost.chain_at(last);
            let has = |other: HostIx| {
                let disk = &self.disks[other];
                disk.issued.last().0 == last && ghost.holds(&disk.durable, last, chain)
            };
            // Nor on an acknowledgement of the epoch that is still under way.
            let settled = self.disks[0].durable.current.is_some()
                && self.disks.iter().all(|d| d.durable.current == self.disks[0].durable.current);
            let led = self.leader().is_some();
            led && settled && (0..self.options.voters).all(has) && self.options.voters >= 3
        };
        if server < self.options.voters && !spare {
            return;
        }
        self.die(server, Death::Power);
        self.disks[server].wipe();
        self.compare();
        self.queue.push(self.now + down, Event::Start { server });
    }
}
