//! Judges what clients have seen against the committed history: W1 to W13.

use std::collections::BTreeMap;

use zk_service::Database;

use crate::check::{Checker, Failure};
use crate::coverage::Coverage;
use crate::queue::MILLI;
use crate::zk::acl::{self, perms};
use crate::zk::client::ZkClient;
use crate::zk::history::{Answered, Call, Seen, Told};
use crate::zk::local::{Stay, is_unwritten};
use crate::zk::model::{Node, code};
use crate::zk::replay::{Record, failure, replay};
use crate::zk::watches::Armed;
use crate::zk::wire::{Answer, Request};

/// Judges a run.
pub(crate) fn judge(
    clients: &[ZkClient],
    databases: &[&Database],
    checker: &Checker,
    coverage: &mut Coverage,
) -> Result<(), Failure> {
    if let Some(failure) = clients.iter().find_map(|client| client.broken.clone()) {
        return Err(failure);
    }
    let record = replay(clients, checker)?;
    for (index, client) in clients.iter().enumerate() {
        Reading { record: &record, index, client, coverage }.judge().map_err(|failure| {
            Failure { text: format!("client {}: {}", index + 1, failure.text), ..failure }
        })?;
    }
    real_time(clients, &record)?;
    for database in databases {
        same_state(&record, database)?;
    }
    coverage.add_count("service: sessions expired", record.expired);
    coverage.add_count("service: refused, session moved", record.moved);
    coverage.add_count("local: upgraded", record.upgraded);
    coverage.add_count("service: container removed", record.containers_removed);
    coverage.add_count("service: TTL node removed", record.ttl_nodes_removed);
    Ok(())
}

/// W1 and W5: who asks after an answer is told of a later transaction, and a sync of at least as
/// late a state.
fn real_time(clients: &[ZkClient], record: &Record) -> Result<(), Failure> {
    let calls = || clients.iter().flat_map(|client| &client.calls);
    let is_written = |call: &Call| {
        let unwritten = |answered| is_unwritten(clients[0].locals, record, call, answered);
        call.request.is_write() && !call.answered.as_ref().is_some_and(unwritten)
    };
    let answered =
        |call: &Call| call.answered.as_ref().map(|answered| (answered.at, answered.zxid));
    let mut writes: Vec<(u64, i64)> =
        calls().filter(|call| is_written(call)).filter_map(answered).collect();
    writes.sort_unstable();
    let mut asked: Vec<&Call> = calls().filter(|call| call.answered.is_some()).collect();
    asked.sort_by_key(|call| call.invoked);
    let (mut seen, mut highest) = (0, 0);
    for call in asked {
        while seen < writes.len() && writes[seen].0 < call.invoked {
            highest = highest.max(writes[seen].1);
            seen += 1;
        }
        let Some((_, zxid)) = answered(call) else { continue };
        let invariant = match call.request {
            Request::Sync { .. } if zxid < highest => "W5",
            _ if is_written(call) && zxid <= highest => "W1",
            _ => continue,
        };
        let text = format!("{call:x?} was told {zxid:#x} when {highest:#x} was known before");
        return Err(failure(invariant, text));
    }
    Ok(())
}

/// W12, W7: a server's tree and sessions are what the history made of them.
fn same_state(record: &Record, database: &Database) -> Result<(), Failure> {
    let zxid = database.last_zxid().raw();
    let root = database.tree.node("/").ok_or_else(|| failure("W12", "no root".to_owned()))?;
    let nodes = root.subtree().filter(|node| {
        !node.path().is_empty() && node.path() != "/" && !node.path().starts_with("/zookeeper")
    });
    let actual: BTreeMap<_, _> = nodes
        .map(|node| (node.path(), (node.data().unwrap_or_default(), *node.persisted(), node.acl())))
        .collect();
    let expected: BTreeMap<_, _> = record.model.nodes_at(zxid).collect();
    if !actual.keys().eq(expected.keys()) {
        let text = format!("at {zxid:#x} there are {:?}, not {:?}", actual.keys(), expected.keys());
        return Err(failure("W12", text));
    }
    for (path, (data, stat, acl)) in actual {
        let node = expected[path];
        let numbers = [stat.czxid.raw(), stat.mzxid.raw(), stat.pzxid.raw(), stat.ephemeral_owner];
        if data != node.data
            || numbers != [node.czxid, node.mzxid, node.pzxid, node.stored_owner()]
            || [stat.version, stat.cversion, stat.aversion]
                != [node.version, node.creations, node.aversion]
        {
            let text = format!("at {zxid:#x} {path} is {stat:?}, not {node:?}");
            return Err(failure("W12", text));
        }
        let entries = node.acl.iter().map(|e| (e.perms, e.scheme.as_str(), e.id.as_str()));
        if !acl.iter().map(|e| (e.perms, &*e.scheme, &*e.id)).eq(entries) {
            let text = format!("at {zxid:#x} the list of {path} is {acl:?}, not {:?}", node.acl);
            return Err(failure("W14", text));
        }
        if node.owner != 0 && !record.model.is_live_at(node.owner, zxid) {
            return Err(failure("W7", format!("{path} belongs to {:#x}, which ended", node.owner)));
        }
    }
    if let Some(key) = database.tree.missing_acls().next() {
        return Err(failure("W14", format!("at {zxid:#x} the list of key {key} is missing")));
    }
    let sessions: Vec<i64> = database.sessions.iter().map(|(session, _)| session).collect();
    let expected: Vec<i64> = record.model.sessions_at(zxid).collect();
    if sessions != expected {
        let text = format!("at {zxid:#x} the sessions are {sessions:x?}, not {expected:x?}");
        return Err(failure("W7", text));
    }
    Ok(())
}

