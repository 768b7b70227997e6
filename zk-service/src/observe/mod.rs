//! What only looks.
//!
//! [`report`] has the answers as values and as ZooKeeper's text, `mntr` and `four_letter` say which
//! words ask for them. [`look`] has those that leave the server's thread, and `rows` the metrics. Nothing
//! here changes anything, so that other ways to ask can be added beside.

pub(crate) mod four_letter;
pub mod look;
mod mntr;
mod report;
mod rows;

use zab_proto::{Core, Zxid};

use crate::connection::table::Clients;
use crate::env::Env;
use crate::metrics::Metrics;
use crate::role::Role;
use crate::role::status::ServerStatus;
use crate::state::State;
use crate::state::watch::Watches;

/// What there is to be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a, 'c> {
    pub(crate) core: &'a Core<'c>,
    pub(crate) env: &'a Env,
    pub(crate) state: &'a State,
    pub(crate) clients: &'a Clients,
    pub(crate) watches: &'a Watches,
    pub(crate) status: &'a ServerStatus,
    pub(crate) role: &'a Role,
    pub(crate) metrics: &'a Metrics,
}

impl View<'_, '_> {
    /// The last zxid; on a leader at least the beginning of its epoch, which monitors tell the epoch
    /// from.
    fn shown_zxid(&self) -> Zxid {
        let last = self.state.last_zxid();
        match self.core.next_zxid().filter(|_| !self.status.is_standalone()) {
            Some(next) => last.max(Zxid::new(next.epoch(), 0)),
            None => last,
        }
    }

    /// ZooKeeper counts the root twice.
    fn node_count(&self) -> usize {
        self.state.tree().node_count() + 1
    }

    /// Requests that are not answered yet.
    fn outstanding(&self) -> usize {
        self.clients.iter().map(|(_, client)| client.queue.len()).sum()
    }

    fn leads_ensemble(&self) -> bool {
        self.status.mode() == "leader"
    }
}
