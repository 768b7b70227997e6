//! One learner, as its leader sees it: what it says, and what of that counts.

use core::net::IpAddr;
use core::time::Duration;

use super::beats::Beat;
use super::identity::LearnerIdentity;
use crate::sender::Sender;
use crate::window::Index;
use crate::{ConnId, Epoch, Identity, Instant};

#[derive(Debug)]
pub(super) struct Link {
    /// What it is sent.
    pub(super) to: Sender,
    /// Where it comes from, if the driver knows.
    pub(super) remote: Option<IpAddr>,
    /// It came as an observer to a leader that is not established, and has a vote by a change that this leader
    /// knows of and it does not: its word is needed, or nobody would ever tell it.
    pub(super) promoted: bool,
    /// It has promised a higher epoch than this leader's, and counts to no quorum (rule R19).
    pub(super) guest: bool,
    /// It can join as a guest: it is a member of ours.
    pub(super) can_be_guest: bool,
    /// It belongs to another ensemble, was told so, and is expected to leave.
    pub(super) foreign: bool,
    /// What it says of the ensemble's id, and what it was told.
    pub(super) identity: LearnerIdentity,
    pub(super) told: Option<Identity>,
    /// Its heartbeat, if it wants one, and what it was told of that.
    pub(super) beat: Option<Beat>,
    pub(super) told_beat: Option<Duration>,
    /// Whether it was told that the ensemble can spare it.
    pub(super) told_spare: Option<bool>,
    /// When it has answered something.
    pub(super) answered_at: Instant,
    /// The PING whose answer proves that this server still leads.
    pub(super) proof: Option<u64>,
    /// The PING whose answer shows that it is there when this server makes way.
    pub(super) willing_from: Option<u64>,
    /// The accepted epoch of its introduction.
    pub(super) accepted: Epoch,
    /// Transactions below are acknowledged.
    pub(super) acked: Index,
    /// PINGs that it has answered, in the order in which they were sent.
    pub(super) pongs: u64,
    /// The PING whose answer counts for the running sync round.
    pub(super) round: Option<u64>,
    /// Until when it counts as alive in the leader's quorum test.
    pub(super) alive_until: Instant,
    /// The proposal whose acknowledgement is watched, and since when.
    pub(super) watched: Option<(Index, Instant)>,
}

impl Link {
    pub(super) fn new(
        conn: ConnId,
        silent_at: Instant,
        alive_until: Instant,
        early_len_max: usize,
    ) -> Self {
        Self {
            to: Sender::new(conn, silent_at, early_len_max),
            remote: None,
            promoted: false,
            guest: false,
            can_be_guest: false,
            foreign: false,
            identity: LearnerIdentity::default(),
            told: None,
            beat: None,
            told_beat: None,
            told_spare: None,
            answered_at: Instant::ZERO,
            proof: None,
            willing_from: None,
            accepted: Epoch(0),
            acked: 0,
            pongs: 0,
            round: None,
            alive_until,
            watched: None,
        }
    }

    /// Whether what it says counts to the quorums of this epoch, if it is a voter: its promise, its
    /// acknowledgements, that it is alive.
    pub(super) fn counts(&self) -> bool {
        self.votes() && !self.guest
    }

    /// Whether it is here as a voter. Who that is says the configuration.
    pub(super) fn votes(&self) -> bool {
        !self.to.observer || self.promoted
    }
}

impl AsRef<Sender> for Link {
    fn as_ref(&self) -> &Sender {
        &self.to
    }
}

impl AsMut<Sender> for Link {
    fn as_mut(&mut self) -> &mut Sender {
        &mut self.to
    }
}
