//! Servers in memory, with clients: no sockets, no disk, and time as the test says.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]

mod clients;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use zab_proto::wire::Parsed;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{
    Application, Channel, Config, ConnId, Incoming, Input, Instant, Limits, Member, Membership,
    MemoryStorage, NetOutput, Node, Phase, Recovered, ServerState, Sid, SnapshotDigest, Zxid,
};
use zk_service::{Service, ServiceOptions};

/// xid, zxid, error code and body of a reply.
pub(crate) fn reply(frame: &[u8]) -> (i32, i64, i32, &[u8]) {
    let (header, body) = zab_harness::client::reply(frame).expect("a whole one");
    (header.xid, header.zxid, header.code, body)
}

/// A disk that keeps nothing.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    storage: MemoryStorage,
    /// Writes do not become durable.
    pub(crate) stalled: bool,
}

/// A client's end of a connection.
#[derive(Debug, Default)]
struct Wire {
    /// Sent by the client, not consumed yet.
    to_server: Vec<u8>,
    /// Received and not looked at.
    from_server: VecDeque<u8>,
    ended: bool,
    /// The client does not read.
    deaf: bool,
}

/// A client's connection: to which server, and its name there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Client {
    pub(crate) server: usize,
    slot: u32,
    generation: u32,
}

impl Client {
    fn new(server: usize, conn: ConnId) -> Self {
        Self { server, slot: conn.slot(), generation: conn.generation() }
    }

    fn conn(self) -> ConnId {
        ConnId::client(self.slot, self.generation)
    }
}

/// One end of a stream between servers.
type End = (usize, ConnId);

/// What a server finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// The application's bytes of the snapshot.
    pub(crate) snapshot: Vec<u8>,
    pub(crate) zxid: Zxid,
    pub(crate) digest: Option<SnapshotDigest>,
    /// The log behind it.
    pub(crate) log: Vec<(Zxid, Vec<u8>)>,
}

/// Servers and their clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node<Service>>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) now: Instant,
    wires: BTreeMap<Client, Wire>,
    links: Vec<(End, End)>,
    /// What went over quorum connections: sender, receiver and bytes.
    pub(crate) sent: BTreeMap<(usize, usize), Vec<u8>>,
    quorum: Vec<End>,
    /// Bytes between servers that are not consumed yet.
    held: Vec<(End, Vec<u8>)>,
    /// Pairs of servers whose streams stand still.
    pub(crate) cut: Vec<(usize, usize)>,
    /// Servers whose processes are gone.
    dead: Vec<usize>,
    /// The wall clock, which goes with `now`.
    pub(crate) clock: Arc<AtomicI64>,
    /// Bytes of clients offered to a server at a time; 0: all there are.
    pub(crate) segment: usize,
    /// Turns that servers have asked for because work was left.
    pub(crate) turns: usize,
}

impl World {
    /// A standalone server, serving.
    pub(crate) fn standalone(options: ServiceOptions) -> Self {
        Self::with_window(options, Limits::default().window_len_max_bytes)
    }

    /// A standalone server with so much room for what is not durable yet.
    pub(crate) fn with_window(options: ServiceOptions, window_len_max_bytes: usize) -> Self {
        let mut config = Config::standalone(Sid(1));
        config.tick_time = options.tick_time;
        config.limits.window_len_max_bytes = window_len_max_bytes;
        let mut world = Self::empty();
        world.add(config, options, None);
        world.run();
        world
    }

    /// An ensemble, all members serving.
    pub(crate) fn ensemble(voters: i64, observers: i64, options: &ServiceOptions) -> Self {
        Self::start(voters, observers, options, &[], Limits::default())
    }

    /// The same with other limits in the core.
    pub(crate) fn limited(
        voters: i64,
        observers: i64,
        options: &ServiceOptions,
        limits: Limits,
    ) -> Self {
        Self::start(voters, observers, options, &[], limits)
    }

    /// An ensemble of voters, each of which finds something on its disk; all serving.
    pub(crate) fn recovered(images: &[Image], options: &ServiceOptions) -> Self {
        let voters = i64::try_from(images.len()).expect("few");
        Self::start(voters, 0, options, images, Limits::default())
    }

