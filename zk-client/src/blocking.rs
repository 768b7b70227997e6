//! A driver for programs that may block: one thread for each client, over [`TcpStream`] or any
//! other [`Connection`].

mod client;
mod connection;
mod driver;

#[cfg(doc)]
use std::net::TcpStream;

pub use client::{Client, Ticket};
pub use connection::{Connection, Dial, Tcp};
