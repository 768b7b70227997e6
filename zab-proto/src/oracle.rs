//! The oracle of two voters (ZooKeeper's `oraclePath`, ZOOKEEPER-3922): what is known of its answer.
//!
//! Neither of two voters is a quorum without the other. Where an oracle is configured, a server that lacks
//! the other asks it, again and again, and as long as the answer is yes it is a quorum alone: it is elected,
//! establishes its epoch, commits and stays leader without the other ([`Quorums`](crate::quorums::Quorums)).
//!
//! Whoever asks has to be short of the other voter: a leader of a follower that is synchronised, a server that
//! looks for a leader of any word from it in this election. As soon as it is there the answer counts for
//! nothing. An answer is good for a tick, as the oracle may have granted the same to the other meanwhile; after
//! a pause of this process it is asked anew.

use alloc::vec::Vec;
use core::time::Duration;

use crate::{Instant, Sid};

/// What is known of the oracle's answer.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The voters that this server lacks, ascending: one, and two only while the members change.
    lacking: Vec<Sid>,
    /// When to ask, if no question is open.
    ask_at: Option<Instant>,
    /// When the open question was asked.
    asked_at: Option<Instant>,
    /// Its answer is too old to be believed.
    outdated: bool,
    /// There was an answer for whom it is asked now.
    answered: bool,
    /// Until when the last answer counts, if it was yes.
    granted_until: Option<Instant>,
    /// The answer that the operator knows of.
    told: Option<bool>,
}

impl Oracle {
    /// The voters that this server lacks now. Of others than before it asks after `patience`.
    pub(crate) fn lack(&mut self, now: Instant, lacking: Vec<Sid>, patience: Duration) {
        if lacking.is_empty() {
            self.told = None;
        }
        if lacking == self.lacking {
            return;
        }
        if !lacking.iter().all(|sid| self.lacking.contains(sid)) {
            self.doubt();
            self.ask_at = Some(now + patience);
        }
        self.lacking = lacking;
        if self.lacking.is_empty() {
            self.rest();
        }
    }

    /// There is nothing to ask for at present.
    pub(crate) fn rest(&mut self) {
        self.lacking.clear();
        self.ask_at = None;
        self.doubt();
    }

    /// What was answered, or is being answered, counts no more.
    fn doubt(&mut self) {
        (self.answered, self.granted_until) = (false, None);
        self.outdated = self.asked_at.is_some();
    }

    /// This process was away: it is asked anew, at once.
    pub(crate) fn was_away(&mut self, now: Instant) {
        if !self.lacking.is_empty() {
            self.doubt();
            self.ask_at = Some(now);
        }
    }

    /// Without whom this server is a quorum.
    pub(crate) fn granted(&mut self, now: Instant) -> &[Sid] {
        self.granted_until.take_if(|until| *until <= now);
        if self.granted_until.is_some() { &self.lacking } else { &[] }
    }

    /// Whether it is to be asked now. The question is open then.
    pub(crate) fn asks(&mut self, now: Instant) -> bool {
        if self.asked_at.is_some() || self.ask_at.take_if(|at| *at <= now).is_none() {
            return false;
        }
        (self.asked_at, self.outdated) = (Some(now), false);
        true
    }

    /// It has answered. Whether that is news for an operator: of the voter it concerns.
    pub(crate) fn answer(&mut self, now: Instant, granted: bool, tick: Duration) -> Option<Sid> {
        let asked_at = self.asked_at.take()?;
        let first = *self.lacking.first()?;
        if core::mem::take(&mut self.outdated) || asked_at + tick <= now {
            self.ask_at = Some(self.ask_at.unwrap_or(now));
            return None;
        }
        self.ask_at = Some(asked_at + tick / 2);
        self.answered = true;
        self.granted_until = granted.then_some(asked_at + tick);
        (self.told.replace(granted) != Some(granted)).then_some(first)
    }

    /// Whether the first answer may come any moment, so that nothing is to be concluded from a missing quorum.
    pub(crate) fn is_awaited(&self, now: Instant, tick: Duration) -> bool {
        let due = self.ask_at.is_some_and(|at| at <= now);
        !self.answered && (due || self.asked_at.is_some_and(|at| now < at + tick / 2))
    }

