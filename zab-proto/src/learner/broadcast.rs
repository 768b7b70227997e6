//! Broadcast, the learner's half, and what a learner asks of its leader.

use super::{Learner, Step};
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
                return Ok(Some(Message::Revalidated { data: data()? }));
            }
            PacketType::LEADERINFO => {
                self.on_identity(shared, packet);
                self.note_heartbeat(shared, packet);
                self.note_spare(packet);
            }
            PacketType::SYNC => return Ok(Some(Message::Synced)),
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
            self.pong(b"");
            return false;
        }
        self.touched_at = now + half_tick.saturating_sub(every);
        true
    }

    /// Answers the leader's PING.
    pub(crate) fn pong(&mut self, sessions: &[u8]) {
        if self.step == Step::Live {
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
    pub(super) fn offer_room(&self, shared: &mut Shared) {
        let bound = shared.config.limits.requests_len_max_bytes;
        let some = self.out.len_bytes() <= bound / 2;
        if some && shared.refused().is_some_and(|len| self.fits(shared, len)) {
            shared.offer_room();
        }
    }

    /// Forwards a request, unless the leader would close the connection because of its length.
    pub(crate) fn request(&mut self, shared: &Shared, data: &[u8], auth: &[u8]) -> bool {
        let fits = data.len().max(auth.len()) <= shared.config.limits.field_len_max_bytes;
        let takes = self.step == Step::Live && fits;
        if takes {
            self.longest = self.longest.max(data.len()).max(auth.len());
            self.out.put_with_auth(PacketType::REQUEST, Zxid::from_raw(-1), data, auth);
        }
        takes
    }

    /// Asks about a session.
    pub(crate) fn revalidate(&mut self, data: &[u8]) -> bool {
        let live = self.step == Step::Live;
        if live {
            self.out.put(PacketType::REVALIDATE, Zxid::from_raw(-1), Some(data));
        }
        live
    }
}
