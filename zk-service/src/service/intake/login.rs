//! Logins of clients: auth packets, SASL, and what becomes of who must log in and has not.

use zab_proto::wire::jute::Reader;
use zab_proto::{Core, Instant};

use super::{FrameOutcome, answer, hang_up};
use crate::auth::sasl::Said;
use crate::auth::{Ids, Verdict};
use crate::cost;
use crate::protocol::code::Code;
use crate::service::connection::entry::Entry;
use crate::service::connection::order::{Answer, Body};
use crate::service::parts::Parts;

/// So many characters of the name of a scheme that is refused stand in the log.
const SCHEME_SHOWN_MAX: usize = 64;

/// Whether a client has an identity of a scheme that is asked for.
#[inline]
pub(super) fn is_logged_in(at: &Entry<'_>, parts: &Parts<'_>) -> bool {
    let schemes = &parts.env.options.enforce_auth;
    schemes.is_empty() || has_scheme(at, schemes)
}

fn has_scheme(at: &Entry<'_>, schemes: &[String]) -> bool {
    Ids::new(&at.client.ids).iter().any(|(scheme, _)| schemes.iter().any(|s| *s == scheme))
}

/// Tells a client without a login that it needs one, and ends its connection. The session stays
/// until it expires.
pub(super) fn refuse_stranger(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    now: Instant,
    xid: i32,
) -> FrameOutcome {
    let schemes = parts.env.options.enforce_auth.join(", ");
    log::info!("Closing connection with {}: no login with {schemes}", at.client.remote);
    let code = Code::SESSION_CLOSED_REQUIRE_SASL;
    answer(at, parts, now, xid, Answer { zxid: Some(0), ..Answer::last(code) });
    FrameOutcome::Done
}

/// A token of a login by SASL, or of an attempt at one.
pub(super) fn sasl(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &Core<'_>,
    xid: i32,
    record: &[u8],
) -> FrameOutcome {
    let Ok(Some(token)) = Reader::new(record).buffer() else {
        return hang_up(at, parts, format_args!("SASL packet without a token"));
    };
    let Parts { env, metrics, admission, .. } = parts;
    let client = &mut *at.client;
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
            log::info!(
                "{} asks to log in by SASL, for which this server has no users",
                client.remote
            );
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
    answer(
        at,
        parts,
        core.now(),
        xid,
        Answer { zxid: Some(0), body, close, ..Answer::failed(code) },
    );
    FrameOutcome::Done
}

/// An auth packet.
pub(super) fn auth(
    at: &mut Entry<'_>,
    parts: &mut Parts<'_>,
    core: &Core<'_>,
    xid: i32,
    record: &[u8],
) -> FrameOutcome {
    let mut reader = Reader::new(record);
    let decoded = (reader.i32(), reader.string(), reader.buffer());
    let (Ok(_), Ok(scheme), Ok(data)) = decoded else {
        return hang_up(at, parts, format_args!("malformed auth packet"));
    };
    let client = &mut *at.client;
    let remote = client.remote.ip().to_canonical();
    let field_len_max = core.peer().config().limits.field_len_max_bytes;
    let bound = parts.env.options.ids_len_max_bytes.min(field_len_max);
    // An identity is made of the data, and compared with all that there are.
    parts.admission.schedule.bill(cost::parsed(record.len() + client.ids.len()));
    let access = &parts.env.access;
    let verdict = access.authenticate(scheme.as_deref(), data, remote, &mut client.ids);
    if scheme.as_deref() == Some("ensemble")
        && let Some(known) = &access.ensemble_auth
    {
        let named = data.is_some_and(|name| !name.is_empty()) && known.names.is_some();
        let count = match verdict {
            Verdict::Granted if named => &mut parts.metrics.ensemble_auth_success,
            Verdict::Granted => &mut parts.metrics.ensemble_auth_skip,
            Verdict::Refused | Verdict::Elsewhere => &mut parts.metrics.ensemble_auth_fail,
        };
        *count += 1;
    }
    if verdict == Verdict::Elsewhere {
        return hang_up(at, parts, format_args!("it looks for an ensemble of another name"));
    }
    let len = client.ids.len();
    if len > bound {
        let remote = client.remote;
        log::warn!("Refusing {remote} another identity: it has {len} bytes of {bound} already");
    }
    let granted = verdict == Verdict::Granted && len <= bound;
    let scheme = scheme.as_deref().unwrap_or("null");
    if granted {
        log::info!(
            "Session {:#x}: auth success for scheme {scheme} and address {}",
            client.session,
            client.remote
        );
    } else if len <= bound {
        let shown: String = scheme.chars().take(SCHEME_SHOWN_MAX).collect();
        log::warn!("Authentication failed for scheme: {shown:?}, client {}", client.remote);
    }
    let code = if granted { Code::OK } else { Code::AUTH_FAILED };
    let known = Answer { zxid: Some(0), close: !granted, ..Answer::failed(code) };
    answer(at, parts, core.now(), xid, known);
    FrameOutcome::Done
}
