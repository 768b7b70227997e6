//! The application: what a replicated log is for.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::{
    CloseReason, ConnId, Instant, Origin, Peer, ProposeError, Sid, SnapshotDigest, Status, Zxid,
};

/// What is known of a connection when it is accepted.
///
/// More may be known later (the port it came to, the certificates of the other side), so it is made
/// by [`Incoming::new`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The address of the other side.
    pub remote: SocketAddr,
}

impl Incoming {
    /// A connection from `remote`.
    #[must_use]
    pub fn new(remote: SocketAddr) -> Self {
        Self { remote }
    }
}

/// What the application has to say about one of its client connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientOutput {
    /// There is something to send where there was nothing.
    Transmit(ConnId),
    /// Bytes that [`Application::handle_bytes`] left may be offered again.
    Resume(ConnId),
    /// Send what `poll_transmit` still has, then close; the application has forgotten it already
    /// but for those bytes, and forgets them at [`Application::closed`].
    Close(ConnId),
}

/// How far [`Application::install`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallProgress {
    /// Bytes used, `0..=bytes.len()`; the rest is offered again together with more.
    pub consumed: usize,
    /// Whether the last byte used is the last of the snapshot.
    pub done: bool,
}

/// A snapshot stream does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadSnapshot;

/// A deterministic state machine over the replicated log, and its clients.
///
/// Called by [`Node`](crate::Node) on one thread; nothing may block. Everything the application
/// asks of the core goes through the [`Core`] handed to each call that may cause actions.
///
/// What the digest in a transaction says of the state behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DigestVerdict {
    /// The transaction brought no digest that can be compared.
    #[default]
    Absent,
    /// The state has that digest.
    Agrees,
    /// The state has another one.
    Differs,
}

/// What every application has to say is required: how a transaction is applied, how a request
/// becomes one, and how the state is saved and loaded ([`Staged`](crate::Staged) and
/// [`Images`](crate::Images) do that for a state that fits into one buffer). The rest does nothing
/// unless it is written: an application without clients of its own, sessions or timers leaves it out.
pub trait Application {
    // The replicated log.

