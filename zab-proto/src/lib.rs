#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

mod app;
mod config;
mod door;
mod election;
mod error;
mod event;
mod gate;
mod heartbeat;
mod history;
mod identity;
mod image;
mod leader;
mod learner;
mod membership;
mod node;
mod notice;
mod oracle;
mod peer;
mod quorums;
mod reconfig;
mod recovered;
mod replicated;
mod sender;
mod shared;
mod sparing;
mod storage;
mod time;
mod types;
mod window;
pub mod wire;

pub use app::{
    Application, BadSnapshot, ClientOutput, Core, DigestVerdict, Incoming, InstallProgress,
};
pub use config::{Config, DetectionConfig, ElectionConfig, Limits};
pub use error::{CloseReason, ConfigError, DecodeError, ProposeError, ResignError, Violation};
pub use event::{
    Channel, ConnId, EpochKind, Input, Message, Origin, Output, Phase, Received, ServerState,
    Status, SyncMode, Ticket,
};
pub use heartbeat::HeartbeatStatus;
pub use identity::{EnsembleId, Identity};
pub use image::{Images, Staged};
pub use leader::{LearnerStatus, SyncCounts};
pub use membership::{Address, Group, Member, Membership, Role};
pub use node::{NetOutput, Node};
pub use notice::{Notice, ReignEnd};
pub use peer::Peer;
pub use recovered::Recovered;
pub use replicated::{CallError, Replicated, StateMachine};
pub use sparing::StopSafety;
pub use storage::{LogDemand, LogReady, MemoryStorage, SnapshotDigest, Storage};
pub use time::Instant;
pub use types::{Epoch, Sid, Vote, Zxid};
