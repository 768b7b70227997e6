//! What an operator should hear of, though no connection ends for it.
//!
//! Strangers can cause some of these as often as they like, so each kind is told once a minute at most,
//! with the number of those in between.

use alloc::vec::Vec;
use core::fmt;
use core::mem::discriminant;
use core::time::Duration;

use crate::{CloseReason, EnsembleId, Epoch, Instant, Phase, Sid};

/// Something for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The epochs on this server's disk cannot be right (rule R21).
    DamagedEpochs {
        /// `acceptedEpoch`, if it is there.
        accepted: Option<Epoch>,
        /// `currentEpoch`, if it is there.
        current: Option<Epoch>,
        /// The epoch of the newest transaction.
        history: Epoch,
    },
    /// This server's history is ahead of an established leader's, which refuses it.
    Ahead {
        /// The leader.
        leader: Sid,
        /// Its epoch.
        epoch: Epoch,
        /// The epoch of this server's history.
        own: Epoch,
    },
    /// There is no epoch left to lead.
    NoEpochLeft,
    /// A vote came with a configuration that is newer than this server's. Nobody believes it.
    NewerConfig {
        /// Who claims to have cast the vote.
        from: Sid,
        /// The configuration's version.
        version: i64,
    },
    /// The data directory of a member and that of this server belong to different ensembles (rule R24).
    OtherEnsemble {
        /// The member.
        sid: Sid,
        /// The ensemble of its directory.
        theirs: EnsembleId,
        /// The ensemble of this server's.
        ours: EnsembleId,
    },
    /// This server's directory belongs to this ensemble from now on.
    Identified {
        /// The id, which a quorum of voters has stored.
        id: EnsembleId,
    },
    /// On a leader: a learner's connection has ended.
    LearnerLost {
        /// The learner, or who says so.
        sid: Sid,
        /// It came as an observer.
        observer: bool,
        /// How far it was.
        phase: Phase,
        /// Why this server closed it; `None`: the learner did, or the network.
        reason: Option<CloseReason>,
        /// Bytes of the longest field that it was sent and has not shown to have taken.
        longest: usize,
    },
    /// On a learner: it leaves its leader, or the leader it.
    LeaderLost {
        /// The leader.
        leader: Sid,
        /// How far this server was; [`Phase::Election`]: the leader was not reached.
        phase: Phase,
        /// Why this server closed the connection; `None`: the leader did, or the network.
        reason: Option<CloseReason>,
        /// Bytes of the longest field that it was sent.
        longest: usize,
    },
    /// This server stops leading.
    ReignEnded {
        /// Its epoch, if it was chosen.
        epoch: Epoch,
        /// Why.
        reason: ReignEnd,
    },
    /// On a leader: this process did not run for so long that others may have elected another leader. It
    /// answers no client before a quorum has answered it.
    Away {
        /// For how long it did not run.
        away_ms: u32,
    },
    /// On a leader that was asked to make way: no quorum has shown in time that it is there.
    NotResigned,
    /// One of two voters, which lacks the other: the oracle's answer is another one than before.
    Oracle {
        /// This server is a quorum alone.
        granted: bool,
        /// The voter that it lacks.
        without: Sid,
    },
    /// This server does not serve. [`Peer::waits_for`](crate::Peer::waits_for) says what is missing.
    Waiting {
        /// For how long, in seconds.
        secs: u64,
    },
}

/// Why a leader stops to lead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ReignEnd {
    /// No quorum has come to follow it within `initLimit`.
    NotFollowed,
    /// No quorum was synchronised within `initLimit`.
    NotSynchronised,
    /// No quorum was heard of for `syncLimit`.
    QuorumLost,
    /// No quorum has answered for twice the time after which followers suspect their leader.
    QuorumSilent {
        /// For how long none has.
        silent_ms: u32,
        /// The limit.
        limit_ms: u32,
    },
    /// The own disk completes nothing, while a quorum of followers goes on.
    DiskStalled,
    /// Too many voters want another leader.
    Deserted,
    /// A quorum needs voters that have promised a higher epoch.
    Overtaken,
    /// The counter of the epoch's transactions is used up.
    CounterUsedUp,
    /// It was asked to make way ([`Peer::resign`](crate::Peer::resign)).
    Resigned {
        /// Who has everything that was proposed, and this server's vote. `None`: nobody in time.
        successor: Option<Sid>,
    },
    /// In the new configuration another server leads.
    HandedOver {
        /// That server; `None`: an election decides.
        to: Option<Sid>,
    },
}

