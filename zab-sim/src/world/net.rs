//! Connections with the manners of TCP: bytes arrive in order, in pieces of any size, late or not
//! at all; a reset loses a suffix; one side may be dead without the other knowing.
//!
//! This file knows bytes and time. Who reads and writes them is the business of `world`.

use zab_proto::{Channel, ConnId};

use crate::options::{NetOptions, Segmentation};
use crate::queue::{Event, HostIx, MICRO, MILLI, Queue, SECOND};
use crate::rng::{Rng, hash, mix};

/// One of the two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The end that dialled.
    Dialler,
    /// The end that accepted.
    Acceptor,
}

impl Side {
    /// The other end.
    #[must_use]
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }

    fn ix(self) -> usize {
        self as usize
    }
}

/// What a process knows of its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndState {
    /// Not yet opened or accepted.
    Pending,
    /// In use.
    Open,
    /// Closed by the process, or the process was told.
    Closed,
    /// The process died without a word.
    Gone,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Whose end it is.
    pub(crate) host: HostIx,
    /// The host's name for the connection.
    pub(crate) name: Option<ConnId>,
    /// What the process knows.
    pub(crate) state: EndState,
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Pipe {
    buf: Vec<u8>,
    /// Bytes before are consumed.
    head: usize,
    /// Bytes before have arrived.
    arrived: usize,
    last_arrival: u64,
    /// Arrivals held back by a cut link; the end of the stream counts as one.
    stalled: Vec<u32>,
    /// The sender found no room.
    blocked: bool,
    /// Nothing arrives any more.
    lost: bool,
    /// The end of the stream has arrived.
    ended: bool,
    /// The receiver does not read.
    unread: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Which port was dialled.
    pub(crate) channel: Channel,
    ends: [End; 2],
    pipes: [Pipe; 2],
}

impl Conn {
    /// An end.
    #[must_use]
    pub(crate) fn end(&self, side: Side) -> &End {
        &self.ends[side.ix()]
    }
}

/// All connections and links.
#[derive(Debug)]
pub(crate) struct Net {
    options: NetOptions,
    rng: Rng,
    conns: Vec<Conn>,
    hosts: usize,
    cut: Vec<bool>,
    spare: Vec<Vec<u8>>,
    /// When the last reader that rests reads again.
    rest_until: u64,
    /// How long each host rests after each byte that came over a quorum connection.
    rests: Vec<u64>,
    /// A running hash of everything written so far, with who wrote it.
    pub(crate) written: u64,
}

impl Net {
    /// A network of `hosts` servers and clients.
    #[must_use]
    pub(crate) fn new(options: NetOptions, hosts: usize, rng: Rng) -> Self {
        let cut = vec![false; hosts * hosts];
        Self {
            options,
            rng,
            conns: Vec::new(),
            hosts,
            cut,
            spare: Vec::new(),
            rest_until: 0,
            rests: vec![0; hosts],
            written: 0,
        }
    }

    /// Ends everything that makes the network bad. Delays are at most `delay_max` on average from
    /// here on.
    pub(crate) fn heal(&mut self, delay_max: u64) {
        self.options.min = self.options.min.min(delay_max);
        self.options.mean = self.options.mean.min(delay_max);
        self.options.spike_per_mille = 0;
        self.options.segmentation = Segmentation::Whole;
        self.options.slow_reader_per_mille = 0;
    }

    /// The connection.
    #[must_use]
    pub(crate) fn conn(&self, conn: u32) -> &Conn {
        &self.conns[conn as usize]
    }

    /// An end, to be changed.
    pub(crate) fn end_mut(&mut self, conn: u32, side: Side) -> &mut End {
        &mut self.conns[conn as usize].ends[side.ix()]
    }

