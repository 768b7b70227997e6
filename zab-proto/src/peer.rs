//! The protocol core.

use alloc::vec::Vec;

use crate::{
    Channel, CloseReason, Config, ConfigError, ConnId, Epoch, Input, Instant, Origin, Output,
    ProposeError, Received, Status, Zxid,
};

/// What storage found when the server started.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// `acceptedEpoch`; `None` if the file is missing.
    pub accepted_epoch: Option<Epoch>,
    /// `currentEpoch`; `None` if the file is missing.
    pub current_epoch: Option<Epoch>,
    /// The application's state is a snapshot as of this zxid; `None` without a snapshot.
    pub snapshot: Option<Zxid>,
    /// A fuzzy snapshot holds effects of transactions up to here; else equal to `snapshot`.
    pub snapshot_end: Zxid,
    /// An `initialize` marker was found: an empty directory is to be trusted.
    pub initialize: bool,
    zxids: Vec<(Zxid, usize)>,
    bytes: Vec<u8>,
}

impl Recovered {
    /// Adds the next record of the log. Records at or below the snapshot are skipped.
    pub fn push(&mut self, zxid: Zxid, txn: &[u8]) {
        if self.snapshot.is_none_or(|snapshot| zxid > snapshot) {
            self.bytes.extend_from_slice(txn);
            self.zxids.push((zxid, self.bytes.len()));
        }
    }
}

/// One server's side of ZAB, over all of its connections. Performs no I/O and reads no clock.
#[derive(Debug)]
pub struct Peer {
    config: Config,
}

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    unused_variables,
    reason = "signatures only"
)]
impl Peer {
    pub fn new(now: Instant, config: Config, recovered: Recovered) -> Result<Self, ConfigError> {
        Ok(Self { config })
    }
    pub fn config(&self) -> &Config {
        &self.config
    }
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    /// A connection was accepted on the election or quorum port.
    pub fn accept(&mut self, now: Instant, channel: Channel) -> Option<ConnId> {
        unimplemented!()
    }
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        unimplemented!()
    }
    pub fn handle_bytes<'b>(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &'b [u8],
    ) -> Received<'b> {
        unimplemented!()
    }
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        unimplemented!()
    }
    pub fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        unimplemented!()
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
    pub fn next_zxid(&self) -> Option<Zxid> {
        unimplemented!()
    }
    pub fn can_propose(&self, len: usize) -> bool {
        unimplemented!()
    }
    pub fn propose(&mut self, now: Instant, txn: &[u8]) -> Result<Zxid, ProposeError> {
        unimplemented!()
    }
    pub fn request(&mut self, data: &[u8], auth: &[u8]) -> bool {
        unimplemented!()
    }
    pub fn revalidate(&mut self, data: &[u8]) -> bool {
        unimplemented!()
    }
    pub fn revalidated(&mut self, to: Origin, data: &[u8]) {
        unimplemented!()
    }
    pub fn pong(&mut self, sessions: &[u8]) {
        unimplemented!()
    }
    pub fn sync(&mut self, now: Instant) -> u64 {
        unimplemented!()
    }
    pub fn sync_learner(&mut self, now: Instant, from: Origin) {
        unimplemented!()
    }
    pub fn snapshot_received(&mut self, now: Instant, conn: ConnId, done: bool) {
        unimplemented!()
    }
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) {
        unimplemented!()
    }
    /// Highest zxid delivered to the application.
    pub fn delivered(&self) -> Zxid {
        unimplemented!()
    }
}
