//! Storage without a disk.

use alloc::string::String;

use crate::{Epoch, EpochKind, Identity, Input, SnapshotDigest, Storage, Ticket, Zxid};

/// Storage for tests, examples and standalone servers whose state may end with the process: keeps
/// nothing, and calls everything durable as soon as [`persisted`](Self::persisted) is asked.
///
/// A member of an ensemble that starts again with it has lost its disk, and must not be told to trust
/// its empty history ([`Config::trust_empty`](crate::Config::trust_empty)): then it votes once a leader
/// has synchronised it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    last: Option<Ticket>,
}

impl MemoryStorage {
    /// The input that acknowledges the writes since the last call, if there were any.
    pub fn persisted(&mut self) -> Option<Input> {
        self.last.take().map(|through| Input::Persisted { through })
    }
}

impl Storage for MemoryStorage {
    fn set_epoch(&mut self, ticket: Ticket, _: EpochKind, _: Epoch) {
        self.last = Some(ticket);
    }

    fn set_identity(&mut self, ticket: Ticket, _: Identity) {
        self.last = Some(ticket);
    }

    fn set_configurations(&mut self, ticket: Ticket, _: &[String]) {
        self.last = Some(ticket);
    }

    fn append(&mut self, ticket: Ticket, _: Zxid, _: &[u8]) {
        self.last = Some(ticket);
    }

    fn truncate(&mut self, ticket: Ticket, _: Zxid) {
        self.last = Some(ticket);
    }

    fn stage(&mut self, _: &[u8]) {}

    fn stage_txn(&mut self, _: Zxid, _: &[u8]) {}

    fn discard_stage(&mut self) {}

    fn install(&mut self, ticket: Ticket, _: Zxid, _: Option<SnapshotDigest>) {
        self.last = Some(ticket);
    }

    fn snapshot_due(&self) -> bool {
        false
    }

    fn snapshot_begin(&mut self, _: Zxid) {}

    fn snapshot_room(&self) -> usize {
        0
    }

    fn snapshot_piece(&mut self, _: &[u8]) {}

    fn snapshot_finish(&mut self, _: Option<SnapshotDigest>) {}
}