    /// How many connections there were.
    #[must_use]
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.conns.len()).expect("fewer than 2^32 connections")
    }

    /// Whether bytes from `from` do not reach `to`.
    #[must_use]
    pub(crate) fn is_cut(&self, from: HostIx, to: HostIx) -> bool {
        self.cut[from * self.hosts + to]
    }

    /// Cuts one direction of a link.
    pub(crate) fn cut(&mut self, from: HostIx, to: HostIx) {
        self.cut[from * self.hosts + to] = true;
    }

    /// Mends one direction of a link; what was held back arrives soon, or the connection breaks.
    pub(crate) fn mend(&mut self, now: u64, from: HostIx, to: HostIx, queue: &mut Queue) {
        self.cut[from * self.hosts + to] = false;
        for conn in 0..self.count() {
            for side in [Side::Dialler, Side::Acceptor] {
                let ends = &self.conns[conn as usize].ends;
                if ends[side.ix()].host != from || ends[side.other().ix()].host != to {
                    continue;
                }
                let held = std::mem::take(&mut self.conns[conn as usize].pipes[side.ix()].stalled);
                if !held.is_empty() && self.rng.chance(self.options.reset_on_heal_per_mille) {
                    self.reset(now, conn, queue);
                    continue;
                }
                for len in held {
                    let at = self.arrival(now, conn, side);
                    queue.push(at, Event::Arrive { conn, from: side, len });
                }
            }
        }
    }

    /// From now on mended links break no connections.
    pub(crate) fn mend_whole(&mut self) {
        self.options.reset_on_heal_per_mille = 0;
    }

    /// One draw of the delay from `from` to `to`.
    pub(crate) fn delay(&mut self, from: HostIx, to: HostIx) -> u64 {
        let options = &self.options;
        let mut delay = options.base(from, to) + self.rng.exponential(options.mean);
        if self.rng.chance(options.spike_per_mille) {
            delay += self.rng.exponential(options.spike);
        }
        delay
    }

    /// Dials `to`; the connection's number.
    pub(crate) fn dial(
        &mut self,
        now: u64,
        from: HostIx,
        name: Option<ConnId>,
        to: HostIx,
        channel: Channel,
        queue: &mut Queue,
    ) -> u32 {
        let conn = self.count();
        let end = |host, name| End { host, name, state: EndState::Pending };
        let mut pipes = [Pipe::default(), Pipe::default()];
        for pipe in &mut pipes {
            pipe.buf = self.spare.pop().unwrap_or_default();
        }
        self.conns.push(Conn { channel, ends: [end(from, name), end(to, None)], pipes });
        let delay = self.delay(from, to);
        queue.push(now + delay, Event::Syn { conn });
        conn
    }

    /// Dials a name that is not resolved, which fails after a while; the connection's number.
    pub(crate) fn unresolved(
        &mut self,
        now: u64,
        from: HostIx,
        name: ConnId,
        channel: Channel,
        queue: &mut Queue,
    ) -> u32 {
        let conn = self.count();
        let end = |state| End { host: from, name: Some(name), state };
        let ends = [end(EndState::Pending), End { name: None, ..end(EndState::Closed) }];
        self.conns.push(Conn { channel, ends, pipes: [Pipe::default(), Pipe::default()] });
        let at = now + self.rng.range(MILLI, SECOND);
        queue.push(at, Event::SynAck { conn, opened: false });
        conn
    }

    /// How a dial ends whose target does not answer at all.
    pub(crate) fn dial_timeout(&mut self, now: u64, conn: u32, queue: &mut Queue) {
        let at = now + self.rng.range(SECOND / 2, 5 * SECOND);
        queue.push(at, Event::SynAck { conn, opened: false });
    }

    /// How many bytes may be written now.
    pub(crate) fn room(&mut self, conn: u32, from: Side) -> usize {
        let pipe = &mut self.conns[conn as usize].pipes[from.ix()];
        let room = self.options.window.saturating_sub(pipe.buf.len() - pipe.head);
        pipe.blocked = room == 0;
        room
    }

    /// Bytes go on their way.
    pub(crate) fn write(
        &mut self,
        now: u64,
        conn: u32,
        from: Side,
        bytes: &[u8],
        queue: &mut Queue,
    ) {
        let writer = u64::from(conn) << 1 | from.ix() as u64;
        self.written = mix(self.written ^ hash(bytes)).wrapping_add(writer);
        let pipe = &mut self.conns[conn as usize].pipes[from.ix()];
        if pipe.lost {
            return;
        }
        pipe.buf.extend_from_slice(bytes);
        let mut left = bytes.len();
        let mut pieces = 0;
        while left > 0 {
            pieces += 1;
            let len = match self.options.segmentation {
                Segmentation::Whole => left,
                Segmentation::Halves if pieces < 4 => self.rng.index(left) + 1,
                Segmentation::Bytes if pieces < 40 => 1,
                Segmentation::Halves | Segmentation::Bytes => left,
            };
            left -= len;
            let at = self.arrival(now, conn, from);
            let len = u32::try_from(len).expect("a window is far below 4 GiB");
            queue.push(at, Event::Arrive { conn, from, len });
        }
    }

    fn arrival(&mut self, now: u64, conn: u32, from: Side) -> u64 {
        let ends = &self.conns[conn as usize].ends;
        let delay = self.delay(ends[from.ix()].host, ends[from.other().ix()].host);
        let pipe = &mut self.conns[conn as usize].pipes[from.ix()];
        pipe.last_arrival = pipe.last_arrival.max(now + delay);
        pipe.last_arrival
    }

    /// Bytes arrive. Returns whether there is something new to read.
    pub(crate) fn arrive(&mut self, conn: u32, from: Side, len: u32) -> bool {
        let Conn { ends, pipes, .. } = &mut self.conns[conn as usize];
        let pipe = &mut pipes[from.ix()];
        if pipe.lost {
            return false;
        }
        let hosts = (ends[from.ix()].host, ends[from.other().ix()].host);
        if self.cut[hosts.0 * self.hosts + hosts.1] || !pipe.stalled.is_empty() {
            pipe.stalled.push(len);
            return false;
        }
        pipe.arrived += len as usize;
        pipe.ended |= len == 0;
        !pipe.unread
    }

    /// What `at` can read, and whether that is the end.
    #[must_use]
    pub(crate) fn readable(&self, conn: u32, at: Side) -> (&[u8], bool) {
        let pipe = &self.conns[conn as usize].pipes[at.other().ix()];
        let Conn { channel, ends, .. } = &self.conns[conn as usize];
        let deaf = *channel == Channel::Quorum && self.rests[ends[at.ix()].host] == u64::MAX;
        if pipe.unread || deaf {
            return (&[], false);
        }
        (&pipe.buf[pipe.head..pipe.arrived], pipe.ended)
    }

    /// `at` has consumed some bytes.
    pub(crate) fn consume(&mut self, now: u64, conn: u32, at: Side, len: usize, queue: &mut Queue) {
        let from = at.other();
        let window = self.options.window;
        let pipe = &mut self.conns[conn as usize].pipes[from.ix()];
        pipe.head += len;
        assert!(pipe.head <= pipe.arrived, "a node consumes what it was offered");
        if pipe.head == pipe.buf.len() {
            pipe.buf.clear();
            pipe.head = 0;
            pipe.arrived = 0;
        } else if pipe.head > 4096 && pipe.head * 2 > pipe.buf.len() {
            pipe.buf.drain(..pipe.head);
            pipe.arrived -= pipe.head;
            pipe.head = 0;
        }
        if pipe.blocked && pipe.buf.len() - pipe.head < window {
            pipe.blocked = false;
            queue.push(now + 10 * MICRO, Event::Writable { conn, from });
        }
        let rest = self.rest_after(conn, at, len);
        if rest > 0 {
            self.conns[conn as usize].pipes[from.ix()].unread = true;
            queue.push(now + rest, Event::Readable { conn, at });
            return;
        }
        if len > 0 && self.rng.chance(self.options.slow_reader_per_mille) {
            let until = now + self.rng.exponential(300 * MILLI);
            self.rest_until = self.rest_until.max(until);
            self.conns[conn as usize].pipes[from.ix()].unread = true;
            queue.push(until, Event::Readable { conn, at });
        }
    }

    /// From now on `host` rests for so many ns after each byte that comes over a quorum connection.
    pub(crate) fn set_rest(&mut self, now: u64, host: HostIx, rest: u64, queue: &mut Queue) {
        self.rests[host] = rest;
        for (conn, at) in self.of_host(host) {
            if self.conns[conn as usize].channel == Channel::Quorum {
                queue.push(now, Event::Readable { conn, at });
            }
        }
    }

    fn rest_after(&self, conn: u32, at: Side, len: usize) -> u64 {
        let Conn { channel, ends, .. } = &self.conns[conn as usize];
        let rest = self.rests[ends[at.ix()].host];
        if *channel != Channel::Quorum || rest == u64::MAX {
            return 0;
        }
        rest * len as u64
    }

    /// `at` reads again.
    pub(crate) fn read_on(&mut self, conn: u32, at: Side) {
        self.conns[conn as usize].pipes[at.other().ix()].unread = false;
    }

    /// A process closes its end: orderly, or with a reset if it has not read everything.
    pub(crate) fn close(&mut self, now: u64, conn: u32, at: Side, queue: &mut Queue) {
        self.conns[conn as usize].ends[at.ix()].state = EndState::Closed;
        let incoming = &self.conns[conn as usize].pipes[at.other().ix()];
        let unread = incoming.head < incoming.buf.len();
        if unread && self.rng.chance(500) {
            let at_time = now + self.rng.below(2 * self.options.mean + 100 * MICRO);
            queue.push(at_time, Event::Reset { conn, at: at.other() });
        } else {
            let when = self.arrival(now, conn, at);
            queue.push(when, Event::Arrive { conn, from: at, len: 0 });
        }
        self.drop_pipe(conn, at.other());
    }

    /// Nothing more from `from` is wanted.
    fn drop_pipe(&mut self, conn: u32, from: Side) {
        let pipe = &mut self.conns[conn as usize].pipes[from.ix()];
        pipe.lost = true;
        pipe.head = 0;
        pipe.arrived = 0;
        let mut buf = std::mem::take(&mut pipe.buf);
        buf.clear();
        if buf.capacity() > 0 && self.spare.len() < 64 {
            self.spare.push(buf);
        }
    }

    /// The connection has ended for both sides: free its memory.
    pub(crate) fn forget(&mut self, conn: u32) {
        self.drop_pipe(conn, Side::Dialler);
        self.drop_pipe(conn, Side::Acceptor);
    }

    /// The connection breaks: each side learns it in its own time, having read what came before.
    pub(crate) fn reset(&mut self, now: u64, conn: u32, queue: &mut Queue) {
        for at in [Side::Dialler, Side::Acceptor] {
            let when = now + self.rng.below(2 * self.options.mean + 100 * MICRO);
            queue.push(when, Event::Reset { conn, at });
        }
    }

    /// The ends at `host` whose process is gone, with something sent to them that nobody has read.
    pub(crate) fn half_open(&self, host: HostIx) -> Vec<(u32, Side)> {
        let mut found = Vec::new();
        for (conn, c) in (0..).zip(&self.conns) {
            for side in [Side::Dialler, Side::Acceptor] {
                let (end, pipe) = (&c.ends[side.ix()], &c.pipes[side.other().ix()]);
                let unread = pipe.head < pipe.buf.len();
                if end.host == host && end.state == EndState::Gone && unread {
                    found.push((conn, side));
                }
            }
        }
        found
    }

    /// When the last of what is on its way will have arrived and is read.
    pub(crate) fn latest_arrival(&self) -> u64 {
        let alive = |end: &End| matches!(end.state, EndState::Open | EndState::Pending);
        let conns = self.conns.iter().filter(|conn| conn.ends.iter().any(alive));
        conns
            .flat_map(|conn| &conn.pipes)
            .map(|pipe| pipe.last_arrival)
            .max()
            .unwrap_or(0)
            .max(self.rest_until)
    }

    /// Bytes on their way to `host`, or unread there.
    pub(crate) fn backlog(&self, host: HostIx) -> usize {
        let open = self.of_host(host).into_iter();
        open.map(|(conn, side)| {
            let pipe = &self.conns[conn as usize].pipes[side.other().ix()];
            pipe.buf.len() - pipe.head
        })
        .sum()
    }

    /// The connections with an open end at `host`, and which end that is.
    pub(crate) fn of_host(&self, host: HostIx) -> Vec<(u32, Side)> {
        let mut found = Vec::new();
        for (conn, c) in (0..).zip(&self.conns) {
            for side in [Side::Dialler, Side::Acceptor] {
                let end = &c.ends[side.ix()];
                if end.host == host && matches!(end.state, EndState::Open | EndState::Pending) {
                    found.push((conn, side));
                }
            }
        }
        found
    }
}
