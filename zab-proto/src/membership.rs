//! The members of an ensemble, the text that describes them, and what counts as a quorum.

mod text;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{ConfigError, Sid};

/// Whether a member votes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Votes and acknowledges.
    Participant,
    /// Only learns.
    Observer,
}

/// One address of a member's peer ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Host name or literal address, without brackets.
    pub host: String,
    /// Port on which a leader takes learners.
    pub quorum_port: u16,
    /// Port on which votes are exchanged.
    pub election_port: u16,
}

impl Address {
    /// `host:port` with one of the ports; a host with a colon in brackets.
    #[must_use]
    pub fn host_port(&self, port: u16) -> String {
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Voter or observer.
    pub role: Role,
    /// At least one, in the order of the configuration.
    pub addresses: Vec<Address>,
    /// Client host and port, if the server line has them.
    pub client: Option<(String, u16)>,
}

/// A group of a hierarchical quorum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The group's number in the configuration.
    pub id: i64,
    /// Its servers.
    pub sids: Vec<Sid>,
}

/// The configuration of an ensemble.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// zxid of the reconfiguration that made it; 0 for a static one.
    pub version: i64,
    /// All members.
    pub members: BTreeMap<Sid, Member>,
    /// Groups of a hierarchical quorum; empty: majority.
    pub groups: Vec<Group>,
    /// Weights of a hierarchical quorum. [`complete`](Self::complete) gives every participant of one
    /// a weight.
    pub weights: BTreeMap<Sid, i64>,
}

impl Membership {
    /// Whether `sid` is a participant.
    #[must_use]
    pub fn is_voter(&self, sid: Sid) -> bool {
        self.members.get(&sid).is_some_and(|member| member.role == Role::Participant)
    }

