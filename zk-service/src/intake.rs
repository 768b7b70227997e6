//! From a client's bytes to requests: framing, handshake, and the decision what is done now, what is
//! forwarded and what waits.

use std::fmt;

use bytes::BufMut;
use zab_proto::wire::Foreign;
use zab_proto::wire::jute::{BufMutExt, Reader};
use zab_proto::{Core, Instant, Zxid};

use crate::auth::{Ids, Verdict};
use crate::connection::State;
use crate::connection::order::{Answer, Awaiting, InFlight};
use crate::connection::schedule::cost;
use crate::protocol::code::Code;
use crate::protocol::opcode::{OpClass, Opcode};
use crate::protocol::reply::{self, XID_PING};
use crate::protocol::request::{Connect, Write};
use crate::protocol::session_id::{password, session_id};
use crate::role::leader::{Env, Leader, Submission};
use crate::role::tracker::Owner;
use crate::service::Service;

/// Reads that may stand in front of a write, if they cost little together: they are answered at once
/// when those before them are, since the write must find its place.
const READS_BEFORE_WRITE_MAX: usize = 64;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Done,
    /// It has to be offered again.
    NotNow,
    /// The connection is closed.
    Closed,
}

impl Service {
    /// See [`zab_proto::Application::handle_bytes`].
    pub(crate) fn take_bytes(&mut self, core: &mut Core<'_>, slot: u32, bytes: &[u8]) -> usize {
        let used = self.take_frames(core, slot, bytes);
        if let Some(ticket) = self.clients.get(slot).and_then(|client| client.ticket) {
            self.waiting.step_aside(ticket);
        }
        if self.waiting.has_moved() {
            self.retry(core);
        }
        self.clients.left_unread(slot, bytes.len() - used);
        self.keep_to_budget();
        // Nobody is going to take the rest of a connection that has been closed for its size.
        if self.client(slot).is_some() { used } else { bytes.len() }
    }

