//! What became of this server's role: the last changes, and each loss of service with its phases.

use std::collections::VecDeque;

use zab_proto::{CloseReason, Epoch, Instant, Notice, Phase, ReignEnd, ServerState, Sid, Status};

use crate::metrics::{Metrics, milliseconds};

/// How many changes of the role, and how many losses of service, are remembered.
const KEPT_MAX: usize = 128;

/// A change of role or phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoleChange {
    /// When, on the server's clock.
    pub at: Instant,
    /// What the server became.
    pub status: Status,
}

/// This server did not serve for a while, between two roles in service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failover {
    /// When service was lost, on the server's clock.
    pub began: Instant,
    /// Whose loss it was.
    pub lost: Option<Sid>,
    /// Why, as one word for a label.
    pub cause: &'static str,
    /// Why, in the words of the log.
    pub why: String,
    /// In the phases before service: election, discovery, synchronisation, in ms. One that was tried
    /// several times is summed up.
    pub phases_ms: [u64; 3],
    /// From the loss to the first moment of service, in ms.
    pub total_ms: u64,
    /// What the server is after it.
    pub state: ServerState,
    /// Whom it follows then, itself when leading.
    pub next: Option<Sid>,
    /// The epoch.
    pub epoch: Epoch,
}

/// A loss of service that is not over.
#[derive(Clone, Debug)]
struct Running {
    began: Instant,
    lost: Option<Sid>,
    cause: &'static str,
    why: String,
    phases_ms: [u64; 3],
}

/// The last changes and losses, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    changes: VecDeque<RoleChange>,
    failovers: VecDeque<Failover>,
    running: Option<Running>,
}

impl Timeline {
    /// The core's status has changed; `loss` is why the last role has ended.
    pub(crate) fn became(
        &mut self,
        at: Instant,
        status: &Status,
        loss: Option<&Notice>,
        metrics: &mut Metrics,
    ) {
        let before = self.changes.back().copied();
        push(&mut self.changes, RoleChange { at, status: *status });
        if let Some(before) = before {
            let ms = milliseconds(before.at, at);
            self.spent(&before.status, ms, metrics);
            let served = before.status.phase == Phase::Broadcast;
            if served && status.phase != Phase::Broadcast {
                let cause = loss.map_or("unknown", cause);
                let why = loss.map_or_else(String::new, ToString::to_string);
                let lost = before.status.leader;
                self.running = Some(Running { began: at, lost, cause, why, phases_ms: [0; 3] });
            }
        }
        if status.phase == Phase::Broadcast
            && let Some(Running { began, lost, cause, why, phases_ms }) = self.running.take()
        {
            let total_ms = milliseconds(began, at);
            *metrics.failovers.entry(cause).or_default() += 1;
            metrics.failover_time.add(total_ms);
            let (state, next, epoch) = (status.state, status.leader, status.epoch);
            push(
                &mut self.failovers,
                Failover { began, lost, cause, why, phases_ms, total_ms, state, next, epoch },
            );
        }
    }

    /// A phase has lasted so long.
    fn spent(&mut self, status: &Status, ms: u64, metrics: &mut Metrics) {
        let phase = status.phase;
        let at = match phase {
            Phase::Election => 0,
            Phase::Discovery => 1,
            Phase::Synchronization => 2,
            Phase::Broadcast => return,
        };
        if let Some(running) = &mut self.running {
            running.phases_ms[at] += ms;
        }
        match phase {
            Phase::Discovery => metrics.discovery_time.add(ms),
            Phase::Synchronization => {
                metrics.synchronization_time.add(ms);
                match status.state {
                    ServerState::Following => metrics.follower_sync_time.add(ms),
                    ServerState::Observing => metrics.observer_sync_time.add(ms),
                    ServerState::Leading | ServerState::Looking => {}
                }
            }
            Phase::Election | Phase::Broadcast => {}
        }
    }

