//! Ports that are chosen before their server listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// A port on loopback that nobody is given who asks for any, before this is dropped.
///
/// It is bound here without listening, so that connections are refused; on Linux a server, of this
/// process or another, may listen there as well. Elsewhere the port is only known to have been free.
#[derive(Debug)]
pub struct HeldPort {
    addr: SocketAddr,
    _held: Option<Socket>,
}

impl HeldPort {
    /// Takes a free port.
    ///
    /// # Errors
    /// If there is none.
    pub fn any() -> io::Result<Self> {
        Self::take(0)
    }

    /// Takes this port.
    ///
    /// # Errors
    /// If somebody has it.
    pub fn take(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { addr, _held: cfg!(target_os = "linux").then_some(socket) })
    }

    /// The address of the port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_held_port_is_given_to_nobody_who_asks_for_any_and_its_server_listens() {
        let held: Vec<_> = (0..100).map(|_| HeldPort::any().unwrap()).collect();
        let ports: BTreeSet<u16> = held.iter().map(HeldPort::port).collect();
        assert_eq!(ports.len(), held.len(), "each once");
        let of = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let others: Vec<_> =
            (0..1000).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        assert!(others.iter().all(|other| !ports.contains(&of(other))));
        for held in &held {
            TcpStream::connect(held.addr()).expect_err("nobody listens");
            // The standard library sets the same option.
            let server = TcpListener::bind(held.addr()).unwrap();
            TcpStream::connect(held.addr()).unwrap();
            drop(server);
        }
        // Who listens cannot be passed by.
        let taken = of(&others[0]);
        assert_eq!(HeldPort::take(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
