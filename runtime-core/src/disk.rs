//! What a runtime asks of storage beyond what the core asks.

use std::error::Error as StdError;
use std::sync::Arc;

use zab_proto::{Recovered, Storage, Ticket};

use crate::Oracle;

/// A durable queue that a runtime can drive. `zab-storage` is one; embedders may bring theirs.
pub trait Disk: Storage {
    /// What went wrong. Nothing is written after a failure, and the server stops.
    type Error: StdError + Send + Sync + 'static;

    /// Everything queued so far is one batch: write it and make it durable.
    fn submit(&mut self);

    /// The highest ticket made durable since the last call, if it has risen. Never blocks.
    ///
    /// # Errors
    /// The failure of a write; the same again at each further call.
    fn poll(&mut self) -> Result<Option<Ticket>, Self::Error>;
}

/// What a server begins with: its application and log as recovered, and the disk that goes on.
#[derive(Debug)]
pub struct Loaded<A, D> {
    /// The application, in the state of the recovered snapshot.
    pub app: A,
    /// Epochs and the log above the snapshot.
    pub recovered: Recovered,
    /// Where further writes go. It should wake the loop when writes have become durable.
    pub disk: D,
    /// Who is asked whether one of two voters is a quorum; needed with [`Config::oracle`](zab_proto::Config::oracle).
    pub oracle: Option<Arc<dyn Oracle>>,
}

impl Disk for zab_storage::Disk {
    type Error = zab_storage::Error;

    fn submit(&mut self) {
        self.submit();
    }

    fn poll(&mut self) -> Result<Option<Ticket>, Self::Error> {
        self.poll()
    }
}
