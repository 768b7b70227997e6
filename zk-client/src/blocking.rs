//! A driver for programs that may block: one thread for each client, over [`TcpStream`] or any
//! other [`Connection`].

mod client;
mod connection;
mod driver;
#[cfg(feature = "tls")]
mod tls;

#[cfg(doc)]
use std::net::TcpStream;

pub use client::{Client, Ticket};
pub use connection::{Connection, Dial, Tcp};
#[cfg(feature = "tls")]
pub use tls::Tls;
