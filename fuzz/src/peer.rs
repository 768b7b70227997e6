//! One peer, alone against whatever the network, the disk and the clock may do to it.
//!
//! The input is a program of small steps, so that random changes of it are changes of a story
//! rather than noise. Everything the peer asks for and says is checked against what it may.

use std::time::Duration;

use bytes::BufMut;
use zab_proto::wire::body::{LearnerInfo, PROTOCOL_VERSION, Request};
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{LogDemand, 
    Channel, CloseReason, Config, ConnId, Membership, Epoch, Input, Instant, Message, Output, Peer,
    Recovered, Sid, Status, Violation, Zxid,
};

use crate::disk::{Disk, Op, Records};
use crate::encoded;
use crate::said::Said;

/// Runs the program in `data` and returns how far the peer got.
pub fn run(data: &[u8]) -> Status {
    let mut program = Program(data);
    let mut world = World::new(&mut program);
    world.drain();
    while !program.0.is_empty() {
        world.step(&mut program);
        if world.eager {
            world.settle();
        }
    }
    world.settle();
    world.peer.status()
}

/// The path `/`, behind which only the signature follows.
const END: &[u8] = b"\0\0\0\x01/";

/// The steps that are left; zeros once they are used up.
struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn small(&mut self, bound: u8) -> i64 {
        i64::from(self.byte() % bound)
    }

    /// A zxid near the beginning of one of the first epochs, now and then one of the odd ones.
    fn zxid(&mut self) -> Zxid {
        match self.byte() {
            255 => Zxid::NONE,
            254 => Zxid::MIN,
            253 => Zxid::new(Epoch(1), u32::MAX - 1),
            byte => Zxid::new(Epoch(i64::from(byte >> 4)), u32::from(byte & 15)),
        }
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

/// A connection as the world sees it.
#[derive(Default)]
struct Link {
    open: bool,
    /// Dialled, but neither opened nor refused yet.
    dialling: bool,
    /// Sent to the peer and not consumed by it.
    inbox: Vec<u8>,
    said: Said,
}

struct World {
    peer: Peer,
    now: Instant,
    disk: Disk,
    /// What follows the staged snapshot.
    staged: Vec<(Zxid, Vec<u8>)>,
    /// All there ever were; stale names are used, too.
    links: Vec<(ConnId, Link)>,
    lent: Vec<ConnId>,
    /// Logs being read for a learner: what is left of each.
    logs: Vec<(ConnId, Records)>,
    delivered: Zxid,
    /// Outputs are taken and writes done after every step.
    eager: bool,
}

impl World {
    fn new(program: &mut Program<'_>) -> Self {
        let ensemble = "server.1=h:1:11\nserver.2=h:2:12\nserver.3=h:3:13\n\
                        server.4=h:4:14:observer\nversion=0";
        let sid = Sid(1 + program.small(4));
        let members = Membership::parse_text(ensemble.as_bytes()).expect("four members");
        let mut config = Config::new(sid, members);
        config.allow_unlisted = true;
        config.tick_time = Duration::from_millis(100);
        config.init_limit = 5;
        config.sync_limit = 2;
        config.trust_empty = program.byte() & 1 == 0;
        config.limits.field_len_max_bytes = 1000;
        config.limits.window_len_max_bytes = 4000;
        config.limits.retained_txns = 4;
        config.limits.retained_len_max_bytes = 1000;
        config.limits.links_max = 8;
        config.limits.requests_len_max_bytes = 1000;
        config.limits.snapshots_max = 1;
        config.seed = 1;
        let mut disk = Disk::default();
        let mut recovered = Recovered::default();
        let epoch = Epoch(program.small(3));
        if epoch > Epoch(0) {
            recovered.accepted_epoch = Some(Epoch(epoch.0 + program.small(2)));
            recovered.current_epoch = Some(epoch);
            for counter in 0..program.byte() % 6 {
                let zxid = Zxid::new(epoch, u32::from(counter) + 1);
                let txn = transaction(zxid, b"old");
                recovered.push(zxid, &txn);
                disk.apply(Op::Append(zxid, txn));
            }
            disk.durable.accepted = recovered.accepted_epoch.unwrap_or_default();
            disk.durable.current = epoch;
        }
        disk.logical = disk.durable.clone();
        let now = Instant::ZERO;
        let peer = Peer::new(now, config, recovered).expect("a good configuration");
        Self {
            peer,
            now,
            disk,
            staged: Vec::new(),
            links: Vec::new(),
            lent: Vec::new(),
            logs: Vec::new(),
            delivered: Zxid::MIN,
            eager: true,
        }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let op = program.byte();
        match op % 16 {
            0 => self.receive(program, |program| program.bytes().to_vec()),
            1 | 2 => self.receive(program, packet),
            3 => self.receive(program, handshake),
            4 => self.receive(program, vote),
            5 => self.accept(Channel::Election),
            6 => self.accept(Channel::Quorum),
            7 => self.open(program),
            8 => self.hang_up(program),
            9 => self.pass(program),
            10 => self.persist(usize::from(program.byte())),
            11 => self.transmit(program),
            12 => self.propose(program.bytes()),
            13 => self.ask(program),
            14 => {
                self.read_log();
                self.end_snapshot(program);
            }
            _ => self.eager = op & 16 == 0,
        }
    }

    fn pick(&self, program: &mut Program<'_>) -> Option<usize> {
        let byte = usize::from(program.byte());
        // Counted from the newest, which are the ones that matter.
        (!self.links.is_empty()).then(|| self.links.len() - 1 - byte % self.links.len())
    }

    /// Bytes arrive on a connection.
    fn receive(
        &mut self,
        program: &mut Program<'_>,
        make: impl FnOnce(&mut Program<'_>) -> Vec<u8>,
    ) {
        let Some(at) = self.pick(program) else { return };
        let bytes = make(program);
        let (_, link) = &mut self.links[at];
        if link.open {
            link.inbox.extend_from_slice(&bytes);
            self.offer(at);
        }
    }

    fn offer(&mut self, at: usize) {
        let conn = self.links[at].0;
        let inbox = std::mem::take(&mut self.links[at].1.inbox);
        let mut used = 0;
        loop {
            let received = self.peer.handle_bytes(self.now, conn, &inbox[used..]);
            assert!(received.consumed <= inbox.len() - used);
            used += received.consumed;
            match received.message {
                None if received.consumed == 0 => break,
                None => {}
                Some(Message::Snapshot { bytes }) => {
                    match Self::install(&mut self.peer, conn, bytes, self.now) {
                        0 => break,
                        n => used += n,
                    }
                }
                Some(message) => self.peer_message(message),
            }
            if used == inbox.len() {
                break;
            }
        }
        let link = &mut self.links[at].1;
        if link.open {
            link.inbox = inbox[used..].to_vec();
        }
    }

    /// A snapshot is anything up to the path that ends its nodes; `!` is an error in it.
    fn install(peer: &mut Peer, conn: ConnId, bytes: &[u8], now: Instant) -> usize {
        if let Some(at) = bytes.windows(END.len()).position(|part| part == END) {
            peer.snapshot_received(now, conn, true);
            return at + END.len();
        }
        if bytes.contains(&b'!') {
            peer.close(conn, CloseReason::Violation(Violation::BadSnapshot));
            return bytes.len();
        }
        let n = bytes.len().saturating_sub(END.len());
        peer.snapshot_received(now, conn, false);
        n
    }

    fn peer_message(&mut self, message: Message<'_>) {
        match message {
            Message::Request { data, .. } => {
                let request = Request::parse(data).expect("the core looks at it first");
                self.propose(request.record);
            }
            Message::Revalidate { from, data } => {
                self.peer.revalidated(from, &[&data[..8], &[1]].concat());
            }
            Message::Ping => self.peer.pong(&[]),
            Message::Touched { sessions, .. } => assert_eq!(sessions.len() % 12, 0),
            Message::Revalidated { .. } | Message::Synced | Message::Snapshot { .. } => {}
        }
    }

    fn accept(&mut self, channel: Channel) {
        if let Some(conn) = self.peer.accept(self.now, channel, None) {
            let said = Said::new(channel, false);
            self.links.push((conn, Link { open: true, said, ..Link::default() }));
        }
    }

    fn open(&mut self, program: &mut Program<'_>) {
        let Some(at) = self.pick(program) else { return };
        let (conn, link) = &mut self.links[at];
        if std::mem::take(&mut link.dialling) {
            link.open = true;
            self.peer.handle_input(self.now, Input::Opened { conn: *conn });
        }
    }

    fn hang_up(&mut self, program: &mut Program<'_>) {
        let Some(at) = self.pick(program) else { return };
        let (conn, link) = &mut self.links[at];
        // A stale name is as good as any other.
        (link.open, link.dialling) = (false, false);
        self.lent.retain(|lent| lent != conn);
        self.peer.handle_input(self.now, Input::Closed { conn: *conn });
    }

    fn pass(&mut self, program: &mut Program<'_>) {
        let byte = program.byte();
        let unit = [1, 10, 100, 1000][usize::from(byte >> 6)];
        self.now = self.now + Duration::from_millis(unit * u64::from(byte & 63));
        self.peer.handle_input(self.now, Input::Timeout);
        self.drain();
        let next = self.peer.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a deadline that stays put");
    }

    fn persist(&mut self, writes: usize) {
        if let Some(through) = self.disk.persist(writes) {
            self.peer.handle_input(self.now, Input::Persisted { through });
        }
    }

    fn transmit(&mut self, program: &mut Program<'_>) {
        let Some(at) = self.pick(program) else { return };
        let len = usize::from(program.byte());
        self.send(at, len);
    }

    /// Takes up to `len` bytes from the peer; true if there were any.
    fn send(&mut self, at: usize, len: usize) -> bool {
        let (conn, link) = &mut self.links[at];
        let mut buf = [0; 256];
        let n = self.peer.poll_transmit(*conn, &mut buf[..len]);
        assert!(link.open || n == 0, "bytes for a closed connection");
        link.said.hear(&buf[..n], &self.disk);
        n > 0
    }

    fn propose(&mut self, body: &[u8]) {
        let Some(zxid) = self.peer.next_zxid() else { return };
        let txn = transaction(zxid, body);
        let fits = self.peer.can_propose(txn.len());
        let result = self.peer.propose(self.now, &txn);
        assert!(!fits || result.is_ok(), "{result:?} after a yes");
    }

    /// What an application asks of its core.
    fn ask(&mut self, program: &mut Program<'_>) {
        match program.byte() % 4 {
            0 => {
                self.peer.sync(self.now);
            }
            1 => {
                let data = [&[0; 16][..], program.bytes()].concat();
                if self.peer.can_propose(data.len()) {
                    self.peer.request(&data, &[0xff; 4]);
                }
            }
            2 => {
                self.peer.revalidate(&[7; 12]);
            }
            _ => self.peer.pong(&[7; 12]),
        }
    }

    fn end_snapshot(&mut self, program: &mut Program<'_>) {
        if !self.lent.is_empty() {
            let conn = self.lent.swap_remove(usize::from(program.byte()) % self.lent.len());
            self.peer.handle_input(self.now, Input::SnapshotDone { conn });
        }
    }

    /// Reads on for a learner that can take more of the log; true if there is one.
    fn read_log(&mut self) -> bool {
        self.logs.retain(|(conn, _)| self.peer.wants_log(*conn) != LogDemand::Ended);
        let wanted = |(conn, _): &(ConnId, _)| self.peer.wants_log(*conn) == LogDemand::Now;
        let Some(at) = self.logs.iter().position(wanted) else { return false };
        let (conn, log) = &mut self.logs[at];
        let record = log.pop_front();
        let record = record.as_ref().map(|(zxid, txn)| (*zxid, txn.as_slice()));
        self.peer.log_record(*conn, record);
        if record.is_none() {
            self.logs.swap_remove(at);
        }
        true
    }

    /// Lets the peer have its way until it is at rest: all outputs, writes and bytes.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut active = self.drain();
            if let Some(through) = self.disk.persist(usize::MAX) {
                self.peer.handle_input(self.now, Input::Persisted { through });
                active = true;
            }
            for at in 0..self.links.len() {
                while self.links[at].1.open && self.send(at, 256) {
                    active = true;
                }
            }
            active |= self.read_log();
            if let Some(conn) = self.lent.pop() {
                self.peer.handle_input(self.now, Input::SnapshotDone { conn });
                active = true;
            }
            if !active {
                return;
            }
        }
        panic!("the peer does not come to rest");
    }

    fn drain(&mut self) -> bool {
        let mut resumed = Vec::new();
        for count in 0..1000 {
            let Some(output) = self.peer.poll_output() else {
                for conn in resumed {
                    let at = self.links.iter().position(|(known, _)| *known == conn);
                    self.offer(at.expect("a known connection"));
                }
                return count > 0;
            };
            match output {
                Output::SetEpoch { ticket, kind, epoch } => {
                    self.disk.push(ticket, Op::Epoch(kind, epoch));
                }
                Output::SetIdentity { ticket, identity } => {
                    self.disk.push(ticket, Op::Identity(identity));
                }
                Output::SetConfigurations { ticket, .. } => {
                    self.disk.push(ticket, Op::Configurations);
                }
                Output::Append { ticket, zxid, txn } => {
                    assert_eq!(TxnHeader::parse(txn).expect("a header").zxid, zxid);
                    self.disk.push(ticket, Op::Append(zxid, txn.to_vec()));
                }
                Output::Truncate { ticket, after } => self.disk.push(ticket, Op::Truncate(after)),
                Output::Stage { zxid, txn } => self.staged.push((zxid, txn.to_vec())),
                Output::Install { ticket, zxid } => {
                    self.disk.push(ticket, Op::Install(zxid, std::mem::take(&mut self.staged)));
                    self.delivered = zxid;
                }
                Output::Deliver { zxid, txn } => {
                    assert!(zxid > self.delivered, "{zxid} after {}", self.delivered);
                    assert_eq!(self.disk.logical.log.get(&zxid).map(Vec::as_slice), Some(txn));
                    self.delivered = zxid;
                }
                Output::Connect { conn, channel, addresses } => {
                    assert!(addresses.starts_with("h:"), "{addresses}");
                    let said = Said::new(channel, true);
                    self.links.push((conn, Link { dialling: true, said, ..Link::default() }));
                }
                Output::Close { conn, .. } => {
                    let at = self.links.iter().position(|(known, _)| *known == conn);
                    let at = at.expect("a known connection");
                    // What was said before still goes out.
                    while self.links[at].1.open && self.send(at, 256) {}
                    let link = &mut self.links[at].1;
                    (link.open, link.dialling) = (false, false);
                    self.lent.retain(|lent| *lent != conn);
                }
                Output::Resume { conn } => resumed.push(conn),
                Output::Snapshot { conn } => self.lent.push(conn),
                Output::Log { conn, after, through, .. } => {
                    let log = self.disk.durable.between(after, through);
                    self.peer.log_opened(conn, log.is_some());
                    self.logs.extend(log.map(|log| (conn, log)));
                }
                Output::DiscardStage
                | Output::Gap { .. }
                | Output::Notice { .. }
                | Output::Became(_)
                | Output::Synced { .. }
                | Output::Reconfigured
                | Output::Room
                | Output::AskOracle
                | Output::Transmit { .. } => {}
            }
        }
        panic!("outputs without end");
    }
}

