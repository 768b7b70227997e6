//! Requests on their way, and what must be known of them when the answer comes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use zab_proto::wire::jute::BufMutExt;

use super::{XID_AUTH, put_frame};
use crate::error::{Code, Error, Refused};
use crate::event::RequestId;
use crate::path::Chroot;
use crate::request::{CONFIG_NODE, Request, opcode};
use crate::watch::{AddWatchMode, EventKind, Kind, WatcherType, Watches};

/// What an answer does to the watches of the client.
#[derive(Clone, Copy, Debug)]
enum Effect {
    None,
    /// Sets a watch of the first kind if the node exists, of the second if it does not.
    Set(Kind, Option<Kind>),
    Removed(WatcherType),
}

/// A request without its bytes.
#[derive(Debug)]
pub(super) struct Pending {
    /// `None`: the session's own.
    id: Option<RequestId>,
    pub(super) xid: i32,
    pub(super) opcode: i32,
    /// The path as the caller knows it, for errors.
    path: Option<String>,
    /// The path as the server knows it, for watches.
    full_path: String,
    effect: Effect,
}

impl Pending {
    fn new(id: RequestId, request: &Request, root: &Chroot) -> Self {
        let effect = match request {
            Request::GetData { watch: true, .. } | Request::GetConfig { watch: true } => {
                Effect::Set(Kind::Data, None)
            }
            Request::Exists { watch: true, .. } => Effect::Set(Kind::Data, Some(Kind::Exist)),
            Request::GetChildren { watch: true, .. } => Effect::Set(Kind::Child, None),
            Request::AddWatch { mode: AddWatchMode::Persistent, .. } => {
                Effect::Set(Kind::Persistent, None)
            }
            Request::AddWatch { mode: AddWatchMode::PersistentRecursive, .. } => {
                Effect::Set(Kind::PersistentRecursive, None)
            }
            Request::RemoveWatches { kind, .. } => Effect::Removed(*kind),
            _ => Effect::None,
        };
        let path = request.path().map(str::to_owned);
        let full_path = match (request, &path) {
            (_, None) => String::new(),
            (Request::GetConfig { .. }, _) => CONFIG_NODE.to_owned(),
            (_, Some(path)) => root.full(path),
        };
        Self { id: Some(id), xid: 0, opcode: request.opcode(), path, full_path, effect }
    }

    /// One of the session's own.
    pub(super) fn own(xid: i32, opcode: i32) -> Self {
        let (path, full_path) = (None, String::new());
        Self { id: None, xid, opcode, path, full_path, effect: Effect::None }
    }

    /// The end of the session.
    pub(super) fn close(last_xid: &mut i32) -> (i32, Self) {
        let xid = next_xid(last_xid);
        (xid, Self::own(xid, opcode::CLOSE_SESSION))
    }

    /// The error for the caller, if it was a caller's.
    pub(super) fn failed(self, code: Code) -> Option<(RequestId, Error)> {
        self.id.map(|id| (id, Error { code, path: self.path }))
    }

    /// The path as the caller knows it.
    pub(super) fn path(&self) -> String {
        self.path.clone().unwrap_or_default()
    }

    pub(super) fn id(&self) -> Option<RequestId> {
        self.id
    }

    /// Keeps the books of watches as the server does: what was removed.
    pub(super) fn settle(&self, code: Code, watches: &mut Watches) -> Vec<EventKind> {
        match (self.effect, code) {
            (Effect::Set(kind, _), Code::Ok) | (Effect::Set(_, Some(kind)), Code::NoNode) => {
                watches.add(kind, self.full_path.clone());
            }
            (Effect::Removed(of), Code::Ok) => return watches.removed(of, &self.full_path),
            _ => {}
        }
        Vec::new()
    }
}

/// A request that has not been sent.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    body: BytesMut,
}

impl Waiting {
    pub(super) fn new(
        id: RequestId,
        request: &Request,
        root: &Chroot,
        len_max_bytes: usize,
    ) -> Result<Self, Refused> {
        let mut body = BytesMut::new();
        request.put(root, &mut body);
        let waiting = Self { pending: Pending::new(id, request, root), body };
        match waiting.len() <= len_max_bytes {
            true => Ok(waiting),
            false => Err(Refused::TooLong),
        }
    }

    /// Length of the frame in bytes.
    pub(super) fn len(&self) -> usize {
        8 + self.body.len()
    }

    pub(super) fn send(
        mut self,
        last_xid: &mut i32,
        out: &mut BytesMut,
        in_flight: &mut VecDeque<Pending>,
    ) {
        self.pending.xid = next_xid(last_xid);
        put_frame(out, self.pending.xid, self.pending.opcode, &self.body);
        in_flight.push_back(self.pending);
    }
}

/// Numbers below 1 mean something else.
pub(super) fn next_xid(last: &mut i32) -> i32 {
    *last = last.checked_add(1).unwrap_or(1);
    *last
}

/// The credentials that the client has shown, which each new connection is shown again.
#[derive(Debug, Default)]
pub(super) struct Auths {
    list: Vec<Auth>,
    /// Those that the server has, in order.
    in_flight: VecDeque<usize>,
}

#[derive(Debug)]
struct Auth {
    scheme: String,
    credentials: Bytes,
    waiting: Vec<RequestId>,
}

/// More credentials than anybody has.
const AUTHS_MAX: usize = 100;

impl Auths {
    /// Puts the credentials at the end of the list.
    pub(super) fn add(
        &mut self,
        scheme: &str,
        credentials: &Bytes,
        id: RequestId,
    ) -> Result<(), Refused> {
        let known = |auth: &Auth| auth.scheme == scheme && auth.credentials == *credentials;
        match self.list.iter().position(known) {
            // Not the last one: the order in which they are sent must not change after
            // `in_flight`, so it gets an entry of its own.
            Some(at) if at + 1 == self.list.len() => self.list[at].waiting.push(id),
            _ if self.list.len() >= AUTHS_MAX => return Err(Refused::Busy),
            _ => {
                let (scheme, credentials) = (scheme.to_owned(), credentials.clone());
                self.list.push(Auth { scheme, credentials, waiting: vec![id] });
            }
        }
        Ok(())
    }

    pub(super) fn send_last(&mut self, out: &mut BytesMut) {
        self.send(self.list.len() - 1, out);
    }

    /// On a new connection.
    pub(super) fn send_all(&mut self, out: &mut BytesMut) {
        for at in 0..self.list.len() {
            self.send(at, out);
        }
    }

    fn send(&mut self, at: usize, out: &mut BytesMut) {
        let auth = &self.list[at];
        let mut body = BytesMut::new();
        body.put_i32(0);
        body.put_ustring(Some(&auth.scheme));
        body.put_buffer(Some(&auth.credentials));
        put_frame(out, XID_AUTH, opcode::AUTH, &body);
        self.in_flight.push_back(at);
    }

    /// The server accepts the oldest that it has not answered: who waited for that. `None`: there
    /// is none.
    pub(super) fn accepted(&mut self) -> Option<Vec<RequestId>> {
        let at = self.in_flight.pop_front()?;
        Some(std::mem::take(&mut self.list[at].waiting))
    }

    /// The connection is gone.
    pub(super) fn unsent(&mut self) {
        self.in_flight.clear();
    }

    /// Nobody waits any longer.
    pub(super) fn give_up(&mut self) -> Vec<RequestId> {
        self.list.iter_mut().flat_map(|auth| std::mem::take(&mut auth.waiting)).collect()
    }
}
