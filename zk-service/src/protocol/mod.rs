//! What is said on the client port and written into the log: bytes and values, without state and
//! without a role.

pub mod acl;
pub(crate) mod code;
pub(crate) mod event;
pub(crate) mod opcode;
pub(crate) mod path;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod session_id;
pub mod txn;
pub(crate) mod txn_buf;
