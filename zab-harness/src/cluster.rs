//! A cluster in memory: nodes, disks and byte streams on virtual time. For what needs a thousand
//! schedules there is the simulator; this is for telling one story per test.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use zab_proto::{
    Channel, CloseReason, Config, ConnId, Core, EnsembleId, Incoming, Input, Instant, Member,
    Membership, NetOutput, Node, Notice, Phase, ServerState, Sid,
};

use crate::{Journal, Memory};

/// One end of a stream: whose it is, and its name there.
type End = (usize, ConnId);

#[derive(Debug)]
pub struct Server {
    pub node: Option<Node<Journal>>,
    pub disk: Memory,
    /// Received and not consumed, by connection.
    inbox: BTreeMap<u64, (ConnId, Vec<u8>)>,
}

#[derive(Debug)]
pub struct Cluster {
    pub now: Instant,
    pub servers: Vec<Server>,
    /// Who dialled, who accepted.
    links: Vec<(End, End)>,
    /// The newest stream that each server has dialled on another's quorum port.
    follows: BTreeMap<(usize, usize), ConnId>,
    config: Config,
    /// Who is not given random bits for an id of the ensemble; `None`: nobody is.
    pub without_id: Option<Vec<usize>>,
    starts: u128,
    /// Pairs of servers that cannot reach each other.
    pub cut: Vec<(usize, usize)>,
    /// Longest read; 1 gives every byte on its own.
    pub read_max: usize,
    /// What a stream takes at a time; then it is full until the other side has read.
    pub send_max: usize,
    /// A server whose streams take nothing any more.
    pub deaf: Option<usize>,
    /// A server whose streams take so many bytes more, and then nothing until [`Cluster::take`].
    pub slow: Option<(usize, usize)>,
    /// Servers whose processes do not run: bytes wait for them, and their timers fire when they do again.
    pub frozen: Vec<usize>,
    /// Streams that lead from one server to another and swallow what is sent.
    pub swallows: Vec<(usize, usize)>,
    /// Streams that were full, and those that wait for a slow server.
    full: Vec<End>,
    parked: Vec<End>,
    /// Ends of streams that a frozen server has not heard of.
    ended: Vec<End>,
    pub closed: Vec<(usize, CloseReason)>,
    pub client_bytes: Vec<u8>,
    /// Bytes that each server has sent to others.
    pub sent: Vec<u64>,
    pub notices: Vec<(Instant, usize, Notice, u64)>,
    /// What the oracle of each server says; `None`: it does not answer.
    pub oracles: Vec<Option<bool>>,
    /// How often each was asked.
    pub asked: Vec<usize>,
}

fn key(conn: ConnId) -> u64 {
    u64::from(conn.slot()) << 33 | u64::from(conn.generation()) << 1 | u64::from(conn.is_client())
}

fn port(server: usize, channel: Channel) -> usize {
    match channel {
        Channel::Quorum => 1000 + server,
        _ => 2000 + server,
    }
}

impl Cluster {
    /// `voters` participants with the ids 1, 2, …, then `observers`.
    pub fn new(voters: usize, observers: usize) -> Self {
        let mut ensemble = Membership::default();
        for i in 0..voters + observers {
            let role = if i < voters { "participant" } else { "observer" };
            let (quorum, election) = (port(i, Channel::Quorum), port(i, Channel::Election));
            let member =
                Member::parse(Sid(i as i64 + 1), &format!("h{i}:{quorum}:{election}:{role}"));
            ensemble.members.insert(Sid(i as i64 + 1), member.expect("a good line"));
        }
        let mut config = Config::new(Sid(0), ensemble);
        config.trust_empty = true;
        let server = || Server { node: None, disk: Memory::default(), inbox: BTreeMap::new() };
        Self {
            now: Instant::ZERO,
            servers: (0..voters + observers).map(|_| server()).collect(),
            links: Vec::new(),
            follows: BTreeMap::new(),
            config,
            without_id: None,
            starts: 0,
            cut: Vec::new(),
            read_max: usize::MAX,
            send_max: usize::MAX,
            deaf: None,
            slow: None,
            frozen: Vec::new(),
            swallows: Vec::new(),
            full: Vec::new(),
            parked: Vec::new(),
            ended: Vec::new(),
            closed: Vec::new(),
            client_bytes: Vec::new(),
            sent: vec![0; voters + observers],
            notices: Vec::new(),
            oracles: vec![Some(false); voters + observers],
            asked: vec![0; voters + observers],
        }
    }

    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// A window of 2 KiB, half of which learners may hold. Who hears nothing does not leave by itself.
    pub fn narrow(self) -> Self {
        self.configure(|config| {
            config.detection.heartbeat = Duration::ZERO;
            config.limits.window_len_max_bytes = 2048;
            config.limits.retained_txns = 3;
            config.limits.retained_len_max_bytes = 1024;
            config.limits.field_len_max_bytes = 1024;
        })
    }

