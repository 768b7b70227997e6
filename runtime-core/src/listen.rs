//! The ports of a server.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use zab_proto::Channel;

use crate::Error;

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

/// Bound ports, not yet served. Dropping closes them.
#[derive(Debug, Default)]
pub struct Listeners {
    ports: Vec<(Channel, TcpListener, SocketAddr)>,
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

    /// Binds one more port.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn add(
        &mut self,
        channel: Channel,
        addr: SocketAddr,
        backlog: Option<u32>,
    ) -> Result<SocketAddr, Error> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            // A restarted server must not wait for the old one's connections to be forgotten.
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            let backlog = backlog.and_then(|n| i32::try_from(n).ok()).unwrap_or(BACKLOG);
            socket.listen(backlog)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = bind().map_err(|source| Error::Bind { channel, addr, source })?;
        self.ports.push((channel, listener, local));
        Ok(local)
    }

    /// The addresses bound for `channel`, with their real ports.
    pub fn addresses(&self, channel: Channel) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.iter().filter(move |port| port.0 == channel).map(|port| port.2)
    }

    /// The sockets, non-blocking, to be served.
    pub fn into_sockets(self) -> impl Iterator<Item = (Channel, TcpListener)> {
        self.ports.into_iter().map(|(channel, listener, _)| (channel, listener))
    }
}

/// More than any system's maximum, to which the kernel cuts it.
const BACKLOG: i32 = 4096;
