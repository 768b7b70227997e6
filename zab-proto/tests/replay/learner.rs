//! A recorded conversation, and a learner of ours that takes the place of the recorded one.

use std::fs;
use std::path::Path;

use zab_proto::wire::Parsed;
use zab_proto::wire::body::LearnerInfo;
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Channel, CloseReason, Config, ConnId, DigestVerdict, Epoch, Input, Instant, Member, Membership,
    Message, Output, Peer, Recovered, Sid, Zxid,
};

const LIMIT: usize = 2_097_150;
pub(crate) const NOW: Instant = Instant::ZERO;

/// One recorded connection of a learner to its leader, from the beginning.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) file: String,
    pub(crate) learner: Sid,
    pub(crate) leader: Sid,
    pub(crate) said: Vec<(String, Vec<u8>)>,
    pub(crate) heard: Vec<(String, Vec<u8>)>,
}

pub(crate) fn from_hex(pieces: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("hex");
    let mut bytes = Vec::new();
    for piece in pieces.split(',') {
        match piece.split_once('*') {
            Some((one, times)) => {
                bytes.resize(bytes.len() + times.parse::<usize>().expect("count"), byte(one));
            }
            None => bytes.extend((0..piece.len()).step_by(2).map(|at| byte(&piece[at..at + 2]))),
        }
    }
    bytes
}

pub(crate) fn conversations() -> Vec<Conversation> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/quorum");
    let mut all: Vec<Conversation> = Vec::new();
    for entry in fs::read_dir(dir).expect("the recordings") {
        let path = entry.expect("a file").path();
        let mut resumed = true;
        for line in fs::read_to_string(&path).expect("text").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let sid = |at: usize| words[at].parse().map_or(Sid(-1), Sid);
            match words[0] {
                "conn" => {
                    resumed = line.ends_with(" resumed");
                    if !resumed {
                        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                        let (said, heard) = (Vec::new(), Vec::new());
                        all.push(Conversation {
                            file,
                            learner: sid(1),
                            leader: sid(2),
                            said,
                            heard,
                        });
                    }
                }
                "a2b" | "b2a" if !resumed => {
                    let last = all.last_mut().expect("after its conn line");
                    let side = if words[0] == "a2b" { &mut last.said } else { &mut last.heard };
                    side.push((words[1].to_owned(), from_hex(words[2])));
                }
                _ => {}
            }
        }
    }
    all
}