    pub fn start(&mut self, i: usize) {
        let mut config = self.config.clone();
        config.sid = Sid(i as i64 + 1);
        config.seed = i as u64 + 1;
        self.starts += 1;
        let gives = self.without_id.as_ref().is_some_and(|without| !without.contains(&i));
        config.fresh_id = gives.then(|| EnsembleId::new(self.starts));
        let mut journal = Journal::default();
        let recovered = self.servers[i].disk.recover(&mut journal);
        let node = Node::new(self.now, config, recovered, journal).expect("a good configuration");
        self.servers[i].node = Some(node);
    }

    pub fn start_all(&mut self) {
        for i in 0..self.servers.len() {
            self.start(i);
        }
    }

    /// The process dies; what was not flushed is lost, connections break.
    pub fn kill(&mut self, i: usize) {
        self.servers[i].node = None;
        self.servers[i].disk.lose_queue();
        self.servers[i].inbox.clear();
        let broken: Vec<_> = self.links.extract_if(.., |(a, b)| a.0 == i || b.0 == i).collect();
        for (a, b) in broken {
            self.input(if a.0 == i { b } else { a });
        }
    }

    /// The process stops to run.
    pub fn freeze(&mut self, i: usize) {
        self.frozen.push(i);
    }

    /// It goes on: it reads first what has come, as all runtimes do, and looks at the time then.
    pub fn thaw(&mut self, i: usize) {
        self.frozen.retain(|frozen| *frozen != i);
        for end in std::mem::take(&mut self.ended) {
            if end.0 == i {
                self.feed_one(end);
            }
            self.input(end);
        }
        self.settle();
    }

    fn input(&mut self, end: End) {
        if self.frozen.contains(&end.0) {
            self.ended.push(end);
            return;
        }
        let now = self.now;
        self.servers[end.0].inbox.remove(&key(end.1));
        if let Some(node) = &mut self.servers[end.0].node {
            node.handle_input(now, Input::Closed { conn: end.1 });
        }
    }

    /// Cuts a server off from all others.
    pub fn isolate(&mut self, i: usize) {
        for j in 0..self.servers.len() {
            self.cut.push((i, j));
        }
        let broken: Vec<_> = self.links.extract_if(.., |(a, b)| a.0 == i || b.0 == i).collect();
        for (a, b) in broken {
            self.input(a);
            self.input(b);
        }
    }

    fn is_cut(&self, i: usize, j: usize) -> bool {
        i != j && self.cut.iter().any(|pair| *pair == (i, j) || *pair == (j, i))
    }

