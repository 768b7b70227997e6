//! A ZooKeeper server and a client of it without sockets, disks or threads: one node with the service, one session of
//! `zk-client`, and the bytes of each put into the other by hand, as runtimes do it with sockets.

use std::error::Error;
use std::net::Ipv4Addr;

use zab_proto::{
    Channel, Config, Incoming, Instant, MemoryStorage, NetOutput, Node, Recovered, Sid,
};
use zk_client::{Action, Create, CreateMode, Event, Options, Request, Session};
use zk_service::{Service, ServiceOptions};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (now, mut disk) = (Instant::ZERO, MemoryStorage::default());
    let options = ServiceOptions::default().with(|options| options.max_client_cnxns = 10);
    let config = Config::standalone(Sid(1));
    let mut node = Node::new(now, config, Recovered::default(), Service::new(options))?;
    turn(now, &mut node, &mut disk, |_| ());

    let mut session = Session::new(now, Options::parse("nowhere:2181")?)?;
    session.submit(&Request::Create(Create::new("/n", "some data", CreateMode::Persistent)))?;
    session.submit(&Request::GetData { path: "/n".into(), watch: false })?;

    let (mut client, mut answers) = (None, 0);
    // The handshake takes a round trip, the requests behind it another.
    for _ in 0..10 {
        while let Some(action) = session.poll_action() {
            if let Action::Connect(..) = action {
                let incoming = Incoming::new((Ipv4Addr::LOCALHOST, 50_000).into());
                client = node.accept(now, Channel::Client, &incoming);
                session.handle_connected(now);
            }
        }
        let client = client.ok_or("refused")?;
        let taken = node.handle_bytes(now, client, session.transmit(), &mut disk);
        session.transmitted(now, taken);
        turn(now, &mut node, &mut disk, |bytes| session.handle_bytes(now, bytes));
        while let Some(event) = session.poll_event() {
            match event {
                Event::Connected { session_id, .. } => println!("session {session_id:#x}"),
                Event::Answer(_, answer) => {
                    println!("{:?}", answer?);
                    answers += 1;
                }
                other => println!("{other:?}"),
            }
        }
        if answers == 2 {
            println!("{} nodes", node.app().database().tree.node_count());
            return Ok(());
        }
    }
    Err("no answer".into())
}

/// A turn of the server's loop: carries out what the server wants, until what it has written is durable. What it sends
/// goes to `send`.
fn turn(
    now: Instant,
    node: &mut Node<Service>,
    disk: &mut MemoryStorage,
    mut send: impl FnMut(&[u8]),
) {
    loop {
        while let Some(output) = node.poll_output(now, disk) {
            if let NetOutput::Transmit(conn) = output {
                let mut buf = [0; 4096];
                while let n @ 1.. = node.poll_transmit(now, conn, &mut buf) {
                    send(&buf[..n]);
                }
            }
        }
        match disk.persisted() {
            Some(durable) => node.handle_input(now, durable),
            None => return,
        }
    }
}
