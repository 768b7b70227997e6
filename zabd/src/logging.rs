//! Log lines on stderr: time, level, server id, text.

use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime_core::BoundedLog;

static MYID: AtomicI64 = AtomicI64::new(NO_ID);
const NO_ID: i64 = i64::MIN;

/// Installs the logger: `info` and above, or what `RUST_LOG` says, within the bounds of [`BoundedLog`].
pub fn init() {
    let env = env_logger::Env::default().default_filter_or("info");
    let mut builder = env_logger::Builder::from_env(env);
    builder.format(|out, record| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(out, "{} {:5} ", timestamp(since), record.level())?;
        match MYID.load(Ordering::Relaxed) {
            NO_ID => {}
            id => write!(out, "[myid:{id}] ")?,
        }
        writeln!(out, "{}", record.args())
    });
    let logger = builder.build();
    let level = logger.filter();
    // Only a second call could fail.
    if log::set_logger(Box::leak(Box::new(BoundedLog::new(logger)))).is_ok() {
        log::set_max_level(level);
    }
}

/// Lines carry this server id from now on.
pub fn set_myid(id: i64) {
    MYID.store(id, Ordering::Relaxed);
}

/// `2026-11-21T13:57:59.123456Z`.
fn timestamp(since: Duration) -> String {
    let secs = since.as_secs();
    let (days, time) = (secs / 86_400, secs % 86_400);
    // Days to a date, counted in years that begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (secs, want) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            assert_eq!(timestamp(Duration::new(secs, 7_000)), want);
        }
    }
}
