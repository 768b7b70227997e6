//! A client of ZooKeeper, as small as the tests allow.

use std::io::{ErrorKind, Read, Result};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use zab_harness::client::{self, Connect, Connection};
use zab_proto::wire::jute::Reader;
use zab_testing::{Ensemble, Service, Sid};
use zk_service::Opcode;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection with a session.
pub(crate) struct Client(pub(crate) Connection);

impl Client {
    /// A new session.
    pub(crate) fn open(addr: SocketAddr) -> Result<Self> {
        Connection::open(addr, &Connect::new(30_000), PATIENCE).map(Self)
    }

    /// The same session on another connection.
    pub(crate) fn move_to(&self, addr: SocketAddr) -> Result<Self> {
        Connection::open(addr, &self.0.again(), PATIENCE).map(Self)
    }

    /// Creates a node; the error code.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], ephemeral: bool) -> Result<i32> {
        let record = client::create(path, data, ephemeral.into());
        self.0.call(Opcode::Create.wire(), &record).map(|(error, _)| error)
    }

    /// A node's data, as this member has it.
    pub(crate) fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let (error, answer) = self.0.call(Opcode::GetData.wire(), &client::read(path, false))?;
        let data = || Reader::new(&answer).buffer().ok()?.map(<[u8]>::to_vec);
        Ok((error == 0).then(data).flatten())
    }

    /// Everything committed before is seen by what follows.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.0.call(Opcode::Sync.wire(), &client::string("/")).map(|_| ())
    }
}

/// Creates a node through a member, again and again until it is there.
pub(crate) fn create(ensemble: &Ensemble<Service>, through: Sid, path: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let created = Client::open(ensemble.client_address(through))
            .and_then(|mut client| client.create(path, b"x", false));
        match created {
            // Node exists: an attempt whose answer was lost.
            Ok(0 | -110) => return,
            result => assert!(Instant::now() < until, "{path}: {result:?}"),
        }
    }
}

/// All members that run have the node.
pub(crate) fn assert_everywhere(ensemble: &Ensemble<Service>, path: &str) {
    for sid in ensemble.members().filter(|sid| ensemble.is_running(*sid)) {
        let mut client = Client::open(ensemble.client_address(sid)).unwrap();
        client.sync().unwrap();
        assert!(client.get(path).unwrap().is_some(), "{path} is not on {sid}");
    }
}

/// Digests of the trees are equal on all members that run, at the same zxid.
pub(crate) fn assert_equal(ensemble: &Ensemble<Service>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let running = ensemble.members().filter(|sid| ensemble.is_running(*sid));
        let digests: Vec<_> = running
            .map(|sid| {
                ensemble.ask(sid, |service| {
                    assert_eq!(service.digest_mismatches(), 0);
                    service.database().digest()
                })
            })
            .collect();
        if digests.iter().all(|digest| *digest == digests[0]) {
            return;
        }
        assert!(Instant::now() < until, "{digests:?}");
        std::thread::yield_now();
    }
}

/// Reads until the other side ends or resets.
pub(crate) fn wait_end(stream: &mut TcpStream) {
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}
