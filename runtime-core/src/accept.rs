//! What to do when `accept` fails: nothing for one connection, a pause when the system has no
//! descriptors or memory left, and a line in the log that does not repeat itself ten times a second.

use std::io::{Error, ErrorKind};
use std::time::{Duration, Instant};

/// How one listener has fared.
#[derive(Debug, Default)]
pub struct Accepting {
    /// Since when nothing could be accepted, and when that was logged last.
    failing: Option<(Instant, Instant)>,
}

impl Accepting {
    /// `accept` has failed. How long to wait before it is called again; `None`: the error was that of
    /// one connection.
    pub fn failed(&mut self, error: &Error) -> Option<Duration> {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
        ) {
            return None;
        }
        let now = Instant::now();
        let (since, logged) = *self.failing.get_or_insert_with(|| {
            log::warn!("Cannot accept connections: {error}; trying every {PAUSE:?}");
            (now, now)
        });
        if now - logged >= REPORT {
            log::warn!("Cannot accept connections for {:?}: {error}", now - since);
            self.failing = Some((since, now));
        }
        Some(PAUSE)
    }

    /// A connection was accepted.
    pub fn succeeded(&mut self) {
        if let Some((since, _)) = self.failing.take() {
            log::info!("Accepting connections again after {:?}", since.elapsed());
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_system_make_it_wait() {
        let mut accepting = Accepting::default();
        assert_eq!(accepting.failed(&ErrorKind::ConnectionAborted.into()), None);
        assert!(accepting.failing.is_none());
        assert_eq!(accepting.failed(&Error::from_raw_os_error(24)), Some(PAUSE));
        let first = accepting.failing;
        assert_eq!(accepting.failed(&Error::from_raw_os_error(24)), Some(PAUSE));
        assert_eq!(accepting.failing, first, "told once a minute");
        accepting.succeeded();
        assert!(accepting.failing.is_none());
    }
}
