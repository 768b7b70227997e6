//! The ZooKeeper service: clients, sessions, watches and the data tree, as an
//! [`Application`](zab_proto::Application) of `zab-proto`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod jute;