    fn dial(&mut self, i: usize, conn: ConnId, channel: Channel, addresses: &str) {
        let target = (0..self.servers.len())
            .find(|j| {
                let master =
                    self.config.observer_master_port.filter(|_| channel == Channel::Quorum);
                addresses == format!("h{j}:{}", port(*j, channel))
                    || master.is_some_and(|port| addresses == format!("h{j}:{port}"))
            })
            .filter(|j| !self.is_cut(i, *j));
        let now = self.now;
        let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1).into());
        let accepted = target.and_then(|j| {
            let node = self.servers[j].node.as_mut()?;
            Some((j, node.accept(now, channel, &incoming)?))
        });
        let input = match accepted {
            Some(other) => {
                self.links.push(((i, conn), other));
                if channel == Channel::Quorum {
                    self.follows.insert((i, other.0), other.1);
                }
                Input::Opened { conn }
            }
            None => Input::Closed { conn },
        };
        self.servers[i].node.as_mut().expect("it has just dialled").handle_input(now, input);
    }

    /// Everything that can be done at the present instant. True if anything was.
    pub fn step(&mut self) -> bool {
        let full = std::mem::take(&mut self.full);
        let mut active = !full.is_empty();
        for (i, conn) in full {
            self.transmit(i, conn);
        }
        for i in (0..self.servers.len()).filter(|i| !self.frozen.contains(i)).collect::<Vec<_>>() {
            active |= self.drain(i);
            active |= self.feed(i);
        }
        active
    }

    /// Bytes that a server was offered and has not read.
    pub fn unread(&self, i: usize) -> usize {
        self.servers[i].inbox.values().map(|(_, bytes)| bytes.len()).sum()
    }

    /// A leader reads what its follower never said.
    pub fn forge(&mut self, follower: usize, leader: usize, bytes: &[u8]) {
        let conn = self.follows[&(follower, leader)];
        let inbox = &mut self.servers[leader].inbox;
        inbox.entry(key(conn)).or_insert((conn, Vec::new())).1.extend_from_slice(bytes);
        self.settle();
    }

    /// Lets the application of a server act.
    pub fn act(&mut self, i: usize, act: impl FnOnce(&mut Journal, &mut Core<'_>)) {
        let node = self.servers[i].node.as_mut().expect("a running server");
        node.with(self.now, act);
        self.settle();
    }

    /// A slow server takes so many bytes more.
    pub fn take(&mut self, n: usize) {
        if let Some((_, left)) = &mut self.slow {
            *left += n;
        }
        self.full.append(&mut self.parked);
        self.settle();
    }

    fn drain(&mut self, i: usize) -> bool {
        let now = self.now;
        let mut active = false;
        while let Server { node: Some(node), disk, .. } = &mut self.servers[i] {
            let Some(output) = node.poll_output(now, disk) else { break };
            active = true;
            match output {
                NetOutput::Connect { conn, channel, addresses } => {
                    self.dial(i, conn, channel, &addresses);
                }
                NetOutput::Transmit(conn) => self.transmit(i, conn),
                NetOutput::Close(conn, reason) => {
                    self.transmit(i, conn);
                    self.closed.push((i, reason));
                    self.hang_up((i, conn));
                }
                NetOutput::Notice(notice, more) => self.notices.push((self.now, i, notice, more)),
                NetOutput::AskOracle => {
                    self.asked[i] += 1;
                    if let Some(granted) = self.oracles[i] {
                        node.handle_input(now, Input::Oracle { granted });
                    }
                }
                NetOutput::Resume(_) | NetOutput::Became(_) | NetOutput::Reconfigured => {}
            }
        }
        if let Some(through) = self.servers[i].disk.flush()
            && let Some(node) = &mut self.servers[i].node
        {
            active = true;
            node.handle_input(now, Input::Persisted { through });
        }
        active
    }

    fn hang_up(&mut self, end: End) {
        if let Some(at) = self.links.iter().position(|(a, b)| *a == end || *b == end) {
            let (a, b) = self.links.swap_remove(at);
            self.servers[end.0].inbox.remove(&key(end.1));
            // What was sent before is still read.
            let other = if a == end { b } else { a };
            if !self.frozen.contains(&other.0) {
                self.feed_one(other);
            }
            self.input(other);
        }
    }

    fn transmit(&mut self, i: usize, conn: ConnId) {
        let mut buf = [0; 4096];
        let link = self.links.iter().find(|(a, b)| *a == (i, conn) || *b == (i, conn)).copied();
        if link.is_some_and(|(a, b)| Some(if a == (i, conn) { b.0 } else { a.0 }) == self.deaf) {
            return;
        }
        let mut room = if conn.is_client() { usize::MAX } else { self.send_max };
        let to = link.map(|(a, b)| if a == (i, conn) { b.0 } else { a.0 });
        loop {
            if let Some((slow, left)) = self.slow
                && to == Some(slow)
            {
                room = room.min(left);
                if left == 0 {
                    self.parked.push((i, conn));
                    return;
                }
            }
            let now = self.now;
            let Some(node) = &mut self.servers[i].node else { return };
            if room == 0 {
                self.full.push((i, conn));
                return;
            }
            let len = buf.len().min(room);
            let n = node.poll_transmit(now, conn, &mut buf[..len]);
            room -= n;
            if n == 0 {
                return;
            }
            if let Some((_, left)) = self.slow.as_mut().filter(|(slow, _)| to == Some(*slow)) {
                *left -= n;
            }
            if conn.is_client() {
                self.client_bytes.extend_from_slice(&buf[..n]);
            }
            if to.is_some() {
                self.sent[i] += n as u64;
            }
            if to.is_some_and(|to| self.swallows.contains(&(i, to))) {
                continue;
            }
            if let Some((a, b)) = link {
                let (j, other) = if a == (i, conn) { b } else { a };
                let inbox = &mut self.servers[j].inbox;
                let entry = inbox.entry(key(other)).or_insert((other, Vec::new()));
                entry.1.extend_from_slice(&buf[..n]);
            }
        }
    }

    fn feed(&mut self, i: usize) -> bool {
        let conns: Vec<ConnId> = self.servers[i].inbox.values().map(|(conn, _)| *conn).collect();
        let mut active = false;
        for conn in conns {
            active |= self.feed_one((i, conn));
        }
        active
    }

    /// Offers what has arrived, in reads of at most `read_max` bytes.
    fn feed_one(&mut self, (i, conn): End) -> bool {
        let Some((_, bytes)) = self.servers[i].inbox.remove(&key(conn)) else { return false };
        let server = &mut self.servers[i];
        let Some(node) = &mut server.node else { return false };
        let (mut used, mut offered) = (0, 0);
        while offered < bytes.len() {
            offered = offered.saturating_add(self.read_max).min(bytes.len());
            used += node.handle_bytes(self.now, conn, &bytes[used..offered], &mut server.disk);
        }
        if used < bytes.len() {
            server.inbox.insert(key(conn), (conn, bytes[used..].to_vec()));
        }
        used > 0
    }

    /// Runs until nothing is left to do at the present instant.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Lets `span` pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.settle();
            let awake = (0..self.servers.len()).filter(|i| !self.frozen.contains(i));
            let nodes = awake.filter_map(|i| self.servers[i].node.as_ref());
            let next = nodes.filter_map(Node::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for (i, server) in self.servers.iter_mut().enumerate() {
                if let Some(node) = &mut server.node
                    && !self.frozen.contains(&i)
                    && node.poll_timeout().is_some_and(|at| at <= self.now)
                {
                    node.handle_input(self.now, Input::Timeout);
                    let next = node.poll_timeout();
                    assert!(next.is_none_or(|at| at > self.now), "a deadline that stays put");
                }
            }
        }
        self.now = end;
        self.settle();
    }

    pub fn node(&self, i: usize) -> &Node<Journal> {
        self.servers[i].node.as_ref().expect("a running server")
    }

    /// The running server that leads and serves.
    pub fn leader(&self) -> Option<usize> {
        (0..self.servers.len()).find(|i| {
            self.servers[*i].node.as_ref().is_some_and(|node| {
                let status = node.peer().status();
                status.state == ServerState::Leading && status.phase == Phase::Broadcast
            })
        })
    }

    pub fn serving(&self, i: usize) -> bool {
        self.servers[i].node.as_ref().is_some_and(|n| n.peer().status().phase == Phase::Broadcast)
    }

    /// A client of server `i` sends lines.
    pub fn write(&mut self, i: usize, lines: &[&[u8]]) {
        self.send(i, lines);
        self.settle();
    }

    /// The same; they are not read yet.
    pub fn send(&mut self, i: usize, lines: &[&[u8]]) {
        let now = self.now;
        let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1).into());
        let node = self.servers[i].node.as_mut().expect("a running server");
        let conn = node.accept(now, Channel::Client, &incoming).expect("accepted");
        let frames: Vec<u8> = lines
            .iter()
            .flat_map(|line| [&[u8::try_from(line.len()).expect("short")], *line].concat())
            .collect();
        self.servers[i].inbox.insert(key(conn), (conn, frames));
    }

    pub fn lines(&self, i: usize) -> Vec<String> {
        let text = self.node(i).app().text();
        text.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}
