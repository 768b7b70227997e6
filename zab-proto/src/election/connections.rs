//! The connections of the election port: who dials whom, which one of a pair survives, and the one
//! notification that waits for each server.
//!
//! The connection that a pair of servers keeps is the one dialled by the larger id. A dial by the
//! smaller one only says "call me": it ends after the handshake, and the larger one dials.
//!
//! Source: ZooKeeper `QuorumCnxManager`.

mod links;

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::IpAddr;
use core::time::Duration;

use bytes::{Buf, BytesMut};

use super::ElectionOutput;
use super::algorithm::CastVote;
use crate::door::Door;
use crate::quorums::Quorums;
use crate::wire::Parsed;
use crate::wire::extension::{self, Tag};
use crate::wire::handshake::{ADDRESSES_LEN_MAX_BYTES, Form, Handshake};
use crate::wire::notification::parse_frame;
use crate::{CloseReason, Config, ConnId, Instant, Sid};

/// The connections of the election port and what is known of the servers behind them.
#[derive(Debug)]
pub(super) struct Connections {
    me: Sid,
    handshake: Vec<u8>,
    /// Text of the configuration, the same in every notification.
    text: Vec<u8>,
    /// What follows it, for members of ours.
    extension: Vec<u8>,
    /// Candidates that are voters in no committed configuration, and their lines.
    pub(super) newcomers: BTreeMap<Sid, String>,
    handshake_timeout: Duration,
    redial_min: Duration,
    links_max: usize,
    /// A server that is not a member may say under which name to dial it (`Config::reconfig`).
    calls_strangers: bool,
    door: Door,
    looking: bool,
    remotes: BTreeMap<Sid, Remote>,
    slots: Vec<Slot>,
    next_nameless: i64,
    /// What `poll_timeout` says, until something changes: it is asked after every event of the
    /// server, and looks at all members.
    deadline: Cell<Option<Option<Instant>>>,
    outputs: VecDeque<ElectionOutput>,
}

/// A server as its peer sees it. Members are known for ever, others while they are connected.
#[derive(Debug, Default)]
struct Remote {
    /// Election addresses by configuration; `None`: not a member.
    addresses: Option<String>,
    /// It votes, so an election needs it.
    voter: bool,
    /// The slot of the connection that the pair keeps.
    up: Option<usize>,
    /// The slot of a dial that has not become one.
    dialling: Option<usize>,
    /// The notification that waits for a connection or for room on it: the latest wins.
    waiting: Option<CastVote>,
    /// The last one taken to be sent. A new connection begins with it, in case it was lost.
    last: Option<CastVote>,
    /// Known to be unreachable since the election began.
    gone: bool,
    /// The last thing heard of it says that it belongs to another ensemble (rule R24).
    foreign: bool,
    /// No dial before this time.
    redial_at: Option<Instant>,
    pause: Duration,
    /// It was told to call and has not yet.
    called: bool,
    /// The last answer given, and when.
    answered: Option<(Instant, CastVote)>,
    /// An answer is owed at this time.
    answer_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    link: Option<Link>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    stage: DialStage,
    /// Where an accepted one comes from, if the driver knows.
    remote: Option<IpAddr>,
    since: Instant,
    /// What is not sent yet of the message that is being sent.
    out: BytesMut,
    /// `Transmit` was asked for and is not used up.
    announced: bool,
    /// A notification has come in.
    heard: bool,
    /// Since when a frame has begun to come in and not ended.
    partial: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DialStage {
    /// Waiting for the dial to succeed.
    Dialling(Sid),
    /// Connected to a larger id: ends with the handshake.
    Calling(Sid),
    /// Waiting for the other side's handshake.
    Accepted,
    /// The connection that the pair keeps.
    Up(Sid),
}

/// A frame that has come in.
#[derive(Debug)]
pub(super) struct Frame<'b> {
    /// Who sent it.
    pub(super) from: Sid,
    /// The notification.
    pub(super) payload: &'b [u8],
    /// It began its connection, so it may repeat something long past.
    pub(super) first: bool,
}

