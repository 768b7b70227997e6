//! Servers whose directory came up empty and unmarked (rule R14).
//!
//! Such a directory may belong to a server that has acknowledged transactions and lost its disk. If
//! it voted like a new one, it could elect a leader that lacks them. So it votes with a zxid that
//! nobody counts and waits for a leader to synchronise it. The one exception is the birth of an
//! ensemble: once every other voter is heard to be empty as well, there is nothing to be lost.

use alloc::vec::Vec;

use super::algorithm::CastVote;
use crate::{ServerState, Sid, Zxid};

/// The voters that were heard to be empty since this server began to look.
#[derive(Debug, Default)]
pub(super) struct Bootstrap {
    empty: Vec<Sid>,
}

impl Bootstrap {
    /// Takes a voter's notification. The first one of a connection may repeat something said long
    /// ago, when the ensemble was empty; those after it were said to this process. Returns whether
    /// the voter looks for the same proof and must be given a second notification.
    pub(super) fn hear(&mut self, from: Sid, vote: &CastVote, first: bool) -> bool {
        self.empty.retain(|sid| *sid != from || says_empty(vote));
        if !first && says_empty(vote) && !self.empty.contains(&from) {
            self.empty.push(from);
        }
        first && vote.state == ServerState::Looking && vote.vote.zxid == Zxid::NONE
    }

    /// Whether all `voters` but `me` were heard to be empty.
    pub(super) fn is_complete(&self, me: Sid, voters: &[Sid]) -> bool {
        voters.iter().all(|sid| *sid == me || self.empty.contains(sid))
    }
}

/// A vote is never for less than the voter's own history, so an empty vote says that it is empty.
/// Epochs do not matter: at the birth of an ensemble some voters may have promised or begun one
/// when the others crashed, and without a transaction there is nothing to be lost.
fn says_empty(vote: &CastVote) -> bool {
    vote.state == ServerState::Looking && (Zxid::NONE..=Zxid::ZERO).contains(&vote.vote.zxid)
}
