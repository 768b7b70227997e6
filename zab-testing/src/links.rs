//! The links of an ensemble: for every ordered pair of members the ports of a relay, which stand in
//! the one's configuration for the other's.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use zab_proto::{Membership, Role, Sid};

use crate::relay::{Link, Relay, Route};

#[derive(Debug)]
pub(crate) struct Links {
    relay: Relay,
    /// Quorum and election port that the first member finds the second one at.
    ports: HashMap<(Sid, Sid), [u16; 2]>,
}

impl Links {
    pub(crate) fn start(ensemble: &Membership) -> io::Result<Self> {
        let mut routes = Vec::new();
        let mut ports = HashMap::new();
        for from in ensemble.members.keys() {
            for (to, member) in ensemble.members.iter().filter(|(to, _)| *to != from) {
                let Some(address) = member.addresses.first() else { continue };
                let mut port = |real: u16| {
                    let target = SocketAddr::from(([127, 0, 0, 1], real));
                    let route = Route::bind(pair(*from, *to), target)?;
                    let port = route.port()?;
                    routes.push(route);
                    io::Result::Ok(port)
                };
                let election = port(address.election_port)?;
                let leads = member.role == Role::Participant;
                let quorum = if leads { port(address.quorum_port)? } else { address.quorum_port };
                ports.insert((*from, *to), [quorum, election]);
            }
        }
        Ok(Self { relay: Relay::start(routes)?, ports })
    }

    /// Puts the relay's ports into the configuration of `from`.
    pub(crate) fn redirect(&self, from: Sid, ensemble: &mut Membership) {
        for (to, member) in &mut ensemble.members {
            let Some([quorum, election]) = self.ports.get(&(from, *to)) else { continue };
            for address in &mut member.addresses {
                (address.quorum_port, address.election_port) = (*quorum, *election);
            }
        }
    }

    pub(crate) fn set(&self, a: Sid, b: Sid, link: Link) {
        self.relay.set(pair(a, b), link);
    }
}

/// Links have no direction.
fn pair(a: Sid, b: Sid) -> (Sid, Sid) {
    (a.min(b), a.max(b))
}
