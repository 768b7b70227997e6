//! Faults put in on purpose between the service, its clients and the core. See [`Mutation`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use zab_harness::client::{first_frame, xid};
use zab_proto::wire::jute::Reader;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{ConnId, Epoch, Instant, Origin, Phase, ServerState, Status};
use zk_service::txn::Txn;
use zk_service::{Database, Opcode};

use crate::mutation::Mutation;
use crate::rng::Map;
use crate::zk::local::Locals;
use crate::zk::{acl, wire};

/// A forwarded request: from whom, the request, identities.
type Late = (Origin, Vec<u8>, Vec<u8>);

/// For so long after a leader began, what it is asked was mostly in flight before.
const RESUBMISSION: Duration = Duration::from_millis(100);

/// Alters what passes, under a mutation.
#[derive(Debug)]
pub(crate) struct Faults {
    mutation: Option<Mutation>,
    locals: Locals,
    leading: bool,
    serving: bool,
    /// Changes of the status so far.
    roles: i64,
    /// Connections whose first frame has not come.
    greeting: Map<ConnId, ()>,
    /// Answers of the leader to syncs that were answered without them.
    early: usize,
    forwarded: u64,
    /// When this server began to lead.
    led_since: Option<Instant>,
    /// A request that is overtaken, and whether the present one is it.
    late: Option<Late>,
    holds_back: bool,
    /// Connections with a session, and those that are closed for a snapshot.
    greeted: Map<ConnId, ()>,
    snapshot: Map<ConnId, ()>,
    unread: BTreeSet<u32>,
    outgoing: Map<ConnId, Outgoing>,
}

/// What a connection has been told by the service and not sent.
#[derive(Debug, Default)]
struct Outgoing {
    raw: Vec<u8>,
    ready: Vec<u8>,
    events: Vec<u8>,
    /// Paths of persistent watches, and whether they have fired.
    persistent: BTreeMap<Vec<u8>, bool>,
}

/// Parts of frames, with the length in front.
const XID: usize = 4;
const OP: usize = 8;
const RECORD: usize = 12;
/// Of an event.
const EVENT_PATH: usize = 28;
/// Of a ConnectRequest.
const SESSION: usize = 20;

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

fn opcode(frame: &[u8]) -> Option<Opcode> {
    number(frame, OP).and_then(Opcode::from_wire)
}

/// The age at which a container goes that was never used; zero: none.
pub(crate) fn container_never_used(mutation: Option<Mutation>) -> Duration {
    Duration::from_millis(u64::from(mutation == Some(Mutation::UnusedContainersRemoved)))
}

/// The work of a turn that a server is told to keep to.
pub(super) fn work_per_turn(work: u64, mutation: Option<Mutation>) -> u64 {
    if mutation == Some(Mutation::TurnWithoutEnd) { u64::MAX } else { work }
}

