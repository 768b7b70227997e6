//! A load generator: several connections on one thread, each with a number of requests in flight.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use crate::client::{Codec, Request, Session, Wire};
use crate::secure::Stream;

/// What a load consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// setData of one node per connection.
    Writes,
    /// getData of one node per connection.
    Reads,
    /// Nine reads, then a write.
    Mixed,
    /// create, each of another node.
    Creates,
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The servers' language.
    pub wire: Wire,
    /// Kind of requests.
    pub mix: Mix,
    /// Connections, spread over the servers.
    pub connections: usize,
    /// Requests in flight on each.
    pub in_flight: usize,
    /// Bytes of data per node.
    pub data_len: usize,
    /// Requests in all.
    pub requests: u64,
    /// Stop even if fewer are done.
    pub limit: Duration,
}

/// What a load achieved.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests answered without error.
    pub done: u64,
    /// Requests answered with an error, or with something that is no answer to them.
    pub errors: u64,
    /// Bytes of all answers.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Latencies in microseconds, sorted (one request in flight only).
    pub latencies_us: Vec<u64>,
}

impl Outcome {
    /// Requests per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// A percentile of the latencies in microseconds.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let at = self.latencies_us.len() * percent / 100;
        self.latencies_us
            .get(at.min(self.latencies_us.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    }
}

struct Connection {
    stream: Stream<TcpStream>,
    codec: Codec,
    path: String,
    out: Vec<u8>,
    input: Vec<u8>,
    in_flight: usize,
    sent: u64,
    asked: Instant,
}

/// Runs a load against `servers`.
///
/// # Errors
/// If a connection breaks.
///
/// # Panics
/// If the load has no connections.
pub fn run(servers: &[SocketAddr], load: Load) -> io::Result<Outcome> {
    run_over(None, servers, load)
}

/// The same within TLS, if there is something to do it with.
///
/// # Errors
/// If a connection breaks.
///
/// # Panics
/// If the load has no connections.
pub fn run_over(
    tls: Option<&Arc<ClientConfig>>,
    servers: &[SocketAddr],
    load: Load,
) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut connections = open(&poll, tls, servers, load)?;
    let data = vec![b'x'; load.data_len];
    let mut outcome = Outcome::default();
    let mut issued = 0;
    let start = Instant::now();
    let mut events = Events::with_capacity(64);
    let mut scratch = vec![0; 256 * 1024];
    for connection in &mut connections {
        connection.fill(load, &data, &mut issued)?;
    }
    while outcome.done + outcome.errors < load.requests && start.elapsed() < load.limit {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let connection = &mut connections[event.token().0];
            if event.is_readable() {
                connection.read(&mut scratch, load, &data, &mut outcome)?;
            }
            connection.fill(load, &data, &mut issued)?;
        }
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome.latencies_us.sort_unstable();
    Ok(outcome)
}

fn open(
    poll: &Poll,
    tls: Option<&Arc<ClientConfig>>,
    servers: &[SocketAddr],
    load: Load,
) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for i in 0..load.connections {
        let addr = servers[i % servers.len()];
        let path = format!("/bench-{i}");
        // The handshake, and the node that is read and written, on a blocking connection.
        let mut session = Session::open_over(tls, load.wire, addr, Duration::from_secs(10))?;
        session.call(Request::Create(&path, &vec![b'x'; load.data_len]))?;
        // Not only this server has it now.
        session.call(Request::Set(&path, &vec![b'x'; load.data_len]))?;
        let (mut stream, codec, input) = session.into_parts();
        stream.socket().set_nonblocking(true)?;
        let mut stream = stream.map(TcpStream::from_std);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(stream.socket(), Token(i), interest)?;
        connections.push(Connection {
            stream,
            codec,
            path,
            out: Vec::new(),
            input,
            in_flight: 0,
            sent: 0,
            asked: Instant::now(),
        });
    }
    Ok(connections)
}

/// What connection requests begin with after the two that [`open`] makes.
const FIRST_SEQ: u64 = 2;

/// Room for the path of a created node.
type PathBuffer = String;

/// The `n`th request of a connection.
fn nth<'a>(
    mix: Mix,
    n: u64,
    node: &'a str,
    data: &'a [u8],
    path: &'a mut PathBuffer,
) -> Request<'a> {
    match mix {
        Mix::Writes => Request::Set(node, data),
        Mix::Reads => Request::Get(node),
        Mix::Mixed if n % 10 == 9 => Request::Set(node, data),
        Mix::Mixed => Request::Get(node),
        Mix::Creates => {
            path.clear();
            let _ = write!(path, "{node}/n{n}");
            Request::Create(path, data)
        }
    }
}

impl Connection {
    fn fill(&mut self, load: Load, data: &[u8], issued: &mut u64) -> io::Result<()> {
        let mut path = PathBuffer::new();
        while self.in_flight < load.in_flight && *issued < load.requests {
            let request = nth(load.mix, self.sent, &self.path, data, &mut path);
            self.codec.request(&mut self.out, request);
            self.sent += 1;
            self.in_flight += 1;
            *issued += 1;
            self.asked = Instant::now();
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => {
                    self.out.drain(..n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // What TLS still holds of them.
        match self.stream.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn read(
        &mut self,
        scratch: &mut [u8],
        load: Load,
        data: &[u8],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&scratch[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut used = 0;
        let mut path = PathBuffer::new();
        while let Some((len, reply)) = self.codec.decode(&self.input[used..], &mut self.out)? {
            used += len;
            let Some(reply) = reply else { continue };
            let request = nth(load.mix, reply.seq - FIRST_SEQ, &self.path, data, &mut path);
            self.in_flight -= 1;
            outcome.bytes += len as u64;
            if self.codec.is_good(reply, request, data) {
                outcome.done += 1;
            } else {
                outcome.errors += 1;
            }
            if load.in_flight == 1 {
                let micros = self.asked.elapsed().as_micros();
                outcome.latencies_us.push(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        }
        self.input.drain(..used);
        Ok(())
    }
}
