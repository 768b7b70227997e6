//! The session: time, bytes and requests in, actions, bytes and events out.

mod incoming;
mod login;
mod pending;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use zab_proto::Instant;
use zab_proto::wire::jute::BufMutExt;

use crate::answer::Answer;
use crate::error::{Code, Error, Refused};
use crate::event::{Action, Event, EventQueue, RequestId};
use crate::hosts::{Host, Hosts, WAIT_MAX};
use crate::options::Options;
use crate::path::Chroot;
use crate::request::{Request, opcode};
use crate::sasl::Exchange;
use crate::watch::Watches;
use pending::{Auths, Pending, Waiting};

/// Where the connection is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Link {
    /// Nobody is dialled before this time.
    Resting(Instant),
    /// The driver dials.
    Dialling(Host),
    /// The server has been asked for the session, and has until then to answer.
    Greeting(Host, Instant),
    /// It has given us the session, and we log in, until then at most.
    LoggingIn(Host, Instant),
    /// The server serves us.
    Up,
    /// The session has ended.
    Closed(Code),
}

/// One session with an ensemble of ZooKeeper, across as many connections as it takes.
///
/// It does no I/O and knows no clock. Whoever drives it
///
/// * carries out [`poll_action`](Self::poll_action),
/// * writes [`transmit`](Self::transmit) to the connection,
/// * hands over what is read ([`handle_bytes`](Self::handle_bytes)) and how connections end
///   ([`handle_lost`](Self::handle_lost)),
/// * calls [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout),
/// * and fetches [`poll_event`](Self::poll_event), in this order after each of these calls.
///
/// [`blocking::Client`](crate::blocking::Client) is such a driver.
#[derive(Debug)]
pub struct Session {
    options: Options,
    hosts: Hosts,
    root: Chroot,
    link: Link,
    actions: VecDeque<Action>,
    events: EventQueue,
    input: BytesMut,
    output: BytesMut,
    /// Requests for which there is no connection yet.
    waiting: VecDeque<Waiting>,
    /// Requests that the server has, in order.
    in_flight: VecDeque<Pending>,
    /// Requests that are waiting, in flight, or answered and not fetched; and their lengths.
    open: HashMap<RequestId, usize>,
    open_len_bytes: usize,
    auths: Auths,
    /// The login that is under way.
    login: Option<Box<dyn Exchange>>,
    /// Why there is no connection, or no session.
    failure: Option<String>,
    watches: Watches,
    session_id: i64,
    password: Vec<u8>,
    timeout: Duration,
    /// A session of a server without ensemble exists there only, and is not asked for elsewhere.
    global: bool,
    last_zxid: i64,
    last_xid: i32,
    last_id: u64,
    last_sent: Instant,
    last_received: Instant,
    /// Since when the server that serves us has done so.
    up_since: Instant,
    /// Since when there has been no connection.
    alone_since: Instant,
    closing: bool,
}