impl Faults {
    pub(crate) fn new(mutation: Option<Mutation>, locals: Locals) -> Self {
        Self {
            mutation,
            locals,
            leading: false,
            serving: false,
            roles: 0,
            greeting: Map::default(),
            early: 0,
            forwarded: 0,
            led_since: None,
            late: None,
            holds_back: false,
            greeted: Map::default(),
            snapshot: Map::default(),
            unread: BTreeSet::new(),
            outgoing: Map::default(),
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether requests have to be looked at.
    pub(crate) fn reads_along(&self) -> bool {
        self.mutation.is_some_and(|mutation| Mutation::SERVICE.contains(&mutation))
    }

    /// Takes note of the status, and returns what the service is told of it.
    pub(crate) fn became(&mut self, now: Instant, status: &Status) -> Status {
        let leads = status.state == ServerState::Leading && status.phase == Phase::Broadcast;
        self.led_since = leads.then(|| self.led_since.unwrap_or(now));
        self.late = None;
        self.leading = status.state == ServerState::Leading;
        self.serving = status.phase == Phase::Broadcast;
        self.early = 0;
        self.roles += 1;
        let lies = self.is(Mutation::ResubmittedTooEarly);
        Status { epoch: if lies { Epoch(self.roles) } else { status.epoch }, ..*status }
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        self.greeted.remove(&conn);
        self.snapshot.remove(&conn);
    }

    /// A snapshot takes the place of the state: clients are to submit again what they have in flight.
    pub(crate) fn installed(&mut self) {
        if self.is(Mutation::ResubmittedAfterSnapshot) {
            self.snapshot = std::mem::take(&mut self.greeted);
        }
    }

    fn is_resubmission(&self, now: Instant, data: &[u8]) -> bool {
        let write = number(data, 12).is_some_and(|op| op > 0 && op != Opcode::Sync.wire());
        write && self.led_since.is_some_and(|since| now < since + RESUBMISSION)
    }

    /// What goes to the leader's service before a forwarded request. Under the mutation each second request
    /// of a session that has two under way comes before the first.
    pub(crate) fn reorder(
        &mut self,
        now: Instant,
        from: Origin,
        data: &[u8],
        auth: &[u8],
    ) -> Vec<Late> {
        self.holds_back = false;
        if !self.is(Mutation::ResubmittedOutOfOrder) || !self.is_resubmission(now, data) {
            return self.held_back();
        }
        let mut before = Vec::new();
        if let Some(late) = self.late.take() {
            if late.1.get(..8) == data.get(..8) {
                before.push((from, data.to_vec(), auth.to_vec()));
            }
            before.push(late);
            self.holds_back = before.len() == 2;
        }
        if before.len() < 2 {
            self.late = Some((from, data.to_vec(), auth.to_vec()));
            self.holds_back = true;
        }
        before
    }

    /// Whether the present request has come already, or comes later.
    pub(crate) fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// Nothing overtakes it any more.
    pub(crate) fn held_back(&mut self) -> Vec<Late> {
        self.late.take().into_iter().collect()
    }

    /// A learner asks for a session, which is to own a node, and nobody hears of it.
    pub(crate) fn loses(&self, data: &[u8]) -> bool {
        let begins = number(data, 12) == Some(Opcode::CreateSession.wire());
        self.is(Mutation::UpgradeLost) && self.locals.enabled && begins
    }

    /// The leader's word on a session has been given to the service. Whether the sync behind it is to end now.
    pub(crate) fn revalidated(&mut self, data: &[u8]) -> bool {
        let early = self.is(Mutation::OlderConnectionAnswers) && data.get(8) == Some(&1);
        self.early += usize::from(early);
        early
    }

    pub(crate) fn accepted(&mut self, conn: ConnId) {
        self.greeting.insert(conn, ());
        self.outgoing.remove(&conn);
    }

    /// Another transaction to be applied in place of `txn`.
    pub(crate) fn deliver(&self, txn: &[u8]) -> Option<Vec<u8>> {
        let forgets = self.is(Mutation::UpgradeForgotten) && !self.serving;
        if (forgets || self.is(Mutation::EphemeralsUnowned)) && self.locals.enabled {
            let header = TxnHeader::parse(txn).ok()?;
            return (header.kind == Opcode::CreateSession.wire()).then(|| errors(header));
        }
        if self.leading || !self.is(Mutation::ExpiryOnLeaderOnly) {
            return None;
        }
        let header = TxnHeader::parse(txn).ok()?;
        let expiry = header.kind == Opcode::CloseSession.wire() && header.cxid == 0;
        expiry.then(|| errors(header))
    }

    /// Whether a forwarded request is carried out a second time.
    pub(crate) fn again(&mut self, now: Instant, data: &[u8]) -> bool {
        if self.is(Mutation::ResubmittedTwice) {
            return self.is_resubmission(now, data);
        }
        let write = number(data, 12).is_some_and(|op| op > 0 && op != Opcode::Sync.wire());
        self.forwarded += u64::from(write);
        self.is(Mutation::RequestTwice) && write && self.forwarded.is_multiple_of(20)
    }

    /// The identities that come with a forwarded request.
    pub(crate) fn identities<'a>(&self, auth: &'a [u8]) -> &'a [u8] {
        if self.is(Mutation::IdentitiesNotForwarded) { &[0; 4] } else { auth }
    }

