//! Changes of the membership by ZooKeeper's `reconfig`.
//!
//! This server cannot change its membership while it runs. It detects that `reconfig` has changed the
//! ensemble, finishes with the current leader, and then stops voting and following, because quorums of
//! the old membership are no longer valid. It acknowledges the change itself, which may need its
//! acknowledgement, and must be started again with the new list.
//!
//! A configuration's version is the zxid of the `reconfig` that made it. A leader gives its first one
//! the version of its epoch, without changing anything.

use crate::shared::Shared;
use crate::wire::jute::Reader;
use crate::wire::txn::TxnHeader;
use crate::{CloseReason, Ensemble, Violation, Zxid};

/// The type of a transaction that changes the membership.
pub(crate) const RECONFIG: i32 = 16;

/// Heeds a transaction that becomes part of the history.
pub(crate) fn observe_txn(shared: &mut Shared, header: &TxnHeader, txn: &[u8]) {
    if header.kind != RECONFIG {
        return;
    }
    let mut body = Reader::new(txn.get(TxnHeader::LEN..).unwrap_or_default());
    let text = body.ustring().and_then(|_path| body.buffer()).ok().flatten();
    if text.is_some_and(|text| adopt(shared, text) == News::OtherMembers) {
        shared.changing = true;
    }
}

/// Whether a learner with the configuration of `version` has other members than `own` may have. The
/// first version of an epoch changes nothing, and only a leader that this server follows tells it of
/// that: a member that was restarted leads without.
pub(crate) fn is_newer(version: i64, own: &Ensemble) -> bool {
    version > own.version && Zxid::from_raw(version).counter() != 0
}

/// Heeds a configuration that is in force. It comes from a leader that this server has dialled; a
/// vote is no proof of it (rule R20).
///
/// The version of a newer one with the same members becomes this server's: a leader refuses learners
/// whose version is above its own.
pub(crate) fn observe_config(shared: &mut Shared, text: &[u8]) -> Result<(), CloseReason> {
    if adopt(shared, text) == News::OtherMembers {
        shared.outdated = true;
        return Err(CloseReason::Violation(Violation::Reconfigured));
    }
    Ok(())
}

/// A change has come into force.
pub(crate) fn activated(shared: &mut Shared) -> Result<(), CloseReason> {
    if shared.changing {
        shared.outdated = true;
        return Err(CloseReason::Violation(Violation::Reconfigured));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    OtherMembers,
}

fn adopt(shared: &mut Shared, text: &[u8]) -> News {
    let Ok(other) = Ensemble::parse_text(text) else { return News::Nothing };
    let own = &mut shared.config.ensemble;
    if other.version <= own.version {
        return News::Nothing;
    }
    let first = Zxid::from_raw(other.version).counter() == 0;
    if !first && !own.has_same_peers(&other) {
        return News::OtherMembers;
    }
    own.version = other.version;
    News::Nothing
}
