//! Sessions that only their server knows (`localSessionsEnabled`): which runs have them, and what may be seen of them.
//!
//! Clients cannot tell them from others. The judgement can: a session is local as long as the history has not
//! begun it.

use crate::coverage::Coverage;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::Rng;
use crate::zk::history::{Answered, Call};
use crate::zk::model::code;
use crate::zk::replay::Record;
use crate::zk::wire::{Answer, Kind, Request};

/// What the servers of a run are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Locals {
    /// New sessions are local.
    pub(crate) enabled: bool,
    /// Before they own a node they become sessions of the ensemble.
    pub(crate) upgrading: bool,
}

impl Locals {
    /// None.
    pub(crate) const NONE: Self = Self { enabled: false, upgrading: false };

    /// In one run of four; two of three of these upgrade. The draws are a stream of their own.
    pub(crate) fn drawn(options: &Options) -> Self {
        let rng = &mut Rng::new(options.seed, 0x10ca1);
        let (enabled, upgrading) = (rng.chance(250), rng.chance(667));
        Self { enabled, upgrading: enabled && upgrading }
    }
}

impl Request {
    /// Whether a session needs to be one of the ensemble for it.
    pub(crate) fn makes_ephemeral(&self) -> bool {
        match self {
            Self::Create { mode, .. } => mode.kind == Kind::Ephemeral,
            Self::Multi(parts) => parts.iter().any(Self::makes_ephemeral),
            _ => false,
        }
    }
}

/// Whether a write was answered without a transaction, as it may be for a local session: it is closed, or refused
/// an ephemeral node.
pub(crate) fn is_unwritten(
    locals: Locals,
    record: &Record,
    call: &Call,
    answered: &Answered,
) -> bool {
    let refused = matches!(call.request, Request::Create { .. })
        && call.request.makes_ephemeral()
        && !locals.upgrading
        && answered.code == code::EPHEMERAL_ON_LOCAL_SESSION;
    let closed = call.request == Request::Close && answered.code == 0;
    locals.enabled && !record.model.was_opened(call.session) && (refused || closed)
}

/// What a client has seen of its present session.
#[derive(Debug)]
pub(crate) struct Stay {
    locals: Locals,
    session: i64,
    /// Where it lives, or lived last.
    server: HostIx,
    /// The epoch of the first answer on the present connection.
    epoch: Option<i64>,
}

impl Stay {
    pub(crate) fn new(locals: Locals) -> Self {
        Self { locals, session: 0, server: 0, epoch: None }
    }

    /// The session begins, or goes on, on this server. `Err`: it must not.
    pub(crate) fn attached(
        &mut self,
        (session, server, resumed): (i64, HostIx, bool),
        record: &Record,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let moved = resumed && server != self.server;
        self.epoch = None;
        (self.session, self.server) = (session, server);
        if !self.locals.enabled {
            return Ok(());
        }
        let local = !record.model.was_opened(session);
        coverage.count(match (local, resumed, moved) {
            (true, false, _) => "local: begun",
            (true, true, false) => "local: goes on at its server",
            (true, true, true) => {
                return Err(format!("local session {session:#x} goes on at s{}", server + 1));
            }
            (false, _, true) => "local: upgraded, moved",
            (false, _, false) => return Ok(()),
        });
        Ok(())
    }

    /// Whether a server may say at any time that the session is over: it is not the one that knows it. `last`: what
    /// the client has seen.
    pub(crate) fn is_elsewhere(
        &self,
        server: HostIx,
        last: i64,
        record: &Record,
        coverage: &mut Coverage,
    ) -> bool {
        // It may become one of the ensemble after that.
        let local = self.locals.enabled && !record.model.is_live_at(self.session, last);
        let elsewhere = local && server != self.server;
        coverage.add_count("local: over elsewhere", u64::from(elsewhere));
        elsewhere
    }

    /// An answer has come.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answered: &Answered,
        record: &Record,
        coverage: &mut Coverage,
    ) {
        if !self.locals.enabled || answered.zxid <= 0 {
            return;
        }
        let epoch = answered.zxid >> 32;
        let local = !record.model.was_opened(call.session);
        let first = *self.epoch.get_or_insert(epoch);
        if local && first < epoch && call.request.is_write() && answered.code == 0 {
            coverage.count("local: writes after a change of the epoch");
            self.epoch = Some(epoch);
        }
        let in_multi = matches!(&answered.answer, Answer::Parts(parts) if parts.iter().any(|(code, _)| {
            [code::SESSION_EXPIRED, code::EPHEMERAL_ON_LOCAL_SESSION].contains(code)
        }));
        let what = match (&call.request, answered.code) {
            (Request::Close, 0) if local => "local: closed",
            (Request::Create { .. }, code::EPHEMERAL_ON_LOCAL_SESSION) => {
                "local: ephemeral refused"
            }
            (Request::Multi(_), _) if local && in_multi => "local: ephemeral refused in a multi",
            (request, 0) if !local && request.makes_ephemeral() => "local: upgraded, owns a node",
            _ => return,
        };
        coverage.count(what);
    }
}
