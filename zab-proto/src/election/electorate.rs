//! Who votes: the committed configuration, and during a reconfiguration the next one with it.

use alloc::format;
use alloc::string::String;
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

    /// The version of the committed configuration.
    pub(super) fn version(&self) -> i64 {
        self.ensembles[0].version
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
    pub(super) fn addresses(&self, sid: Sid) -> Option<String> {
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
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: i64, lines: &[(&str, &str)]) -> Ensemble {
        let mut ensemble = Ensemble { version, ..Ensemble::default() };
        for (key, value) in lines {
            ensemble.set(key, value).unwrap();
        }
        ensemble.complete().unwrap();
        ensemble
    }

    /// While a configuration is being introduced, both have to agree.
    #[test]
    fn two_configurations() {
        let old = of(0, &[("server.1", "a:1:2"), ("server.2", "b:1:2"), ("server.3", "[::1]:1:2")]);
        let next =
            of(9, &[("server.3", "c:1:2"), ("server.4", "d:1:2"), ("server.1", "a:1:2:observer")]);
        let electorate = Electorate::new(old.clone(), Some(next));
        assert_eq!(electorate.voters(), [1, 2, 3, 4].map(Sid));
        assert!(!electorate.is_observer(Sid(1)), "not yet");
        let quorum = |sids: &[i64]| electorate.is_quorum(|sid| sids.contains(&sid.0));
        assert!(!quorum(&[1, 2]));
        assert!(!quorum(&[3, 4]));
        assert!(quorum(&[2, 3, 4]));
        assert_eq!(electorate.addresses(Sid(3)).as_deref(), Some("[::1]:2"));
        assert_eq!(electorate.addresses(Sid(4)).as_deref(), Some("d:2"));
        assert_eq!(electorate.addresses(Sid(5)), None);
        // One that is no newer changes nothing.
        let stale = of(0, &[("server.4", "d:1:2")]);
        assert_eq!(Electorate::new(old, Some(stale)).voters(), [1, 2, 3].map(Sid));
    }
}
