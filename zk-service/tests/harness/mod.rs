//! One standalone server in memory, with clients: no sockets, no disk, and time as the test says.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use zab_proto::{
    Channel, Config, ConnId, Epoch, EpochKind, Input, Instant, NetOutput, Node, Recovered, Sid,
    SnapshotDigest, Storage, Ticket, Zxid,
};
use zk_service::{Service, ServiceOptions};

/// Storage that keeps nothing but the highest ticket.
#[derive(Debug, Default)]
pub(crate) struct Nothing {
    last: Option<Ticket>,
    /// Writes do not become durable.
    pub(crate) stalled: bool,
}

impl Storage for Nothing {
    fn set_epoch(&mut self, ticket: Ticket, _: EpochKind, _: Epoch) {
        self.last = Some(ticket);
    }
    fn append(&mut self, ticket: Ticket, _: Zxid, _: &[u8]) {
        self.last = Some(ticket);
    }
    fn truncate(&mut self, ticket: Ticket, _: Zxid) {
        self.last = Some(ticket);
    }
    fn stage(&mut self, _: &[u8]) {}
    fn discard_stage(&mut self) {}
    fn install(&mut self, ticket: Ticket, _: Zxid, _: Option<SnapshotDigest>) {
        self.last = Some(ticket);
    }
    fn snapshot_due(&self) -> bool {
        false
    }
    fn snapshot_begin(&mut self, _: Zxid) {}
    fn snapshot_room(&self) -> usize {
        0
    }
    fn snapshot_piece(&mut self, _: &[u8]) {}
    fn snapshot_finish(&mut self, _: Option<SnapshotDigest>) {}
    fn log_open(&mut self, _: Zxid, _: Zxid) -> Option<u32> {
        None
    }
    fn log_read(&mut self, _: u32, _: &mut Vec<u8>) -> Option<Zxid> {
        None
    }
    fn log_close(&mut self, _: u32) {}
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

/// A server and its clients.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) node: Node<Service>,
    pub(crate) disk: Nothing,
    pub(crate) now: Instant,
    wires: BTreeMap<(u32, u32), Wire>,
    /// The wall clock, which goes with `now`.
    pub(crate) clock: Arc<AtomicI64>,
    /// Bytes offered to the server at a time; 0: all there are.
    pub(crate) segment: usize,
}

fn key(conn: ConnId) -> (u32, u32) {
    (conn.slot(), conn.generation())
}

