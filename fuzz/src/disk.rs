//! A disk that writes when it is told to, and knows what would survive a power cut.

use std::collections::{BTreeMap, VecDeque};

use zab_proto::{Epoch, EpochKind, Identity, Ticket, Zxid};

/// One ordered write.
#[derive(Clone, Debug)]
pub enum Op {
    /// An epoch file.
    Epoch(EpochKind, Epoch),
    /// The id of the ensemble.
    Identity(Identity),
    /// Which configurations count.
    Configurations,
    /// A log record.
    Append(Zxid, Vec<u8>),
    /// The log ends here.
    Truncate(Zxid),
    /// A snapshot instead of the log, and what follows it.
    Install(Zxid, Vec<(Zxid, Vec<u8>)>),
}

/// Part of a log.
pub type Records = VecDeque<(Zxid, Vec<u8>)>;

/// What is on a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// `acceptedEpoch`.
    pub accepted: Epoch,
    /// `currentEpoch`.
    pub current: Epoch,
    /// Which ensemble it belongs to.
    pub identity: Option<Identity>,
    /// zxid of the snapshot.
    pub snapshot: Zxid,
    /// Transactions above it.
    pub log: BTreeMap<Zxid, Vec<u8>>,
}

impl Image {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Epoch(EpochKind::Accepted, epoch) => {
                assert!(epoch >= self.accepted, "a promise is taken back");
                self.accepted = epoch;
            }
            Op::Epoch(EpochKind::Current, epoch) => {
                assert!(epoch <= self.accepted, "an epoch that was not accepted");
                self.current = epoch;
            }
            Op::Identity(identity) => self.identity = Some(identity),
            Op::Configurations => {}
            Op::Append(zxid, txn) => {
                assert!(zxid > self.last(), "{zxid} after {}", self.last());
                self.log.insert(zxid, txn);
            }
            Op::Truncate(after) => self.log.retain(|zxid, _| *zxid <= after),
            Op::Install(zxid, txns) => {
                self.snapshot = zxid;
                self.log = txns.into_iter().collect();
                assert!(self.log.keys().all(|staged| *staged > zxid), "behind {zxid}");
            }
        }
    }

    /// The newest zxid.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.log.last_key_value().map_or(self.snapshot, |(zxid, _)| *zxid)
    }

    /// The transactions behind `after` up to `through`, if the log has both.
    #[must_use]
    pub fn between(&self, after: Zxid, through: Zxid) -> Option<Records> {
        let whole = after < through && self.log.contains_key(&after);
        let records = self.log.iter().filter(|(zxid, _)| **zxid > after && **zxid <= through);
        (whole && self.log.contains_key(&through))
            .then(|| records.map(|(zxid, txn)| (*zxid, txn.clone())).collect())
    }

    /// Whether a transaction is there.
    #[must_use]
    pub fn holds(&self, zxid: Zxid) -> bool {
        zxid <= self.snapshot || self.log.contains_key(&zxid)
    }
}

/// What is written, what is durable of it, and what is on its way.
#[derive(Debug, Default)]
pub struct Disk {
    /// With all writes done.
    pub logical: Image,
    /// With those done that were reported.
    pub durable: Image,
    queue: VecDeque<(Ticket, Op)>,
    last: Ticket,
}

impl Disk {
    /// Puts something there before the peer starts.
    pub fn apply(&mut self, op: Op) {
        self.durable.apply(op);
    }

    /// Takes the next write.
    pub fn push(&mut self, ticket: Ticket, op: Op) {
        assert!(ticket > self.last, "{ticket:?} after {:?}", self.last);
        self.last = ticket;
        self.logical.apply(op.clone());
        self.queue.push_back((ticket, op));
    }

    /// Makes up to `writes` more durable; the ticket of the last.
    pub fn persist(&mut self, writes: usize) -> Option<Ticket> {
        let mut through = None;
        for _ in 0..writes {
            let Some((ticket, op)) = self.queue.pop_front() else { break };
            self.durable.apply(op);
            through = Some(ticket);
        }
        through
    }
}
