//! Makes an [`Application`] of a plain state machine: clients add to it and read from it through
//! any server. What an embedder needs to put a state machine of its own into the simulator.

use std::collections::{HashMap, VecDeque};

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Application, BadSnapshot, ClientOutput, ConnId, Core, Incoming, InstallProgress, Instant,
    Origin, Phase, ProposeError, ServerState, SnapshotDigest, Status, Zxid,
};
use zk_service::Opcode;

use crate::check::{Checker, Failure};
use crate::coverage::Coverage;
use crate::members;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::hash;
use crate::subject::{Client, Subject};

/// A deterministic state machine of 64-bit commands and answers.
pub trait StateMachine: Default {
    /// The clients that use it in the simulator.
    type Client: Client;
    /// Carries out a committed command.
    fn apply(&mut self, command: u64) -> u64;
    /// Looks at the state.
    fn read(&self) -> u64;
    /// Writes the state.
    fn save(&self, out: &mut Vec<u8>);
    /// Reads what `save` wrote.
    fn load(bytes: &[u8]) -> Option<Self>;
    /// A digest of the state.
    fn digest(&self) -> u64 {
        let mut state = Vec::new();
        self.save(&mut state);
        hash(&state)
    }
    /// Judges what the clients have seen.
    ///
    /// # Errors
    /// The broken promise.
    fn judge(clients: &[Self::Client]) -> Result<(), Failure>;
}

impl<S: StateMachine> Subject for Replica<S> {
    type Client = S::Client;

    const LEN_MAX: usize = 900;

    fn start(_server: HostIx, incarnation: u32, _seed: u64, _options: &Options) -> Self {
        Self::new(incarnation)
    }

    fn digest(&self) -> u64 {
        self.state.digest()
    }

    fn take_met(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.met)
    }

    fn judge(
        clients: &[S::Client],
        _servers: &[&Self],
        _ghost: &Checker,
        _coverage: &mut Coverage,
    ) -> Result<(), Failure> {
        S::judge(clients)
    }
}

/// What a client asks: one byte, then the request's number and the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Carry out a command.
    Write = 1,
    /// Look at this server's state.
    Read = 2,
    /// Look at the state after everything that was answered before.
    SyncRead = 3,
}

/// Bytes of a request: what, number, command, and how many bytes of padding the txn gets.
pub const REQUEST_LEN: usize = 1 + 8 + 8 + 2;
/// The longest request on its way to a leader.
const REQUEST_LEN_MAX: usize = 1300;
/// Bytes of an answer: number, done (1) or refused (0), value.
pub const ANSWER_LEN: usize = 8 + 1 + 8;

/// A client's request. `number` must be its own among all clients.
#[must_use]
pub fn request(ask: Ask, number: u64, command: u64, pad: u16) -> [u8; REQUEST_LEN] {
    let mut bytes = [ask as u8; REQUEST_LEN];
    bytes[1..9].copy_from_slice(&number.to_be_bytes());
    bytes[9..17].copy_from_slice(&command.to_be_bytes());
    bytes[17..].copy_from_slice(&pad.to_be_bytes());
    bytes
}

/// The request's number and, unless it was refused, the value.
#[must_use]
pub fn parse_answer(bytes: &[u8; ANSWER_LEN]) -> (u64, Option<u64>) {
    (word(bytes), (bytes[8] == 1).then(|| word(&bytes[9..])))
}

/// A replicated `S`.
#[derive(Debug)]
pub struct Replica<S> {
    state: S,
    conns: Vec<Slot>,
    outputs: VecDeque<ClientOutput>,
    /// Numbers of requests that wait for their transaction.
    waiting: HashMap<u64, ConnId>,
    /// Leader: requests that wait for the end of a freshness round.
    rounds: HashMap<u64, (u64, ConnId)>,
    /// Learner: requests that wait for SYNC, in order.
    syncs: VecDeque<(u64, ConnId)>,
    serving: bool,
    leading: bool,
    snapshots: HashMap<u32, (Vec<u8>, usize)>,
    next_snapshot: u32,
    staged: Option<S>,
    stage: Vec<u8>,
    /// Who waits for room, longest first.
    starved: VecDeque<Starved>,
    /// Bounds that were met.
    met: Vec<&'static str>,
}

/// What waits for room.
#[derive(Debug)]
enum Starved {
    /// The next request of a client, whose bytes the driver keeps.
    Client(ConnId),
    /// A command that a learner has forwarded to this leader.
    Command(Vec<u8>),
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    open: bool,
    out: Vec<u8>,
}

impl<S: StateMachine> Replica<S> {
    /// The empty state.
    #[must_use]
    pub fn new(incarnation: u32) -> Self {
        Self {
            state: S::default(),
            conns: Vec::new(),
            outputs: VecDeque::new(),
            waiting: HashMap::new(),
            rounds: HashMap::new(),
            syncs: VecDeque::new(),
            serving: false,
            leading: false,
            snapshots: HashMap::new(),
            next_snapshot: incarnation << 16,
            staged: None,
            stage: Vec::new(),
            starved: VecDeque::new(),
            met: Vec::new(),
        }
    }

