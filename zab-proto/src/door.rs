//! Who may come in on the ports of the peers, without TLS or SASL (rule R23).
//!
//! A peer says its server id itself, and nothing proves it. So at least the id must be a member's,
//! and the connection has to come from an address of that member.
//!
//! What a name means changes, and the driver looks it up ([`Peer::resolved`](crate::Peer::resolved)).
//! Often a name is not even meant for those who accept: behind address translation, or a service's
//! address in front of the member, its connections never come from where they would be dialled. So
//! names are judged only for a member that has come from an address of its names once since the start.
//! Before that, and while a name is not known, it may come from anywhere.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::quorums::Quorums;
use crate::{Config, Membership, Sid, Violation};

/// What the configuration says of those who may come.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    allow_unlisted: bool,
    check_addresses: bool,
    /// The hosts of each member.
    members: BTreeMap<Sid, Vec<String>>,
    /// What those that are names mean at present.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Members that have come from an address of their names.
    confirmed: Vec<Sid>,
}

impl Door {
    pub(crate) fn new(config: &Config) -> Self {
        let mut door = Self {
            allow_unlisted: config.allow_unlisted || config.reconfig,
            check_addresses: config.check_addresses,
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            confirmed: Vec::new(),
        };
        door.list(&config.ensemble);
        door
    }

    fn list(&mut self, ensemble: &Membership) {
        for (sid, member) in &ensemble.members {
            let hosts = self.members.entry(*sid).or_default();
            hosts.extend(member.addresses.iter().map(|address| address.host.clone()));
        }
    }

    /// Others are members from now on. While a configuration is being introduced, a member may come from
    /// its address in either.
    pub(crate) fn reconfigure(&mut self, quorums: &Quorums) {
        let before = core::mem::take(&mut self.members);
        quorums.each().for_each(|ensemble| self.list(ensemble));
        let members = &self.members;
        self.confirmed.retain(|sid| before.get(sid) == members.get(sid));
        self.names.retain(|name, _| members.values().flatten().any(|host| host == name));
    }

