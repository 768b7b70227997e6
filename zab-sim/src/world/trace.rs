//! The log of a run for humans, written only when somebody will read it.

use std::collections::VecDeque;

use crate::queue::MICRO;

/// The last lines of what happened.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<String>,
    keep: usize,
    now: u64,
}

impl Trace {
    /// Keeps the last `keep` lines; 0 keeps nothing and costs nothing.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { lines: VecDeque::new(), keep, now: 0 }
    }

    /// Sets the time of what follows.
    pub fn at(&mut self, now: u64) {
        self.now = now;
    }

    /// Adds a line.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.keep == 0 {
            return;
        }
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        let micros = self.now / MICRO;
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        self.lines.push_back(format!("{seconds:>4}.{micros:06}  {}", line()));
    }

    /// The lines kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
