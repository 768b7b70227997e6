//! The world: servers, clients, network, disks and time, moved by one event after the other.

mod carry;
pub(crate) mod disk;
mod drive;
pub(crate) mod image;
pub(crate) mod net;
pub(crate) mod probe;
pub mod queue;
pub mod replica;
pub mod rng;
pub mod subject;
pub mod trace;

use std::cell::RefCell;
use std::rc::Rc;

use zab_proto::{
    Application, Config, ConnId, EnsembleId, Epoch, Instant, Node, Role, ServerState, Zxid,
};

use crate::check::{Checker, Failure};
use crate::disk::Disk;
use crate::limits;
use crate::members;
use crate::net::Net;
use crate::options::Options;
use crate::plan::{Death, Planned, When, draw};
use crate::probe::Probe;
use crate::queue::{Event, HostIx, MILLI, Queue, SECOND};
use crate::rng::{Map, Rng, mix};
use crate::subject::{Client, Subject};
use crate::tamper::PacketRule;
use crate::tap::Tap;
use crate::trace::Trace;

/// A server's process and clock.
#[derive(Debug)]
pub(crate) struct Server<A> {
    pub(crate) node: Option<Node<Probe<A>>>,
    pub(crate) incarnation: u32,
    /// Whether the host answers: a dead process on a live host refuses connections.
    pub(crate) host_up: bool,
    pub(crate) paused: bool,
    /// Events that wait for the end of the pause.
    pub(crate) deferred: Vec<Event>,
    /// When the present pause began, and how long the clock has stood still (a mutation).
    pub(crate) paused_at: u64,
    pub(crate) stood_still: u64,
    /// The last pause that has ended.
    pub(crate) pause: (u64, u64),
    drift_ppm: i64,
    /// The earliest timer event that is queued.
    armed: Option<u64>,
    /// Its names of connections.
    pub(crate) names: Map<ConnId, u32>,
    /// A mutation: the tail of its log fills its window, so that it can join nobody.
    pub(crate) swamped: bool,
    /// A mutation: it has believed a configuration in a vote, and ends at its next election.
    pub(crate) misled: bool,
}

impl<A> Server<A> {
    /// The server's clock at virtual time `now`.
    pub(crate) fn clock(&self, now: u64) -> Instant {
        let ran = now - self.stood_still;
        let drift = i128::from(ran) * i128::from(self.drift_ppm) / 1_000_000;
        let local = i128::from(ran) + drift;
        Instant::from_nanos(u64::try_from(local).unwrap_or(0))
    }

    /// The virtual time at which the server's clock shows `at`.
    fn when(&self, at: Instant) -> u64 {
        let local = u128::from(at.as_nanos());
        let rate = u128::try_from(1_000_000 + self.drift_ppm).expect("clocks go forward");
        let ran = u64::try_from((local * 1_000_000).div_ceil(rate)).unwrap_or(u64::MAX);
        ran.saturating_add(self.stood_still)
    }
}

/// A client and its connection.
#[derive(Debug)]
pub(crate) struct Seat<C> {
    pub(crate) client: C,
    pub(crate) conn: Option<u32>,
    pub(crate) rng: Rng,
}

