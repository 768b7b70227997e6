//! What may be believed of a server's history.

use crate::{Epoch, Zxid};

/// What may be believed of this server's history, and so what its ACKEPOCH says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Whole: reported as it is.
    Whole,
    /// Whole, but what a leader sent in addition could not be used: the next one is asked for a
    /// snapshot.
    WantsSnapshot,
    /// May lack transactions after a gap that was not proven. Not reported and not delivered any
    /// further; the promise counts, as servers that may be whole must be able to elect a leader.
    Doubted,
    /// Not known to be the right one, as the directory was empty: not to be counted until a leader has
    /// synchronised this server (rule R14).
    Untrusted,
    /// Doubted, and the application has gone past the gap: neither reported, counted nor delivered any
    /// further until a snapshot has replaced it.
    Broken,
}

impl Standing {
    /// Whether the history may be counted (rule R14).
    pub(crate) fn is_trusted(self) -> bool {
        matches!(self, Self::Whole | Self::WantsSnapshot | Self::Doubted)
    }

    /// Whether it may lack transactions.
    pub(crate) fn is_doubted(self) -> bool {
        matches!(self, Self::Doubted | Self::Broken)
    }

    /// A leader has synchronised this server, or the whole ensemble was seen to be empty.
    pub(super) fn trusted(self) -> Self {
        match self {
            Self::Untrusted => Self::Whole,
            Self::Broken => Self::Doubted,
            Self::Whole | Self::WantsSnapshot | Self::Doubted => self,
        }
    }

    /// There is a gap that nobody will prove.
    pub(super) fn doubted(self) -> Self {
        match self {
            Self::Whole | Self::WantsSnapshot | Self::Doubted => Self::Doubted,
            Self::Untrusted | Self::Broken => Self::Broken,
        }
    }

    /// What a leader sent cannot be used. Whoever is sent a snapshot anyway need not ask.
    pub(super) fn wants_snapshot(self) -> Self {
        match self {
            Self::Whole | Self::WantsSnapshot => Self::WantsSnapshot,
            Self::Doubted | Self::Untrusted | Self::Broken => self,
        }
    }

    /// The leader that was asked for a snapshot sends something else.
    pub(super) fn denied(self) -> Self {
        match self {
            Self::WantsSnapshot => Self::Whole,
            Self::Whole | Self::Doubted | Self::Untrusted | Self::Broken => self,
        }
    }

    /// This history is the ensemble's.
    pub(super) fn established(self) -> Self {
        match self {
            Self::Whole | Self::WantsSnapshot | Self::Doubted => Self::Whole,
            Self::Untrusted | Self::Broken => Self::Untrusted,
        }
    }

    /// The last zxid and the current epoch in ACKEPOCH, for a history that ends at `last` and a
    /// `promise` of -1 or the current epoch. What is sent in return must not build on a history that
    /// is not reported.
    pub(crate) fn ack_epoch(self, last: Zxid, promise: Epoch) -> (Zxid, Epoch) {
        match self {
            Self::Whole => (last, promise),
            Self::WantsSnapshot => (Zxid::ZERO, promise),
            Self::Doubted => (Zxid::NONE, promise),
            Self::Untrusted | Self::Broken => (Zxid::NONE, Epoch(-1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three questions of a history, and how each event changes the answers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Answers {
        trusted: bool,
        doubted: bool,
        wanted: bool,
    }

    type Event = (fn(Standing) -> Standing, fn(&mut Answers));

    const EVENTS: [Event; 6] = [
        (Standing::trusted, |a| a.trusted = true),
        (Standing::doubted, |a| a.doubted = true),
        (Standing::wants_snapshot, |a| a.wanted = a.trusted),
        (Standing::denied, |a| a.wanted = false),
        (Standing::established, |a| (a.doubted, a.wanted) = (false, false)),
        // The application has gone past a gap.
        (|_| Standing::Broken, |a| *a = Answers { trusted: false, doubted: true, wanted: false }),
    ];

    const DENIED: usize = 3;

    fn told(answers: Answers) -> (Zxid, Epoch) {
        let (last, promise) = (Zxid::from_raw(7), Epoch(3));
        match answers {
            Answers { trusted: false, .. } => (Zxid::NONE, Epoch(-1)),
            Answers { doubted: true, .. } => (Zxid::NONE, promise),
            Answers { wanted: true, .. } => (Zxid::ZERO, promise),
            Answers { .. } => (last, promise),
        }
    }

    /// All sequences of seven events.
    #[test]
    fn five_states_are_all_that_the_answers_can_say() {
        for code in 0..6_usize.pow(7) {
            let mut standing = Standing::Untrusted;
            let mut answers = Answers { trusted: false, doubted: false, wanted: false };
            let mut rest = code;
            for _ in 0..7 {
                let event = rest % 6;
                rest /= 6;
                // Only a request that decides what is told can be denied.
                if event == DENIED && standing != Standing::WantsSnapshot {
                    continue;
                }
                let (step, change) = EVENTS[event];
                standing = step(standing);
                change(&mut answers);
                let seen = (standing.is_trusted(), standing.is_doubted());
                assert_eq!(seen, (answers.trusted, answers.doubted));
                let ack = standing.ack_epoch(Zxid::from_raw(7), Epoch(3));
                assert_eq!(ack, told(answers), "{answers:?}");
            }
        }
    }
}