    /// The participants, ascending.
    pub fn voters(&self) -> impl Iterator<Item = Sid> + '_ {
        self.members.iter().filter(|(_, m)| m.role == Role::Participant).map(|(sid, _)| *sid)
    }

    /// Whether quorums are those of groups and weights rather than majorities.
    #[must_use]
    pub fn is_hierarchical(&self) -> bool {
        !self.groups.is_empty() || !self.weights.is_empty()
    }

    /// What a server's acknowledgement counts: 1 for anyone where majorities decide, else its
    /// weight. A server of weight 0 is never elected.
    #[must_use]
    pub fn weight(&self, sid: Sid) -> i64 {
        if self.is_hierarchical() { self.weights.get(&sid).copied().unwrap_or(0) } else { 1 }
    }

    /// Whether the voters for which `acked` holds form a quorum: a majority or, in a hierarchy,
    /// more than half of the groups that weigh anything, each with more than half of its weight.
    pub fn is_quorum(&self, acked: impl Fn(Sid) -> bool) -> bool {
        if self.is_hierarchical() {
            return self.is_hierarchical_quorum(acked);
        }
        let (voters, acks) = self
            .voters()
            .fold((0, 0), |(voters, acks), sid| (voters + 1, acks + usize::from(acked(sid))));
        acks > voters / 2
    }

    fn is_hierarchical_quorum(&self, acked: impl Fn(Sid) -> bool) -> bool {
        let (mut groups, mut won) = (0_usize, 0_usize);
        for group in &self.groups {
            let (mut total, mut acks) = (0_i64, 0_i64);
            for &sid in &group.sids {
                let weight = self.weight(sid);
                total = total.saturating_add(weight);
                if self.is_voter(sid) && acked(sid) {
                    acks = acks.saturating_add(weight);
                }
            }
            groups += usize::from(total != 0);
            won += usize::from(acks > total / 2);
        }
        won > groups / 2
    }

    /// Whether two configurations have the same members: the same ids with the same roles and
    /// addresses and, in a hierarchy, the same groups and weights. The order of a member's
    /// addresses and how quorum and election ports are paired do not matter, since ZooKeeper keeps
    /// neither. Configurations of one version are the same without a look.
    #[must_use]
    pub fn has_same_members(&self, other: &Self) -> bool {
        self.version == other.version
            || self.members.len() == other.members.len()
                && self
                    .members
                    .iter()
                    .zip(&other.members)
                    .all(|((sid, member), (id, of_other))| sid == id && member.is_same(of_other))
                && self.groups == other.groups
                && self.weights == other.weights
    }

    /// The same without the addresses for clients, which are nobody's business but a member's own.
    #[must_use]
    pub fn has_same_peers(&self, other: &Self) -> bool {
        let bare = |ensemble: &Self| {
            let mut bare = ensemble.clone();
            bare.members.values_mut().for_each(|member| member.client = None);
            bare
        };
        bare(self).has_same_members(&bare(other))
    }

    /// Checks groups and weights against the members, and gives participants without a weight
    /// their 1. To be called when the last [`set`](Self::set) is done.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if a server is in two groups, a participant is in none, or a group
    /// names a server that is no participant and has no weight.
    pub fn complete(&mut self) -> Result<(), ConfigError> {
        if !self.is_hierarchical() {
            return Ok(());
        }
        // Of a repeated group the last one holds; the sort is stable.
        self.groups.reverse();
        self.groups.sort_by_key(|group| group.id);
        self.groups.dedup_by_key(|group| group.id);
        // The missing blanks are ZooKeeper's.
        let mut grouped = BTreeSet::new();
        if let Some(sid) = self.groups.iter().flat_map(|g| &g.sids).find(|s| !grouped.insert(**s)) {
            return Err(ConfigError::Invalid(format!("Server {sid}is in multiple groups")));
        }
        for (sid, _) in self.members.iter().filter(|(_, m)| m.role == Role::Participant) {
            if !grouped.contains(sid) {
                return Err(ConfigError::Invalid(format!("Server {sid}is not in a group")));
            }
            self.weights.entry(*sid).or_insert(1);
        }
        match grouped.into_iter().find(|sid| !self.weights.contains_key(sid)) {
            Some(sid) => Err(ConfigError::Invalid(format!("Server {sid} has no weight"))),
            None => Ok(()),
        }
    }

    /// Checks that there are enough participants. With `standaloneEnabled` one server without
    /// observers is no ensemble but a standalone server, which is not an error.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn check_participants(&self, standalone_enabled: bool) -> Result<(), ConfigError> {
        let voters = self.voters().count();
        let observers = self.members.len() > voters;
        let error = match voters {
            0 if !standalone_enabled => {
                "standaloneEnabled = false then number of participants should be >0"
            }
            0 if observers => "Observers w/o participants is an invalid configuration",
            1 if observers && standalone_enabled => {
                "Observers w/o quorum is an invalid configuration"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::Invalid(error.into()))
    }

    /// Checks that no member has several addresses, which only `multiAddress.enabled` allows.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn check_single_addresses(&self) -> Result<(), ConfigError> {
        match self.members.iter().find(|(_, member)| member.addresses.len() > 1) {
            None => Ok(()),
            Some((sid, _)) => Err(ConfigError::Invalid(format!(
                "Multiple address feature is disabled, but multiple addresses were specified \
                 for sid {sid}"
            ))),
        }
    }
}

impl Member {
    /// Whether learners find both at the same addresses.
    #[must_use]
    pub fn has_same_quorum_addresses(&self, other: &Self) -> bool {
        let within = |some: &[Address], all: &[Address]| {
            some.iter()
                .all(|a| all.iter().any(|b| (&a.host, a.quorum_port) == (&b.host, b.quorum_port)))
        };
        within(&self.addresses, &other.addresses) && within(&other.addresses, &self.addresses)
    }

