//! Who votes: the committed configuration, and during a reconfiguration the next one with it.

use alloc::vec::Vec;

use crate::{Ensemble, Role, Sid};

/// The configurations whose voters elect. A quorum is one in each of them.
#[derive(Debug)]
pub(super) struct Electorate {
    ensembles: Vec<Ensemble>,
    voters: Vec<Sid>,
}

impl Electorate {
    /// From the committed configuration and a newer one that is being introduced.
    pub(super) fn new(committed: Ensemble, next: Option<Ensemble>) -> Self {
        let next = next.filter(|next| next.version > committed.version);
        let ensembles: Vec<Ensemble> = [committed].into_iter().chain(next).collect();
        let mut voters: Vec<Sid> = ensembles.iter().flat_map(Ensemble::voters).collect();
        voters.sort_unstable();
        voters.dedup();
        Self { ensembles, voters }
    }

    /// All voters, ascending.
    pub(super) fn voters(&self) -> &[Sid] {
        &self.voters
    }

    /// Whether `sid` votes in any of them.
    pub(super) fn is_voter(&self, sid: Sid) -> bool {
        self.voters.binary_search(&sid).is_ok()
    }

    /// Whether `sid` is configured not to vote. A server in no configuration is no observer.
    pub(super) fn is_observer(&self, sid: Sid) -> bool {
        self.ensembles[0].members.get(&sid).is_some_and(|member| member.role == Role::Observer)
    }

    /// The weight of `sid` as a candidate.
    pub(super) fn weight(&self, sid: Sid) -> i64 {
        self.ensembles[0].weight(sid)
    }

    /// Whether the voters for which `acked` holds are a quorum of each configuration.
    pub(super) fn is_quorum(&self, acked: impl Fn(Sid) -> bool) -> bool {
        self.ensembles.iter().all(|ensemble| ensemble.is_quorum(&acked))
    }

    /// The election addresses of a member, as `host:port` joined by `|`.
    pub(super) fn addresses(&self, sid: Sid) -> Option<alloc::string::String> {
        let member = self.ensembles.iter().find_map(|ensemble| ensemble.members.get(&sid))?;
        let each = member.addresses.iter().map(|at| address(&at.host, at.election_port));
        Some(each.collect::<Vec<_>>().join("|"))
    }

    /// All members but `me`.
    pub(super) fn members(&self) -> impl Iterator<Item = Sid> + '_ {
        self.ensembles.iter().flat_map(|ensemble| ensemble.members.keys().copied())
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn address(host: &str, port: u16) -> alloc::string::String {
    if host.contains(':') {
        alloc::format!("[{host}]:{port}")
    } else {
        alloc::format!("{host}:{port}")
    }
}