    /// Applies a committed transaction: in zxid order, each once per run. There is no [`Core`]
    /// argument because `txn` borrows from its window; queue resulting output and return it from
    /// [`poll_output`](Self::poll_output).
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]);

    /// Whether another transaction may be delivered now. If not, peers and timers are heard first,
    /// and a new turn of the runtime's loop begins at once. For an application that takes its time,
    /// so that many commits at once do not keep it from its peers. Not asked where transactions have
    /// to be delivered before the role changes.
    fn may_deliver(&self) -> bool {
        true
    }

    /// Whether the transaction delivered last is still being applied. A long one may take several turns,
    /// with peers and timers heard in between: [`handle_timeout`](Self::handle_timeout) goes on with it,
    /// and [`poll_timeout`](Self::poll_timeout) asks for that turn. Until it is done no snapshot is opened, no sync
    /// ends, and nothing else is delivered unless the role is about to change: then, as when
    /// [`agrees`](Self::agrees) or [`became`](Self::became) is called, the rest of it is applied at
    /// once.
    fn is_applying(&self) -> bool {
        false
    }

    /// Why this server must not go on: a transaction that it cannot apply, while others may. The
    /// runtime ends with this reason, and nothing leaves the server any more.
    fn failed(&self) -> Option<&str> {
        None
    }

    /// Whether a transaction brings a digest of the state behind it that this application can compare.
    /// Asked before it is delivered behind zxids that the leader has left out.
    fn has_digest(&self, txn: &[u8]) -> bool {
        let _ = txn;
        false
    }

    /// Whether the transaction delivered last brought a digest of the state behind it, and if so
    /// whether the state has that digest. Asked where zxids are missing in a log or in what a leader
    /// sends: only this can tell those that were never used from those that were lost. Nothing that
    /// this transaction causes leaves the server before the answer.
    fn agrees(&mut self) -> DigestVerdict {
        DigestVerdict::Absent
    }

    /// Role or phase changed. Clients are served in `Phase::Broadcast` only: on leaving it their
    /// connections are closed and everything speculative is dropped.
    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        let _ = (core, status);
    }

    /// Another configuration of the ensemble is in force: `core.peer().config().ensemble`. The transaction
    /// that made it, if there was one, is delivered.
    fn reconfigured(&mut self, core: &mut Core<'_>) {
        let _ = core;
    }

    // Leader: traffic of its learners.

    /// A learner forwards a request (session id, cxid, opcode, record) with the requester's
    /// identities (encoded `vector<Id>`).
    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], auth: &[u8]);

    /// A learner reports sessions that were alive: entries of session id (i64), time-out (i32).
    fn touched(&mut self, core: &mut Core<'_>, from: Origin, sessions: &[u8]) {
        let _ = (core, from, sessions);
    }

    /// A learner asks whether a session is valid (session id, time-out). Answer, now or later,
    /// with [`Core::revalidated`].
    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        let _ = (core, from, data);
    }

    // Learner: answers of its leader.

    /// Appends the sessions touched since the last call (entries of i64, i32) to `sessions`.
    fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        let _ = sessions;
    }

    /// The leader's answer to [`Core::revalidate`]: session id (i64), valid (bool).
    fn revalidated(&mut self, core: &mut Core<'_>, data: &[u8]) {
        let _ = (core, data);
    }

    /// On a learner the oldest forwarded sync is answered (`token` is `None`); on the leader the
    /// round that [`Core::sync`] numbered `token` has ended.
    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        let _ = (core, token);
    }

    // Clients. Needed if the server listens for them.

    /// A client has connected; `None` refuses it.
    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        let _ = (core, incoming);
        None
    }

    /// A client's connection is encrypted, and its handshake done. If the other side has shown a certificate,
    /// which this server trusts then, `subject` is whose (a distinguished name of RFC 2253, as Java writes it).
    /// Said once, before any of its bytes; of a connection that is not encrypted nothing is said.
    fn secured(&mut self, core: &mut Core<'_>, conn: ConnId, subject: Option<&str>) {
        let _ = (core, conn, subject);
    }

    /// Bytes of a client; returns how many were consumed (whole frames only, but see
    /// [`ClientOutput::Resume`] for leaving some as back-pressure).
    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        let _ = (core, conn);
        bytes.len()
    }

    /// Fills `buf` with bytes for a client; 0 means nothing to send.
    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let _ = (conn, buf);
        0
    }

    /// A client connection is gone.
    fn closed(&mut self, core: &mut Core<'_>, conn: ConnId) {
        let _ = (core, conn);
    }

    /// The next thing to do for a client connection.
    fn poll_output(&mut self) -> Option<ClientOutput> {
        None
    }

    // Time.

    /// When `handle_timeout` wants to be called.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether work is left for the next turn, which then begins at once, with `handle_timeout`.
    fn wants_turn(&self) -> bool {
        false
    }

    /// A deadline has passed; early or repeated calls are harmless. A runtime calls this at most
    /// once in a turn of its loop, after everything else that has come is heard.
    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        let _ = core;
    }

    /// There is room again for what [`can_propose`](Core::can_propose) refused. May be said several
    /// times in a turn.
    fn room(&mut self, core: &mut Core<'_>) {
        self.handle_timeout(core);
    }

    // Snapshots out: several may be open, each a point in time.

    /// Opens a snapshot of the state as it is now; the number names it. The core opens at most
    /// [`Limits::snapshots_max`](crate::Limits::snapshots_max) at a time.
    fn snapshot_open(&mut self) -> u32;

    /// Writes the next bytes; 0 means the end.
    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize;

    /// The digest that belongs to the snapshot's state, if digests are kept.
    fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        let _ = snapshot;
        None
    }

    /// Bytes of the longest piece that a reader of this snapshot has to hold whole, of what was read so
    /// far; for the log, if a learner that does not take it leaves.
    fn snapshot_longest(&self, snapshot: u32) -> usize {
        let _ = snapshot;
        0
    }

    /// The snapshot is no longer needed, finished or not.
    fn snapshot_close(&mut self, snapshot: u32);

    // Snapshots in: staged, all or nothing.

    /// Takes the next bytes of a snapshot into the stage; the first call begins one.
    ///
    /// # Errors
    /// [`BadSnapshot`] if the bytes do not decode; the stage is discarded then.
    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot>;

    /// When the last call of `install` has used nothing: how many bytes have to be offered at once,
    /// if the bytes so far say that. What is more than twice
    /// [`Limits::field_len_max_bytes`](crate::Limits::field_len_max_bytes) is refused at once if a leader
    /// sends it, as the buffer of the connection will never hold it.
    fn install_needs(&self) -> Option<usize> {
        None
    }

    /// The staged snapshot becomes the state, as of `zxid`. `digest` comes from a snapshot file.
    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>);

    /// Forgets the stage.
    fn install_abort(&mut self);
}

