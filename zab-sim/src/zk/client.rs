//! A client of the ZooKeeper service: speaks its protocol, keeps its session alive or not, moves
//! between servers, and writes down what it sees.

use std::collections::VecDeque;

use zab_harness::client::{Connect, Connected, ReplyHeader, first_frame, reply, xid};

use crate::check::Failure;
use crate::options::Options;
use crate::queue::{HostIx, MILLI};
use crate::subject::{Client, Wish};
use crate::zk::acl::User;
use crate::zk::history::{Answered, Call, Seen, Told};
use crate::zk::local::Locals;
use crate::zk::remembered::Remembered;
use crate::zk::wire::{self, Answer, Request};
use crate::zk::workload::{LONG_MAX, Workload};

/// Requests that a client sends ahead of their answers.
const PIPELINE_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Dialling,
    /// The ConnectRequest is out.
    Greeting,
    Open,
    /// closeSession is out.
    Closing,
}

/// A simulated client of the ZooKeeper service.
#[derive(Debug)]
pub struct ZkClient {
    name: usize,
    pub(crate) user: User,
    pub(crate) locals: Locals,
    left: u32,
    think: u64,
    /// The session time-out it asks for, and gets.
    timeout_ms: i32,
    /// A while in which every server notices that its leader is gone, in ns.
    pub(crate) settling: u64,
    /// A session whose client is heard once in this time must not expire, in ns.
    pub(crate) safe_silence: u64,
    /// Numbers its requests from 1 on each connection, as some clients do.
    restarts_xids: bool,
    healed: bool,
    /// The first moment after the faults is still to come.
    healing: bool,
    phase: Phase,
    server: HostIx,
    session: Option<Connected>,
    last_zxid: i64,
    xid: i32,
    pending: VecDeque<usize>,
    /// Under a mutation: what is in flight is submitted again by the next connection.
    resubmits: bool,
    again: Vec<usize>,
    input: Vec<u8>,
    watches: Remembered,
    workload: Workload,
    /// Earlier alarms are stale.
    next_wake: u64,
    /// When a dial or handshake has taken too long.
    patience: u64,
    heard: u64,
    sent: u64,
    /// A process that does nothing: what arrives waits.
    asleep: Option<u64>,
    ended_asleep: bool,
    writes: u64,
    pub(crate) calls: Vec<Call>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) broken: Option<Failure>,
}

impl Client for ZkClient {
    fn new(index: usize, options: &Options) -> Self {
        let tick_ms = i32::try_from(options.tick_time.as_millis()).unwrap_or(i32::MAX);
        // What the clients are like is drawn from the seed by their numbers.
        let nature = crate::rng::mix(options.seed.wrapping_add(index as u64) ^ 0x0c11_e475);
        let ticks = [2_u8, 4, 10, 10][usize::from(nature.to_le_bytes()[0] % 4)];
        let tick = u64::try_from(options.tick_time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            name: index + 1,
            user: User::numbered(nature >> 16),
            locals: Locals::drawn(options),
            left: options.requests,
            think: options.think,
            timeout_ms: i32::from(ticks) * tick_ms,
            settling: 2 * u64::from(options.sync_limit + 1) * tick,
            // Clocks drift, and signs of life travel with the pings between servers.
            safe_silence: (u64::from(ticks) * tick * 8 / 10).saturating_sub(3 * tick),
            restarts_xids: nature >> 8 & 3 == 0,
            healed: false,
            healing: false,
            phase: Phase::Idle,
            server: 0,
            session: None,
            last_zxid: 0,
            xid: 0,
            pending: VecDeque::new(),
            resubmits: false,
            again: Vec::new(),
            input: Vec::new(),
            watches: Remembered::default(),
            workload: Workload::new(
                index,
                if super::keeps_little(options.seed) { 0 } else { LONG_MAX },
            ),
            next_wake: 0,
            patience: 0,
            heard: 0,
            sent: 0,
            asleep: None,
            ended_asleep: false,
            writes: 0,
            calls: Vec::new(),
            seen: Vec::new(),
            broken: None,
        }
    }