fn transaction(zxid: Zxid, body: &[u8]) -> Vec<u8> {
    let mut txn = Vec::new();
    TxnHeader { client_id: 1, cxid: 2, zxid, time: 3, kind: 5 }.write(&mut txn);
    txn.extend_from_slice(body);
    txn
}

fn handshake(program: &mut Program<'_>) -> Vec<u8> {
    let sid = Sid(1 + program.small(5));
    encoded(|out| Handshake { form: Form::V1, sid, text: "h:19" }.write(out))
}

/// A packet with a body that may belong to it.
fn packet(program: &mut Program<'_>) -> Vec<u8> {
    let kind = PacketType(i32::from(program.byte() % 21));
    let zxid = program.zxid();
    let selector = program.byte() % 11;
    let mut body = Vec::new();
    match selector {
        2 => body = transaction(zxid, b"new"),
        3 => body.put_i32(PROTOCOL_VERSION),
        4 => body.put_i32(i32::from(program.byte() % 5) - 1),
        5 => body.extend(LearnerInfo::encode(Sid(1 + program.small(5)), 0)),
        6 => body.extend_from_slice(b"server.1=h:1:11\nversion=0"),
        7 => body.put_i64(1 + program.small(5)),
        8 => body.extend([0; 24]),
        9 => body.extend_from_slice(program.bytes()),
        10 => {
            body.put_i64(1 + program.small(5));
            body.extend(transaction(zxid, b"new"));
        }
        _ => {}
    }
    let data = (selector > 0).then_some(&body[..]);
    encoded(|out| Packet::new(kind, zxid, data).write(out))
}

