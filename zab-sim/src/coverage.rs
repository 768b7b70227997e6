//! What the runs have reached.

use std::collections::BTreeMap;
use std::fmt;

use zab_proto::Status;

/// Counters, summed over runs.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Transactions delivered to applications.
    pub delivered: u64,
    /// Votes sent.
    pub notifications: u64,
    /// Bytes sent on election ports.
    pub election_bytes: u64,
    counts: BTreeMap<String, u64>,
    fixed: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Counts a situation.
    pub fn count(&mut self, what: &'static str) {
        *self.fixed.entry(what).or_default() += 1;
    }

    /// Counts a situation that occurred `n` times.
    pub fn add_count(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            *self.fixed.entry(what).or_default() += n;
        }
    }

    /// Counts a role and phase.
    pub fn became(&mut self, status: &Status) {
        let sync = status.sync.map_or(String::new(), |mode| format!(" by {mode:?}"));
        let text = format!("{:?} in {:?}{sync}", status.state, status.phase);
        *self.counts.entry(text).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.notifications += other.notifications;
        self.election_bytes += other.election_bytes;
        for (what, n) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += n;
        }
        for (what, n) in &other.fixed {
            *self.fixed.entry(what).or_default() += n;
        }
    }

    /// How often a situation was counted.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.fixed.get(what).or_else(|| self.counts.get(what)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  transactions delivered", self.delivered)?;
        writeln!(f, "{:>12}  votes sent", self.notifications)?;
        for (what, n) in &self.counts {
            writeln!(f, "{n:>12}  {what}")?;
        }
        for (what, n) in &self.fixed {
            writeln!(f, "{n:>12}  {what}")?;
        }
        Ok(())
    }
}
