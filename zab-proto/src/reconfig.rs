//! Changes of the membership by ZooKeeper's `reconfig`, as far as a server can heed them that does
//! not change its own members while it runs.
//!
//! A configuration's version is the zxid of the `reconfig` that made it; a leader gives its first one
//! the version of its epoch, without changing anything. A server whose list is older than the one in
//! force would count quorums that are none any more. So it takes no part from the moment on that it
//! hears of other members: it acknowledges nothing that follows, does not vote, and ends.

use crate::shared::Shared;
use crate::wire::jute::Reader;
use crate::wire::txn::TxnHeader;
use crate::{CloseReason, Ensemble, Violation, Zxid};

/// The type of a transaction that changes the membership.
const RECONFIG: i32 = 16;

/// Heeds a transaction before it becomes part of the history.
pub(crate) fn heed_txn(
    shared: &mut Shared,
    header: &TxnHeader,
    txn: &[u8],
) -> Result<(), CloseReason> {
    if header.kind != RECONFIG {
        return Ok(());
    }
    let mut body = Reader::new(&txn[TxnHeader::LEN..]);
    let text = body.ustring().and_then(|_path| body.buffer()).ok().flatten();
    text.map_or(Ok(()), |text| heed(shared, text))
}

/// Heeds a configuration that the leader or its history names.
///
/// The version of a newer one with the same members becomes this server's: a leader refuses learners
/// whose version is above its own.
pub(crate) fn heed(shared: &mut Shared, text: &[u8]) -> Result<(), CloseReason> {
    let Ok(other) = Ensemble::parse_text(text) else { return Ok(()) };
    let own = &mut shared.config.ensemble;
    if other.version <= own.version {
        return Ok(());
    }
    let first = Zxid::from_raw(other.version).counter() == 0;
    if !first && !own.has_same_peers(&other) {
        shared.outdated = true;
        return Err(CloseReason::Violation(Violation::Reconfigured));
    }
    own.version = other.version;
    Ok(())
}
