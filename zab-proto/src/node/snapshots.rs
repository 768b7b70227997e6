//! Snapshots of the application: lent to learners, taken from the leader, and written to the own disk.

use alloc::vec::Vec;

use crate::node::Node;
use crate::{
    Application, CloseReason, ConnId, Input, InstallProgress, Instant, Storage, Violation,
};

/// A snapshot that goes out to a learner.
#[derive(Debug)]
pub(super) struct Lent {
    conn: ConnId,
    snapshot: u32,
}

impl<A: Application> Node<A> {
    /// Opens a snapshot for a learner.
    pub(super) fn lend_snapshot(&mut self, conn: ConnId) {
        let snapshot = self.app.snapshot_open();
        self.lent.push(Lent { conn, snapshot });
    }

    /// Fills `buf` with what comes next of the snapshot lent to a learner, and with what follows it.
    pub(super) fn transmit_snapshot(
        &mut self,
        now: Instant,
        conn: ConnId,
        buf: &mut [u8],
    ) -> usize {
        let mut written = 0;
        while written < buf.len() {
            let Some(lent) = self.lent.iter().find(|lent| lent.conn == conn) else { break };
            let n = self.app.snapshot_read(lent.snapshot, &mut buf[written..]);
            if n == 0 {
                self.take_back(conn);
                self.peer.handle_input(now, Input::SnapshotDone { conn });
                written += self.peer.poll_transmit(conn, &mut buf[written..]);
                break;
            }
            self.peer.snapshot_sent(conn, n, self.app.snapshot_longest(lent.snapshot));
            written += n;
        }
        written
    }

    /// Ends the snapshot lent to a learner, if there is one.
    pub(super) fn take_back(&mut self, conn: ConnId) {
        if let Some(at) = self.lent.iter().position(|lent| lent.conn == conn) {
            let lent = self.lent.swap_remove(at);
            self.app.snapshot_close(lent.snapshot);
        }
    }

    /// Gives bytes of the leader's snapshot to application and disk. Returns how many were used.
    pub(super) fn take_snapshot(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        disk: &mut impl Storage,
    ) -> usize {
        if disk.stage_room() == 0 {
            self.staging = Some(conn);
            return 0;
        }
        if let Ok(progress) = self.app.install(bytes) {
            let max = self.peer.config().limits.field_len_max_bytes;
            if progress == (InstallProgress { consumed: 0, done: false }) {
                let len = self.app.install_needs().unwrap_or(0).max(bytes.len());
                if len > max.saturating_mul(2) {
                    // More than a connection may hold unread: it would wait for ever.
                    self.peer.close(conn, CloseReason::TooLong { len, max });
                    return bytes.len();
                }
            }
            disk.stage(&bytes[..progress.consumed]);
            self.peer.snapshot_received(now, conn, progress.done);
            progress.consumed
        } else {
            self.peer.close(conn, CloseReason::Violation(Violation::BadSnapshot));
            bytes.len()
        }
    }

    /// Tells the disk what the application has, and moves the server's own snapshot on.
    pub(super) fn record_progress(&mut self, disk: &mut impl Storage) {
        if !self.peer.is_doubted() {
            disk.committed(self.peer.delivered());
        }
        self.write_snapshot(disk);
    }

    /// Moves the server's own snapshot on, as far as the disk has room for it.
    fn write_snapshot(&mut self, disk: &mut impl Storage) {
        // A snapshot is opened of whole transactions only.
        let may_open = !self.app.is_applying() && self.peer.may_snapshot();
        if self.to_disk.is_none() && may_open && disk.snapshot_due() {
            self.to_disk = Some(self.app.snapshot_open());
            disk.snapshot_begin(self.peer.delivered());
        }
        if disk.snapshot_abandoned() {
            self.drop_own_snapshot();
        }
        let Some(snapshot) = self.to_disk else { return };
        while disk.snapshot_room() >= PIECE_LEN {
            self.piece.resize(PIECE_LEN, 0);
            let n = self.app.snapshot_read(snapshot, &mut self.piece);
            if n == 0 {
                disk.snapshot_finish(self.app.snapshot_digest(snapshot));
                self.app.snapshot_close(snapshot);
                self.to_disk = None;
                self.piece = Vec::new();
                break;
            }
            disk.snapshot_piece(&self.piece[..n]);
        }
    }

    /// The history changes under the server's own snapshot, which storage drops with it.
    pub(super) fn drop_own_snapshot(&mut self) {
        if let Some(snapshot) = self.to_disk.take() {
            self.app.snapshot_close(snapshot);
        }
    }
}

/// How much of a snapshot is handed to the disk at a time.
const PIECE_LEN: usize = 64 * 1024;
