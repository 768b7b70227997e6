//! Who may come in on the ports of the peers, without TLS or SASL (rule R23).
//!
//! A peer says its server id itself, and nothing proves it. So at least the id has to be a member's,
//! and the connection has to come from an address of that member. Addresses that the configuration
//! gives as names are not judged: what a name means is not known here, and changes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::{Config, Sid, Violation};

/// What the configuration says of those who may come.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    allow_unlisted: bool,
    check_addresses: bool,
    /// The hosts of each member.
    members: BTreeMap<Sid, Vec<String>>,
}

impl Door {
    pub(crate) fn new(config: &Config) -> Self {
        let hosts = |addresses: &[crate::Address]| {
            addresses.iter().map(|address| address.host.clone()).collect()
        };
        let members = config.ensemble.members.iter();
        Self {
            allow_unlisted: config.allow_unlisted,
            check_addresses: config.check_addresses,
            members: members.map(|(sid, member)| (*sid, hosts(&member.addresses))).collect(),
        }
    }

    /// Whether who comes from `remote` may be `sid`.
    pub(crate) fn admit(&self, sid: Sid, remote: Option<IpAddr>) -> Result<(), Violation> {
        let Some(hosts) = self.members.get(&sid) else {
            return if self.allow_unlisted { Ok(()) } else { Err(Violation::Stranger(sid)) };
        };
        let Some(remote) = remote.filter(|_| self.check_addresses) else { return Ok(()) };
        let remote = remote.to_canonical();
        let known: Option<Vec<IpAddr>> =
            hosts.iter().map(|host| literal(host).filter(|ip| !ip.is_unspecified())).collect();
        // A name may mean any address.
        let Some(known) = known.filter(|known| !known.is_empty()) else { return Ok(()) };
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
    use crate::{Ensemble, Member};

    fn door(change: impl FnOnce(&mut Config)) -> Door {
        let mut ensemble = Ensemble::default();
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

    fn admit(door: &Door, sid: i64, remote: &str) -> Result<(), Violation> {
        door.admit(Sid(sid), Some(remote.parse().expect("an address")))
    }

    #[test]
    fn only_members_from_where_they_live() {
        let door = door(|_| {});
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
            assert_eq!(admit(&door, sid, remote), Ok(()), "{sid} from {remote}");
        }
        for (sid, remote) in [(1, "10.0.0.2"), (2, "10.0.0.1"), (2, "127.0.0.2"), (4, "fd00::5")] {
            let wrong = Violation::WrongAddress(Sid(sid), remote.parse().expect("an address"));
            assert_eq!(admit(&door, sid, remote), Err(wrong));
        }
        for sid in [0, 6, -1, 4242, i64::MIN, i64::MAX] {
            assert_eq!(admit(&door, sid, "10.0.0.1"), Err(Violation::Stranger(Sid(sid))));
        }
        assert_eq!(door.admit(Sid(2), None), Ok(()), "from who knows where");
    }

    #[test]
    fn both_can_be_switched_off() {
        let open = door(|config| config.check_addresses = false);
        assert_eq!(admit(&open, 1, "10.0.0.2"), Ok(()));
        assert_eq!(admit(&open, 6, "10.0.0.2"), Err(Violation::Stranger(Sid(6))));
        let unlisted = door(|config| config.allow_unlisted = true);
        assert_eq!(admit(&unlisted, 6, "10.0.0.2"), Ok(()));
        assert!(admit(&unlisted, 1, "10.0.0.2").is_err());
    }
}
