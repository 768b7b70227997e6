//! A load generator: several connections on one thread, each with a number of requests in flight.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::client::{self, Request};

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
    /// Requests answered with an error.
    pub errors: u64,
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
    stream: TcpStream,
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
    let mut poll = Poll::new()?;
    let mut connections = open(&poll, servers, load)?;
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
                connection.read(&mut scratch, load, &mut outcome)?;
            }
            connection.fill(load, &data, &mut issued)?;
        }
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome.latencies_us.sort_unstable();
    Ok(outcome)
}

fn open(poll: &Poll, servers: &[SocketAddr], load: Load) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for i in 0..load.connections {
        let addr = servers[i % servers.len()];
        let path = format!("/bench-{i}");
        // The handshake, and the node that is read and written, on a blocking connection.
        let mut session = client::Session::open(addr, Duration::from_secs(10))?;
        session.call(Request::Create(&path, &vec![b'x'; load.data_len]))?;
        let stream = session.into_stream();
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(i), interest)?;
        connections.push(Connection {
            stream,
            path,
            out: Vec::new(),
            input: Vec::new(),
            in_flight: 0,
            sent: 0,
            asked: Instant::now(),
        });
    }
    Ok(connections)
}

impl Connection {
    fn fill(&mut self, load: Load, data: &[u8], issued: &mut u64) -> io::Result<()> {
        while self.in_flight < load.in_flight && *issued < load.requests {
            let path;
            let request = match load.mix {
                Mix::Writes => Request::Set(&self.path, data),
                Mix::Reads => Request::Get(&self.path),
                Mix::Mixed if self.sent % 10 == 9 => Request::Set(&self.path, data),
                Mix::Mixed => Request::Get(&self.path),
                Mix::Creates => {
                    path = format!("{}/n{}", self.path, self.sent);
                    Request::Create(&path, data)
                }
            };
            let xid = i32::try_from(self.sent % 0x7fff_0000).expect("below 2^31") + 10;
            client::request(&mut self.out, xid, request);
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
        Ok(())
    }

    fn read(&mut self, scratch: &mut [u8], load: Load, outcome: &mut Outcome) -> io::Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&scratch[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut used = 0;
        while let Some(len) = client::frame_len(&self.input[used..]) {
            let (xid, err) = client::reply(&self.input[used..used + len]);
            used += len;
            if xid < 0 {
                continue;
            }
            self.in_flight -= 1;
            if err == 0 {
                outcome.done += 1;
            } else {
                outcome.errors += 1;
            }
            if load.in_flight == 1 && load.connections == 1 {
                let micros = self.asked.elapsed().as_micros();
                outcome.latencies_us.push(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        }
        self.input.drain(..used);
        Ok(())
    }
}