impl Connections {
    pub(super) fn new(config: &Config, quorums: &Quorums) -> Self {
        let mut remotes = BTreeMap::new();
        for sid in quorums.members().filter(|sid| *sid != config.sid) {
            let addresses = quorums.addresses(sid);
            let voter = quorums.is_voter(sid);
            remotes.insert(sid, Remote { addresses, voter, ..Remote::default() });
        }
        Self {
            me: config.sid,
            handshake: own_handshake(config, quorums),
            text: config.ensemble.text().into_bytes(),
            extension: Vec::new(),
            newcomers: BTreeMap::new(),
            handshake_timeout: config.election.handshake_timeout.max(REDIAL_MIN),
            redial_min: config.election.redial_min.clamp(REDIAL_MIN, REDIAL_MAX),
            links_max: config.limits.links_max,
            calls_strangers: config.reconfig,
            door: Door::new(config),
            looking: false,
            remotes,
            slots: Vec::new(),
            next_nameless: 0,
            deadline: Cell::new(None),
            outputs: VecDeque::new(),
        }
    }

    /// Others are members from now on. Who is none any more keeps its connection for as long as it holds;
    /// one whose address has changed is dialled there from the next time on.
    pub(super) fn reconfigure(&mut self, config: &Config, quorums: &Quorums) {
        self.deadline.set(None);
        // A server that is no longer a member is still dialled where it was.
        if quorums.is_member(self.me) {
            self.handshake = own_handshake(config, quorums);
        }
        self.text = config.ensemble.text().into_bytes();
        self.door.reconfigure(quorums);
        let committed = quorums.committed();
        let new = quorums.voters().iter().filter(|sid| !committed.is_voter(**sid));
        let lines =
            new.filter_map(|sid| Some((*sid, quorums.newest().members.get(sid)?.to_string())));
        self.newcomers = lines.collect();
        for remote in self.remotes.values_mut() {
            (remote.addresses, remote.voter) = (None, false);
        }
        for sid in quorums.members().filter(|sid| *sid != self.me) {
            let remote = self.remotes.entry(sid).or_default();
            remote.addresses = quorums.addresses(sid);
            remote.voter = quorums.is_voter(sid);
        }
        self.remotes.retain(|_, remote| {
            remote.addresses.is_some() || remote.up.or(remote.dialling).is_some()
        });
    }

    /// Text of the own configuration as sent.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// An election begins. `lost` is the leader whose loss is the reason, and whether it was silent: then
    /// nothing can be expected of it, though it has closed no connection.
    pub(super) fn start(&mut self, lost: Option<(Sid, bool)>) {
        self.looking = true;
        self.deadline.set(None);
        for (sid, remote) in &mut self.remotes {
            remote.gone = lost
                .is_some_and(|(leader, silent)| leader == *sid && (silent || remote.up.is_none()));
            // A larger server that was told to call keeps its time to do so.
            if !remote.called {
                remote.redial_at = None;
                remote.pause = Duration::ZERO;
            }
        }
    }

    /// The election is over: from now on servers are dialled only when there is something to say.
    pub(super) fn stop(&mut self) {
        self.looking = false;
        self.deadline.set(None);
    }

