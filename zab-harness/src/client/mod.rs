//! ZooKeeper's protocol as its clients speak it: frames, the records of the requests that tests send most, and a
//! blocking connection.
//!
//! Nothing here judges what it sends. `zk-client` is the client for programs: it checks requests, connects again
//! and sends its requests again; those who test a server want to say every byte themselves, wrong ones too.
//! Operations are numbers here, as a test may ask for one that does not exist; `zk_service::Opcode` has those that do.

mod connection;
mod frames;
mod records;

pub use connection::{Connection, read_frame};
pub use frames::{
    Connect, Connected, ReplyHeader, first_frame, frame, put_frame, put_request, reply, request,
    xid,
};
pub use records::{
    ANYONE, any_version, auth, create, create_with, multi, put_auth, put_create, put_part,
    put_read, put_set_data, put_set_watches, read, set_data, set_watches, string,
};
