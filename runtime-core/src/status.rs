//! Role and phase of a server, for its log and for others who wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zab_proto::{Peer, Phase, ServerState, Status, SyncMode, Zxid};

/// The last status a server reported; anybody may read it or wait for one.
#[derive(Debug, Default)]
pub struct StatusBoard {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    status: Option<Status>,
    looking_since: Option<Instant>,
    stopped: bool,
}

impl StatusBoard {
    /// Takes a new status, and logs it in ZooKeeper's words.
    pub fn report(&self, status: Status) {
        let mut inner = self.lock();
        let before = inner.status.replace(status);
        let changed_role = before.is_none_or(|before| before.state != status.state);
        let role = format!("{:?}", status.state).to_uppercase();
        if changed_role {
            log::info!("{role}");
        }
        if status.state == ServerState::Looking {
            inner.looking_since.get_or_insert_with(Instant::now);
        } else {
            if let Some(since) = inner.looking_since.take() {
                let took = since.elapsed().as_millis();
                log::info!("{role} - LEADER ELECTION TOOK - {took} MS");
            }
            log::info!("Peer state changed: {}", describe(&status));
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// The server has ended; waiting is over.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The last status; `None` before the first.
    #[must_use]
    pub fn get(&self) -> Option<Status> {
        self.lock().status
    }

    /// Waits until a status satisfies `wanted`, the server ends or `timeout` is over; only the
    /// first gives a status.
    pub fn wait(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Option<Status> {
        let waiting =
            |inner: &mut Inner| !inner.stopped && !inner.status.is_some_and(|s| wanted(&s));
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, waiting);
        let (inner, result) = waited.unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() || inner.stopped { None } else { inner.status }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every state of `Inner` is a valid one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ZooKeeper's text for a leader that begins to serve: who follows it, itself among them, in the order of
/// their ids, and the beginning of its epoch. `None` of every other status.
pub(crate) fn describe_quorum(status: &Status, peer: &Peer) -> Option<String> {
    if (status.state, status.phase) != (ServerState::Leading, Phase::Broadcast) {
        return None;
    }
    let synced = peer.learners().filter(|learner| learner.synced && !learner.observer);
    let mut sids: Vec<i64> = synced.map(|learner| learner.origin.sid.0).collect();
    sids.push(peer.config().sid.0);
    sids.sort_unstable();
    let zxid = Zxid::new(status.epoch, 0);
    Some(format!(
        "Have quorum of supporters, sids: [{sids:?}]; starting up and setting last processed zxid: {zxid}"
    ))
}

/// ZooKeeper's text for a status: `leading - broadcast`, `following - synchronization - diff`.
#[must_use]
pub fn describe(status: &Status) -> String {
    let mut text = format!("{:?}", status.state).to_lowercase();
    let phase = match status.phase {
        Phase::Election => return text,
        Phase::Discovery => " - discovery",
        Phase::Synchronization => " - synchronization",
        Phase::Broadcast => " - broadcast",
    };
    text.push_str(phase);
    if status.phase == Phase::Synchronization {
        text.push_str(match status.sync {
            Some(SyncMode::Diff) => " - diff",
            Some(SyncMode::Trunc) => " - trunc",
            Some(SyncMode::Snap) => " - snap",
            None => "",
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use zab_proto::{Epoch, Sid};

    use super::*;

    #[test]
    fn states_are_told_in_zookeepers_words() {
        let mut status = Status {
            state: ServerState::Following,
            phase: Phase::Synchronization,
            leader: Some(Sid(3)),
            epoch: Epoch(1),
            sync: Some(SyncMode::Diff),
        };
        assert_eq!(describe(&status), "following - synchronization - diff");
        status.phase = Phase::Broadcast;
        assert_eq!(describe(&status), "following - broadcast");
        status = Status { state: ServerState::Looking, phase: Phase::Election, ..status };
        assert_eq!(describe(&status), "looking");
        let board = StatusBoard::default();
        board.report(status);
        assert_eq!(board.wait(Duration::ZERO, |s| s.leader == Some(Sid(3))), Some(status));
        assert_eq!(board.wait(Duration::ZERO, |s| s.leader.is_none()), None);
    }
}
