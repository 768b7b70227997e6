//! Carries out the committed history in the model, request by request, and compares each
//! transaction with what the request should have become.

use std::collections::BTreeMap;

use zk_service::acl::AclList;
use zk_service::txn::{CreateKind, CreateTxn, Parts, Paths, Payload, Txn};

use crate::check::{Checker, Failure};
use crate::zk::acl::{Entry, User};
use crate::zk::client::ZkClient;
use crate::zk::history::Call;
use crate::zk::local::Locals;
use crate::zk::model::{Effect, Model, Moment, code};
use crate::zk::wire::{Answer, Kind, Request};

/// What the history says about a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: usize,
    pub(crate) call: usize,
    pub(crate) code: i32,
    pub(crate) answer: Answer,
}

/// The history, understood.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) model: Model,
    /// The requests that are in the history, by zxid.
    pub(crate) outcomes: BTreeMap<i64, Outcome>,
    /// All committed zxids.
    pub(crate) zxids: Vec<i64>,
    pub(crate) expired: u64,
    pub(crate) moved: u64,
    /// Local sessions that became sessions of the ensemble.
    pub(crate) upgraded: u64,
    /// What leaders removed of their own accord.
    pub(crate) containers_removed: u64,
    pub(crate) ttl_nodes_removed: u64,
}

/// What a session has asked for, in order.
#[derive(Debug, Default)]
struct Asked {
    client: usize,
    /// Calls, and whether they were found in the history.
    calls: Vec<(usize, bool)>,
    /// Everything before has had its turn.
    cursor: usize,
}

struct Replay<'a> {
    clients: &'a [ZkClient],
    locals: Locals,
    asked: BTreeMap<i64, Asked>,
    record: Record,
}

pub(crate) fn failure(invariant: &'static str, text: String) -> Failure {
    Failure { invariant, text }
}

/// Replays the committed history. W1, W3, W7, W9, W11, W12, W13.
pub(crate) fn replay(clients: &[ZkClient], checker: &Checker) -> Result<Record, Failure> {
    let mut asked: BTreeMap<i64, Asked> = BTreeMap::new();
    for (index, client) in clients.iter().enumerate() {
        for (at, call) in client.calls.iter().enumerate() {
            if call.request.is_write() {
                let asked = asked.entry(call.session).or_default();
                asked.client = index;
                asked.calls.push((at, false));
            }
        }
    }
    let record = Record {
        model: Model::new(),
        outcomes: BTreeMap::new(),
        zxids: Vec::new(),
        expired: 0,
        moved: 0,
        upgraded: 0,
        containers_removed: 0,
        ttl_nodes_removed: 0,
    };
    let locals = clients.first().map_or(Locals::NONE, |client| client.locals);
    let mut replay = Replay { clients, locals, asked, record };
    // The run may end between a commit and its delivery, but not leave one out.
    let mut undelivered = None;
    for (zxid, payload) in checker.history() {
        let Some(payload) = payload else {
            undelivered = undelivered.or(Some(zxid));
            continue;
        };
        if let Some(zxid) = undelivered {
            return Err(failure("W1", format!("{zxid} is committed, and nobody delivered it")));
        }
        let payload = Payload::decode(payload)
            .map_err(|error| failure("W1", format!("{zxid} does not decode: {error}")))?;
        replay.step(&payload)?;
        replay.record.zxids.push(zxid.raw());
    }
    Ok(replay.record)
}