/// Everything.
#[derive(Debug)]
pub struct World<A: Subject> {
    /// What the run is like.
    pub options: Options,
    /// Virtual time in ns.
    pub now: u64,
    /// Events so far.
    pub events: u64,
    /// A running hash of all events and of every byte that went over the network.
    pub fingerprint: u64,
    pub(crate) queue: Queue,
    pub(crate) net: Net,
    pub(crate) servers: Vec<Server<A>>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) clients: Vec<Seat<A::Client>>,
    pub(crate) checker: Rc<RefCell<Checker>>,
    pub(crate) taps: Vec<Tap>,
    /// The log for humans.
    pub trace: Trace,
    pub(crate) plan: Vec<Planned>,
    /// Hooked faults that are still to come.
    pub(crate) hooked: Vec<(usize, u32)>,
    pub(crate) rng: Rng,
    pub(crate) scratch: Vec<u8>,
    /// Steps of the protocol since a script last cleared them.
    pub(crate) steps: Vec<(HostIx, &'static str)>,
    /// Faults no longer happen.
    pub(crate) healed: bool,
    /// When the last of what the chaos had delayed, on its way or on a disk, will be over.
    pub(crate) aftermath: u64,
    /// Clients do nothing any more.
    pub(crate) quiet: bool,
    /// What a script has put between servers, and whether it is going to.
    pub(crate) packet_rules: Vec<PacketRule>,
    pub(crate) has_packet_rules: bool,
    /// How long a script waits for something, in ns.
    pub(crate) patience: u64,
    /// Links on which a script holds back what is sent while the sender has a snapshot open.
    pub(crate) held: Vec<(HostIx, HostIx)>,
    /// Servers whose name is not resolved: nobody can dial them.
    pub(crate) nameless: Vec<bool>,
    /// When each epoch was established.
    pub(crate) established_at: Vec<(Epoch, u64)>,
}

impl<A: Subject> World<A> {
    /// A world at its beginning: all servers about to start.
    #[must_use]
    pub fn new(options: Options, trace: Trace) -> Self {
        let mut world = Self::asleep(options, trace);
        for server in 0..world.options.servers() {
            let at = world.rng.below(50_000_000);
            world.queue.push(at, Event::Start { server });
        }
        for client in 0..world.clients.len() {
            world.queue.push(1000, Event::Client { client });
        }
        world
    }

    /// A world in which nothing happens unasked.
    #[must_use]
    pub fn asleep(options: Options, trace: Trace) -> Self {
        let n = options.servers();
        let mut rng = Rng::new(options.seed, 1);
        let checker = Rc::new(RefCell::new(Checker::new(&options)));
        let initialize = rng.chance(500);
        let disks = (0..n).map(|server| {
            let rng = Rng::new(options.seed, 1000 + server as u64);
            let disk = options.disk.clone();
            Disk::new(server, Rc::clone(&checker), disk, options.mutation, initialize, rng)
        });
        let disks = disks.collect();
        let servers = (0..n).map(|_| Server {
            node: None,
            incarnation: 0,
            host_up: true,
            paused: false,
            paused_at: 0,
            stood_still: 0,
            pause: (0, 0),
            deferred: Vec::new(),
            drift_ppm: i64::try_from(rng.below(2 * options.drift_ppm.unsigned_abs() + 1))
                .unwrap_or(0)
                - options.drift_ppm,
            armed: None,
            names: Map::default(),
            swamped: false,
            misled: false,
        });
        let servers = servers.collect();
        let clients = (0..options.clients).map(|index| Seat {
            client: A::Client::new(index, &options),
            conn: None,
            rng: Rng::new(options.seed, 2000 + index as u64),
        });
        let clients = clients.collect();
        let hosts = n + options.clients;
        let net = Net::new(options.net.clone(), hosts, Rng::new(options.seed, 3));
        let mut world = Self {
            now: 0,
            events: 0,
            fingerprint: options.seed,
            queue: Queue::default(),
            net,
            servers,
            disks,
            clients,
            checker,
            taps: Vec::new(),
            trace,
            plan: draw(&options),
            hooked: Vec::new(),
            rng,
            scratch: vec![0; 64 * 1024],
            steps: Vec::new(),
            healed: false,
            aftermath: 0,
            quiet: false,
            packet_rules: Vec::new(),
            has_packet_rules: false,
            patience: 60 * SECOND,
            held: Vec::new(),
            nameless: vec![false; n],
            established_at: Vec::new(),
            options,
        };
        world.schedule_plan();
        world
    }

    fn schedule_plan(&mut self) {
        for (index, planned) in self.plan.iter().enumerate() {
            if self.options.without.contains(&index) {
                continue;
            }
            match planned.when {
                When::At(at) => self.queue.push(at, Event::Fault { index }),
                When::After { nth, .. } => self.hooked.push((index, nth)),
            }
        }
    }

    /// The emptiness of all disks is to be trusted.
    pub(crate) fn initialize(&mut self) {
        for disk in &mut self.disks {
            disk.durable.initialize = true;
            disk.issued.initialize = true;
        }
    }

