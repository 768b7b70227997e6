//! Transactions of many parts, applied step by step: multis, and the ends of sessions.
//!
//! Such a transaction may take more than a turn. What has been done of it is in the tree, what is left is
//! here, and nobody may read the tree meanwhile: the service sees to that.

use std::borrow::Cow;
use std::collections::btree_set;

use zab_proto::Zxid;
use zab_proto::wire::txn::TxnHeader;

use crate::protocol::code::Code;
use crate::protocol::txn::{Cursor, Txn, TxnDigest};
use crate::protocol::txn_buf::{TxnBuf, whole_txn};
use crate::state::apply::{Outcome, Trigger};
use crate::state::database::Database;
use crate::state::tree::NodeId;

/// How far a transaction of many parts is applied.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The next of its parts, or of the paths that it lists.
    next: Cursor,
    /// What the session owned that ends, as this server knows it.
    owned: btree_set::IntoIter<NodeId>,
    /// The first code of a part that is not [`Code::OK`].
    code: Code,
}

/// What a step has done.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A part of a multi.
    Part(Txn<'a>, Outcome),
    /// An ephemeral is gone, or was before.
    Removed,
    /// The node at a path that the end of a session lists is not there.
    Missing(Cow<'a, str>),
    /// Nothing: all is applied.
    End,
}

impl Database {
    /// Begins a transaction of many parts. `None`: it is not one of those, and is applied at once.
    pub(super) fn begin(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Option<Steps> {
        let mut steps = Steps::default();
        match txn {
            Txn::Multi(_) => {}
            Txn::CloseSession(_) => {
                self.sessions.remove(header.client_id);
                steps.owned = self.tree.take_ephemerals(header.client_id);
            }
            whole_txn!() => return None,
        }
        self.digest_before = self.tree.digest();
        Some(steps)
    }

    /// Does the next step. Of the end of a session: deletes what the record lists, then whatever else the
    /// session owns here.
    pub(super) fn step<'a>(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'a>,
        steps: &mut Steps,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Step<'a> {
        match txn {
            Txn::Multi(parts) => {
                let Some(part) = parts.next(&mut steps.next) else { return Step::End };
                let outcome = if parts.is_failed() {
                    Outcome::refused(&part)
                } else {
                    self.apply_single(header, &part, sink)
                };
                if steps.code.is_ok() {
                    steps.code = outcome.code;
                }
                Step::Part(part, outcome)
            }
            Txn::CloseSession(paths) => {
                if let Some(path) = paths.and_then(|paths| paths.next(&mut steps.next)) {
                    return match self.tree.find(&path).filter(|id| *id != NodeId::ROOT) {
                        Some(id) => {
                            self.remove_ephemeral(header.zxid, id, sink);
                            Step::Removed
                        }
                        None => {
                            // It was deleted before; only replay gets there.
                            let _ = self.delete(header.zxid, &path, sink);
                            Step::Missing(path)
                        }
                    };
                }
                let Some(id) = steps.owned.next() else { return Step::End };
                self.remove_ephemeral(header.zxid, id, sink);
                Step::Removed
            }
            // None of them begins.
            whole_txn!() => Step::End,
        }
    }

    /// All steps are done. Returns the outcome of the whole.
    pub(super) fn end(&mut self, zxid: Zxid, txn: &Txn<'_>, steps: &Steps) -> Outcome {
        self.digest_before = None;
        self.applied(zxid);
        Outcome { kind: txn.kind(), code: steps.code, stat: None }
    }
}

/// A transaction in hand, beside its parts.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) header: TxnHeader,
    pub(crate) zxid: Zxid,
    pub(crate) digest: Option<TxnDigest>,
    pub(crate) steps: Steps,
    /// What the parts of a multi are answered, if its client is here.
    pub(crate) replies: Option<Replies>,
}

/// What the parts of a multi are answered so far.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) body: Vec<u8>,
    /// The place of the next part.
    place: u32,
    /// The places of those parts that are answered with a stat, in order, and how many are behind.
    stat_parts: Vec<u32>,
    behind: usize,
}

impl Replies {
    pub(crate) fn new(stat_parts: Vec<u32>) -> Self {
        Self { stat_parts, ..Self::default() }
    }

    /// Whether the next part is answered with a stat.
    pub(crate) fn next_asks_stat(&mut self) -> bool {
        let asks = self.stat_parts.get(self.behind) == Some(&self.place);
        self.behind += usize::from(asks);
        self.place += 1;
        asks
    }
}

/// A transaction that is applied in part, with a copy of the parts.
#[derive(Debug)]
pub(crate) struct Unfinished {
    job: Job,
    txn: TxnBuf,
}

impl Unfinished {
    /// Sets a transaction aside. `None`: it is none of those that [begin](Database::begin).
    pub(crate) fn new(job: Job, txn: &Txn<'_>) -> Option<Self> {
        TxnBuf::new(txn).map(|txn| Self { job, txn })
    }

    /// The work on it, and its parts.
    pub(crate) fn split(&mut self) -> (&mut Job, Txn<'_>) {
        (&mut self.job, self.txn.txn())
    }
}