impl Session {
    /// Begins to look for a server.
    ///
    /// # Errors
    /// What is wrong with the options: no host, or a root that is no path.
    pub fn new(now: Instant, options: Options) -> Result<Self, &'static str> {
        if options.hosts.is_empty() {
            return Err("no server");
        }
        let root = Chroot::new(&options.chroot)?;
        let hosts = Hosts::new(options.hosts.clone(), options.seed);
        let global = options.resume.is_some();
        let (session_id, password) = options.resume.clone().unwrap_or_else(|| (0, vec![0; 16]));
        let timeout = options.session_timeout;
        let events = EventQueue::new(options.events_max);
        let mut session = Self {
            options,
            hosts,
            root,
            link: Link::Resting(now),
            actions: VecDeque::new(),
            events,
            input: BytesMut::new(),
            output: BytesMut::new(),
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            open: HashMap::new(),
            open_len_bytes: 0,
            auths: Auths::default(),
            login: None,
            failure: None,
            watches: Watches::default(),
            session_id,
            password,
            timeout,
            global,
            last_zxid: 0,
            last_xid: 0,
            last_id: 0,
            last_sent: now,
            last_received: now,
            up_since: now,
            alone_since: now,
            closing: false,
        };
        session.dial();
        Ok(session)
    }

    /// The session's id, 0 before a server has given one.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.session_id
    }

    /// The session's password, with which [`Options::resume`] takes it over.
    #[must_use]
    pub fn password(&self) -> &[u8] {
        &self.password
    }

    /// The session timeout: what the server granted, before that what is asked for.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The latest transaction of which this client has seen the effect.
    #[must_use]
    pub fn last_zxid(&self) -> i64 {
        self.last_zxid
    }

    /// Watches that a server would be told of if it were connected to now.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Whether a server serves us.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link == Link::Up
    }

    /// Why the last server that was tried does not serve us, in words for people: what
    /// [`handle_failed`](Self::handle_failed) was told, or how the login went.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<Code> {
        match self.link {
            Link::Closed(code) => Some(code),
            _ => None,
        }
    }

    /// Takes a request. [`Event::Answer`] will have its answer.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has happened then.
    pub fn submit(&mut self, request: &Request) -> Result<RequestId, Refused> {
        if let Some(code) = self.closed() {
            return Err(Refused::Closed(code));
        }
        if self.closing {
            return Err(Refused::Closed(Code::Ok));
        }
        request.check().map_err(Refused::Path)?;
        let id = RequestId(self.last_id + 1);
        let waiting = Waiting::new(id, request, &self.root, self.options.frame_len_max_bytes)?;
        let len = waiting.len();
        let busy = self.open.len() >= self.options.requests_max
            || self.open_len_bytes.saturating_add(len) > self.options.requests_len_max_bytes;
        if busy && !self.open.is_empty() {
            return Err(Refused::Busy);
        }
        if let Request::Auth { scheme, credentials } = request {
            self.auths.add(scheme, credentials, id)?;
            if self.is_connected() {
                self.auths.send_last(&mut self.output);
            }
        } else if self.is_connected() {
            waiting.send(&mut self.last_xid, &mut self.output, &mut self.in_flight);
        } else {
            self.waiting.push_back(waiting);
        }
        self.last_id += 1;
        self.open.insert(id, len);
        self.open_len_bytes += len;
        Ok(id)
    }

    /// Ends the session once everything that was submitted is answered. Without a connection it
    /// ends at once, and the server lets it expire.
    pub fn close(&mut self) {
        if self.closing || self.closed().is_some() {
            return;
        }
        self.closing = true;
        if self.is_connected() {
            let (xid, pending) = Pending::close(&mut self.last_xid);
            put_frame(&mut self.output, xid, opcode::CLOSE_SESSION, &[]);
            self.in_flight.push_back(pending);
        } else {
            self.finish(Code::Ok);
        }
    }

    /// What must be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What there is to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop()?;
        if let Event::Answer(id, _) = &event
            && let Some(len) = self.open.remove(id)
        {
            self.open_len_bytes -= len;
        }
        Some(event)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.link {
            Link::Resting(until) | Link::Greeting(_, until) | Link::LoggingIn(_, until) => {
                Some(until)
            }
            Link::Up => Some(self.ping_at().min(self.silent_at())),
            Link::Dialling(_) | Link::Closed(_) => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.link {
            Link::Resting(until) if now >= *until => self.dial(),
            Link::Greeting(host, until) if now >= *until => {
                log::warn!("{host} did not answer the request for a session");
                self.lose(now);
            }
            Link::LoggingIn(host, until) if now >= *until => {
                log::warn!("{host} did not answer the login");
                self.lose(now);
            }
            Link::Up if now >= self.silent_at() => {
                let silence = now - self.last_received;
                log::warn!("nothing was received from the server for {} ms", silence.as_millis());
                self.lose(now);
            }
            Link::Up if now >= self.ping_at() => {
                put_frame(&mut self.output, XID_PING, opcode::PING, &[]);
                // Also counts as sent if the connection takes nothing: silence will end it.
                self.last_sent = now;
            }
            _ => {}
        }
    }

    /// The connection that was asked for stands.
    pub fn handle_connected(&mut self, now: Instant) {
        let Link::Dialling(host) = &self.link else { return };
        self.link = Link::Greeting(host.clone(), now + self.connect_timeout());
        let mut body = BytesMut::new();
        body.put_i32(0);
        body.put_i64(self.last_zxid);
        let timeout = self.options.session_timeout.as_millis();
        body.put_i32(i32::try_from(timeout).unwrap_or(i32::MAX));
        body.put_i64(if self.global { self.session_id } else { 0 });
        body.put_buffer(Some(if self.global { &self.password } else { &[0; 16] }));
        body.put_bool(self.options.read_only);
        self.output.put_buffer(Some(&body));
        self.last_received = now;
    }

    /// There is no connection: it could not be made, or it has ended.
    pub fn handle_lost(&mut self, now: Instant) {
        match self.link {
            Link::Dialling(_) | Link::Greeting(..) | Link::LoggingIn(..) | Link::Up => {
                self.lose(now);
            }
            Link::Resting(_) | Link::Closed(_) => {}
        }
    }

    /// The same, with a reason, which [`failure`](Self::failure) tells until a server serves us.
    pub fn handle_failed(&mut self, now: Instant, reason: impl Into<String>) {
        if self.closed().is_none() {
            self.failure = Some(reason.into());
        }
        self.handle_lost(now);
    }

    /// What must be written to the connection. [`transmitted`](Self::transmitted) takes it off.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        &self.output
    }

    /// The first `len` bytes of [`transmit`](Self::transmit) were written.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn transmitted(&mut self, now: Instant, len: usize) {
        self.output.advance(len);
        if self.output.is_empty() {
            // A burst of large requests is not paid for with memory for ever.
            self.output = BytesMut::new();
        }
        self.last_sent = now;
    }

    /// A third of the timeout without a word is enough for the server to hear of us twice; and at
    /// least every ten seconds, as with ZooKeeper's own client.
    fn ping_at(&self) -> Instant {
        self.last_sent + (self.timeout / 3).min(PING_INTERVAL_MAX)
    }

    /// The last third of the timeout is for finding another server.
    fn silent_at(&self) -> Instant {
        self.last_received + self.timeout * 2 / 3
    }

    /// All servers can be tried before the session expires.
    fn connect_timeout(&self) -> Duration {
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        (self.timeout / hosts).max(CONNECT_TIMEOUT_MIN)
    }

    fn dial(&mut self) {
        let host = self.hosts.next();
        self.actions.push_back(Action::Connect(host.clone(), self.connect_timeout()));
        self.link = Link::Dialling(host);
    }

    /// Gives the connection up.
    fn lose(&mut self, now: Instant) {
        match self.link {
            Link::Up => {
                self.alone_since = now;
                // A server that ends every connection at once is no success.
                if now - self.up_since >= WAIT_MAX {
                    self.hosts.succeeded();
                }
                self.push(Event::Disconnected);
            }
            Link::LoggingIn(..) => self.push(Event::Disconnected),
            Link::Dialling(_) | Link::Greeting(..) => {}
            Link::Resting(_) | Link::Closed(_) => return,
        }
        if !matches!(self.link, Link::Dialling(_)) {
            self.actions.push_back(Action::Disconnect);
        }
        self.link = Link::Resting(now + self.hosts.failed());
        self.input = BytesMut::new();
        self.output = BytesMut::new();
        self.login = None;
        self.auths.unsent();
        self.fail_in_flight(Code::ConnectionLoss);
        if self.closing {
            return self.finish(Code::Ok);
        }
        if self.hosts.exhausted() && now - self.alone_since >= self.options.patience {
            self.fail_waiting(Code::ConnectionLoss);
        }
    }

    /// The end of the session.
    fn finish(&mut self, code: Code) {
        if self.has_connection() {
            self.actions.push_back(Action::Disconnect);
        }
        self.link = Link::Closed(code);
        self.login = None;
        self.output = BytesMut::new();
        self.input = BytesMut::new();
        let of_requests = if code == Code::Ok { Code::ConnectionLoss } else { code };
        self.fail_in_flight(of_requests);
        self.fail_waiting(of_requests);
        self.push(Event::Closed(code));
    }

    /// Whether a server is there to hear and to be heard.
    fn has_connection(&self) -> bool {
        matches!(self.link, Link::Greeting(..) | Link::LoggingIn(..) | Link::Up)
    }

    fn fail_in_flight(&mut self, code: Code) {
        for pending in std::mem::take(&mut self.in_flight) {
            if let Some((id, error)) = pending.failed(code) {
                self.push(Event::Answer(id, Err(error)));
            }
        }
    }

    fn fail_waiting(&mut self, code: Code) {
        for id in self.auths.give_up() {
            self.push(Event::Answer(id, Err(Error { code, path: None })));
        }
        for waiting in std::mem::take(&mut self.waiting) {
            if let Some((id, error)) = waiting.pending.failed(code) {
                self.push(Event::Answer(id, Err(error)));
            }
        }
    }

    fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    fn answered(&mut self, id: RequestId, result: Result<Answer, Error>) {
        self.push(Event::Answer(id, result));
    }
}

/// Appends a request's frame.
fn put_frame(out: &mut BytesMut, xid: i32, opcode: i32, body: &[u8]) {
    out.put_len(8 + body.len());
    out.put_i32(xid);
    out.put_i32(opcode);
    out.put_slice(body);
}

const XID_EVENT: i32 = -1;
const XID_PING: i32 = -2;
const XID_AUTH: i32 = -4;
const XID_SET_WATCHES: i32 = -8;

const PING_INTERVAL_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// A frame that came, without its length.
type Frame = Bytes;
