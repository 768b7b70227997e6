//! The ports of a server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use zab_proto::{Channel, Member, Membership, Role, Sid};

use crate::{Error, Logins, Security};

/// What kind of port a connection has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Port {
    /// Who is expected there.
    pub channel: Channel,
    /// Clients speak TLS there and nothing else. Whether members do is the same for all their ports,
    /// and not said here.
    pub secure: bool,
}

impl From<Channel> for Port {
    fn from(channel: Channel) -> Self {
        Self { channel, secure: false }
    }
}

/// Addresses to listen on. Port 0 picks a free one.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// Where votes arrive.
    pub election: Vec<SocketAddr>,
    /// Where learners arrive. Bound from the start, so that a learner which hears of its leader
    /// earlier than the leader itself does is held rather than refused.
    pub quorum: Vec<SocketAddr>,
    /// Where clients arrive.
    pub clients: Vec<SocketAddr>,
    /// `clientPortListenBacklog`; `None`: the system's maximum.
    pub client_backlog: Option<u32>,
}

impl Listen {
    /// The peer ports of `member`: on its own addresses, or on all of the machine's. Observers
    /// lead nobody and have no quorum port. Looks names up, and waits for that.
    ///
    /// # Errors
    /// A name that cannot be resolved.
    pub fn peers(member: &Member, on_all_addresses: bool) -> io::Result<Self> {
        let mut listen = Self::default();
        for address in &member.addresses {
            let at = |port| {
                if on_all_addresses {
                    Ok(all_addresses(port))
                } else {
                    local_address(&address.host, port)
                }
            };
            listen.election.push(at(address.election_port)?);
            if member.role == Role::Participant {
                listen.quorum.push(at(address.quorum_port)?);
            }
        }
        // Several addresses may differ in nothing but the network interface.
        listen.election.dedup();
        listen.quorum.dedup();
        Ok(listen)
    }
}

/// The address to bind for `host`, which may be a name; the unspecified addresses stand for both
/// families. Waits for the name server.
///
/// # Errors
/// A name that cannot be resolved.
pub fn local_address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{host}: {error}"));
    let addr = (host, port).to_socket_addrs().map_err(failed)?.next().ok_or_else(none)?;
    Ok(if addr.ip().is_unspecified() { all_addresses(port) } else { addr })
}

/// All addresses of the machine, of both families if it has both.
#[must_use]
pub fn all_addresses(port: u16) -> SocketAddr {
    let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok_and(|socket| {
        socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into()).is_ok()
    });
    let v4 = Ipv4Addr::UNSPECIFIED;
    let ip = if v6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { v4.into() };
    SocketAddr::new(ip, port)
}

/// Bound ports, not yet served. Dropping closes them.
#[derive(Debug, Default)]
pub struct Listeners {
    security: Option<Arc<dyn Security>>,
    logins: Option<Arc<dyn Logins>>,
    ports: Vec<(Port, TcpListener, SocketAddr)>,
}

impl Listeners {
    /// Binds all of `listen`. What is bound accepts connections at once; they wait.
    ///
    /// # Errors
    /// [`Error::Bind`] names the port that could not be bound.
    pub fn bind(listen: &Listen) -> Result<Self, Error> {
        let mut listeners = Self::default();
        for addr in &listen.election {
            listeners.add(Channel::Election, *addr, None)?;
        }
        for addr in &listen.quorum {
            listeners.add(Channel::Quorum, *addr, None)?;
        }
        for addr in &listen.clients {
            listeners.add(Channel::Client, *addr, listen.client_backlog)?;
        }
        Ok(listeners)
    }

    /// Voters with the ids 1 to `n` on free ports of this machine, for examples and tests, and the
    /// ports of each: bound before the first of them starts, so that no dial is refused.
    ///
    /// # Errors
    /// [`Error::Bind`].
    #[expect(clippy::missing_panics_doc, reason = "the line is well-formed")]
    pub fn local_ensemble(n: usize) -> Result<(Membership, Vec<Self>), Error> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (mut ensemble, mut bound) = (Membership::default(), Vec::new());
        for sid in (1..).map(Sid).take(n) {
            let mut listeners = Self::default();
            let quorum = listeners.add(Channel::Quorum, any_port, None)?.port();
            let election = listeners.add(Channel::Election, any_port, None)?.port();
            let line = format!("{}:{quorum}:{election}", Ipv4Addr::LOCALHOST);
            let member = Member::parse(sid, &line).expect("a well-formed line");
            ensemble.members.insert(sid, member);
            bound.push(listeners);
        }
        Ok((ensemble, bound))
    }

    /// Takes the ports of `other`, too.
    pub fn append(&mut self, other: Self) {
        self.ports.extend(other.ports);
        self.security = self.security.take().or(other.security);
        self.logins = self.logins.take().or(other.logins);
    }

    /// Has the server's connections encrypted as `security` says: those that come to these ports, and
    /// those that the server dials.
    pub fn secure(&mut self, security: Arc<dyn Security>) {
        self.security = Some(security);
    }

    /// What [`secure`](Self::secure) was given.
    #[must_use]
    pub fn security(&self) -> Option<Arc<dyn Security>> {
        self.security.clone()
    }

    /// Has members log in as `logins` says: those that come to these ports, and this server where it
    /// dials.
    pub fn log_in(&mut self, logins: Arc<dyn Logins>) {
        self.logins = Some(logins);
    }

    /// What [`log_in`](Self::log_in) was given.
    #[must_use]
    pub fn logins(&self) -> Option<Arc<dyn Logins>> {
        self.logins.clone()
    }

    /// Binds one more port.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn add(
        &mut self,
        port: impl Into<Port>,
        addr: SocketAddr,
        backlog: Option<u32>,
    ) -> Result<SocketAddr, Error> {
        let port = port.into();
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            // A restarted server must not wait for the old one's connections to be forgotten.
            socket.set_reuse_address(true)?;
            if addr.is_ipv6() {
                socket.set_only_v6(!addr.ip().is_unspecified())?;
            }
            socket.bind(&addr.into())?;
            let backlog = backlog.and_then(|n| i32::try_from(n).ok()).unwrap_or(BACKLOG);
            socket.listen(backlog)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let failed = |source| Error::Bind { channel: port.channel, addr, source };
        let (listener, local) = bind().map_err(failed)?;
        self.ports.push((port, listener, local));
        Ok(local)
    }

    /// The addresses bound for `channel`, with their real ports.
    pub fn addresses(&self, channel: Channel) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.iter().filter(move |port| port.0.channel == channel).map(|port| port.2)
    }

    /// All ports, with their real numbers.
    pub fn ports(&self) -> impl Iterator<Item = (Channel, SocketAddr)> + '_ {
        self.ports.iter().map(|(port, _, addr)| (port.channel, *addr))
    }

    /// The sockets, non-blocking, to be served.
    pub fn into_sockets(self) -> impl Iterator<Item = (Port, TcpListener)> {
        self.ports.into_iter().map(|(port, listener, _)| (port, listener))
    }
}

/// More than any system's maximum, to which the kernel cuts it.
const BACKLOG: i32 = 4096;
