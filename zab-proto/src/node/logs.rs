//! The log on the own disk, read for learners whose next transaction the window no longer has.

use alloc::vec::Vec;

use crate::node::Node;
use crate::{Application, CloseReason, ConnId, LogDemand, LogReady, Storage, Zxid};

/// The logs that are open, and the record that was read last.
#[derive(Debug, Default)]
pub(super) struct Logs {
    open: Vec<OpenLog>,
    record: Vec<u8>,
}

/// The log, read for a learner.
#[derive(Debug)]
struct OpenLog {
    conn: ConnId,
    log: u32,
    through: Zxid,
    last: Zxid,
    /// Storage has said that nothing is missing in it.
    proven: bool,
}

impl<A: Application> Node<A> {
    /// Opens the log for a learner, from after one zxid through another.
    pub(super) fn open_log(
        &mut self,
        disk: &mut impl Storage,
        conn: ConnId,
        (after, through): (Zxid, Zxid),
        any_length: bool,
    ) {
        // What was read for it before is not needed any more, though its end was not told yet.
        for old in self.logs.open.extract_if(.., |open| open.conn == conn) {
            disk.log_close(old.log);
        }
        let Some(log) = disk.log_open(after, through, any_length) else {
            self.peer.log_opened(conn, false);
            return;
        };
        self.logs.open.push(OpenLog { conn, log, through, last: after, proven: false });
    }

    /// Reads the log for learners, as far as their sockets have taken what was read before. True if
    /// that gave the core something to do.
    pub(super) fn read_logs(&mut self, disk: &mut impl Storage) -> bool {
        self.logs.open.retain(|open| {
            let needed = self.peer.wants_log(open.conn) != LogDemand::Ended;
            if !needed {
                disk.log_close(open.log);
            }
            needed
        });
        let mut progress = false;
        for at in (0..self.logs.open.len()).rev() {
            progress |= self.read_log(at, disk);
        }
        progress
    }

    /// Takes what storage has of one log. The proof comes first, then the transactions, as many as
    /// the learner's link takes.
    fn read_log(&mut self, at: usize, disk: &mut impl Storage) -> bool {
        let open = &mut self.logs.open[at];
        let mut progress = false;
        if !open.proven {
            let ready = disk.log_ready(open.log);
            if ready == LogReady::NotYet {
                return false;
            }
            self.peer.log_opened(open.conn, ready == LogReady::Whole);
            if ready == LogReady::Incomplete {
                disk.log_close(open.log);
                self.logs.open.swap_remove(at);
                return true;
            }
            open.proven = true;
            progress = true;
        }
        while self.peer.wants_log(open.conn) == LogDemand::Now {
            if disk.log_ready(open.log) == LogReady::NotYet {
                break;
            }
            progress = true;
            if let Some(zxid) = disk.log_read(open.log, &mut self.logs.record) {
                open.last = zxid;
                self.peer.log_record(open.conn, Some((zxid, &self.logs.record)));
                continue;
            }
            let OpenLog { conn, log, through, last, .. } = self.logs.open.swap_remove(at);
            disk.log_close(log);
            if last == through {
                self.peer.log_record(conn, None);
            } else {
                self.peer.close(conn, CloseReason::LogUnreadable);
            }
            break;
        }
        progress
    }
}