impl Replay<'_> {
    fn step(&mut self, payload: &Payload<'_>) -> Result<(), Failure> {
        let header = &payload.header;
        let (session, zxid) = (header.client_id, header.zxid.raw());
        let asked = self.asked.get(&session);
        let user = asked.map_or(User::Nobody, |asked| self.clients[asked.client].user);
        let may_own = self.may_own(session, &payload.txn)?;
        let moment = Moment { session, user, zxid, time: header.time, may_own };
        match &payload.txn {
            Txn::CreateSession { .. } => {
                self.upgrade(session)?;
                if !self.record.model.open(session, zxid) {
                    return Err(failure("W9", format!("session {session:#x} is created twice")));
                }
                Ok(())
            }
            Txn::CloseSession(paths) => self.close(moment, header.cxid, *paths),
            txn if session == 0 => self.remove_unneeded(moment, txn),
            txn if self.is_left_behind(moment, header.cxid, txn) => {
                self.record.model.commit(zxid);
                Ok(())
            }
            txn => {
                let (client, call, (code, answer)) = self.carry_out(moment, header.cxid, txn)?;
                self.record.model.commit(zxid);
                self.record.outcomes.insert(zxid, Outcome { client, call, code, answer });
                Ok(())
            }
        }
    }

    /// Whether the history has not begun a session, and need not have.
    fn is_local(&self, session: i64) -> bool {
        self.locals.enabled && !self.record.model.was_opened(session)
    }

    /// W9: a local session becomes one of the ensemble if it asks for what only those may have, and if that is
    /// allowed.
    fn upgrade(&mut self, session: i64) -> Result<(), Failure> {
        if !self.locals.enabled {
            return Ok(());
        }
        let asked = self.asked.get(&session).filter(|_| self.locals.upgrading);
        let calls = asked.into_iter().flat_map(|asked| {
            asked.calls.iter().map(|(call, _)| &self.clients[asked.client].calls[*call])
        });
        if !calls.into_iter().any(|call| call.request.makes_ephemeral()) {
            let text = format!("session {session:#x} becomes the ensemble's, and owns nothing");
            return Err(failure("W9", text));
        }
        self.record.upgraded += 1;
        Ok(())
    }

    /// Whether a session may own nodes, or with which code a transaction says that it may not: a learner's is
    /// expired to its leader, an own one is local. W7: it never comes to that where sessions are upgraded.
    fn may_own(&self, session: i64, txn: &Txn<'_>) -> Result<Result<(), i32>, Failure> {
        if session == 0 || !self.is_local(session) {
            return Ok(Ok(()));
        }
        let refuses =
            |code: &i32| [code::SESSION_EXPIRED, code::EPHEMERAL_ON_LOCAL_SESSION].contains(code);
        let said = match txn {
            Txn::Multi(parts) => parts.iter().filter_map(|part| refusal(&part)).find(refuses),
            txn => refusal(txn).filter(refuses),
        };
        if said.is_some() && self.locals.upgrading {
            let text = format!("{session:#x} is refused a node, and not upgraded: {txn:x?}");
            return Err(failure("W7", text));
        }
        Ok(Err(said.unwrap_or(code::SESSION_EXPIRED)))
    }

    /// Whether a request is refused that its learner had left on its way, when it came back to its leader,
    /// and has submitted again since: nothing was done, and the answer is that of the second.
    fn is_left_behind(&self, moment: Moment, cxid: i32, txn: &Txn<'_>) -> bool {
        let Some(asked) = self.asked.get(&moment.session) else { return false };
        let calls = &self.clients[asked.client].calls;
        refusal(txn) == Some(code::SESSION_MOVED)
            && asked.calls.iter().map(|(call, _)| &calls[*call]).any(|call| {
                let answered = call.answered.as_ref();
                call.xid == cxid && answered.is_some_and(|answered| answered.zxid > moment.zxid)
            })
    }

    /// Finds the request that a transaction comes from, and carries it out. A client that numbers
    /// its requests anew on each connection may have several that could be it.
    fn carry_out(
        &mut self,
        moment: Moment,
        cxid: i32,
        txn: &Txn<'_>,
    ) -> Result<(usize, usize, (i32, Answer)), Failure> {
        let mut first = None;
        for at in self.candidates(moment, cxid, txn)? {
            let asked = &self.asked[&moment.session];
            let (client, call) = (asked.client, asked.calls[at].0);
            let clients = self.clients;
            match self.fulfil(moment, &clients[client].calls[call].request, txn) {
                Ok(result) => {
                    self.take(moment.session, at, txn);
                    return Ok((client, call, result));
                }
                Err(failure) => {
                    self.record.model.roll_back();
                    first.get_or_insert(failure);
                }
            }
        }
        Err(first.expect("there is a candidate, or else a failure"))
    }

    /// What a request becomes, which is to be `txn`.
    fn fulfil(
        &mut self,
        moment: Moment,
        request: &Request,
        txn: &Txn<'_>,
    ) -> Result<(i32, Answer), Failure> {
        match (request, txn) {
            (Request::Multi(requests), Txn::Multi(parts)) => {
                Ok((0, Answer::Parts(self.multi(moment, requests, *parts)?)))
            }
            (request, txn) => self.single(moment, request, txn),
        }
    }

    /// What a leader does without being asked: remove a container or TTL node, or find that it is
    /// needed still.
    fn remove_unneeded(&mut self, moment: Moment, txn: &Txn<'_>) -> Result<(), Failure> {
        let zxid = moment.zxid;
        let Record { model, containers_removed, ttl_nodes_removed, .. } = &mut self.record;
        match txn {
            Txn::Error(_) => Ok(()),
            Txn::Delete { path, container: true } => {
                match model.remove_unneeded(path, moment) {
                    Ok(Kind::Container) => *containers_removed += 1,
                    Ok(_) => *ttl_nodes_removed += 1,
                    Err(why) => {
                        let text = format!("{zxid:#x} removes {path}, which {why}");
                        return Err(failure("W14", text));
                    }
                }
                model.commit(zxid);
                Ok(())
            }
            txn => Err(failure("W1", format!("{zxid:#x} is of nobody: {txn:x?}"))),
        }
    }

    fn close(
        &mut self,
        moment: Moment,
        cxid: i32,
        paths: Option<Paths<'_>>,
    ) -> Result<(), Failure> {
        let Moment { session, zxid, .. } = moment;
        if !self.record.model.was_opened(session) {
            return Err(failure("W7", format!("{zxid:#x} closes {session:#x}, which never began")));
        }
        if cxid == 0 {
            self.record.expired += 1;
        } else {
            let txn = Txn::CloseSession(paths);
            let at = self.candidates(moment, cxid, &txn)?[0];
            self.take(session, at, &txn);
            let asked = &self.asked[&session];
            let (client, call) = (asked.client, asked.calls[at].0);
            let outcome = Outcome { client, call, code: 0, answer: Answer::Nothing };
            self.record.outcomes.insert(zxid, outcome);
        }
        let owned = self.record.model.close(session, zxid);
        let listed: Option<Vec<_>> = paths.map(|paths| paths.iter().map(Into::into).collect());
        if listed.is_some_and(|listed: Vec<String>| listed != owned) {
            let text = format!("{zxid:#x} closes {session:#x}, which owns {owned:?}: {paths:?}");
            return Err(failure("W7", text));
        }
        Ok(())
    }

    /// The requests of its session that a transaction may come from; at least one.
    fn candidates(&self, moment: Moment, cxid: i32, txn: &Txn<'_>) -> Result<Vec<usize>, Failure> {
        let Moment { session, zxid, .. } = moment;
        let Some(asked) = self.asked.get(&session) else {
            let text = format!("{zxid:#x} is of {session:#x}, which asked for nothing: {txn:x?}");
            return Err(failure("W1", text));
        };
        let calls = &self.clients[asked.client].calls;
        let alike = |wanted_taken: bool| {
            let calls = asked.calls.iter().map(|(call, taken)| (&calls[*call], *taken)).enumerate();
            calls.filter(move |(_, (call, taken))| {
                *taken == wanted_taken && call.xid == cxid && is_like(&call.request, txn)
            })
        };
        let answer_of = |call: &Call| call.answered.as_ref().map(|answered| answered.zxid);
        if let Some((at, _)) = alike(false).find(|(_, (call, _))| answer_of(call) == Some(zxid)) {
            return Ok(vec![at]);
        }
        // What was refused because of its session may come late.
        let late = matches!(refusal(txn), Some(code::SESSION_EXPIRED | code::SESSION_MOVED));
        let unanswered = alike(false).filter(|(_, (call, _))| call.answered.is_none());
        let (before, after): (Vec<_>, Vec<_>) =
            unanswered.map(|(at, _)| at).partition(|at| *at < asked.cursor && !late);
        if !after.is_empty() {
            return Ok(after);
        }
        let (invariant, what) = if !before.is_empty() {
            ("W3", "comes too late")
        } else if alike(true).next().is_some() {
            ("W13", "is carried out again")
        } else {
            ("W1", "was never made")
        };
        Err(failure(
            invariant,
            format!("{zxid:#x}: request {cxid} of {session:#x} {what}: {txn:x?}"),
        ))
    }

    /// A request has had its turn.
    fn take(&mut self, session: i64, at: usize, txn: &Txn<'_>) {
        let asked = self.asked.get_mut(&session).expect("it has candidates");
        asked.calls[at].1 = true;
        if !matches!(refusal(txn), Some(code::SESSION_EXPIRED | code::SESSION_MOVED)) {
            asked.cursor = asked.cursor.max(at + 1);
        }
    }

    /// Why the model refuses everything of a session: it must not exist. Only a server may know
    /// that it has moved.
    fn barred(&mut self, moment: Moment, refusal: Option<i32>) -> Option<i32> {
        if !self.record.model.is_live_at(moment.session, moment.zxid)
            && !self.is_local(moment.session)
        {
            return Some(code::SESSION_EXPIRED);
        }
        if refusal == Some(code::SESSION_MOVED) {
            self.record.moved += 1;
            return refusal;
        }
        None
    }

    fn single(
        &mut self,
        moment: Moment,
        request: &Request,
        txn: &Txn<'_>,
    ) -> Result<(i32, Answer), Failure> {
        let expected = match self.barred(moment, refusal(txn)) {
            Some(code) => Err(code),
            None => self.record.model.carry_out(request, moment),
        };
        self.compare(moment, request, &expected, txn, Place::Alone)?;
        Ok(match expected {
            Ok((_, answer)) => (0, answer),
            Err(code) => (code, Answer::Nothing),
        })
    }

    fn multi(
        &mut self,
        moment: Moment,
        requests: &[Request],
        parts: Parts<'_>,
    ) -> Result<Vec<(i32, Answer)>, Failure> {
        let txns: Vec<_> = parts.iter().collect();
        if txns.len() != requests.len() {
            return Err(failure("W10", format!("{:#x} has other parts: {txns:x?}", moment.zxid)));
        }
        let barred = self.barred(moment, txns.first().and_then(refusal));
        let mut results = Vec::new();
        let mut failed = false;
        for (request, txn) in requests.iter().zip(&txns) {
            let expected = if failed {
                Err(code::RUNTIME_INCONSISTENCY)
            } else if let Some(code) = barred {
                Err(code)
            } else {
                self.record.model.carry_out(request, moment)
            };
            self.compare(moment, request, &expected, txn, Place::InMulti)?;
            match expected {
                Ok((_, answer)) => results.push((0, answer)),
                Err(code) => {
                    failed = true;
                    results.push((code, Answer::Nothing));
                }
            }
        }
        if failed {
            self.record.model.roll_back();
            results.iter_mut().for_each(|(_, answer)| *answer = Answer::Nothing);
        }
        Ok(results)
    }

    fn compare(
        &self,
        moment: Moment,
        request: &Request,
        expected: &Result<(Effect, Answer), i32>,
        txn: &Txn<'_>,
        place: Place,
    ) -> Result<(), Failure> {
        let equal = match expected {
            Ok((effect, _)) => is_effect(effect, txn, place),
            Err(code) => refusal(txn) == Some(*code),
        };
        if equal {
            return Ok(());
        }
        let Moment { session, zxid, .. } = moment;
        let invariant = match (request, expected) {
            (_, Err(code::SESSION_EXPIRED)) => "W7",
            (_, Err(code::NO_AUTH | code::INVALID_ACL)) | (Request::SetAcl { .. }, _) => "W14",
            _ if refusal(txn) == Some(code::NO_AUTH) => "W14",
            (Request::Create { mode, .. }, Ok(_)) if mode.sequential => "W11",
            _ => "W12",
        };
        let text = format!(
            "{zxid:#x}: {request:?} of {session:#x} should become {expected:?}, is {txn:x?}"
        );
        Err(failure(invariant, text))
    }
}

