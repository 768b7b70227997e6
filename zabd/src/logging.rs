//! Log lines on stderr: time (`2026-11-21T13:57:59.123456Z`), level, server id, text.

use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;
use runtime_core::BoundedLog;

use crate::audit;

static MYID: AtomicI64 = AtomicI64::new(NO_ID);
const NO_ID: i64 = i64::MIN;

/// Installs the logger: `info` and above, or what `RUST_LOG` says, within the bounds of [`BoundedLog`].
pub fn init() {
    init_from("info");
}

/// The same for commands whose output is their purpose: `warn` and above.
pub fn init_quiet() {
    init_from("warn");
}

fn init_from(level: &str) {
    let env = env_logger::Env::default().default_filter_or(level);
    let mut builder = env_logger::Builder::from_env(env);
    builder.format(|out, record| {
        // A clock that no calendar has, begins with 1970.
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        write!(out, "{now:.6} {:5} ", record.level())?;
        match MYID.load(Ordering::Relaxed) {
            NO_ID => {}
            id => write!(out, "[myid:{id}] ")?,
        }
        if record.target() == audit::TARGET {
            write!(out, "{}: ", audit::TARGET)?;
        }
        writeln!(out, "{}", record.args())
    });
    let logger = builder.build();
    let level = logger.filter();
    // Only a second call could fail.
    if log::set_logger(Box::leak(Box::new(BoundedLog::new(logger).except(audit::TARGET)))).is_ok() {
        log::set_max_level(level);
    }
}

/// Lines carry this server id from now on.
pub fn set_myid(id: i64) {
    MYID.store(id, Ordering::Relaxed);
}
