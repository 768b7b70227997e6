//! What every runtime needs and none should have of its own: options, listeners, buffers of a
//! connection, name resolution, the clock and the status that others wait for.
//!
//! Nothing here knows an event loop.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accept;
mod bounded_log;
mod buffer;
mod clock;
mod conns;
mod deadlines;
mod descriptors;
mod disk;
mod engine;
mod error;
mod handle;
mod held_port;
mod layered;
mod listen;
mod login;
#[cfg(test)]
mod mock;
mod names;
mod options;
mod oracle;
mod resolve;
mod secure;
mod server;
mod status;

pub use accept::Accepting;
pub use bounded_log::BoundedLog;
pub use buffer::{Flushed, Inbox, Outbox, ReadEnd, ReadTurn};
pub use clock::Clock;
pub use conns::{CloseState, Conns, Stream, log_closing};
pub use descriptors::{Descriptors, count_descriptors, raise_descriptor_limit};
pub use disk::{Disk, Loaded};
pub use engine::{Engine, NetHandler, Network, NodeHandler};
pub use error::Error;
pub use handle::{Control, Handle, PortChange};
pub use held_port::HeldPort;
pub use listen::{Listen, Listeners, Port, all_addresses, local_address};
pub use login::{Exchange, Logins};
pub use options::{NetOptions, ServerOptions, load};
pub use oracle::{Oracle, OracleFile};
pub use resolve::{LookUp, Resolver, Target, targets};
pub use secure::{
    Cipher, CipherError, Expects, HandshakeEvent, HandshakeLimits, PIECE_LEN_MAX, Security,
};
pub use server::{Runtime, Server, Wake};
pub use status::{StatusBoard, describe};
