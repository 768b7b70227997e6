//! The client whose calls wait.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::{Dial, Tcp};
use super::driver::Shared;
use crate::acl::Acl;
use crate::answer::Answer;
use crate::error::{Code, Error, Refused};
use crate::event::{Event, RequestId};
use crate::options::Options;
use crate::request::{Create, CreateMode, Op, Request};
use crate::session::Session;
use crate::stat::Stat;
use crate::watch::{AddWatchMode, WatcherType};

/// A session, driven by a thread of its own. All methods may be called by many threads at once.
///
/// Dropping it ends the session, and with it its ephemeral nodes, without waiting for the server to
/// say so; [`close`](Self::close) waits.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// A request that was sent, and whose answer nobody has waited for yet. Many may be on their way at
/// once. Dropping it throws the answer away, not the request.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    id: RequestId,
}

impl Client {
    /// A client of the servers in a connect string such as `a:2181,b:2181/root`. It looks for a
    /// server in the background.
    ///
    /// # Errors
    /// If the text is no connect string, or no thread can be had.
    pub fn connect(connect_string: &str) -> io::Result<Self> {
        let options = Options::parse(connect_string);
        Self::start(options.map_err(invalid)?, Box::new(Tcp))
    }

    /// The same with all options, and connections of any kind. A [`seed`](Options::seed) of 0 is
    /// replaced by a random one.
    ///
    /// # Errors
    /// If the options make no sense, or no thread can be had.
    pub fn start(mut options: Options, dial: Box<dyn Dial>) -> io::Result<Self> {
        if options.seed == 0 {
            options.seed = RandomState::new().hash_one(0);
        }
        let (origin, events_max) = (Instant::now(), options.events_max);
        let session = Session::new(crate::Instant::ZERO, options).map_err(invalid)?;
        let shared = Arc::new(Shared::new(session, events_max, origin));
        let of_thread = Arc::clone(&shared);
        let name = "zk-client".to_owned();
        std::thread::Builder::new().name(name).spawn(move || of_thread.run(dial))?;
        Ok(Self { shared })
    }

    /// Sends a request. Waits only while too many others are on their way.
    ///
    /// # Errors
    /// [`Refused::Closed`], [`Refused::Path`], [`Refused::TooLong`].
    pub fn send(&self, request: &Request) -> Result<Ticket, Refused> {
        let mut state = self.shared.lock();
        let id = loop {
            match state.session.submit(request) {
                Err(Refused::Busy) => state = self.shared.wait(state, None),
                Err(refused) => return Err(refused),
                Ok(id) => break id,
            }
        };
        state.answers.insert(id, None);
        self.shared.flush(&mut state);
        // Whoever sends more than the connection takes waits here until it does, or until it ends.
        while !state.session.transmit().is_empty() {
            state = self.shared.wait(state, Some(Duration::from_millis(1)));
            self.shared.flush(&mut state);
        }
        Ok(Ticket { shared: Arc::clone(&self.shared), id })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The server's, and those of the way there. What was refused without being sent is
    /// `BadArguments` (the path is not valid) or why the session has ended.
    pub fn call(&self, request: &Request) -> Result<Answer, Error> {
        let ticket = self.send(request).map_err(|refused| Error {
            code: match refused {
                Refused::Closed(Code::Ok) => Code::ConnectionLoss,
                Refused::Closed(code) => code,
                Refused::Path(_) => Code::BadArguments,
                Refused::Busy | Refused::TooLong => Code::MarshallingError,
            },
            path: request.path().map(str::to_owned),
        })?;
        ticket.wait()
    }

    /// Creates a node that is open to everybody; its path, with the number if it is sequential.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn create(
        &self,
        path: &str,
        data: impl Into<Bytes>,
        mode: CreateMode,
    ) -> Result<String, Error> {
        match self.call(&Request::Create(Create::new(path, data, mode)))? {
            Answer::Created(path, _) => Ok(path),
            _ => Err(unexpected(path)),
        }
    }