/// One client's history.
struct Reading<'a> {
    record: &'a Record,
    index: usize,
    client: &'a ZkClient,
    coverage: &'a mut Coverage,
}

impl Reading<'_> {
    fn judge(&mut self) -> Result<(), Failure> {
        let user = self.client.user;
        let mut armed = Armed::new(user);
        let mut last = 0;
        let mut server = None;
        let mut pulse = Pulse::default();
        let mut stay = Stay::new(self.client.locals);
        for seen in &self.client.seen {
            match seen {
                Seen::Attached { at, session, server: to, resumed } => {
                    let place = (*session, *to, *resumed);
                    stay.attached(place, self.record, self.coverage)
                        .map_err(|text| failure("W9", text))?;
                    pulse.attached(*at, self.client.settling);
                    armed = Armed::new(user);
                    if !resumed {
                        last = 0;
                    }
                    let moved = *resumed && server.is_some_and(|from| from != *to);
                    self.coverage.add_count("service: sessions moved", u64::from(moved));
                    let again = *resumed && !moved;
                    self.coverage.add_count("service: sessions resumed", u64::from(again));
                    self.coverage.add_count("service: sessions begun", u64::from(!resumed));
                    server = Some(*to);
                }
                Seen::Answer(index) => {
                    let call = &self.client.calls[*index];
                    let answered = call.answered.as_ref().expect("it was answered");
                    self.coverage.count(call.request.name());
                    count_refusal(call, answered, self.coverage);
                    stay.answered(call, answered, self.record, self.coverage);
                    pulse.last = call.invoked;
                    go_on(&mut last, answered.zxid)?;
                    armed.answered(call, answered, &self.record.model, self.coverage)?;
                    self.answer(*index, call, answered)?;
                }
                Seen::Event(told) => {
                    go_on(&mut last, told.zxid)?;
                    armed.told(told, &self.record.model, self.coverage)?;
                    self.coverage.count(event_name(told));
                }
                Seen::Lost => armed = Armed::new(user),
                Seen::Refused { at, server: by } => {
                    if !stay.is_elsewhere(*by, last, self.record, self.coverage) {
                        pulse.refused(*at, self.client.safe_silence)?;
                    }
                    self.coverage.count("service: sessions refused");
                    server = None;
                }
                Seen::Closed => server = None,
                Seen::Healed { at } => pulse.healed = Some(*at),
                Seen::Trouble => pulse = Pulse::default(),
            }
        }
        Ok(())
    }

    fn answer(&self, index: usize, call: &Call, answered: &Answered) -> Result<(), Failure> {
        let Answered { zxid, code, answer, .. } = answered;
        let unwritten = is_unwritten(self.client.locals, self.record, call, answered);
        if call.request.is_write() && !unwritten {
            return match self.record.outcomes.get(zxid) {
                Some(outcome) if (outcome.client, outcome.call) != (self.index, index) => {
                    Err(failure("W1", format!("{call:x?}: {zxid:#x} is {outcome:?}")))
                }
                Some(outcome) if (outcome.code, &outcome.answer) != (*code, answer) => {
                    let (code, answer) = (outcome.code, &outcome.answer);
                    Err(failure("W1", format!("{call:x?} should be {code} {answer:x?}")))
                }
                Some(_) => Ok(()),
                None => Err(failure("W1", format!("{call:x?} is not in the history"))),
            };
        }
        if *zxid != 0 && self.record.zxids.binary_search(zxid).is_err() {
            return Err(failure("W4", format!("{call:x?} is of a state that never was")));
        }
        if unwritten {
            return Ok(());
        }
        let (expected_code, expected) = self.expected(call, *zxid);
        if (expected_code, &expected) != (*code, answer) {
            let text = format!("{call:x?} should be {expected_code} {expected:x?}");
            return Err(failure("W4", text));
        }
        Ok(())
    }

    /// The right answer to a read after `zxid`.
    fn expected(&self, call: &Call, zxid: i64) -> (i32, Answer) {
        let model = &self.record.model;
        let (path, answer): (_, fn(&_, _) -> _) = match &call.request {
            Request::Get { path, .. } => {
                (path, |node: &Node, _| Answer::Data(node.data.clone(), node.stat()))
            }
            Request::GetAcl { path } => return self.acl(path, zxid),
            Request::Exists { path, .. } => (path, |node, _| Answer::Numbers(node.stat())),
            Request::Children { path, .. } => {
                (path, |node, names: Vec<String>| Answer::Names(names, node.stat()))
            }
            Request::Ephemerals => {
                return (0, Answer::Paths(model.ephemerals_at(call.session, zxid)));
            }
            // Only the connection's watches know.
            Request::RemoveWatches { .. } => {
                let code = call.answered.as_ref().map_or(0, |answered| answered.code);
                return (code, Answer::Nothing);
            }
            _ => return (0, Answer::Nothing),
        };
        match model.node_at(path, zxid) {
            Some(node) => match node.permits(perms::READ, self.client.user) {
                Ok(()) => (0, answer(node, model.children_at(path, zxid))),
                Err(code) => (code, Answer::Nothing),
            },
            None => (code::NO_NODE, Answer::Nothing),
        }
    }

    /// The right answer to getACL.
    fn acl(&self, path: &str, zxid: i64) -> (i32, Answer) {
        let user = self.client.user;
        let Some(node) = self.record.model.node_at(path, zxid) else {
            return (code::NO_NODE, Answer::Nothing);
        };
        match node.permits(perms::READ | perms::ADMIN, user) {
            Ok(()) => (0, Answer::Acl(acl::shown(&node.acl, user), node.stat())),
            Err(code) => (code, Answer::Nothing),
        }
    }
}