    fn take_frames(&mut self, core: &mut Core<'_>, slot: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let Some(client) = self.clients.get_mut(slot) else { return bytes.len() };
            let greeting = match client.state {
                State::Ending | State::Closed => return bytes.len(),
                State::Connecting => return used,
                State::Greeting => true,
                State::Open => false,
            };
            let Some(head) = rest.first_chunk::<4>() else { return used };
            if greeting && self.word_waits(slot, *head) {
                return used;
            }
            if greeting && self.four_letter_word(core, slot, *head, &rest[4..]) {
                return bytes.len();
            }
            if !self.serves_clients() {
                // Every client of a server that looks for a leader comes by here: no news.
                self.close(slot, false);
                return bytes.len();
            }
            let len = i32::from_be_bytes(*head);
            let Some(len) = self.frame_len(len) else {
                let limit = self.options.jute_max_buffer;
                let guess = Foreign::of(head).filter(|_| greeting);
                let guess = guess.map_or_else(String::new, |protocol| format!(" ({protocol}?)"));
                let why = format_args!("frame length {len}, jute.maxbuffer is {limit}{guess}");
                self.hang_up(slot, why);
                return bytes.len();
            };
            let Some(frame) = rest[4..].get(..len) else { return used };
            if self.others_first(slot, frame, used == 0) {
                return used;
            }
            let taken = if greeting {
                self.handshake(core, slot, frame)
            } else {
                self.request(core, slot, frame)
            };
            match taken {
                Taken::Done => self.count_received(slot, 4 + len),
                Taken::NotNow => return used,
                Taken::Closed => return bytes.len(),
            }
            used += 4 + len;
        }
    }

    /// Whether the beginning of a connection has to wait for its turn. What is no word costs little.
    fn word_waits(&mut self, slot: u32, head: [u8; 4]) -> bool {
        self.schedule.is_contended() && self.waits(slot, self.word_cost(head), true)
    }

    /// Whether a frame has to wait for its connection's turn, of which this takes note.
    fn others_first(&mut self, slot: u32, frame: &[u8], first: bool) -> bool {
        self.schedule.is_contended() && self.waits(slot, self.estimate(slot, frame), first)
    }

    fn waits(&mut self, slot: u32, expected: u64, first: bool) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        client.account.expect(expected);
        let account = client.account;
        let waits =
            if first { !self.schedule.admits(account) } else { self.schedule.ends(account) };
        if waits {
            self.wait(slot);
        }
        waits
    }

    /// About what a request will cost, as far as that can be told at once.
    fn estimate(&self, slot: u32, frame: &[u8]) -> u64 {
        let mut reader = Reader::new(frame);
        let op = reader.i32().and_then(|_| reader.i32()).ok().and_then(Opcode::from_wire);
        let tree = &self.db.tree;
        let more = match op {
            Some(Opcode::GetChildren | Opcode::GetChildren2) => {
                let path = reader.string().ok().flatten();
                let node = path.and_then(|path| tree.node(&path));
                node.map_or(0, |node| cost::CHILD * u64::from(node.child_count()))
            }
            Some(Opcode::GetEphemerals | Opcode::CloseSession) => {
                let session = self.clients.get(slot).map_or(0, |client| client.session);
                cost::NODE * tree.ephemerals_count_of(session) as u64
            }
            // Many small things, at most so many.
            Some(Opcode::Multi | Opcode::MultiRead | Opcode::SetWatches | Opcode::SetWatches2) => {
                cost::parsed(20 * frame.len())
            }
            _ => 0,
        };
        cost::REQUEST + cost::bytes(frame.len()) + more
    }

    /// About what a read will cost that waits for a write.
    fn estimate_read(&self, op: Opcode, record: &[u8]) -> u64 {
        let mut reader = Reader::new(record);
        let mut node = || self.db.tree.node(&reader.string().ok().flatten()?);
        let more = match op {
            Opcode::GetData => node().map_or(0, |n| cost::bytes(n.data().map_or(0, <[u8]>::len))),
            Opcode::GetChildren | Opcode::GetChildren2 => {
                node().map_or(0, |node| cost::CHILD * u64::from(node.child_count()))
            }
            Opcode::GetAcl => node().map_or(0, |node| cost::parsed(node.rules().len_bytes())),
            Opcode::GetEphemerals => cost::NODE * self.db.tree.ephemerals_count() as u64,
            Opcode::MultiRead => self.options.work_per_request,
            Opcode::SetWatches | Opcode::SetWatches2 => cost::parsed(20 * record.len()),
            Opcode::Exists
            | Opcode::Ping
            | Opcode::CheckWatches
            | Opcode::RemoveWatches
            | Opcode::GetAllChildrenNumber
            | Opcode::AddWatch
            | Opcode::WhoAmI => 0,
            // None is a read.
            Opcode::CloseSession
            | Opcode::Create
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::SetAcl
            | Opcode::Multi
            | Opcode::Create2
            | Opcode::Reconfig
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Sync
            | Opcode::Auth
            | Opcode::Sasl
            | Opcode::CreateSession
            | Opcode::Error
            | Opcode::Check
            | Opcode::DeleteContainer => 0,
        };
        cost::REQUEST + cost::bytes(record.len()) + more
    }

    fn frame_len(&self, len: i32) -> Option<usize> {
        usize::try_from(len).ok().filter(|len| *len <= self.options.jute_max_buffer)
    }

    fn count_received(&mut self, slot: u32, len: usize) {
        let work = cost::REQUEST + cost::bytes(len) + std::mem::take(&mut self.unbilled);
        self.stats.received += 1;
        self.metrics.bytes_received += len as u64;
        match self.clients.get_mut(slot) {
            Some(client) => {
                client.stats.received += 1;
                self.schedule.charge(&mut client.account, work);
            }
            None => self.schedule.work(work),
        }
    }

    /// The request has to wait for room in the core, behind those who do already.
    fn stall(&mut self, slot: u32) -> Taken {
        let conn = self.clients.conn(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            let ticket = *client.ticket.get_or_insert_with(|| self.waiting.issue());
            self.waiting.wait(ticket, conn);
        }
        Taken::NotNow
    }

    /// Whether a request that needs room may ask for some: nobody has waited longer.
    fn may_ask(&self, slot: u32) -> bool {
        self.waiting.is_turn_of(self.clients.get(slot).and_then(|client| client.ticket))
    }

    /// The request has had room. What its client asks next waits behind the others.
    fn had_room(&mut self, slot: u32) {
        let ticket = self.clients.get_mut(slot).and_then(|client| client.ticket.take());
        if let Some(ticket) = ticket {
            self.waiting.leave(ticket);
        }
    }

    /// Closes the connection of a client that does not keep to the protocol.
    fn hang_up(&mut self, slot: u32, why: fmt::Arguments<'_>) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            log::info!("Closing connection with {}: {why}", client.remote);
        }
        self.close(slot, false);
        Taken::Closed
    }

    fn handshake(&mut self, core: &mut Core<'_>, slot: u32, frame: &[u8]) -> Taken {
        let Ok(connect) = Connect::decode(frame) else {
            return self.hang_up(slot, format_args!("malformed handshake"));
        };
        let last_zxid = self.db.last_zxid();
        if connect.last_zxid_seen > last_zxid.raw() {
            log::info!(
                "Refusing session({:#x}) request as it has seen zxid {:#x} our last zxid is \
                 {last_zxid} client must try another server",
                connect.session,
                connect.last_zxid_seen
            );
            self.close(slot, false);
            return Taken::Closed;
        }
        let timeout_ms = self.options.session_timeout_ms(connect.timeout_ms);
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        client.timeout_ms = timeout_ms;
        client.wants_read_only = connect.read_only.is_some();
        client.connecting_since = core.now();
        self.metrics.handshakes += 1;
        self.metrics.reattachments += u64::from(connect.session != 0);
        if connect.session == 0 {
            self.create_session(core, slot, timeout_ms)
        } else if password(connect.session) == *connect.password {
            self.reattach(core, slot, connect.session, timeout_ms)
        } else {
            log::warn!("Incorrect password for session {:#x}", connect.session);
            self.attached(core.now(), slot, false);
            Taken::Closed
        }
    }

    fn create_session(&mut self, core: &mut Core<'_>, slot: u32, timeout_ms: i32) -> Taken {
        if !self.may_ask(slot) {
            return self.stall(slot);
        }
        let session = self.new_session_id();
        let op = Opcode::CreateSession;
        let record = timeout_ms.to_be_bytes();
        let accepted = if self.leader.is_some() {
            let (owner, ids) = (Owner::Local, Ids::default());
            let request =
                Submission { owner, session, cxid: 0, op, record: &record, ids, moved: false };
            self.submit(core, slot, &request).is_some()
        } else {
            self.forward(core, (session, 0, op), &record, None)
        };
        if !accepted {
            return self.stall(slot);
        }
        self.had_room(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = State::Connecting;
            client.session = session;
        }
        self.clients.attach(session, slot);
        Taken::Done
    }

    /// An id that no session has, nor one that is being made here.
    fn new_session_id(&self) -> i64 {
        loop {
            let id = session_id(self.options.session_server_id, self.options.entropy.next());
            if self.db.sessions.get(id).is_none() && self.clients.of_session(id).is_none() {
                return id;
            }
        }
    }

    fn reattach(&mut self, core: &mut Core<'_>, slot: u32, session: i64, timeout_ms: i32) -> Taken {
        // Its old connection here, if any, may hold requests from before it was on another server.
        if let Some(old) = self.clients.of_session(session) {
            self.close(old, false);
        }
        let now = core.now();
        let valid =
            self.lead(|leader, _| leader.revalidate(now, session, timeout_ms, Owner::Local));
        if valid.is_none() {
            if !self.may_ask(slot) || !self.revalidate(core, slot, session, timeout_ms) {
                return self.stall(slot);
            }
            self.had_room(slot);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = State::Connecting;
            client.session = session;
        }
        match valid {
            None => Taken::Done,
            Some(valid) => {
                self.attached(core.now(), slot, valid);
                if valid { Taken::Done } else { Taken::Closed }
            }
        }
    }

    /// Learner: asks the leader about a session, and for a sync behind that. False: not now.
    ///
    /// From its answer on, the leader refuses what the session's last server may still forward, and
    /// at the end of the sync everything before is applied here. Without it, the transaction of an
    /// old request could be taken for that of a new one with the same number: not all clients go on
    /// counting after a reconnect. What is refused afterwards is SESSION_MOVED: taken for a new
    /// request, it closes the connection, as a Java server's does.
    ///
    /// A Java leader keeps this order. It moves the session when it reads REVALIDATE; the sync goes
    /// through the one thread that checks owners and proposes, thus behind each request that was
    /// let through, and is answered behind their COMMITs. A session that has ended does not keep
    /// its sync from being answered, so the syncs behind it are not answered in its place.
    ///
    /// With a slow leader a client waits as long as for a write. REVALIDATE was a sign of life; a
    /// client that gives up and asks again gives another one. If the session ends before the sync
    /// does, `reattached` says so. An answer to a connection that is gone only takes its turn.
    ///
    /// After a failover each client has its own sync, of some 50 bytes, for it has to be behind its
    /// own REVALIDATE. These are not rounds: our leader serves all that came during one round with
    /// the next, and Apache's has none.
    fn revalidate(
        &mut self,
        core: &mut Core<'_>,
        slot: u32,
        session: i64,
        timeout_ms: i32,
    ) -> bool {
        const SYNC_LEN: usize = 64;
        let mut data = Vec::with_capacity(12);
        data.put_i64(session);
        data.put_i32(timeout_ms);
        if !core.can_propose(SYNC_LEN) || !core.revalidate(&data) {
            return false;
        }
        let conn = self.clients.conn(slot);
        self.revalidations.push((session, conn));
        let mut path = Vec::new();
        path.put_ustring(Some("/"));
        // It goes with REVALIDATE, for which there was room, and which may have used all of that.
        if self.send(core, (session, 0, Opcode::Sync), &path, Some(Ids::default()), false) {
            self.forwarded_syncs.push_back(conn);
        } else if let Some(client) = self.clients.get_mut(slot) {
            // There is no leader any more, and soon no connection.
            client.caught_up = true;
        }
        true
    }

    /// The handshake is decided: the client has its session, or is refused.
    pub(crate) fn attached(&mut self, now: Instant, slot: u32, valid: bool) {
        let Some(client) = self.client(slot) else { return };
        let (session, timeout_ms) = (client.session, client.timeout_ms);
        let read_only = client.wants_read_only.then_some(false);
        let unsent = client.unsent();
        let granted = valid.then_some((session, timeout_ms));
        reply::connect(&mut client.out, granted, read_only);
        client.stats.sent += 1;
        client.stats.last_response = now;
        self.stats.sent += 1;
        self.clients.wrote(slot, unsent);
        if !valid {
            log::info!("Invalid session {session:#x}, probably expired");
            self.close(slot, true);
            return;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = State::Open;
        }
        if let Some(old) = self.clients.attach(session, slot) {
            self.close(old, false);
        }
        self.touch(now, slot);
    }

    /// A sign of life of a connection's session. False if the session is at its end.
    fn touch(&mut self, now: Instant, slot: u32) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        if client.touched_at == Some(now) {
            // Many requests come at one instant.
            return true;
        }
        let (session, timeout) = (client.session, client.timeout());
        if let Some(leader) = &mut self.leader {
            let deadline = leader.tracker.deadline(now, timeout);
            if client.touched != deadline {
                if !leader.tracker.touch(now, session, timeout) {
                    return false;
                }
                client.touched = deadline;
            }
        } else if client.touched != self.report {
            client.touched = self.report;
            self.touches.put_i64(session);
            self.touches.put_i32(client.timeout_ms);
        }
        client.touched_at = Some(now);
        true
    }

    fn request(&mut self, core: &mut Core<'_>, slot: u32, frame: &[u8]) -> Taken {
        let mut reader = Reader::new(frame);
        let (Ok(xid), Ok(number)) = (reader.i32(), reader.i32()) else {
            return self.hang_up(slot, format_args!("malformed request header"));
        };
        let record = reader.rest();
        let op = Opcode::from_wire(number);
        let class = op.map(Opcode::class);
        // Waits for the answers in front of it, which wait for their turn.
        if self.must_wait(slot, class == Some(OpClass::Write)) {
            return Taken::NotNow;
        }
        if class != Some(OpClass::Auth) && !self.is_logged_in(slot) {
            return self.refuse_stranger(core.now(), slot, xid);
        }
        if !self.touch(core.now(), slot) {
            // The session is being closed, and this connection with it.
            return Taken::Done;
        }
        match op.map(|op| (op, op.class())) {
            Some((op, OpClass::Read)) => {
                self.read_or_queue(core.now(), slot, xid, op, record);
                Taken::Done
            }
            Some((op, OpClass::Write)) => self.write(core, slot, xid, op, record),
            Some((_, OpClass::Sync)) => self.sync(core, slot, xid, record),
            Some((Opcode::Sasl, OpClass::Auth)) => self.sasl(core, slot, xid, record),
            Some((_, OpClass::Auth)) => self.auth(core, slot, xid, record),
            Some((_, OpClass::Internal)) | None => self.unknown(core, slot, xid, number),
        }
    }

    /// Whether a client has an identity of a scheme that is asked for.
    fn is_logged_in(&self, slot: u32) -> bool {
        let schemes = &self.options.enforce_auth;
        schemes.is_empty()
            || self.clients.get(slot).is_some_and(|client| {
                Ids::new(&client.ids).iter().any(|(scheme, _)| schemes.iter().any(|s| *s == scheme))
            })
    }

    /// Tells a client without a login that it needs one, and ends its connection. The session stays
    /// until it expires.
    fn refuse_stranger(&mut self, now: Instant, slot: u32, xid: i32) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            let schemes = self.options.enforce_auth.join(", ");
            log::info!("Closing connection with {}: no login with {schemes}", client.remote);
        }
        let code = Code::SESSION_CLOSED_REQUIRE_SASL;
        self.answer(now, slot, xid, Answer { code, zxid: Some(0), null_token: false, close: true });
        Taken::Done
    }

    /// Without a SASL login on the server: a null token, and the client goes on without.
    fn sasl(&mut self, core: &Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        if !matches!(Reader::new(record).buffer(), Ok(Some(_))) {
            return self.hang_up(slot, format_args!("SASL packet without a token"));
        }
        let answer = Answer { code: Code::OK, zxid: Some(0), null_token: true, close: false };
        self.answer(core.now(), slot, xid, answer);
        Taken::Done
    }

    fn unknown(&mut self, core: &Core<'_>, slot: u32, xid: i32, number: i32) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            log::info!("Closing connection with {}: unknown operation {number}", client.remote);
        }
        let code = Code::UNIMPLEMENTED;
        let answer = Answer { code, zxid: Some(-1), null_token: false, close: true };
        self.answer(core.now(), slot, xid, answer);
        Taken::Done
    }

    /// Whether a connection has so much in flight or unread that its next request has to wait, or
    /// a sync, behind which a write could be answered too early.
    fn must_wait(&mut self, slot: u32, is_write: bool) -> bool {
        let (in_flight_max, out_max) =
            (self.options.in_flight_max, self.options.out_len_soft_max_bytes);
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let queue = &client.queue;
        client.paused = client.unsent() > out_max
            || queue.len() >= in_flight_max
            || client.kept_len() > out_max
            || (is_write
                && (queue.syncs() > 0
                    || queue.is_reading()
                    || queue.reads() > READS_BEFORE_WRITE_MAX
                    || queue.reads_work() > self.schedule.part()));
        client.paused
    }

    /// Puts a request at the end of the queue.
    fn queue(&mut self, now: Instant, slot: u32, xid: i32, awaiting: Awaiting) {
        self.clients.queue(slot, xid, now, awaiting);
    }

    fn read_or_queue(&mut self, now: Instant, slot: u32, xid: i32, op: Opcode, record: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let xid = if op == Opcode::Ping { XID_PING } else { xid };
        if client.queue.is_empty() {
            let ids_len = client.ids.len();
            let (received, awaiting) = (now, Awaiting::Read { op, len: record.len(), work: 0 });
            self.read(now, slot, InFlight { xid, received, ids_len, awaiting }, op, record);
        } else {
            let len = client.keep(record);
            let work = self.estimate_read(op, record);
            self.queue(now, slot, xid, Awaiting::Read { op, len, work });
        }
    }

    fn write(
        &mut self,
        core: &mut Core<'_>,
        slot: u32,
        xid: i32,
        op: Opcode,
        record: &[u8],
    ) -> Taken {
        if self.leader.is_none() && Write::decode(op, record).map_or(true, |w| w.has_null()) {
            // Leaders of some releases stumble over what does not decode.
            self.answer(core.now(), slot, xid, Answer::failed(Code::MARSHALLING_ERROR));
            return Taken::Done;
        }
        if self.leader.is_none() && !can_forward(core, record) {
            self.answer(core.now(), slot, xid, Answer::failed(Code::BAD_ARGUMENTS));
            return Taken::Done;
        }
        if !self.may_ask(slot) {
            return self.stall(slot);
        }
        // A leader takes twice this from each learner when its window is full, and so comes to read the
        // acknowledgements behind them.
        let bound = core.peer().config().limits.requests_len_max_bytes / 2;
        let under_way = self.clients.writes_len();
        if self.leader.is_none() && under_way > 0 && under_way + record.len() > bound {
            self.held_writes = Some(bound);
            return self.stall(slot);
        }
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        let session = client.session;
        let ids = std::mem::take(&mut client.ids);
        let zxid = if self.leader.is_some() {
            let (owner, ids) = (Owner::Local, Ids::new(&ids));
            self.submit(
                core,
                slot,
                &Submission { owner, session, cxid: xid, op, record, ids, moved: false },
            )
            .map(Some)
        } else {
            let auth = (op != Opcode::CloseSession).then_some(Ids::new(&ids));
            self.unbilled += cost::bytes(ids.len());
            self.forward(core, (session, xid, op), record, auth).then_some(None)
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.ids = ids;
        }
        let Some(zxid) = zxid else { return self.stall(slot) };
        self.had_room(slot);
        self.queue(core.now(), slot, xid, Awaiting::Write { op, zxid, len: record.len() });
        if op == Opcode::CloseSession {
            self.end_input(slot);
        }
        Taken::Done
    }

    /// Proposes a request of an own client.
    fn submit(&mut self, core: &mut Core<'_>, slot: u32, request: &Submission<'_>) -> Option<Zxid> {
        let ticket = self.clients.get(slot).and_then(|client| client.ticket);
        let submit = |leader: &mut Leader, env: Env<'_>| {
            let turn = !leader.waits_longer(ticket);
            turn.then(|| leader.submit(core, env, request)).flatten()
        };
        self.lead(submit).flatten()
    }

    /// Sends a request to the leader if there is room for it. False: not now.
    fn forward(
        &mut self,
        core: &mut Core<'_>,
        head: (i64, i32, Opcode),
        record: &[u8],
        ids: Option<Ids<'_>>,
    ) -> bool {
        self.send(core, head, record, ids, true)
    }

    fn send(
        &mut self,
        core: &mut Core<'_>,
        (session, cxid, op): (i64, i32, Opcode),
        record: &[u8],
        ids: Option<Ids<'_>>,
        asks: bool,
    ) -> bool {
        self.record.clear();
        self.record.put_i64(session);
        self.record.put_i32(cxid);
        self.record.put_i32(op.wire());
        self.record.put_slice(record);
        self.frame.clear();
        match ids {
            Some(ids) => ids.write(&mut self.frame),
            None => self.frame.put_i32(-1),
        }
        (!asks || core.can_propose(self.record.len() + self.frame.len()))
            && core.request(&self.record, &self.frame)
    }

    fn sync(&mut self, core: &mut Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        let mut reader = Reader::new(record);
        if reader.ustring().is_err() {
            self.answer(core.now(), slot, xid, Answer::failed(Code::MARSHALLING_ERROR));
            return Taken::Done;
        }
        let record = &record[..reader.position()];
        let conn = self.clients.conn(slot);
        if self.leader.is_none() && !can_forward(core, record) {
            self.answer(core.now(), slot, xid, Answer::failed(Code::BAD_ARGUMENTS));
            return Taken::Done;
        }
        if self.leader.is_none() && !self.may_ask(slot) {
            return self.stall(slot);
        }
        if self.leader.is_some() {
            let token = core.sync();
            self.own_syncs.push_back((token, conn));
        } else {
            let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
            let session = client.session;
            let ids = std::mem::take(&mut client.ids);
            let sent =
                self.forward(core, (session, xid, Opcode::Sync), record, Some(Ids::new(&ids)));
            if let Some(client) = self.clients.get_mut(slot) {
                client.ids = ids;
            }
            if !sent {
                return self.stall(slot);
            }
            self.had_room(slot);
            self.forwarded_syncs.push_back(conn);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            let len = client.keep(record);
            self.queue(core.now(), slot, xid, Awaiting::Sync { done: false, len });
        }
        Taken::Done
    }

    fn auth(&mut self, core: &Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        let now = core.now();
        let mut reader = Reader::new(record);
        let decoded = (reader.i32(), reader.string(), reader.buffer());
        let (Ok(_), Ok(scheme), Ok(data)) = decoded else {
            return self.hang_up(slot, format_args!("malformed auth packet"));
        };
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        let remote = client.remote.ip().to_canonical();
        let field_len_max = core.peer().config().limits.field_len_max_bytes;
        let bound = self.options.ids_len_max_bytes.min(field_len_max);
        // An identity is made of the data, and compared with all that there are.
        self.unbilled += cost::parsed(record.len() + client.ids.len());
        let verdict = self.access.authenticate(scheme.as_deref(), data, remote, &mut client.ids);
        if scheme.as_deref() == Some("ensemble") && self.access.ensemble_auth.is_some() {
            let named = data.is_some_and(|name| !name.is_empty())
                && self.access.ensemble_auth.as_ref().is_some_and(|known| known.names.is_some());
            let count = match verdict {
                Verdict::Granted if named => &mut self.metrics.ensemble_auth_success,
                Verdict::Granted => &mut self.metrics.ensemble_auth_skip,
                Verdict::Refused | Verdict::Elsewhere => &mut self.metrics.ensemble_auth_fail,
            };
            *count += 1;
        }
        if verdict == Verdict::Elsewhere {
            return self.hang_up(slot, format_args!("it looks for an ensemble of another name"));
        }
        let len = client.ids.len();
        if len > bound {
            let remote = client.remote;
            log::warn!("Refusing {remote} another identity: it has {len} bytes of {bound} already");
        }
        let granted = verdict == Verdict::Granted && len <= bound;
        let code = if granted { Code::OK } else { Code::AUTH_FAILED };
        let answer = Answer { code, zxid: Some(0), null_token: false, close: !granted };
        self.answer(now, slot, xid, answer);
        Taken::Done
    }

    /// Answers without looking at the tree, behind what is queued.
    fn answer(&mut self, now: Instant, slot: u32, xid: i32, answer: Answer) {
        self.queue(now, slot, xid, Awaiting::Reply(answer));
        if answer.close {
            self.end_input(slot);
        }
        self.drain(now, slot);
    }

    /// Nothing more is read from the connection.
    fn end_input(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = State::Ending;
        }
    }
}

/// Whether a request is short enough for the link to the leader. One that never fits is refused, as a
/// leader refuses what makes too long a transaction: it would wait for ever, and others behind it.
fn can_forward(core: &Core<'_>, record: &[u8]) -> bool {
    REQUEST_HEAD_LEN_BYTES + record.len() <= core.peer().config().limits.field_len_max_bytes
}

/// Session, cxid and operation in front of a forwarded record.
const REQUEST_HEAD_LEN_BYTES: usize = 16;