/// Where a transaction stands. ZooKeeper 3.8.0 does not know a `create2` within a multi, so it is a `create` there.
#[derive(Clone, Copy)]
enum Place {
    Alone,
    InMulti,
}

/// The code of a transaction that changes nothing.
fn refusal(txn: &Txn<'_>) -> Option<i32> {
    match txn {
        Txn::Error(code) => Some(code.0),
        Txn::Multi(parts) if parts.is_failed() => parts.iter().next().as_ref().and_then(refusal),
        _ => None,
    }
}

/// Whether a transaction may come from a request.
fn is_like(request: &Request, txn: &Txn<'_>) -> bool {
    match (request, txn) {
        (Request::Close, _) | (_, Txn::CloseSession(_)) => {
            matches!((request, txn), (Request::Close, Txn::CloseSession(_)))
        }
        // A multi that fails is a multi still, of parts that say why.
        (_, Txn::Error(_)) => !matches!(request, Request::Multi(_)),
        (Request::Create { path, data, .. }, Txn::Create(create)) => {
            create.path.starts_with(path.as_str()) && create.data == Some(&data.to_be_bytes())
        }
        (Request::Set { path, data, .. }, Txn::SetData { path: p, data: d, .. }) => {
            path == p && *d == Some(&data.to_be_bytes())
        }
        (Request::Delete { path, .. }, Txn::Delete { path: p, .. })
        | (Request::SetAcl { path, .. }, Txn::SetAcl { path: p, .. })
        | (Request::Check { path, .. }, Txn::Check { path: p, .. }) => path == p,
        (Request::Multi(requests), Txn::Multi(parts)) => {
            requests.len() == parts.len()
                && requests.iter().zip(parts.iter()).all(|(r, t)| is_like(r, &t))
        }
        _ => false,
    }
}