    /// Signs of life on their way to the leader.
    pub(crate) fn touched(&self, sessions: &mut Vec<u8>) {
        if self.is(Mutation::TouchesLost) {
            sessions.clear();
        }
    }

    /// Whether the answer to a sync has been given already.
    pub(crate) fn synced(&mut self, token: Option<u64>) -> bool {
        let early = token.is_none() && self.early > 0;
        self.early -= usize::from(early);
        early
    }

    /// A whole frame of a client, on its way to the service.
    pub(crate) fn intake(&mut self, conn: ConnId, frame: &[u8], database: &Database) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if self.greeting.contains_key(&conn) {
            if self.is(Mutation::OldSessionRenewed)
                && let Some(session) = frame.get_mut(SESSION..SESSION + 8)
            {
                session.fill(0);
            }
        } else if self.is(Mutation::MissedEventsForgotten)
            && matches!(opcode(&frame), Some(Opcode::SetWatches | Opcode::SetWatches2))
        {
            frame[RECORD..RECORD + 8].copy_from_slice(&i64::MAX.to_be_bytes());
        } else if self.is(Mutation::PersistentNotArmedAgain)
            && opcode(&frame) == Some(Opcode::SetWatches2)
        {
            frame[OP..OP + 4].copy_from_slice(&Opcode::SetWatches.wire().to_be_bytes());
        } else if self.is(Mutation::PersistentFiresOnce) && opcode(&frame) == Some(Opcode::AddWatch)
        {
            let path = frame[RECORD..frame.len() - 4].to_vec();
            self.outgoing.entry(conn).or_default().persistent.insert(path, false);
        } else if self.is(Mutation::SequenceFromChildren)
            && opcode(&frame) == Some(Opcode::Create2)
            && let Some(numbered) = number_by_children(&frame, database)
        {
            frame = numbered;
        }
        frame
    }

    /// The service has taken a frame. Whether a sync is to end now.
    pub(crate) fn taken(&mut self, conn: ConnId, frame: &[u8]) -> bool {
        if self.greeting.remove(&conn).is_some() {
            self.greeted.insert(conn, ());
            return false;
        }
        let early = self.is(Mutation::SyncAnsweredEarly)
            && !self.leading
            && opcode(frame) == Some(Opcode::Sync);
        self.early += usize::from(early);
        early
    }

    /// Bytes for a client: under the mutations, events come after the answer behind them, or not at
    /// all.
    pub(crate) fn transmit(
        &mut self,
        conn: ConnId,
        buf: &mut [u8],
        mut poll: impl FnMut(&mut [u8]) -> usize,
    ) -> usize {
        if self.snapshot.contains_key(&conn) {
            let n = poll(buf);
            // Behind everything else, once.
            if n == 0 && self.snapshot.remove(&conn).is_some() && buf.len() >= wire::RESUBMIT.len()
            {
                buf[..wire::RESUBMIT.len()].copy_from_slice(&wire::RESUBMIT);
                return wire::RESUBMIT.len();
            }
            return n;
        }
        let late = self.is(Mutation::EventAfterAnswer);
        if !late && !self.is(Mutation::PersistentFiresOnce) {
            return poll(buf);
        }
        let outgoing = self.outgoing.entry(conn).or_default();
        loop {
            let n = poll(buf);
            if n == 0 {
                break;
            }
            outgoing.raw.extend_from_slice(&buf[..n]);
        }
        outgoing.sort(late);
        let n = outgoing.ready.len().min(buf.len());
        buf[..n].copy_from_slice(&outgoing.ready[..n]);
        outgoing.ready.drain(..n);
        n
    }

    pub(crate) fn snapshot_opened(&mut self, snapshot: u32) {
        self.unread.insert(snapshot);
    }

    /// The first bytes of a snapshot: how many are left after the fault.
    pub(crate) fn snapshot_read(&mut self, snapshot: u32, bytes: &mut [u8]) -> usize {
        let n = bytes.len();
        if !self.unread.remove(&snapshot) {
            return n;
        }
        let cut = match self.mutation {
            Some(Mutation::SnapshotWithoutSessions) => sessions_of(bytes),
            Some(Mutation::SnapshotWithoutAcls) => acls_of(bytes),
            _ => None,
        };
        let Some(Range { start, end }) = cut else { return n };
        bytes[start - 4..start].fill(0);
        bytes.copy_within(end.., start);
        n - (end - start)
    }
}

