//! A network of election ports: byte streams with delays, refused dials, crashes and silence.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;

use crate::election::algorithm::CastVote;
use crate::election::{ElectionOutput, ElectionPort};
use crate::quorums::Quorums;
use crate::{
    Config, ConnId, ElectionConfig, Epoch, Instant, Limits, Membership, ServerState, Sid, Vote,
    Zxid,
};

pub(super) const US: Duration = Duration::from_micros(1);
pub(super) const MS: Duration = Duration::from_millis(1);
/// How long it takes to give up on somebody who does not react.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A decision as the port reported it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) state: ServerState,
    pub(super) leader: Sid,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: ElectionPort,
    pub(super) outcome: Option<Outcome>,
    pub(super) zxid: i64,
    pub(super) epoch: i64,
    pub(super) trusted: bool,
    pub(super) running: bool,
    pub(super) deserted: usize,
    /// The reign it takes part in is established.
    pub(super) established: bool,
    /// Every vote it ever stood for, whichever process it was.
    cast: Vec<CastVote>,
    last: Option<CastVote>,
    process: usize,
    /// Unconsumed bytes.
    inbox: BTreeMap<ConnKey, Vec<u8>>,
}

/// Slot, generation, and which process of the server it belongs to.
type ConnKey = (u32, u32, usize);
type End = (Sid, ConnKey);

#[derive(Debug)]
enum Event {
    Dialled { from: End, to: Sid },
    Opened { at: End },
    Bytes { at: End, bytes: Vec<u8> },
    Closed { at: End },
}

/// The network and its servers.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) servers: BTreeMap<Sid, Server>,
    pub(super) ensemble: Membership,
    /// Bytes per read and write.
    pub(super) chunk: usize,
    /// Time from one server to another: this plus up to the same again.
    pub(super) delay: Duration,
    /// Pairs between which nothing gets through.
    pub(super) cut: BTreeSet<(Sid, Sid)>,
    pub(super) early: bool,
    peers: BTreeMap<End, End>,
    queue: BTreeMap<(Instant, u64), Event>,
    arrivals: BTreeMap<End, Instant>,
    count: u64,
    random: fastrand::Rng,
}

fn conn(key: ConnKey) -> ConnId {
    ConnId::core(key.0, key.1)
}

/// `server.1` to `server.n`, those in `observers` as observers, and `more` lines.
pub(super) fn ensemble(n: i64, observers: &[i64], more: &[(&str, &str)]) -> Membership {
    let mut ensemble = Membership::default();
    for sid in 1..=n {
        let role = if observers.contains(&sid) { "observer" } else { "participant" };
        let value = format!("h:{}:{}:{role}", 1000 + sid, 2000 + sid);
        ensemble.set(&format!("server.{sid}"), &value).unwrap();
    }
    for (key, value) in more {
        ensemble.set(key, value).unwrap();
    }
    ensemble.complete().unwrap();
    ensemble
}

pub(super) fn config(sid: Sid, ensemble: &Membership) -> Config {
    Config {
        fresh_id: None,
        reconfig: false,
        oracle: false,
        observer_master_port: None,
        allow_unlisted: true,
        check_addresses: true,
        sid,
        ensemble: ensemble.clone(),
        standalone: false,
        tick_time: 2000 * MS,
        init_limit: 10,
        sync_limit: 5,
        connect_to_learner_master_limit: 0,
        multi_address: false,
        trust_empty: true,
        election: ElectionConfig::default(),
        detection: crate::DetectionConfig::default(),
        limits: Limits::default(),
        seed: 1,
    }
}

