//! Requests whose preparation may take more than a turn.

use zab_proto::Zxid;

use super::closing::Closing;
use super::multi::Parts;
use super::{CLOSE_PATHS_LEN_MAX_BYTES, Prep, Requester, TXN_OVERHEAD_BYTES, View};
use crate::auth::Ids;
use crate::protocol::code::Code;
use crate::state::tree::Tree;

/// A request that is being prepared. Until it [is](Prep::go_on), nothing else is.
#[derive(Debug)]
pub(super) enum Begun {
    Multi(Parts),
    /// Until this is prepared, nothing is applied either.
    Close(Box<Closing>),
}

/// A request that is being prepared, with all that its next pieces need.
#[derive(Debug)]
pub(in crate::service::role) struct Kept {
    session: i64,
    cxid: i32,
    valid: Result<(), Code>,
    local: Option<Code>,
    ids: Vec<u8>,
    zxid: Zxid,
    time: i64,
    record: Vec<u8>,
    begun: Begun,
    /// See [`View::txn_len_max`].
    txn_len_max: usize,
    /// Its transaction is made.
    is_done: bool,
}

impl Kept {
    pub(in crate::service::role) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Its transaction is made.
    pub(in crate::service::role) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Nothing may be applied until it is done.
    pub(in crate::service::role) fn holds_commits(&self) -> bool {
        !self.is_done && matches!(self.begun, Begun::Close(_))
    }

    /// See [`View::txn_len_max`].
    pub(in crate::service::role) fn txn_len_max(&self) -> usize {
        self.txn_len_max
    }
}

impl Prep {
    /// Begins a multi, and does so much work on it. `None`: its transaction is in `out`. Else the rest is
    /// to be [gone on with](Self::go_on).
    pub(in crate::service::role) fn begin_multi(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        (record, work): (&[u8], u64),
        out: &mut Vec<u8>,
    ) -> Option<Kept> {
        self.begin(out);
        self.first_piece(view, from, (record, work), Begun::Multi(Parts::default()), out)
    }

    /// Begins the end of a session in the same way.
    pub(in crate::service::role) fn begin_close(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        work: u64,
        out: &mut Vec<u8>,
    ) -> Option<Kept> {
        self.begin(out);
        let room = view.txn_len_max.saturating_sub(TXN_OVERHEAD_BYTES);
        let closing = Closing::new(CLOSE_PATHS_LEN_MAX_BYTES.min(room));
        self.first_piece(view, from, (&[], work), Begun::Close(Box::new(closing)), out)
    }

    fn first_piece(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        (record, work): (&[u8], u64),
        mut begun: Begun,
        out: &mut Vec<u8>,
    ) -> Option<Kept> {
        if self.piece(view, from, (record, work), &mut begun, out) {
            return None;
        }
        let Requester { session, cxid, valid, local, ids, zxid, time } = *from;
        Some(Kept {
            session,
            cxid,
            valid,
            local,
            ids: ids.to_vec(),
            zxid,
            time,
            record: record.into(),
            begun,
            txn_len_max: view.txn_len_max,
            is_done: false,
        })
    }

    /// Does so much more work on a request. Its transaction is in `out` when it is done.
    pub(in crate::service::role) fn go_on(
        &mut self,
        view: View<'_>,
        kept: &mut Kept,
        work: u64,
        out: &mut Vec<u8>,
    ) {
        if kept.is_done {
            return;
        }
        let Kept { session, cxid, valid, local, zxid, time, .. } = *kept;
        let ids = Ids::new(&kept.ids);
        let from = Requester { session, cxid, valid, local, ids, zxid, time };
        kept.is_done = self.piece(view, &from, (&kept.record, work), &mut kept.begun, out);
    }

    /// Whether it is done.
    fn piece(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        (record, work): (&[u8], u64),
        begun: &mut Begun,
        out: &mut Vec<u8>,
    ) -> bool {
        let work_max = self.work.saturating_add(work);
        let result = match begun {
            Begun::Multi(parts) => {
                let Some(result) = self.multi(view, from, record, (parts, work_max)) else {
                    return false;
                };
                result.map(|()| self.encode_multi(from, out))
            }
            Begun::Close(closing) => {
                if !self.close(view, from, (closing, work_max)) {
                    return false;
                }
                closing.encode(from, out);
                Ok(())
            }
        };
        self.complete(view, from, result, out);
        true
    }

    /// Everything up to `zxid` is applied to the tree, and a session has ended if one is given.
    pub(in crate::service::role) fn applied(
        &mut self,
        tree: &Tree,
        zxid: Zxid,
        closed: Option<i64>,
    ) {
        self.applied = zxid;
        if let Some(session) = closed
            && self.closed.get(&session).is_some_and(|closed| *closed <= zxid)
        {
            self.closed.remove(&session);
        }
        self.tidy(tree, RECORDS_AT_ONCE);
    }

    /// Drops up to so many records of what is applied; until then they say what the tree says.
    pub(in crate::service::role) fn tidy(&mut self, tree: &Tree, count: usize) {
        for _ in 0..count {
            if !self.is_littered() {
                break;
            }
            let Some((_, path)) = self.queue.pop_front() else { break };
            if self.records.get(&path).is_some_and(|record| record.zxid <= self.applied) {
                self.records.remove(&path);
            }
        }
        if self.queue.is_empty() {
            // With nothing pending the prediction starts from the truth again.
            self.digest = tree.digest().unwrap_or_default();
        }
    }

    /// Whether there is something to [`tidy`](Self::tidy).
    pub(in crate::service::role) fn is_littered(&self) -> bool {
        self.queue.front().is_some_and(|(at, _)| *at <= self.applied)
    }
}

/// So many records of what is applied are dropped with a transaction. If it had more, the rest is dropped in
/// turns.
const RECORDS_AT_ONCE: usize = 1000;