    /// What the name of a member means now.
    pub(super) fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        self.door.resolved(host, addresses);
    }

    /// What goes after the configuration in every notification from now on.
    pub(super) fn set_extension(&mut self, extension: Vec<u8>) {
        self.extension = extension;
    }

    /// Whether nothing can be expected of `sid`: it is known to be unreachable since the election
    /// began, or belongs to another ensemble.
    pub(super) fn is_gone(&self, sid: Sid) -> bool {
        self.remotes.get(&sid).is_some_and(|remote| remote.gone || remote.foreign)
    }

    /// Whether `sid` belongs to another ensemble.
    pub(super) fn is_foreign(&self, sid: Sid) -> bool {
        self.remotes.get(&sid).is_some_and(|remote| remote.foreign)
    }

    /// Notes whether `sid` belongs to another ensemble; true if that is new.
    pub(super) fn set_foreign(&mut self, sid: Sid, foreign: bool) -> bool {
        let remote = self.remotes.get_mut(&sid);
        remote.is_some_and(|remote| core::mem::replace(&mut remote.foreign, foreign) != foreign)
    }

    /// Leaves `vote` for `sid`, in place of an older one that has not been sent.
    pub(super) fn send(&mut self, now: Instant, sid: Sid, vote: CastVote) {
        let Some(remote) = self.remotes.get_mut(&sid) else { return };
        remote.waiting = Some(vote);
        match remote.up {
            Some(slot) => self.announce(slot),
            None if remote.redial_at.is_none_or(|at| at <= now) => self.dial(now, sid, None),
            None => {}
        }
    }

    /// Answers `sid` with `vote`. The same answer is repeated only after a pause: two servers that
    /// answer whatever they hear would never stop.
    pub(super) fn answer(&mut self, now: Instant, sid: Sid, vote: CastVote) {
        self.deadline.set(None);
        let Some(remote) = self.remotes.get_mut(&sid) else { return };
        match remote.answered {
            Some((at, same)) if same == vote && now < at + ANSWER_PAUSE => {
                remote.answer_at = Some(at + ANSWER_PAUSE);
            }
            _ => {
                remote.answered = Some((now, vote));
                remote.answer_at = None;
                self.send(now, sid, vote);
            }
        }
    }

    /// Somebody has connected. When there are too many, the one that has kept us waiting for its
    /// handshake for longest makes room.
    pub(super) fn accept(&mut self, now: Instant, remote: Option<IpAddr>) -> Option<ConnId> {
        let links = || {
            self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.link.as_ref()?)))
        };
        if links().count() >= self.links_max {
            let waiting = links().filter(|(_, link)| link.stage == DialStage::Accepted);
            let (oldest, _) = waiting.min_by_key(|(_, link)| link.since)?;
            self.close(oldest, CloseReason::Silent);
        }
        let slot = self.open(now, DialStage::Accepted);
        if let Some(link) = &mut self.slots[slot].link {
            link.remote = remote;
        }
        Some(self.id(slot))
    }

    /// A dial has succeeded.
    pub(super) fn opened(&mut self, now: Instant, conn: ConnId) {
        self.deadline.set(None);
        let Some(slot) = self.slot(conn) else { return };
        let handshake = BytesMut::from(&self.handshake[..]);
        let Some(link) = &mut self.slots[slot].link else { return };
        let DialStage::Dialling(sid) = link.stage else { return };
        link.out = handshake;
        link.since = now;
        if sid > self.me {
            link.stage = DialStage::Calling(sid);
            if let Some(remote) = self.remotes.get_mut(&sid) {
                remote.called = true;
                remote.pause(now, CALL_BACK_WAIT);
            }
            self.announce(slot);
        } else {
            self.install(slot, sid);
        }
    }

    /// A dial has failed, or a connection is lost.
    pub(super) fn closed(&mut self, now: Instant, conn: ConnId) {
        self.deadline.set(None);
        let Some(slot) = self.slot(conn) else { return };
        let Some(link) = self.slots[slot].link.take() else { return };
        match link.stage {
            DialStage::Accepted => {}
            DialStage::Dialling(sid) | DialStage::Calling(sid) => {
                self.lose(now, sid, slot, self.redial_min);
            }
            // Reconnecting is the larger one's business first.
            DialStage::Up(sid) if sid > self.me => self.lose(now, sid, slot, CALL_BACK_WAIT),
            DialStage::Up(sid) => self.lose(now, sid, slot, self.redial_min),
        }
    }

    /// Takes bytes off the front of `bytes` and returns how many, with the frame if they are one.
    pub(super) fn receive<'b>(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &'b [u8],
    ) -> (usize, Option<Frame<'b>>) {
        let Some(slot) = self.slot(conn) else { return (bytes.len(), None) };
        let Some(link) = &mut self.slots[slot].link else { return (bytes.len(), None) };
        let malformed = match link.stage {
            DialStage::Accepted => match Handshake::parse(bytes) {
                Parsed::Complete { value, len } => {
                    self.greeted(now, slot, &value);
                    return (len, None);
                }
                Parsed::Incomplete => return (0, None),
                Parsed::Malformed(error) => error,
            },
            DialStage::Up(from) => match parse_frame(bytes) {
                Parsed::Complete { value: payload, len } => {
                    let first = !core::mem::replace(&mut link.heard, true);
                    link.partial = None;
                    if let Some(remote) = self.remotes.get_mut(&from) {
                        remote.gone = false;
                    }
                    return (len, Some(Frame { from, payload, first }));
                }
                Parsed::Incomplete => {
                    if link.partial.is_none() {
                        link.partial = Some(now);
                        self.deadline.set(None);
                    }
                    return (0, None);
                }
                Parsed::Malformed(error) => error,
            },
            // Nobody answers a handshake.
            DialStage::Dialling(_) | DialStage::Calling(_) => return (bytes.len(), None),
        };
        if let DialStage::Up(sid) = link.stage
            && let Some(remote) = self.remotes.get_mut(&sid)
        {
            remote.pause(now, CALL_BACK_WAIT);
        }
        self.close(slot, CloseReason::Malformed(malformed));
        (bytes.len(), None)
    }

    /// Fills `buf` with bytes for `conn`. A handshake is always the first thing on its connection,
    /// so it leaves in one piece unless `buf` is smaller.
    pub(super) fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Some(slot) = self.slot(conn) else { return 0 };
        let mut written = 0;
        loop {
            let Some(link) = &mut self.slots[slot].link else { return written };
            let n = link.out.len().min(buf.len() - written);
            link.out.copy_to_slice(&mut buf[written..written + n]);
            written += n;
            if !link.out.is_empty() {
                return written;
            }
            let next = match link.stage {
                DialStage::Dialling(_) | DialStage::Accepted => None,
                DialStage::Calling(_) => {
                    self.close(slot, CloseReason::Superseded);
                    return written;
                }
                DialStage::Up(sid) => self.remotes.get_mut(&sid).and_then(|remote| {
                    let next = remote.waiting.take();
                    remote.last = next.or(remote.last);
                    next
                }),
            };
            let Some(next) = next else {
                // A notification holds the whole configuration, and after an election the next one
                // may be weeks away.
                if !self.looking {
                    link.out = BytesMut::new();
                }
                link.announced = false;
                return written;
            };
            let mut fields = Cow::Borrowed(&self.extension[..]);
            if let Some(line) = self.newcomers.get(&next.vote.leader) {
                add(&mut fields, Tag::CANDIDATE, line.as_bytes());
            }
            if matches!(link.stage, DialStage::Up(sid) if self.newcomers.contains_key(&sid)) {
                add(&mut fields, Tag::VOTER, &[]);
            }
            link.out.reserve(self.text.len() + fields.len() + NOTIFICATION_LEN);
            next.notification(&self.text).write_extended_frame(&fields, &mut link.out);
        }
    }

    pub(super) fn push(&mut self, output: ElectionOutput) {
        self.outputs.push_back(output);
    }

    pub(super) fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.outputs.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadline.get().unwrap_or_else(|| self.next_deadline());
        self.deadline.set(Some(deadline));
        deadline
    }

    fn next_deadline(&self) -> Option<Instant> {
        let links = self.slots.iter().filter_map(|slot| slot.link.as_ref());
        let deadlines = links.filter_map(|link| self.deadline(link));
        let redials = self.remotes.values().filter_map(|remote| self.redial_at(remote));
        let answers = self.remotes.values().filter_map(|remote| remote.answer_at);
        deadlines.chain(redials).chain(answers).min()
    }

    /// Redials, and drops connections that do not shake hands or finish a frame. Returns who is owed
    /// an answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Sid> {
        self.deadline.set(None);
        for slot in 0..self.slots.len() {
            let Some(link) = &self.slots[slot].link else { continue };
            if self.deadline(link).is_some_and(|at| at <= now) {
                if let DialStage::Up(sid) = link.stage
                    && let Some(remote) = self.remotes.get_mut(&sid)
                {
                    remote.pause(now, CALL_BACK_WAIT);
                } else if let DialStage::Dialling(sid) | DialStage::Calling(sid) = link.stage
                    && let Some(remote) = self.remotes.get_mut(&sid)
                {
                    remote.gone = true;
                    remote.pause(now, self.redial_min);
                }
                self.close(slot, CloseReason::Silent);
            }
        }
        let due = |remote: &Remote| self.redial_at(remote).is_some_and(|at| at <= now);
        let redial: Vec<Sid> =
            self.remotes.iter().filter(|(_, remote)| due(remote)).map(|(sid, _)| *sid).collect();
        for sid in redial {
            self.dial(now, sid, None);
        }
        let mut owed = Vec::new();
        for (sid, remote) in &mut self.remotes {
            if remote.answer_at.is_some_and(|at| at <= now) {
                remote.answer_at = None;
                owed.push(*sid);
            }
        }
        owed
    }

    /// When a link must have shaken hands, or a frame that has begun must be complete: what never
    /// ends swallows every vote that comes after it.
    fn deadline(&self, link: &Link) -> Option<Instant> {
        let since = match link.stage {
            DialStage::Up(_) => link.partial,
            DialStage::Dialling(_) | DialStage::Calling(_) | DialStage::Accepted => {
                Some(link.since)
            }
        };
        since.map(|since| since + self.handshake_timeout)
    }

    /// Voters are redialled while looking; anybody else when there is something to say.
    fn redial_at(&self, remote: &Remote) -> Option<Instant> {
        let wanted = self.looking && remote.voter && remote.up.or(remote.dialling).is_none();
        remote.redial_at.filter(|_| wanted)
    }
}