    fn start(
        voters: i64,
        observers: i64,
        options: &ServiceOptions,
        images: &[Image],
        limits: Limits,
    ) -> Self {
        let mut ensemble = Membership::default();
        for sid in 1..=voters + observers {
            let role = if sid > voters { ":observer" } else { "" };
            let line = format!("h:{}:{}{role}", 1000 + sid, 2000 + sid);
            ensemble.members.insert(Sid(sid), Member::parse(Sid(sid), &line).expect("good"));
        }
        Self::of(&ensemble, options, images, limits)
    }

    /// The members of a configuration, all serving. With `options.reconfig` it may change; the last two
    /// digits of all ports of a server are its number.
    pub(crate) fn of(
        ensemble: &Membership,
        options: &ServiceOptions,
        images: &[Image],
        limits: Limits,
    ) -> Self {
        let mut world = Self::empty();
        for sid in ensemble.members.keys().map(|sid| sid.0) {
            let mut config = Config::new(Sid(sid), ensemble.clone());
            config.tick_time = options.tick_time;
            config.init_limit = 10;
            config.sync_limit = 5;
            config.limits = limits;
            config.trust_empty = true;
            config.reconfig = options.reconfig;
            let image = usize::try_from(sid - 1).ok().and_then(|at| images.get(at));
            world.add(
                config,
                options.clone().with(|options| options.session_server_id = sid),
                image,
            );
        }
        world.run();
        world.wait_serving();
        world
    }

    /// Waits until all live servers serve.
    pub(crate) fn wait_serving(&mut self) {
        for _ in 0..600 {
            let serves = |at: usize| {
                self.dead.contains(&at) || self.nodes[at].peer().status().phase == Phase::Broadcast
            };
            if (0..self.nodes.len()).all(serves) {
                return;
            }
            self.pass(Duration::from_millis(10));
        }
        panic!("no service after six seconds");
    }

    /// A server that is not a member yet begins to follow the members of `ensemble`, which has a line for
    /// it.
    pub(crate) fn join(&mut self, ensemble: &Membership, options: &ServiceOptions) {
        let sid = i64::try_from(self.nodes.len() + 1).expect("few");
        let mut config = Config::new(Sid(sid), ensemble.clone());
        config.tick_time = options.tick_time;
        config.reconfig = true;
        config.trust_empty = true;
        self.add(config, options.clone().with(|options| options.session_server_id = sid), None);
        self.run();
        self.wait_serving();
    }

    fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            disks: Vec::new(),
            now: Instant::from_nanos(1_000_000_000),
            wires: BTreeMap::new(),
            links: Vec::new(),
            sent: BTreeMap::new(),
            quorum: Vec::new(),
            held: Vec::new(),
            cut: Vec::new(),
            dead: Vec::new(),
            clock: Arc::default(),
            segment: 0,
            turns: 0,
        }
    }

    fn add(&mut self, config: Config, options: ServiceOptions, image: Option<&Image>) {
        let mut service = Service::new(options);
        let mut recovered = Recovered::default();
        if let Some(Image { snapshot, zxid, digest, log }) = image {
            let progress = service.install(snapshot).expect("a snapshot");
            assert_eq!((progress.consumed, progress.done), (snapshot.len(), true));
            service.install_commit(*zxid, *digest);
            recovered.snapshot = Some(*zxid);
            recovered.snapshot_end = digest.map_or(*zxid, |digest| digest.zxid.max(*zxid));
            log.iter().for_each(|(zxid, txn)| recovered.push(*zxid, txn));
            recovered.current_epoch = Some(recovered.last().epoch());
            recovered.accepted_epoch = recovered.current_epoch;
        }
        let node = Node::new(self.now, config, recovered, service);
        self.nodes.push(node.expect("a good configuration"));
        self.disks.push(Disk::default());
    }

    pub(crate) fn service(&self, server: usize) -> &Service {
        self.nodes[server].app()
    }

    /// The server that leads.
    pub(crate) fn leader(&self) -> usize {
        (0..self.nodes.len()).find(|server| self.leads(*server)).expect("one leads")
    }

    pub(crate) fn leads(&self, server: usize) -> bool {
        self.nodes[server].peer().status().state == ServerState::Leading
    }

    /// Lets everything happen that can happen without time passing: servers that want another turn
    /// at once have it.
    pub(crate) fn run(&mut self) {
        while (0..self.nodes.len()).fold(false, |active, i| self.drain(i) | active)
            || (0..self.nodes.len()).fold(false, |active, i| self.turn(i) | active)
        {}
    }

    /// Ends a server's process: all hear of it at once.
    pub(crate) fn kill(&mut self, server: usize) {
        self.dead.push(server);
        self.held.retain(|(end, _)| end.0 != server);
        self.break_links(|a, b| a.0 == server || b.0 == server);
    }

    /// Closes the streams between two servers, on both sides.
    pub(crate) fn part(&mut self, one: usize, other: usize) {
        let ends = [one, other];
        self.break_links(|a, b| ends.contains(&a.0) && ends.contains(&b.0));
    }

    fn break_links(&mut self, broken: impl Fn(End, End) -> bool) {
        let links = std::mem::take(&mut self.links);
        let (gone, left): (Vec<_>, Vec<_>) = links.into_iter().partition(|(a, b)| broken(*a, *b));
        self.links = left;
        for (a, b) in gone {
            self.held.retain(|(end, _)| *end != a && *end != b);
            for (server, conn) in [a, b] {
                if !self.dead.contains(&server) {
                    self.nodes[server].handle_input(self.now, Input::Closed { conn });
                }
            }
        }
        self.run();
    }

    fn turn(&mut self, i: usize) -> bool {
        if self.dead.contains(&i) {
            return false;
        }
        let wanted = self.nodes[i].wants_turn();
        if wanted {
            self.turns += 1;
            self.nodes[i].handle_input(self.now, Input::Timeout);
        }
        wanted
    }

    fn drain(&mut self, i: usize) -> bool {
        if self.dead.contains(&i) {
            return false;
        }
        let mut active = false;
        while let Some(output) = self.nodes[i].poll_output(self.now, &mut self.disks[i].storage) {
            active = true;
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    self.dial((i, conn), channel, &addresses);
                }
                NetOutput::Transmit(conn) => self.transmit(i, conn),
                NetOutput::Resume(conn) if conn.is_client() => self.offer(Client::new(i, conn)),
                NetOutput::Resume(conn) => self.feed((i, conn), &[]),
                NetOutput::Close(conn, _) => {
                    self.transmit(i, conn);
                    self.close(i, conn);
                }
                NetOutput::Notice(..)
                | NetOutput::Became(_)
                | NetOutput::Reconfigured
                | NetOutput::AskOracle => {}
            }
        }
        if !self.disks[i].stalled
            && let Some(persisted) = self.disks[i].storage.persisted()
        {
            self.nodes[i].handle_input(self.now, persisted);
            active = true;
        }
        active
    }

    fn dial(&mut self, from: End, channel: Channel, addresses: &str) {
        let port: Option<usize> = addresses.rsplit(':').next().and_then(|port| port.parse().ok());
        let to = port.expect("as configured") % 100 - 1;
        let incoming = Incoming::new(([127, 0, 0, 1], 1).into());
        let conn = from.1;
        let reachable = to < self.nodes.len() && !self.is_cut(from.0, to);
        let input = match reachable.then(|| self.nodes[to].accept(self.now, channel, &incoming)) {
            Some(Some(accepted)) => {
                self.links.push((from, (to, accepted)));
                if channel == Channel::Quorum {
                    self.quorum.extend([from, (to, accepted)]);
                }
                Input::Opened { conn }
            }
            _ => Input::Closed { conn },
        };
        self.nodes[from.0].handle_input(self.now, input);
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.dead.contains(&a)
            || self.dead.contains(&b)
            || self.cut.iter().any(|pair| *pair == (a, b) || *pair == (b, a))
    }

    fn peer_of(&self, end: End) -> Option<End> {
        let (a, b) = self.links.iter().find(|(a, b)| *a == end || *b == end)?;
        Some(if *a == end { *b } else { *a })
    }

    fn close(&mut self, i: usize, conn: ConnId) {
        if conn.is_client() {
            if let Some(wire) = self.wires.get_mut(&Client::new(i, conn)) {
                wire.ended = true;
            }
            self.nodes[i].handle_input(self.now, Input::Closed { conn });
        } else if let Some(other) = self.peer_of((i, conn)) {
            self.links.retain(|(a, b)| *a != other && *b != other);
            self.nodes[other.0].handle_input(self.now, Input::Closed { conn: other.1 });
        }
    }

    fn transmit(&mut self, i: usize, conn: ConnId) {
        let client = Client::new(i, conn);
        let mut buf = [0; 4096];
        while !(conn.is_client() && self.wires.get(&client).is_none_or(|wire| wire.deaf)) {
            let n = self.nodes[i].poll_transmit(self.now, conn, &mut buf);
            if n == 0 {
                return;
            }
            if conn.is_client() {
                let wire = self.wires.get_mut(&client).expect("just seen");
                wire.from_server.extend(&buf[..n]);
            } else if let Some(other) = self.peer_of((i, conn)) {
                if self.quorum.contains(&other) {
                    self.sent.entry((i, other.0)).or_default().extend_from_slice(&buf[..n]);
                }
                self.feed(other, &buf[..n]);
            }
        }
    }

    /// Gives bytes to one end of a stream between servers, after what it has left before.
    fn feed(&mut self, end: End, bytes: &[u8]) {
        let at = self.held.iter().position(|(of, _)| *of == end);
        let mut held = at.map_or_else(Vec::new, |at| self.held.swap_remove(at).1);
        held.extend_from_slice(bytes);
        let stands = self.peer_of(end).is_none_or(|other| self.is_cut(end.0, other.0));
        if !stands {
            let disk = &mut self.disks[end.0].storage;
            let used = self.nodes[end.0].handle_bytes(self.now, end.1, &held, disk);
            held.drain(..used);
        }
        if !held.is_empty() {
            self.held.push((end, held));
        }
    }

    /// Joins what was cut.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        for (end, _) in self.held.clone() {
            self.feed(end, &[]);
        }
        self.run();
    }

    fn offer(&mut self, client: Client) {
        let Some(wire) = self.wires.get_mut(&client).filter(|wire| !wire.ended) else { return };
        let pending = std::mem::take(&mut wire.to_server);
        let (mut seen, mut used) = (0, 0);
        let disk = &mut self.disks[client.server].storage;
        while seen < pending.len() {
            let step = if self.segment == 0 { pending.len() } else { self.segment };
            seen = (seen + step).min(pending.len());
            let node = &mut self.nodes[client.server];
            used += node.handle_bytes(self.now, client.conn(), &pending[used..seen], disk);
        }
        if let Some(wire) = self.wires.get_mut(&client) {
            wire.to_server.splice(0..0, pending[used..].iter().copied());
        }
    }

    /// One turn of every server's loop. Whether one of them wants another at once.
    pub(crate) fn step(&mut self) -> bool {
        while (0..self.nodes.len()).fold(false, |active, i| self.drain(i) | active) {}
        (0..self.nodes.len()).fold(false, |active, i| self.turn(i) | active)
    }

    /// How many packets of a kind one server has sent another since `sent` was cleared last.
    pub(crate) fn packets(&self, from: usize, to: usize, kind: PacketType) -> usize {
        let mut bytes = self.sent.get(&(from, to)).map_or(&[][..], Vec::as_slice);
        let mut count = 0;
        while let Parsed::Complete { value, len } = Packet::parse(bytes, usize::MAX) {
            count += usize::from(value.kind == kind);
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty(), "whole packets");
        count
    }

    /// Time passes, in the steps that running servers make.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let live: Vec<usize> =
                (0..self.nodes.len()).filter(|i| !self.dead.contains(i)).collect();
            let next = live.iter().filter_map(|i| self.nodes[*i].poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.set_now(self.now.max(next));
            for i in live {
                self.nodes[i].handle_input(self.now, Input::Timeout);
            }
            self.run();
        }
        self.set_now(end);
    }

    /// Time passes of which nobody takes notice, as when the machine sleeps.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.set_now(self.now + time);
    }

    fn set_now(&mut self, now: Instant) {
        let ms = now.saturating_since(self.now).as_millis();
        self.clock.fetch_add(i64::try_from(ms).expect("not for ages"), Ordering::Relaxed);
        self.now = now;
    }
}
