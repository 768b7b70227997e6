//! A standalone server and its clients. The input is a sequence of pieces: a byte for the
//! connection, two for the length, and that many bytes of a client.

use std::net::Ipv4Addr;
use std::time::Duration;

use zab_proto::wire::Parsed;
use zab_proto::wire::notification::parse_frame;
use zab_proto::{
    Channel, Config, ConnId, Membership, Incoming, Input, Instant, Member, MemoryStorage, NetOutput,
    Node, Recovered, Sid,
};
use zk_service::{Service, ServiceOptions, WallClock};

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) conn: Option<ConnId>,
    inbox: Vec<u8>,
    /// What the server has said and is no whole frame yet.
    heard: Vec<u8>,
    framing: Framing,
    /// Whole frames without their length, if they are to be kept.
    pub(crate) frames: Option<Vec<Vec<u8>>>,
}

/// Four-letter words are answered with plain text, everything else with frames.
#[derive(Clone, Copy, Default, PartialEq)]
enum Framing {
    #[default]
    Unknown,
    Text,
    Frames,
}

pub(crate) struct World {
    node: Node<Service>,
    now: Instant,
    disk: MemoryStorage,
    pub(crate) clients: [Client; 3],
}

/// Runs the pieces in `data`.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut rest = data;
    while let Some((&[who, high, low], more)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(more.len());
        let (bytes, after) = more.split_at(len);
        rest = after;
        world.send(usize::from(who % 3), bytes);
        world.settle();
        if who & 0x40 != 0 {
            world.now = world.now + Duration::from_secs(7);
            world.node.handle_input(world.now, Input::Timeout);
            world.settle();
        }
        if who & 0x80 != 0 {
            world.hang_up(usize::from(who % 3));
            world.settle();
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut ensemble = Membership::default();
        let member = Member::parse(Sid(1), "h:1:2").expect("a good line");
        ensemble.members.insert(Sid(1), member);
        let mut config = Config::new(Sid(1), ensemble);
        config.allow_unlisted = true;
        config.standalone = true;
        config.trust_empty = true;
        let service = Service::new(ServiceOptions::default().with(|options| {
options.extended_types = true;
options.four_letter_whitelist = vec!["*".into()];
options.wall_clock = WallClock::new(|| 1_700_000_000_000);
options.super_digest = Some("super:0bX78nEegDzJM3ju0iLBEJdWzjg=".into());
}));
        let now = Instant::ZERO;
        let node = Node::new(now, config, Recovered::default(), service).expect("a good one");
        let mut world =
            Self { node, now, disk: MemoryStorage::default(), clients: Default::default() };
        world.settle();
        world
    }

    pub(crate) fn send(&mut self, at: usize, bytes: &[u8]) {
        if self.clients[at].conn.is_none() {
            let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 1000).into());
            let conn = self.node.accept(self.now, Channel::Client, &incoming);
            let frames = self.clients[at].frames.take();
            self.clients[at] = Client { conn, frames, ..Client::default() };
        }
        let client = &mut self.clients[at];
        if let (Framing::Unknown, Some(first)) = (client.framing, bytes.first()) {
            let word = first.is_ascii_lowercase();
            client.framing = if word { Framing::Text } else { Framing::Frames };
        }
        client.inbox.extend_from_slice(bytes);
    }

    pub(crate) fn hang_up(&mut self, at: usize) {
        if let Some(conn) = self.clients[at].conn.take() {
            self.node.handle_input(self.now, Input::Closed { conn });
        }
    }

    /// Lets the server have its way until it is at rest.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut active = false;
            while let Some(output) = self.node.poll_output(self.now, &mut self.disk) {
                active = true;
                if let NetOutput::Close(conn, _) = output
                    && let Some(at) = self.clients.iter().position(|c| c.conn == Some(conn))
                {
                    self.hear(at);
                    self.hang_up(at);
                }
            }
            if let Some(persisted) = self.disk.persisted() {
                self.node.handle_input(self.now, persisted);
                active = true;
            }
            for at in 0..self.clients.len() {
                active |= self.offer(at) | self.hear(at);
            }
            if !active {
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    fn offer(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(conn) = client.conn.filter(|_| !client.inbox.is_empty()) else { return false };
        let used = self.node.handle_bytes(self.now, conn, &client.inbox, &mut self.disk);
        client.inbox.drain(..used);
        used > 0
    }

    /// Reads what the server sends: whole frames of a plausible length.
    fn hear(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(conn) = client.conn else { return false };
        let mut buf = [0; 4096];
        let n = self.node.poll_transmit(self.now, conn, &mut buf);
        if client.framing == Framing::Frames {
            client.heard.extend_from_slice(&buf[..n]);
            loop {
                match parse_frame(&client.heard) {
                    Parsed::Complete { value, len } => {
                        if let Some(frames) = &mut client.frames {
                            frames.push(value.to_vec());
                        }
                        client.heard.drain(..len);
                    }
                    Parsed::Incomplete => break,
                    Parsed::Malformed(error) => panic!("the server said something odd: {error}"),
                }
            }
        }
        n > 0
    }
}
