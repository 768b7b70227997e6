//! What a learner has under way to its leader.

use std::collections::VecDeque;

use bytes::BufMut;
use zab_proto::ConnId;
use zab_proto::wire::jute::{BufMutExt, Reader};

use crate::auth::Ids;
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Write;
use crate::service::connection::room::Turn;
use crate::service::connection::wait::Wait;
use crate::service::role::local::upgrade_record;
use crate::service::role::{Cx, Request, Resumed, Submitted};

/// The service of a follower or observer.
#[derive(Debug, Default)]
pub(in crate::service) struct Learner {
    /// Forwarded syncs, oldest first.
    forwarded_syncs: VecDeque<ConnId>,
    /// Handshakes that wait for the leader's word about their session.
    revalidations: Vec<(i64, ConnId)>,
    /// Signs of life since the last report.
    touches: Vec<u8>,
    /// The number of the report that they will be in.
    report: u64,
    /// Buffers that are used again and again.
    data: Vec<u8>,
    auth: Vec<u8>,
}

impl Learner {
    /// Forwards a write, unless there are too many.
    pub(super) fn submit(
        &mut self,
        cx: &mut Cx<'_, '_>,
        turn: Turn,
        request: &Request<'_>,
        under_way: usize,
    ) -> Submitted {
        let Request { op, record, ids, .. } = *request;
        if Write::decode(op, record).map_or(true, |write| write.has_null()) {
            // Leaders of some releases stumble over what does not decode.
            return Submitted::Refused(Code::MARSHALLING_ERROR);
        }
        if !can_forward(cx, record) {
            return Submitted::Refused(Code::BAD_ARGUMENTS);
        }
        if !turn.is_next {
            return Submitted::Later(Wait::Room);
        }
        // A leader takes twice this from each learner when its window is full, and so comes to read
        // the acknowledgements after them.
        let bound = cx.core.peer().config().limits.requests_len_max_bytes / 2;
        if under_way > 0 && under_way + record.len() > bound {
            return Submitted::Later(Wait::Writes(bound));
        }
        if !self.upgrade(cx, request) {
            return Submitted::Later(Wait::Room);
        }
        if self.forward(cx, request, op != Opcode::CloseSession) {
            // Whoever finds no room is not charged: he comes again, and would take others' turns.
            cx.schedule.bill(cost::bytes(ids.len()));
            Submitted::Forwarded
        } else {
            Submitted::Later(Wait::Room)
        }
    }

    /// Asks the leader to make a local session one of the ensemble, if a request needs that. False: not now.
    fn upgrade(&mut self, cx: &mut Cx<'_, '_>, request: &Request<'_>) -> bool {
        let Some(record) = upgrade_record(cx, request) else { return true };
        let (session, op, ids) = (request.session, Opcode::CreateSession, Ids::default());
        let is_sent =
            self.forward(cx, &Request { session, cxid: 0, op, record: &record, ids }, false);
        if is_sent {
            cx.local.upgrade(session);
        }
        is_sent
    }

    /// Sends a request to the leader if there is room for it, with the client's identities if
    /// `with_ids`. False: not now.
    pub(super) fn forward(
        &mut self,
        cx: &mut Cx<'_, '_>,
        request: &Request<'_>,
        with_ids: bool,
    ) -> bool {
        self.encode(request, with_ids);
        let Self { data, auth, .. } = self;
        cx.core.can_propose(data.len() + auth.len()) && cx.core.request(data, auth)
    }

    fn encode(&mut self, request: &Request<'_>, with_ids: bool) {
        let Self { data, auth, .. } = self;
        data.clear();
        data.put_i64(request.session);
        data.put_i32(request.cxid);
        data.put_i32(request.op.wire());
        data.put_slice(request.record);
        auth.clear();
        if with_ids {
            request.ids.write(auth);
        } else {
            auth.put_i32(-1);
        }
    }