impl fmt::Display for ReignEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::QuorumSilent { silent_ms, limit_ms } => {
                return write!(
                    f,
                    "no quorum has answered for {silent_ms} ms (limit {limit_ms} ms)"
                );
            }
            Self::Resigned { successor: Some(successor) } => {
                return write!(
                    f,
                    "it was asked to make way; server {successor} has all that was proposed and gets its \
                     vote"
                );
            }
            Self::Resigned { successor: None } => {
                "it was asked to make way; within a tick no follower had all that was proposed, so that \
                 the election decides"
            }
            Self::HandedOver { to: Some(to) } => {
                return write!(f, "the members have changed, and server {to} leads from now on");
            }
            Self::HandedOver { to: None } => {
                "the members have changed, and this server votes no more"
            }
            Self::DiskStalled => {
                "its disk completes nothing any more, while those of a quorum of followers do \
                 (zab.diskStallMaxMs)"
            }
            Self::NotFollowed => "no quorum has come to follow within initLimit",
            Self::NotSynchronised => "no quorum was synchronised within initLimit",
            Self::QuorumLost => "no quorum was heard of for syncLimit",
            Self::Deserted => "too many voters want another leader",
            Self::Overtaken => "a quorum needs voters that have promised a higher epoch",
            Self::CounterUsedUp => "the counter of its epoch is used up, the next epoch begins",
        };
        f.write_str(text)
    }
}

impl Notice {
    /// Whether an operator has to do something.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self {
            Self::DamagedEpochs { .. }
            | Self::Ahead { .. }
            | Self::NoEpochLeft
            | Self::OtherEnsemble { .. } => true,
            Self::LearnerLost { reason, .. } | Self::LeaderLost { reason, .. } => {
                matches!(reason, Some(CloseReason::TooLong { .. }))
            }
            _ => false,
        }
    }

    /// Whether it tells of the course of things, which in itself is no reason to worry.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        !self.is_error()
            && matches!(
                self,
                Self::LearnerLost { .. }
                    | Self::LeaderLost { .. }
                    | Self::ReignEnded { .. }
                    | Self::Identified { .. }
            )
    }

    /// Whether both say the same, so that telling one of them is enough for a while.
    fn is_like(&self, other: &Self) -> bool {
        let kind = |reason: Option<CloseReason>| reason.as_ref().map(discriminant);
        match (*self, *other) {
            (
                Self::LearnerLost { sid: a, reason: b, longest: c, .. },
                Self::LearnerLost { sid, reason, longest, .. },
            ) => {
                let is_long = |len| len > FIELD_LEN_DEFAULT;
                a == sid && kind(b) == kind(reason) && is_long(c) == is_long(longest)
            }
            (
                Self::LeaderLost { leader: a, phase: b, reason: c, .. },
                Self::LeaderLost { leader, phase, reason, .. },
            ) => a == leader && b == phase && kind(c) == kind(reason),
            (Self::OtherEnsemble { sid: a, .. }, Self::OtherEnsemble { sid, .. }) => a == sid,
            (Self::ReignEnded { reason: a, .. }, Self::ReignEnded { reason, .. }) => {
                discriminant(&a) == discriminant(&reason)
            }
            (Self::Oracle { granted: a, .. }, Self::Oracle { granted, .. }) => a == granted,
            _ => discriminant(self) == discriminant(other),
        }
    }

    /// How often in a row it is told, before only its number is.
    fn burst(&self) -> u32 {
        match self {
            // Every ten seconds, at a first start.
            Self::Waiting { .. } => 7,
            Self::Oracle { .. } => 10,
            _ if self.is_routine() => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DamagedEpochs { accepted, current, history } => {
                let text = |epoch: &Option<Epoch>| epoch.map_or(i64::MIN, |epoch| epoch.0);
                write!(
                    f,
                    "The files acceptedEpoch ({}) and currentEpoch ({}) cannot both be right beside a \
                     history that ends in epoch {history}: this server does not vote until a leader has \
                     synchronised it",
                    text(accepted),
                    text(current),
                )
            }
            Self::Ahead { leader, epoch, own } => write!(
                f,
                "Refused by server {leader}, which leads epoch {epoch}: this server's history is of \
                 epoch {own}. If that leader serves others, this data directory belongs to another \
                 ensemble: stop this server and give it an empty directory",
            ),
            Self::NoEpochLeft => write!(
                f,
                "Epochs end at {}: no leader is possible. Some acceptedEpoch has been damaged",
                Epoch::MAX
            ),
            Self::NewerConfig { from, version } => write!(
                f,
                "A vote of server {from} comes with a configuration of version {version:#x}, which is \
                 newer than this server's. A vote proves nothing, so it is not believed; a leader's \
                 word would be",
            ),
            Self::OtherEnsemble { sid, theirs, ours } => write!(
                f,
                "Server {sid} has the data of another ensemble ({theirs}) than this server ({ours}): they \
                 neither elect nor follow each other. One of the two data directories is in the wrong \
                 place: stop that server and give it an empty one (or, if its data belongs here all the \
                 same, remove its file version-2/ensembleId)",
            ),
            Self::Identified { id } => write!(f, "This server belongs to ensemble {id}"),
            Self::LearnerLost { sid, observer, phase, reason, longest } => {
                let kind = if *observer { "Observer" } else { "Follower" };
                write!(f, "{kind} {sid} has gone (in {}): ", name(*phase))?;
                write_reason(f, *reason, *longest)
            }
            Self::LeaderLost { leader, phase: Phase::Election, reason, longest } => {
                write!(f, "Leader {leader} was not reached: ")?;
                write_reason(f, *reason, *longest)
            }
            Self::LeaderLost { leader, phase, reason, longest } => {
                write!(f, "Leader {leader} is lost (in {}): ", name(*phase))?;
                write_reason(f, *reason, *longest)
            }
            Self::ReignEnded { epoch, reason } => {
                write!(f, "This server leads no longer (epoch {epoch}): {reason}")
            }
            Self::Away { away_ms } => write!(
                f,
                "This server did not run for {away_ms} ms while it led: it answers no client before a \
                 quorum has answered it"
            ),
            Self::NotResigned => f.write_str(
                "This server was asked to make way, and no quorum has answered within a tick: it leads on",
            ),
            Self::Oracle { granted, without } => write_oracle(f, *granted, *without),
            Self::Waiting { secs } => write!(f, "Not serving for {secs} s"),
        }
    }
}

