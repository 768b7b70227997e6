//! The replicated state: tree, sessions and how far they have come.

use std::collections::{BTreeMap, VecDeque};

use zab_proto::{SnapshotDigest, Zxid};

use crate::protocol::txn::{DIGEST_VERSION, TxnDigest};
use crate::state::tree::Tree;

/// How many digests [`Database::digest_history`] remembers.
const DIGEST_HISTORY_MAX: usize = 1024;
/// Every so many transactions one is remembered.
const DIGEST_HISTORY_INTERVAL: i64 = 128;

/// Everything that transactions change: the same on every server that applied the same ones.
#[derive(Debug)]
pub struct Database {
    /// The nodes.
    pub tree: Tree,
    /// The global sessions.
    pub sessions: Sessions,
    pub(super) last_zxid: Zxid,
    /// The tree's digest before the transaction that is being applied in steps.
    pub(super) digest_before: Option<u64>,
    digest_history: VecDeque<SnapshotDigest>,
    /// A fuzzy snapshot's digest belongs to the state after this transaction of its future; until
    /// then digests differ.
    pub(super) pending_digest: Option<SnapshotDigest>,
    /// The open snapshots, by the tree's slots for images.
    pub(super) snapshots: [Option<Snapshot>; crate::state::tree::LOCAL_IMAGES_MAX],
    pub(super) next_snapshot: u32,
}

/// An open snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    /// Never given again, so that nobody takes a new snapshot for one that an installation ended.
    pub(super) id: u32,
    pub(super) digest: Option<SnapshotDigest>,
}

/// What came of a comparison of digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestCheck {
    /// There was nothing to compare.
    Skipped,
    /// They are equal.
    Equal,
    /// They differ: replicas have diverged, or something was changed outside the log.
    Mismatch {
        /// What it should be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
}

impl Database {
    /// A new database: the four built-in nodes, no sessions, zxid 0. Digests are kept if `digests`.
    #[must_use]
    pub fn new(digests: bool) -> Self {
        Self::from_parts(Tree::new(digests), Sessions::default())
    }

    pub(super) fn from_parts(tree: Tree, sessions: Sessions) -> Self {
        Self {
            tree,
            sessions,
            last_zxid: Zxid::ZERO,
            digest_before: None,
            digest_history: VecDeque::new(),
            pending_digest: None,
            snapshots: [None; crate::state::tree::LOCAL_IMAGES_MAX],
            next_snapshot: 0,
        }
    }

    /// The last transaction that is applied to its end, or the zxid of the snapshot.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The digest after the last transaction; `None` if digests are off.
    #[must_use]
    pub fn digest(&self) -> Option<SnapshotDigest> {
        let digest = self.digest_before.or_else(|| self.tree.digest())?;
        Some(SnapshotDigest { zxid: self.last_zxid, version: DIGEST_VERSION, digest })
    }

    /// Digests at every 128th transaction, oldest first.
    pub fn digest_history(&self) -> impl Iterator<Item = &SnapshotDigest> {
        self.digest_history.iter()
    }

    /// Writes this server's configuration into `/zookeeper/config`, outside of any transaction.
    /// `time` is in ms since 1970.
    pub fn set_config(&mut self, text: &[u8], version: Zxid, time: i64) {
        self.tree.set_config(text, version, time);
    }

    /// Sessions that own nodes but do not exist. What begins to lead, or serves alone, has to
    /// close them.
    pub fn dead_sessions(&self) -> impl Iterator<Item = i64> {
        self.tree.ephemeral_owners().filter(|&session| self.sessions.get(session).is_none())
    }

    /// Compares the tree's digest with the one that came with transaction `zxid`, which has just
    /// been applied. Digests of other versions are not compared.
    pub fn check_digest(&mut self, zxid: Zxid, digest: Option<TxnDigest>) -> DigestCheck {
        if let Some(pending) = self.pending_digest {
            if pending.zxid != zxid {
                return DigestCheck::Skipped;
            }
            self.pending_digest = None;
            let check = self.compare(pending.version, pending.digest);
            if check != DigestCheck::Equal {
                return check;
            }
        }
        digest.map_or(DigestCheck::Skipped, |digest| self.compare(digest.version, digest.digest))
    }

    /// Whether a transaction's digest is of the kind that this tree keeps.
    pub(super) fn is_comparable(&self, digest: &TxnDigest) -> bool {
        self.compare(digest.version, digest.digest) != DigestCheck::Skipped
    }

    pub(super) fn compare(&self, version: i32, expected: u64) -> DigestCheck {
        match self.tree.digest() {
            Some(actual) if version == DIGEST_VERSION => {
                if actual == expected {
                    DigestCheck::Equal
                } else {
                    DigestCheck::Mismatch { expected, actual }
                }
            }
            _ => DigestCheck::Skipped,
        }
    }

    /// Bookkeeping after a whole transaction.
    pub(super) fn applied(&mut self, zxid: Zxid) {
        self.last_zxid = self.last_zxid.max(zxid);
        if zxid.raw() % DIGEST_HISTORY_INTERVAL != 0 || self.pending_digest.is_some() {
            return;
        }
        if let Some(digest) = self.digest() {
            if self.digest_history.len() == DIGEST_HISTORY_MAX {
                self.digest_history.pop_front();
            }
            self.digest_history.push_back(SnapshotDigest { zxid, ..digest });
        }
    }
}

/// The session table: id and time-out of every global session, in order of the ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sessions {
    timeouts_ms: BTreeMap<i64, i32>,
}

impl Sessions {
    /// A session's time-out in ms, if it exists.
    #[must_use]
    pub fn get(&self, session: i64) -> Option<i32> {
        self.timeouts_ms.get(&session).copied()
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timeouts_ms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timeouts_ms.is_empty()
    }

    /// Id and time-out in ms of each.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i32)> {
        self.timeouts_ms.iter().map(|(&session, &timeout_ms)| (session, timeout_ms))
    }

    pub(super) fn insert(&mut self, session: i64, timeout_ms: i32) {
        self.timeouts_ms.insert(session, timeout_ms);
    }

    pub(super) fn remove(&mut self, session: i64) {
        self.timeouts_ms.remove(&session);
    }
}
