//! The core's clock on top of the system's.

use std::time::{Duration, Instant as SystemInstant};

use zab_proto::Instant;

/// Turns the system's monotonic time into the core's, whose origin is the clock's creation.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: SystemInstant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: SystemInstant::now() }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// When `at` is, in the system's terms.
    #[must_use]
    pub fn to_system(&self, at: Instant) -> SystemInstant {
        // An unreachable deadline (a century and more away) is as good as one next year.
        let since = at.saturating_since(Instant::ZERO).min(Duration::from_secs(1 << 25));
        self.origin + since
    }
}