fn vote(program: &mut Program<'_>) -> Vec<u8> {
    let notification = Notification {
        state: i32::from(program.byte() % 5),
        leader: Sid(1 + program.small(5)),
        zxid: program.zxid(),
        election_epoch: program.small(6) - 1,
        peer_epoch: Epoch(program.small(6) - 1),
        version: 2,
        config: Some(b"version=0"),
    };
    encoded(|out| notification.write_frame(out))
}
#[cfg(test)]
mod tests {
    use zab_proto::{Phase, ServerState, SyncMode};

    /// The seeds are stories that end well; otherwise the fuzzer starts from nowhere.
    #[test]
    fn seeds_reach_every_role() {
        for (seed, state, sync) in [
            ("follower-diff", ServerState::Following, Some(SyncMode::Diff)),
            ("follower-trunc", ServerState::Following, Some(SyncMode::Trunc)),
            ("follower-snap", ServerState::Following, Some(SyncMode::Snap)),
            ("observer", ServerState::Observing, Some(SyncMode::Diff)),
            ("leader", ServerState::Leading, None),
        ] {
            let path = format!("{}/seeds/peer/{seed}", env!("CARGO_MANIFEST_DIR"));
            let status = super::run(&std::fs::read(path).expect("a seed"));
            let got = (status.state, status.phase, status.sync);
            assert_eq!(got, (state, Phase::Broadcast, sync), "{seed}");
        }
    }

    /// What was found once stays repaired.
    #[test]
    fn all_seeds_run() {
        let seeds = format!("{}/seeds/peer", env!("CARGO_MANIFEST_DIR"));
        for seed in std::fs::read_dir(seeds).expect("seeds") {
            super::run(&std::fs::read(seed.expect("a file").path()).expect("a seed"));
        }
    }
}
