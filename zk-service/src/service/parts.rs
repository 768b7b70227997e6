//! What the steps of a request work on.

use zab_proto::{ConnId, Core, Instant};

use crate::metrics::Metrics;
use crate::service::admission::Admission;
use crate::service::connection::entry::Entry;
use crate::service::connection::table::{Clients, Shared};
use crate::service::connection::{Client, Life};
use crate::service::env::Env;
use crate::service::observe::View;
use crate::service::role::local::LocalSessions;
use crate::service::role::status::ServerStatus;
use crate::service::role::{Cx, Role};
use crate::state::State;
use crate::state::watch::Watches;

/// All owners of state of the service, but the table of connections: a step has one of these in its
/// hand, as an [`Entry`], or goes through all.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) env: &'a mut Env,
    pub(super) state: &'a mut State,
    pub(super) watches: &'a mut Watches,
    pub(super) status: &'a mut ServerStatus,
    pub(super) role: &'a mut Role,
    pub(super) local: &'a mut LocalSessions,
    pub(super) admission: &'a mut Admission,
    pub(super) metrics: &'a mut Metrics,
}

impl Parts<'_> {
    /// The role, and what it works on.
    pub(super) fn role<'b, 'c>(&'b mut self, core: &'b mut Core<'c>) -> (&'b mut Role, Cx<'b, 'c>) {
        let Self { role, state, env, local, metrics, admission, .. } = self;
        (role, Cx::new(core, (state, local), env, metrics, &mut admission.schedule))
    }

    /// What there is to be looked at.
    pub(super) fn view<'b, 'c>(&'b self, core: &'b Core<'c>, clients: &'b Clients) -> View<'b, 'c> {
        let Self { env, state, watches, status, role, local, metrics, .. } = self;
        View { core, env, state, clients, watches, status, role, local, metrics }
    }

    /// Work that may be done now to apply a transaction in steps. Before the first word of the core there
    /// are no turns: then it is applied at once.
    pub(super) fn apply_budget(&self) -> u64 {
        let cuts = self.env.options.cuts && self.status.is_known();
        if cuts { self.admission.schedule.left_to_apply() } else { u64::MAX }
    }

    /// See [`serves_clients`].
    pub(super) fn serves_clients(&self) -> bool {
        serves_clients(self.env, self.role, self.status)
    }

    /// Whether a session goes on here, as far as this server can tell.
    pub(super) fn has_session(&self, session: i64) -> bool {
        self.local.knows(session) || self.state.has_session(session)
    }

    /// Whether clients are taken here: also those that read only, while there is no leader.
    pub(super) fn takes_clients(&self) -> bool {
        self.serves_clients() || self.role.is_read_only()
    }

    /// Ends a connection; with `flush`, what is queued for it still goes out.
    pub(super) fn close(&mut self, at: &mut Entry<'_>, flush: bool) {
        let Entry { client, conn, shared, .. } = at;
        self.end((*conn, client, shared), flush);
    }

    /// Ends another connection than the one in hand, without what is queued for it.
    pub(super) fn close_other(&mut self, at: &mut Entry<'_>, slot: u32) {
        if let Some(other) = at.other(slot) {
            self.end(other, false);
        }
    }

    fn end(&mut self, (conn, client, shared): (ConnId, &mut Client, &mut Shared), flush: bool) {
        if client.queue.writes() > 0 {
            self.local.unsettle(client.session);
        }
        self.watches.remove_slot(conn.slot());
        self.admission.thaw(conn);
        self.admission.leave_room(client);
        self.admission.leave_throttle(client);
        shared.close(conn, client, flush);
        self.admission.writes_answered(shared);
        self.admission.requests_answered(shared);
    }

    /// Counts work that was done for a connection, with what the leader's part has done for it.
    pub(super) fn charge(&mut self, at: &mut Entry<'_>, work: u64) {
        self.admission.schedule.charge(&mut at.client.account, work);
    }

    /// Counts work that was done for a connection and is not counted yet, if there is any.
    pub(super) fn charge_billed(&mut self, at: &mut Entry<'_>) {
        if self.admission.schedule.has_unbilled() {
            self.charge(at, 0);
        }
    }

    /// A sign of life of a connection's session. False if the session is at its end.
    #[inline]
    pub(super) fn touch(&mut self, now: Instant, at: &mut Entry<'_>) -> bool {
        // Many requests come at one instant.
        at.client.touched_at == Some(now) || self.touch_session(now, at.client)
    }

    fn touch_session(&mut self, now: Instant, client: &mut Client) -> bool {
        let live = self.local.touch(now, client.session, client.timeout_ms)
            || self.role.touch(now, client.session, client.timeout_ms, &mut client.touched);
        if live {
            client.touched_at = Some(now);
        }
        live
    }
}

/// Whether clients that write are served here: not by a leader that is to lead only.
pub(super) fn serves_clients(env: &Env, role: &Role, status: &ServerStatus) -> bool {
    let leads_only = !env.options.leader_serves && role.leads() && !status.is_standalone();
    status.is_serving() && !leads_only
}

/// Nothing more is read from a connection.
pub(super) fn end_input(at: &mut Entry<'_>) {
    at.client.state = Life::Ending;
}