    /// The first broken invariant, if any.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.checker.borrow().failure().cloned()
    }

    /// The observer.
    #[must_use]
    pub fn checker(&self) -> std::cell::Ref<'_, Checker> {
        self.checker.borrow()
    }

    /// The server's application, if it runs.
    #[must_use]
    pub fn app(&self, server: HostIx) -> Option<&A> {
        self.servers[server].node.as_ref().map(|node| &node.app().app)
    }

    /// Whether the server's process runs.
    #[must_use]
    pub fn is_up(&self, server: HostIx) -> bool {
        self.servers[server].node.is_some()
    }

    /// The server that leads with an established epoch, by its last reported status.
    #[must_use]
    pub fn leader(&self) -> Option<HostIx> {
        let checker = self.checker.borrow();
        let leads = |server: &HostIx| {
            checker.server(*server).status.is_some_and(|status| {
                status.state == ServerState::Leading && status.phase == zab_proto::Phase::Broadcast
            })
        };
        let epoch = |server: &HostIx| checker.server(*server).status.map(|s| s.epoch);
        (0..self.servers.len()).filter(leads).max_by_key(epoch)
    }

    /// Does the next event, if it happens before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        let due = self.queue.next_at().is_some_and(|at| at <= until);
        let Some((at, event)) = due.then(|| self.queue.pop()).flatten() else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        self.events += 1;
        self.fingerprint = mix(self.fingerprint ^ at).wrapping_add(self.net.written);
        self.trace.at(self.now);
        self.handle(event);
        true
    }

    /// Does events until the time has come, the condition holds or an invariant is broken; whether
    /// the condition holds.
    pub fn run_until(&mut self, until: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if self.checker.borrow().failure().is_some() || !self.step(until) {
                return false;
            }
        }
    }

    /// A process starts.
    pub(crate) fn start(&mut self, server: HostIx) {
        if self.servers[server].node.is_some() {
            return;
        }
        let (mut recovered, snapshot, committed) = self.disks[server].recover();
        let s = &mut self.servers[server];
        s.incarnation += 1;
        if !std::mem::replace(&mut s.host_up, true) {
            // What was sent to the host while it was down is sent again, and it knows nothing of it.
            for (conn, side) in self.net.half_open(server) {
                let at = self.now + RETRANSMISSION;
                self.queue.push(at, Event::Reset { conn, at: side.other() });
            }
        }
        s.armed = None;
        let seed = self.options.seed ^ mix(u64::from(s.incarnation) << 16 | server as u64);
        let mut app = A::start(server, s.incarnation, seed, &self.options);
        let at = snapshot.as_ref().map_or(Zxid::ZERO, |s| s.zxid);
        if let Some(snapshot) = snapshot {
            let progress = app.install(&snapshot.bytes);
            if progress.is_ok_and(|p| p.done) {
                app.install_commit(snapshot.zxid, snapshot.digest);
            } else {
                self.checker
                    .borrow_mut()
                    .fail("B15", format!("s{}: snapshot unusable", server + 1));
            }
        }
        let last = self.disks[server].durable.last().0;
        self.trace.say(|| format!("s{} starts with a log up to {last}", server + 1));
        self.checker.borrow_mut().on_begun(server, &config(&self.options, server).ensemble);
        self.checker.borrow_mut().on_start(server, at, app.digest());
        self.checker.borrow_mut().servers[server].resumed_at = self.now;
        let checker = Rc::clone(&self.checker);
        let mut probe = Probe::new(app, server, checker, self.options.mutation);
        let now = s.clock(self.now);
        recovered.deliver(committed, |zxid, txn| Application::deliver(&mut probe, now, zxid, txn));
        let mut config = config(&self.options, server);
        let limits = &mut config.limits;
        limits.field_len_max_bytes = limits.field_len_max_bytes.max(A::LEN_MAX);
        let limits = *limits;
        config.seed = seed;
        let bits = u128::from(mix(seed)) << 64 | u128::from(seed);
        config.fresh_id = self.options.identities.then(|| EnsembleId::new(bits));
        let swamped = self.is_swamped(&recovered, &limits);
        let s = &mut self.servers[server];
        s.swamped = swamped;
        match Node::new(now, config, recovered, probe) {
            Ok(node) => s.node = Some(node),
            Err(error) => self.checker.borrow_mut().fail("config", error.to_string()),
        }
        self.disks[server].last_ticket = zab_proto::Ticket(0);
        self.settle(server);
    }

    /// A process dies.
    pub(crate) fn die(&mut self, server: HostIx, death: Death) {
        let Some(node) = self.servers[server].node.take() else { return };
        node.app().count_in_hand(true);
        let s = &mut self.servers[server];
        s.host_up = death == Death::Kill;
        s.paused = false;
        s.deferred.clear();
        s.names.clear();
        self.disks[server].die(death);
        let last = self.disks[server].durable.last().0;
        self.trace.say(|| format!("s{} dies ({death:?}), its disk holds {last}", server + 1));
        self.abandon(server, death);
        self.compare();
    }

    /// Compares the observer's history with the disks.
    pub(crate) fn compare(&mut self) {
        let disks = &self.disks;
        self.checker.borrow_mut().compare(|server| &disks[server].durable);
    }

    /// Queues a timer event for the server's next deadline, unless an earlier one is queued.
    pub(crate) fn arm(&mut self, server: HostIx) {
        let s = &mut self.servers[server];
        let Some(node) = &s.node else { return };
        let at = match node.poll_timeout() {
            // In half of the runs the turns of a long request take some time: else nothing could happen between
            // its pieces.
            _ if node.wants_turn() && node.app().is_at_work() => {
                self.now + turn_ns(self.options.seed)
            }
            _ if node.wants_turn() => self.now,
            Some(deadline) => s.when(deadline).max(self.now),
            None => return,
        };
        if s.armed.is_none_or(|armed| at < armed) {
            s.armed = Some(at);
            self.queue.push(at, Event::Timer { server });
        }
    }

    /// A timer event has come; whether it is the one that counts.
    pub(crate) fn disarm(&mut self, server: HostIx) -> bool {
        let s = &mut self.servers[server];
        if s.armed.is_some_and(|armed| armed <= self.now) {
            s.armed = None;
            return true;
        }
        false
    }
}