/// A transaction that changes nothing, in place of another.
fn errors(header: TxnHeader) -> Vec<u8> {
    let mut other = Vec::new();
    TxnHeader { kind: Opcode::Error.wire(), ..header }.write(&mut other);
    Txn::Error(zk_service::Code::OK).write(&mut other);
    other
}

/// Where the sessions of a snapshot are, behind their number.
fn sessions_of(snapshot: &[u8]) -> Option<Range<usize>> {
    let count = usize::try_from(number(snapshot, 0)?).ok()?;
    let end = 4 + 12 * count;
    (end <= snapshot.len()).then_some(4..end)
}

/// Where the ACL table of a snapshot is, behind the number of its lists.
fn acls_of(snapshot: &[u8]) -> Option<Range<usize>> {
    let at = sessions_of(snapshot)?.end;
    let mut reader = Reader::new(&snapshot[at..]);
    for _ in 0..reader.vector().ok()?? {
        reader.i64().ok()?;
        acl::read(&mut reader).ok()?;
    }
    Some(at + 4..snapshot.len() - reader.remaining())
}

impl Outgoing {
    fn sort(&mut self, late: bool) {
        let mut at = 0;
        while let Some(frame) = first_frame(&self.raw[at..]) {
            let whole = &self.raw[at..at + 4 + frame.len()];
            at += whole.len();
            if number(whole, XID) == Some(xid::EVENT) {
                let path = whole.get(EVENT_PATH..).unwrap_or_default();
                let fired =
                    self.persistent.get_mut(path).map(|fired| std::mem::replace(fired, true));
                match (fired, late) {
                    (Some(true), _) => {}
                    (_, true) => self.events.extend_from_slice(whole),
                    (_, false) => self.ready.extend_from_slice(whole),
                }
            } else {
                self.ready.extend_from_slice(whole);
                self.ready.append(&mut self.events);
            }
        }
        self.raw.drain(..at);
    }
}

/// A sequential create, numbered by the children that the parent has now.
fn number_by_children(frame: &[u8], database: &Database) -> Option<Vec<u8>> {
    let flags_at = frame.len().checked_sub(4)?;
    let flags = number(frame, flags_at)?;
    let len = usize::try_from(number(frame, RECORD)?).ok()?;
    let path = std::str::from_utf8(frame.get(RECORD + 4..RECORD + 4 + len)?).ok()?;
    let parent = database.tree.node(path.rsplit_once('/')?.0)?;
    if flags & 2 == 0 {
        return None;
    }
    let path = format!("{path}{:010}", parent.child_count());
    let mut out = frame[..RECORD].to_vec();
    out.extend_from_slice(&u32::try_from(path.len()).ok()?.to_be_bytes());
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(&frame[RECORD + 4 + len..flags_at]);
    out.extend_from_slice(&(flags & 1).to_be_bytes());
    let len = u32::try_from(out.len() - 4).ok()?;
    out[..4].copy_from_slice(&len.to_be_bytes());
    Some(out)
}
