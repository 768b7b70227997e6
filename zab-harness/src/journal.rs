//! The smallest useful application: a journal of lines. A client frame is one length byte and as
//! many bytes; every committed line is echoed to the client that sent it. The line `?` is no line but
//! a sync of the leader's own; `!` asks for the number of lines, which is answered from this server's state.

use std::collections::HashMap;

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Application, BadSnapshot, ClientOutput, ConnId, Core, Incoming, InstallProgress, Instant,
    Origin, Phase, ProposeError, ServerState, SnapshotDigest, Status, Zxid,
};

#[derive(Debug, Default)]
pub struct Journal {
    pub lines: Vec<(Zxid, Vec<u8>)>,
    staged: Vec<(Zxid, Vec<u8>)>,
    snapshots: HashMap<u32, (Vec<u8>, usize)>,
    next: u32,
    pub history: Vec<Status>,
    sid: i64,
    serving: bool,
    leading: bool,
    clients: HashMap<ConnId, Vec<u8>>,
    outputs: Vec<ClientOutput>,
    /// Syncs that have ended, and how many lines there were by then.
    pub synced: Vec<(Option<u64>, usize)>,
    /// Every snapshot is refused.
    pub refuses: bool,
    /// Answers to questions about sessions.
    pub revalidated: usize,
    /// How often the leader has asked for sessions.
    pub touches_asked: usize,
    /// Sessions that learners have said to be alive, each time.
    pub touched: usize,
}

impl Journal {
    pub fn text(&self) -> Vec<&[u8]> {
        self.lines.iter().map(|(_, line)| line.as_slice()).collect()
    }

    pub fn submit(&mut self, core: &mut Core<'_>, owner: i64, line: &[u8]) {
        let Some(zxid) = core.next_zxid() else { return };
        let mut txn = Vec::new();
        TxnHeader { client_id: owner, cxid: 0, zxid, time: 0, kind: 5 }.write(&mut txn);
        txn.extend_from_slice(line);
        // At the end of an epoch the line is lost, and an election begins.
        let result = core.propose(&txn);
        assert!(matches!(result, Ok(_) | Err(ProposeError::Rollover)), "{result:?}");
    }
}

/// Which server and connection a line came from, as a session id.
fn owner(core: &Core<'_>, conn: ConnId) -> i64 {
    (core.sid().0 << 32) | i64::from(conn.slot())
}

impl Application for Journal {
    fn deliver(&mut self, _: Instant, zxid: Zxid, txn: &[u8]) {
        let last = self.lines.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        assert!(zxid > last, "{zxid} delivered after {last}");
        let header = TxnHeader::parse(txn).expect("checked by the core");
        let line = &txn[TxnHeader::LEN..];
        self.lines.push((zxid, line.to_vec()));
        for (conn, out) in &mut self.clients {
            if header.client_id == (self.sid << 32) | i64::from(conn.slot()) {
                out.extend_from_slice(line);
                self.outputs.push(ClientOutput::Transmit(*conn));
            }
        }
    }

    fn became(&mut self, core: &mut Core<'_>, status: &Status) {
        self.sid = core.sid().0;
        self.serving = status.phase == Phase::Broadcast;
        self.leading = status.state == ServerState::Leading;
        self.history.push(*status);
    }