    /// What a name means now. One that is not found keeps what it meant.
    pub(crate) fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        let is_known = self.members.values().flatten().any(|known| known == host);
        if is_known && !addresses.is_empty() {
            let addresses = addresses.iter().map(IpAddr::to_canonical).collect();
            self.names.insert(String::from(host), addresses);
        }
    }

    /// Whether who comes from `remote` may be `sid`.
    pub(crate) fn admit(&mut self, sid: Sid, remote: Option<IpAddr>) -> Result<(), Violation> {
        let Some(hosts) = self.members.get(&sid) else {
            return if self.allow_unlisted { Ok(()) } else { Err(Violation::Stranger(sid)) };
        };
        let Some(remote) = remote.filter(|_| self.check_addresses) else { return Ok(()) };
        let remote = remote.to_canonical();
        let mut known = Vec::new();
        let mut named = false;
        for host in hosts {
            match literal(host) {
                Some(ip) if !ip.is_unspecified() => known.push(ip),
                Some(_) => return Ok(()),
                None => {
                    named = true;
                    // A name that is not known may mean any address.
                    let Some(addresses) = self.names.get(host) else { return Ok(()) };
                    known.extend_from_slice(addresses);
                }
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        if named && !self.confirmed.contains(&sid) {
            if known.contains(&remote) {
                self.confirmed.push(sid);
            }
            return Ok(());
        }
        // A member on this host may call by way of the loopback interface, whatever its address is.
        let near = remote.is_loopback() && known.iter().any(|ip| !ip.is_loopback());
        if near || known.contains(&remote) {
            Ok(())
        } else {
            Err(Violation::WrongAddress(sid, remote))
        }
    }
}

/// The address, if `host` is one and not a name.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Member, Membership};

    fn door(change: impl FnOnce(&mut Config)) -> Door {
        let mut ensemble = Membership::default();
        for (sid, line) in [
            (1, "10.0.0.1:2888:3888"),
            (2, "127.0.0.1:2888:3888"),
            (3, "zk3.example:2888:3888"),
            (4, "[fd00::4]:2888:3888|10.0.0.4:2888:3888"),
            (5, "0.0.0.0:2888:3888"),
        ] {
            let member = Member::parse(Sid(sid), line).expect("a good line");
            ensemble.members.insert(Sid(sid), member);
        }
        let mut config = Config::new(Sid(1), ensemble);
        change(&mut config);
        Door::new(&config)
    }

    fn admit(door: &mut Door, sid: i64, remote: &str) -> Result<(), Violation> {
        door.admit(Sid(sid), Some(remote.parse().expect("an address")))
    }

    #[test]
    fn names_are_judged_once_they_are_known_to_be_meant() {
        let mut door = door(|_| {});
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let wrong = |remote: &str| {
            Err(Violation::WrongAddress(Sid(3), remote.parse().expect("an address")))
        };
        let (host, home, other) = ("zk3.example", "10.0.0.3", "10.0.0.99");
        assert_eq!(admit(&mut door, 3, other), Ok(()), "not looked up yet");
        door.resolved(host, &ips(&[home, "fd00::3"]));
        // It may be behind address translation, and what its name means is where it is dialled.
        assert_eq!(admit(&mut door, 3, other), Ok(()));
        assert_eq!(admit(&mut door, 3, home), Ok(()));
        assert_eq!(admit(&mut door, 3, other), wrong(other));
        assert_eq!(admit(&mut door, 3, "fd00::3"), Ok(()));
        assert_eq!(admit(&mut door, 3, "127.0.0.1"), Ok(()), "from this host");
        // A name server that is away changes nothing; a member that moves does.
        door.resolved(host, &[]);
        door.resolved("another.example", &ips(&[other]));
        assert_eq!(admit(&mut door, 3, other), wrong(other));
        door.resolved(host, &ips(&[other]));
        assert_eq!((admit(&mut door, 3, other), admit(&mut door, 3, home)), (Ok(()), wrong(home)));
        // One that is on this host alone.
        door.resolved(host, &ips(&["127.0.0.1"]));
        assert_eq!(admit(&mut door, 3, "127.0.0.1"), Ok(()));
        assert_eq!(admit(&mut door, 3, "127.0.0.2"), wrong("127.0.0.2"));
        door.check_addresses = false;
        assert_eq!(admit(&mut door, 3, home), Ok(()));
    }

    #[test]
    fn only_members_from_where_they_live() {
        let mut door = door(|_| {});
        for (sid, remote) in [
            (1, "10.0.0.1"),
            (1, "::ffff:10.0.0.1"),
            (1, "127.0.0.1"),
            (2, "127.0.0.1"),
            (3, "192.0.2.7"),
            (4, "fd00::4"),
            (4, "10.0.0.4"),
            (5, "192.0.2.7"),
        ] {
            assert_eq!(admit(&mut door, sid, remote), Ok(()), "{sid} from {remote}");
        }
        for (sid, remote) in [(1, "10.0.0.2"), (2, "10.0.0.1"), (2, "127.0.0.2"), (4, "fd00::5")] {
            let wrong = Violation::WrongAddress(Sid(sid), remote.parse().expect("an address"));
            assert_eq!(admit(&mut door, sid, remote), Err(wrong));
        }
        for sid in [0, 6, -1, 4242, i64::MIN, i64::MAX] {
            assert_eq!(admit(&mut door, sid, "10.0.0.1"), Err(Violation::Stranger(Sid(sid))));
        }
        assert_eq!(door.admit(Sid(2), None), Ok(()), "from who knows where");
    }

    #[test]
    fn both_can_be_switched_off() {
        let mut open = door(|config| config.check_addresses = false);
        assert_eq!(admit(&mut open, 1, "10.0.0.2"), Ok(()));
        assert_eq!(admit(&mut open, 6, "10.0.0.2"), Err(Violation::Stranger(Sid(6))));
        let mut unlisted = door(|config| config.allow_unlisted = true);
        assert_eq!(admit(&mut unlisted, 6, "10.0.0.2"), Ok(()));
        assert!(admit(&mut unlisted, 1, "10.0.0.2").is_err());
    }
}