    /// Deletes a node that has this version ([`ANY_VERSION`](crate::ANY_VERSION): whichever).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn delete(&self, path: &str, version: i32) -> Result<(), Error> {
        self.call(&Request::Delete { path: path.to_owned(), version }).map(|_| ())
    }

    /// Whether the node exists.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, Error> {
        match self.call(&Request::Exists { path: path.to_owned(), watch })? {
            Answer::Exists(stat) => Ok(stat),
            _ => Err(unexpected(path)),
        }
    }

    /// The data of a node. Null is empty here; [`call`](Self::call) tells them apart.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn get(&self, path: &str, watch: bool) -> Result<(Bytes, Stat), Error> {
        match self.call(&Request::GetData { path: path.to_owned(), watch })? {
            Answer::Data(data, stat) => Ok((data.unwrap_or_default(), stat)),
            _ => Err(unexpected(path)),
        }
    }

    /// Sets the data of a node that has this version.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn set(&self, path: &str, data: impl Into<Bytes>, version: i32) -> Result<Stat, Error> {
        let data = Some(data.into());
        match self.call(&Request::SetData { path: path.to_owned(), data, version })? {
            Answer::Stat(stat) => Ok(stat),
            _ => Err(unexpected(path)),
        }
    }

    /// The names of a node's children, sorted.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn children(&self, path: &str, watch: bool) -> Result<Vec<String>, Error> {
        match self.call(&Request::GetChildren { path: path.to_owned(), watch, stat: false })? {
            Answer::Children(mut names, _) => {
                names.sort_unstable();
                Ok(names)
            }
            _ => Err(unexpected(path)),
        }
    }

    /// The access control list of a node.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn acl(&self, path: &str) -> Result<(Vec<Acl>, Stat), Error> {
        match self.call(&Request::GetAcl { path: path.to_owned() })? {
            Answer::Acl(acl, stat) => Ok((acl, stat)),
            _ => Err(unexpected(path)),
        }
    }

    /// Reads that follow see all that was committed before.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn sync(&self, path: &str) -> Result<(), Error> {
        self.call(&Request::Sync { path: path.to_owned() }).map(|_| ())
    }

    /// Does all of these or none. One result for each, of which one says why if nothing was done.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn multi(&self, ops: Vec<Op>) -> Result<Vec<Result<Answer, Code>>, Error> {
        match self.call(&Request::Multi(ops))? {
            Answer::Multi(results) => Ok(results),
            _ => Err(Error { code: Code::MarshallingError, path: None }),
        }
    }

    /// Sets a watch that stays when it has fired.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn add_watch(&self, path: &str, mode: AddWatchMode) -> Result<(), Error> {
        self.call(&Request::AddWatch { path: path.to_owned(), mode }).map(|_| ())
    }

    /// Removes watches of this client.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn remove_watches(&self, path: &str, kind: WatcherType) -> Result<(), Error> {
        self.call(&Request::RemoveWatches { path: path.to_owned(), kind }).map(|_| ())
    }

    /// Shows credentials, now and on each connection to come.
    ///
    /// # Errors
    /// As [`call`](Self::call). If the server does not accept them the session is of no use any
    /// longer.
    pub fn auth(&self, scheme: &str, credentials: impl Into<Bytes>) -> Result<(), Error> {
        let (scheme, credentials) = (scheme.to_owned(), credentials.into());
        self.call(&Request::Auth { scheme, credentials }).map(|_| ())
    }

    /// Waits at most this long for something that happened to the session or to a watch.
    #[must_use]
    pub fn event(&self, timeout: Duration) -> Option<Event> {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(event) = state.events.pop() {
                return Some(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// Waits at most this long until [`event`](Self::event) has something; whether it has.
    #[must_use]
    pub fn wait_event(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !state.events.is_empty() || left.is_zero() {
                return !state.events.is_empty();
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<Code> {
        self.shared.lock().session.closed()
    }

    /// Why the last server that was tried does not serve us ([`Session::failure`]).
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().session.failure().map(str::to_owned)
    }

    /// Waits at most this long for a server; whether one serves us.
    #[must_use]
    pub fn wait_connected(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let connected = state.session.is_connected();
            if connected || left.is_zero() || state.session.closed().is_some() {
                return connected;
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// The session's id and password, with which [`Options::resume`] takes it over. The id is 0
    /// before a server has given one.
    #[must_use]
    pub fn session(&self) -> (i64, Vec<u8>) {
        let state = self.shared.lock();
        (state.session.id(), state.session.password().to_vec())
    }

    /// The session timeout: what the server granted, before that what is asked for.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.shared.lock().session.timeout()
    }

    /// Ends the session once everything that was sent is answered, and waits for that, at most as
    /// long as the session would live anyway.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.session.close();
        self.shared.flush(&mut state);
        self.shared.changed.notify_all();
        let until = Instant::now() + state.session.timeout();
        while state.session.closed().is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.wait(state, Some(left));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.session.close();
        self.shared.flush(&mut state);
        self.shared.changed.notify_all();
    }
}

impl Ticket {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The server's, or [`Code::ConnectionLoss`] if it is unknown whether the request took effect.
    ///
    /// # Panics
    /// Never: the answer of a ticket is kept until it is fetched.
    pub fn wait(self) -> Result<Answer, Error> {
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = state.answers.get_mut(&self.id).and_then(Option::take) {
                return result;
            }
            state = self.shared.wait(state, None);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().answers.remove(&self.id);
    }
}

fn unexpected(path: &str) -> Error {
    Error { code: Code::MarshallingError, path: Some(path.to_owned()) }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