    fn wake(&mut self, wish: &mut Wish<'_>) {
        if wish.now < self.next_wake {
            return;
        }
        if std::mem::take(&mut self.healing) {
            self.seen.push(Seen::Healed { at: wish.now });
        }
        if let Some(until) = self.asleep {
            if wish.now < until {
                self.alarm(until, wish);
                return;
            }
            self.rise(wish);
        }
        match self.phase {
            Phase::Idle => self.dial(wish),
            Phase::Dialling | Phase::Greeting | Phase::Closing => {
                if wish.now >= self.patience {
                    self.hang_up(wish);
                    self.dial(wish);
                }
            }
            Phase::Open => self.work(wish),
        }
        if self.asleep.is_none() {
            let pause = if self.left > 0 { wish.rng.exponential(self.think) } else { u64::MAX };
            self.alarm(wish.now + 1 + pause.min(self.timeout() / 4), wish);
        }
    }

    fn opened(&mut self, wish: &mut Wish<'_>) {
        self.phase = Phase::Greeting;
        let connect = Connect { last_zxid: self.last_zxid, ..Connect::new(self.timeout_ms) };
        let own =
            |own: Connected| Connect { session: own.session, password: own.password, ..connect };
        self.session.map_or(connect, own).put(&mut wish.send);
    }

    fn received(&mut self, bytes: &[u8], wish: &mut Wish<'_>) -> usize {
        self.input.extend_from_slice(bytes);
        if self.asleep.is_none() {
            self.read(wish);
        }
        bytes.len()
    }

    fn closed(&mut self, wish: &mut Wish<'_>) {
        if self.asleep.is_some() {
            self.ended_asleep = true;
            return;
        }
        self.lose();
        self.alarm(wish.now + 1 + wish.rng.below(self.timeout() / 8), wish);
    }

    fn completed(&self) -> u64 {
        self.writes
    }

    fn persevere(&mut self) {
        self.left = u32::MAX;
        self.think = self.think.max(20 * MILLI);
        (self.healed, self.healing) = (true, true);
        self.asleep = self.asleep.map(|_| 0);
        self.next_wake = 0;
    }

    fn trouble(&mut self) {
        self.seen.push(Seen::Trouble);
    }
}

impl ZkClient {
    fn timeout(&self) -> u64 {
        let ms = self.session.map_or(self.timeout_ms, |session| session.timeout_ms);
        u64::try_from(ms).unwrap_or(0) * MILLI
    }

    fn alarm(&mut self, at: u64, wish: &mut Wish<'_>) {
        self.next_wake = at;
        wish.wake_at = Some(at);
    }

    fn say(&self, wish: &mut Wish<'_>, text: impl FnOnce() -> String) {
        let name = self.name;
        wish.trace.say(|| format!("c{name} {}", text()));
    }

    fn fail(&mut self, invariant: &'static str, text: &str) {
        let text = format!("client {}: {text}", self.name);
        self.broken.get_or_insert(Failure { invariant, text });
    }

    fn dial(&mut self, wish: &mut Wish<'_>) {
        // A session may be its server's alone: half of the time its client comes back there.
        let stays = self.locals.enabled && self.session.is_some() && wish.rng.chance(500);
        if !stays {
            self.server = wish.rng.index(wish.servers);
        }
        wish.connect = Some(self.server);
        self.phase = Phase::Dialling;
        self.patience = wish.now + (self.timeout() / 2).max(20 * MILLI);
        let server = self.server + 1;
        self.say(wish, || format!("dials s{server}"));
    }

    fn hang_up(&mut self, wish: &mut Wish<'_>) {
        wish.disconnect = true;
        self.lose();
    }