fn write_oracle(f: &mut fmt::Formatter<'_>, granted: bool, without: Sid) -> fmt::Result {
    if granted {
        return write!(
            f,
            "The oracle (oraclePath) lets this server be a quorum without server {without}, of which it hears \
             nothing. What is committed from here on is on this server alone, and is lost if server \
             {without} leads next without it"
        );
    }
    write!(
        f,
        "The oracle (oraclePath) does not let this server be a quorum without server {without}, of which it \
         hears nothing: it does not serve until server {without} is back, or the oracle says 1"
    )
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Election => "election",
        Phase::Discovery => "discovery",
        Phase::Synchronization => "synchronization",
        Phase::Broadcast => "broadcast",
    }
}

/// The other side does not say why it closes. Where it may be that it was sent something longer than
/// it takes, this side says how long that was.
fn write_reason(
    f: &mut fmt::Formatter<'_>,
    reason: Option<CloseReason>,
    longest: usize,
) -> fmt::Result {
    match reason {
        Some(reason) => write!(f, "{reason}"),
        None if longest > FIELD_LEN_DEFAULT => write!(
            f,
            "the connection was closed or refused from there. It was sent {longest} bytes in one piece: \
             does its jute.maxbuffer allow for that?"
        ),
        None => f.write_str("the connection was closed or refused from there"),
    }
}

/// What every server takes whose `jute.maxbuffer` is not set.
const FIELD_LEN_DEFAULT: usize = 0xf_ffff;

/// What was told lately.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    told: Vec<Reported>,
}

#[derive(Debug)]
struct Reported {
    notice: Notice,
    since: Instant,
    times: u32,
    kept_back: u64,
}

impl Notices {
    /// Whether to tell it now, and how many like it were kept back before.
    pub(crate) fn admit(&mut self, now: Instant, notice: &Notice) -> Option<u64> {
        let Some(told) = self.told.iter_mut().find(|told| told.notice.is_like(notice)) else {
            if self.told.len() == TOLD_MAX {
                let oldest = (0..TOLD_MAX).min_by_key(|at| self.told[*at].since);
                self.told.swap_remove(oldest.unwrap_or_default());
            }
            self.told.push(Reported { notice: *notice, since: now, times: 1, kept_back: 0 });
            return Some(0);
        };
        if now.saturating_since(told.since) >= PAUSE {
            (told.since, told.times) = (now, 0);
        } else if told.times >= notice.burst() {
            told.kept_back += 1;
            return None;
        }
        told.times += 1;
        Some(core::mem::take(&mut told.kept_back))
    }
}

const PAUSE: Duration = Duration::from_secs(60);

/// How many different notices are remembered; strangers can invent server ids.
const TOLD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_once_a_minute() {
        let mut notices = Notices::default();
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let newer = |from| Notice::NewerConfig { from: Sid(from), version: 1 };
        assert_eq!(notices.admit(at(1), &newer(1)), Some(0));
        for from in 0..1000 {
            assert_eq!(notices.admit(at(2), &newer(from)), None);
        }
        assert_eq!(notices.admit(at(2), &Notice::NoEpochLeft), Some(0));
        assert_eq!(notices.admit(at(61), &newer(1)), Some(1000));
        assert_eq!(notices.admit(at(122), &newer(1)), Some(0));
    }

    #[test]
    fn what_repeats_is_counted_and_what_is_new_is_told() {
        let mut notices = Notices::default();
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let lost = |sid, reason| Notice::LearnerLost {
            sid: Sid(sid),
            observer: false,
            phase: Phase::Synchronization,
            reason,
            longest: 0,
        };
        let mut admit = |secs, notice| notices.admit(at(secs), &notice);
        for _ in 0..3 {
            assert_eq!(admit(1, lost(1, None)), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(admit(2, lost(1, None)), None);
        }
        assert_eq!(admit(2, lost(1, Some(CloseReason::Silent))), Some(0));
        assert_eq!(admit(2, lost(2, None)), Some(0));
        assert_eq!(admit(61, lost(1, None)), Some(100));
        // A stranger with a thousand names.
        (0..1000).for_each(|sid| assert_eq!(admit(61, lost(sid + 10, None)), Some(0)));
        assert_eq!(notices.told.len(), TOLD_MAX);
    }
}
