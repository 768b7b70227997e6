//! What only looks.
//!
//! [`report`] has the answers as values and as ZooKeeper's text, `mntr` and `four_letter` say which
//! words ask for them. [`look`] has those that leave the server's thread, and `rows` the metrics. Nothing
//! here changes anything, so that other ways to ask can be added beside.

pub(super) mod four_letter;
pub mod look;
mod mntr;
mod report;
mod rows;

use zab_proto::{Core, Zxid};

use crate::metrics::Metrics;
use crate::service::connection::table::Clients;
use crate::service::env::Env;
use crate::service::role::Role;
use crate::service::role::local::LocalSessions;
use crate::service::role::status::ServerStatus;
use crate::state::State;
use crate::state::watch::Watches;

/// What there is to look at.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct View<'a, 'c> {
    pub(in crate::service) core: &'a Core<'c>,
    pub(in crate::service) env: &'a Env,
    pub(in crate::service) state: &'a State,
    pub(in crate::service) clients: &'a Clients,
    pub(in crate::service) watches: &'a Watches,
    pub(in crate::service) status: &'a ServerStatus,
    pub(in crate::service) role: &'a Role,
    pub(in crate::service) local: &'a LocalSessions,
    pub(in crate::service) metrics: &'a Metrics,
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
