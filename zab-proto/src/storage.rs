//! What the core asks of durable storage. `zab-storage` implements it over ZooKeeper's files, the
//! simulator over a faulty disk.

mod memory;

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Epoch, EpochKind, Identity, Ticket, Zxid};

pub use memory::MemoryStorage;

/// The digest of the application's state at a zxid, stored beside a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDigest {
    /// The last transaction contained in the digested state.
    pub zxid: Zxid,
    /// Digest algorithm; ZooKeeper's present one is 2.
    pub version: i32,
    /// The digest.
    pub digest: u64,
}

/// Whether a log that was opened can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogReady {
    /// Not yet; the driver is woken when it can.
    NotYet,
    /// Nothing is missing in it, and the next transaction or the end is there to be read.
    Whole,
    /// Something is missing in it, or it cannot be read: it must not be used.
    Incomplete,
}

/// How much of the log on disk a leader wants for a learner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogDemand {
    /// The next transaction.
    Now,
    /// More, once its connection has taken what was read before.
    Later,
    /// Nothing more.
    Ended,
}

/// An ordered queue of durable writes.
///
/// Calls with a [`Ticket`] are one FIFO: each becomes durable only after all before it, and the
/// highest durable ticket comes back as [`Input::Persisted`](crate::Input::Persisted). No call
/// blocks on the disk (an inline implementation may). A failed write ends the process: it is never
/// reported as persisted and nothing after it is written.
pub trait Storage {
    /// Makes `acceptedEpoch` or `currentEpoch` durable.
    fn set_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch);

    /// Makes the id of the ensemble durable, in the place of an older one.
    fn set_identity(&mut self, ticket: Ticket, identity: Identity);

    /// Makes the configurations of the ensemble durable, in the place of those before: the committed one,
    /// then those that are being introduced. The next start finds them in
    /// [`Recovered::configurations`](crate::Recovered::configurations).
    fn set_configurations(&mut self, ticket: Ticket, texts: &[String]);

    /// Appends one transaction to the log. `txn` is a whole payload, `TxnHeader` first.
    fn append(&mut self, ticket: Ticket, zxid: Zxid, txn: &[u8]);

    /// Removes every log record and every snapshot above `after` (rule R7).
    fn truncate(&mut self, ticket: Ticket, after: Zxid);

    /// Stages the next piece of a snapshot that a leader sends. Nothing durable changes.
    fn stage(&mut self, piece: &[u8]);

    /// How many bytes may be staged now without queueing too much; the last piece may be larger.
    /// When there is room again, the driver is woken.
    fn stage_room(&self) -> usize {
        usize::MAX
    }

    /// Stages a transaction after the snapshot, which is complete. Nothing durable changes.
    fn stage_txn(&mut self, zxid: Zxid, txn: &[u8]);

    /// Forgets what was staged.
    fn discard_stage(&mut self);

    /// Makes the staged snapshot the state as of `zxid`, and the staged transactions the whole log
    /// after it, as one durable switch (rule R5). The snapshot alone may hold less than this server has
    /// acknowledged, as a leader that has just started sends one of what it has applied.
    fn install(&mut self, ticket: Ticket, zxid: Zxid, digest: Option<SnapshotDigest>);

    /// Whether enough was logged since the last snapshot that a new one is due, and no snapshot is
    /// being written.
    fn snapshot_due(&self) -> bool;

    /// Begins a snapshot of the application's state as of `zxid`. A [`truncate`](Self::truncate) or
    /// [`install`](Self::install) before its end drops it; it is then not finished.
    fn snapshot_begin(&mut self, zxid: Zxid);

    /// Whether the snapshot that is being written was given up because it cannot be written at
    /// present; true once. It is then not finished, and another one is due in time.
    fn snapshot_abandoned(&mut self) -> bool {
        false
    }

    /// How many bytes of the snapshot may be given now without queueing too much.
    fn snapshot_room(&self) -> usize;

    /// The next piece of the snapshot that is being written.
    fn snapshot_piece(&mut self, piece: &[u8]);

    /// The snapshot is complete: it is sealed, made durable and published in the background.
    fn snapshot_finish(&mut self, digest: Option<SnapshotDigest>);

    /// Everything up to `zxid` is committed and applied, and was handed over before. Worth keeping as a
    /// lower bound, so that the next start can apply it while it reads the log
    /// ([`Recovered::deliver`](crate::Recovered::deliver)); nothing depends on its being kept. Called
    /// often.
    fn committed(&mut self, zxid: Zxid) {
        let _ = zxid;
    }

    /// Opens the log for reading what follows `after` up to `through`, if it holds both and nothing
    /// between is missing; the number names it. A learner is then synchronised without a snapshot.
    /// That nothing is missing may be found out later: see [`log_ready`](Self::log_ready). Unless it is
    /// to be read at `any_length`, a stretch that is longer than a snapshot is worth may be refused.
    /// Several may be open at a time.
    fn log_open(&mut self, after: Zxid, through: Zxid, any_length: bool) -> Option<u32> {
        let _ = (after, through, any_length);
        None
    }

    /// Whether [`log_read`](Self::log_read) has an answer now.
    fn log_ready(&mut self, log: u32) -> LogReady {
        let _ = log;
        LogReady::Whole
    }

    /// Replaces `txn` with the next transaction and returns its zxid; `None` at the end, which is
    /// `through` unless reading failed.
    fn log_read(&mut self, log: u32, txn: &mut Vec<u8>) -> Option<Zxid> {
        let _ = (log, txn);
        None
    }

    /// The log is no longer read.
    fn log_close(&mut self, log: u32) {
        let _ = log;
    }
}
