//! What is logged, and in which form: `zab.log.level` and `zab.log.format`.

use std::fmt;

use super::error::Invalid;
use super::system::SystemProperties;
use super::tls::blame;

/// What is logged, and in which form.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogConfig {
    /// Levels, as in `RUST_LOG`, which it replaces: `info`, or `info,zab_proto=debug`.
    pub level: Option<String>,
    /// One JSON object a line.
    pub json: bool,
}

impl LogConfig {
    /// Reads the keys.
    ///
    /// # Errors
    /// A value that is none.
    pub fn read(properties: &SystemProperties) -> Result<Self, Invalid> {
        let level = properties.text(LEVEL).map(str::to_owned);
        if level.as_deref().is_some_and(|level| !is_filter(level)) {
            let invalid = Invalid::new("it names no level");
            let accepted = "error, warn, info, debug, trace or off; and module=level behind commas";
            return Err(blame(properties, LEVEL, invalid.accepted(accepted)));
        }
        let json = match properties.text(FORMAT) {
            None | Some("text") => false,
            Some("json") => true,
            Some(_) => {
                let invalid = Invalid::new("there is no such form");
                return Err(blame(properties, FORMAT, invalid.accepted("text or json")));
            }
        };
        Ok(Self { level, json })
    }
}

impl fmt::Display for LogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.as_deref().unwrap_or("that of RUST_LOG");
        write!(f, "{LEVEL}={level}, {FORMAT}={}", if self.json { "json" } else { "text" })
    }
}

/// Whether it is what `RUST_LOG` takes, without its patterns.
fn is_filter(text: &str) -> bool {
    text.split(',').all(|part| {
        let (module, level) = part.rsplit_once('=').unwrap_or(("any", part));
        let is_path = module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        !module.is_empty() && is_path && level.trim().parse::<log::LevelFilter>().is_ok()
    })
}

pub(crate) const LEVEL: &str = "zab.log.level";
pub(crate) const FORMAT: &str = "zab.log.format";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for text in ["info", "DEBUG", "off", "warn,zab_proto=trace", "zk_service::auth=debug"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "loud", "info,", "=info", "info;debug", "a b=info", "zabd=loud"] {
            assert!(!is_filter(text), "{text}");
        }
    }
}
