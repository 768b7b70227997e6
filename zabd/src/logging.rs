//! Log lines on stderr: time (`2026-11-21T13:57:59.123456Z`), level, server id, text; or the same as one
//! JSON object a line.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use env_logger::fmt::Formatter;
use env_logger::{Builder, Env, Logger};
use jiff::Timestamp;
use log::{Log, Metadata, Record};
use runtime_core::BoundedLog;
use serde_json::json;

use crate::audit;
use crate::config::LogConfig;

static MYID: AtomicI64 = AtomicI64::new(NO_ID);
const NO_ID: i64 = i64::MIN;
static AS_JSON: AtomicBool = AtomicBool::new(false);
/// The logger in use; another one when the levels change.
static LOGGER: RwLock<Option<Logger>> = RwLock::new(None);

/// Hands records to the logger in use.
struct Switch;

impl Log for Switch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let logger = LOGGER.read().unwrap_or_else(PoisonError::into_inner);
        logger.as_ref().is_some_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let logger = LOGGER.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(logger) = &*logger {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// Installs the logger: `info` and above, or what `RUST_LOG` says, within the bounds of [`BoundedLog`].
pub fn init() {
    init_from("info");
}

/// The same for commands whose output is their purpose: `warn` and above.
pub fn init_quiet() {
    init_from("warn");
}

fn init_from(level: &str) {
    use_logger(Builder::from_env(Env::default().default_filter_or(level)));
    // Only a second call could fail.
    let _ = log::set_logger(Box::leak(Box::new(BoundedLog::new(Switch).except(audit::TARGET))));
}

fn use_logger(mut builder: Builder) {
    builder.format(write_line);
    let logger = builder.build();
    let level = logger.filter();
    *LOGGER.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
    log::set_max_level(level);
}

/// Logs from now on what the configuration says. Without levels of its own what `RUST_LOG` says.
pub fn apply(config: &LogConfig) {
    AS_JSON.store(config.json, Ordering::Relaxed);
    match &config.level {
        Some(level) => {
            let mut builder = Builder::new();
            builder.parse_filters(level);
            use_logger(builder);
        }
        None => use_logger(Builder::from_env(Env::default().default_filter_or("info"))),
    }
}

/// Lines carry this server id from now on.
pub fn set_myid(id: i64) {
    MYID.store(id, Ordering::Relaxed);
}

fn write_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    // A clock that no calendar has, begins with 1970.
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let myid = Some(MYID.load(Ordering::Relaxed)).filter(|&id| id != NO_ID);
    if AS_JSON.load(Ordering::Relaxed) {
        return write_json(out, now, myid, record);
    }
    write!(out, "{now:.6} {:5} ", record.level())?;
    if let Some(id) = myid {
        write!(out, "[myid:{id}] ")?;
    }
    if record.target() == audit::TARGET {
        write!(out, "{}: ", audit::TARGET)?;
    }
    writeln!(out, "{}", record.args())
}

fn write_json(
    out: &mut impl Write,
    now: Timestamp,
    myid: Option<i64>,
    record: &Record<'_>,
) -> io::Result<()> {
    let mut line = json!({
        "time": format!("{now:.6}"),
        "level": record.level().as_str(),
        "target": record.target(),
        "message": record.args().to_string(),
    });
    if let (Some(id), Some(object)) = (myid, line.as_object_mut()) {
        object.insert("myid".into(), id.into());
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_json_object_on_one_line() {
        let mut out = Vec::new();
        for (text, id) in [("plain", None), ("\"quoted\"\n\u{1b}[31m \u{2028}", Some(-3))] {
            out.clear();
            let mut record = Record::builder();
            record.level(log::Level::Warn).target("zabd");
            let now = Timestamp::UNIX_EPOCH;
            write_json(&mut out, now, id, &record.args(format_args!("{text}")).build()).unwrap();
            let line = std::str::from_utf8(&out).unwrap();
            assert_eq!(line.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["message"], text);
            assert_eq!(value["level"], "WARN");
            assert_eq!(value["time"], "1970-01-01T00:00:00.000000Z");
            assert_eq!(value.get("myid").and_then(serde_json::Value::as_i64), id);
        }
    }
}