    /// Asks the leader about a session, and for a sync after that.
    ///
    /// From its answer on, the leader refuses what the session's last server may still forward, and
    /// at the end of the sync everything before is applied here. Without it, the transaction of an
    /// old request could be taken for that of a new one with the same number: not all clients go on
    /// counting after a reconnect. What is refused afterwards is SESSION_MOVED: taken for a new
    /// request, it closes the connection, as a Java server's does.
    ///
    /// A Java leader keeps this order. It moves the session when it reads REVALIDATE; the sync goes
    /// through the one thread that checks owners and proposes, thus after each request that was
    /// let through, and is answered after their COMMITs. A session that has ended does not keep
    /// its sync from being answered, so the syncs after it are not answered in its place.
    ///
    /// With a slow leader a client waits as long as for a write. REVALIDATE was a sign of life; a
    /// client that gives up and asks again gives another one. If the session ends before the sync
    /// does, `answer::reattached` says so. An answer to a connection that is gone only takes its turn.
    ///
    /// After a failover each client has its own sync, of some 50 bytes, for it must be after its
    /// own REVALIDATE. These are not rounds: our leader serves all that came during one round with
    /// the next, and Apache's has none.
    ///
    /// Of a local session the leader knows nothing, and its requests come by one link, whose order the sync
    /// keeps: at its end, all that was forwarded before is applied here. So is the beginning of a session
    /// that is about to become one of the ensemble, which is this server's there.
    pub(super) fn resume_session(
        &mut self,
        cx: &mut Cx<'_, '_>,
        conn: ConnId,
        session: i64,
        timeout_ms: i32,
    ) -> Resumed {
        let is_local = cx.local.touch(cx.core.now(), session, timeout_ms);
        let confirmed = is_local || cx.local.is_upgrading(session);
        let mut data = Vec::with_capacity(12);
        data.put_i64(session);
        data.put_i32(timeout_ms);
        if !cx.core.can_propose(SYNC_LEN) || !(confirmed || cx.core.revalidate(&data)) {
            return Resumed::NoRoom;
        }
        if !confirmed {
            self.revalidations.push((session, conn));
        }
        let mut path = Vec::new();
        path.put_ustring(Some("/"));
        let (op, record, ids) = (Opcode::Sync, &*path, Ids::default());
        self.encode(&Request { session, cxid: 0, op, record, ids }, true);
        // It goes with REVALIDATE, for which there was room, and which may have used all of that. If
        // it fails, there is no leader any more, and soon no connection.
        let sent = cx.core.request(&self.data, &self.auth);
        if sent {
            self.forwarded_syncs.push_back(conn);
        }
        Resumed::Asked { confirmed, caught_up: !sent }
    }

    /// Forwards a sync.
    pub(super) fn sync(
        &mut self,
        cx: &mut Cx<'_, '_>,
        (conn, turn): (ConnId, Turn),
        request: &Request<'_>,
    ) -> Submitted {
        if !can_forward(cx, request.record) {
            return Submitted::Refused(Code::BAD_ARGUMENTS);
        }
        if !turn.is_next || !self.forward(cx, request, true) {
            return Submitted::Later(Wait::Room);
        }
        self.forwarded_syncs.push_back(conn);
        Submitted::Forwarded
    }

    /// The oldest sync has ended.
    pub(super) fn take_sync(&mut self) -> Option<ConnId> {
        self.forwarded_syncs.pop_front()
    }

    /// The leader's word about a session.
    pub(super) fn revalidated(&mut self, data: &[u8]) -> Option<(ConnId, bool)> {
        let mut reader = Reader::new(data);
        let (session, valid) = (reader.i64().ok()?, reader.bool().ok()?);
        let at = self.revalidations.iter().position(|(id, _)| *id == session)?;
        Some((self.revalidations.remove(at).1, valid))
    }

    /// A sign of life; `touched` is the number of the report that has the session's last one.
    pub(super) fn touch(&mut self, session: i64, timeout_ms: i32, touched: &mut u64) {
        if *touched != self.report {
            *touched = self.report;
            self.touches.put_i64(session);
            self.touches.put_i32(timeout_ms);
        }
    }

    pub(super) fn take_touched(&mut self, sessions: &mut Vec<u8>) {
        sessions.append(&mut self.touches);
        self.report += 1;
    }
}

/// Whether a request is short enough for the link to the leader. One that never fits is refused, as a
/// leader refuses what makes too long a transaction: it would wait for ever, and others behind it.
fn can_forward(cx: &Cx<'_, '_>, record: &[u8]) -> bool {
    let field_len_max = cx.core.peer().config().limits.field_len_max_bytes;
    REQUEST_HEAD_LEN_BYTES + record.len() <= field_len_max
}

/// Session, cxid and operation in front of a forwarded record.
const REQUEST_HEAD_LEN_BYTES: usize = 16;
/// Room that is wanted for the sync of a session that goes on, in bytes.
const SYNC_LEN: usize = 64;
