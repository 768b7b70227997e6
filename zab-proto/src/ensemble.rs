//! The members of an ensemble, the text that describes them, and what counts as a quorum.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Sid;

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

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Voter or observer.
    pub role: Role,
    /// At least one.
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
pub struct Ensemble {
    /// zxid of the reconfiguration that made it; 0 for a static one.
    pub version: i64,
    /// All members.
    pub members: BTreeMap<Sid, Member>,
    /// Groups of a hierarchical quorum; empty: majority.
    pub groups: Vec<Group>,
    /// Weights of a hierarchical quorum; a participant's default is 1.
    pub weights: BTreeMap<Sid, i64>,
}

impl Ensemble {
    /// Whether `sid` is a participant.
    #[must_use]
    pub fn is_voter(&self, sid: Sid) -> bool {
        self.members.get(&sid).is_some_and(|member| member.role == Role::Participant)
    }

    /// The participants, ascending.
    pub fn voters(&self) -> impl Iterator<Item = Sid> + '_ {
        self.members.iter().filter(|(_, m)| m.role == Role::Participant).map(|(sid, _)| *sid)
    }

    /// Whether the voters for which `acked` holds form a quorum (majority or hierarchical).
    pub fn is_quorum(&self, acked: impl Fn(Sid) -> bool) -> bool {
        if self.groups.is_empty() {
            let voters = self.voters().count();
            return self.voters().filter(|sid| acked(*sid)).count() > voters / 2;
        }
        false
    }
}
