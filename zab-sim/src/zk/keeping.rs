//! W17: a client whose server came back with a leader in time, and was sent no snapshot, keeps its
//! connection.
//!
//! Reads along what goes between a server and its clients, and takes note of the server's roles. It
//! never asks the service why it closes a connection.

use std::collections::VecDeque;
use std::time::Duration;

use zab_harness::client::{first_frame, xid};
use zab_proto::wire::jute::Reader;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{ConnId, Instant, Phase, Status};
use zk_service::Opcode;

use crate::check::Failure;
use crate::rng::Map;
use crate::zk::local::Locals;

/// What one server owes its clients' connections.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Not in runs whose bounds close clients.
    judged: bool,
    /// How long the service holds a connection.
    hold: Duration,
    /// The role that is served.
    served: Option<Status>,
    /// The last time that a role was lost.
    loss: Option<Loss>,
    conns: Map<ConnId, Kept>,
    locals: Locals,
    /// The last role that was served. Back with its leader in the same epoch, a local session is over if there were
    /// requests of it that this server does not know to be carried out.
    last: Option<Status>,
    unsettled: Map<i64, ()>,
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Instant,
    served_at: Option<Instant>,
    snapshot: bool,
}

#[derive(Debug, Default)]
struct Kept {
    greeted: bool,
    /// 0: not given yet.
    session: i64,
    timeout: Duration,
    /// When something came of the client.
    heard: Option<Instant>,
    /// When the requests came that are not answered.
    asked: VecDeque<Instant>,
    /// Bytes for the client that are no whole frame.
    rest: Vec<u8>,
    /// The role was lost, and nothing has been answered in the next one.
    carried: bool,
    /// The session is over, or about to be.
    over: bool,
}

impl Keeping {
    pub(super) fn new(judged: bool, hold: Duration, locals: Locals) -> Self {
        Self {
            judged,
            hold,
            served: None,
            loss: None,
            conns: Map::default(),
            locals,
            last: None,
            unsettled: Map::default(),
        }
    }

    pub(super) fn became(&mut self, now: Instant, status: &Status) {
        let serves = status.phase == Phase::Broadcast;
        let before = std::mem::replace(&mut self.served, serves.then_some(*status));
        let goes_on = before.is_some_and(|before| {
            serves && before.state == status.state && before.leader == status.leader
        });
        if goes_on {
            return;
        }
        if before.is_some() {
            self.loss = Some(Loss { at: now, served_at: None, snapshot: false });
            self.conns.values_mut().for_each(|kept| kept.carried = kept.session != 0);
        }
        if let Some(loss) = self.loss.as_mut().filter(|_| serves) {
            loss.served_at = Some(now);
        }
        if serves && self.locals.enabled {
            let same_epoch = self.last.is_some_and(|last| last.epoch == status.epoch);
            for kept in self.conns.values_mut().filter(|_| same_epoch) {
                kept.over |= !kept.asked.is_empty() || self.unsettled.contains_key(&kept.session);
            }
            self.last = Some(*status);
            self.unsettled.clear();
        }
    }

    pub(super) fn installed(&mut self) {
        if let Some(loss) = &mut self.loss {
            loss.snapshot = true;
        }
    }

    pub(super) fn delivered(&mut self, txn: &[u8]) {
        let closes = |header: &TxnHeader| header.kind == Opcode::CloseSession.wire();
        if let Some(header) = TxnHeader::parse(txn).ok().filter(closes) {
            self.end(header.client_id);
        }
    }

    /// The leader's word on a session.
    pub(super) fn revalidated(&mut self, data: &[u8]) {
        let mut reader = Reader::new(data);
        if let (Ok(session), Ok(false)) = (reader.i64(), reader.bool()) {
            self.end(session);
        }
    }

    fn end(&mut self, session: i64) {
        self.conns
            .values_mut()
            .filter(|kept| kept.session == session)
            .for_each(|kept| kept.over = true);
    }

    pub(super) fn accepted(&mut self, conn: ConnId) {
        self.conns.insert(conn, Kept::default());
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        let asked = self.conns.remove(&conn).filter(|kept| !kept.asked.is_empty());
        if let Some(kept) = asked.filter(|_| self.locals.enabled) {
            self.unsettled.insert(kept.session, ());
        }
    }

    /// The service has taken these bytes of a client.
    pub(super) fn taken(&mut self, now: Instant, conn: ConnId, mut bytes: &[u8]) {
        let Some(kept) = self.conns.get_mut(&conn) else { return };
        kept.heard = Some(now);
        while let Some(frame) = first_frame(bytes) {
            bytes = &bytes[4 + frame.len()..];
            if !std::mem::replace(&mut kept.greeted, true) {
                continue;
            }
            kept.asked.push_back(now);
            let mut reader = Reader::new(frame);
            let op = reader.i32().and_then(|_| reader.i32());
            kept.over |= op == Ok(Opcode::CloseSession.wire());
        }
    }

    /// These bytes are on their way to a client.
    pub(super) fn sent(&mut self, conn: ConnId, bytes: &[u8]) {
        let serves = self.served.is_some();
        let Some(kept) = self.conns.get_mut(&conn) else { return };
        kept.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut kept.rest);
        let mut at = 0;
        while let Some(frame) = first_frame(&rest[at..]) {
            at += 4 + frame.len();
            let mut reader = Reader::new(frame);
            let first = reader.i32().unwrap_or_default();
            if kept.session == 0 {
                let timeout_ms = reader.i32().unwrap_or_default();
                kept.timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
                kept.session = reader.i64().unwrap_or_default();
            } else if first != xid::EVENT {
                kept.asked.pop_front();
                kept.carried &= !serves;
            }
        }
        kept.rest = rest[at..].to_vec();
    }

    /// The service closes a connection on which its client still is.
    pub(super) fn closes(&self, now: Instant, conn: ConnId) -> Option<Failure> {
        let kept = self.conns.get(&conn).filter(|kept| kept.carried && !kept.over)?;
        if kept.heard.is_none_or(|heard| now >= heard + kept.timeout) {
            // Its client is gone, or pings too late to keep any session.
            return None;
        }
        let loss = self.loss.filter(|loss| self.judged && !loss.snapshot)?;
        let oldest = kept.asked.front().map_or(loss.at, |asked| loss.at.min(*asked));
        let deadline = (loss.at + self.hold).min(oldest + kept.timeout / 3);
        let at = loss.served_at.unwrap_or(now);
        (at < deadline).then(|| {
            let ms = at.saturating_since(loss.at).as_millis();
            let what = if loss.served_at.is_some() { "served again" } else { "has no leader" };
            let text = format!(
                "the connection of session {:#x} is closed, though its server {what} after {ms} ms, \
                 without a snapshot",
                kept.session
            );
            Failure { invariant: "W17", text }
        })
    }
}
