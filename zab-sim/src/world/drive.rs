//! What each event does: the loop every runtime is, over simulated sockets, disks and clocks.

use std::net::Ipv4Addr;

use zab_proto::{Channel, ConnId, Incoming, Input, Node, ServerState};

use crate::mutation::Mutation;
use crate::net::{EndState, Side};
use crate::plan::Death;
use crate::queue::{Event, HostIx, SECOND};
use crate::subject::{Client, Subject, Wish};
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
            Event::Unslow { server } => self.net.set_rest(self.now, server, 0, &mut self.queue),
            Event::Resolved { server } => self.nameless[server] = false,
            Event::LogReady { server, incarnation } => {
                if self.servers[server].incarnation == incarnation && self.is_up(server) {
                    self.disks[server].log_found();
                    self.settle(server);
                }
            }
            // All is mended, but for what an examination has cut since.
            Event::Cut { .. } | Event::Heal { .. } if self.healed => {}
            Event::Cut { from, to } => self.net.cut(from, to),
            Event::Heal { from, to } => self.net.mend(self.now, from, to, &mut self.queue),
            Event::Client { .. } if self.quiet => {}
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
            | Event::Published { server, .. }
            | Event::LogReady { server, .. } => server,
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
        let status = self.checker.borrow().server(server).status;
        !self.options.quorum_port_when_leading
            || self.net.conn(conn).channel != Channel::Quorum
            || status.is_some_and(|status| status.state == ServerState::Leading)
    }

    fn on_accept(&mut self, conn: u32) {
        if self.net.conn(conn).end(Side::Acceptor).state != EndState::Pending {
            // It was reset on its way. An end that opened nevertheless would never hear of it.
            return;
        }
        let server = self.net.conn(conn).end(Side::Acceptor).host;
        let channel = self.net.conn(conn).channel;
        let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1).into());
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        let name = s.node.as_mut().and_then(|node| node.accept(now, channel, &incoming));
        let Some(name) = name else {
            self.net.close(self.now, conn, Side::Acceptor, &mut self.queue);
            return;
        };
        self.bind(server, name, conn);
        let end = self.net.end_mut(conn, Side::Acceptor);
        end.name = Some(name);
        end.state = EndState::Open;
        self.note_learner(conn, Side::Acceptor, true);
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
            if self.clients[client].conn != Some(conn) {
                return;
            }
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
            self.listen(conn, at);
            if self.options.mutation == Some(Mutation::RemovedVotes) {
                self.lend_voice(conn, at);
            }
            let (bytes, ended) = self.net.readable(conn, at);
            let s = &mut self.servers[server];
            let now = s.clock(self.now);
            let Some(node) = &mut s.node else { return };
            let mut used = 0;
            if !bytes.is_empty() {
                used = node.handle_bytes(now, name, bytes, &mut self.disks[server]);
            }
            let left = bytes.len() - used;
            if used > 0 {
                self.note_learner(conn, at, false);
            }
            if let Some(tap) = self.taps.get_mut(conn as usize) {
                tap.consumed(at, used);
            }
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

    /// A learner's connection begins, or its leader takes something that came over it.
    fn note_learner(&self, conn: u32, at: Side, begins: bool) {
        let c = self.net.conn(conn);
        let (leader, learner) = (c.end(at).host, c.end(at.other()).host);
        let from_learner = c.channel == Channel::Quorum && at == Side::Acceptor;
        if from_learner && learner < self.servers.len() {
            self.checker.borrow_mut().on_learner(self.now, leader, learner, begins);
        }
    }

    /// Reads along what arrives on an election connection.
    fn listen(&mut self, conn: u32, at: Side) {
        let c = self.net.conn(conn);
        let (server, from) = (c.end(at).host, c.end(at.other()).host);
        if c.channel != Channel::Election || from >= self.servers.len() {
            return;
        }
        let (bytes, _) = self.net.readable(conn, at);
        if let Some(tap) = self.taps.get_mut(conn as usize) {
            tap.hear(at, bytes, (server, from, self.now), &mut self.checker.borrow_mut());
        }
    }

    fn offer_client(&mut self, conn: u32, at: Side, client: usize) {
        let (bytes, ended) = self.net.readable(conn, at);
        let bytes = bytes.to_vec();
        let mut used = bytes.len();
        if self.clients[client].conn == Some(conn) {
            self.with_client(client, |client, wish| used = client.received(&bytes, wish));
        }
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
        if self.options.mutation == Some(Mutation::AbsentPresent) {
            self.feign_answers(server);
        }
        if self.disarm(server) {
            let s = &self.servers[server];
            let now = s.clock(self.now);
            let is_due = |node: &Node<_>| {
                node.wants_turn() || node.poll_timeout().is_some_and(|at| at <= now)
            };
            if s.node.as_ref().is_some_and(is_due) {
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
                self.checker.borrow_mut().coverage.count("fault: disk failed");
                self.die(server, Death::Kill);
                let at = self.now + self.rng.range(SECOND / 10, SECOND);
                self.queue.push(at, Event::Start { server });
            }
        }
    }

    // Names of connections.

    fn hosts(&self, conn: u32) -> (HostIx, HostIx) {
        let c = self.net.conn(conn);
        (c.end(Side::Dialler).host, c.end(Side::Acceptor).host)
    }

    pub(crate) fn bind(&mut self, server: HostIx, name: ConnId, conn: u32) {
        self.servers[server].names.insert(name, conn);
    }

    pub(crate) fn unbind(&mut self, server: HostIx, name: ConnId) {
        self.servers[server].names.remove(&name);
    }

    pub(crate) fn lookup(&self, server: HostIx, name: ConnId) -> Option<(u32, Side)> {
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
}