    /// The state machine.
    pub fn state(&self) -> &S {
        &self.state
    }

    fn answer(&mut self, conn: ConnId, number: u64, value: Option<u64>) {
        let Some(slot) = self.conns.get_mut(conn.slot() as usize) else { return };
        if !slot.open || slot.generation != conn.generation() {
            return;
        }
        slot.out.extend_from_slice(&number.to_be_bytes());
        slot.out.push(u8::from(value.is_some()));
        slot.out.extend_from_slice(&value.unwrap_or(0).to_be_bytes());
        self.outputs.push_back(ClientOutput::Transmit(conn));
    }

    /// Who has waited longest may try again, and the next one when that one has had its turn: whoever
    /// is fast enough to ask again at once would leave nothing to the others.
    fn feed_starved(&mut self) {
        if let Some(Starved::Client(conn)) = self.starved.front() {
            self.outputs.push_back(ClientOutput::Resume(*conn));
        }
    }

    /// The same on a leader, where learners' commands wait in between.
    fn feed_all(&mut self, core: &mut Core<'_>) {
        while let Some(Starved::Command(body)) = self.starved.front() {
            if Self::try_propose(core, body) == Err(ProposeError::Full) {
                return;
            }
            self.starved.pop_front();
        }
        self.feed_starved();
    }

    /// Whether a client waits for room behind another.
    fn is_next(&self, conn: ConnId) -> bool {
        match self.starved.front() {
            Some(Starved::Client(first)) => *first == conn,
            Some(Starved::Command(_)) => false,
            None => true,
        }
    }

    /// A client waits for room, in its place if it has one.
    fn starve(&mut self, conn: ConnId) {
        let has = |starved: &Starved| matches!(starved, Starved::Client(other) if *other == conn);
        if !self.starved.iter().any(has) {
            self.starved.push_back(Starved::Client(conn));
        }
    }

    /// Proposes a command with the header every transaction has.
    pub(crate) fn propose(core: &mut Core<'_>, body: &[u8]) -> bool {
        Self::try_propose(core, body).is_ok()
    }

    fn try_propose(core: &mut Core<'_>, body: &[u8]) -> Result<Zxid, ProposeError> {
        let zxid = core.next_zxid().ok_or(ProposeError::NotLeading)?;
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 0, kind: 5 };
        let mut txn = Vec::with_capacity(TxnHeader::LEN + body.len());
        header.write(&mut txn);
        txn.extend_from_slice(body);
        core.propose(&txn)
    }

    fn ask(&mut self, core: &mut Core<'_>, conn: ConnId, request: &[u8; REQUEST_LEN]) {
        let number = word(&request[1..9]);
        match request[0] {
            1 => {
                let pad = usize::from(u16::from_be_bytes([request[17], request[18]]));
                let mut body = request[1..17].to_vec();
                body.resize(16 + pad, 0);
                let sent = if self.leading {
                    Self::propose(core, &body)
                } else {
                    core.request(&forwarded(WRITE, &body), NO_AUTH)
                };
                let field_len_max = core.peer().config().limits.field_len_max_bytes;
                if TxnHeader::LEN + body.len() > field_len_max {
                    self.met.push("limit: request or transaction too long");
                }
                if sent {
                    self.waiting.insert(number, conn);
                } else {
                    self.answer(conn, number, None);
                }
            }
            3 if self.leading => {
                let token = core.sync();
                self.rounds.insert(token, (number, conn));
            }
            3 => {
                if core.request(&forwarded(SYNC, &[]), NO_AUTH) {
                    self.syncs.push_back((number, conn));
                } else {
                    self.answer(conn, number, None);
                }
            }
            _ => {
                let value = self.state.read();
                self.answer(conn, number, Some(value));
            }
        }
    }
}

impl<S: StateMachine> Application for Replica<S> {
    fn deliver(&mut self, _now: Instant, _zxid: Zxid, txn: &[u8]) {
        if members::configuration(txn).is_some() {
            return;
        }
        let body = &txn[TxnHeader::LEN..];
        let value = self.state.apply(word(&body[8..16]));
        let number = word(&body[..8]);
        if let Some(conn) = self.waiting.remove(&number) {
            self.answer(conn, number, Some(value));
            self.feed_starved();
        }
    }

