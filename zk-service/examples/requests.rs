//! Many requests to a server without sockets, disks or threads: what one costs the processor can be counted
//! (`benches/metrics`). `requests write|read COUNT`
//!
//! The requests are put together here, byte by byte, so that a client costs next to nothing of what is counted. With a
//! real client: `without_io`.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use zab_proto::{
    Channel, Config, ConnId, Incoming, Instant, MemoryStorage, NetOutput, Node, Recovered, Sid,
};
use zk_service::{Service, ServiceOptions};

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&i32::try_from(body.len()).unwrap_or(0).to_be_bytes()[..], &body].concat()
}

/// Protocol version, last zxid, time-out, session id, password.
fn connect_request() -> Vec<u8> {
    frame(&[&[0; 12], &10_000_i32.to_be_bytes(), &[0; 8], &16_i32.to_be_bytes(), &[0; 16]])
}

/// A request for `/n`: xid, opcode, path, and what is behind it.
fn request(xid: i32, opcode: i32, rest: &[u8]) -> Vec<u8> {
    frame(&[&xid.to_be_bytes(), &opcode.to_be_bytes(), &2_i32.to_be_bytes(), b"/n", rest])
}

/// Data of 100 bytes.
fn data() -> Vec<u8> {
    [&100_i32.to_be_bytes()[..], &[b'x'; 100]].concat()
}

struct World {
    now: Instant,
    node: Node<Service>,
    disk: MemoryStorage,
    client: Option<ConnId>,
    answered: usize,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (now, mut disk) = (Instant::ZERO, MemoryStorage::default());
        let config = Config::standalone(Sid(1));
        let service = Service::new(ServiceOptions::default());
        let mut node = Node::new(now, config, Recovered::default(), service)?;
        let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 50_000).into());
        let client = node.accept(now, Channel::Client, &incoming);
        while node.poll_output(now, &mut disk).is_some() {}
        let mut world = Self { now, node, disk, client, answered: 0 };
        world.say(&connect_request())?;
        Ok(world)
    }

    /// Bytes of the client, and turns of the loop until all is answered.
    fn say(&mut self, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let client = self.client.ok_or("refused")?;
        let before = self.answered;
        let used = self.node.handle_bytes(self.now, client, bytes, &mut self.disk);
        if used != bytes.len() {
            return Err("a request was not taken".into());
        }
        loop {
            while let Some(output) = self.node.poll_output(self.now, &mut self.disk) {
                if let NetOutput::Transmit(conn) = output {
                    // To fill a long one with zeros would be counted as well.
                    let mut buf = [0; 512];
                    while let n @ 1.. = self.node.poll_transmit(self.now, conn, &mut buf) {
                        self.answered += n;
                    }
                }
            }
            match self.disk.persisted() {
                Some(durable) => self.node.handle_input(self.now, durable),
                None => break,
            }
        }
        // As if a request came every tenth of a millisecond.
        self.now = self.now + Duration::from_micros(100);
        if self.answered == before { Err("no answer".into()) } else { Ok(()) }
    }
}

/// So many requests of a kind, one after the other.
pub(crate) fn run(kind: &str, count: i32) -> Result<(), Box<dyn Error>> {
    let mut world = World::new()?;
    // Everything is allowed to everybody: permissions, scheme, id. Then the flags.
    let acl = [&1_i32.to_be_bytes()[..], &31_i32.to_be_bytes(), &5_i32.to_be_bytes(), b"world"];
    let acl = [&acl.concat()[..], &6_i32.to_be_bytes(), b"anyone", &[0; 4]].concat();
    world.say(&request(1, 1, &[data(), acl].concat()))?;
    let (opcode, rest) = match kind {
        "read" => (4, vec![0]),
        "write" => (5, [data(), (-1_i32).to_be_bytes().to_vec()].concat()),
        _ => return Err("write or read".into()),
    };
    for xid in 2..count.saturating_add(2) {
        world.say(&request(xid, opcode, &rest))?;
    }
    println!("{count} requests, {} bytes of answers", world.answered);
    Ok(())
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let kind = if args.next().as_deref() == Some("read") { "read" } else { "write" };
    let count = args.next().and_then(|count| count.parse().ok()).unwrap_or(10);
    run(kind, count)
}
