//! Exit codes: ZooKeeper's.

/// Normal end.
pub const OK: u8 = 0;
/// Unexpected error.
pub const UNEXPECTED: u8 = 1;
/// Invalid arguments or configuration.
pub const INVALID: u8 = 2;
/// The data directory is not accessible.
pub const DATA_DIR: u8 = 3;
/// The AdminServer of a server alone cannot start.
pub const ADMIN_SERVER: u8 = 4;
/// `zabd inspect`: the log ends in a record that is cut off, as after a crash.
pub const TORN: u8 = 4;
/// `zabd inspect`: the file is damaged.
pub const DAMAGED: u8 = 5;
/// The ensemble has been given other members (`reconfig`): to be started with the new list.
pub const OUTDATED: u8 = 6;
/// The election port cannot be bound.
pub const ELECTION_PORT: u8 = 14;

/// The exit code that stands for `error`.
#[must_use]
pub fn code(error: &runtime_core::Error) -> u8 {
    match error {
        runtime_core::Error::Bind { channel: zab_proto::Channel::Election, .. } => ELECTION_PORT,
        runtime_core::Error::Config(
            zab_proto::ConfigError::Invalid(_) | zab_proto::ConfigError::NotANumber(_),
        ) => INVALID,
        runtime_core::Error::Storage(source) => match source.downcast_ref() {
            Some(zab_storage::Error::Directory { .. } | zab_storage::Error::Unwritable { .. }) => {
                DATA_DIR
            }
            _ => UNEXPECTED,
        },
        _ => UNEXPECTED,
    }
}