    /// Whether it was asked, and has said no.
    pub(crate) fn denies(&self) -> bool {
        !self.lacking.is_empty() && self.granted_until.is_none() && self.told == Some(false)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ask_at = self.ask_at.filter(|_| self.asked_at.is_none());
        ask_at.into_iter().chain(self.granted_until).min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const TICK: Duration = Duration::from_millis(2000);
    const PATIENCE: Duration = Duration::from_millis(200);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn lacking() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.lack(at(0), vec![Sid(2)], PATIENCE);
        oracle
    }

    #[test]
    fn an_answer_counts_for_a_tick_and_is_renewed_in_half_of_it() {
        let mut oracle = lacking();
        assert!(!oracle.asks(at(199)) && oracle.poll_timeout() == Some(at(200)));
        assert!(oracle.asks(at(200)) && !oracle.asks(at(300)), "one question at a time");
        assert_eq!(oracle.poll_timeout(), None);
        assert_eq!(oracle.answer(at(210), true, TICK), Some(Sid(2)));
        assert_eq!(oracle.granted(at(210)), [Sid(2)]);
        assert_eq!(oracle.poll_timeout(), Some(at(1200)));
        assert!(oracle.asks(at(1200)));
        assert_eq!(oracle.answer(at(1200), true, TICK), None, "no news");
        assert_eq!(oracle.granted(at(3199)), [Sid(2)]);
        assert_eq!(oracle.granted(at(3200)), []);
        assert_eq!(oracle.answer(at(3200), true, TICK), None, "nobody has asked");
        assert_eq!(oracle.granted(at(3200)), []);
    }

    #[test]
    fn a_no_ends_it_at_once_and_both_are_news_but_once() {
        let mut oracle = lacking();
        let mut ask = |ms, granted| {
            assert!(oracle.asks(at(ms)));
            let news = oracle.answer(at(ms), granted, TICK).is_some();
            (news, oracle.granted(at(ms)).len(), oracle.denies())
        };
        assert_eq!(ask(200, false), (true, 0, true));
        assert_eq!(ask(1200, false), (false, 0, true));
        assert_eq!(ask(2200, true), (true, 1, false));
        assert_eq!(ask(3200, false), (true, 0, true));
        assert!(!oracle.is_awaited(at(4200), TICK), "it has said no");
    }

    #[test]
    fn what_is_answered_late_or_for_another_moment_does_not_count() {
        // The file is on a disk that hangs.
        let mut oracle = lacking();
        assert!(oracle.asks(at(200)));
        assert!(oracle.is_awaited(at(1199), TICK) && !oracle.is_awaited(at(1200), TICK));
        assert_eq!(oracle.answer(at(2200), true, TICK), None);
        assert_eq!(oracle.granted(at(2200)), []);
        assert!(oracle.asks(at(2200)), "and is asked again");
        // The other came and went.
        oracle.lack(at(2201), vec![], PATIENCE);
        oracle.lack(at(2202), vec![Sid(2)], PATIENCE);
        assert_eq!(oracle.answer(at(2203), true, TICK), None);
        assert_eq!(oracle.granted(at(2203)), []);
        assert!(!oracle.asks(at(2401)) && oracle.asks(at(2402)));
        // The process was away while it was asked.
        oracle.was_away(at(2500));
        assert!(oracle.is_awaited(at(2500), TICK));
        assert_eq!(oracle.answer(at(2501), true, TICK), None);
        assert!(oracle.asks(at(2501)));
        assert_eq!(oracle.answer(at(2502), true, TICK), Some(Sid(2)));
        assert_eq!(oracle.granted(at(2502)), [Sid(2)]);
        oracle.was_away(at(2600));
        assert_eq!(oracle.granted(at(2600)), []);
    }

    #[test]
    fn it_is_granted_for_whom_it_was_asked() {
        let mut oracle = lacking();
        assert!(oracle.asks(at(200)));
        assert_eq!(oracle.answer(at(200), true, TICK), Some(Sid(2)));
        oracle.lack(at(300), vec![Sid(2), Sid(3)], Duration::ZERO);
        assert_eq!(oracle.granted(at(300)), []);
        assert!(oracle.asks(at(300)));
        oracle.answer(at(301), true, TICK);
        assert_eq!(oracle.granted(at(301)), [Sid(2), Sid(3)]);
        oracle.lack(at(302), vec![Sid(3)], Duration::ZERO);
        assert_eq!(oracle.granted(at(302)), [Sid(3)], "it goes on without the one");
        oracle.lack(at(303), vec![], Duration::ZERO);
        assert_eq!((oracle.granted(at(303)).len(), oracle.poll_timeout()), (0, None));
    }
}
