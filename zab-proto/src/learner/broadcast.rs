//! Broadcast, the learner's half, and what a learner asks of its leader.

use super::{Learner, LearnerStep};
use crate::reconfig;
use crate::shared::Shared;
use crate::wire::body;
use crate::wire::packet::{Packet, PacketType};
use crate::{CloseReason, DecodeError, Instant, Message, Zxid};

impl Learner {
    /// A packet of the established leader.
    pub(super) fn on_live_packet<'b>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        packet: &Packet<'b>,
    ) -> Result<Option<Message<'b>>, CloseReason> {
        let data = || packet.data.ok_or(CloseReason::Malformed(DecodeError::UnexpectedEof));
        match packet.kind {
            PacketType::PROPOSAL if !self.observer => {
                self.take_txn(shared, packet.zxid, data()?)?;
            }
            PacketType::COMMIT | PacketType::COMMITANDACTIVATE if !self.observer => {
                self.take_commit(shared, packet.zxid)?;
                shared.history.commit(self.committed);
                if packet.kind == PacketType::COMMITANDACTIVATE {
                    let (leader, _) =
                        body::parse_activate(data()?).map_err(CloseReason::Malformed)?;
                    self.observers.note_change(self.committed - 1, leader);
                    self.activate(shared, Some(leader));
                    reconfig::end_outdated(shared)?;
                }
                self.activate(shared, None);
            }
            PacketType::INFORM => {
                self.take_inform(shared, packet.zxid, data()?)?;
                shared.history.commit(self.committed);
                self.activate(shared, None);
            }
            PacketType::INFORMANDACTIVATE => {
                let (leader, txn) =
                    body::parse_activate(data()?).map_err(CloseReason::Malformed)?;
                self.take_inform(shared, packet.zxid, txn)?;
                shared.history.commit(self.committed);
                self.activate(shared, Some(leader));
                reconfig::end_outdated(shared)?;
            }
            PacketType::PING => {
                self.ping = packet.zxid;
                return Ok(self.is_touch_due(now, shared).then_some(Message::Ping));
            }
            PacketType::REVALIDATE => {
                let data = data()?;
                let own = self.observers.is_own_answer(data);
                return Ok(own.then_some(Message::Revalidated { data }));
            }
            PacketType::LEADERINFO => {
                self.on_identity(shared, packet);
                self.note_heartbeat(shared, packet);
                self.note_spare(packet);
            }
            PacketType::SYNC => {
                return Ok(match self.observers.is_own_sync(shared.history.committed()) {
                    Ok(own) => own.then_some(Message::Synced),
                    Err(observer) => {
                        self.close_observer(shared, observer, CloseReason::NotReading);
                        None
                    }
                });
            }
            // Unknown types, and what is only meant for the other kind of learner.
            _ => {}
        }
        Ok(None)
    }

    /// Whether the application is to say which sessions are alive. As often as ZooKeeper's leader asks is
    /// enough; heartbeats in between are answered here, with an empty list.
    fn is_touch_due(&mut self, now: Instant, shared: &mut Shared) -> bool {
        let Some((every, half_tick)) =
            self.heartbeat(shared).0.map(|every| (every, shared.config.tick_time / 2))
        else {
            return true;
        };
        if now < self.touched_at {
            shared.heartbeats.answered += 1;
            self.answer_ping(b"");
            return false;
        }
        self.touched_at = now + half_tick.saturating_sub(every);
        true
    }

    /// Answers the leader's PING, for observers, too.
    pub(crate) fn pong(&mut self, shared: &Shared, sessions: &[u8]) {
        if self.observers.has_touched() {
            let max = shared.config.limits.field_len_max_bytes;
            let sessions = self.observers.take_touched(sessions, max);
            self.answer_ping(&sessions);
        } else {
            self.answer_ping(sessions);
        }
    }

    fn answer_ping(&mut self, sessions: &[u8]) {
        if self.step == LearnerStep::Live {
            self.out.put(PacketType::PING, self.ping, Some(sessions));
        }
    }

    pub(crate) fn can_request(&self, shared: &Shared, len: usize) -> bool {
        let room = self.fits(shared, len);
        if !room {
            shared.refuse(len);
        }
        room
    }

    /// Whether a request of `len` bytes is taken. One that is longer than the bound goes alone: it
    /// would wait for ever otherwise.
    fn fits(&self, shared: &Shared, len: usize) -> bool {
        let under_way = self.out.len_bytes();
        under_way == 0 || under_way + len <= shared.config.limits.requests_len_max_bytes
    }

    /// Lets those ask again who were refused, if there is room for all that they want.
    pub(super) fn offer_room(&mut self, shared: &mut Shared) {
        let bound = shared.config.limits.requests_len_max_bytes;
        let some = self.out.len_bytes() <= bound / 2;
        if some && shared.refused().is_some_and(|len| self.fits(shared, len)) {
            self.observers.read_on(shared);
            shared.offer_room();
        }
    }

    /// Forwards a request of one of this server's clients.
    pub(crate) fn request(&mut self, shared: &Shared, data: &[u8], auth: &[u8]) -> bool {
        let takes = self.forward(shared, data, auth);
        if takes {
            self.observers.note_own_request(data);
        }
        takes
    }

    /// Forwards a request, unless the leader would close the connection because of its length.
    pub(super) fn forward(&mut self, shared: &Shared, data: &[u8], auth: &[u8]) -> bool {
        let fits = data.len().max(auth.len()) <= shared.config.limits.field_len_max_bytes;
        let takes = self.step == LearnerStep::Live && fits;
        if takes {
            self.longest = self.longest.max(data.len()).max(auth.len());
            self.out.put_with_auth(PacketType::REQUEST, Zxid::from_raw(-1), data, auth);
        }
        takes
    }

    /// Asks about a session of one of this server's clients.
    pub(crate) fn revalidate(&mut self, data: &[u8]) -> bool {
        let asks = self.ask_leader(data);
        if asks {
            self.observers.note_own_question(data);
        }
        asks
    }

    /// Asks the leader about a session.
    pub(super) fn ask_leader(&mut self, data: &[u8]) -> bool {
        let live = self.step == LearnerStep::Live;
        if live {
            self.out.put(PacketType::REVALIDATE, Zxid::from_raw(-1), Some(data));
        }
        live
    }
}