pub(crate) fn packet(bytes: &[u8]) -> Packet<'_> {
    match Packet::parse(bytes, LIMIT) {
        Parsed::Complete { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

/// The learner as it was when the recorded one connected, as far as that can be told: its epochs,
/// and a history that ends where it said.
pub(crate) struct Learner {
    pub(crate) peer: Peer,
    pub(crate) election: Vec<(Sid, ConnId)>,
    pub(crate) quorum: Option<ConnId>,
    pub(crate) said: Vec<u8>,
    pub(crate) delivered: Vec<Zxid>,
    pub(crate) unread: Vec<u8>,
    /// What is left of the snapshot stream that is coming.
    pub(crate) snapshot: usize,
    /// Why the connection to the leader was closed.
    pub(crate) closed: Option<CloseReason>,
    /// Everything logged.
    pub(crate) logged: Vec<(Zxid, Vec<u8>)>,
    /// What must be logged with the snapshot in front of it.
    staged: Vec<(Zxid, Vec<u8>)>,
    /// What the application says of gaps: in front of them, and behind.
    pub(crate) proof: [DigestVerdict; 2],
}

impl Learner {
    pub(crate) fn new(talk: &Conversation) -> Self {
        Self::with(talk, |_| {})
    }

    /// The same, with something else on its disk.
    pub(crate) fn with(talk: &Conversation, change: impl FnOnce(&mut Recovered)) -> Self {
        let first = packet(&talk.said[0].1);
        let promise = packet(&talk.said[1].1);
        let observer = first.kind == PacketType::OBSERVERINFO;
        let third = (1..).map(Sid).find(|sid| *sid != talk.learner && *sid != talk.leader);
        let mut ensemble = Membership::default();
        for sid in [talk.learner, talk.leader, third.expect("endless")] {
            let role = if observer && sid == talk.learner { "observer" } else { "participant" };
            let line = format!("h:{}:{}:{role}", 100 + sid.0, 200 + sid.0);
            ensemble.members.insert(sid, Member::parse(sid, &line).expect("a good line"));
        }
        ensemble.version = LearnerInfo::parse(first.data).config_version;
        let accepted = first.zxid.epoch();
        let epoch = promise.data.and_then(|data| data.first_chunk().copied());
        let epoch = i64::from(i32::from_be_bytes(epoch.expect("an epoch")));
        let mut recovered = Recovered::default();
        recovered.accepted_epoch = Some(accepted);
        // One that had promised the epoch before does not tell its current one.
        let current = if epoch == -1 { accepted.max(promise.zxid.epoch()) } else { Epoch(epoch) };
        recovered.current_epoch = Some(current);
        let plan = talk.heard.get(1).map(|(_, bytes)| packet(bytes));
        let kept = plan.filter(|plan| plan.kind == PacketType::TRUNC).map(|plan| plan.zxid);
        recovered.snapshot = Some(kept.unwrap_or(promise.zxid));
        recovered.snapshot_end = kept.unwrap_or(promise.zxid);
        let cut = kept.map(|kept| kept.counter() + 1..=promise.zxid.counter());
        for counter in cut.into_iter().flatten() {
            let zxid = Zxid::new(promise.zxid.epoch(), counter);
            let mut txn = Vec::new();
            TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, kind: -1 }.write(&mut txn);
            recovered.push(zxid, &txn);
        }
        let mut config = Config::new(talk.learner, ensemble);
        config.trust_empty = true;
        change(&mut recovered);
        let peer = Peer::new(NOW, config, recovered).expect("a good configuration");
        Self {
            peer,
            election: Vec::new(),
            quorum: None,
            said: Vec::new(),
            delivered: Vec::new(),
            unread: Vec::new(),
            snapshot: 0,
            closed: None,
            logged: Vec::new(),
            staged: Vec::new(),
            proof: [DigestVerdict::Absent; 2],
        }
    }

    /// Plays an ensemble that has a leader, until the learner has dialled it.
    pub(crate) fn find_leader(&mut self, talk: &Conversation, epoch: Epoch) {
        let others: Vec<Sid> = self.peer.config().ensemble.voters().collect();
        self.drain();
        for sid in others.into_iter().filter(|sid| *sid != talk.learner) {
            let state = if sid == talk.leader { 2 } else { 1 };
            let mut bytes = Vec::new();
            // The larger id's dial is the one that counts.
            let dialled = |(of, _): &&(Sid, ConnId)| *of == sid && sid < talk.learner;
            let known = self.election.iter().find(dialled).map(|(_, conn)| *conn);
            let conn = known.unwrap_or_else(|| {
                let address = format!("h:{}", 200 + sid.0);
                Handshake { form: Form::V1, sid, text: &address }.write(&mut bytes);
                self.peer.accept(NOW, Channel::Election, None).expect("room")
            });
            let config = self.peer.config().ensemble.text();
            let vote = Notification {
                state,
                leader: talk.leader,
                zxid: Zxid::ZERO,
                election_epoch: 1,
                peer_epoch: epoch,
                version: 2,
                config: Some(config.as_bytes()),
            };
            vote.write_frame(&mut bytes);
            let used = self.peer.handle_bytes(NOW, conn, &bytes).consumed;
            assert_eq!(used, bytes.len());
            self.drain();
        }
        assert!(self.quorum.is_some(), "{}: no dial to the leader", talk.file);
    }

    /// Carries out what the core wants; every write is durable at once.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Append { ticket, zxid, txn } => {
                    self.logged.push((zxid, txn.to_vec()));
                    self.peer.handle_input(NOW, Input::Persisted { through: ticket });
                }
                Output::Stage { zxid, txn } => self.staged.push((zxid, txn.to_vec())),
                Output::Install { ticket, .. } => {
                    self.logged.append(&mut self.staged);
                    self.peer.handle_input(NOW, Input::Persisted { through: ticket });
                }
                Output::SetEpoch { ticket, .. }
                | Output::SetIdentity { ticket, .. }
                | Output::SetConfigurations { ticket, .. }
                | Output::Truncate { ticket, .. } => {
                    self.peer.handle_input(NOW, Input::Persisted { through: ticket });
                }
                Output::Gap { .. } => self.peer.prove_gap(NOW, self.proof[0]),
                Output::Deliver { zxid, .. } => {
                    self.delivered.push(zxid);
                    if self.peer.awaits_proof() {
                        self.peer.prove_gap(NOW, self.proof[1]);
                    }
                }
                Output::Connect { conn, channel, addresses } => {
                    let port: i64 = addresses[2..].parse().expect("as configured");
                    if channel == Channel::Quorum {
                        self.quorum = Some(conn);
                    } else {
                        self.election.push((Sid(port - 200), conn));
                    }
                    self.peer.handle_input(NOW, Input::Opened { conn });
                }
                Output::Transmit { conn } => {
                    let mut buf = [0; 65536];
                    loop {
                        let n = self.peer.poll_transmit(conn, &mut buf);
                        if n == 0 {
                            break;
                        }
                        if Some(conn) == self.quorum {
                            self.said.extend_from_slice(&buf[..n]);
                        }
                    }
                }
                Output::Close { conn, reason } if Some(conn) == self.quorum => {
                    self.closed = Some(reason);
                }
                _ => {}
            }
        }
    }

    /// The leader says something. False if the connection is not read any more.
    pub(crate) fn hear(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.unread.extend_from_slice(piece);
            loop {
                let bytes = std::mem::take(&mut self.unread);
                let conn = self.quorum.expect("dialled");
                let received = self.peer.handle_bytes(NOW, conn, &bytes);
                let mut used = received.consumed;
                match received.message {
                    Some(Message::Ping) => self.peer.pong(&[]),
                    Some(Message::Snapshot { bytes }) => {
                        let n = bytes.len().min(self.snapshot);
                        self.snapshot -= n;
                        used += n;
                        self.peer.snapshot_received(NOW, conn, self.snapshot == 0);
                    }
                    _ => {}
                }
                self.unread = bytes[used..].to_vec();
                self.drain();
                if used == 0 {
                    break;
                }
            }
        }
    }

    /// Kind and zxid of everything said so far, and the bytes of the first two packets.
    pub(crate) fn spoken(&self) -> Vec<(PacketType, Zxid, Vec<u8>)> {
        let mut rest = &self.said[..];
        let mut spoken = Vec::new();
        while let Parsed::Complete { value, len } = Packet::parse(rest, LIMIT) {
            spoken.push((value.kind, value.zxid, rest[..len].to_vec()));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        spoken
    }
}