    /// The last changes of role or phase, oldest first.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &RoleChange> {
        self.changes.iter()
    }

    /// The last losses of service that are over, oldest first.
    pub(crate) fn failovers(&self) -> impl Iterator<Item = &Failover> {
        self.failovers.iter()
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == KEPT_MAX {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// Why a role has ended, as one word.
fn cause(loss: &Notice) -> &'static str {
    if let Notice::LeaderLost { reason, .. } = loss {
        return match reason {
            None => "leader_closed",
            Some(CloseReason::Suspected { .. }) => "leader_suspected",
            Some(CloseReason::Silent) => "leader_silent",
            Some(_) => "connection_ended",
        };
    }
    let Notice::ReignEnded { reason, .. } = loss else { return "unknown" };
    match reason {
        ReignEnd::QuorumLost | ReignEnd::QuorumSilent { .. } => "quorum_lost",
        ReignEnd::DiskStalled => "disk_stalled",
        ReignEnd::Deserted | ReignEnd::Overtaken => "overtaken",
        ReignEnd::CounterUsedUp => "counter_used_up",
        ReignEnd::Resigned { .. } => "resigned",
        ReignEnd::HandedOver { .. } => "handed_over",
        ReignEnd::NotFollowed | ReignEnd::NotSynchronised => "quorum_not_gained",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn status(state: ServerState, phase: Phase) -> Status {
        let leader = (state != ServerState::Looking).then_some(Sid(2));
        Status { state, phase, leader, epoch: Epoch(4), sync: None }
    }

    #[test]
    fn a_loss_of_service_has_its_phases_and_its_cause() {
        let (mut timeline, mut metrics) = (Timeline::default(), Metrics::default());
        let loss = Notice::LeaderLost {
            leader: Sid(2),
            phase: Phase::Broadcast,
            reason: Some(CloseReason::Suspected {
                silent_ms: 251,
                limit_ms: 250,
                worst_gap_ms: 60,
            }),
            longest: 0,
        };
        for (ms, state, phase) in [
            // The first start loses nothing.
            (0, ServerState::Looking, Phase::Election),
            (10, ServerState::Following, Phase::Discovery),
            (11, ServerState::Following, Phase::Synchronization),
            (20, ServerState::Following, Phase::Broadcast),
            (1000, ServerState::Looking, Phase::Election),
            (1030, ServerState::Following, Phase::Discovery),
            // The first attempt fails.
            (1034, ServerState::Looking, Phase::Election),
            (1039, ServerState::Leading, Phase::Discovery),
            (1041, ServerState::Leading, Phase::Synchronization),
            (1047, ServerState::Leading, Phase::Broadcast),
        ] {
            let at = Instant::ZERO + Duration::from_millis(ms);
            timeline.became(at, &status(state, phase), Some(&loss), &mut metrics);
        }
        let failovers: Vec<_> = timeline.failovers().collect();
        assert_eq!(failovers.len(), 1);
        assert_eq!(failovers[0].phases_ms, [35, 6, 6]);
        assert_eq!(failovers[0].total_ms, 47);
        assert_eq!(failovers[0].cause, "leader_suspected");
        assert!(failovers[0].why.contains("251 ms"), "{}", failovers[0].why);
        assert_eq!(timeline.changes().count(), 10);
        assert_eq!(metrics.failovers["leader_suspected"], 1);
        assert_eq!((metrics.failover_time.count, metrics.failover_time.sum), (1, 47));
        assert_eq!(metrics.discovery_time.count, 3);
        // Of the two synchronisations one was a follower's.
        assert_eq!((metrics.follower_sync_time.count, metrics.follower_sync_time.sum), (1, 9));
        assert_eq!(metrics.observer_sync_time.count, 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (mut timeline, mut metrics) = (Timeline::default(), Metrics::default());
        for turn in 0..2 * KEPT_MAX as u64 {
            for (ms, state, phase) in [
                (0, ServerState::Following, Phase::Broadcast),
                (1, ServerState::Looking, Phase::Election),
            ] {
                let at = Instant::ZERO + Duration::from_millis(10 * turn + ms);
                timeline.became(at, &status(state, phase), None, &mut metrics);
            }
        }
        assert_eq!(timeline.changes().count(), KEPT_MAX);
        assert_eq!(timeline.failovers().count(), KEPT_MAX);
        assert_eq!(metrics.failovers["unknown"], 2 * KEPT_MAX as u64 - 1);
    }
}
