//! Storage in memory, durable at once or when told to.

use zab_proto::{
    Application, DigestVerdict, Epoch, EpochKind, Identity, Recovered, SnapshotDigest, Storage,
    Ticket, Zxid,
};

#[derive(Clone, Debug)]
enum Op {
    Epoch(EpochKind, Epoch),
    Identity(Identity),
    Configurations(Vec<String>),
    Append(Zxid, Vec<u8>),
    Truncate(Zxid),
    Install(Zxid, Vec<u8>, Vec<(Zxid, Vec<u8>)>),
}

/// What survives a restart.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub accepted: Option<Epoch>,
    pub current: Option<Epoch>,
    pub identity: Option<Identity>,
    pub configurations: Vec<String>,
    pub snapshot: Option<(Zxid, Vec<u8>)>,
    pub log: Vec<(Zxid, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub struct Memory {
    pub image: Image,
    queue: Vec<(Ticket, Op)>,
    stage: Vec<u8>,
    staged_txns: Vec<(Zxid, Vec<u8>)>,
    snapshot: Option<(Zxid, Vec<u8>)>,
    /// Logs that are being read: the last record read and the last one wanted, by name.
    reading: Vec<(u32, Zxid, Zxid)>,
    readings: u32,
    /// Writes stay in the queue.
    pub stalled: bool,
    /// Only so many writes more are done.
    pub writes_left: Option<usize>,
    pub snapshot_every: Option<usize>,
    /// The log is read from its beginning for whoever has nothing (Apache's does so when it is whole).
    pub log_from_start: bool,
    /// What recovery says of zxids that were not used.
    pub unused_proven: DigestVerdict,
    /// No piece of the server's own snapshot is taken.
    pub snapshot_stalled: bool,
}

impl Memory {
    /// Makes everything queued durable; the highest ticket, if there was anything.
    pub fn flush(&mut self) -> Option<Ticket> {
        if self.stalled {
            return None;
        }
        let count = self.writes_left.unwrap_or(usize::MAX).min(self.queue.len());
        self.writes_left = self.writes_left.map(|left| left - count);
        let mut last = None;
        for (ticket, op) in self.queue.drain(..count) {
            last = Some(ticket);
            match op {
                Op::Epoch(EpochKind::Accepted, epoch) => self.image.accepted = Some(epoch),
                Op::Epoch(EpochKind::Current, epoch) => self.image.current = Some(epoch),
                Op::Identity(identity) => self.image.identity = Some(identity),
                Op::Configurations(texts) => self.image.configurations = texts,
                Op::Append(zxid, txn) => self.image.log.push((zxid, txn)),
                Op::Truncate(after) => self.image.log.retain(|(zxid, _)| *zxid <= after),
                Op::Install(zxid, bytes, txns) => {
                    self.image.snapshot = Some((zxid, bytes));
                    self.image.log = txns;
                }
            }
        }
        last
    }

    /// A kill that loses what is not durable.
    pub fn lose_queue(&mut self) {
        self.queue.clear();
        self.discard_stage();
        self.snapshot = None;
    }

    pub fn recover(&self, app: &mut impl Application) -> Recovered {
        let image = &self.image;
        let mut recovered = Recovered::default();
        recovered.accepted_epoch = image.accepted;
        recovered.current_epoch = image.current;
        recovered.identity = image.identity;
        recovered.configurations.clone_from(&image.configurations);
        recovered.unused_proven = self.unused_proven;
        if let Some((zxid, bytes)) = &image.snapshot {
            assert!(app.install(bytes).expect("a good snapshot").done);
            app.install_commit(*zxid, None);
            recovered.snapshot = Some(*zxid);
            recovered.snapshot_end = *zxid;
        }
        for (zxid, txn) in &image.log {
            recovered.push(*zxid, txn);
        }
        recovered
    }

    fn push(&mut self, ticket: Ticket, op: Op) {
        let last = self.queue.last().map_or(Ticket(0), |(ticket, _)| *ticket);
        assert!(ticket > last, "tickets rise");
        self.queue.push((ticket, op));
    }
}

impl Storage for Memory {
    fn set_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch) {
        self.push(ticket, Op::Epoch(kind, epoch));
    }

    fn set_identity(&mut self, ticket: Ticket, identity: Identity) {
        self.push(ticket, Op::Identity(identity));
    }

    fn set_configurations(&mut self, ticket: Ticket, texts: &[String]) {
        self.push(ticket, Op::Configurations(texts.to_vec()));
    }

    fn append(&mut self, ticket: Ticket, zxid: Zxid, txn: &[u8]) {
        self.push(ticket, Op::Append(zxid, txn.to_vec()));
    }

    fn truncate(&mut self, ticket: Ticket, after: Zxid) {
        self.snapshot = None;
        self.push(ticket, Op::Truncate(after));
    }

    fn stage(&mut self, piece: &[u8]) {
        self.stage.extend_from_slice(piece);
    }

    fn stage_txn(&mut self, zxid: Zxid, txn: &[u8]) {
        self.staged_txns.push((zxid, txn.to_vec()));
    }

    fn discard_stage(&mut self) {
        self.stage.clear();
        self.staged_txns.clear();
    }

    fn install(&mut self, ticket: Ticket, zxid: Zxid, _: Option<SnapshotDigest>) {
        self.snapshot = None;
        let stage = std::mem::take(&mut self.stage);
        let txns = std::mem::take(&mut self.staged_txns);
        self.push(ticket, Op::Install(zxid, stage, txns));
    }

    fn snapshot_due(&self) -> bool {
        self.snapshot.is_none()
            && self.snapshot_every.is_some_and(|every| self.image.log.len() >= every)
    }

    fn snapshot_begin(&mut self, zxid: Zxid) {
        self.snapshot = Some((zxid, Vec::new()));
    }

    fn snapshot_room(&self) -> usize {
        if self.snapshot_stalled { 0 } else { usize::MAX }
    }

    fn snapshot_piece(&mut self, piece: &[u8]) {
        self.snapshot.as_mut().expect("begun").1.extend_from_slice(piece);
    }

    fn snapshot_finish(&mut self, _: Option<SnapshotDigest>) {
        let (zxid, bytes) = self.snapshot.take().expect("begun");
        self.image.log.retain(|(logged, _)| *logged > zxid);
        self.image.snapshot = Some((zxid, bytes));
    }

    fn log_open(&mut self, after: Zxid, through: Zxid, any_length: bool) -> Option<u32> {
        let log = &self.image.log;
        let has = |wanted: Zxid| log.iter().any(|(zxid, _)| *zxid == wanted);
        let whole = self.image.snapshot.is_none() && after == Zxid::ZERO;
        let from_start = whole && (any_length || self.log_from_start);
        let snapshot = self.image.snapshot.as_ref().is_some_and(|(zxid, _)| *zxid == after);
        if !has(through) || !(from_start || snapshot || has(after)) {
            return None;
        }
        self.readings += 1;
        self.reading.push((self.readings, after, through));
        Some(self.readings)
    }

    fn log_read(&mut self, name: u32, txn: &mut Vec<u8>) -> Option<Zxid> {
        let (_, last, through) = self.reading.iter_mut().find(|open| open.0 == name)?;
        let mut log = self.image.log.iter();
        let (zxid, bytes) = log.find(|(zxid, _)| *zxid > *last && zxid <= through)?;
        *last = *zxid;
        txn.clone_from(bytes);
        Some(*zxid)
    }

    fn log_close(&mut self, name: u32) {
        self.reading.retain(|open| open.0 != name);
    }
}
