#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod builder;
mod ensemble;
mod error;
mod links;
mod place;
mod relay;

pub use builder::Builder;
pub use ensemble::Ensemble;
pub use error::Error;
pub use relay::Link;
pub use runtime_any::Runtime;
pub use runtime_core::{Handle, ServerOptions};
pub use zab_proto::Sid;
#[cfg(feature = "zookeeper")]
pub use zk_service::{Service, ServiceOptions};
