//! What a session wants done, and what it tells its user.

use std::collections::VecDeque;
use std::time::Duration;

use crate::answer::Answer;
use crate::error::{Code, Error};
use crate::hosts::Host;
use crate::watch::WatchEvent;

/// Names a request until its answer has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub(crate) u64);

/// What whoever drives a [`Session`](crate::Session) has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect to this server, within this time, and tell the outcome:
    /// [`handle_connected`](crate::Session::handle_connected) or
    /// [`handle_lost`](crate::Session::handle_lost).
    Connect(Host, Duration),
    /// Close the connection, which needs no answer. What it had to say is said.
    Disconnect,
}

/// What a [`Session`](crate::Session) has to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A server serves the session.
    Connected {
        /// Which one.
        host: Host,
        /// The session's id.
        session_id: i64,
        /// The session timeout that the server granted.
        timeout: Duration,
        /// Whether it only lets reads through, because it has lost its ensemble.
        read_only: bool,
    },
    /// The login that was asked for ([`Options::sasl`](crate::Options::sasl)) is done. It follows each
    /// `Connected`, and requests are sent from now on.
    LoggedIn,
    /// The connection was lost, and another one is looked for. The session lives until its server
    /// lets it expire.
    Disconnected,
    /// The end of the session: `Ok` if it was closed here, else `SessionExpired` or `AuthFailed`
    /// ([`Session::failure`](crate::Session::failure) knows more of the latter).
    Closed(Code),
    /// A request is answered. The answers to the requests of one connection come in the order of
    /// the requests, except that those to `Auth` may overtake.
    Answer(RequestId, Result<Answer, Error>),
    /// A watch fired. An event comes before every answer that knows of the change.
    Watch(WatchEvent),
    /// So many events of watches were thrown away here, because nobody fetched them in time
    /// ([`Options::events_max`](crate::Options::events_max)).
    Missed(u64),
}

/// Events that wait to be fetched. Only those of watches come without being asked for, so only they
/// must be bounded.
#[derive(Debug)]
pub(crate) struct EventQueue {
    events: VecDeque<Event>,
    /// Events of watches among them.
    of_watches: usize,
    of_watches_max: usize,
}

impl EventQueue {
    pub(crate) fn new(of_watches_max: usize) -> Self {
        Self { events: VecDeque::new(), of_watches: 0, of_watches_max }
    }

    pub(crate) fn push(&mut self, event: Event) {
        let more = match &event {
            Event::Watch(_) if self.of_watches >= self.of_watches_max => 1,
            Event::Missed(more) => *more,
            other => {
                self.of_watches += usize::from(matches!(other, Event::Watch(_)));
                return self.events.push_back(event);
            }
        };
        match self.events.back_mut() {
            Some(Event::Missed(count)) => *count += more,
            _ => self.events.push_back(Event::Missed(more)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.of_watches -= usize::from(matches!(event, Event::Watch(_)));
        Some(event)
    }
}