impl Remote {
    /// Puts the next dial off, for twice as long as the last time.
    fn pause(&mut self, now: Instant, at_least: Duration) {
        self.pause = (self.pause * 2).clamp(at_least, REDIAL_MAX);
        self.redial_at = Some(now + self.pause);
    }
}

/// Adds a field to those that every notification has.
fn add(fields: &mut Cow<'_, [u8]>, tag: Tag, value: &[u8]) {
    let fields = fields.to_mut();
    if fields.is_empty() {
        extension::begin(fields);
    }
    extension::put(fields, tag, value);
}

/// Whether a connection belongs to an election port.
pub(super) fn owns(conn: ConnId) -> bool {
    !conn.is_client() && conn.slot() & ELECTION_BIT != 0
}

/// The handshake of this server's dials.
fn own_handshake(config: &Config, quorums: &Quorums) -> Vec<u8> {
    let addresses = quorums.addresses(config.sid).unwrap_or_default();
    let first = addresses.split('|').next().unwrap_or_default();
    let (form, text) = match config.multi_address {
        true if addresses.len() <= ADDRESSES_LEN_MAX_BYTES => (Form::V2, addresses.as_str()),
        _ if first.is_empty() => (Form::Legacy, ""),
        _ => (Form::V1, first),
    };
    let mut out = Vec::new();
    Handshake { form, sid: config.sid, text }.write(&mut out);
    out
}

/// Marks the slots of election connections in a [`ConnId`].
const ELECTION_BIT: u32 = 1 << 30;
/// A refused dial costs microseconds on the machines this runs on, and the port may be bound at
/// any moment.
const REDIAL_MIN: Duration = Duration::from_millis(1);
/// A server that starts dials everybody itself, so a slow pace loses nothing against one that is
/// down.
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// ZooKeeper drops the connection it has when the smaller side asks again to be called, so asking
/// faster than it dials would keep the pair apart. This is its own first pause.
const CALL_BACK_WAIT: Duration = Duration::from_millis(200);
/// Dials of both sides at once cross within a round trip.
const CROSSING: Duration = Duration::from_millis(100);
/// More than a notification has besides its configuration.
const NOTIFICATION_LEN: usize = 64;
/// Pause between equal answers to the same server.
const ANSWER_PAUSE: Duration = Duration::from_millis(10);
/// Servers that are no members get one of so many connections.
const STRANGERS_SHARE: usize = 4;
