//! A client of ZooKeeper, as small as the tests allow.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BufMut;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_testing::{Ensemble, Service, Sid};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection with a session.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) session: i64,
    password: Vec<u8>,
    xid: i32,
    zxid: i64,
}

impl Client {
    /// A new session.
    pub(crate) fn open(addr: SocketAddr) -> Result<Self> {
        Self::connect(addr, 0, &[0; 16], 0)
    }

    /// The same session on another connection.
    pub(crate) fn move_to(&self, addr: SocketAddr) -> Result<Self> {
        Self::connect(addr, self.session, &self.password, self.zxid)
    }

    fn connect(addr: SocketAddr, session: i64, password: &[u8], zxid: i64) -> Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut body = Vec::new();
        body.put_i32(0);
        body.put_i64(zxid);
        body.put_i32(30_000);
        body.put_i64(session);
        body.put_buffer(Some(password));
        stream.write_all(&frame(&body))?;
        let answer = read_frame(&mut stream)?;
        let mut reader = Reader::new(&answer);
        let mut fields = || {
            let (_, timeout, session) = (reader.i32()?, reader.i32()?, reader.i64()?);
            Ok::<_, zab_proto::DecodeError>((timeout, session, reader.buffer()?))
        };
        match fields() {
            Ok((1.., session, Some(password))) => {
                Ok(Self { stream, session, password: password.to_vec(), xid: 0, zxid })
            }
            _ => Err(Error::new(ErrorKind::ConnectionRefused, "the session has expired")),
        }
    }

    /// Creates a node; the error code.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], ephemeral: bool) -> Result<i32> {
        let mut body = Vec::new();
        body.put_ustring(Some(path));
        body.put_buffer(Some(data));
        body.put_i32(1);
        body.put_i32(31);
        body.put_ustring(Some("world"));
        body.put_ustring(Some("anyone"));
        body.put_i32(i32::from(ephemeral));
        self.call(1, &body).map(|(error, _)| error)
    }

    /// A node's data, as this member has it.
    pub(crate) fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        body.put_ustring(Some(path));
        body.put_bool(false);
        let (error, answer) = self.call(4, &body)?;
        let data = || Reader::new(&answer).buffer().ok()?.map(<[u8]>::to_vec);
        Ok((error == 0).then(data).flatten())
    }

    /// Everything committed before is seen by what follows.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let mut body = Vec::new();
        body.put_ustring(Some("/"));
        self.call(9, &body).map(|_| ())
    }

    fn call(&mut self, op: i32, body: &[u8]) -> Result<(i32, Vec<u8>)> {
        self.xid += 1;
        self.stream.write_all(&request(self.xid, op, body))?;
        let answer = read_frame(&mut self.stream)?;
        let mut reader = Reader::new(&answer);
        let mut header = || Some((reader.i32().ok()?, reader.i64().ok()?, reader.i32().ok()?));
        let (xid, zxid, error) = header().ok_or(ErrorKind::InvalidData)?;
        assert_eq!(xid, self.xid, "answers come in order");
        self.zxid = self.zxid.max(zxid);
        Ok((error, reader.rest().to_vec()))
    }
}

pub(crate) fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i32(xid);
    bytes.put_i32(op);
    bytes.extend_from_slice(body);
    frame(&bytes)
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_buffer(Some(body));
    bytes
}

pub(crate) fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
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
