//! How operators name a member's directories: by its configuration, or as they are.

use std::path::{Path, PathBuf};

use zk_recovery::Member;

use crate::config::{ServerConfig, SystemProperties};

/// A member as it was named.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) member: Member,
    /// What its configuration says, if that was named.
    pub(super) config: Option<ServerConfig>,
}

impl Named {
    /// `zoo.cfg`, `DATADIR` or `DATADIR,DATALOGDIR`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        if path.is_file() {
            let config = ServerConfig::load(path, SystemProperties::default());
            let config = config.map_err(|error| format!("{text}: {error}"))?;
            let member =
                Member { data_dir: config.data_dir.clone(), log_dir: config.data_log_dir.clone() };
            return Ok(Self { member, config: Some(config) });
        }
        let member = match text.split_once(',') {
            Some((data, log)) => {
                Member { data_dir: PathBuf::from(data), log_dir: PathBuf::from(log) }
            }
            None => Member::new(path),
        };
        // The directory that servers are given, not the one inside.
        if member.data_dir.ends_with("version-2") || member.log_dir.ends_with("version-2") {
            return Err(format!("{text}: name the directory that version-2 is in"));
        }
        Ok(Self { member, config: None })
    }

    /// Where a running member's clients connect, as seen from this machine.
    pub(super) fn server(&self) -> Option<String> {
        let (host, port) = self.config.as_ref()?.client.as_ref()?;
        let host = match host.to_string().as_str() {
            "" | "0.0.0.0" | "::" | "[::]" | "0:0:0:0:0:0:0:0" => "localhost".to_owned(),
            host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
            host => host.to_owned(),
        };
        Some(format!("{host}:{port}"))
    }
}
