//! Multis, prepared in pieces.
//!
//! The parts of one may take many turns. What they record is on top of all that was proposed before, and
//! nothing else is prepared until the multi is: so what comes out is what would have come out at once.
//! Transactions may be applied meanwhile, as records and tree together say the same before and after.

use zab_proto::wire::jute::Reader;
use zab_proto::wire::txn::TxnHeader;

use super::{Prep, Requester, View, encode};
use crate::auth::Judge;
use crate::cost;
use crate::protocol::code::Code;
use crate::protocol::request::Multi;
use crate::protocol::txn::{Txn, TxnDigest};

/// How far a multi is prepared.
#[derive(Debug, Default)]
pub(super) struct Parts {
    stage: MultiStep,
    /// Where in the record the next part is.
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum MultiStep {
    /// The record is looked through: one that does not decode is refused as a whole.
    #[default]
    Check,
    /// The parts are prepared.
    Prepare,
    /// One was refused, and those behind it with it.
    Fail,
    /// What the parts have recorded is taken back. Then the multi is refused as a whole, or made of the
    /// errors of its parts.
    TakeBack(Option<Code>),
    Done(Result<(), Code>),
}

impl Prep {
    /// Goes on with a multi while less than `work_max` is counted, but at least by one part. Returns how it
    /// ends when that is known: with its parts in [`Prep::parts`], or with a refusal.
    pub(super) fn multi(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        record: &[u8],
        (parts, work_max): (&mut Parts, u64),
    ) -> Option<Result<(), Code>> {
        let mut judge = Judge::new(view.access, from.ids);
        loop {
            if let MultiStep::Done(result) = parts.stage {
                self.work += judge.take_work();
                return Some(result);
            }
            parts.stage = match parts.stage {
                MultiStep::Check => self.check_part(parts, record),
                MultiStep::Prepare => self.prepare_part(view, from, &mut judge, (parts, record)),
                MultiStep::Fail => self.fail_part(view, parts, record),
                MultiStep::TakeBack(code) => self.take_back(code),
                MultiStep::Done(_) => parts.stage,
            };
            self.work += judge.take_work();
            if self.work >= work_max && !matches!(parts.stage, MultiStep::Done(_)) {
                return None;
            }
        }
    }

    fn check_part(&mut self, parts: &mut Parts, record: &[u8]) -> MultiStep {
        self.work += cost::PART;
        let mut reader = Reader::new(record.get(parts.at..).unwrap_or_default());
        match Multi::part(&mut reader) {
            Ok(Some(_)) => {
                parts.at += reader.position();
                MultiStep::Check
            }
            Ok(None) => {
                parts.at = 0;
                self.parts.clear();
                MultiStep::Prepare
            }
            Err(_) => MultiStep::Done(Err(Code::MARSHALLING_ERROR)),
        }
    }

    fn prepare_part(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        (parts, record): (&mut Parts, &[u8]),
    ) -> MultiStep {
        if self.is_too_long(view) {
            return MultiStep::TakeBack(Some(Code::BAD_ARGUMENTS));
        }
        let mut reader = Reader::new(record.get(parts.at..).unwrap_or_default());
        let Ok(Some(write)) = Multi::part(&mut reader) else { return MultiStep::Done(Ok(())) };
        parts.at += reader.position();
        let mut acl = std::mem::take(&mut self.acl);
        let result = self.single(view, from, judge, &write, true, &mut acl);
        let stage = match result {
            Ok(txn) => {
                self.parts.push(&txn);
                MultiStep::Prepare
            }
            // What does not decode is refused as a whole.
            Err(Code::MARSHALLING_ERROR) => MultiStep::TakeBack(Some(Code::MARSHALLING_ERROR)),
            Err(code) => {
                self.parts.push(&Txn::Error(code));
                MultiStep::Fail
            }
        };
        self.acl = acl;
        stage
    }

    fn fail_part(&mut self, view: View<'_>, parts: &mut Parts, record: &[u8]) -> MultiStep {
        self.work += cost::PART;
        let mut reader = Reader::new(record.get(parts.at..).unwrap_or_default());
        if self.is_too_long(view) {
            return MultiStep::TakeBack(Some(Code::BAD_ARGUMENTS));
        }
        match Multi::part(&mut reader) {
            Ok(Some(_)) => {
                parts.at += reader.position();
                self.parts.push(&Txn::Error(Code::RUNTIME_INCONSISTENCY));
                MultiStep::Fail
            }
            Ok(None) | Err(_) => MultiStep::TakeBack(None),
        }
    }

    /// Whether the parts so far make a transaction that some server could not read: it is refused as a
    /// whole.
    fn is_too_long(&self, view: View<'_>) -> bool {
        let digest_len = if view.digests { TxnDigest::LEN } else { 0 };
        // The header, the number of parts, and these.
        TxnHeader::LEN + 4 + self.parts.len_bytes() + digest_len > view.txn_len_max
    }

    fn take_back(&mut self, code: Option<Code>) -> MultiStep {
        const AT_ONCE: usize = 16;
        let to = self.undo.len().saturating_sub(AT_ONCE);
        self.work += cost::NODE * (self.undo.len() - to) as u64;
        self.rollback(to);
        match (to, code) {
            (1.., code) => MultiStep::TakeBack(code),
            (0, None) => MultiStep::Done(Ok(())),
            (0, Some(code)) => MultiStep::Done(Err(code)),
        }
    }

    /// Writes the transaction of a multi whose parts are prepared.
    pub(super) fn encode_multi(&self, from: &Requester<'_>, out: &mut Vec<u8>) {
        encode(&Txn::Multi(self.parts.parts()), from, out);
    }
}
