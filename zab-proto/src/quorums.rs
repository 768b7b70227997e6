//! Whose word counts: the voters of the committed configuration, and during a reconfiguration those of
//! the next one with them. Elections, promises, synchronisations, commits and signs of life all ask here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Member, Membership, Role, Sid};

/// The configurations that count. A quorum is one in each of them.
///
/// Never changes: a reconfiguration, or another answer of the oracle, puts another one in its place, at once
/// for all who ask.
#[derive(Clone, Debug)]
pub(crate) struct Quorums {
    committed: Membership,
    /// Newer configurations that are being introduced, ascending by version: one, and more only on a server
    /// that does not know yet which of them has come into force.
    next: Vec<Membership>,
    /// The voters of all, ascending.
    voters: Vec<Sid>,
    /// There is an oracle (`Config::oracle`).
    oracle: bool,
    /// Without these the other voter of a configuration of two is a quorum, as the oracle says to it, which
    /// is this server.
    without: Vec<Sid>,
}

impl Quorums {
    /// Of the committed configuration and the next ones. What is no newer is left out.
    pub(crate) fn new(committed: Membership, next: impl IntoIterator<Item = Membership>) -> Self {
        let newer = |next: &Membership| next.version > committed.version;
        let mut next: Vec<Membership> = next.into_iter().filter(newer).collect();
        next.sort_by_key(|next| next.version);
        next.dedup_by_key(|next| next.version);
        let all = core::iter::once(&committed).chain(&next);
        let mut voters: Vec<Sid> = all.flat_map(Membership::voters).collect();
        voters.sort_unstable();
        voters.dedup();
        Self { committed, next, voters, oracle: false, without: Vec::new() }
    }

    /// With an oracle or not.
    pub(crate) fn with_oracle(self, oracle: bool) -> Self {
        Self { oracle, ..self }
    }

    /// The same configurations, of which this server is a quorum without these voters, where there are but
    /// two.
    pub(crate) fn without(&self, without: Vec<Sid>) -> Self {
        Self { without, ..self.clone() }
    }

    /// Other configurations, with what the oracle has said of those before.
    pub(crate) fn following(self, before: &Self) -> Self {
        Self { oracle: before.oracle, without: before.without.clone(), ..self }
    }

    /// Without whom this server is a quorum of two.
    pub(crate) fn absent(&self) -> &[Sid] {
        &self.without
    }

    /// The voters for whom the oracle could let `me` stand in: the other one of each configuration of two,
    /// ascending.
    pub(crate) fn partners(&self, me: Sid) -> Vec<Sid> {
        let pairs = self.each().filter(|_| self.oracle).filter_map(pair);
        let mut others: Vec<Sid> =
            pairs.filter(|pair| pair.contains(&me)).flatten().filter(|sid| *sid != me).collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Whether `sid` may lead without the other of two voters, by an oracle that only it can ask. Whoever
    /// looks for a leader has its own word alone.
    pub(crate) fn may_lead_alone(&self, sid: Sid) -> bool {
        self.oracle && self.each().filter_map(pair).any(|pair| pair.contains(&sid))
    }

    /// The place of `me` among two voters, of which it is a quorum alone; `None`: it is none.
    pub(crate) fn place_alone(&self, me: Sid) -> Option<usize> {
        let alone = |pair: &[Sid; 2]| pair.iter().any(|sid| self.without.contains(sid));
        self.each().filter_map(pair).find(alone)?.iter().position(|sid| *sid == me)
    }

    /// Whether the oracle makes them a quorum of one of the configurations that count.
    fn is_granted(&self, ensemble: &Membership, acked: impl Fn(Sid) -> bool) -> bool {
        !self.without.is_empty()
            && pair(ensemble).is_some_and(|pair| {
                pair.iter().any(|sid| acked(*sid))
                    && pair.iter().all(|sid| acked(*sid) || self.without.contains(sid))
            })
    }

    /// All configurations that count, the committed one first.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Membership> {
        core::iter::once(&self.committed).chain(&self.next)
    }

    /// The configuration in force.
    pub(crate) fn committed(&self) -> &Membership {
        &self.committed
    }

    /// Those that are being introduced, ascending.
    pub(crate) fn next(&self) -> &[Membership] {
        &self.next
    }

    /// The newest of all.
    pub(crate) fn newest(&self) -> &Membership {
        self.next.last().unwrap_or(&self.committed)
    }

    /// A member, as the oldest configuration that names it has it: its new address, if it has one, counts
    /// once that is committed.
    pub(crate) fn member(&self, sid: Sid) -> Option<&Member> {
        self.each().find_map(|ensemble| ensemble.members.get(&sid))
    }

    /// The version of the committed configuration.
    pub(crate) fn version(&self) -> i64 {
        self.committed.version
    }

    /// All voters, ascending.
    pub(crate) fn voters(&self) -> &[Sid] {
        &self.voters
    }

    /// Whether any of them names `sid`.
    pub(crate) fn is_member(&self, sid: Sid) -> bool {
        self.each().any(|ensemble| ensemble.members.contains_key(&sid))
    }