    fn request(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8], _: &[u8]) {
        if &data[16..] == b"?" {
            return core.sync_learner(from);
        }
        let owner = i64::from_be_bytes(*data.first_chunk().expect("the core checks 16 bytes"));
        self.submit(core, owner, &data[16..]);
    }

    fn touched(&mut self, _: &mut Core<'_>, _: Origin, sessions: &[u8]) {
        // An id and a time-out each.
        self.touched += sessions.len() / 12;
    }

    fn revalidate(&mut self, core: &mut Core<'_>, from: Origin, data: &[u8]) {
        core.revalidated(from, &[&data[..8], &[1]].concat());
    }

    fn take_touched(&mut self, _: &mut Vec<u8>) {
        self.touches_asked += 1;
    }

    fn revalidated(&mut self, _: &mut Core<'_>, _: &[u8]) {
        self.revalidated += 1;
    }

    fn synced(&mut self, _: &mut Core<'_>, token: Option<u64>) {
        self.synced.push((token, self.lines.len()));
    }

    fn accept(&mut self, _: &mut Core<'_>, _: &Incoming) -> Option<ConnId> {
        self.next += 1;
        let conn = ConnId::client(self.next, 0);
        self.clients.insert(conn, Vec::new());
        Some(conn)
    }

    fn handle_bytes(&mut self, core: &mut Core<'_>, conn: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some((len, rest)) = bytes[used..].split_first() {
            let Some(line) = rest.get(..usize::from(*len)) else { break };
            if !self.serving || !core.can_propose(line.len() + 100) {
                break;
            }
            let owner = owner(core, conn);
            if line == b"!" {
                let text = format!("[{}]", self.lines.len());
                self.clients.entry(conn).or_default().extend_from_slice(text.as_bytes());
                self.outputs.push(ClientOutput::Transmit(conn));
            } else if self.leading && line == b"?" {
                core.sync();
            } else if self.leading {
                self.submit(core, owner, line);
            } else {
                // ZooKeeper's operations: sync and create.
                let operation: i32 = if line == b"?" { 9 } else { 1 };
                let mut data = owner.to_be_bytes().to_vec();
                data.extend_from_slice(&[0; 4]);
                data.extend_from_slice(&operation.to_be_bytes());
                data.extend_from_slice(line);
                core.request(&data, &(-1i32).to_be_bytes());
            }
            used += 1 + line.len();
        }
        used
    }

    fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Some(out) = self.clients.get_mut(&conn) else { return 0 };
        let n = out.len().min(buf.len());
        buf[..n].copy_from_slice(&out[..n]);
        out.drain(..n);
        n
    }

    fn closed(&mut self, _: &mut Core<'_>, conn: ConnId) {
        self.clients.remove(&conn);
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _: &mut Core<'_>) {
        self.outputs.extend(self.clients.keys().copied().map(ClientOutput::Resume));
    }

    fn snapshot_open(&mut self) -> u32 {
        self.next += 1;
        let mut bytes = Vec::new();
        for (zxid, line) in &self.lines {
            bytes.put_i64(zxid.raw());
            bytes.put_buffer(Some(line));
        }
        bytes.put_i64(-1);
        self.snapshots.insert(self.next, (bytes, 0));
        self.next
    }

    fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        let (bytes, at) = self.snapshots.get_mut(&snapshot).expect("an open snapshot");
        let n = (bytes.len() - *at).min(buf.len());
        buf[..n].copy_from_slice(&bytes[*at..*at + n]);
        *at += n;
        n
    }

    fn snapshot_digest(&self, _: u32) -> Option<SnapshotDigest> {
        None
    }

    fn snapshot_longest(&self, _: u32) -> usize {
        let longest = self.lines.iter().map(|(_, line)| line.len()).max();
        longest.map_or(0, |line| 12 + line)
    }

    fn snapshot_close(&mut self, snapshot: u32) {
        self.snapshots.remove(&snapshot).expect("an open snapshot");
    }

    fn install(&mut self, bytes: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        if self.refuses {
            return Err(BadSnapshot);
        }
        let mut consumed = 0;
        loop {
            let mut reader = zab_proto::wire::jute::Reader::new(&bytes[consumed..]);
            let Ok(zxid) = reader.i64() else { break };
            if zxid == -1 {
                consumed += reader.position();
                return Ok(InstallProgress { consumed, done: true });
            }
            match reader.buffer() {
                Ok(Some(line)) => self.staged.push((Zxid::from_raw(zxid), line.to_vec())),
                Ok(None) => return Err(BadSnapshot),
                Err(_) => break,
            }
            consumed += reader.position();
        }
        Ok(InstallProgress { consumed, done: false })
    }

    fn install_commit(&mut self, _: Zxid, _: Option<SnapshotDigest>) {
        self.lines = std::mem::take(&mut self.staged);
    }

    fn install_abort(&mut self) {
        self.staged.clear();
    }
}
