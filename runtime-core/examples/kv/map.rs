//! A replicated key-value map, in memory of every member: the whole application, the same on every
//! runtime. Its clients are the threads of its own process, see `replicas.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc::Sender;

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Application, BadSnapshot, Core, Images, InstallProgress, Instant, Origin, Phase, ServerState,
    SnapshotDigest, Staged, Status, Zxid,
};

#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) entries: BTreeMap<String, String>,
    /// Who waits for a write of this member, by the number that the write was given.
    waiting: HashMap<i64, Sender<()>>,
    /// Leader: writes to be proposed as soon as there is room.
    queue: VecDeque<Vec<u8>>,
    images: Images,
    staged: Staged,
}

impl Map {
    /// Begins a write on any member. `done` hears of its commit; it is dropped if the member loses
    /// its leader first, and then nobody knows.
    pub(crate) fn set(&mut self, core: &mut Core<'_>, key: &str, value: &str, done: Sender<()>) {
        // Unique in the history: no member ever takes another write for its own.
        let number = RandomState::new().build_hasher().finish().cast_signed();
        // The record of a request begins with a session id, a cxid and an opcode.
        let mut record = [number.to_be_bytes(), [0; 8]].concat();
        record.extend_from_slice(format!("{key}={value}").as_bytes());
        if core.status().state == ServerState::Leading {
            self.queue.push_back(record);
            self.propose(core);
        } else if !core.can_propose(record.len()) || !core.request(&record, &[0; 4]) {
            return;
        }
        self.waiting.insert(number, done);
    }

    fn propose(&mut self, core: &mut Core<'_>) {
        while let (Some(record), Some(zxid)) = (self.queue.front(), core.next_zxid()) {
            let (number, text) = (*record.first_chunk().expect("a whole record"), &record[16..]);
            let mut txn = Vec::with_capacity(TxnHeader::LEN + text.len());
            let client_id = i64::from_be_bytes(number);
            TxnHeader { client_id, cxid: 0, zxid, time: 0, kind: 5 }.write(&mut txn);
            txn.extend_from_slice(text);
            if core.propose(&txn).is_err() {
                return; // `handle_timeout` is called when there is room
            }
            self.queue.pop_front();
        }
    }

    fn apply(&mut self, text: &[u8]) {
        if let Some((key, value)) = String::from_utf8_lossy(text).split_once('=') {
            self.entries.insert(key.to_owned(), value.to_owned());
        }
    }
}

impl Application for Map {
    fn deliver(&mut self, _: Instant, _: Zxid, txn: &[u8]) {
        let number = TxnHeader::parse(txn).expect("checked by the core").client_id;
        self.apply(&txn[TxnHeader::LEN..]);
        if let Some(done) = self.waiting.remove(&number) {
            let _ = done.send(()); // who has stopped waiting does not mind
        }
    }

    fn became(&mut self, _: &mut Core<'_>, status: &Status) {
        if status.phase != Phase::Broadcast {
            self.queue.clear();
            self.waiting.clear();
        }
    }

    fn request(&mut self, core: &mut Core<'_>, _: Origin, record: &[u8], _: &[u8]) {
        self.queue.push_back(record.to_vec());
        self.propose(core);
    }

    fn handle_timeout(&mut self, core: &mut Core<'_>) {
        self.propose(core);
    }

    fn snapshot_open(&mut self) -> u32 {
        let text: String = self.entries.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        self.images.open(text.as_bytes())
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.images.read(snapshot, buf)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.images.close(snapshot);
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        Ok(self.staged.install(bytes))
    }

    fn install_commit(&mut self, _: Zxid, _: Option<SnapshotDigest>) {
        let text = self.staged.take();
        self.entries.clear();
        text.split(|byte| *byte == b'\n').for_each(|line| self.apply(line));
    }

    fn install_abort(&mut self) {
        self.staged.take();
    }
}
