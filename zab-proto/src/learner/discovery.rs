//! Discovery, the learner's half: find the leader, promise its epoch.

use core::time::Duration;

use super::{Learner, LearnerStep};
use crate::history::Standing;
use crate::shared::{Control, Outbox, Shared};
use crate::wire::body;
use crate::wire::extension::{self, Tag};
use crate::wire::packet::{Packet, PacketType};
use crate::{Channel, CloseReason, ConnId, Epoch, Instant, Violation};

impl Learner {
    /// How long to try to reach a leader that does not answer: a tick, in which the handshake of TCP
    /// goes around the world and may be lost once.
    pub(super) fn connect_limit(shared: &Shared) -> Duration {
        let config = &shared.config;
        let ticks = match config.connect_to_learner_master_limit {
            0 => config.init_limit,
            ticks => ticks,
        };
        config.ticks(ticks).min(config.tick_time.max(Self::refused_limit(shared)))
    }

    /// How long to dial a leader that refuses. A dead leader refuses, and then it is better to look for
    /// another one soon; Java gives up after five refusals 100 ms apart. But a Java leader opens its
    /// quorum port only after its finalising wait, on a loaded machine more than a second after a
    /// follower that decided early starts dialling. If that follower gives up first, the leader waits
    /// for it until `initLimit`.
    pub(super) fn refused_limit(shared: &Shared) -> Duration {
        shared.config.election.leader_retry_max * CONNECT_ATTEMPTS
    }

    pub(super) fn dial(&mut self, shared: &mut Shared) {
        let Some(conn) = shared.slots.allot() else {
            self.failed = true;
            return;
        };
        self.conn = Some(conn);
        self.open = false;
        let addresses = self.addresses.clone();
        shared.control.push_back(Control::Connect { conn, channel: Channel::Quorum, addresses });
    }

    /// The dial has succeeded.
    pub(crate) fn opened(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        if self.conn != Some(conn) || self.open {
            return;
        }
        self.open = true;
        self.step = LearnerStep::Introduced;
        self.deadline = now + shared.config.meeting_limit();
        self.introduce(shared);
    }

    /// The connection is gone: dial again if the leader was never heard, else the role is over.
    pub(crate) fn closed(&mut self, now: Instant, shared: &mut Shared, conn: ConnId) {
        if self.observers.owns(conn) {
            shared.slots.free(conn);
            self.lose_observer(shared, conn, None);
            return;
        }
        if self.conn != Some(conn) {
            return;
        }
        shared.slots.free(conn);
        self.conn = None;
        // Something between the two (a proxy, a forwarded port) takes the connection of a leader that
        // does not listen yet, and can only drop it.
        let unanswered = self.step == LearnerStep::Introduced && now < self.give_up_at;
        // There are other masters.
        if self.master.is_some() || (self.step != LearnerStep::Connecting && !unanswered) {
            self.failed = true;
            return;
        }
        self.step = LearnerStep::Connecting;
        self.out = Outbox::default();
        self.idle = true;
        self.refusals += 1;
        // Far away, a refusal alone takes longer than Java's pause: both limits must be reached, or the
        // first dial, which came before the leader knew that it leads, would be the last.
        if self.refusals >= CONNECT_ATTEMPTS && now >= self.give_up_at {
            self.failed = true;
            return;
        }
        self.retry = Some(now + self.retry_pause);
        self.retry_pause = (self.retry_pause * 2).min(shared.config.election.leader_retry_max);
    }

    /// LEADERINFO: the new epoch.
    pub(super) fn on_leader_info(
        &mut self,
        shared: &mut Shared,
        packet: &Packet<'_>,
    ) -> Result<(), CloseReason> {
        body::parse_i32(packet.data).map_err(CloseReason::Malformed)?;
        self.compare_identity(shared, packet)?;
        self.note_heartbeat(shared, packet);
        let epoch = packet.zxid.epoch();
        let history = &mut shared.history;
        if !epoch.is_plausible(self.proven) {
            return Err(CloseReason::Violation(Violation::ImplausibleEpoch(epoch)));
        }
        let invited = extension::field(packet.data, 4, Tag::GUEST).is_some();
        self.guest = invited && epoch < history.accepted();
        if epoch < history.accepted() && !self.guest {
            return Err(CloseReason::Violation(Violation::OldEpoch));
        }
        self.epoch = epoch;
        self.step = LearnerStep::Promising;
        if self.guest {
            // Its promise stays, and this epoch gets none: not to be counted, in plain bytes, too.
            self.promise = Epoch(-1);
        } else if epoch > history.accepted() {
            self.promise = history.promise(epoch);
        } else {
            // Promised before, perhaps to another server: not to be counted again (P2).
            self.promise = Epoch(-1);
        }
        self.send_promise(shared);
        Ok(())
    }

    /// ACKEPOCH, once the promise and all it claims are durable.
    pub(super) fn send_promise(&mut self, shared: &mut Shared) {
        let history = &mut shared.history;
        if self.step != LearnerStep::Promising || !history.is_settled() {
            return;
        }
        let Some(conn) = self.conn else { return };
        let standing = if history.is_trusted() && history.take_yield() {
            Standing::Untrusted // a full snapshot is needed, as if there were no history
        } else {
            history.standing()
        };
        let (last, promise) = standing.ack_epoch(history.last(), self.promise);
        let promise = i32::try_from(promise.0).expect("an epoch on disk is at most Epoch::MAX");
        let mut data = promise.to_be_bytes().to_vec();
        if self.guest {
            extension::begin(&mut data);
            extension::put(&mut data, Tag::GUEST, &history.current().0.to_be_bytes());
        }
        self.out.put(PacketType::ACKEPOCH, last, Some(&data));
        self.step = LearnerStep::Promised;
        // Nothing is read while the promise is being written; go on.
        shared.control.push_back(Control::Resume(conn));
    }
}

/// Refused dials, `leader_retry_max` apart, after which the leader counts as gone.
const CONNECT_ATTEMPTS: u32 = 20;