impl Server {
    pub(crate) fn start(options: ServiceOptions) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut config = Config::standalone(Sid(1));
        config.tick_time = options.tick_time;
        let service = Service::new(options);
        let node = Node::new(now, config, Recovered::default(), service).expect("a good config");
        let wires = BTreeMap::new();
        let clock = Arc::default();
        let mut server = Self { node, disk: Nothing::default(), now, wires, clock, segment: 0 };
        server.run();
        server
    }

    /// Lets everything happen that can happen without time passing.
    pub(crate) fn run(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output(self.now, &mut self.disk) {
                match output {
                    NetOutput::Transmit(conn) => self.transmit(conn),
                    NetOutput::Resume(conn) => self.offer(conn),
                    NetOutput::Close(conn, _) => {
                        self.transmit(conn);
                        if let Some(wire) = self.wires.get_mut(&key(conn)) {
                            wire.ended = true;
                        }
                        self.node.handle_input(self.now, Input::Closed { conn });
                    }
                    NetOutput::Became(_) | NetOutput::Connect { .. } => {}
                }
            }
            if self.disk.stalled {
                return;
            }
            let Some(through) = self.disk.last.take() else { return };
            self.node.handle_input(self.now, Input::Persisted { through });
        }
    }

    fn transmit(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.get_mut(&key(conn)) else { return };
        let mut buf = [0; 4096];
        while !wire.deaf {
            let n = self.node.poll_transmit(self.now, conn, &mut buf);
            if n == 0 {
                return;
            }
            wire.from_server.extend(&buf[..n]);
        }
    }

    fn offer(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.get_mut(&key(conn)) else { return };
        if wire.ended {
            return;
        }
        let pending = std::mem::take(&mut wire.to_server);
        let mut seen = 0;
        let mut used = 0;
        while seen < pending.len() {
            let step = if self.segment == 0 { pending.len() } else { self.segment };
            seen = (seen + step).min(pending.len());
            let bytes = &pending[used..seen];
            used += self.node.handle_bytes(self.now, conn, bytes, &mut self.disk);
        }
        if let Some(wire) = self.wires.get_mut(&key(conn)) {
            wire.to_server.splice(0..0, pending[used..].iter().copied());
        }
    }

    pub(crate) fn connect(&mut self) -> Option<ConnId> {
        self.connect_from("127.0.0.1".parse().expect("an address"))
    }

    pub(crate) fn connect_from(&mut self, address: IpAddr) -> Option<ConnId> {
        let remote = SocketAddr::new(address, 40_000);
        let conn = self.node.accept(self.now, Channel::Client, remote)?;
        self.wires.insert(key(conn), Wire::default());
        self.run();
        Some(conn)
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&key(conn)) else { return };
        wire.to_server.extend_from_slice(bytes);
        self.offer(conn);
        self.run();
    }

    /// The client hangs up.
    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.get_mut(&key(conn)) {
            wire.ended = true;
        }
        self.node.handle_input(self.now, Input::Closed { conn });
        self.run();
    }

    /// The client stops reading, or begins again.
    pub(crate) fn set_deaf(&mut self, conn: ConnId, deaf: bool) {
        if let Some(wire) = self.wires.get_mut(&key(conn)) {
            wire.deaf = deaf;
        }
        self.transmit(conn);
        self.run();
    }

    /// Bytes that the server has not consumed yet.
    pub(crate) fn unconsumed(&self, conn: ConnId) -> usize {
        self.wires.get(&key(conn)).map_or(0, |wire| wire.to_server.len())
    }

    /// The next frame, without its length, if it is there.
    pub(crate) fn frame(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        let wire = self.wires.get_mut(&key(conn))?;
        let len: Vec<u8> = wire.from_server.iter().take(4).copied().collect();
        let len = i32::from_be_bytes(len.try_into().ok()?);
        let len = usize::try_from(len).expect("a length");
        if wire.from_server.len() < 4 + len {
            return None;
        }
        wire.from_server.drain(..4);
        Some(wire.from_server.drain(..len).collect())
    }

    /// Everything received, as text.
    pub(crate) fn text(&mut self, conn: ConnId) -> String {
        let wire = self.wires.get_mut(&key(conn)).expect("a connection");
        String::from_utf8(wire.from_server.drain(..).collect()).expect("text")
    }

    pub(crate) fn received(&self, conn: ConnId) -> usize {
        self.wires.get(&key(conn)).map_or(0, |wire| wire.from_server.len())
    }

    pub(crate) fn has_ended(&self, conn: ConnId) -> bool {
        self.wires.get(&key(conn)).is_none_or(|wire| wire.ended)
    }

    /// Time passes, in steps that a running server makes.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.node.poll_timeout().filter(|next| *next <= end) {
            self.set_now(self.now.max(next));
            self.node.handle_input(self.now, Input::Timeout);
            self.run();
        }
        self.set_now(end);
    }

    fn set_now(&mut self, now: Instant) {
        let ms = now.saturating_since(self.now).as_millis();
        self.clock.fetch_add(i64::try_from(ms).expect("not for ages"), Ordering::Relaxed);
        self.now = now;
    }
}

/// A request frame.
pub(crate) fn request(xid: i32, op: i32, record: &[u8]) -> Vec<u8> {
    let len = i32::try_from(8 + record.len()).expect("short");
    let mut out = Vec::new();
    for number in [len, xid, op] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(record);
    out
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut out = i32::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// A ConnectRequest.
pub(crate) fn connect_request(timeout_ms: i32, session: i64, password: [u8; 16]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 45];
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&timeout_ms.to_be_bytes());
    out.extend_from_slice(&session.to_be_bytes());
    out.extend_from_slice(&16_i32.to_be_bytes());
    out.extend_from_slice(&password);
    out.push(0);
    out
}

/// A record of create with the open ACL.
pub(crate) fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    let mut out = string(path);
    out.extend_from_slice(&i32::try_from(data.len()).expect("short").to_be_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 31]);
    out.extend(string("world"));
    out.extend(string("anyone"));
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

/// xid, zxid, error code and body of a reply.
pub(crate) fn reply(frame: &[u8]) -> (i32, i64, i32, &[u8]) {
    let number = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
    let zxid = i64::from_be_bytes(frame[4..12].try_into().expect("eight"));
    (number(0), zxid, number(12), &frame[16..])
}
