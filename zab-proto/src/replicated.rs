//! The shortest way to a replicated application: a deterministic state machine, called on any member.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use crate::wire::body::Request;
use crate::wire::packet::NULL_AUTH;
use crate::wire::txn::TxnHeader;
use crate::{
    Application, BadSnapshot, CloseReason, Core, Images, InstallProgress, Instant, Origin, Phase,
    ProposeError, ServerState, SnapshotDigest, Staged, Status, Zxid,
};

/// A deterministic state machine: the same commands in the same order lead to the same state and the
/// same answers on every member. [`Replicated`] makes an [`Application`] of it.
///
/// Its whole state is copied for a snapshot, so it should be megabytes rather than gigabytes. For a
/// larger one, or for clients on a port of the server, implement [`Application`].
pub trait StateMachine: Sized {
    /// Carries out a committed command. The answer goes to the caller, on the caller's member.
    fn apply(&mut self, command: &[u8]) -> Vec<u8>;

    /// Appends the whole state to `out`, so that [`restore`](Self::restore) can read it.
    fn save(&self, out: &mut Vec<u8>);

    /// Reads what [`save`](Self::save) wrote, on this or another member.
    ///
    /// # Errors
    /// [`BadSnapshot`] if that is not what it is.
    fn restore(state: &[u8]) -> Result<Self, BadSnapshot>;
}

/// Why a call has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// This member has no leader, or its leader changed before the command left. The command was and
    /// will be carried out nowhere; call again once there is a leader.
    Unavailable,
    /// The leader was lost after the command had left: it was carried out, or will be, or never. Read
    /// the state before calling again, unless it does no harm to carry it out twice.
    Unknown,
    /// The command is longer than the members read
    /// ([`Limits::field_len_max_bytes`](crate::Limits::field_len_max_bytes) less 32).
    TooLong,
    /// Commands of [`Limits::requests_len_max_bytes`](crate::Limits::requests_len_max_bytes) wait for
    /// room already. Call again after an answer.
    Busy,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "there is no leader",
            Self::Unknown => "the leader was lost, and with it the outcome",
            Self::TooLong => "the command is too long",
            Self::Busy => "too many commands wait",
        })
    }
}

impl core::error::Error for CallError {}

type OnAnswer = Box<dyn FnOnce(Result<&[u8], CallError>) + Send>;
type OnState<S> = Box<dyn FnOnce(Result<&S, CallError>) + Send>;

/// A [`StateMachine`] as an [`Application`]: one copy on each member, all with the same history.
///
/// [`call`](Self::call) works on every member, also on those that follow or observe. Reach it from
/// outside with [`Node::with`](crate::Node::with).
pub struct Replicated<S> {
    state: S,
    /// Marks the transactions of this run, so that no other run takes them for its own.
    run: i64,
    /// The number of the next call.
    next: i32,
    /// Requests that wait for room: this member's own and, on a leader, those of learners.
    queue: VecDeque<Vec<u8>>,
    /// Bytes of them that are this member's own.
    own_len: usize,
    /// Calls without an answer, by number.
    calls: BTreeMap<i32, Call>,
    /// Learner: syncs that the leader has not answered, which it does in order.
    learner_syncs: VecDeque<OnState<S>>,
    /// Leader: syncs by the number of their round.
    leader_syncs: BTreeMap<u64, OnState<S>>,
    images: Images,
    staged: Staged,
    restored: Option<S>,
}

struct Call {
    /// Whether the command was proposed or forwarded.
    sent: bool,
    done: OnAnswer,
}

impl<S: StateMachine> Replicated<S> {
    /// `run` must differ between members and between two starts of a member, for instance a random
    /// number: by it a member knows its own commands in the history.
    #[must_use]
    pub fn new(state: S, run: u64) -> Self {
        Self {
            state,
            run: run.cast_signed(),
            next: 0,
            queue: VecDeque::new(),
            own_len: 0,
            calls: BTreeMap::new(),
            learner_syncs: VecDeque::new(),
            leader_syncs: BTreeMap::new(),
            images: Images::default(),
            staged: Staged::default(),
            restored: None,
        }
    }