    /// The connection is gone; what was asked on it may or may not be carried out.
    fn lose(&mut self) {
        if self.phase == Phase::Closing {
            self.give_up();
        }
        self.phase = Phase::Idle;
        if std::mem::take(&mut self.resubmits) {
            self.again = self.pending.iter().copied().collect();
        }
        self.pending.clear();
        self.input.clear();
        self.seen.push(Seen::Lost);
    }

    /// The session is over for this client.
    fn give_up(&mut self) {
        self.session = None;
        self.watches = Remembered::default();
        self.last_zxid = 0;
        self.seen.push(Seen::Closed);
    }

    /// The end of a nap.
    fn rise(&mut self, wish: &mut Wish<'_>) {
        self.asleep = None;
        self.read(wish);
        if std::mem::take(&mut self.ended_asleep) && self.phase != Phase::Idle {
            self.lose();
        }
    }

    /// Time for something new on an open connection.
    fn work(&mut self, wish: &mut Wish<'_>) {
        if !self.pending.is_empty() && wish.now > self.heard.max(self.sent) + self.timeout() * 2 / 3
        {
            self.say(wish, || "hears nothing".to_owned());
            self.hang_up(wish);
            return;
        }
        if !self.healed && self.misbehave(wish) {
            return;
        }
        if self.left > 0 && self.pending.len() < PIPELINE_MAX {
            self.left -= 1;
            let request = self.workload.next(wish.rng, self.healed);
            let follow_up = matches!(request, Request::Sync { .. });
            self.send(request, wish);
            if follow_up {
                let read = self.workload.read(wish.rng);
                self.send(read, wish);
            }
        } else if wish.now >= self.sent + self.timeout() / 4 {
            self.send(Request::Ping, wish);
        }
    }

    /// Naps, long walks, moves to other servers.
    fn misbehave(&mut self, wish: &mut Wish<'_>) -> bool {
        match wish.rng.below(1000) {
            0..4 => {
                let length = wish.rng.exponential(self.timeout()).min(4 * self.timeout());
                self.say(wish, || format!("sleeps for {} ms", length / MILLI));
                self.asleep = Some(wish.now + length);
                self.alarm(wish.now + length, wish);
            }
            4..6 => {
                self.hang_up(wish);
                let length = wish.rng.exponential(self.timeout()).min(4 * self.timeout());
                self.say(wish, || format!("is away for {} ms", length / MILLI));
                // Nothing but the alarm of `wake` may come before.
                self.asleep = Some(wish.now + length);
                self.alarm(wish.now + length, wish);
            }
            6..16 => {
                self.hang_up(wish);
                self.dial(wish);
            }
            16..18 => self.send(Request::Close, wish),
            _ => return false,
        }
        true
    }

    fn send(&mut self, request: Request, wish: &mut Wish<'_>) {
        let Some(session) = self.session else { return };
        let xid = match request {
            Request::Ping => xid::PING,
            Request::Auth(_) => xid::AUTH,
            Request::SetWatches(_) => xid::SET_WATCHES,
            _ => {
                self.xid += 1;
                self.xid
            }
        };
        if request == Request::Close {
            self.phase = Phase::Closing;
            self.patience = wish.now + self.timeout();
        }
        request.encode(xid, &mut wish.send);
        self.say(wish, || format!("{:#x} asks {xid} {request:?}", session.session));
        self.sent = wish.now;
        self.pending.push_back(self.calls.len());
        let session = session.session;
        self.calls.push(Call { session, xid, request, invoked: wish.now, answered: None });
    }