    /// Whether `sid` votes in any of them.
    pub(crate) fn is_voter(&self, sid: Sid) -> bool {
        self.voters.binary_search(&sid).is_ok()
    }

    /// Whether `sid` is configured not to vote. A server in no configuration is no observer.
    pub(crate) fn is_observer(&self, sid: Sid) -> bool {
        self.committed.members.get(&sid).is_some_and(|member| member.role == Role::Observer)
    }

    /// The weight of `sid` as a candidate.
    pub(crate) fn weight(&self, sid: Sid) -> i64 {
        self.committed.weight(sid)
    }

    /// Whether the voters for which `acked` holds are a quorum of each configuration.
    pub(crate) fn is_quorum(&self, acked: impl Fn(Sid) -> bool) -> bool {
        self.each().all(|ensemble| ensemble.is_quorum(&acked) || self.is_granted(ensemble, &acked))
    }

    /// Whether the voters for which `follows` holds make it worth to follow their leader: a quorum of one
    /// of the configurations. A server that is itself needed in one that was proposed and lost would
    /// find the ensemble in no other way. Nothing is committed by that: the leader has its quorums, and a
    /// change that it lacks was never committed, or it would not have been elected by a quorum of the old
    /// configuration, one of which has the change and votes for no shorter history.
    pub(crate) fn is_followed_by(&self, follows: impl Fn(Sid) -> bool) -> bool {
        self.each().any(|ensemble| ensemble.is_quorum(&follows))
    }

    /// The election addresses of a member, as `host:port` joined by `|`.
    pub(crate) fn addresses(&self, sid: Sid) -> Option<String> {
        let member = self.member(sid)?;
        let each = member.addresses.iter().map(|at| address(&at.host, at.election_port));
        Some(each.collect::<Vec<_>>().join("|"))
    }

    /// The addresses of its quorum port in the same form.
    pub(crate) fn quorum_addresses(&self, sid: Sid) -> Option<String> {
        self.member(sid).map(quorum_addresses)
    }

    /// All members but `me`.
    pub(crate) fn members(&self) -> impl Iterator<Item = Sid> + '_ {
        self.each().flat_map(|ensemble| ensemble.members.keys().copied())
    }
}

/// The voters of a configuration of two, ascending. Where there are groups and weights no oracle is asked.
fn pair(ensemble: &Membership) -> Option<[Sid; 2]> {
    let mut voters = ensemble.voters();
    let pair = [voters.next()?, voters.next()?];
    (voters.next().is_none() && !ensemble.is_hierarchical()).then_some(pair)
}

