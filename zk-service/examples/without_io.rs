//! A ZooKeeper server without sockets, disks or threads: one node with the service, and a client's bytes
//! put in and taken out by hand, as a runtime would do it.

use std::error::Error;
use std::net::Ipv4Addr;

use zab_proto::{
    Channel, Config, Incoming, Instant, MemoryStorage, NetOutput, Node, Recovered, Sid,
};
use zk_service::{Service, ServiceOptions};

/// A session of `timeoutMs`: protocol version, last zxid, time-out, session id, password.
fn connect_request(timeout_ms: i32) -> Vec<u8> {
    let body = [&[0; 12][..], &timeout_ms.to_be_bytes(), &[0; 8], &16_i32.to_be_bytes(), &[0; 16]];
    let body = body.concat();
    [&i32::try_from(body.len()).unwrap_or(0).to_be_bytes()[..], &body].concat()
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (now, mut disk) = (Instant::ZERO, MemoryStorage::default());
    let options = ServiceOptions::default().with(|options| options.max_client_cnxns = 10);
    let config = Config::standalone(Sid(1));
    let mut node = Node::new(now, config, Recovered::default(), Service::new(options))?;

    let mut sent = Vec::new();
    turn(now, &mut node, &mut disk, &mut sent);

    let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 50_000).into());
    let client = node.accept(now, Channel::Client, &incoming).ok_or("refused")?;
    let request = connect_request(10_000);
    let used = node.handle_bytes(now, client, &request, &mut disk);
    assert_eq!(used, request.len(), "a whole frame is taken");
    turn(now, &mut node, &mut disk, &mut sent);

    // The answer: length, protocol version, time-out, session id, password.
    let session = sent.get(12..20).ok_or("no answer")?;
    println!("session 0x{}", session.iter().map(|b| format!("{b:02x}")).collect::<String>());
    println!("{} nodes", node.app().database().tree.node_count());
    Ok(())
}

/// A turn of the loop: carries out what the server wants, until what it has written is durable.
fn turn(now: Instant, node: &mut Node<Service>, disk: &mut MemoryStorage, sent: &mut Vec<u8>) {
    loop {
        while let Some(output) = node.poll_output(now, disk) {
            if let NetOutput::Transmit(conn) = output {
                let mut buf = [0; 4096];
                while let n @ 1.. = node.poll_transmit(now, conn, &mut buf) {
                    sent.extend_from_slice(&buf[..n]);
                }
            }
        }
        match disk.persisted() {
            Some(durable) => node.handle_input(now, durable),
            None => return,
        }
    }
}
