//! A leader's request whose preparation takes more than a turn: nothing else is prepared before it is.
//!
//! To its requester it is proposed when it has begun. Its zxid is known, since nobody else is given one
//! meanwhile, and if the role ends first, it ends with what was proposed and not committed.

use zab_proto::ProposeError;

use crate::auth::Ids;
use crate::protocol::opcode::Opcode;
use crate::service::role::Cx;
use crate::service::role::leader::{Leader, Submission};
use crate::service::role::prep::View;
use crate::service::role::prep::begun::Kept;
use crate::service::role::tracker::Owner;

/// A request that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    kept: Kept,
    owner: Owner,
    session: i64,
    /// Its transaction is made, and there was no room for it.
    waits: bool,
}

impl Begun {
    pub(super) fn new(kept: Kept, request: &Submission<'_>) -> Self {
        Self { kept, owner: request.owner, session: request.session, waits: false }
    }
}

impl Leader {
    /// Whether a request has begun that goes on in the next turn.
    pub(super) fn prepares(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| !begun.waits)
    }

    /// Whether nothing may be applied until a request that has begun is prepared.
    pub(super) fn holds_commits(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.kept.holds_commits())
    }

    /// Goes on with a request that has begun, unless this turn's work is used up, and proposes it at
    /// its end. Returns the session whose client is to be charged for it, if that is one of this server.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_, '_>) -> Option<i64> {
        let begun = self.begun.as_mut()?;
        let (owner, session) = (begun.owner, begun.session);
        let before = self.prep.work;
        if !begun.kept.is_done() {
            if cx.schedule.is_spent() {
                return None;
            }
            let left = cx.schedule.left_unbilled();
            let work = cx.piece(left.min(cx.schedule.share_beside_waiting()));
            let view = View { txn_len_max: begun.kept.txn_len_max(), ..cx.view() };
            self.prep.go_on(view, &mut begun.kept, work, &mut self.txn);
        }
        if begun.kept.is_done() {
            self.propose_begun(cx);
        }
        let work = self.prep.work - before;
        if matches!(owner, Owner::Learner(_)) {
            self.debt = self.debt.saturating_add(work);
        }
        self.count(cx);
        (owner == Owner::Local).then_some(session)
    }

    fn propose_begun(&mut self, cx: &mut Cx<'_, '_>) {
        let Some(mut begun) = self.begun.take() else { return };
        let is_next = cx.core.next_zxid() == Some(begun.kept.zxid());
        match if is_next { cx.core.propose(&self.txn) } else { Err(ProposeError::NotLeading) } {
            Ok(_) => self.note_proposed(cx),
            Err(ProposeError::Full) => {
                begun.waits = true;
                self.begun = Some(begun);
            }
            // The role is about to end, with all that was not proposed in it.
            Err(error) => {
                log::debug!("a request that had begun was not proposed: {error}");
                self.prep.undo();
            }
        }
    }

    /// Prepares a request to its end that holds commits up, as one is to be applied now.
    pub(super) fn prepare_to_the_end(&mut self, view: View<'_>) {
        if let Some(begun) = &mut self.begun {
            let view = View { txn_len_max: begun.kept.txn_len_max(), ..view };
            self.prep.go_on(view, &mut begun.kept, u64::MAX, &mut self.txn);
        }
    }

    /// Closes sessions that own nodes and do not exist, as far as this turn allows.
    pub(super) fn close_dead(&mut self, cx: &mut Cx<'_, '_>) {
        while let Some(session) = self.dead.front().copied() {
            if self.prep.work >= cx.schedule.left_unbilled() {
                self.expiry.postpone();
                return;
            }
            if !self.close_session(cx, session) {
                return;
            }
            self.dead.pop_front();
        }
    }

    /// Closes a session without a client's asking.
    pub(super) fn close_session(&mut self, cx: &mut Cx<'_, '_>, session: i64) -> bool {
        let owner = Owner::Local;
        let ids = Ids::default();
        let op = Opcode::CloseSession;
        let request = Submission { owner, session, cxid: 0, op, record: &[], ids, moved: false };
        self.submit(cx, &request).is_some()
    }
}
