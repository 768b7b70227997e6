//! Who waits for room: in the window of the leader, or on the way to it.
//!
//! Who has waited longest is next. A client that finds others waiting waits behind them, and one that
//! has had its turn goes to the end, so that nobody is overtaken without bound, however narrow the room is
//! and whoever comes first each time there is some.

use std::collections::BTreeMap;

use zab_proto::ConnId;

/// A place in the order of those who wait; lower is earlier.
pub(in crate::service) type Ticket = u64;

/// Whether a connection may ask for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::service) struct Turn {
    /// Since when it waits, if it does.
    pub(in crate::service) ticket: Option<Ticket>,
    /// No other connection of this server has waited longer.
    pub(in crate::service) is_next: bool,
}

/// The connections whose next request waits for room, each once.
#[derive(Debug, Default)]
pub(in crate::service) struct Waiting {
    issued: Ticket,
    queue: BTreeMap<Ticket, Place>,
    /// Somebody has left the queue, and whoever is first now was not told.
    moved: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    conn: ConnId,
    /// It was told to try again and has not come yet.
    called: bool,
}

impl Waiting {
    /// A place after all that there are.
    pub(in crate::service) fn issue(&mut self) -> Ticket {
        self.issued += 1;
        self.issued
    }

    /// A connection waits, in the place that its ticket gives it.
    pub(in crate::service) fn wait(&mut self, ticket: Ticket, conn: ConnId) {
        self.queue.insert(ticket, Place { conn, called: false });
    }

    /// A connection waits no longer: it has had what it waited for, or is gone.
    pub(in crate::service) fn leave(&mut self, ticket: Ticket) {
        self.moved |= self.queue.remove(&ticket).is_some();
    }

    /// A connection that was called has come, and found something else to wait for. It keeps its
    /// ticket, and does not keep others from their turns meanwhile.
    pub(in crate::service) fn step_aside(&mut self, ticket: Ticket) {
        if self.queue.get(&ticket).is_some_and(|place| place.called) {
            self.leave(ticket);
        }
    }

    /// Whether nobody has waited longer than who has this ticket, or none yet.
    pub(super) fn is_turn_of(&self, ticket: Option<Ticket>) -> bool {
        self.first().is_none_or(|first| ticket.is_some_and(|own| own <= first))
    }

    /// Whether it is the turn of who has this ticket, or none yet.
    pub(in crate::service) fn turn(&self, ticket: Option<Ticket>) -> Turn {
        Turn { ticket, is_next: self.is_turn_of(ticket) }
    }

    /// The ticket of who has waited longest.
    pub(in crate::service) fn first(&self) -> Option<Ticket> {
        self.queue.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// Whom to tell that it is its turn.
    pub(in crate::service) fn call(&mut self) -> Option<ConnId> {
        self.note_first();
        let mut first = self.queue.first_entry()?;
        first.get_mut().called = true;
        Some(first.get().conn)
    }

    /// Whom to tell that it is its turn, unless it was told and has not come yet.
    pub(in crate::service) fn call_once(&mut self) -> Option<ConnId> {
        let first = self.queue.first_key_value().is_some_and(|(_, place)| !place.called);
        first.then(|| self.call()).flatten()
    }

    /// It has been seen who is first now.
    pub(in crate::service) fn note_first(&mut self) {
        self.moved = false;
    }

    /// Whether somebody has left, so that it may be the turn of another one who was not told.
    pub(in crate::service) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Nobody waits any more. No ticket is issued twice.
    pub(in crate::service) fn clear(&mut self) {
        self.queue.clear();
        self.moved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId::client(slot, 0)
    }

    #[test]
    fn who_came_first_is_first_and_listed_once() {
        let mut waiting = Waiting::default();
        let (a, b) = (waiting.issue(), waiting.issue());
        waiting.wait(b, conn(2));
        for _ in 0..3 {
            waiting.wait(a, conn(1));
        }
        assert!(waiting.is_turn_of(Some(a)) && !waiting.is_turn_of(Some(b)));
        assert!(!waiting.is_turn_of(None), "who comes anew does not overtake");
        assert_eq!(waiting.call_once(), Some(conn(1)));
        assert_eq!(waiting.call_once(), None, "it has not come yet");
        assert_eq!(waiting.call(), Some(conn(1)));
        waiting.leave(a);
        assert!(waiting.has_moved());
        assert_eq!(waiting.call(), Some(conn(2)));
        waiting.leave(b);
        assert_eq!((waiting.call(), waiting.first()), (None, None));
        assert!(waiting.is_turn_of(None));
    }

    #[test]
    fn who_steps_aside_comes_back_to_its_place() {
        let mut waiting = Waiting::default();
        let (a, b) = (waiting.issue(), waiting.issue());
        waiting.wait(a, conn(1));
        waiting.wait(b, conn(2));
        waiting.step_aside(a);
        assert_eq!(waiting.first(), Some(a), "it was not called");
        waiting.call();
        waiting.step_aside(a);
        assert_eq!(waiting.call(), Some(conn(2)));
        waiting.wait(a, conn(1));
        assert!(!waiting.is_turn_of(Some(b)));
    }
}
