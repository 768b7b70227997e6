//! The events of the page: what the server is and does, once a second and at once when its role changes.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use smol::Timer;
use smol::channel::{Sender, bounded};
use zab_proto::Role;
use zk_service::look::{Failover, Look, RoleChange, Standing};

use crate::body::{Body, TEXT, streamed, whole};
use crate::commands::answers::monitor;
use crate::source::Source;
use crate::{probes, prometheus};

/// Pages that are open at a time.
const VIEWERS_MAX: usize = 16;
/// Events that wait for a page. One that takes none any more is closed.
const WAITING_MAX: usize = 8;
/// Between two events.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the role.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Changes and losses of service in one event.
const SHOWN_MAX: usize = 24;

/// The pages that are open.
#[derive(Debug, Default)]
pub(crate) struct Live {
    viewers: RefCell<Vec<Sender<Bytes>>>,
}

impl Live {
    /// One more page.
    pub(crate) fn join(&self) -> Response<Body> {
        let mut viewers = self.viewers.borrow_mut();
        viewers.retain(|viewer| !viewer.is_closed());
        if viewers.len() >= VIEWERS_MAX {
            let text = format!("there are {VIEWERS_MAX} pages open already\n");
            return whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
        }
        let (viewer, events) = bounded(WAITING_MAX);
        viewers.push(viewer);
        let mut response = streamed("text/event-stream", events);
        // For proxies that would keep events back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Tells all pages, for ever. The server is asked only while there are any.
    pub(crate) async fn run(&self, source: &Source) {
        let (mut told, mut status, mut count) = (None::<Instant>, None, 0);
        loop {
            Timer::after(LOOK_EVERY).await;
            self.viewers.borrow_mut().retain(|viewer| !viewer.is_closed());
            let viewers = self.viewers.borrow().len();
            let now = source.status();
            let is_new = now != status || viewers > count;
            (status, count) = (now, viewers);
            if viewers == 0 || !is_new && told.is_some_and(|told| told.elapsed() < EVERY) {
                continue;
            }
            told = Some(Instant::now());
            let event = source.ask(event).await;
            let mut event = event.unwrap_or_else(|| json!({ "role": "none" }));
            event["resident_bytes"] = prometheus::resident_bytes().into();
            let text = Bytes::from(format!("data: {event}\n\n"));
            // Who has not taken the last ones is given up.
            self.viewers.borrow_mut().retain(|viewer| viewer.try_send(text.clone()).is_ok());
        }
    }
}

/// What a page shows.
fn event(look: &Look<'_, '_>) -> Value {
    let standing = look.standing();
    let stats = look.stats();
    let changes = look.role_changes();
    let changes = changes.iter().rev().take(SHOWN_MAX).map(|(at, change)| role_change(*at, change));
    let failovers = look.failovers();
    let failovers = failovers.iter().rev().take(SHOWN_MAX).map(|(at, one)| failover(*at, one));
    json!({
        "sid": standing.sid.0,
        "version": stats.version,
        "role": probes::role(&standing),
        "serves": standing.serves,
        "leader": standing.status.and_then(|status| status.leader).map(|sid| sid.0),
        "epoch": standing.status.map_or_else(|| stats.last_zxid.epoch().0, |status| status.epoch.0),
        "zxid": format!("{:#x}", stats.last_zxid.raw()),
        "lag": probes::own_lag(&standing),
        "uptime_ms": stats.uptime_ms,
        "waits_for": standing.waits_for,
        "safe_to_stop": standing.safe_to_stop.to_string(),
        "is_safe_to_stop": standing.safe_to_stop.is_safe(),
        "members": members(&standing),
        "metrics": monitor(look),
        "changes": changes.collect::<Vec<_>>(),
        "failovers": failovers.collect::<Vec<_>>(),
    })
}

fn members(standing: &Standing) -> Vec<Value> {
    let leader = standing.status.and_then(|status| status.leader);
    let member = |(sid, member): (&zab_proto::Sid, &zab_proto::Member)| {
        let learner = standing.learners.iter().find(|learner| learner.sid == *sid);
        let is_voter = member.role == Role::Participant;
        json!({
            "sid": sid.0,
            "voter": is_voter,
            "host": member.addresses.first().map(|address| address.host_port(address.quorum_port)),
            "is_self": *sid == standing.sid,
            "leads": leader == Some(*sid) && standing.serves,
            // What this server knows of it: a leader knows all its learners, others only themselves.
            "connected": learner.is_some() || *sid == standing.sid,
            "synced": learner.is_some_and(|learner| learner.synced),
            "behind": learner.and_then(|learner| learner.behind),
        })
    };
    standing.ensemble.members.iter().map(member).collect()
}

fn role_change(at: i64, change: &RoleChange) -> Value {
    let status = &change.status;
    json!({
        "at": at,
        "state": format!("{:?}", status.state).to_lowercase(),
        "phase": format!("{:?}", status.phase).to_lowercase(),
        "leader": status.leader.map(|sid| sid.0),
        "epoch": status.epoch.0,
    })
}

fn failover(at: i64, one: &Failover) -> Value {
    let [election, discovery, synchronization] = one.phases_ms;
    json!({
        "at": at,
        "lost": one.lost.map(|sid| sid.0),
        "cause": one.cause,
        "why": one.why,
        "election_ms": election,
        "discovery_ms": discovery,
        "synchronization_ms": synchronization,
        "total_ms": one.total_ms,
        "state": format!("{:?}", one.state).to_lowercase(),
        "next": one.next.map(|sid| sid.0),
        "epoch": one.epoch.0,
    })
}