    /// Takes whole frames from what has arrived.
    fn read(&mut self, wish: &mut Wish<'_>) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(frame) = first_frame(&input[at..]) {
            at += 4 + frame.len();
            self.heard = wish.now;
            let result = match self.phase {
                Phase::Greeting => self.greeted(frame, wish),
                Phase::Open | Phase::Closing => self.answered(frame, wish),
                Phase::Idle | Phase::Dialling => return,
            };
            if let Err(error) = result {
                self.fail("W0", &format!("an answer does not decode ({error}): {frame:02x?}"));
            }
        }
        if matches!(self.phase, Phase::Greeting | Phase::Open | Phase::Closing) {
            self.input = input[at..].to_vec();
        }
    }

    fn greeted(&mut self, frame: &[u8], wish: &mut Wish<'_>) -> Result<(), zab_proto::DecodeError> {
        let at = wish.now;
        match (Connected::read(frame)?, self.session) {
            (None, None) => self.fail("W8", "a new session is refused"),
            (None, Some(old)) => {
                self.say(wish, || format!("{:#x} is refused", old.session));
                self.seen.push(Seen::Refused { at, server: self.server });
                self.give_up();
                self.hang_up(wish);
                self.alarm(wish.now + 1, wish);
            }
            (Some(new), old) => {
                if let Some(old) = old
                    && (old.session, old.password) != (new.session, new.password)
                {
                    let text =
                        format!("goes on with session {:#x}, is given {new:x?}", old.session);
                    self.fail("W9", &text);
                }
                let (server, resumed) = (self.server, old.is_some());
                self.say(wish, || format!("{:#x} attached to s{}", new.session, server + 1));
                self.seen.push(Seen::Attached { at, session: new.session, server, resumed });
                self.session = Some(new);
                self.phase = Phase::Open;
                if self.restarts_xids || !resumed {
                    self.xid = 0;
                }
                if self.user.id().is_some() {
                    self.send(Request::Auth(self.user), wish);
                }
                if resumed && let Some(lists) = self.watches.lists(self.last_zxid) {
                    self.send(Request::SetWatches(lists), wish);
                }
                for call in std::mem::take(&mut self.again) {
                    let Call { session, xid, request, .. } = &self.calls[call];
                    if *session == new.session && resumed && request.is_write() {
                        request.encode(*xid, &mut wish.send);
                        self.pending.push_back(call);
                    }
                }
                if !resumed {
                    for request in self.workload.furniture() {
                        self.send(request, wish);
                    }
                }
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        frame: &[u8],
        wish: &mut Wish<'_>,
    ) -> Result<(), zab_proto::DecodeError> {
        let (header, body) = reply(frame)?;
        if header.xid == wire::XID_RESUBMIT {
            self.resubmits = true;
            return Ok(());
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        if header.xid == xid::EVENT {
            let (kind, path) = wire::event(body)?;
            let told = Told { zxid: header.zxid, kind, path };
            self.say(wish, || format!("hears {told:x?}"));
            self.watches.told(&told);
            self.seen.push(Seen::Event(told));
            return Ok(());
        }
        let expected = self.pending.front().map(|call| self.calls[*call].xid);
        if expected != Some(header.xid) {
            self.fail("W3", &format!("{header:?} is not the answer to request {expected:?}"));
            self.hang_up(wish);
            return Ok(());
        }
        let index = self.pending.pop_front().expect("there is a first one");
        self.settle(index, header, body, wish)
    }

    fn settle(
        &mut self,
        index: usize,
        header: ReplyHeader,
        body: &[u8],
        wish: &mut Wish<'_>,
    ) -> Result<(), zab_proto::DecodeError> {
        let ReplyHeader { xid, zxid, code } = header;
        let call = &mut self.calls[index];
        let answer: Answer = wire::answer(&call.request, code, body)?;
        wish.trace.say(|| format!("c{} answer {xid} at {zxid:#x}: {code} {answer:?}", self.name));
        self.watches.answered(&call.request, code);
        self.workload.learn(&call.request, &answer);
        self.writes += u64::from(call.request.is_write());
        call.answered = Some(Answered { at: wish.now, zxid, code, answer });
        let closed = call.request == Request::Close;
        self.seen.push(Seen::Answer(index));
        if closed {
            self.phase = Phase::Open;
            self.give_up();
            self.hang_up(wish);
            self.alarm(wish.now + 1, wish);
        }
        Ok(())
    }
}