impl Net {
    pub(super) fn new(ensemble: Membership, seed: u64) -> Self {
        Self {
            now: Instant::from_nanos(1_000_000_000),
            servers: BTreeMap::new(),
            ensemble,
            chunk: 4096,
            delay: 50 * US,
            cut: BTreeSet::new(),
            early: true,
            peers: BTreeMap::new(),
            queue: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            count: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random.u64(..below.max(1))
    }

    /// Starts the process of a server with this history.
    pub(super) fn boot(&mut self, sid: i64, epoch: i64, zxid: i64, trusted: bool) {
        let sid = Sid(sid);
        let mut config = config(sid, &self.ensemble);
        config.election.early_finalize = self.early;
        let old = self.servers.remove(&sid);
        assert!(old.as_ref().is_none_or(|old| !old.running));
        let server = Server {
            port: ElectionPort::new(&config, Arc::new(Quorums::new(config.ensemble.clone(), None))),
            outcome: None,
            zxid,
            epoch,
            trusted,
            running: true,
            deserted: 0,
            established: false,
            process: old.as_ref().map_or(0, |old| old.process + 1),
            cast: old.map(|old| old.cast).unwrap_or_default(),
            last: None,
            inbox: BTreeMap::new(),
        };
        self.servers.insert(sid, server);
        self.look(sid, None);
    }

    /// A server begins an election.
    pub(super) fn look(&mut self, sid: Sid, lost: Option<Sid>) {
        let now = self.now;
        let server = self.server(sid);
        let own = Vote {
            leader: sid,
            zxid: Zxid::from_raw(server.zxid),
            peer_epoch: Epoch(server.epoch),
        };
        server.outcome = None;
        server.established = false;
        server.last = None;
        server.port.end();
        server.port.start(now, own, server.trusted, lost.map(|leader| (leader, false)));
        self.drain(sid);
    }

    /// A process is killed: its connections are closed by the kernel.
    pub(super) fn kill(&mut self, sid: i64) {
        let sid = Sid(sid);
        self.server(sid).running = false;
        let ends: Vec<End> = self.peers.keys().copied().filter(|end| end.0 == sid).collect();
        for end in ends {
            self.hang_up(end);
        }
    }

    /// The leader `sid` is killed and all who follow it notice, each after its own delay.
    pub(super) fn kill_leader(&mut self, sid: i64, notice: &[(i64, Duration)]) {
        self.kill(sid);
        let start = self.now;
        for (follower, after) in notice {
            self.run_until(start + *after);
            self.look(Sid(*follower), Some(Sid(sid)));
        }
    }

    pub(super) fn server(&mut self, sid: Sid) -> &mut Server {
        self.servers.get_mut(&sid).expect("a server of that id")
    }

    pub(super) fn outcome(&self, sid: i64) -> Option<(ServerState, i64)> {
        let outcome = self.servers[&Sid(sid)].outcome?;
        Some((outcome.state, outcome.leader.0))
    }

    pub(super) fn running(&self) -> Vec<Sid> {
        self.servers.iter().filter(|(_, server)| server.running).map(|(sid, _)| *sid).collect()
    }

    /// Whether all running servers have decided for the same leader.
    pub(super) fn agreed(&self) -> Option<i64> {
        let mut leaders = self.servers.values().filter(|server| server.running);
        let first = leaders.next()?.outcome?.leader;
        leaders.all(|server| server.outcome.is_some_and(|o| o.leader == first)).then_some(first.0)
    }

    /// Runs until all running servers agree, and returns on whom and how long it took.
    pub(super) fn elect(&mut self, within: Duration) -> (i64, Duration) {
        let start = self.now;
        while self.agreed().is_none() {
            assert!(self.now <= start + within, "no agreement: {:#?}", self.outcomes());
            self.step();
        }
        (self.agreed().expect("agreed"), self.now - start)
    }

    pub(super) fn outcomes(&self) -> Vec<(Sid, Option<Outcome>)> {
        self.servers.iter().map(|(sid, server)| (*sid, server.outcome)).collect()
    }

    /// Whether the leader on whom all agree says so itself.
    pub(super) fn is_stable(&self) -> bool {
        let leads = |leader: i64| self.outcome(leader) == Some((ServerState::Leading, leader));
        self.agreed().is_some_and(leads)
    }

    fn end(&self, sid: Sid, conn: ConnId) -> End {
        (sid, (conn.slot(), conn.generation(), self.servers[&sid].process))
    }

    /// Everybody reaches everybody again. Connections that carried nothing meanwhile are reset.
    pub(super) fn heal(&mut self) {
        let cut = core::mem::take(&mut self.cut);
        let broken: Vec<End> = self
            .peers
            .iter()
            .filter(|(a, b)| cut.contains(&(a.0.min(b.0), a.0.max(b.0))))
            .map(|(end, _)| *end)
            .collect();
        for end in broken {
            self.schedule(end, self.now, Event::Closed { at: end });
        }
    }

    /// All who have decided learn that the leader's epoch is established.
    pub(super) fn establish(&mut self, epoch: i64) {
        let decided: Vec<Sid> = self.servers.keys().copied().collect();
        for sid in decided {
            self.establish_on(sid, epoch);
        }
    }

    /// One server learns so, if it has decided.
    pub(super) fn establish_on(&mut self, sid: Sid, epoch: i64) {
        let now = self.now;
        let server = self.server(sid);
        if server.outcome.is_some() {
            server.port.established(now, Epoch(epoch));
            server.epoch = epoch;
            server.trusted = true;
            self.drain(sid);
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub(super) fn run_until(&mut self, end: Instant) {
        while self.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn next_at(&self) -> Option<Instant> {
        let running = self.servers.values().filter(|server| server.running);
        let timers = running.filter_map(|server| server.port.poll_timeout());
        let events = self.queue.keys().next().map(|(at, _)| *at);
        timers.chain(events).min()
    }

    /// The next event or timer.
    pub(super) fn step(&mut self) {
        let Some(at) = self.next_at() else { panic!("nothing will ever happen again") };
        assert!(at >= self.now, "time runs backwards");
        self.now = at;
        if let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= at
        {
            let event = entry.remove();
            return self.deliver(event);
        }
        for sid in self.running() {
            let server = self.server(sid);
            if server.port.poll_timeout().is_some_and(|due| due <= at) {
                server.port.handle_timeout(at);
                let next = server.port.poll_timeout();
                assert!(next.is_none_or(|next| next > at), "a deadline that stays put");
                self.drain(sid);
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Dialled { from, to } => self.dialled(from, to),
            Event::Opened { at } if self.peers.contains_key(&at) => {
                self.server(at.0).port.opened(now, conn(at.1));
                self.drain(at.0);
            }
            Event::Closed { at } => {
                self.peers.remove(&at);
                if self.server(at.0).running && self.server(at.0).process == at.1.2 {
                    self.server(at.0).inbox.remove(&at.1);
                    self.server(at.0).port.closed(now, conn(at.1));
                    self.drain(at.0);
                }
            }
            Event::Bytes { at, bytes } if self.peers.contains_key(&at) => {
                for piece in bytes.chunks(self.chunk) {
                    let server = self.server(at.0);
                    let inbox = server.inbox.entry(at.1).or_default();
                    inbox.extend_from_slice(piece);
                    let used = server.port.handle_bytes(now, conn(at.1), inbox);
                    inbox.drain(..used);
                    self.drain(at.0);
                }
            }
            Event::Opened { .. } | Event::Bytes { .. } => {}
        }
    }

    fn dialled(&mut self, from: End, to: Sid) {
        let now = self.now;
        if self.is_cut(from.0, to) {
            return self.schedule(from, now + TIMEOUT, Event::Closed { at: from });
        }
        let accepted = match self.servers.get_mut(&to) {
            Some(server) if server.running => server.port.accept(now, None),
            _ => None,
        };
        let Some(accepted) = accepted else {
            return self.post(to, from, Event::Closed { at: from });
        };
        let end = self.end(to, accepted);
        self.peers.insert(from, end);
        self.peers.insert(end, from);
        self.post(to, from, Event::Opened { at: from });
        self.drain(to);
    }

    /// Does what a server's port asks for.
    pub(super) fn drain(&mut self, sid: Sid) {
        loop {
            self.note(sid);
            let Some(output) = self.server(sid).port.poll_output() else { return };
            match output {
                ElectionOutput::Connect { conn, addresses } => self.dial(sid, conn, &addresses),
                ElectionOutput::Transmit { conn } => self.transmit(sid, conn),
                ElectionOutput::Close { conn, .. } => {
                    let end = self.end(sid, conn);
                    self.server(sid).inbox.remove(&end.1);
                    self.hang_up(end);
                }
                ElectionOutput::Decided { state, vote } => {
                    let leader = vote.leader;
                    self.check_decision(sid, leader);
                    let at = self.now;
                    self.server(sid).outcome = Some(Outcome { state, leader, at });
                }
                ElectionOutput::Notice(_)
                | ElectionOutput::NewerConfig(_)
                | ElectionOutput::Newcomer(..) => {}
                ElectionOutput::Overtaken => {
                    self.server(sid).deserted += 1;
                    self.look(sid, None);
                }
            }
        }
    }

    fn dial(&mut self, sid: Sid, conn: ConnId, addresses: &str) {
        let port: i64 = addresses.strip_prefix("h:").expect("a host").parse().expect("a port");
        let from = self.end(sid, conn);
        let to = Sid(port - 2000);
        self.schedule(from, self.now + self.delay, Event::Dialled { from, to });
    }

    fn transmit(&mut self, sid: Sid, conn: ConnId) {
        let mut all = Vec::new();
        let mut buf = vec![0; self.chunk];
        loop {
            let n = self.server(sid).port.poll_transmit(conn, &mut buf);
            if n == 0 {
                break;
            }
            all.extend_from_slice(&buf[..n]);
        }
        if let Some(peer) = self.peers.get(&self.end(sid, conn)).copied() {
            self.post(sid, peer, Event::Bytes { at: peer, bytes: all });
        }
    }

    fn hang_up(&mut self, end: End) {
        let Some(peer) = self.peers.remove(&end) else { return };
        self.post(end.0, peer, Event::Closed { at: peer });
    }

    /// Delivers an event to one end of a connection, in the order of the stream.
    fn post(&mut self, from: Sid, at: End, event: Event) {
        if self.is_cut(from, at.0) {
            // An end is noticed sooner or later, bytes are lost with their connection.
            if matches!(event, Event::Closed { .. }) {
                self.schedule(at, self.now + TIMEOUT, event);
            }
            return;
        }
        let delay = u64::try_from(self.delay.as_nanos()).unwrap();
        let jitter = Duration::from_nanos(self.random(delay));
        let mut due = self.now + self.delay + jitter;
        if let Some(last) = self.arrivals.get(&at) {
            due = due.max(*last);
        }
        self.schedule(at, due, event);
    }

    fn schedule(&mut self, at: End, due: Instant, event: Event) {
        self.arrivals.insert(at, due);
        self.count += 1;
        self.queue.insert((due, self.count), event);
    }

    fn is_cut(&self, a: Sid, b: Sid) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Notes what a server stands for, and checks that within an election and a round it only
    /// rises (E2).
    fn note(&mut self, sid: Sid) {
        let server = self.server(sid);
        let vote = server.port.algorithm.vote();
        if let Some(last) = &server.last
            && last.election_epoch == vote.election_epoch
            && last.state == ServerState::Looking
            && vote.state == ServerState::Looking
        {
            let rank = |cast: &CastVote| (cast.vote.peer_epoch, cast.vote.zxid, cast.vote.leader);
            assert!(rank(&vote) >= rank(last), "{sid} fell from {last:?} to {vote:?}");
        }
        if server.last != Some(vote) {
            server.last = Some(vote);
            server.cast.push(vote);
        }
    }

    /// A quorum stood for the elected vote in its round, or has the leader, and so does the
    /// leader itself (E1). Nobody without a weight or a vote is elected (E5).
    fn check_decision(&mut self, sid: Sid, leader: Sid) {
        let elected = self.server(sid).port.algorithm.vote();
        assert_ne!(elected.vote.zxid, Zxid::NONE, "{leader} has no history to be elected for");
        let stood = |sid: Sid| {
            self.servers.get(&sid).is_some_and(|server| {
                server.cast.iter().any(|cast| {
                    cast.vote.leader == leader
                        && (cast.state != ServerState::Looking
                            || (cast.vote == elected.vote
                                && cast.election_epoch == elected.election_epoch))
                })
            })
        };
        assert!(self.ensemble.is_quorum(stood), "{sid} elects {leader} alone");
        assert!(stood(leader), "{leader} did not stand for election");
        assert!(self.ensemble.is_voter(leader) && self.ensemble.weight(leader) > 0);
    }
}
