//! What learners are sent: a position in the history for each, snapshots, stretches of the log on disk, and
//! what is answered. It needs no leader: a follower serves observers with the same parts.
//!
//! Whoever owns the [`Links`] reads what learners say and decides when one is synchronised, in service or
//! to be closed; nothing in here closes a connection.

mod changes;
mod stream;
mod sync;

use alloc::vec::Vec;

pub(crate) use self::stream::{LearnerStage, Own, Sender};
pub(crate) use self::sync::Rank;
use crate::history::History;
use crate::shared::{Control, Shared};
use crate::window::Index;
use crate::{ConnId, Instant, Sid};

/// The learners of a server by their slots. `L` is a [`Sender`] with what its owner knows besides.
#[derive(Debug)]
pub(crate) struct Links<L> {
    slots: Vec<Option<L>>,
    /// The slot at which the search for something to send goes on.
    cursor: usize,
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Self { slots: Vec::new(), cursor: 0 }
    }
}

impl<L: AsRef<Sender> + AsMut<Sender>> Links<L> {
    /// Adds the learner of `conn`.
    pub(crate) fn insert(&mut self, conn: ConnId, link: L) {
        let slot = conn.slot() as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(link);
    }

    /// The learner of `conn`, unless it has left.
    pub(crate) fn get(&self, conn: ConnId) -> Option<&L> {
        let link = self.slots.get(conn.slot() as usize)?.as_ref()?;
        (link.as_ref().conn == conn).then_some(link)
    }

    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut L> {
        let link = self.slots.get_mut(conn.slot() as usize)?.as_mut()?;
        (link.as_ref().conn == conn).then_some(link)
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<L> {
        self.slots.get_mut(conn.slot() as usize)?.take_if(|link| link.as_ref().conn == conn)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &L> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.slots.iter_mut().flatten()
    }

    /// All of them, which are gone afterwards.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = L> {
        self.slots.drain(..).flatten()
    }

    /// One above the highest slot that was ever in use.
    pub(crate) fn end(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn at(&self, slot: usize) -> Option<&L> {
        self.slots.get(slot)?.as_ref()
    }

    /// Another connection of the same server, and when something last came of it.
    pub(crate) fn rival(&self, conn: ConnId, sid: Sid) -> Option<(ConnId, Instant)> {
        let mut others = self.senders().filter(|link| link.conn != conn && link.sid == sid);
        others
            .find(|link| link.stage > LearnerStage::Connected)
            .map(|link| (link.conn, link.active_at))
    }

    fn senders(&self) -> impl Iterator<Item = &Sender> {
        self.iter().map(AsRef::as_ref)
    }

    fn senders_mut(&mut self) -> impl Iterator<Item = &mut Sender> {
        self.iter_mut().map(AsMut::as_mut)
    }

    /// Fills `buf` for a learner.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        history: &History,
        (own, config_text): (Own, &str),
        conn: ConnId,
        buf: &mut [u8],
    ) -> usize {
        let Some(link) = self.get_mut(conn) else { return 0 };
        let sender = link.as_mut();
        let written = sender.transmit(history, own, config_text, buf);
        sender.sent_bytes += written as u64;
        if written > 0 {
            sender.sent_at = now;
        }
        sender.idle = written < buf.len();
        written
    }

    /// A connection that has something to send where there was nothing.
    pub(crate) fn poll_transmittable(&mut self, history: &History) -> Option<ConnId> {
        let cursor = self.cursor.min(self.slots.len());
        let (before, after) = self.slots.split_at_mut(cursor);
        let slots = (cursor..).zip(after).chain((0..).zip(before));
        let mut links = slots.filter_map(|(slot, link)| Some((slot, link.as_mut()?.as_mut())));
        // Going on behind the last one found, not from the beginning, makes a commit for a thousand
        // learners a thousand steps and not a million.
        let (slot, link) = links.find(|(_, link)| link.idle && link.has_output(history))?;
        link.idle = false;
        self.cursor = slot + 1;
        Some(link.conn)
    }

    /// Forgets transactions that nobody needs any more, and has those that lag further served from the
    /// log.
    ///
    /// Learners that lag keep the window from that up to half of its bound. The other half is for what
    /// is not on the disks of a quorum, or not on this server's: only that makes anybody wait. Who lags
    /// further is sent what it lacks from the log, on which everything is that is released here.
    pub(crate) fn release(&mut self, shared: &mut Shared) {
        let limits = shared.config.limits;
        let history = &mut shared.history;
        let first = history.window.first();
        let wanted = self.senders().filter_map(Sender::wants).filter(|index| *index >= first).min();
        let wanted = wanted.unwrap_or(Index::MAX);
        let keep_len = limits.retained_len_max_bytes;
        history.release(history.releasable(wanted, limits.retained_txns, keep_len));
        if history.held_len_bytes() > limits.window_len_max_bytes / 2 {
            let keep_len = history.tail_len_bytes() + limits.window_len_max_bytes / 2;
            let first = history.releasable(Index::MAX, usize::MAX, keep_len);
            for link in self.senders_mut() {
                link.leave_window(history, first);
            }
            history.release(first);
        }
        self.attend(shared);
    }

    /// Has the log read for learners that the window has left behind, and reads those again that have
    /// taken what they were owed.
    fn attend(&mut self, shared: &mut Shared) {
        let (first, through) = (shared.history.window.first(), shared.history.window.base());
        for link in self.senders_mut() {
            if link.reading.is_none() && link.next < first && link.is_behind(&shared.history) {
                link.reading = Some(first);
                let (conn, after, any_length) = (link.conn, link.last_sent, true);
                shared.control.push_back(Control::Log { conn, after, through, any_length });
            }
            if link.owing && link.has_taken() {
                link.owing = false;
                shared.control.push_back(Control::Resume(link.conn));
            }
        }
    }

    /// Reads learners again whose requests have waited for room.
    pub(crate) fn read_on(&mut self, shared: &mut Shared) {
        for link in self.senders_mut().filter(|link| link.paused) {
            link.paused = false;
            shared.control.push_back(Control::Resume(link.conn));
        }
    }
}