/// W8, once all faults are over: a session does not expire while its client is heard.
#[derive(Debug, Default)]
struct Pulse {
    healed: Option<u64>,
    /// The client's server was in its place since.
    counts: bool,
    /// The last request that was answered, when it was sent.
    last: u64,
}

impl Pulse {
    fn attached(&mut self, at: u64, settling: u64) {
        self.counts = self.healed.is_some_and(|healed| at > healed + settling);
        self.last = at;
    }

    fn refused(&self, at: u64, safe_silence: u64) -> Result<(), Failure> {
        let silence = at - self.last;
        if self.counts && silence < safe_silence {
            let text = format!("a session ends after a silence of {} ms", silence / MILLI);
            return Err(failure("W8", text));
        }
        Ok(())
    }
}

/// W2: a session's zxids do not go back.
fn go_on(last: &mut i64, zxid: i64) -> Result<(), Failure> {
    if zxid <= 0 {
        return Ok(());
    }
    if zxid < *last {
        return Err(failure("W2", format!("is told {zxid:#x} after {last:#x}")));
    }
    *last = zxid;
    Ok(())
}

fn count_refusal(call: &Call, answered: &Answered, coverage: &mut Coverage) {
    let what = match (answered.code, &answered.answer) {
        (code::NO_AUTH, _) if call.request.is_write() => "acl: write refused",
        (code::NO_AUTH, _) => "acl: read refused",
        (code::INVALID_ACL, _) => "acl: bad list refused",
        (_, Answer::Acl(list, _)) if list.iter().any(|entry| entry.id.ends_with(":x")) => {
            "acl: digests hidden"
        }
        _ => return,
    };
    coverage.count(what);
}

fn event_name(told: &Told) -> &'static str {
    match (told.zxid, told.kind) {
        (-1, _) => "watch: missed, told on return",
        (_, 1) => "watch: created",
        (_, 2) => "watch: deleted",
        (_, 3) => "watch: data changed",
        _ => "watch: children changed",
    }
}
