//! Whole servers in memory, linked with each other, and connections of anybody to any of their ports.
//!
//! Every call into a server is one turn of its loop or less: its processor time is checked against
//! what the documentation promises, and so is the number of links that a server keeps.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use cpu_time::ThreadTime;
use zab_proto::{
    Application, Channel, Config, ConnId, Membership, Incoming, Input, Instant, Limits,
    MemoryStorage, NetOutput, Node, Phase, Recovered, ServerState, Sid,
};
use zk_service::{Entropy, Service, ServiceOptions, WallClock};

/// One end of a stream between servers.
type End = (usize, ConnId);

/// Somebody's end of a connection to a server. A server's dial that nobody of the world answers
/// becomes one, too.
pub(crate) struct Stranger {
    pub(crate) server: usize,
    conn: ConnId,
    channel: Channel,
    /// Sent and not consumed.
    inbox: Vec<u8>,
    /// Does not read.
    deaf: bool,
    /// What it has read, if that is of interest.
    heard: Option<Vec<u8>>,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node<Service>>,
    disks: Vec<MemoryStorage>,
    pub(crate) now: Instant,
    clock: Arc<AtomicI64>,
    links: Vec<(End, End)>,
    held: HashMap<End, Vec<u8>>,
    /// A leader that nobody checks has committed what this server does not know: it has ended.
    pub(crate) ended: bool,
    /// By a name that the caller chooses.
    pub(crate) strangers: BTreeMap<u16, Stranger>,
}

/// Narrow bounds, so that a short input can reach them.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.field_len_max_bytes = 32 << 10;
    limits.window_len_max_bytes = 128 << 10;
    limits.retained_txns = 20;
    limits.retained_len_max_bytes = 32 << 10;
    limits.links_max = 6;
    limits.requests_len_max_bytes = 64 << 10;
    limits.snapshots_max = 2;
    limits
}

/// Names of the connections that servers have dialled: from here on.
pub(crate) const DIALLED: u16 = 0x30;
const DIALS_MAX: u16 = 16;

pub(crate) fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
options.tick_time = TICK;
options.jute_max_buffer = 16 << 10;
options.max_client_cnxns = 0;
options.extended_types = true;
options.four_letter_whitelist = vec!["*".into()];
options.out_len_soft_max_bytes = 32 << 10;
options.events_len_max_bytes = 64 << 10;
options.watches_len_max_bytes = 64 << 10;
options.ids_len_max_bytes = 8 << 10;
options.clients_len_max_bytes = 512 << 10;
options.reply_len_max_bytes = 64 << 10;
options.in_flight_max = 50;
})
}

const TICK: Duration = Duration::from_secs(2);

/// Processor time of one call. The documentation promises a few milliseconds for what clients ask in
/// a turn; assertions and a processor that others use as well cost a multiple.
const TURN_MAX: Duration = Duration::from_millis(250);

/// Calls until everything is at rest.
const CALLS_MAX: u32 = 200_000;

impl World {
    /// `servers` of three voters and an observer, which get a minute to find a leader if they are a
    /// quorum.
    pub(crate) fn new(servers: usize) -> Self {
        let text = "server.1=h:1001:2001\nserver.2=h:1002:2002\nserver.3=h:1003:2003\n\
                    server.4=h:1004:2004:observer\nversion=0";
        let ensemble = Membership::parse_text(text.as_bytes()).expect("four members");
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let mut world = Self {
            nodes: Vec::new(),
            disks: Vec::new(),
            now: Instant::from_nanos(1_000_000_000),
            clock,
            links: Vec::new(),
            held: HashMap::new(),
            ended: false,
            strangers: BTreeMap::new(),
        };
        for sid in (1..).take(servers) {
            let mut config = Config::new(Sid(sid), ensemble.clone());
            (config.tick_time, config.init_limit, config.sync_limit) = (TICK, 10, 5);
            (config.limits, config.trust_empty) = (limits(), true);
            let (clock, ids) = (Arc::clone(&world.clock), AtomicU64::new(0));
            let service = Service::new(options().with(|options| {
options.session_server_id = sid;
options.wall_clock = WallClock::new(move || clock.load(Ordering::Relaxed));
// The same for the same input; nobody here has to guess one.
options.entropy = Entropy::new(move || {
                    ids.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                });
}));
            let node = Node::new(world.now, config, Recovered::default(), service);
            world.nodes.push(node.expect("a good configuration"));
            world.disks.push(MemoryStorage::default());
        }
        world.settle();
        for _ in 0..600 {
            if servers == 1 || world.nodes.iter().all(serves) {
                return world;
            }
            world.pass(Duration::from_millis(100));
        }
        panic!("no service after a minute");
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node<Service>| {
            serves(node) && node.peer().status().state == ServerState::Leading
        };
        self.nodes.iter().position(leads)
    }