fn is_effect(effect: &Effect, txn: &Txn<'_>, place: Place) -> bool {
    match (effect, txn) {
        (
            Effect::Create { path, data, acl, kind, parent_cversion },
            Txn::Create(CreateTxn { path: p, data: d, acl: a, parent_cversion: c, kind: k }),
        ) => {
            path == p
                && Some(data.as_slice()) == *d
                && is_list(acl, *a)
                && parent_cversion == c
                && *k == create_kind(*kind, place)
        }
        (Effect::Delete { path }, Txn::Delete { path: p, container: false }) => path == p,
        (
            Effect::Set { path, data, version },
            Txn::SetData { path: p, data: d, version: v, .. },
        ) => path == p && Some(data.as_slice()) == *d && version == v,
        (Effect::SetAcl { path, acl, version }, Txn::SetAcl { path: p, acl: a, version: v }) => {
            path == p && is_list(acl, *a) && version == v
        }
        (Effect::Check { path, version }, Txn::Check { path: p, version: v }) => {
            path == p && version == v
        }
        _ => false,
    }
}

fn create_kind(kind: Kind, place: Place) -> CreateKind {
    let plain = |ephemeral| match place {
        Place::Alone => CreateKind::Create2 { ephemeral },
        Place::InMulti => CreateKind::Create { ephemeral },
    };
    match kind {
        Kind::Persistent => plain(false),
        Kind::Ephemeral => plain(true),
        Kind::Container => CreateKind::Container,
        Kind::Ttl(ttl_ms) => CreateKind::Ttl { ttl_ms },
    }
}

fn is_list(acl: &[Entry], list: AclList<'_>) -> bool {
    let entries = list.iter().map(|e| Entry {
        perms: e.perms,
        scheme: e.scheme.unwrap_or_default().into_owned(),
        id: e.id.unwrap_or_default().into_owned(),
    });
    entries.eq(acl.iter().cloned())
}