    /// Whether role and addresses are the same, the latter as two sets.
    fn is_same(&self, other: &Self) -> bool {
        let within = |some: &[Address], all: &[Address]| {
            some.iter().all(|a| {
                all.iter().any(|b| a.host == b.host && a.quorum_port == b.quorum_port)
                    && all.iter().any(|b| a.host == b.host && a.election_port == b.election_port)
            })
        };
        self.role == other.role
            && self.client == other.client
            && within(&self.addresses, &other.addresses)
            && within(&other.addresses, &self.addresses)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn parse(text: &str) -> Membership {
        Membership::parse_text(text.as_bytes()).expect(text)
    }

    fn is_quorum(ensemble: &Membership, acks: &[i64]) -> bool {
        ensemble.is_quorum(|sid| acks.contains(&sid.0))
    }

    const FIVE: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\n\
                        server.5=e:1:2\nserver.6=f:1:2:observer\n";

    #[test]
    fn majority() {
        let five = parse(FIVE);
        assert!(is_quorum(&five, &[1, 3, 5]));
        assert!(!is_quorum(&five, &[1, 3]));
        assert!(!is_quorum(&five, &[1, 3, 6, 7]), "observers and strangers do not count");
        let four = parse("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2");
        assert!(!is_quorum(&four, &[1, 2]));
        assert!(!Membership::default().is_quorum(|_| true));
        assert_eq!((five.weight(Sid(1)), five.weight(Sid(9))), (1, 1));
    }

    #[test]
    fn hierarchy() {
        let groups = "group.1=1:2:3\ngroup.2=4:5\nweight.5=0\n";
        let five = parse(&[FIVE, groups].concat());
        assert_eq!((five.weight(Sid(1)), five.weight(Sid(5)), five.weight(Sid(6))), (1, 0, 0));
        assert!(is_quorum(&five, &[1, 2, 4]));
        assert!(!is_quorum(&five, &[1, 2, 3, 5]), "one group of two");
        assert!(!is_quorum(&five, &[1, 4, 5]));
        let weightless = parse(&[FIVE, groups, "weight.4=0"].concat());
        assert!(is_quorum(&weightless, &[1, 2]), "a group without weight does not count");
        assert!(!is_quorum(&weightless, &[3, 4, 5]));
        assert!(!is_quorum(&weightless, &[]));
        let nobody = parse("server.1=a:1:2\ngroup.1=1\nweight.1=0");
        assert!(!is_quorum(&nobody, &[1]));
    }

    #[test]
    fn groups_must_be_complete() {
        let error = |text: &str| match Membership::parse_text([FIVE, text].concat().as_bytes()) {
            Err(ConfigError::Invalid(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(error("group.1=1:2:3:4"), "Server 5is not in a group");
        assert_eq!(error("weight.1=2"), "Server 1is not in a group");
        assert_eq!(error("group.1=1:2:3\ngroup.2=3:4:5"), "Server 3is in multiple groups");
        assert_eq!(error("group.1=1:2:3:4:5:6"), "Server 6 has no weight");
        let repeated = parse(&[FIVE, "group.2=3:4:5\ngroup.1=9\ngroup.1=1:2"].concat());
        assert!(repeated.text().contains("\ngroup.1=1:2\ngroup.2=3:4:5\nweight.1=1\n"));
    }

    #[test]
    fn participants() {
        let check = |text: &str, standalone| {
            parse(text).check_participants(standalone).map_err(|e| e.to_string())
        };
        let observer = "server.1=a:1:2:observer\n";
        let one = "server.1=a:1:2:observer\nserver.2=b:1:2";
        let invalid = |text: &str| Err(text.into());
        assert_eq!(
            check(observer, true),
            invalid("Observers w/o participants is an invalid configuration")
        );
        assert_eq!(
            check(observer, false),
            invalid("standaloneEnabled = false then number of participants should be >0")
        );
        assert_eq!(check(one, true), invalid("Observers w/o quorum is an invalid configuration"));
        assert_eq!(check(one, false), Ok(()));
        assert_eq!(check("server.2=b:1:2", true), Ok(()));
        assert_eq!(check(FIVE, true), Ok(()));
    }

    #[test]
    fn same_members() {
        let base = parse("server.1=a:1:2|b:3:4\nserver.2=c:1:2;9\nversion=5");
        let same = |text: &str| base.has_same_members(&parse(text));
        assert!(same("server.2=c:1:2;0.0.0.0:9\nserver.1=b:3:4|a:1:2:participant\nversion=6"));
        assert!(same("version=5"), "the same version");
        for other in [
            "server.1=a:1:2|b:3:4\nserver.2=c:1:2",
            "server.1=a:1:2\nserver.2=c:1:2;9",
            "server.1=a:1:2|b:3:5\nserver.2=c:1:2;9",
            "server.1=a:1:2|b:3:4\nserver.2=c:1:2:observer;9",
            "server.1=a:1:2|b:3:4\nserver.3=c:1:2;9",
            "server.1=a:1:2|b:3:4\nserver.2=c:1:2;9\ngroup.1=1:2",
        ] {
            assert!(!same(other), "{other}");
        }
    }
}