/// Every address of a server leads to it.
const MASTER_PORT: u16 = 2890;

/// When a host that is back is sent again what it has not acknowledged.
const RETRANSMISSION: u64 = 300 * MILLI;

/// The configuration of a server.
/// How long a turn of a server's loop takes.
fn turn_ns(seed: u64) -> u64 {
    [0, 0, 20_000, 200_000][(mix(seed) % 4) as usize]
}

fn config(options: &Options, server: HostIx) -> Config {
    let mut ensemble = members::first(options);
    // A joiner lists itself, with no vote, as its operator would.
    let observer = || members::member(server, Role::Observer);
    ensemble.members.entry(members::sid_of(server)).or_insert_with(observer);
    let mut config = Config::new(members::sid_of(server), ensemble);
    config.reconfig = options.reconfigures();
    config.oracle = options.oracle;
    config.observer_master_port = options.masters.then_some(MASTER_PORT);
    config.tick_time = options.tick_time;
    config.init_limit = options.init_limit;
    config.sync_limit = options.sync_limit;
    config.election = options.election;
    config.limits = options.limits;
    if options.limits_differ {
        config.limits = limits::draw(&mut Rng::new(options.seed, 4000 + server as u64));
        // What one sends, another has to be able to read.
        config.limits.field_len_max_bytes = options.limits.field_len_max_bytes;
        // What one has under way, its leader has to take to come to the acknowledgements behind.
        config.limits.requests_len_max_bytes = options.limits.requests_len_max_bytes;
    }
    config.detection.heartbeat = options.heartbeat_of(server);
    config.limits.retained_txns = options.retained_txns;
    config.limits.counter_max = options.counter_max;
    config.limits.links_max = 4 * options.servers() + 16;
    config.seed = 0;
    config
}