    /// A call into a server, measured.
    fn call<T>(
        &mut self,
        i: usize,
        call: impl FnOnce(&mut Node<Service>, &mut MemoryStorage, Instant) -> T,
    ) -> T {
        let began = ThreadTime::now();
        let value = call(&mut self.nodes[i], &mut self.disks[i], self.now);
        let took = began.elapsed();
        assert!(took < TURN_MAX, "one turn of server {} took {took:?}", i + 1);
        value
    }

    fn input(&mut self, i: usize, input: Input) {
        self.call(i, |node, _, now| node.handle_input(now, input));
    }

    /// Lets the servers have their way until all are at rest.
    pub(crate) fn settle(&mut self) {
        for _ in 0..CALLS_MAX {
            if self.ended {
                return;
            }
            let all = 0..self.nodes.len();
            let drained = all.clone().fold(false, |active, i| self.drain(i) | active);
            if !drained && !all.fold(false, |active, i| self.turn(i) | active) {
                self.count_links();
                return;
            }
        }
        panic!("the servers do not come to rest");
    }

    /// Time passes, in the steps that running servers make.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.nodes.iter().filter_map(Node::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= end && !self.ended) else { break };
            self.set_now(self.now.max(next));
            for i in 0..self.nodes.len() {
                self.input(i, Input::Timeout);
            }
            self.settle();
        }
        self.set_now(end);
    }

    fn set_now(&mut self, now: Instant) {
        let ms = now.saturating_since(self.now).as_millis();
        self.clock.fetch_add(i64::try_from(ms).expect("not for ages"), Ordering::Relaxed);
        self.now = now;
    }

    fn turn(&mut self, i: usize) -> bool {
        let wanted = self.nodes[i].wants_turn();
        if wanted {
            self.input(i, Input::Timeout);
        }
        wanted
    }

    fn drain(&mut self, i: usize) -> bool {
        let mut active = false;
        while let Some(output) = self.call(i, |node, disk, now| node.poll_output(now, disk)) {
            active = true;
            if let Some(reason) = self.nodes[i].app().failed() {
                assert_eq!(self.nodes.len(), 1, "a server among its like ends: {reason}");
                // Nothing leaves it any more.
                self.ended = true;
                return false;
            }
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    self.dial((i, conn), channel, &addresses);
                }
                NetOutput::Transmit(conn) => self.transmit((i, conn)),
                NetOutput::Resume(conn) => self.feed((i, conn), &[]),
                NetOutput::Close(conn, _) => {
                    self.transmit((i, conn));
                    self.close((i, conn));
                }
                // Both are texts for people; what they say has to be sayable.
                NetOutput::Notice(notice, _) => drop(notice.to_string()),
                NetOutput::Reconfigured | NetOutput::AskOracle => {}
                NetOutput::Became(_) => drop(self.nodes[i].peer().waits_for()),
            }
        }
        if let Some(persisted) = self.disks[i].persisted() {
            self.input(i, persisted);
            active = true;
        }
        active
    }

    fn dial(&mut self, from: End, channel: Channel, addresses: &str) {
        let conn = from.1;
        let port: usize = addresses.rsplit(':').next().map_or(0, |port| port.parse().unwrap_or(0));
        let to = (port % 1000).wrapping_sub(1);
        let remote = remote_of(from.0);
        let accepted = (to < self.nodes.len())
            .then(|| self.call(to, |node, _, now| node.accept(now, channel, &remote)))
            .flatten();
        let free = (DIALLED..DIALLED + DIALS_MAX).find(|name| !self.strangers.contains_key(name));
        let opened = match (accepted, free) {
            (Some(accepted), _) => {
                self.links.push((from, (to, accepted)));
                true
            }
            // Without a quorum of its own a server may be told anything by whoever answers.
            (None, Some(name)) if self.nodes.len() == 1 => {
                let (server, inbox) = (from.0, Vec::new());
                let stranger = Stranger { server, conn, channel, inbox, deaf: false, heard: None };
                self.strangers.insert(name, stranger);
                true
            }
            _ => false,
        };
        self.input(from.0, if opened { Input::Opened { conn } } else { Input::Closed { conn } });
    }

    fn other(&self, end: End) -> Option<End> {
        let (a, b) = self.links.iter().find(|(a, b)| *a == end || *b == end)?;
        Some(if *a == end { *b } else { *a })
    }

    fn name_of(&self, end: End) -> Option<u16> {
        let found = self.strangers.iter().find(|(_, one)| (one.server, one.conn) == end);
        found.map(|(name, _)| *name)
    }

    /// The server closes a connection.
    fn close(&mut self, end: End) {
        self.held.remove(&end);
        if let Some(other) = self.other(end) {
            self.links.retain(|(a, _)| *a != end && *a != other);
            self.held.remove(&other);
            self.input(other.0, Input::Closed { conn: other.1 });
        } else if let Some(name) = self.name_of(end) {
            let ended = self.strangers.remove(&name).expect("just found");
            if ended.channel == Channel::Client {
                self.input(end.0, Input::Closed { conn: end.1 });
            }
        }
    }

    fn transmit(&mut self, end: End) {
        let (name, other) = (self.name_of(end), self.other(end));
        if name.is_some_and(|name| self.strangers[&name].deaf) {
            return;
        }
        let mut buf = [0; 4096];
        loop {
            let n = self.call(end.0, |node, _, now| node.poll_transmit(now, end.1, &mut buf));
            if n == 0 {
                return;
            }
            if let Some(other) = other {
                self.feed(other, &buf[..n]);
            } else if let Some(heard) =
                name.and_then(|name| self.strangers.get_mut(&name)?.heard.as_mut())
            {
                heard.extend_from_slice(&buf[..n]);
            }
        }
    }

    /// Gives bytes to a server's end, after what it has left before.
    fn feed(&mut self, end: End, bytes: &[u8]) {
        let name = self.name_of(end);
        let mut held = match name {
            Some(name) => self.strangers.get_mut(&name).map(|one| std::mem::take(&mut one.inbox)),
            None => self.held.remove(&end),
        }
        .unwrap_or_default();
        held.extend_from_slice(bytes);
        if held.is_empty() || (name.is_none() && self.other(end).is_none()) {
            return;
        }
        let used = self.call(end.0, |node, disk, now| node.handle_bytes(now, end.1, &held, disk));
        held.drain(..used);
        match name {
            Some(name) => {
                self.strangers.get_mut(&name).expect("nobody has closed it").inbox = held;
            }
            None if !held.is_empty() => drop(self.held.insert(end, held)),
            None => {}
        }
    }

    /// Somebody connects. False: refused, or the name is in use.
    pub(crate) fn connect(&mut self, name: u16, server: usize, channel: Channel) -> bool {
        if self.strangers.contains_key(&name) {
            return false;
        }
        let remote = remote_of(3);
        let Some(conn) = self.call(server, |node, _, now| node.accept(now, channel, &remote))
        else {
            return false;
        };
        let (inbox, heard) = (Vec::new(), None);
        let stranger = Stranger { server, conn, channel, inbox, deaf: false, heard };
        self.strangers.insert(name, stranger);
        self.settle();
        true
    }

    /// It sends. What is more than a runtime's buffer holds unread stays with the sender.
    pub(crate) fn send(&mut self, name: u16, bytes: &[u8]) {
        let Some(stranger) = self.strangers.get(&name) else { return };
        let room = match stranger.channel {
            Channel::Client => options().jute_max_buffer + 4,
            Channel::Election | Channel::Quorum => 2 * limits().field_len_max_bytes + (64 << 10),
        };
        let end = (stranger.server, stranger.conn);
        if stranger.inbox.len() < room {
            self.feed(end, bytes);
        }
        self.settle();
    }

    /// It stops reading, or begins again.
    pub(crate) fn set_deaf(&mut self, name: u16, deaf: bool) {
        let Some(stranger) = self.strangers.get_mut(&name) else { return };
        stranger.deaf = deaf;
        let end = (stranger.server, stranger.conn);
        self.transmit(end);
        self.settle();
    }

    pub(crate) fn hang_up(&mut self, name: u16) {
        if let Some(Stranger { server, conn, .. }) = self.strangers.remove(&name) {
            self.input(server, Input::Closed { conn });
            self.settle();
        }
    }

    /// What it hears is kept from now on.
    pub(crate) fn listen(&mut self, name: u16) {
        if let Some(stranger) = self.strangers.get_mut(&name) {
            stranger.heard = Some(Vec::new());
        }
    }

    /// What it has heard since it was asked last.
    pub(crate) fn heard(&mut self, name: u16) -> Vec<u8> {
        let heard = self.strangers.get_mut(&name).and_then(|one| one.heard.as_mut());
        heard.map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn count(&self, server: usize, channel: Channel) -> usize {
        let of = |one: &&Stranger| one.server == server && one.channel == channel;
        self.strangers.values().filter(of).count()
    }

    fn count_links(&self) {
        for server in 0..self.nodes.len() {
            for channel in [Channel::Election, Channel::Quorum] {
                let open = self.count(server, channel);
                assert!(open <= limits().links_max, "{open} links of strangers on {channel:?}");
            }
        }
    }
}

fn serves(node: &Node<Service>) -> bool {
    node.peer().status().phase == Phase::Broadcast
}

/// Where a server, or somebody else, comes from.
fn remote_of(number: usize) -> Incoming {
    let last = u8::try_from(number + 1).expect("a few");
    Incoming::new(SocketAddr::from(([127, 0, 0, last], 40_000)))
}
