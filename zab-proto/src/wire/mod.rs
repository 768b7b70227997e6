//! The bytes of ZooKeeper's peer protocols.
//!
//! [`jute`] has the primitives of all of ZooKeeper's records. [`handshake`] and [`notification`]
//! are what travels on the election port, [`packet`] and [`body`] what travels on the quorum port,
//! [`txn`] the header in front of every transaction, [`extension`] what only members of ours say. All parsers are total, allocate nothing and
//! borrow from the bytes they are given.

pub mod body;
pub mod extension;
mod foreign;
pub mod handshake;
pub mod jute;
pub mod notification;
pub mod packet;
pub mod txn;

pub use foreign::Foreign;

use crate::DecodeError;

/// What the front of a byte stream holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<T> {
    /// A whole message, in the first `len` bytes.
    Complete {
        /// The message.
        value: T,
        /// Its length on the wire in bytes.
        len: usize,
    },
    /// The beginning of a message. Nothing is wrong with it so far.
    Incomplete,
    /// No message begins like this, however it goes on.
    Malformed(DecodeError),
}

impl<T> Parsed<T> {
    /// From the outcome of reading a message of known fields, where running out of bytes means
    /// that the rest has not arrived yet.
    fn from_result(result: Result<(T, usize), DecodeError>) -> Self {
        match result {
            Ok((value, len)) => Self::Complete { value, len },
            Err(DecodeError::UnexpectedEof) => Self::Incomplete,
            Err(error) => Self::Malformed(error),
        }
    }
}
