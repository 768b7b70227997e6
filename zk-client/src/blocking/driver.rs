//! The thread below a client.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, Dial};
use crate::answer::Answer;
use crate::error::Error;
use crate::event::{Action, Event, EventQueue, RequestId};
use crate::hosts::Host;
use crate::session::Session;

/// What the client's callers and its thread work on.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Something may have come that somebody waits for.
    pub(super) changed: Condvar,
    origin: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    connection: Option<Arc<dyn Connection>>,
    /// Answers that are waited for: `None` until they are here.
    pub(super) answers: HashMap<RequestId, Option<Result<Answer, Error>>>,
    pub(super) events: EventQueue,
}

impl Shared {
    pub(super) fn new(session: Session, events_max: usize, origin: Instant) -> Self {
        let (answers, events) = (HashMap::new(), EventQueue::new(events_max));
        let state = State { session, connection: None, answers, events };
        Self { state: Mutex::new(state), changed: Condvar::new(), origin }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while the lock is held and the state is between two states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> crate::Instant {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        crate::Instant::from_nanos(nanos)
    }

    /// Waits for a change, at most this long if a time is given.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match timeout {
            Some(timeout) => {
                let waited = self.changed.wait_timeout(state, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Writes what there is to say, as far as the connection takes it.
    pub(super) fn flush(&self, state: &mut State) {
        let Some(connection) = state.connection.clone() else { return };
        while !state.session.transmit().is_empty() {
            match connection.write(state.session.transmit()) {
                Ok(written) => state.session.transmitted(self.now(), written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(error.kind()) => return,
                Err(_) => {
                    // The thread sees the end when it reads, and is the one who says so.
                    connection.close();
                    return;
                }
            }
        }
    }

    /// The life of the thread.
    pub(super) fn run(&self, mut dial: Box<dyn Dial>) {
        let mut buf = vec![0; 64 << 10];
        loop {
            let mut state = self.lock();
            state.session.handle_timeout(self.now());
            let to_dial = self.act(&mut state);
            self.flush(&mut state);
            state.deliver();
            self.changed.notify_all();
            if state.session.closed().is_some() {
                return;
            }
            if let Some((host, timeout)) = to_dial {
                drop(state);
                self.connect(&mut *dial, &host, timeout);
                continue;
            }
            let left = state.session.poll_timeout().map(|at| at - self.now());
            match state.connection.clone() {
                None => drop(self.wait(state, left)),
                Some(connection) => {
                    // What the connection has not taken is tried again soon.
                    let retry = (!state.session.transmit().is_empty()).then_some(RETRY_INTERVAL);
                    let timeout = left.into_iter().chain(retry).min().unwrap_or(RETRY_INTERVAL);
                    drop(state);
                    self.read(&*connection, &mut buf, timeout);
                }
            }
        }
    }

    /// Carries out what the session asks for; dialling is left to the caller, who must not hold the
    /// lock meanwhile.
    fn act(&self, state: &mut State) -> Option<(Host, Duration)> {
        let mut to_dial = None;
        while let Some(action) = state.session.poll_action() {
            match action {
                Action::Connect(host, timeout) => to_dial = Some((host, timeout)),
                Action::Disconnect => {
                    self.flush(state);
                    if let Some(connection) = state.connection.take() {
                        connection.close();
                    }
                }
            }
        }
        to_dial
    }

    fn connect(&self, dial: &mut dyn Dial, host: &Host, timeout: Duration) {
        let dialled = dial.dial(host, timeout);
        let mut state = self.lock();
        match dialled {
            Ok(connection) => {
                state.connection = Some(Arc::from(connection));
                state.session.handle_connected(self.now());
            }
            Err(error) => {
                log::debug!("{host}: {error}");
                state.session.handle_failed(self.now(), format!("{host}: {error}"));
            }
        }
    }

    fn read(&self, connection: &dyn Connection, buf: &mut [u8], timeout: Duration) {
        let read = connection.read(buf, timeout);
        let mut state = self.lock();
        match read {
            Ok(len) if len > 0 => state.session.handle_bytes(self.now(), &buf[..len]),
            Err(error) if is_timeout(error.kind()) || error.kind() == ErrorKind::Interrupted => {}
            Ok(_) => {
                log::debug!("the server has ended the connection");
                state.session.handle_failed(self.now(), "the server has ended the connection");
            }
            Err(error) => {
                log::debug!("the connection has ended: {error}");
                state.session.handle_failed(self.now(), error.to_string());
            }
        }
    }
}

impl State {
    /// Sorts what the session has to tell: answers to those who wait, the rest to whoever asks.
    fn deliver(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                // Nobody waits any longer if there is no slot.
                Event::Answer(id, result) => {
                    if let Some(slot) = self.answers.get_mut(&id) {
                        *slot = Some(result);
                    }
                }
                event => self.events.push(event),
            }
        }
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

const RETRY_INTERVAL: Duration = Duration::from_millis(5);
