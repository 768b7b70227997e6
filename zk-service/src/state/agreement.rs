//! Whether this replica is what the digests of transactions and snapshots say it should be.

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{DigestVerdict, Zxid};

use super::database::DigestCheck;

/// Digests that agreed or differed, and zxids that a leader left out.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    mismatches: u64,
    /// Whether the tree had the digest that the last transaction brought, if it did.
    agreed: DigestVerdict,
    /// The first and the last of the unused zxids delivered just now.
    unused: Option<(Zxid, Zxid)>,
}

impl Agreement {
    pub(super) fn mismatches(&self) -> u64 {
        self.mismatches
    }

    pub(super) fn agreed(&self) -> DigestVerdict {
        self.agreed
    }

    /// One more digest was not that of the tree.
    pub(super) fn count(&mut self) {
        self.mismatches += 1;
    }

    /// The digest of a transaction was compared after it had been applied.
    pub(super) fn compared(
        &mut self,
        header: &TxnHeader,
        zxid: Zxid,
        check: DigestCheck,
        is_serving: bool,
    ) {
        self.agreed = match check {
            DigestCheck::Skipped => DigestVerdict::Absent,
            DigestCheck::Equal => DigestVerdict::Agrees,
            DigestCheck::Mismatch { .. } => DigestVerdict::Differs,
        };
        self.report_unused(header);
        let DigestCheck::Mismatch { expected, actual } = check else { return };
        // A Java leader's snapshot holds more than its zxid says; until the transactions after
        // it are replayed its digest is that of no transaction. What stays wrong shows again.
        if !is_serving {
            log::debug!("digest after {zxid} is {actual:#x}, should be {expected:#x}");
            return;
        }
        self.count();
        let count = self.mismatches;
        // All that follow are wrong, too.
        if count == 1 || count.is_multiple_of(MISMATCHES_BETWEEN_REPORTS) {
            log::error!(
                "digest after {zxid} is {actual:#x}, should be {expected:#x} ({count} so far)"
            );
        }
    }

    /// Says which zxids a leader left out, once the digest after them has shown that nothing is lost.
    fn report_unused(&mut self, header: &TxnHeader) {
        if header.is_unused() {
            self.unused.get_or_insert((header.zxid, header.zxid)).1 = header.zxid;
        } else if let Some((first, last)) = self.unused.take()
            && self.agreed == DigestVerdict::Agrees
        {
            let which = if first == last {
                format!("zxid {first} was")
            } else {
                format!("zxids {first} to {last} were")
            };
            log::warn!(
                "{which} taken by a leader of ZooKeeper 3.8 and never proposed: the digest after {} agrees",
                header.zxid
            );
        }
    }
}

const MISMATCHES_BETWEEN_REPORTS: u64 = 1000;