    fn became(&mut self, _core: &mut Core<'_>, status: &Status) {
        self.leading = status.state == ServerState::Leading;
        self.serving = status.phase == Phase::Broadcast;
        if self.serving {
            return;
        }
        self.waiting.clear();
        self.rounds.clear();
        self.syncs.clear();
        self.starved.clear();
        for (slot, conn) in (0..).zip(&mut self.conns) {
            if std::mem::take(&mut conn.open) {
                let name = ConnId::client(slot, conn.generation);
                self.outputs.push_back(ClientOutput::Close(name));
            }
        }
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], _auth: &[u8]) {
        match data.get(12..16) {
            Some(opcode) if opcode == SYNC.to_be_bytes() => core.sync_learner(from),
            Some(_) if data.len() >= 32 => {
                // There is always room for what a learner sends, and would be none for others.
                self.starved.push_back(Starved::Command(data[16..].to_vec()));
                self.feed_all(core);
            }
            _ => {}
        }
    }

    fn touched(&mut self, _core: &mut Core<'_>, _from: Origin, _sessions: &[u8]) {}

    fn revalidate(&mut self, _core: &mut Core<'_>, _from: Origin, _data: &[u8]) {}

    fn take_touched(&mut self, _sessions: &mut Vec<u8>) {}

    fn revalidated(&mut self, _core: &mut Core<'_>, _data: &[u8]) {}

    fn synced(&mut self, _core: &mut Core<'_>, token: Option<u64>) {
        let done = match token {
            Some(token) => self.rounds.remove(&token),
            None => self.syncs.pop_front(),
        };
        if let Some((number, conn)) = done {
            let value = self.state.read();
            self.answer(conn, number, Some(value));
            self.feed_starved();
        }
    }

    fn accept(&mut self, _core: &mut Core<'_>, _incoming: &Incoming) -> Option<ConnId> {
        if !self.serving {
            return None;
        }
        let free = self.conns.iter().position(|slot| !slot.open);
        let at = free.unwrap_or_else(|| {
            self.conns.push(Slot::default());
            self.conns.len() - 1
        });
        let generation = self.conns[at].generation + 1;
        self.conns[at] = Slot { generation, open: true, ..Slot::default() };
        Some(ConnId::client(u32::try_from(at).ok()?, generation))
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(request) = bytes[used..].first_chunk::<REQUEST_LEN>() {
            // A leader comes to the acknowledgements behind as much as each learner may have under way.
            let under_way = self.waiting.len() + self.syncs.len();
            let requests = core.peer().config().limits.requests_len_max_bytes;
            let many =
                !self.leading && under_way > 0 && (under_way + 1) * REQUEST_LEN_MAX > requests;
            if many || !self.is_next(conn) || !core.can_propose(4096) {
                self.starve(conn);
                let what =
                    if self.leading { "limit: proposals wait" } else { "limit: requests wait" };
                self.met.push(what);
                break;
            }
            used += REQUEST_LEN;
            let waited = self.starved.pop_front().is_some();
            self.ask(core, conn, request);
            if waited {
                self.feed_all(core);
            }
        }
        used
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Some(slot) = self.conns.get_mut(conn.slot() as usize) else { return 0 };
        if slot.generation != conn.generation() {
            return 0;
        }
        let n = slot.out.len().min(buf.len());
        buf[..n].copy_from_slice(&slot.out[..n]);
        slot.out.drain(..n);
        n
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.feed_all(core);
    }

    fn closed(&mut self, core: &mut Core<'_>, conn: ConnId) {
        self.starved.retain(|other| !matches!(other, Starved::Client(other) if *other == conn));
        self.feed_all(core);
        if let Some(slot) = self.conns.get_mut(conn.slot() as usize)
            && slot.generation == conn.generation()
        {
            slot.open = false;
            slot.out.clear();
        }
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.feed_all(core);
    }

    fn snapshot_open(&mut self) -> u32 {
        self.next_snapshot += 1;
        let mut bytes = vec![0; 4];
        self.state.save(&mut bytes);
        let len = u32::try_from(bytes.len() - 4).expect("a small state");
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        self.snapshots.insert(self.next_snapshot, (bytes, 0));
        self.next_snapshot
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        let (bytes, at) = self.snapshots.get_mut(&snapshot).expect("an open snapshot");
        let n = buf.len().min(bytes.len() - *at);
        buf[..n].copy_from_slice(&bytes[*at..*at + n]);
        *at += n;
        n
    }

    fn snapshot_digest(&self, _snapshot: u32) -> Option<SnapshotDigest> {
        None
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.snapshots.remove(&snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let start = self.stage.len();
        self.stage.extend_from_slice(bytes);
        let whole = match self.stage.first_chunk() {
            Some(len) => 4 + u32::from_be_bytes(*len) as usize,
            None => usize::MAX,
        };
        if self.stage.len() < whole {
            return Ok(InstallProgress { consumed: bytes.len(), done: false });
        }
        self.staged = Some(S::load(&self.stage[4..whole]).ok_or(BadSnapshot)?);
        self.stage.clear();
        Ok(InstallProgress { consumed: whole - start, done: true })
    }

    fn install_commit(&mut self, _zxid: Zxid, _digest: Option<SnapshotDigest>) {
        self.state = self.staged.take().expect("a complete snapshot is installed");
    }

    fn install_abort(&mut self) {
        self.stage.clear();
        self.staged = None;
    }
}

const WRITE: i32 = Opcode::SetData.wire();
const SYNC: i32 = Opcode::Sync.wire();
/// A null vector of identities.
const NO_AUTH: &[u8] = &[0xff; 4];

/// The frame of a forwarded request: session id, cxid, opcode, record.
fn forwarded(opcode: i32, body: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 12];
    data.extend_from_slice(&opcode.to_be_bytes());
    data.extend_from_slice(body);
    data
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_be_bytes(*word))
}
