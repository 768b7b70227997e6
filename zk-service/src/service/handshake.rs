//! The beginning of a client's session on a connection: a new one, or one that goes on here.

use zab_proto::{Core, Instant};

use crate::connection::Life;
use crate::connection::room::Turn;
use crate::connection::wait::Wait;
use crate::protocol::reply;
use crate::protocol::request::Connect;
use crate::protocol::session_id::{password, session_id};
use crate::role::Resumed;
use crate::service::Service;
use crate::service::intake::Taken;

impl Service {
    pub(super) fn handshake(&mut self, core: &mut Core<'_>, slot: u32, frame: &[u8]) -> Taken {
        let Ok(connect) = Connect::decode(frame) else {
            return self.hang_up(slot, format_args!("malformed handshake"));
        };
        let last_zxid = self.state.last_zxid();
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
        let timeout_ms = self.env.options.session_timeout_ms(connect.timeout_ms);
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        client.timeout_ms = timeout_ms;
        client.wants_read_only = connect.read_only.is_some();
        client.connecting_since = core.now();
        self.metrics.handshakes += 1;
        self.metrics.reattachments += u64::from(connect.session != 0);
        let turn = self.turn(slot);
        if connect.session == 0 {
            self.create_session(core, (slot, turn), timeout_ms)
        } else if password(connect.session) == *connect.password {
            self.reattach(core, (slot, turn), connect.session, timeout_ms)
        } else {
            log::warn!("Incorrect password for session {:#x}", connect.session);
            self.attached(core.now(), slot, false);
            Taken::Closed
        }
    }

    /// [`Wait::Room`]: there is none.
    pub(super) fn create_session(
        &mut self,
        core: &mut Core<'_>,
        (slot, turn): (u32, Turn),
        timeout_ms: i32,
    ) -> Taken {
        if !turn.is_next {
            return Taken::Later(Wait::Room);
        }
        let session = self.new_session_id();
        let (role, mut cx) = self.role(core);
        let accepted = role.open_session(&mut cx, turn, session, timeout_ms);
        if !accepted {
            return Taken::Later(Wait::Room);
        }
        self.had_room(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = Life::Connecting;
            client.session = session;
        }
        self.clients.attach(session, slot);
        Taken::Done
    }

    /// An id that no session has, nor one that is being made here.
    fn new_session_id(&self) -> i64 {
        loop {
            let id =
                session_id(self.env.options.session_server_id, self.env.options.entropy.next());
            if !self.state.has_session(id) && self.clients.of_session(id).is_none() {
                return id;
            }
        }
    }

    /// [`Wait::Room`]: there is none.
    pub(super) fn reattach(
        &mut self,
        core: &mut Core<'_>,
        (slot, turn): (u32, Turn),
        session: i64,
        timeout_ms: i32,
    ) -> Taken {
        // Its old connection here, if any, may hold requests from before it was on another server.
        if let Some(old) = self.clients.of_session(session).filter(|old| *old != slot) {
            self.close(old, false);
        }
        let conn = self.clients.conn(slot);
        let (role, mut cx) = self.role(core);
        let resumed = role.resume_session(&mut cx, (conn, turn), session, timeout_ms);
        if resumed == Resumed::NoRoom {
            return Taken::Later(Wait::Room);
        }
        if matches!(resumed, Resumed::Asked { .. }) {
            self.had_room(slot);
        }
        let floor = core.peer().last_zxid();
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = Life::Connecting;
            client.session = session;
            client.carry.resumes = true;
            client.carry.floor = floor;
            client.caught_up |= resumed == Resumed::Asked { caught_up: true };
        }
        let Resumed::Decided { valid } = resumed else { return Taken::Done };
        self.attached(core.now(), slot, valid);
        if valid { Taken::Done } else { Taken::Closed }
    }

    /// The handshake is decided: the client has its session, or is refused.
    pub(super) fn attached(&mut self, now: Instant, slot: u32, valid: bool) {
        let Some(client) = self.client(slot) else { return };
        let (session, timeout_ms) = (client.session, client.timeout_ms);
        let read_only = client.wants_read_only.then_some(false);
        let unsent = client.unsent();
        let granted = valid.then_some((session, timeout_ms));
        reply::connect(client.out.buffer(), granted, read_only);
        client.stats.sent += 1;
        client.stats.last_response = now;
        self.metrics.stats.sent += 1;
        self.clients.wrote(slot, unsent);
        if !valid {
            log::info!("Invalid session {session:#x}, probably expired");
            self.close(slot, true);
            return;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = Life::Open;
        }
        if let Some(old) = self.clients.attach(session, slot) {
            self.close(old, false);
        }
        self.touch(now, slot);
        self.leave_client(slot);
    }
}
