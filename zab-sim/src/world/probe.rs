//! Stands between the core and the application and tells the observer what passes.

use std::cell::RefCell;
use std::rc::Rc;

use zab_proto::{
    Application, BadSnapshot, ClientOutput, ConnId, Core, DigestVerdict, Incoming, InstallProgress,
    Instant, Origin, SnapshotDigest, Status, Zxid,
};

use crate::check::{Checker, Failure};
use crate::mutation::Mutation;
use crate::queue::HostIx;
use crate::rng::hash;
use crate::subject::Subject;

/// An observed application.
#[derive(Debug)]
pub(crate) struct Probe<A> {
    /// The application.
    pub(crate) app: A,
    server: HostIx,
    checker: Rc<RefCell<Checker>>,
    mutation: Option<Mutation>,
    delivered: u64,
    /// Delivered, and not yet seen to be applied to its end.
    applying: Option<Zxid>,
    /// A mutation: snapshots opened, and those that are read in their place.
    late: Vec<(u32, Option<u32>)>,
    /// How many snapshots are open.
    pub(crate) opened: u32,
    /// Snapshot bytes read since the caller last set it to 0.
    pub(crate) raw: usize,
    /// A snapshot was read to its end since the caller last set it to false.
    pub(crate) ended: bool,
}

impl<A: Subject> Probe<A> {
    /// Observes `app` of `server`.
    pub(crate) fn new(
        app: A,
        server: HostIx,
        checker: Rc<RefCell<Checker>>,
        mutation: Option<Mutation>,
    ) -> Self {
        Self {
            app,
            server,
            checker,
            mutation,
            delivered: 0,
            applying: None,
            late: Vec::new(),
            opened: 0,
            raw: 0,
            ended: false,
        }
    }
}

impl<A: Subject> Probe<A> {
    /// Under a mutation, the snapshot opened when the first byte of `snapshot` is wanted.
    fn really(&mut self, snapshot: u32) -> u32 {
        let Some((_, late)) = self.late.iter_mut().find(|(opened, _)| *opened == snapshot) else {
            return snapshot;
        };
        *late.get_or_insert_with(|| self.app.snapshot_open())
    }

    /// Compares the state with that of others when the last transaction is applied to its end.
    fn look(&mut self) {
        if let Some(zxid) = self.applying.take_if(|_| !self.app.is_applying()) {
            let digest = self.app.digest();
            self.checker.borrow_mut().on_applied(self.server, zxid, digest);
        }
    }

    /// Whether there is something in hand that takes more than a turn.
    pub(crate) fn is_at_work(&self) -> bool {
        self.app.in_hand().is_some()
    }

    /// Counts what a change of the role, or the death of the server, comes in the middle of.
    pub(crate) fn count_in_hand(&self, dies: bool) {
        if let Some(in_hand) = self.app.in_hand() {
            self.checker.borrow_mut().coverage.count(in_hand.situation(dies));
        }
    }

    fn listen(&self) {
        if let Some(Failure { invariant, text }) = self.app.complaint() {
            self.checker.borrow_mut().fail(invariant, format!("s{}: {text}", self.server + 1));
        }
    }
}

impl<A: Subject> Application for Probe<A> {
    fn deliver(&mut self, now: Instant, zxid: Zxid, txn: &[u8]) {
        self.delivered += 1;
        let skip = self.mutation == Some(Mutation::ApplySkipsOne) && self.delivered == 3;
        if !skip {
            self.app.deliver(now, zxid, txn);
        }
        let mut checker = self.checker.borrow_mut();
        if A::RECORDS {
            checker.record(zxid, txn);
        }
        checker.on_deliver(self.server, zxid, hash(txn));
        drop(checker);
        self.applying = Some(zxid);
        self.look();
        self.listen();
    }

    fn is_applying(&self) -> bool {
        let applying = self.app.is_applying();
        self.checker.borrow_mut().note_waiting(self.server, applying);
        applying
    }

    fn has_digest(&self, txn: &[u8]) -> bool {
        self.app.has_digest(txn)
    }

    fn may_deliver(&self) -> bool {
        let may = self.app.may_deliver();
        self.checker.borrow_mut().note_waiting(self.server, !may);
        may
    }

    fn failed(&self) -> Option<&str> {
        self.app.failed()
    }

    fn agrees(&mut self) -> DigestVerdict {
        let verdict = self.app.agrees();
        self.look();
        verdict
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        self.count_in_hand(false);
        self.app.became(core, status);
        self.look();
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], auth: &[u8]) {
        self.app.request(core, from, data, auth);
    }

    fn touched(&mut self, core: &mut Core<'_>, from: Origin, sessions: &[u8]) {
        self.app.touched(core, from, sessions);
    }

    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        self.app.revalidate(core, from, data);
    }

    fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        self.app.take_touched(sessions);
    }

    fn revalidated(&mut self, core: &mut Core<'_>, data: &[u8]) {
        self.app.revalidated(core, data);
    }

    fn synced(&mut self, core: &mut Core<'_>, token: Option<u64>) {
        self.app.synced(core, token);
        self.look();
    }

    fn accept(&mut self, core: &mut Core<'_>, incoming: &Incoming) -> Option<ConnId> {
        self.app.accept(core, incoming)
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        self.app.handle_bytes(core, conn, bytes)
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        self.app.poll_transmit(conn, buf)
    }

    fn closed(&mut self, core: &mut Core<'_>, conn: ConnId) {
        self.app.closed(core, conn);
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        self.app.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.app.poll_timeout()
    }

    fn wants_turn(&self) -> bool {
        self.app.wants_turn()
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.app.handle_timeout(core);
        self.look();
        self.listen();
    }

    fn room(&mut self, core: &mut Core<'_>) {
        self.app.room(core);
    }

    fn snapshot_longest(&self, snapshot: u32) -> usize {
        self.app.snapshot_longest(snapshot)
    }

    fn install_needs(&self) -> Option<usize> {
        self.app.install_needs()
    }

    fn snapshot_open(&mut self) -> u32 {
        let snapshot = self.app.snapshot_open();
        self.look();
        self.opened += 1;
        self.checker.borrow_mut().hooks.push((self.server, "open"));
        if self.mutation == Some(Mutation::SnapshotReadLate) {
            self.late.push((snapshot, None));
        }
        snapshot
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        let snapshot = self.really(snapshot);
        let n = self.app.snapshot_read(snapshot, buf);
        self.raw += n;
        self.ended |= n == 0;
        n
    }

    fn snapshot_digest(&self, snapshot: u32) -> Option<SnapshotDigest> {
        self.app.snapshot_digest(snapshot)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.opened -= 1;
        if let Some(at) = self.late.iter().position(|(opened, _)| *opened == snapshot)
            && let (_, Some(late)) = self.late.swap_remove(at)
        {
            self.app.snapshot_close(late);
        }
        self.app.snapshot_close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        self.app.install(bytes)
    }

    fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.app.install_commit(zxid, digest);
        self.applying = None;
        let digest = self.app.digest();
        self.checker.borrow_mut().on_state(self.server, zxid, digest);
        self.listen();
    }

    fn install_abort(&mut self) {
        self.app.install_abort();
    }
}
