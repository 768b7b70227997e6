//! Answers for probes: 200 or 503, and why in one line.

use hyper::{Response, StatusCode};
use zab_proto::ServerState;
use zk_service::look::Standing;

use crate::body::{Body, TEXT, whole};
use crate::source::Source;

fn answer(is_good: bool, text: &str) -> Response<Body> {
    let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    whole(status, TEXT, format!("{text}\n"))
}

const NO_ANSWER: &str = "the server's loop does not answer";

/// The process lives and its loop turns. To be restarted if not.
pub(crate) async fn alive(source: &Source) -> Response<Body> {
    match source.ask(|_| ()).await {
        Some(()) => answer(true, "alive"),
        None => answer(false, NO_ANSWER),
    }
}

/// Clients are served. To get clients only then.
pub(crate) async fn ready(source: &Source) -> Response<Body> {
    let Some(standing) = source.ask(|look| look.standing()).await else {
        return answer(false, NO_ANSWER);
    };
    match (standing.serves, standing.waits_for) {
        (true, _) => answer(true, "serving"),
        (false, Some(waits)) => answer(false, &format!("not serving, waits for {waits}")),
        (false, None) => answer(false, "not serving"),
    }
}

/// How many transactions this server has not applied that it knows of; on a leader, how far each learner
/// is behind. With `max=N`, 503 if it is more.
pub(crate) async fn lag(source: &Source, query: &str) -> Response<Body> {
    let max = query.split('&').find_map(|pair| pair.strip_prefix("max="));
    let max = match max.map(str::parse::<u64>) {
        None => None,
        Some(Ok(max)) => Some(max),
        Some(Err(_)) => return whole(StatusCode::BAD_REQUEST, TEXT, "max is no number\n"),
    };
    let Some(standing) = source.ask(|look| look.standing()).await else {
        return answer(false, NO_ANSWER);
    };
    if !standing.serves {
        return answer(false, "not serving");
    }
    let own = own_lag(&standing);
    let mut text = format!("{own}");
    let mut most = own;
    for learner in &standing.learners {
        if let Some(behind) = learner.behind {
            text.push_str(&format!("\n{} {behind}", learner.sid));
            most = most.max(behind);
        }
    }
    answer(max.is_none_or(|max| most <= max), &text)
}

/// Logged here, and not applied yet.
pub(crate) fn own_lag(standing: &Standing) -> u64 {
    let (logged, applied) = (standing.logged, standing.last_zxid);
    if logged.epoch() == applied.epoch() {
        u64::from(logged.counter().saturating_sub(applied.counter()))
    } else {
        u64::from(logged.counter())
    }
}

/// Whether this server can be stopped now without harm.
pub(crate) async fn safe_to_stop(source: &Source) -> Response<Body> {
    let Some(standing) = source.ask(|look| look.standing()).await else {
        return answer(false, &format!("unknown: {NO_ANSWER}"));
    };
    let is_safe = standing.safe_to_stop.is_safe();
    let word = match is_safe {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    answer(is_safe == Some(true), &format!("{word}: {}", standing.safe_to_stop))
}

/// What the page calls a role.
pub(crate) fn role(standing: &Standing) -> &'static str {
    match standing.status.map(|status| status.state) {
        None => "standalone",
        Some(ServerState::Leading) => "leader",
        Some(ServerState::Following) => "follower",
        Some(ServerState::Observing) => "observer",
        Some(ServerState::Looking) => "looking",
    }
}
