#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod acl;
mod answer;
pub mod blocking;
mod error;
mod event;
mod hosts;
mod options;
mod path;
#[cfg(feature = "properties")]
pub mod properties;
mod request;
pub mod sasl;
mod session;
mod stat;
mod watch;

pub use acl::{Acl, perms};
pub use answer::Answer;
pub use error::{Code, Error, Refused};
pub use event::{Action, Event, RequestId};
pub use hosts::{DEFAULT_PORT, Host, parse_connect_string};
pub use options::Options;
pub use path::validate as validate_path;
pub use request::{ANY_VERSION, Create, CreateMode, Op, ReadOp, Request};
pub use session::Session;
pub use stat::Stat;
pub use watch::{AddWatchMode, EventKind, WatchEvent, WatcherType};
/// Monotonic time, as the driver counts it.
pub use zab_proto::Instant;
