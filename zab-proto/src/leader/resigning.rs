//! A leader that is asked to make way.
//!
//! First it asks its followers for a sign of life, and serves as ever meanwhile: nothing is given up
//! before a quorum, somebody who can lead among them, has answered a PING that was sent after the request.
//! Then it proposes nothing more, and waits until everything that it has proposed is committed, on its own
//! disk, and on that of one of them: its successor. It leaves the role and votes for that one, which has
//! the same history and so cannot lose against anybody.
//!
//! What learners ask in the second half is dropped: it is in no history and never will be, so those of
//! ours submit it again to the next leader. It cannot be left unread, as the acknowledgements that are
//! waited for come after it on the same connection. For that reason there is no way back either: at the
//! end of the time the role ends without a successor.

use super::Leader;
use super::link::Link;
use crate::error::ResignError;
use crate::sender::LearnerStage;
use crate::shared::Shared;
use crate::{Instant, Notice, ReignEnd, Sid};

/// How far a leader is that makes way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resigning {
    /// A quorum is to answer, until this time.
    Asking(Instant),
    /// Nothing is proposed any more. The role ends at this time at the latest.
    Ending(Instant),
}

impl Leader {
    /// Begins to make way.
    pub(crate) fn resign(&mut self, now: Instant, shared: &Shared) -> Result<(), ResignError> {
        if self.standalone || !self.is_established() {
            return Err(ResignError::NotLeading);
        }
        let me = shared.config.sid;
        if !self.fit(now, shared).any(|sid| sid != me && shared.quorums.weight(sid) != 0) {
            return Err(ResignError::NoSuccessor);
        }
        if self.resigning.is_some() {
            return Ok(());
        }
        self.resigning = Some(Resigning::Asking(now + shared.config.tick_time));
        let zxid = self.last_proposed;
        for link in self.links.iter_mut() {
            let asks = link.to.stage == LearnerStage::UpToDate
                && link.counts()
                && !link.to.is_slow_to_take();
            link.willing_from = asks.then(|| {
                link.to.ping(zxid);
                link.to.pings_sent
            });
        }
        Ok(())
    }

    /// Whether nothing is proposed any more.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.resigning, Some(Resigning::Ending(_)))
    }

    pub(super) fn resign_timeout(&self) -> Option<Instant> {
        self.resigning.map(|(Resigning::Asking(until) | Resigning::Ending(until))| until)
    }

    /// Makes way as far as that is possible now. How the reign ends, if it does.
    pub(crate) fn make_way(&mut self, now: Instant, shared: &mut Shared) -> Option<ReignEnd> {
        if let Resigning::Asking(until) = self.resigning? {
            let willing = |link: &Link| link.is_willing();
            if self.is_quorum(shared, willing) && self.candidates(shared).next().is_some() {
                self.resigning = Some(Resigning::Ending(now + shared.config.tick_time));
                // Acknowledgements may stand after requests that waited for room.
                self.links.read_on(shared);
            } else if now >= until {
                self.resigning = None;
                shared.notice(now, Notice::NotResigned);
            }
        }
        let Some(Resigning::Ending(until)) = self.resigning else { return None };
        let history = &shared.history;
        let end = history.end();
        let is_done = history.committed() == end && history.durable() == end;
        let mut complete = self.candidates(shared).filter(|link| link.acked == end);
        match complete.next().filter(|_| is_done) {
            Some(first) => {
                // Of those with the same history the vote for the highest id wins, perhaps that of one that
                // has not answered yet.
                let successor = complete.map(|link| link.to.sid).fold(first.to.sid, Sid::max);
                Some(ReignEnd::Resigned { successor: Some(successor) })
            }
            None => (now >= until).then_some(ReignEnd::Resigned { successor: None }),
        }
    }

    /// Followers that have answered since and can lead.
    fn candidates(&self, shared: &Shared) -> impl Iterator<Item = &Link> {
        let quorums = &shared.quorums;
        self.links.iter().filter(|link| {
            link.is_willing() && quorums.is_voter(link.to.sid) && quorums.weight(link.to.sid) != 0
        })
    }
}

impl Link {
    /// Whether it has answered since this leader was asked to make way.
    fn is_willing(&self) -> bool {
        let answered = self.willing_from.is_some_and(|ping| self.pongs >= ping);
        answered && self.to.stage == LearnerStage::UpToDate && self.counts()
    }
}