    /// The state as this member has it, which may be older than what others have. For the newest, see
    /// [`sync`](Self::sync).
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Has `command` carried out on every member. `done` is called once: with the answer when the
    /// command is committed and carried out on this member, or with the reason why there is none.
    ///
    /// Commands of one member are carried out in the order of their calls.
    pub fn call(
        &mut self,
        core: &mut Core<'_>,
        command: &[u8],
        done: impl FnOnce(Result<&[u8], CallError>) + Send + 'static,
    ) {
        let limits = core.peer().config().limits;
        let len = Request::HEAD_LEN + command.len();
        let refused = if core.status().phase != Phase::Broadcast {
            Some(CallError::Unavailable)
        } else if TxnHeader::LEN + command.len() > limits.field_len_max_bytes {
            Some(CallError::TooLong)
        } else if self.own_len > 0 && self.own_len + len > limits.requests_len_max_bytes {
            Some(CallError::Busy)
        } else {
            None
        };
        if let Some(error) = refused {
            return done(Err(error));
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let mut record = Vec::with_capacity(len);
        let request = Request { session_id: self.run, cxid: number, op: COMMAND, record: command };
        request.write(&mut record);
        self.own_len += len;
        self.queue.push_back(record);
        self.calls.insert(number, Call { sent: false, done: Box::new(done) });
        self.send(core);
    }

    /// Calls `done` with a state that has everything that any member had answered before this call.
    ///
    /// Costs a round between the leader and a quorum, and no write to the log.
    pub fn sync(
        &mut self,
        core: &mut Core<'_>,
        done: impl FnOnce(Result<&S, CallError>) + Send + 'static,
    ) {
        let status = core.status();
        if status.phase != Phase::Broadcast {
            return done(Err(CallError::Unavailable));
        }
        if status.state == ServerState::Leading {
            let round = core.sync();
            self.leader_syncs.insert(round, Box::new(done));
            return;
        }
        let mut record = Vec::with_capacity(Request::HEAD_LEN);
        Request { session_id: self.run, cxid: 0, op: SYNC, record: b"" }.write(&mut record);
        if !core.can_propose(record.len()) {
            return done(Err(CallError::Busy));
        }
        if !core.request(&record, NULL_AUTH) {
            return done(Err(CallError::Unavailable));
        }
        self.learner_syncs.push_back(Box::new(done));
    }

    /// Sends what there is room for. [`Application::room`] is called when there is more.
    fn send(&mut self, core: &mut Core<'_>) {
        let leads = core.status().state == ServerState::Leading;
        while let Some(record) = self.queue.front() {
            let request = Request::parse(record).expect("checked when it was queued");
            let taken = if leads {
                propose(core, &request)
            } else {
                core.can_propose(record.len()) && core.request(record, NULL_AUTH)
            };
            if !taken {
                return;
            }
            if request.session_id == self.run {
                self.own_len -= record.len();
                if let Some(call) = self.calls.get_mut(&request.cxid) {
                    call.sent = true;
                }
            }
            self.queue.pop_front();
        }
    }
}

/// Makes a transaction of a request. False if there is no room, or none of this epoch any more.
fn propose(core: &mut Core<'_>, request: &Request<'_>) -> bool {
    let Some(zxid) = core.next_zxid() else { return false };
    let mut txn = Vec::with_capacity(TxnHeader::LEN + request.record.len());
    let (client_id, cxid) = (request.session_id, request.cxid);
    TxnHeader { client_id, cxid, zxid, time: 0, kind: COMMAND }.write(&mut txn);
    txn.extend_from_slice(request.record);
    match core.propose(&txn) {
        Ok(_) => true,
        Err(ProposeError::Full | ProposeError::NotLeading | ProposeError::Rollover) => false,
        Err(
            error @ (ProposeError::TooLarge | ProposeError::BadTxn | ProposeError::Reconfiguring),
        ) => {
            unreachable!("checked before it was queued: {error}")
        }
    }
}

impl<S: StateMachine> Application for Replicated<S> {
    fn deliver(&mut self, _: Instant, _: Zxid, txn: &[u8]) {
        let header = TxnHeader::parse(txn).expect("checked by the core");
        if header.kind != COMMAND {
            return; // a record for a zxid that was never used, or of another application
        }
        let answer = self.state.apply(&txn[TxnHeader::LEN..]);
        if header.client_id == self.run
            && let Some(call) = self.calls.remove(&header.cxid)
        {
            (call.done)(Ok(&answer));
        }
    }

    fn became(&mut self, _: &mut Core<'_>, status: &Status) {
        if status.phase == Phase::Broadcast {
            return;
        }
        self.queue.clear();
        self.own_len = 0;
        for call in core::mem::take(&mut self.calls).into_values() {
            let error = if call.sent { CallError::Unknown } else { CallError::Unavailable };
            (call.done)(Err(error));
        }
        let leader_syncs = core::mem::take(&mut self.leader_syncs).into_values();
        for done in self.learner_syncs.drain(..).chain(leader_syncs) {
            done(Err(CallError::Unavailable));
        }
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], _: &[u8]) {
        let len_max = core.peer().config().limits.field_len_max_bytes;
        match Request::parse(data) {
            Ok(Request { op: SYNC, .. }) => core.sync_learner(from),
            Ok(Request { op: COMMAND, record, .. }) if TxnHeader::LEN + record.len() <= len_max => {
                self.queue.push_back(data.to_vec());
                self.send(core);
            }
            // Not a member that runs this application, or not with these limits.
            _ => core.close(from, CloseReason::Application),
        }
    }

    fn synced(&mut self, _: &mut Core<'_>, token: Option<u64>) {
        let done = match token {
            Some(round) => self.leader_syncs.remove(&round),
            None => self.learner_syncs.pop_front(),
        };
        if let Some(done) = done {
            done(Ok(&self.state));
        }
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.send(core);
    }

    fn snapshot_open(&mut self) -> u32 {
        let mut state = Vec::new();
        self.state.save(&mut state);
        self.images.open(&state)
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.images.read(snapshot, buf)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.images.close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        let progress = self.staged.install(bytes);
        if progress.done {
            self.restored = Some(S::restore(&self.staged.take())?);
        }
        Ok(progress)
    }

    fn install_commit(&mut self, _: Zxid, _: Option<SnapshotDigest>) {
        self.state = self.restored.take().expect("a snapshot is staged as a whole before");
    }

    fn install_abort(&mut self) {
        self.staged.take();
        self.restored = None;
    }
}

impl<S: fmt::Debug> fmt::Debug for Replicated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated")
            .field("state", &self.state)
            .field("calls", &self.calls.len())
            .field("queue", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// The operation of a command, and the type of its transaction. ZooKeeper has none of this number.
const COMMAND: i32 = 1000;

/// ZooKeeper's operation code of a sync.
const SYNC: i32 = 9;
