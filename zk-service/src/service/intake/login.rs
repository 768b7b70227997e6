//! Logins of clients: auth packets, SASL, and what becomes of who must log in and has not.

use zab_proto::wire::jute::Reader;
use zab_proto::{Core, Instant};

use super::Taken;
use crate::auth::sasl::Said;
use crate::auth::{Ids, Verdict};
use crate::connection::order::{Answer, Body};
use crate::cost;
use crate::protocol::code::Code;
use crate::service::Service;

impl Service {
    /// Whether a client has an identity of a scheme that is asked for.
    pub(super) fn is_logged_in(&self, slot: u32) -> bool {
        let schemes = &self.env.options.enforce_auth;
        schemes.is_empty()
            || self.clients.get(slot).is_some_and(|client| {
                Ids::new(&client.ids).iter().any(|(scheme, _)| schemes.iter().any(|s| *s == scheme))
            })
    }

    /// Tells a client without a login that it needs one, and ends its connection. The session stays
    /// until it expires.
    pub(super) fn refuse_stranger(&mut self, now: Instant, slot: u32, xid: i32) -> Taken {
        if let Some(client) = self.clients.get(slot) {
            let schemes = self.env.options.enforce_auth.join(", ");
            log::info!("Closing connection with {}: no login with {schemes}", client.remote);
        }
        let code = Code::SESSION_CLOSED_REQUIRE_SASL;
        self.answer(now, slot, xid, Answer { code, zxid: Some(0), body: Body::None, close: true });
        Taken::Done
    }

    /// A token of a login by SASL, or of an attempt at one.
    pub(super) fn sasl(&mut self, core: &Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        let Ok(Some(token)) = Reader::new(record).buffer() else {
            return self.hang_up(slot, format_args!("SASL packet without a token"));
        };
        let Self { env, clients, metrics, admission, .. } = self;
        let Some(client) = clients.get_mut(slot) else { return Taken::Closed };
        admission.schedule.bill(cost::parsed(record.len()));
        let (sasl, entropy) = (&env.access.sasl, &env.options.entropy);
        let said = sasl.evaluate(&mut client.sasl, token, entropy, &mut client.ids);
        let (mut code, mut close) = (Code::OK, false);
        let body = match said {
            Said::Token(token) => Body::Token(client.keep(&token)),
            Said::LoggedIn(token, identity) => {
                metrics.sasl_logins += 1;
                log::info!("Successfully authenticated client {}: {identity}", client.remote);
                Body::Token(client.keep(&token))
            }
            Said::NobodyCan => {
                metrics.sasl_ignored += 1;
                log::info!("{} wants to log in by SASL, which nobody can here", client.remote);
                Body::NullToken
            }
            Said::Failed(why) => {
                metrics.sasl_failed += 1;
                let required = env.options.enforce_auth.iter().any(|scheme| scheme == "sasl");
                close = required || !sasl.failed_may_stay;
                log::warn!(
                    "{} failed to log in ({why}): {}",
                    client.remote,
                    if close { "closing its connection" } else { "it goes on without" }
                );
                code = match (close, required) {
                    (false, _) => Code::OK,
                    (true, false) => Code::AUTH_FAILED,
                    (true, true) => Code::SESSION_CLOSED_REQUIRE_SASL,
                };
                Body::NullToken
            }
        };
        self.answer(core.now(), slot, xid, Answer { code, zxid: Some(0), body, close });
        Taken::Done
    }

    pub(super) fn auth(&mut self, core: &Core<'_>, slot: u32, xid: i32, record: &[u8]) -> Taken {
        let now = core.now();
        let mut reader = Reader::new(record);
        let decoded = (reader.i32(), reader.string(), reader.buffer());
        let (Ok(_), Ok(scheme), Ok(data)) = decoded else {
            return self.hang_up(slot, format_args!("malformed auth packet"));
        };
        let Some(client) = self.clients.get_mut(slot) else { return Taken::Closed };
        let remote = client.remote.ip().to_canonical();
        let field_len_max = core.peer().config().limits.field_len_max_bytes;
        let bound = self.env.options.ids_len_max_bytes.min(field_len_max);
        // An identity is made of the data, and compared with all that there are.
        self.admission.schedule.bill(cost::parsed(record.len() + client.ids.len()));
        let verdict =
            self.env.access.authenticate(scheme.as_deref(), data, remote, &mut client.ids);
        if scheme.as_deref() == Some("ensemble") && self.env.access.ensemble_auth.is_some() {
            let named = data.is_some_and(|name| !name.is_empty())
                && self
                    .env
                    .access
                    .ensemble_auth
                    .as_ref()
                    .is_some_and(|known| known.names.is_some());
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
        let answer = Answer { code, zxid: Some(0), body: Body::None, close: !granted };
        self.answer(now, slot, xid, answer);
        Taken::Done
    }
}
