//! Three cores in one thread, joined by byte buffers and nothing else, on disks that are durable
//! at once: for measuring what the core itself costs.

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Channel, Config, ConnId, Input, Instant, Member, Membership, Output, Peer, Phase, Recovered,
    ServerState, Sid, Ticket, Zxid,
};

/// One end of a stream: which peer, and the name of the connection there.
type End = (usize, ConnId);

#[derive(Debug)]
pub struct Trio {
    peers: Vec<Peer>,
    links: Vec<(End, End)>,
    now: Instant,
    buf: Vec<u8>,
    /// Bytes that an end has not consumed yet.
    rest: Vec<(End, Vec<u8>)>,
    txn: Vec<u8>,
    pub leader: usize,
    pub delivered: [u64; 3],
}

impl Trio {
    /// Three peers of which one leads and all serve.
    pub fn new(payload_len: usize) -> Self {
        let mut ensemble = Membership::default();
        for sid in 1..=3 {
            let line = format!("h:{}:{}", 100 + sid, 200 + sid);
            ensemble.members.insert(Sid(sid), Member::parse(Sid(sid), &line).expect("good"));
        }
        let peer = |sid| {
            let mut config = Config::new(Sid(sid), ensemble.clone());
            config.trust_empty = true;
            config.seed = 1;
            Peer::new(Instant::ZERO, config, Recovered::default()).expect("a good configuration")
        };
        let mut trio = Self {
            peers: (1..=3).map(peer).collect(),
            links: Vec::new(),
            now: Instant::ZERO,
            buf: vec![0; 256 * 1024],
            rest: Vec::new(),
            txn: vec![0; TxnHeader::LEN.max(payload_len)],
            leader: 0,
            delivered: [0; 3],
        };
        while !trio.peers.iter().all(|peer| peer.status().phase == Phase::Broadcast) {
            while trio.step() {}
            let next = trio.peers.iter().filter_map(Peer::poll_timeout).min();
            trio.now = trio.now.max(next.expect("somebody waits"));
            for i in 0..3 {
                trio.peers[i].handle_input(trio.now, Input::Timeout);
            }
        }
        let leads = |peer: &Peer| peer.status().state == ServerState::Leading;
        trio.leader = trio.peers.iter().position(leads).expect("one leads");
        while trio.step() {}
        trio
    }

    /// Proposes one transaction on the leader.
    pub fn propose(&mut self) {
        let leader = &mut self.peers[self.leader];
        let zxid: Zxid = leader.next_zxid().expect("it leads");
        self.txn[12..20].copy_from_slice(&zxid.raw().to_be_bytes());
        leader.propose(self.now, &self.txn).expect("there is room");
    }

    /// Lets everything happen that can happen now.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let mut active = false;
        for i in 0..3 {
            active |= self.drain(i);
        }
        active
    }

    fn drain(&mut self, i: usize) -> bool {
        let mut active = false;
        let mut through = None;
        while let Some(output) = self.peers[i].poll_output() {
            active = true;
            match output {
                Output::SetEpoch { ticket, .. }
                | Output::SetIdentity { ticket, .. }
                | Output::SetConfigurations { ticket, .. }
                | Output::Append { ticket, .. }
                | Output::Truncate { ticket, .. }
                | Output::Install { ticket, .. } => through = Some::<Ticket>(ticket),
                Output::Deliver { .. } => self.delivered[i] += 1,
                Output::Connect { conn, channel, addresses } => {
                    let base = if channel == Channel::Quorum { 101 } else { 201 };
                    let port: usize = addresses[2..].parse().expect("as configured");
                    self.dial((i, conn), channel, port - base);
                }
                Output::Transmit { conn } => self.transmit((i, conn)),
                Output::Close { conn, .. } => self.close((i, conn)),
                Output::Resume { conn } => self.feed((i, conn), 0),
                Output::DiscardStage
                | Output::Stage { .. }
                | Output::Gap { .. }
                | Output::Notice { .. }
                | Output::Became(_)
                | Output::Synced { .. }
                | Output::Reconfigured
                | Output::Room
                | Output::AskOracle
                | Output::Snapshot { .. }
                | Output::Log { .. } => {}
            }
        }
        if let Some(through) = through {
            self.peers[i].handle_input(self.now, Input::Persisted { through });
        }
        active
    }

    fn dial(&mut self, from: End, channel: Channel, to: usize) {
        let conn = from.1;
        let input = match self.peers[to].accept(self.now, channel, None) {
            Some(accepted) => {
                self.links.push((from, (to, accepted)));
                Input::Opened { conn }
            }
            None => Input::Closed { conn },
        };
        self.peers[from.0].handle_input(self.now, input);
    }

    fn close(&mut self, end: End) {
        if let Some(at) = self.links.iter().position(|(a, b)| *a == end || *b == end) {
            let (a, b) = self.links.swap_remove(at);
            let other = if a == end { b } else { a };
            self.peers[other.0].handle_input(self.now, Input::Closed { conn: other.1 });
        }
    }

    fn transmit(&mut self, end: End) {
        let link = self.links.iter().find(|(a, b)| *a == end || *b == end);
        let other = link.map(|(a, b)| if *a == end { *b } else { *a });
        loop {
            let n = self.peers[end.0].poll_transmit(end.1, &mut self.buf);
            if n == 0 {
                return;
            }
            if let Some(other) = other {
                self.feed(other, n);
            }
        }
    }

    /// Gives an end `n` bytes of the buffer, after what it has not consumed before.
    fn feed(&mut self, end: End, n: usize) {
        let held = self.rest.iter().position(|(of, _)| *of == end);
        let peer = &mut self.peers[end.0];
        let mut held = held.map(|at| self.rest.swap_remove(at).1);
        let bytes = match &mut held {
            Some(held) => {
                held.extend_from_slice(&self.buf[..n]);
                held.as_slice()
            }
            None => &self.buf[..n],
        };
        let mut used = 0;
        loop {
            let received = peer.handle_bytes(self.now, end.1, &bytes[used..]);
            used += received.consumed;
            if received.message.is_none() {
                break;
            }
        }
        if used < bytes.len() {
            let rest = bytes[used..].to_vec();
            self.rest.push((end, rest));
        }
    }
}