/// The core, as the application sees it during a call.
#[derive(Debug)]
pub struct Core<'a> {
    now: Instant,
    peer: &'a mut Peer,
}

impl<'a> Core<'a> {
    /// For drivers of their own [`Application`] calls; [`Node`](crate::Node) makes one per call.
    #[must_use]
    pub fn new(now: Instant, peer: &'a mut Peer) -> Self {
        Self { now, peer }
    }

    /// The time of this call.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Role, phase, leader and epoch.
    #[must_use]
    pub fn status(&self) -> Status {
        self.peer.status()
    }

    /// This server's id.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.peer.config().sid
    }

    /// The core itself, for statistics and configuration.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// The zxid the next proposal will have. Established leader only.
    #[must_use]
    pub fn next_zxid(&self) -> Option<Zxid> {
        self.peer.next_zxid()
    }

    /// Whether a proposal (on the leader) or a request to forward (on a learner) of up to `len`
    /// bytes would be accepted now. When not, leave the client's bytes unconsumed;
    /// [`Application::handle_timeout`] is called when there is room again.
    #[must_use]
    pub fn can_propose(&self, len: usize) -> bool {
        self.peer.can_propose(len)
    }

    /// Proposes a transaction: a payload whose `TxnHeader` carries [`next_zxid`](Self::next_zxid).
    ///
    /// # Errors
    /// See [`ProposeError`]. Nothing is proposed then.
    pub fn propose(&mut self, txn: &[u8]) -> Result<Zxid, ProposeError> {
        self.peer.propose(self.now, txn)
    }

    /// Learner: forwards a request to the leader. `auth` is an encoded `vector<Id>`. Returns false
    /// if there is no synchronised leader, or for what is longer than
    /// [`Limits::field_len_max_bytes`](crate::Limits::field_len_max_bytes).
    pub fn request(&mut self, data: &[u8], auth: &[u8]) -> bool {
        self.peer.request(data, auth)
    }

    /// Learner: asks the leader about a session (session id i64, time-out i32).
    pub fn revalidate(&mut self, data: &[u8]) -> bool {
        self.peer.revalidate(data)
    }

    /// Leader: answers [`Application::revalidate`] (session id i64, valid bool).
    pub fn revalidated(&mut self, to: Origin, data: &[u8]) {
        self.peer.revalidated(to, data);
    }

    /// Leader: begins a sync round for its own client. [`Application::synced`] is called
    /// with the returned number once everything proposed before this call is committed and a
    /// quorum has shown, after this call, that it still follows (rule R18).
    pub fn sync(&mut self) -> u64 {
        self.peer.sync(self.now)
    }

    /// Leader: the same for a learner, whose SYNC the core sends when the round has ended.
    pub fn sync_learner(&mut self, from: Origin) {
        self.peer.sync_learner(self.now, from);
    }

    /// Closes the connection of a learner that sent nonsense to the application.
    pub fn close(&mut self, origin: Origin, reason: CloseReason) {
        self.peer.close(origin.conn, reason);
    }
}