/// The addresses of a member's quorum port, as `host:port` joined by `|`.
pub(crate) fn quorum_addresses(member: &Member) -> String {
    let each = member.addresses.iter().map(|at| address(&at.host, at.quorum_port));
    each.collect::<Vec<_>>().join("|")
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn of(version: i64, lines: &[(&str, &str)]) -> Membership {
        let mut ensemble = Membership { version, ..Membership::default() };
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
        let quorums = Quorums::new(old.clone(), Some(next));
        assert_eq!(quorums.voters(), [1, 2, 3, 4].map(Sid));
        assert!(!quorums.is_observer(Sid(1)), "not yet");
        let quorum = |sids: &[i64]| quorums.is_quorum(|sid| sids.contains(&sid.0));
        assert!(!quorum(&[1, 2]));
        assert!(!quorum(&[3, 4]));
        assert!(quorum(&[2, 3, 4]));
        assert_eq!(quorums.addresses(Sid(3)).as_deref(), Some("[::1]:2"));
        assert_eq!(quorums.addresses(Sid(4)).as_deref(), Some("d:2"));
        assert_eq!(quorums.addresses(Sid(5)), None);
        // One that is no newer changes nothing.
        let stale = of(0, &[("server.4", "d:1:2")]);
        assert_eq!(Quorums::new(old, Some(stale)).voters(), [1, 2, 3].map(Sid));
    }

    /// Which of the servers 1 to 5 are in `set`.
    fn is_in(set: u32, sid: Sid) -> bool {
        (1..=5).contains(&sid.0) && set >> (sid.0 - 1) & 1 == 1
    }

    /// Whether a set of servers is a quorum, written down by hand.
    type Wanted = fn(u32) -> bool;

    /// Five servers as majorities, with weights and in groups.
    fn configurations() -> Vec<(Membership, Wanted)> {
        let servers: Vec<(String, String)> =
            (1..=5).map(|n| (format!("server.{n}"), format!("h{n}:1:2"))).collect();
        let of_five = |version: i64, more: &[(&str, &str)]| {
            let all = servers.iter().map(|(key, line)| (key.as_str(), line.as_str()));
            of(version, &all.chain(more.iter().copied()).collect::<Vec<_>>())
        };
        let groups = [("group.1", "1:2:3"), ("group.2", "4:5")];
        let one = ("group.1", "1:2:3:4:5");
        vec![
            (of_five(1, &[]), |set| set.count_ones() >= 3),
            // Two of five observe.
            (
                of_five(2, &[("server.4", "h4:1:2:observer"), ("server.5", "h5:1:2:observer")]),
                |set| (set & 0b00111).count_ones() >= 2,
            ),
            // Server 1 weighs three of seven, so that with any other it has more than half.
            (of_five(3, &[one, ("weight.1", "3")]), |set| set.count_ones() + 2 * (set & 1) > 3),
            // A server without weight counts for nothing.
            (of_five(4, &[one, ("weight.5", "0")]), |set| (set & 0b01111).count_ones() >= 3),
            // Both groups, with two of three and both of two.
            (of_five(5, &groups), |set| {
                (set & 0b00111).count_ones() >= 2 && set & 0b11000 == 0b11000
            }),
        ]
    }

    /// All sets of five servers in all configurations and all pairs of them: what a quorum is, that
    /// more of them are one as well, and that two quorums always have a server in common, also one of
    /// the old configuration alone and one of a change to the next.
    #[test]
    fn quorums_are_what_they_should_be_and_overlap() {
        let all = configurations();
        let is = |quorums: &Quorums, set: u32| quorums.is_quorum(|sid| is_in(set, sid));
        for (old, old_wants) in &all {
            let alone = Quorums::new(old.clone(), None);
            for (next, next_wants) in &all {
                let both = Quorums::new(old.clone(), Some(next.clone()));
                let joint = next.version > old.version;
                for set in 0..32_u32 {
                    assert_eq!(is(&alone, set), old_wants(set), "{set:05b} of {}", old.version);
                    let wants = old_wants(set) && (!joint || next_wants(set));
                    assert_eq!(
                        is(&both, set),
                        wants,
                        "{set:05b} of {} and {}",
                        old.version,
                        next.version
                    );
                    for other in 0..32_u32 {
                        if is(&both, set) && (is(&both, other) || is(&alone, other)) {
                            assert!(set & other != 0, "{set:05b} and {other:05b}");
                        }
                        assert!(!is(&both, set) || is(&both, set | other), "more is no less");
                    }
                }
            }
        }
    }

    /// An oracle lets one of two stand in for the other, in each configuration of two, and changes nothing else.
    #[test]
    fn an_oracle_speaks_for_two_voters_alone() {
        let of_first = |version: i64, n: usize, more: &[(&str, &str)]| {
            let all = [("server.1", "a:1:2"), ("server.2", "b:1:2"), ("server.3", "c:1:2")];
            of(version, &all[..n].iter().chain(more).copied().collect::<Vec<_>>())
        };
        let pair = of_first(1, 2, &[("server.5", "e:1:2:observer")]);
        let quorums = Quorums::new(pair.clone(), None).with_oracle(true);
        assert_eq!(quorums.partners(Sid(1)), [Sid(2)]);
        assert_eq!(quorums.partners(Sid(2)), [Sid(1)]);
        assert!(quorums.partners(Sid(5)).is_empty(), "it has no vote");
        let quorum =
            |quorums: &Quorums, sids: &[i64]| quorums.is_quorum(|sid| sids.contains(&sid.0));
        assert!(!quorum(&quorums, &[1]) && quorum(&quorums, &[1, 2]));
        let alone = quorums.without(vec![Sid(2)]);
        assert!(quorum(&alone, &[1]) && quorum(&alone, &[1, 2]));
        assert!(!quorum(&alone, &[2]) && !quorum(&alone, &[]) && !quorum(&alone, &[5]));
        assert_eq!((alone.place_alone(Sid(1)), quorums.place_alone(Sid(1))), (Some(0), None));
        assert_eq!(quorums.without(vec![Sid(1)]).place_alone(Sid(2)), Some(1));
        // One, three, and two in a group have none to ask.
        let group: &[(&str, &str)] = &[("group.1", "1:2")];
        for (n, more) in [(1, &[][..]), (3, &[]), (2, group)] {
            let others = Quorums::new(of_first(1, n, more), None).with_oracle(true);
            assert!(others.partners(Sid(1)).is_empty() && !others.may_lead_alone(Sid(1)));
            assert_eq!(quorum(&others.without(vec![Sid(2)]), &[1]), n == 1);
        }
        let without = Quorums::new(pair.clone(), None);
        assert!(without.partners(Sid(1)).is_empty() && !without.may_lead_alone(Sid(1)));
        // The dead one is replaced: the old configuration goes by the oracle, the new one by its own voters.
        let next = of(9, &[("server.1", "a:1:2"), ("server.3", "c:1:2")]);
        let joint = Quorums::new(pair, Some(next)).following(&alone);
        assert_eq!(joint.partners(Sid(1)), [2, 3].map(Sid));
        assert!(quorum(&joint, &[1, 3]) && !quorum(&joint, &[1]) && !quorum(&joint, &[3]));
        assert!(quorum(&joint.without(vec![Sid(2), Sid(3)]), &[1]));
    }

    #[test]
    fn nobody_is_no_quorum() {
        assert!(!Quorums::new(Membership::default(), None).is_quorum(|_| true));
    }
}
